//! The UDP sockets of port 4500: ESP and IKE in UDP (RFC 3948).
//!
//! Checksums are real in both directions; `UDP_ENCAP` is not set, the kernel must not take our
//! packets for its own IPsec.

use core::net::SocketAddr;
use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{SockaddrStorage, bind, getsockname};
use simplevpn_core::Path;
use std::os::fd::AsRawFd;

use crate::batch::Datagram;
use crate::outer_socket::{Arrival, Family, OuterSocket};

/// Opens and binds the UDP socket of one IP version; `None` if the kernel does not have that
/// version. Port 0 is any free port.
///
/// # Errors
/// Those of the kernel; `EADDRINUSE` if another program has the port.
pub fn open(family: Family, port: u16, mark: u32, batch: usize) -> io::Result<Option<OuterSocket>> {
    let socket = match OuterSocket::open(family, libc::SOCK_DGRAM, libc::IPPROTO_UDP, mark, batch) {
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => return Ok(None),
        other => other?,
    };
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
    match datagram.packet.as_slice() {
        [0xff] => Encapsulated::Keepalive,
        [0, 0, 0, 0, ..] => match datagram.packet.pull_front(4) {
            Ok(()) => Encapsulated::Ike(datagram),
            Err(_) => Encapsulated::Malformed,
        },
        [_, _, _, _, ..] => {
            let Datagram { from, local, traffic_class, segment, packet } = datagram;
            let family = if from.is_ipv4() { Family::V4 } else { Family::V6 };
            let local = local.unwrap_or_else(|| family.unspecified(0).ip());
            let path = Path::Udp { local: SocketAddr::new(local, local_port), remote: from };
            Encapsulated::Esp(Arrival { path, traffic_class, segment, packet })
        }
        _ => Encapsulated::Malformed,
    }
}
