//! Two IKE endpoints and a wire between them, in virtual time:
//!
//! ```text
//! alice 192.0.2.1 ───[ nat 203.0.113.9 ]─── bob 198.51.100.1
//! ```
//! The NAT is only there when a test asks for it.
#![allow(clippy::unwrap_used, clippy::panic, dead_code, unreachable_pub)] // shared by several tests

use std::boxed::Box; // tests inside the crate, which is no_std, have no prelude
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use std::vec;
use std::vec::Vec;

use rand_core::{Infallible, TryCryptoRng, TryRng};
use simplevpn_core::crypto::sign::{PrivateKey, PublicKey};
use simplevpn_core::ike::auth::{Credential, Expectation};
use simplevpn_core::ike::identity::Identity;
use simplevpn_core::ike::suite::{Pfs, Preferences};
use simplevpn_core::ike::wire::id::Id;
use simplevpn_core::ike::wire::payload::Payload;
use simplevpn_core::ike::wire::{NoRoom, PayloadWriter};
use simplevpn_core::ike::{
    ChildSa, Context, Encap, Ike, IkeEvent, IkePath, IkeSlot, IkeStatus, Lease, Lifetimes,
    MAX_MESSAGE_LEN, Pad, PadEntry, PeerLink, Ppk, Ranges, Reason, Refused, SaDatabase, Settings,
    Target,
};
use simplevpn_core::{Instant, Path, PeerId};
use smoltcp::wire::IpCidr;

/// The one peer of each end.
pub const PEER: PeerId = PeerId(7);

/// A generator whose numbers are the same each time (SplitMix64); with the second number, nonces
/// begin with it.
pub struct Dice(pub u64, pub Option<u8>);

impl TryRng for Dice {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.try_next_u64()? >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        Ok(z ^ z >> 31)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.iter_mut().for_each(|byte| *byte = self.try_next_u64().unwrap() as u8);
        if let (Some(first), [nonce, ..]) = (self.1, bytes) {
            *nonce = first;
        }
        Ok(())
    }
}

impl TryCryptoRng for Dice {}

/// How an end authenticates, and its peer.
pub enum Auth {
    Psk(Vec<u8>),
    Keys(Box<(PrivateKey, PublicKey)>),
}

/// What is configured at an end for its peer.
pub struct Config {
    pub local_id: Option<Identity>,
    pub remote_id: Identity,
    pub auth: Auth,
    pub ppk: Option<(Vec<u8>, Vec<u8>, bool)>,
    pub local: Vec<IpCidr>,
    pub remote: Vec<IpCidr>,
    pub encap: Encap,
    pub request_address: bool,
    pub lease: Option<(Vec<IpAddr>, Vec<IpAddr>)>,
    pub pfs: Pfs,
    pub lifetimes: Lifetimes,
}

impl Pad for Config {
    fn entry(&self, peer: PeerId) -> Option<PadEntry<'_>> {
        let (credential, expectation) = match &self.auth {
            Auth::Psk(psk) => (Credential::PresharedKey(psk), Expectation::PresharedKey(psk)),
            Auth::Keys(keys) => (Credential::PrivateKey(&keys.0), Expectation::PublicKey(&keys.1)),
        };
        let ppk = self.ppk.as_ref();
        (peer == PEER).then_some(PadEntry {
            local_id: self.local_id.as_ref(),
            remote_id: &self.remote_id,
            credential,
            expectation,
            ppk: ppk.map(|(id, key, required)| Ppk { id, key, required: *required }),
            local: &self.local,
            remote: &self.remote,
            encap: self.encap,
            request_address: self.request_address,
            lease: self.lease.as_ref().map(|(addresses, dns)| Lease { addresses, dns }),
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
        self.ppk.is_some()
    }
}

/// One direction of a child SA, as the data plane would have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    pub spi: u32,
    pub key: Vec<u8>,
    pub esn: bool,
    pub local: Vec<[IpAddr; 2]>,
    pub remote: Vec<[IpAddr; 2]>,
}

impl Installed {
    fn new(sa: &ChildSa<'_>) -> Installed {
        let ranges =
            |ranges: &Ranges| ranges.iter().map(|range| [range.first(), range.last()]).collect();
        Installed {
            spi: sa.spi,
            key: [sa.key.key(), &sa.key.salt()[..]].concat(),
            esn: sa.esn,
            local: ranges(sa.local),
            remote: ranges(sa.remote),
        }
    }
}

