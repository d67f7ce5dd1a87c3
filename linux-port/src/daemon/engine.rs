//! One tunnel interface at work: the data path, and what its surroundings have to learn from it
//! and it from them (endpoints, MTU, reserved sequence numbers, a changing network).

mod aim;
mod moves;
mod path_mtu;
mod reload;
mod repairs;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use simplevpn_core::{Discards, Event, Instant, OpenerEvent, Path, PeerId};

pub(super) use self::aim::name_of;
pub(super) use self::moves::Moves;
use self::path_mtu::LinkMtus;
use self::repairs::Repairs;
use super::data_path::DataPath;
use super::ike::{self, Control, Inbox};
use super::outer::Outer;
use super::peers::Peers;
use super::surroundings::{Surroundings, first_mtu};
use crate::config::model::{Interface, Keying, Peer};
use crate::netifd::Announcer;
use crate::netlink::Netlink;
use crate::netlink::firewall::FirewallMonitor;
use crate::netlink::monitor::{Changes, Monitor};
use crate::outer_socket::Family;
use crate::resolver::{self, Resolver};
use crate::sequence_state::SequenceState;
use crate::sorted::SortedMap;
use crate::steering::{self, Agreed, Endpoints, Steering, Underlay};
use crate::{clock, control};

/// How often [`Engine::tick`] has something to do.
const TICK: Duration = Duration::from_secs(1);

/// One interface at work.
pub(super) struct Engine {
    pub(super) interface: Interface,
    pub(super) data: DataPath,
    pub(super) peers: Peers,
    pub(super) steering: Steering,
    pub(super) resolver: Resolver,
    pub(super) monitor: Monitor,
    /// `None` where the kernel does not tell.
    pub(super) firewall: Option<FirewallMonitor>,
    pub(super) since: Instant,
    pub(super) mtu: u16,
    /// What the tunnels of earlier configurations have dropped.
    pub(super) earlier: Discards,
    /// `None` without manual keys.
    state: Option<SequenceState>,
    pub(super) netlink: Netlink,
    /// Index of the TUN device.
    device: u32,
    link_mtus: LinkMtus,
    ticked: Instant,
    /// When the surroundings were last told something.
    told: Instant,
    pub(super) changed: Changed,
    /// The last trouble with the surroundings, told once.
    trouble: Option<Trouble>,
    /// When what others have removed of ours was put back.
    repairs: Repairs,
    /// Tells netifd, if that has started the daemon.
    pub(super) netifd: Option<Announcer>,
    /// `None` where all keys are manual.
    pub(super) ike: Option<Control>,
    /// Names that cannot be resolved, and why, told once.
    pub(super) unresolved: SortedMap<String, &'static str>,
}

/// What keeps the surroundings from being as they should.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trouble {
    /// Everything is in place, but some peer will not be reached.
    Warning(String),
    /// Something could not be put in place; it is tried again.
    Failure(String),
}

impl From<steering::Error> for Trouble {
    fn from(error: steering::Error) -> Trouble {
        match error {
            steering::Error::EndpointInside { .. } | steering::Error::Conflict(_) => {
                Trouble::Warning(text(error))
            }
            _ => Trouble::Failure(text(error)),
        }
    }
}

/// What the surroundings have to be told at the next tick.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Changed {
    pub(super) endpoints: bool,
    /// Those of the TUN device.
    pub(super) addresses: bool,
    mtu: bool,
    network: bool,
    /// Links or routes: the ways to the peers may be others.
    ways: bool,
}

