//! Several peers, and SAs that come and go.

use core::time::Duration;
use std::vec::Vec;

use super::fixture::*;
use crate::sad::SadError;
use crate::spd::SpdError;
use crate::wire::esp::{Header, NextHeader::Ipv4};
use crate::{Discard, Event, Offset, PacketBuf, Path, PeerId};

const BY_1: Offset = Offset::new(0x100, 0);
const BY_2: Offset = Offset::new(0x200, 0);

/// What comes from `id`, whatever its addresses.
fn from(tunnel: &mut Tunnel, id: PeerId, sequence: u64, inner: &[u8]) -> Result<Vec<u8>, Discard> {
    let esp = sealed(spis(id).0, sequence, inner, Ipv4);
    let (peer, packet) = opened(tunnel, &path(id), &esp)?;
    assert_eq!(peer, id);
    Ok(packet)
}

#[test]
fn sites_with_the_same_addresses_do_not_mix() {
    let mut tunnel = tunnel();
    add_peer(&mut tunnel, A, &["192.168.1.0/24"], &[], BY_1);
    add_peer(&mut tunnel, B, &["192.168.1.0/24"], &[], BY_2);
    for (id, host) in [(A, "192.168.2.7"), (B, "192.168.3.7")] {
        let inner = packet("192.168.1.7", "10.0.0.1", b"from the same address");
        let received = from(&mut tunnel, id, 1, &inner).unwrap();
        assert_eq!(source(&received), ip(host));

        let (result, outcome) = sent(&mut tunnel, &packet("10.0.0.1", host, b"answer"));
        assert_eq!(result, Ok(()));
        let (transmit, esp) = &outcome.wire[0];
        assert_eq!(transmit.path, path(id));
        assert_eq!(Header::parse(esp).unwrap().spi, spis(id).1);
    }
    let real = packet("10.0.0.1", "192.168.1.7", b"to nobody");
    assert_eq!(sent(&mut tunnel, &real).0, Err(Discard::NoPolicy));
}

#[test]
fn nobody_can_use_the_addresses_of_another() {
    let mut tunnel = tunnel();
    add_peer(&mut tunnel, A, &["192.168.1.0/24"], &[], Offset::default());
    add_peer(&mut tunnel, B, &["192.168.1.0/24"], &[], BY_1);
    // In host space A is 192.168.1.0/24 and B is 192.168.2.0/24.
    let claims = [
        (A, "192.168.2.7", Err(Discard::OutsideSelector)), // B's, in host space
        (A, "192.168.1.7", Ok(ip("192.168.1.7"))),
        (B, "192.168.0.7", Err(Discard::OutsideSelector)), // A's, once shifted
        (B, "192.168.2.7", Err(Discard::OutsideSelector)),
        (B, "192.168.1.7", Ok(ip("192.168.2.7"))),
    ];
    for (sequence, (id, claimed, expected)) in (1..).zip(claims) {
        let received = from(&mut tunnel, id, sequence, &packet(claimed, "10.0.0.1", b"me"));
        assert_eq!(received.map(|packet| source(&packet)), expected, "{id:?} as {claimed}");
    }
    assert_eq!(tunnel.discards().get(Discard::OutsideSelector), 3);
}

/// A more specific prefix of another peer is a hole in a default route.
#[test]
fn the_peer_behind_the_default_route_cannot_speak_for_the_others() {
    let mut tunnel = tunnel();
    add_peer(&mut tunnel, A, &["0.0.0.0/0"], &[], Offset::default());
    add_peer(&mut tunnel, B, &["192.168.1.0/24"], &[], Offset::default());
    let far = packet("203.0.113.5", "10.0.0.1", b"far");
    let near = packet("192.168.1.7", "10.0.0.1", b"near");
    assert!(from(&mut tunnel, A, 1, &far).is_ok());
    assert_eq!(from(&mut tunnel, A, 2, &near), Err(Discard::OutsideSelector));
    assert!(from(&mut tunnel, B, 1, &near).is_ok());
    assert_eq!(from(&mut tunnel, B, 2, &far), Err(Discard::OutsideSelector));
    let (_, outcome) = sent(&mut tunnel, &packet("10.0.0.1", "192.168.1.7", b""));
    assert_eq!(outcome.wire[0].0.path, path(B));
}

