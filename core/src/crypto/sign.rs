//! Ed25519 signatures, and public keys as others write them.
//!
//! Implements pure Ed25519 (RFC 8032 §5.1) and the DER encoding of its public keys (RFC 8410 §4).
//! RSA, ECDSA and certificates are not here: peers' public keys are pinned.

use core::fmt;

use curve25519_dalek::edwards::CompressedEdwardsY;
use ed25519_dalek::ed25519::signature::{MultipartSigner, MultipartVerifier};
use ed25519_dalek::{Signature, SigningKey, VerifyingKey};

use super::prf::{SHA1_LEN, sha1};

/// Length of private keys (seeds) and of public keys, in bytes.
pub const KEY_LEN: usize = 32;
/// Length of a signature in bytes.
pub const SIGNATURE_LEN: usize = 64;
/// Length of a DER SubjectPublicKeyInfo in bytes.
pub const SPKI_LEN: usize = 44;

/// What precedes the key: SEQUENCE { SEQUENCE { OID 1.3.101.112 }, BIT STRING }.
const SPKI_PREFIX: [u8; SPKI_LEN - KEY_LEN] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The bytes are no point of the curve, or one of the few for which anybody can forge signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadPublicKey;

/// The signature is not the key's over this message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadSignature;

/// An Ed25519 private key; it is erased when dropped.
pub struct PrivateKey(SigningKey);

impl PrivateKey {
    /// The key of a seed, which is what RFC 8032 calls the private key.
    #[must_use]
    pub fn from_seed(seed: &[u8; KEY_LEN]) -> PrivateKey {
        PrivateKey(SigningKey::from_bytes(seed))
    }

    /// Its public key.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs the parts as one string.
    #[must_use]
    pub fn sign(&self, parts: &[&[u8]]) -> [u8; SIGNATURE_LEN] {
        self.0.multipart_sign(parts).to_bytes()
    }
}

/// An Ed25519 public key that is good for verifying.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads the 32 bytes of a public key.
    ///
    /// # Errors
    /// [`BadPublicKey`] for what is no point, not its canonical encoding, or of small order.
    pub fn from_bytes(bytes: &[u8; KEY_LEN]) -> Result<PublicKey, BadPublicKey> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| BadPublicKey)?;
        let canonical = key.to_edwards().compress().to_bytes() == *bytes;
        if key.is_weak() || !canonical { Err(BadPublicKey) } else { Ok(PublicKey(key)) }
    }

    /// Its 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        self.0.as_bytes()
    }

    /// Verifies a signature over the parts as one string (RFC 8032 §5.1.7, without the cofactor).
    ///
    /// # Errors
    /// [`BadSignature`], also for one of another length or encoding than the canonical ones, and
    /// for an R of small order, which no honest signer comes by.
    pub fn verify(&self, parts: &[&[u8]], signature: &[u8]) -> Result<(), BadSignature> {
        let signature = Signature::from_slice(signature).map_err(|_| BadSignature)?;
        let r = CompressedEdwardsY(*signature.r_bytes()).decompress().ok_or(BadSignature)?;
        if r.is_small_order() {
            return Err(BadSignature);
        }
        self.0.multipart_verify(parts, &signature).map_err(|_| BadSignature)
    }

    /// The DER SubjectPublicKeyInfo (RFC 8410 §4).
    #[must_use]
    pub fn spki(&self) -> [u8; SPKI_LEN] {
        let mut spki = [0; SPKI_LEN];
        let bytes = SPKI_PREFIX.iter().chain(self.as_bytes());
        spki.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        spki
    }

    /// SHA-1 of the DER SubjectPublicKeyInfo: the identity (ID_KEY_ID) of a key that has no other.
    #[must_use]
    pub fn key_id(&self) -> [u8; SHA1_LEN] {
        sha1(&[&self.spki()])
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublicKey(")?;
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}
