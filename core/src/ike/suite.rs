//! Which algorithms two ends use: what is offered, and what is chosen of it.
//!
//! Implements the choice among transforms (RFC 7296 §2.7, §3.3; AEADs RFC 5282 §8) for the
//! algorithms we have: ChaCha20-Poly1305, AES-GCM-16, PRF_HMAC_SHA2_256, Curve25519, P-256, and
//! sequence numbers of 32 and 64 bits. Transforms come as plain numbers; how they lie in an SA
//! payload is not here.

use heapless::Vec;

use super::wire::numbers;
use crate::crypto::Cipher;
use crate::crypto::dh::Group;

/// PRF_HMAC_SHA2_256, in IANA's registry of pseudorandom functions.
pub const PRF_HMAC_SHA2_256: u16 = numbers::PseudorandomFunction::PRF_HMAC_SHA2_256.0;
/// No algorithm at all, where a registry has a number for that.
pub const NONE: u16 = numbers::KeyExchangeMethod::NONE.0;
/// Extended sequence numbers, in IANA's registry of sequence numbers.
pub const ESN: u16 = numbers::SequenceNumbers::ESN.0;
/// No extended sequence numbers.
pub const NO_ESN: u16 = numbers::SequenceNumbers::NO_ESN.0;

const ENCR_AES_GCM_16: u16 = numbers::EncryptionAlgorithm::ENCR_AES_GCM_16.0;
const ENCR_CHACHA20_POLY1305: u16 = numbers::EncryptionAlgorithm::ENCR_CHACHA20_POLY1305.0;

/// The kinds of algorithms in a proposal, in IANA's registry of transform types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TransformType {
    /// Encryption.
    Encr = numbers::TransformType::ENCR.0,
    /// Pseudorandom function.
    Prf = numbers::TransformType::PRF.0,
    /// Integrity; an AEAD needs none.
    Integ = numbers::TransformType::INTEG.0,
    /// Key exchange method.
    Ke = numbers::TransformType::KE.0,
    /// Sequence numbers (extended or not).
    Sn = numbers::TransformType::SN.0,
}

impl TransformType {
    const ALL: [TransformType; 5] = [
        TransformType::Encr,
        TransformType::Prf,
        TransformType::Integ,
        TransformType::Ke,
        TransformType::Sn,
    ];
}

/// A cipher's transform: the number, and the Key Length attribute in bits where there is one.
#[must_use]
pub const fn transform(cipher: Cipher) -> (u16, Option<u16>) {
    match cipher {
        Cipher::ChaCha20Poly1305 => (ENCR_CHACHA20_POLY1305, None),
        Cipher::Aes128Gcm16 => (ENCR_AES_GCM_16, Some(128)),
        Cipher::Aes256Gcm16 => (ENCR_AES_GCM_16, Some(256)),
    }
}

impl Group {
    /// Its number in IANA's registry of key exchange methods.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Group::Curve25519 => numbers::KeyExchangeMethod::CURVE25519.0,
            Group::P256 => numbers::KeyExchangeMethod::ECP256.0,
        }
    }

    /// The group with this number, if it is one of ours.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Group> {
        Group::ALL.into_iter().find(|group| group.number() == number)
    }
}

/// What we offer and accept, the preferred first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preferences {
    /// The ciphers.
    pub ciphers: Vec<Cipher, 3>,
    /// The key exchange methods.
    pub groups: Vec<Group, 2>,
}

impl Preferences {
    /// All we have. Where the machine has no instructions for AES, ChaCha20-Poly1305 is several
    /// times as fast, else AES-GCM is. What both ends then agree on is what the slower one prefers
    /// ([`Offer::choose_ike`]).
    #[must_use]
    pub fn new(fast_aes: bool) -> Preferences {
        let ciphers = if fast_aes {
            [Cipher::Aes256Gcm16, Cipher::Aes128Gcm16, Cipher::ChaCha20Poly1305]
        } else {
            [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm16, Cipher::Aes128Gcm16]
        };
        Preferences { ciphers: Vec::from_array(ciphers), groups: Vec::from_array(Group::ALL) }
    }
}

/// The algorithms of an IKE SA; its PRF is always PRF_HMAC_SHA2_256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IkeSuite {
    /// What encrypts it.
    pub cipher: Cipher,
    /// How its keys were exchanged.
    pub group: Group,
}

