//! Steering: what leads packets into the tunnel and keeps clear text out.
//!
//! | mode | how |
//! |---|---|
//! | `policy` | rules `not fwmark M`: a table T1 for prefixes, then `main` without its default routes, then T0 for default routes; no NAT, works for peers on the same subnet |
//! | `route` | the prefixes in the table `main`; no endpoint may lie inside |
//! | `offset` | real addresses are redirected (DNAT) to offset ones, which are routed in `main` |
//! | `none` | the administrator does it; with the killswitch, clear text is still kept out |
//!
//! `auto` is `policy` where kernel and privileges allow it, else `route`.
//!
//! The wanted state is computed ([`Plan`]), compared with what the kernel has, and the difference
//! is applied: additions first, so that a change opens no gap. Every route and rule carries our
//! protocol number, tables and metrics are a function of the interface's name: what a crash left
//! behind is found again without any file.
//!
//! The killswitch consists of `unreachable` routes of high metric beside every route into the
//! tunnel, of the rules, and of two firewall tables: one for what comes in, and one of its own
//! (`killswitch`) for what leaves by whatever way, routes and rules or not. When the daemon dies
//! the TUN device takes its routes along and the killswitch takes over; [`down`] opens it. [`close`]
//! puts it in place without a daemon. The local network is reachable throughout, because only
//! prefixes for the tunnel, or default routes behind `main`, are closed, and connected networks
//! inside them keep their own way (`onlink`): `main` prefers the longest prefix by itself, T1
//! throws them back to it.
//!
//! What others take away of all this, [`Steering::refresh`] puts back.
//!
//! Where netifd runs the daemon ([`Underlay::delegated`]), the device's addresses and its routes in
//! `main` are netifd's to put in place; rules, tables, killswitch and firewall stay ours.
//!
//! Not here: forwarding, masquerading and accepting ESP, which belong to the administrator's
//! firewall; DNS, see [`crate::resolver`].

mod closed;
mod cover;
mod error;
mod firewall;
mod identity;
mod killswitch;
mod onlink;
mod plan;
mod refused;
pub mod rp_filter;
mod source;
mod underlay;

use core::fmt;
use core::net::IpAddr;
use std::path::{Path, PathBuf};

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, sockopt};
use smoltcp::wire::IpCidr;

pub use self::error::{Conflict, Error};
pub use self::identity::{Identity, mark};
use self::killswitch::Around;
pub use self::plan::Plan;
use self::rp_filter::ReversePath;
use self::source::Sources;
pub use self::underlay::{Agreed, Endpoints, Underlay};
use crate::config::model::{self, Interface, RefusedPeer};
use crate::netlink::{Family, Netlink, Route, Rule, TABLE_MAIN, Target};
use crate::{nft, sorted};

/// A steering mode, decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Rules and tables of our own.
    Policy,
    /// Routes in the table `main`.
    Route,
    /// Redirection to offset addresses.
    Offset,
    /// Nothing is led anywhere.
    None,
}

