//! Packets are written twice: once with the old addresses and shifted, once with the new addresses
//! and every checksum computed by its definition. Both have to be the same, bit for bit.

use core::ops::Not;
use std::boxed::Box;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

/// A packet as it is meant, from which its bytes follow.
#[derive(Debug, Clone)]
struct Packet {
    source: IpAddr,
    destination: IpAddr,
    /// IPv4: words of options. IPv6: extension headers in front of the transport header.
    options: u8,
    extensions: Vec<Extension>,
    fragment: Fragment,
    upper: Upper,
}

#[derive(Debug, Clone)]
enum Extension {
    HopByHop,
    Destination(u8),
    Routing { left: u8, last: u128 },
    AtomicFragment,
    Authentication,
}

#[derive(Debug, Clone, PartialEq)]
enum Fragment {
    Whole,
    /// The first, with so many bytes following the transport checksum.
    First(usize),
    Later(u16),
}

#[derive(Debug, Clone)]
enum Upper {
    Tcp(Vec<u8>),
    Udp { data: Vec<u8>, none: bool },
    UdpLite { data: Vec<u8>, header_only: bool },
    Dccp(Vec<u8>),
    Query(Vec<u8>),
    Error { kind: usize, quote: Box<Packet>, cut: usize, extended: bool },
    Other(u8, Vec<u8>),
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The folded sum of RFC 1071, in wide arithmetic.
fn sum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u64::from(pair[0]) * 256 + u64::from(*pair.get(1).unwrap_or(&0));
    let mut total: u64 = bytes.chunks(2).map(word).sum();
    while total > 0xFFFF {
        total = (total & 0xFFFF) + (total >> 16);
    }
    total as u16
}

impl Packet {
    fn is_v4(&self) -> bool {
        self.source.is_ipv4()
    }

    fn pseudo_header(&self, protocol: u8, len: usize) -> Vec<u8> {
        let routed = self.extensions.iter().rev().find_map(|extension| match extension {
            Extension::Routing { left: 1.., last } => Some(Ipv6Addr::from_bits(*last).into()),
            _ => None,
        });
        let destination = if self.is_v4() { None } else { routed }.unwrap_or(self.destination);
        let mut bytes = octets(self.source);
        bytes.extend(octets(destination));
        bytes.extend((len as u32).to_be_bytes());
        bytes.extend([0, 0, 0, protocol]);
        bytes
    }

    /// The transport's protocol number, bytes and where its checksum lies.
    fn transport(&self, partial: bool) -> (u8, Vec<u8>, Option<usize>) {
        let with_header = |len: usize, data: &[u8]| {
            let mut bytes: Vec<u8> = (1..=len as u8).collect();
            bytes.extend(data);
            bytes
        };
        let (protocol, mut bytes, at) = match &self.upper {
            Upper::Tcp(data) => (6, with_header(20, data), 16),
            Upper::Udp { data, .. } => (17, with_header(8, data), 6),
            Upper::UdpLite { data, .. } => (136, with_header(8, data), 6),
            Upper::Dccp(data) => (33, with_header(12, data), 6),
            Upper::Query(data) => {
                let mut bytes = with_header(8, data);
                bytes[0] = if self.is_v4() { 8 } else { 128 };
                (if self.is_v4() { 1 } else { 58 }, bytes, 2)
            }
            Upper::Error { kind, quote, cut, extended } => {
                (if self.is_v4() { 1 } else { 58 }, self.error(*kind, quote, *cut, *extended), 2)
            }
            Upper::Other(protocol, data) => return (*protocol, data.clone(), None),
        };
        bytes[at..at + 2].fill(0);
        let pseudo = match (protocol, self.is_v4()) {
            (1, true) => vec![],
            _ => self.pseudo_header(protocol, bytes.len()),
        };
        let mut covered = pseudo.clone();
        covered.extend(match self.upper {
            Upper::UdpLite { header_only: true, .. } => &bytes[..8],
            _ => &bytes,
        });
        let value = match &self.upper {
            _ if partial => sum(&pseudo),
            Upper::Udp { none: true, .. } => 0,
            Upper::Udp { .. } | Upper::UdpLite { .. } if sum(&covered) == 0xFFFF => 0xFFFF,
            _ => sum(&covered).not(),
        };
        bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
        (protocol, bytes, Some(at))
    }

