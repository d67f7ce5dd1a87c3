//! The SAs that IKE installs in the two halves of the tunnel (RFC 4301 §4.4.2), and the policies
//! that go with them.

use core::net::IpAddr;

use simplevpn_core::esp::{OutboundSequence, ReplayWindow, window_storage};
use simplevpn_core::ike::{ChildSa, Ranges, Refused, SaDatabase};
use simplevpn_core::sad::{InboundSa, OutboundSa};
use simplevpn_core::{Instant, Path, PeerId, Selectors};
use smoltcp::wire::IpCidr;

use super::super::peers::{PeerState, Peers, SPARE_PREFIXES};
use crate::config::host_prefix;
use crate::crypto::Key;

/// Packets in the anti-replay window: queues of several processors and offloads reorder far.
const WINDOW: u32 = 2048;
/// Sequence numbers left on an outbound SA when another is to take its place.
const ANNOUNCE_BELOW: u64 = 1 << 30;

/// The tunnel and its peers.
pub(super) struct Database<'d> {
    pub(super) peers: &'d mut Peers,
}

impl Database<'_> {
    fn peer(&mut self, id: PeerId) -> Option<&mut PeerState> {
        self.peers.list.get_mut(id.index())
    }
}

fn key(sa: &ChildSa<'_>) -> Result<Key, Refused> {
    Key::new(sa.key.cipher(), sa.key.key()).map_err(|_| Refused)
}

impl SaDatabase for Database<'_> {
    fn allocate_spi(&mut self, random: u32) -> Option<u32> {
        self.peers.tunnel.opener.allocate_spi(random)
    }

    fn install_inbound(&mut self, sa: &ChildSa<'_>) -> Result<(), Refused> {
        let ChildSa { peer, spi, esn, .. } = *sa;
        let blocks = vec![0; window_storage(WINDOW)];
        let window = ReplayWindow::new(blocks.into()).map_err(|_| Refused)?;
        let inbound = InboundSa { spi, key: key(sa)?, salt: sa.key.salt(), esn, window, peer };
        self.peer(peer).ok_or(Refused)?.spis.push(spi);
        let installed = self.peers.tunnel.opener.install(inbound);
        installed.map_err(|_| {
            self.forget_spi(peer, spi);
            Refused
        })
    }

    fn install_outbound(&mut self, sa: &ChildSa<'_>) -> Result<(), Refused> {
        let ChildSa { peer: id, spi, esn, path, .. } = *sa;
        let key = key(sa)?;
        self.peers.narrow(id, sa.local, sa.remote)?;
        let sequence = OutboundSequence::new(esn);
        let outbound = OutboundSa { spi, key, salt: sa.key.salt(), sequence };
        // Where packets go now is known better than where IKE's do.
        if self.peers.tunnel.sealer.install(id, outbound, ANNOUNCE_BELOW).is_none() {
            self.set_path(id, path);
        }
        Ok(())
    }

    fn remove_inbound(&mut self, spi: u32) {
        if let Some(sa) = self.peers.tunnel.opener.uninstall(spi) {
            self.forget_spi(sa.peer, spi);
        }
    }

    fn remove_outbound(&mut self, id: PeerId, spi: u32) {
        let sealer = &mut self.peers.tunnel.sealer;
        let in_use = sealer.peer(id).and_then(|peer| peer.sa()).is_some_and(|sa| sa.spi == spi);
        if in_use {
            sealer.uninstall(id);
            self.peers.widen(id);
        }
    }

    fn set_path(&mut self, id: PeerId, path: Path) {
        self.peers.tunnel.set_path(id, Some(path));
        if let Some(peer) = self.peer(id) {
            (peer.heard, peer.redirected) = (Some(path), true);
            self.peers.redirected = true;
        }
    }

    fn last_inbound(&self, id: PeerId) -> Option<Instant> {
        self.peers.tunnel.opener.peer(id)?.traffic().last
    }

    fn heard_on(&self, id: PeerId) -> Option<Path> {
        self.peers.tunnel.opener.peer(id)?.path().copied()
    }

    fn has_received(&self, spi: u32) -> bool {
        self.peers.tunnel.opener.sa(spi).is_some_and(|sa| sa.window.top() > 0)
    }
}

impl Database<'_> {
    fn forget_spi(&mut self, id: PeerId, spi: u32) {
        if let Some(peer) = self.peer(id) {
            peer.spis.retain(|other| *other != spi);
        }
    }
}

impl Peers {
    /// Keeps a peer to what was agreed, where that is less than what is configured.
    fn narrow(&mut self, id: PeerId, local: &Ranges, remote: &Ranges) -> Result<(), Refused> {
        let peer = self.list.get(id.index()).ok_or(Refused)?;
        let local = selectors(local, &peer.config.local_ips)?;
        let remote = prefixes(remote);
        // Each peer has its own share of the storage, whatever ranges it comes up with.
        if remote.len() > peer.config.allowed_ips.len() + SPARE_PREFIXES {
            return Err(Refused);
        }
        let hosts = remote.iter().map(|prefix| host_prefix(&peer.config, *prefix)).collect();
        self.set_policy(id, hosts, local).map_err(|_| {
            self.widen(id);
            Refused
        })
    }

