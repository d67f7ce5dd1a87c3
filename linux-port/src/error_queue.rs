//! What ICMP told us about packets we sent: the sockets' error queues (`IP_RECVERR`,
//! `IPV6_RECVERR`, read with `MSG_ERRQUEUE`).
//!
//! ICMP is not authenticated. Each error says which SPI the quoted packet had, so that a forger
//! has to know the SPI of an SA as well as its addresses (RFC 4301 §8.2.1).

use core::net::SocketAddr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::cmsg::{self, Control};
use crate::sockaddr::SockAddr;

/// Type and code of ICMP's "fragmentation needed" (RFC 792).
const FRAGMENTATION_NEEDED: (u8, u8) = (3, 4);
/// Type of ICMPv6's "packet too big" (RFC 4443 §3.2).
const PACKET_TOO_BIG: u8 = 2;

/// An error about a packet that was sent to `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathError {
    /// Where the packet was sent; the port is 0 on a raw socket.
    pub to: SocketAddr,
    /// The SPI of the packet that the ICMP message quotes; `None` if this machine itself is the
    /// source of the error.
    pub spi: Option<u32>,
    /// What is wrong.
    pub what: PathProblem,
}

/// What is wrong with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathProblem {
    /// Outer packets, IP header included, may have at most so many bytes (RFC 1191, RFC 8201).
    Mtu(u32),
    /// They did not get there; an `errno`.
    Unreachable(i32),
}

/// Reads the errors that wait on `socket`, at most 64 of them, and hands each to `tell`.
pub fn drain(socket: BorrowedFd<'_>, mut tell: impl FnMut(PathError)) {
    for _ in 0..64 {
        match read_one(socket) {
            Ok(Some(error)) => tell(error),
            Ok(None) => {}
            Err(_) => return,
        }
    }
}

fn read_one(socket: BorrowedFd<'_>) -> io::Result<Option<PathError>> {
    let mut quoted = [0u8; 64];
    let mut name = SockAddr::new();
    let mut control = Control::<256>::new();
    let mut iovec =
        libc::iovec { iov_base: quoted.as_mut_ptr().cast(), iov_len: size_of_val(&quoted) };
    // SAFETY: a C struct of numbers and pointers, for which zeros are valid.
    let mut header: libc::msghdr = unsafe { core::mem::zeroed() };
    header.msg_name = name.as_mut_ptr().cast();
    header.msg_namelen = SockAddr::ROOM;
    header.msg_iov = &raw mut iovec;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = 256;
    // SAFETY: every pointer in `header` leads to a local variable of the length given beside it.
    let len = unsafe {
        libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT)
    };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    let Some(to) = name.get(header.msg_namelen) else { return Ok(None) };
    let quoted = quoted.get(..len).unwrap_or_default();
    Ok(parse(to, quoted, control.filled(&header)))
}

/// Reads a `struct sock_extended_err`: errno, origin, type, code, padding, info, data.
fn parse(to: SocketAddr, quoted: &[u8], control: &[u8]) -> Option<PathError> {
    let (_, _, error) = cmsg::messages(control).find(|&(level, kind, _)| {
        (level, kind) == (libc::IPPROTO_IP, libc::IP_RECVERR)
            || (level, kind) == (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
    })?;
    let errno = i32::from_ne_bytes(*error.first_chunk()?);
    let [origin, kind, code] = *error.get(4..)?.first_chunk()?;
    let info = u32::from_ne_bytes(*error.get(8..)?.first_chunk()?);
    let spi = match origin {
        libc::SO_EE_ORIGIN_LOCAL => None,
        libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6 => {
            Some(u32::from_be_bytes(*quoted.first_chunk()?))
        }
        _ => return None,
    };
    // By what ICMP itself calls it: EMSGSIZE is another number on MIPS, which emulators leave as
    // it is here. Of the errors of this machine only this one comes with a number.
    let too_big = match origin {
        libc::SO_EE_ORIGIN_ICMP => (kind, code) == FRAGMENTATION_NEEDED,
        libc::SO_EE_ORIGIN_ICMP6 => kind == PACKET_TOO_BIG,
        _ => errno == libc::EMSGSIZE || info != 0,
    };
    let what = match (too_big, info) {
        // A router from before RFC 1191 that does not say its MTU.
        (true, 0) => return None,
        (true, mtu) => PathProblem::Mtu(mtu),
        (false, _) => PathProblem::Unreachable(errno),
    };
    Some(PathError { to, spi, what })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extended_error(errno: i32, origin: u8, info: u32) -> Control<256> {
        let (kind, code) = FRAGMENTATION_NEEDED;
        let mut error = errno.to_ne_bytes().to_vec();
        error.extend([origin, kind, code, 0]);
        error.extend(info.to_ne_bytes());
        error.extend([0; 4]);
        let mut control = Control::new();
        control.push(libc::IPPROTO_IP, libc::IP_RECVERR, &error);
        control
    }

    #[test]
    fn fragmentation_needed_tells_mtu_and_spi() {
        let to = "192.0.2.1:4500".parse().unwrap();
        let control = extended_error(libc::EMSGSIZE, libc::SO_EE_ORIGIN_ICMP, 1400);
        let quoted = [0, 0, 0x10, 1, 0, 0, 0, 9];
        assert_eq!(
            parse(to, &quoted, control.as_slice()),
            Some(PathError { to, spi: Some(0x1001), what: PathProblem::Mtu(1400) })
        );
        assert_eq!(parse(to, &quoted[..3], control.as_slice()), None, "quotes no SPI");
        let cut = control.as_slice().len();
        for len in 0..cut - 8 {
            parse(to, &quoted, &control.as_slice()[..len]);
        }
    }

    #[test]
    fn an_mtu_is_one_whatever_number_the_error_has() {
        let to = "192.0.2.1:4500".parse().unwrap();
        for origin in [libc::SO_EE_ORIGIN_ICMP, libc::SO_EE_ORIGIN_LOCAL] {
            // EMSGSIZE of most architectures and of MIPS.
            for errno in [90, 97] {
                let control = extended_error(errno, origin, 1400);
                let what = parse(to, &[0; 8], control.as_slice()).map(|error| error.what);
                assert_eq!(what, Some(PathProblem::Mtu(1400)), "{origin}, {errno}");
            }
        }
        let refused = extended_error(libc::ECONNREFUSED, libc::SO_EE_ORIGIN_LOCAL, 0);
        let what = parse(to, &[0; 8], refused.as_slice()).map(|error| error.what);
        assert_eq!(what, Some(PathProblem::Unreachable(libc::ECONNREFUSED)));
    }

    #[test]
    fn useless_errors_are_left_out() {
        let to = "192.0.2.1:4500".parse().unwrap();
        let no_mtu = extended_error(libc::EMSGSIZE, libc::SO_EE_ORIGIN_ICMP, 0);
        assert_eq!(parse(to, &[0; 8], no_mtu.as_slice()), None);
        let timestamp = extended_error(libc::ENOMSG, 4, 0);
        assert_eq!(parse(to, &[0; 8], timestamp.as_slice()), None);
        assert_eq!(parse(to, &[0; 8], &[]), None);
    }
}
