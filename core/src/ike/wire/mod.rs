//! IKEv2 messages as bytes (RFC 7296 §3): strict parsers into borrowed views, and writers into lent
//! slices.
//!
//! | module | what it is |
//! |---|---|
//! | [`message`] | the payloads of a message, by what they are |
//! | [`header`] | the header that all messages have |
//! | [`sk`] | encrypted messages: opening and sealing (RFC 5282) |
//! | [`skf`] | encrypted messages in fragments (RFC 7383) |
//! | [`sa`], [`ke`], [`nonce`], [`id`], [`auth`], [`notify`], [`delete`], [`vendor`], [`ts`], [`cp`] | one kind of payload each |
//! | [`payload`] | the chain that payloads form |
//! | [`writer`] | what writes them |
//! | [`numbers`] | IANA's registries |
//!
//! All that can be wrong with the bytes of a message is found by [`Message::parse`]; the views that
//! come of it cannot fail. Nothing here knows what an exchange is, or decides anything: whether a
//! message is expected, and whether what it says is acceptable, is judged elsewhere. Certificates
//! and EAP are understood as far as being payloads that may be there.

use core::fmt;

pub mod auth;
pub mod cp;
pub mod delete;
pub mod header;
pub mod id;
pub mod ke;
pub mod message;
pub mod nonce;
pub mod notify;
pub mod numbers;
pub mod payload;
pub mod sa;
pub mod sk;
pub mod skf;
pub mod ts;
pub mod vendor;
pub mod writer;

#[cfg(test)]
mod tests;

pub use header::{HEADER_LEN, Header};
pub use message::Message;
pub use writer::{NoRoom, PayloadWriter};

use numbers::{NotifyType, PayloadType};

/// Why bytes are not the message they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// A length does not agree with the bytes that are there.
    Length,
    /// It is of this major version of IKE, not of 2.
    MajorVersion(u8),
    /// The initiator's SPI is zero.
    InitiatorSpi,
    /// It cannot be understood without a payload of this type, which we do not know.
    CriticalPayload(PayloadType),
    /// It has more than [`payload::MAX_PAYLOADS`].
    TooManyPayloads,
    /// A payload of this type is where it must not be, or there twice.
    Misplaced(PayloadType),
    /// There is no payload of this type where one has to be.
    Missing(PayloadType),
    /// The content of a payload of this type breaks the rules of its format.
    Content(PayloadType),
}

impl Malformed {
    /// The notification that tells the peer (RFC 7296 §2.5, §3.10.1), its data included.
    #[must_use]
    pub fn notification(self) -> (NotifyType, Option<u8>) {
        match self {
            Malformed::MajorVersion(_) => (NotifyType::INVALID_MAJOR_VERSION, None),
            Malformed::CriticalPayload(payload_type) => {
                (NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, Some(payload_type.0))
            }
            _ => (NotifyType::INVALID_SYNTAX, None),
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Length => f.write_str("a length does not agree with the bytes there are"),
            Malformed::MajorVersion(version) => {
                write!(f, "it is of version {version} of IKE; we speak version 2")
            }
            Malformed::InitiatorSpi => f.write_str("the initiator's SPI is zero"),
            Malformed::CriticalPayload(payload) => {
                write!(f, "it needs a payload of type {payload} understood, which we do not know")
            }
            Malformed::TooManyPayloads => {
                write!(f, "it has more than {} payloads", payload::MAX_PAYLOADS)
            }
            Malformed::Misplaced(payload) => {
                write!(f, "a payload {payload} is there twice, or where it must not be")
            }
            Malformed::Missing(payload) => write!(f, "it has no payload {payload}"),
            Malformed::Content(payload) => write!(f, "its payload {payload} is malformed"),
        }
    }
}

impl core::error::Error for Malformed {}