impl Engine {
    /// Opens everything else for `interface`, which is closed by `steering` and whose sockets are
    /// open, and leads traffic into it.
    ///
    /// # Errors
    /// A sentence that says what is wrong. The killswitch stays closed then if it is wanted;
    /// nothing else is left behind.
    pub(super) fn start(
        interface: Interface,
        steering: Steering,
        outer: Outer,
        netifd: bool,
    ) -> Result<Engine, String> {
        let (around, state, peers) = match Engine::gather(&interface) {
            Ok(gathered) => gathered,
            Err(error) => {
                also_failed(&interface.name, steering.leave());
                return Err(error);
            }
        };
        let Surroundings { tun, netlink, device, resolver, monitor, firewall } = around;
        let now = clock::now();
        let mut data = DataPath::new(&interface.name, tun, outer);
        let ike = ike::is_used(&interface).then(|| Control::new(&interface));
        data.inbox = ike.as_ref().map(|_| Inbox::new());
        let mut engine = Engine {
            data,
            ike,
            peers,
            steering,
            resolver,
            monitor,
            firewall,
            since: now,
            mtu: first_mtu(&interface),
            earlier: Discards::default(),
            state,
            netlink,
            device,
            link_mtus: LinkMtus::new(&interface),
            ticked: now,
            told: now,
            changed: Changed { endpoints: true, mtu: true, ..Changed::default() },
            trouble: None,
            repairs: Repairs::default(),
            netifd: netifd.then(|| Announcer::new(&interface.name)),
            unresolved: SortedMap::new(),
            interface,
        };
        engine.aim_all(now);
        let installed = engine.apply_ports().and_then(|()| engine.apply_mtu());
        let installed = installed.and_then(|()| Ok(engine.steering.install(device)?));
        if let Err(Trouble::Warning(error) | Trouble::Failure(error)) = installed {
            let name = engine.interface.name.clone();
            also_failed(&name, engine.stop(false));
            return Err(error);
        }
        engine.settle();
        engine.announce();
        log::info!(
            "{}: up; steering {}, mtu {}, peers {}",
            engine.interface.name,
            engine.steering.mode(),
            engine.mtu,
            engine.peers.list.len()
        );
        engine.call_peers(now);
        Ok(engine)
    }

    /// The device and its surroundings, and peers with sequence numbers; these last, so that none
    /// are lost when something else fails, however often.
    fn gather(
        interface: &Interface,
    ) -> Result<(Surroundings, Option<SequenceState>, Peers), String> {
        let around = Surroundings::open(interface, &control::run_dir())?;
        let mut state = None;
        open_state(interface, &mut state)?;
        let (peers, claimed) = Peers::build(&interface.peers, Peers::none(), &[], &mut state);
        claimed.map_err(text)?;
        Ok((around, state, peers))
    }

    /// Ends; with `open`, the killswitch goes too.
    ///
    /// # Errors
    /// A sentence about what could not be undone.
    pub(super) fn stop(mut self, open: bool) -> Result<(), String> {
        self.close_connections(clock::now());
        self.peers.release(&mut self.state);
        let steering = if open { self.steering.remove() } else { self.steering.leave() };
        let state = self.state.map_or(Ok(()), SequenceState::close);
        steering.map_err(text)?;
        state.map_err(text)?;
        log::info!("{}: down", self.interface.name);
        Ok(())
    }

    /// Follows what the tunnel has to tell.
    pub(super) fn handle_events(&mut self, now: Instant) {
        while let Some(OpenerEvent::Moved(id, path)) = self.peers.tunnel.opener.poll_event() {
            if self.follows(id, &path) {
                self.peers.tunnel.sealer.set_path(id, Some(path));
                self.moved(id, path, now);
            }
        }
        while let Some(event) = self.peers.tunnel.poll_event() {
            match event {
                Event::Moved(id, path) => self.moved(id, path, now),
                Event::Exhausting(id) => {
                    self.peers.record(&mut self.state);
                    if let Some(state) = &mut self.state {
                        state.tick(now);
                    }
                    self.renew_keys(id, now);
                }
                Event::Wanted(id) => self.want_call(id, now),
                _ => {}
            }
        }
    }

