//! What only somebody with the keys can send: fragments, and authentic nonsense. What everybody can
//! see from outside is in `tests/ike_exchanges.rs`.

use std::time::Duration;
use std::vec;
use std::vec::Vec;

use super::link::Payloads;
use super::reason::Reason;
use super::sa::IkeSa;
use super::status::{IkeEvent, Phase};
use super::wire::header::Header;
use super::wire::ke::Ke;
use super::wire::notify::Notify;
use super::wire::numbers::{ExchangeType, KeyExchangeMethod, NotifyType, PayloadType, Protocol};
use super::wire::sa::{Proposal, Spi, Transform};
use super::wire::sk::{Opened, Sealed, Unsealed};
use super::wire::{Malformed, Message};
use crate::crypto::AnyAead;

#[path = "../../tests/ike_pair/mod.rs"]
pub(crate) mod pair;

use pair::{Datagram, End, PEER, Pair};

mod disorder;
mod fragments;
mod prefixes;
mod renewals;
mod strangeness;

const SECOND: Duration = Duration::from_secs(1);

/// The IKE SA of an end.
pub(crate) fn sa(end: &End) -> &IkeSa {
    let at = end.ike.table.find_peer(PEER).unwrap();
    end.ike.table.get(at).unwrap()
}

/// The key, with its salt, that a message was encrypted with.
fn key(initiator: bool, sa: &IkeSa) -> (AnyAead, crate::crypto::Salt) {
    let keys = sa.link.keys.as_ref().unwrap();
    let key = if initiator { &keys.sk_ei } else { &keys.sk_er };
    (AnyAead::new(key.cipher(), key.key()).unwrap(), key.salt())
}

/// The same message in fragments of at most `max_len` bytes.
fn cut(datagram: &Datagram, sa: &IkeSa, max_len: usize) -> Vec<Datagram> {
    let mut bytes = datagram.bytes.clone();
    let sealed = Sealed::parse(&mut bytes).unwrap();
    let header = *sealed.header();
    let (key, salt) = key(header.from_initiator, sa);
    let Ok(Opened::Message(message)) = sealed.open(&key, &salt) else { panic!() };
    let mut buffer = vec![0; 2000];
    let unsealed = Unsealed::write(&mut buffer, &header, |writer| {
        message.payloads().try_for_each(|payload| pair::write_payload(writer, &payload))
    });
    let unsealed = unsealed.unwrap();
    let sealed = unsealed.seal_fragments(max_len, &key, &salt, 1000).unwrap();
    let fragments = sealed.chunks(max_len);
    fragments.map(|bytes| Datagram { bytes: bytes.to_vec(), ..datagram.clone() }).collect()
}

#[test]
fn fragments_of_the_peer_are_put_together() {
    let mut pair = Pair::keys();
    pair.initiate();
    for _ in 0..2 {
        let datagram = pair.wire.pop_front().unwrap();
        pair.deliver(datagram);
    }
    let request = pair.wire.pop_front().unwrap();
    let mut fragments = cut(&request, sa(&pair.alice), 130);
    assert!(fragments.len() > 2);
    fragments.reverse();
    for fragment in &fragments {
        pair.deliver(fragment.clone());
        // The first one, which comes last, would have the answer sent again.
        if pair.wire.is_empty() {
            pair.deliver(fragment.clone());
        }
    }
    assert_eq!(pair.wire.len(), 1, "one answer, and that once");
    let answer = pair.wire.pop_front().unwrap();
    for fragment in cut(&answer, sa(&pair.bob), 150) {
        pair.deliver(fragment);
    }
    pair.assert_up();

    // All of it once more, because the answer was lost: it is sent again, and nothing else happens.
    for fragment in fragments {
        pair.deliver(fragment);
    }
    assert_eq!(pair.wire.pop_front().unwrap().bytes, answer.bytes);
    assert!(pair.wire.is_empty());
    pair.assert_up();
}

/// Has Alice request something, authentic as it is.
fn request(pair: &mut Pair, exchange: ExchangeType, payloads: Payloads<'_>) {
    let now = pair.now;
    let at = pair.alice.ike.table.find_peer(PEER).unwrap();
    let mut payloads = Some(payloads);
    pair.alice.call(|ike, cx| {
        ike.table.with(at, now, cx, &mut |sa, env| {
            sa.link.request(env.now, exchange, payloads.take().unwrap()).unwrap();
            super::sa::Outcome::Keep
        });
    });
    pair.settle();
}

