use std::boxed::Box;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::counters::Discard;
use crate::segment::Segments;
use crate::wire::samples::{self, Tcp, fill_checksum};

/// What was written, in its order.
type Written = Vec<(Offload, Vec<u8>)>;

fn coalescer(rooms: &[usize], udp: bool) -> Coalescer<'static> {
    let run = |len: &usize| Run::new(ManagedSlice::Borrowed(Box::leak(vec![0; *len].into())));
    let runs: Box<[Run<'static>]> = rooms.iter().map(run).collect();
    Coalescer::new(ManagedSlice::Borrowed(Box::leak(runs)), udp)
}

/// What comes out of packets in this order, all in one batch, with enough buffers.
fn written(packets: &[Vec<u8>]) -> Written {
    let mut written = Written::new();
    let mut coalescer = coalescer(&[MAX_LEN; 3], true);
    let write: &mut Write<'_> = &mut |offload, packet| written.push((*offload, packet.to_vec()));
    packets.iter().for_each(|packet| coalescer.push(packet, write));
    coalescer.flush(write);
    coalescer.flush(write);
    written
}

/// The packets as the host sees them: what is written, cut again.
fn seen(written: &Written) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (offload, packet) in written {
        if offload.gso.is_none() {
            assert_eq!(*offload, Offload::default(), "nothing is claimed of a packet that passes");
            all.push(packet.clone());
            continue;
        }
        let mut segments = Segments::new(packet, offload).unwrap();
        let mut out = vec![0; MAX_LEN];
        while let Some(len) = segments.next_into(&mut out).unwrap() {
            all.push(out[..len].to_vec());
        }
    }
    all
}

