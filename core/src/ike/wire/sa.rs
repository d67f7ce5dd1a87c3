//! The payload SA (RFC 7296 §3.3): proposals, each a set of transforms.
//!
//! ```text
//! proposal:  0 or 2 if more follow (1) | reserved (1) | length (2) | number (1) | protocol (1) |
//!            SPI length (1) | how many transforms (1) | SPI | transforms
//! transform: 0 or 3 if more follow (1) | reserved (1) | length (2) | type (1) | reserved (1) |
//!            number (2) | attributes
//! ```
//! Which one is chosen is decided in [`crate::ike::suite`].

use core::borrow::Borrow;

use super::numbers::{
    PayloadType, Protocol, PseudorandomFunction, SequenceNumbers, TransformAttributeType,
    TransformType,
};
use super::payload::structure;
use super::writer::{NoRoom, PayloadWriter, Writer};
use crate::crypto::Cipher;
use crate::crypto::dh::Group;
use crate::ike::suite::{Offer, transform};
use crate::wire::esp::FIRST_SPI;

const LAST: u8 = 0;
const MORE_PROPOSALS: u8 = 2;
const MORE_TRANSFORMS: u8 = 3;
/// The bit of an attribute's type that says that its value takes two bytes and has no length.
const SHORT_ATTRIBUTE: u16 = 0x8000;

/// What is offered, or what was chosen: one proposal or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sa<'a> {
    proposals: &'a [u8],
}

/// One proposal. One that was parsed has [`Transforms`]; to write one, any transforms do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proposal<T> {
    /// What is chosen keeps the number that it had in the offer. We offer from 1 on; others may
    /// begin anywhere, as long as each number is higher than the one before.
    pub number: u8,
    /// What the SA is of.
    pub protocol: Protocol,
    /// The sender's SPI.
    pub spi: Spi,
    /// The algorithms.
    pub transforms: T,
}

/// The sender's SPI in a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spi {
    /// None: the proposal is for the IKE SA that IKE_SA_INIT makes, whose SPIs are in the header.
    /// (Or it is for a protocol we do not know, whose SPI was not kept.)
    None,
    /// Of a new IKE SA; not zero.
    Ike(u64),
    /// Of a child SA; not less than [`FIRST_SPI`].
    Child(u32),
}

/// An algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transform {
    /// What it is for.
    pub transform_type: TransformType,
    /// Which one: a number in the registry of its type.
    pub number: u16,
    /// The attribute Key Length in bits, if there is one.
    pub key_bits: Option<u16>,
    /// Whether it has an attribute that we do not know, so that it cannot be chosen (§3.3.6). It
    /// is not written.
    pub unknown_attribute: bool,
}

impl Transform {
    /// One without attributes.
    #[must_use]
    pub const fn new(transform_type: TransformType, number: u16) -> Transform {
        Transform { transform_type, number, key_bits: None, unknown_attribute: false }
    }

    /// A cipher.
    #[must_use]
    pub const fn encr(cipher: Cipher) -> Transform {
        let (number, key_bits) = transform(cipher);
        Transform { key_bits, ..Transform::new(TransformType::ENCR, number) }
    }

    /// PRF_HMAC_SHA2_256, our only pseudorandom function.
    #[must_use]
    pub const fn prf() -> Transform {
        Transform::new(TransformType::PRF, PseudorandomFunction::PRF_HMAC_SHA2_256.0)
    }

    /// A key exchange method.
    #[must_use]
    pub const fn ke(group: Group) -> Transform {
        Transform::new(TransformType::KE, group.number())
    }

    /// Whether sequence numbers have 64 bits.
    #[must_use]
    pub const fn sn(esn: bool) -> Transform {
        let number = if esn { SequenceNumbers::ESN } else { SequenceNumbers::NO_ESN };
        Transform::new(TransformType::SN, number.0)
    }

