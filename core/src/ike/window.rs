//! Message ids, our request until it is answered, and the answer that the peer may ask for again
//! (RFC 7296 §2.1–2.3). The window is 1: each end has one request on the way.
//!
//! A request is sent again as it was, bit for bit, with twice the pause each time; an answer is
//! only sent again when the request comes again. What does not fit one datagram is kept and sent in
//! fragments (RFC 7383), all of them each time.

use core::time::Duration;

use super::path::IkePath;
use super::wire::NoRoom;
use crate::time::Instant;

/// How long our own datagrams are at most, in bytes: a message, or a fragment of one. With an outer
/// header of IPv6, one of UDP and the non-ESP marker they fit the smallest MTU of IPv6.
///
/// With IPv4 they are as long, although RFC 7383 §2.5.1 thinks of 576 bytes for a path that nothing
/// is known of: no path that people put a tunnel on is as narrow (1280 is strongSwan's default as
/// well), and three datagrams in the place of one are lost three times as often.
pub const MAX_MESSAGE_LEN: usize = 1280 - 40 - 8 - 4;
/// How many datagrams one message of ours takes at most. Storage for more would be there for each
/// IKE SA, and hold no more than what is configured for most peers.
pub(crate) const MAX_DATAGRAMS: usize = 2;
/// How long a message of ours is at most, with the headers of all its fragments.
pub(crate) const MAX_KEPT_LEN: usize = MAX_DATAGRAMS * MAX_MESSAGE_LEN;

/// How long to wait for an answer at first; twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How often a request is sent before it is given up: after 1 + 2 + 4 + 8 + 16 seconds.
const SENDINGS: u8 = 5;

/// A message that may have to be sent once more: whole, or its fragments one behind the other, each
/// of them but the last [`MAX_MESSAGE_LEN`] bytes long.
pub(crate) struct Kept {
    bytes: [u8; MAX_KEPT_LEN],
    len: usize,
    /// Where to; `None` if there is no message, or it is one of the peer's.
    path: Option<IkePath>,
    /// Where the next datagram begins that waits to be taken by [`Window::take`].
    to_send: Option<usize>,
}

impl Kept {
    const fn new() -> Kept {
        Kept { bytes: [0; MAX_KEPT_LEN], len: 0, path: None, to_send: None }
    }

    /// Keeps what `write` writes to the beginning of the buffer, whose length it returns, and has
    /// it sent.
    pub(crate) fn put(
        &mut self,
        path: IkePath,
        write: impl FnOnce(&mut [u8]) -> Result<usize, NoRoom>,
    ) -> Result<(), NoRoom> {
        (self.len, self.path, self.to_send) = (0, None, None);
        self.len = write(&mut self.bytes)?;
        (self.path, self.to_send) = (Some(path), Some(0));
        Ok(())
    }

    /// The message.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Has it sent once more; the path may have changed since.
    pub(crate) fn send_again(&mut self, path: IkePath) {
        if self.path.is_some() {
            (self.path, self.to_send) = (Some(path), Some(0));
        }
    }

    /// Copies the next datagram that waits to be sent to `out`.
    fn take(&mut self, out: &mut [u8]) -> Option<(IkePath, usize)> {
        let at = self.to_send.take()?;
        let rest = self.bytes.get(at..self.len)?;
        let datagram = rest.get(..MAX_MESSAGE_LEN).unwrap_or(rest);
        out.get_mut(..datagram.len())?.copy_from_slice(datagram);
        let end = at + datagram.len();
        self.to_send = (end < self.len).then_some(end);
        Some((self.path?, datagram.len()))
    }
}

/// What to do with a request of the peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Answer it.
    New,
    /// It was answered: the answer got lost, or the request came twice.
    Again,
    /// It is older still, or of the future.
    Outside,
}

/// Our requests, and the peer's.
pub(crate) struct Window {
    /// The id of our next request, or of the one on the way.
    next: u32,
    /// The id of the peer's next request.
    expected: u32,
    /// Our last request.
    pub(crate) request: Kept,
    /// Our last answer.
    pub(crate) response: Kept,
    /// While our request wants an answer: how often it was sent, and when to do so again.
    waiting: Option<(u8, Instant)>,
}

impl Window {
    pub(crate) const fn new() -> Window {
        Window { next: 0, expected: 0, request: Kept::new(), response: Kept::new(), waiting: None }
    }