impl Mode {
    /// Its name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mode::Policy => "policy",
            Mode::Route => "route",
            Mode::Offset => "offset",
            Mode::None => "none",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The prefixes of `interface` that are one of the `connected` networks: each would be to take the
/// other's packets. Of a wider and a longer prefix the longer one does (`onlink`).
#[must_use]
pub fn conflicts(interface: &Interface, connected: &[IpCidr]) -> Vec<Conflict> {
    let mut found = Vec::new();
    for peer in interface.peers.iter().filter(|p| p.route_allowed_ips) {
        for prefix in underlay::prefixes(peer).map(|p| p.host) {
            if connected.iter().any(|network| takes_away(&prefix, network)) {
                found.push(Conflict { peer: peer.name.clone(), prefix });
            }
        }
    }
    found
}

/// Whether a prefix that is led elsewhere takes a connected network away. A wider one leaves the
/// network out (`onlink`).
fn takes_away(prefix: &IpCidr, connected: &IpCidr) -> bool {
    prefix.prefix_len() > 0 && prefix == connected
}

/// The mode in which this machine steers `interface`.
///
/// # Errors
/// When `policy` is asked for and there is no policy routing.
pub fn choose(interface: &Interface, netlink: &mut Netlink) -> Result<Mode, Error> {
    let mode = match interface.steering {
        model::Steering::Route => return Ok(Mode::Route),
        model::Steering::Offset => return Ok(Mode::Offset),
        model::Steering::None => return Ok(Mode::None),
        model::Steering::Policy | model::Steering::Auto => Mode::Policy,
    };
    let used = |family| {
        let of_family = |prefix: &IpCidr| Family::of(prefix) == family;
        interface.peers.iter().flat_map(|peer| &peer.allowed_ips).any(of_family)
            || interface.refused.iter().flat_map(|peer| &peer.prefixes).any(of_family)
    };
    let mut able = can_mark(mark(interface.fwmark).0);
    for family in Family::ALL.into_iter().filter(|f| used(*f)) {
        able &= netlink.rules(family)?.is_some();
    }
    match (able, interface.steering) {
        (true, _) => Ok(mode),
        (false, model::Steering::Auto) => Ok(Mode::Route),
        (false, _) => Err(Error::NoPolicyRouting),
    }
}

fn can_mark(mark: u32) -> bool {
    let made =
        socket::socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
    made.is_ok_and(|s| socket::setsockopt(&s, sockopt::Mark, &mark).is_ok())
}

/// The steering of one interface.
#[derive(Debug)]
pub struct Steering {
    identity: Identity,
    /// Of its refused peers what can be closed.
    interface: Interface,
    /// All of its refused peers.
    refused: Vec<RefusedPeer>,
    mode: Mode,
    underlay: Underlay,
    plan: Plan,
    netlink: Netlink,
    reverse_path: ReversePath,
    run_dir: PathBuf,
    device: Option<u32>,
    /// Of the routes into the TUN device.
    sources: Sources,
    /// Whether sockets can carry our mark.
    marks: bool,
    /// What the firewall tables say about the machine.
    around: Around,
    /// Whether the firewall tables are not as they should be.
    tables_failed: bool,
    /// Whether IPv6 was found switched off on the TUN device.
    ipv6_off: bool,
}

impl Steering {
    /// Closes: puts everything in place that does not need the TUN device, so that from here on
    /// nothing for the tunnel leaves in clear text. `run_dir` is where values to restore are kept.
    ///
    /// # Errors
    /// When the configuration cannot be steered, or the kernel or `nft` refuses; with a killswitch,
    /// what was closed by then, or by an earlier run, stays closed.
    pub fn prepare(
        interface: &Interface,
        mut underlay: Underlay,
        run_dir: &Path,
    ) -> Result<Steering, Error> {
        let mut netlink = Netlink::open()?;
        let mode = choose(interface, &mut netlink)?;
        let (identity, refused) = (Identity::of(&interface.name), interface.refused.clone());
        let interface = &refused::closable(interface, &identity, &mut netlink)?;
        underlay.connected = connected(interface, &mut netlink)?;
        no_conflict(interface, mode, &underlay)?;
        let plan = Plan::new(interface, mode, &underlay)?;
        let mut steering = Steering {
            identity,
            interface: interface.clone(),
            refused,
            mode,
            underlay,
            plan,
            netlink,
            reverse_path: ReversePath::new(run_dir, &interface.name),
            run_dir: run_dir.into(),
            device: None,
            sources: Sources::new(),
            marks: can_mark(mark(interface.fwmark).0),
            around: Around::default(),
            tables_failed: false,
            ipv6_off: false,
        };
        if let Err(error) = steering.apply() {
            // Without a killswitch nothing half done stays; the first trouble is the one to tell.
            let _ = steering.leave();
            return Err(error);
        }
        Ok(steering)
    }

    /// Brings the TUN device with this index up, gives it its addresses and leads traffic into it.
    ///
    /// To be called before names are resolved or peers are heard: as long as the way back to them
    /// is the killswitch's `unreachable`, reverse path filtering, even if loose, drops what they
    /// send.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn install(&mut self, device: u32) -> Result<(), Error> {
        self.device = Some(device);
        self.netlink.set_up(device)?;
        // From here on there is a daemon that follows the machine's networks.
        if self.is_followed() {
            self.apply_tables()?;
        }
        self.apply_routes()?;
        self.follow_networks()
    }

    /// The addresses of the TUN device, and the routes into it in `main` with their preferred
    /// sources, that [`Underlay::delegated`] leaves to somebody else.
    #[must_use]
    pub fn delegated(&self) -> (&[IpCidr], Vec<(IpCidr, Option<IpAddr>)>) {
        let routes = self.plan.steered.iter().filter(|(_, table, _)| *table == TABLE_MAIN);
        let source = |prefix| (prefix, self.sources.get(&prefix).copied());
        (&self.interface.addresses, routes.map(|(prefix, ..)| source(*prefix)).collect())
    }