    /// Follows what the resolver has found.
    pub(super) fn handle_resolver(&mut self, now: Instant) {
        self.resolver.handle_timeout(now);
        self.resolver.handle_readable(now);
        while let Some(event) = self.resolver.poll_event() {
            match event {
                resolver::Event::Resolved { name, .. } => {
                    self.unresolved.remove(&name);
                    for at in 0..self.peers.list.len() {
                        if name_of(&self.peers.list[at].config) == Some(&name) {
                            self.aim_at_resolved(at);
                        }
                    }
                    self.call_peers(now);
                }
                resolver::Event::Failed { name, reason } => {
                    if self.unresolved.get(&name) != Some(&reason) {
                        let interface = &self.interface.name;
                        log::warn!("{interface}: cannot resolve {name}: {reason}; tried again");
                        self.unresolved.insert(name, reason);
                    }
                }
            }
        }
    }

    /// Notes what others changed about the network.
    pub(super) fn handle_network(&mut self, now: Instant) {
        let changes = self.monitor.changes().unwrap_or(Changes::ALL);
        self.changed.network |= changes.any() || changes.deleted;
        self.changed.ways |= changes.links || changes.routes;
        if (changes.addresses || changes.links) && self.steering.follow_connected().is_err() {
            // It is tried again, and told, when the rest is.
            self.changed.network = true;
        }
        if changes.addresses || changes.routes {
            self.forget_local_addresses(changes.routes);
            self.move_connections(now);
        }
        if changes.links {
            self.data.outer.follow_tunlink();
        }
        if changes.any() {
            self.resolver.network_changed(now);
        }
        if changes.deleted {
            self.restore(now);
        }
    }

    /// Puts back what others have changed of our firewall tables.
    pub(super) fn handle_firewall(&mut self, now: Instant) {
        let Some(firewall) = &mut self.firewall else { return };
        let tables = self.steering.tables();
        if firewall.meddled(&tables.each_ref().map(String::as_str)) {
            self.steering.meddled_with();
            self.changed.network = true;
            self.restore(now);
        }
    }

    /// Puts back at once what others have taken away, unless they keep doing so.
    fn restore(&mut self, now: Instant) {
        self.repairs.want();
        if self.repairs.deadline().is_some_and(|due| due <= now) {
            self.settle();
        }
    }

    /// Lets routing choose our own address again where the one in use is gone, or where routes
    /// changed and the peer is ours to look for. One that looks for us is answered from the
    /// address that it knows.
    fn forget_local_addresses(&mut self, routes: bool) {
        let ours: Vec<IpAddr> = match self.netlink.addresses() {
            Ok(all) => all.iter().map(|(_, address)| address.address().into()).collect(),
            Err(_) => Vec::new(),
        };
        for (at, peer) in self.peers.list.iter().enumerate() {
            let id = PeerId(at as u32);
            let path = self.peers.tunnel.sealer.peer(id).and_then(|peer| peer.path()).copied();
            let (local, free) = match path {
                None => continue,
                Some(Path::Esp { local, remote }) => (local, esp_path(remote)),
                Some(Path::Udp { local, remote }) => (local.ip(), udp_path(remote, local.port())),
            };
            let chosen = routes && peer.config.endpoint.is_some();
            if local.is_unspecified() || (ours.contains(&local) && !chosen) {
                continue;
            }
            self.peers.tunnel.set_path(id, Some(free));
            if !ours.contains(&local) {
                self.peers.tunnel.sealer.greet(id);
            }
        }
    }

