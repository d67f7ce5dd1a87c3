//! IKE_SA_INIT, IKE_AUTH and INFORMATIONAL between two endpoints: how connections come about, how
//! they do not, and how they end.
#![allow(clippy::unwrap_used, clippy::panic)] // a test that cannot go on has failed

mod ike_pair;

use std::net::SocketAddr;
use std::time::Duration;

use ike_pair::*;
use simplevpn_core::Path;
use simplevpn_core::crypto::Cipher;
use simplevpn_core::crypto::dh::Group;
use simplevpn_core::crypto::sign::PrivateKey;
use simplevpn_core::ike::wire::notify::Notify;
use simplevpn_core::ike::wire::numbers::{ExchangeType, NotifyType};
use simplevpn_core::ike::wire::{Header, Message, message};
use simplevpn_core::ike::{Encap, IkeEvent, IkeSa, Phase, Reason};

const SECOND: Duration = Duration::from_secs(1);

fn udp(local: &str, remote: &str) -> Option<Path> {
    let [local, remote] = [local, remote].map(|address| address.parse::<SocketAddr>().unwrap());
    Some(Path::Udp { local, remote })
}

fn esp(local: &str, remote: &str) -> Option<Path> {
    let [local, remote] = [local, remote].map(|address| address.parse().unwrap());
    Some(Path::Esp { local, remote })
}

fn exchange(datagram: &Datagram) -> ExchangeType {
    Header::parse(&datagram.bytes).unwrap().exchange
}

#[test]
fn a_preshared_key_connects() {
    let mut pair = Pair::psk();
    pair.connect();
    assert_eq!(pair.sent.len(), 4, "two round trips");
    let status = pair.alice.status();
    assert_eq!((status.phase, status.initiator, status.ours), (Phase::Up, true, true));
    let suite = status.suite.unwrap();
    assert_eq!((suite.cipher, suite.group), (Cipher::ChaCha20Poly1305, Group::Curve25519));
    assert_eq!(pair.bob.status().suite, Some(suite));
    assert!(pair.alice.sad.outbound.as_ref().unwrap().esn);
}

#[test]
fn public_keys_connect() {
    let mut pair = Pair::keys();
    pair.connect();
    assert_eq!(pair.sent.len(), 4, "two round trips");
}

#[test]
fn one_slot_is_small() {
    let size = size_of::<IkeSa>();
    println!("an IKE SA with its child takes {size} bytes");
    assert!(size <= 8192, "{size}");
}

#[test]
fn a_wrong_preshared_key_has_its_reason_at_both_ends() {
    let mut pair = Pair::psk();
    pair.bob.pad.auth = Auth::Psk(vec![9; 32]);
    pair.initiate();
    pair.settle();
    assert_eq!(pair.failed(), Some(Reason::TheyRefuseOurKey));
    assert_eq!(pair.refused(), Some((Some(PEER), Reason::WrongKey)));
    pair.assert_nothing_installed();
    assert!(pair.alice.ike.status(PEER).is_none());
}

#[test]
fn a_wrong_public_key_has_its_reason_at_both_ends() {
    let other = || PrivateKey::from_seed(&[3; 32]);
    let mut pair = Pair::keys();
    pair.alice.pad.auth = Auth::Keys(Box::new((other(), other().public_key())));
    pair.initiate();
    pair.settle();
    assert_eq!(pair.failed(), Some(Reason::TheyRefuseOurKey));
    assert_eq!(pair.refused(), Some((Some(PEER), Reason::WrongKey)));

    // Now the initiator is the one that refuses, and tells so.
    let mut pair = Pair::keys();
    let Auth::Keys(keys) = &mut pair.alice.pad.auth else { panic!() };
    keys.1 = other().public_key();
    pair.initiate();
    pair.settle();
    assert_eq!(pair.failed(), Some(Reason::WrongKey));
    let down = IkeEvent::Down(PEER, Reason::TheyRefuseOurKey);
    assert!(pair.bob.events.contains(&down), "{:?}", pair.bob.events);
    pair.assert_nothing_installed();
}

