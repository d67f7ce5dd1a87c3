//! The pseudorandom function that all of IKEv2's keys come from, and the one use of SHA-1.
//!
//! Implements PRF_HMAC_SHA2_256 (RFC 4868, HMAC of RFC 2104) and prf+ (RFC 7296 §2.13). Input
//! comes in parts, so that nobody has to join them first. Other PRFs are not here.

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Length of the function's output, which is also the length of the keys it prefers, in bytes.
pub const PRF_LEN: usize = 32;
/// Length of a SHA-1 hash in bytes.
pub const SHA1_LEN: usize = 20;
/// Length of the blocks that SHA-256 works on, in bytes.
const BLOCK_LEN: usize = 64;
/// prf+ is only defined for as many outputs as one byte counts.
const PRF_PLUS_MAX: usize = 255 * PRF_LEN;

/// A secret of the PRF's length; it is erased when dropped.
pub type Secret = Zeroizing<[u8; PRF_LEN]>;

/// PRF_HMAC_SHA2_256 with its key.
#[derive(Clone)]
pub struct Prf(Hmac<Sha256>);

impl Prf {
    /// Takes a key of any length, where the parts are one string.
    #[must_use]
    pub fn new(key: &[&[u8]]) -> Prf {
        // HMAC's own way to bring a key to the length of a block (RFC 2104 §2).
        let mut block = Zeroizing::new([0; BLOCK_LEN]);
        if key.iter().fold(0, |len: usize, part| len.saturating_add(part.len())) <= BLOCK_LEN {
            let bytes = key.iter().copied().flatten();
            block.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        } else {
            let mut hash = Sha256::new();
            key.iter().for_each(|part| Digest::update(&mut hash, part));
            block.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
        }
        Prf(Hmac::new((&*block).into()))
    }

    /// prf(key, parts), where the parts are one string.
    #[must_use]
    pub fn compute(&self, parts: &[&[u8]]) -> Secret {
        self.mac(&[], parts, &[])
    }

    /// Whether `mac` is prf(key, parts), in constant time.
    #[must_use]
    pub fn verify(&self, parts: &[&[u8]], mac: &[u8]) -> bool {
        let mut hmac = self.0.clone();
        parts.iter().for_each(|part| hmac.update(part));
        hmac.verify_slice(mac).is_ok()
    }

    /// The first `N` bytes of prf+(key, parts), where the parts are one string (RFC 7296 §2.13).
    #[must_use]
    pub fn expand<const N: usize>(&self, parts: &[&[u8]]) -> Zeroizing<[u8; N]> {
        const { assert!(N <= PRF_PLUS_MAX, "prf+ is not defined beyond 255 outputs") };
        let mut output = Zeroizing::new([0; N]);
        let mut last = Secret::default();
        for (number, chunk) in (1..=u8::MAX).zip(output.chunks_mut(PRF_LEN)) {
            let before: &[u8] = if number == 1 { &[] } else { &*last };
            last = self.mac(before, parts, &[number]);
            chunk.iter_mut().zip(last.iter()).for_each(|(to, from)| *to = *from);
        }
        output
    }

    fn mac(&self, before: &[u8], parts: &[&[u8]], after: &[u8]) -> Secret {
        let mut hmac = self.0.clone();
        hmac.update(before);
        parts.iter().for_each(|part| hmac.update(part));
        hmac.update(after);
        Secret::new(hmac.finalize().into_bytes().into())
    }
}

/// SHA-1 of the parts as one string, for two things that are no secret and need no collision
/// resistance: NAT detection (RFC 7296 §2.23), and identities made from public keys.
#[must_use]
pub fn sha1(parts: &[&[u8]]) -> [u8; SHA1_LEN] {
    let mut hash = Sha1::new();
    parts.iter().for_each(|part| Digest::update(&mut hash, part));
    hash.finalize().into()
}
