//! Packets from the wire that must not pass: each increments its counter and does nothing else.

use std::vec;
use std::vec::Vec;

use super::fixture::*;
use crate::crypto::Aead;
use crate::wire::esp::NextHeader::{self, Dummy, Ipv4, Ipv6, Other};
use crate::{Discard, Event, Offset, Path};

/// We are 10.1.0.0/16 and fd00:0:0:2::/64; A is 192.168.1.0/24 and fd00:0:0:1::/64.
fn us() -> Tunnel {
    let mut tunnel = tunnel();
    let theirs = ["192.168.1.0/24", "fd00:0:0:1::/64"];
    let ours = ["10.1.0.0/16", "fd00:0:0:2::/64"];
    add_peer(&mut tunnel, A, &theirs, &ours, Offset::default());
    tunnel
}

/// Everything that a packet may change.
#[derive(Debug, PartialEq)]
struct State {
    top: u64,
    traffic: crate::Traffic,
    path: Option<Path>,
    event: bool,
    outbound_path: Option<Path>,
}

fn state(tunnel: &mut Tunnel) -> State {
    let peer = tunnel.opener.peer(A).unwrap();
    State {
        top: tunnel.opener.sa(spis(A).0).unwrap().window.top(),
        traffic: *peer.traffic(),
        path: peer.path().copied(),
        event: tunnel.poll_event().is_some(),
        outbound_path: tunnel.sealer.peer(A).unwrap().path().copied(),
    }
}

/// `esp`, arriving from a stranger's address, is refused for this reason and changes nothing.
#[track_caller]
fn refuse_unauthentic(tunnel: &mut Tunnel, esp: &[u8], why: Discard) {
    let stranger = esp_path("192.0.2.1", "203.0.113.66");
    let (counters, before) = (tunnel.discards(), state(tunnel));
    assert_eq!(opened(tunnel, &stranger, esp), Err(why));
    assert_counted(&counters, &tunnel.discards(), why, 1);
    assert_eq!(state(tunnel), before);
}

fn genuine(sequence: u64) -> Vec<u8> {
    sealed(spis(A).0, sequence, &packet("192.168.1.7", "10.1.0.9", b"genuine"), Ipv4)
}

/// The tunnel has heard packet 100 of A.
fn after_100() -> Tunnel {
    let mut tunnel = us();
    assert!(opened(&mut tunnel, &path(A), &genuine(100)).is_ok());
    assert_eq!(tunnel.poll_event(), Some(Event::Moved(A, path(A))));
    tunnel
}

#[test]
fn truncated_packets() {
    let mut tunnel = after_100();
    let esp = genuine(101);
    for len in 0..esp.len() {
        let why = match len {
            0..34 => Discard::Malformed,
            _ => Discard::BadIcv,
        };
        refuse_unauthentic(&mut tunnel, &esp[..len], why);
    }
    assert!(opened(&mut tunnel, &path(A), &esp).is_ok());
}

#[test]
fn replayed_and_too_old_packets() {
    let mut tunnel = after_100();
    refuse_unauthentic(&mut tunnel, &genuine(100), Discard::Replayed);
    let oldest = 100 - u64::from(WINDOW) + 1;
    refuse_unauthentic(&mut tunnel, &genuine(oldest - 1), Discard::TooOld);
    refuse_unauthentic(&mut tunnel, &genuine(1), Discard::TooOld);
    assert!(opened(&mut tunnel, &path(A), &genuine(oldest)).is_ok());
    refuse_unauthentic(&mut tunnel, &genuine(oldest), Discard::Replayed);
}

#[test]
fn unknown_spis() {
    let mut tunnel = after_100();
    for spi in [0u32, 1, 255, 0x0fff, 0x1001, 0x2000, u32::MAX] {
        let mut esp = genuine(101);
        esp[..4].copy_from_slice(&spi.to_be_bytes());
        refuse_unauthentic(&mut tunnel, &esp, Discard::UnknownSpi);
    }
}

#[test]
fn every_bit_of_a_packet_is_protected() {
    let mut tunnel = after_100();
    let esp = genuine(101);
    for bit in 0..esp.len() * 8 {
        let mut altered = esp.clone();
        altered[bit / 8] ^= 0x80 >> (bit % 8);
        let why = match bit {
            0..32 => Discard::UnknownSpi,
            // 101 ^ 64 = 37 is the oldest that the window holds.
            32..64 if altered[4..8] < [0, 0, 0, 37][..] => Discard::TooOld,
            32..64 if altered[4..8] == [0, 0, 0, 100] => Discard::Replayed,
            _ => Discard::BadIcv,
        };
        refuse_unauthentic(&mut tunnel, &altered, why);
    }
}

