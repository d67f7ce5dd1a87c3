//! Nodes on one link, the virtual time they share, and what has to hold at any time.

use std::collections::hash_map::{DefaultHasher, Entry};
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::net::{Ipv4Addr, SocketAddr};

use simplevpn_core::crypto::sign::PrivateKey;
use simplevpn_core::ike::suite::Pfs;
use simplevpn_core::ike::wire::numbers::{ExchangeType, NotifyType, PayloadType};
use simplevpn_core::ike::wire::{Header, Message};
use simplevpn_core::ike::{
    Context, Encap, Ike, IkeEvent, IkePath, IkeStatus, Lifetimes, MAX_MESSAGE_LEN, Phase,
};
use simplevpn_core::wire::natt::{self, Datagram};
use simplevpn_core::{
    Discard, HEADROOM, Instant, PacketBuf, Path, PeerId, Sealed, TAILROOM, Transmit, outer,
};
use smoltcp::wire::IpCidr;

use super::node::{self, Auth, Node, Peer, identity};
use crate::sim::{Flight, Link, Percent, SplitMix64};

/// How long a packet is on its way at most, in ms.
const SLOWEST: u64 = 200;
/// How long the packets of two nodes may miss each other's SAs once they have connected, on a link
/// without faults, in ms.
const GRACE: u64 = 500;

/// What happens to one IKE message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It vanishes.
    Lost,
    /// It arrives twice at once.
    Duplicated,
    /// It arrives once more, seconds later.
    Repeated,
    /// It arrives after others that were sent later, but before it is sent again.
    Overtaken,
    /// It arrives after it was sent again.
    Delayed,
    /// A bit is flipped.
    Corrupted,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 6] = [
        Kind::Lost,
        Kind::Duplicated,
        Kind::Repeated,
        Kind::Overtaken,
        Kind::Delayed,
        Kind::Corrupted,
    ];
}

/// What happens to which IKE message.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// How many IKE messages go before.
    pub at: usize,
    /// What happens.
    pub kind: Kind,
}

/// A packet that has not arrived yet.
#[derive(Debug, Clone, Copy)]
struct Outstanding {
    from: usize,
    to: usize,
    sent: u64,
}

/// All there is.
pub struct Net {
    /// Virtual time in ms.
    pub now: u64,
    /// The link that joins everyone.
    pub link: Link,
    /// Everyone.
    pub nodes: Vec<Node>,
    /// Pause between the packets from one node to another, in ms.
    pub pause: u64,
    /// How long it may take until two nodes that connect have done so, in ms.
    pub grace: u64,
    /// Whether SAs are checked at all.
    pub strict: bool,
    /// What happens to one message.
    pub fault: Option<Fault>,
    /// How many IKE messages were sent.
    pub messages: usize,
    /// How many ESP packets arrived.
    pub received: u64,
    random: SplitMix64,
    next_traffic: u64,
    /// From when on two nodes have to have each other's SAs; without an entry they have not
    /// connected yet.
    connected: BTreeMap<(usize, usize), u64>,
    outstanding: BTreeMap<u64, Outstanding>,
    ivs: HashMap<(u64, u64, bool, [u8; 8]), u64>,
}

impl Net {
    /// Nodes that do not know each other yet, with so many slots for IKE SAs each.
    pub fn new(count: usize, slots: usize, seed: u64) -> Net {
        Net {
            now: 1_000_000,
            link: Link::new(Percent::NONE, seed),
            nodes: (0..count).map(|number| Node::new(seed, number, count, slots)).collect(),
            pause: 100,
            grace: GRACE,
            strict: true,
            fault: None,
            messages: 0,
            received: 0,
            random: SplitMix64::new(!seed),
            next_traffic: 0,
            connected: BTreeMap::new(),
            outstanding: BTreeMap::new(),
            ivs: HashMap::new(),
        }
    }

    /// Two nodes that know each other's public keys; the first connects.
    pub fn pair(seed: u64) -> Net {
        let mut net = Net::new(2, 16, seed);
        net.join(0, 1);
        net
    }

