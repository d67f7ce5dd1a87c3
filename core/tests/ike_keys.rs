//! IKE's keys and AUTH payloads against what others computed: strongSwan in two whole
//! connections, and Python's own HMAC.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::collections::BTreeMap;

use simplevpn_core::crypto::Cipher;
use simplevpn_core::crypto::dh::SharedSecret;
use simplevpn_core::crypto::prf::Secret;
use simplevpn_core::crypto::sign::{PrivateKey, PublicKey};
use simplevpn_core::ike::auth::{AuthError, Credential, Expectation, SignedOctets};
use simplevpn_core::ike::identity::Identity;
use simplevpn_core::ike::keymat::{ChildKeys, CipherKey, IkeKeys, IkeSecrets, IkeSpis, Nonces};

const STRONGSWAN_PSK: &str = include_str!("ike/strongswan-psk.txt");
const STRONGSWAN_ED25519: &str = include_str!("ike/strongswan-ed25519.txt");
const KEYMAT: &str = include_str!("ike/keymat.txt");

/// Lines of `name = value`, where indented lines go on with the value.
struct Vector(BTreeMap<String, String>);

impl Vector {
    fn read(text: &str) -> Vector {
        let mut values = BTreeMap::<String, String>::new();
        let mut name = "";
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let mut value = line.trim();
            if let Some((before, after)) = line.split_once('=') {
                (name, value) = (before.trim(), after.trim());
            }
            values.entry(name.to_owned()).or_default().push_str(value);
        }
        Vector(values)
    }

    fn text(&self, name: &str) -> &str {
        self.0.get(name).unwrap_or_else(|| panic!("no {name}"))
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        let digits = self.text(name).as_bytes();
        let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    fn array<const N: usize>(&self, name: &str) -> [u8; N] {
        self.bytes(name).try_into().unwrap()
    }

    fn shared(&self, name: &str) -> SharedSecret {
        SharedSecret::new(self.array(name))
    }

    fn spis(&self, prefix: &str) -> IkeSpis {
        let spi = |end| u64::from_be_bytes(self.array(&format!("{prefix}spi_{end}")));
        IkeSpis { initiator: spi("i"), responder: spi("r") }
    }

    #[track_caller]
    fn check_key(&self, name: &str, key: &CipherKey) {
        assert_eq!([key.key(), &key.salt()[..]].concat(), self.bytes(name), "{name}");
    }

    #[track_caller]
    fn check_secrets(&self, prefix: &str, secrets: &IkeSecrets) {
        let IkeSecrets { sk_d, sk_pi, sk_pr } = secrets;
        for (name, secret) in [("sk_d", sk_d), ("sk_pi", sk_pi), ("sk_pr", sk_pr)] {
            assert_eq!(secret[..], self.bytes(&format!("{prefix}{name}")), "{prefix}{name}");
        }
    }

    #[track_caller]
    fn check_ike(&self, prefix: &str, keys: &IkeKeys) {
        self.check_key(&format!("{prefix}sk_ei"), &keys.sk_ei);
        self.check_key(&format!("{prefix}sk_er"), &keys.sk_er);
        self.check_secrets(prefix, &keys.secrets);
    }

    #[track_caller]
    fn check_child(&self, prefix: &str, keys: &ChildKeys) {
        self.check_key(&format!("{prefix}_i"), &keys.initiator);
        self.check_key(&format!("{prefix}_r"), &keys.responder);
    }
}

struct OwnedNonces([Vec<u8>; 2]);

impl OwnedNonces {
    fn read(vector: &Vector, prefix: &str) -> OwnedNonces {
        OwnedNonces(["i", "r"].map(|end| vector.bytes(&format!("{prefix}nonce_{end}"))))
    }

    fn get(&self) -> Nonces<'_> {
        Nonces { initiator: &self.0[0], responder: &self.0[1] }
    }
}

