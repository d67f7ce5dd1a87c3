//! Payloads as they are written and read again, the rules that refuse them, fragments in any
//! order, and bytes from nowhere. Messages of others are in `tests/ike_messages.rs`.

use proptest::collection::vec;
use proptest::prelude::*;
use std::vec::Vec;

use super::cp::{CfgAttribute, Configuration};
use super::ke::Ke;
use super::message;
use super::notify::Notify;
use super::numbers::*;
use super::payload::{MAX_PAYLOADS, Payload};
use super::sa::{Proposal, Sa, Spi, Transform};
use super::sk::{OpenError, Opened, Sealed, Unsealed};
use super::skf::{self, Fragment, Reassembled, Reassembly, ReassemblyError};
use super::ts::{Addresses, Ports, TrafficSelector, TrafficSelectors};
use super::{Header, Malformed, Message, NoRoom, PayloadWriter};
use crate::crypto::{ChaCha20Poly1305, Salt};
use crate::ike::keymat::IkeSpis;

const HEADER: Header = Header {
    spis: IkeSpis { initiator: 1, responder: 2 },
    exchange: ExchangeType::INFORMATIONAL,
    from_initiator: true,
    response: false,
    message_id: 7,
};

fn key() -> (ChaCha20Poly1305, Salt) {
    (ChaCha20Poly1305::new(&[5; 32]).unwrap(), Salt::new([6; 4]))
}

fn written(payloads: impl Fn(&mut PayloadWriter<'_>) -> Result<(), NoRoom>) -> Vec<u8> {
    let mut buffer = std::vec![0; 8192];
    message::write(&mut buffer, &HEADER, |writer| payloads(writer)).unwrap().to_vec()
}

/// A message with one payload of these bytes.
fn raw(payload_type: u8, flags: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes =
        written(|writer| writer.payload(PayloadType(payload_type), |writer| writer.put(content)));
    bytes[29] = flags;
    bytes
}

fn spis() -> impl Strategy<Value = (Protocol, Spi)> {
    prop_oneof![
        Just((Protocol::IKE, Spi::None)),
        (1..=u64::MAX).prop_map(|spi| (Protocol::IKE, Spi::Ike(spi))),
        (256..=u32::MAX).prop_map(|spi| (Protocol::ESP, Spi::Child(spi))),
    ]
}

fn transforms() -> impl Strategy<Value = Vec<Transform>> {
    let transform = (any::<u8>(), any::<u16>(), any::<Option<u16>>());
    let transform = transform.prop_map(|(transform_type, number, key_bits)| Transform {
        key_bits,
        ..Transform::new(TransformType(transform_type), number)
    });
    vec(transform, 1..6)
}

fn selectors() -> impl Strategy<Value = Vec<TrafficSelector>> {
    let v4 = any::<[[u8; 4]; 2]>().prop_map(|ends| ends.map(Into::into));
    let v6 = any::<[[u8; 16]; 2]>().prop_map(|ends| ends.map(Into::into));
    let selector = (any::<u8>(), any::<[u16; 2]>(), prop_oneof![v4, v6]);
    let selector = selector.prop_map(|(protocol, mut ports, mut ends): (_, _, [_; 2])| {
        ports.sort_unstable();
        ends.sort_unstable();
        let ports = Ports::new(ports[0], ports[1]).unwrap();
        TrafficSelector { protocol, ports, addresses: Addresses::new(ends[0], ends[1]).unwrap() }
    });
    vec(selector, 1..5)
}

fn attributes() -> impl Strategy<Value = Vec<CfgAttribute<'static>>> {
    let v4 = || any::<Option<[u8; 4]>>().prop_map(|address| address.map(Into::into));
    let v6 = || any::<Option<[u8; 16]>>().prop_map(|address| address.map(Into::into));
    let prefix = || {
        proptest::option::of((any::<[u8; 16]>(), 0..=128_u8))
            .prop_map(|prefix| prefix.map(|(address, len)| (address.into(), len)))
    };
    let subnet = proptest::option::of(any::<[[u8; 4]; 2]>());
    let attribute = prop_oneof![
        v4().prop_map(CfgAttribute::Ip4Address),
        v4().prop_map(CfgAttribute::Ip4Netmask),
        v4().prop_map(CfgAttribute::Ip4Dns),
        subnet.prop_map(|subnet| CfgAttribute::Ip4Subnet(
            subnet.map(|[address, mask]| (address.into(), mask.into()))
        )),
        prefix().prop_map(CfgAttribute::Ip6Address),
        v6().prop_map(CfgAttribute::Ip6Dns),
        prefix().prop_map(CfgAttribute::Ip6Subnet),
        Just(CfgAttribute::Other(CfgAttributeType::APPLICATION_VERSION, b"1")),
    ];
    vec(attribute, 0..6)
}