    /// The same with a preshared key, which is faster.
    pub fn psk_pair(seed: u64) -> Net {
        let mut net = Net::pair(seed);
        for (at, other) in [(0, 1), (1, 0)] {
            net.peer_mut(at, other).auth = Auth::Psk(b"0123456789abcdef0123456789abcdef".into());
        }
        net
    }

    /// The same, with so many networks behind the second that the messages which list them are sent
    /// in fragments: all requests of the first for SAs, and all answers about SAs.
    pub fn wordy_pair(seed: u64) -> Net {
        let mut net = Net::psk_pair(seed);
        let prefix = |text: &str| -> IpCidr { text.parse().unwrap() };
        let many = (0..24).map(|number| prefix(&format!("fd01:{number}::/32")));
        net.peer_mut(0, 1).remote.extend(many);
        net.peer_mut(0, 1).local.push(prefix("fd00::/32"));
        net.peer_mut(1, 0).remote.push(prefix("fd00::/32"));
        net.peer_mut(1, 0).local.push(prefix("fd01::/16"));
        net
    }

    /// Has two nodes know each other's public keys; the first connects.
    pub fn join(&mut self, a: usize, b: usize) {
        let key = |at: usize| PrivateKey::from_seed(&[at as u8 + 1; 32]);
        for (at, other) in [(a, b), (b, a)] {
            let peer = Peer {
                local_id: identity(at),
                remote_id: identity(other),
                auth: Auth::Keys(Box::new((key(at), key(other).public_key()))),
                ppk: None,
                local: vec![node::network(at)],
                remote: vec![node::network(other)],
                encap: Encap::Auto,
                pfs: Pfs::Optional,
                lifetimes: Lifetimes::default(),
                wanted: at == a,
                retry_at: 0,
            };
            self.nodes[at].pad.0[other] = Some(peer);
            self.nodes[at].restart();
        }
    }

    /// What a node has configured for another.
    pub fn peer_mut(&mut self, at: usize, other: usize) -> &mut Peer {
        self.nodes[at].pad.0[other].as_mut().unwrap()
    }

    /// How the connection is with another.
    pub fn status(&self, at: usize, other: usize) -> Option<IkeStatus> {
        self.nodes[at].ike.status(PeerId(other as u32))
    }

    /// Calls the endpoint of a node, and sends what it has to say.
    pub fn act<T>(
        &mut self,
        at: usize,
        act: impl FnOnce(&mut Ike<'static>, Instant, &mut Context<'_>) -> T,
    ) -> T {
        let result = self.nodes[at].call(self.now, act);
        self.collect(at);
        result
    }

    /// New keys for ESP.
    pub fn rekey_child(&mut self, at: usize, other: usize) {
        self.act(at, |ike, now, cx| ike.rekey_child(now, cx, PeerId(other as u32)));
    }

    /// New keys for IKE.
    pub fn rekey_ike(&mut self, at: usize, other: usize) {
        self.act(at, |ike, now, cx| ike.rekey(now, cx, PeerId(other as u32)));
    }

    /// A node starts anew.
    pub fn restart(&mut self, at: usize) {
        self.nodes[at].restart();
        for other in 0..self.nodes.len() {
            self.disconnected(at, other);
        }
    }

    /// Two nodes begin anew; the one that has noticed it tries to connect after a while.
    fn disconnected(&mut self, at: usize, other: usize) {
        self.connected.remove(&(at.min(other), at.max(other)));
        let again = self.now + 2000 + self.random.below(3000);
        if let Some(peer) = self.nodes[at].pad.0[other].as_mut() {
            peer.retry_at = again;
        }
    }

    /// Two nodes may miss each other for a moment: the path between them has changed.
    pub fn path_changed(&mut self, a: usize, b: usize) {
        let from = self.now + self.grace;
        self.connected.entry((a.min(b), a.max(b))).and_modify(|since| *since = from);
    }