#[test]
fn another_method_than_the_configured_one_is_refused() {
    let mut pair = Pair::keys();
    pair.alice.pad.auth = Auth::Psk(vec![9; 32]);
    pair.initiate();
    pair.settle();
    assert_eq!(pair.refused(), Some((Some(PEER), Reason::WrongMethod)));
    pair.assert_nothing_installed();
}

#[test]
fn only_configured_identities_connect() {
    let mut pair = Pair::psk();
    pair.alice.pad.local_id = Some("mallory.test".parse().unwrap());
    pair.initiate();
    pair.settle();
    assert_eq!(pair.refused(), Some((None, Reason::UnknownPeer)));
    assert_eq!(pair.failed(), Some(Reason::TheyRefuseOurKey));

    let mut pair = Pair::psk();
    pair.bob.pad.local_id = Some("mallory.test".parse().unwrap());
    pair.initiate();
    pair.settle();
    assert_eq!(pair.failed(), Some(Reason::WrongIdentity));
    pair.assert_nothing_installed();
}

#[test]
fn without_an_identity_the_address_is_one() {
    let mut pair = Pair::psk();
    pair.alice.pad.local_id = None;
    pair.bob.pad.remote_id = "192.0.2.1".parse().unwrap();
    pair.connect();
}

#[test]
fn algorithms_are_chosen_by_the_responder() {
    let mut pair = Pair::psk();
    let ours = &mut pair.bob.ike.settings_mut().preferences;
    ours.ciphers.retain(|cipher| *cipher == Cipher::Aes128Gcm16);
    pair.connect();
    let status = pair.alice.status();
    assert_eq!(status.suite.unwrap().cipher, Cipher::Aes128Gcm16);
    assert_eq!(status.child.unwrap().cipher, Cipher::Aes128Gcm16);
}

#[test]
fn nothing_in_common_is_said_and_remembered() {
    let mut pair = Pair::psk();
    pair.bob.ike.settings_mut().preferences.ciphers.retain(|it| *it == Cipher::Aes128Gcm16);
    pair.alice.ike.settings_mut().preferences.ciphers.retain(|it| *it != Cipher::Aes128Gcm16);
    pair.initiate();
    pair.settle();
    assert_eq!(pair.refused(), Some((None, Reason::NoCommonProposal)));
    assert_eq!(pair.failed(), None, "a stranger may have said so");
    pair.advance(SECOND * 6);
    assert_eq!(pair.failed(), Some(Reason::ProposalRefused));
}

#[test]
fn another_group_is_asked_for_and_sent() {
    let mut pair = Pair::psk();
    pair.bob.ike.settings_mut().preferences.groups.retain(|group| *group == Group::P256);
    pair.connect();
    assert_eq!(pair.sent.len(), 6, "one round trip more");
    assert_eq!(pair.alice.status().suite.unwrap().group, Group::P256);
}

#[test]
fn cookies_are_asked_for_when_many_are_half_open() {
    let mut pair = Pair::psk();
    pair.bob.ike.settings_mut().cookie_threshold = 0;
    pair.connect();
    assert_eq!(pair.sent.len(), 6, "one round trip more");
    let message = Message::parse(&pair.sent[2].bytes).unwrap();
    let cookie = message.notification(NotifyType::COOKIE).unwrap();
    assert_eq!(
        message.payloads().next(),
        Some(simplevpn_core::ike::wire::payload::Payload::Notify(cookie))
    );
}

#[test]
fn a_cookie_and_another_group_in_a_row_lead_on() {
    for mut pair in [Pair::psk(), Pair::keys()] {
        let settings = pair.bob.ike.settings_mut();
        settings.cookie_threshold = 0;
        settings.preferences.groups.retain(|group| *group == Group::P256);
        pair.connect();
        assert_eq!(pair.sent.len(), 8, "two round trips more");
    }
}