/// Bytes that look a little like payloads.
fn junk() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(0), Just(4), Just(8), Just(33), Just(41), Just(46), any::<u8>()], 0..300)
}

/// A message with an honest header, so that its payloads are looked at.
fn with_header(first: u8, payloads: &[u8]) -> Vec<u8> {
    let mut bytes = written(|_| Ok(()));
    bytes.extend(payloads);
    bytes[16] = first;
    let len = u32::try_from(bytes.len()).unwrap();
    bytes[24..28].copy_from_slice(&len.to_be_bytes());
    bytes
}

proptest! {
    #[test]
    fn proposals_are_read_as_written(
        offers in vec((spis(), transforms()), 1..5),
        nonce in vec(any::<u8>(), 16..=256),
    ) {
        let proposals = || (1..).zip(&offers).map(|(number, ((protocol, spi), transforms))| {
            Proposal { number, protocol: *protocol, spi: *spi, transforms }
        });
        let bytes = written(|writer| {
            writer.sa(proposals())?;
            writer.nonce(&nonce)
        });
        let message = Message::parse(&bytes).unwrap();
        prop_assert_eq!(message.nonce(), Ok(&nonce[..]));
        let read = message.sa().unwrap().proposals();
        prop_assert_eq!(read.count(), offers.len());
        for (read, expected) in read.zip(proposals()) {
            prop_assert_eq!((read.number, read.protocol), (expected.number, expected.protocol));
            prop_assert_eq!(read.spi, expected.spi);
            prop_assert!(read.transforms.eq(expected.transforms.iter().copied()));
        }
    }

    #[test]
    fn selectors_and_attributes_are_read_as_written(
        ours in selectors(), theirs in selectors(), attributes in attributes(),
    ) {
        let bytes = written(|writer| {
            writer.configuration(CfgType::CFG_SET, attributes.iter().copied())?;
            writer.ts_initiator(ours.iter().copied())?;
            writer.ts_responder(theirs.iter().copied())
        });
        let message = Message::parse(&bytes).unwrap();
        prop_assert!(message.ts_initiator().unwrap().eq(ours));
        prop_assert!(message.ts_responder().unwrap().eq(theirs));
        let configuration = message.configuration().unwrap();
        prop_assert!(configuration.attributes().eq(attributes));
    }

    #[test]
    fn bytes_from_nowhere_are_read_or_refused(first in any::<u8>(), payloads in junk()) {
        let _ = Message::parse(&payloads);
        let mut bytes = with_header(first, &payloads);
        if let Ok(message) = Message::parse(&bytes) {
            prop_assert!(message.payloads().count() <= MAX_PAYLOADS);
        }
        if let Ok(sealed) = Sealed::parse(&mut bytes) {
            let (key, salt) = key();
            prop_assert_eq!(sealed.open(&key, &salt).err(), Some(OpenError::BadIcv));
        }
        if let Some(sa) = Sa::parse(&payloads) {
            sa.proposals().for_each(|one| { let _ = one.offer(); });
        }
        let _ = TrafficSelectors::parse(&payloads).map(Iterator::count);
        let _ = Configuration::parse(&payloads).map(|cp| cp.attributes().count());
    }

    #[test]
    fn fragments_make_the_message_in_any_order(
        len in 1..900_usize, max_len in 90..400_usize, shuffle in any::<u64>(),
    ) {
        let (key, salt) = key();
        let data = std::vec![9; len];
        let mut buffer = std::vec![0; 4000];
        let unsealed = Unsealed::write(&mut buffer, &HEADER, |writer| writer.vendor(&data)).unwrap();
        let sealed = unsealed.seal_fragments(max_len, &key, &salt, 9).unwrap();
        let mut datagrams: Vec<Vec<u8>> = sealed.chunks(max_len).map(<[u8]>::to_vec).collect();
        let total = datagrams.len();
        let mut ivs: Vec<&[u8]> = datagrams.iter().map(|bytes| &bytes[36..44]).collect();
        ivs.dedup();
        prop_assert_eq!(ivs.len(), total, "an IV twice");
        datagrams.sort_by_key(|bytes| {
            bytes.iter().fold(shuffle, |hash, byte| (hash ^ u64::from(*byte)).rotate_left(9))
        });

        let mut storage = std::vec![0; len + 4];
        let mut reassembly = Reassembly::new((&mut storage[..]).into());
        for (number, datagram) in datagrams.iter_mut().enumerate() {
            let sealed = Sealed::parse(datagram).unwrap();
            let (header, position) = (*sealed.header(), sealed.fragment().unwrap());
            prop_assert!(!reassembly.has(&header, position));
            let Ok(Opened::Fragment(fragment)) = sealed.open(&key, &salt) else { panic!() };
            match reassembly.add(&fragment).unwrap() {
                Reassembled::Message(message) => {
                    prop_assert_eq!(number + 1, total);
                    prop_assert!(message.payloads().eq([Payload::Vendor(&data)]));
                }
                other => prop_assert!(
                    matches!(other, Reassembled::Incomplete) && number + 1 < total, "{:?}", other),
            }
            prop_assert!(reassembly.has(&header, position));
        }
    }
}

