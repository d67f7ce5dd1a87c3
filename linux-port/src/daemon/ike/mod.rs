//! IKE for one interface: the endpoint of the core between sockets, configuration and tunnel.
//!
//! The core negotiates; here is decided whom to call and when, and what follows for the tunnel and
//! its surroundings. The log tells one story per connection.
//!
//! | module | what it is |
//! |---|---|
//! | `inbox` | messages that have come |
//! | `directory` | the peers as the configuration has them |
//! | `database` | the SAs that packets use |
//! | `call` | when a peer is called |
//! | `reach` | at which of its addresses a peer is called |
//! | `silence` | when a peer is not heard any more |
//! | `one_way` | when IKE is heard and ESP is not |
//! | `reload` | connections under another configuration |
//! | `refused`, `offer` | what is told of those who cannot get in |
//! | `random` | the kernel's randomness |

mod call;
mod database;
mod directory;
mod inbox;
mod offer;
mod one_way;
mod random;
mod reach;
mod refused;
mod reload;
mod silence;

use core::net::IpAddr;
use core::time::Duration;

use simplevpn_core::crypto::dh::Group;
use simplevpn_core::crypto::sign::PrivateKey;
use simplevpn_core::ike::suite::Preferences;
use simplevpn_core::ike::{
    Context, Given, Ike, IkeEvent, IkeSlot, IkeStatus, MAX_MESSAGE_LEN, PeerLink, Phase, Reason,
    SaDatabase, Settings,
};
use simplevpn_core::{Discards, Instant, Path, PeerId};
use smoltcp::wire::IpCidr;

use self::call::Call;
use self::database::Database;
use self::directory::Directory;
pub(super) use self::inbox::Inbox;
use self::random::Random;
use self::refused::Told;
use super::engine::Engine;
use crate::config::model::{Interface, Keying, Secret};
use crate::status::{Connection, State};

/// Bytes for a fragmented message of a peer's.
const REASSEMBLY: usize = 4096;
/// IKE SAs beyond one for each peer: those of strangers, and those that take the place of others.
const SPARE_SAS: usize = 24;
/// From so many slots on there is an index of them by peer.
const INDEXED: usize = 128;
/// How often a NAT in front of us is reminded (RFC 3948 §2.3).
const NAT_KEEPALIVE: Duration = Duration::from_secs(20);

/// Whether some keys are negotiated.
pub(super) fn is_used(interface: &Interface) -> bool {
    // A peer that is refused may be right after a reload, which opens no ports.
    interface.peers.iter().any(|peer| directory::keys(peer).is_some())
        || interface.refused.iter().any(|peer| peer.negotiated)
}

/// Whether every peer is one that we call: then our ports are our own affair.
pub(super) fn only_calls(interface: &Interface) -> bool {
    interface
        .peers
        .iter()
        .all(|peer| matches!(peer.keying, Keying::Ike(_)) && peer.endpoint.is_some())
}

/// The IKE endpoint of an interface.
pub(super) struct Control {
    endpoint: Ike<'static>,
    private_key: Option<PrivateKey>,
    /// One for each peer.
    pub(super) calls: Vec<Call>,
    out: Box<[u8]>,
    /// When the log was last told of who was refused.
    told: Told,
}

impl Control {
    pub(super) fn new(interface: &Interface) -> Control {
        let count = interface.peers.len();
        let reassembly = vec![0; REASSEMBLY];
        let settings = Settings::new(Preferences::new(has_fast_aes()));
        let mut endpoint = Ike::new(settings, slots(count).into(), reassembly.into(), &mut Random);
        endpoint.index(links(slot_count(count)).into());
        Control {
            endpoint,
            private_key: interface.private_key.as_ref().and_then(private_key),
            calls: interface.peers.iter().map(|peer| Call::new(interface, peer)).collect(),
            out: vec![0; MAX_MESSAGE_LEN].into_boxed_slice(),
            told: Told::default(),
        }
    }

    /// How the connection with a peer is; `None` if there is none, or only one that has ended.
    pub(super) fn status(&self, id: PeerId) -> Option<IkeStatus> {
        self.endpoint.status(id).filter(|status| status.phase != Phase::Closing)
    }