/// A hub with a wide prefix and a site inside it that is reached directly: the longest prefix wins,
/// whichever was there first and whatever the hub was heard saying before.
#[test]
fn the_peer_with_the_wider_prefix_cannot_speak_for_the_one_inside() {
    for late in [false, true] {
        let mut tunnel = tunnel();
        add_peer(&mut tunnel, A, &["10.0.0.0/8"], &[], Offset::default());
        let site = ["10.5.0.0/16"];
        add_peer(&mut tunnel, B, if late { &[] } else { &site }, &[], Offset::default());
        let wide = packet("10.4.0.7", "192.168.0.1", b"of the hub");
        let near = packet("10.5.0.7", "192.168.0.1", b"of the site");
        assert!(from(&mut tunnel, A, 1, &wide).is_ok());
        if late {
            assert!(from(&mut tunnel, A, 2, &near).is_ok());
            tunnel.sealer.insert_policy(&site[0].parse().unwrap(), B).unwrap();
            tunnel.opener.insert_policy(&site[0].parse().unwrap(), B).unwrap();
        }
        assert_eq!(from(&mut tunnel, A, 3, &near), Err(Discard::OutsideSelector), "{late}");
        assert!(from(&mut tunnel, A, 4, &wide).is_ok());
        assert_eq!(from(&mut tunnel, A, 5, &near), Err(Discard::OutsideSelector), "{late}");
        assert!(from(&mut tunnel, B, 1, &near).is_ok());
        assert_eq!(from(&mut tunnel, B, 2, &wide), Err(Discard::OutsideSelector));
        for (to, peer) in [("10.5.0.7", B), ("10.6.0.7", A)] {
            let (_, outcome) = sent(&mut tunnel, &packet("192.168.0.1", to, b""));
            assert_eq!(outcome.wire[0].0.path, path(peer), "{to}");
        }
    }
}

/// What a peer's last packet came from is remembered, but only as long as it is the peer's.
#[test]
fn a_prefix_that_was_taken_away_is_refused_at_once() {
    let mut tunnel = tunnel();
    add_peer(&mut tunnel, A, &["192.168.1.0/24", "192.168.2.0/24"], &[], Offset::default());
    add_peer(&mut tunnel, B, &["192.168.3.0/24"], &[], Offset::default());
    let inner = packet("192.168.1.7", "10.0.0.1", b"mine");
    assert!(from(&mut tunnel, A, 1, &inner).is_ok());
    assert!(from(&mut tunnel, A, 2, &inner).is_ok());
    let prefix = "192.168.1.0/24".parse().unwrap();
    assert_eq!(tunnel.opener.remove_policy(&prefix), Some(A));
    assert_eq!(from(&mut tunnel, A, 3, &inner), Err(Discard::OutsideSelector));
    tunnel.opener.insert_policy(&prefix, B).unwrap();
    assert_eq!(from(&mut tunnel, A, 4, &inner), Err(Discard::OutsideSelector));
    assert!(from(&mut tunnel, B, 1, &inner).is_ok());
    assert!(from(&mut tunnel, A, 5, &packet("192.168.2.7", "10.0.0.1", b"mine")).is_ok());
}