#[test]
fn writing_stops_at_the_end_of_the_buffer() {
    let all = |writer: &mut PayloadWriter<'_>| {
        writer.ke(&Ke { method: KeyExchangeMethod::ECP256, data: &[1; 64] })?;
        writer.ppk_identity(PpkIdType::PPK_ID_FIXED, b"name")?;
        writer.delete_esp(&[256, 257])
    };
    let whole = written(all).len();
    for len in 0..whole {
        let mut buffer = std::vec![0; len];
        assert_eq!(
            message::write(&mut buffer, &HEADER, |writer| all(writer)),
            Err(NoRoom),
            "{len}"
        );
    }
    let overhead = super::sk::OVERHEAD - super::HEADER_LEN;
    let mut buffer = std::vec![0; whole + overhead];
    let unsealed = Unsealed::write(&mut buffer, &HEADER, |writer| all(writer)).unwrap();
    assert_eq!(unsealed.sealed_len(), whole + overhead);
    buffer.pop();
    assert!(Unsealed::write(&mut buffer, &HEADER, |writer| all(writer)).is_err());
}

#[test]
fn payloads_that_we_do_not_know_are_skipped_unless_critical() {
    let parse = |bytes: &[u8]| Message::parse(bytes).map(|message| message.payloads().count());
    assert_eq!(parse(&raw(200, 0, &[1])), Ok(1));
    assert_eq!(parse(&raw(200, 0x7f, &[1])), Ok(1), "reserved bits");
    let critical = Malformed::CriticalPayload(PayloadType(200));
    assert_eq!(parse(&raw(200, 0x80, &[1])), Err(critical));
    let answer = (NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, Some(200));
    assert_eq!(critical.notification(), answer);
    assert_eq!(parse(&raw(38, 0x80, &[1])), Ok(1), "CERTREQ is of RFC 7296");
    assert_eq!(parse(&raw(46, 0, &[0; 40])), Err(Malformed::Misplaced(PayloadType::SK)));
}

