//! Programs without privileges which insist on a device: each way a socket has to do so.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use super::Host;
use super::traffic::any;

/// How a socket says by which device its packets are to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// It does not.
    Free,
    /// `SO_BINDTODEVICE`.
    ToDevice,
    /// `IP_UNICAST_IF` and `IPV6_UNICAST_IF`.
    Unicast,
    /// `IP_PKTINFO` and `IPV6_PKTINFO`, with each packet.
    PacketInfo,
}

impl Bound {
    /// All of them.
    pub const ALL: [Bound; 4] = [Bound::Free, Bound::ToDevice, Bound::Unicast, Bound::PacketInfo];
}

impl Host {
    /// Sends `count` datagrams to `to` through `device`, as a program without any capability; what
    /// the kernel refuses is not sent.
    ///
    /// # Panics
    /// When capabilities cannot be given up, or there is no such device.
    pub fn sends_bound(
        &self,
        how: Bound,
        device: &str,
        to: SocketAddr,
        payload: &[u8],
        count: u32,
    ) {
        self.within(|| {
            give_up_capabilities();
            for _ in 0..count {
                // A socket that is bound stays so without privileges.
                let socket = match UdpSocket::bind((any(to.ip()), 0)) {
                    Ok(socket) => socket,
                    Err(error) => panic!("no socket on {}: {error}", self.name()),
                };
                // Refused: that is what a killswitch does.
                let _ = send(&socket, how, device, to, payload);
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        });
    }
}

/// Only of this thread, which ends soon.
fn give_up_capabilities() {
    // struct __user_cap_header_struct of version 3, and two empty sets of three.
    let header: [u32; 2] = [0x2008_0522, 0];
    let none = [0u32; 6];
    // SAFETY: capset reads both, which have the layout of version 3.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    assert_eq!(result, 0, "capset: {}", io::Error::last_os_error());
}

fn send(
    socket: &UdpSocket,
    how: Bound,
    device: &str,
    to: SocketAddr,
    payload: &[u8],
) -> io::Result<()> {
    let index = match nix::net::if_::if_nametoindex(device) {
        Ok(index) => index,
        Err(error) => panic!("no device {device}: {error}"),
    };
    match how {
        Bound::Free => {}
        Bound::ToDevice => {
            set(socket, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, device.as_bytes())?;
        }
        Bound::Unicast => {
            let index = index.to_be_bytes();
            match to {
                SocketAddr::V4(_) => set(socket, libc::IPPROTO_IP, libc::IP_UNICAST_IF, &index)?,
                SocketAddr::V6(_) => set(socket, libc::IPPROTO_IPV6, 76, &index)?,
            }
        }
        Bound::PacketInfo => return send_with_info(socket, index, to, payload),
    }
    socket.send_to(payload, to).map(drop)
}

fn set(socket: &UdpSocket, level: i32, option: i32, value: &[u8]) -> io::Result<()> {
    // SAFETY: setsockopt reads as many bytes of `value` as it has.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn send_with_info(
    socket: &UdpSocket,
    index: u32,
    to: SocketAddr,
    payload: &[u8],
) -> io::Result<()> {
    use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
    let payload = [io::IoSlice::new(payload)];
    // SAFETY: all-zero structures of numbers are valid ones.
    let (mut v4, mut v6): (libc::in_pktinfo, libc::in6_pktinfo) = unsafe { std::mem::zeroed() };
    (v4.ipi_ifindex, v6.ipi6_ifindex) = (index as i32, index as _);
    let info = match to.ip() {
        IpAddr::V4(_) => ControlMessage::Ipv4PacketInfo(&v4),
        IpAddr::V6(_) => ControlMessage::Ipv6PacketInfo(&v6),
    };
    let to = SockaddrStorage::from(to);
    sendmsg(socket.as_raw_fd(), &payload, &[info], MsgFlags::empty(), Some(&to))?;
    Ok(())
}