    /// The mode in use.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The mark (`SO_MARK`) that all sockets of ours have to carry.
    #[must_use]
    pub fn mark(&self) -> u32 {
        mark(self.interface.fwmark).0
    }

    /// Tells where the peers are now.
    ///
    /// # Errors
    /// When `nft` refuses; or, with everything in place, when a peer's address is inside a prefix
    /// that this mode leads into the tunnel, so that this peer cannot be reached.
    pub fn set_endpoints(&mut self, endpoints: Endpoints) -> Result<(), Error> {
        if endpoints == self.underlay.endpoints {
            return Ok(());
        }
        let before = firewall::endpoint_sets(&self.underlay.endpoints);
        self.underlay.endpoints = endpoints;
        self.plan = Plan::new(&self.interface, self.mode, &self.underlay)?;
        if self.plan.table.is_some() {
            let now = firewall::endpoint_sets(&self.underlay.endpoints);
            // Should somebody have flushed the table, it is made anew.
            nft::change(&self.identity.table(), &before, &now).or_else(|_| self.apply_tables())?;
        }
        self.apply_reverse_path()?;
        self.apply_sources()?;
        match self.plan.endpoint_inside(self.mode, &self.underlay.endpoints) {
            Some((endpoint, prefix)) => {
                Err(Error::EndpointInside { endpoint, prefix, mode: self.mode })
            }
            None => Ok(()),
        }
    }

