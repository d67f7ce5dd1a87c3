//! What has to be in the kernel so that an interface's traffic goes through its tunnel and only
//! through it: rules, routes, addresses and a firewall table, computed from the configuration.
//!
//! Computing touches nothing. Host space is what this machine's kernel sees, wire space what is
//! inside ESP; host space is wire space plus the peer's offset.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use smoltcp::wire::IpCidr;

use super::source::Sources;
use super::{Error, Mode, firewall};
use crate::config::model::{Host, Interface, Peer};
use crate::netlink::{Family, Route, Rule, TABLE_MAIN, Target, network};
use crate::nft;

/// Mark on our outer packets, and the bits it occupies. They are clear of those of mwan3 (0x3f00),
/// pbr (0xff0000), Kubernetes (0xc000) and tc's low byte, so all can be combined. All interfaces
/// share the mark: an outer packet never enters another tunnel, and one socket can serve several.
const DEFAULT_MARK: (u32, u32) = (0x5300_0000, 0xff00_0000);
/// Bits which others set on packets; a configured mark leaves them alone unless it uses them.
const FOREIGN_MARKS: [u32; 2] = [0x3f00, 0x00ff_0000];

/// Tables are `0x53hhhhhh`, with a hash of the interface's name; T1 is even, T0 is T1 + 1.
const TABLES: u32 = 0x5300_0000;
/// Metric of the killswitch's routes, plus a hash of the interface's name: higher than any
/// ordinary route's.
const KILLSWITCH_METRIC: u32 = 0x4000_0000;
/// The kernel's own default metric for IPv6 routes, where 0 means it.
const METRIC_V6: u32 = 1024;

/// Priorities of the three rules, plus a hash of the interface's name below 100. All T1 rules
/// come before all T0 rules, so that one interface's full tunnel does not hide another's prefixes;
/// and all before mwan3's (1001 and up) and pbr's (around 30000), which would lead packets for the
/// tunnel out in clear text.
const PRIORITY_T1: u32 = 500;
const PRIORITY_MAIN: u32 = 600;
const PRIORITY_T0: u32 = 700;

/// The mark of an interface's outer packets and the bits that count: `SO_MARK` is the first.
#[must_use]
pub fn mark(fwmark: Option<u32>) -> (u32, u32) {
    match fwmark {
        None => DEFAULT_MARK,
        Some(mark) => {
            let unused = FOREIGN_MARKS.into_iter().filter(|bits| mark & bits == 0);
            (mark, unused.fold(u32::MAX, |mask, bits| mask & !bits))
        }
    }
}

/// The numbers by which what belongs to an interface is found in the kernel, by its name alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Name of the interface.
    pub interface: String,
    /// Table of the prefixes longer than /0.
    pub t1: u32,
    /// Table of the default routes.
    pub t0: u32,
    /// Metric of the killswitch's routes.
    pub killswitch_metric: u32,
    slot: u32,
}

impl Identity {
    /// The numbers of the interface called `name`.
    #[must_use]
    pub fn of(name: &str) -> Identity {
        // FNV-1a: the numbers have to be the same in every run.
        let hash = name
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193));
        let t1 = TABLES | (hash & 0x00ff_fffe);
        Identity {
            interface: name.into(),
            t1,
            t0: t1 | 1,
            killswitch_metric: KILLSWITCH_METRIC | (hash & 0x00ff_ffff),
            slot: hash % 100,
        }
    }

    /// Name of the firewall table.
    #[must_use]
    pub fn table(&self) -> String {
        format!("simplevpn_{}", self.interface)
    }

    /// Whether a route of ours belongs to this interface, whose TUN device has this index.
    #[must_use]
    pub fn owns_route(&self, route: &Route, device: Option<u32>) -> bool {
        [self.t1, self.t0].contains(&route.table)
            || match route.target {
                Target::Unreachable => route.metric == self.killswitch_metric,
                Target::Device(index) => device == Some(index),
            }
    }

    /// Whether a rule of ours belongs to this interface and, among `all` rules of ours, to no
    /// other: the rule for `main` looks the same for two interfaces of one slot.
    #[must_use]
    pub fn owns_rule(&self, rule: &Rule, all: &[Rule]) -> bool {
        let shared = |other: &Rule| {
            other.priority == PRIORITY_T0 + self.slot && ![self.t1, self.t0].contains(&other.table)
        };
        match rule.table {
            TABLE_MAIN => rule.priority == PRIORITY_MAIN + self.slot && !all.iter().any(shared),
            table => [self.t1, self.t0].contains(&table),
        }
    }

    /// The rules for a family in which `t1`, `t0` have routes. The second and third are there for
    /// full tunnels only: without one, nobody else's routing changes.
    fn rules(&self, family: Family, mark: (u32, u32), t1: bool, t0: bool) -> Vec<Rule> {
        let into = |priority: u32, table| Rule {
            family,
            priority: priority + self.slot,
            not_mark: Some(mark),
            table,
            suppress_prefix_len: None,
        };
        let main = Rule {
            not_mark: None,
            suppress_prefix_len: Some(0),
            ..into(PRIORITY_MAIN, TABLE_MAIN)
        };
        let mut rules = Vec::new();
        if t1 {
            rules.push(into(PRIORITY_T1, self.t1));
        }
        if t0 {
            rules.extend([main, into(PRIORITY_T0, self.t0)]);
        }
        rules
    }
}