/// All keys of a connection of strongSwan's; returns the secrets without and with the PPK.
fn check_connection(vector: &Vector, cipher: Cipher) -> [IkeSecrets; 2] {
    let nonces = OwnedNonces::read(vector, "");
    let keys = IkeKeys::initial(cipher, &vector.shared("shared"), nonces.get(), vector.spis(""));
    vector.check_ike("", &keys);
    let with_ppk = keys.secrets.with_ppk(&vector.bytes("ppk"));
    vector.check_secrets("ppk_", &with_ppk);
    let sk_d = &with_ppk.sk_d;

    vector.check_child("child", &ChildKeys::new(cipher, sk_d, None, nonces.get()));
    let nonces = OwnedNonces::read(vector, "pfs_");
    let shared = vector.shared("pfs_shared");
    vector.check_child("pfs_child", &ChildKeys::new(cipher, sk_d, Some(&shared), nonces.get()));

    let nonces = OwnedNonces::read(vector, "rekey_");
    let shared = vector.shared("rekey_shared");
    let spis = vector.spis("rekey_");
    vector.check_ike("rekey_", &IkeKeys::rekeyed(cipher, sk_d, &shared, nonces.get(), spis));
    [keys.secrets, with_ppk]
}

/// What each end's AUTH covers, all of it owned.
struct Octets {
    message: Vec<u8>,
    nonce: Vec<u8>,
    id: Vec<u8>,
}

impl Octets {
    fn read(vector: &Vector, end: &str, other: &str) -> Octets {
        let [message, nonce, id] =
            [format!("message_{end}"), format!("nonce_{other}"), format!("id_{end}")]
                .map(|name| vector.bytes(&name));
        Octets { message, nonce, id }
    }

    fn signed(&self, sk_p: &Secret) -> SignedOctets<'_> {
        SignedOctets::new(&self.message, &self.nonce, sk_p, &[&self.id])
    }
}

#[test]
fn strongswan_with_preshared_keys_and_ppk() {
    let vector = Vector::read(STRONGSWAN_PSK);
    let [without, with] = check_connection(&vector, Cipher::ChaCha20Poly1305);

    let initiator = Octets::read(&vector, "i", "r");
    let responder = Octets::read(&vector, "r", "i");
    let psk = vector.bytes("psk");
    let mut wrong = psk.clone();
    wrong[31] ^= 1;
    for (name, octets) in [
        ("ppk_auth_i", initiator.signed(&with.sk_pi)),
        ("no_ppk_auth_i", initiator.signed(&without.sk_pi)),
        ("ppk_auth_r", responder.signed(&with.sk_pr)),
    ] {
        let auth = Credential::PresharedKey(&psk).authenticate(&octets);
        assert_eq!((auth.method(), auth.data()), (2, &vector.bytes(name)[..]), "{name}");

        let verify = |key, data| Expectation::PresharedKey(key).verify(2, data, &octets);
        assert_eq!(verify(&psk, auth.data()), Ok(()));
        assert_eq!(verify(&wrong, auth.data()), Err(AuthError::Failed));
        assert_eq!(verify(&psk, &auth.data()[..31]), Err(AuthError::Failed));
        assert_eq!(verify(&psk, &[]), Err(AuthError::Failed));
    }
    // Neither key opens what the other was made for.
    let auth = vector.bytes("ppk_auth_i");
    let octets = initiator.signed(&without.sk_pi);
    let verified = Expectation::PresharedKey(&psk).verify(2, &auth, &octets);
    assert_eq!(verified, Err(AuthError::Failed));
}