    /// Tells which traffic selectors were agreed with the peers for our end: what this machine itself
    /// sends into the tunnel comes from an address among them.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_agreed(&mut self, agreed: Agreed) -> Result<(), Error> {
        if agreed == self.underlay.agreed {
            return Ok(());
        }
        self.underlay.agreed = agreed;
        self.apply_sources()
    }

    /// Tells the MTU of the TUN device, in bytes, to which TCP is clamped.
    ///
    /// # Errors
    /// When `nft` refuses.
    pub fn set_mtu(&mut self, mtu: u16) -> Result<(), Error> {
        if mtu == self.underlay.mtu {
            return Ok(());
        }
        self.underlay.mtu = mtu;
        self.plan = Plan::new(&self.interface, self.mode, &self.underlay)?;
        self.apply_tables()
    }

    /// Goes over to another configuration of the same interface, and to this underlay. What both
    /// have in common is not touched; what is new is closed before what is old is opened.
    ///
    /// # Errors
    /// Like [`Steering::prepare`]; the older configuration is then still in place, or closed.
    pub fn update(&mut self, interface: &Interface, mut underlay: Underlay) -> Result<(), Error> {
        let mode = choose(interface, &mut self.netlink)?;
        let refused = interface.refused.clone();
        let interface = &refused::closable(interface, &self.identity, &mut self.netlink)?;
        underlay.connected = connected(interface, &mut self.netlink)?;
        let plan = Plan::new(interface, mode, &underlay)?;
        no_conflict(interface, mode, &underlay)?;
        (self.interface, self.refused) = (interface.clone(), refused);
        (self.mode, self.underlay, self.plan) = (mode, underlay, plan);
        self.apply()
    }

    /// After others changed links, addresses, routes, or what is ours: makes new devices loose where
    /// needed, follows the machine's networks and puts back what has gone missing; whether anything
    /// had.
    ///
    /// # Errors
    /// [`Error::Conflict`] when this machine is now connected to a network that is a peer's prefix,
    /// with everything in place; otherwise like [`Steering::prepare`].
    pub fn refresh(&mut self) -> Result<bool, Error> {
        self.follow_connected()?;
        if self.interface.flawed {
            let refused = self.refused.clone();
            let given = Interface { refused, ..self.interface.clone() };
            let closable = refused::closable(&given, &self.identity, &mut self.netlink)?;
            if closable.refused != self.interface.refused {
                return self.update(&given, self.underlay.clone()).map(|()| false);
            }
        }
        self.apply_reverse_path()?;
        let mut restored = self.apply_routes()?;
        if self.plan.table.is_some() && (self.tables_failed || self.lost_table().is_some()) {
            self.apply_tables()?;
            restored = true;
        }
        self.follow_networks()?;
        no_conflict(&self.interface, self.mode, &self.underlay)?;
        Ok(restored)
    }

    /// After others changed addresses: lets connected networks inside wider prefixes keep their own
    /// way.
    ///
    /// # Errors
    /// When the kernel or `nft` refuses.
    pub fn follow_connected(&mut self) -> Result<(), Error> {
        let connected = connected(&self.interface, &mut self.netlink)?;
        if connected == self.underlay.connected {
            return Ok(());
        }
        self.underlay.connected = connected;
        let before = (self.plan.thrown.clone(), self.plan.table.take());
        self.plan = Plan::new(&self.interface, self.mode, &self.underlay)?;
        let sets = |table: &Option<nft::Table>| table.as_ref().map(|table| table.sets.clone());
        self.tables_failed |= sets(&before.1) != sets(&self.plan.table);
        if before.0 != self.plan.thrown {
            self.apply_routes()?;
        }
        if self.tables_failed { self.apply_tables() } else { Ok(()) }
    }

    /// The daemon ends: the killswitch stays if it is wanted, everything else goes.
    ///
    /// # Errors
    /// When something could not be removed.
    pub fn leave(mut self) -> Result<(), Error> {
        if !self.interface.killswitch {
            return self.remove();
        }
        let device = self.device.take();
        let had_device = device.is_some();
        if let Some(device) = device {
            for route in self.plan.device_routes(device, &self.sources) {
                self.netlink.delete_route(&route)?;
            }
        }
        let restored = self.reverse_path.restore();
        // Nobody follows the machine's networks and addresses any more.
        if had_device && (self.is_followed() || self.around.has_own()) {
            self.apply_tables()?;
        }
        Ok(restored?)
    }

    /// Opens: removes everything.
    ///
    /// # Errors
    /// When something could not be removed.
    pub fn remove(mut self) -> Result<(), Error> {
        remove(&mut self.netlink, &self.identity, &self.reverse_path, &self.run_dir)
    }

    /// The order matters: first closed, whatever else fails; then kept out, then led in. Into a
    /// device that is up, packets are led before rules make what is closed count.
    fn apply(&mut self) -> Result<(), Error> {
        let present = all_routes(&mut self.netlink)?;
        for route in missing(&self.plan.killswitch, &present) {
            self.netlink.add_route(route)?;
        }
        if let Some(device) = self.device {
            self.lead_in(device, &present)?;
        }
        self.add_rules(&present)?;
        let remembered = self.remember();
        self.apply_tables()?;
        self.apply_reverse_path()?;
        self.apply_routes()?;
        remembered
    }

    /// Adds the routes into the TUN device that are not among those of ours that are `present`.
    fn lead_in(&mut self, device: u32, present: &[Route]) -> Result<(), Error> {
        let keys = sorted::set(present.iter().map(Route::key));
        let none = Sources::new();
        if missing(&sorted::set(self.plan.device_routes(device, &none)), &keys).next().is_none() {
            return Ok(());
        }
        let sources = self.sources_now(device)?;
        let link = self.netlink.link(&self.interface.name)?;
        let led: Vec<Route> = self.plan.device_routes(device, &sources).collect();
        for route in led.iter().filter(|route| keys.binary_search(&route.key()).is_err()) {
            if link.as_ref().is_some_and(|link| link.up) && self.takes(&route.destination) {
                source::put(&mut self.netlink, route, false)?;
            }
        }
        Ok(())
    }

    fn remember(&self) -> Result<(), Error> {
        let name = &self.interface.name;
        let done = match self.interface.killswitch {
            true => closed::remember(&self.run_dir, name),
            false => closed::forget(&self.run_dir, name),
        };
        done.map_err(|error| Error::Remembering(closed::path(&self.run_dir, name), error))
    }

    fn apply_reverse_path(&mut self) -> Result<(), Error> {
        match self.plan.loosen {
            true => Ok(self.reverse_path.loosen()?),
            false => Ok(self.reverse_path.restore()?),
        }
    }

    /// Whether anything that is led or closed was missing.
    fn apply_routes(&mut self) -> Result<bool, Error> {
        let mut wanted = self.plan.killswitch.clone();
        if let Some(device) = self.device {
            self.look_for_ipv6();
            if !self.plan.delegated {
                self.apply_addresses(device)?;
            }
            self.sources = self.sources_now(device)?;
            // A device that somebody has set down takes no routes: netifd does when it first meets
            // one. What is led into the tunnel is unreachable until the device is up again.
            let link = self.netlink.link(&self.interface.name)?;
            if link.is_some_and(|link| link.up) {
                let routes = self.plan.device_routes(device, &self.sources);
                wanted.extend(routes.filter(|route| self.takes(&route.destination)));
            }
        }
        let wanted = sorted::set(wanted);
        let present = all_routes(&mut self.netlink)?;
        // The kernel tells our routes apart by all but their sources.
        let keys = |routes: &[Route]| sorted::set(routes.iter().map(Route::key));
        let (present_keys, mut wanted_keys) = (keys(&present), keys(&wanted));
        let mut restored = missing(&self.plan.thrown, &present).next().is_some();
        for route in missing(&wanted, &present) {
            restored = true;
            let replaces = present_keys.binary_search(&route.key()).is_ok();
            source::put(&mut self.netlink, route, replaces)?;
        }
        let rules = self.add_rules(&present)?;
        restored |= self.plan.rules.iter().any(|rule| !rules.contains(rule));
        wanted_keys.extend(&self.plan.thrown);
        let wanted_keys = sorted::set(wanted_keys);
        let stale = missing(&present_keys, &wanted_keys);
        let stale = stale.filter(|route| self.identity.owns_route(route, self.device));
        let (thrown, stale): (Vec<_>, Vec<_>) =
            stale.partition(|route| route.target == Target::Throw);
        for route in thrown {
            self.netlink.delete_route(route)?;
        }
        let unwanted =
            |rule: &&Rule| self.identity.owns_rule(rule, &rules) && !self.plan.rules.contains(rule);
        for rule in rules.iter().filter(unwanted) {
            self.netlink.delete_rule(rule)?;
        }
        for route in stale {
            self.netlink.delete_route(route)?;
        }
        Ok(restored)
    }

    /// Adds the rules, and what T1 throws back, where they are missing; `routes` of ours are there.
    /// Returns the rules that were there.
    fn add_rules(&mut self, routes: &[Route]) -> Result<Vec<Rule>, Error> {
        let present = all_rules(&mut self.netlink)?;
        let add = |netlink: &mut Netlink, into_t1| -> Result<(), Error> {
            let missing = self.plan.rules.iter().filter(|rule| !present.contains(rule));
            for rule in missing.filter(|rule| (rule.table == self.identity.t1) == into_t1) {
                netlink.add_rule(rule)?;
            }
            Ok(())
        };
        add(&mut self.netlink, false)?;
        for route in missing(&self.plan.thrown, routes) {
            self.netlink.add_route(route)?;
        }
        add(&mut self.netlink, true)?;
        Ok(present)
    }

    /// Gives routes into the tunnel other preferred sources, where they have changed.
    fn apply_sources(&mut self) -> Result<(), Error> {
        let Some(device) = self.device else { return Ok(()) };
        let sources = self.sources_now(device)?;
        if sources == self.sources {
            return Ok(());
        }
        let before = core::mem::replace(&mut self.sources, sources);
        let routes = self.plan.device_routes(device, &self.sources);
        let other = |route: &Route| {
            self.takes(&route.destination)
                && before.get(&route.destination).copied() != route.source
        };
        let changed: Vec<Route> = routes.filter(other).collect();
        let put = |route: &Route| source::put(&mut self.netlink, route, true);
        match changed.iter().try_for_each(put) {
            Ok(()) => Ok(()),
            // The device is down, or others have been here.
            Err(_) => self.apply_routes().map(|_| ()),
        }
    }

    /// Whether the TUN device takes what is of the family of this prefix.
    fn takes(&self, prefix: &IpCidr) -> bool {
        !self.ipv6_off || Family::of(prefix) == Family::V4
    }

    /// Finds out whether IPv6 is switched off on the TUN device, which then carries IPv4 alone; what
    /// is closed of IPv6 stays closed.
    fn look_for_ipv6(&mut self) {
        let name = &self.interface.name;
        let setting =
            std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"));
        let off = setting.is_ok_and(|value| value.trim() != "0");
        let steered = self.plan.steered.iter().map(|(prefix, ..)| prefix);
        let mut of_ipv6 =
            steered.chain(&self.plan.addresses).filter(|p| Family::of(p) == Family::V6);
        if core::mem::replace(&mut self.ipv6_off, off) != off
            && let Some(prefix) = of_ipv6.next()
        {
            match off {
                true => log::warn!(
                    "{name}: IPv6 is switched off (net.ipv6.conf.{name}.disable_ipv6), so the \
                     tunnel carries IPv4 only, without {prefix}"
                ),
                false => log::info!("{name}: IPv6 is switched on again"),
            }
        }
    }

    fn apply_addresses(&mut self, device: u32) -> Result<(), Error> {
        let all = self.netlink.addresses()?;
        let present = || all.iter().filter(|(index, _)| *index == device).map(|(_, a)| a);
        let wanted = self.plan.addresses.iter().filter(|address| self.takes(address)).copied();
        for address in &wanted.collect::<Vec<_>>() {
            if !present().any(|a| a == address) {
                self.netlink.add_address(device, address)?;
            }
        }
        for address in present() {
            if !self.plan.addresses.contains(address) {
                self.netlink.delete_address(device, address)?;
            }
        }
        Ok(())
    }
}

