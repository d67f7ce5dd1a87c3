//! The proof that an end is who it says: what AUTH payloads hold.
//!
//! Implements shared key message integrity codes (RFC 7296 §2.15) and digital signatures
//! (RFC 7427) by Ed25519 (RFC 8420). With a postquantum preshared key, an initiator makes two: AUTH
//! over secrets that the key was mixed into, and for the notification NO_PPK_AUTH one over those
//! without ([`super::keymat::IkeSecrets::with_ppk`], RFC 8784 §3). RSA, ECDSA, certificates and EAP
//! are not here, nor the payload's layout beyond its authentication data.

use super::wire::numbers::AuthMethod;
use crate::crypto::prf::{PRF_LEN, Prf, Secret};
use crate::crypto::sign::{PrivateKey, PublicKey, SIGNATURE_LEN};

/// Shared Key Message Integrity Code, in IANA's registry of authentication methods.
pub const METHOD_SHARED_KEY: u8 = AuthMethod::SHARED_KEY_MESSAGE_INTEGRITY_CODE.0;
/// Digital Signature, in IANA's registry of authentication methods.
pub const METHOD_SIGNATURE: u8 = AuthMethod::DIGITAL_SIGNATURE.0;

/// What precedes an Ed25519 signature: an AlgorithmIdentifier, and before it its length (RFC 7427
/// §3, RFC 8420 Appendix A).
const ED25519: [u8; 8] = [7, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
/// Length of the longest authentication data in bytes.
const MAX_DATA_LEN: usize = ED25519.len() + SIGNATURE_LEN;
/// Stretches a preshared key (RFC 7296 §2.15).
const KEY_PAD: &[u8] = b"Key Pad for IKEv2";

/// What an end's AUTH payload covers (RFC 7296 §2.15): InitiatorSignedOctets or
/// ResponderSignedOctets.
pub struct SignedOctets<'a> {
    message: &'a [u8],
    nonce: &'a [u8],
    maced_id: Secret,
}

impl<'a> SignedOctets<'a> {
    /// `message` is the whole IKE_SA_INIT message that the end being authenticated has sent, from
    /// its first SPI on; of several requests the last one. `nonce` is the *other* end's. `sk_p` is
    /// SK_pi or SK_pr, after the end being authenticated. `id` is that end's ID payload without
    /// the generic header, in as many parts as the caller likes.
    #[must_use]
    pub fn new(
        message: &'a [u8],
        nonce: &'a [u8],
        sk_p: &Secret,
        id: &[&[u8]],
    ) -> SignedOctets<'a> {
        SignedOctets { message, nonce, maced_id: Prf::new(&[&sk_p[..]]).compute(id) }
    }

    fn parts(&self) -> [&[u8]; 3] {
        [self.message, self.nonce, &self.maced_id[..]]
    }
}

/// The content of an AUTH payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthData {
    method: u8,
    bytes: [u8; MAX_DATA_LEN],
    len: usize,
}

impl AuthData {
    fn new<'a>(method: u8, bytes: impl Iterator<Item = &'a u8>) -> AuthData {
        let mut data = AuthData { method, bytes: [0; MAX_DATA_LEN], len: 0 };
        for (to, from) in data.bytes.iter_mut().zip(bytes) {
            *to = *from;
            data.len += 1;
        }
        data
    }

    /// The authentication method.
    #[must_use]
    pub fn method(&self) -> u8 {
        self.method
    }

    /// The authentication data.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// What we prove our identity with.
#[derive(Clone, Copy)]
pub enum Credential<'a> {
    /// A secret that both ends know.
    PresharedKey(&'a [u8]),
    /// An Ed25519 key. Only for peers that announced the hash function Identity (RFC 8420 §2).
    PrivateKey(&'a PrivateKey),
}

impl Credential<'_> {
    /// Makes the content of our AUTH payload.
    #[must_use]
    pub fn authenticate(&self, octets: &SignedOctets<'_>) -> AuthData {
        match self {
            Credential::PresharedKey(key) => {
                let mac = shared_key_prf(key).compute(&octets.parts());
                AuthData::new(METHOD_SHARED_KEY, mac.iter())
            }
            Credential::PrivateKey(key) => {
                let signature = key.sign(&octets.parts());
                AuthData::new(METHOD_SIGNATURE, ED25519.iter().chain(&signature))
            }
        }
    }
}

/// What the peer has to prove its identity with.
#[derive(Clone, Copy)]
pub enum Expectation<'a> {
    /// A secret that both ends know.
    PresharedKey(&'a [u8]),
    /// The private half of an Ed25519 key.
    PublicKey(&'a PublicKey),
}

/// Why the peer is not authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthError {
    /// It used this method, and our configuration expects another.
    Method(u8),
    /// It signed with another algorithm than Ed25519.
    Algorithm,
    /// It does not have the key (or, with a postquantum preshared key, not that one).
    Failed,
}

impl Expectation<'_> {
    /// Checks the content of the peer's AUTH payload; a shared key's in constant time.
    ///
    /// # Errors
    /// [`AuthError`]
    pub fn verify(
        &self,
        method: u8,
        data: &[u8],
        octets: &SignedOctets<'_>,
    ) -> Result<(), AuthError> {
        match (self, method) {
            (Expectation::PresharedKey(key), METHOD_SHARED_KEY) => {
                let genuine = shared_key_prf(key).verify(&octets.parts(), data);
                if genuine { Ok(()) } else { Err(AuthError::Failed) }
            }
            (Expectation::PublicKey(key), METHOD_SIGNATURE) => {
                let signature = data.strip_prefix(&ED25519).ok_or(AuthError::Algorithm)?;
                key.verify(&octets.parts(), signature).map_err(|_| AuthError::Failed)
            }
            _ => Err(AuthError::Method(method)),
        }
    }
}

/// prf(prf(shared secret, "Key Pad for IKEv2"), …).
fn shared_key_prf(key: &[u8]) -> Prf {
    let stretched: Secret = Prf::new(&[key]).compute(&[KEY_PAD]);
    Prf::new(&[&stretched[..]])
}

const _: () = assert!(PRF_LEN <= MAX_DATA_LEN);
