//! One node: its IKE endpoint, its tunnel, and what is configured.

use std::net::{IpAddr, SocketAddr};

use simplevpn_core::crypto::sign::{PrivateKey, PublicKey};
use simplevpn_core::ike::auth::{Credential, Expectation};
use simplevpn_core::ike::identity::Identity;
use simplevpn_core::ike::suite::{Pfs, Preferences};
use simplevpn_core::ike::wire::id::Id;
use simplevpn_core::ike::{
    Context, Encap, Ike, IkeEvent, IkeSlot, Lifetimes, Pad, PadEntry, Ppk, Settings, Target,
};
use simplevpn_core::{Instant, PeerId};
use smoltcp::wire::IpCidr;

use super::{Database, Dice};

/// How two nodes authenticate each other.
pub enum Auth {
    /// With a preshared key.
    Psk(Vec<u8>),
    /// With our private key, and the peer's public key.
    Keys(Box<(PrivateKey, PublicKey)>),
}

/// What is configured for a peer.
pub struct Peer {
    /// What we call ourselves.
    pub local_id: Identity,
    /// What the peer calls itself.
    pub remote_id: Identity,
    /// The proof.
    pub auth: Auth,
    /// The name of a PPK, the PPK, and whether it is required.
    pub ppk: Option<(Vec<u8>, Vec<u8>, bool)>,
    /// Our addresses in the tunnel.
    pub local: Vec<IpCidr>,
    /// The peer's.
    pub remote: Vec<IpCidr>,
    /// How ESP travels.
    pub encap: Encap,
    /// Whether new keys of ESP take a key exchange.
    pub pfs: Pfs,
    /// How long keys live.
    pub lifetimes: Lifetimes,
    /// Whether it is connected to whenever there is no connection.
    pub wanted: bool,
    /// When to see again whether there is one, in ms.
    pub retry_at: u64,
}

/// What is configured for all peers, by [`PeerId`].
#[derive(Default)]
pub struct Table(pub Vec<Option<Peer>>);

impl Pad for Table {
    fn entry(&self, peer: PeerId) -> Option<PadEntry<'_>> {
        let peer = self.0.get(peer.0 as usize)?.as_ref()?;
        let (credential, expectation) = match &peer.auth {
            Auth::Psk(psk) => (Credential::PresharedKey(psk), Expectation::PresharedKey(psk)),
            Auth::Keys(keys) => (Credential::PrivateKey(&keys.0), Expectation::PublicKey(&keys.1)),
        };
        let ppk = peer.ppk.as_ref();
        Some(PadEntry {
            local_id: Some(&peer.local_id),
            remote_id: &peer.remote_id,
            credential,
            expectation,
            ppk: ppk.map(|(id, key, required)| Ppk { id, key, required: *required }),
            local: &peer.local,
            remote: &peer.remote,
            encap: peer.encap,
            request_address: false,
            lease: None,
            pfs: peer.pfs,
            lifetimes: peer.lifetimes,
        })
    }

    fn find(&self, remote: &Id<'_>, _: Option<&Id<'_>>, _: IpAddr) -> Option<PeerId> {
        let is = |peer: &Peer| peer.remote_id.matches(remote.id_type.0, remote.data);
        let at = self.0.iter().position(|peer| peer.as_ref().is_some_and(is))?;
        Some(PeerId(at as u32))
    }

    fn pretends_nat(&self, _: IpAddr) -> bool {
        self.0.iter().flatten().any(|peer| peer.encap == Encap::Udp)
    }

    fn has_ppk(&self) -> bool {
        self.0.iter().flatten().any(|peer| peer.ppk.is_some())
    }
}

/// What a node is behind: a NAT that moves all ports by so many.
#[derive(Debug, Clone, Copy)]
pub struct Nat {
    /// Its address.
    pub address: IpAddr,
    /// How far ports are moved.
    pub offset: u16,
}

/// A node.
pub struct Node {
    /// The endpoint.
    pub ike: Ike<'static>,
    /// The tunnel.
    pub database: Database,
    /// What is configured.
    pub pad: Table,
    /// Its secrets.
    pub rng: Dice,
    /// Its address.
    pub address: IpAddr,
    /// Its address in the tunnel is 10.0.N.1.
    pub number: usize,
    /// What it is behind.
    pub nat: Option<Nat>,
    /// All that was told.
    pub events: Vec<IkeEvent>,
    /// How many IKE SAs it has room for.
    pub slots: usize,
    /// What holds for all peers.
    pub settings: Settings,
}

/// The addresses in the tunnel that belong to a node.
pub(super) fn network(number: usize) -> IpCidr {
    format!("10.0.{number}.0/24").parse().unwrap()
}

/// What a node calls itself.
pub fn identity(number: usize) -> Identity {
    format!("n{number}.test").parse().unwrap()
}

fn endpoint(settings: &Settings, slots: usize, rng: &mut Dice) -> Ike<'static> {
    let slots: Vec<IkeSlot> = (0..slots).map(|_| None).collect();
    Ike::new(settings.clone(), slots.into(), vec![0; 4096].into(), rng)
}

impl Node {
    /// A node of `count`, without peers yet.
    pub fn new(seed: u64, number: usize, count: usize, slots: usize) -> Node {
        let mut rng = Dice::new(seed << 8 | number as u64);
        let settings = Settings::new(Preferences::new(false));
        Node {
            ike: endpoint(&settings, slots, &mut rng),
            database: Database::new(&network(number), &vec![None; count]),
            pad: Table((0..count).map(|_| None).collect()),
            rng,
            address: format!("192.0.2.{}", number + 1).parse().unwrap(),
            number,
            nat: None,
            events: Vec::new(),
            slots,
            settings,
        }
    }

    /// As after a restart: it knows nothing but its configuration.
    pub fn restart(&mut self) {
        self.ike = endpoint(&self.settings, self.slots, &mut self.rng);
        let remotes: Vec<_> = self.pad.0.iter().map(|it| Some(it.as_ref()?.remote[0])).collect();
        self.database.restart(&network(self.number), &remotes);
        self.events.clear();
    }

    /// Calls the endpoint with all that it is lent.
    pub fn call<T>(
        &mut self,
        now: u64,
        call: impl FnOnce(&mut Ike<'static>, Instant, &mut Context<'_>) -> T,
    ) -> T {
        let Node { ike, rng, pad, database, .. } = self;
        call(ike, Instant::from_millis(now), &mut Context { rng, pad, sad: database })
    }

    /// How it appears outside of the NAT.
    pub fn outside(&self, inside: SocketAddr) -> SocketAddr {
        match self.nat {
            Some(nat) => SocketAddr::new(nat.address, inside.port() + nat.offset),
            None => inside,
        }
    }

    /// Which of its own addresses a packet to this one reaches.
    pub fn inside(&self, outside: SocketAddr) -> Option<SocketAddr> {
        match self.nat {
            Some(nat) if nat.address == outside.ip() => {
                let port = outside.port().checked_sub(nat.offset)?;
                [500, 4500].contains(&port).then_some(SocketAddr::new(self.address, port))
            }
            None if self.address == outside.ip() => Some(outside),
            _ => None,
        }
    }

    /// Where others reach it.
    pub fn public(&self) -> IpAddr {
        self.nat.map_or(self.address, |nat| nat.address)
    }

    /// Where it finds a node at `remote`.
    pub fn target(&self, remote: IpAddr) -> Target {
        Target { local: self.address, remote, ports: Some((500, 500)), nat_ports: (4500, 4500) }
    }
}
