//! The UDP sockets of port 4500: ESP and IKE in UDP (RFC 3948).
//!
//! Checksums are real in both directions; `UDP_ENCAP` is not set, the kernel must not take our
//! packets for its own IPsec. Where the kernel can, it cuts what is sent in runs and joins what
//! arrives in runs.

use core::net::SocketAddr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{SockaddrStorage, bind, getsockname};
use simplevpn_core::Path;
use simplevpn_core::wire::natt;

use crate::batch::Datagram;
use crate::outer_socket::{Arrival, Family, OuterSocket};

/// Opens and binds the UDP socket of one IP version; `None` if the kernel does not have that
/// version. Port 0 is any free port.
///
/// # Errors
/// Those of the kernel; `EADDRINUSE` if another program has the port.
pub fn open(family: Family, port: u16, mark: u32, batch: usize) -> io::Result<Option<OuterSocket>> {
    let mut socket =
        match OuterSocket::open(family, libc::SOCK_DGRAM, libc::IPPROTO_UDP, mark, batch) {
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => return Ok(None),
            other => other?,
        };
    socket.offload();
    let address = SockaddrStorage::from(family.unspecified(port));
    match bind(socket.as_fd().as_raw_fd(), &address) {
        // IPv6 is compiled in but switched off.
        Err(nix::Error::EADDRNOTAVAIL) => Ok(None),
        other => other.map(|()| Some(socket)).map_err(io::Error::from),
    }
}

