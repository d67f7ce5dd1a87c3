//! The header of every IKE message (RFC 7296 §3.1).
//!
//! ```text
//! initiator's SPI (8) | responder's SPI (8) | next payload (1) | version (1) | exchange (1) |
//! flags (1) | message ID (4) | length of the whole message (4)
//! ```

use super::Malformed;
use super::numbers::{ExchangeType, PayloadType};
use super::writer::{NoRoom, Writer};
use crate::ike::keymat::IkeSpis;

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 28;
/// Where the header tells the type of the first payload.
pub(super) const NEXT_PAYLOAD_AT: usize = 16;
/// Where the header tells the message's length.
pub(super) const LENGTH_AT: usize = 24;

const MAJOR_VERSION: u8 = 2;
const FLAG_INITIATOR: u8 = 0x08;
const FLAG_RESPONSE: u8 = 0x20;

/// The header, without what only its bytes need.
///
/// The minor version is not kept, nor the flag of those who could speak a higher major version:
/// both mean nothing to a receiver, and we send zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The SPIs. The responder's is zero in the first message.
    pub spis: IkeSpis,
    /// What the exchange is for.
    pub exchange: ExchangeType,
    /// Whether the sender is the original initiator of the IKE SA.
    pub from_initiator: bool,
    /// Whether it answers a request.
    pub response: bool,
    /// Which request it is, or which one it answers.
    pub message_id: u32,
}

impl Header {
    /// Reads the header of a whole message: what came in one datagram, without the non-ESP marker.
    ///
    /// # Errors
    /// [`Malformed::MajorVersion`] if it is not IKEv2; [`Malformed::Length`] if the datagram is not
    /// as long as the message; [`Malformed::InitiatorSpi`] if that is zero.
    pub fn parse(datagram: &[u8]) -> Result<Header, Malformed> {
        parse(datagram).map(|(header, _, _)| header)
    }

    /// Writes the header for a first payload of this type; the length has to be patched.
    pub(super) fn write(&self, writer: &mut Writer<'_>, first: PayloadType) -> Result<(), NoRoom> {
        let flags = if self.from_initiator { FLAG_INITIATOR } else { 0 }
            | if self.response { FLAG_RESPONSE } else { 0 };
        writer.put(&self.spis.initiator.to_be_bytes())?;
        writer.put(&self.spis.responder.to_be_bytes())?;
        writer.put(&[first.0, MAJOR_VERSION << 4, self.exchange.0, flags])?;
        writer.put(&self.message_id.to_be_bytes())?;
        writer.put(&[0; 4])
    }
}

/// The header, the type of the first payload, and the payloads.
pub(super) fn parse(datagram: &[u8]) -> Result<(Header, PayloadType, &[u8]), Malformed> {
    let (initiator, rest) = datagram.split_first_chunk().ok_or(Malformed::Length)?;
    let (responder, rest) = rest.split_first_chunk().ok_or(Malformed::Length)?;
    let (&[first, version, exchange, flags], rest) =
        rest.split_first_chunk().ok_or(Malformed::Length)?;
    let (message_id, rest) = rest.split_first_chunk().ok_or(Malformed::Length)?;
    let (length, payloads) = rest.split_first_chunk().ok_or(Malformed::Length)?;
    if version >> 4 != MAJOR_VERSION {
        return Err(Malformed::MajorVersion(version >> 4));
    }
    if usize::try_from(u32::from_be_bytes(*length)) != Ok(datagram.len()) {
        return Err(Malformed::Length);
    }
    let spis = IkeSpis {
        initiator: u64::from_be_bytes(*initiator),
        responder: u64::from_be_bytes(*responder),
    };
    if spis.initiator == 0 {
        return Err(Malformed::InitiatorSpi);
    }
    let header = Header {
        spis,
        exchange: ExchangeType(exchange),
        from_initiator: flags & FLAG_INITIATOR != 0,
        response: flags & FLAG_RESPONSE != 0,
        message_id: u32::from_be_bytes(*message_id),
    };
    Ok((header, PayloadType(first), payloads))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: [u8; HEADER_LEN] = [
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 0x20, 37, 0x28, 0x80, 0, 0, 3, 0,
        0, 0, 28,
    ];

    fn edited(at: usize, byte: u8) -> Result<Header, Malformed> {
        let mut bytes = EMPTY;
        bytes[at] = byte;
        Header::parse(&bytes)
    }

    #[test]
    fn reads_what_it_writes() {
        let header = Header::parse(&EMPTY).unwrap();
        let spis = IkeSpis { initiator: 0x0001_0203_0405_0607, responder: 0x0809_0a0b_0c0d_0e0f };
        let expected = Header {
            spis,
            exchange: ExchangeType::INFORMATIONAL,
            from_initiator: true,
            response: true,
            message_id: 0x8000_0003,
        };
        assert_eq!(header, expected);
        let mut bytes = [0xff; HEADER_LEN];
        let mut writer = Writer::new(&mut bytes);
        header.write(&mut writer, PayloadType::NONE).unwrap();
        writer.patch(LENGTH_AT, &28_u32.to_be_bytes()).unwrap();
        assert_eq!(bytes, EMPTY);
    }

    #[test]
    fn only_the_two_flags_that_mean_something_are_looked_at() {
        for (flags, initiator, response) in
            [(0x00, false, false), (0x08, true, false), (0xf7, false, true)]
        {
            let header = edited(19, flags).unwrap();
            assert_eq!((header.from_initiator, header.response), (initiator, response));
        }
    }

    #[test]
    fn lengths_and_versions_are_checked() {
        assert_eq!(edited(17, 0x10), Err(Malformed::MajorVersion(1)));
        assert_eq!(edited(17, 0x30), Err(Malformed::MajorVersion(3)));
        assert!(edited(17, 0x2f).is_ok(), "a minor version is nothing to us");
        for (at, byte) in [(27, 27), (27, 29), (24, 1)] {
            assert_eq!(edited(at, byte), Err(Malformed::Length));
        }
        for len in 0..HEADER_LEN {
            assert_eq!(Header::parse(&EMPTY[..len]), Err(Malformed::Length));
        }
        let mut no_spi = EMPTY;
        no_spi[..8].fill(0);
        assert_eq!(Header::parse(&no_spi), Err(Malformed::InitiatorSpi));
    }
}