#[test]
fn chains_end_with_the_datagram_and_have_an_end() {
    let parse = |bytes: &[u8]| Message::parse(bytes).map(|message| message.payloads().count());
    assert_eq!(parse(&with_header(0, &[])), Ok(0));
    for (first, payloads) in [(0, &[0; 4][..]), (43, &[]), (43, &[0, 0, 0, 3]), (43, &[0, 0, 0, 5])]
    {
        assert_eq!(parse(&with_header(first, payloads)), Err(Malformed::Length), "{payloads:?}");
    }
    assert_eq!(parse(&with_header(43, &[0, 0, 0, 4, 0])), Err(Malformed::Length), "behind the end");
    let vendors = |count| written(move |writer| (0..count).try_for_each(|_| writer.vendor(&[1])));
    assert_eq!(parse(&vendors(MAX_PAYLOADS)), Ok(MAX_PAYLOADS));
    assert_eq!(parse(&vendors(MAX_PAYLOADS + 1)), Err(Malformed::TooManyPayloads));
    let twice = written(|writer| {
        writer.nonce(&[1; 16])?;
        writer.nonce(&[2; 16])
    });
    assert_eq!(parse(&twice), Err(Malformed::Misplaced(PayloadType::NONCE)));
}

#[test]
fn nonces_have_the_length_they_should() {
    for (len, right) in [(0, false), (15, false), (16, true), (256, true), (257, false)] {
        assert_eq!(Message::parse(&raw(40, 0, &std::vec![1; len])).is_ok(), right, "{len}");
    }
}

#[test]
fn proposals_that_break_a_rule_are_refused() {
    let transform = [0, 0, 0, 8, 1, 0, 0, 28];
    let proposal = |begin: [u8; 8], transforms: &[u8]| [&begin[..], transforms].concat();
    let good = proposal([0, 0, 0, 16, 1, 1, 0, 1], &transform);
    assert!(Sa::parse(&good).is_some());
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        Sa::parse(&bytes).is_some()
    };
    // More proposals announced, something else announced, lengths, number 0, SPI, count; the same
    // of the transform.
    for (at, byte) in [
        (0, 2),
        (0, 1),
        (3, 15),
        (3, 17),
        (3, 7),
        (4, 0),
        (5, 3),
        (6, 8),
        (7, 0),
        (7, 2),
        (8, 3),
        (8, 2),
        (11, 7),
        (11, 9),
    ] {
        assert!(!with(at, byte), "byte {at} = {byte}");
    }
    assert!(with(4, 9), "an answer's number is that of the offer");
    assert!(Sa::parse(&[]).is_none() && Sa::parse(&[&good[..], &[0]].concat()).is_none());

    let two = |first: u8, second: u8| {
        let [mut a, mut b] = [good.clone(), good.clone()];
        (a[0], a[4], b[4]) = (2, first, second);
        Sa::parse(&[a, b].concat()).map(|sa| sa.chosen().is_some())
    };
    for (first, second) in [(1, 2), (1, 3), (2, 3), (254, 255)] {
        assert_eq!(two(first, second), Some(false), "{first}, {second}");
    }
    for (first, second) in [(0, 1), (1, 1), (2, 1), (255, 0)] {
        assert_eq!(two(first, second), None, "{first}, {second}");
    }
    for (spi, right) in [(255_u32, false), (256, true)] {
        let spi = spi.to_be_bytes();
        let content = [&[0, 0, 0, 20, 1, 3, 4, 1][..], &spi, &transform].concat();
        assert_eq!(Sa::parse(&content).is_some(), right, "{spi:?}");
    }
}

