//! The keys that a key exchange leads to.
//!
//! Implements the keys of an IKE SA (RFC 7296 §2.14) and of its successor (§2.18), the keying
//! material of child SAs (§2.17), and postquantum preshared keys mixed into both (RFC 8784 §3).
//! Every cipher is an AEAD (RFC 5282): there is no SK_a, and SK_e ends with the salt. Nothing here
//! knows how payloads are laid out.

use zeroize::Zeroizing;

use crate::crypto::dh::SharedSecret;
use crate::crypto::prf::{PRF_LEN, Prf, Secret};
use crate::crypto::{Cipher, SALT_LEN, Salt};

/// Length of the longest key with its salt, in bytes.
const MAX_CIPHER_KEY_LEN: usize = 32 + SALT_LEN;
/// SK_d, SK_ei, SK_er, SK_pi and SK_pr at their longest, in bytes.
const IKE_KEYMAT_LEN: usize = 3 * PRF_LEN + 2 * MAX_CIPHER_KEY_LEN;
/// Both directions of a child SA at their longest, in bytes.
const CHILD_KEYMAT_LEN: usize = 2 * MAX_CIPHER_KEY_LEN;

/// The nonces of one exchange, as in the payloads. The initiator is the exchange's: whoever began
/// a rekeying is the initiator of what comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonces<'a> {
    /// Ni, the initiator's.
    pub initiator: &'a [u8],
    /// Nr, the responder's.
    pub responder: &'a [u8],
}

/// The SPIs of an IKE SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IkeSpis {
    /// SPIi, the initiator's.
    pub initiator: u64,
    /// SPIr, the responder's.
    pub responder: u64,
}

/// A key with its salt, for one direction; both are erased when dropped.
#[derive(Clone)]
pub struct CipherKey {
    cipher: Cipher,
    material: Zeroizing<[u8; MAX_CIPHER_KEY_LEN]>,
}

impl CipherKey {
    /// The cipher it is for.
    #[must_use]
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// The key without its salt: [`Cipher::key_len`] bytes.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.material.get(..self.cipher.key_len()).unwrap_or_default()
    }

    /// The salt, which begins each nonce (RFC 5282 §4, RFC 4106 §8.1, RFC 7634 §2).
    #[must_use]
    pub fn salt(&self) -> Salt {
        let after = self.material.get(self.cipher.key_len()..).unwrap_or_default();
        Salt::new(after.first_chunk().copied().unwrap_or_default())
    }
}

/// Keying material, of which keys are cut off one after the other.
struct KeyMaterial<const N: usize> {
    bytes: Zeroizing<[u8; N]>,
    taken: usize,
}

impl<const N: usize> KeyMaterial<N> {
    fn new(bytes: Zeroizing<[u8; N]>) -> KeyMaterial<N> {
        KeyMaterial { bytes, taken: 0 }
    }

    fn fill(&mut self, to: &mut [u8]) {
        let from = self.bytes.iter().skip(self.taken);
        self.taken = self.taken.saturating_add(to.len());
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    }

    fn secret(&mut self) -> Secret {
        let mut secret = Secret::default();
        self.fill(&mut *secret);
        secret
    }

    fn cipher_key(&mut self, cipher: Cipher) -> CipherKey {
        let mut material = Zeroizing::new([0; MAX_CIPHER_KEY_LEN]);
        self.fill(material.get_mut(..cipher.keymat_len()).unwrap_or_default());
        CipherKey { cipher, material }
    }
}

/// The keys of an IKE SA.
pub struct IkeKeys {
    /// SK_ei: what the initiator encrypts with.
    pub sk_ei: CipherKey,
    /// SK_er: what the responder encrypts with.
    pub sk_er: CipherKey,
    /// What is no encryption key.
    pub secrets: IkeSecrets,
}

/// The secrets of an IKE SA that authenticate its ends and lead to further keys: those that a
/// postquantum preshared key changes.
#[derive(Clone)]
pub struct IkeSecrets {
    /// SK_d: leads to the keys of child SAs and of the next IKE SA.
    pub sk_d: Secret,
    /// SK_pi: goes into the initiator's AUTH payload.
    pub sk_pi: Secret,
    /// SK_pr: goes into the responder's AUTH payload.
    pub sk_pr: Secret,
}