    /// Messages that led to nothing, by reason.
    pub(super) fn discards(&self) -> &Discards {
        self.endpoint.discards()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.endpoint.poll_timeout()
    }

    fn call(&mut self, id: PeerId) -> Option<&mut Call> {
        self.calls.get_mut(id.index())
    }

    /// The addresses of ours that peers have given us.
    pub(super) fn given(&self) -> impl Iterator<Item = IpCidr> {
        let addresses = self.calls.iter().flat_map(|call| &call.given.addresses);
        addresses.map(|address| {
            let len = if address.is_ipv4() { 32 } else { 128 };
            IpCidr::new((*address).into(), len)
        })
    }

    /// The name servers that peers have given us.
    pub(super) fn name_servers(&self) -> impl Iterator<Item = IpAddr> {
        self.calls.iter().flat_map(|call| call.given.dns.iter().copied())
    }
}

/// Storage for the IKE SAs of so many peers.
fn slots(peers: usize) -> Vec<IkeSlot> {
    (0..slot_count(peers)).map(|_| None).collect()
}

fn slot_count(peers: usize) -> usize {
    peers + peers.min(SPARE_SAS) + SPARE_SAS
}

/// Storage for an index of so many IKE SAs, where looking through all of them would take time.
fn links(slots: usize) -> Vec<PeerLink> {
    vec![PeerLink::default(); if slots < INDEXED { 0 } else { slots }]
}

fn private_key(secret: &Secret) -> Option<PrivateKey> {
    secret.0.first_chunk().map(PrivateKey::from_seed)
}

/// Whether the processor has instructions for AES.
fn has_fast_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

/// Whether a connection has come to an IKE SA and no further, or has lost its child SA.
fn lacks_child(status: &IkeStatus) -> bool {
    status.phase == Phase::Up && status.child.is_none()
}

fn group(group: Group) -> &'static str {
    match group {
        Group::Curve25519 => "x25519",
        Group::P256 => "p256",
    }
}

/// What the endpoint is told to do.
type Act<'a> = &'a mut dyn FnMut(&mut Ike<'static>, &mut Context<'_>);

impl Engine {
    /// Lets the endpoint do something, sends what it has to say, and follows what has happened.
    fn with_ike(&mut self, now: Instant, act: Act<'_>) {
        let Some(control) = &mut self.ike else { return };
        let Control { endpoint, private_key, calls, out, .. } = control;
        let directory =
            Directory { interface: &self.interface, private_key: private_key.as_ref(), calls };
        let mut sad = Database { peers: &mut self.peers };
        act(endpoint, &mut Context { rng: &mut Random, pad: &directory, sad: &mut sad });
        while let Some(transmit) = endpoint.poll_transmit(out) {
            let message = out.get(..transmit.len).unwrap_or_default();
            self.data.send_message(&transmit, message);
        }
        while let Some(event) = self.ike.as_mut().and_then(|ike| ike.endpoint.poll_event()) {
            self.ike_event(&event, now);
        }
        self.follow_redirections(now);
    }

    /// Processes the messages that have come.
    pub(super) fn handle_messages(&mut self, now: Instant) {
        if self.data.inbox.as_ref().is_none_or(Inbox::is_empty) {
            return;
        }
        let Some(mut inbox) = self.data.inbox.take() else { return };
        inbox.drain(&mut |path, message| {
            self.with_ike(now, &mut |ike, cx| ike.handle(now, cx, path, message));
        });
        self.data.inbox = Some(inbox);
    }

    /// Lets IKE do what time demands.
    pub(super) fn tick_ike(&mut self, now: Instant) {
        let due = self.ike.as_ref().and_then(Control::deadline);
        if due.is_some_and(|due| due <= now) {
            self.with_ike(now, &mut |ike, cx| ike.handle_timeout(now, cx));
        }
    }

    /// There is an address at which a peer can be called.
    pub(super) fn aim_call(&mut self, at: usize, address: IpAddr) {
        let Some(call) = self.ike.as_mut().and_then(|ike| ike.calls.get_mut(at)) else { return };
        call.aim(address);
        self.peers.list[at].aimed = Some(address);
        self.changed.endpoints = true;
    }

