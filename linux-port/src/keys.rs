//! Keys as users handle them: 32 bytes in base64, as `simplevpn genkey | pubkey | genpsk` print
//! them.
//!
//! A private key is the seed of an Ed25519 key (RFC 8032 §5.1.5), a preshared key 32 random bytes.
//! Base64 is that of RFC 4648 §4, with padding, and strict: one text for each key. Preshared keys
//! that others have made are read, too: in strongSwan's notation, or as a text whose characters are
//! the key, which is how phones and clouds take them.

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

/// What stands before a preshared key whose characters are the key.
const TEXT: &str = "text:";
/// The least length in characters, and the least number of different ones, of a text that counts as
/// made by a machine. 24 random characters of a cloud's alphabet have 140 bits.
const TEXT_LEAST: usize = 24;
const TEXT_DISTINCT: usize = 12;
/// Groups of a text that [`generate_text`] makes, and characters of each: 173 bits.
const GROUPS: usize = 7;
const GROUP: usize = 5;

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

/// A new preshared key to be typed, and to be used as the text that it is: groups of lower-case
/// letters and digits with dots between them, without 0, 1, i, l and o, which are taken for each
/// other. Clouds that permit letters, digits, `.` and `_` take it as well.
///
/// # Errors
/// The system's, if it has no randomness to give.
pub fn generate_text() -> Result<Zeroizing<String>, getrandom::Error> {
    // Sized at once so that no copies stay behind; there is room for a line end.
    let mut text = Zeroizing::new(String::with_capacity(GROUPS * (GROUP + 1)));
    let mut random = Zeroizing::new([0; 1]);
    for position in 0..GROUPS * GROUP {
        if position > 0 && position.is_multiple_of(GROUP) {
            text.push('.');
        }
        // One value of 32 has no character: drawn again, so that all others are equally likely.
        loop {
            getrandom::fill(&mut *random)?;
            if let Some(character) = legible(random[0] % 32) {
                text.push(character);
                break;
            }
        }
    }
    Ok(text)
}

