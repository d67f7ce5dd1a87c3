//! Packets from the host: refused, answered, cut or sealed.

use std::vec;
use std::vec::Vec;

use smoltcp::wire::{Ipv4Packet, Ipv6Packet};

use super::fixture::*;
use crate::checksum::Checksum;
use crate::counters::Discards;
use crate::outer;
use crate::wire::samples;
use crate::{Discard, HEADROOM, Instant, Offset, PacketBuf, TAILROOM, Transmit};

const OFFSET: Offset = Offset::new(0x100, 1 << 64);
const NEGATIVE: Offset = Offset::new(-0x100_i32 as u32, u128::MAX << 64);

/// We are 192.168.1.0/24 and fd00:0:0:1::/64; A is 10.1.0.0/24 and fd00:0:0:2::/64 and seen
/// shifted, as 10.1.1.0/24 and fd00:0:0:3::/64.
fn us() -> Tunnel {
    let mut tunnel = tunnel();
    let ours = ["192.168.1.0/24", "fd00:0:0:1::/64"];
    add_peer(&mut tunnel, A, &["10.1.0.0/24", "fd00:0:0:2::/64"], &ours, OFFSET);
    tunnel
}

fn to_a(payload: &[u8]) -> Vec<u8> {
    packet("192.168.1.7", "10.1.1.9", payload)
}

/// The other end, which shifts nothing.
fn them() -> Tunnel {
    let mut tunnel = tunnel();
    let theirs = ["192.168.1.0/24", "fd00:0:0:1::/64"];
    add_peer(&mut tunnel, A, &theirs, &["10.1.0.0/24", "fd00:0:0:2::/64"], Offset::default());
    tunnel.opener.install(inbound_sa(spis(A).1, A)).unwrap();
    tunnel
}

#[track_caller]
fn refuse(tunnel: &mut Tunnel, packet: &[u8], why: Discard) {
    let before = tunnel.discards();
    let traffic = tunnel.sealer.peer(A).map(|peer| *peer.traffic());
    let next = |tunnel: &Tunnel| {
        let sa = tunnel.sealer.peer(A).and_then(|peer| peer.sa());
        sa.map(|sa| sa.sequence.next())
    };
    let number = next(tunnel);
    let (result, outcome) = sent(tunnel, packet);
    assert_eq!(result, Err(why));
    assert!(outcome.wire.is_empty());
    assert_counted(&before, &tunnel.discards(), why, 1);
    assert_eq!(tunnel.sealer.peer(A).map(|peer| *peer.traffic()), traffic);
    assert_eq!(next(tunnel), number, "no sequence number is used");
}

#[test]
fn what_is_no_packet_or_for_nobody_is_refused() {
    let mut tunnel = us();
    refuse(&mut tunnel, &[], Discard::Malformed);
    refuse(&mut tunnel, &to_a(b"")[..19], Discard::Malformed);
    refuse(&mut tunnel, &packet("192.168.1.7", "10.1.0.9", b""), Discard::NoPolicy);
    refuse(&mut tunnel, &packet("fd00:0:0:1::7", "fd00:0:0:2::9", b""), Discard::NoPolicy);
    refuse(&mut tunnel, &packet("192.168.2.7", "10.1.1.9", b""), Discard::OutsideSelector);
    tunnel.sealer.set_path(A, None);
    refuse(&mut tunnel, &to_a(b"hello"), Discard::NoEndpoint);
    tunnel.sealer.uninstall(A).unwrap();
    refuse(&mut tunnel, &to_a(b"hello"), Discard::NoSa);
    tunnel.sealer.remove_peer(A).unwrap();
    refuse(&mut tunnel, &to_a(b"hello"), Discard::NoPolicy);
}