/// The networks that this machine is connected to by others than the TUN device, or will be as far
/// as the configuration says so.
fn connected(interface: &Interface, netlink: &mut Netlink) -> Result<Vec<IpCidr>, Error> {
    let tun = netlink.link(&interface.name)?.map(|link| link.index);
    let connected = netlink.connected(tun)?;
    Ok(sorted::set(connected.into_iter().chain(interface.connected.iter().copied())))
}

fn no_conflict(interface: &Interface, mode: Mode, underlay: &Underlay) -> Result<(), Error> {
    let found = conflicts(interface, &underlay.connected).into_iter().next();
    match found.filter(|_| mode != Mode::None) {
        Some(conflict) => Err(Error::Conflict(conflict)),
        None => Ok(()),
    }
}

/// Closes, without a daemon and without a TUN device: what a daemon that has ended leaves.
///
/// # Errors
/// Like [`Steering::prepare`].
pub fn close(interface: &Interface, underlay: Underlay, run_dir: &Path) -> Result<(), Error> {
    Steering::prepare(interface, underlay, run_dir)?.leave()
}

/// The interfaces that a killswitch closes, by name, whether or not a daemon serves them.
///
/// # Errors
/// When the run directory cannot be read.
pub fn closed(run_dir: &Path) -> Result<Vec<String>, Error> {
    closed::remembered(run_dir).map_err(|error| Error::Remembering(run_dir.into(), error))
}

