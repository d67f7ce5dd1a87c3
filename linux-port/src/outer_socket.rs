//! A socket for outer packets: the options that raw ESP and UDP sockets share, and their batches.
//!
//! Not connected: one socket of each kind serves every peer.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use simplevpn_core::packet::PacketBuf;
use simplevpn_core::{Path, Transmit};

use crate::batch::{ReceiveBatch, Slots};
use crate::capacity;
use crate::error_queue::{self, PathError};
use crate::send_drops::SendDrops;
use crate::send_queue::{Outgoing, SendQueue};
use crate::socket_option::{fragment, set_option};

/// The IP version of outer packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The version of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Family {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// The address that means any.
    #[must_use]
    pub fn unspecified(self, port: u16) -> SocketAddr {
        match self {
            Family::V4 => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port),
            Family::V6 => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port),
        }
    }
}

/// An ESP packet that was received, from the ESP header to the ICV.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// How it came; `local` is our address.
    pub path: Path,
    /// DSCP and ECN of the outer header.
    pub traffic_class: u8,
    /// The packet.
    pub packet: PacketBuf<'a>,
}

/// linux/udp.h
const UDP_NO_CHECK6_RX: i32 = 102;

/// A non-blocking socket for outer packets of one kind and IP version, and what waits to be sent.
pub struct OuterSocket {
    fd: OwnedFd,
    family: Family,
    queue: SendQueue,
    /// Datagrams received at once; those that the kernel has joined count as one.
    limit: usize,
    /// Whether an emulator passes control messages on as they are, in the wrong byte order.
    garbles: bool,
}

impl OuterSocket {
    /// Opens a socket whose packets carry the mark `mark` and whose queue holds `batch` packets.
    ///
    /// # Errors
    /// Those of `socket(2)` and of the options the daemon cannot do without.
    pub(crate) fn open(
        family: Family,
        kind: i32,
        protocol: i32,
        mark: u32,
        batch: usize,
    ) -> io::Result<OuterSocket> {
        let domain = match family {
            Family::V4 => libc::AF_INET,
            Family::V6 => libc::AF_INET6,
        };
        let kind = kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: takes only numbers.
        let fd = unsafe { libc::socket(domain, kind, protocol) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that was just opened and that nothing else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let queue = SendQueue::new(batch);
        let mut socket = OuterSocket { fd, family, queue, limit: usize::MAX, garbles: false };
        socket.configure(mark, protocol == libc::IPPROTO_UDP)?;
        Ok(socket)
    }

    fn configure(&mut self, mark: u32, udp: bool) -> io::Result<()> {
        let set = |level, name, value| set_option(self.fd.as_fd(), level, name, value);
        match set(libc::SOL_SOCKET, libc::SO_MARK, mark.cast_signed()) {
            // Emulators and kernels without CONFIG_NETWORK_MARK do not know marks.
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
                log::warn!("packets cannot be marked here (SO_MARK): policy routing will not work");
                self.garbles = cfg!(target_endian = "big");
            }
            other => other?,
        }
        fragment(self.fd.as_fd(), self.family == Family::V4, false)?;
        match self.family {
            Family::V4 => {
                set(libc::IPPROTO_IP, libc::IP_RECVERR, 1)?;
                set(libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
                set(libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
            }
            Family::V6 => {
                // A raw socket has one version anyway, and refuses the option.
                if udp {
                    set(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
                }
                set(libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)?;
                set(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
                set(libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
                if udp && set(libc::IPPROTO_UDP, UDP_NO_CHECK6_RX, 1).is_err() {
                    log::debug!("datagrams without a checksum are not received over IPv6");
                }
            }
        }
        let room = capacity::receive_buffer(self.queue.capacity());
        if set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, room).is_err() {
            set(libc::SOL_SOCKET, libc::SO_RCVBUF, room)?;
        }
        let room = capacity::send_buffer();
        // Without CAP_NET_ADMIN outside the user namespace: as much as net.core.wmem_max allows.
        if set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, room).is_err() {
            set(libc::SOL_SOCKET, libc::SO_SNDBUF, room)?;
        }
        Ok(())
    }

    /// Lets the kernel cut and join datagrams, as far as it can (`UDP_SEGMENT` since Linux 4.18,
    /// `UDP_GRO` since 5.0).
    pub(crate) fn offload(&mut self) {
        let set = |name, value| set_option(self.fd.as_fd(), libc::IPPROTO_UDP, name, value);
        if self.garbles {
            return;
        }
        if set(libc::UDP_GRO, 1).is_ok() {
            self.limit = capacity::joined(self.queue.capacity());
        }
        if set(libc::UDP_SEGMENT, 0).is_ok() {
            self.queue.allow_runs();
        }
    }

    /// The IP version.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// Receives a batch, replacing what was in it, and returns the number of datagrams. Those that
    /// the kernel has joined count as one.
    ///
    /// # Errors
    /// See [`ReceiveBatch::receive`].
    pub fn receive(&self, batch: &mut ReceiveBatch) -> io::Result<usize> {
        batch.receive(self.fd.as_fd(), self.limit)
    }

    /// Lets a sealed packet, which begins at byte `start` of `slot`, wait for [`Self::flush`];
    /// `false` if the queue is full.
    #[must_use]
    pub fn queue(&mut self, transmit: &Transmit, slot: usize, start: usize) -> bool {
        self.queue.push(Outgoing::new(transmit, slot, start))
    }

    /// Sends what waits; see [`SendQueue::flush`].
    pub fn flush(&mut self, slots: &Slots, drops: &mut SendDrops) {
        self.queue.flush(self.fd.as_fd(), slots, drops);
    }

    /// Reads what ICMP told about sent packets; to be called when `epoll` reports `EPOLLERR`.
    pub fn errors(&self, tell: impl FnMut(PathError)) {
        error_queue::drain(self.fd.as_fd(), tell);
    }

    /// How many packets the kernel has dropped because they were not received fast enough;
    /// 0 where the kernel does not tell.
    #[must_use]
    pub fn overflows(&self) -> u64 {
        const DROPS: usize = libc::SK_MEMINFO_DROPS as usize;
        let mut info = [0u32; DROPS + 1];
        let mut len = size_of_val(&info) as libc::socklen_t;
        // SAFETY: `info` has room for the `len` bytes that the kernel may write.
        let result = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MEMINFO,
                info.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        if result == 0 { u64::from(info[DROPS]) } else { 0 }
    }
}

impl AsFd for OuterSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