/// Our own outer packet comes back from the host, at the address it was sent to or redirected
/// to the shifted one.
#[test]
fn our_own_outer_packets_are_a_loop() {
    for (prefix, local, remote) in [
        ("198.51.100.0/22", "192.168.1.7", "198.51.101.9"),
        ("2001:db8::/62", "fd00:0:0:1::7", "2001:db8:0:1::9"),
    ] {
        for path in [esp_path(local, remote), udp_path(local, remote)] {
            for (offset, negative) in [(Offset::default(), Offset::default()), (OFFSET, NEGATIVE)] {
                let mut tunnel = us();
                tunnel.sealer.remove_peer(A);
                add_peer(&mut tunnel, B, &[prefix], &[], offset);
                tunnel.sealer.set_path(B, Some(path));
                let inner = packet(local, remote, b"inner");
                let (result, outcome) = sent(&mut tunnel, &inner);
                assert_eq!(result, Ok(()), "traffic to the endpoint itself is none");
                let (transmit, esp) = &outcome.wire[0];

                let mut bytes = [&[0; HEADROOM], &esp[..]].concat();
                let mut outer = PacketBuf::new(&mut bytes, HEADROOM, esp.len()).unwrap();
                outer::prepend(&mut outer, transmit, 64, 1).unwrap();
                refuse(&mut tunnel, outer.as_slice(), Discard::Loop);
                negative.shift_destination(outer.as_mut_slice(), Checksum::Full).unwrap();
                refuse(&mut tunnel, outer.as_slice(), Discard::Loop);
                // Somebody else's ESP to the same host is none of ours.
                let at = path.outer_len();
                outer.as_mut_slice()[at] ^= 1;
                assert_eq!(sent(&mut tunnel, outer.as_slice()).0, Ok(()));
            }
        }
    }
}

#[test]
fn sealed_packets_carry_the_wire_address_and_the_traffic_class() {
    let mut tunnel = us();
    let mut them = them();
    let mut v4 = to_a(b"hello");
    samples::edit_ipv4(&mut v4, |header| {
        header.set_dscp(46);
        header.set_ecn(2);
    });
    let mut v6 = packet("fd00:0:0:1::7", "fd00:0:0:3::9", b"hello");
    Ipv6Packet::new_unchecked(&mut v6).set_traffic_class(46 << 2 | 1);
    for (inner, traffic_class, wire) in
        [(v4, 46 << 2 | 2, "10.1.0.9"), (v6, 46 << 2 | 1, "fd00:0:0:2::9")]
    {
        let (result, outcome) = sent(&mut tunnel, &inner);
        assert_eq!(result, Ok(()));
        let [(transmit, esp)] = &outcome.wire[..] else { panic!("{outcome:?}") };
        let expected = Transmit { path: path(A), traffic_class, len: esp.len(), oversize: false };
        assert_eq!(*transmit, expected);
        let (_, received) = opened(&mut them, &path(A), esp).unwrap();
        assert_eq!(destination(&received), ip(wire));
        assert_eq!(source(&received), source(&inner));
        assert_eq!(received.len(), inner.len());
    }
    let traffic = tunnel.sealer.peer(A).unwrap().traffic();
    assert_eq!((traffic.packets, traffic.bytes, traffic.last), (2, 25 + 45, Some(NOW)));
}

#[test]
fn what_lies_behind_the_packet_does_not_travel() {
    let mut tunnel = us();
    let mut them = them();
    let (result, outcome) = sent(&mut tunnel, &[&to_a(b"hello")[..], b"secret"].concat());
    assert_eq!(result, Ok(()));
    let (_, received) = opened(&mut them, &path(A), &outcome.wire[0].1).unwrap();
    assert_eq!(received.len(), 25);
}

fn with_df(mut packet: Vec<u8>) -> Vec<u8> {
    samples::edit_ipv4(&mut packet, |header| header.set_dont_frag(true));
    packet
}