impl IkeKeys {
    /// The keys after IKE_SA_INIT (RFC 7296 §2.14).
    #[must_use]
    pub fn initial(
        cipher: Cipher,
        shared: &SharedSecret,
        nonces: Nonces<'_>,
        spis: IkeSpis,
    ) -> IkeKeys {
        IkeKeys::expand(cipher, &skeyseed(shared, nonces), nonces, spis)
    }

    /// The keys of the IKE SA that replaces the one with this `sk_d` (RFC 7296 §2.18): nonces and
    /// SPIs are those of the CREATE_CHILD_SA exchange.
    #[must_use]
    pub fn rekeyed(
        cipher: Cipher,
        sk_d: &Secret,
        shared: &SharedSecret,
        nonces: Nonces<'_>,
        spis: IkeSpis,
    ) -> IkeKeys {
        IkeKeys::expand(cipher, &skeyseed_rekeyed(sk_d, shared, nonces), nonces, spis)
    }

    fn expand(cipher: Cipher, skeyseed: &Secret, nonces: Nonces<'_>, spis: IkeSpis) -> IkeKeys {
        let seed = [
            nonces.initiator,
            nonces.responder,
            &spis.initiator.to_be_bytes(),
            &spis.responder.to_be_bytes(),
        ];
        let material = Prf::new(&[&skeyseed[..]]).expand::<IKE_KEYMAT_LEN>(&seed);
        let mut material = KeyMaterial::new(material);
        let sk_d = material.secret();
        let [sk_ei, sk_er] = [(); 2].map(|()| material.cipher_key(cipher));
        let [sk_pi, sk_pr] = [(); 2].map(|()| material.secret());
        IkeKeys { sk_ei, sk_er, secrets: IkeSecrets { sk_d, sk_pi, sk_pr } }
    }
}

impl IkeSecrets {
    /// The same secrets with a postquantum preshared key mixed in (RFC 8784 §3).
    ///
    /// Both are of use until the peer has told whether it knows the PPK: without it, AUTH goes by
    /// the old ones (NO_PPK_AUTH). The encryption keys stay as they are, so a PPK protects child
    /// SAs and later IKE SAs, but not this one.
    #[must_use]
    pub fn with_ppk(&self, ppk: &[u8]) -> IkeSecrets {
        let prf = Prf::new(&[ppk]);
        let mix = |secret: &Secret| prf.expand(&[&secret[..]]);
        IkeSecrets { sk_d: mix(&self.sk_d), sk_pi: mix(&self.sk_pi), sk_pr: mix(&self.sk_pr) }
    }
}

/// The keys of a child SA pair.
pub struct ChildKeys {
    /// For what the initiator sends.
    pub initiator: CipherKey,
    /// For what the responder sends.
    pub responder: CipherKey,
}

impl ChildKeys {
    /// The keys of a child SA (RFC 7296 §2.17). With perfect forward secrecy, `shared` comes out of
    /// the CREATE_CHILD_SA exchange's own key exchange. The nonces are those of the exchange that
    /// makes the child: IKE_SA_INIT's for the first, else CREATE_CHILD_SA's.
    #[must_use]
    pub fn new(
        cipher: Cipher,
        sk_d: &Secret,
        shared: Option<&SharedSecret>,
        nonces: Nonces<'_>,
    ) -> ChildKeys {
        let shared = shared.map_or(&[][..], |shared| &shared[..]);
        let seed = [shared, nonces.initiator, nonces.responder];
        let material = Prf::new(&[&sk_d[..]]).expand::<CHILD_KEYMAT_LEN>(&seed);
        let mut material = KeyMaterial::new(material);
        let [initiator, responder] = [(); 2].map(|()| material.cipher_key(cipher));
        ChildKeys { initiator, responder }
    }
}

/// SKEYSEED = prf(Ni | Nr, g^ir).
fn skeyseed(shared: &SharedSecret, nonces: Nonces<'_>) -> Secret {
    Prf::new(&[nonces.initiator, nonces.responder]).compute(&[&shared[..]])
}

/// SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr).
fn skeyseed_rekeyed(sk_d: &Secret, shared: &SharedSecret, nonces: Nonces<'_>) -> Secret {
    Prf::new(&[&sk_d[..]]).compute(&[&shared[..], nonces.initiator, nonces.responder])
}
