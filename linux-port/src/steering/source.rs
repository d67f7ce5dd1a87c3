//! The address of ours from which packets of this machine go into the tunnel.
//!
//! A TUN device without an address leaves the choice to the kernel, which takes the address of any
//! device: on a router that of its WAN, which is no traffic selector, so that the packet is dropped
//! here or by the peer. The routes into the tunnel therefore name a preferred source, for each peer
//! and family in which the device has no address. Forwarded packets, and programs that bind to an
//! address, have a source already and are not concerned.

use core::net::IpAddr;

use smoltcp::wire::IpCidr;

use super::underlay::{Underlay, prefixes};
use super::{Error, Steering};
use crate::config::model::{Interface, Peer};
use crate::netlink::{self, Errno, Family, Netlink, Route};
use crate::sorted::SortedMap;

/// Preferred sources, by destination in host space.
pub(super) type Sources = SortedMap<IpCidr, IpAddr>;

/// The preferred sources for what `interface` leads into its tunnel.
///
/// The first of `own`, the addresses of this machine, that is one of the peer's narrower local
/// selectors is taken: of those that were agreed with it, or else of those that are configured.
/// Otherwise, for a peer that protects the very address at which it is reached
/// (the same subnet), the address from which ESP goes to it, as `towards` tells, because that is
/// how it protects us; otherwise none: of a site behind a gateway nothing better is known than
/// what the kernel would choose.
///
/// # Errors
/// Those of `towards`.
pub(super) fn choose<E>(
    interface: &Interface,
    underlay: &Underlay,
    own: &[IpAddr],
    mut towards: impl FnMut(IpAddr) -> Result<Option<IpAddr>, E>,
) -> Result<Sources, E> {
    let mut sources = Vec::new();
    for family in Family::ALL {
        if interface.addresses.iter().any(|address| Family::of(address) == family) {
            continue;
        }
        for peer in interface.peers.iter().filter(|peer| peer.route_allowed_ips) {
            let mut led = prefixes(peer).filter(|p| Family::of(&p.host) == family).peekable();
            if led.peek().is_none() {
                continue;
            }
            let endpoint =
                underlay.endpoints.get(&peer.name).copied().filter(|at| protects(peer, *at));
            let agreed = underlay.agreed.get(&peer.name).and_then(|all| selected(all, family, own));
            let local = agreed.or_else(|| selected(&peer.local_ips, family, own));
            let source = match (local, endpoint) {
                (Some(address), _) => Some(address),
                (None, Some(remote)) if Family::of_address(remote) == family => towards(remote)?,
                (None, _) => None,
            };
            let Some(source) = source.filter(is_known_to_others) else { continue };
            sources.extend(led.map(|prefix| (prefix.host, source)));
        }
    }
    // Of several peers with one prefix the first counts.
    Ok(sources.into_iter().rev().collect())
}

/// Whether a peer's narrower prefixes hold the address at which it is reached.
fn protects(peer: &Peer, endpoint: IpAddr) -> bool {
    let narrow = prefixes(peer).filter(|prefix| prefix.wire.prefix_len() > 0);
    narrow.into_iter().any(|prefix| prefix.wire.contains_addr(&endpoint.into()))
}

/// The first own address inside the local selectors towards a peer. Selectors that mean any address
/// recommend none.
fn selected(local: &[IpCidr], family: Family, own: &[IpAddr]) -> Option<IpAddr> {
    let narrow = |p: &&IpCidr| Family::of(p) == family && p.prefix_len() > 0;
    let inside = |a: &&IpAddr| local.iter().filter(narrow).any(|p| p.contains_addr(&(**a).into()));
    own.iter().filter(|a| is_known_to_others(a)).find(inside).copied()
}

/// Whether an address means something beyond this machine and its links.
fn is_known_to_others(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => !a.is_loopback() && !a.is_link_local(),
        IpAddr::V6(a) => !a.is_loopback() && !a.is_unicast_link_local(),
    }
}

impl Steering {
    /// The preferred sources as things are now; `device` is the TUN device.
    pub(super) fn sources_now(&mut self, device: u32) -> Result<Sources, Error> {
        let own: Vec<IpAddr> = self
            .netlink
            .addresses()?
            .into_iter()
            .filter(|(index, _)| *index != device)
            .map(|(_, address)| address.address().into())
            .collect();
        let through = match &self.interface.tunlink {
            Some(name) => self.netlink.link(name)?.map(|link| link.index),
            None => None,
        };
        let mark = self.mark();
        let netlink = &mut self.netlink;
        let towards = |remote| -> Result<Option<IpAddr>, netlink::Error> {
            Ok(netlink.route_to(remote, mark, through)?.and_then(|way| way.source))
        };
        Ok(choose(&self.interface, &self.underlay, &own, towards)?)
    }
}

/// Puts a route of ours in place, where `present` says that there is one with another source.
pub(super) fn put(
    netlink: &mut Netlink,
    route: &Route,
    present: bool,
) -> Result<(), netlink::Error> {
    let mut attempt = |route: &Route| match present {
        // What falls into the gap that this leaves in `main`, the killswitch stops.
        true => netlink.replace_route(route),
        false => netlink.add_route(route),
    };
    match attempt(route) {
        // The address has just gone, or is not proven unique yet; any change of it is heard.
        Err(error) if error.errno == Errno::EINVAL && route.source.is_some() => {
            attempt(&route.key())
        }
        result => result,
    }
}
