//! What an end calls itself: the content of ID payloads.
//!
//! Implements addresses, domain names, mail addresses and key ids (RFC 7296 §3.5), and reads their
//! text as strongSwan reads its `id`, so that both ends of a connection can be configured with the
//! same words. Distinguished names, subnets, ranges and patterns are not here: a text that
//! strongSwan would take for one of these is refused.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

use heapless::Vec;

use super::wire::numbers;
use crate::crypto::sign::PublicKey;

/// The longest identity we store, in bytes.
pub const MAX_ID_LEN: usize = 128;

/// The types of identities, by their names in IANA's registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum IdType {
    /// ID_IPV4_ADDR: four bytes.
    Ipv4Addr = numbers::IdType::ID_IPV4_ADDR.0,
    /// ID_FQDN: a domain name.
    Fqdn = numbers::IdType::ID_FQDN.0,
    /// ID_RFC822_ADDR: a mail address.
    Rfc822Addr = numbers::IdType::ID_RFC822_ADDR.0,
    /// ID_IPV6_ADDR: sixteen bytes.
    Ipv6Addr = numbers::IdType::ID_IPV6_ADDR.0,
    /// ID_KEY_ID: any bytes.
    KeyId = numbers::IdType::ID_KEY_ID.0,
}

impl IdType {
    const ALL: [IdType; 5] =
        [IdType::Ipv4Addr, IdType::Fqdn, IdType::Rfc822Addr, IdType::Ipv6Addr, IdType::KeyId];

    /// The number that stands for it in an ID payload.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// An identity.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    id_type: IdType,
    data: Vec<u8, MAX_ID_LEN>,
}

impl Identity {
    /// The identity of a public key that has no other: the SHA-1 of its SubjectPublicKeyInfo.
    #[must_use]
    pub fn of_key(key: &PublicKey) -> Identity {
        let mut data = Vec::new();
        data.extend(key.key_id());
        Identity { id_type: IdType::KeyId, data }
    }

    /// The identity that an address is.
    #[must_use]
    pub fn of_address(address: IpAddr) -> Identity {
        let mut data = Vec::new();
        let id_type = match address {
            IpAddr::V4(address) => {
                data.extend(address.octets());
                IdType::Ipv4Addr
            }
            IpAddr::V6(address) => {
                data.extend(address.octets());
                IdType::Ipv6Addr
            }
        };
        Identity { id_type, data }
    }

    /// The identity in an ID payload, if it is of a type we know and not too long to be stored:
    /// for those who tell a person what the peer calls itself.
    #[must_use]
    pub fn from_payload(id_type: u8, data: &[u8]) -> Option<Identity> {
        let id_type = IdType::ALL.into_iter().find(|known| known.number() == id_type)?;
        let right_length = match id_type {
            IdType::Ipv4Addr => data.len() == 4,
            IdType::Ipv6Addr => data.len() == 16,
            IdType::Fqdn | IdType::Rfc822Addr | IdType::KeyId => true,
        };
        let data = Vec::from_slice(data).ok()?;
        right_length.then_some(Identity { id_type, data })
    }

    /// Its type.
    #[must_use]
    pub fn id_type(&self) -> IdType {
        self.id_type
    }

    /// Its bytes, without the type.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// What precedes [`Identity::data`] in an ID payload after the generic header: the type, and
    /// three reserved bytes.
    #[must_use]
    pub fn header(&self) -> [u8; 4] {
        [self.id_type.number(), 0, 0, 0]
    }

    /// Whether an ID payload of this type with these bytes means this identity. The names of
    /// domains, and mail addresses as strongSwan has them, are the same in upper and lower case.
    #[must_use]
    pub fn matches(&self, id_type: u8, data: &[u8]) -> bool {
        self.id_type.number() == id_type
            && match self.id_type {
                IdType::Fqdn | IdType::Rfc822Addr => self.data.eq_ignore_ascii_case(data),
                IdType::Ipv4Addr | IdType::Ipv6Addr | IdType::KeyId => self.data == data,
            }
    }

