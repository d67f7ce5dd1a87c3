//! The AEADs of `ring`: AES-GCM with AES-NI or VAES and ChaCha20-Poly1305 with AVX2 on x86-64, with
//! NEON and the cryptography extensions on 64-bit ARM, chosen at run time.
//!
//! A key is erased when it is dropped. What `ring` does not do is erase its own working memory: a
//! copy of the key can stay on the stack, below what is in use, until other calls overwrite it.

use core::mem::{ManuallyDrop, needs_drop};

use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey,
};
use simplevpn_core::ahead::Fetch;
use simplevpn_core::crypto::{Aead, BadIcv, BadKeyLength, Cipher, ICV_LEN, NONCE_LEN};
use zeroize::{Zeroizing, zeroize_flat_type};

/// What [`Key`] is built on.
pub const PROVIDER: &str = "ring";

const CHACHA20_KEY_LEN: usize = 32;

/// A key of an SA, ready to use.
pub struct Key(Inner);

/// `ring` has one type for all its AEADs, of half a KiB. ChaCha20-Poly1305 has nothing to expand
/// there, so that its key is better kept as it is and handed to `ring` with each packet.
enum Inner {
    ChaCha20Poly1305(Zeroizing<[u8; CHACHA20_KEY_LEN]>),
    Aes(Box<Expanded>),
}

/// An expanded key, erased when dropped.
struct Expanded(ManuallyDrop<LessSafeKey>);

impl Drop for Expanded {
    fn drop(&mut self) {
        const { assert!(!needs_drop::<LessSafeKey>()) };
        // SAFETY: the key is plain bytes and a reference to something static, which is forgotten
        // with it; nothing in it has to be dropped (see above), and nobody uses it from here on:
        // `ManuallyDrop` does not.
        unsafe { zeroize_flat_type::<LessSafeKey>(&raw mut *self.0) }
    }
}

impl Key {
    /// Expands a key (without its salt) for `cipher`.
    ///
    /// # Errors
    /// [`BadKeyLength`] unless `key` has [`Cipher::key_len`] bytes.
    pub fn new(cipher: Cipher, key: &[u8]) -> Result<Key, BadKeyLength> {
        let algorithm = match cipher {
            Cipher::ChaCha20Poly1305 => {
                let key = key.try_into().map_err(|_| BadKeyLength)?;
                return Ok(Key(Inner::ChaCha20Poly1305(Zeroizing::new(key))));
            }
            Cipher::Aes128Gcm16 => &AES_128_GCM,
            Cipher::Aes256Gcm16 => &AES_256_GCM,
        };
        let expanded = UnboundKey::new(algorithm, key).map_err(|_| BadKeyLength)?;
        let expanded = Expanded(ManuallyDrop::new(LessSafeKey::new(expanded)));
        Ok(Key(Inner::Aes(Box::new(expanded))))
    }

    /// Hands the key to `work`, as `ring` wants it; `None` if `ring` does not take it.
    fn with<T>(&self, work: impl FnOnce(&LessSafeKey) -> Option<T>) -> Option<T> {
        match &self.0 {
            Inner::ChaCha20Poly1305(key) => {
                let key = UnboundKey::new(&CHACHA20_POLY1305, key.as_slice()).ok()?;
                work(&LessSafeKey::new(key))
            }
            Inner::Aes(key) => work(&key.0),
        }
    }
}

/// Begins to fetch what a key has on the heap.
pub(crate) fn fetch(key: &Key, fetch: &impl Fetch<Key>) {
    if let Inner::Aes(expanded) = &key.0 {
        fetch.value(&**expanded);
    }
}

impl Aead for Key {
    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8]) -> [u8; ICV_LEN] {
        let sealed = self.with(|key| {
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad), text).ok()?;
            tag.as_ref().try_into().ok()
        });
        // The only error is a text of 2^36 bytes or more, which no packet is. Nothing of it is to
        // leave in the clear.
        sealed.unwrap_or_else(|| {
            text.fill(0);
            [0; ICV_LEN]
        })
    }

    fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        text: &mut [u8],
        icv: &[u8; ICV_LEN],
    ) -> Result<(), BadIcv> {
        let opened = self.with(|key| {
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let (aad, icv) = (Aad::from(aad), Tag::from(*icv));
            key.open_in_place_separate_tag(nonce, aad, icv, text, 0..).ok().map(|_| ())
        });
        opened.ok_or(BadIcv)
    }
}

#[cfg(test)]
mod tests {
    use simplevpn_core::esp::window_storage;
    use simplevpn_core::opener::InboundSlot;
    use simplevpn_core::sad::SaSlot;
    use simplevpn_core::sealer::OutboundSlot;
    use simplevpn_core::spd::SpdSlot;

    use super::*;

    /// What a hub lends for each peer outside a rekey, both directions: one prefix, window 2048. A
    /// table has two slots for each key. An SPI that somebody else chose may take two slots more.
    #[test]
    fn the_state_of_a_peer_fits_two_kib() {
        let inline = size_of::<OutboundSlot<Key>>()
            + size_of::<InboundSlot>()
            + size_of::<SaSlot<'_, Key>>()
            + window_storage(2048) * size_of::<u32>()
            + 2 * 2 * size_of::<SpdSlot>();
        let expanded = 2 * size_of::<Expanded>();
        println!("ChaCha20-Poly1305: {inline} bytes, AES-GCM: {}", inline + expanded);
        assert!(inline <= 1024, "{inline}");
        assert!(inline + expanded <= 2048, "{inline} + {expanded}");
    }
}
