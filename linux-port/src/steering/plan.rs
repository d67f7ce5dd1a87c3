//! What has to be in the kernel so that an interface's traffic goes through its tunnel and only
//! through it: rules, routes, addresses and a firewall table, computed from the configuration.
//!
//! Computing touches nothing. Host space is what this machine's kernel sees, wire space what is
//! inside ESP; host space is wire space plus the peer's offset.

use core::net::IpAddr;

use smoltcp::wire::IpCidr;

use super::cover::Cover;
use super::identity::{Identity, mark};
use super::refused::closed_prefixes;
use super::source::Sources;
use super::underlay::{Endpoints, Underlay, prefixes};
use super::{Error, Mode, firewall, onlink};
use crate::config::model::{Host, Interface};
use crate::netlink::{Family, Route, Rule, TABLE_MAIN, Target, network};
use crate::nft;
use crate::sorted;

/// The kernel's own default metric for IPv6 routes, where 0 means it.
const METRIC_V6: u32 = 1024;

/// Everything that has to be in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Policy rules.
    pub rules: Vec<Rule>,
    /// The killswitch: `unreachable` for whatever is led into the tunnel.
    pub killswitch: Vec<Route>,
    /// Destination, table and metric of the routes into the TUN device.
    pub steered: Vec<(IpCidr, u32, u32)>,
    /// Connected networks that T1 throws back, because they lie inside wider prefixes: the rules for
    /// `main` decide, and T0 takes what is connected no more. Throwing back comes after whatever
    /// takes it, and goes first, so that nothing falls through to other rules.
    pub thrown: Vec<Route>,
    /// Addresses of the TUN device.
    pub addresses: Vec<IpCidr>,
    /// The firewall.
    pub table: Option<nft::Table>,
    /// Whether strict reverse path filtering would drop the peers' packets.
    pub loosen: bool,
    /// See [`Underlay::delegated`].
    pub delegated: bool,
}

fn in_family(prefixes: &[IpCidr], family: Family, default: bool) -> bool {
    prefixes.iter().any(|p| Family::of(p) == family && (p.prefix_len() == 0) == default)
}

impl Plan {
    /// The plan for `interface`, steered by `mode`.
    ///
    /// # Errors
    /// When this mode cannot carry what the configuration asks for.
    pub fn new(interface: &Interface, mode: Mode, underlay: &Underlay) -> Result<Plan, Error> {
        let identity = Identity::of(&interface.name);
        let mark = mark(interface.fwmark);
        let steered = steered_prefixes(interface, mode);
        refuse(interface, mode, &steered)?;
        let closed_too = closed_prefixes(interface, mode).into_iter();
        let closed_too: Vec<_> = closed_too.filter(|p| can_close(p, mode)).collect();
        let led = led_and_dropped(interface, mode, &steered, &closed_too, underlay);
        let led = sorted::set(steered.iter().copied().chain(led));
        let closed = closed_too.into_iter().filter(|_| interface.killswitch);
        let all = sorted::set(led.iter().copied().chain(closed));
        let networks = match mode {
            Mode::Policy => onlink::networks(&all, &underlay.connected),
            _ => Vec::new(),
        };
        let route = |(destination, table, _): &(IpCidr, u32, u32), target| Route {
            destination: *destination,
            table: *table,
            target,
            metric: identity.killswitch_metric,
            source: None,
        };
        let closed = |into: &(IpCidr, u32, u32)| route(into, Target::Unreachable);
        let thrown = |network| route(&(network, identity.t1, 0), Target::Throw);
        let mut plan = Plan {
            rules: Vec::new(),
            killswitch: Vec::new(),
            steered: ways(&led, mode, &identity, &networks),
            thrown: networks.iter().copied().map(thrown).collect(),
            addresses: interface.addresses.clone(),
            table: None,
            loosen: mode == Mode::Policy && needs_loose(interface, &led, underlay),
            delegated: underlay.delegated,
        };
        // In `main` the kernel has these already, for the sake of the device's addresses.
        let connected: Vec<_> = connected(interface, mode).collect();
        let has = |p: &IpCidr| connected.iter().any(|(prefix, ..)| prefix == p);
        plan.steered.retain(|(prefix, table, _)| *table != TABLE_MAIN || !has(prefix));
        if interface.killswitch {
            let too = ways(&all, mode, &identity, &networks).into_iter();
            let too = too.filter(|(prefix, ..)| led.binary_search(prefix).is_err());
            let all = sorted::set(plan.steered.iter().copied().chain(too));
            plan.killswitch = all.iter().chain(&connected).map(closed).collect();
        }
        if mode == Mode::Policy {
            for family in Family::ALL {
                let (t1, full) = (in_family(&all, family, false), in_family(&all, family, true));
                plan.rules.extend(identity.rules(family, mark, t1, full, &networks));
            }
        }
        if mode != Mode::None || interface.killswitch {
            plan.table = Some(firewall::table(interface, &identity, mode, mark, underlay));
        }
        Ok(plan)
    }

