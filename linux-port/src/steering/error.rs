//! Why traffic cannot be steered as configured.

use core::fmt;
use core::net::IpAddr;
use std::io;
use std::path::PathBuf;

use smoltcp::wire::IpCidr;

use super::{Mode, rp_filter};
use crate::{netlink, nft};

/// Why traffic cannot be steered as configured.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused a link, address, route or rule.
    Kernel(netlink::Error),
    /// The firewall table could not be put in place.
    Firewall(nft::Error),
    /// Reverse path filtering could not be set.
    ReversePath(rp_filter::Error),
    /// The file that says that an interface is closed could not be written or removed.
    Remembering(PathBuf, io::Error),
    /// `steering 'policy'` was asked for and the kernel lacks what it takes.
    NoPolicyRouting,
    /// A default route in a mode which cannot carry it.
    FullTunnel {
        /// The default route.
        prefix: IpCidr,
        /// The mode.
        mode: Mode,
    },
    /// A peer's own address would be led into the tunnel, and our ESP with it.
    EndpointInside {
        /// The peer's address.
        endpoint: IpAddr,
        /// The prefix that is led into the tunnel.
        prefix: IpCidr,
        /// The mode.
        mode: Mode,
    },
    /// Real prefixes that overlap and have different offsets.
    Ambiguous {
        /// The one.
        first: IpCidr,
        /// The other, inside the first.
        second: IpCidr,
    },
    /// A prefix is a network this machine is connected to.
    Conflict(Conflict),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Kernel(e) => e.fmt(f),
            Error::Firewall(e) => e.fmt(f),
            Error::ReversePath(e) => e.fmt(f),
            Error::Remembering(path, e) => write!(f, "writing {}: {e}", path.display()),
            Error::NoPolicyRouting => f.write_str(
                "steering 'policy' needs a kernel with policy routing \
                 (CONFIG_IP_MULTIPLE_TABLES, CONFIG_IPV6_MULTIPLE_TABLES) and the permission to \
                 mark sockets; use steering 'route' or 'offset'",
            ),
            Error::FullTunnel { prefix, mode } => {
                write!(f, "steering '{mode}' cannot carry {prefix}; use steering 'policy'")
            }
            Error::EndpointInside { endpoint, prefix, mode } => write!(
                f,
                "the endpoint {endpoint} lies inside {prefix}, so under steering '{mode}' our own \
                 ESP would be led into the tunnel; use steering 'policy'"
            ),
            Error::Ambiguous { first, second } => write!(
                f,
                "under steering 'offset' {second} inside {first} would mean two peers; use \
                 steering 'policy' and address the shifted prefixes"
            ),
            Error::Conflict(conflict) => conflict.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<netlink::Error> for Error {
    fn from(e: netlink::Error) -> Error {
        Error::Kernel(e)
    }
}

impl From<nft::Error> for Error {
    fn from(e: nft::Error) -> Error {
        Error::Firewall(e)
    }
}

impl From<rp_filter::Error> for Error {
    fn from(e: rp_filter::Error) -> Error {
        Error::ReversePath(e)
    }
}

/// A peer's prefix that is a network this machine is connected to. A wider one leaves that network
/// out, and hosts and prefixes within it are the same-subnet case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The peer's name.
    pub peer: String,
    /// Its prefix in host space, and the connected network.
    pub prefix: IpCidr,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Conflict { peer, prefix } = self;
        write!(
            f,
            "{prefix} of peer {peer} is a network to which this machine is connected; give the peer \
             an offset, or a wider prefix or longer ones"
        )
    }
}