#[test]
fn too_big_packets_are_answered_in_the_name_of_their_destination() {
    let mut tunnel = us();
    let v4 = with_df(to_a(&[7; 1427]));
    let v6 = packet("fd00:0:0:1::7", "fd00:0:0:3::9", &[7; 1407]);
    for (offending, icmp, quoted) in [(&v4, 20, 28), (&v6, 40, 48)] {
        let before = tunnel.discards();
        let (result, outcome) = sent(&mut tunnel, offending);
        assert_eq!(result, Err(Discard::TooBig));
        assert_counted(&before, &tunnel.discards(), Discard::TooBig, 1);
        let [answer] = &outcome.host[..] else { panic!("{outcome:?}") };
        assert!(outcome.wire.is_empty());
        assert_eq!(source(answer), destination(offending), "host space");
        assert_eq!(destination(answer), source(offending));
        assert_eq!(answer[icmp + 6..icmp + 8], 1446u16.to_be_bytes());
        assert_eq!(answer[quoted..quoted + 60], offending[..60], "as the host sent it");
    }
    assert_eq!(sent(&mut tunnel, &with_df(to_a(&[7; 1426]))).0, Ok(()));
    let v6 = packet("fd00:0:0:1::7", "fd00:0:0:3::9", &[7; 1406]);
    assert_eq!(sent(&mut tunnel, &v6).0, Ok(()));
}

#[test]
fn answers_are_limited_and_refusals_counted_all_the_same() {
    let mut tunnel = us();
    let offending = with_df(to_a(&[7; 1427]));
    let mut answers = |millis: u64, times: usize| {
        let now = Instant::from_millis(millis);
        (0..times).map(|_| sent_at(&mut tunnel, now, &offending).1.host.len()).sum::<usize>()
    };
    assert_eq!(answers(1000, 200), 50, "the burst");
    assert_eq!(answers(1005, 10), 0);
    assert_eq!(answers(1100, 200), 10, "a hundred per second");
    assert_eq!(answers(100_000, 200), 50);
    assert_eq!(tunnel.discards().get(Discard::TooBig), 610);
}

#[test]
fn fragments_come_together_at_the_other_end() {
    let mut tunnel = us();
    let mut them = them();
    let payload: Vec<u8> = (0..5000u32).map(|at| (at * 7 % 253) as u8).collect();
    let (result, outcome) = sent(&mut tunnel, &to_a(&payload));
    assert_eq!(result, Ok(()));
    assert_eq!(outcome.wire.len(), 4);
    let mut whole = vec![0; payload.len()];
    let mut more = Vec::new();
    for (transmit, esp) in &outcome.wire {
        assert!(esp.len() + path(A).outer_len() <= 1500);
        assert!(!transmit.oversize);
        let (_, fragment) = opened(&mut them, &path(A), esp).unwrap();
        let ip = Ipv4Packet::new_checked(&fragment[..]).unwrap();
        assert!(ip.verify_checksum());
        let at = usize::from(ip.frag_offset());
        whole[at..at + ip.payload().len()].copy_from_slice(ip.payload());
        more.push(ip.more_frags());
    }
    assert_eq!(more, [true, true, true, false]);
    assert!(whole == payload);
    assert_eq!(tunnel.discards(), Discards::default());
}

#[test]
fn fragments_that_cannot_be_made_are_counted() {
    let mut tunnel = us();
    let big = to_a(&[7; 3000]);
    for scratch in [0, HEADROOM, HEADROOM + 1000] {
        let before = tunnel.discards();
        let mut bytes = [&[0; HEADROOM], &big[..], &[0; TAILROOM]].concat();
        let mut packet = PacketBuf::new(&mut bytes, HEADROOM, big.len()).unwrap();
        let result = tunnel.outbound(NOW, &mut packet, &mut vec![0; scratch], |_| {});
        assert_eq!(result, Err(Discard::NoRoom));
        assert_counted(&before, &tunnel.discards(), Discard::NoRoom, 1);
    }
    // A path that has no room for a fragment.
    tunnel.sealer.set_path_mtu(A, 70);
    let before = tunnel.discards();
    assert_eq!(sent(&mut tunnel, &big).0, Err(Discard::TooBig));
    assert_counted(&before, &tunnel.discards(), Discard::TooBig, 1);
}

#[test]
fn small_ipv6_packets_pass_whatever_the_path_mtu() {
    let mut tunnel = us();
    tunnel.sealer.set_path_mtu(A, 600);
    let packet = packet("fd00:0:0:1::7", "fd00:0:0:3::9", &[7; 1240]);
    let (result, outcome) = sent(&mut tunnel, &packet);
    assert_eq!(result, Ok(()));
    assert!(outcome.wire[0].0.oversize);
}
