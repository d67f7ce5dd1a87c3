//! # simplevpn-aead
//!
//! The AEADs that protect a packet, behind one trait: ChaCha20-Poly1305 (RFC 7634) and AES-GCM-16
//! (RFC 4106), over RustCrypto, or, for ChaCha20-Poly1305 on MIPS and 32-bit ARM, over [`portable`].
//!
//! This is a crate of its own so that a router's binary can have what every byte of a packet goes
//! through compiled for speed, and all else of the core for size. `simplevpn_core::crypto` hands all of
//! it on.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

pub mod portable;
mod rustcrypto;

#[cfg(any(target_arch = "mips", target_arch = "arm"))]
pub use portable::ChaCha20Poly1305;
#[cfg(not(any(target_arch = "mips", target_arch = "arm")))]
pub use rustcrypto::ChaCha20Poly1305;
pub use rustcrypto::{Aes128Gcm16, Aes256Gcm16, AnyAead, Suite};

/// Length of an ICV in bytes: every suite here has the full 16.
pub const ICV_LEN: usize = 16;
/// Length of the salt, the part of the keying material that begins each nonce, in bytes.
pub const SALT_LEN: usize = 4;
/// A salt; it is erased when dropped, as keys are.
pub type Salt = zeroize::Zeroizing<[u8; SALT_LEN]>;
/// Length of a nonce (salt and IV) in bytes.
pub const NONCE_LEN: usize = 12;

/// The integrity check failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadIcv;

/// The keying material has the wrong length for its cipher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadKeyLength;

/// An AEAD with its key, ready to use (RFC 5116).
pub trait Aead {
    /// Encrypts `text` in place and returns its ICV.
    ///
    /// The caller never uses the same nonce twice with one key.
    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8]) -> [u8; ICV_LEN];

    /// Checks `icv` in constant time and decrypts `text` in place.
    ///
    /// # Errors
    /// [`BadIcv`]; what `text` then holds is not to be used.
    fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        text: &mut [u8],
        icv: &[u8; ICV_LEN],
    ) -> Result<(), BadIcv>;
}

/// The ESP encryption algorithms we speak, by their IKEv2 names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// ENCR_CHACHA20_POLY1305 (28), RFC 7634.
    ChaCha20Poly1305,
    /// ENCR_AES_GCM_16 (20) with a 128-bit key, RFC 4106.
    Aes128Gcm16,
    /// ENCR_AES_GCM_16 (20) with a 256-bit key, RFC 4106.
    Aes256Gcm16,
}

impl Cipher {
    /// Every cipher.
    pub const ALL: [Cipher; 3] =
        [Cipher::ChaCha20Poly1305, Cipher::Aes128Gcm16, Cipher::Aes256Gcm16];

    /// Length of the key without its salt, in bytes.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Cipher::ChaCha20Poly1305 | Cipher::Aes256Gcm16 => 32,
            Cipher::Aes128Gcm16 => 16,
        }
    }

    /// Length of the keying material (key and salt) in bytes: 36, 20 or 36.
    #[must_use]
    pub const fn keymat_len(self) -> usize {
        self.key_len() + SALT_LEN
    }

    /// The name used in configuration and output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Cipher::ChaCha20Poly1305 => "chacha20poly1305",
            Cipher::Aes128Gcm16 => "aes128gcm16",
            Cipher::Aes256Gcm16 => "aes256gcm16",
        }
    }
}
