//! The payload V (RFC 7296 §3.12): what software an end has, as bytes that nobody else would send.

use super::numbers::PayloadType;
use super::writer::{NoRoom, PayloadWriter};

impl PayloadWriter<'_> {
    /// Writes a vendor ID.
    ///
    /// # Errors
    /// [`NoRoom`]
    pub fn vendor(&mut self, id: &[u8]) -> Result<(), NoRoom> {
        self.payload(PayloadType::VENDOR, |writer| writer.put(id))
    }
}
