//! Where the peers are looked for: where the configuration says, or a name leads.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use simplevpn_core::{Instant, Path, PeerId};

use super::{Engine, esp_path, udp_path};
use crate::config::model::{Encap, Host, Keying, Peer};

/// A peer that was heard elsewhere than where it was looked for, and then no more for this time,
/// is looked for where the configuration says again.
const LOST: Duration = Duration::from_secs(120);

impl Engine {
    /// Sends every peer's packets where the configuration says.
    pub(super) fn aim_all(&mut self, now: Instant) {
        for at in 0..self.peers.list.len() {
            self.aim(at, now);
        }
    }

    /// Sends a peer's packets where the configuration says, once that is known.
    pub(super) fn aim(&mut self, at: usize, now: Instant) {
        match self.peers.list[at].config.endpoint.as_ref().map(|endpoint| endpoint.host.clone()) {
            None => {}
            Some(Host::Address(address)) => self.aim_at(at, address),
            Some(Host::Name(name)) => {
                self.resolver.watch(&name, now);
                self.aim_at_resolved(at);
            }
        }
    }

    /// Sends a peer's packets to where its name leads, unless they go to one of its addresses.
    pub(super) fn aim_at_resolved(&mut self, at: usize) {
        let Some(name) = name_of(&self.peers.list[at].config) else { return };
        let addresses = self.resolver.last(name);
        let id = PeerId(at as u32);
        let path = self.peers.tunnel.sealer.peer(id).and_then(|peer| peer.path());
        let aimed = self.peers.list[at].aimed.filter(|_| self.ike.is_some());
        let towards = path.map(Path::remote).or(aimed);
        if towards.is_some_and(|remote| addresses.contains(&remote)) {
            return;
        }
        // It has moved and its name has not: what it proved counts more.
        let peer = &self.peers.list[at];
        if peer.has_moved() && peer.aimed.is_some_and(|aimed| addresses.contains(&aimed)) {
            return;
        }
        let (name, addresses) = (name.to_owned(), addresses.to_vec());
        let reachable = addresses.iter().copied().find(|address| self.has_way(*address));
        if let Some(address) = reachable.or(addresses.first().copied()) {
            let peer = &self.peers.list[at].config.name;
            log::info!("{}: {peer}: {name} is {address}", self.interface.name);
            self.aim_at(at, address);
        }
    }

    /// After links or routes have changed: packets of manual keys that go to an address of a name to
    /// which nothing leads go to another one, if there is a way to that. IKE looks for a way itself
    /// when it calls.
    pub(super) fn aim_where_ways_lead(&mut self) {
        for at in 0..self.peers.list.len() {
            let peer = &self.peers.list[at];
            let (Some(name), Some(_)) = (name_of(&peer.config), peer.keys()) else { continue };
            let addresses = self.resolver.last(name).to_vec();
            let path =
                self.peers.tunnel.sealer.peer(PeerId(at as u32)).and_then(|peer| peer.path());
            let Some(now_at) = path.map(Path::remote) else { continue };
            if addresses.len() < 2 || !addresses.contains(&now_at) || self.has_way(now_at) {
                continue;
            }
            if let Some(other) = addresses.into_iter().find(|other| self.has_way(*other)) {
                self.aim_at(at, other);
            }
        }
    }

    fn aim_at(&mut self, at: usize, address: IpAddr) {
        let config = &self.peers.list[at].config;
        if matches!(config.keying, Keying::Ike(_)) {
            return self.aim_call(at, address);
        }
        let port = config.endpoint.as_ref().map_or(self.interface.nat_port, |e| e.nat_port);
        let path = match config.encap {
            Encap::Udp => udp_path(SocketAddr::new(address, port), self.interface.nat_port),
            Encap::Auto | Encap::Esp => esp_path(address),
        };
        let id = PeerId(at as u32);
        self.peers.tunnel.set_path(id, Some(path));
        let peer = &mut self.peers.list[at];
        (peer.aimed, peer.heard) = (Some(address), None);
        self.begin_path_mtu(id);
        self.changed.endpoints = true;
    }

    /// Looks for peers where the configuration says that are no longer heard where they went.
    /// Otherwise one packet that an attacker led astray could cut us off for good.
    pub(super) fn look_for_lost(&mut self, now: Instant) {
        for at in 0..self.peers.list.len() {
            let peer = &mut self.peers.list[at];
            // IKE finds out by itself whether a peer is alive.
            if !peer.has_moved() || peer.keys().is_none() {
                continue;
            }
            let inbound = self.peers.tunnel.opener.peer(PeerId(at as u32));
            let last = inbound.and_then(|inbound| inbound.traffic().last);
            if last.is_none_or(|last| now.saturating_since(last) >= LOST) {
                (peer.aimed, peer.heard) = (None, None);
                self.aim(at, now);
            }
        }
    }
}

/// The name under which a peer is reached, if it is not an address.
pub(in crate::daemon) fn name_of(peer: &Peer) -> Option<&str> {
    match &peer.endpoint.as_ref()?.host {
        Host::Name(name) => Some(name),
        Host::Address(_) => None,
    }
}