    /// Takes one off `bytes`; also tells whether more follow, and what does.
    fn parse(bytes: &[u8]) -> Option<(Transform, bool, &[u8])> {
        let ([more, _], content, rest) = structure(bytes)?;
        let (&[transform_type, _, high, low], mut attributes) = content.split_first_chunk()?;
        let number = u16::from_be_bytes([high, low]);
        let mut transform = Transform::new(TransformType(transform_type), number);
        while !attributes.is_empty() {
            attributes = transform.parse_attribute(attributes)?;
        }
        Some((transform, more_follow(more, MORE_TRANSFORMS)?, rest))
    }

    /// Takes an attribute off `bytes` and returns what follows it.
    fn parse_attribute<'a>(&mut self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (&[a, b, c, d], rest) = bytes.split_first_chunk()?;
        let attribute_type = u16::from_be_bytes([a, b]);
        let value_or_len = u16::from_be_bytes([c, d]);
        let short = attribute_type & SHORT_ATTRIBUTE != 0;
        let attribute_type = TransformAttributeType(attribute_type & !SHORT_ATTRIBUTE);
        if attribute_type == TransformAttributeType::KEY_LENGTH {
            // Always short (§3.3.5), and once.
            let first = self.key_bits.replace(value_or_len).is_none();
            return (short && first).then_some(rest);
        }
        self.unknown_attribute = true;
        rest.get(if short { 0 } else { usize::from(value_or_len) }..)
    }

    fn write(&self, writer: &mut Writer<'_>, last: bool) -> Result<(), NoRoom> {
        writer.structure([if last { LAST } else { MORE_TRANSFORMS }, 0], |writer| {
            writer.put(&[self.transform_type.0, 0])?;
            writer.put_u16(self.number)?;
            if let Some(key_bits) = self.key_bits {
                writer.put_u16(TransformAttributeType::KEY_LENGTH.0 | SHORT_ATTRIBUTE)?;
                writer.put_u16(key_bits)?;
            }
            Ok(())
        })
    }
}

/// The first byte of a proposal or transform: whether more follow.
fn more_follow(byte: u8, more: u8) -> Option<bool> {
    match byte {
        LAST => Some(false),
        _ => (byte == more).then_some(true),
    }
}

/// The transforms of a proposal that was parsed, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transforms<'a> {
    rest: &'a [u8],
}

impl Iterator for Transforms<'_> {
    type Item = Transform;

    fn next(&mut self) -> Option<Transform> {
        let (transform, _, rest) = Transform::parse(self.rest)?;
        self.rest = rest;
        Some(transform)
    }
}

impl<'a> Transforms<'a> {
    /// Checks that there are `count`, and nothing but them.
    fn parse(bytes: &'a [u8], count: u8) -> Option<Transforms<'a>> {
        let (mut rest, mut left) = (bytes, count);
        loop {
            let more;
            (_, more, rest) = Transform::parse(rest)?;
            left = left.checked_sub(1)?;
            if !more {
                return (left == 0 && rest.is_empty()).then_some(Transforms { rest: bytes });
            }
        }
    }
}

impl Spi {
    fn parse(protocol: Protocol, bytes: &[u8]) -> Option<Spi> {
        match protocol {
            Protocol::IKE if bytes.is_empty() => Some(Spi::None),
            Protocol::IKE => {
                let spi = u64::from_be_bytes(bytes.try_into().ok()?);
                (spi != 0).then_some(Spi::Ike(spi))
            }
            Protocol::AH | Protocol::ESP => {
                let spi = u32::from_be_bytes(bytes.try_into().ok()?);
                (spi >= FIRST_SPI).then_some(Spi::Child(spi))
            }
            _ => Some(Spi::None),
        }
    }

    const fn len(self) -> u8 {
        match self {
            Spi::None => 0,
            Spi::Ike(_) => 8,
            Spi::Child(_) => 4,
        }
    }

