//! IKE messages between the sockets, where they come in batches among ESP packets, and IKE.

use simplevpn_core::ike::IkePath;

/// Bytes of messages that fit.
const ROOM: usize = 32 * 1024;
/// Messages that fit.
const MESSAGES: usize = 32;

/// Messages that have come, in memory taken once: what a stranger sends costs none.
pub(in crate::daemon) struct Inbox {
    bytes: Box<[u8]>,
    used: usize,
    /// The path and the end of each.
    messages: Vec<(IkePath, usize)>,
}

impl Inbox {
    pub(in crate::daemon) fn new() -> Inbox {
        let bytes = vec![0; ROOM].into_boxed_slice();
        Inbox { bytes, used: 0, messages: Vec::with_capacity(MESSAGES) }
    }

    /// Keeps a copy of a message; false if there is no room.
    pub(in crate::daemon) fn push(&mut self, path: IkePath, message: &[u8]) -> bool {
        let end = self.used + message.len();
        let Some(room) = self.bytes.get_mut(self.used..end) else { return false };
        if self.messages.len() == MESSAGES {
            return false;
        }
        room.copy_from_slice(message);
        self.messages.push((path, end));
        self.used = end;
        true
    }

    /// Hands each message to `take`, and forgets it.
    pub(super) fn drain(&mut self, take: &mut dyn FnMut(&IkePath, &mut [u8])) {
        let mut start = 0;
        for (path, end) in self.messages.drain(..) {
            if let Some(message) = self.bytes.get_mut(start..end) {
                take(&path, message);
            }
            start = end;
        }
        self.used = 0;
    }

    pub(in crate::daemon) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_comes_out_in_order() {
        let path = |port| IkePath {
            local: ([192, 0, 2, 1], 500).into(),
            remote: ([192, 0, 2, 2], port).into(),
            natt: false,
        };
        let mut inbox = Inbox::new();
        assert!(inbox.is_empty());
        for round in 0..2 {
            assert!(inbox.push(path(1), b"first"));
            assert!(inbox.push(path(2), &vec![7; ROOM - 5]));
            assert!(!inbox.push(path(3), b"x"));
            let mut taken = Vec::new();
            inbox.drain(&mut |path, message| taken.push((path.remote.port(), message.len())));
            assert_eq!(taken, [(1, 5), (2, ROOM - 5)], "{round}");
            assert!(inbox.is_empty());
        }
        assert_eq!((0..100).filter(|_| inbox.push(path(1), b"x")).count(), MESSAGES);
    }
}
