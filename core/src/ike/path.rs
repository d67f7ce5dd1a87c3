//! Where IKE messages travel.

use core::net::{IpAddr, SocketAddr};

/// The addresses of an IKE message, ours and the peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IkePath {
    /// Ours. An unspecified address leaves the choice to the host's routing, and makes both ends
    /// believe that there is a NAT.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// Whether it is between ports where ESP can travel as well (4500), so that a non-ESP marker
    /// stands in front of the message (RFC 3948 §2.2). The marker is the caller's affair.
    pub natt: bool,
}

/// Where to find a peer that we connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Target {
    /// Our address; unspecified leaves the choice to the host's routing.
    pub local: IpAddr,
    /// The peer's.
    pub remote: IpAddr,
    /// Our port and the peer's for the beginning (500); `None` begins with those of `nat_ports`.
    pub ports: Option<(u16, u16)>,
    /// Our port and the peer's where ESP in UDP travels as well (4500).
    pub nat_ports: (u16, u16),
}

impl Target {
    /// Where the first message goes.
    #[must_use]
    pub fn first(&self) -> IkePath {
        self.path(self.ports.is_none())
    }

    /// Where messages go from IKE_AUTH on if there is a NAT (RFC 7296 §2.23), or ESP shall travel
    /// in UDP anyway.
    #[must_use]
    pub fn floated(&self) -> IkePath {
        self.path(true)
    }

    fn path(&self, natt: bool) -> IkePath {
        let (local, remote) = self.ports.filter(|_| !natt).unwrap_or(self.nat_ports);
        IkePath {
            local: SocketAddr::new(self.local, local),
            remote: SocketAddr::new(self.remote, remote),
            natt,
        }
    }
}
