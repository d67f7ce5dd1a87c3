//! ChaCha20-Poly1305 as on 32-bit processors: vectors that nobody here wrote, and that it and
//! RustCrypto's understand each other.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use proptest::prelude::*;
use simplevpn_core::crypto::{
    Aead, AnyAead, BadIcv, BadKeyLength, Cipher, ICV_LEN, NONCE_LEN, portable,
};

#[path = "aead/vectors.rs"]
mod vectors;

/// RustCrypto's AES-GCM beside it.
enum Key {
    Portable(portable::ChaCha20Poly1305),
    Other(Box<AnyAead>),
}

impl Key {
    fn new(cipher: Cipher, key: &[u8]) -> Result<Key, BadKeyLength> {
        match cipher {
            Cipher::ChaCha20Poly1305 => portable::ChaCha20Poly1305::new(key).map(Key::Portable),
            _ => AnyAead::new(cipher, key).map(Box::new).map(Key::Other),
        }
    }
}

impl Aead for Key {
    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8]) -> [u8; ICV_LEN] {
        match self {
            Key::Portable(key) => key.seal(nonce, aad, text),
            Key::Other(key) => key.seal(nonce, aad, text),
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
            Key::Portable(key) => key.open(nonce, aad, text, icv),
            Key::Other(key) => key.open(nonce, aad, text, icv),
        }
    }
}

/// Bytes with many zeros and ones, where carries go a long way.
fn extreme() -> impl Strategy<Value = u8> {
    prop_oneof![Just(0), Just(0xff), Just(0xfb), any::<u8>()]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn both_seal_alike_and_open_what_the_other_sealed(
        key: [u8; 32],
        nonce: [u8; NONCE_LEN],
        aad in proptest::collection::vec(extreme(), 0..40),
        text in proptest::collection::vec(extreme(), 0..600),
        at: proptest::sample::Index,
        bit in 0..8u32,
    ) {
        let ours = portable::ChaCha20Poly1305::new(&key).unwrap();
        let reference = AnyAead::new(Cipher::ChaCha20Poly1305, &key).unwrap();
        let (mut one, mut other) = (text.clone(), text.clone());
        let icv = ours.seal(&nonce, &aad, &mut one);
        prop_assert_eq!(icv, reference.seal(&nonce, &aad, &mut other));
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(ours.open(&nonce, &aad, &mut one, &icv), Ok(()));
        prop_assert_eq!(&one, &text);

        let mut forged = [&other[..], &icv].concat();
        let at = at.index(forged.len());
        forged[at] ^= 1u8 << bit;
        let (text, icv) = forged.split_last_chunk_mut().unwrap();
        prop_assert_eq!(ours.open(&nonce, &aad, text, icv), Err(BadIcv));
    }
}
