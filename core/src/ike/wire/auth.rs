//! The payload AUTH (RFC 7296 §3.8): the proof that an end is who it says.
//!
//! What the proof looks like is in [`crate::ike::auth`].

use super::numbers::{AuthMethod, PayloadType};
use super::writer::{NoRoom, PayloadWriter};
use crate::ike::auth::AuthData;

/// The proof that an end is who it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auth<'a> {
    /// How it proves that.
    pub method: AuthMethod,
    /// The authentication data.
    pub data: &'a [u8],
}

impl<'a> Auth<'a> {
    pub(super) fn parse(content: &'a [u8]) -> Option<Auth<'a>> {
        let (&[method, _, _, _], data) = content.split_first_chunk()?;
        Some(Auth { method: AuthMethod(method), data })
    }
}

impl<'a> From<&'a AuthData> for Auth<'a> {
    fn from(auth: &'a AuthData) -> Auth<'a> {
        Auth { method: AuthMethod(auth.method()), data: auth.data() }
    }
}

impl PayloadWriter<'_> {
    /// Writes a payload AUTH.
    ///
    /// # Errors
    /// [`NoRoom`]
    pub fn auth(&mut self, auth: &Auth<'_>) -> Result<(), NoRoom> {
        self.payload(PayloadType::AUTH, |writer| {
            writer.put(&[auth.method.0, 0, 0, 0])?;
            writer.put(auth.data)
        })
    }
}
