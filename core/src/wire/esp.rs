//! The ESP packet (RFC 4303 §2) with an 8-byte IV and a 16-byte ICV, as all our AEADs have it.
//!
//! ```text
//! SPI (4) | sequence number, low half (4) | IV (8) | ciphertext | ICV (16)
//! ```
//! The ciphertext is the inner packet, padding 1, 2, 3, …, pad length (1), next header (1).

use crate::crypto::ICV_LEN;

/// Length of SPI and sequence number in bytes.
pub const HEADER_LEN: usize = 8;
/// Length of the explicit IV in bytes (RFC 7634 §2, RFC 4106 §3.1).
pub const IV_LEN: usize = 8;
/// Length of pad length and next header in bytes.
pub const TRAILER_LEN: usize = 2;
/// The trailer ends on a multiple of so many bytes (RFC 4303 §2.4).
pub const ALIGNMENT: usize = 4;
/// SPIs below this are reserved, 0 above all (RFC 4303 §2.1).
pub const FIRST_SPI: u32 = 256;

/// The IP protocol number of ESP.
pub const PROTOCOL: u8 = 50;

/// What lies inside an ESP packet, by its Next Header value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextHeader {
    /// An IPv4 packet (4).
    Ipv4,
    /// An IPv6 packet (41).
    Ipv6,
    /// Nothing: a dummy packet (59, RFC 4303 §2.6).
    Dummy,
    /// Something that a tunnel does not carry.
    Other(u8),
}

impl From<u8> for NextHeader {
    fn from(value: u8) -> NextHeader {
        match value {
            4 => NextHeader::Ipv4,
            41 => NextHeader::Ipv6,
            59 => NextHeader::Dummy,
            other => NextHeader::Other(other),
        }
    }
}

impl From<NextHeader> for u8 {
    fn from(value: NextHeader) -> u8 {
        match value {
            NextHeader::Ipv4 => 4,
            NextHeader::Ipv6 => 41,
            NextHeader::Dummy => 59,
            NextHeader::Other(other) => other,
        }
    }
}

/// SPI and the low half of the sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Security parameters index.
    pub spi: u32,
    /// Low 32 bits of the sequence number.
    pub sequence: u32,
}

impl Header {
    /// Reads the header of an ESP packet; `None` if it is too short to have one.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<Header> {
        let (spi, rest) = packet.split_first_chunk()?;
        let sequence = rest.first_chunk()?;
        Some(Header { spi: u32::from_be_bytes(*spi), sequence: u32::from_be_bytes(*sequence) })
    }

    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        ((u64::from(self.spi) << 32) | u64::from(self.sequence)).to_be_bytes()
    }
}

/// The parts of an ESP packet, borrowed for opening it in place.
pub(crate) struct Parts<'p> {
    pub(crate) iv: [u8; IV_LEN],
    pub(crate) ciphertext: &'p mut [u8],
    pub(crate) icv: [u8; ICV_LEN],
}

impl<'p> Parts<'p> {
    /// Splits a packet; `None` if it is too short to hold a trailer.
    pub(crate) fn of(packet: &'p mut [u8]) -> Option<Parts<'p>> {
        let (_, rest) = packet.split_first_chunk_mut::<HEADER_LEN>()?;
        let (iv, rest) = rest.split_first_chunk_mut::<IV_LEN>()?;
        let (ciphertext, icv) = rest.split_last_chunk_mut::<ICV_LEN>()?;
        (ciphertext.len() >= TRAILER_LEN).then_some(Parts { iv: *iv, ciphertext, icv: *icv })
    }
}