#[test]
fn a_key_of_another_sa() {
    let mut tunnel = us();
    let ours = ["10.1.0.0/16"];
    add_peer(&mut tunnel, B, &["192.168.2.0/24"], &ours, Offset::default());
    let mut esp = sealed(spis(B).0, 7, &packet("192.168.1.7", "10.1.0.9", b"x"), Ipv4);
    esp[..4].copy_from_slice(&spis(A).0.to_be_bytes());
    refuse_unauthentic(&mut tunnel, &esp, Discard::BadIcv);
}

/// Sealed by A with its key, and still not acceptable.
struct Authentic {
    name: &'static str,
    payload: Vec<u8>,
    next_header: NextHeader,
    outer_traffic_class: u8,
    why: Discard,
}

fn authentic_cases() -> Vec<Authentic> {
    use Discard::{Congestion, Malformed, OutsideSelector};
    let v4 = |source, destination| packet(source, destination, b"payload");
    let good = v4("192.168.1.7", "10.1.0.9");
    let good_v6 = packet("fd00:0:0:1::7", "fd00:0:0:2::9", b"payload");
    let edited = |at: usize, value: u8| {
        let mut packet = good.clone();
        packet[at] = value;
        packet
    };
    let case = |name, payload: &[u8], next_header, outer_traffic_class, why| {
        let payload = payload.to_vec();
        Authentic { name, payload, next_header, outer_traffic_class, why }
    };
    vec![
        case("source outside", &v4("192.168.2.7", "10.1.0.9"), Ipv4, 0, OutsideSelector),
        case("source ours", &v4("10.1.0.8", "10.1.0.9"), Ipv4, 0, OutsideSelector),
        case("destination outside", &v4("192.168.1.7", "10.2.0.9"), Ipv4, 0, OutsideSelector),
        case("destination theirs", &v4("192.168.1.7", "192.168.1.8"), Ipv4, 0, OutsideSelector),
        case(
            "IPv6 source outside",
            &packet("fd00:0:0:3::7", "fd00:0:0:2::9", b""),
            Ipv6,
            0,
            OutsideSelector,
        ),
        case(
            "IPv6 destination outside",
            &packet("fd00:0:0:1::7", "fd00:0:0:3::9", b""),
            Ipv6,
            0,
            OutsideSelector,
        ),
        case("a dummy", b"", Dummy, 0, Discard::Dummy),
        case("a dummy with a packet in it", &good, Dummy, 0, Discard::Dummy),
        case("a dummy under congestion", b"", Dummy, 3, Discard::Dummy),
        case("IPv4 called IPv6", &good, Ipv6, 0, Malformed),
        case("IPv6 called IPv4", &good_v6, Ipv4, 0, Malformed),
        case("transport mode TCP", &good, Other(6), 0, Malformed),
        case("next header 0", &good, Other(0), 0, Malformed),
        case("nothing", b"", Ipv4, 0, Malformed),
        case("a cut header", &good[..19], Ipv4, 0, Malformed),
        case("a cut IPv6 header", &good_v6[..39], Ipv6, 0, Malformed),
        case("version 5", &edited(0, 0x55), Ipv4, 0, Malformed),
        case("a header length of 16", &edited(0, 0x44), Ipv4, 0, Malformed),
        case("a header longer than the packet", &edited(0, 0x4f), Ipv4, 0, Malformed),
        case("a total length beyond the payload", &edited(3, 200), Ipv4, 0, Malformed),
        case("a total length below the header", &edited(3, 19), Ipv4, 0, Malformed),
        case("congestion over Not-ECT", &good, Ipv4, 3, Congestion),
        case("congestion over Not-ECT, IPv6", &good_v6, Ipv6, 3, Congestion),
    ]
}

/// Each is authentic, so the number counts as received and the peer as heard; all else stays.
#[test]
fn what_a_peer_must_not_send() {
    for case in authentic_cases() {
        let mut tunnel = after_100();
        let esp = sealed(spis(A).0, 101, &case.payload, case.next_header);
        let counters = tunnel.discards();
        let mut expected = state(&mut tunnel);
        let result = opened_with(&mut tunnel, &path(A), case.outer_traffic_class, &esp);
        assert_eq!(result, Err(case.why), "{}", case.name);
        assert_counted(&counters, &tunnel.discards(), case.why, 1);
        expected.top = 101;
        expected.traffic.last = Some(NOW);
        assert_eq!(state(&mut tunnel), expected, "{}", case.name);
        refuse_unauthentic(&mut tunnel, &esp, Discard::Replayed);
    }
}

