//! Algorithms in the words that configurations have for them, for whoever has to find out why two
//! ends agree on none.

use core::fmt::Write;

use simplevpn_core::ike::Offered;
use simplevpn_core::ike::offered::Algorithm;
use simplevpn_core::ike::suite::Preferences;
use simplevpn_core::ike::wire::numbers::TransformType;

/// The names of algorithms by their type and number, as strongSwan has them. Those with keys of
/// several lengths are followed by the length.
const NAMES: [(TransformType, u16, &str); 35] = {
    const ENCR: TransformType = TransformType::ENCR;
    const PRF: TransformType = TransformType::PRF;
    const KE: TransformType = TransformType::KE;
    [
        (ENCR, 2, "des"),
        (ENCR, 3, "3des"),
        (ENCR, 11, "null"),
        (ENCR, 12, "aes-cbc-"),
        (ENCR, 13, "aes-ctr-"),
        (ENCR, 14, "aes-ccm8-"),
        (ENCR, 15, "aes-ccm12-"),
        (ENCR, 16, "aes-ccm16-"),
        (ENCR, 18, "aes-gcm8-"),
        (ENCR, 19, "aes-gcm12-"),
        (ENCR, 20, "aes-gcm16-"),
        (ENCR, 23, "camellia-cbc-"),
        (ENCR, 28, "chacha20poly1305"),
        (PRF, 1, "prfmd5"),
        (PRF, 2, "prfsha1"),
        (PRF, 4, "prfaesxcbc"),
        (PRF, 5, "prfsha256"),
        (PRF, 6, "prfsha384"),
        (PRF, 7, "prfsha512"),
        (PRF, 8, "prfaescmac"),
        (KE, 0, "none"),
        (KE, 1, "modp768"),
        (KE, 2, "modp1024"),
        (KE, 5, "modp1536"),
        (KE, 14, "modp2048"),
        (KE, 15, "modp3072"),
        (KE, 16, "modp4096"),
        (KE, 17, "modp6144"),
        (KE, 18, "modp8192"),
        (KE, 19, "p256"),
        (KE, 20, "p384"),
        (KE, 21, "p521"),
        (KE, 31, "x25519"),
        (KE, 32, "x448"),
        (KE, 36, "mlkem768"),
    ]
};

/// What was offered, in a few words.
pub(super) fn theirs(offered: &Offered) -> String {
    let mut text = String::new();
    for algorithm in &offered.algorithms {
        let Algorithm { transform_type, key_len, number } = *algorithm;
        let known = NAMES.iter().find(|(of, name, _)| (*of, *name) == (transform_type, number));
        let comma = if text.is_empty() { "" } else { ", " };
        // Cannot fail: it is written to memory.
        let _ = match known {
            Some((.., name)) => write!(text, "{comma}{name}"),
            None => write!(text, "{comma}{transform_type} {number}"),
        };
        if known.is_none_or(|(.., name)| name.ends_with('-')) && key_len != 0 {
            let separator = if known.is_none() { "/" } else { "" };
            let _ = write!(text, "{separator}{}", u16::from(key_len) * 8);
        }
    }
    if offered.more {
        text.push_str(", …");
    }
    text
}

/// What we take: for IKE, or for ESP, where the key exchange is optional.
pub(super) fn ours(ours: &Preferences, esp: bool) -> String {
    let mut names: Vec<_> = ours.ciphers.iter().map(|cipher| cipher.name()).collect();
    if !esp {
        names.push("prfsha256");
    }
    names.extend(ours.groups.iter().map(|group| super::group(*group)));
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(algorithms: &[(TransformType, u16, u8)]) -> Offered {
        let mut offered = Offered::default();
        for (transform_type, number, key_len) in algorithms.iter().copied() {
            let algorithm = Algorithm { transform_type, key_len, number };
            offered.algorithms.push(algorithm).unwrap();
        }
        offered
    }

    #[test]
    fn an_offer_is_named_as_gateways_configure_it() {
        use TransformType as T;
        let mut windows = offered(&[
            (T::ENCR, 3, 0),
            (T::ENCR, 12, 32),
            (T::PRF, 2, 0),
            (T::KE, 2, 0),
            (T::ENCR, 1024, 16),
            (TransformType(6), 36, 0),
        ]);
        let expected = "3des, aes-cbc-256, prfsha1, modp1024, ENCR 1024/128, 6 36";
        assert_eq!(theirs(&windows), expected);
        windows.more = true;
        assert_eq!(theirs(&windows), format!("{expected}, …"));
        assert_eq!(theirs(&Offered::default()), "");
    }

    #[test]
    fn what_we_take_is_named_as_status_names_it() {
        let preferences = Preferences::new(true);
        let ike = "aes256gcm16, aes128gcm16, chacha20poly1305, prfsha256, x25519, p256";
        assert_eq!(ours(&preferences, false), ike);
        assert_eq!(ours(&preferences, true), ike.replace("prfsha256, ", ""));
    }
}
