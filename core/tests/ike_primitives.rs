//! IKE's key exchange, PRF and signatures against vectors that nobody here wrote: RFC 4231, 5903,
//! 7748, 8032, 8410 and Project Wycheproof.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use core::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng};
use simplevpn_core::crypto::dh::{BadPublicValue, EphemeralKey, Group};
use simplevpn_core::crypto::prf::{Prf, sha1};
use simplevpn_core::crypto::sign::{BadPublicKey, BadSignature, PrivateKey, PublicKey};
use wycheproof::TestResult;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let nibble = |byte: &u8| (*byte as char).to_digit(16).unwrap() as u8;
    digits.chunks(2).map(|pair| nibble(&pair[0]) << 4 | nibble(&pair[1])).collect()
}

fn array<const N: usize>(text: &str) -> [u8; N] {
    hex(text).try_into().unwrap()
}

/// Gives out the secrets it was given, and nothing after that.
struct Chosen(Vec<[u8; 32]>);

impl TryRng for Chosen {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        panic!("secrets are drawn whole")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        panic!("secrets are drawn whole")
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.copy_from_slice(&self.0.remove(0));
        Ok(())
    }
}

impl TryCryptoRng for Chosen {}

fn key(group: Group, secret: [u8; 32]) -> EphemeralKey {
    EphemeralKey::generate(group, &mut Chosen(vec![secret]))
}

/// Both ends of a key exchange that an RFC has written out.
fn check_exchange(group: Group, secrets: [&str; 2], publics: [&str; 2], shared: &str) {
    let keys = secrets.map(|secret| key(group, array(secret)));
    for (i, key) in keys.iter().enumerate() {
        assert_eq!(key.group(), group);
        assert_eq!(key.public(), hex(publics[i]));
        let agreed = key.agree(&hex(publics[1 - i])).unwrap();
        assert_eq!(agreed[..], hex(shared));
    }
}