    /// An endpoint that this mode would lead into the tunnel, and the prefix it lies in.
    pub(super) fn endpoint_inside(
        &self,
        mode: Mode,
        endpoints: &Endpoints,
    ) -> Option<(IpAddr, IpCidr)> {
        if !matches!(mode, Mode::Route | Mode::Offset) {
            return None;
        }
        // Only prefixes, and in order: T0 is no matter of these modes.
        let cover = Cover::of(self.steered.iter().map(|(prefix, ..)| *prefix));
        endpoints.values().find_map(|a| cover.around(*a).map(|prefix| (*a, prefix)))
    }

    /// The routes of ours into the TUN device with this index, with what of `sources` is for them.
    pub(super) fn device_routes(
        &self,
        device: u32,
        sources: &Sources,
    ) -> impl Iterator<Item = Route> {
        let ours = |table| table != TABLE_MAIN || !self.delegated;
        let steered = self.steered.iter().filter(move |(_, table, _)| ours(*table));
        steered.map(move |&(destination, table, metric)| Route {
            destination,
            table,
            target: Target::Device(device),
            metric,
            source: sources.get(&destination).copied(),
        })
    }
}

/// What is led into the tunnel, in host space.
fn steered_prefixes(interface: &Interface, mode: Mode) -> Vec<IpCidr> {
    let peers = interface.peers.iter().filter(|p| p.route_allowed_ips && mode != Mode::None);
    sorted::set(peers.flat_map(prefixes).map(|prefix| prefix.host))
}

/// Whether a route can close a prefix that nothing is steered to. In `main` a default route is one
/// of several.
fn can_close(prefix: &IpCidr, mode: Mode) -> bool {
    mode == Mode::Policy || prefix.prefix_len() > 0
}

/// Those of the `closed` prefixes that are led into the tunnel, which has no policy for them and
/// drops what comes: those in which peers in use may be found. Reverse path filtering, even if
/// loose, drops what comes from an unreachable address. What lies inside a prefix of a peer in use
/// would go to that peer, and stays unreachable.
fn led_and_dropped<'c>(
    interface: &Interface,
    mode: Mode,
    steered: &[IpCidr],
    closed: &'c [IpCidr],
    underlay: &Underlay,
) -> impl Iterator<Item = IpCidr> + use<'c> {
    let literal = interface.peers.iter().filter_map(|peer| match peer.endpoint.as_ref()?.host {
        Host::Address(address) => Some(address),
        Host::Name(_) => None,
    });
    let known: Vec<IpAddr> = literal.chain(underlay.endpoints.values().copied()).collect();
    let (any, cover) = (!interface.peers.is_empty(), Cover::of(steered.iter().copied()));
    closed.iter().copied().filter(move |prefix| {
        let around = |address: &IpAddr| prefix.contains_addr(&(*address).into());
        mode == Mode::Policy
            && cover.around(prefix.address().into()).is_none_or(|p| !p.contains_subnet(prefix))
            && ((any && prefix.prefix_len() == 0) || known.iter().any(around))
    })
}

