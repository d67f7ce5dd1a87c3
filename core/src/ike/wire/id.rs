//! The payloads IDi and IDr (RFC 7296 §3.5): who an end says it is.

use super::numbers::{IdType, PayloadType};
use super::writer::{NoRoom, PayloadWriter};
use crate::ike::identity::Identity;

/// Who an end says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id<'a> {
    /// What `data` is.
    pub id_type: IdType,
    /// Zeros, or what the peer sent in their place: AUTH covers it.
    pub reserved: [u8; 3],
    /// The identity.
    pub data: &'a [u8],
}

impl<'a> Id<'a> {
    pub(super) fn parse(content: &'a [u8]) -> Option<Id<'a>> {
        let (&[id_type, a, b, c], data) = content.split_first_chunk()?;
        Some(Id { id_type: IdType(id_type), reserved: [a, b, c], data })
    }

    /// What precedes [`data`](Id::data) in the payload: both are what AUTH covers (RFC 7296 §2.15).
    #[must_use]
    pub fn header(&self) -> [u8; 4] {
        let [a, b, c] = self.reserved;
        [self.id_type.0, a, b, c]
    }
}

impl<'a> From<&'a Identity> for Id<'a> {
    fn from(identity: &'a Identity) -> Id<'a> {
        let id_type = IdType(identity.id_type().number());
        Id { id_type, reserved: [0; 3], data: identity.data() }
    }
}

impl PayloadWriter<'_> {
    /// Writes a payload IDi.
    ///
    /// # Errors
    /// [`NoRoom`]
    pub fn id_initiator(&mut self, id: &Id<'_>) -> Result<(), NoRoom> {
        self.id(PayloadType::IDi, id)
    }

    /// Writes a payload IDr.
    ///
    /// # Errors
    /// [`NoRoom`]
    pub fn id_responder(&mut self, id: &Id<'_>) -> Result<(), NoRoom> {
        self.id(PayloadType::IDr, id)
    }

    fn id(&mut self, payload_type: PayloadType, id: &Id<'_>) -> Result<(), NoRoom> {
        self.payload(payload_type, |writer| {
            writer.put(&id.header())?;
            writer.put(id.data)
        })
    }
}