#[test]
fn selectors_are_narrowed_to_what_both_have() {
    let mut pair = Pair::psk();
    pair.alice.pad.local = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/16".parse().unwrap()];
    pair.alice.pad.remote = vec![];
    pair.connect();
    let sa = pair.alice.sad.outbound.as_ref().unwrap();
    let range =
        |first: &str, last: &str| [first, last].map(|it| it.parse::<std::net::IpAddr>().unwrap());
    assert_eq!(sa.local, [range("10.1.0.0", "10.1.255.255")]);
    assert_eq!(sa.remote, [range("10.2.0.0", "10.2.255.255")]);
}

#[test]
fn a_child_that_fails_leaves_the_ike_sa_up() {
    let mut pair = Pair::psk();
    pair.alice.pad.remote = vec!["10.99.0.0/16".parse().unwrap()];
    pair.initiate();
    pair.settle();
    let status = pair.alice.status();
    assert_eq!((status.phase, status.child), (Phase::Up, None));
    assert_eq!(status.child_reason, Some(Reason::SelectorsRefused));
    assert_eq!(pair.failed(), Some(Reason::SelectorsRefused));
    assert_eq!(pair.bob.status().child_reason, Some(Reason::NoCommonSelectors));
    pair.assert_nothing_installed();
}

#[test]
fn lost_messages_are_sent_again_as_they_were() {
    for lost in 0..4 {
        let mut pair = Pair::psk();
        pair.initiate();
        let mut count = 0;
        pair.advance_with(SECOND * 3, |_, _| {
            count += 1;
            count - 1 != lost
        });
        pair.assert_up();
        let sent = |at: usize| &pair.sent[at].bytes;
        let again = (0..pair.sent.len()).filter(|at| sent(*at) == sent(lost)).count();
        assert_eq!(again, 2, "message {lost}");
    }
}

#[test]
fn every_message_may_come_twice() {
    let mut pair = Pair::keys();
    pair.initiate();
    let mut again = Vec::new();
    while let Some(datagram) = pair.wire.pop_front() {
        again.push(datagram.clone());
        pair.deliver(datagram.clone());
        pair.deliver(datagram);
    }
    pair.assert_up();
    // And much later once more, one after the other.
    let events = (pair.alice.events.len(), pair.bob.events.len());
    again.into_iter().for_each(|datagram| pair.deliver(datagram));
    pair.settle();
    pair.assert_up();
    assert_eq!((pair.alice.events.len(), pair.bob.events.len()), events);
}

#[test]
fn nobody_answers() {
    let mut pair = Pair::psk();
    pair.initiate();
    pair.advance_with(SECOND * 30, |_, _| false);
    assert_eq!(pair.failed(), None);
    assert_eq!(pair.sent.len(), 5);
    pair.advance_with(SECOND * 2, |_, _| false);
    assert_eq!(pair.failed(), Some(Reason::NoAnswer));
    assert_eq!(pair.alice.ike.poll_timeout(), None);
}

#[test]
fn what_strangers_say_in_the_clear_ends_nothing() {
    for notify in [
        NotifyType::NO_PROPOSAL_CHOSEN,
        NotifyType::INVALID_SYNTAX,
        NotifyType::AUTHENTICATION_FAILED,
        NotifyType::INVALID_MAJOR_VERSION,
    ] {
        let mut pair = Pair::psk();
        pair.initiate();
        let request = pair.wire.front().unwrap().clone();
        let header = Header {
            response: true,
            from_initiator: false,
            ..Header::parse(&request.bytes).unwrap()
        };
        let mut buffer = [0; 100];
        let forged =
            message::write(&mut buffer, &header, |writer| writer.notify(&Notify::new(notify, &[])));
        let bytes = forged.unwrap().to_vec();
        pair.deliver(Datagram { from: request.to, to: request.from, natt: false, bytes });
        pair.settle();
        pair.assert_up();
        assert_eq!(pair.failed(), None);
    }
}

#[test]
fn a_connection_lives_while_the_peer_answers() {
    let mut pair = Pair::psk();
    pair.connect();
    pair.advance(SECOND * 300);
    pair.assert_up();
    let asked = pair.sent.iter().filter(|it| exchange(it) == ExchangeType::INFORMATIONAL);
    assert!((10..50).contains(&asked.count()));
}