/// The ways of prefixes into the tunnel. Those around connected `networks`, which T1 throws back to
/// `main`, are in T0 as well: for what `main` then has no such network for.
fn ways(
    prefixes: &[IpCidr],
    mode: Mode,
    identity: &Identity,
    networks: &[IpCidr],
) -> Vec<(IpCidr, u32, u32)> {
    let around = |p: &&IpCidr| networks.iter().any(|network| onlink::wider(p, network));
    let behind = prefixes.iter().filter(around).map(|prefix| {
        let (prefix, _, metric) = into_tun(prefix, mode, identity);
        (prefix, identity.t0, metric)
    });
    prefixes.iter().map(|prefix| into_tun(prefix, mode, identity)).chain(behind).collect()
}

fn into_tun(prefix: &IpCidr, mode: Mode, identity: &Identity) -> (IpCidr, u32, u32) {
    let table = match (mode, prefix.prefix_len()) {
        (Mode::Policy, 0) => identity.t0,
        (Mode::Policy, _) => identity.t1,
        _ => TABLE_MAIN,
    };
    let metric = match Family::of(prefix) {
        Family::V4 => 0,
        Family::V6 => METRIC_V6,
    };
    (*prefix, table, metric)
}

/// The prefixes that the kernel itself routes to the TUN device because of its addresses.
pub(super) fn connected(
    interface: &Interface,
    mode: Mode,
) -> impl Iterator<Item = (IpCidr, u32, u32)> {
    let addresses = interface.addresses.iter().filter(move |_| mode != Mode::None);
    let prefixes = addresses.map(network).filter(|prefix| match prefix {
        IpCidr::Ipv4(p) => (1..32).contains(&p.prefix_len()),
        IpCidr::Ipv6(p) => (1..128).contains(&p.prefix_len()),
    });
    prefixes.map(|prefix| (prefix, TABLE_MAIN, 0))
}

/// Without policy routing our own outer packets take the same way as everything else, so an
/// endpoint inside would loop.
fn refuse(interface: &Interface, mode: Mode, steered: &[IpCidr]) -> Result<(), Error> {
    if !matches!(mode, Mode::Route | Mode::Offset) {
        return Ok(());
    }
    if let Some(&prefix) = steered.iter().find(|p| p.prefix_len() == 0) {
        return Err(Error::FullTunnel { prefix, mode });
    }
    let literal = interface.peers.iter().filter_map(|peer| match peer.endpoint.as_ref()?.host {
        Host::Address(address) => Some(address),
        Host::Name(_) => None,
    });
    let cover = Cover::of(steered.iter().copied());
    for endpoint in literal {
        if let Some(prefix) = cover.around(endpoint) {
            return Err(Error::EndpointInside { endpoint, prefix, mode });
        }
    }
    if mode == Mode::Offset { firewall::unambiguous(interface) } else { Ok(()) }
}

/// Whether a peer's outer packets may come from an address to which the way leads into the
/// tunnel. One whose address is not written down may be anywhere.
fn needs_loose(interface: &Interface, steered: &[IpCidr], underlay: &Underlay) -> bool {
    if !steered.iter().any(|p| Family::of(p) == Family::V4) {
        return false;
    }
    let cover = Cover::of(steered.iter().copied());
    let inside = |a: IpAddr| cover.around(a).is_some();
    let mut peers = interface.peers.iter().map(|peer| peer.endpoint.as_ref().map(|e| &e.host));
    peers.any(|host| match host {
        Some(Host::Address(address)) => inside(*address),
        _ => true,
    }) || underlay.endpoints.values().any(|a| inside(*a))
}
