//! A message: its header, and its payloads by what they are.

use super::auth::Auth;
use super::cp::Configuration;
use super::delete::Delete;
use super::header::{self, Header, LENGTH_AT, NEXT_PAYLOAD_AT};
use super::id::Id;
use super::ke::Ke;
use super::notify::Notify;
use super::numbers::{NotifyType, PayloadType};
use super::payload::{Chain, MAX_PAYLOADS, Payload, repeatable};
use super::sa::Sa;
use super::ts::TrafficSelectors;
use super::writer::{NoRoom, PayloadWriter, Writer};
use super::{HEADER_LEN, Malformed};

/// A message in which nothing is malformed: one that came in the clear, or the inside of one that
/// was encrypted. What its payloads say may still be nonsense.
///
/// Accessors for payloads that a message has once are errors where it is missing, so that those
/// that are needed are asked for with `?`, and those that are optional with `.ok()`:
///
/// ```
/// # use simplevpn_core::ike::wire::{Malformed, Message, numbers::NotifyType};
/// # fn process(message: &Message<'_>) -> Result<(), Malformed> {
/// if let Some(cookie) = message.notification(NotifyType::COOKIE) {
///     // once more, with cookie.data
/// }
/// let (chosen, ke, nonce) = (message.sa()?.chosen(), message.ke()?, message.nonce()?);
/// let addresses = message.configuration().ok();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    header: Header,
    payloads: Chain<'a>,
}

impl<'a> Message<'a> {
    /// Reads a message that came in the clear in one datagram (without the non-ESP marker). One
    /// that is encrypted is for [`Sealed::parse`](super::sk::Sealed::parse).
    ///
    /// # Errors
    /// [`Malformed`], for [`Malformed::Missing`] see the accessors.
    pub fn parse(datagram: &'a [u8]) -> Result<Message<'a>, Malformed> {
        let (header, first, payloads) = header::parse(datagram)?;
        Message::of_payloads(header, first, payloads)
    }

    /// Checks the payloads, wherever they came from.
    pub(super) fn of_payloads(
        header: Header,
        first: PayloadType,
        payloads: &'a [u8],
    ) -> Result<Message<'a>, Malformed> {
        let payloads = Chain::new(first, payloads);
        let mut seen = 0_u64;
        for (number, raw) in payloads.enumerate() {
            let raw = raw?;
            if number >= MAX_PAYLOADS {
                return Err(Malformed::TooManyPayloads);
            }
            Payload::parse(&raw)?;
            if !repeatable(raw.payload_type) {
                let bit = 1_u64.checked_shl(raw.payload_type.0.into()).unwrap_or_default();
                if seen & bit != 0 {
                    return Err(Malformed::Misplaced(raw.payload_type));
                }
                seen |= bit;
            }
        }
        Ok(Message { header, payloads })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Every payload in turn.
    pub fn payloads(&self) -> impl Iterator<Item = Payload<'a>> + Clone + use<'a> {
        // Nothing is filtered out: all was parsed before.
        self.payloads.filter_map(|raw| Payload::parse(&raw.ok()?).ok())
    }

    fn find<T>(
        &self,
        payload_type: PayloadType,
        pick: impl Fn(Payload<'a>) -> Option<T>,
    ) -> Result<T, Malformed> {
        self.payloads().find_map(pick).ok_or(Malformed::Missing(payload_type))
    }

    /// What is offered, or what was chosen.
    ///
    /// # Errors
    /// [`Malformed::Missing`]
    pub fn sa(&self) -> Result<Sa<'a>, Malformed> {
        self.find(PayloadType::SA, |payload| match payload {
            Payload::Sa(sa) => Some(sa),
            _ => None,
        })
    }

    /// The sender's half of a key exchange.
    ///
    /// # Errors
    /// [`Malformed::Missing`]
    pub fn ke(&self) -> Result<Ke<'a>, Malformed> {
        self.find(PayloadType::KE, |payload| match payload {
            Payload::Ke(ke) => Some(ke),
            _ => None,
        })
    }

