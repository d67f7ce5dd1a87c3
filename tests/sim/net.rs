//! Endpoints on one link, and the virtual time they share.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use simplevpn_core::crypto::{AnyAead, Cipher};
use simplevpn_core::esp::{OutboundSequence, ReplayWindow, window_storage};
use simplevpn_core::path::Path;
use simplevpn_core::sad::{InboundSa, OutboundSa};
use simplevpn_core::wire::natt;
use simplevpn_core::{Discard, InboundPeer, Offset, OutboundPeer, PeerId, Selectors};
use smoltcp::wire::IpCidr;

use super::endpoint::{Endpoint, Setup};
use super::link::{Link, Percent};

/// How two endpoints are joined.
#[derive(Debug, Clone, Copy)]
pub struct Tie {
    /// The AEAD, for both directions.
    pub cipher: Cipher,
    /// Extended sequence numbers.
    pub esn: bool,
    /// The first sequence number, in both directions.
    pub first: u64,
    /// The last one.
    pub limit: u64,
    /// Announce the end when fewer are left.
    pub announce_below: u64,
    /// ESP in UDP, not directly over IP.
    pub udp: bool,
    /// By how much the first endpoint sees the second shifted.
    pub offset: Offset,
}

impl Default for Tie {
    fn default() -> Tie {
        Tie {
            cipher: Cipher::ChaCha20Poly1305,
            esn: true,
            first: 1,
            limit: u64::MAX,
            announce_below: 0,
            udp: false,
            offset: Offset::default(),
        }
    }
}

/// All there is.
pub struct Net {
    /// Virtual time in ms.
    pub now: u64,
    /// The link that joins everyone.
    pub link: Link,
    /// Everyone.
    pub endpoints: Vec<Endpoint>,
    /// What became of packets that arrived and were dropped.
    pub refused: BTreeMap<&'static str, u64>,
    /// Packets that arrived and were accepted.
    pub accepted: u64,
    /// How many peers each endpoint has.
    peers: Vec<u32>,
}

impl Net {
    /// Endpoints that do not know each other yet.
    pub fn new(setups: &[Setup], percent: Percent, seed: u64) -> Net {
        Net {
            now: 0,
            link: Link::new(percent, seed),
            endpoints: setups.iter().copied().map(Endpoint::new).collect(),
            refused: BTreeMap::new(),
            accepted: 0,
            peers: vec![0; setups.len()],
        }
    }

    /// Two endpoints, joined as `tie` says.
    pub fn pair(setups: [Setup; 2], tie: &Tie, percent: Percent, seed: u64) -> Net {
        let mut net = Net::new(&setups, percent, seed);
        net.join(0, 1, tie);
        net
    }

    /// Joins two endpoints by a pair of SAs; gives what each calls the other.
    pub fn join(&mut self, a: usize, b: usize, tie: &Tie) -> (PeerId, PeerId) {
        let spis = (0x1000 + (a * 16 + b) as u32, 0x2000 + (a * 16 + b) as u32);
        let at_a = self.add_peer(a, b, tie.offset, tie.udp);
        let at_b = self.add_peer(b, a, Offset::default(), tie.udp);
        self.install((a, at_a), (b, at_b), spis.0, tie);
        self.install((b, at_b), (a, at_a), spis.1, tie);
        (at_a, at_b)
    }

    fn add_peer(&mut self, at: usize, other: usize, offset: Offset, udp: bool) -> PeerId {
        let id = PeerId(self.peers[at]);
        self.peers[at] += 1;
        let Setup { v4, v6, outer: remote, .. } = self.endpoints[other].setup;
        let local = self.endpoints[at].setup.outer;
        let port = natt::PORT;
        let path = if udp {
            Path::Udp { local: SocketAddr::new(local, port), remote: (remote, port).into() }
        } else {
            Path::Esp { local, remote }
        };
        let ours = self.endpoints[at].setup;
        let local = [IpCidr::new(ours.v4.into(), 32), IpCidr::new(ours.v6.into(), 128)];
        let local = || Selectors::new(&local).unwrap();
        let tunnel = self.endpoints[at].tunnel();
        tunnel.sealer.insert_peer(id, OutboundPeer::new(offset, local())).unwrap();
        tunnel.opener.insert_peer(id, InboundPeer::new(offset, local())).unwrap();
        for prefix in [
            IpCidr::new(offset.to_host(v4.into()).into(), 32),
            IpCidr::new(offset.to_host(v6.into()).into(), 128),
        ] {
            tunnel.sealer.insert_policy(&prefix, id).unwrap();
            tunnel.opener.insert_policy(&prefix, id).unwrap();
        }
        tunnel.sealer.set_path(id, Some(path));
        id
    }