/// The errors in the last answer that Alice got.
fn answered(pair: &Pair) -> Vec<NotifyType> {
    let mut last = pair.sent.last().unwrap().bytes.clone();
    let header = Header::parse(&last).unwrap();
    assert!(header.response);
    let (key, salt) = key(false, sa(&pair.bob));
    let Ok(Opened::Message(message)) = Sealed::parse(&mut last).unwrap().open(&key, &salt) else {
        panic!()
    };
    message.notifications().map(|notify| notify.notify_type).collect()
}

#[test]
fn an_empty_request_is_a_sign_of_life() {
    let mut pair = Pair::psk();
    pair.connect();
    request(&mut pair, ExchangeType::INFORMATIONAL, &mut |_| Ok(()));
    assert_eq!(answered(&pair), []);
    pair.assert_up();
}

#[test]
fn authentic_nonsense_is_refused_and_ends_the_ike_sa() {
    let mut pair = Pair::psk();
    pair.connect();
    request(&mut pair, ExchangeType::INFORMATIONAL, &mut |writer| {
        writer.notify(&Notify::new(NotifyType::COOKIE2, &[1, 2, 3])) // too short
    });
    assert_eq!(answered(&pair), [NotifyType::INVALID_SYNTAX]);
    let malformed = Malformed::Content(PayloadType::NOTIFY);
    let down = IkeEvent::Down(PEER, Reason::Malformed(malformed));
    assert!(pair.bob.events.contains(&down), "{:?}", pair.bob.events);
}

#[test]
fn notifications_that_we_do_not_know_are_passed_over() {
    let mut pair = Pair::psk();
    pair.connect();
    for notify_type in [NotifyType(40_000), NotifyType(9000), NotifyType::INITIAL_CONTACT] {
        request(&mut pair, ExchangeType::INFORMATIONAL, &mut |writer| {
            writer.notify(&Notify::new(notify_type, &[1, 2, 3]))
        });
        assert_eq!(answered(&pair), []);
        pair.assert_up();
    }
}

#[test]
fn deletions_of_children_that_are_not_there_change_nothing() {
    let mut pair = Pair::psk();
    pair.connect();
    request(&mut pair, ExchangeType::INFORMATIONAL, &mut |writer| {
        writer.delete_esp(&[0x1000, 0x1001])
    });
    pair.assert_up();
}

#[test]
fn a_deleted_child_is_gone_and_the_ike_sa_stays() {
    let mut pair = Pair::psk();
    pair.connect();
    let spi = *pair.alice.sad.inbound.keys().next().unwrap();
    request(&mut pair, ExchangeType::INFORMATIONAL, &mut |writer| writer.delete_esp(&[spi]));
    assert!(pair.bob.sad.outbound.is_none());
    assert_eq!(pair.bob.status().phase, Phase::Up);
}

#[test]
fn a_replayed_request_from_elsewhere_moves_nobody() {
    let mut pair = Pair::keys();
    pair.nat = Some("203.0.113.9".parse().unwrap());
    pair.connect();
    pair.advance(SECOND * 40);
    let path = pair.bob.sad.path;
    let to_bob = pair.sent.iter().filter(|datagram| datagram.to.ip() == pair.bob.address);
    let replays: Vec<Datagram> = to_bob.cloned().collect();
    for mut replay in replays {
        replay.from = "203.0.113.66:4500".parse().unwrap();
        pair.deliver(replay);
        assert_eq!(pair.bob.sad.path, path);
        assert_eq!(pair.bob.status().path.remote, "203.0.113.9:4500".parse().unwrap());
    }
    pair.wire.clear();
    pair.advance(SECOND * 100);
    pair.assert_up();
}

#[test]
fn nothing_but_a_first_request_is_answered_to_strangers() {
    let mut pair = Pair::psk();
    pair.initiate();
    let first = pair.wire.pop_front().unwrap();
    assert!(Message::parse(&first.bytes).is_ok());
    // Byte by byte: next payload, version, exchange, flags, message id, length.
    for at in 8..28 {
        for bit in 0..8 {
            // A minor version and most of the flags mean nothing (RFC 7296 §3.1).
            if at == 17 && bit < 4 || at == 19 && bit != 3 && bit != 5 {
                continue;
            }
            let mut altered = first.clone();
            altered.bytes[at] ^= 1 << bit;
            pair.deliver(altered);
            assert!(pair.wire.is_empty(), "byte {at}, bit {bit}");
        }
    }
    assert_eq!(pair.bob.ike.table.strangers, 0);
    pair.deliver(first);
    assert_eq!(pair.bob.ike.table.strangers, 1);
}