    /// When [`Engine::tick`] is to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let keepalive = self.peers.tunnel.poll_timeout();
        let timers = [
            Some(self.ticked.saturating_add(TICK)),
            keepalive,
            self.resolver.poll_timeout(),
            self.repairs.deadline(),
            self.ike.as_ref().and_then(Control::deadline),
            self.netifd.as_ref().and_then(Announcer::deadline),
        ];
        timers.into_iter().flatten().min()
    }

    /// Does what time demands.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.peers.tunnel.poll_timeout().is_some_and(|due| due <= now) {
            self.data.keepalives(&mut self.peers.tunnel, now);
        }
        if self.resolver.poll_timeout().is_some_and(|due| due <= now) {
            self.handle_resolver(now);
        }
        if self.netifd.as_mut().is_some_and(|netifd| netifd.tick(now)) {
            // netifd sets a device down when it first meets it, and its routes are gone.
            self.changed.network = true;
            self.settle();
        }
        if self.repairs.deadline().is_some_and(|due| due <= now) {
            self.settle();
        }
        self.tick_ike(now);
        if now.saturating_since(self.ticked) < TICK {
            return;
        }
        self.ticked = now;
        self.peers.record(&mut self.state);
        if let Some(state) = &mut self.state {
            state.tick(now);
        }
        self.peers.extend(&mut self.state);
        self.look_for_silence(now);
        self.call_peers(now);
        self.forget_old_mtus(now);
        self.look_for_lost(now);
        self.follow_moves(now);
        self.settle();
    }

    /// Tells the surroundings what has changed without waiting for the next tick, unless they were
    /// just told something: that takes a time in proportion to the peers, many of whom may come at
    /// the same time.
    pub(super) fn settle_soon(&mut self, now: Instant) {
        let pause = Duration::from_millis(self.peers.list.len() as u64);
        if now.saturating_since(self.told) >= pause {
            self.settle();
        }
    }

    /// Tells the surroundings what has changed since the last tick. Trouble is logged once, and
    /// what failed is tried again.
    fn settle(&mut self) {
        self.link_mtus.forget();
        if core::mem::take(&mut self.changed.ways) {
            self.follow_links();
            self.aim_where_ways_lead();
        }
        let changed = core::mem::take(&mut self.changed);
        let mut results = Vec::new();
        if changed.mtu {
            results.push(self.apply_mtu());
        }
        if changed.addresses {
            let interface = self.interface.clone();
            results.push(self.steer(&interface).map_err(Trouble::from));
        }
        if changed.endpoints {
            let agreed = self.agreed();
            results.push(self.steering.set_agreed(agreed).map_err(Trouble::from));
            let endpoints = self.endpoints();
            results.push(self.steering.set_endpoints(endpoints).map_err(Trouble::from));
        }
        let now = clock::now();
        if changed.network && self.repairs.are_due(now) {
            let refreshed = self.steering.refresh();
            if self.repairs.done(!matches!(refreshed, Ok(false)), now) {
                let name = &self.interface.name;
                log::warn!(
                    "{name}: another program keeps removing our routes, rules or firewall; \
                            they are put back less and less often"
                );
            }
            results.push(refreshed.map(drop).map_err(Trouble::from));
        } else {
            self.changed.network = changed.network;
        }
        if results.is_empty() {
            return;
        }
        self.told = clock::now();
        let trouble = results.into_iter().find_map(Result::err);
        if trouble != self.trouble {
            match &trouble {
                Some(Trouble::Warning(what)) => log::warn!("{}: {what}", self.interface.name),
                Some(Trouble::Failure(what)) => log::error!("{}: {what}", self.interface.name),
                None => {}
            }
        }
        if matches!(trouble, Some(Trouble::Failure(_))) {
            self.changed = Changed { network: true, ..changed };
        }
        self.trouble = trouble;
        self.announce();
    }

    /// Steers by this configuration, and by the addresses that peers have given us.
    fn steer(&mut self, interface: &Interface) -> Result<(), steering::Error> {
        let endpoints = self.endpoints();
        self.steer_towards(interface, endpoints)
    }

    /// The same for peers that are found at these addresses.
    fn steer_towards(
        &mut self,
        interface: &Interface,
        endpoints: Endpoints,
    ) -> Result<(), steering::Error> {
        let mut interface = interface.clone();
        interface.addresses.extend(self.ike.iter().flat_map(Control::given));
        let underlay = Underlay {
            endpoints,
            agreed: self.agreed(),
            ports: self.data.outer.all_ports(),
            ..underlay(&interface, self.mtu, self.netifd.is_some())
        };
        self.steering.update(&interface, underlay)
    }

    /// Tells steering of the ports that are not those of the configuration.
    fn apply_ports(&mut self) -> Result<(), Trouble> {
        let configured = underlay(&self.interface, self.mtu, false).ports;
        if self.data.outer.all_ports().iter().all(|port| configured.contains(port)) {
            return Ok(());
        }
        let interface = self.interface.clone();
        Ok(self.steer(&interface)?)
    }

    /// Tells netifd what is its part of the work.
    fn announce(&mut self) {
        let Some(netifd) = &mut self.netifd else { return };
        let (addresses, routes) = self.steering.delegated();
        let Interface { name, zone, .. } = &self.interface;
        let servers: Vec<IpAddr> = self.ike.iter().flat_map(|ike| ike.name_servers()).collect();
        let refused = self.interface.refused.iter().flat_map(|peer| peer.reasons());
        let refused: Vec<String> = refused.map(|why| why.to_string()).collect();
        let now = clock::now();
        netifd.complain(&refused, now);
        let refused = netifd.has_complained().then_some(&*refused);
        let zone = zone.as_deref();
        netifd.announce(crate::netifd::up(name, addresses, &routes, &servers, zone, refused), now);
    }

    fn endpoints(&self) -> Endpoints {
        let peers = self.peers.list.iter().enumerate();
        peers.filter_map(|(at, peer)| Some((peer.config.name.clone(), self.remote(at)?))).collect()
    }

    /// Where a peer is at present, if that is known.
    fn remote(&self, at: usize) -> Option<IpAddr> {
        let outbound = self.peers.tunnel.sealer.peer(PeerId(at as u32));
        let path = outbound.and_then(|outbound| outbound.path());
        path.map(Path::remote).or(self.peers.list.get(at)?.aimed)
    }

    fn agreed(&self) -> Agreed {
        let narrow = self.peers.list.iter().filter(|peer| !peer.agreed.is_empty());
        narrow.map(|peer| (peer.config.name.clone(), peer.agreed.clone())).collect()
    }
}

