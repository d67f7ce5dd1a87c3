//! The AEADs as the daemon stores them: the expanded keys of AES-GCM, ten times as large as those
//! of ChaCha20-Poly1305, lie in a box of their own, so that a hub's thousands of SAs stay small.

use simplevpn_core::crypto::{
    Aead, Aes128Gcm16, Aes256Gcm16, BadIcv, BadKeyLength, ChaCha20Poly1305, Cipher, ICV_LEN,
    NONCE_LEN,
};

/// An AEAD with its key.
pub enum Suite {
    /// ChaCha20-Poly1305.
    ChaCha20Poly1305(ChaCha20Poly1305),
    /// AES-GCM with a 128-bit key.
    Aes128Gcm16(Box<Aes128Gcm16>),
    /// AES-GCM with a 256-bit key.
    Aes256Gcm16(Box<Aes256Gcm16>),
}

impl Suite {
    /// Expands a key (without its salt) for `cipher`.
    ///
    /// # Errors
    /// [`BadKeyLength`] unless `key` has [`Cipher::key_len`] bytes.
    pub fn new(cipher: Cipher, key: &[u8]) -> Result<Suite, BadKeyLength> {
        Ok(match cipher {
            Cipher::ChaCha20Poly1305 => Suite::ChaCha20Poly1305(ChaCha20Poly1305::new(key)?),
            Cipher::Aes128Gcm16 => Suite::Aes128Gcm16(Box::new(Aes128Gcm16::new(key)?)),
            Cipher::Aes256Gcm16 => Suite::Aes256Gcm16(Box::new(Aes256Gcm16::new(key)?)),
        })
    }
}

impl Aead for Suite {
    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8]) -> [u8; ICV_LEN] {
        match self {
            Suite::ChaCha20Poly1305(key) => key.seal(nonce, aad, text),
            Suite::Aes128Gcm16(key) => key.seal(nonce, aad, text),
            Suite::Aes256Gcm16(key) => key.seal(nonce, aad, text),
        }
    }

    fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        text: &mut [u8],
        icv: &[u8; ICV_LEN],
    ) -> Result<(), BadIcv> {
        match self {
            Suite::ChaCha20Poly1305(key) => key.open(nonce, aad, text, icv),
            Suite::Aes128Gcm16(key) => key.open(nonce, aad, text, icv),
            Suite::Aes256Gcm16(key) => key.open(nonce, aad, text, icv),
        }
    }
}
