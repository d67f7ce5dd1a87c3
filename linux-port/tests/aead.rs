//! The AEAD that is shipped: published vectors, and that it and RustCrypto understand each other.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use proptest::prelude::*;
use simplevpn::crypto::{Key, PROVIDER};
use simplevpn_core::crypto::{Aead, AnyAead, BadIcv, BadKeyLength, Cipher, ICV_LEN, NONCE_LEN};

#[path = "../../core/tests/aead/vectors.rs"]
mod vectors;

/// Longer than any packet on an Ethernet.
const LENGTHS: core::ops::Range<usize> = 0..2001;

fn keys(cipher: Cipher, key: &[u8; 32]) -> (Key, AnyAead) {
    let key = &key[..cipher.key_len()];
    (Key::new(cipher, key).unwrap(), AnyAead::new(cipher, key).unwrap())
}

fn sealed(key: &impl Aead, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &[u8]) -> Vec<u8> {
    let mut sealed = text.to_vec();
    let icv = key.seal(nonce, aad, &mut sealed);
    sealed.extend(icv);
    sealed
}

fn opened(
    key: &impl Aead,
    nonce: &[u8; NONCE_LEN],
    aad: &[u8],
    sealed: &[u8],
) -> Result<Vec<u8>, BadIcv> {
    let (text, icv) = sealed.split_last_chunk::<ICV_LEN>().unwrap();
    let mut text = text.to_vec();
    key.open(nonce, aad, &mut text, icv)?;
    Ok(text)
}

#[test]
fn the_provider_is_the_one_for_this_machine() {
    let fast = cfg!(all(feature = "ring", any(target_arch = "x86_64", target_arch = "aarch64")));
    assert_eq!(PROVIDER, if fast { "ring" } else { "RustCrypto" });
    // A hub's SAs are to stay small.
    assert!(size_of::<Key>() <= 48, "{} bytes", size_of::<Key>());
}

#[test]
fn a_key_of_another_length_is_refused() {
    for cipher in Cipher::ALL {
        for len in (0..64).filter(|len| *len != cipher.key_len()) {
            assert!(
                matches!(Key::new(cipher, &vec![7; len]), Err(BadKeyLength)),
                "{cipher:?} {len}"
            );
        }
    }
}

#[test]
fn what_one_seals_the_other_opens_at_every_length() {
    for cipher in Cipher::ALL {
        let (ours, reference) = keys(cipher, &[0x5a; 32]);
        for len in LENGTHS {
            let text = Vec::from_iter((0..len).map(|i| (i * 7) as u8));
            let mut nonce = [3; NONCE_LEN];
            nonce[4..].copy_from_slice(&(len as u64).to_be_bytes());
            let aad = &nonce[..if len % 2 == 0 { 8 } else { 12 }];
            let packet = sealed(&ours, &nonce, aad, &text);
            assert!(packet == sealed(&reference, &nonce, aad, &text), "{cipher:?} {len}");
            assert!(
                opened(&reference, &nonce, aad, &packet).as_ref() == Ok(&text),
                "{cipher:?} {len}"
            );
            assert!(opened(&ours, &nonce, aad, &packet) == Ok(text), "{cipher:?} {len}");
        }
    }
}

fn any_cipher() -> impl Strategy<Value = Cipher> {
    proptest::sample::select(&Cipher::ALL[..])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_agree_on_anything(
        cipher in any_cipher(),
        key: [u8; 32],
        nonce: [u8; NONCE_LEN],
        esn: bool,
        aad: [u8; 12],
        text in proptest::collection::vec(any::<u8>(), LENGTHS),
    ) {
        let (ours, reference) = keys(cipher, &key);
        let aad = &aad[..if esn { 12 } else { 8 }];
        let packet = sealed(&ours, &nonce, aad, &text);
        prop_assert_eq!(&packet, &sealed(&reference, &nonce, aad, &text));
        prop_assert_eq!(opened(&ours, &nonce, aad, &packet), Ok(text));
    }

    #[test]
    fn a_changed_bit_anywhere_is_refused(
        cipher in any_cipher(),
        key: [u8; 32],
        mut nonce: [u8; NONCE_LEN],
        mut aad: [u8; 12],
        text in proptest::collection::vec(any::<u8>(), LENGTHS),
        at: proptest::sample::Index,
        bit in 0..8u32,
    ) {
        let (ours, reference) = keys(cipher, &key);
        let mut packet = sealed(&reference, &nonce, &aad, &text);
        prop_assert_eq!(opened(&ours, &nonce, &aad, &packet), Ok(text));
        let everything = nonce.iter_mut().chain(&mut aad).chain(&mut packet);
        let mut everything = Vec::from_iter(everything);
        let at = at.index(everything.len());
        *everything[at] ^= 1u8 << bit;
        prop_assert_eq!(opened(&ours, &nonce, &aad, &packet), Err(BadIcv));
    }
}