/// The algorithms of a child SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChildSuite {
    /// What encrypts it.
    pub cipher: Cipher,
    /// How its keys were exchanged, if they were: perfect forward secrecy.
    pub group: Option<Group>,
    /// Whether sequence numbers have 64 bits.
    pub esn: bool,
}

/// Whether a child SA gets a key exchange of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pfs {
    /// Never: the child of IKE_AUTH has no KE payload (RFC 7296 §1.2).
    Never,
    /// If the proposal has a group of ours; and if it also goes without, or has none, then not.
    Optional,
    /// Always.
    Required,
}

/// One proposal of an SA payload: the set of what it offers, as far as we know it. Begin with the
/// default, and [`add`](Offer::add) its transforms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offer {
    ciphers: [bool; Cipher::ALL.len()],
    groups: [bool; Group::ALL.len()],
    prf: bool,
    no_integ: bool,
    no_group: bool,
    esn: bool,
    no_esn: bool,
    /// How many transforms of each type there are, those included that we do not know.
    counts: [u8; TransformType::ALL.len()],
    unknown_type: bool,
    /// Whether ChaCha20-Poly1305 comes before every AES of ours.
    prefers_chacha20: bool,
}

impl Offer {
    /// Adds a transform: its type, its number, and its Key Length attribute in bits, if there is
    /// one. A transform with any other attribute is [`add_unknown`](Offer::add_unknown).
    pub fn add(&mut self, transform_type: u8, number: u16, key_bits: Option<u16>) {
        let Some(known) = self.count(transform_type) else { return };
        match (known, number, key_bits) {
            (TransformType::Encr, ..) => {
                let chacha20 = transform(Cipher::ChaCha20Poly1305) == (number, key_bits);
                self.prefers_chacha20 |= chacha20 && !self.ciphers.contains(&true);
                for (cipher, offered) in Cipher::ALL.iter().zip(&mut self.ciphers) {
                    *offered |= transform(*cipher) == (number, key_bits);
                }
            }
            (TransformType::Ke, NONE, None) => self.no_group = true,
            (TransformType::Ke, _, None) => {
                for (group, offered) in Group::ALL.iter().zip(&mut self.groups) {
                    *offered |= group.number() == number;
                }
            }
            (TransformType::Prf, PRF_HMAC_SHA2_256, None) => self.prf = true,
            (TransformType::Integ, NONE, None) => self.no_integ = true,
            (TransformType::Sn, ESN, None) => self.esn = true,
            (TransformType::Sn, NO_ESN, None) => self.no_esn = true,
            _ => {} // counted, and never chosen
        }
    }

    /// Adds a transform that cannot be chosen, because it has an attribute that we do not know
    /// (RFC 7296 §3.3.6).
    pub fn add_unknown(&mut self, transform_type: u8) {
        self.count(transform_type);
    }

    fn count(&mut self, transform_type: u8) -> Option<TransformType> {
        let mut types = TransformType::ALL.into_iter().zip(&mut self.counts);
        let known = types.find(|(known, _)| *known as u8 == transform_type);
        if let Some((known, count)) = known {
            *count = count.saturating_add(1);
            Some(known)
        } else {
            self.unknown_type = true;
            None
        }
    }

    /// Chooses for an IKE SA, as the responder does: of several groups the one that the KE
    /// payload is for, which saves a round trip; of several ciphers the one we prefer, but
    /// ChaCha20-Poly1305 if the initiator lists it before AES. Its order says that it has no
    /// instructions for AES, which then takes it several times as long, while ChaCha20-Poly1305
    /// costs an end with such instructions little.
    #[must_use]
    pub fn choose_ike(&self, ours: &Preferences, sent: Option<Group>) -> Option<IkeSuite> {
        let [.., sn] = self.counts;
        if self.unknown_type || sn > 0 || !self.prf {
            return None;
        }
        Some(IkeSuite { cipher: self.cipher(ours)?, group: self.group(ours, sent)? })
    }

    /// Chooses for a child SA, as the responder does; `sent` is the group of the KE payload, if
    /// there is one. The cipher is chosen as for an IKE SA; of both kinds of sequence numbers, the
    /// extended ones.
    #[must_use]
    pub fn choose_child(
        &self,
        ours: &Preferences,
        pfs: Pfs,
        sent: Option<Group>,
    ) -> Option<ChildSuite> {
        let [_, prf, _, ke, _] = self.counts;
        if self.unknown_type || prf > 0 || !(self.esn || self.no_esn) {
            return None;
        }
        let group = match pfs {
            Pfs::Never => None,
            Pfs::Required => Some(self.group(ours, sent)?),
            Pfs::Optional => match self.group(ours, sent) {
                None if ke > 0 && !self.no_group => return None,
                group => group,
            },
        };
        Some(ChildSuite { cipher: self.cipher(ours)?, group, esn: self.esn })
    }

