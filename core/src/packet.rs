//! A packet that is encrypted where it lies.
//!
//! [`PacketBuf`] is a slice lent by the caller with free room in front (outer IP, UDP, ESP and
//! IV) and behind (padding, trailer, ICV), so that wrapping and unwrapping move no byte.

use crate::counters::Discard;

/// Bytes in front of an inner packet that sealing may need:
/// outer IPv6 (40) + UDP (8) + ESP header (8) + IV (8). Also enough for an ICMPv6 error (48).
pub const HEADROOM: usize = 64;

/// Bytes behind an inner packet that sealing may need:
/// padding (3) + pad length and next header (2) + ICV (16), rounded up.
pub const TAILROOM: usize = 24;

/// One packet inside a larger buffer that the caller lends.
#[derive(Debug)]
pub struct PacketBuf<'a> {
    bytes: &'a mut [u8],
    start: usize,
    end: usize,
}

impl<'a> PacketBuf<'a> {
    /// The packet is `len` bytes of `bytes`, beginning at `start`.
    ///
    /// # Errors
    /// [`Discard::NoRoom`] if it does not lie inside `bytes`.
    pub fn new(bytes: &'a mut [u8], start: usize, len: usize) -> Result<PacketBuf<'a>, Discard> {
        let end = start.checked_add(len).ok_or(Discard::NoRoom)?;
        if end > bytes.len() {
            return Err(Discard::NoRoom);
        }
        Ok(PacketBuf { bytes, start, end })
    }

    /// The packet.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// The packet, to be changed in place.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.end).unwrap_or_default()
    }

    /// Where in the lent buffer the packet begins, in bytes.
    #[must_use]
    pub fn start(&self) -> usize {
        self.start
    }

    /// Length of the packet in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether the packet has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end == self.start
    }

    /// Free bytes in front of the packet.
    #[must_use]
    pub fn headroom(&self) -> usize {
        self.start
    }

    /// Free bytes behind the packet.
    #[must_use]
    pub fn tailroom(&self) -> usize {
        self.bytes.len() - self.end
    }

    /// Grows the packet by `n` bytes at its front and returns them, unchanged from what lay there.
    ///
    /// # Errors
    /// [`Discard::NoRoom`] if the headroom is smaller.
    pub fn push_front(&mut self, n: usize) -> Result<&mut [u8], Discard> {
        let end = self.start;
        self.start = end.checked_sub(n).ok_or(Discard::NoRoom)?;
        self.bytes.get_mut(self.start..end).ok_or(Discard::NoRoom)
    }

    /// Grows the packet by `n` bytes at its end and returns them, unchanged from what lay there.
    ///
    /// # Errors
    /// [`Discard::NoRoom`] if the tailroom is smaller.
    pub fn push_back(&mut self, n: usize) -> Result<&mut [u8], Discard> {
        if n > self.tailroom() {
            return Err(Discard::NoRoom);
        }
        let at = self.end;
        self.end += n;
        self.bytes.get_mut(at..self.end).ok_or(Discard::NoRoom)
    }

    /// Takes `n` bytes off the front.
    ///
    /// # Errors
    /// [`Discard::Malformed`] if the packet is shorter.
    pub fn pull_front(&mut self, n: usize) -> Result<(), Discard> {
        if n > self.len() {
            return Err(Discard::Malformed);
        }
        self.start += n;
        Ok(())
    }

    /// Shortens the packet to `len` bytes; a longer `len` changes nothing.
    pub fn truncate(&mut self, len: usize) {
        self.end = self.end.min(self.start.saturating_add(len));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_and_shrinks_at_both_ends_without_moving_a_byte() {
        let mut bytes = *b"__hello__";
        let mut packet = PacketBuf::new(&mut bytes, 2, 5).unwrap();
        assert_eq!((packet.headroom(), packet.tailroom(), packet.len()), (2, 2, 5));
        packet.push_front(1).unwrap().copy_from_slice(b"<");
        packet.push_back(1).unwrap().copy_from_slice(b">");
        assert_eq!(packet.as_slice(), b"<hello>");
        packet.pull_front(2).unwrap();
        packet.truncate(3);
        assert_eq!(packet.as_slice(), b"ell");
        packet.truncate(100);
        assert_eq!(packet.len(), 3);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let mut bytes = [0; 8];
        assert_eq!(PacketBuf::new(&mut bytes, 4, 5).unwrap_err(), Discard::NoRoom);
        assert_eq!(PacketBuf::new(&mut bytes, usize::MAX, 1).unwrap_err(), Discard::NoRoom);
        let mut packet = PacketBuf::new(&mut bytes, 2, 4).unwrap();
        assert_eq!(packet.push_front(3).unwrap_err(), Discard::NoRoom);
        assert_eq!(packet.push_back(3).unwrap_err(), Discard::NoRoom);
        assert_eq!(packet.pull_front(5).unwrap_err(), Discard::Malformed);
        assert_eq!(packet.len(), 4, "a refused change changes nothing");
    }
}