#[test]
fn wrong_padding() {
    // 2 bytes of padding that are not 1, 2; more padding than there is; as much as there is.
    let good = packet("192.168.1.7", "10.1.0.9", b"sixteen");
    let ends: [&[u8]; 5] = [&[0, 0, 2, 4], &[1, 3, 2, 4], &[2, 1, 2, 4], &[255, 4], &[30, 4]];
    for (number, end) in ends.into_iter().enumerate() {
        let mut tunnel = after_100();
        let (spi, sequence, iv) = (spis(A).0, 101u32, [7; 8]);
        let mut text = [&good, end].concat();
        let aad = [spi.to_be_bytes(), sequence.to_be_bytes()].concat();
        let nonce: [u8; 12] = [&b"salt"[..], &iv].concat().try_into().unwrap();
        let icv = key(spi).seal(&nonce, &aad, &mut text);
        let esp = [&aad[..], &iv, &text, &icv].concat();
        let counters = tunnel.discards();
        let result = opened(&mut tunnel, &path(A), &esp);
        assert_eq!(result, Err(Discard::BadPadding), "case {number}");
        assert_counted(&counters, &tunnel.discards(), Discard::BadPadding, 1);
        refuse_unauthentic(&mut tunnel, &esp, Discard::Replayed);
    }
}

#[test]
fn an_sa_without_its_peer() {
    let mut tunnel = after_100();
    tunnel.opener.remove_peer(A).unwrap();
    let counters = tunnel.discards();
    assert_eq!(opened(&mut tunnel, &path(A), &genuine(101)), Err(Discard::UnknownSpi));
    assert_counted(&counters, &tunnel.discards(), Discard::UnknownSpi, 1);
}

#[test]
fn traffic_flow_confidentiality_padding_is_taken_off() {
    let mut tunnel = us();
    for (sequence, (inner, next)) in (1..).zip([
        (packet("192.168.1.7", "10.1.0.9", b"short"), Ipv4),
        (packet("fd00:0:0:1::7", "fd00:0:0:2::9", b"short"), Ipv6),
    ]) {
        let padded = [&inner[..], &[0xaa; 900]].concat();
        let esp = sealed(spis(A).0, sequence, &padded, next);
        assert_eq!(opened(&mut tunnel, &path(A), &esp), Ok((A, inner.clone())));
    }
    let bytes = tunnel.opener.peer(A).unwrap().traffic().bytes;
    assert_eq!(bytes, 25 + 45, "padding does not count");
}

#[test]
fn dscp_stays_outside_and_congestion_comes_in() {
    let v4 = |traffic_class: u8| {
        let mut inner = packet("192.168.1.7", "10.1.0.9", b"x");
        crate::wire::samples::edit_ipv4(&mut inner, |header| {
            header.set_dscp(traffic_class >> 2);
            header.set_ecn(traffic_class & 3);
        });
        (inner, Ipv4)
    };
    let v6 = |traffic_class: u8| {
        let mut inner = packet("fd00:0:0:1::7", "fd00:0:0:2::9", b"x");
        smoltcp::wire::Ipv6Packet::new_unchecked(&mut inner).set_traffic_class(traffic_class);
        (inner, Ipv6)
    };
    let makers: [&dyn Fn(u8) -> (Vec<u8>, NextHeader); 2] = [&v4, &v6];
    let mut tunnel = us();
    let mut sequence = 0;
    for make in makers {
        for (inner, outer, expected) in [
            // DSCP 46 outside is none of ours, DSCP 10 inside stays.
            (0b0010_1000, 0b1011_1000, 0b0010_1000),
            (0b0010_1010, 0b1011_1011, 0b0010_1011), // ECT(0), CE
            (0b0010_1001, 0b0000_0011, 0b0010_1011), // ECT(1), CE
            (0b0010_1010, 0b0000_0001, 0b0010_1001), // ECT(0), ECT(1)
            (0b0010_1011, 0b0000_0000, 0b0010_1011), // CE stays
            (0b0010_1000, 0b0000_0010, 0b0010_1000), // Not-ECT stays
        ] {
            sequence += 1;
            let (packet, next) = make(inner);
            let esp = sealed(spis(A).0, sequence, &packet, next);
            let what = std::format!("{inner:08b} in {outer:08b}");
            let opened = opened_with(&mut tunnel, &path(A), outer, &esp);
            assert_eq!(opened, Ok((A, make(expected).0)), "{what}");
        }
    }
}