    /// Installs an SA for what `from` sends to `to`.
    fn install(&mut self, from: (usize, PeerId), to: (usize, PeerId), spi: u32, tie: &Tie) {
        let key: Vec<u8> = (spi.to_be_bytes().into_iter().cycle()).take(32).collect();
        let key = || AnyAead::new(tie.cipher, &key[..tie.cipher.key_len()]).unwrap();
        let sequence = OutboundSequence::reserved(tie.esn, tie.first, tie.limit);
        let outbound = OutboundSa { spi, key: key(), salt: (*b"salt").into(), sequence };
        let sealer = &mut self.endpoints[from.0].tunnel().sealer;
        sealer.install(from.1, outbound, tie.announce_below);
        let inbound = InboundSa {
            spi,
            key: key(),
            salt: (*b"salt").into(),
            esn: tie.esn,
            window: ReplayWindow::new(vec![0; window_storage(2048)].leak().into()).unwrap(),
            peer: to.1,
        };
        self.endpoints[to.0].tunnel().opener.install(inbound).unwrap();
    }

    /// Lets time pass, up to `limit` ms from now, until `app`, which is asked at every wake-up,
    /// says that it is done.
    ///
    /// # Panics
    /// If it never does.
    pub fn run(&mut self, limit: u64, mut app: impl FnMut(&mut Net) -> bool) {
        let end = self.now + limit;
        loop {
            self.deliver();
            self.poll();
            let done = app(self);
            self.poll();
            if done {
                return;
            }
            assert!(self.now < end, "not done after {limit} ms; refused: {:?}", self.refused);
            self.jump(end);
        }
    }

    /// Lets `ms` pass.
    pub fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        self.run(ms, |net| net.now == end);
    }

    fn poll(&mut self) {
        for endpoint in &mut self.endpoints {
            endpoint.poll(self.now, &mut self.link);
        }
    }

    /// Jumps to the next wake-up, at most to `end`. A millisecond is the shortest time there is.
    fn jump(&mut self, end: u64) {
        let now = self.now;
        let wakeups = self.endpoints.iter_mut().filter_map(|endpoint| endpoint.next_wakeup(now));
        let next = wakeups.chain(self.link.next_arrival()).min();
        self.now = next.unwrap_or(end).clamp(now + 1, end);
    }

    /// Delivers what has arrived, and checks that it is accepted exactly if it is genuine.
    fn deliver(&mut self) {
        while let Some(flight) = self.link.arrival(self.now) {
            let to = self.endpoints.iter_mut().find(|it| it.setup.outer == flight.to);
            let Some(to) = to else { continue };
            let genuine = self.link.is_genuine(&flight);
            let number = flight.number;
            match to.receive(self.now, flight) {
                Ok(_) => {
                    assert!(genuine, "packet {number} is altered or repeated, and was accepted");
                    self.accepted += 1;
                }
                // Authentic, and has nothing for the stack.
                Err(Discard::Dummy) if genuine => *self.refused.entry("dummy").or_default() += 1,
                Err(why) => {
                    assert!(!genuine, "packet {number} is genuine, and was dropped: {why:?}");
                    *self.refused.entry(why.name()).or_default() += 1;
                }
            }
        }
    }

    /// Packets that reached the stacks.
    pub fn reached(&self) -> u64 {
        self.endpoints.iter().map(Endpoint::reached).sum()
    }
}
