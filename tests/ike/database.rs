//! The SAs of a real tunnel, as IKE installs them.

use std::collections::{BTreeSet, HashSet};

use simplevpn_core::crypto::AnyAead;
use simplevpn_core::esp::{OutboundSequence, ReplayWindow, window_storage};
use simplevpn_core::ike::{ChildSa, Refused, SaDatabase};
use simplevpn_core::sad::{InboundSa, OutboundSa, Sad};
use simplevpn_core::{
    InboundPeer, Instant, Offset, Opener, OutboundPeer, Path, PeerId, Sealer, Selectors, Spd,
    Tunnel,
};
use smoltcp::wire::IpCidr;

/// How many packets may be overtaken by one.
const WINDOW: u32 = 256;
/// How many inbound SAs there can be.
const SAS: usize = 32;

/// A tunnel and what was installed in it.
pub struct Database {
    /// Both halves.
    pub tunnel: Tunnel<'static, AnyAead>,
    /// Our SPIs of all that is accepted.
    pub inbound: BTreeSet<u32>,
    /// All keys there ever were: for what we receive, and for what we send.
    used: [HashSet<Vec<u8>>; 2],
}

impl Database {
    /// A tunnel to as many peers as there are prefixes; `local` is ours.
    pub fn new(local: &IpCidr, remotes: &[Option<IpCidr>]) -> Database {
        let mut database = Database {
            tunnel: empty_tunnel(remotes.len()),
            inbound: BTreeSet::new(),
            used: Default::default(),
        };
        database.add_peers(local, remotes);
        database
    }

    /// As after a restart: no SAs, and no paths. What was used stays remembered.
    pub fn restart(&mut self, local: &IpCidr, remotes: &[Option<IpCidr>]) {
        self.tunnel = empty_tunnel(remotes.len());
        self.inbound.clear();
        self.add_peers(local, remotes);
    }

    fn add_peers(&mut self, local: &IpCidr, remotes: &[Option<IpCidr>]) {
        let local = || Selectors::new(&[*local]).unwrap();
        for (id, remote) in (0..).map(PeerId).zip(remotes) {
            let Some(remote) = remote else { continue };
            let Tunnel { sealer, opener, .. } = &mut self.tunnel;
            let offset = Offset::default();
            sealer.insert_peer(id, OutboundPeer::new(offset, local())).unwrap();
            opener.insert_peer(id, InboundPeer::new(offset, local())).unwrap();
            sealer.insert_policy(remote, id).unwrap();
            opener.insert_policy(remote, id).unwrap();
        }
    }

    /// The SPI that packets to a peer are sent with.
    pub fn outbound(&self, peer: PeerId) -> Option<u32> {
        Some(self.tunnel.sealer.peer(peer)?.sa()?.spi)
    }

    /// Our SPIs that packets of a peer are accepted with.
    pub fn inbound_of(&self, peer: PeerId) -> Vec<u32> {
        let opener = &self.tunnel.opener;
        let of_peer = |spi: &u32| opener.sa(*spi).is_some_and(|sa| sa.peer == peer);
        self.inbound.iter().copied().filter(of_peer).collect()
    }

    fn key(&mut self, direction: usize, sa: &ChildSa<'_>) -> AnyAead {
        let material = [sa.key.key(), &sa.key.salt()[..]].concat();
        assert!(self.used[direction].insert(material), "a key is used a second time");
        AnyAead::new(sa.key.cipher(), sa.key.key()).unwrap()
    }
}

fn empty_tunnel(peers: usize) -> Tunnel<'static, AnyAead> {
    fn lent<T>(slot: impl FnMut() -> T, count: usize) -> Vec<T> {
        Vec::from_iter(std::iter::repeat_with(slot).take(count))
    }
    let spd = || Spd::new(lent(|| None, 2 * peers + 2).into());
    let sealer = Sealer::new(spd(), lent(|| None, peers).into());
    let sad = Sad::new(lent(|| None, SAS).into(), lent(|| None, SAS).into());
    Tunnel::new(sealer, Opener::new(sad, spd(), lent(|| None, peers).into()))
}

impl SaDatabase for Database {
    fn allocate_spi(&mut self, random: u32) -> Option<u32> {
        self.tunnel.opener.allocate_spi(random)
    }

    fn install_inbound(&mut self, sa: &ChildSa<'_>) -> Result<(), Refused> {
        let inbound = InboundSa {
            spi: sa.spi,
            key: self.key(0, sa),
            salt: sa.key.salt(),
            esn: sa.esn,
            window: ReplayWindow::new(vec![0; window_storage(WINDOW)].into()).unwrap(),
            peer: sa.peer,
        };
        self.tunnel.opener.install(inbound).unwrap();
        self.inbound.insert(sa.spi);
        Ok(())
    }

    fn install_outbound(&mut self, sa: &ChildSa<'_>) -> Result<(), Refused> {
        let outbound = OutboundSa {
            spi: sa.spi,
            key: self.key(1, sa),
            salt: sa.key.salt(),
            sequence: OutboundSequence::new(sa.esn),
        };
        let replaced = self.tunnel.sealer.install(sa.peer, outbound, 0);
        // Afterwards the path is what `set_path` says, or where packets come from.
        if sa.first || replaced.is_none() {
            self.tunnel.sealer.set_path(sa.peer, Some(sa.path));
        }
        Ok(())
    }

    fn remove_inbound(&mut self, spi: u32) {
        self.tunnel.opener.uninstall(spi);
        self.inbound.remove(&spi);
    }

    fn remove_outbound(&mut self, peer: PeerId, spi: u32) {
        if self.outbound(peer) == Some(spi) {
            self.tunnel.sealer.uninstall(peer);
        }
    }

    fn set_path(&mut self, peer: PeerId, path: Path) {
        self.tunnel.sealer.set_path(peer, Some(path));
    }

    fn last_inbound(&self, peer: PeerId) -> Option<Instant> {
        self.tunnel.opener.peer(peer)?.traffic().last
    }

    fn heard_on(&self, peer: PeerId) -> Option<Path> {
        self.tunnel.opener.peer(peer)?.path().copied()
    }

    fn has_received(&self, spi: u32) -> bool {
        self.tunnel.opener.sa(spi).is_some_and(|sa| sa.window.top() > 0)
    }
}
