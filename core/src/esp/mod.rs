//! Encapsulating Security Payload in tunnel mode (RFC 4303): one packet, one SA.
//!
//! [`seal`] and [`open`] turn an inner packet into an ESP packet and back where it lies. Which SA
//! it is, whether the addresses are right, and how the outer header looks is decided elsewhere.

mod open;
mod replay;
mod seal;
mod sequence;
#[cfg(test)]
mod tests;

pub use open::{Opened, open};
pub use replay::{BadWindow, ReplayWindow, window_storage};
pub use seal::seal;
pub use sequence::OutboundSequence;

use crate::crypto::{NONCE_LEN, SALT_LEN};
use crate::wire::esp::IV_LEN;

/// Salt and IV make the nonce (RFC 7634 §2, RFC 4106 §4).
fn nonce(salt: &[u8; SALT_LEN], iv: &[u8; IV_LEN]) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    if let Some((front, back)) = nonce.split_first_chunk_mut() {
        *front = *salt;
        back.copy_from_slice(iv);
    }
    nonce
}

/// The additional authenticated data: SPI and sequence number, 8 bytes, or 12 with ESN
/// (RFC 4106 §5).
struct Aad {
    bytes: [u8; 12],
    len: usize,
}

impl Aad {
    fn new(spi: u32, sequence: u64, esn: bool) -> Aad {
        let mut bytes = [0; 12];
        let (number, len) = if esn { (sequence, 12) } else { (sequence << 32, 8) };
        if let Some((front, back)) = bytes.split_first_chunk_mut() {
            *front = spi.to_be_bytes();
            back.copy_from_slice(&number.to_be_bytes());
        }
        Aad { bytes, len }
    }

    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}
