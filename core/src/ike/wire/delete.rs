//! The payload D (RFC 7296 §3.11): SAs that the sender has deleted.

use super::numbers::{PayloadType, Protocol};
use super::writer::{NoRoom, PayloadWriter};

/// SAs that the sender has deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delete<'a> {
    /// Of which protocol. [`Protocol::IKE`] means the IKE SA that the message belongs to.
    pub protocol: Protocol,
    spis: &'a [u8],
}

impl<'a> Delete<'a> {
    pub(super) fn parse(content: &'a [u8]) -> Option<Delete<'a>> {
        let (&[protocol, spi_len, high, low], spis) = content.split_first_chunk()?;
        let protocol = Protocol(protocol);
        let expected = if protocol == Protocol::IKE { 0 } else { 4 };
        let count = usize::from(u16::from_be_bytes([high, low]));
        let known = matches!(protocol, Protocol::IKE | Protocol::AH | Protocol::ESP);
        let whole =
            usize::from(spi_len) == expected && spis.len() == count.checked_mul(expected)?;
        let right_count = if expected == 0 { count == 0 } else { count > 0 };
        (known && whole && right_count).then_some(Delete { protocol, spis })
    }

    /// The SPIs of child SAs: those under which the sender of the deletion receives.
    pub fn spis(&self) -> impl ExactSizeIterator<Item = u32> + use<'a> {
        let (spis, _) = self.spis.as_chunks::<4>();
        spis.iter().map(|spi| u32::from_be_bytes(*spi))
    }
}

impl PayloadWriter<'_> {
    /// Deletes the IKE SA that the message belongs to.
    ///
    /// # Errors
    /// [`NoRoom`]
    pub fn delete_ike(&mut self) -> Result<(), NoRoom> {
        self.payload(PayloadType::DELETE, |writer| writer.put(&[Protocol::IKE.0, 0, 0, 0]))
    }

    /// Deletes child SAs: the SPIs, at least one, are those under which we receive.
    ///
    /// # Errors
    /// [`NoRoom`]
    pub fn delete_esp(&mut self, spis: &[u32]) -> Result<(), NoRoom> {
        let count = u16::try_from(spis.len()).map_err(|_| NoRoom)?;
        self.payload(PayloadType::DELETE, |writer| {
            writer.put(&[Protocol::ESP.0, 4])?;
            writer.put_u16(count)?;
            spis.iter().try_for_each(|spi| writer.put(&spi.to_be_bytes()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_lengths_have_to_agree() {
        let spis = |content| Delete::parse(content).map(|delete| delete.spis().len());
        let cases: [(&[u8], Option<usize>); 11] = [
            (&[1, 0, 0, 0], Some(0)),
            (&[1, 0, 0, 1], None),
            (&[1, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1], None),
            (&[3, 4, 0, 1, 0, 0, 1, 0], Some(1)),
            (&[2, 4, 0, 2, 0, 0, 1, 0, 0, 0, 1, 1], Some(2)),
            (&[3, 4, 0, 2, 0, 0, 1, 0], None),
            (&[3, 4, 0, 1, 0, 0, 1, 0, 0], None),
            (&[3, 8, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0], None),
            (&[3, 4, 0, 0], None),
            (&[4, 4, 0, 1, 0, 0, 1, 0], None),
            (&[3, 4, 0], None),
        ];
        for (number, (content, expected)) in cases.into_iter().enumerate() {
            assert_eq!(spis(content), expected, "case {number}");
        }
    }
}