#[test]
fn strongswan_with_public_keys_and_ppk() {
    let vector = Vector::read(STRONGSWAN_ED25519);
    let [without, with] = check_connection(&vector, Cipher::Aes256Gcm16);

    let keys = ["i", "r"].map(|end| PrivateKey::from_seed(&vector.array(&format!("seed_{end}"))));
    let publics: [PublicKey; 2] = [keys[0].public_key(), keys[1].public_key()];
    let initiator = Octets::read(&vector, "i", "r");
    let responder = Octets::read(&vector, "r", "i");
    for (i, octets, sk_p, wrong_sk_p) in
        [(0, &initiator, &with.sk_pi, &without.sk_pi), (1, &responder, &with.sk_pr, &without.sk_pr)]
    {
        // Its default identity is what we take for it.
        let identity = Identity::of_key(&publics[i]);
        assert_eq!([&identity.header(), identity.data()].concat(), octets.id);
        assert!(identity.matches(octets.id[0], &octets.id[4..]));

        let auth = Credential::PrivateKey(&keys[i]).authenticate(&octets.signed(sk_p));
        let expected = vector.bytes(["ppk_auth_i", "ppk_auth_r"][i]);
        assert_eq!((auth.method(), auth.data()), (14, &expected[..]));

        let verify = |key, data: &[u8], sk_p| {
            Expectation::PublicKey(key).verify(14, data, &octets.signed(sk_p))
        };
        assert_eq!(verify(&publics[i], &expected, sk_p), Ok(()));
        assert_eq!(verify(&publics[1 - i], &expected, sk_p), Err(AuthError::Failed));
        assert_eq!(verify(&publics[i], &expected, wrong_sk_p), Err(AuthError::Failed));
        for at in 0..expected.len() {
            let mut forged = expected.clone();
            forged[at] ^= 0x20;
            let error = if at < 8 { AuthError::Algorithm } else { AuthError::Failed };
            assert_eq!(verify(&publics[i], &forged, sk_p), Err(error), "byte {at}");
            let cut = verify(&publics[i], &expected[..at], sk_p);
            assert_eq!(cut, Err(error), "{at} bytes");
        }
        assert_eq!(
            verify(&publics[i], &[&expected[..], &[0]].concat(), sk_p),
            Err(AuthError::Failed)
        );
    }
}

#[test]
fn another_method_than_the_configured_one_is_named() {
    let vector = Vector::read(STRONGSWAN_PSK);
    let octets = Octets::read(&vector, "i", "r");
    let octets = octets.signed(&Secret::default());
    let key = PrivateKey::from_seed(&[7; 32]);
    let psk: &[u8] = &[7; 32];

    let signature = Credential::PrivateKey(&key).authenticate(&octets);
    let mac = Credential::PresharedKey(psk).authenticate(&octets);
    for (expected, auth) in [
        (Expectation::PresharedKey(psk), signature),
        (Expectation::PublicKey(&key.public_key()), mac),
    ] {
        let verified = expected.verify(auth.method(), auth.data(), &octets);
        assert_eq!(verified, Err(AuthError::Method(auth.method())));
    }
    // RSA, DSS, the ECDSAs and EAP's absence of a method.
    for method in [0, 1, 3, 9, 10, 11, 13, 255] {
        let verified = Expectation::PresharedKey(psk).verify(method, mac.data(), &octets);
        assert_eq!(verified, Err(AuthError::Method(method)));
    }
}

#[test]
fn python_computes_the_same() {
    let mut count = 0;
    for block in KEYMAT.split("\n\n").skip(1) {
        let vector = Vector::read(block);
        let name = vector.text("cipher");
        let cipher = Cipher::ALL.into_iter().find(|cipher| cipher.name() == name).unwrap();
        let nonces = OwnedNonces::read(&vector, "");
        let (spis, shared) = (vector.spis(""), vector.shared("shared"));
        let keys = IkeKeys::initial(cipher, &shared, nonces.get(), spis);
        vector.check_ike("", &keys);
        vector.check_secrets("ppk_", &keys.secrets.with_ppk(&vector.bytes("ppk")));

        let IkeSecrets { sk_d, sk_pi, .. } = &keys.secrets;
        let new_shared = vector.shared("new_shared");
        vector.check_child("child", &ChildKeys::new(cipher, sk_d, None, nonces.get()));
        let with_pfs = ChildKeys::new(cipher, sk_d, Some(&new_shared), nonces.get());
        vector.check_child("pfs_child", &with_pfs);
        let rekeyed = IkeKeys::rekeyed(cipher, sk_d, &new_shared, nonces.get(), spis);
        vector.check_ike("rekey_", &rekeyed);

        let (message, id, psk) = (vector.bytes("message"), vector.bytes("id"), vector.bytes("psk"));
        // Parts of an identity are one string.
        let id: Vec<&[u8]> = id.chunks(4).collect();
        let octets = SignedOctets::new(&message, nonces.get().responder, sk_pi, &id);
        let auth = Credential::PresharedKey(&psk).authenticate(&octets);
        assert_eq!(auth.data(), vector.bytes("auth_i"));
        count += 1;
    }
    assert_eq!(count, 4);
}
