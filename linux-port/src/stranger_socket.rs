//! A raw socket for what strangers are answered: it sends UDP from the port of another socket, and
//! receives nothing.
//!
//! A packet for a neighbour that does not answer waits in the kernel's neighbour table for seconds,
//! and is charged to the socket it came from all that time. Whoever is on the link can ask in the
//! name of neighbours that do not exist, and so use up a socket's buffer. Therefore answers to
//! people unknown have one of their own: where it is full, strangers wait, and nobody else.
//!
//! It does not keep the neighbour table itself from filling up (`gc_thresh3` entries, 1024 as the
//! kernel comes): whoever is on the link can do that to any host that answers anything, by ping as
//! well. Neighbours that are known keep their entries while they are in use; new ones may have to
//! wait.

use core::net::SocketAddr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use simplevpn_core::{Discard, PacketBuf, Path, Transmit, outer};

use crate::batch::{empty_header, empty_iovec};
use crate::cmsg::Control;
use crate::outer_socket::Family;
use crate::sockaddr::SockAddr;
use crate::socket_option::set_option;

/// What waits in the kernel at most, in bytes as it counts them: some hundred answers. As long as
/// addresses that do not exist use it up, it is also how many in a few seconds find their way.
const ROOM: i32 = 256 << 10;
/// Hops until a router drops an answer.
const HOP_LIMIT: u8 = 64;

/// A non-blocking raw socket of one IP version for answers to strangers.
pub struct StrangerSocket {
    fd: OwnedFd,
    family: Family,
}

impl StrangerSocket {
    /// Opens it; its packets carry the mark `mark`. `None` if the kernel does not have that version
    /// of IP.
    ///
    /// # Errors
    /// Those of the kernel; `EPERM` without CAP_NET_RAW.
    pub fn open(family: Family, mark: u32) -> io::Result<Option<StrangerSocket>> {
        let domain = match family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = match socket(domain, SockType::Raw, flags, SockProtocol::Raw) {
            Err(nix::Error::EAFNOSUPPORT) => return Ok(None),
            other => other?,
        };
        let set = |name, value| set_option(fd.as_fd(), libc::SOL_SOCKET, name, value);
        match set(libc::SO_MARK, mark.cast_signed()) {
            // As for the other sockets, which say so.
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {}
            other => other?,
        }
        // The kernel doubles it, for what it takes itself; and less than it has by default is
        // always allowed.
        set(libc::SO_SNDBUF, ROOM / 2)?;
        // Of a protocol that nobody speaks (255) it would receive.
        set(libc::SO_RCVBUF, 0)?;
        Ok(Some(StrangerSocket { fd, family }))
    }

    /// The IP version.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// Sends the datagram in `packet` between the ports and addresses of `local` and `remote`, or
    /// not at all.
    ///
    /// # Errors
    /// Those of [`outer::prepend`] and, as [`Discard::NoRoom`], those of the kernel.
    pub fn send(
        &self,
        packet: &mut PacketBuf<'_>,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<(), Discard> {
        let path = Path::Udp { local, remote };
        let transmit = Transmit { path, traffic_class: 0, len: packet.len(), oversize: false };
        outer::prepend(packet, &transmit, HOP_LIMIT, 0)?;
        // Routes may depend on our address.
        let mut control = Control::<64>::new();
        control.push_source(local.ip());
        // The header has the ports; a raw socket of IPv6 wants none here.
        let mut remote = remote;
        remote.set_port(0);
        let mut name = SockAddr::new();
        let mut iovec = empty_iovec();
        iovec.iov_base = packet.as_mut_slice().as_mut_ptr().cast();
        iovec.iov_len = packet.len();
        let mut header = empty_header().msg_hdr;
        header.msg_namelen = name.set(remote);
        header.msg_name = name.as_mut_ptr().cast();
        header.msg_iov = &raw mut iovec;
        header.msg_iovlen = 1;
        header.msg_controllen = control.as_slice().len() as _;
        header.msg_control = control.as_mut_ptr().cast();
        // SAFETY: the header points at a name, a control message, one iovec and the packet in it,
        // all of which live until the kernel, which only reads them, is done.
        let sent = unsafe {
            libc::sendmsg(
                self.fd.as_raw_fd(),
                &raw const header,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        if sent < 0 { Err(Discard::NoRoom) } else { Ok(()) }
    }
}

impl AsFd for StrangerSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::in_namespace;
    use simplevpn_core::packet::HEADROOM;
    use std::net::UdpSocket;
    use std::process::Command;
    use std::time::Duration;

    fn send(socket: &StrangerSocket, local: &str, remote: &str, text: &[u8]) -> bool {
        let mut bytes = [&[0; HEADROOM], text].concat();
        let mut packet = PacketBuf::new(&mut bytes, HEADROOM, text.len()).unwrap();
        socket.send(&mut packet, local.parse().unwrap(), remote.parse().unwrap()).is_ok()
    }

    fn sh(script: &str) {
        assert!(Command::new("sh").args(["-ec", script]).status().unwrap().success(), "{script}");
    }

    #[test]
    fn answers_come_from_the_port_of_another_socket() {
        in_namespace(
            "stranger_socket::tests::answers_come_from_the_port_of_another_socket",
            || {
                for (family, local, remote) in [
                    (Family::V4, "127.0.0.9:4500", "127.0.0.5:4501"),
                    (Family::V6, "[::1]:4500", "[::1]:4501"),
                ] {
                    let owner = UdpSocket::bind(local).unwrap();
                    let asker = UdpSocket::bind(remote).unwrap();
                    asker.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                    owner.set_nonblocking(true).unwrap();
                    let socket = StrangerSocket::open(family, 7).unwrap().unwrap();
                    assert!(send(&socket, local, remote, b"no"));
                    let mut buffer = [0; 100];
                    let (len, from) = asker.recv_from(&mut buffer).unwrap();
                    assert_eq!((&buffer[..len], from), (&b"no"[..], local.parse().unwrap()));
                    assert!(owner.recv_from(&mut buffer).is_err());
                }
            },
        );
    }

    #[test]
    fn for_neighbours_that_do_not_exist_there_is_only_so_much_room() {
        in_namespace(
            "stranger_socket::tests::for_neighbours_that_do_not_exist_there_is_only_so_much_room",
            || {
                sh("ip link add u0 type veth peer name u1; ip link set u0 up; ip link set u1 up
                    ip addr add 10.9.1.1/24 dev u0");
                let socket = StrangerSocket::open(Family::V4, 0).unwrap().unwrap();
                let sent = (0..2000)
                    .filter(|n| {
                        let remote = format!("10.9.1.{}:500", 2 + n % 250);
                        send(&socket, "10.9.1.1:500", &remote, &[0; 100])
                    })
                    .count();
                assert!((50..1000).contains(&sent), "{sent} of 2000 wait");
            },
        );
    }
}
