//! Going over to another configuration while packets flow.
//!
//! A peer is recognised by its identity, whatever its section is called and wherever it stands.
//! One whose SAs serve as they are keeps them, with counters, replay windows and the path that was
//! found; with every other one it begins anew at once.

use simplevpn_core::{Instant, PeerId};

use super::aim::name_of;
use super::{Changed, Endpoints, Engine, open_state, text};
use crate::config::model::{Interface, Peer};
use crate::daemon::ike;
use crate::daemon::peers::{self, Peers, Place};
use crate::sorted;

impl Engine {
    /// Goes over to another configuration of the same interface. Peers whose keys are the same
    /// keep their SAs.
    ///
    /// # Errors
    /// A sentence that says what is wrong; what could be applied is applied.
    pub(in crate::daemon) fn reload(
        &mut self,
        interface: Interface,
        now: Instant,
    ) -> Result<(), String> {
        let mut list = self.peers.list.iter();
        if interface == self.interface
            && list.all(|peer| peer.keys().is_none() || peer.pair.is_some())
        {
            return Ok(());
        }
        let changed = changed_fixed(&self.interface, &interface);
        if !changed.is_empty() {
            return Err(format!(
                "{} changes only with a restart; the configuration before stays in use",
                changed.join(", ")
            ));
        }
        if ike::is_used(&interface) && self.ike.is_none() {
            return Err("keying 'ike' needs a restart, for its port; the configuration before \
                        stays in use"
                .into());
        }
        open_state(&interface, &mut self.state)?;
        let places = peers::places(&self.interface, &interface);
        // First closed: what is protected from now on leaves in clear text no more.
        let endpoints = self.endpoints_in(&interface, &places);
        self.steer_towards(&interface, endpoints).map_err(text)?;
        self.close_changed(&places, now);
        let previous = core::mem::replace(&mut self.peers, Peers::none());
        self.earlier = self.earlier.merged(&previous.tunnel.discards());
        let (peers, claimed) = Peers::build(&interface.peers, previous, &places, &mut self.state);
        self.peers = peers;
        let before = core::mem::replace(&mut self.interface, interface);
        let addresses = self.adopt_connections(&places);
        self.forget_names(&before);
        let edited = self.aim_changed(&before, &places, now);
        self.changed = Changed { endpoints: true, mtu: true, addresses, ..Changed::default() };
        self.settle();
        self.announce();
        let (name, peers) = (&self.interface.name, self.peers.list.len());
        let refused = self.interface.refused.len();
        log::info!("{name}: reloaded; peers {peers}, {edited} new or changed, {refused} refused");
        self.call_peers(now);
        claimed.map_err(text)
    }

    /// Stops resolving the names that no peer has any more.
    fn forget_names(&mut self, before: &Interface) {
        let names = sorted::set(self.interface.peers.iter().filter_map(name_of));
        for name in before.peers.iter().filter_map(name_of) {
            if names.binary_search(&name).is_err() {
                self.resolver.forget(name);
                self.unresolved.remove(name);
            }
        }
    }

    /// Looks for the peers that are new, have to be negotiated with anew, or are to be reached
    /// elsewhere or otherwise than before, and returns how many they are. The others keep the path
    /// that was found.
    fn aim_changed(&mut self, before: &Interface, places: &[Option<Place>], now: Instant) -> usize {
        let mut changed = 0;
        for (at, place) in places.iter().enumerate() {
            let peer = &self.peers.list[at].config;
            let old = place.filter(|place| place.same_sas).and_then(|p| before.peers.get(p.at));
            let as_before = |old: &Peer| old.endpoint == peer.endpoint && old.encap == peer.encap;
            if old.is_some_and(as_before) {
                continue;
            }
            changed += 1;
            let stays = old.is_some() && peer.endpoint.is_none();
            let peer = &mut self.peers.list[at];
            let manual = peer.keys().is_some();
            if stays {
                peer.aimed = None;
            }
            match peer.heard.filter(|_| stays && manual) {
                // It is answered where it was heard.
                Some(path) => {
                    let id = PeerId(at as u32);
                    self.peers.tunnel.set_path(id, Some(path));
                    self.moved(id, path, now);
                }
                None => self.aim(at, now),
            }
        }
        changed
    }

    /// The same by the names that the peers will have in `interface`.
    fn endpoints_in(&self, interface: &Interface, places: &[Option<Place>]) -> Endpoints {
        let peers = interface.peers.iter().zip(places);
        let known = |(peer, place): (&Peer, &Option<Place>)| {
            Some((peer.name.clone(), self.remote(place.as_ref()?.at)?))
        };
        peers.filter_map(known).collect()
    }
}

/// The options that differ and change only with a restart.
fn changed_fixed(before: &Interface, after: &Interface) -> Vec<&'static str> {
    let options = [
        ("port", before.port != after.port),
        ("nat_port", before.nat_port != after.nat_port),
        ("fwmark", before.fwmark != after.fwmark),
        ("tunlink", before.tunlink != after.tunlink),
        ("state_dir", before.state_dir != after.state_dir),
    ];
    options.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
}