    /// Whether a request of ours is on the way.
    pub(crate) fn is_busy(&self) -> bool {
        self.waiting.is_some()
    }

    /// Keeps the peer's message of IKE_SA_INIT where nothing of ours is before both ends are
    /// authenticated: `initiator` tells whether we are, who have given no answer then; the responder
    /// has asked for nothing.
    pub(crate) fn keep_peer_init(&mut self, initiator: bool, message: &[u8]) -> Result<(), NoRoom> {
        let kept = if initiator { &mut self.response } else { &mut self.request };
        let room = kept.bytes.get_mut(..message.len()).ok_or(NoRoom)?;
        room.copy_from_slice(message);
        (kept.len, kept.path, kept.to_send) = (message.len(), None, None);
        Ok(())
    }

    /// That message, as long as it is there.
    pub(crate) fn peer_init(&self, initiator: bool) -> &[u8] {
        let kept = if initiator { &self.response } else { &self.request };
        if kept.path.is_none() { kept.bytes() } else { &[] }
    }

    /// That message is not needed any more.
    pub(crate) fn forget_peer_init(&mut self, initiator: bool) {
        let kept = if initiator { &mut self.response } else { &mut self.request };
        if kept.path.is_none() {
            kept.len = 0;
        }
    }

    /// The id of our next request.
    pub(crate) fn next_id(&self) -> u32 {
        self.next
    }

    /// The id of the peer's request that is to be answered next.
    pub(crate) fn expected_id(&self) -> u32 {
        self.expected
    }

    /// Our next request was written: its answer is waited for.
    pub(crate) fn requested(&mut self, now: Instant) {
        self.waiting = Some((1, now.saturating_add(FIRST_PAUSE)));
    }

    /// How often our request was sent that wants an answer.
    pub(crate) fn sendings(&self) -> u8 {
        self.waiting.map_or(0, |(sent, _)| sent)
    }

    /// Whether this is the id of the request that we wait for an answer to.
    pub(crate) fn awaits(&self, id: u32) -> bool {
        self.waiting.is_some() && id == self.next
    }

    /// Our request was answered.
    pub(crate) fn answered(&mut self) {
        self.waiting = None;
        self.request.to_send = None;
        self.next = self.next.saturating_add(1);
    }

    /// The answer to IKE_SA_INIT was to ask again (with a cookie, or another group): the request
    /// that is written next has the same id.
    pub(crate) fn asked_again(&mut self) {
        self.waiting = None;
    }

    /// What to do with a request of this id.
    pub(crate) fn arrival(&self, id: u32) -> Arrival {
        if id == self.expected {
            Arrival::New
        } else if id.checked_add(1) == Some(self.expected) {
            Arrival::Again
        } else {
            Arrival::Outside
        }
    }

    /// The answer to the expected request was written.
    pub(crate) fn responded(&mut self) {
        self.expected = self.expected.saturating_add(1);
    }

    /// When [`Window::retransmit`] has to be called.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.waiting.map(|(_, due)| due)
    }

    /// Sends our request again if it is time to; `Err` if that was done often enough.
    pub(crate) fn retransmit(&mut self, now: Instant, path: IkePath) -> Result<(), GiveUp> {
        let Some((sent, _)) = self.waiting.filter(|(_, due)| *due <= now) else { return Ok(()) };
        if sent >= SENDINGS {
            return Err(GiveUp);
        }
        let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(sent.into()));
        self.waiting = Some((sent.saturating_add(1), now.saturating_add(pause)));
        self.request.send_again(path);
        Ok(())
    }

    /// Whether [`Window::take`] has something.
    pub(crate) fn has_to_send(&self) -> bool {
        self.request.to_send.is_some() || self.response.to_send.is_some()
    }

    /// Sends our request again at once, to somewhere else.
    pub(crate) fn redirect(&mut self, path: IkePath) {
        if self.is_busy() {
            self.request.send_again(path);
        }
    }

    /// A message that waits to be sent, copied to `out`; answers first.
    pub(crate) fn take(&mut self, out: &mut [u8]) -> Option<(IkePath, usize)> {
        self.response.take(out).or_else(|| self.request.take(out))
    }
}

/// There was no answer, and there will be none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GiveUp;