    /// There are packets for a peer without an SA.
    pub(super) fn want_call(&mut self, id: PeerId, now: Instant) {
        let Some(control) = &mut self.ike else { return };
        let alone = control.status(id).is_some_and(|status| lacks_child(&status));
        let Some(call) = control.call(id) else { return };
        call.want();
        // Those that we call are asked when they are due.
        if alone && call.not_before() <= now && !call.is_due(now) {
            call.asked_for_child(now);
            self.renew_keys(id, now);
        }
        self.call_peers(now);
    }

    /// Few sequence numbers are left on a peer's SA.
    pub(super) fn renew_keys(&mut self, id: PeerId, now: Instant) {
        self.with_ike(now, &mut |ike, cx| ike.rekey_child(now, cx, id));
    }

    /// Negotiates new keys, for ESP and IKE, with every peer. Returns what there is to say.
    pub(super) fn renew_all_keys(&mut self, now: Instant) -> String {
        let count = self.ike.as_ref().map_or(0, |ike| ike.calls.len());
        let mut connections = 0;
        for id in (0..count as u32).map(PeerId) {
            if self.ike.as_ref().is_some_and(|ike| ike.status(id).is_some()) {
                connections += 1;
                self.with_ike(now, &mut |ike, cx| {
                    ike.rekey_child(now, cx, id);
                    ike.rekey(now, cx, id);
                });
            }
        }
        format!("{}: new keys for {connections} of {count} peers\n", self.interface.name)
    }

    /// Whether packets for a peer are to go to where one came from. With manual keys there is nobody
    /// else to tell where the peer is.
    pub(super) fn follows(&self, id: PeerId, path: &Path) -> bool {
        let negotiated = self.interface.peers.get(id.index()).and_then(directory::keys).is_some();
        let status = self.ike.as_ref().and_then(|ike| ike.status(id));
        !negotiated || status.is_some_and(|status| status.follows(path))
    }

    /// Follows what has happened.
    fn ike_event(&mut self, event: &IkeEvent, now: Instant) {
        match event {
            IkeEvent::Up(id) => self.came_up(*id, now),
            IkeEvent::Down(id, reason) => {
                // What we do ourselves has been told.
                let ours = *reason == Reason::Closed;
                let level = if ours { log::Level::Debug } else { log::Level::Info };
                self.tell(*id, level, &format_args!("down: {reason}"));
                match reason {
                    Reason::PeerClosedChild => self.lost_child(*id, now),
                    reason => self.went_down(*id, *reason, now),
                }
            }
            IkeEvent::Failed(id, reason) => self.attempt_failed(*id, *reason, now),
            IkeEvent::Refused(claimed, from, reason) => self.refused(*claimed, *from, *reason, now),
            IkeEvent::Unacceptable(peer, from, offered) => {
                self.unacceptable(*peer, *from, offered, now);
            }
            IkeEvent::ChildRekeyed(id) => {
                self.tell(*id, log::Level::Debug, &"new keys for packets");
                self.follow_ike(*id);
                if let Some(call) = self.ike.as_mut().and_then(|ike| ike.call(*id)) {
                    call.one_way.was_renewed(now);
                }
            }
            IkeEvent::Rekeyed(id) => self.tell(*id, log::Level::Debug, &"new keys for IKE"),
            IkeEvent::Moved(id, path) => {
                if let Some(untold) = self.may_tell_move(*id, now) {
                    let what = format_args!("moved; now at {}{untold}", path.remote());
                    self.tell(*id, log::Level::Info, &what);
                }
                self.keep_nat_open(*id);
            }
            IkeEvent::Address(id, given) => self.take_addresses(*id, given),
            _ => {}
        }
    }

    /// Makes sure that the packets for a peer go where its IKE SA has them go.
    fn follow_ike(&mut self, id: PeerId) {
        let Some(status) = self.ike.as_ref().and_then(|ike| ike.status(id)) else { return };
        let path = self.peers.tunnel.sealer.peer(id).and_then(|peer| peer.path());
        if let Some(path) = path.and_then(|path| status.astray(path)) {
            let what = format_args!("packets go to {} now, as IKE does", path.remote());
            self.tell(id, log::Level::Info, &what);
            Database { peers: &mut self.peers }.set_path(id, path);
        }
    }

