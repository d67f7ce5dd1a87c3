//! The AEADs of RustCrypto: portable, constant-time, keys zeroized on drop.

use aes_gcm::aead::{AeadInOut, KeyInit};

#[cfg(any(target_arch = "mips", target_arch = "arm"))]
use crate::ChaCha20Poly1305;
use crate::{Aead, BadIcv, BadKeyLength, Cipher, ICV_LEN, NONCE_LEN};

/// GCM only ever encrypts blocks: half of the round keys of a whole AES would lie idle.
type Gcm<C> = aes_gcm::AesGcm<C, aes_gcm::aead::consts::U12>;

macro_rules! aead {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        pub struct $name($inner);

        impl $name {
            /// Expands a key (without its salt).
            ///
            /// # Errors
            /// [`BadKeyLength`] if `key` is not as long as the cipher wants it.
            pub fn new(key: &[u8]) -> Result<$name, BadKeyLength> {
                <$inner>::new_from_slice(key).map($name).map_err(|_| BadKeyLength)
            }
        }

        impl AsRef<$name> for $name {
            fn as_ref(&self) -> &$name {
                self
            }
        }

        impl Aead for $name {
            fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8]) -> [u8; ICV_LEN] {
                let sealed = self.0.encrypt_inout_detached(nonce.into(), aad, (&mut *text).into());
                // The only error is a text of 2^36 bytes or more, which no packet is. Nothing of
                // it is to leave in the clear.
                sealed.map_or_else(
                    |_| {
                        text.fill(0);
                        [0; ICV_LEN]
                    },
                    Into::into,
                )
            }

            fn open(
                &self,
                nonce: &[u8; NONCE_LEN],
                aad: &[u8],
                text: &mut [u8],
                icv: &[u8; ICV_LEN],
            ) -> Result<(), BadIcv> {
                self.0
                    .decrypt_inout_detached(nonce.into(), aad, text.into(), icv.into())
                    .map_err(|_| BadIcv)
            }
        }
    };
}

#[cfg(not(any(target_arch = "mips", target_arch = "arm")))]
aead!(
    /// ChaCha20-Poly1305 with a 256-bit key (RFC 8439, for ESP RFC 7634).
    ChaCha20Poly1305,
    chacha20poly1305::ChaCha20Poly1305
);
aead!(
    /// AES-GCM with a 128-bit key and a 16-byte ICV (RFC 4106).
    Aes128Gcm16,
    Gcm<aes_gcm::aes::Aes128Enc>
);
aead!(
    /// AES-GCM with a 256-bit key and a 16-byte ICV (RFC 4106).
    Aes256Gcm16,
    Gcm<aes_gcm::aes::Aes256Enc>
);

/// Any of the ciphers, chosen at run time.
///
/// The expanded keys of AES-GCM are ten times as large as a ChaCha20-Poly1305 key, so it is left
/// to the caller where they lie: inline ([`AnyAead`]), or behind anything that leads to them, as a
/// box, so that thousands of SAs stay small.
#[allow(clippy::large_enum_variant)] // inline is the only place where there is no heap
pub enum Suite<Aes128, Aes256> {
    /// ChaCha20-Poly1305.
    ChaCha20Poly1305(ChaCha20Poly1305),
    /// AES-GCM, 128-bit key.
    Aes128Gcm16(Aes128),
    /// AES-GCM, 256-bit key.
    Aes256Gcm16(Aes256),
}

/// Any of the ciphers, stored inline: as large as the largest expanded key, about 0.4 KiB.
pub type AnyAead = Suite<Aes128Gcm16, Aes256Gcm16>;

impl<Aes128: From<Aes128Gcm16>, Aes256: From<Aes256Gcm16>> Suite<Aes128, Aes256> {
    /// Expands a key (without its salt) for `cipher`.
    ///
    /// # Errors
    /// [`BadKeyLength`] unless `key` has [`Cipher::key_len`] bytes.
    pub fn new(cipher: Cipher, key: &[u8]) -> Result<Suite<Aes128, Aes256>, BadKeyLength> {
        Ok(match cipher {
            Cipher::ChaCha20Poly1305 => Suite::ChaCha20Poly1305(ChaCha20Poly1305::new(key)?),
            Cipher::Aes128Gcm16 => Suite::Aes128Gcm16(Aes128Gcm16::new(key)?.into()),
            Cipher::Aes256Gcm16 => Suite::Aes256Gcm16(Aes256Gcm16::new(key)?.into()),
        })
    }
}

impl<Aes128: AsRef<Aes128Gcm16>, Aes256: AsRef<Aes256Gcm16>> Aead for Suite<Aes128, Aes256> {
    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8]) -> [u8; ICV_LEN] {
        match self {
            Suite::ChaCha20Poly1305(key) => key.seal(nonce, aad, text),
            Suite::Aes128Gcm16(key) => key.as_ref().seal(nonce, aad, text),
            Suite::Aes256Gcm16(key) => key.as_ref().seal(nonce, aad, text),
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
            Suite::Aes128Gcm16(key) => key.as_ref().open(nonce, aad, text, icv),
            Suite::Aes256Gcm16(key) => key.as_ref().open(nonce, aad, text, icv),
        }
    }
}
