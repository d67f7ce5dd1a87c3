//! Following the changes that others make to links, addresses and routes: a WAN that comes up, a
//! LAN that is renumbered; and what they take away of ours, routes and rules.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{self, MsgFlags, NetlinkAddr, SockFlag, SockProtocol};

use super::message::{self, number::*, read_u8};
use super::{Errno, Error, PROTOCOL};

/// `RTNLGRP_IPV6_RULE`, as a bit of `nl_groups`.
const RTMGRP_IPV6_RULE: i32 = 1 << (19 - 1);

/// What has changed since it was last asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changes {
    /// A device came, went, or changed its state.
    pub links: bool,
    /// An address came or went, and with it a connected prefix.
    pub addresses: bool,
    /// A route that is not ours came or went.
    pub routes: bool,
    /// A rule was deleted, or a route of ours: by others, or by ourselves.
    pub deleted: bool,
}

impl Changes {
    /// Everything, for want of knowing better.
    pub const ALL: Changes = Changes { links: true, addresses: true, routes: true, deleted: true };

    /// Whether anything that is not ours has changed.
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
            | libc::RTMGRP_IPV6_ROUTE
            | libc::RTMGRP_IPV4_RULE
            | RTMGRP_IPV6_RULE;
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
                    changes = Changes::ALL;
                }
                Err(errno) => return Err(failed("reading network changes", errno)),
            }
        }
    }
}

fn failed(attempt: &str, errno: Errno) -> Error {
    super::error(attempt.into(), (errno, None))
}

/// Whether a rule may have been ours: kernels before 4.17 do not know whose it was.
fn is_perhaps_ours(rule: &message::Message<'_>) -> bool {
    let attributes = message::attributes(rule.body.get(12..).unwrap_or_default());
    let mut protocols = attributes.filter(|(kind, _)| *kind == FRA_PROTOCOL);
    protocols.next().is_none_or(|(_, payload)| read_u8(payload, 0) == Some(PROTOCOL))
}

fn note(changes: &mut Changes, message: &message::Message<'_>) {
    match message.kind {
        RTM_NEWLINK | RTM_DELLINK => changes.links = true,
        RTM_NEWADDR | RTM_DELADDR => changes.addresses = true,
        RTM_NEWROUTE | RTM_DELROUTE if read_u8(message.body, 5) != Some(PROTOCOL) => {
            changes.routes = true;
        }
        RTM_DELROUTE => changes.deleted = true,
        RTM_DELRULE => changes.deleted |= is_perhaps_ours(message),
        _ => {}
    }
}