#[test]
fn a_flood_of_strangers_keeps_nobody_out() {
    let mut pair = Pair::psk();
    let now = pair.now;
    // One source that returns its cookies, and many that do not.
    for number in 0..500_u64 {
        let mut stranger = Pair::psk();
        stranger.alice.rng.0 = number;
        stranger.alice.address = if number % 2 == 0 {
            "192.0.2.66".parse().unwrap()
        } else {
            std::net::Ipv4Addr::from(0x0b00_0000 + number as u32).into()
        };
        stranger.initiate();
        let first = stranger.wire.pop_front().unwrap();
        pair.deliver(first);
        let answer = pair.wire.pop_front();
        if let Some(answer) = answer
            && number % 2 == 0
        {
            stranger.now = now;
            stranger.deliver(answer);
            // Its next message, which is no IKE_AUTH unless there was no cookie.
            while let Some(next) = stranger.wire.pop_front() {
                if next.bytes[18] == ExchangeType::IKE_SA_INIT.0 {
                    pair.deliver(next);
                }
            }
        }
        pair.wire.clear();
        let limit = pair.bob.ike.settings_mut().half_open_limit;
        assert!(pair.bob.ike.table.strangers <= limit);
    }
    assert!(pair.bob.ike.table.strangers >= 16);
    pair.sent.clear();
    pair.connect();
    assert_eq!(pair.sent.len(), 6, "with a cookie");
    pair.advance(SECOND * 60);
    assert_eq!(pair.bob.ike.table.strangers, 0);
    pair.assert_up();
}

#[test]
fn without_mobike_a_peer_behind_a_nat_is_followed_and_no_other() {
    for nat in [true, false] {
        let mut pair = Pair::keys();
        pair.nat = nat.then(|| "203.0.113.9".parse().unwrap());
        pair.connect();
        let now = pair.now;
        for end in [&mut pair.alice, &mut pair.bob] {
            let at = end.ike.table.find_peer(PEER).unwrap();
            end.call(|ike, cx| {
                ike.table.with(at, now, cx, &mut |sa, _| {
                    sa.about.mobike = false;
                    super::sa::Outcome::Keep
                });
            });
        }
        let before = pair.bob.sad.path;
        pair.nat = Some("203.0.113.10".parse().unwrap());
        request(&mut pair, ExchangeType::INFORMATIONAL, &mut |_| Ok(()));
        assert_eq!(pair.bob.sad.path != before, nat);
    }
}

/// Strangers that Bob has not met begin so many IKE SAs, and go no further.
fn crowd(pair: &mut Pair, count: u64) {
    for number in 0..count {
        let mut stranger = Pair::psk();
        stranger.alice.rng.0 = 1000 + number;
        stranger.initiate();
        pair.deliver(stranger.wire.pop_front().unwrap());
        pair.wire.clear();
    }
}

#[test]
fn strangers_in_all_slots_make_room_for_a_call_of_ours() {
    let mut pair = Pair::psk();
    pair.bob.ike.settings_mut().cookie_threshold = 1000;
    crowd(&mut pair, 30);
    pair.initiate_from_bob();
    pair.settle();
    pair.assert_up();
}

#[test]
fn strangers_in_all_slots_make_room_for_new_keys() {
    let mut pair = Pair::psk();
    pair.connect();
    pair.bob.ike.settings_mut().cookie_threshold = 1000;
    crowd(&mut pair, 30);
    let (now, before) = (pair.now, sa(&pair.bob).link.spis);
    pair.alice.call(|ike, cx| ike.rekey(now, cx, PEER));
    pair.collect();
    pair.settle();
    assert_ne!(sa(&pair.bob).link.spis, before);
    pair.assert_up();
}