fn text(error: impl core::fmt::Display) -> String {
    error.to_string()
}

/// Tells the log of trouble on the way out; whoever ends has more important news.
fn also_failed(name: &str, result: Result<(), impl core::fmt::Display>) {
    if let Err(error) = result {
        log::error!("{name}: {error}");
    }
}

/// Opens the memory of sequence numbers, which only manual keys need.
fn open_state(interface: &Interface, state: &mut Option<SequenceState>) -> Result<(), String> {
    let manual = |peer: &Peer| matches!(peer.keying, Keying::Manual(_));
    if state.is_none() && interface.peers.iter().any(manual) {
        *state = Some(SequenceState::open(&interface.state_dir).map_err(text)?);
    }
    Ok(())
}

pub(super) fn underlay(interface: &Interface, mtu: u16, netifd: bool) -> Underlay {
    let mut ports = vec![interface.nat_port];
    if ike::is_used(interface) {
        ports.insert(0, interface.port);
    }
    let (endpoints, agreed) = (Endpoints::new(), Agreed::new());
    Underlay { ports, endpoints, agreed, connected: Vec::new(), mtu, delegated: netifd }
}

/// Raw ESP to `remote`; routing chooses our address.
fn esp_path(remote: IpAddr) -> Path {
    Path::Esp { local: Family::of(remote).unspecified(0).ip(), remote }
}

/// ESP in UDP to `remote`; routing chooses our address.
fn udp_path(remote: SocketAddr, port: u16) -> Path {
    Path::Udp { local: Family::of(remote.ip()).unspecified(port), remote }
}
