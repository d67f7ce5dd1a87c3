//! What steering works on: the state of the network below the tunnel, and peers' prefixes in host
//! space and wire space.

use core::net::IpAddr;

use smoltcp::wire::IpCidr;

use crate::config::model::Peer;
use crate::netlink::network;
use crate::sorted::SortedMap;

/// Where the peers are at present, by their names; those of which nothing is known are missing.
pub type Endpoints = SortedMap<String, IpAddr>;

/// The traffic selectors that were agreed with peers for our end, by the peers' names, in wire
/// space; those with which nothing narrower than any address was agreed are missing.
pub type Agreed = SortedMap<String, Vec<IpCidr>>;

/// What is known at run time and is not in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underlay {
    /// The UDP ports our sockets are bound to, for IKE and for UDP-encapsulated ESP.
    pub ports: Vec<u16>,
    /// Where the peers are at present.
    pub endpoints: Endpoints,
    /// Our ends of the peers' traffic selectors; those of a peer that is gone stay until there are
    /// others.
    pub agreed: Agreed,
    /// The networks that this machine is connected to, in order. Steering finds them out itself.
    pub connected: Vec<IpCidr>,
    /// MTU of the TUN device in bytes.
    pub mtu: u16,
    /// Whether the TUN device's addresses, and the routes into it in `main`, are somebody else's to
    /// put in place: netifd's.
    pub delegated: bool,
}

/// A peer's prefix in both spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Prefix {
    pub(super) host: IpCidr,
    pub(super) wire: IpCidr,
}

/// The peer's allowed_ips.
pub(super) fn prefixes(peer: &Peer) -> impl Iterator<Item = Prefix> {
    peer.allowed_ips.iter().map(|allowed| {
        let wire = network(allowed);
        Prefix { wire, host: shift(&wire, peer) }
    })
}

/// A prefix of wire space in host space.
fn shift(wire: &IpCidr, peer: &Peer) -> IpCidr {
    let address = match wire.address().into() {
        IpAddr::V4(a) => IpAddr::V4(u32::from(a).wrapping_add(peer.offset).into()),
        IpAddr::V6(a) => IpAddr::V6(u128::from(a).wrapping_add(peer.offset6).into()),
    };
    network(&IpCidr::new(address.into(), wire.prefix_len()))
}