/// A data plane that only remembers.
#[derive(Default)]
pub struct Sad {
    pub inbound: BTreeMap<u32, Installed>,
    pub outbound: Option<Installed>,
    pub path: Option<Path>,
    pub last_inbound: Option<Instant>,
    pub heard: Option<Path>,
    pub used: Vec<u32>,
    pub full: bool,
    /// How many ranges of each end there is room for.
    pub most_ranges: Option<usize>,
}

impl SaDatabase for Sad {
    fn allocate_spi(&mut self, random: u32) -> Option<u32> {
        (!self.full).then_some(random | 0x100)
    }

    fn narrow(&self, _: PeerId, local: &mut Ranges, remote: &mut Ranges) {
        if let Some(most) = self.most_ranges {
            local.truncate(most);
            remote.truncate(most);
        }
    }

    fn install_inbound(&mut self, sa: &ChildSa<'_>) -> Result<(), Refused> {
        assert_eq!(sa.peer, PEER);
        self.path.get_or_insert(sa.path);
        assert!(self.inbound.insert(sa.spi, Installed::new(sa)).is_none(), "SPI used twice");
        Ok(())
    }

    fn install_outbound(&mut self, sa: &ChildSa<'_>) -> Result<(), Refused> {
        self.path = Some(sa.path);
        self.outbound = Some(Installed::new(sa));
        Ok(())
    }

    fn remove_inbound(&mut self, spi: u32) {
        self.inbound.remove(&spi);
    }

    fn remove_outbound(&mut self, peer: PeerId, spi: u32) {
        assert_eq!(peer, PEER);
        self.outbound.take_if(|sa| sa.spi == spi);
    }

    fn set_path(&mut self, peer: PeerId, path: Path) {
        assert_eq!(peer, PEER);
        self.path = Some(path);
    }

    fn last_inbound(&self, _: PeerId) -> Option<Instant> {
        self.last_inbound
    }

    fn heard_on(&self, _: PeerId) -> Option<Path> {
        self.heard
    }

    fn has_received(&self, spi: u32) -> bool {
        self.used.contains(&spi)
    }
}

/// How many slots an end has.
pub const SLOTS: usize = 24;

/// With an index by peer, or without.
fn endpoint(rng: &mut Dice, indexed: bool) -> Ike<'static> {
    let slots = (0..SLOTS).map(|_| None).collect::<Vec<IkeSlot>>().leak();
    let settings = Settings::new(Preferences::new(false));
    let mut ike = Ike::new(settings, slots.into(), vec![0; 4096].leak().into(), rng);
    ike.index(vec![PeerLink::default(); if indexed { SLOTS } else { 0 }].leak().into());
    ike
}

/// One end.
pub struct End {
    pub ike: Ike<'static>,
    pub rng: Dice,
    pub pad: Config,
    pub sad: Sad,
    pub events: Vec<IkeEvent>,
    pub address: IpAddr,
}

impl End {
    fn new(seed: u64, address: &str, pad: Config) -> End {
        let mut rng = Dice(seed, None);
        let address = address.parse().unwrap();
        // One end has it in every test.
        let ike = endpoint(&mut rng, seed.is_multiple_of(2));
        End { ike, rng, pad, sad: Sad::default(), events: Vec::new(), address }
    }

    /// Calls the endpoint with all that it is lent.
    pub fn call<T>(&mut self, call: impl FnOnce(&mut Ike<'static>, &mut Context<'_>) -> T) -> T {
        let mut cx = Context { rng: &mut self.rng, pad: &self.pad, sad: &mut self.sad };
        call(&mut self.ike, &mut cx)
    }

    pub fn status(&self) -> IkeStatus {
        self.ike.status(PEER).unwrap()
    }

    /// As after a restart: it knows nothing any more.
    pub fn restart(&mut self) {
        self.ike = endpoint(&mut self.rng, true);
        self.sad = Sad::default();
        self.events.clear();
    }
}

/// A datagram on its way.
#[derive(Debug, Clone)]
pub struct Datagram {
    pub from: SocketAddr,
    pub to: SocketAddr,
    /// Between the ports where the non-ESP marker is.
    pub natt: bool,
    pub bytes: Vec<u8>,
}

