//! The payload N (RFC 7296 §3.10): errors and facts.
//!
//! What belongs to a notification is checked for those we act on: its length, and whether there is
//! an SPI. Of the others, only the frame is, so that an odd one ends nothing.

use core::net::IpAddr;

use super::numbers::{
    HashAlgorithm, KeyExchangeMethod, NotifyType, PayloadType, PpkIdType, Protocol,
};
use super::writer::{NoRoom, PayloadWriter};

/// An error or a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notify<'a> {
    /// The child SA that it is about, by the SPI of the end that receives with it; mostly none.
    /// Which end that is, the type tells.
    pub child: Option<Child>,
    /// What it says.
    pub notify_type: NotifyType,
    /// What belongs to that.
    pub data: &'a [u8],
}

/// A child SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Child {
    /// Its protocol: ESP, if the peer is one of ours.
    pub protocol: Protocol,
    /// Its SPI.
    pub spi: u32,
}

impl<'a> Notify<'a> {
    /// One that is about no child SA, with `data`.
    #[must_use]
    pub const fn new(notify_type: NotifyType, data: &'a [u8]) -> Notify<'a> {
        Notify { child: None, notify_type, data }
    }

    /// One about the ESP SA with this SPI: REKEY_SA and CHILD_SA_NOT_FOUND.
    #[must_use]
    pub const fn about_esp(notify_type: NotifyType, spi: u32) -> Notify<'a> {
        Notify { child: Some(Child { protocol: Protocol::ESP, spi }), notify_type, data: &[] }
    }

    pub(super) fn parse(content: &'a [u8]) -> Option<Notify<'a>> {
        let (&[protocol, spi_len, high, low], rest) = content.split_first_chunk()?;
        let (child, data) = match spi_len {
            // The protocol means nothing then, whatever it is (RFC 7296 §3.10).
            0 => (None, rest),
            4 => {
                let (spi, data) = rest.split_first_chunk()?;
                let protocol = Protocol(protocol);
                (Some(Child { protocol, spi: u32::from_be_bytes(*spi) }), data)
            }
            // Of an IKE SA, or of what is new to us: what it is about is not kept.
            len => (None, rest.get(usize::from(len)..)?),
        };
        let notify_type = NotifyType(u16::from_be_bytes([high, low]));
        let notify = Notify { child, notify_type, data };
        notify.is_complete().then_some(notify)
    }

    /// Whether everything is there that belongs to a notification of its type.
    fn is_complete(&self) -> bool {
        let len = self.data.len();
        match self.notify_type {
            NotifyType::INVALID_KE_PAYLOAD => len == 2,
            NotifyType::NAT_DETECTION_SOURCE_IP | NotifyType::NAT_DETECTION_DESTINATION_IP => {
                len == 20
            }
            NotifyType::COOKIE => (1..=64).contains(&len),
            NotifyType::COOKIE2 => (8..=64).contains(&len),
            // The responder's is empty (RFC 8784 §3).
            NotifyType::PPK_IDENTITY => len != 1,
            NotifyType::NO_PPK_AUTH => len >= 1,
            NotifyType::REKEY_SA => self
                .child
                .is_some_and(|child| matches!(child.protocol, Protocol::AH | Protocol::ESP)),
            _ => true,
        }
    }

    /// The method that the peer wants instead, of an INVALID_KE_PAYLOAD.
    #[must_use]
    pub fn key_exchange_method(&self) -> Option<KeyExchangeMethod> {
        let method = u16::from_be_bytes(self.data.try_into().ok()?);
        (self.notify_type == NotifyType::INVALID_KE_PAYLOAD).then_some(KeyExchangeMethod(method))
    }

    /// What signatures may be made with, of a SIGNATURE_HASH_ALGORITHMS; else nothing.
    pub fn hash_algorithms(&self) -> impl Iterator<Item = HashAlgorithm> + use<'a> {
        let is_list = self.notify_type == NotifyType::SIGNATURE_HASH_ALGORITHMS;
        let (numbers, _) = if is_list { self.data } else { &[] }.as_chunks::<2>();
        numbers.iter().map(|number| HashAlgorithm(u16::from_be_bytes(*number)))
    }

    /// The address of an ADDITIONAL_IP4_ADDRESS or ADDITIONAL_IP6_ADDRESS.
    #[must_use]
    pub fn additional_address(&self) -> Option<IpAddr> {
        match self.notify_type {
            NotifyType::ADDITIONAL_IP4_ADDRESS => Some(<[u8; 4]>::try_from(self.data).ok()?.into()),
            NotifyType::ADDITIONAL_IP6_ADDRESS => {
                Some(<[u8; 16]>::try_from(self.data).ok()?.into())
            }
            _ => None,
        }
    }

    /// The name of a PPK, of a PPK_IDENTITY.
    #[must_use]
    pub fn ppk_identity(&self) -> Option<(PpkIdType, &'a [u8])> {
        let (id_type, id) = self.data.split_first()?;
        let is_identity = self.notify_type == NotifyType::PPK_IDENTITY;
        is_identity.then_some((PpkIdType(*id_type), id))
    }
}

