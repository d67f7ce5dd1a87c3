//! IKE messages as others made them: every one of two whole connections of strongSwan, and the
//! example of RFC 7634.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use simplevpn_core::crypto::dh::Group;
use simplevpn_core::crypto::{AnyAead, Cipher, Salt};
use simplevpn_core::ike::suite::{ChildSuite, IkeSuite, Pfs, Preferences};
use simplevpn_core::ike::wire::cp::CfgAttribute;
use simplevpn_core::ike::wire::notify::{Child, Notify};
use simplevpn_core::ike::wire::numbers::{
    AuthMethod, CfgType, ExchangeType, HashAlgorithm, IdType, NotifyType, Protocol,
};
use simplevpn_core::ike::wire::payload::Payload;
use simplevpn_core::ike::wire::sa::Spi;
use simplevpn_core::ike::wire::sk::{OpenError, Opened, Sealed, Unsealed};
use simplevpn_core::ike::wire::skf::{Reassembled, Reassembly};
use simplevpn_core::ike::wire::ts::{Addresses, Ports, TrafficSelector, TrafficSelectors};
use simplevpn_core::ike::wire::{HEADER_LEN, Header, Malformed, Message, NoRoom, PayloadWriter};

const PSK: &str = include_str!("ike/messages-psk.txt");
const ED25519: &str = include_str!("ike/messages-ed25519.txt");

fn hex(digits: &str) -> Vec<u8> {
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.as_bytes().chunks(2).map(byte).collect()
}

/// A key with its salt.
struct Key {
    aead: AnyAead,
    salt: Salt,
}

impl Key {
    fn new(cipher: &str, bytes: &[u8]) -> Key {
        let cipher = Cipher::ALL.into_iter().find(|known| known.name() == cipher).unwrap();
        let (key, salt) = bytes.split_last_chunk::<4>().unwrap();
        Key { aead: AnyAead::new(cipher, key).unwrap(), salt: Salt::new(*salt) }
    }
}

/// A datagram, and what decrypts it.
struct Captured {
    bytes: Vec<u8>,
    key: Key,
}

/// The datagrams of a connection.
fn connection(text: &str) -> Vec<Captured> {
    let mut values = Vec::<(&str, String)>::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.split_once(" = ") {
            Some((name, value)) => values.push((name, value.to_owned())),
            None => values.last_mut().unwrap().1.push_str(line.trim()),
        }
    }
    let (mut cipher, mut sk_ei, mut sk_er) = Default::default();
    let mut messages = Vec::new();
    for (name, value) in values {
        let key = match name {
            "cipher" => {
                cipher = value;
                continue;
            }
            "sk_ei" => {
                sk_ei = hex(&value);
                continue;
            }
            "sk_er" => {
                sk_er = hex(&value);
                continue;
            }
            "initiator" => &sk_ei,
            "responder" => &sk_er,
            other => panic!("{other}"),
        };
        messages.push(Captured { bytes: hex(&value), key: Key::new(&cipher, key) });
    }
    messages
}