/// Both ends.
pub struct Pair {
    pub alice: End,
    pub bob: End,
    pub now: Instant,
    pub wire: VecDeque<Datagram>,
    /// The address that Alice's datagrams seem to come from.
    pub nat: Option<IpAddr>,
    /// How far the NAT has moved her ports.
    pub nat_port_offset: u16,
    /// All that was sent, in order.
    pub sent: Vec<Datagram>,
}

fn config(local: &str, remote: &str, auth: Auth, nets: [&str; 2]) -> Config {
    let [local_net, remote_net] = nets.map(|net| vec![net.parse().unwrap()]);
    Config {
        local_id: Some(local.parse().unwrap()),
        remote_id: remote.parse().unwrap(),
        auth,
        ppk: None,
        local: local_net,
        remote: remote_net,
        encap: Encap::Auto,
        request_address: false,
        lease: None,
        pfs: Pfs::Optional,
        lifetimes: Lifetimes::default(),
    }
}

impl Pair {
    fn new(auth: [Auth; 2]) -> Pair {
        let [a, b] = auth;
        let nets = ["10.1.0.0/16", "10.2.0.0/16"];
        let alice = config("alice.test", "bob.test", a, nets);
        let bob = config("bob.test", "alice.test", b, [nets[1], nets[0]]);
        Pair {
            alice: End::new(1, "192.0.2.1", alice),
            bob: End::new(2, "198.51.100.1", bob),
            now: Instant::from_millis(1_000_000),
            wire: VecDeque::new(),
            nat: None,
            nat_port_offset: 0,
            sent: Vec::new(),
        }
    }

    /// Both have the same preshared key.
    pub fn psk() -> Pair {
        Pair::new([(); 2].map(|()| Auth::Psk(b"0123456789abcdef0123456789abcdef".to_vec())))
    }

    /// Each has the other's public key.
    pub fn keys() -> Pair {
        let [a, b] = [[1; 32], [2; 32]].map(|seed| PrivateKey::from_seed(&seed));
        let [pub_a, pub_b] = [a.public_key(), b.public_key()];
        Pair::new([Auth::Keys(Box::new((a, pub_b))), Auth::Keys(Box::new((b, pub_a)))])
    }

    /// Where Alice finds Bob, or Bob finds Alice.
    pub fn target(&self, from_alice: bool) -> Target {
        let (local, remote) = if from_alice {
            (self.alice.address, self.bob.address)
        } else {
            (self.bob.address, self.alice.address)
        };
        Target { local, remote, ports: Some((500, 500)), nat_ports: (4500, 4500) }
    }

    pub fn initiate(&mut self) {
        let (target, now) = (self.target(true), self.now);
        self.alice.call(|ike, cx| ike.initiate(now, cx, PEER, &target));
        self.collect();
    }

    pub fn initiate_from_bob(&mut self) {
        let (target, now) = (self.target(false), self.now);
        self.bob.call(|ike, cx| ike.initiate(now, cx, PEER, &target));
        self.collect();
    }

    fn translate(&self, alice: SocketAddr) -> SocketAddr {
        match self.nat {
            Some(nat) => SocketAddr::new(nat, alice.port() + self.nat_port_offset),
            None => alice,
        }
    }

    /// Takes what both have to say.
    pub fn collect(&mut self) {
        for from_alice in [true, false] {
            let end = if from_alice { &mut self.alice } else { &mut self.bob };
            let mut buffer = [0; MAX_MESSAGE_LEN];
            let mut taken = Vec::new();
            while let Some(transmit) = end.ike.poll_transmit(&mut buffer) {
                let IkePath { local, remote, natt } = transmit.path;
                let bytes = buffer[..transmit.len].to_vec();
                taken.push(Datagram { from: local, to: remote, natt, bytes });
            }
            while let Some(event) = end.ike.poll_event() {
                end.events.push(event);
            }
            for mut datagram in taken {
                if from_alice {
                    datagram.from = self.translate(datagram.from);
                }
                self.sent.push(datagram.clone());
                self.wire.push_back(datagram);
            }
        }
    }