#[test]
fn esp_is_a_sign_of_life() {
    let mut pair = Pair::psk();
    pair.connect();
    for _ in 0..10 {
        pair.alice.sad.last_inbound = Some(pair.now);
        pair.bob.sad.last_inbound = Some(pair.now);
        pair.advance(SECOND * 20);
    }
    assert_eq!(pair.sent.len(), 4, "nobody has to ask");
}

#[test]
fn a_dead_peer_is_noticed() {
    let mut pair = Pair::psk();
    pair.connect();
    pair.advance_with(SECOND * 70, |_, _| false);
    for end in [&pair.alice, &pair.bob] {
        assert!(end.events.contains(&IkeEvent::Down(PEER, Reason::NoAnswer)));
    }
    pair.assert_nothing_installed();
    assert!(pair.alice.ike.status(PEER).is_none());
}

#[test]
fn either_end_closes() {
    for by_alice in [true, false] {
        let mut pair = Pair::psk();
        pair.connect();
        let now = pair.now;
        let end = if by_alice { &mut pair.alice } else { &mut pair.bob };
        end.call(|ike, cx| ike.terminate(now, cx, PEER));
        pair.settle();
        let (ours, theirs) =
            if by_alice { (&pair.alice, &pair.bob) } else { (&pair.bob, &pair.alice) };
        assert_eq!(ours.events.last(), Some(&IkeEvent::Down(PEER, Reason::Closed)));
        assert_eq!(theirs.events.last(), Some(&IkeEvent::Down(PEER, Reason::PeerClosed)));
        pair.assert_nothing_installed();
        assert!(pair.alice.ike.status(PEER).is_none() || !by_alice);
    }
}

#[test]
fn both_close_at_once() {
    let mut pair = Pair::psk();
    pair.connect();
    let now = pair.now;
    for end in [&mut pair.alice, &mut pair.bob] {
        end.call(|ike, cx| ike.terminate(now, cx, PEER));
    }
    pair.settle();
    pair.assert_nothing_installed();
    pair.advance(SECOND * 100);
    assert_eq!(pair.alice.ike.status(PEER), None);
    assert_eq!(pair.bob.ike.status(PEER), None);
}

#[test]
fn a_restarted_initiator_takes_the_place_of_what_it_was() {
    for wait in [1, 100] {
        let mut pair = Pair::keys();
        pair.connect();
        pair.advance(SECOND * wait);
        pair.alice.restart();
        pair.initiate();
        pair.settle();
        pair.advance(SECOND * 30);
        pair.assert_up();
        assert!(!pair.bob.events.iter().any(|event| matches!(event, IkeEvent::Down(..))));
    }
}

#[test]
fn a_restarted_responder_is_reached_again() {
    let mut pair = Pair::keys();
    pair.connect();
    pair.bob.restart();
    pair.advance(SECOND * 70);
    assert_eq!(pair.alice.events.last(), Some(&IkeEvent::Down(PEER, Reason::NoAnswer)));
    pair.connect();
}

#[test]
fn both_connect_at_once() {
    // Which one wins depends on chance, and so does who is how far.
    for seed in 0..30 {
        for delay in 0..6 {
            let mut pair = Pair::psk();
            (pair.alice.rng.0, pair.bob.rng.0) = (seed, seed + 1000);
            pair.initiate();
            for _ in 0..delay {
                if let Some(datagram) = pair.wire.pop_front() {
                    pair.deliver(datagram);
                }
            }
            pair.initiate_from_bob();
            pair.settle();
            pair.advance(SECOND * 5);
            pair.assert_up();
            pair.advance(SECOND * 120);
            pair.assert_up();
        }
    }
}

#[test]
fn two_of_ours_take_udp_for_esp() {
    let mut pair = Pair::psk();
    pair.connect();
    assert_eq!(pair.alice.sad.path, udp("192.0.2.1:4500", "198.51.100.1:4500"));
    assert_eq!(pair.bob.sad.path, udp("198.51.100.1:4500", "192.0.2.1:4500"));
    assert!(pair.sent[2].natt && pair.sent[3].natt);
}