/// The character of a five-bit value. By arithmetic, since a table's cache lines would tell.
fn legible(value: u8) -> Option<char> {
    let byte = match value {
        0..=7 => b'2' + value,
        8..=15 => b'a' + (value - 8),
        16..=17 => b'j' + (value - 16),
        18..=19 => b'm' + (value - 18),
        20..=30 => b'p' + (value - 20),
        _ => return None,
    };
    Some(byte.into())
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
/// or `0x` and hexadecimal digits; `text:` and what are the bytes of the key themselves; or such a
/// text alone, unless it looks like a base64 text that was not copied whole. Only with `weak` may it
/// be one that can be guessed.
///
/// # Errors
/// What is wrong, as the end of a sentence that begins with the option.
pub fn secret(text: &str, weak: bool) -> Result<Zeroizing<Vec<u8>>, String> {
    let bad_base64 =
        || "has no base64 after '0s'; write '0s' before what it is in base64".to_owned();
    let secret = if let Ok(key) = decode(text) {
        Zeroizing::new(key.to_vec())
    } else if let Some(characters) = text.strip_prefix(TEXT) {
        Zeroizing::new(characters.as_bytes().to_vec())
    } else if let Some(base64) = text.strip_prefix("0s") {
        bytes_of_base64(base64).ok_or_else(bad_base64)?
    } else if let Some(digits) = text.strip_prefix("0x") {
        bytes_of_hex(digits)?
    } else if !weak && is_almost_base64(text) {
        return Err(ALMOST_BASE64.to_owned());
    } else {
        Zeroizing::new(text.as_bytes().to_vec())
    };
    if secret.is_empty() {
        return Err("is empty; write what 'simplevpn genpsk' prints".to_owned());
    }
    if weak || !is_guessable(&secret) { Ok(secret) } else { Err(GUESSABLE.to_owned()) }
}

const GUESSABLE: &str = "can be guessed; write what 'simplevpn genpsk' prints, at both ends, or accept \
                         the risk with option preshared_key_weak '1'";
const ALMOST_BASE64: &str = "is almost what 'simplevpn genpsk' prints; copy all of it, or write 'text:' \
                             before it if these characters are the key";

/// Whether a text that is no base64 of 32 bytes may have been one, before something got lost or
/// changed.
fn is_almost_base64(text: &str) -> bool {
    let digits = text.bytes().all(|byte| value(byte).is_some() || byte == b'=');
    digits && (TEXT_LEN - 4..=TEXT_LEN + 4).contains(&text.len())
}

/// Whether it may be that a person made it up: of 2^40 random keys, less than one is.
///
/// A text counts as random if it is long, has many different characters and is not words with
/// spaces between them; bytes do if they are as many as a key's, and different.
fn is_guessable(secret: &[u8]) -> bool {
    let distinct = (0..=u8::MAX).filter(|byte| secret.contains(byte)).count();
    if secret.iter().all(u8::is_ascii_graphic) {
        secret.len() < TEXT_LEAST || distinct < TEXT_DISTINCT
    } else {
        let printable = secret.iter().all(|b| (b' '..=b'~').contains(b));
        secret.len() < KEY_LEN || distinct < KEY_LEN / 2 || printable
    }
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
    fn texts_to_be_typed_are_legible_and_random() {
        let texts: Vec<_> = (0..64).map(|_| generate_text().unwrap()).collect();
        for (at, text) in texts.iter().enumerate() {
            let groups: Vec<&str> = text.split('.').collect();
            assert!(groups.len() == GROUPS && groups.iter().all(|group| group.len() == GROUP));
            let legible = |c: char| "23456789abcdefghjkmnpqrstuvwxyz".contains(c);
            assert!(groups.concat().chars().all(legible), "{}", **text);
            assert_eq!(*secret(text, false).unwrap(), text.as_bytes());
            assert!(!texts[..at].contains(text));
        }
        let all: String = (0..32).filter_map(legible).collect();
        assert_eq!(all, "23456789abcdefghjkmnpqrstuvwxyz");
        let bits = (GROUPS * GROUP) as f64 * f64::log2(31.0);
        assert!(bits > 160.0, "{bits}");
    }

    #[test]
    fn the_characters_of_a_text_are_the_key() {
        let base64 = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        assert_eq!(secret(base64, false).unwrap().len(), KEY_LEN);
        assert_eq!(*secret(base64, true).unwrap(), *secret(base64, false).unwrap());
        assert_eq!(*secret(&format!("text:{base64}"), false).unwrap(), base64.as_bytes());
        // As a person chose it, as AWS makes them, and one that looks like another notation.
        for text in [
            "mXq7-Rw2f-9KtZ-pLd4-Vb8n-Hs3c-Jy6g-Te5a",
            "uQ3_x.Rt7PzK2mWv9cLd4Nf6Hb8Jg5Ys",
            "0xRt7PzK2mWv9cLd4Nf6Hb8Jg",
        ] {
            let with_prefix = secret(&format!("text:{text}"), false).unwrap();
            assert_eq!(*with_prefix, text.as_bytes(), "{text}");
            if !text.starts_with("0x") {
                assert_eq!(*secret(text, false).unwrap(), text.as_bytes(), "{text}");
            }
        }
        for text in ["aB3.xY_9", "aB3.xY_9aB3.xY_9aB3.xY_9", "uQ3_x.Rt7PzK2mWv9cLd4Nf", "two words"]
        {
            for text in [text.to_owned(), format!("text:{text}")] {
                assert_eq!(secret(&text, false).unwrap_err(), GUESSABLE, "{text}");
            }
            assert_eq!(*secret(&format!("text:{text}"), true).unwrap(), text.as_bytes());
        }
        assert!(secret("text:", true).is_err());
        for cut in [&base64[..43], &base64[1..], &format!("{base64}=")] {
            assert_eq!(secret(cut, false).unwrap_err(), ALMOST_BASE64, "{cut}");
        }
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
