//! Outer headers, for those who own the wire themselves: a microcontroller, a simulation
//! (RFC 4303 §3.1.2 tunnel mode, RFC 3948 §2.1).
//!
//! Hosts with an IP stack let it build the outer headers; they need [`strip_ipv4_header`] at
//! most, since raw IPv4 sockets deliver the header. Outer options and extension headers are
//! neither made nor, over IPv6, understood; outer fragments are neither made nor reassembled.
//! [`Transmit::oversize`] packets go out without DF over IPv4; over IPv6 they are longer than the
//! path MTU, and to fragment them (RFC 8200 §4.5) is up to the caller.

use core::net::{IpAddr, SocketAddr};

use smoltcp::wire::{IpProtocol, UDP_HEADER_LEN, UdpPacket};

use crate::counters::Discard;
use crate::packet::PacketBuf;
use crate::path::{Path, Transmit};
use crate::wire::ip;

/// Puts the outer IP header, and the UDP header if the path has one, in front of the ESP packet
/// that `transmit` describes. DF is set unless the packet is oversize (which over IPv6 is left to
/// the caller to fragment); over UDP the checksum is real. `identification` is that of the IPv4
/// header; with DF set its value does not matter (RFC 6864 §4.1).
///
/// # Errors
/// [`Discard::NoEndpoint`] if an address of the path is unspecified or of another family than
/// the other, [`Discard::TooBig`] if the packet exceeds 65,535 bytes, [`Discard::NoRoom`] if its
/// headroom is smaller than [`Path::outer_len`]; the packet is unchanged then.
pub fn prepend(
    packet: &mut PacketBuf<'_>,
    transmit: &Transmit,
    hop_limit: u8,
    identification: u16,
) -> Result<(), Discard> {
    let path = &transmit.path;
    let (local, remote) = (path.local(), path.remote());
    if local.is_unspecified() || remote.is_unspecified() || local.is_ipv4() != remote.is_ipv4() {
        return Err(Discard::NoEndpoint);
    }
    if packet.len() + path.outer_len() > usize::from(u16::MAX) {
        return Err(Discard::TooBig);
    }
    if packet.headroom() < path.outer_len() {
        return Err(Discard::NoRoom);
    }
    let protocol = match *path {
        Path::Esp { .. } => IpProtocol::IpSecEsp,
        Path::Udp { local, remote } => {
            push_udp(packet, local, remote)?;
            IpProtocol::Udp
        }
    };
    let traffic_class = transmit.traffic_class;
    match (local, remote) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            ip::Header { source, destination, protocol, traffic_class, hop_limit }.push(
                packet,
                identification,
                !transmit.oversize,
            )
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            ip::Header { source, destination, protocol, traffic_class, hop_limit }.push(packet)
        }
        _ => Err(Discard::NoEndpoint),
    }
}

fn push_udp(
    packet: &mut PacketBuf<'_>,
    local: SocketAddr,
    remote: SocketAddr,
) -> Result<(), Discard> {
    let len = u16::try_from(packet.len() + UDP_HEADER_LEN).map_err(|_| Discard::TooBig)?;
    packet.push_front(UDP_HEADER_LEN)?;
    let mut header = UdpPacket::new_unchecked(packet.as_mut_slice());
    header.set_src_port(local.port());
    header.set_dst_port(remote.port());
    header.set_len(len);
    header.fill_checksum(&local.ip().into(), &remote.ip().into());
    Ok(())
}

/// Takes the outer headers off a packet from the wire that carries ESP (protocol 50) or UDP.
/// Gives the path as we see it (local: the packet's destination) and the outer traffic class.
/// What a UDP datagram carries, [`Datagram::classify`](crate::wire::natt::Datagram::classify)
/// tells. Any UDP checksum is accepted: ESP has its own (RFC 3948 §2.1, RFC 6935).
///
/// # Errors
/// [`Discard::Malformed`] if it is another protocol, a fragment, damaged, truncated, comes from
/// what cannot be a host, or has IPv6 extension headers; the packet is unchanged then.
pub fn strip(packet: &mut PacketBuf<'_>) -> Result<(Path, u8), Discard> {
    let outer = match ip::version(packet.as_slice()) {
        Some(4) if !ip::ipv4(packet.as_slice())?.verify_checksum() => {
            return Err(Discard::Malformed);
        }
        Some(4) => Outer::parse_v4(packet.as_slice())?,
        Some(6) => Outer::parse_v6(packet.as_slice())?,
        _ => return Err(Discard::Malformed),
    };
    outer.take_off(packet)
}

