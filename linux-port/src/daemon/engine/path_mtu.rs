//! What the paths to the peers carry, and what follows for the TUN device.
//!
//! A path starts with the MTU of the link by which it leaves this machine, and is lowered by what
//! ICMP and the machine's own links tell about packets that were too big. What the kernel has
//! learned about a destination is not asked for: it remembers what anybody made it believe.

use core::net::IpAddr;
use core::time::Duration;
use std::io;

use simplevpn_core::{Instant, Path, PeerId, pmtu};

use super::{Engine, Trouble, text};
use crate::config::model::Interface;
use crate::daemon::outer::Which;
use crate::error_queue::{PathError, PathProblem};
use crate::netlink::{self, Netlink};
use crate::steering;

/// The most that a path is taken to carry, and what one carries of which nothing is known, in
/// bytes: beyond the first link, few carry more.
const FIRST_PATH_MTU: usize = 1500;
/// A path MTU that was learned is forgotten after this time (RFC 1191 §6.3).
const PATH_MTU_AGE: Duration = Duration::from_secs(600);
/// Bytes of the outer headers towards a peer of which nothing is known: IPv6 and UDP.
const LARGEST_OUTER: usize = 48;

/// The MTUs of the devices towards the peers. Each device is asked once in a pass over the peers.
pub(super) struct LinkMtus {
    mark: u32,
    tunlink: Option<String>,
    /// Index of the device that `tunlink` names, once it was looked for.
    through: Option<Option<u32>>,
    known: Vec<(u32, Option<u32>)>,
}

impl LinkMtus {
    pub(super) fn new(interface: &Interface) -> LinkMtus {
        LinkMtus {
            mark: steering::mark(interface.fwmark).0,
            tunlink: interface.tunlink.clone(),
            through: None,
            known: Vec::new(),
        }
    }

    /// Ends a pass.
    pub(super) fn forget(&mut self) {
        self.through = None;
        self.known.clear();
    }

    /// The MTU in bytes of the device by which our packets for `remote` leave, if they do.
    fn towards(
        &mut self,
        remote: IpAddr,
        netlink: &mut Netlink,
    ) -> Result<Option<u32>, netlink::Error> {
        let through = match (self.through, &self.tunlink) {
            (Some(through), _) => through,
            (None, Some(name)) => netlink.link(name)?.map(|link| link.index),
            (None, None) => None,
        };
        self.through = Some(through);
        let Some(way) = netlink.route_to(remote, self.mark, through)? else { return Ok(None) };
        if let Some((_, mtu)) = self.known.iter().find(|(device, _)| *device == way.device) {
            return Ok(*mtu);
        }
        let mtu = netlink.mtu(way.device)?;
        self.known.push((way.device, mtu));
        Ok(mtu)
    }
}

impl Engine {
    /// Takes the path to a peer to carry what its first link does.
    pub(in crate::daemon) fn begin_path_mtu(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.list.get_mut(id.index()) {
            peer.mtu_learned = None;
        }
        let first = self.first_path_mtu(id);
        self.peers.tunnel.sealer.set_path_mtu(id, first);
        self.changed.mtu = true;
    }

    fn first_path_mtu(&mut self, id: PeerId) -> usize {
        let peer = self.peers.tunnel.sealer.peer(id);
        let Some(path) = peer.and_then(|peer| peer.path()).copied() else { return FIRST_PATH_MTU };
        match self.link_mtus.towards(path.remote(), &mut self.netlink) {
            Ok(Some(mtu)) => pmtu::learn(&path, FIRST_PATH_MTU, mtu as usize),
            Ok(None) => FIRST_PATH_MTU,
            Err(error) => {
                log::debug!("{}: {error}", self.interface.name);
                FIRST_PATH_MTU
            }
        }
    }

    /// After links or routes have changed: paths of which nothing was learned carry what their
    /// first link carries now, and no path carries more.
    pub(super) fn follow_links(&mut self) {
        for at in 0..self.peers.list.len() {
            let id = PeerId(at as u32);
            let learned = self.peers.list[at].mtu_learned.is_some();
            let Some(before) = self.peers.tunnel.sealer.peer(id).map(|p| p.path_mtu()) else {
                continue;
            };
            let first = self.first_path_mtu(id);
            if first < before || (first > before && !learned) {
                self.peers.tunnel.sealer.set_path_mtu(id, first);
                self.changed.mtu = true;
            }
        }
    }

    /// Learns from ICMP, and from this machine's own links, what paths carry.
    pub(in crate::daemon) fn handle_path_errors(&mut self, which: Which, now: Instant) {
        let Some(socket) = self.data.outer.get(which) else { return };
        let mut errors = Vec::new();
        socket.errors(|error| errors.push(error));
        for error in errors {
            match error.what {
                PathProblem::Mtu(mtu) => self.learn_mtu(&error, mtu as usize, now),
                PathProblem::Unreachable(errno) => {
                    let (name, why) = (&self.interface.name, io::Error::from_raw_os_error(errno));
                    log::debug!("{name}: {} is not reached: {why}", error.to);
                }
            }
        }
    }

    fn learn_mtu(&mut self, error: &PathError, claimed: usize, now: Instant) {
        for (at, peer) in self.peers.list.iter_mut().enumerate() {
            let id = PeerId(at as u32);
            let Some(outbound) = self.peers.tunnel.sealer.peer(id) else { continue };
            let Some(path) = outbound.path().copied() else { continue };
            // An error from the network has to quote a packet of ours; one from this machine
            // quotes nothing.
            let quoted = error.spi.is_none_or(|spi| outbound.sa().is_some_and(|sa| sa.spi == spi));
            if path.remote() != error.to.ip() || !quoted {
                continue;
            }
            let learned = pmtu::learn(&path, outbound.path_mtu(), claimed);
            if learned < outbound.path_mtu() {
                log::info!(
                    "{}: {}: the path carries {learned} bytes",
                    self.interface.name,
                    peer.config.name
                );
                self.peers.tunnel.sealer.set_path_mtu(id, learned);
                peer.mtu_learned = Some(now);
                self.changed.mtu = true;
            }
        }
    }

    /// Forgets what was learned long ago: the path may have become wider.
    pub(super) fn forget_old_mtus(&mut self, now: Instant) {
        for at in 0..self.peers.list.len() {
            let learned = self.peers.list[at].mtu_learned;
            if learned.is_some_and(|then| now.saturating_since(then) >= PATH_MTU_AGE) {
                self.begin_path_mtu(PeerId(at as u32));
            }
        }
    }

    /// Gives the TUN device the MTU that every peer's path carries, if it is not configured.
    /// TCP is clamped to what they carry in any case.
    pub(super) fn apply_mtu(&mut self) -> Result<(), Trouble> {
        let carried = self.peers.tunnel.sealer.peers().map(|(_, peer)| {
            let outer = peer.path().map_or(LARGEST_OUTER, Path::outer_len);
            pmtu::device_mtu(peer.path_mtu(), outer)
        });
        let carried = carried.min().unwrap_or(pmtu::MIN_INNER_V6);
        let carried = u16::try_from(carried).unwrap_or(u16::MAX);
        self.mtu = self.interface.mtu.unwrap_or(carried);
        self.netlink
            .set_mtu(self.device, self.mtu.into())
            .map_err(|error| Trouble::Failure(text(error)))?;
        Ok(self.steering.set_mtu(self.mtu.min(carried))?)
    }
}