    /// What the responder has chosen for an IKE SA, as its initiator reads it: exactly one
    /// transform of each type (RFC 7296 §3.3), each one that we have offered.
    #[must_use]
    pub fn chosen_ike(&self, ours: &Preferences) -> Option<IkeSuite> {
        let [encr, prf, integ, ke, _] = self.counts;
        let one_of_each = (encr, prf, ke) == (1, 1, 1) && integ <= 1 && self.lacks_integ();
        if one_of_each { self.choose_ike(ours, None) } else { None }
    }

    /// What the responder has chosen for a child SA, as its initiator reads it. Whether both mean
    /// the same sequence numbers, if we offered only one kind, is for the caller to see.
    #[must_use]
    pub fn chosen_child(&self, ours: &Preferences, pfs: Pfs) -> Option<ChildSuite> {
        let [encr, _, integ, ke, sn] = self.counts;
        let one_of_each = (encr, sn) == (1, 1) && integ <= 1 && self.lacks_integ() && ke <= 1;
        if one_of_each { self.choose_child(ours, pfs, None) } else { None }
    }

    /// Whether it has no integrity algorithm, or offers to go without. That is how AEADs are to be
    /// offered (RFC 5282 §8), and answered. In an offer any other is passed over: some phones put
    /// AEADs and other ciphers in one proposal, and all ciphers of ours are AEADs.
    fn lacks_integ(&self) -> bool {
        let [_, _, integ, ..] = self.counts;
        integ == 0 || self.no_integ
    }

    fn cipher(&self, ours: &Preferences) -> Option<Cipher> {
        let offered = |ours: &Cipher| {
            Cipher::ALL.iter().zip(self.ciphers).any(|(cipher, offered)| offered && cipher == ours)
        };
        let chacha20 = Some(Cipher::ChaCha20Poly1305)
            .filter(|chacha20| self.prefers_chacha20 && ours.ciphers.contains(chacha20));
        chacha20.or_else(|| ours.ciphers.iter().copied().find(offered))
    }

