//! Two IKE endpoints and the wire between them, in virtual time.
//!
//! The wire keeps what is sent, in order, until a test delivers it, drops it or has it delivered
//! late. Each end's SAD is a table of what is installed; after every step it is checked that
//! nobody sends with an SA that the other end has not installed.
#![allow(unreachable_pub, dead_code, clippy::unwrap_used)] // each test file uses its part

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use simplevpn_core::crypto::dh::Group;
use simplevpn_core::crypto::sign::{PrivateKey, PublicKey};
use simplevpn_core::ike::auth::{Credential, Expectation};
use simplevpn_core::ike::identity::Identity;
use simplevpn_core::ike::suite::{Pfs, Preferences};
use simplevpn_core::ike::wire::id::Id;
use simplevpn_core::ike::{
    ChildSa, Context, Encap, Ike, IkeEvent, IkePath, Lifetimes, MAX_MESSAGE_LEN, Pad, PadEntry,
    Refused, SaDatabase, Settings, Target,
};
use simplevpn_core::{Instant, Path, PeerId};
use smoltcp::wire::IpCidr;

/// The only peer of each end.
pub const PEER: PeerId = PeerId(0);
/// How long a message is on its way, in ms.
pub const LATENCY: u64 = 10;

/// Random numbers that are the same in each run; nonces can be chosen.
pub struct Chosen {
    state: u64,
    /// The first octets of what is drawn in 32 bytes or more from now on: a nonce, or a key.
    pub nonce: Option<u8>,
}