    /// Somebody sends a message, and says that it comes from `from`.
    pub fn forge(&mut self, from: SocketAddr, to: SocketAddr, message: &[u8]) {
        let marker: &[u8] = if to.port() == natt::PORT { &natt::NON_ESP_MARKER } else { &[] };
        let path = Path::Udp { local: from, remote: to };
        let flight = Flight {
            number: u64::MAX,
            from: from.ip(),
            to: to.ip(),
            outer_len: path.outer_len(),
            bytes: with_outer(&path, &[marker, message].concat()),
            altered: true,
        };
        self.link.inject(self.now + 1, flight);
    }

    /// Somebody at `from`, who really is there, sends a message to a node; returns the cookie that he
    /// gets in answer, if he gets one.
    pub fn ask(&mut self, from: SocketAddr, to: SocketAddr, message: &[u8]) -> Option<Vec<u8>> {
        let node = self.nodes.iter_mut().find(|node| node.address == to.ip())?;
        let path = IkePath { local: to, remote: from, natt: false };
        let mut bytes = message.to_vec();
        node.call(self.now, |ike, now, cx| ike.handle(now, cx, &path, &mut bytes));
        let mut out = [0; MAX_MESSAGE_LEN];
        let answer = node.ike.poll_transmit(&mut out)?;
        let answer = Message::parse(&out[..answer.len]).ok()?;
        Some(answer.notification(NotifyType::COOKIE)?.data.to_vec())
    }