    /// The ICMP error of the given kind, its checksum still missing.
    fn error(&self, kind: usize, quote: &Packet, cut: usize, extended: bool) -> Vec<u8> {
        let mut quoted = quote.bytes(false);
        quoted.truncate(cut);
        // A checksum that was cut in two cannot be corrected: it must not depend on addresses.
        if quote.transport(false).2.is_some_and(|at| quote.transport_at() + at + 1 == quoted.len())
        {
            *quoted.last_mut().unwrap() = 0x55;
        }
        let (kind, length) = match (self.is_v4(), kind % 5) {
            (true, n) => ([3, 11, 12, 4, 5][n], [Some((5, 4)), None][usize::from(n > 2)]),
            (false, n) => ([1, 3, 2, 4, 1][n], [Some((4, 8)), None][usize::from(n == 2 || n == 3)]),
        };
        let mut bytes = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        if let (true, Some((at, unit))) = (extended, length) {
            quoted.resize(128, 0);
            bytes[at] = 128 / unit;
            quoted.extend((0..40).map(|n| 0x20 + n));
        }
        bytes.extend(quoted);
        bytes
    }

    fn bytes(&self, partial: bool) -> Vec<u8> {
        let (protocol, mut upper, checksum) = self.transport(partial);
        match self.fragment {
            Fragment::First(more) => upper.truncate(checksum.unwrap_or(0) + 2 + more),
            Fragment::Later(_) => drop(upper.drain(..checksum.map_or(0, |at| at + 2))),
            Fragment::Whole => {}
        }
        if self.is_v4() { self.v4(protocol, &upper) } else { self.v6(protocol, &upper) }
    }

    fn v4(&self, protocol: u8, upper: &[u8]) -> Vec<u8> {
        let header = 20 + 4 * usize::from(self.options);
        let flags = match self.fragment {
            Fragment::Whole => 0x4000,
            Fragment::First(_) => 0x2000,
            Fragment::Later(at) => at,
        };
        let mut bytes = vec![0x45 + self.options, 0];
        bytes.extend((header as u16 + upper.len() as u16).to_be_bytes());
        bytes.extend([0xAB, 0xCD]);
        bytes.extend(flags.to_be_bytes());
        bytes.extend([64, protocol, 0, 0]);
        bytes.extend(octets(self.source));
        bytes.extend(octets(self.destination));
        bytes.resize(header, 1);
        let checksum = !sum(&bytes);
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes.extend(upper);
        bytes
    }

    fn v6(&self, protocol: u8, upper: &[u8]) -> Vec<u8> {
        let mut chain: Vec<(u8, Vec<u8>)> = vec![];
        for extension in &self.extensions {
            chain.push(match extension {
                Extension::HopByHop => (0, vec![0, 0, 1, 4, 0, 0, 0, 0]),
                Extension::Destination(units) => {
                    let mut header = vec![0, *units];
                    header.resize(8 + 8 * usize::from(*units), 0);
                    (60, header)
                }
                Extension::Routing { left, last } => {
                    let mut header = vec![0, 2, 4, *left, 0, 0, 0, 0];
                    header.extend(last.to_be_bytes());
                    (43, header)
                }
                // The reserved byte looks like a length and is none.
                Extension::AtomicFragment => (44, vec![0, 0xFF, 0, 0, 1, 2, 3, 4]),
                Extension::Authentication => (51, vec![0, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 9, 9]),
            });
        }
        match self.fragment {
            Fragment::Whole => {}
            Fragment::First(_) => chain.push((44, vec![0, 0, 0, 1, 1, 2, 3, 4])),
            Fragment::Later(at) => {
                let [high, low] = (at << 3).to_be_bytes();
                chain.push((44, vec![0, 0, high, low, 1, 2, 3, 4]));
            }
        }
        let mut payload: Vec<u8> = vec![];
        for at in 0..chain.len() {
            let next = chain.get(at + 1).map_or(protocol, |(number, _)| *number);
            chain[at].1[0] = next;
            payload.extend(&chain[at].1);
        }
        payload.extend(upper);
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend((payload.len() as u16).to_be_bytes());
        bytes.extend([chain.first().map_or(protocol, |(number, _)| *number), 64]);
        bytes.extend(octets(self.source));
        bytes.extend(octets(self.destination));
        bytes.extend(payload);
        bytes
    }

