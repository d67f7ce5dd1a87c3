//! Keys as users handle them: 32 bytes in base64, as `simplevpn genkey | pubkey | genpsk` print
//! them.
//!
//! A private key is the seed of an Ed25519 key (RFC 8032 §5.1.5), a preshared key 32 random bytes.
//! Base64 is that of RFC 4648 §4, with padding, and strict: one text for each key. Preshared keys
//! that others have made are read, too, in strongSwan's notation.

use core::fmt;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use simplevpn_core::crypto::sign::{PrivateKey, PublicKey};
use zeroize::Zeroizing;

/// Length of every key here, in bytes.
pub const KEY_LEN: usize = 32;
/// Length of a key's base64 text.
pub const TEXT_LEN: usize = 44;

/// Length of the longest text that may be a key.
const MAX_TEXT: usize = 512;

/// A private or preshared key; wiped when dropped.
pub type Key = Zeroizing<[u8; KEY_LEN]>;

/// Why a text is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadKey {
    /// It has another number of characters.
    Length(usize),
    /// It is not the base64 text of 32 bytes.
    Base64,
}

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadKey::Length(len) => write!(
                f,
                "has {len} characters; a key has {TEXT_LEN}, as 'simplevpn genkey' prints it"
            ),
            BadKey::Base64 => write!(
                f,
                "is not the base64 text of {KEY_LEN} bytes; copy it as 'simplevpn genkey' prints it"
            ),
        }
    }
}

impl std::error::Error for BadKey {}

/// A new private or preshared key from the system's random generator.
///
/// # Errors
/// The system's, if it has no randomness to give.
pub fn generate() -> Result<Key, getrandom::Error> {
    let mut key = Key::default();
    getrandom::fill(&mut *key)?;
    Ok(key)
}

/// The Ed25519 public key of a private key (RFC 8032 §5.1.5).
#[must_use]
pub fn public_key(private: &Key) -> PublicKey {
    PrivateKey::from_seed(private).public_key()
}

/// A public key as other programs read it: a DER SubjectPublicKeyInfo in PEM (RFC 7468 §13).
#[must_use]
pub fn pem(key: &PublicKey) -> String {
    let body = encode(&key.spki());
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", *body)
}

/// The base64 text of a key, with room for a line end.
#[must_use]
pub fn encode(key: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(key.len().div_ceil(3) * 4 + 1));
    for group in key.chunks(3) {
        let mut bits = 0u32;
        for position in 0..3 {
            bits = bits << 8 | u32::from(group.get(position).copied().unwrap_or(0));
        }
        for position in 0..4 {
            if position <= group.len() {
                text.push(digit((bits >> (18 - 6 * position)) & 63));
            } else {
                text.push('=');
            }
        }
    }
    text
}

/// The key of a base64 text.
///
/// # Errors
/// [`BadKey`] for anything that [`encode`] would not have written.
pub fn decode(text: &str) -> Result<Key, BadKey> {
    if text.len() != TEXT_LEN {
        return Err(BadKey::Length(text.chars().count()));
    }
    let bytes = bytes_of_base64(text).ok_or(BadKey::Base64)?;
    let key = bytes.first_chunk::<KEY_LEN>().filter(|_| bytes.len() == KEY_LEN);
    key.map(|key| Key::new(*key)).ok_or(BadKey::Base64)
}

/// The bytes of a base64 text with its padding.
fn bytes_of_base64(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let digits = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let (mut bits, mut count) = (0u32, 0u32);
    for byte in digits.bytes() {
        bits = bits << 6 | value(byte)?;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).ok()?);
            bits &= (1 << count) - 1;
        }
    }
    // Bits left over would let several texts mean one key.
    (bits == 0 && count < 6).then_some(bytes)
}

