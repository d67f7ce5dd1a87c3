//! Hearing that somebody deletes our firewall table, as `nft flush ruleset` does.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{self, MsgFlags, NetlinkAddr, SockFlag, SockProtocol};

use super::message::{self, Message};
use super::{Errno, Error};

/// linux/netfilter/nfnetlink.h: `NFNLGRP_NFTABLES`, as a bit of `nl_groups`.
const GROUP: u32 = 1 << (7 - 1);
/// `NFNL_SUBSYS_NFTABLES` in the high byte, `NFT_MSG_DELTABLE` in the low one.
const DELTABLE: u16 = 10 << 8 | 2;
/// Bytes of `struct nfgenmsg` before the attributes.
const HEADER: usize = 4;
/// `NFTA_TABLE_NAME`.
const TABLE_NAME: u16 = 1;

/// A non-blocking subscription; its descriptor becomes readable when the firewall changes.
#[derive(Debug)]
pub struct FirewallMonitor {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl AsFd for FirewallMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl FirewallMonitor {
    /// Subscribes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open() -> Result<FirewallMonitor, Error> {
        let socket = super::open_socket(SockFlag::SOCK_NONBLOCK, SockProtocol::NetlinkNetFilter)?;
        socket::bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUP)).map_err(|errno| {
            super::error("subscribing to firewall changes".into(), (errno, None))
        })?;
        Ok(FirewallMonitor { socket, buffer: vec![0; 32_768] })
    }

    /// Whether the table `name` may have been deleted since the last call, perhaps to be made
    /// anew in the same transaction.
    pub fn deleted(&mut self, name: &str) -> bool {
        let mut deleted = false;
        loop {
            match socket::recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(len) => {
                    let received = self.buffer.get(..len).unwrap_or_default();
                    deleted |= message::messages(received).any(|m| deletes(&m, name));
                }
                Err(Errno::EINTR) => {}
                // What the kernel had to drop may have been about us.
                Err(Errno::ENOBUFS) => deleted = true,
                Err(_) => return deleted,
            }
        }
    }
}

fn deletes(message: &Message<'_>, name: &str) -> bool {
    let attributes = message.body.get(HEADER..).unwrap_or_default();
    message.kind == DELTABLE
        && message::attributes(attributes).any(|(kind, payload)| {
            kind == TABLE_NAME && payload.strip_suffix(&[0]) == Some(name.as_bytes())
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::{sh, within};

    #[test]
    fn a_flushed_ruleset_is_heard_and_other_tables_are_not() {
        within(|| {
            sh("nft add table inet ours; nft add table inet theirs");
            let mut monitor = FirewallMonitor::open().unwrap();
            assert!(!monitor.deleted("ours"));
            sh("nft add chain inet ours c; nft delete table inet theirs");
            assert!(!monitor.deleted("ours"));
            sh("nft flush ruleset");
            assert!(monitor.deleted("ours"));
            assert!(!monitor.deleted("ours"), "told once");
        });
    }
}