/// `simplevpn down`: removes whatever belongs to the interface called `name`, without its
/// configuration and whether or not a daemon left it behind.
///
/// # Errors
/// When something could not be removed; the rest is removed all the same.
pub fn down(name: &str, run_dir: &Path) -> Result<(), Error> {
    let reverse_path = ReversePath::new(run_dir, name);
    remove(&mut Netlink::open()?, &Identity::of(name), &reverse_path, run_dir)
}

/// Those of `routes` that are not among others, which are in order.
fn missing<'r>(routes: &'r [Route], others: &[Route]) -> impl Iterator<Item = &'r Route> {
    routes.iter().filter(|route| others.binary_search(route).is_err())
}

/// All routes of ours, in order.
fn all_routes(netlink: &mut Netlink) -> Result<Vec<Route>, Error> {
    let mut routes = Vec::new();
    for family in Family::ALL {
        routes.extend(netlink.routes(family)?);
    }
    Ok(sorted::set(routes))
}

fn all_rules(netlink: &mut Netlink) -> Result<Vec<Rule>, Error> {
    let mut rules = Vec::new();
    for family in Family::ALL {
        rules.extend(netlink.rules(family)?.unwrap_or_default());
    }
    Ok(rules)
}

fn remove(
    netlink: &mut Netlink,
    identity: &Identity,
    reverse_path: &ReversePath,
    run_dir: &Path,
) -> Result<(), Error> {
    let kernel = remove_from_kernel(netlink, identity);
    let firewall = nft::delete(&[&identity.table(), &identity.guard()]);
    // Mostly there is none, and some kernels have no tables of this family.
    let _ = nft::apply(&killswitch::no_bridge_table(identity));
    reverse_path.restore()?;
    firewall?;
    kernel?;
    let name = &identity.interface;
    closed::forget(run_dir, name)
        .map_err(|error| Error::Remembering(closed::path(run_dir, name), error))
}

fn remove_from_kernel(netlink: &mut Netlink, identity: &Identity) -> Result<(), Error> {
    let device = netlink.link(&identity.interface)?.map(|link| link.index);
    let rules = all_rules(netlink)?;
    for rule in rules.iter().filter(|rule| identity.owns_rule(rule, &rules)) {
        netlink.delete_rule(rule)?;
    }
    for route in all_routes(netlink)? {
        if identity.owns_route(&route, device) {
            netlink.delete_route(&route)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