    /// Where the transport header begins.
    fn transport_at(&self) -> usize {
        let fragment = match self.fragment {
            Fragment::First(_) => Fragment::First(1000),
            _ => Fragment::Whole,
        };
        let all = Packet { fragment, ..self.clone() };
        all.bytes(false).len() - all.transport(false).1.len()
    }

    fn needs_csum(&self) -> Checksum {
        Checksum::Partial { start: self.transport_at() }
    }

    fn moved(&self, end: End, to: &dyn Fn(IpAddr) -> IpAddr) -> Packet {
        let mut moved = self.clone();
        let address = match end {
            End::Source => &mut moved.source,
            End::Destination => &mut moved.destination,
        };
        *address = to(*address);
        if let Upper::Error { quote, cut, .. } = &mut moved.upper {
            // An address that was cut in two cannot be shifted.
            let needed = match (quote.is_v4(), end) {
                (true, End::Source) => 20,
                (true, End::Destination) => 16,
                (false, End::Source) => 40,
                (false, End::Destination) => 24,
            };
            if *cut >= needed {
                **quote = quote.moved(end.opposite(), to);
            }
        }
        moved
    }
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..150)
}

fn extension() -> impl Strategy<Value = Extension> {
    prop_oneof![
        Just(Extension::HopByHop),
        (0..12_u8).prop_map(Extension::Destination),
        (0..3_u8, any::<u128>()).prop_map(|(left, last)| Extension::Routing { left, last }),
        Just(Extension::AtomicFragment),
    ]
}

fn fragment() -> impl Strategy<Value = Fragment> {
    prop_oneof![
        4 => Just(Fragment::Whole),
        1 => (0..40_usize).prop_map(Fragment::First),
        1 => (1..0x1FFF_u16).prop_map(Fragment::Later),
    ]
}

fn plain_upper() -> impl Strategy<Value = Upper> {
    prop_oneof![
        3 => data().prop_map(Upper::Tcp),
        3 => (data(), any::<bool>()).prop_map(|(data, none)| Upper::Udp { data, none }),
        1 => (data(), any::<bool>())
            .prop_map(|(data, header_only)| Upper::UdpLite { data, header_only }),
        1 => data().prop_map(Upper::Dccp),
        2 => data().prop_map(Upper::Query),
        // IGMP, ESP, AH, GRE, SCTP, no next header: nothing that we correct.
        1 => (prop::sample::select(vec![2_u8, 50, 51, 47, 132, 59]), data())
            .prop_map(|(protocol, data)| Upper::Other(protocol, data)),
    ]
}

fn packet_of(v4: bool, upper: impl Strategy<Value = Upper>) -> impl Strategy<Value = Packet> {
    let address = move |bits: u128| match v4 {
        true => Ipv4Addr::from_bits(bits as u32).into(),
        false => Ipv6Addr::from_bits(bits).into(),
    };
    let extensions = prop::collection::vec(extension(), 0..4);
    (any::<[u128; 2]>(), 0..11_u8, extensions, fragment(), upper).prop_map(
        move |([source, destination], options, extensions, fragment, upper)| Packet {
            source: address(source),
            destination: address(destination),
            options,
            extensions,
            fragment,
            upper,
        },
    )
}

fn error(v4: bool) -> impl Strategy<Value = Upper> {
    let cut = prop_oneof![0..60_usize, 0..400_usize];
    (0..5_usize, packet_of(v4, plain_upper()), cut, any::<bool>()).prop_map(
        |(kind, quote, cut, extended)| Upper::Error {
            kind,
            quote: Box::new(quote),
            cut: if extended && kind < 3 { 128 } else { cut },
            extended: extended && kind < 2,
        },
    )
}

