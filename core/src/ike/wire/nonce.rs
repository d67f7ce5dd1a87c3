//! The payload Ni or Nr (RFC 7296 §3.9): a nonce of 16 to 256 bytes.

use core::ops::RangeInclusive;

use super::numbers::PayloadType;
use super::writer::{NoRoom, PayloadWriter};

/// How long a nonce may be, in bytes.
pub const NONCE_LEN: RangeInclusive<usize> = 16..=256;

pub(super) fn parse(content: &[u8]) -> Option<&[u8]> {
    NONCE_LEN.contains(&content.len()).then_some(content)
}

impl PayloadWriter<'_> {
    /// Writes a nonce.
    ///
    /// # Errors
    /// [`NoRoom`]
    pub fn nonce(&mut self, nonce: &[u8]) -> Result<(), NoRoom> {
        self.payload(PayloadType::NONCE, |writer| writer.put(nonce))
    }
}