    /// Goes back to what is configured: for these packets an SA is wanted.
    fn widen(&mut self, id: PeerId) {
        let Some(peer) = self.list.get(id.index()) else { return };
        let config = &peer.config;
        let hosts = config.allowed_ips.iter().map(|ip| host_prefix(config, *ip)).collect();
        let local = Selectors::new(&config.local_ips).unwrap_or_default();
        if self.set_policy(id, hosts, local).is_err() {
            log::error!("the policies of a peer do not fit");
        }
    }
}

/// What was agreed for our end. All addresses, if that is what is configured.
fn selectors(agreed: &Ranges, configured: &[IpCidr]) -> Result<Selectors, Refused> {
    if configured.is_empty() && *agreed == Ranges::of_prefixes(&[]) {
        return Ok(Selectors::ANY);
    }
    Selectors::new(&prefixes(agreed)).ok_or(Refused)
}

/// The prefixes that make up ranges of addresses.
fn prefixes(ranges: &Ranges) -> Vec<IpCidr> {
    let mut prefixes = Vec::new();
    for range in ranges.iter() {
        match (range.first(), range.last()) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                cover(first.to_bits().into(), last.to_bits().into(), 32, &mut |address, len| {
                    prefixes.push(IpCidr::new(IpAddr::V4((address as u32).into()).into(), len));
                });
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                cover(first.to_bits(), last.to_bits(), 128, &mut |address, len| {
                    prefixes.push(IpCidr::new(IpAddr::V6(address.into()).into(), len));
                });
            }
            _ => {}
        }
    }
    prefixes
}

/// Finds the fewest prefixes that cover exactly the numbers from `first` to `last`, of `width`
/// bits.
fn cover(mut first: u128, last: u128, width: u32, found: &mut dyn FnMut(u128, u8)) {
    loop {
        // As large as `first` is aligned, and as the rest allows.
        let mut host = first.trailing_zeros().min(width);
        let end = |host: u32| first | u128::MAX.checked_shr(128 - host).unwrap_or(0);
        while host > 0 && end(host) > last {
            host -= 1;
        }
        found(first, (width - host) as u8);
        match end(host).checked_add(1) {
            Some(next) if next <= last => first = next,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(first: u128, last: u128, width: u32) -> Vec<(u128, u8)> {
        let mut found = Vec::new();
        cover(first, last, width, &mut |address, len| found.push((address, len)));
        found
    }

    #[test]
    fn no_peer_takes_up_the_policies_of_others() {
        let key = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
        let peers = [
            "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=",
            "/FHNjmIYoaONpH7QAjDwWAgW7RO6MwOsXeuRFUiQgCU=",
        ];
        let mut text = format!(
            "config interface 'vpn0'\n\toption proto 'simplevpn'\n\toption private_key '{key}'\n"
        );
        for (number, key) in (1..).zip(peers) {
            text += &format!(
                "config simplevpn_vpn0\n\toption public_key '{key}'\n\
                 \tlist allowed_ips '10.{number}.0.0/16'\n"
            );
        }
        let interface = crate::config::parse("f", &text).unwrap().interfaces.remove(0);
        let (mut peers, built) = Peers::build(&interface.peers, Peers::none(), &[], &mut None);
        built.unwrap();
        let apart = |count| {
            let addresses = (0..count).map(|n| IpAddr::from([10, 1, 0, 2 * n + 1]));
            Ranges::of_addresses(&addresses.collect::<Vec<_>>())
        };
        let (id, any) = (PeerId(0), Ranges::of_prefixes(&[]));
        let most = 1 + SPARE_PREFIXES as u8;
        assert_eq!(peers.narrow(id, &any, &apart(most + 1)), Err(Refused));
        assert_eq!(peers.narrow(id, &any, &apart(most)), Ok(()));
    }

    #[test]
    fn ranges_are_covered_exactly() {
        assert_eq!(covered(0, u32::MAX.into(), 32), [(0, 0)]);
        assert_eq!(covered(0, u128::MAX, 128), [(0, 0)]);
        assert_eq!(covered(10, 10, 32), [(10, 32)]);
        assert_eq!(covered(u128::MAX, u128::MAX, 128), [(u128::MAX, 128)]);
        assert_eq!(covered(8, 15, 32), [(8, 29)]);
        assert_eq!(covered(1, 6, 32), [(1, 32), (2, 31), (4, 31), (6, 32)]);
        let upper = u128::from(u32::MAX);
        assert_eq!(covered(upper - 2, upper, 32), [(upper - 2, 32), (upper - 1, 31)]);
    }

    proptest::proptest! {
        #[test]
        fn every_number_of_a_range_is_covered_once(first in 0u128..300, len in 0u128..300) {
            let mut next = first;
            for (address, prefix_len) in covered(first, first + len, 32) {
                proptest::prop_assert_eq!(address, next);
                let size = 1u128 << (32 - prefix_len);
                proptest::prop_assert_eq!(address % size, 0);
                next += size;
            }
            proptest::prop_assert_eq!(next, first + len + 1);
        }
    }
}
