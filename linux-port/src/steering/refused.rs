//! What stays closed although no peer in use has it: the prefixes of peers whose sections have
//! errors and, until the configuration has none, whatever was closed before.

use smoltcp::wire::IpCidr;

use super::underlay::prefixes;
use super::{Error, Identity, Mode, all_routes, takes_away};
use crate::config::model::{Interface, RefusedPeer};
use crate::netlink::{Family, Netlink, Target, network};
use crate::sorted;

/// The prefixes that are to be closed beside those that are steered, in host space and in order.
pub(super) fn closed_prefixes(interface: &Interface, mode: Mode) -> Vec<IpCidr> {
    let refused = interface.refused.iter().filter(|peer| peer.routed && mode != Mode::None);
    sorted::set(refused.flat_map(|peer| peer.prefixes.iter().copied()))
}

/// The same interface with what can be closed: of an interface with errors also what is closed
/// now, since the prefix to close may be what cannot be read; and no network that this machine is
/// connected to, which would be taken away from its owner.
///
/// # Errors
/// Those of the kernel.
pub(super) fn closable(
    interface: &Interface,
    identity: &Identity,
    netlink: &mut Netlink,
) -> Result<Interface, Error> {
    let mut interface = interface.clone();
    if !interface.flawed {
        return Ok(interface);
    }
    let tun = netlink.link(&interface.name)?.map(|link| link.index);
    // The machine's own addresses come before all routes.
    let is_network =
        |c: &IpCidr| c.prefix_len() < if Family::of(c) == Family::V4 { 32 } else { 128 };
    let connected: Vec<_> = netlink.connected(tun)?.into_iter().filter(is_network).collect();
    let before = closed_now(&interface, identity, netlink)?;
    interface.refused.push(before);
    for refused in &mut interface.refused {
        refused.prefixes.retain(|prefix| !connected.iter().any(|c| takes_away(prefix, c)));
    }
    Ok(interface)
}

/// What the kernel has closed for the interface and its sections do not name.
fn closed_now(
    interface: &Interface,
    identity: &Identity,
    netlink: &mut Netlink,
) -> Result<RefusedPeer, Error> {
    let steered = interface.peers.iter().filter(|peer| peer.route_allowed_ips).flat_map(prefixes);
    let refused = interface.refused.iter().flat_map(|peer| &peer.prefixes);
    let device = interface.addresses.iter().map(network);
    let named = steered.map(|prefix| prefix.host).chain(refused.copied()).chain(device);
    let named = sorted::set(named);
    let routes = all_routes(netlink)?.into_iter();
    let closed = routes
        .filter(|route| route.target == Target::Unreachable && identity.owns_route(route, None))
        .map(|route| route.destination)
        .filter(|prefix| named.binary_search(prefix).is_err());
    Ok(RefusedPeer {
        label: String::new(),
        prefixes: sorted::set(closed),
        routed: true,
        negotiated: false,
        errors: Vec::new(),
    })
}