    fn name(id_type: IdType, name: &str) -> Result<Identity, BadIdentity> {
        if name.contains('*') {
            return Err(BadIdentity::Pattern);
        }
        if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BadIdentity::Character);
        }
        Identity::bytes(id_type, name.as_bytes())
    }

    fn bytes(id_type: IdType, bytes: &[u8]) -> Result<Identity, BadIdentity> {
        if bytes.is_empty() {
            return Err(BadIdentity::Empty);
        }
        let data = Vec::from_slice(bytes).map_err(|_| BadIdentity::TooLong)?;
        Ok(Identity { id_type, data })
    }

    /// Pairs of hexadecimal digits, with or without colons between them.
    fn hex(id_type: IdType, text: &str) -> Result<Identity, BadIdentity> {
        let mut data = Vec::<u8, MAX_ID_LEN>::new();
        let mut rest = text.as_bytes();
        while let Some((pair, after)) = rest.split_first_chunk::<2>() {
            let mut byte = 0;
            for digit in pair {
                let digit = char::from(*digit).to_digit(16).ok_or(BadIdentity::Hex)?;
                byte = byte << 4 | u8::try_from(digit).map_err(|_| BadIdentity::Hex)?;
            }
            data.push(byte).map_err(|_| BadIdentity::TooLong)?;
            rest = match after {
                [b':', more @ ..] if !more.is_empty() => more,
                _ => after,
            };
        }
        if rest.is_empty() { Identity::bytes(id_type, &data) } else { Err(BadIdentity::Hex) }
    }
}

/// Why a text is no identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadIdentity {
    /// There is nothing in it.
    Empty,
    /// It is longer than [`MAX_ID_LEN`].
    TooLong,
    /// It would fit several peers.
    Pattern,
    /// It looks like a distinguished name.
    DistinguishedName,
    /// It announces an identity of a type we do not have.
    Type,
    /// What should be hexadecimal digits is not.
    Hex,
    /// A name has a character that is not printable ASCII.
    Character,
}

impl fmt::Display for BadIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadIdentity::Empty => f.write_str(
                "is empty; write a domain name, a mail address, an IP address, or '@#' and \
                 hexadecimal digits",
            ),
            BadIdentity::TooLong => write!(f, "is longer than {MAX_ID_LEN} bytes"),
            BadIdentity::Pattern => {
                f.write_str("would fit several peers; write the one identity that this peer has")
            }
            BadIdentity::DistinguishedName => f.write_str(
                "looks like a distinguished name, which only certificates have; for a key id \
                 write 'keyid:' before it",
            ),
            BadIdentity::Type => f.write_str(
                "has an unknown type before the colon; known are fqdn:, dns:, email:, rfc822:, \
                 userfqdn: and keyid:, and addresses are written without any",
            ),
            BadIdentity::Hex => f.write_str("has something else than pairs of hexadecimal digits"),
            BadIdentity::Character => f.write_str(
                "has a character that is not printable ASCII; write '#' and the \
                             bytes in hexadecimal after the type, as in 'fqdn:#6578'",
            ),
        }
    }
}

impl core::error::Error for BadIdentity {}

/// The types that can precede an identity.
const PREFIXES: [(&str, Option<IdType>); 16] = [
    ("fqdn", Some(IdType::Fqdn)),
    ("dns", Some(IdType::Fqdn)),
    ("rfc822", Some(IdType::Rfc822Addr)),
    ("email", Some(IdType::Rfc822Addr)),
    ("userfqdn", Some(IdType::Rfc822Addr)),
    ("keyid", Some(IdType::KeyId)),
    // strongSwan sends the text after these two as it stands, which is no address.
    ("ipv4", None),
    ("ipv6", None),
    ("ipv4net", None),
    ("ipv6net", None),
    ("ipv4range", None),
    ("ipv6range", None),
    ("asn1dn", None),
    ("asn1gn", None),
    ("xmppaddr", None),
    ("uri", None),
];