/// Like [`strip`], for what a raw IPv4 socket of protocol 50 delivers: reassembled and its header
/// checksum verified by the host.
///
/// # Errors
/// [`Discard::Malformed`] as for [`strip`], and if it is not ESP over IPv4.
pub fn strip_ipv4_header(packet: &mut PacketBuf<'_>) -> Result<(Path, u8), Discard> {
    let outer = Outer::parse_v4(packet.as_slice())?;
    if outer.protocol != IpProtocol::IpSecEsp {
        return Err(Discard::Malformed);
    }
    outer.take_off(packet)
}

/// An outer IP header, and where what it carries begins and ends in the packet.
struct Outer {
    source: IpAddr,
    destination: IpAddr,
    traffic_class: u8,
    protocol: IpProtocol,
    header_len: usize,
    total_len: usize,
}

impl Outer {
    fn parse_v4(packet: &[u8]) -> Result<Outer, Discard> {
        let header = ip::ipv4(packet)?;
        if header.more_frags() || header.frag_offset() != 0 {
            return Err(Discard::Malformed);
        }
        Ok(Outer {
            source: header.src_addr().into(),
            destination: header.dst_addr().into(),
            traffic_class: header.dscp() << 2 | header.ecn(),
            protocol: header.next_header(),
            header_len: header.header_len().into(),
            total_len: header.total_len().into(),
        })
    }

    fn parse_v6(packet: &[u8]) -> Result<Outer, Discard> {
        let header = ip::ipv6(packet)?;
        Ok(Outer {
            source: header.src_addr().into(),
            destination: header.dst_addr().into(),
            traffic_class: header.traffic_class(),
            protocol: header.next_header(),
            header_len: header.header_len(),
            total_len: header.total_len(),
        })
    }

    fn take_off(self, packet: &mut PacketBuf<'_>) -> Result<(Path, u8), Discard> {
        if self.source.is_unspecified() || self.source.is_multicast() || is_broadcast(self.source) {
            return Err(Discard::Malformed);
        }
        let carried = packet.as_slice().get(self.header_len..self.total_len);
        let carried = carried.ok_or(Discard::Malformed)?;
        let (path, udp_header_len, carried_len) = match self.protocol {
            IpProtocol::IpSecEsp => {
                (Path::Esp { local: self.destination, remote: self.source }, 0, carried.len())
            }
            IpProtocol::Udp => {
                let header = UdpPacket::new_checked(carried).map_err(|_| Discard::Malformed)?;
                let local = SocketAddr::new(self.destination, header.dst_port());
                let remote = SocketAddr::new(self.source, header.src_port());
                (Path::Udp { local, remote }, UDP_HEADER_LEN, usize::from(header.len()))
            }
            _ => return Err(Discard::Malformed),
        };
        packet.truncate(self.header_len + carried_len);
        packet.pull_front(self.header_len + udp_header_len)?;
        Ok((path, self.traffic_class))
    }
}

