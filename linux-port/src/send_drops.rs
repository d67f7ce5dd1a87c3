//! Sealed packets that did not leave this machine: counted by reason, told to the log now and then.

use core::net::SocketAddr;
use core::time::Duration;
use std::io;

use simplevpn_core::Instant;

use crate::clock;

/// Errors that tell something about the path to some peer, not about the socket.
pub(crate) fn is_remote(code: i32) -> bool {
    matches!(
        code,
        libc::ECONNREFUSED
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EMSGSIZE
            | libc::ENOPROTOOPT
            | libc::EOPNOTSUPP
            | libc::EPROTO
            | libc::EACCES
    )
}

macro_rules! send_drops {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a sealed packet did not leave this machine.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum SendDrop { $($(#[$doc])* $variant,)* }

        impl SendDrop {
            /// Every reason, in the order of their counters.
            pub const ALL: &'static [SendDrop] = &[$(SendDrop::$variant,)*];

            /// The counter's name as users see it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(SendDrop::$variant => $name,)* }
            }
        }
    };
}

send_drops! {
    /// The firewall of this machine refused it (`EPERM`).
    Firewall = "send_firewall",
    /// There is no route to the peer.
    Unreachable = "send_unreachable",
    /// The outer packet is longer than the link's MTU (`EMSGSIZE`).
    TooBig = "send_too_big",
    /// The link's queue was full (`ENOBUFS`), or the machine is short of memory.
    QueueFull = "send_queue_full",
    /// The socket's send buffer was full (`EAGAIN`): the link's queue holds more than the buffer.
    BufferFull = "send_buffer_full",
    /// An answer to somebody unknown found no room where those wait, or no way.
    Stranger = "send_stranger",
    /// No socket of this kind could be opened (IPv6 is off, for one).
    NoSocket = "send_no_socket",
    /// Any other error.
    Other = "send_error",
}

impl SendDrop {
    fn from_errno(code: i32) -> SendDrop {
        match code {
            libc::EPERM => SendDrop::Firewall,
            libc::EMSGSIZE => SendDrop::TooBig,
            libc::ENOBUFS | libc::ENOMEM => SendDrop::QueueFull,
            libc::EAGAIN => SendDrop::BufferFull,
            code if is_remote(code) || code == libc::ENETDOWN => SendDrop::Unreachable,
            _ => SendDrop::Other,
        }
    }
}

/// One counter per [`SendDrop`]; tells the log now and then.
#[derive(Debug, Default)]
pub struct SendDrops {
    counts: [u64; SendDrop::ALL.len()],
    told: [Option<Instant>; SendDrop::ALL.len()],
    /// The interface, as the log calls it.
    interface: String,
}

/// How long the log is spared after a line about a reason to drop.
const QUIET: Duration = Duration::from_secs(60);

impl SendDrops {
    /// Nothing was dropped yet of what `interface` sends.
    #[must_use]
    pub fn of(interface: &str) -> SendDrops {
        SendDrops { interface: interface.to_owned(), ..SendDrops::default() }
    }

    /// Counts `packets` dropped packets.
    pub fn count(&mut self, why: SendDrop, packets: u64) {
        if let Some(count) = self.counts.get_mut(why as usize) {
            *count = count.wrapping_add(packets);
        }
    }

    /// All counters with their reasons, zeros included.
    pub fn iter(&self) -> impl Iterator<Item = (SendDrop, u64)> + '_ {
        SendDrop::ALL.iter().copied().zip(self.counts)
    }

    /// Counts `packets` packets to `to` that the kernel refused with `error`.
    pub(crate) fn refused(&mut self, error: &io::Error, to: SocketAddr, packets: usize) {
        let why = SendDrop::from_errno(error.raw_os_error().unwrap_or(0));
        self.count(why, packets as u64);
        // A full queue is everyday life, and an MTU has its own way of being told.
        if matches!(why, SendDrop::QueueFull | SendDrop::BufferFull | SendDrop::TooBig) {
            return;
        }
        let Some(told) = self.told.get_mut(why as usize) else { return };
        let now = clock::now();
        if told.is_none_or(|told| now.saturating_since(told) >= QUIET) {
            *told = Some(now);
            match why {
                SendDrop::Firewall => log::warn!(
                    "{}: the firewall of this machine refuses packets to {}: allow ESP and UDP-encapsulated ESP in its output",
                    self.interface,
                    to.ip()
                ),
                _ => log::warn!("{}: cannot send to {}: {error}", self.interface, to.ip()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_their_own_counters() {
        let mut drops = SendDrops::default();
        let to = "192.0.2.1:0".parse().unwrap();
        for code in [libc::EPERM, libc::EMSGSIZE, libc::ENOBUFS, libc::EHOSTUNREACH, libc::EIO] {
            drops.refused(&io::Error::from_raw_os_error(code), to, 1);
        }
        drops.refused(&io::Error::from_raw_os_error(libc::EAGAIN), to, 3);
        let counts: Vec<_> = drops.iter().map(|(why, count)| (why.name(), count)).collect();
        let wanted = [
            ("send_firewall", 1),
            ("send_unreachable", 1),
            ("send_too_big", 1),
            ("send_queue_full", 1),
            ("send_buffer_full", 3),
            ("send_stranger", 0),
            ("send_no_socket", 0),
            ("send_error", 1),
        ];
        assert_eq!(counts, wanted);
    }
}