fn packet() -> impl Strategy<Value = Packet> {
    any::<bool>().prop_flat_map(|v4| {
        prop_oneof![
            packet_of(v4, plain_upper()).boxed(),
            // A fragment of an error may end anywhere, which `cut` already tries.
            packet_of(v4, error(v4))
                .prop_map(|packet| Packet { fragment: Fragment::Whole, ..packet })
                .boxed(),
        ]
    })
}

fn offset() -> impl Strategy<Value = Offset> {
    let one_bit = (0..32_u32, 0..128_u32).prop_map(|(v4, v6)| Offset::new(1 << v4, 1 << v6));
    prop_oneof![any::<(u32, u128)>().prop_map(|(v4, v6)| Offset::new(v4, v6)), one_bit]
}

const OFFSET: Offset = Offset::new(0x0000_0100, 1 << 64);

fn v4(text: &str) -> IpAddr {
    text.parse::<Ipv4Addr>().unwrap().into()
}

fn between(source: &str, destination: &str, upper: Upper) -> Packet {
    Packet {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        options: 0,
        extensions: vec![],
        fragment: Fragment::Whole,
        upper,
    }
}

#[test]
fn addresses_move_and_wrap() {
    assert_eq!(OFFSET.to_host(v4("10.0.0.160")), v4("10.0.1.160"));
    assert_eq!(OFFSET.to_wire(v4("10.0.1.160")), v4("10.0.0.160"));
    assert_eq!(OFFSET.to_host(v4("255.255.255.7")), v4("0.0.0.7"));
    assert_eq!(OFFSET.to_wire(v4("0.0.0.7")), v4("255.255.255.7"));
    let v6 = |text: &str| text.parse::<Ipv6Addr>().unwrap().into();
    assert_eq!(OFFSET.to_host(v6("fd00:0:0:9::1")), v6("fd00:0:0:a::1"));
    assert_eq!(OFFSET.to_wire(v6("::5")), v6("ffff:ffff:ffff:ffff::5"));
}

#[test]
fn zero_is_told_per_version() {
    assert!(
        Offset::default().is_zero(IpVersion::Ipv4) && Offset::default().is_zero(IpVersion::Ipv6)
    );
    let only_v4 = Offset::new(1, 0);
    assert!(!only_v4.is_zero(IpVersion::Ipv4) && only_v4.is_zero(IpVersion::Ipv6));
}

#[test]
fn a_ping_to_a_same_subnet_peer_and_its_reply() {
    let query = |source, destination| between(source, destination, Upper::Query(vec![7; 56]));
    let mut packet = query("10.0.0.161", "10.0.1.160").bytes(false);
    OFFSET.shift_destination(&mut packet, Checksum::Full).unwrap();
    assert_eq!(packet, query("10.0.0.161", "10.0.0.160").bytes(false));
    let mut packet = query("10.0.0.160", "10.0.0.161").bytes(false);
    OFFSET.shift_source(&mut packet, Checksum::Full).unwrap();
    assert_eq!(packet, query("10.0.1.160", "10.0.0.161").bytes(false));
}

#[test]
fn udp_without_checksum_stays_so() {
    for (source, destination) in [("10.0.0.161", "10.0.1.160"), ("fd00::1", "fd00:0:0:1::2")] {
        let udp = Upper::Udp { data: vec![1, 2, 3], none: true };
        let packet = between(source, destination, udp);
        let mut bytes = packet.bytes(false);
        OFFSET.shift_destination(&mut bytes, Checksum::Full).unwrap();
        let at = packet.transport_at() + 6;
        assert_eq!(bytes[at..at + 2], [0, 0]);
    }
}

#[test]
fn a_udp_checksum_that_becomes_zero_is_sent_as_ffff() {
    let udp = |filler: u16| Upper::Udp { data: filler.to_be_bytes().to_vec(), none: false };
    let wanted = (0..=u16::MAX).find_map(|filler| {
        let after = between("10.0.0.161", "10.0.0.160", udp(filler)).bytes(false);
        (after[26..28] == [0xFF, 0xFF]).then_some((filler, after))
    });
    let (filler, after) = wanted.unwrap();
    let mut bytes = between("10.0.0.161", "10.0.1.160", udp(filler)).bytes(false);
    OFFSET.shift_destination(&mut bytes, Checksum::Full).unwrap();
    assert_eq!(bytes, after);
}