/// The port that a socket is bound to.
///
/// # Errors
/// Those of `getsockname(2)`.
pub fn local_port(socket: &OuterSocket) -> io::Result<u16> {
    let address: SockaddrStorage = getsockname(socket.as_fd().as_raw_fd())?;
    let v4 = address.as_sockaddr_in().map(|address| address.port());
    let v6 = address.as_sockaddr_in6().map(|address| address.port());
    v4.or(v6).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// What a datagram on port 4500 is (RFC 3948 §2).
#[derive(Debug)]
pub enum Encapsulated<'a> {
    /// An ESP packet.
    Esp(Arrival<'a>),
    /// An IKE message, without its non-ESP marker.
    Ike(Datagram<'a>),
    /// A keepalive, which only keeps a NAT's mapping.
    Keepalive,
    /// Neither: too short.
    Malformed,
}

/// Tells ESP, IKE and keepalives apart. `local_port` is the socket's.
pub fn arrival(mut datagram: Datagram<'_>, local_port: u16) -> Encapsulated<'_> {
    match natt::Datagram::classify(datagram.packet.as_slice()) {
        natt::Datagram::Keepalive => Encapsulated::Keepalive,
        natt::Datagram::Malformed => Encapsulated::Malformed,
        natt::Datagram::Ike(_) => match datagram.packet.pull_front(natt::NON_ESP_MARKER.len()) {
            Ok(()) => Encapsulated::Ike(datagram),
            Err(_) => Encapsulated::Malformed,
        },
        natt::Datagram::Esp => {
            let Datagram { from, local, traffic_class, packet, .. } = datagram;
            let family = if from.is_ipv4() { Family::V4 } else { Family::V6 };
            let local = local.unwrap_or_else(|| family.unspecified(0).ip());
            let path = Path::Udp { local: SocketAddr::new(local, local_port), remote: from };
            Encapsulated::Esp(Arrival { path, traffic_class, packet })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{MAX_PACKET, ReceiveBatch, Slots};
    use crate::error_queue::PathProblem;
    use crate::send_drops::SendDrops;
    use crate::testing::in_namespace;
    use simplevpn_core::packet::HEADROOM;
    use simplevpn_core::{PacketBuf, Transmit};
    use std::net::UdpSocket;

    fn datagram(bytes: &mut [u8]) -> Datagram<'_> {
        let len = bytes.len();
        Datagram {
            from: "192.0.2.1:4500".parse().unwrap(),
            local: None,
            traffic_class: 0,
            segment: None,
            packet: PacketBuf::new(bytes, 0, len).unwrap(),
        }
    }

    #[test]
    fn esp_ike_and_keepalives_are_told_apart() {
        let keepalive = &mut [0xff];
        assert!(matches!(arrival(datagram(keepalive), 4500), Encapsulated::Keepalive));
        for short in [&mut [][..], &mut [0xfe], &mut [0, 0, 0], &mut [0xff, 0xff]] {
            assert!(matches!(arrival(datagram(short), 4500), Encapsulated::Malformed));
        }
        let ike = &mut [0, 0, 0, 0, 9, 9];
        let Encapsulated::Ike(ike) = arrival(datagram(ike), 4500) else { panic!() };
        assert_eq!(ike.packet.as_slice(), [9, 9]);
        let esp = &mut b"\0\0\x10\x01text".to_owned();
        let Encapsulated::Esp(esp) = arrival(datagram(esp), 4500) else { panic!() };
        assert_eq!(esp.packet.as_slice(), b"\0\0\x10\x01text");
        let (local, remote) = ("0.0.0.0:4500".parse().unwrap(), "192.0.2.1:4500".parse().unwrap());
        assert_eq!(esp.path, Path::Udp { local, remote });
    }

    /// Sends `text` along `path` and returns what was dropped on the way.
    fn send(socket: &mut OuterSocket, path: Path, traffic_class: u8, text: &[u8]) -> SendDrops {
        let mut slots = Slots::new(1, MAX_PACKET);
        slots.get_mut(0).unwrap()[HEADROOM..HEADROOM + text.len()].copy_from_slice(text);
        let transmit = Transmit { path, traffic_class, len: text.len(), oversize: false };
        assert!(socket.queue(&transmit, 0, HEADROOM));
        let mut drops = SendDrops::default();
        socket.flush(&slots, &mut drops);
        drops
    }

    #[test]
    fn packets_keep_source_address_and_traffic_class() {
        in_namespace("udp_socket::tests::packets_keep_source_address_and_traffic_class", || {
            for (family, local, remote) in [
                (Family::V4, "127.0.0.9:4500", "127.0.0.5:4501"),
                (Family::V6, "[::1]:4500", "[::1]:4501"),
            ] {
                let mut a = open(family, 4500, 7, 4).unwrap().unwrap();
                let b = open(family, 4501, 7, 4).unwrap().unwrap();
                assert_eq!(local_port(&b).unwrap(), 4501);
                let taken = open(family, 4501, 7, 4).err().unwrap();
                assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
                let path =
                    Path::Udp { local: local.parse().unwrap(), remote: remote.parse().unwrap() };
                send(&mut a, path, 0xb9, b"\0\0\x10\x01text");

                let mut batch = ReceiveBatch::new(4, 2000);
                assert_eq!(b.receive(&mut batch).unwrap(), 1);
                let datagram = batch.get(0).unwrap();
                let Encapsulated::Esp(esp) = arrival(datagram, 4501) else { panic!() };
                let back =
                    Path::Udp { local: remote.parse().unwrap(), remote: local.parse().unwrap() };
                assert_eq!((esp.path, esp.traffic_class), (back, 0xb9));
                assert_eq!(esp.packet.as_slice(), b"\0\0\x10\x01text");
            }
        });
    }

    #[test]
    fn runs_travel_joined_and_are_told_apart() {
        in_namespace("udp_socket::tests::runs_travel_joined_and_are_told_apart", || {
            for (family, local, remote) in [
                (Family::V4, "127.0.0.9:4500", "127.0.0.5:4501"),
                (Family::V6, "[::1]:4500", "[::1]:4501"),
            ] {
                let mut a = open(family, 4500, 7, 64).unwrap().unwrap();
                let b = open(family, 4501, 7, 64).unwrap().unwrap();
                let path =
                    Path::Udp { local: local.parse().unwrap(), remote: remote.parse().unwrap() };
                let mut slots = Slots::new(50, MAX_PACKET);
                for slot in 0..50 {
                    let len = if slot == 49 { 77 } else { 1300 };
                    let bytes = &mut slots.get_mut(slot).unwrap()[HEADROOM..HEADROOM + len];
                    bytes.fill(slot as u8 + 1);
                    let transmit = Transmit { path, traffic_class: 0xb9, len, oversize: false };
                    assert!(a.queue(&transmit, slot, HEADROOM));
                }
                let mut drops = SendDrops::default();
                a.flush(&slots, &mut drops);

                let mut batch = ReceiveBatch::new(4, MAX_PACKET);
                assert_eq!(b.receive(&mut batch).unwrap(), 1, "{family:?}");
                let mut number = 0;
                for datagram in batch.get(0).unwrap().split() {
                    let Encapsulated::Esp(esp) = arrival(datagram, 4501) else { panic!() };
                    number += 1;
                    let len = if number == 50 { 77 } else { 1300 };
                    assert_eq!(esp.packet.as_slice(), vec![number; len]);
                    assert_eq!((esp.path.remote(), esp.traffic_class), (path.local(), 0xb9));
                }
                assert_eq!(number, 50);
            }
        });
    }

    #[test]
    fn a_refused_packet_is_told_and_does_not_disturb_the_next() {
        in_namespace(
            "udp_socket::tests::a_refused_packet_is_told_and_does_not_disturb_the_next",
            || {
                let mut a = open(Family::V4, 4500, 0, 4).unwrap().unwrap();
                let b = UdpSocket::bind("127.0.0.1:4501").unwrap();
                let to = |port| Path::Udp {
                    local: "0.0.0.0:4500".parse().unwrap(),
                    remote: SocketAddr::new([127, 0, 0, 1].into(), port),
                };
                // Nobody listens on 9: ICMP leaves an error on the socket.
                send(&mut a, to(9), 0, b"\0\0\x10\x02text");
                let drops = send(&mut a, to(4501), 0, b"second");
                assert!(drops.iter().all(|(_, count)| count == 0), "{drops:?}");
                let mut buffer = [0; 10];
                assert_eq!(b.recv(&mut buffer).unwrap(), 6);

                let mut told = Vec::new();
                a.errors(|error| told.push(error));
                assert_eq!(told.len(), 1);
                assert_eq!(told[0].to, "127.0.0.1:9".parse().unwrap());
                assert_eq!(told[0].spi, Some(0x1002));
                assert_eq!(told[0].what, PathProblem::Unreachable(libc::ECONNREFUSED));

                send(&mut a, to(9), 0, b"\0\0\x10\x02text");
                assert_eq!(a.receive(&mut ReceiveBatch::new(1, 100)).unwrap(), 0);
            },
        );
    }

    #[test]
    fn the_firewalls_refusal_is_counted_by_name() {
        in_namespace("udp_socket::tests::the_firewalls_refusal_is_counted_by_name", || {
            let rules = "add table ip t; add chain ip t o { type filter hook output priority 0; }; \
                         add rule ip t o meta mark 7 udp dport 4501 drop";
            let nft = std::process::Command::new("nft").arg(rules).status().unwrap();
            assert!(nft.success());
            let path = Path::Udp {
                local: "0.0.0.0:4500".parse().unwrap(),
                remote: "127.0.0.1:4501".parse().unwrap(),
            };
            let mut marked = open(Family::V4, 4500, 7, 4).unwrap().unwrap();
            let drops = send(&mut marked, path, 0, b"text");
            let counted: Vec<_> = drops.iter().filter(|&(_, count)| count > 0).collect();
            assert_eq!(counted, [(crate::send_drops::SendDrop::Firewall, 1)]);
        });
    }
}