    fn group(&self, ours: &Preferences, sent: Option<Group>) -> Option<Group> {
        let offered = |ours: &Group| {
            Group::ALL.iter().zip(self.groups).any(|(group, offered)| offered && group == ours)
        };
        let sent = sent.filter(|sent| ours.groups.contains(sent) && offered(sent));
        sent.or_else(|| ours.groups.iter().copied().find(offered))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENCR: u8 = 1;
    const PRF: u8 = 2;
    const INTEG: u8 = 3;
    const KE: u8 = 4;
    const SN: u8 = 5;

    const CHACHA20: (u8, u16, Option<u16>) = (ENCR, 28, None);
    const AES_128: (u8, u16, Option<u16>) = (ENCR, 20, Some(128));
    const AES_256: (u8, u16, Option<u16>) = (ENCR, 20, Some(256));

    fn offer(transforms: &[(u8, u16, Option<u16>)]) -> Offer {
        let mut offer = Offer::default();
        for (transform_type, number, key_bits) in transforms {
            offer.add(*transform_type, *number, *key_bits);
        }
        offer
    }

    fn ours() -> Preferences {
        Preferences::new(true)
    }

    /// An IKE offer of everything we have, with more.
    const IKE: [(u8, u16, Option<u16>); 8] = [
        CHACHA20,
        AES_256,
        (ENCR, 12, Some(256)),
        (PRF, 2, None),
        (PRF, 5, None),
        (KE, 14, None),
        (KE, 19, None),
        (KE, 31, None),
    ];

    #[test]
    fn the_cipher_is_what_the_slower_end_prefers() {
        let [aes, chacha20] = [Cipher::Aes256Gcm16, Cipher::ChaCha20Poly1305];
        for (ciphers, fast_responder, expected) in [
            (&[AES_256, AES_128, CHACHA20][..], true, aes),
            (&[AES_128, CHACHA20, AES_256], true, aes),
            (&[AES_256, AES_128, CHACHA20], false, chacha20),
            (&[CHACHA20, AES_256, AES_128], true, chacha20),
            (&[CHACHA20, AES_256, AES_128], false, chacha20),
            // Ciphers that are not ours say nothing about the order of those that are.
            (&[(ENCR, 12, Some(256)), CHACHA20, AES_256], true, chacha20),
            (&[AES_256], false, aes),
            (&[CHACHA20], true, chacha20),
        ] {
            let ours = Preferences::new(fast_responder);
            let ike = offer(&[ciphers, &[(PRF, 5, None), (KE, 31, None)]].concat());
            let suite = IkeSuite { cipher: expected, group: Group::Curve25519 };
            assert_eq!(ike.choose_ike(&ours, None), Some(suite), "{ciphers:?}");
            let esp = offer(&[ciphers, &[(SN, 0, None), (SN, 1, None)]].concat());
            let suite = esp.choose_child(&ours, Pfs::Never, None).unwrap();
            assert_eq!(suite.cipher, expected, "{ciphers:?}");
        }
        // Without it the initiator's order means nothing.
        let mut only_aes = Preferences::new(true);
        only_aes.ciphers.retain(|cipher| *cipher != chacha20);
        assert_eq!(offer(&IKE).choose_ike(&only_aes, None).unwrap().cipher, aes);
    }

    #[test]
    fn the_group_that_was_sent_saves_a_round_trip() {
        let chosen = offer(&IKE).choose_ike(&ours(), Some(Group::P256)).unwrap();
        assert_eq!(chosen.group, Group::P256);
        let mut only_one = ours();
        only_one.groups.retain(|group| *group == Group::Curve25519);
        let chosen = offer(&IKE).choose_ike(&only_one, Some(Group::P256)).unwrap();
        assert_eq!(chosen.group, Group::Curve25519);
        // Sent, but not offered.
        let chosen = offer(&[AES_128, (PRF, 5, None), (KE, 31, None)]);
        let chosen = chosen.choose_ike(&ours(), Some(Group::P256)).unwrap();
        assert_eq!(chosen.group, Group::Curve25519);
    }

    #[test]
    fn proposals_with_something_missing_are_not_chosen() {
        let whole = [AES_128, (PRF, 5, None), (KE, 31, None)];
        assert!(offer(&whole).choose_ike(&ours(), None).is_some());
        for missing in 0..whole.len() {
            let mut left = whole.to_vec();
            left.remove(missing);
            assert_eq!(offer(&left).choose_ike(&ours(), None), None, "{missing}");
        }
    }

    #[test]
    fn key_lengths_are_part_of_the_transform() {
        for encr in [(ENCR, 20, None), (ENCR, 20, Some(192)), (ENCR, 28, Some(256))] {
            let offer = offer(&[encr, (PRF, 5, None), (KE, 31, None)]);
            assert_eq!(offer.choose_ike(&ours(), None), None, "{encr:?}");
        }
        let offer = offer(&[AES_128, (PRF, 5, Some(256)), (KE, 31, None)]);
        assert_eq!(offer.choose_ike(&ours(), None), None);
    }

    #[test]
    fn integrity_beside_an_aead_is_passed_over_in_offers_and_refused_in_answers() {
        let ike = [AES_256, (PRF, 5, None), (KE, 31, None)];
        let esp = [AES_256, (SN, 0, None)];
        for (integ, answer) in [
            (&[(INTEG, 12, None)][..], false),
            (&[(INTEG, 12, None), (INTEG, 0, None)], false),
            (&[(INTEG, 0, None)], true),
        ] {
            let ike = offer(&[&ike[..], integ].concat());
            assert!(ike.choose_ike(&ours(), None).is_some(), "{integ:?}");
            assert_eq!(ike.chosen_ike(&ours()).is_some(), answer, "{integ:?}");
            let esp = offer(&[&esp[..], integ].concat());
            assert!(esp.choose_child(&ours(), Pfs::Never, None).is_some(), "{integ:?}");
            assert_eq!(esp.chosen_child(&ours(), Pfs::Never).is_some(), answer, "{integ:?}");
        }
    }

    #[test]
    fn unknown_types_and_attributes_are_not_chosen() {
        // RFC 9370's additional key exchanges.
        let mut with_adddke = offer(&IKE);
        with_adddke.add(6, 0, None);
        assert_eq!(with_adddke.choose_ike(&ours(), None), None);
        assert_eq!(with_adddke.choose_child(&ours(), Pfs::Optional, None), None);

        let mut attribute = offer(&[(PRF, 5, None), (KE, 31, None)]);
        attribute.add_unknown(ENCR);
        assert_eq!(attribute.choose_ike(&ours(), None), None);
        attribute.add(ENCR, 28, None);
        assert!(attribute.choose_ike(&ours(), None).is_some());
        assert_eq!(attribute.chosen_ike(&ours()), None);
    }

    #[test]
    fn an_answer_has_one_transform_of_each_type() {
        let answer = [CHACHA20, (PRF, 5, None), (KE, 19, None)];
        let suite = IkeSuite { cipher: Cipher::ChaCha20Poly1305, group: Group::P256 };
        assert_eq!(offer(&answer).chosen_ike(&ours()), Some(suite));
        for more in [CHACHA20, AES_128, (PRF, 2, None), (KE, 14, None), (SN, 0, None), (7, 0, None)]
        {
            let answer = [&answer[..], &[more]].concat();
            assert_eq!(offer(&answer).chosen_ike(&ours()), None, "{more:?}");
        }
        let mut chacha20_only = ours();
        chacha20_only.ciphers.retain(|cipher| *cipher == Cipher::ChaCha20Poly1305);
        assert!(offer(&answer).chosen_ike(&chacha20_only).is_some());
        let unoffered = [AES_256, (PRF, 5, None), (KE, 19, None)];
        assert_eq!(offer(&unoffered).chosen_ike(&chacha20_only), None);
    }

    #[test]
    fn children_prefer_extended_sequence_numbers() {
        let esn = |transforms: &[(u8, u16, Option<u16>)]| {
            let offer = offer(&[&[AES_256], transforms].concat());
            offer.choose_child(&ours(), Pfs::Never, None).map(|suite| suite.esn)
        };
        assert_eq!(esn(&[(SN, 0, None), (SN, 1, None)]), Some(true));
        assert_eq!(esn(&[(SN, 1, None)]), Some(true));
        assert_eq!(esn(&[(SN, 0, None)]), Some(false));
        assert_eq!(esn(&[]), None);
        assert_eq!(esn(&[(SN, 2, None)]), None);
        assert_eq!(esn(&[(SN, 0, None), (PRF, 5, None)]), None);
    }

    #[test]
    fn children_have_a_group_when_both_want_one() {
        let child = |pfs, groups: &[u16]| {
            let mut offer = offer(&[AES_256, (SN, 1, None)]);
            groups.iter().for_each(|number| offer.add(KE, *number, None));
            offer.choose_child(&ours(), pfs, None).map(|suite| suite.group)
        };
        let curve25519 = Some(Group::Curve25519);
        for (groups, never, optional, required) in [
            (&[][..], Some(None), Some(None), None),
            (&[31], Some(None), Some(curve25519), Some(curve25519)),
            (&[0], Some(None), Some(None), None),
            (&[0, 31], Some(None), Some(curve25519), Some(curve25519)),
            (&[14], Some(None), None, None),
            (&[0, 14], Some(None), Some(None), None),
        ] {
            assert_eq!(child(Pfs::Never, groups), never, "{groups:?}");
            assert_eq!(child(Pfs::Optional, groups), optional, "{groups:?}");
            assert_eq!(child(Pfs::Required, groups), required, "{groups:?}");
        }
    }

    #[test]
    fn a_child_answer_has_one_transform_of_each_type() {
        let answer = [AES_256, (SN, 1, None), (KE, 31, None)];
        let suite =
            ChildSuite { cipher: Cipher::Aes256Gcm16, group: Some(Group::Curve25519), esn: true };
        assert_eq!(offer(&answer).chosen_child(&ours(), Pfs::Required), Some(suite));
        for more in [AES_256, (SN, 0, None), (KE, 19, None), (PRF, 5, None)] {
            let answer = [&answer[..], &[more]].concat();
            assert_eq!(offer(&answer).chosen_child(&ours(), Pfs::Required), None, "{more:?}");
        }
    }

    #[test]
    fn numbers_are_those_of_the_registry() {
        assert_eq!([31, 19].map(Group::from_number), Group::ALL.map(Some));
        assert_eq!([0, 14, 20, 35].map(Group::from_number), [None; 4]);
    }
}
