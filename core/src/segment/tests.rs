use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::offload::PartialChecksum;
use crate::wire::samples::{self, Tcp, fill_checksum, verify_checksum};

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;
const CWR: u8 = 0x80;

/// `len` bytes that do not repeat with any even period.
fn text(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

/// A super-packet as Linux gives it: its checksum covers the pseudo-header with its whole length.
fn super_packet(mut packet: Vec<u8>, transport: usize, gso: Gso, segment_len: u16) -> Super {
    let (protocol, field) = if gso == Gso::Udp { (17, 6) } else { (6, 16) };
    let addresses = if packet[0] >> 4 == 4 { &packet[12..20] } else { &packet[8..40] };
    let upper_len = u16::try_from(packet.len() - transport).unwrap();
    let sum = checksum::pseudo_header(addresses, protocol, upper_len);
    packet[transport + field..][..2].copy_from_slice(&sum.to_be_bytes());
    let start = u16::try_from(transport).unwrap();
    let checksum = Some(PartialChecksum { start, offset: field as u16 });
    let offload = Offload { gso: Some(gso), segment_len, checksum, ..Offload::default() };
    Super { packet, offload, transport }
}

#[derive(Debug, Clone)]
struct Super {
    packet: Vec<u8>,
    offload: Offload,
    transport: usize,
}

impl Super {
    fn tcp_v4(tcp: &Tcp, segment_len: u16) -> Super {
        super_packet(samples::ipv4(6, &tcp.bytes()), 20, Gso::TcpV4, segment_len)
    }

    fn tcp_v6(tcp: &Tcp, segment_len: u16) -> Super {
        super_packet(samples::ipv6(6, &tcp.bytes()), 40, Gso::TcpV6, segment_len)
    }

    fn udp_v4(payload: &[u8], segment_len: u16) -> Super {
        let udp = samples::udp([5000, 6000], payload);
        super_packet(samples::ipv4(17, &udp), 20, Gso::Udp, segment_len)
    }

    fn refusal(&self) -> Option<Discard> {
        Segments::new(&self.packet, &self.offload).err()
    }

    /// All segments, each of them checked as its receiver does.
    fn segments(&self) -> Vec<Vec<u8>> {
        let mut segments = Segments::new(&self.packet, &self.offload).unwrap();
        let (mut all, mut out) = (Vec::new(), vec![0xaa; 70_000]);
        while let Some(len) = segments.next_into(&mut out).unwrap() {
            let segment = out[..len].to_vec();
            assert_eq!(Layout::of(&segment).unwrap().packet.len(), len);
            if segment[0] >> 4 == 4 {
                assert!(Ipv4Packet::new_unchecked(&segment[..]).verify_checksum());
            }
            let is_tcp = self.offload.gso != Some(Gso::Udp);
            assert!(verify_checksum(&segment, self.transport, is_tcp));
            all.push(segment);
        }
        assert_eq!(segments.next_into(&mut out), Ok(None), "the end stays the end");
        all
    }
}

fn tcp_of(segment: &[u8], transport: usize) -> TcpPacket<&[u8]> {
    TcpPacket::new_checked(&segment[transport..]).unwrap()
}

/// What a sender without offloads would have sent.
fn by_hand_v4(tcp: &Tcp, segment_len: usize) -> Vec<Vec<u8>> {
    let parts = tcp.payload.chunks(segment_len).enumerate();
    let segment = |(at, payload): (usize, &[u8])| {
        let sequence = tcp.sequence.wrapping_add((at * segment_len) as u32);
        let part = Tcp { sequence, payload: payload.to_vec(), ..tcp.clone() };
        let mut packet = samples::ipv4(6, &part.bytes());
        samples::edit_ipv4(&mut packet, |ip| ip.set_ident(ip.ident() + at as u16));
        fill_checksum(&mut packet, 20, true);
        packet
    };
    parts.map(segment).collect()
}

#[test]
fn tcp_over_ipv4_becomes_what_a_sender_without_offloads_sends() {
    let tcp = Tcp::new(0xffff_fc00, &text(3001));
    let segments = Super::tcp_v4(&tcp, 1000).segments();
    assert_eq!(segments.len(), 4);
    assert_eq!(segments, by_hand_v4(&tcp, 1000), "the sequence number wraps");
}

#[test]
fn ip_options_go_with_every_segment() {
    let tcp = Tcp::new(1, &text(300));
    let router_alert = [148, 4, 0, 0];
    let packet = samples::ipv4_with_options(6, &router_alert, &tcp.bytes());
    let segments = super_packet(packet, 24, Gso::TcpV4, 100).segments();
    assert_eq!(segments.len(), 3);
    assert!(segments.iter().all(|segment| segment[20..24] == router_alert));
}

#[test]
fn the_ipv4_identification_counts_up_and_wraps() {
    let mut packet = samples::ipv4(6, &Tcp::new(1, &text(300)).bytes());
    samples::edit_ipv4(&mut packet, |ip| ip.set_ident(0xffff));
    let segments = super_packet(packet, 20, Gso::TcpV4, 100).segments();
    let idents = segments.iter().map(|segment| [segment[4], segment[5]]);
    assert_eq!(Vec::from_iter(idents), [[0xff, 0xff], [0, 0], [0, 1]]);
}

#[test]
fn tcp_over_ipv6_keeps_its_flow_label_and_traffic_class() {
    let mut super_packet = Super::tcp_v6(&Tcp::new(5, &text(250)), 100);
    super_packet.packet[..4].copy_from_slice(&[0x6a, 0xbc, 0xde, 0xf1]);
    let segments = super_packet.segments();
    assert_eq!(Vec::from_iter(segments.iter().map(Vec::len)), [172, 172, 122]);
    assert!(segments.iter().all(|segment| segment[..4] == [0x6a, 0xbc, 0xde, 0xf1]));
    let sequences = segments.iter().map(|segment| tcp_of(segment, 40).seq_number().0);
    assert_eq!(Vec::from_iter(sequences), [5, 105, 205]);
}

#[test]
fn ipv6_extension_headers_go_with_every_segment() {
    let extensions = [60, 0, 1, 4, 0, 0, 0, 0, 6, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let upper = [&extensions[..], &Tcp::new(1, &text(250)).bytes()].concat();
    let segments = super_packet(samples::ipv6(0, &upper), 64, Gso::TcpV6, 100).segments();
    assert_eq!(segments.len(), 3);
    assert!(segments.iter().all(|segment| segment[40..64] == extensions));
}

#[test]
fn behind_a_routing_header_the_pseudo_header_is_the_one_that_the_host_summed() {
    // One segment left: the IP header names the next hop, the pseudo-header the last (RFC 8200 §8.1).
    let last = [0xfd; 16];
    let routing = [&[6, 2, 2, 1, 0, 0, 0, 0], &last[..]].concat();
    let upper = [&routing[..], &Tcp::new(1, &text(150)).bytes()].concat();
    let mut routed = super_packet(samples::ipv6(43, &upper), 64, Gso::TcpV6, 100);
    let source = routed.packet[8..24].to_vec();
    let sum = checksum::pseudo_header(&[&source[..], &last].concat(), 6, 182);
    routed.packet[64 + 16..][..2].copy_from_slice(&sum.to_be_bytes());

    let mut segments = Segments::new(&routed.packet, &routed.offload).unwrap();
    let mut out = [0; 300];
    while let Some(len) = segments.next_into(&mut out).unwrap() {
        let mut arrived = out[..len].to_vec();
        arrived[24..40].copy_from_slice(&last);
        assert!(verify_checksum(&arrived, 64, true));
    }
    routed.offload.checksum = None;
    assert_eq!(routed.refusal(), Some(Discard::Malformed), "nothing to sum the last hop from");
    routed.packet[43] = 0;
    assert_eq!(routed.refusal(), None, "no segments left: the destination is the last hop");
}

#[test]
fn udp_becomes_datagrams_of_one_size_and_a_last_of_the_rest() {
    let segments = Super::udp_v4(&text(2501), 1001).segments();
    assert_eq!(Vec::from_iter(segments.iter().map(Vec::len)), [1029, 1029, 527]);
    let lengths = segments.iter().map(|segment| u16::from_be_bytes([segment[24], segment[25]]));
    assert_eq!(Vec::from_iter(lengths), [1009, 1009, 507]);
    let payload = segments.iter().flat_map(|segment| segment[28..].to_vec());
    assert_eq!(Vec::from_iter(payload), text(2501));
}

#[test]
fn a_udp_checksum_of_zero_is_sent_as_ffff() {
    let mut payload = text(200);
    let first = Super::udp_v4(&payload, 100).segments().remove(0);
    // What is missing to the checksum goes into the payload: then nothing is missing.
    let missing = u16::from_be_bytes([first[26], first[27]]);
    let word = u16::from_be_bytes([payload[0], payload[1]]);
    payload[..2].copy_from_slice(&checksum::combine(&[word, missing]).to_be_bytes());
    assert_eq!(Super::udp_v4(&payload, 100).segments()[0][26..28], [0xff, 0xff]);
}

#[test]
fn cwr_stays_on_the_first_segment_fin_and_psh_on_the_last_all_else_on_all() {
    let tcp = Tcp { flags: ACK | CWR | FIN | PSH | 0x40, ..Tcp::new(1, &text(300)) };
    let segments = Super::tcp_v4(&tcp, 100).segments();
    let flags = segments.iter().map(|segment| segment[33]);
    assert_eq!(Vec::from_iter(flags), [ACK | 0x40 | CWR, ACK | 0x40, ACK | 0x40 | FIN | PSH]);
}

#[test]
fn the_urgent_pointer_ends_where_it_did() {
    let tcp = Tcp { flags: ACK | URG, urgent: 150, ..Tcp::new(1, &text(300)) };
    let segments = Super::tcp_v4(&tcp, 100).segments();
    let urgent = segments.iter().map(|segment| {
        let tcp = tcp_of(segment, 20);
        (tcp.urg(), tcp.urgent_at())
    });
    assert_eq!(Vec::from_iter(urgent), [(true, 150), (true, 50), (false, 0)]);
}

#[test]
fn a_super_packet_without_partial_checksum_gets_one_from_its_addresses() {
    let tcp = Tcp::new(1, &text(300));
    let mut whole = Super::tcp_v4(&tcp, 100);
    whole.offload.checksum = None;
    whole.packet[36..38].fill(0x55);
    assert_eq!(whole.segments(), by_hand_v4(&tcp, 100));
}

#[test]
fn what_fits_one_segment_is_one() {
    let tcp = Tcp { flags: ACK | CWR | FIN | PSH, ..Tcp::new(1, &text(100)) };
    assert_eq!(Super::tcp_v4(&tcp, 100).segments(), by_hand_v4(&tcp, 100));
    assert_eq!(Super::tcp_v4(&tcp, 65_535).segments(), by_hand_v4(&tcp, 100));
    let empty = Tcp { flags: 0x02, ..Tcp::new(1, &[]) };
    assert_eq!(Super::tcp_v4(&empty, 100).segments().len(), 1, "a lone SYN");
}

#[test]
fn one_byte_segments_are_many_but_cost_no_memory() {
    let tcp = Tcp::new(1, &text(65_535 - 52));
    assert_eq!(Super::tcp_v4(&tcp, 1).segments().len(), 65_535 - 52);
}

#[test]
fn goes_on_where_the_room_ran_out() {
    let whole = Super::tcp_v4(&Tcp::new(1, &text(300)), 100);
    let mut segments = Segments::new(&whole.packet, &whole.offload).unwrap();
    let mut out = [0; 152];
    for expected in whole.segments() {
        assert_eq!(segments.next_into(&mut out[..151]), Err(Discard::NoRoom));
        assert_eq!(segments.next_into(&mut out), Ok(Some(152)));
        assert_eq!(out[..], expected);
    }
}

#[test]
fn the_header_length_that_the_kernel_claims_is_not_believed() {
    let tcp = Tcp::new(1, &text(300));
    for header_len in [0, 1, 20, 53, 300, 0xffff] {
        let mut whole = Super::tcp_v4(&tcp, 100);
        whole.offload.header_len = header_len;
        assert_eq!(whole.segments(), by_hand_v4(&tcp, 100));
    }
}

#[test]
fn bytes_behind_the_packet_are_none_of_it() {
    let tcp = Tcp::new(1, &text(300));
    let mut whole = Super::tcp_v4(&tcp, 100);
    whole.packet.extend([0xee; 9]);
    assert_eq!(whole.segments(), by_hand_v4(&tcp, 100));
}

#[test]
fn offloads_that_contradict_the_packet_are_refused() {
    let (v4, v6) = (Super::tcp_v4(&Tcp::new(1, &text(300)), 100), |gso| {
        let upper = Tcp::new(1, &text(300)).bytes();
        super_packet(samples::ipv6(6, &upper), 40, gso, 100)
    });
    assert_eq!(v4.refusal(), None);
    assert_eq!(v6(Gso::TcpV6).refusal(), None);
    type Edit = fn(&mut Offload);
    let refused: [(&str, Edit); 7] = [
        ("no super-packet", |offload| offload.gso = None),
        ("of the other IP version", |offload| offload.gso = Some(Gso::TcpV6)),
        ("of the other transport", |offload| offload.gso = Some(Gso::Udp)),
        ("segments of nothing", |offload| offload.segment_len = 0),
        ("a checksum in the payload", |offload| offload.checksum.as_mut().unwrap().start = 60),
        ("a checksum in the IP header", |offload| offload.checksum.as_mut().unwrap().start = 0),
        ("a checksum elsewhere", |offload| offload.checksum.as_mut().unwrap().offset = 6),
    ];
    for (what, edit) in refused {
        let mut bad = v4.clone();
        edit(&mut bad.offload);
        assert_eq!(bad.refusal(), Some(Discard::Malformed), "{what}");
    }
    assert_eq!(v6(Gso::TcpV4).refusal(), Some(Discard::Malformed));
}

#[test]
fn headers_that_contradict_themselves_are_refused() {
    let v4 = Super::tcp_v4(&Tcp::new(1, &text(300)), 100);
    let refused = [
        ("no IP version", 0, 0x35),
        ("IP header too short", 0, 0x44),
        ("longer than the packet", 2, 0xff),
        ("a first fragment", 6, 0x20),
        ("a later fragment", 7, 0x01),
        ("another protocol", 9, 47),
        ("TCP header too short", 32, 0x40),
        ("several segments with SYN", 33, 0x12),
        ("several segments with RST", 33, 0x14),
    ];
    for (what, at, value) in refused {
        let mut bad = v4.clone();
        bad.packet[at] = value;
        assert_eq!(bad.refusal(), Some(Discard::Malformed), "{what}");
    }
    let mut bad = Super::tcp_v4(&Tcp::new(1, &[]), 100);
    bad.packet[32] = 0xf0;
    assert_eq!(bad.refusal(), Some(Discard::Malformed), "TCP header longer than the packet");
    for udp_len in [7, 0, 307, 309] {
        let mut bad = Super::udp_v4(&text(300), 100);
        bad.packet[24..26].copy_from_slice(&u16::to_be_bytes(udp_len));
        assert_eq!(bad.refusal(), Some(Discard::Malformed), "UDP length {udp_len}");
    }
    for cut in 0..v4.packet.len() {
        let bad = Super { packet: v4.packet[..cut].to_vec(), ..v4.clone() };
        assert_eq!(bad.refusal(), Some(Discard::Malformed), "{cut} bytes");
    }
}

#[test]
fn ipv6_fragments_and_authenticated_packets_are_refused() {
    let tcp = Tcp::new(1, &text(300)).bytes();
    let atomic_fragment = [6, 0, 0, 0, 0, 0, 0, 1];
    let authentication = [6, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (next_header, extension) in [(44, &atomic_fragment[..]), (51, &authentication)] {
        let packet = samples::ipv6(next_header, &[extension, &tcp].concat());
        let bad = super_packet(packet, 40 + extension.len(), Gso::TcpV6, 100);
        assert_eq!(bad.refusal(), Some(Discard::Malformed), "next header {next_header}");
    }
}

proptest! {
    #[test]
    fn segments_are_what_a_sender_without_offloads_sends(
        sequence: u32,
        payload in prop::collection::vec(any::<u8>(), 1..4000),
        segment_len in 1u16..1500,
        ack: u32,
        words in 0usize..=10,
    ) {
        let options = vec![1; words * 4];
        let tcp = Tcp { acknowledgement: ack, options, ..Tcp::new(sequence, &payload) };
        let whole = Super::tcp_v4(&tcp, segment_len);
        prop_assert_eq!(whole.segments(), by_hand_v4(&tcp, segment_len.into()));
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        mut packet in prop::collection::vec(any::<u8>(), 0..200),
        version in 0usize..4, segment_len in 0u16..50, kind in 0usize..3, start in 0u16..70,
    ) {
        // Half of them as far as the transport header.
        if let (Some(first), true) = (packet.first_mut(), version < 2) {
            *first = [0x45, 0x60][version];
            let (at, protocol) = [(9, 6), (6, 17)][version];
            if let Some(field) = packet.get_mut(at) {
                *field = protocol;
            }
        }
        let gso = Some([Gso::TcpV4, Gso::TcpV6, Gso::Udp][kind]);
        let checksum = (start % 2 == 0).then_some(PartialChecksum { start, offset: 16 });
        let offload = Offload { gso, segment_len, checksum, ..Offload::default() };
        if let Ok(mut segments) = Segments::new(&packet, &offload) {
            let mut out = [0; 200];
            while segments.next_into(&mut out).unwrap().is_some() {}
        }
        let mut copy = packet.clone();
        let single = Offload { gso: None, ..offload };
        if single.complete_checksum(&mut copy).is_err() {
            prop_assert_eq!(copy, packet, "refused and changed");
        }
    }
}
