//! Raw sockets of protocol 50: ESP directly over IPv4 and IPv6 (RFC 4303).
//!
//! A raw socket sees every ESP packet for this machine, whoever it is for; the SPI sorts them.

use std::io;

use simplevpn_core::{Discard, Path};

use crate::batch::Datagram;
use crate::outer_socket::{Arrival, Family, OuterSocket};

/// Opens the raw socket of one IP version; `None` if the kernel does not have that version.
///
/// # Errors
/// Those of the kernel; `EPERM` without CAP_NET_RAW or CAP_NET_ADMIN.
pub fn open(family: Family, mark: u32, batch: usize) -> io::Result<Option<OuterSocket>> {
    match OuterSocket::open(family, libc::SOCK_RAW, libc::IPPROTO_ESP, mark, batch) {
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(None),
        other => other.map(Some),
    }
}

/// The ESP packet in a datagram: over IPv4 the kernel delivers the outer header, too.
///
/// # Errors
/// [`Discard::Malformed`] if that header is none.
pub fn arrival(datagram: Datagram<'_>) -> Result<Arrival<'_>, Discard> {
    let Datagram { from, local, traffic_class, mut packet, .. } = datagram;
    if from.is_ipv4() {
        let first = packet.as_slice().first().copied().unwrap_or(0);
        let header_len = usize::from(first & 0xf) * 4;
        if first >> 4 != 4 || header_len < 20 {
            return Err(Discard::Malformed);
        }
        packet.pull_front(header_len)?;
    }
    let remote = from.ip();
    let family = if from.is_ipv4() { Family::V4 } else { Family::V6 };
    let local = local.unwrap_or_else(|| family.unspecified(0).ip());
    Ok(Arrival { path: Path::Esp { local, remote }, traffic_class, packet })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{MAX_PACKET, ReceiveBatch, Slots};
    use crate::error_queue::PathProblem;
    use crate::send_drops::{SendDrop, SendDrops};
    use crate::testing::in_namespace;
    use core::net::IpAddr;
    use simplevpn_core::packet::HEADROOM;
    use simplevpn_core::{PacketBuf, Transmit};
    use std::process::Command;

    fn esp(local: &str, remote: &str) -> Path {
        Path::Esp { local: local.parse().unwrap(), remote: remote.parse().unwrap() }
    }

    fn send(socket: &mut OuterSocket, path: Path, traffic_class: u8, text: &[u8]) -> SendDrops {
        send_sized(socket, path, traffic_class, text, false)
    }

    fn send_sized(
        socket: &mut OuterSocket,
        path: Path,
        traffic_class: u8,
        text: &[u8],
        oversize: bool,
    ) -> SendDrops {
        let mut slots = Slots::new(1, MAX_PACKET);
        slots.get_mut(0).unwrap()[HEADROOM..HEADROOM + text.len()].copy_from_slice(text);
        let transmit = Transmit { path, traffic_class, len: text.len(), oversize };
        assert!(socket.queue(&transmit, 0, HEADROOM));
        let mut drops = SendDrops::default();
        socket.flush(&slots, &mut drops);
        drops
    }

    fn sh(script: &str) {
        assert!(Command::new("sh").args(["-ec", script]).status().unwrap().success(), "{script}");
    }

    #[test]
    fn packets_arrive_without_their_outer_header() {
        in_namespace("esp_socket::tests::packets_arrive_without_their_outer_header", || {
            for (family, local, remote) in
                [(Family::V4, "127.0.0.9", "127.0.0.5"), (Family::V6, "::1", "::1")]
            {
                let mut socket = open(family, 7, 4).unwrap().unwrap();
                send(&mut socket, esp(local, remote), 0xb9, b"\0\0\x10\x01text");
                let mut batch = ReceiveBatch::new(4, 2000);
                assert_eq!(socket.receive(&mut batch).unwrap(), 1);
                let arrived = arrival(batch.get(0).unwrap()).unwrap();
                assert_eq!(arrived.packet.as_slice(), b"\0\0\x10\x01text");
                assert_eq!((arrived.path, arrived.traffic_class), (esp(remote, local), 0xb9));
                assert_eq!(socket.overflows(), 0);
            }
        });
    }

    #[test]
    fn the_mtu_of_the_link_and_of_the_path_are_learned() {
        // 10.9.1.1, here --- 1500 --- 10.9.1.2, a router --- 1300 --- 10.9.2.0/24
        in_namespace("esp_socket::tests::the_mtu_of_the_link_and_of_the_path_are_learned", || {
            sh("unshare -n sleep 30 >/dev/null 2>&1 & r=$!; sleep 0.3
                ip link add u0 type veth peer name r0; ip link set r0 netns $r
                ip addr add 10.9.1.1/24 dev u0; ip link set u0 up; ip route add 10.9.2.0/24 via 10.9.1.2
                nsenter -t $r -n sh -ec 'ip addr add 10.9.1.2/24 dev r0; ip link set r0 up
                  ip link add d0 type veth peer name d1; ip link set d1 up; ip link set d0 mtu 1300 up; ip addr add 10.9.2.1/24 dev d0
                  echo 1 > /proc/sys/net/ipv4/ip_forward'");
            let mut socket = open(Family::V4, 0, 4).unwrap().unwrap();
            let path = esp("0.0.0.0", "10.9.2.9");
            let text = |len: usize| [b"\0\0\x10\x01".as_slice(), &vec![0; len - 4]].concat();

            let drops = send(&mut socket, path, 0, &text(1480));
            assert!(drops.iter().all(|(_, count)| count == 0));
            std::thread::sleep(core::time::Duration::from_millis(300));
            let mut told = Vec::new();
            socket.errors(|error| told.push(error));
            let to: IpAddr = [10, 9, 2, 9].into();
            assert_eq!(told.len(), 1);
            assert_eq!((told[0].to.ip(), told[0].spi), (to, Some(0x1001)));
            assert_eq!(told[0].what, PathProblem::Mtu(1300));

            let drops = send(&mut socket, path, 0, &text(1480));
            assert!(drops.iter().all(|(_, count)| count == 0), "the route cache is not the judge");
            let drops = send(&mut socket, path, 0, &text(1481));
            assert!(drops.iter().any(|dropped| dropped == (SendDrop::TooBig, 1)));
            let mut own = Vec::new();
            socket.errors(|error| own.extend(error.spi.is_none().then_some(error.what)));
            assert!(own.contains(&PathProblem::Mtu(1500)), "{own:?}");
        });
    }

    #[test]
    fn an_oversize_packet_goes_out_in_fragments_and_only_that_one() {
        in_namespace(
            "esp_socket::tests::an_oversize_packet_goes_out_in_fragments_and_only_that_one",
            || {
                sh("ip link set lo mtu 1400");
                for (family, local) in [(Family::V4, "127.0.0.1"), (Family::V6, "::1")] {
                    let mut socket = open(family, 0, 4).unwrap().unwrap();
                    let path = esp(local, local);
                    for oversize in [false, true, false] {
                        let drops = send_sized(&mut socket, path, 0, &[1; 1500], oversize);
                        let too_big = drops.iter().any(|drop| drop == (SendDrop::TooBig, 1));
                        assert_eq!(too_big, !oversize, "{family:?}");
                        let mut batch = ReceiveBatch::new(4, 2000);
                        let received = socket.receive(&mut batch).unwrap();
                        assert_eq!(received, usize::from(oversize));
                        let arrived = batch.get(0).map(|datagram| arrival(datagram).unwrap());
                        assert!(arrived.is_none_or(|esp| esp.packet.as_slice() == [1; 1500]));
                    }
                }
            },
        );
    }

    #[test]
    fn what_is_no_ipv4_packet_is_malformed() {
        for first in [0x44u8, 0x65, 0x4f, 0] {
            let mut bytes = [first; 30];
            let datagram = Datagram {
                from: "192.0.2.1:0".parse().unwrap(),
                local: None,
                traffic_class: 0,
                segment: None,
                packet: PacketBuf::new(&mut bytes, 0, 30).unwrap(),
            };
            assert_eq!(arrival(datagram).unwrap_err(), Discard::Malformed);
        }
    }
}