#[test]
fn an_inner_partial_checksum_leaves_ours_a_full_one() {
    // A kernel that runs VXLAN over us: NEEDS_CSUM means the TCP inside, the outer UDP is complete.
    let udp = Upper::Udp { data: vec![3; 90], none: false };
    let packet = between("10.0.0.161", "10.0.1.160", udp.clone());
    let mut bytes = packet.bytes(false);
    OFFSET.shift_destination(&mut bytes, Checksum::Partial { start: 28 + 8 + 34 }).unwrap();
    assert_eq!(bytes, between("10.0.0.161", "10.0.0.160", udp).bytes(false));
}

#[test]
fn an_authentication_header_ends_the_walk() {
    let mut packet = between("fd00::1", "fd00:0:0:1::2", Upper::Tcp(vec![5; 40]));
    packet.extensions = vec![Extension::Authentication];
    let before = packet.bytes(false);
    let mut bytes = before.clone();
    OFFSET.shift_destination(&mut bytes, Checksum::Full).unwrap();
    assert_eq!(bytes[24..40], [0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    assert_eq!(bytes[40..], before[40..]);
}

#[test]
fn what_lies_behind_the_packet_is_not_touched() {
    let packet = between("10.0.0.161", "10.0.1.160", Upper::Other(6, vec![]));
    let mut bytes = packet.bytes(false);
    bytes.extend([0x11; 40]);
    let before = bytes.clone();
    assert_eq!(OFFSET.shift_destination(&mut bytes, Checksum::Full), Err(Discard::Malformed));
    assert_eq!(bytes, before);
    let packet = between("10.0.0.161", "10.0.1.160", Upper::Query(vec![]));
    let mut bytes = packet.bytes(false);
    bytes.extend([0x11; 40]);
    OFFSET.shift_destination(&mut bytes, Checksum::Full).unwrap();
    assert_eq!(bytes[28..], [0x11; 40]);
}

/// An ICMPv4 "destination unreachable" of any content.
fn unreachable_quoting(quote: &[u8], destination: &str) -> Vec<u8> {
    let mut icmp = vec![3, 1, 0, 0, 0, 0, 0, 0];
    icmp.extend(quote);
    let checksum = !sum(&icmp);
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    between("10.0.0.161", destination, Upper::Other(1, icmp)).bytes(false)
}

/// What becomes of `quote` in an outbound error.
fn shifted_quote(quote: &[u8]) -> Vec<u8> {
    let mut bytes = unreachable_quoting(quote, "10.0.1.160");
    OFFSET.shift_destination(&mut bytes, Checksum::Full).unwrap();
    let quote = bytes[28..].to_vec();
    assert_eq!(bytes, unreachable_quoting(&quote, "10.0.0.160"), "the checksum around it");
    quote
}

#[test]
fn a_quote_of_something_else_is_left_alone() {
    let mut short_header = between("10.0.1.160", "10.0.0.161", Upper::Tcp(vec![])).bytes(false);
    short_header[0] = 0x44;
    let v6 = between("fd00::1", "fd00::2", Upper::Tcp(vec![]));
    for quote in [short_header, v6.bytes(false), vec![0xFF; 50], vec![0x45]] {
        assert_eq!(shifted_quote(&quote), quote);
    }
    let v4 = between("10.0.1.160", "10.0.0.161", Upper::Tcp(vec![5; 20]));
    let upper = Upper::Error { kind: 0, quote: Box::new(v4), cut: 60, extended: false };
    let mut bytes = between("fd00::1", "fd00:0:0:1::2", upper.clone()).bytes(false);
    OFFSET.shift_destination(&mut bytes, Checksum::Full).unwrap();
    assert_eq!(bytes, between("fd00::1", "fd00::2", upper).bytes(false));
}

#[test]
fn bytes_behind_a_quoted_packet_are_not_taken_for_its_transport_header() {
    let quoted = |source| {
        let mut bytes = between(source, "10.0.0.161", Upper::Other(6, vec![1; 8])).bytes(false);
        bytes.extend([0x22; 40]);
        bytes
    };
    assert_eq!(shifted_quote(&quoted("10.0.1.160")), quoted("10.0.0.160"));
}

#[test]
fn a_quote_whose_length_is_nonsense_has_its_address_shifted_all_the_same() {
    let mut quote = between("10.0.1.160", "10.0.0.161", Upper::Tcp(vec![])).bytes(false);
    quote[2..4].fill(0);
    assert_eq!(shifted_quote(&quote)[12..16], [10, 0, 0, 160]);
}

#[test]
fn a_transport_header_that_ends_inside_its_checksum_is_refused_unchanged() {
    for (protocol, len) in [(6, 17), (17, 7), (136, 7), (33, 7), (1, 3)] {
        let upper = Upper::Other(protocol, vec![8; len]);
        let before = between("10.0.0.161", "10.0.1.160", upper).bytes(false);
        let mut bytes = before.clone();
        assert_eq!(OFFSET.shift_destination(&mut bytes, Checksum::Full), Err(Discard::Malformed));
        assert_eq!(bytes, before);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn outbound_equals_computing_anew(packet in packet(), offset in offset()) {
        let expected = packet.moved(End::Destination, &|address| offset.to_wire(address));
        let mut bytes = packet.bytes(false);
        offset.shift_destination(&mut bytes, Checksum::Full).unwrap();
        prop_assert_eq!(bytes, expected.bytes(false));
    }

    #[test]
    fn inbound_equals_computing_anew(packet in packet(), offset in offset()) {
        let expected = packet.moved(End::Source, &|address| offset.to_host(address));
        let mut bytes = packet.bytes(false);
        offset.shift_source(&mut bytes, Checksum::Full).unwrap();
        prop_assert_eq!(bytes, expected.bytes(false));
    }

    #[test]
    fn partial_checksums_equal_computing_anew(
        packet in packet(), offset in offset(), outbound: bool,
    ) {
        let mut bytes = packet.bytes(true);
        let (checksum, expected) = (packet.needs_csum(), match outbound {
            true => packet.moved(End::Destination, &|address| offset.to_wire(address)),
            false => packet.moved(End::Source, &|address| offset.to_host(address)),
        });
        match outbound {
            true => offset.shift_destination(&mut bytes, checksum).unwrap(),
            false => offset.shift_source(&mut bytes, checksum).unwrap(),
        }
        prop_assert_eq!(bytes, expected.bytes(true));
    }

    #[test]
    fn out_then_back_is_the_original(packet in packet(), offset in offset(), partial: bool) {
        let checksum = if partial { packet.needs_csum() } else { Checksum::Full };
        let before = packet.bytes(partial);
        let mut bytes = before.clone();
        offset.shift_destination(&mut bytes, checksum).unwrap();
        offset.negated().shift_destination(&mut bytes, checksum).unwrap();
        prop_assert_eq!(bytes, before);
    }

    #[test]
    fn a_truncated_packet_is_refused_unchanged(packet in packet(), offset in offset(), cut: u16) {
        let mut bytes = packet.bytes(false);
        bytes.truncate(usize::from(cut) % bytes.len());
        let before = bytes.clone();
        let result = offset.shift_destination(&mut bytes, Checksum::Full);
        let version = if packet.is_v4() { IpVersion::Ipv4 } else { IpVersion::Ipv6 };
        prop_assert!(result == Err(Discard::Malformed) || offset.is_zero(version));
        prop_assert_eq!(bytes, before);
    }

    #[test]
    fn hostile_bytes_are_refused_unchanged_or_shifted_and_never_panic(
        packet in packet(), offset in offset(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        raw in prop::collection::vec(any::<u8>(), 0..120), use_raw: bool, outbound: bool,
        start in prop::option::of(0..80_usize),
    ) {
        let mut bytes = if use_raw { raw } else { packet.bytes(false) };
        for (at, value) in damage {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        let checksum = start.map_or(Checksum::Full, |start| Checksum::Partial { start });
        let before = bytes.clone();
        let result = match outbound {
            true => offset.shift_destination(&mut bytes, checksum),
            false => offset.shift_source(&mut bytes, checksum),
        };
        match result {
            Ok(()) => prop_assert_eq!(bytes.len(), before.len()),
            Err(why) => prop_assert_eq!((why, bytes), (Discard::Malformed, before)),
        }
    }
}
