//! What other implementations say in their own way, and what is told of those that we do not
//! understand.

use crate::counters::Discard;
use crate::crypto::Cipher;
use crate::crypto::dh::{EphemeralKey, Group};
use crate::ike::wire::numbers::TransformType;

use super::*;

fn ike_proposal(number: u8) -> Proposal<Vec<Transform>> {
    let transforms = vec![
        Transform::encr(Cipher::Aes256Gcm16),
        Transform::prf(),
        Transform::ke(Group::Curve25519),
    ];
    Proposal { number, protocol: Protocol::IKE, spi: Spi::Ike(77), transforms }
}

#[test]
fn proposals_may_begin_with_any_number_and_the_answer_names_it() {
    for numbers in [&[1_u8][..], &[3], &[3, 4], &[2, 9]] {
        let mut pair = Pair::psk();
        pair.connect();
        let key = EphemeralKey::generate(Group::Curve25519, &mut pair.alice.rng);
        request(&mut pair, ExchangeType::CREATE_CHILD_SA, &mut |writer| {
            writer.sa(numbers.iter().map(|number| ike_proposal(*number)))?;
            writer.nonce(&[7; 32])?;
            writer.ke(&Ke { method: KeyExchangeMethod::CURVE25519, data: key.public() })
        });
        assert!(!pair.bob.events.iter().any(|event| matches!(event, IkeEvent::Down(..))));
        let mut last = pair.sent.last().unwrap().bytes.clone();
        let (key, salt) = key_of_answers(&pair);
        let opened = Sealed::parse(&mut last).unwrap().open(&key, &salt);
        let Ok(Opened::Message(message)) = opened else { panic!("{numbers:?}") };
        let chosen = message.sa().unwrap().chosen().unwrap();
        assert_eq!(chosen.number, numbers[0]);
    }
}

/// The key that Bob has answered Alice with, under the IKE SA that she still has.
fn key_of_answers(pair: &Pair) -> (AnyAead, crate::crypto::Salt) {
    key(false, sa(&pair.alice))
}

#[test]
fn odd_notifications_that_mean_nothing_to_us_end_nothing() {
    let mut pair = Pair::psk();
    pair.connect();
    for (notify_type, data) in [
        (NotifyType::SET_WINDOW_SIZE, &[0_u8, 5][..]),
        (NotifyType::ADDITIONAL_IP4_ADDRESS, &[]),
        (NotifyType::ADDITIONAL_IP6_ADDRESS, &[1, 2, 3]),
        (NotifyType::SIGNATURE_HASH_ALGORITHMS, &[]),
        (NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, &[]),
    ] {
        request(&mut pair, ExchangeType::INFORMATIONAL, &mut |writer| {
            writer.notify(&Notify::new(notify_type, data))
        });
        assert_eq!(answered(&pair), [], "{notify_type}");
        pair.assert_up();
    }
}

#[test]
fn the_first_call_after_an_end_says_that_it_is_the_only_one() {
    let mut pair = Pair::psk();
    pair.connect();
    assert!(sa(&pair.bob).about.initial_contact);
    let now = pair.now;
    // Alice keeps her answer to Bob's deletion for a while.
    pair.bob.call(|ike, cx| ike.terminate(now, cx, PEER));
    pair.settle();
    pair.now = pair.now.saturating_add(SECOND);
    pair.connect();
    assert!(sa(&pair.bob).about.initial_contact);
    // Bob does not hear that Alice closes this one.
    let now = pair.now;
    pair.alice.call(|ike, cx| ike.terminate(now, cx, PEER));
    pair.settle_with(|_, _| false);
    pair.connect();
    assert!(sa(&pair.bob).about.initial_contact);
}

/// How often Bob has dropped a message for this reason.
fn counted(pair: &Pair, why: Discard) -> u64 {
    pair.bob.ike.discards().get(why)
}