    /// Tells the log about a peer.
    pub(super) fn tell(&self, id: PeerId, level: log::Level, what: &dyn core::fmt::Display) {
        if let Some(peer) = self.interface.peers.get(id.index()) {
            log::log!(level, "{}: {}: {what}", self.interface.name, peer.name);
        }
    }

    fn came_up(&mut self, id: PeerId, now: Instant) {
        let Some(control) = &mut self.ike else { return };
        let status = control.status(id);
        if let Some(call) = control.call(id) {
            let by_us = status.as_ref().is_some_and(|status| status.initiator);
            call.came_up(now, by_us);
        }
        self.keep_nat_open(id);
        let Some(status) = status else { return };
        let how = if status.initiator { "called" } else { "was called by" };
        let suite = status.child.map_or("no SA", |child| child.cipher.name());
        let by = match status.esp_path {
            Some(Path::Udp { .. }) => "ESP in UDP",
            _ => "raw ESP",
        };
        let remote = status.path.remote.ip();
        let what = format_args!("up: {how} {remote}; {suite}, {by}");
        self.tell(id, log::Level::Info, &what);
        self.changed.endpoints = true;
    }

    /// Sends keepalives as configured, or as a NAT in front of us needs them (RFC 3948 §2.3). They
    /// are ESP, so that they prove as well where we are.
    fn keep_nat_open(&mut self, id: PeerId) {
        let Some(peer) = self.interface.peers.get(id.index()) else { return };
        let status = self.ike.as_ref().and_then(|ike| ike.status(id));
        let nat = status.is_some_and(|status| status.local_nat).then_some(NAT_KEEPALIVE);
        let configured = peer.persistent_keepalive.map(|s| Duration::from_secs(s.into()));
        self.peers.tunnel.sealer.set_keepalive(id, configured.or(nat));
    }

    fn lost_child(&mut self, id: PeerId, now: Instant) {
        if let Some(call) = self.ike.as_mut().and_then(|ike| ike.call(id)) {
            call.lost_child(now);
        }
    }

    fn went_down(&mut self, id: PeerId, reason: Reason, now: Instant) {
        if let Some(call) = self.ike.as_mut().and_then(|ike| ike.call(id)) {
            call.failed(now, reason);
        }
    }

    /// Our attempt has failed: that is told once for each reason, until it succeeds.
    fn attempt_failed(&mut self, id: PeerId, reason: Reason, now: Instant) {
        let Some(control) = &mut self.ike else { return };
        let has_child = control.status(id).is_some_and(|status| status.child.is_some());
        let Some(call) = control.call(id) else { return };
        if has_child {
            // Only its successor has failed.
            let what = format_args!("keys of ESP not replaced: {reason}; tried again");
            return self.tell(id, log::Level::Info, &what);
        }
        let level = match call.reason == Some(reason) && call.has_failed() {
            true => log::Level::Debug,
            false => log::Level::Warn,
        };
        self.tell(id, level, &format_args!("no connection: {reason}"));
        self.went_down(id, reason, now);
        if reason == Reason::NoAnswer {
            self.look_elsewhere(id, now);
        }
    }

    /// Gives the TUN device the addresses that a peer has given us.
    fn take_addresses(&mut self, id: PeerId, given: &Given) {
        let Some(call) = self.ike.as_mut().and_then(|ike| ike.call(id)) else { return };
        if call.given == *given {
            return;
        }
        call.given = given.clone();
        for address in &given.addresses {
            self.tell(id, log::Level::Info, &format_args!("our address is {address}"));
        }
        if self.netifd.is_none() {
            for server in &given.dns {
                self.tell(id, log::Level::Info, &format_args!("offers the name server {server}"));
            }
        }
        self.changed.addresses = true;
    }

    /// Tells the surroundings where IKE has led packets, and at once which addresses of ours they may
    /// come from: a socket keeps for long what it got at first.
    fn follow_redirections(&mut self, now: Instant) {
        if core::mem::take(&mut self.peers.agreed) {
            self.changed.endpoints = true;
            self.settle_soon(now);
        }
        if !core::mem::take(&mut self.peers.redirected) {
            return;
        }
        for at in 0..self.peers.list.len() {
            if core::mem::take(&mut self.peers.list[at].redirected) {
                self.begin_path_mtu(PeerId(at as u32));
                self.changed.endpoints = true;
            }
        }
    }

