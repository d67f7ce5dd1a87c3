//! Events on their way to the user.

use heapless::Deque;

use super::status::IkeEvent;

/// How many events can wait.
const LEN: usize = 16;
/// How many events one message or timer makes at most.
const AT_ONCE: usize = 6;

/// Events on their way to the user, who takes them all after every call.
#[derive(Default)]
pub(crate) struct Events(Deque<IkeEvent, LEN>);

impl Events {
    /// Adds one. If the user does not take them, the oldest is lost.
    pub(crate) fn push(&mut self, event: IkeEvent) {
        if self.0.is_full() {
            self.0.pop_front();
        }
        // There is room now.
        let _ = self.0.push_back(event);
    }

    pub(crate) fn pop(&mut self) -> Option<IkeEvent> {
        self.0.pop_front()
    }

    /// Whether there is room for those of one more message or timer.
    pub(crate) fn has_room(&self) -> bool {
        self.0.len() + AT_ONCE <= LEN
    }
}