#[test]
fn rfc_7748_section_6_1() {
    check_exchange(
        Group::Curve25519,
        [
            "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
            "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        ],
        [
            "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
            "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
        ],
        "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
    );
}

/// RFC 7748 §5.2, the two vectors and the first thousand iterations.
#[test]
fn rfc_7748_section_5_2() {
    for (scalar, u, output) in [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ] {
        assert_eq!(key(Group::Curve25519, array(scalar)).agree(&hex(u)).unwrap()[..], hex(output));
    }
    let mut u = [0; 32];
    u[0] = 9;
    let mut k = u;
    for _ in 0..1000 {
        let agreed = key(Group::Curve25519, k).agree(&u).unwrap();
        (u, k) = (k, *agreed);
    }
    assert_eq!(k, array("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"));
}

#[test]
fn rfc_5903_section_8_1() {
    check_exchange(
        Group::P256,
        [
            "C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433",
            "C6EF9C5D78AE012A011164ACB397CE2088685D8F06BF9BE0B283AB46476BEE53",
        ],
        [
            "DAD0B65394221CF9B051E1FECA5787D098DFE637FC90B9EF945D0C3772581180
             5271A0461CDB8252D61F1C456FA3E59AB1F45B33ACCF5F58389E0577B8990BB3",
            "D12DFB5289C8D4F81208B70270398C342296970A0BCCB74C736FC7554494BF63
             56FBF3CA366CC23E8157854C13C58D6AAC23F046ADA30F8353E74F33039872AB",
        ],
        "D6840F6B42F6EDAFD13116E0E12565202FEF8E9ECE7DCE03812464D04B9442DE",
    );
}

#[test]
fn secrets_outside_the_group_are_drawn_again() {
    let good = array("C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433");
    let order = array("FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551");
    let mut rng = Chosen(vec![[0; 32], order, [0xff; 32], good]);
    let drawn = EphemeralKey::generate(Group::P256, &mut rng);
    assert_eq!(drawn.public(), key(Group::P256, good).public());
    assert!(rng.0.is_empty());
}

#[test]
fn public_values_of_another_length_are_refused() {
    for group in Group::ALL {
        let key = key(group, [7; 32]);
        assert!(key.agree(key.public()).is_ok());
        for len in (0..=65).chain([128, 1000]).filter(|len| *len != group.public_len()) {
            let public: Vec<u8> = key.public().iter().copied().cycle().take(len).collect();
            assert_eq!(key.agree(&public), Err(BadPublicValue), "{len} bytes");
        }
    }
}

/// A point off the curve, and what is not below the field's prime.
#[test]
fn points_off_the_curve_are_refused() {
    let key = key(Group::P256, [7; 32]);
    let good = key.public().to_vec();
    for at in 0..64 {
        let mut public = good.clone();
        public[at] ^= 1;
        assert_eq!(key.agree(&public), Err(BadPublicValue), "byte {at}");
    }
    assert_eq!(key.agree(&[0; 64]), Err(BadPublicValue));
    assert_eq!(key.agree(&[0xff; 64]), Err(BadPublicValue));
    assert!(key.agree(&good).is_ok(), "refusals leave the key as it was");
}

/// RFC 4231: the cases 1 to 4, 6 and 7; 5 is about truncation, which we do not do.
#[test]
fn rfc_4231() {
    let test_6 = "Test Using Larger Than Block-Size Key - Hash Key First";
    let test_7 = "This is a test using a larger than block-size key and a larger than block-size \
                  data. The key needs to be hashed before being used by the HMAC algorithm.";
    for (key, data, mac) in [
        (
            vec![0x0b; 20],
            b"Hi There".to_vec(),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (
            b"Jefe".to_vec(),
            b"what do ya want for nothing?".to_vec(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            vec![0xaa; 20],
            vec![0xdd; 50],
            "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
        ),
        (
            Vec::from_iter(1..=25),
            vec![0xcd; 50],
            "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
        ),
        (
            vec![0xaa; 131],
            test_6.into(),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
        (
            vec![0xaa; 131],
            test_7.into(),
            "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
        ),
    ] {
        for cut in 0..=data.len() {
            let (before, after) = data.split_at(cut);
            let (key_before, key_after) = key.split_at(cut.min(key.len()));
            let prf = Prf::new(&[key_before, key_after]);
            assert_eq!(prf.compute(&[before, after])[..], hex(mac));
            assert!(prf.verify(&[before, &[], after], &hex(mac)));
        }
    }
}

#[test]
fn prf_plus_chains_its_outputs() {
    let prf = Prf::new(&[b"key"]);
    let first = prf.compute(&[b"seed", &[1]]);
    let second = prf.compute(&[&first[..], b"seed", &[2]]);
    let third = prf.compute(&[&second[..], b"seed", &[3]]);
    let all = [&first[..], &second[..], &third[..]].concat();
    assert_eq!(prf.expand::<96>(&[b"se", b"ed"])[..], all);
    assert_eq!(prf.expand::<65>(&[b"seed"])[..], all[..65]);
    assert_eq!(prf.expand::<31>(&[b"seed"])[..], all[..31]);
    let longest = prf.expand::<{ 255 * 32 }>(&[b"seed"]);
    let before: &[u8] = &longest[253 * 32..254 * 32];
    assert_eq!(longest[254 * 32..], prf.compute(&[before, b"seed", &[255]])[..]);
}

/// RFC 3174 §7.3, the first two cases.
#[test]
fn rfc_3174() {
    assert_eq!(sha1(&[b"a", b"", b"bc"]), array("A9993E364706816ABA3E25717850C26C9CD0D89D"));
    let parts: [&[u8]; 2] = [b"abcdbcdecdefdefgefghfghighij", b"hijkijkljklmklmnlmnomnopnopq"];
    assert_eq!(sha1(&parts), array("84983E441C3BD26EBAAE4AA1F95129E5E54670F1"));
}

/// RFC 8032 §7.1: tests 1 to 3, and SHA(abc).
#[test]
fn rfc_8032_section_7_1() {
    let sha_abc = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a
                   2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
    for (seed, public, message, signature) in [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155
             5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac
             18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
        (
            "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
            "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
            sha_abc,
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b589
             09351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
        ),
    ] {
        let private = PrivateKey::from_seed(&array(seed));
        let public = PublicKey::from_bytes(&array(public)).unwrap();
        assert_eq!(private.public_key(), public);
        let (message, signature) = (hex(message), hex(signature));
        for cut in 0..=message.len() {
            let (before, after) = message.split_at(cut);
            assert_eq!(private.sign(&[before, after])[..], signature);
            assert_eq!(public.verify(&[before, after], &signature), Ok(()));
        }
        assert_eq!(public.verify(&[&message, &[0]], &signature), Err(BadSignature));
    }
}

/// RFC 8410 §10.1; the hash is Python's.
#[test]
fn rfc_8410_section_10_1() {
    let public = array("19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1");
    let public = PublicKey::from_bytes(&public).unwrap();
    let spki =
        "302a300506032b657003210019bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad7031
                66e1";
    assert_eq!(public.spki()[..], hex(spki));
    assert_eq!(public.key_id(), array("3a04967761a552db7e9e18c6dba4bd4aae119908"));
}

/// The eight points of small order (one of them, the neutral element, in each of its encodings),
/// something that is no point, and y = p + 3, which is not the canonical encoding of a point.
#[test]
fn public_keys_that_prove_nothing_are_refused() {
    for public in [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0200000000000000000000000000000000000000000000000000000000000000",
        "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ] {
        assert_eq!(PublicKey::from_bytes(&array(public)), Err(BadPublicKey), "{public}");
    }
}

/// R is the neutral element and s is k·a: the equation holds, the signer was none.
#[test]
fn signatures_with_an_r_of_small_order_are_refused() {
    use curve25519_dalek::Scalar;
    use sha2::{Digest, Sha512};
    let mut r = [0; 32];
    r[0] = 1;
    let seed = [7; 32];
    let public = PrivateKey::from_seed(&seed).public_key();
    let a = Sha512::digest(seed);
    let a = curve25519_dalek::scalar::clamp_integer(*a.first_chunk().unwrap());
    let a = Scalar::from_bytes_mod_order(a);
    let k: [u8; 64] = Sha512::digest([&r[..], public.as_bytes(), b"message"].concat()).into();
    let s = Scalar::from_bytes_mod_order_wide(&k) * a;
    let signature = [r, s.to_bytes()].concat();
    let loose = ed25519_dalek::VerifyingKey::from_bytes(public.as_bytes()).unwrap();
    let parsed = ed25519_dalek::Signature::from_slice(&signature).unwrap();
    assert!(ed25519_dalek::Verifier::verify(&loose, b"message", &parsed).is_ok());
    assert_eq!(public.verify(&[b"message"], &signature), Err(BadSignature));
}

/// Counts the cases that were valid, invalid and either.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    valid: usize,
    invalid: usize,
    either: usize,
}

impl Counts {
    fn add(&mut self, result: TestResult) {
        match result {
            TestResult::Valid => self.valid += 1,
            TestResult::Invalid => self.invalid += 1,
            TestResult::Acceptable => self.either += 1,
        }
    }
}

#[test]
fn wycheproof_hmac_sha256() {
    use wycheproof::mac::{TestName, TestSet};
    let mut counts = Counts::default();
    for group in TestSet::load(TestName::HmacSha256).unwrap().test_groups {
        if group.tag_size != 256 {
            continue;
        }
        for test in group.tests {
            let prf = Prf::new(&[&test.key]);
            let genuine = prf.verify(&[&test.msg], &test.tag);
            assert_eq!(genuine, test.result == TestResult::Valid, "case {}", test.tc_id);
            assert_eq!(genuine, prf.compute(&[&test.msg])[..] == test.tag[..]);
            counts.add(test.result);
        }
    }
    assert!(counts.valid > 30 && counts.invalid > 30, "{counts:?}");
}

#[test]
fn wycheproof_x25519() {
    use wycheproof::xdh::{TestFlag, TestName, TestSet};
    let mut counts = Counts::default();
    for group in TestSet::load(TestName::X25519).unwrap().test_groups {
        for test in group.tests {
            let key = key(Group::Curve25519, test.private_key[..].try_into().unwrap());
            let agreed = key.agree(&test.public_key);
            let zero = test.flags.contains(&TestFlag::ZeroSharedSecret);
            if zero || test.result == TestResult::Invalid {
                assert_eq!(agreed, Err(BadPublicValue), "case {}", test.tc_id);
            } else {
                assert_eq!(agreed.unwrap()[..], test.shared_secret[..], "case {}", test.tc_id);
            }
            counts.add(test.result);
        }
    }
    assert!(counts.valid > 200 && counts.either > 200, "{counts:?}");
}

#[test]
fn wycheproof_p256() {
    use wycheproof::ecdh::{TestName, TestSet};
    let mut counts = Counts::default();
    for group in TestSet::load(TestName::EcdhSecp256r1Ecpoint).unwrap().test_groups {
        for test in group.tests {
            // Secrets of another length are no secrets of ours, and RFC 5903 has no tag.
            let secret = &test.private_key[..];
            let secret: [u8; 32] = match secret.len() {
                32 => secret.try_into().unwrap(),
                len => [&vec![0; 32_usize.saturating_sub(len)], &secret[len.saturating_sub(32)..]]
                    .concat()
                    .try_into()
                    .unwrap(),
            };
            let key = key(Group::P256, secret);
            let agreed = match test.public_key.split_first() {
                Some((4, point)) => key.agree(point),
                _ => key.agree(&test.public_key),
            };
            // Compressed points are valid in general, but not in a KE payload.
            if test.result == TestResult::Valid && test.public_key.len() == 65 {
                assert_eq!(agreed.unwrap()[..], test.shared_secret[..], "case {}", test.tc_id);
                counts.add(test.result);
            } else {
                assert_eq!(agreed, Err(BadPublicValue), "case {}", test.tc_id);
                counts.add(TestResult::Invalid);
            }
        }
    }
    assert!(counts.valid > 200 && counts.invalid > 5, "{counts:?}");
}

#[test]
fn wycheproof_ed25519() {
    use wycheproof::eddsa::{TestName, TestSet};
    let mut counts = Counts::default();
    for group in TestSet::load(TestName::Ed25519).unwrap().test_groups {
        let public = PublicKey::from_bytes(group.key.pk[..].try_into().unwrap()).unwrap();
        for test in group.tests {
            let verified = public.verify(&[&test.msg], &test.sig);
            assert_eq!(verified.is_ok(), test.result == TestResult::Valid, "case {}", test.tc_id);
            counts.add(test.result);
        }
    }
    assert!(counts.valid > 50 && counts.invalid > 50, "{counts:?}");
}
