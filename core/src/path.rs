//! Where sealed packets travel: raw ESP (protocol 50) or UDP encapsulation (RFC 3948).

use core::net::{IpAddr, SocketAddr};

/// The outer addresses of a peer's packets, and whether UDP lies between IP and ESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Path {
    /// ESP directly over IP, protocol 50 (RFC 4303). An unspecified `local` leaves the choice to
    /// the host's routing.
    Esp {
        /// Our address.
        local: IpAddr,
        /// The peer's address.
        remote: IpAddr,
    },
    /// ESP in UDP (RFC 3948). An unspecified `local` address leaves the choice to the host's
    /// routing.
    Udp {
        /// Our address and port.
        local: SocketAddr,
        /// The peer's address and port.
        remote: SocketAddr,
    },
}

impl Path {
    /// Our address.
    #[must_use]
    pub fn local(&self) -> IpAddr {
        match *self {
            Path::Esp { local, .. } => local,
            Path::Udp { local, .. } => local.ip(),
        }
    }

    /// The peer's address.
    #[must_use]
    pub fn remote(&self) -> IpAddr {
        match *self {
            Path::Esp { remote, .. } => remote,
            Path::Udp { remote, .. } => remote.ip(),
        }
    }

    /// Bytes of outer IP and UDP headers in front of the ESP header: 20, 28, 40 or 48.
    #[must_use]
    pub fn outer_len(&self) -> usize {
        let ip = if self.remote().is_ipv4() { 20 } else { 40 };
        match self {
            Path::Esp { .. } => ip,
            Path::Udp { .. } => ip + 8,
        }
    }
}

/// A sealed packet, ready for the wire: who it is for and how it has to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a sealed packet has used a sequence number and wants to be sent"]
pub struct Transmit {
    /// Where to.
    pub path: Path,
    /// Outer DSCP (upper six bits) and ECN (lower two), RFC 2474 and RFC 6040.
    pub traffic_class: u8,
    /// Length in bytes from the ESP header to the ICV.
    pub len: usize,
    /// The packet exceeds the path MTU and has to go all the same (inner IPv6 of up to 1280
    /// bytes, see [`crate::pmtu`]): send it without DF (IPv4) or in fragments of 1280 (IPv6).
    pub oversize: bool,
}
