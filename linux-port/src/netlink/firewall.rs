//! What the kernel tells of the firewall: that others change our tables, and what a counter of ours
//! has counted.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{self, MsgFlags, NetlinkAddr, SockFlag, SockProtocol};

use super::message::{self, Message, Request, attributes};
use super::{Errno, Error, Netlink};
use crate::nft::{self, Count};

/// linux/netfilter/nfnetlink.h: `NFNLGRP_NFTABLES`, as a bit of `nl_groups`.
const GROUP: u32 = 1 << (7 - 1);
/// `NFNL_SUBSYS_NFTABLES`, the high byte of a message's type.
const NFTABLES: u16 = 10 << 8;
/// `NFT_MSG_NEWGEN`, `NFT_MSG_NEWOBJ`, `NFT_MSG_GETOBJ`: the end of a transaction; an object, such
/// as a counter; and the question for one.
const NEWGEN: u16 = NFTABLES | 15;
const NEWOBJ: u16 = NFTABLES | 18;
const GETOBJ: u16 = NFTABLES | 19;
/// `struct nfgenmsg` before the attributes: family `inet`, version 0.
const HEADER: [u8; 4] = [1, 0, 0, 0];
/// The name of the table, in messages about tables and about all that is in them.
const TABLE: u16 = 1;
/// `NFTA_OBJ_NAME`, `NFTA_OBJ_TYPE` and `NFTA_OBJ_DATA`.
const OBJ_NAME: u16 = 2;
const OBJ_TYPE: u16 = 3;
const OBJ_DATA: u16 = 4;
/// `NFT_OBJECT_COUNTER`.
const COUNTER: u32 = 1;
/// `NFTA_COUNTER_BYTES` and `NFTA_COUNTER_PACKETS`.
const COUNTER_BYTES: u16 = 1;
const COUNTER_PACKETS: u16 = 2;

/// What a counter of a table of family `inet` has counted, if there is such a table with one.
///
/// # Errors
/// When the kernel refuses the question.
pub fn count(table: &str, counter: &str) -> Result<Option<Count>, Error> {
    let request = Request::new(GETOBJ, 0, &HEADER)
        .text(TABLE, table)
        .text(OBJ_NAME, counter)
        .bytes(OBJ_TYPE, &COUNTER.to_be_bytes());
    let mut found = None;
    let mut netlink = Netlink::of(SockProtocol::NetlinkNetFilter)?;
    match netlink.exchange(&request, &mut |m| found = parse_counter(m)) {
        Ok(()) => Ok(found),
        // EINVAL: a kernel without nftables.
        Err((Errno::ENOENT | Errno::EINVAL | Errno::EOPNOTSUPP, _)) => Ok(None),
        Err(e) => Err(super::error(format!("reading counter {counter} of table {table}"), e)),
    }
}

fn parse_counter(message: &Message<'_>) -> Option<Count> {
    let mut found = attributes(message.body.get(HEADER.len()..)?);
    let (_, data) = found.find(|(kind, _)| *kind == OBJ_DATA)?;
    let number = |wanted| {
        let (_, payload) = attributes(data).find(|(kind, _)| *kind == wanted)?;
        Some(u64::from_be_bytes(*payload.first_chunk()?))
    };
    Some(Count { packets: number(COUNTER_PACKETS)?, bytes: number(COUNTER_BYTES)? })
}

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

    /// Whether another program may have changed one of these tables, or anything in them, since
    /// the last call. What [`nft`] has done for us does not count.
    pub fn meddled(&mut self, tables: &[&str]) -> bool {
        let mut meddled = false;
        loop {
            match socket::recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(len) => {
                    let received = self.buffer.get(..len).unwrap_or_default();
                    meddled |= message::messages(received).any(|m| meddles(&m, tables));
                }
                Err(Errno::EINTR) => {}
                // What the kernel had to drop may have been about us.
                Err(Errno::ENOBUFS) => meddled = true,
                Err(_) => return meddled,
            }
        }
    }
}

fn meddles(message: &Message<'_>, tables: &[&str]) -> bool {
    // A counter that is set to zero takes nothing away, and cannot go while rules use it.
    if message.kind & 0xff00 != NFTABLES || [NEWGEN, NEWOBJ].contains(&message.kind) {
        return false;
    }
    let is_ours = |payload: &[u8]| {
        tables.iter().any(|name| Some(name.as_bytes()) == payload.strip_suffix(&[0]))
    };
    let mut all = attributes(message.body.get(HEADER.len()..).unwrap_or_default());
    all.any(|(kind, payload)| kind == TABLE && is_ours(payload)) && !nft::is_ours(message.sender)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::{sh, within};

    #[test]
    fn whatever_others_do_to_our_table_is_heard_and_to_theirs_is_not() {
        within(|| {
            let table = "add table inet ours; add chain inet ours c; add rule inet ours c accept; \
                         add set inet ours s { type ipv4_addr; elements = { 10.0.0.1 }; }";
            let mut monitor = FirewallMonitor::open().unwrap();
            let mut meddled = |script: &str| {
                sh(&format!("nft '{script}'"));
                monitor.meddled(&["other", "ours"])
            };
            assert!(!meddled("add table inet theirs; add chain inet theirs c"));
            for script in [
                table,
                "add rule inet ours c drop",
                "flush table inet ours",
                "flush set inet ours s",
                "add table inet ours { flags dormant; }",
                "delete chain inet ours c",
                "flush ruleset",
            ] {
                assert!(meddled(script), "{script}");
                assert!(!meddled("add table inet theirs"), "told once");
            }
        });
    }

    #[test]
    fn what_we_do_ourselves_is_no_news() {
        within(|| {
            let mut monitor = FirewallMonitor::open().unwrap();
            nft::apply("table inet ours { set s { type ipv4_addr; }\nchain c { accept; }\n}")
                .unwrap();
            nft::apply("add element inet ours s { 10.0.0.1 }").unwrap();
            assert!(!monitor.meddled(&["ours"]));
            nft::delete(&["ours"]).unwrap();
            assert!(!monitor.meddled(&["ours"]));
        });
    }

    #[test]
    fn a_counter_is_read() {
        within(|| {
            assert_eq!(count("ours", "c").unwrap(), None);
            sh(
                "nft 'add table inet ours; add counter inet ours c { packets 7 bytes 5000000000; }'",
            );
            let read = Count { packets: 7, bytes: 5_000_000_000 };
            assert_eq!(count("ours", "c").unwrap(), Some(read));
            assert_eq!(count("ours", "d").unwrap(), None);
        });
    }
}