#[test]
fn who_cannot_get_in_is_counted() {
    let mut pair = Pair::psk();
    pair.initiate();
    let first = pair.wire.pop_front().unwrap();
    let altered = |at: usize, byte: u8| {
        let mut altered = first.clone();
        altered.bytes[at] = byte;
        altered
    };
    let mut long = first.clone();
    let padding = vec![0_u8; 3000];
    long.bytes.extend([&[0, 0][..], &(padding.len() as u16 + 4).to_be_bytes(), &padding].concat());
    // The last payload is followed by a vendor ID.
    let vendor = long.bytes.windows(16).position(|at| at == b"SimpleVPN IKEv2\0").unwrap() - 4;
    long.bytes[vendor] = PayloadType::VENDOR.0;
    let len = long.bytes.len() as u32;
    long.bytes[24..28].copy_from_slice(&len.to_be_bytes());
    for (datagram, why) in [
        (altered(17, 0x10), Discard::IkeV1),
        (altered(17, 0x30), Discard::IkeMalformed),
        (altered(27, 0), Discard::IkeMalformed),
        (altered(16, PayloadType::NONE.0), Discard::IkeMalformed),
        (altered(8, 1), Discard::IkeMalformed),
        (altered(18, ExchangeType::INFORMATIONAL.0), Discard::IkeNoSa),
        (long, Discard::IkeTooBig),
    ] {
        let before = counted(&pair, why);
        pair.deliver(datagram);
        assert_eq!(counted(&pair, why), before + 1, "{why:?}");
        assert!(pair.wire.is_empty(), "{why:?}");
    }
    let from = pair.alice.address;
    assert_eq!(pair.bob.events, [IkeEvent::Refused(None, from, Reason::IkeV1)]);

    pair.deliver(first);
    pair.settle();
    pair.assert_up();
    let mut forged = pair.sent.iter().rfind(|it| it.to.ip() == pair.bob.address).unwrap().clone();
    // The id of Alice's next request.
    forged.bytes[23] = 2;
    pair.deliver(forged);
    assert_eq!(counted(&pair, Discard::IkeBadIcv), 1);
    assert_eq!(counted(&pair, Discard::IkeNoProposal), 0);
}

#[test]
fn an_offer_that_is_refused_is_told() {
    let mut pair = Pair::psk();
    let ciphers = &mut pair.bob.ike.settings_mut().preferences.ciphers;
    ciphers.retain(|cipher| *cipher == Cipher::Aes128Gcm16);
    let ciphers = &mut pair.alice.ike.settings_mut().preferences.ciphers;
    ciphers.retain(|cipher| *cipher != Cipher::Aes128Gcm16);
    pair.initiate();
    pair.settle();
    assert_eq!(counted(&pair, Discard::IkeNoProposal), 1);
    let [IkeEvent::Unacceptable(None, from, offered)] = &pair.bob.events[..] else {
        panic!("{:?}", pair.bob.events)
    };
    assert_eq!(*from, pair.alice.address);
    let algorithms = offered.algorithms.iter();
    let algorithms: Vec<_> =
        algorithms.map(|it| (it.transform_type, it.number, it.key_len)).collect();
    let [encr, ke] = [TransformType::ENCR, TransformType::KE];
    let expected =
        [(encr, 28, 0), (TransformType::PRF, 5, 0), (ke, 31, 0), (ke, 19, 0), (encr, 20, 32)];
    assert_eq!((algorithms, offered.more), (expected.to_vec(), false));
}

#[test]
fn an_offer_for_esp_that_is_refused_is_told() {
    let mut pair = Pair::psk();
    pair.connect();
    let spi = *pair.alice.sad.inbound.keys().next().unwrap();
    pair.bob.events.clear();
    request(&mut pair, ExchangeType::CREATE_CHILD_SA, &mut |writer| {
        writer.notify(&Notify::about_esp(NotifyType::REKEY_SA, spi))?;
        let transforms = (0..40).map(|number| Transform::new(TransformType::ENCR, 1000 + number));
        let transforms: Vec<_> = transforms.chain([Transform::sn(false)]).collect();
        writer.sa([Proposal {
            number: 1,
            protocol: Protocol::ESP,
            spi: Spi::Child(4096),
            transforms,
        }])?;
        writer.nonce(&[7; 32])?;
        let any = crate::ike::Ranges::of_prefixes(&[]);
        writer.ts_initiator(any.selectors())?;
        writer.ts_responder(any.selectors())
    });
    assert_eq!(answered(&pair), [NotifyType::NO_PROPOSAL_CHOSEN]);
    let [IkeEvent::Unacceptable(Some(PEER), _, offered)] = &pair.bob.events[..] else {
        panic!("{:?}", pair.bob.events)
    };
    assert!(offered.more && offered.algorithms.is_full());
}
