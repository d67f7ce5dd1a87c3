//! Packets for tests.

use core::net::{Ipv4Addr, Ipv6Addr};
use std::vec;
use std::vec::Vec;

use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet};

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
