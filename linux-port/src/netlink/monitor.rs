//! Following the changes that others make to links, addresses and routes: a WAN that comes up, a
//! LAN that is renumbered.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{self, MsgFlags, NetlinkAddr, SockFlag, SockProtocol};

use super::message::{self, number::*, read_u8};
use super::{Errno, Error, PROTOCOL};

/// What has changed since it was last asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changes {
    /// A device came, went, or changed its state.
    pub links: bool,
    /// An address came or went, and with it a connected prefix.
    pub addresses: bool,
    /// A route that is not ours came or went.
    pub routes: bool,
}

impl Changes {
    /// Whether anything has changed.
    #[must_use]
    pub fn any(self) -> bool {
        self.links || self.addresses || self.routes
    }
}

/// A non-blocking subscription; its descriptor becomes readable when something changes.
#[derive(Debug)]
pub struct Monitor {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Monitor {
    /// Subscribes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open() -> Result<Monitor, Error> {
        let groups = libc::RTMGRP_LINK
            | libc::RTMGRP_IPV4_IFADDR
            | libc::RTMGRP_IPV4_ROUTE
            | libc::RTMGRP_IPV6_IFADDR
            | libc::RTMGRP_IPV6_ROUTE;
        let socket = super::open_socket(SockFlag::SOCK_NONBLOCK, SockProtocol::NetlinkRoute)?;
        let address = NetlinkAddr::new(0, u32::try_from(groups).unwrap_or(0));
        socket::bind(socket.as_raw_fd(), &address)
            .map_err(|errno| failed("subscribing to network changes", errno))?;
        Ok(Monitor { socket, buffer: vec![0; 32_768] })
    }

    /// Everything that has changed since the last call.
    ///
    /// # Errors
    /// When the kernel fails; a backlog that it had to drop counts as a change of everything.
    pub fn changes(&mut self) -> Result<Changes, Error> {
        let mut changes = Changes::default();
        loop {
            match socket::recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(len) => {
                    let received = self.buffer.get(..len).unwrap_or_default();
                    message::messages(received).for_each(|m| note(&mut changes, &m));
                }
                Err(Errno::EAGAIN) => return Ok(changes),
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => {
                    changes = Changes { links: true, addresses: true, routes: true };
                }
                Err(errno) => return Err(failed("reading network changes", errno)),
            }
        }
    }
}

fn failed(attempt: &str, errno: Errno) -> Error {
    super::error(attempt.into(), (errno, None))
}

fn note(changes: &mut Changes, message: &message::Message<'_>) {
    match message.kind {
        RTM_NEWLINK | RTM_DELLINK => changes.links = true,
        RTM_NEWADDR | RTM_DELADDR => changes.addresses = true,
        RTM_NEWROUTE | RTM_DELROUTE if read_u8(message.body, 5) != Some(PROTOCOL) => {
            changes.routes = true;
        }
        _ => {}
    }
}