    fn write(self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        match self {
            Spi::None => Ok(()),
            Spi::Ike(spi) => writer.put(&spi.to_be_bytes()),
            Spi::Child(spi) => writer.put(&spi.to_be_bytes()),
        }
    }
}

impl<'a> Proposal<Transforms<'a>> {
    /// Takes one off `bytes`; also tells whether more follow, and what does.
    fn parse(bytes: &'a [u8]) -> Option<(Proposal<Transforms<'a>>, bool, &'a [u8])> {
        let ([more, _], content, rest) = structure(bytes)?;
        let (&[number, protocol, spi_len, count], content) = content.split_first_chunk()?;
        let (spi, transforms) = content.split_at_checked(spi_len.into())?;
        let protocol = Protocol(protocol);
        let proposal = Proposal {
            number,
            protocol,
            spi: Spi::parse(protocol, spi)?,
            transforms: Transforms::parse(transforms, count)?,
        };
        Some((proposal, more_follow(more, MORE_PROPOSALS)?, rest))
    }

    /// What it offers, to choose of it.
    #[must_use]
    pub fn offer(&self) -> Offer {
        let mut offer = Offer::default();
        for transform in self.transforms {
            if transform.unknown_attribute {
                offer.add_unknown(transform.transform_type.0);
            } else {
                offer.add(transform.transform_type.0, transform.number, transform.key_bits);
            }
        }
        offer
    }
}

impl<T> Proposal<T>
where
    T: IntoIterator<Item: Borrow<Transform>>,
{
    fn write(self, writer: &mut Writer<'_>, last: bool) -> Result<(), NoRoom> {
        writer.structure([if last { LAST } else { MORE_PROPOSALS }, 0], |writer| {
            writer.put(&[self.number, self.protocol.0, self.spi.len()])?;
            let (count_at, mut count) = (writer.len(), 0_u8);
            writer.put(&[0])?;
            self.spi.write(writer)?;
            let mut transforms = self.transforms.into_iter().peekable();
            while let Some(transform) = transforms.next() {
                transform.borrow().write(writer, transforms.peek().is_none())?;
                count = count.checked_add(1).ok_or(NoRoom)?;
            }
            writer.patch(count_at, &[count])
        })
    }
}

/// The proposals of an SA payload, one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Proposals<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Proposals<'a> {
    type Item = Proposal<Transforms<'a>>;

    fn next(&mut self) -> Option<Proposal<Transforms<'a>>> {
        let (proposal, _, rest) = Proposal::parse(self.rest)?;
        self.rest = rest;
        Some(proposal)
    }
}

impl<'a> Sa<'a> {
    pub(super) fn parse(proposals: &'a [u8]) -> Option<Sa<'a>> {
        let (first, mut more, mut rest) = Proposal::parse(proposals)?;
        // Those of a request should count from 1 (RFC 7296 §3.3.1). macOS, when it replaces keys,
        // offers what was chosen before under the number that it had then. All that matters is that
        // an answer can name one of them.
        let mut number = first.number;
        if number == 0 {
            return None;
        }
        while more {
            let next;
            (next, more, rest) = Proposal::parse(rest)?;
            if next.number <= number {
                return None;
            }
            number = next.number;
        }
        rest.is_empty().then_some(Sa { proposals })
    }

    /// The proposals, the preferred first.
    #[must_use]
    pub fn proposals(&self) -> Proposals<'a> {
        Proposals { rest: self.proposals }
    }

    /// The only proposal, as an answer has it; `None` if there are several.
    #[must_use]
    pub fn chosen(&self) -> Option<Proposal<Transforms<'a>>> {
        let mut proposals = self.proposals();
        proposals.next().filter(|_| proposals.next().is_none())
    }
}

impl PayloadWriter<'_> {
    /// Writes a payload SA with these proposals: at least one, each with at least one transform.
    ///
    /// # Errors
    /// [`NoRoom`]
    pub fn sa<T>(&mut self, proposals: impl IntoIterator<Item = Proposal<T>>) -> Result<(), NoRoom>
    where
        T: IntoIterator<Item: Borrow<Transform>>,
    {
        self.payload(PayloadType::SA, |writer| {
            let mut proposals = proposals.into_iter().peekable();
            while let Some(proposal) = proposals.next() {
                proposal.write(writer, proposals.peek().is_none())?;
            }
            Ok(())
        })
    }
}