impl PayloadWriter<'_> {
    /// Writes a notification.
    ///
    /// # Errors
    /// [`NoRoom`]
    pub fn notify(&mut self, notify: &Notify<'_>) -> Result<(), NoRoom> {
        self.notify_parts(notify, &[])
    }

    /// Writes a notification that is only its type.
    ///
    /// # Errors
    /// [`NoRoom`]
    pub fn notify_type(&mut self, notify_type: NotifyType) -> Result<(), NoRoom> {
        self.notify(&Notify::new(notify_type, &[]))
    }

    /// Writes a PPK_IDENTITY.
    ///
    /// # Errors
    /// [`NoRoom`]
    pub fn ppk_identity(&mut self, id_type: PpkIdType, id: &[u8]) -> Result<(), NoRoom> {
        self.notify_parts(&Notify::new(NotifyType::PPK_IDENTITY, &[id_type.0]), id)
    }

    fn notify_parts(&mut self, notify: &Notify<'_>, more: &[u8]) -> Result<(), NoRoom> {
        self.payload(PayloadType::NOTIFY, |writer| {
            match notify.child {
                None => writer.put(&[Protocol::NONE.0, 0])?,
                Some(child) => writer.put(&[child.protocol.0, 4])?,
            }
            writer.put_u16(notify.notify_type.0)?;
            if let Some(child) = notify.child {
                writer.put(&child.spi.to_be_bytes())?;
            }
            writer.put(notify.data)?;
            writer.put(more)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn what_belongs_to_a_type_has_to_be_there() {
        let lengths = |notify_type, most: usize| {
            let right = |len: &usize| Notify::new(notify_type, &vec![0; *len]).is_complete();
            (0..=most).filter(right).collect::<vec::Vec<_>>()
        };
        assert_eq!(lengths(NotifyType::INVALID_KE_PAYLOAD, 30), [2]);
        assert_eq!(lengths(NotifyType::NAT_DETECTION_SOURCE_IP, 30), [20]);
        assert_eq!(lengths(NotifyType::COOKIE, 100).len(), 64);
        assert_eq!(lengths(NotifyType::COOKIE, 0), [0; 0]);
        for passed_over in [
            NotifyType(20000),
            NotifyType::SET_WINDOW_SIZE,
            NotifyType::ADDITIONAL_IP4_ADDRESS,
            NotifyType::SIGNATURE_HASH_ALGORITHMS,
        ] {
            assert_eq!(lengths(passed_over, 3), [0, 1, 2, 3], "{passed_over}");
        }
        assert_eq!(lengths(NotifyType::REKEY_SA, 3), [0; 0], "no SPI");
        assert!(Notify::about_esp(NotifyType::REKEY_SA, 256).is_complete());
    }

    #[test]
    fn spis_are_those_of_child_sas() {
        assert_eq!(
            Notify::parse(&[3, 4, 0x40, 9, 0, 0, 1, 2]),
            Some(Notify::about_esp(NotifyType::REKEY_SA, 0x102))
        );
        assert_eq!(Notify::parse(&[3, 4, 0x40, 9, 0, 0, 1]), None);
        let of_ike = Notify::new(NotifyType::INVALID_SPI, &[7]);
        assert_eq!(Notify::parse(&[1, 8, 0, 11, 0, 0, 0, 0, 0, 0, 0, 1, 7]), Some(of_ike));
        assert_eq!(Notify::parse(&[1, 8, 0, 11, 0, 0, 0, 0, 0, 0, 0]), None, "cut off");
        assert_eq!(Notify::parse(&[3, 5, 0x40, 9, 0, 0, 0, 1, 2]), None, "REKEY_SA of nothing");
        let without = Notify::new(NotifyType::NO_PROPOSAL_CHOSEN, &[]);
        assert_eq!(Notify::parse(&[1, 0, 0, 14]), Some(without), "strongSwan names the protocol");
    }

    #[test]
    fn data_is_read_as_what_the_type_says() {
        let invalid_ke = Notify::new(NotifyType::INVALID_KE_PAYLOAD, &[0, 19]);
        assert_eq!(invalid_ke.key_exchange_method(), Some(KeyExchangeMethod::ECP256));
        let other = Notify::new(NotifyType(99), &[0, 19]);
        assert_eq!(other.key_exchange_method(), None);
        assert_eq!((other.hash_algorithms().count(), other.ppk_identity()), (0, None));

        let hashes = Notify::new(NotifyType::SIGNATURE_HASH_ALGORITHMS, &[0, 2, 0, 5]);
        assert!(hashes.hash_algorithms().eq([HashAlgorithm::SHA2_256, HashAlgorithm::IDENTITY]));
        let address = Notify::new(NotifyType::ADDITIONAL_IP4_ADDRESS, &[192, 0, 2, 7]);
        assert_eq!(address.additional_address(), Some("192.0.2.7".parse().unwrap()));
        let ppk = Notify::new(NotifyType::PPK_IDENTITY, &[2, 7, 8]);
        assert_eq!(ppk.ppk_identity(), Some((PpkIdType::PPK_ID_FIXED, &[7, 8][..])));
    }
}