/// The bytes of hexadecimal digits.
///
/// # Errors
/// What is wrong, as the end of a sentence that begins with what they are.
pub fn bytes_of_hex(digits: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(digits.len() / 2));
    let mut pairs = digits.as_bytes().chunks_exact(2);
    for pair in &mut pairs {
        let byte = match pair {
            [high, low] => nibble(*high).zip(nibble(*low)),
            _ => None,
        };
        let (high, low) = byte.ok_or("has a character that is not a hex digit; use 0-9 and a-f")?;
        bytes.push(high << 4 | low);
    }
    match pairs.remainder() {
        [] => Ok(bytes),
        _ => Err("has an odd number of hex digits; write two for each byte".to_owned()),
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// The preshared key of a text: base64 of 32 bytes; as strongSwan writes secrets, `0s` and base64
/// or `0x` and hexadecimal digits; or else the text itself. Only with `weak` may it be one that can
/// be guessed, which every text is taken for.
///
/// # Errors
/// What is wrong, as the end of a sentence that begins with the option.
pub fn secret(text: &str, weak: bool) -> Result<Zeroizing<Vec<u8>>, String> {
    let bad_base64 =
        || "has no base64 after '0s'; write '0s' before what it is in base64".to_owned();
    let secret = if let Ok(key) = decode(text) {
        Zeroizing::new(key.to_vec())
    } else if let Some(base64) = text.strip_prefix("0s") {
        bytes_of_base64(base64).ok_or_else(bad_base64)?
    } else if let Some(digits) = text.strip_prefix("0x") {
        bytes_of_hex(digits)?
    } else if weak {
        Zeroizing::new(text.as_bytes().to_vec())
    } else {
        return Err(GUESSABLE.to_owned());
    };
    if secret.is_empty() {
        return Err("is empty; write what 'simplevpn genpsk' prints".to_owned());
    }
    if weak || !is_guessable(&secret) { Ok(secret) } else { Err(GUESSABLE.to_owned()) }
}

const GUESSABLE: &str = "can be guessed; write what 'simplevpn genpsk' prints, at both ends, or accept \
                         the risk with option preshared_key_weak '1'";

/// Whether somebody made it up: of 2^40 random keys, less than one is.
fn is_guessable(secret: &[u8]) -> bool {
    let distinct = (0..=u8::MAX).filter(|byte| secret.contains(byte)).count();
    secret.len() < KEY_LEN
        || distinct < KEY_LEN / 2
        || secret.iter().all(|b| (b' '..=b'~').contains(b))
}

/// The base64 digit of a six-bit value. By arithmetic, since a table's cache lines would tell.
fn digit(value: u32) -> char {
    let byte = match value {
        0..=25 => value + u32::from(b'A'),
        26..=51 => value - 26 + u32::from(b'a'),
        52..=61 => value - 52 + u32::from(b'0'),
        62 => u32::from(b'+'),
        _ => u32::from(b'/'),
    };
    char::from_u32(byte).unwrap_or('/')
}

fn value(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(value.into())
}

/// Reads the text of a key and nothing else but space around it.
///
/// # Errors
/// What is wrong, as the end of a sentence that begins with the source's name.
pub fn read(source: impl Read) -> Result<Zeroizing<String>, String> {
    // Sized at once so that no copies stay behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * MAX_TEXT));
    let most = MAX_TEXT as u64 + 1;
    source
        .take(most)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {error}"))?;
    let text = core::str::from_utf8(&bytes).map_err(|_| BadKey::Base64.to_string())?;
    match text.trim_ascii() {
        "" => Err("holds no key; give it what 'simplevpn genkey' prints".to_owned()),
        _ if bytes.len() > MAX_TEXT => Err("holds more than a key; leave only that".to_owned()),
        text => Ok(Zeroizing::new(text.to_owned())),
    }
}

/// Reads the text of a key in a file that only its owner may read.
///
/// # Errors
/// What is wrong, as the end of a sentence that begins with the file's name.
pub fn read_file(path: &Path) -> Result<Zeroizing<String>, String> {
    // Without O_NONBLOCK opening a FIFO would wait for its writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(|error| format!("cannot be read: {error}"))?;
    let metadata = file.metadata().map_err(|error| format!("cannot be read: {error}"))?;
    if !metadata.is_file() {
        return Err("is not a file; name the file that holds the key".to_owned());
    }
    if metadata.mode() & 0o077 != 0 {
        return Err("can be read by other users; run chmod 600 on it".to_owned());
    }
    read(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> [u8; 32] {
        core::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
    }

    /// RFC 8032 §7.1, tests 1 to 3.
    #[test]
    fn public_keys_of_rfc_8032() {
        for (seed, public) in [
            (
                "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            ),
            (
                "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            ),
            (
                "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
                "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            ),
        ] {
            assert_eq!(*public_key(&Zeroizing::new(hex(seed))).as_bytes(), hex(public));
        }
    }

    #[test]
    fn base64_of_known_bytes() {
        let rising: [u8; 32] = core::array::from_fn(|i| u8::try_from(i).unwrap());
        assert_eq!(*encode(&rising), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
        assert_eq!(*encode(&[0xff; 32]), "//////////////////////////////////////////8=");
        assert_eq!(*decode("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap(), rising);
    }

    #[test]
    fn base64_is_strict() {
        let good = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        assert_eq!(decode(&good[..43]), Err(BadKey::Length(43)));
        assert_eq!(decode(""), Err(BadKey::Length(0)));
        for bad in [
            good.replace("h8=", "h9="),
            good.replace("h8=", "hAA"),
            good.replace("h8=", "h=="),
            good.replace("AAEC", "AA-C"),
            good.replace("AAEC", "AA C"),
            good.replace("AAEC", "AäC"),
        ] {
            assert_eq!(decode(&bad), Err(BadKey::Base64), "{bad}");
        }
    }

    #[test]
    fn generated_keys_differ() {
        assert_ne!(generate().unwrap(), generate().unwrap());
    }

    #[test]
    fn a_key_is_read_with_space_around_it_only() {
        let good = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        assert_eq!(*read(format!("\n {good}\r\n").as_bytes()).unwrap(), good);
        let two = read(format!("{good}\n{good}\n").as_bytes()).unwrap();
        assert_eq!(decode(&two), Err(BadKey::Length(89)));
        for (text, wrong) in [
            (&b" \n"[..], "holds no key; give it what 'simplevpn genkey' prints"),
            (&[b'x'; MAX_TEXT + 1], "holds more than a key; leave only that"),
            (&[0xff; 44], &BadKey::Base64.to_string()),
        ] {
            assert_eq!(read(text).unwrap_err(), wrong);
        }
    }

    proptest::proptest! {
        #[test]
        fn what_was_encoded_is_decoded(key in proptest::array::uniform32(0u8..)) {
            proptest::prop_assert_eq!(*decode(&encode(&key)).unwrap(), key);
        }

        #[test]
        fn any_text_is_decoded_or_refused(text in ".{0,60}|[A-Za-z0-9+/]{43}=") {
            if let Ok(key) = decode(&text) {
                proptest::prop_assert_eq!(&*encode(&*key), &text);
            }
        }
    }
}
