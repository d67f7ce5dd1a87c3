//! The chain of payloads (RFC 7296 §3.2): each tells the type of the one after it.
//!
//! ```text
//! next payload (1) | critical (1 bit) | reserved (7 bits) | length of the whole payload (2)
//! ```

use super::auth::Auth;
use super::cp::Configuration;
use super::delete::Delete;
use super::id::Id;
use super::ke::Ke;
use super::notify::Notify;
use super::numbers::PayloadType;
use super::sa::Sa;
use super::ts::TrafficSelectors;
use super::{Malformed, nonce};

/// How many payloads a message may have. Those of real peers have less than twenty.
pub const MAX_PAYLOADS: usize = 64;

/// Length of the header of a payload, and of what is built like it, in bytes.
pub(super) const STRUCTURE_LEN: usize = 4;

const CRITICAL: u8 = 0x80;

/// Takes a structure as IKEv2 has them at every level off `bytes`: two bytes, the length of the
/// whole in another two, the content. Returns the two bytes, the content, and what follows.
pub(super) fn structure(bytes: &[u8]) -> Option<([u8; 2], &[u8], &[u8])> {
    let (begin, rest) = bytes.split_first_chunk()?;
    let (len, rest) = rest.split_first_chunk()?;
    let len = usize::from(u16::from_be_bytes(*len)).checked_sub(STRUCTURE_LEN)?;
    let (content, rest) = rest.split_at_checked(len)?;
    Some((*begin, content, rest))
}

/// A payload whose content was not looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawPayload<'a> {
    pub(super) payload_type: PayloadType,
    /// The type of the payload after it; of an encrypted one, of the first in it.
    pub(super) next: PayloadType,
    critical: bool,
    pub(super) content: &'a [u8],
}

/// Walks along a chain. It ends after an error, and with an encrypted payload, since that does not
/// tell what comes after it: nothing may.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chain<'a> {
    next: PayloadType,
    rest: &'a [u8],
}

impl<'a> Chain<'a> {
    pub(super) fn new(first: PayloadType, payloads: &'a [u8]) -> Chain<'a> {
        Chain { next: first, rest: payloads }
    }
}

impl<'a> Iterator for Chain<'a> {
    type Item = Result<RawPayload<'a>, Malformed>;

    fn next(&mut self) -> Option<Result<RawPayload<'a>, Malformed>> {
        let chain = *self;
        *self = Chain::new(PayloadType::NONE, &[]);
        if chain.next == PayloadType::NONE {
            return (!chain.rest.is_empty()).then_some(Err(Malformed::Length));
        }
        let Some(([next, flags], content, rest)) = structure(chain.rest) else {
            return Some(Err(Malformed::Length));
        };
        let payload = RawPayload {
            payload_type: chain.next,
            next: PayloadType(next),
            critical: flags & CRITICAL != 0,
            content,
        };
        let encrypted = matches!(chain.next, PayloadType::SK | PayloadType::SKF);
        *self = Chain { next: if encrypted { PayloadType::NONE } else { payload.next }, rest };
        Some(Ok(payload))
    }
}

/// A payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload<'a> {
    /// SA: what is offered, or what was chosen.
    Sa(Sa<'a>),
    /// KE: half of a key exchange.
    Ke(Ke<'a>),
    /// IDi: who the initiator is.
    IdInitiator(Id<'a>),
    /// IDr: who the responder is, or should be.
    IdResponder(Id<'a>),
    /// AUTH: the proof of that.
    Auth(Auth<'a>),
    /// Ni or Nr.
    Nonce(&'a [u8]),
    /// N: a notification.
    Notify(Notify<'a>),
    /// D: SAs that are gone.
    Delete(Delete<'a>),
    /// V: what software the peer has.
    Vendor(&'a [u8]),
    /// TSi: addresses at the initiator's end.
    TsInitiator(TrafficSelectors<'a>),
    /// TSr: addresses at the responder's end.
    TsResponder(TrafficSelectors<'a>),
    /// CP: addresses asked for, and given.
    Configuration(Configuration<'a>),
    /// One whose content is nothing to us: certificates, EAP, and types that we do not know and
    /// that are not critical.
    Other(PayloadType, &'a [u8]),
}

impl<'a> Payload<'a> {
    pub(super) fn parse(raw: &RawPayload<'a>) -> Result<Payload<'a>, Malformed> {
        let (payload_type, content) = (raw.payload_type, raw.content);
        let known = match payload_type {
            PayloadType::SA => Sa::parse(content).map(Payload::Sa),
            PayloadType::KE => Ke::parse(content).map(Payload::Ke),
            PayloadType::IDi => Id::parse(content).map(Payload::IdInitiator),
            PayloadType::IDr => Id::parse(content).map(Payload::IdResponder),
            PayloadType::AUTH => Auth::parse(content).map(Payload::Auth),
            PayloadType::NONCE => nonce::parse(content).map(Payload::Nonce),
            PayloadType::NOTIFY => Notify::parse(content).map(Payload::Notify),
            PayloadType::DELETE => Delete::parse(content).map(Payload::Delete),
            PayloadType::VENDOR => Some(Payload::Vendor(content)),
            PayloadType::TSi => TrafficSelectors::parse(content).map(Payload::TsInitiator),
            PayloadType::TSr => TrafficSelectors::parse(content).map(Payload::TsResponder),
            PayloadType::CP => Configuration::parse(content).map(Payload::Configuration),
            PayloadType::SK | PayloadType::SKF => return Err(Malformed::Misplaced(payload_type)),
            // The critical bit says nothing about a type that RFC 7296 has (§2.5).
            PayloadType::CERT | PayloadType::CERTREQ | PayloadType::EAP => {
                Some(Payload::Other(payload_type, content))
            }
            _ if raw.critical => return Err(Malformed::CriticalPayload(payload_type)),
            _ => Some(Payload::Other(payload_type, content)),
        };
        known.ok_or(Malformed::Content(payload_type))
    }
}

/// Whether a message may have several payloads of a type.
pub(super) fn repeatable(payload_type: PayloadType) -> bool {
    !matches!(
        payload_type,
        PayloadType::SA
            | PayloadType::KE
            | PayloadType::IDi
            | PayloadType::IDr
            | PayloadType::AUTH
            | PayloadType::NONCE
            | PayloadType::TSi
            | PayloadType::TSr
            | PayloadType::CP
            | PayloadType::EAP
    )
}