#[test]
fn attributes_of_transforms_are_understood_or_mean_no() {
    let parse = |attributes: &[u8]| {
        let len = u8::try_from(attributes.len()).unwrap();
        let head = [0, 0, 0, 16 + len, 1, 1, 0, 1, 0, 0, 0, 8 + len, 1, 0, 0, 20];
        let content = [&head[..], attributes].concat();
        let transform = Sa::parse(&content)?.proposals().next()?.transforms.next()?;
        Some((transform.key_bits, transform.unknown_attribute))
    };
    assert_eq!(parse(&[]), Some((None, false)));
    assert_eq!(parse(&[0x80, 14, 1, 0]), Some((Some(256), false)));
    assert_eq!(parse(&[0x80, 15, 1, 0]), Some((None, true)));
    assert_eq!(parse(&[0, 15, 0, 1, 7, 0x80, 14, 0, 128]), Some((Some(128), true)));
    assert_eq!(parse(&[0, 14, 0, 2, 1, 0]), None, "a key length is short");
    assert_eq!(parse(&[0x80, 14, 1, 0, 0x80, 14, 1, 0]), None, "and there once");
    assert_eq!(parse(&[0, 15, 0, 2, 7]), None);
    assert_eq!(parse(&[0x80, 15, 1]), None);
}

#[test]
fn selectors_that_break_a_rule_are_refused() {
    let selector = [7, 0, 0, 16, 0, 0, 0xff, 0xff, 10, 0, 0, 0, 10, 0, 0, 255];
    let parse = |count: u8, selectors: &[u8]| {
        TrafficSelectors::parse(&[&[count, 0, 0, 0], selectors].concat()).map(Iterator::count)
    };
    assert_eq!(parse(1, &selector), Some(1));
    assert_eq!(parse(2, &[selector, selector].concat()), Some(2));
    for (count, selectors) in [(0, &selector[..]), (2, &selector), (1, &selector[..15]), (0, &[])] {
        assert_eq!(parse(count, selectors), None);
    }
    assert_eq!(parse(1, &[selector, selector].concat()), None);
    let with = |edits: &[(usize, u8)]| {
        let mut bytes = selector;
        edits.iter().for_each(|(at, byte)| bytes[*at] = *byte);
        parse(1, &bytes)
    };
    assert_eq!(with(&[(12, 9)]), None, "the last address before the first");
    assert_eq!(with(&[(5, 9), (6, 0), (7, 8)]), None, "the last port before the first");
    assert_eq!(with(&[(4, 255), (5, 255), (6, 0), (7, 0)]), Some(1), "OPAQUE");
    assert_eq!(with(&[(0, 8)]), None, "IPv6 of four bytes");
    assert_eq!(with(&[(0, 9)]), Some(0), "a type that we do not know is left out");
}

/// The fragments of a message, sealed and opened again.
fn with_fragments(len: usize, max_len: usize, mut each: impl FnMut(&Fragment<'_>)) {
    let (key, salt) = key();
    let mut buffer = std::vec![0; 4000];
    let data = std::vec![9; len];
    let unsealed = Unsealed::write(&mut buffer, &HEADER, |writer| writer.vendor(&data)).unwrap();
    let sealed = unsealed.seal_fragments(max_len, &key, &salt, 1).unwrap();
    for bytes in sealed.chunks_mut(max_len) {
        match Sealed::parse(bytes).unwrap().open(&key, &salt).unwrap() {
            Opened::Fragment(fragment) => each(&fragment),
            Opened::Message(message) => panic!("{message:?}"),
        }
    }
}

#[test]
fn more_and_smaller_fragments_take_the_place_of_fewer() {
    let mut storage = [0; 204];
    let mut reassembly = Reassembly::new((&mut storage[..]).into());
    let mut states = Vec::new();
    let mut add = |fragment: &Fragment<'_>| {
        states.push(match reassembly.add(fragment).unwrap() {
            Reassembled::Incomplete => 'i',
            Reassembled::Duplicate => 'd',
            Reassembled::Outdated => 'o',
            Reassembled::Message(_) => 'm',
        });
    };
    let mut first = true;
    with_fragments(200, skf::OVERHEAD + 150, |fragment| {
        if std::mem::take(&mut first) {
            add(fragment)
        }
    });
    first = true;
    with_fragments(200, skf::OVERHEAD + 80, |fragment| {
        if std::mem::take(&mut first) {
            add(fragment)
        }
    });
    with_fragments(200, skf::OVERHEAD + 150, &mut add);
    with_fragments(200, skf::OVERHEAD + 80, &mut add);
    with_fragments(200, skf::OVERHEAD + 80, &mut add);
    assert_eq!(states, ['i', 'i', 'o', 'o', 'd', 'i', 'm', 'd', 'd', 'd']);
}