    /// Brings one datagram to whom it is for.
    pub fn deliver(&mut self, mut datagram: Datagram) {
        let now = self.now;
        let to_bob = datagram.to.ip() == self.bob.address;
        if !to_bob && self.nat == Some(datagram.to.ip()) {
            let port = datagram.to.port() - self.nat_port_offset;
            datagram.to = SocketAddr::new(self.alice.address, port);
        }
        let end = if to_bob { &mut self.bob } else { &mut self.alice };
        if datagram.to.ip() == end.address {
            let path = IkePath { local: datagram.to, remote: datagram.from, natt: datagram.natt };
            end.call(|ike, cx| ike.handle(now, cx, &path, &mut datagram.bytes));
        }
        self.collect();
    }

    /// Delivers all that is on the wire, and what is said to it, until nobody has more to say.
    pub fn settle(&mut self) {
        self.settle_with(|_, _| true);
    }

    /// The same, as far as `pass` lets datagrams through (it may change them); it also gets how
    /// many came before.
    pub fn settle_with(&mut self, mut pass: impl FnMut(usize, &mut Datagram) -> bool) {
        self.collect();
        let mut count = 0;
        while let Some(mut datagram) = self.wire.pop_front() {
            if pass(count, &mut datagram) {
                self.deliver(datagram);
            }
            count += 1;
            assert!(count < 1000, "they talk without end");
        }
    }

    /// Lets time pass; whatever is said meanwhile arrives at once, as far as `pass` lets it.
    pub fn advance_with(
        &mut self,
        by: Duration,
        mut pass: impl FnMut(usize, &mut Datagram) -> bool,
    ) {
        let end = self.now.saturating_add(by);
        loop {
            self.settle_with(&mut pass);
            let due = [&self.alice, &self.bob].map(|end| end.ike.poll_timeout());
            let due = due.into_iter().flatten().min().filter(|due| *due <= end);
            let Some(due) = due else { break };
            self.now = self.now.max(due);
            let now = self.now;
            for end in [&mut self.alice, &mut self.bob] {
                end.call(|ike, cx| ike.handle_timeout(now, cx));
            }
        }
        self.now = end;
    }

    pub fn advance(&mut self, by: Duration) {
        self.advance_with(by, |_, _| true);
    }

    /// Connects, and checks that both are.
    pub fn connect(&mut self) {
        self.initiate();
        self.settle();
        self.assert_up();
    }

    /// Both have the same child, and no other.
    pub fn assert_up(&self) {
        let (alice, bob) = (&self.alice, &self.bob);
        for (from, to) in [(alice, bob), (bob, alice)] {
            let out = from.sad.outbound.as_ref().unwrap();
            let inbound = to.sad.inbound.get(&out.spi).unwrap();
            assert_eq!((&out.key, out.esn), (&inbound.key, inbound.esn));
            assert_eq!((&out.local, &out.remote), (&inbound.remote, &inbound.local));
            assert_eq!(to.sad.inbound.len(), 1);
        }
        assert!(alice.events.contains(&IkeEvent::Up(PEER)), "{:?}", alice.events);
        assert!(bob.events.contains(&IkeEvent::Up(PEER)), "{:?}", bob.events);
    }

    /// Neither can send.
    pub fn assert_nothing_installed(&self) {
        for end in [&self.alice, &self.bob] {
            assert!(end.sad.outbound.is_none() && end.sad.inbound.is_empty());
        }
    }

    pub fn failed(&self) -> Option<Reason> {
        self.alice.events.iter().find_map(|event| match event {
            IkeEvent::Failed(PEER, reason) => Some(*reason),
            _ => None,
        })
    }

    pub fn refused(&self) -> Option<(Option<PeerId>, Reason)> {
        self.bob.events.iter().find_map(|event| match event {
            IkeEvent::Refused(peer, _, reason) => Some((*peer, *reason)),
            IkeEvent::Unacceptable(peer, ..) => Some((*peer, Reason::NoCommonProposal)),
            _ => None,
        })
    }
}

/// Writes a payload that was read.
pub fn write_payload(writer: &mut PayloadWriter<'_>, payload: &Payload<'_>) -> Result<(), NoRoom> {
    match payload {
        Payload::Sa(sa) => writer.sa(sa.proposals()),
        Payload::IdInitiator(id) => writer.id_initiator(id),
        Payload::IdResponder(id) => writer.id_responder(id),
        Payload::Auth(auth) => writer.auth(auth),
        Payload::Notify(notify) => writer.notify(notify),
        Payload::TsInitiator(selectors) => writer.ts_initiator(*selectors),
        Payload::TsResponder(selectors) => writer.ts_responder(*selectors),
        other => panic!("{other:?}"),
    }
}
