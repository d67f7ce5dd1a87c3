//! Packets that no honest program sends: any source, any protocol.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage};
use nix::sys::socket::{recv, sendto, setsockopt, sockopt};
use nix::sys::time::TimeVal;

use super::Host;

/// A UDP packet with its IP header, checksums and all. Both addresses are of one family.
///
/// # Panics
/// When they are not, or the payload does not fit.
pub fn udp_packet(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let length = fits(8 + payload.len());
    let mut datagram = Vec::new();
    datagram.extend(from.port().to_be_bytes());
    datagram.extend(to.port().to_be_bytes());
    datagram.extend(length.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    let mut covered = pseudo_header(from.ip(), to.ip(), 17, length);
    covered.extend(&datagram);
    let sum = match checksum(&covered) {
        0 => 0xffff,
        sum => sum,
    };
    datagram.splice(6..8, sum.to_be_bytes());
    ip_packet(from.ip(), to.ip(), 17, &datagram)
}

/// An IP packet of any protocol. Both addresses are of one family.
///
/// # Panics
/// When they are not, or the payload does not fit.
pub fn ip_packet(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            packet.extend([0x45, 0]);
            packet.extend(fits(20 + payload.len()).to_be_bytes());
            packet.extend([0x12, 0x34, 0, 0, 64, protocol, 0, 0]);
            packet.extend(from.octets());
            packet.extend(to.octets());
            let sum = checksum(&packet);
            packet.splice(10..12, sum.to_be_bytes());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend(fits(payload.len()).to_be_bytes());
            packet.extend([protocol, 64]);
            packet.extend(from.octets());
            packet.extend(to.octets());
        }
        _ => panic!("{from} and {to} are not of one family"),
    }
    packet.extend(payload);
    packet
}

impl Host {
    /// Sends a whole IP packet, whatever its header claims.
    ///
    /// # Errors
    /// When the kernel refuses, for instance for want of a route.
    pub fn send_packet(&self, packet: &[u8]) -> io::Result<()> {
        let to = match packet.first().map(|byte| byte >> 4) {
            Some(4) => {
                packet.get(16..).and_then(|to| to.first_chunk::<4>().copied().map(IpAddr::from))
            }
            Some(6) => {
                packet.get(24..).and_then(|to| to.first_chunk::<16>().copied().map(IpAddr::from))
            }
            _ => None,
        };
        let to = to.unwrap_or_else(|| panic!("no IP packet"));
        let socket = self.within(|| raw_socket(to, libc::IPPROTO_RAW))?;
        let target = SockaddrStorage::from(SocketAddr::new(to, 0));
        sendto(socket.as_raw_fd(), packet, &target, MsgFlags::empty())?;
        Ok(())
    }

    /// A socket that receives packets of `protocol`, of the family of `address`.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn listens_for(&self, address: IpAddr, protocol: u8) -> io::Result<Listener> {
        let socket = self.within(|| raw_socket(address, protocol.into()))?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 50_000))?;
        Ok(Listener { socket })
    }
}

/// A raw socket that waits for packets.
pub struct Listener {
    socket: OwnedFd,
}

impl Listener {
    /// The next packet that contains `marker`, if it comes within `limit`: with its header for
    /// IPv4, without for IPv6, as the kernel hands it out.
    pub fn hears(&self, marker: &[u8], limit: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + limit;
        let mut buffer = vec![0; 1 << 16];
        while Instant::now() < deadline {
            let Ok(length) = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) else {
                continue;
            };
            let packet = buffer.get(..length).unwrap_or_default();
            if super::capture::find(packet, marker) {
                return Some(packet.to_vec());
            }
        }
        None
    }
}

fn raw_socket(address: IpAddr, protocol: i32) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    let family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let kind = SockType::Raw as i32 | SockFlag::SOCK_CLOEXEC.bits();
    // SAFETY: socket() takes three numbers and returns a new descriptor or -1.
    let fd = unsafe { libc::socket(family as i32, kind, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was made just now and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn fits(length: usize) -> u16 {
    u16::try_from(length).unwrap_or_else(|_| panic!("{length} bytes do not fit into a packet"))
}

fn pseudo_header(from: IpAddr, to: IpAddr, protocol: u8, length: u16) -> Vec<u8> {
    let mut header = Vec::new();
    for address in [from, to] {
        match address {
            IpAddr::V4(address) => header.extend(address.octets()),
            IpAddr::V6(address) => header.extend(address.octets()),
        }
    }
    header.extend([0, protocol]);
    header.extend(length.to_be_bytes());
    header
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        let high = pair.first().copied().unwrap_or(0);
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([high, low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