#[test]
fn refused_requests_for_new_keys_take_no_slots() {
    let mut pair = Pair::psk();
    pair.connect();
    let before = sa(&pair.bob).link.spis;
    for _ in 0..pair::SLOTS {
        request(&mut pair, ExchangeType::CREATE_CHILD_SA, &mut |writer| {
            let (transforms, spi) = ([Transform::prf()], Spi::Ike(77));
            writer.sa([Proposal { number: 1, protocol: Protocol::IKE, spi, transforms }])?;
            writer.nonce(&[7; 32])?;
            writer.ke(&Ke { method: KeyExchangeMethod::CURVE25519, data: &[9; 32] })
        });
        assert_eq!(answered(&pair), [NotifyType::NO_PROPOSAL_CHOSEN]);
    }
    let now = pair.now;
    pair.alice.call(|ike, cx| ike.rekey(now, cx, PEER));
    pair.collect();
    pair.settle();
    assert_ne!(sa(&pair.bob).link.spis, before);
    pair.assert_up();
}

/// What Bob would have answered to Alice's new address with this COOKIE2 in it.
fn answer_with(pair: &Pair, answer: &Datagram, cookie: Option<&[u8]>) -> Datagram {
    let (key, salt) = key(false, sa(&pair.bob));
    let header = Header::parse(&answer.bytes).unwrap();
    let mut buffer = vec![0; 200];
    let unsealed = Unsealed::write(&mut buffer, &header, |writer| match cookie {
        Some(cookie) => writer.notify(&Notify::new(NotifyType::COOKIE2, cookie)),
        None => Ok(()),
    });
    let bytes = unsealed.unwrap().seal(&key, &salt, 5000).unwrap().to_vec();
    Datagram { bytes, ..answer.clone() }
}

#[test]
fn an_address_that_was_confirmed_unseen_ends_the_ike_sa() {
    for cookie in [None, Some(&[7; 16][..]), Some(&[7; 15])] {
        let mut pair = Pair::keys();
        pair.connect();
        pair.alice.address = "192.0.2.77".parse().unwrap();
        let (now, target) = (pair.now, pair.target(true));
        assert!(pair.alice.call(|ike, cx| ike.address_changed(now, cx, PEER, &target)));
        pair.collect();
        let request = pair.wire.pop_front().unwrap();
        pair.deliver(request);
        let answer = pair.wire.pop_front().unwrap();
        let forged = answer_with(&pair, &answer, cookie);
        pair.deliver(forged);
        let down = IkeEvent::Down(PEER, Reason::NotRoutable);
        assert!(pair.alice.events.contains(&down), "{cookie:?}: {:?}", pair.alice.events);
        assert!(pair.alice.sad.outbound.is_none() && pair.alice.sad.inbound.is_empty());
        // The other end is told.
        pair.settle();
        assert!(pair.bob.sad.outbound.is_none(), "{cookie:?}");
    }
}

#[test]
fn new_keys_do_not_widen_what_a_leased_address_is_for() {
    let mut pair = Pair::keys();
    pair.alice.pad.request_address = true;
    let lease = "10.77.0.5".parse().unwrap();
    pair.bob.pad.lease = Some((vec![lease], vec![]));
    let all = ["10.77.0.5/32", "10.1.0.0/16"].map(|prefix| prefix.parse().unwrap()).to_vec();
    pair.bob.pad.remote = all.clone();
    pair.connect();
    let remote = |pair: &Pair| pair.bob.sad.outbound.as_ref().unwrap().remote.clone();
    assert_eq!(remote(&pair), [[lease; 2]]);
    // From now on Alice asks for all that Bob has configured for her.
    (pair.alice.pad.request_address, pair.alice.pad.local) = (false, all);
    for by_alice in [true, false, true] {
        let (now, before) = (pair.now, pair.bob.sad.outbound.as_ref().unwrap().spi);
        let end = if by_alice { &mut pair.alice } else { &mut pair.bob };
        end.call(|ike, cx| ike.rekey_child(now, cx, PEER));
        pair.advance(SECOND * 200);
        assert_ne!(pair.bob.sad.outbound.as_ref().unwrap().spi, before);
        assert_eq!(remote(&pair), [[lease; 2]]);
        // The lease is that of the next IKE SA as well.
        let now = pair.now;
        pair.alice.call(|ike, cx| ike.rekey(now, cx, PEER));
        pair.advance(SECOND * 10);
    }
    pair.assert_up();
}