#[test]
fn esp_goes_raw_if_told_to() {
    let mut pair = Pair::psk();
    pair.alice.pad.encap = Encap::Esp;
    pair.connect();
    assert_eq!(pair.alice.sad.path, esp("192.0.2.1", "198.51.100.1"));
    assert_eq!(pair.bob.sad.path, esp("198.51.100.1", "192.0.2.1"));
}

#[test]
fn a_nat_is_found_and_passed() {
    let mut pair = Pair::keys();
    pair.nat = Some("203.0.113.9".parse().unwrap());
    pair.nat_port_offset = 10_000;
    pair.connect();
    let [alice, bob] = [pair.alice.status(), pair.bob.status()];
    assert_eq!((alice.local_nat, alice.remote_nat), (true, false));
    assert_eq!((bob.local_nat, bob.remote_nat), (false, true));
    assert_eq!(pair.alice.sad.path, udp("192.0.2.1:4500", "198.51.100.1:4500"));
    assert_eq!(pair.bob.sad.path, udp("198.51.100.1:4500", "203.0.113.9:14500"));
}

#[test]
fn a_nat_is_pretended_where_udp_is_wanted() {
    for at_alice in [true, false] {
        let mut pair = Pair::psk();
        let end = if at_alice { &mut pair.alice } else { &mut pair.bob };
        end.pad.encap = Encap::Udp;
        pair.connect();
        let [alice, bob] = [pair.alice.status(), pair.bob.status()];
        assert_eq!((bob.remote_nat, alice.remote_nat), (at_alice, !at_alice));
        assert!(matches!(pair.bob.sad.path, Some(Path::Udp { .. })));
    }
}

#[test]
fn mobike_takes_the_connection_along() {
    let mut pair = Pair::keys();
    pair.connect();
    assert!(pair.alice.status().mobike && pair.bob.status().mobike);
    let keys = pair.bob.sad.outbound.clone();

    pair.alice.address = "192.0.2.77".parse().unwrap();
    let (target, now) = (pair.target(true), pair.now);
    let moved = pair.alice.call(|ike, cx| ike.address_changed(now, cx, PEER, &target));
    assert!(moved);
    pair.settle();
    assert_eq!(pair.bob.sad.path, udp("198.51.100.1:4500", "192.0.2.77:4500"));
    assert_eq!(pair.alice.sad.path, udp("192.0.2.77:4500", "198.51.100.1:4500"));
    assert_eq!(pair.bob.sad.outbound, keys, "the same SAs");
    pair.advance(SECOND * 200);
    pair.assert_up();
}

#[test]
fn an_address_that_changes_with_a_request_on_the_way_is_told_after_its_answer() {
    let mut pair = Pair::keys();
    pair.connect();
    let now = pair.now;
    pair.alice.call(|ike, cx| ike.probe(now, cx, PEER));
    pair.collect();
    pair.wire.clear();
    pair.alice.address = "192.0.2.77".parse().unwrap();
    let target = pair.target(true);
    assert!(pair.alice.call(|ike, cx| ike.address_changed(now, cx, PEER, &target)));
    pair.settle();
    assert_eq!(pair.bob.sad.path, udp("198.51.100.1:4500", "192.0.2.77:4500"));
}

#[test]
fn another_mapping_of_the_nat_is_noticed_and_told() {
    let mut pair = Pair::keys();
    pair.nat = Some("203.0.113.9".parse().unwrap());
    pair.connect();
    pair.advance(SECOND * 40);
    pair.nat_port_offset = 7;
    pair.advance(SECOND * 40);
    assert_eq!(pair.bob.sad.path, udp("198.51.100.1:4500", "203.0.113.9:4507"));
    pair.assert_up();
}

