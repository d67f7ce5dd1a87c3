//! Well-formed IP packets of every kind that the core looks into, and how they are spoilt.

use std::net::IpAddr;

use simplevpn_core::checksum::checksum;

use super::Random;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// TCP, UDP, DCCP, UDP-Lite, ESP: what has a checksum over addresses, and one that has not.
const TRANSPORTS: [u8; 5] = [6, 17, 33, 136, 50];

/// An IP packet from `source` to `destination`, of one family. Its IP header is right; transport
/// checksums are not.
pub(super) fn packet(random: &mut Random, source: IpAddr, destination: IpAddr) -> Vec<u8> {
    nested(random, source, destination, 0)
}

fn nested(random: &mut Random, source: IpAddr, destination: IpAddr, depth: u8) -> Vec<u8> {
    let icmp = if source.is_ipv4() { ICMP } else { ICMPV6 };
    let (protocol, payload) = match random.below(4) {
        0 if depth < 2 => (icmp, icmp_error(random, source, destination, depth)),
        1 => (icmp, [&[random.pick(&[0, 8, 128, 129])], &random.bytes(7)[..]].concat()),
        _ => {
            let len = 40 + random.length(9000);
            (random.pick(&TRANSPORTS), random.bytes(len))
        }
    };
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            ipv4(random, [source.octets(), destination.octets()], protocol, &payload)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            ipv6(random, [source.octets(), destination.octets()], protocol, &payload)
        }
        _ => unreachable!("addresses of two families"),
    }
}

/// An ICMP error that quotes a packet which travelled the other way, maybe cut short.
fn icmp_error(random: &mut Random, source: IpAddr, destination: IpAddr, depth: u8) -> Vec<u8> {
    let kind =
        if source.is_ipv4() { random.pick(&[3, 4, 5, 11, 12]) } else { random.pick(&[1, 2, 3, 4]) };
    let mut quoted = nested(random, destination, source, depth + 1);
    if random.one_in(2) {
        quoted.truncate(random.below(quoted.len() + 1));
    }
    let mut bytes = vec![kind, random.byte(), 0, 0, 0, 0, 0, 0];
    if random.one_in(4) {
        bytes[4..].copy_from_slice(&random.bytes(4));
    }
    bytes.extend(quoted);
    bytes
}

fn ipv4(random: &mut Random, addresses: [[u8; 4]; 2], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let options = random.pick(&[0, 0, 0, 4, 8, 40]);
    let header_len = 20 + options;
    let mut bytes = vec![1; header_len]; // options: no operation
    bytes[0] = 0x40 | (header_len / 4) as u8;
    bytes[1] = random.byte();
    bytes[2..4].copy_from_slice(&((header_len + payload.len()) as u16).to_be_bytes());
    bytes[4..8].copy_from_slice(&[random.byte(), random.byte(), 0, 0]);
    bytes[6] = random.pick(&[0, 0x40, 0x40, 0x20]);
    if random.one_in(8) {
        bytes[7] = random.byte(); // a later fragment
    }
    bytes[8..12].copy_from_slice(&[64, protocol, 0, 0]);
    bytes[12..16].copy_from_slice(&addresses[0]);
    bytes[16..20].copy_from_slice(&addresses[1]);
    let sum = checksum(&bytes);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn ipv6(random: &mut Random, addresses: [[u8; 16]; 2], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let (mut next, mut body) = (protocol, payload.to_vec());
    while random.one_in(3) {
        (next, body) = extended(random, next, &body);
    }
    let mut bytes = vec![0x60 | random.byte() >> 4, random.byte(), random.byte(), random.byte()];
    bytes.extend((body.len() as u16).to_be_bytes());
    bytes.extend([next, 64]);
    bytes.extend(addresses.concat());
    bytes.extend(body);
    bytes
}

/// `body`, which begins with header `next`, behind one extension header.
fn extended(random: &mut Random, next: u8, body: &[u8]) -> (u8, Vec<u8>) {
    const FRAGMENT: u8 = 44;
    const ROUTING: u8 = 43;
    let kind = random.pick(&[0, ROUTING, FRAGMENT, 60]);
    let len = if kind == FRAGMENT { 0 } else { random.below(3) };
    let mut header = random.bytes(8 * (len + 1));
    header[..2].copy_from_slice(&[next, len as u8]);
    match kind {
        FRAGMENT if random.one_in(2) => header[2..4].copy_from_slice(&[0, 1]),
        ROUTING => header[2..4].copy_from_slice(&[0, random.pick(&[0, 1])]),
        _ => {}
    }
    header.extend(body);
    (kind, header)
}

/// Values on which parsers trip: bounds, versions, protocol numbers, lengths.
const ODD: [u8; 24] = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 17, 19, 20, 43, 44, 51, 58, 59, 60, 0x45, 0x60, 0x7f, 0x80, 0xff,
];

/// Spoils `bytes` in one to four places.
pub(super) fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        mutate_once(random, bytes);
    }
}

fn mutate_once(random: &mut Random, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        *bytes = random.bytes(1);
        return;
    }
    // Mostly in headers.
    let end = if random.one_in(3) { bytes.len() } else { bytes.len().min(64) };
    let at = random.below(end);
    match random.below(8) {
        0 | 1 => bytes[at] ^= 1 << random.below(8),
        2 | 3 => bytes[at] = random.pick(&ODD),
        4 => bytes[at] = random.byte(),
        5 => bytes.truncate(at),
        6 => {
            let len = random.length(300);
            bytes.extend(random.bytes(len));
        }
        _ => {
            let from = random.below(bytes.len());
            let len = random.below(bytes.len() - from.max(at) + 1);
            bytes.copy_within(from..from + len, at);
        }
    }
}