/// Alice is somewhere else, and Bob has heard it from her; his answer is on the wire, and his
/// question whether it is true.
fn moved() -> Pair {
    let mut pair = Pair::keys();
    pair.connect();
    pair.alice.address = "192.0.2.77".parse().unwrap();
    let (now, target) = (pair.now, pair.target(true));
    assert!(pair.alice.call(|ike, cx| ike.address_changed(now, cx, PEER, &target)));
    pair.collect();
    let update = pair.wire.pop_front().unwrap();
    pair.deliver(update);
    assert_eq!(pair.wire.len(), 2);
    pair
}

#[test]
fn packets_go_to_a_new_address_when_the_peer_has_answered_from_there() {
    let mut pair = moved();
    let remote = |pair: &Pair| pair.bob.sad.path.unwrap().remote();
    assert_eq!(remote(&pair), "192.0.2.1".parse::<std::net::IpAddr>().unwrap());
    assert_eq!(pair.bob.status().path.remote.ip(), pair.alice.address);
    pair.settle();
    assert_eq!(remote(&pair), pair.alice.address);
    pair.assert_up();
}

#[test]
fn packets_never_go_to_an_address_where_nobody_answers() {
    let mut pair = moved();
    let before = pair.bob.sad.path;
    pair.wire.pop_back();
    // Alice says it twice; that is no proof either.
    let now = pair.now;
    let at = pair.alice.ike.table.find_peer(PEER).unwrap();
    pair.settle();
    pair.alice.call(|ike, cx| {
        ike.table.with(at, now, cx, &mut |sa, _| {
            sa.wants.add(super::want::Want::UpdateAddress);
            super::sa::Outcome::Keep
        });
    });
    let bob = pair.bob.address;
    pair.advance_with(SECOND * 40, |_, datagram| datagram.to.ip() == bob);
    assert_eq!(pair.bob.sad.path, before);
    let down = IkeEvent::Down(PEER, Reason::NoAnswer);
    assert!(pair.bob.events.contains(&down), "{:?}", pair.bob.events);
}

#[test]
fn an_address_that_was_proved_unseen_ends_the_ike_sa() {
    let mut pair = moved();
    let check = pair.wire.pop_back().unwrap();
    let before = pair.bob.sad.path;
    pair.settle();
    // Whoever has the keys answers without having seen the question.
    let (key, salt) = key(true, sa(&pair.alice));
    let mut header = Header::parse(&check.bytes).unwrap();
    (header.from_initiator, header.response) = (true, true);
    let mut buffer = vec![0; 200];
    let unsealed = Unsealed::write(&mut buffer, &header, |writer| {
        writer.notify(&Notify::new(NotifyType::COOKIE2, &[7; 16]))
    });
    let bytes = unsealed.unwrap().seal(&key, &salt, 5000).unwrap().to_vec();
    pair.deliver(Datagram { from: check.to, to: check.from, bytes, ..check });
    let down = IkeEvent::Down(PEER, Reason::NotRoutable);
    assert!(pair.bob.events.contains(&down), "{:?}", pair.bob.events);
    assert_eq!(pair.bob.sad.path, before);
}

#[test]
fn a_request_finds_a_peer_whose_nat_has_changed_its_mind() {
    let mut pair = Pair::keys();
    pair.nat = Some("203.0.113.9".parse().unwrap());
    pair.connect();
    // Packets tell at once; Alice, who hears answers to hers, tells nothing yet.
    pair.nat_port_offset = 7;
    let to = |port: u16| std::net::SocketAddr::new(pair.nat.unwrap(), port);
    let (local, before, after) = ("198.51.100.1:4500".parse().unwrap(), to(4500), to(4507));
    pair.bob.sad.heard = Some(crate::Path::Udp { local, remote: after });
    let (now, spi) = (pair.now, pair.bob.sad.outbound.as_ref().unwrap().spi);
    pair.bob.call(|ike, cx| ike.rekey_child(now, cx, PEER));
    let bob = pair.bob.address;
    pair.advance_with(SECOND * 3, |_, datagram| datagram.to.ip() == bob || datagram.to == after);
    assert_ne!(pair.bob.sad.outbound.as_ref().unwrap().spi, spi);
    // IKE itself has not moved.
    assert_eq!(pair.bob.status().path.remote, before);
}
