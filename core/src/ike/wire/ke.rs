//! The payload KE (RFC 7296 §3.4): one end's half of a key exchange.

use super::numbers::{KeyExchangeMethod, PayloadType};
use super::writer::{NoRoom, PayloadWriter};

/// One end's half of a key exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ke<'a> {
    /// For which method.
    pub method: KeyExchangeMethod,
    /// The public value, of whatever length; those who compute with it check that.
    pub data: &'a [u8],
}

impl<'a> Ke<'a> {
    pub(super) fn parse(content: &'a [u8]) -> Option<Ke<'a>> {
        let (&[high, low, _, _], data) = content.split_first_chunk()?;
        let method = KeyExchangeMethod(u16::from_be_bytes([high, low]));
        (!data.is_empty()).then_some(Ke { method, data })
    }
}

impl PayloadWriter<'_> {
    /// Writes a payload KE.
    ///
    /// # Errors
    /// [`NoRoom`]
    pub fn ke(&mut self, ke: &Ke<'_>) -> Result<(), NoRoom> {
        self.payload(PayloadType::KE, |writer| {
            writer.put_u16(ke.method.0)?;
            writer.put_u16(0)?;
            writer.put(ke.data)
        })
    }
}
