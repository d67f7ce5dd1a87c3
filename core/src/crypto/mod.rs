//! The cryptography: the AEADs that protect a packet, and what IKE builds on.
//!
//! The AEADs, ChaCha20-Poly1305 (RFC 7634) and AES-GCM-16 (RFC 4106), lie in a crate of their own,
//! `simplevpn-aead`. For IKE, [`prf`] derives keys, [`dh`] exchanges them and [`sign`] proves who did;
//! what they are fed with is not here.

pub mod dh;
pub mod prf;
pub mod sign;

pub use simplevpn_aead::{
    Aead, Aes128Gcm16, Aes256Gcm16, AnyAead, BadIcv, BadKeyLength, ChaCha20Poly1305, Cipher,
    ICV_LEN, NONCE_LEN, SALT_LEN, Salt, Suite, portable,
};
