//! Answers to strangers of whom nothing is kept.
//!
//! One waits at a time, and another takes its place: the caller sends it before it brings the next
//! datagram, or a stranger has to ask again.

use super::path::IkePath;
use super::wire::notify::Notify;
use super::wire::numbers::ExchangeType;
use super::wire::{HEADER_LEN, Header, message};

/// Length of the longest in bytes: a cookie.
const LEN: usize = HEADER_LEN + 8 + 64;

/// An answer to somebody of whom nothing is kept.
pub(crate) struct Stateless {
    bytes: [u8; LEN],
    len: usize,
    path: Option<IkePath>,
}

impl Stateless {
    pub(crate) const fn new() -> Stateless {
        Stateless { bytes: [0; LEN], len: 0, path: None }
    }

    /// Answers a request of IKE_SA_INIT with this header, that came on `path`, with one
    /// notification.
    pub(crate) fn answer(&mut self, header: &Header, path: &IkePath, notify: &Notify<'_>) {
        let header = Header {
            exchange: ExchangeType::IKE_SA_INIT,
            from_initiator: false,
            response: true,
            ..*header
        };
        self.path = None;
        if let Ok(written) =
            message::write(&mut self.bytes, &header, |writer| writer.notify(notify))
        {
            (self.len, self.path) = (written.len(), Some(*path));
        }
    }

    /// If there is one, copies it to `out`.
    pub(crate) fn take(&mut self, out: &mut [u8]) -> Option<(IkePath, usize)> {
        let path = self.path.take()?;
        out.get_mut(..self.len)?.copy_from_slice(self.bytes.get(..self.len)?);
        Some((path, self.len))
    }
}