    /// The sender's nonce.
    ///
    /// # Errors
    /// [`Malformed::Missing`]
    pub fn nonce(&self) -> Result<&'a [u8], Malformed> {
        self.find(PayloadType::NONCE, |payload| match payload {
            Payload::Nonce(nonce) => Some(nonce),
            _ => None,
        })
    }

    /// Who the initiator is.
    ///
    /// # Errors
    /// [`Malformed::Missing`]
    pub fn id_initiator(&self) -> Result<Id<'a>, Malformed> {
        self.find(PayloadType::IDi, |payload| match payload {
            Payload::IdInitiator(id) => Some(id),
            _ => None,
        })
    }

    /// Who the responder is; in a request, who it should be.
    ///
    /// # Errors
    /// [`Malformed::Missing`]
    pub fn id_responder(&self) -> Result<Id<'a>, Malformed> {
        self.find(PayloadType::IDr, |payload| match payload {
            Payload::IdResponder(id) => Some(id),
            _ => None,
        })
    }

    /// The proof of who the sender is.
    ///
    /// # Errors
    /// [`Malformed::Missing`]
    pub fn auth(&self) -> Result<Auth<'a>, Malformed> {
        self.find(PayloadType::AUTH, |payload| match payload {
            Payload::Auth(auth) => Some(auth),
            _ => None,
        })
    }

    /// Addresses at the initiator's end.
    ///
    /// # Errors
    /// [`Malformed::Missing`]
    pub fn ts_initiator(&self) -> Result<TrafficSelectors<'a>, Malformed> {
        self.find(PayloadType::TSi, |payload| match payload {
            Payload::TsInitiator(selectors) => Some(selectors),
            _ => None,
        })
    }

    /// Addresses at the responder's end.
    ///
    /// # Errors
    /// [`Malformed::Missing`]
    pub fn ts_responder(&self) -> Result<TrafficSelectors<'a>, Malformed> {
        self.find(PayloadType::TSr, |payload| match payload {
            Payload::TsResponder(selectors) => Some(selectors),
            _ => None,
        })
    }

    /// Addresses asked for, or given.
    ///
    /// # Errors
    /// [`Malformed::Missing`]
    pub fn configuration(&self) -> Result<Configuration<'a>, Malformed> {
        self.find(PayloadType::CP, |payload| match payload {
            Payload::Configuration(configuration) => Some(configuration),
            _ => None,
        })
    }

    /// All notifications.
    pub fn notifications(&self) -> impl Iterator<Item = Notify<'a>> + use<'a> {
        self.payloads().filter_map(|payload| match payload {
            Payload::Notify(notify) => Some(notify),
            _ => None,
        })
    }

    /// The first notification of a type.
    #[must_use]
    pub fn notification(&self, notify_type: NotifyType) -> Option<Notify<'a>> {
        self.notifications().find(|notify| notify.notify_type == notify_type)
    }

    /// The first notification that says what failed.
    #[must_use]
    pub fn error(&self) -> Option<Notify<'a>> {
        self.notifications().find(|notify| notify.notify_type.is_error())
    }

    /// What is to be deleted.
    pub fn deletions(&self) -> impl Iterator<Item = Delete<'a>> + use<'a> {
        self.payloads().filter_map(|payload| match payload {
            Payload::Delete(delete) => Some(delete),
            _ => None,
        })
    }

    /// Whether the sender has said that it is this software.
    #[must_use]
    pub fn has_vendor(&self, id: &[u8]) -> bool {
        self.payloads().any(|payload| payload == Payload::Vendor(id))
    }
}

/// Writes a message in the clear to the beginning of `buffer`; `payloads` writes its payloads.
///
/// # Errors
/// [`NoRoom`]
pub fn write<'b>(
    buffer: &'b mut [u8],
    header: &Header,
    payloads: impl FnOnce(&mut PayloadWriter<'b>) -> Result<(), NoRoom>,
) -> Result<&'b mut [u8], NoRoom> {
    let mut writer = Writer::new(buffer);
    header.write(&mut writer, PayloadType::NONE)?;
    let mut writer = PayloadWriter::new(writer, NEXT_PAYLOAD_AT);
    payloads(&mut writer)?;
    let mut writer = writer.into_writer();
    let len = u32::try_from(writer.len()).map_err(|_| NoRoom)?;
    writer.patch(LENGTH_AT, &len.to_be_bytes())?;
    let (buffer, len) = writer.into_parts();
    buffer.get_mut(..len).ok_or(NoRoom)
}

const _: () = assert!(NEXT_PAYLOAD_AT < HEADER_LEN);