    /// The IKE messages that were recorded: from where, to where, and what.
    pub fn recorded(&self) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
        let read = |flight: &Flight| {
            let mut bytes = flight.bytes.clone();
            let len = bytes.len();
            let mut packet = PacketBuf::new(&mut bytes, 0, len).unwrap();
            let Ok((Path::Udp { local, remote }, _)) = outer::strip(&mut packet) else {
                return None;
            };
            match Datagram::classify(packet.as_slice()) {
                _ if local.port() != natt::PORT => Some((remote, local, packet.as_slice().into())),
                Datagram::Ike(message) => Some((remote, local, message.to_vec())),
                _ => None,
            }
        };
        self.link.recording.iter().flatten().filter_map(read).collect()
    }

    /// Sends what a node has to say, and hears what it tells.
    fn collect(&mut self, at: usize) {
        let mut out = [0; MAX_MESSAGE_LEN];
        while let Some(transmit) = self.nodes[at].ike.poll_transmit(&mut out) {
            self.send_message(at, &transmit.path, &out[..transmit.len]);
        }
        while let Some(event) = self.nodes[at].ike.poll_event() {
            match event {
                IkeEvent::Up(peer) | IkeEvent::Down(peer, _) | IkeEvent::Failed(peer, _) => {
                    self.disconnected(at, peer.0 as usize);
                }
                _ => {}
            }
            self.nodes[at].events.push(event);
        }
    }

    fn send_message(&mut self, from: usize, path: &IkePath, message: &[u8]) {
        self.check_iv(message);
        let marker: &[u8] = if path.natt { &natt::NON_ESP_MARKER } else { &[] };
        let outside =
            Path::Udp { local: self.nodes[from].outside(path.local), remote: path.remote };
        let bytes = with_outer(&outside, &[marker, message].concat());
        let number = self.messages;
        self.messages += 1;
        match self.fault.filter(|fault| fault.at == number) {
            Some(fault) => self.send_faulty(fault.kind, &outside, bytes),
            None => self.link.send(self.now, &outside, bytes),
        }
    }

    fn send_faulty(&mut self, kind: Kind, path: &Path, bytes: Vec<u8>) {
        let flight = Flight {
            number: u64::MAX,
            from: path.local(),
            to: path.remote(),
            outer_len: path.outer_len(),
            bytes: bytes.clone(),
            altered: false,
        };
        let before = self.link.percent;
        match kind {
            Kind::Lost => return,
            Kind::Overtaken => return self.link.inject(self.now + 300, flight),
            Kind::Delayed => return self.link.inject(self.now + 3500, flight),
            Kind::Repeated => self.link.inject(self.now + 3500, flight),
            Kind::Duplicated => self.link.percent.duplicated = 100,
            Kind::Corrupted => self.link.percent.corrupted = 100,
        }
        self.link.send(self.now, path, bytes);
        self.link.percent = before;
    }

    /// No IV is used twice with one key, but for the same message.
    fn check_iv(&mut self, message: &[u8]) {
        let header = Header::parse(message).unwrap();
        if header.exchange == ExchangeType::IKE_SA_INIT {
            return;
        }
        let at = if message[16] == PayloadType::SKF.0 { 36 } else { 32 };
        let iv = message[at..at + 8].try_into().unwrap();
        let key = (header.spis.initiator, header.spis.responder, header.from_initiator, iv);
        let mut hasher = DefaultHasher::new();
        message.hash(&mut hasher);
        match self.ivs.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(hasher.finish());
            }
            Entry::Occupied(entry) => assert_eq!(*entry.get(), hasher.finish(), "an IV twice"),
        }
    }

    /// Lets `ms` pass.
    pub fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        loop {
            self.deliver();
            self.handle_timeouts();
            self.connect();
            self.send_traffic();
            if self.now >= end {
                return self.forget_lost();
            }
            let timers = self.nodes.iter().filter_map(|node| node.ike.poll_timeout());
            let next = timers.map(Instant::as_millis).chain(self.link.next_arrival());
            let next = next.chain(self.next_attempt()).chain([self.next_traffic]).min();
            self.now = next.unwrap_or(end).clamp(self.now + 1, end);
        }
    }

    fn handle_timeouts(&mut self) {
        for at in 0..self.nodes.len() {
            let due = self.nodes[at].ike.poll_timeout();
            if due.is_some_and(|due| due.as_millis() <= self.now) {
                self.act(at, |ike, now, cx| ike.handle_timeout(now, cx));
            }
        }
    }

    fn next_attempt(&self) -> Option<u64> {
        let peers = self.nodes.iter().flat_map(|node| node.pad.0.iter().flatten());
        peers.filter(|peer| peer.wanted).map(|peer| peer.retry_at).min()
    }

    /// Connects those that want it and are not connected.
    fn connect(&mut self) {
        for at in 0..self.nodes.len() {
            for other in 0..self.nodes.len() {
                let now = self.now;
                let Some(peer) = self.nodes[at].pad.0[other].as_mut() else { continue };
                if !peer.wanted || peer.retry_at > now {
                    continue;
                }
                peer.retry_at = u64::MAX;
                let target = self.nodes[at].target(self.nodes[other].public());
                let id = PeerId(other as u32);
                let again = now + 30_000;
                match self.status(at, other) {
                    Some(IkeStatus { phase: Phase::Up, child: None, .. }) => {
                        self.peer_mut(at, other).retry_at = again;
                        self.rekey_child(at, other);
                    }
                    Some(IkeStatus { phase: Phase::Up, .. }) => {}
                    Some(IkeStatus { phase: Phase::Negotiating, .. }) => {
                        self.peer_mut(at, other).retry_at = again;
                    }
                    None | Some(IkeStatus { phase: Phase::Closing, .. }) => {
                        self.act(at, |ike, now, cx| ike.initiate(now, cx, id, &target));
                    }
                }
            }
        }
    }

    /// Whether two nodes have to have each other's SAs.
    fn must_match(&mut self, a: usize, b: usize) -> bool {
        let pair = (a.min(b), a.max(b));
        if !self.connected.contains_key(&pair) {
            let has = |at: usize, other: usize| {
                let spi = self.nodes[at].database.outbound(PeerId(other as u32));
                spi.is_some_and(|spi| self.nodes[other].database.inbound.contains(&spi))
            };
            if has(a, b) && has(b, a) {
                self.connected.insert(pair, self.now + self.grace);
            }
        }
        self.strict && self.connected.get(&pair).is_some_and(|from| *from <= self.now)
    }

    fn send_traffic(&mut self) {
        if self.now < self.next_traffic {
            return;
        }
        self.next_traffic = self.now + self.pause;
        for from in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                if self.nodes[from].pad.0[to].is_some() {
                    self.send_packet(from, to);
                }
            }
        }
    }

    /// Sends an ESP packet, and checks that its receiver has the SA.
    pub fn send_packet(&mut self, from: usize, to: usize) {
        let must_match = self.must_match(from, to);
        let spi = self.nodes[from].database.outbound(PeerId(to as u32));
        let Some(spi) = spi else {
            return assert!(!must_match, "node {from} has no SA to {to} at {}", self.now);
        };
        let installed = self.nodes[to].database.inbound.contains(&spi);
        assert!(installed || !must_match, "{from} sends {spi:#x}, and {to} has no such SA");
        let inner = inner(from, to);
        let mut bytes = [&[0; HEADROOM][..], &inner, &[0; TAILROOM]].concat();
        let mut packet = PacketBuf::new(&mut bytes, HEADROOM, inner.len()).unwrap();
        let now = Instant::from_millis(self.now);
        let sealed = self.nodes[from].database.tunnel.sealer.seal(now, &mut packet);
        let Ok(Sealed::Transmit(_, transmit)) = sealed else { panic!("{sealed:?}") };
        let path = match transmit.path {
            Path::Udp { local, remote } => {
                Path::Udp { local: self.nodes[from].outside(local), remote }
            }
            // No NAT lets this out.
            Path::Esp { .. } if self.nodes[from].nat.is_some() => return,
            path => path,
        };
        let bytes = with_outer(&path, packet.as_slice());
        self.link.send(self.now, &path, bytes);
        if must_match {
            let outstanding = Outstanding { from, to, sent: self.now };
            self.outstanding.insert(self.link.sent(), outstanding);
        }
    }

    /// Delivers what has arrived.
    fn deliver(&mut self) {
        while let Some(flight) = self.link.arrival(self.now) {
            let mut bytes = flight.bytes.clone();
            let len = bytes.len();
            let mut packet = PacketBuf::new(&mut bytes, 0, len).unwrap();
            let Ok((path, traffic_class)) = outer::strip(&mut packet) else { continue };
            let to = SocketAddr::new(path.local(), port_of(&path));
            let found = (0..self.nodes.len()).find_map(|at| Some((at, self.nodes[at].inside(to)?)));
            let Some((at, local)) = found else { continue };
            let (local, remote) = match path {
                Path::Udp { remote, .. } => (local, remote),
                Path::Esp { .. } if self.nodes[at].nat.is_some() => continue,
                Path::Esp { .. } => {
                    self.receive_esp(at, &flight, &path, traffic_class, packet);
                    continue;
                }
            };
            let inside = Path::Udp { local, remote };
            let natt = local.port() == natt::PORT;
            let message = packet.as_mut_slice();
            let message = match Datagram::classify(message) {
                _ if !natt => message,
                Datagram::Ike(_) => &mut message[natt::NON_ESP_MARKER.len()..],
                Datagram::Esp => {
                    self.receive_esp(at, &flight, &inside, traffic_class, packet);
                    continue;
                }
                _ => continue,
            };
            let path = IkePath { local, remote, natt };
            self.act(at, |ike, now, cx| ike.handle(now, cx, &path, message));
        }
    }

    fn receive_esp(
        &mut self,
        at: usize,
        flight: &Flight,
        path: &Path,
        traffic_class: u8,
        mut packet: PacketBuf<'_>,
    ) {
        let now = Instant::from_millis(self.now);
        let opener = &mut self.nodes[at].database.tunnel.opener;
        let opened = opener.open(now, path, traffic_class, &mut packet);
        match opened {
            Ok(from) => {
                // What was dropped, as its SA was not there yet, may come once more.
                let genuine = self.link.is_genuine(flight);
                assert!(genuine, "packet {} is altered or repeated, and accepted", flight.number);
                self.received += 1;
                self.outstanding.remove(&flight.number);
                self.follow(at, from);
            }
            Err(why) if !flight.altered => self.refused(flight.number, why),
            Err(_) => {}
        }
    }

    /// An unaltered packet was dropped, which only those may be that were accepted before.
    fn refused(&mut self, number: u64, why: Discard) {
        let Some(packet) = self.outstanding.remove(&number) else { return };
        let pair = (packet.from.min(packet.to), packet.from.max(packet.to));
        let since = self.connected.get(&pair);
        assert!(since.is_none_or(|since| packet.sent < *since), "{why:?}: {packet:?} of {number}");
    }

    /// Packets go where the peer's come from, as far as IKE says so.
    fn follow(&mut self, at: usize, from: PeerId) {
        let node = &mut self.nodes[at];
        let status = node.ike.status(from);
        while let Some(simplevpn_core::OpenerEvent::Moved(peer, path)) =
            node.database.tunnel.opener.poll_event()
        {
            if peer == from && status.is_some_and(|status| status.follows(&path)) {
                node.database.tunnel.sealer.set_path(peer, Some(path));
            }
        }
    }

    /// Packets that were lost on the link are of no more interest; on one without faults there are
    /// none.
    fn forget_lost(&mut self) {
        let Net { now, outstanding, connected, .. } = self;
        let lossless = self.link.percent.lost == 0;
        outstanding.retain(|number, packet| {
            let late = packet.sent + SLOWEST < *now;
            let pair = (packet.from.min(packet.to), packet.from.max(packet.to));
            let disconnected = connected.get(&pair).is_none_or(|since| packet.sent < *since);
            assert!(!late || !lossless || disconnected, "{packet:?} of {number} never arrived");
            !late
        });
    }

    /// Two nodes are connected, by one pair of SAs each, and one IKE SA.
    pub fn check_agreed(&mut self, a: usize, b: usize) {
        for (at, other) in [(a, b), (b, a)] {
            let status = self.status(at, other).unwrap_or_else(|| panic!("{at}: no IKE SA"));
            assert_eq!(status.phase, Phase::Up, "{at}");
            assert!(status.child.is_some(), "{at} has no child: {:?}", status.child_reason);
            let [here, there] = [&self.nodes[at].database, &self.nodes[other].database];
            let outbound = here.outbound(PeerId(other as u32));
            let inbound = there.inbound_of(PeerId(at as u32));
            assert_eq!(inbound, Vec::from_iter(outbound), "from {at} to {other}");
        }
    }

    /// The same of a pair that nobody else is connected to; and packets pass.
    pub fn check_settled(&mut self) {
        for node in &self.nodes {
            let events = || node.events.iter().rev().take(6).collect::<Vec<_>>();
            assert_eq!(node.ike.len(), 1, "IKE SAs of {}: {:?}", node.number, events());
        }
        self.check_agreed(0, 1);
        let (before, end) = (self.received, self.now);
        self.pass(self.pause * 4 + SLOWEST);
        assert!(self.received >= before + 4, "no packets after {end}");
    }
}

fn port_of(path: &Path) -> u16 {
    match path {
        Path::Udp { local, .. } => local.port(),
        Path::Esp { .. } => natt::PORT,
    }
}

/// Puts the outer headers in front.
fn with_outer(path: &Path, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [&[0; HEADROOM], payload].concat();
    let mut packet = PacketBuf::new(&mut bytes, HEADROOM, payload.len()).unwrap();
    let len = payload.len();
    let transmit = Transmit { path: *path, traffic_class: 0, len, oversize: false };
    outer::prepend(&mut packet, &transmit, 64, 0).unwrap();
    packet.as_slice().to_vec()
}

/// A packet in the tunnel: IPv4 with four bytes of an experimental protocol (RFC 3692).
fn inner(from: usize, to: usize) -> [u8; 24] {
    let address = |number: usize| Ipv4Addr::new(10, 0, number as u8, 1).octets();
    let mut packet = [0; 24];
    packet[..10].copy_from_slice(&[0x45, 0, 0, 24, 0, 0, 0x40, 0, 64, 253]);
    packet[12..16].copy_from_slice(&address(from));
    packet[16..20].copy_from_slice(&address(to));
    let words = packet[..20].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    packet
}