#[test]
fn an_sa_replaces_another_without_a_gap() {
    let mut tunnel = tunnel();
    add_peer(&mut tunnel, A, &["192.168.1.0/24"], &[], Offset::default());
    let inner = packet("192.168.1.7", "10.0.0.1", b"x");
    assert!(from(&mut tunnel, A, 1, &inner).is_ok());

    // The new inbound SA first; both are good until the old one goes.
    let old = spis(A).0;
    assert_eq!(tunnel.opener.install(inbound_sa(old, A)), Err(SadError::SpiInUse));
    tunnel.opener.install(inbound_sa(0x5000, A)).unwrap();
    let new = sealed(0x5000, 1, &inner, Ipv4);
    assert!(opened(&mut tunnel, &path(A), &new).is_ok());
    assert!(from(&mut tunnel, A, 2, &inner).is_ok());
    assert_eq!(tunnel.opener.uninstall(old).map(|sa| sa.spi), Some(old));
    assert!(tunnel.opener.uninstall(old).is_none());
    assert_eq!(from(&mut tunnel, A, 3, &inner), Err(Discard::UnknownSpi));
    assert_eq!(opened(&mut tunnel, &path(A), &new), Err(Discard::Replayed));

    let replaced = tunnel.sealer.install(A, outbound_sa(0x6000, 1, 100), 0).unwrap();
    assert_eq!(replaced.spi, spis(A).1);
    let (_, outcome) = sent(&mut tunnel, &packet("10.0.0.1", "192.168.1.7", b"x"));
    assert_eq!(Header::parse(&outcome.wire[0].1), Some(Header { spi: 0x6000, sequence: 1 }));
    assert!(tunnel.sealer.install(B, outbound_sa(0x7000, 1, 1), 0).is_none(), "no such peer");
    assert!(tunnel.sealer.peer(B).is_none());
}

#[test]
fn the_end_of_an_sa_is_told_once_and_again_after_an_extension() {
    let mut tunnel = tunnel();
    add_peer(&mut tunnel, A, &["192.168.1.0/24"], &[], Offset::default());
    tunnel.sealer.install(A, outbound_sa(0x6000, 1, 4), 2);
    let inner = packet("10.0.0.1", "192.168.1.7", b"x");
    let step = |tunnel: &mut Tunnel| (sent(tunnel, &inner).0, tunnel.poll_event());
    let told = Some(Event::Exhausting(A));
    assert_eq!(
        [(); 3].map(|()| step(&mut tunnel)),
        [(Ok(()), None), (Ok(()), None), (Ok(()), told)]
    );
    tunnel.sealer.extend(A, 6, 2);
    let expected = [(Ok(()), None), (Ok(()), told), (Ok(()), None)];
    assert_eq!([(); 3].map(|()| step(&mut tunnel)), expected);
    assert_eq!(step(&mut tunnel), (Err(Discard::SequenceExhausted), None));
    let mut room = [0; 200];
    let mut dummy = PacketBuf::new(&mut room, 100, 0).unwrap();
    let dummy = tunnel.sealer.seal_dummy(NOW, A, &mut dummy);
    assert_eq!(dummy, Err(Discard::SequenceExhausted));
    assert_eq!(tunnel.discards().get(Discard::SequenceExhausted), 2);
}

/// More peers than events fit the queue: nobody is forgotten.
#[test]
fn events_that_find_no_room_are_told_later() {
    let mut tunnel = tunnel();
    let ids: Vec<PeerId> = (0..20).map(PeerId).collect();
    let prefix = |id: &PeerId| std::format!("10.9.{}.0/24", id.0);
    for id in &ids {
        add_peer(&mut tunnel, *id, &[&prefix(id)], &[], Offset::default());
        tunnel.sealer.install(*id, outbound_sa(spis(*id).1, 1, 9), 100);
    }
    let (mut moved, mut exhausting) = (Vec::new(), Vec::new());
    for sequence in 1..=2 {
        for id in &ids {
            let host = std::format!("10.9.{}.1", id.0);
            from(&mut tunnel, *id, sequence, &packet(&host, "10.0.0.1", b"x")).unwrap();
            sent(&mut tunnel, &packet("10.0.0.1", &host, b"x")).0.unwrap();
        }
        while let Some(event) = tunnel.poll_event() {
            match event {
                Event::Moved(id, to) => {
                    assert_eq!(to, path(id));
                    moved.push(id);
                }
                Event::Exhausting(id) => exhausting.push(id),
                Event::Wanted(id) => panic!("{id:?} has an SA"),
            }
        }
    }
    assert_eq!((&moved, &exhausting), (&ids, &ids));
}