fn with_ppk(required: [bool; 2]) -> Pair {
    let mut pair = Pair::keys();
    for (end, required) in [&mut pair.alice, &mut pair.bob].into_iter().zip(required) {
        end.pad.ppk = Some((b"ppk".to_vec(), vec![5; 32], required));
    }
    pair
}

#[test]
fn a_ppk_that_both_have_is_used() {
    for required in [[true, true], [false, false], [true, false], [false, true]] {
        let mut pair = with_ppk(required);
        pair.connect();
        assert!(pair.alice.status().ppk && pair.bob.status().ppk);
        let mut without = Pair::keys();
        without.connect();
        assert!(!without.alice.status().ppk);
        assert_ne!(without.alice.sad.outbound, pair.alice.sad.outbound);
    }
}

#[test]
fn without_a_common_ppk_there_is_a_connection_only_if_none_is_required() {
    // Bob has none, or one of another name.
    for other_name in [false, true] {
        for (required, connects) in [(false, true), (true, false)] {
            let mut pair = with_ppk([required, false]);
            match &mut pair.bob.pad.ppk {
                Some((name, ..)) if other_name => *name = b"other".to_vec(),
                ppk => *ppk = None,
            }
            pair.initiate();
            pair.settle();
            if connects {
                pair.assert_up();
                assert!(!pair.alice.status().ppk && !pair.bob.status().ppk);
            } else {
                pair.assert_nothing_installed();
                let expected = if other_name { Reason::TheyRefuseOurKey } else { Reason::NoPpk };
                assert_eq!(pair.failed(), Some(expected));
            }
        }
    }
    // Alice has none, and Bob insists.
    let mut pair = with_ppk([false, true]);
    pair.alice.pad.ppk = None;
    pair.initiate();
    pair.settle();
    assert_eq!(pair.refused(), Some((Some(PEER), Reason::NoPpk)));
    pair.assert_nothing_installed();
}

#[test]
fn a_wrong_ppk_of_the_right_name_is_refused() {
    for required in [false, true] {
        let mut pair = with_ppk([required, false]);
        pair.bob.pad.ppk = Some((b"ppk".to_vec(), vec![6; 32], false));
        pair.initiate();
        pair.settle();
        assert_eq!(pair.refused(), Some((Some(PEER), Reason::WrongKey)));
        pair.assert_nothing_installed();
    }
}

#[test]
fn a_road_warrior_gets_an_address() {
    let mut pair = Pair::keys();
    pair.alice.pad.request_address = true;
    pair.alice.pad.remote = vec![];
    let lease = ["10.77.0.5", "fd77::5"].map(|address| address.parse().unwrap());
    pair.bob.pad.lease = Some((lease.to_vec(), vec!["10.77.0.1".parse().unwrap()]));
    pair.bob.pad.remote = vec!["10.77.0.5/32".parse().unwrap(), "fd77::5/128".parse().unwrap()];
    pair.connect();
    let given = pair.alice.events.iter().find_map(|event| match event {
        IkeEvent::Address(PEER, given) => Some(given.clone()),
        _ => None,
    });
    let given = given.unwrap();
    assert_eq!(given.addresses[..], lease);
    assert_eq!(given.dns[..], ["10.77.0.1".parse::<std::net::IpAddr>().unwrap()]);
    let sa = pair.alice.sad.outbound.as_ref().unwrap();
    assert_eq!(sa.local, lease.map(|address| [address, address]));
}

#[test]
fn no_address_leaves_the_ike_sa_up() {
    let mut pair = Pair::keys();
    pair.alice.pad.request_address = true;
    pair.bob.pad.lease = Some((vec![], vec![]));
    pair.initiate();
    pair.settle();
    assert_eq!(pair.failed(), Some(Reason::NoAddress));
    assert_eq!(pair.alice.status().phase, Phase::Up);
    pair.assert_nothing_installed();

    // One that gives no addresses at all.
    pair = Pair::keys();
    pair.alice.pad.request_address = true;
    pair.initiate();
    pair.settle();
    assert_eq!(pair.failed(), Some(Reason::NoAddress));
    pair.assert_nothing_installed();
}