#[test]
fn what_does_not_fit_the_storage_is_forgotten() {
    let mut storage = [0; 203];
    let mut reassembly = Reassembly::new((&mut storage[..]).into());
    let mut results = Vec::new();
    with_fragments(200, skf::OVERHEAD + 102, |fragment| {
        results.push(reassembly.add(fragment).err());
        assert!(!reassembly.has(&HEADER, fragment.position()) || results.len() == 1);
    });
    assert_eq!(results, [None, Some(ReassemblyError::TooBig)]);
}

#[test]
fn no_more_fragments_than_are_put_together() {
    let (key, salt) = key();
    let fragments = |room: usize, max_len: usize| {
        let mut buffer = std::vec![0; room];
        let unsealed = Unsealed::write(&mut buffer, &HEADER, |writer| writer.vendor(&[0; 60]));
        let sealed = unsealed.unwrap().seal_fragments(max_len, &key, &salt, 1)?;
        Ok(sealed.chunks(max_len).len())
    };
    assert_eq!(fragments(4000, skf::OVERHEAD), Err(NoRoom));
    assert_eq!(fragments(8000, skf::OVERHEAD + 1), Err(NoRoom), "64 of them");
    assert_eq!(fragments(4000, skf::OVERHEAD + 2), Ok(skf::MAX_FRAGMENTS.into()));
    let all = 32 * (skf::OVERHEAD + 2);
    assert_eq!(fragments(all, skf::OVERHEAD + 2), Ok(skf::MAX_FRAGMENTS.into()));
    assert_eq!(fragments(all - 1, skf::OVERHEAD + 2), Err(NoRoom), "the buffer is too short");
}

#[test]
fn padding_is_taken_off_and_has_to_fit() {
    let (key, salt) = key();
    let padded = |pad: &[u8]| {
        let mut buffer = [0; 200];
        // As if padding and its length were payloads; our own pad length is the last pad byte's.
        let unsealed = Unsealed::write(&mut buffer, &HEADER, |writer| {
            writer.notify(&Notify::new(NotifyType::INITIAL_CONTACT, &[]))
        });
        let unsealed = unsealed.unwrap();
        let mut bytes = unsealed.seal(&key, &salt, 3).unwrap().to_vec();
        bytes.truncate(28 + 12 + 8);
        bytes.splice(40.., [0, 0, 0, 8, 0, 0, 0x40, 0].into_iter().chain(pad.iter().copied()));
        bytes.extend([0; 16]);
        let bytes = super::sk::seal(&mut bytes, 32, &key, &salt, 4).unwrap();
        match Sealed::parse(bytes).unwrap().open(&key, &salt) {
            Ok(Opened::Message(message)) => Ok(message.payloads().count()),
            Ok(Opened::Fragment(_)) => panic!(),
            Err(error) => Err(error),
        }
    };
    assert_eq!(padded(&[0]), Ok(1));
    assert_eq!(padded(&[7, 7, 7, 3]), Ok(1));
    let malformed = |error| Err(OpenError::Malformed(error));
    assert_eq!(padded(&[10]), malformed(Malformed::Content(PayloadType::SK)));
    assert_eq!(padded(&[8]), malformed(Malformed::Length), "all of it is padding");
    assert_eq!(padded(&[7, 0]), malformed(Malformed::Length));
}
