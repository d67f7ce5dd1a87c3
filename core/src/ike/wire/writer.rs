//! Writing messages into a lent slice, whose end is an error and not a panic.

use super::numbers::PayloadType;

/// The slice that was lent is too short for what has to be written (or a structure is longer than
/// its length field can say).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom;

/// Writes from the beginning of a slice on.
pub(super) struct Writer<'b> {
    buffer: &'b mut [u8],
    len: usize,
}

impl<'b> Writer<'b> {
    pub(super) fn new(buffer: &'b mut [u8]) -> Writer<'b> {
        Writer { buffer, len: 0 }
    }

    /// How many bytes were written.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The next `len` bytes, to be filled; they hold what was there before.
    pub(super) fn reserve(&mut self, len: usize) -> Result<&mut [u8], NoRoom> {
        let (_, free) = self.buffer.split_at_mut_checked(self.len).ok_or(NoRoom)?;
        let (reserved, _) = free.split_at_mut_checked(len).ok_or(NoRoom)?;
        self.len += len;
        Ok(reserved)
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        self.reserve(bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    pub(super) fn put_u16(&mut self, value: u16) -> Result<(), NoRoom> {
        self.put(&value.to_be_bytes())
    }

    /// Writes over `bytes.len()` bytes that were written before, from `at` on.
    pub(super) fn patch(&mut self, at: usize, bytes: &[u8]) -> Result<(), NoRoom> {
        let (written, _) = self.buffer.split_at_mut_checked(self.len).ok_or(NoRoom)?;
        let (_, from) = written.split_at_mut_checked(at).ok_or(NoRoom)?;
        let (to, _) = from.split_at_mut_checked(bytes.len()).ok_or(NoRoom)?;
        to.copy_from_slice(bytes);
        Ok(())
    }

    /// Writes a structure as IKEv2 has them at every level: two bytes, the length of the whole in
    /// another two, and then what `body` writes.
    pub(super) fn structure(
        &mut self,
        begin: [u8; 2],
        body: impl FnOnce(&mut Writer<'b>) -> Result<(), NoRoom>,
    ) -> Result<(), NoRoom> {
        let at = self.len;
        self.put(&begin)?;
        self.put_u16(0)?;
        body(self)?;
        let len = u16::try_from(self.len.saturating_sub(at)).map_err(|_| NoRoom)?;
        self.patch(at.saturating_add(2), &len.to_be_bytes())
    }

    /// What was written, in front of the rest of the slice.
    pub(super) fn into_parts(self) -> (&'b mut [u8], usize) {
        (self.buffer, self.len)
    }
}

/// Writes payloads one after the other. Its methods are where the payloads are: in
/// [`sa`](super::sa), [`notify`](super::notify) and so on.
pub struct PayloadWriter<'b> {
    writer: Writer<'b>,
    /// Where the type of the payload after the last one is told.
    next_at: usize,
}

impl<'b> PayloadWriter<'b> {
    pub(super) fn new(writer: Writer<'b>, next_at: usize) -> PayloadWriter<'b> {
        PayloadWriter { writer, next_at }
    }

    /// Writes a payload whose content is what `body` writes.
    pub(super) fn payload(
        &mut self,
        payload_type: PayloadType,
        body: impl FnOnce(&mut Writer<'b>) -> Result<(), NoRoom>,
    ) -> Result<(), NoRoom> {
        let at = self.writer.len();
        self.writer.structure([PayloadType::NONE.0, 0], body)?;
        self.writer.patch(self.next_at, &[payload_type.0])?;
        self.next_at = at;
        Ok(())
    }

    pub(super) fn into_writer(self) -> Writer<'b> {
        self.writer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn structures_tell_their_length_at_every_level() {
        let mut buffer = [0xff; 16];
        let mut writer = Writer::new(&mut buffer);
        let written = writer.structure([1, 2], |writer| {
            writer.put(&[9])?;
            writer.structure([3, 4], |writer| writer.put(&[7, 8]))?;
            writer.structure([5, 6], |_| Ok(()))
        });
        assert_eq!((written, writer.len()), (Ok(()), 15));
        assert_eq!(buffer, [1, 2, 0, 15, 9, 3, 4, 0, 6, 7, 8, 5, 6, 0, 4, 0xff]);
    }

    #[test]
    fn the_end_of_the_slice_is_an_error() {
        for len in 0..6 {
            let mut buffer = vec![0; len];
            let written = Writer::new(&mut buffer).structure([0; 2], |writer| writer.put(&[1, 2]));
            assert_eq!(written, Err(NoRoom), "{len}");
        }
        let mut buffer = vec![0; 1 << 17];
        let long = vec![0; 65532];
        let mut structure =
            |long: &[u8]| Writer::new(&mut buffer).structure([0; 2], |writer| writer.put(long));
        assert_eq!(structure(&long), Err(NoRoom), "65536 is one too many");
        assert_eq!(structure(&long[1..]), Ok(()));
        assert_eq!(Writer::new(&mut [0; 4]).patch(0, &[1]), Err(NoRoom), "nothing written yet");
    }
}