    /// Our addresses or routes have changed: who can follow is told, who cannot is called anew.
    pub(super) fn move_connections(&mut self, now: Instant) {
        let Some(control) = &self.ike else { return };
        let connections = (0..control.calls.len()).map(|at| PeerId(at as u32));
        let connections: Vec<_> = connections
            .filter_map(|id| Some((id, control.status(id)?.path)))
            .filter(|(_, path)| !path.local.ip().is_unspecified())
            .collect();
        for (id, path) in connections {
            let Some(target) = self.target(id, path.remote.ip()) else { continue };
            if target.local == path.local.ip() {
                continue;
            }
            let mut follows = false;
            self.with_ike(now, &mut |ike, cx| {
                follows = ike.address_changed(now, cx, id, &target);
            });
            if !follows && self.ike.as_mut().and_then(|ike| ike.call(id)).is_some_and(|c| c.calls())
            {
                self.drop_connection(id, now);
            }
        }
        self.call_peers(now);
    }

    /// Closes all connections: each peer is told, once.
    pub(super) fn close_connections(&mut self, now: Instant) {
        let count = self.ike.as_ref().map_or(0, |ike| ike.calls.len());
        for id in (0..count as u32).map(PeerId) {
            self.with_ike(now, &mut |ike, cx| ike.terminate(now, cx, id));
        }
    }

    /// Drops a connection, of which the peer is told once; another may be made at once.
    fn drop_connection(&mut self, id: PeerId, now: Instant) {
        self.with_ike(now, &mut |ike, cx| ike.terminate(now, cx, id));
        self.with_ike(now, &mut |ike, cx| ike.forget(cx, id));
        if let Some(call) = self.ike.as_mut().and_then(|ike| ike.call(id)) {
            call.dropped();
        }
    }

    /// The addresses of the TUN device, with those that peers have given us.
    pub(super) fn addresses(&self) -> Vec<IpCidr> {
        let given = self.ike.iter().flat_map(Control::given);
        self.interface.addresses.iter().copied().chain(given).collect()
    }

    /// How the connection with a peer is, for people; `None` if its keys are manual.
    pub(super) fn connection(&self, id: PeerId) -> Option<Connection> {
        directory::keys(self.interface.peers.get(id.index())?)?;
        let control = self.ike.as_ref()?;
        let call = control.calls.get(id.index())?;
        let status = control.status(id);
        let Some(status) = status else {
            let reason = call.no_way.clone().or_else(|| self.why_unresolved(id));
            let reason = reason.or_else(|| call.reason.map(|reason| reason.to_string()));
            let reason = reason.unwrap_or_else(|| call.waits_for().to_owned());
            return Some(Connection {
                state: State::Down,
                since: None,
                reason: Some(reason),
                next_call: call.next(),
                rekey: None,
                last_heard: None,
                suite: None,
                remarks: Vec::new(),
            });
        };
        let remarks = [
            (call.up.is_some() && call.by_us, "we called"),
            (call.up.is_some() && !call.by_us, "they called"),
            (status.local_nat, "NAT here"),
            (status.remote_nat, "NAT there"),
            (status.mobike, "can move"),
            (status.ppk, "with preshared key"),
        ];
        let reason = status.child_reason.or(call.reason);
        let state = match status.phase {
            Phase::Up => State::Up,
            Phase::Negotiating | Phase::Closing => State::Negotiating,
        };
        Some(Connection {
            state,
            since: Some(call.up.unwrap_or(status.since)),
            reason: reason.filter(|_| status.child.is_none()).map(|reason| reason.to_string()),
            next_call: call.next().filter(|_| lacks_child(&status)),
            rekey: status.rekey_child_at,
            last_heard: (status.phase != Phase::Negotiating).then_some(status.last_heard),
            suite: status.suite.map(|suite| (suite.cipher.name(), group(suite.group))),
            remarks: remarks.iter().filter(|(so, _)| *so).map(|(_, remark)| *remark).collect(),
        })
    }
}
