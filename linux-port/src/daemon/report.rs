//! What a running interface tells about itself.

use core::net::{Ipv4Addr, Ipv6Addr};

use simplevpn_core::{Instant, PeerId};

use super::engine::Engine;
use super::outer::Which;
use super::peers::PeerState;
use crate::config::model::{Host, ManualKeys};
use crate::status::{PeerStatus, SaStatus, Status};
use crate::steering;

impl Engine {
    /// The state of the interface and its peers. Never a key.
    pub(super) fn status(&self, now: Instant) -> Status {
        let interface = &self.interface;
        let nat_port = [Which::UdpV4, Which::UdpV6].map(|which| self.data.outer.port(which));
        let nat_port = nat_port.into_iter().flatten().next();
        Status {
            interface: interface.name.clone(),
            now,
            since: self.since,
            steering: self.steering.mode().name(),
            killswitch: interface.killswitch,
            gap: self.steering.gap(),
            mtu: self.mtu,
            nat_port: nat_port.unwrap_or(interface.nat_port),
            fwmark: steering::mark(interface.fwmark).0,
            addresses: self.addresses(),
            drops: self.drops(),
            peers: (0..)
                .map(PeerId)
                .zip(&self.peers.list)
                .map(|(id, peer)| self.peer_status(id, peer))
                .collect(),
            refused: interface.refused.clone(),
        }
    }

    /// Everything that was dropped, wherever that was.
    fn drops(&self) -> Vec<(&'static str, u64)> {
        let ike = self.ike.as_ref().map(|ike| *ike.discards()).unwrap_or_default();
        let tunnel = self.earlier.merged(&self.peers.tunnel.discards()).merged(&ike);
        let mut drops: Vec<_> = tunnel.iter().map(|(why, count)| (why.name(), count)).collect();
        let counters = &self.data.counters;
        for (name, count) in &mut drops {
            if *name == "malformed" {
                *count += counters.malformed;
            }
        }
        drops.extend(self.data.outer.drops.iter().map(|(why, count)| (why.name(), count)));
        drops.extend([
            ("receive_overflow", self.data.outer.overflows()),
            ("tun_refused", counters.tun_refused),
            ("no_ike", counters.no_ike),
            ("ike_overflow", counters.ike_overflow),
        ]);
        // What the firewall cannot tell is not shown.
        drops.extend(self.steering.rejected().map(|count| ("clear_text", count.packets)));
        drops.extend(self.steering.stopped().map(|count| ("clear_text_out", count.packets)));
        drops
    }

    fn peer_status(&self, id: PeerId, peer: &PeerState) -> PeerStatus {
        let config = &peer.config;
        let outbound = self.peers.tunnel.sealer.peer(id);
        let inbound = self.peers.tunnel.opener.peer(id);
        let path = outbound.and_then(|outbound| outbound.path()).copied();
        let mtu = outbound.map_or(0, |outbound| outbound.largest_inner());
        PeerStatus {
            name: config.name.clone(),
            endpoint_host: config.endpoint.as_ref().map(|endpoint| match &endpoint.host {
                Host::Address(address) => address.to_string(),
                Host::Name(name) => name.clone(),
            }),
            path,
            connection: self.connection(id),
            sas: self.sas(id, peer),
            allowed_ips: config.allowed_ips.clone(),
            offset: (config.offset != 0).then(|| Ipv4Addr::from_bits(config.offset)),
            offset6: (config.offset6 != 0).then(|| Ipv6Addr::from_bits(config.offset6)),
            mtu: path.and_then(|_| u16::try_from(mtu).ok()),
            persistent_keepalive: config.persistent_keepalive,
            received: inbound.map(|inbound| *inbound.traffic()).unwrap_or_default(),
            sent: outbound.map(|outbound| *outbound.traffic()).unwrap_or_default(),
        }
    }

    fn sas(&self, id: PeerId, peer: &PeerState) -> Option<SaStatus> {
        if let Some(keys) = peer.keys() {
            let ManualKeys { cipher, esn, spi_in, spi_out, .. } = *keys;
            return Some(SaStatus { cipher: cipher.name(), esn, spi_in, spi_out });
        }
        let child = self.ike.as_ref()?.status(id)?.child?;
        let spi_out = self.peers.tunnel.sealer.peer(id)?.sa()?.spi;
        let spi_in = *peer.spis.last()?;
        Some(SaStatus { cipher: child.cipher.name(), esn: child.esn, spi_in, spi_out })
    }
}