impl Chosen {
    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl rand_core::TryRng for Chosen {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(self.draw() as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(self.draw())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        for chunk in bytes.chunks_mut(8) {
            let drawn = self.draw().to_be_bytes();
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
        if let (Some(first), true) = (self.nonce, bytes.len() >= 32) {
            bytes[0] = first;
        }
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Chosen {}

/// What is installed at one end.
#[derive(Default)]
pub struct Table {
    /// SPIs and keys of what is accepted.
    pub inbound: BTreeMap<u32, Vec<u8>>,
    /// SPI and key of what is sent with.
    pub outbound: Option<(u32, Vec<u8>)>,
    /// Where to.
    pub path: Option<Path>,
    /// SPIs that the peer is known to use.
    pub used: BTreeSet<u32>,
    /// All SPIs that were ever sent with.
    pub sent_with: Vec<u32>,
    next: u32,
}

impl SaDatabase for Table {
    fn allocate_spi(&mut self, random: u32) -> Option<u32> {
        self.next += 1;
        Some((random & 0xffff_ff00 | 0x8000_0000) + self.next)
    }

    fn install_inbound(&mut self, sa: &ChildSa<'_>) -> Result<(), Refused> {
        assert!(self.inbound.insert(sa.spi, sa.key.key().to_vec()).is_none(), "an SPI used twice");
        Ok(())
    }

    fn install_outbound(&mut self, sa: &ChildSa<'_>) -> Result<(), Refused> {
        assert!(!self.sent_with.contains(&sa.spi), "an SA sent with again");
        self.sent_with.push(sa.spi);
        self.outbound = Some((sa.spi, sa.key.key().to_vec()));
        self.path = Some(sa.path);
        Ok(())
    }

    fn remove_inbound(&mut self, spi: u32) {
        self.inbound.remove(&spi);
    }

    fn remove_outbound(&mut self, _: PeerId, spi: u32) {
        self.outbound.take_if(|(in_use, _)| *in_use == spi);
    }

    fn set_path(&mut self, _: PeerId, path: Path) {
        self.path = Some(path);
    }

    fn last_inbound(&self, _: PeerId) -> Option<Instant> {
        None
    }

    fn has_received(&self, spi: u32) -> bool {
        self.used.contains(&spi)
    }
}

/// What is configured at one end.
pub struct Config {
    pub key: PrivateKey,
    pub peer_key: PublicKey,
    pub local_id: Identity,
    pub remote_id: Identity,
    pub local: Vec<IpCidr>,
    pub remote: Vec<IpCidr>,
    pub encap: Encap,
    pub pfs: Pfs,
    pub lifetimes: Lifetimes,
}

impl Pad for Config {
    fn entry(&self, peer: PeerId) -> Option<PadEntry<'_>> {
        (peer == PEER).then_some(PadEntry {
            local_id: Some(&self.local_id),
            remote_id: &self.remote_id,
            credential: Credential::PrivateKey(&self.key),
            expectation: Expectation::PublicKey(&self.peer_key),
            ppk: None,
            local: &self.local,
            remote: &self.remote,
            encap: self.encap,
            request_address: false,
            lease: None,
            pfs: self.pfs,
            lifetimes: self.lifetimes,
        })
    }

    fn find(&self, remote: &Id<'_>, _: Option<&Id<'_>>, _: IpAddr) -> Option<PeerId> {
        self.remote_id.matches(remote.id_type.0, remote.data).then_some(PEER)
    }

    fn pretends_nat(&self, _: IpAddr) -> bool {
        self.encap == Encap::Udp
    }

    fn has_ppk(&self) -> bool {
        false
    }
}

/// One end.
pub struct End {
    pub ike: Ike<'static>,
    pub sad: Table,
    pub config: Config,
    pub rng: Chosen,
    pub address: IpAddr,
    pub events: Vec<IkeEvent>,
}

/// A message on the wire.
#[derive(Clone)]
pub struct Flight {
    pub from: usize,
    pub path: IkePath,
    pub bytes: Vec<u8>,
    pub arrival: u64,
}

/// Both ends and the wire.
pub struct Net {
    pub now: u64,
    pub ends: [End; 2],
    pub wire: VecDeque<Flight>,
    /// Whether it is checked after each step that both accept what the other sends.
    pub strict: bool,
}

pub const A: usize = 0;
pub const B: usize = 1;

impl Net {
    /// Two ends that know each other's public keys.
    pub fn new(seed: u64) -> Net {
        let keys = [1, 2].map(|n| PrivateKey::from_seed(&[n; 32]));
        let publics = [keys[0].public_key(), keys[1].public_key()];
        let mut ends = keys.into_iter().enumerate().map(|(at, key)| {
            let net = |n: usize| format!("10.{n}.0.0/16").parse().unwrap();
            let config = Config {
                key,
                peer_key: publics[1 - at],
                local_id: Identity::of_key(&publics[at]),
                remote_id: Identity::of_key(&publics[1 - at]),
                local: vec![net(at)],
                remote: vec![net(1 - at)],
                encap: Encap::Auto,
                pfs: Pfs::Optional,
                lifetimes: Lifetimes::default(),
            };
            End::new(config, format!("192.0.2.{}", at + 1).parse().unwrap(), seed * 2 + at as u64)
        });
        let ends = [ends.next().unwrap(), ends.next().unwrap()];
        Net { now: 0, ends, wire: VecDeque::new(), strict: true }
    }

    /// Two ends with a child.
    pub fn established(seed: u64) -> Net {
        let mut net = Net::new(seed);
        net.strict = false;
        net.initiate(A);
        net.settle();
        net.strict = true;
        net.check_agreed();
        net
    }

    /// Has one end do something.
    pub fn act<R>(
        &mut self,
        at: usize,
        act: impl FnOnce(&mut Ike<'static>, Instant, &mut Context<'_>) -> R,
    ) -> R {
        let now = Instant::from_millis(self.now);
        let End { ike, sad, config, rng, .. } = &mut self.ends[at];
        let result = act(ike, now, &mut Context { rng, pad: config, sad });
        self.collect(at);
        result
    }

    pub fn initiate(&mut self, at: usize) {
        let [local, remote] = [self.ends[at].address, self.ends[1 - at].address];
        let target = Target { local, remote, ports: Some((500, 500)), nat_ports: (4500, 4500) };
        self.act(at, |ike, now, cx| ike.initiate(now, cx, PEER, &target));
    }

    pub fn rekey_child(&mut self, at: usize) {
        self.act(at, |ike, now, cx| ike.rekey_child(now, cx, PEER));
    }

    pub fn rekey_ike(&mut self, at: usize) {
        self.act(at, |ike, now, cx| ike.rekey(now, cx, PEER));
    }

    fn collect(&mut self, at: usize) {
        let End { ike, events, .. } = &mut self.ends[at];
        let mut out = [0; MAX_MESSAGE_LEN];
        while let Some(transmit) = ike.poll_transmit(&mut out) {
            let bytes = out[..transmit.len].to_vec();
            let arrival = self.now + LATENCY;
            self.wire.push_back(Flight { from: at, path: transmit.path, bytes, arrival });
        }
        while let Some(event) = ike.poll_event() {
            events.push(event);
        }
        self.check();
    }

    /// Whoever sends with an SA does so with one that the other end accepts, under the same key.
    fn check(&self) {
        for at in [A, B] {
            let Some((spi, key)) = &self.ends[at].sad.outbound else { continue };
            let accepted = self.ends[1 - at].sad.inbound.get(spi);
            if self.strict {
                assert_eq!(accepted, Some(key), "{} sends with {spi:#x}", ["A", "B"][at]);
            }
        }
    }

    /// Takes the `n`th message off the wire.
    pub fn take(&mut self, n: usize) -> Flight {
        self.wire.remove(n).unwrap()
    }

    /// Takes the oldest message of an end off the wire.
    pub fn take_from(&mut self, from: usize) -> Flight {
        let at = self.wire.iter().position(|flight| flight.from == from);
        self.take(at.unwrap_or_else(|| panic!("{} has sent nothing", ["A", "B"][from])))
    }

    /// Has a message arrive now.
    pub fn deliver(&mut self, flight: Flight) {
        let IkePath { local, remote, natt } = flight.path;
        let path = IkePath { local: remote, remote: local, natt };
        let mut bytes = flight.bytes;
        self.act(1 - flight.from, |ike, now, cx| ike.handle(now, cx, &path, &mut bytes));
    }

    /// Delivers the newest message of an end, if there is one.
    pub fn deliver_newest_from(&mut self, from: usize) {
        if let Some(at) = self.wire.iter().rposition(|flight| flight.from == from) {
            let flight = self.take(at);
            self.deliver(flight);
        }
    }

    /// An end takes, and offers, only this group from now on.
    pub fn only_group(&mut self, at: usize, group: Group) {
        let groups = &mut self.ends[at].ike.settings_mut().preferences.groups;
        groups.clear();
        groups.push(group).unwrap();
    }

    /// Each end has so many IKE SAs with a peer.
    pub fn check_only_ike_sas(&self, count: usize) {
        for end in &self.ends {
            assert_eq!(end.ike.len(), count);
        }
    }

    /// Delivers the next message of an end.
    pub fn deliver_from(&mut self, from: usize) {
        let flight = self.take_from(from);
        self.deliver(flight);
    }

    /// Delivers all there is, until nobody has anything to say.
    pub fn settle(&mut self) {
        while let Some(flight) = self.wire.pop_front() {
            self.now = self.now.max(flight.arrival);
            self.deliver(flight);
        }
    }

    /// Lets time pass; everything is delivered, unless `lost` says otherwise.
    pub fn pass_losing(&mut self, time: Duration, mut lost: impl FnMut(&Flight) -> bool) {
        let end = self.now + time.as_millis() as u64;
        loop {
            let timers = self.ends.iter().filter_map(|end| end.ike.poll_timeout());
            let timers = timers.map(Instant::as_millis);
            let next = timers.chain(self.wire.iter().map(|flight| flight.arrival)).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            while let Some(at) = self.wire.iter().position(|flight| flight.arrival <= self.now) {
                let flight = self.take(at);
                if !lost(&flight) {
                    self.deliver(flight);
                }
            }
            for at in [A, B] {
                self.act(at, |ike, now, cx| ike.handle_timeout(now, cx));
            }
        }
        self.now = end;
    }

    pub fn pass(&mut self, time: Duration) {
        self.pass_losing(time, |_| false);
    }

    /// After some seconds, each end has one pair, the other half of the other's.
    pub fn check_agreed(&self) {
        for at in [A, B] {
            let inbound: Vec<_> = self.ends[at].sad.inbound.iter().collect();
            let outbound = self.ends[1 - at].sad.outbound.as_ref();
            let (spi, key) = outbound.expect("a child");
            assert_eq!(inbound, [(spi, key)], "{}", ["A", "B"][at]);
            let status = self.ends[at].ike.status(PEER).expect("an IKE SA");
            assert!(status.child.is_some(), "{}", ["A", "B"][at]);
        }
    }

    /// The SPIs that each end receives with.
    pub fn spis(&self) -> [u32; 2] {
        let spi = |at: usize| self.ends[1 - at].sad.outbound.as_ref().unwrap().0;
        [spi(A), spi(B)]
    }
}

impl End {
    fn new(config: Config, address: IpAddr, seed: u64) -> End {
        let mut rng = Chosen { state: seed, nonce: None };
        let slots = Vec::from_iter((0..8).map(|_| None)).leak();
        let mut settings = Settings::new(Preferences::new(true));
        settings.liveness = Duration::from_secs(30);
        let ike = Ike::new(settings, slots.into(), vec![0; 4096].leak().into(), &mut rng);
        End { ike, sad: Table::default(), config, rng, address, events: Vec::new() }
    }
}

/// An address with a port.
pub fn socket(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}