/// Where the peers are at present, by their names; those of which nothing is known are missing.
pub type Endpoints = BTreeMap<String, IpAddr>;

/// What is known at run time and is not in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underlay {
    /// The UDP ports our sockets are bound to, for IKE and for UDP-encapsulated ESP.
    pub ports: Vec<u16>,
    /// Where the peers are at present.
    pub endpoints: Endpoints,
    /// MTU of the TUN device in bytes.
    pub mtu: u16,
}

/// Everything that has to be in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Policy rules.
    pub rules: BTreeSet<Rule>,
    /// The killswitch: `unreachable` for whatever is led into the tunnel.
    pub killswitch: BTreeSet<Route>,
    /// Destination, table and metric of the routes into the TUN device.
    pub steered: BTreeSet<(IpCidr, u32, u32)>,
    /// Addresses of the TUN device.
    pub addresses: BTreeSet<IpCidr>,
    /// The firewall.
    pub table: Option<nft::Table>,
    /// Whether strict reverse path filtering would drop the peers' packets.
    pub loosen: bool,
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

fn in_family(prefixes: &BTreeSet<IpCidr>, family: Family, default: bool) -> bool {
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
        let closed = |route: &(IpCidr, u32, u32)| Route {
            destination: route.0,
            table: route.1,
            target: Target::Unreachable,
            metric: identity.killswitch_metric,
            source: None,
        };
        let mut plan = Plan {
            rules: BTreeSet::new(),
            killswitch: BTreeSet::new(),
            steered: steered.iter().map(|p| into_tun(p, mode, &identity)).collect(),
            addresses: interface.addresses.iter().copied().collect(),
            table: None,
            loosen: mode == Mode::Policy && needs_loose(interface, &steered, underlay),
        };
        // In `main` the kernel has these already, for the sake of the device's addresses.
        let connected: Vec<_> = connected(interface, mode).collect();
        let has = |p: &IpCidr| connected.iter().any(|(prefix, ..)| prefix == p);
        plan.steered.retain(|(prefix, table, _)| *table != TABLE_MAIN || !has(prefix));
        if mode == Mode::Policy {
            for family in Family::ALL {
                let (t1, t0) =
                    (in_family(&steered, family, false), in_family(&steered, family, true));
                plan.rules.extend(identity.rules(family, mark, t1, t0));
            }
        }
        if interface.killswitch {
            plan.killswitch = plan.steered.iter().map(closed).collect();
            plan.killswitch.extend(connected.iter().map(closed));
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
        let around = |a: &IpAddr| {
            let mut prefixes = self.steered.iter().map(|(prefix, ..)| prefix);
            prefixes.find(|p| p.contains_addr(&(*a).into())).map(|p| (*a, *p))
        };
        let loops = matches!(mode, Mode::Route | Mode::Offset);
        endpoints.values().filter(|_| loops).find_map(around)
    }

    /// The routes into the TUN device with this index, with what of `sources` is for them.
    pub(super) fn device_routes(
        &self,
        device: u32,
        sources: &Sources,
    ) -> impl Iterator<Item = Route> {
        self.steered.iter().map(move |&(destination, table, metric)| Route {
            destination,
            table,
            target: Target::Device(device),
            metric,
            source: sources.get(&destination).copied(),
        })
    }
}

/// What is led into the tunnel, in host space.
fn steered_prefixes(interface: &Interface, mode: Mode) -> BTreeSet<IpCidr> {
    let peers = interface.peers.iter().filter(|p| p.route_allowed_ips && mode != Mode::None);
    peers.flat_map(prefixes).map(|prefix| prefix.host).collect()
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
fn connected(interface: &Interface, mode: Mode) -> impl Iterator<Item = (IpCidr, u32, u32)> {
    let addresses = interface.addresses.iter().filter(move |_| mode != Mode::None);
    let prefixes = addresses.map(network).filter(|prefix| match prefix {
        IpCidr::Ipv4(p) => (1..32).contains(&p.prefix_len()),
        IpCidr::Ipv6(p) => (1..128).contains(&p.prefix_len()),
    });
    prefixes.map(|prefix| (prefix, TABLE_MAIN, 0))
}

/// Without policy routing our own outer packets take the same way as everything else, so an
/// endpoint inside would loop.
fn refuse(interface: &Interface, mode: Mode, steered: &BTreeSet<IpCidr>) -> Result<(), Error> {
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
    for endpoint in literal {
        if let Some(&prefix) = steered.iter().find(|p| p.contains_addr(&endpoint.into())) {
            return Err(Error::EndpointInside { endpoint, prefix, mode });
        }
    }
    if mode == Mode::Offset { firewall::unambiguous(interface) } else { Ok(()) }
}

/// Whether a peer's outer packets may come from an address to which the way leads into the
/// tunnel. One whose address is not written down may be anywhere.
fn needs_loose(interface: &Interface, steered: &BTreeSet<IpCidr>, underlay: &Underlay) -> bool {
    let mut v4 = steered.iter().filter(|p| Family::of(p) == Family::V4).peekable();
    if v4.peek().is_none() {
        return false;
    }
    let inside = |a: IpAddr| steered.iter().any(|p| p.contains_addr(&a.into()));
    let mut peers = interface.peers.iter().map(|peer| peer.endpoint.as_ref().map(|e| &e.host));
    peers.any(|host| match host {
        Some(Host::Address(address)) => inside(*address),
        _ => true,
    }) || underlay.endpoints.values().any(|a| inside(*a))
}