/// Calls `check` with every message of a connection, opened and put together.
fn each_message(text: &str, mut check: impl FnMut(usize, &Message<'_>)) {
    let (mut requests, mut responses) = ([0; 2000], [0; 2000]);
    let mut requests = Reassembly::new((&mut requests[..]).into());
    let mut responses = Reassembly::new((&mut responses[..]).into());
    let mut count = 0;
    for mut captured in connection(text) {
        let header = Header::parse(&captured.bytes).unwrap();
        if header.exchange == ExchangeType::IKE_SA_INIT {
            check(count, &Message::parse(&captured.bytes).unwrap());
            count += 1;
            continue;
        }
        let sealed = Sealed::parse(&mut captured.bytes).unwrap();
        match sealed.open(&captured.key.aead, &captured.key.salt).unwrap() {
            Opened::Message(message) => {
                check(count, &message);
                count += 1;
            }
            Opened::Fragment(fragment) => {
                let reassembly = if header.response { &mut responses } else { &mut requests };
                match reassembly.add(&fragment).unwrap() {
                    Reassembled::Message(message) => {
                        check(count, &message);
                        count += 1;
                    }
                    other => assert!(matches!(other, Reassembled::Incomplete), "{other:?}"),
                }
            }
        }
    }
    assert_eq!(count, 14, "all exchanges of the connection");
}

/// Writes the payload again.
fn write(writer: &mut PayloadWriter<'_>, payload: &Payload<'_>) -> Result<(), NoRoom> {
    match payload {
        Payload::Sa(sa) => writer.sa(sa.proposals()),
        Payload::Ke(ke) => writer.ke(ke),
        Payload::IdInitiator(id) => writer.id_initiator(id),
        Payload::IdResponder(id) => writer.id_responder(id),
        Payload::Auth(auth) => writer.auth(auth),
        Payload::Nonce(nonce) => writer.nonce(nonce),
        Payload::Notify(notify) => writer.notify(notify),
        Payload::Delete(delete) if delete.protocol == Protocol::IKE => writer.delete_ike(),
        Payload::Delete(delete) => writer.delete_esp(&delete.spis().collect::<Vec<_>>()),
        Payload::Vendor(id) => writer.vendor(id),
        Payload::TsInitiator(selectors) => writer.ts_initiator(*selectors),
        Payload::TsResponder(selectors) => writer.ts_responder(*selectors),
        Payload::Configuration(cp) => writer.configuration(cp.cfg_type, cp.attributes()),
        Payload::Other(..) => panic!("{payload:?}"),
    }
}

#[test]
fn all_that_strongswan_sends_is_written_as_it_was_read() {
    for (text, fragments) in [(PSK, 0), (ED25519, 6)] {
        let (mut whole, mut parts) = (0, 0);
        for captured in connection(text) {
            let mut bytes = captured.bytes.clone();
            let mut buffer = [0; 2000];
            let header = Header::parse(&bytes).unwrap();
            if header.exchange == ExchangeType::IKE_SA_INIT {
                let message = Message::parse(&bytes).unwrap();
                let written = simplevpn_core::ike::wire::message::write(
                    &mut buffer,
                    message.header(),
                    |writer| message.payloads().try_for_each(|payload| write(writer, &payload)),
                );
                assert_eq!(written.unwrap(), bytes);
                whole += 1;
                continue;
            }
            let sealed = Sealed::parse(&mut bytes).unwrap();
            let Key { aead, salt } = &captured.key;
            match sealed.open(aead, salt).unwrap() {
                Opened::Message(message) => {
                    let unsealed = Unsealed::write(&mut buffer, message.header(), |writer| {
                        message.payloads().try_for_each(|payload| write(writer, &payload))
                    });
                    let iv = captured.bytes[HEADER_LEN + 4..].first_chunk().unwrap();
                    let iv = u64::from_be_bytes(*iv);
                    let written = unsealed.unwrap().seal(aead, salt, iv).unwrap();
                    assert_eq!(written, captured.bytes);
                    whole += 1;
                }
                Opened::Fragment(_) => parts += 1,
            }
        }
        assert_eq!((whole, parts), (14 - fragments / 2, fragments));
    }
}

/// The fragments of a message of strongSwan's are the same when we cut it.
#[test]
fn fragments_are_cut_as_strongswan_cuts_them() {
    let captured = connection(ED25519);
    let [first, second] = &captured[2..4] else { panic!() };
    let mut storage = [0; 1000];
    let mut reassembly = Reassembly::new((&mut storage[..]).into());
    let (mut first_bytes, mut second_bytes) = (first.bytes.clone(), second.bytes.clone());
    let Key { aead, salt } = &first.key;
    let Opened::Fragment(part) =
        Sealed::parse(&mut second_bytes).unwrap().open(aead, salt).unwrap()
    else {
        panic!()
    };
    assert!(matches!(reassembly.add(&part), Ok(Reassembled::Incomplete)), "the last one first");
    assert!(matches!(reassembly.add(&part), Ok(Reassembled::Duplicate)));
    let Opened::Fragment(part) = Sealed::parse(&mut first_bytes).unwrap().open(aead, salt).unwrap()
    else {
        panic!()
    };
    let Ok(Reassembled::Message(message)) = reassembly.add(&part) else { panic!() };

    // strongSwan's IVs do not follow each other as ours do.
    for (before, expected) in [(0, first), (1, second)] {
        let mut buffer = [0; 1000];
        let unsealed = Unsealed::write(&mut buffer, message.header(), |writer| {
            message.payloads().try_for_each(|payload| write(writer, &payload))
        });
        let iv = u64::from_be_bytes(*expected.bytes[HEADER_LEN + 8..].first_chunk().unwrap());
        let max_len = first.bytes.len();
        let sealed = unsealed.unwrap().seal_fragments(max_len, aead, salt, iv - before).unwrap();
        let fragments: Vec<&[u8]> = sealed.chunks(max_len).collect();
        assert_eq!(fragments.len(), 2);
        assert_eq!(fragments[before as usize], expected.bytes);
    }
}

#[test]
fn every_altered_bit_is_noticed() {
    for captured in connection(PSK).into_iter().skip(2).take(2) {
        for bit in 0..captured.bytes.len() * 8 {
            let mut altered = captured.bytes.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            if let Ok(sealed) = Sealed::parse(&mut altered) {
                let opened = sealed.open(&captured.key.aead, &captured.key.salt);
                assert_eq!(opened.err(), Some(OpenError::BadIcv), "bit {bit}");
            }
        }
    }
}

fn range(first: &str, last: &str) -> Addresses {
    Addresses::new(first.parse().unwrap(), last.parse().unwrap()).unwrap()
}

fn ours(fast_aes: bool) -> Preferences {
    Preferences::new(fast_aes)
}

#[test]
fn a_connection_with_a_preshared_key_means_what_strongswan_was_told() {
    let chacha20 = Cipher::ChaCha20Poly1305;
    let net = |third: u8| range(&format!("10.{third}.0.0"), &format!("10.{third}.255.255"));
    each_message(PSK, |number, message| match number {
        0 => {
            let sa = message.sa().unwrap();
            assert_eq!((sa.proposals().count(), sa.chosen().is_none()), (2, true));
            let suites = sa.proposals().map(|proposal| {
                assert_eq!((proposal.protocol, proposal.spi), (Protocol::IKE, Spi::None));
                proposal.offer().choose_ike(&ours(true), None).unwrap()
            });
            assert!(suites.eq([
                IkeSuite { cipher: chacha20, group: Group::Curve25519 },
                IkeSuite { cipher: Cipher::Aes128Gcm16, group: Group::P256 },
            ]));
            let ke = message.ke().unwrap();
            assert_eq!((ke.method.0, ke.data.len()), (31, 32));
            assert_eq!(message.nonce().unwrap().len(), 32);
            let source = message.notification(NotifyType::NAT_DETECTION_SOURCE_IP).unwrap();
            assert_eq!(source.data.len(), 20);
            let hashes = message.notification(NotifyType::SIGNATURE_HASH_ALGORITHMS).unwrap();
            assert!(hashes.hash_algorithms().any(|hash| hash == HashAlgorithm::IDENTITY));
            assert_eq!(
                message.auth(),
                Err(Malformed::Missing(simplevpn_core::ike::wire::numbers::PayloadType::AUTH))
            );
            assert_eq!(message.error(), None);
        }
        1 => {
            let chosen = message.sa().unwrap().chosen().unwrap();
            let suite = chosen.offer().chosen_ike(&ours(true));
            let expected = IkeSuite { cipher: chacha20, group: Group::Curve25519 };
            assert_eq!((chosen.number, suite), (1, Some(expected)));
        }
        2 => {
            let id = message.id_initiator().unwrap();
            assert_eq!((id.id_type, id.data), (IdType::ID_FQDN, &b"a.test"[..]));
            assert_eq!(id.header(), [2, 0, 0, 0]);
            assert_eq!(message.id_responder().unwrap().data, b"b.test");
            let auth = message.auth().unwrap();
            let method = AuthMethod::SHARED_KEY_MESSAGE_INTEGRITY_CODE;
            assert_eq!((auth.method, auth.data.len()), (method, 32));
            assert!(message.ts_initiator().unwrap().eq([TrafficSelector::all(net(1))]));
            assert!(message.ts_responder().unwrap().eq([TrafficSelector::all(net(2))]));
            assert!(message.notification(NotifyType::MOBIKE_SUPPORTED).is_some());
            assert!(matches!(message.sa().unwrap().proposals().next().unwrap().spi, Spi::Child(_)));
        }
        4 => {
            let rekeyed = message.notification(NotifyType::REKEY_SA).unwrap();
            let expected = Child { protocol: Protocol::ESP, spi: 0x9514_2072 };
            assert_eq!(rekeyed.child, Some(expected));
            assert_eq!(message.ke().unwrap().data.len(), 32);
        }
        5 => {
            let chosen = message.sa().unwrap().chosen().unwrap();
            let group = Some(Group::Curve25519);
            let expected = ChildSuite { cipher: chacha20, group, esn: false };
            assert_eq!(chosen.offer().chosen_child(&ours(true), Pfs::Required), Some(expected));
        }
        6 => {
            let deletion = message.deletions().next().unwrap();
            assert_eq!(deletion.protocol, Protocol::ESP);
            assert!(deletion.spis().eq([0x9514_2072]), "the one that strongSwan's log names");
        }
        8 => {
            let proposal = message.sa().unwrap().proposals().next().unwrap();
            assert!(matches!(proposal.spi, Spi::Ike(_)), "{proposal:?}");
        }
        10 | 12 => assert_eq!(message.deletions().next().unwrap().protocol, Protocol::IKE),
        11 | 13 => assert_eq!(message.payloads().count(), 0),
        _ => {}
    });
}

#[test]
fn a_connection_of_a_road_warrior_means_what_strongswan_was_told() {
    each_message(ED25519, |number, message| match number {
        2 => {
            let auth = message.auth().unwrap();
            assert_eq!((auth.method, auth.data.len()), (AuthMethod::DIGITAL_SIGNATURE, 72));
            let id = message.id_initiator().unwrap();
            assert_eq!((id.id_type, id.data.len()), (IdType::ID_KEY_ID, 20));
            let request = message.configuration().unwrap();
            assert_eq!(request.cfg_type, CfgType::CFG_REQUEST);
            let wanted = [CfgAttribute::Ip4Address(None), CfgAttribute::Ip6Address(None)];
            assert!(request.attributes().eq(wanted));
            let http = TrafficSelector {
                protocol: 6,
                ports: Ports::new(80, 80).unwrap(),
                addresses: range("10.2.0.0", "10.2.255.255"),
            };
            let v6 = range("fd02::", "fd02:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
            let expected = [http, TrafficSelector::all(v6)];
            assert!(message.ts_responder().unwrap().eq(expected));
        }
        3 => {
            let reply = message.configuration().unwrap();
            assert_eq!(reply.cfg_type, CfgType::CFG_REPLY);
            let given = [
                CfgAttribute::Ip4Address(Some("10.77.0.1".parse().unwrap())),
                CfgAttribute::Ip6Address(Some(("fd77::1".parse().unwrap(), 64))),
                CfgAttribute::Ip4Dns(Some("10.77.0.1".parse().unwrap())),
                CfgAttribute::Ip6Dns(Some("fd77::1".parse().unwrap())),
            ];
            let attributes: Vec<_> = reply.attributes().collect();
            assert_eq!(attributes, given);
            let first = |selectors: TrafficSelectors<'_>| {
                selectors.map(|selector| selector.addresses.first().to_string()).collect::<Vec<_>>()
            };
            assert_eq!(first(message.ts_initiator().unwrap()), ["10.77.0.1", "fd77::1"]);
        }
        _ => {}
    });
}

/// RFC 7634, Appendix B.
#[test]
fn the_example_of_rfc_7634() {
    let message = hex("c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e202500000000090000004529000029\
         101112131415161761039470 1f8d017f7c12924889 6b71bfe25236efd7cdc670\
         66906315b2"
        .replace(' ', "")
        .as_str());
    let key: Vec<u8> = (0x80..=0x9f).chain(0xa0..=0xa3).collect();
    let key = Key::new("chacha20poly1305", &key);
    let mut bytes = message.clone();
    let opened = Sealed::parse(&mut bytes).unwrap().open(&key.aead, &key.salt);
    let Ok(Opened::Message(opened)) = opened else { panic!("{opened:?}") };

    let header = *opened.header();
    assert_eq!((header.exchange, header.message_id), (ExchangeType::INFORMATIONAL, 9));
    assert_eq!(header.spis.initiator, 0xc0c1_c2c3_c4c5_c6c7);
    assert!(!header.response);
    let window = Notify::new(NotifyType::SET_WINDOW_SIZE, &[0, 0, 0, 10]);
    assert!(opened.payloads().eq([Payload::Notify(window)]));

    let mut buffer = [0; 100];
    let unsealed = Unsealed::write(&mut buffer, &header, |writer| writer.notify(&window)).unwrap();
    let sealed = unsealed.seal(&key.aead, &key.salt, 0x1011_1213_1415_1617).unwrap();
    assert_eq!(sealed, message);
}