/// Texts that mean any identity to strongSwan.
const ANY: [&str; 6] = ["%any", "%any6", "0.0.0.0", "*", "::", "0::0"];

impl FromStr for Identity {
    type Err = BadIdentity;

    /// Reads an identity as strongSwan does.
    fn from_str(text: &str) -> Result<Identity, BadIdentity> {
        if let Some((before, after)) = text.split_once(':')
            && let Some((_, id_type)) =
                PREFIXES.iter().find(|(prefix, _)| before.eq_ignore_ascii_case(prefix))
        {
            return with_type(id_type.ok_or(BadIdentity::Type)?, after);
        }
        if text.starts_with('{') {
            return Err(BadIdentity::Type);
        }
        if text.contains('=') {
            return Err(BadIdentity::DistinguishedName);
        }
        if let Some(after) = text.strip_prefix("@#") {
            return Identity::hex(IdType::KeyId, after);
        }
        if let Some(after) = text.strip_prefix("@@") {
            return Identity::name(IdType::Rfc822Addr, after);
        }
        if let Some(after) = text.strip_prefix('@') {
            return Identity::name(IdType::Fqdn, after);
        }
        if text.contains('@') {
            return Identity::name(IdType::Rfc822Addr, text);
        }
        without_type(text)
    }
}

fn with_type(id_type: IdType, text: &str) -> Result<Identity, BadIdentity> {
    match (id_type, text.strip_prefix('#')) {
        (_, Some(digits)) => Identity::hex(id_type, digits),
        (IdType::KeyId, None) => Identity::bytes(id_type, text.as_bytes()),
        (_, None) => Identity::name(id_type, text),
    }
}

/// An address, a key id with a colon in it, or a domain name.
fn without_type(text: &str) -> Result<Identity, BadIdentity> {
    if ANY.contains(&text) {
        return Err(BadIdentity::Pattern);
    }
    if let Ok(address) = text.parse() {
        return Ok(Identity::of_address(address));
    }
    // A subnet or a range of addresses.
    if text.split(['/', '-']).next().is_some_and(|first| first.parse::<IpAddr>().is_ok()) {
        return Err(BadIdentity::Pattern);
    }
    if text.contains(':') {
        return Identity::bytes(IdType::KeyId, text.as_bytes());
    }
    Identity::name(IdType::Fqdn, text)
}