fn is_broadcast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.is_broadcast())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::HEADROOM;
    use crate::wire::samples::{self, HOST_V4, HOST_V6, SERVER_V4, SERVER_V6};
    use core::net::Ipv4Addr;
    use proptest::prelude::*;
    use smoltcp::wire::{Ipv4Packet, Ipv6Packet};
    use std::vec;
    use std::vec::Vec;

    fn paths() -> [Path; 4] {
        let esp = |local: IpAddr, remote: IpAddr| Path::Esp { local, remote };
        let udp = |local: IpAddr, remote: IpAddr| Path::Udp {
            local: SocketAddr::new(local, 4500),
            remote: SocketAddr::new(remote, 61_234),
        };
        [
            esp(HOST_V4.into(), SERVER_V4.into()),
            udp(HOST_V4.into(), SERVER_V4.into()),
            esp(HOST_V6.into(), SERVER_V6.into()),
            udp(HOST_V6.into(), SERVER_V6.into()),
        ]
    }

    fn seen_by_the_peer(path: Path) -> Path {
        match path {
            Path::Esp { local, remote } => Path::Esp { local: remote, remote: local },
            Path::Udp { local, remote } => Path::Udp { local: remote, remote: local },
        }
    }

    fn prepended(path: Path, esp: &[u8], traffic_class: u8) -> Result<Vec<u8>, Discard> {
        let mut bytes = [&[0xaa; HEADROOM], esp].concat();
        let mut packet = PacketBuf::new(&mut bytes, HEADROOM, esp.len()).unwrap();
        let transmit = Transmit { path, traffic_class, len: esp.len(), oversize: false };
        let result = prepend(&mut packet, &transmit, 64, 0xbeef);
        if result.is_err() {
            assert_eq!(packet.as_slice(), esp, "a refused packet is unchanged");
        }
        result.map(|()| packet.as_slice().to_vec())
    }

    fn stripped_by(
        strip: fn(&mut PacketBuf<'_>) -> Result<(Path, u8), Discard>,
        wire: &[u8],
    ) -> Result<(Path, u8, Vec<u8>), Discard> {
        let mut bytes = wire.to_vec();
        let mut packet = PacketBuf::new(&mut bytes, 0, wire.len()).unwrap();
        let result = strip(&mut packet);
        if result.is_err() {
            assert_eq!(packet.as_slice(), wire, "a refused packet is unchanged");
        }
        result.map(|(path, traffic_class)| (path, traffic_class, packet.as_slice().to_vec()))
    }

    fn stripped(wire: &[u8]) -> Result<(Path, u8, Vec<u8>), Discard> {
        stripped_by(strip, wire)
    }

    #[test]
    fn ipv4_headers_are_right_in_every_field() {
        let wire = prepended(paths()[0], &[7; 100], 0b1011_1001).unwrap();
        assert_eq!(wire[..10], [0x45, 0b1011_1001, 0, 120, 0xbe, 0xef, 0x40, 0, 64, 50]);
        let header = Ipv4Packet::new_checked(&wire).unwrap();
        assert!(header.verify_checksum());
        assert_eq!((header.src_addr(), header.dst_addr()), (HOST_V4, SERVER_V4));
        assert_eq!(wire[20..], [7; 100]);
    }

    #[test]
    fn an_oversize_packet_may_be_fragmented_outside() {
        for (oversize, flags) in [(false, 0x40), (true, 0)] {
            let mut bytes = [7; HEADROOM + 100];
            let mut packet = PacketBuf::new(&mut bytes, HEADROOM, 100).unwrap();
            let transmit = Transmit { path: paths()[0], traffic_class: 0, len: 100, oversize };
            prepend(&mut packet, &transmit, 64, 0xbeef).unwrap();
            assert_eq!(packet.as_slice()[4..8], [0xbe, 0xef, flags, 0]);
            assert!(Ipv4Packet::new_checked(packet.as_slice()).unwrap().verify_checksum());
        }
    }

    #[test]
    fn ipv6_headers_are_right_in_every_field() {
        let wire = prepended(paths()[2], &[7; 100], 0b1011_1001).unwrap();
        assert_eq!(wire[..8], [0x6b, 0x90, 0, 0, 0, 100, 50, 64]);
        let header = Ipv6Packet::new_checked(&wire).unwrap();
        assert_eq!((header.src_addr(), header.dst_addr()), (HOST_V6, SERVER_V6));
        assert_eq!(wire[40..], [7; 100]);
    }

    #[test]
    fn udp_headers_carry_ports_and_a_real_checksum() {
        for path in [paths()[1], paths()[3]] {
            for len in [8, 99, 100] {
                let wire = prepended(path, &vec![7; len], 0).unwrap();
                let at = path.outer_len() - 8;
                let udp = UdpPacket::new_checked(&wire[at..]).unwrap();
                assert_ne!(udp.checksum(), 0);
                assert!(udp.verify_checksum(&path.local().into(), &path.remote().into()));
                assert_eq!((udp.src_port(), udp.dst_port()), (4500, 61_234));
                assert_eq!(udp.payload(), vec![7; len]);
            }
        }
    }

    #[test]
    fn refuses_to_send_where_it_cannot() {
        let v4 = |local: Ipv4Addr, remote: Ipv4Addr| Path::Esp {
            local: local.into(),
            remote: remote.into(),
        };
        let nowhere = v4(HOST_V4, Ipv4Addr::UNSPECIFIED);
        assert_eq!(prepended(nowhere, &[7; 9], 0), Err(Discard::NoEndpoint));
        let from_anywhere = v4(Ipv4Addr::UNSPECIFIED, SERVER_V4);
        assert_eq!(prepended(from_anywhere, &[7; 9], 0), Err(Discard::NoEndpoint));
        let mixed = Path::Esp { local: HOST_V4.into(), remote: SERVER_V6.into() };
        assert_eq!(prepended(mixed, &[7; 9], 0), Err(Discard::NoEndpoint));
        for path in paths() {
            let largest = 65_535 - path.outer_len();
            assert!(prepended(path, &vec![0; largest], 0).is_ok());
            assert_eq!(prepended(path, &vec![0; largest + 1], 0), Err(Discard::TooBig));

            let headroom = path.outer_len() - 1;
            let mut bytes = vec![0; 200];
            let mut packet = PacketBuf::new(&mut bytes, headroom, 100).unwrap();
            let transmit = Transmit { path, traffic_class: 0, len: 100, oversize: false };
            assert_eq!(prepend(&mut packet, &transmit, 64, 0), Err(Discard::NoRoom));
            assert_eq!(packet.len(), 100);
        }
    }

    #[test]
    fn refuses_outer_fragments() {
        for (offset, more) in [(0, true), (8, false), (8, true)] {
            let mut wire = prepended(paths()[0], &[7; 96], 0).unwrap();
            samples::edit_ipv4(&mut wire, |header| {
                header.set_frag_offset(offset);
                header.set_more_frags(more);
            });
            assert_eq!(stripped(&wire), Err(Discard::Malformed));
            assert_eq!(stripped_by(strip_ipv4_header, &wire), Err(Discard::Malformed));
        }
        let fragment = samples::ipv6(44, &[&[50, 0, 0, 1, 0, 0, 0, 1][..], &[7; 96]].concat());
        assert_eq!(stripped(&fragment), Err(Discard::Malformed));
    }

    #[test]
    fn refuses_other_protocols_and_impossible_senders() {
        assert_eq!(stripped(&samples::ipv4(6, &[7; 40])), Err(Discard::Malformed));
        assert_eq!(stripped(&samples::ipv6(6, &[7; 40])), Err(Discard::Malformed));
        for source in ["0.0.0.0", "224.0.0.1", "255.255.255.255"] {
            let mut wire = samples::ipv4(50, &[7; 40]);
            samples::edit_ipv4(&mut wire, |header| header.set_src_addr(source.parse().unwrap()));
            assert_eq!(stripped(&wire), Err(Discard::Malformed), "{source}");
        }
        for source in ["::", "ff02::1"] {
            let mut wire = samples::ipv6(50, &[7; 40]);
            Ipv6Packet::new_unchecked(&mut wire).set_src_addr(source.parse().unwrap());
            assert_eq!(stripped(&wire), Err(Discard::Malformed), "{source}");
        }
    }

    #[test]
    fn refuses_a_damaged_header_unless_the_host_has_checked_it() {
        let mut wire = prepended(paths()[0], &[7; 96], 0).unwrap();
        wire[8] ^= 1;
        assert_eq!(stripped(&wire), Err(Discard::Malformed));
        assert!(stripped_by(strip_ipv4_header, &wire).is_ok());
    }

    #[test]
    fn raw_ipv4_sockets_deliver_esp_with_or_without_options() {
        let wire = samples::ipv4_with_options(50, &[1, 1, 1, 0], &[7; 40]);
        let path = Path::Esp { local: SERVER_V4.into(), remote: HOST_V4.into() };
        let expected = Ok((path, 0, vec![7; 40]));
        assert_eq!(stripped_by(strip_ipv4_header, &wire), expected);
        assert_eq!(stripped(&wire), expected);
        let udp = prepended(paths()[1], &[7; 40], 0).unwrap();
        for wire in [udp, samples::ipv6(50, &[0; 40])] {
            assert_eq!(stripped_by(strip_ipv4_header, &wire), Err(Discard::Malformed));
        }
    }

    #[test]
    fn accepts_any_udp_checksum() {
        for path in [paths()[1], paths()[3]] {
            let mut wire = prepended(path, &[7; 96], 0).unwrap();
            let at = path.outer_len() - 2;
            for checksum in [[0, 0], [0xff, 0xff], [0x12, 0x34]] {
                wire[at..at + 2].copy_from_slice(&checksum);
                assert_eq!(stripped(&wire), Ok((seen_by_the_peer(path), 0, vec![7; 96])));
            }
        }
    }

    #[test]
    fn refuses_contradicting_udp_lengths() {
        for (length, expected) in
            [(7u16, None), (8, Some(0)), (103, Some(95)), (104, Some(96)), (105, None)]
        {
            let mut wire = prepended(paths()[3], &[7; 96], 0).unwrap();
            wire[44..46].copy_from_slice(&length.to_be_bytes());
            assert_eq!(stripped(&wire).ok().map(|(_, _, esp)| esp.len()), expected, "{length}");
        }
    }

    proptest! {
        #[test]
        fn the_peer_sees_what_was_sent(
            which in 0usize..4,
            esp in proptest::collection::vec(any::<u8>(), 0..1600),
            traffic_class in any::<u8>(),
            padding in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let path = paths()[which];
            let wire = prepended(path, &esp, traffic_class).unwrap();
            prop_assert_eq!(wire.len(), esp.len() + path.outer_len());
            // A link may pad short frames.
            let wire = [&wire[..], &padding].concat();
            prop_assert_eq!(stripped(&wire), Ok((seen_by_the_peer(path), traffic_class, esp)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            first in prop_oneof![0x44u8..0x50, Just(0x60), any::<u8>()],
            rest in proptest::collection::vec(any::<u8>(), 0..96),
            protocol in prop_oneof![Just(50u8), Just(17), any::<u8>()],
        ) {
            let mut bytes = [&[first], &rest[..]].concat();
            for at in [6, 9] {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = protocol;
                }
            }
            for len in 0..=bytes.len() {
                let _ = stripped(&bytes[..len]);
                let _ = stripped_by(strip_ipv4_header, &bytes[..len]);
            }
        }
    }
}
