//! Packets for tests.

use core::net::{Ipv4Addr, Ipv6Addr};
use std::vec;
use std::vec::Vec;

use smoltcp::wire::{IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket};

pub(crate) const HOST_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 7);
pub(crate) const SERVER_V4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 9);
pub(crate) const HOST_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 7);
pub(crate) const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 2, 0, 0, 0, 9);

/// An IPv4 packet from [`HOST_V4`] to [`SERVER_V4`], DF clear; `options` a multiple of 4 bytes.
pub(crate) fn ipv4_with_options(protocol: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let header_len = 20 + options.len();
    let mut packet = vec![0; header_len + payload.len()];
    packet[20..header_len].copy_from_slice(options);
    packet[header_len..].copy_from_slice(payload);
    let total_len = u16::try_from(packet.len()).unwrap();
    edit_ipv4(&mut packet, |header| {
        header.set_version(4);
        header.set_header_len(u8::try_from(header_len).unwrap());
        header.set_total_len(total_len);
        header.set_ident(0x1234);
        header.set_hop_limit(63);
        header.set_next_header(IpProtocol::from(protocol));
        header.set_src_addr(HOST_V4);
        header.set_dst_addr(SERVER_V4);
    });
    packet
}

/// The same without options.
pub(crate) fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_with_options(protocol, &[], payload)
}

/// Changes the header of `packet` and makes its checksum right again.
pub(crate) fn edit_ipv4(packet: &mut [u8], edit: impl FnOnce(&mut Ipv4Packet<&mut [u8]>)) {
    let mut header = Ipv4Packet::new_unchecked(packet);
    edit(&mut header);
    header.fill_checksum();
}

/// An IPv6 packet from [`HOST_V6`] to [`SERVER_V6`].
pub(crate) fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 40 + payload.len()];
    packet[40..].copy_from_slice(payload);
    let mut header = Ipv6Packet::new_unchecked(&mut packet);
    header.set_version(6);
    header.set_payload_len(u16::try_from(payload.len()).unwrap());
    header.set_next_header(IpProtocol::from(next_header));
    header.set_hop_limit(63);
    header.set_src_addr(HOST_V6);
    header.set_dst_addr(SERVER_V6);
    packet
}

/// A TCP segment between the ends of [`ipv4`] and [`ipv6`].
#[derive(Debug, Clone)]
pub(crate) struct Tcp {
    pub(crate) ports: [u16; 2],
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) urgent: u16,
    /// A multiple of 4 bytes.
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Tcp {
    /// With ACK and timestamps.
    pub(crate) fn new(sequence: u32, payload: &[u8]) -> Tcp {
        Tcp {
            ports: [40_000, 5201],
            sequence,
            acknowledgement: 0x1020_3040,
            flags: 0x10,
            window: 501,
            urgent: 0,
            options: vec![1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9],
            payload: payload.to_vec(),
        }
    }

    /// Its bytes; the checksum is zero.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let words = (20 + self.options.len()) / 4;
        let [source, destination] = self.ports.map(u16::to_be_bytes);
        [
            &source[..],
            &destination,
            &self.sequence.to_be_bytes(),
            &self.acknowledgement.to_be_bytes(),
            &[u8::try_from(words << 4).unwrap(), self.flags],
            &self.window.to_be_bytes(),
            &[0; 2],
            &self.urgent.to_be_bytes(),
            &self.options,
            &self.payload,
        ]
        .concat()
    }
}

/// A UDP datagram; its checksum is zero.
pub(crate) fn udp(ports: [u16; 2], payload: &[u8]) -> Vec<u8> {
    let [source, destination] = ports.map(u16::to_be_bytes);
    let len = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
    [&source[..], &destination, &len, &[0; 2], payload].concat()
}

/// Writes the TCP or UDP checksum of the packet whose transport header begins at `transport`.
pub(crate) fn fill_checksum(packet: &mut [u8], transport: usize, is_tcp: bool) {
    let [source, destination] = ends(packet);
    let upper = &mut packet[transport..];
    if is_tcp {
        TcpPacket::new_unchecked(upper).fill_checksum(&source, &destination);
    } else {
        UdpPacket::new_unchecked(upper).fill_checksum(&source, &destination);
    }
}

/// Whether that checksum is right.
pub(crate) fn verify_checksum(packet: &[u8], transport: usize, is_tcp: bool) -> bool {
    let [source, destination] = ends(packet);
    let upper = &packet[transport..];
    if is_tcp {
        TcpPacket::new_unchecked(upper).verify_checksum(&source, &destination)
    } else {
        let udp = UdpPacket::new_unchecked(upper);
        udp.checksum() != 0 && udp.verify_checksum(&source, &destination)
    }
}

fn ends(packet: &[u8]) -> [IpAddress; 2] {
    if packet[0] >> 4 == 4 {
        let ip = Ipv4Packet::new_unchecked(packet);
        [ip.src_addr().into(), ip.dst_addr().into()]
    } else {
        let ip = Ipv6Packet::new_unchecked(packet);
        [ip.src_addr().into(), ip.dst_addr().into()]
    }
}