impl fmt::Display for Identity {
    /// In words that [`Identity::from_str`] reads, unless the peer sent something strange.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id_type {
            IdType::Ipv4Addr => {
                let octets = self.data.first_chunk::<4>().copied().unwrap_or_default();
                Ipv4Addr::from(octets).fmt(f)
            }
            IdType::Ipv6Addr => {
                let octets = self.data.first_chunk::<16>().copied().unwrap_or_default();
                Ipv6Addr::from(octets).fmt(f)
            }
            // Whoever reads a log is not to be fooled by control characters.
            IdType::Fqdn | IdType::Rfc822Addr => self.data.escape_ascii().fmt(f),
            IdType::KeyId => {
                f.write_str("@#")?;
                self.data.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({self})", self.id_type)
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    fn parsed(text: &str) -> (u8, std::vec::Vec<u8>) {
        let identity: Identity = text.parse().unwrap();
        (identity.id_type().number(), identity.data().to_vec())
    }

    /// What strongSwan 5.9.8 makes of the same texts.
    #[test]
    fn texts_mean_what_they_mean_to_strongswan() {
        for (text, id_type, data) in [
            ("moon.example.org", 2, &b"moon.example.org"[..]),
            ("moon", 2, b"moon"),
            ("@moon", 2, b"moon"),
            ("fqdn:10.0.0.1", 2, b"10.0.0.1"),
            ("DNS:#6d6f6f6e", 2, b"moon"),
            ("1.2.3", 2, b"1.2.3"),
            ("192.0.2.1", 1, &[192, 0, 2, 1]),
            ("carol@example.org", 3, b"carol@example.org"),
            ("@@carol@example.org", 3, b"carol@example.org"),
            ("email:carol", 3, b"carol"),
            ("2001:db8::1", 5, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
            ("@#00aBff", 11, &[0, 0xab, 0xff]),
            ("@#00:ab:ff", 11, &[0, 0xab, 0xff]),
            ("keyid:#00ab", 11, &[0, 0xab]),
            ("keyid:moon=1", 11, b"moon=1"),
            ("moon:sun", 11, b"moon:sun"),
        ] {
            assert_eq!(parsed(text), (id_type, data.to_vec()), "{text}");
        }
    }

    #[test]
    fn texts_that_are_no_single_identity_are_refused() {
        for (text, error) in [
            ("", BadIdentity::Empty),
            ("@", BadIdentity::Empty),
            ("@#", BadIdentity::Empty),
            ("keyid:", BadIdentity::Empty),
            ("%any", BadIdentity::Pattern),
            ("0.0.0.0", BadIdentity::Pattern),
            ("::", BadIdentity::Pattern),
            ("*.example.org", BadIdentity::Pattern),
            ("*@example.org", BadIdentity::Pattern),
            ("10.0.0.0/8", BadIdentity::Pattern),
            ("10.0.0.1-10.0.0.9", BadIdentity::Pattern),
            ("2001:db8::/32", BadIdentity::Pattern),
            ("C=CH, CN=moon", BadIdentity::DistinguishedName),
            ("ipv4:10.0.0.1", BadIdentity::Type),
            ("{2}:moon", BadIdentity::Type),
            ("@#abc", BadIdentity::Hex),
            ("@#ab:", BadIdentity::Hex),
            ("@#xy", BadIdentity::Hex),
            ("@#é", BadIdentity::Hex),
            ("moon sun", BadIdentity::Character),
            ("mööñ", BadIdentity::Character),
        ] {
            assert_eq!(text.parse::<Identity>(), Err(error), "{text}");
        }
        let long = "a".repeat(MAX_ID_LEN);
        assert!(long.parse::<Identity>().is_ok());
        assert_eq!((long + "a").parse::<Identity>(), Err(BadIdentity::TooLong));
    }

    #[test]
    fn names_match_in_any_case_and_nothing_else_does() {
        let name: Identity = "Moon.example.org".parse().unwrap();
        assert!(name.matches(2, b"moon.EXAMPLE.org"));
        assert!(!name.matches(2, b"moon.example.org."));
        assert!(!name.matches(2, b"moon.example.or"));
        assert!(!name.matches(2, b""));
        assert!(!name.matches(3, b"moon.example.org"));
        assert!(!name.matches(11, b"Moon.example.org"));
        let key: Identity = "keyid:Moon".parse().unwrap();
        assert!(key.matches(11, b"Moon"));
        assert!(!key.matches(11, b"moon"));
    }

    #[test]
    fn payloads_of_unknown_type_or_wrong_length_are_not_shown() {
        assert_eq!(Identity::from_payload(9, b"0"), None);
        assert_eq!(Identity::from_payload(1, &[1, 2, 3]), None);
        assert_eq!(Identity::from_payload(5, &[0; 4]), None);
        assert_eq!(Identity::from_payload(11, &[0; MAX_ID_LEN + 1]), None);
        let strange = Identity::from_payload(2, b"moon\n\x1b[31m\xff").unwrap();
        assert_eq!(strange.to_string(), r"moon\n\x1b[31m\xff");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_refused_or_read_again_from_what_is_shown(text in "[ -~é]{0,40}|\\PC{0,140}") {
            if let Ok(identity) = text.parse::<Identity>() {
                let shown = identity.to_string();
                match identity.id_type() {
                    // A name can look like anything once its type was written before it.
                    IdType::Fqdn | IdType::Rfc822Addr => {}
                    _ => assert_eq!(shown.parse(), Ok(identity.clone()), "{shown}"),
                }
                assert!(identity.matches(identity.id_type().number(), identity.data()));
                let payload = Identity::from_payload(identity.header()[0], identity.data());
                assert_eq!(payload, Some(identity));
            }
        }
    }
}