#[test]
fn a_peer_is_answered_where_its_newest_packet_came_from() {
    let mut tunnel = tunnel();
    add_peer(&mut tunnel, A, &["192.168.1.0/24"], &[], Offset::default());
    let inner = packet("192.168.1.7", "10.0.0.1", b"x");
    let mut arrive = |sequence, from: Path| {
        let esp = sealed(spis(A).0, sequence, &inner, Ipv4);
        opened(&mut tunnel, &from, &esp).unwrap();
        let event = tunnel.poll_event();
        assert_eq!(tunnel.poll_event(), None);
        (event, *tunnel.sealer.peer(A).unwrap().path().unwrap())
    };
    let nat = udp_path("192.0.2.1", "203.0.113.9");
    assert_eq!(arrive(1, path(A)), (Some(Event::Moved(A, path(A))), path(A)));
    assert_eq!(arrive(2, path(A)), (None, path(A)));
    assert_eq!(arrive(9, nat), (Some(Event::Moved(A, nat)), nat));
    assert_eq!(arrive(8, path(A)), (None, nat), "an older packet that took longer");
    assert_eq!(arrive(10, path(A)), (Some(Event::Moved(A, path(A))), path(A)));
}

#[test]
fn slots_and_prefixes_that_do_not_exist_are_refused() {
    let mut tunnel = tunnel();
    add_peer(&mut tunnel, A, &["192.168.1.0/24"], &[], Offset::default());
    let beyond = PeerId(32);
    let peer = crate::OutboundPeer::new(Offset::default(), crate::Selectors::ANY);
    assert_eq!(tunnel.sealer.insert_peer(beyond, peer), Err(SpdError::Full));
    let peer = crate::InboundPeer::new(Offset::default(), crate::Selectors::ANY);
    assert_eq!(tunnel.opener.insert_peer(beyond, peer), Err(SpdError::Full));
    let prefix = "192.168.1.0/24".parse().unwrap();
    assert_eq!(tunnel.sealer.insert_policy(&prefix, B), Err(SpdError::Taken(A)));
    assert_eq!(tunnel.opener.insert_policy(&prefix, B), Err(SpdError::Taken(A)));
    assert_eq!(tunnel.opener.install(inbound_sa(255, A)), Err(SadError::ReservedSpi));
}

#[test]
fn an_sa_is_asked_for_once_a_second_while_packets_want_it() {
    let mut tunnel = tunnel();
    add_peer(&mut tunnel, A, &["192.168.1.0/24"], &[], Offset::default());
    tunnel.sealer.uninstall(A).unwrap();
    let at = |tunnel: &mut Tunnel, millis: u64| {
        let now = NOW.saturating_add(Duration::from_millis(millis));
        let inner = packet("10.0.0.1", "192.168.1.7", b"hello");
        assert_eq!(sent_at(tunnel, now, &inner).0, Err(Discard::NoSa));
        tunnel.poll_event()
    };
    assert_eq!(at(&mut tunnel, 0), Some(Event::Wanted(A)));
    assert_eq!(at(&mut tunnel, 999), None);
    assert_eq!(at(&mut tunnel, 1000), Some(Event::Wanted(A)));
    assert_eq!(tunnel.poll_event(), None);
    tunnel.sealer.install(A, outbound_sa(spis(A).1, 1, u64::MAX), 0);
    assert_eq!(sent(&mut tunnel, &packet("10.0.0.1", "192.168.1.7", b"hello")).0, Ok(()));
    assert_eq!(tunnel.poll_event(), None);
}