/// How many packets each write holds, after checking that they are the ones that went in.
#[track_caller]
fn merged(packets: &[Vec<u8>]) -> Vec<usize> {
    let written = written(packets);
    assert_eq!(seen(&written), packets);
    written.iter().map(|one| seen(&vec![one.clone()]).len()).collect()
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Family {
    V4,
    V6,
}
use Family::{V4, V6};

fn tcp(family: Family, ident: u16, tcp: &Tcp) -> Vec<u8> {
    packet(family, ident, 6, &tcp.bytes())
}

fn udp(family: Family, ident: u16, payload: &[u8]) -> Vec<u8> {
    packet(family, ident, 17, &samples::udp([5000, 6000], payload))
}

fn packet(family: Family, ident: u16, protocol: u8, upper: &[u8]) -> Vec<u8> {
    let mut packet = match family {
        V4 => samples::ipv4(protocol, upper),
        V6 => samples::ipv6(protocol, upper),
    };
    edit_ip(&mut packet, |header| {
        if family == V4 {
            header[4..6].copy_from_slice(&ident.to_be_bytes());
            header[6] = 0x40;
        }
    });
    let transport = transport(family);
    fill_checksum(&mut packet, transport, protocol == 6);
    packet
}

fn transport(family: Family) -> usize {
    if family == V4 { 20 } else { 40 }
}

/// Changes an IP header; an IPv4 checksum is right afterwards.
fn edit_ip(packet: &mut [u8], edit: impl FnOnce(&mut [u8])) {
    edit(packet);
    if packet[0] >> 4 == 4 {
        Ipv4Packet::new_unchecked(packet).fill_checksum();
    }
}

/// `count` segments of 100 bytes that belong together, from sequence number `first` on.
fn stream_from(family: Family, first: u32, count: u16) -> Vec<Vec<u8>> {
    let segment = |at: u16| {
        let payload = [at as u8; 100];
        tcp(
            family,
            0xfffe_u16.wrapping_add(at),
            &Tcp::new(first.wrapping_add(u32::from(at) * 100), &payload),
        )
    };
    (0..count).map(segment).collect()
}

fn stream(family: Family, count: u16) -> Vec<Vec<u8>> {
    stream_from(family, 0xffff_ff80, count)
}

/// A pair of which the second goes on where the first ends, but for what `edit` does to its
/// segment, which has 100 bytes as the first.
#[track_caller]
fn pair(edit: impl Fn(&mut Tcp)) -> Vec<usize> {
    let sizes = [V4, V6].map(|family| {
        let mut second = Tcp::new(101, &[2; 100]);
        edit(&mut second);
        merged(&[tcp(family, 1, &Tcp::new(1, &[1; 100])), tcp(family, 2, &second)])
    });
    assert_eq!(sizes[0], sizes[1]);
    sizes[0].clone()
}

/// The same with the second packet changed, and its transport checksum right again.
#[track_caller]
fn pair_of(family: Family, edit: impl Fn(&mut [u8])) -> Vec<usize> {
    let mut packets = stream(family, 2);
    edit_ip(&mut packets[1], edit);
    fill_checksum(&mut packets[1], transport(family), true);
    merged(&packets)
}

#[test]
fn consecutive_segments_become_one_super_packet() {
    for (family, gso) in [(V4, Gso::TcpV4), (V6, Gso::TcpV6)] {
        let packets = stream(family, 20);
        assert_eq!(merged(&packets), [20]);
        let transport = transport(family);
        let header_len = transport + 32;
        let (offload, bytes) = written(&packets).remove(0);
        let expected = Offload {
            gso: Some(gso),
            ecn: false,
            header_len: header_len as u16,
            segment_len: 100,
            checksum: Some(PartialChecksum { start: transport as u16, offset: 16 }),
        };
        assert_eq!(offload, expected);
        assert_eq!(bytes.len(), header_len + 2000);
        // As the kernel does it: the partial checksum completed is right for the whole.
        let mut whole = bytes;
        checksum::complete(&mut whole, transport, 16).unwrap();
        assert!(samples::verify_checksum(&whole, transport, true));
        if family == V4 {
            assert!(Ipv4Packet::new_checked(&whole[..]).unwrap().verify_checksum());
        }
    }
}

#[test]
fn a_lone_packet_passes_as_it_is() {
    assert_eq!(merged(&stream(V4, 1)), [1]);
    assert_eq!(merged(&[udp(V6, 0, b"hello")]), [1]);
    assert_eq!(written(&stream(V4, 1))[0].0, Offload::default());
}

#[test]
fn an_empty_coalescer_passes_everything_on() {
    let mut packets = Vec::new();
    let mut none = coalescer(&[], true);
    stream(V4, 3)
        .iter()
        .for_each(|packet| none.push(packet, &mut |_, one| packets.push(one.to_vec())));
    assert_eq!(packets, stream(V4, 3));
}

#[test]
fn interleaved_flows_are_merged_each() {
    let packets = (0..10).flat_map(|at| {
        let [one, other] = [V4, V6].map(|family| stream(family, 10).remove(at));
        [one, other, udp(V4, at as u16, &[at as u8; 50])]
    });
    let written = written(&Vec::from_iter(packets));
    let counts = written.iter().map(|one| seen(&vec![one.clone()]).len());
    assert_eq!(Vec::from_iter(counts), [10, 10, 10]);
}

#[test]
fn with_too_few_buffers_the_flow_that_was_silent_for_longest_is_written() {
    let [a, b] = [V4, V6].map(|family| stream(family, 3));
    let c = udp(V4, 1, b"hello");
    let mut order = Vec::new();
    let mut two = coalescer(&[MAX_LEN; 2], true);
    for packet in [&a[0], &b[0], &a[1], &c, &a[2], &b[1]] {
        two.push(packet, &mut |_, bytes| order.push(bytes.to_vec()));
    }
    // For the datagram IPv6 had to go; then, for IPv6 again, the datagram.
    assert_eq!(order, [b[0].clone(), c]);
}

#[test]
fn a_shorter_segment_is_the_last_of_its_super_packet() {
    let sizes = [100, 100, 99, 100, 100, 100, 1];
    let (mut packets, mut sequence) = (Vec::new(), 7);
    for (ident, size) in sizes.into_iter().enumerate() {
        packets.push(tcp(V4, ident as u16, &Tcp::new(sequence, &vec![3; size])));
        sequence += size as u32;
    }
    assert_eq!(merged(&packets), [3, 4]);
}

#[test]
fn a_longer_segment_begins_anew() {
    assert_eq!(pair(|second| second.payload = vec![2; 101]), [1, 1]);
    assert_eq!(pair(|second| second.payload = vec![2; 100]), [2], "for comparison");
}

#[test]
fn push_ends_a_super_packet_and_is_written_at_once() {
    let mut coalescer = coalescer(&[MAX_LEN], true);
    let mut written = Written::new();
    let pushed = Tcp { flags: 0x18, ..Tcp::new(101, &[2; 100]) };
    let packets = [tcp(V4, 1, &Tcp::new(1, &[1; 100])), tcp(V4, 2, &pushed)];
    for packet in &packets {
        coalescer.push(packet, &mut |offload, bytes| written.push((*offload, bytes.to_vec())));
    }
    assert_eq!(written.len(), 1);
    assert_eq!(seen(&written), packets, "PSH is on the last only");
    written.clear();
    let lone = tcp(V4, 3, &Tcp { sequence: 201, ..pushed });
    coalescer.push(&lone, &mut |offload, bytes| written.push((*offload, bytes.to_vec())));
    assert_eq!(seen(&written), [lone], "a lone segment with PSH waits for nothing");
}

#[test]
fn segments_with_other_flags_stay_alone() {
    for flag in [0x01, 0x02, 0x04, 0x20, 0x80] {
        assert_eq!(pair(|second| second.flags |= flag), [1, 1], "{flag:#x} on the second");
        let first = Tcp { flags: 0x10 | flag, ..Tcp::new(1, &[1; 100]) };
        let second = Tcp { sequence: 101, ..first.clone() };
        let both = [tcp(V4, 1, &first), tcp(V4, 2, &second)];
        assert_eq!(merged(&both), [1, 1], "{flag:#x} on both");
    }
    assert_eq!(pair(|second| second.flags = 0), [1, 1], "no ACK");
    assert_eq!(pair(|second| second.flags |= 0x40), [1, 1], "ECE begins");
}

#[test]
fn ece_on_all_segments_is_on_the_super_packet() {
    let first = Tcp { flags: 0x50, ..Tcp::new(1, &[1; 100]) };
    let second = Tcp { sequence: 101, ..first.clone() };
    assert_eq!(merged(&[tcp(V4, 1, &first), tcp(V4, 2, &second)]), [2]);
}

#[test]
fn pure_acks_stay_alone_and_in_order() {
    assert_eq!(pair(|second| second.payload.clear()), [1, 1]);
    let mut packets = stream(V4, 4);
    packets.insert(2, tcp(V4, 9, &Tcp::new(0, &[])));
    assert_eq!(merged(&packets), [2, 1, 2], "what came before is written before");
}

#[test]
fn a_gap_an_overlap_and_a_repetition_begin_anew() {
    for sequence in [102, 100, 1, 201, 0x8000_0065] {
        assert_eq!(pair(|second| second.sequence = sequence), [1, 1], "{sequence}");
    }
}

#[test]
fn whatever_differs_in_the_tcp_header_begins_anew() {
    assert_eq!(pair(|second| second.acknowledgement += 1), [1, 1]);
    assert_eq!(pair(|second| second.window += 1), [1, 1]);
    assert_eq!(pair(|second| second.urgent = 1), [1, 1], "although without URG");
    assert_eq!(pair(|second| second.options[7] += 1), [1, 1], "a timestamp");
    assert_eq!(pair(|second| second.options.truncate(0)), [1, 1]);
    assert_eq!(pair(|second| second.options.extend([1; 4])), [1, 1]);
    assert_eq!(pair(|second| second.ports[0] += 1), [1, 1]);
    assert_eq!(pair(|second| second.ports[1] += 1), [1, 1]);
    assert_eq!(pair_of(V4, |packet| packet[32] |= 1), [1, 1], "a reserved bit");
}

#[test]
fn whatever_differs_in_the_ip_header_begins_anew() {
    assert_eq!(pair_of(V4, |_| ()), [2], "for comparison");
    assert_eq!(pair_of(V6, |_| ()), [2], "for comparison");
    assert_eq!(pair_of(V4, |packet| packet[1] ^= 3), [1, 1], "ECN");
    assert_eq!(pair_of(V4, |packet| packet[1] ^= 4), [1, 1], "DSCP");
    assert_eq!(pair_of(V4, |packet| packet[6] ^= 0x40), [1, 1], "DF");
    assert_eq!(pair_of(V4, |packet| packet[6] ^= 0x80), [1, 1], "the reserved flag");
    assert_eq!(pair_of(V4, |packet| packet[8] -= 1), [1, 1], "TTL");
    assert_eq!(pair_of(V4, |packet| packet[15] ^= 1), [1, 1], "source");
    assert_eq!(pair_of(V4, |packet| packet[19] ^= 1), [1, 1], "destination");
    assert_eq!(pair_of(V6, |packet| packet[1] ^= 0x30), [1, 1], "ECN");
    assert_eq!(pair_of(V6, |packet| packet[0] ^= 1), [1, 1], "DSCP");
    assert_eq!(pair_of(V6, |packet| packet[3] ^= 1), [1, 1], "flow label");
    assert_eq!(pair_of(V6, |packet| packet[7] -= 1), [1, 1], "hop limit");
    assert_eq!(pair_of(V6, |packet| packet[23] ^= 1), [1, 1], "source");
    assert_eq!(pair_of(V6, |packet| packet[39] ^= 1), [1, 1], "destination");
}

#[test]
fn the_ipv4_identification_has_to_count_up() {
    for ident in [0xfffe, 0, 0xfffd] {
        let edit = |packet: &mut [u8]| packet[4..6].copy_from_slice(&u16::to_be_bytes(ident));
        assert_eq!(pair_of(V4, edit), [1, 1], "0xfffe, {ident:#x}");
    }
}

#[test]
fn packets_that_may_be_fragmented_are_merged_and_fragments_are_not() {
    let mut packets = stream(V4, 2);
    packets.iter_mut().for_each(|packet| edit_ip(packet, |header| header[6] = 0));
    assert_eq!(merged(&packets), [2]);
    for (at, value) in [(6, 0x20), (7, 1)] {
        let mut fragments = packets.clone();
        fragments.iter_mut().for_each(|packet| edit_ip(packet, |header| header[at] = value));
        assert_eq!(merged(&fragments), [1, 1]);
    }
}

#[test]
fn ip_options_and_extension_headers_stay_alone() {
    let segments = [Tcp::new(1, &[1; 100]), Tcp::new(101, &[2; 100])].map(|tcp| tcp.bytes());
    let v4 = segments.each_ref().map(|tcp| {
        let mut packet = samples::ipv4_with_options(6, &[1; 4], tcp);
        fill_checksum(&mut packet, 24, true);
        packet
    });
    assert_eq!(merged(&v4), [1, 1]);
    let v6 = segments.map(|tcp| {
        let mut packet = samples::ipv6(60, &[&[6, 0, 1, 4, 0, 0, 0, 0], &tcp[..]].concat());
        fill_checksum(&mut packet, 48, true);
        packet
    });
    assert_eq!(merged(&v6), [1, 1]);
}

#[test]
fn what_belongs_to_no_flow_passes_behind_all_between_the_same_ends() {
    let ping = packet(V4, 5, 1, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
    let mut packets = stream(V4, 4);
    packets.insert(2, ping.clone());
    assert_eq!(merged(&packets), [2, 1, 2]);
    // Others are not concerned.
    let mut packets = stream(V6, 4);
    packets.insert(2, ping.clone());
    assert_eq!(seen(&written(&packets))[0], ping);
    assert_eq!(written(&packets).len(), 2);
}

#[test]
fn a_wrong_checksum_is_never_made_right() {
    for family in [V4, V6] {
        for bad in [0, 1, 2] {
            let mut packets = stream(family, 3);
            packets[bad][transport(family) + 40] ^= 1;
            let expected = [vec![1, 2], vec![1, 1, 1], vec![2, 1]][bad].clone();
            assert_eq!(merged(&packets), expected, "{family:?}, packet {bad}");
        }
    }
    let mut packets = stream(V4, 2);
    packets[1][11] ^= 1;
    assert_eq!(merged(&packets), [1, 1], "of an IPv4 header");
}

#[test]
fn the_zero_that_is_not_written_anew_stays_alone() {
    // TCP: 0xFFFF. What is missing to the checksum goes into the payload.
    let mut packets = stream(V4, 2);
    let missing = u16::from_be_bytes([packets[1][36], packets[1][37]]);
    let word = u16::from_be_bytes([packets[1][52], packets[1][53]]);
    packets[1][52..54].copy_from_slice(&checksum::combine(&[word, missing]).to_be_bytes());
    packets[1][36..38].fill(0);
    assert_eq!(merged(&packets), [2]);
    packets[1][36..38].fill(0xff);
    assert!(samples::verify_checksum(&packets[1], 20, true));
    assert_eq!(merged(&packets), [1, 1]);
    // UDP: none at all.
    let mut packets = [udp(V4, 1, b"hello"), udp(V4, 2, b"world")];
    assert_eq!(merged(&packets), [2]);
    packets[1][26..28].fill(0);
    assert_eq!(merged(&packets), [1, 1]);
}

#[test]
fn lengths_that_contradict_each_other_stay_alone() {
    type Edit = fn(&mut Vec<u8>);
    let edits: [(&str, Edit); 4] = [
        ("a byte behind", |packet| packet.push(0)),
        ("a byte missing", |packet| packet.truncate(packet.len() - 1)),
        ("TCP header too short", |packet| packet[32] = 0x40),
        ("TCP header too long", |packet| packet[32] = 0xf0),
    ];
    for (what, edit) in edits {
        let mut packets = stream(V4, 2);
        edit(&mut packets[1]);
        assert_eq!(merged(&packets), [1, 1], "{what}");
    }
    let mut packets = [udp(V6, 1, b"hello"), udp(V6, 2, b"world")];
    packets[1][45] -= 1;
    fill_checksum(&mut packets[1], 40, false);
    assert_eq!(merged(&packets), [1, 1], "UDP length");
}

#[test]
fn a_super_packet_ends_before_it_is_too_long() {
    let packets =
        Vec::from_iter((0..60).map(|at| tcp(V6, 0, &Tcp::new(1 + at * 1400, &[at as u8; 1400]))));
    // (65,535 - 72) / 1400
    assert_eq!(merged(&packets), [46, 14]);
}

#[test]
fn a_super_packet_ends_where_its_buffer_does() {
    let mut written = Written::new();
    let mut small = coalescer(&[400], true);
    let write: &mut Write<'_> = &mut |offload, packet| written.push((*offload, packet.to_vec()));
    let packets = stream(V4, 5);
    packets.iter().for_each(|packet| small.push(packet, write));
    small.push(&packet(V4, 1, 6, &Tcp::new(1, &[9; 400]).bytes()), write);
    small.flush(write);
    let lengths = Vec::from_iter(written.iter().map(|(_, packet)| packet.len()));
    assert_eq!(lengths, [352, 252, 452], "the last never fits");
}

#[test]
fn datagrams_of_one_size_become_one_super_packet() {
    for family in [V4, V6] {
        let sized = |sizes: &[usize]| {
            let datagram = |(at, size): (usize, &usize)| udp(family, at as u16, &vec![4; *size]);
            Vec::from_iter(sizes.iter().enumerate().map(datagram))
        };
        assert_eq!(merged(&sized(&[50; 10])), [10]);
        assert_eq!(merged(&sized(&[50, 50, 49, 50, 50])), [3, 2], "a shorter one is the last");
        assert_eq!(merged(&sized(&[50, 51])), [1, 1]);
        assert_eq!(merged(&sized(&[50, 0, 50])), [1, 1, 1], "an empty one would be lost");
        assert_eq!(merged(&sized(&[20; 65])), [64, 1]);
    }
    let (offload, bytes) = written(&[udp(V4, 1, b"hello"), udp(V4, 2, b"world")]).remove(0);
    let checksum = Some(PartialChecksum { start: 20, offset: 6 });
    let expected =
        Offload { gso: Some(Gso::Udp), ecn: false, header_len: 28, segment_len: 5, checksum };
    assert_eq!(offload, expected);
    assert_eq!(bytes[24..26], [0, 18]);
}

#[test]
fn datagrams_pass_one_by_one_to_a_host_that_takes_no_super_packets_of_them() {
    let packets = [udp(V4, 1, b"hello"), udp(V4, 2, b"world")];
    let mut written = Vec::new();
    let mut coalescer = coalescer(&[MAX_LEN], false);
    packets
        .iter()
        .for_each(|packet| coalescer.push(packet, &mut |_, one| written.push(one.to_vec())));
    assert_eq!(written, packets, "at once");
}

/// One packet of a random mix: mostly the next of its flow.
#[derive(Debug, Clone)]
struct Step {
    flow: usize,
    size: usize,
    /// What is unusual about it, most often nothing.
    quirk: u8,
    batch_ends: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![8 => Just(100_usize), 1 => 0..140_usize, 1 => Just(1400)];
    let quirk = prop_oneof![4 => Just(0_u8), 1 => 1..24_u8];
    let batch_ends = prop::bool::weighted(0.05);
    (0..4_usize, size, quirk, batch_ends).prop_map(|(flow, size, quirk, batch_ends)| Step {
        flow,
        size,
        quirk,
        batch_ends,
    })
}

/// The packets of four flows, each with its own state, as the steps say.
fn mix(steps: &[Step]) -> Vec<Vec<u8>> {
    let mut next = [(0xffff_ff00_u32, 0xfff0_u16); 4];
    let mut packet_of = |step: &Step| {
        let (sequence, ident) = &mut next[step.flow];
        let family = [V4, V6][step.flow % 2];
        let is_tcp = step.flow < 2;
        let payload = vec![step.quirk; step.size];
        let mut segment = Tcp::new(*sequence, &payload);
        *sequence = sequence.wrapping_add(step.size as u32);
        *ident = ident.wrapping_add(1);
        match step.quirk {
            1..=8 => segment.flags ^= 1 << (step.quirk - 1),
            9 => segment.sequence ^= 1,
            10 => segment.acknowledgement += 1,
            11 => segment.window -= 1,
            12 => segment.options[7] += 1,
            13 => segment.options.clear(),
            14 => segment.urgent = 5,
            15 => *ident = ident.wrapping_sub(1),
            _ => {}
        }
        let mut packet =
            if is_tcp { tcp(family, *ident, &segment) } else { udp(family, *ident, &payload) };
        let last = packet.len() - 1;
        match step.quirk {
            16 => packet[last] ^= 1,
            17 => packet.push(0),
            18 => edit_ip(&mut packet, |header| header[1] ^= 0x10),
            19 => edit_ip(&mut packet, |header| header[transport(family) - 13] ^= 1),
            20 => edit_ip(&mut packet, |header| header[6] ^= 0x20),
            21 if is_tcp => packet[transport(family) + 12] ^= 0x10,
            22 if family == V4 => packet[10] ^= 1,
            _ => {}
        }
        packet
    };
    steps.iter().map(&mut packet_of).collect()
}

/// Packets that no host tells apart by their order: those of other flows.
fn flow_key(packet: &[u8]) -> Vec<u8> {
    Flow::of(packet)
        .map_or(Vec::new(), |flow| [flow.addresses, &[flow.protocol], flow.ports].concat())
}

proptest! {
    #[test]
    fn split_again_it_is_what_went_in_byte_for_byte_and_flow_for_flow(
        steps in prop::collection::vec(step(), 1..120),
        rooms in prop::collection::vec(prop_oneof![Just(MAX_LEN), Just(1000)], 0..5),
        uses_udp: bool,
    ) {
        let packets = mix(&steps);
        let mut written = Written::new();
        let mut coalescer = coalescer(&rooms, uses_udp);
        let write: &mut Write<'_> =
            &mut |offload, packet| written.push((*offload, packet.to_vec()));
        for (packet, step) in packets.iter().zip(&steps) {
            coalescer.push(packet, write);
            if step.batch_ends {
                coalescer.flush(write);
            }
        }
        coalescer.flush(write);

        let mut seen = seen(&written);
        let mut packets = packets;
        // A stable sort: the order within a flow stays.
        seen.sort_by_key(|packet| flow_key(packet));
        packets.sort_by_key(|packet| flow_key(packet));
        prop_assert_eq!(seen, packets);
    }

    #[test]
    fn arbitrary_packets_never_panic_and_pass(
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..8),
    ) {
        let packets = packets.into_iter().map(|mut packet| {
            if let Some(first) = packet.first_mut() {
                *first = [0x45, 0x46, 0x60, *first][usize::from(*first % 4)];
            }
            packet
        });
        let mut packets = Vec::from_iter(packets);
        let mut seen = seen(&written(&packets));
        seen.sort();
        packets.sort();
        prop_assert_eq!(seen, packets);
    }
}

#[test]
fn what_is_merged_is_again_what_segments_takes() {
    let packets = stream(V4, 3);
    let (mut offload, bytes) = written(&packets).remove(0);
    offload.segment_len = 0;
    assert_eq!(Segments::new(&bytes, &offload).err(), Some(Discard::Malformed));
}
