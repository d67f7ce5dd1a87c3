//! The SAs that IKE installs in the two halves of the tunnel (RFC 4301 §4.4.2), and the policies
//! that go with them.

use core::net::IpAddr;

use simplevpn_core::esp::{OutboundSequence, ReplayWindow, window_storage};
use simplevpn_core::ike::pad::MAX_PREFIXES;
use simplevpn_core::ike::{ChildSa, Ranges, Refused, SaDatabase};
use simplevpn_core::sad::{InboundSa, OutboundSa};
use simplevpn_core::{Instant, Path, PeerId};
use smoltcp::wire::{IpAddress, IpCidr};

use super::super::peers::{PeerState, Peers, SPARE_PREFIXES, policies};
use crate::config::host_prefix;
use crate::config::model::Peer;
use crate::crypto::Key;

/// Packets in the anti-replay window: queues of several processors and offloads reorder far.
const WINDOW: u32 = 2048;
/// Sequence numbers left on an outbound SA when another is to take its place.
const ANNOUNCE_BELOW: u64 = 1 << 30;

/// Prefixes of ours that a peer can have in its policies. Each packet is compared with them.
const LOCAL_PREFIXES: usize = MAX_PREFIXES + SPARE_PREFIXES;

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

    fn narrow(&self, id: PeerId, local: &mut Ranges, remote: &mut Ranges) {
        let Some(peer) = self.peers.list.get(id.index()) else { return };
        keep_largest(local, LOCAL_PREFIXES);
        keep_largest(remote, room(&peer.config));
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
        let ChildSa { peer: id, spi, esn, path, first, .. } = *sa;
        let key = key(sa)?;
        self.peers.narrow(id, sa.local, sa.remote)?;
        let sequence = OutboundSequence::new(esn);
        let outbound = OutboundSa { spi, key, salt: sa.key.salt(), sequence };
        let replaced = self.peers.tunnel.sealer.install(id, outbound, ANNOUNCE_BELOW);
        // Under the same IKE SA, where packets go is known better than where IKE's messages do.
        if first || replaced.is_none() {
            self.set_path(id, path);
        } else {
            // The peer is shown at once that packets come through (see `one_way`).
            self.peers.tunnel.sealer.greet(id);
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
        let agreed = prefixes(local).into_iter().filter(|prefix| prefix.prefix_len() > 0).collect();
        let local = selectors(local, &peer.config.local_ips);
        let remote = prefixes(remote);
        // Ranges of ours were narrowed to this before.
        if remote.len() > room(&peer.config) {
            return Err(Refused);
        }
        let hosts = remote.iter().map(|prefix| host_prefix(&peer.config, *prefix));
        // The longest prefix wins, and that is not for a peer to choose: what lies inside one that
        // is configured for another peer is the other's.
        let hosts: Vec<IpCidr> = hosts.filter(|prefix| self.owner(prefix) == Some(id)).collect();
        if hosts.is_empty() {
            return Err(Refused);
        }
        self.set_policy(id, hosts, local).map_err(|_| {
            self.widen(id);
            Refused
        })?;
        let Some(peer) = self.list.get_mut(id.index()) else { return Err(Refused) };
        self.agreed |= peer.agreed != agreed;
        peer.agreed = agreed;
        Ok(())
    }

    /// Goes back to what is configured: for these packets an SA is wanted.
    fn widen(&mut self, id: PeerId) {
        let Some(peer) = self.list.get(id.index()) else { return };
        let config = &peer.config;
        let hosts = policies(config);
        let local = config.local_ips.clone();
        if self.set_policy(id, hosts, local).is_err() {
            log::error!("the policies of a peer do not fit");
        }
    }
}

/// How many prefixes of a peer's its policies can have: each peer has its own share of the storage,
/// whatever ranges it comes up with.
fn room(config: &Peer) -> usize {
    config.allowed_ips.len() + SPARE_PREFIXES
}

/// What was agreed for our end. All addresses, if that is what is configured.
fn selectors(agreed: &Ranges, configured: &[IpCidr]) -> Vec<IpCidr> {
    if configured.is_empty() && *agreed == Ranges::of_prefixes(&[]) {
        return Vec::new();
    }
    prefixes(agreed)
}

/// Of ranges that take more than `room` prefixes, keeps those prefixes that hold the most addresses.
fn keep_largest(ranges: &mut Ranges, room: usize) {
    let all = prefixes(ranges);
    if all.len() <= room {
        return;
    }
    let host_bits = |prefix: &IpCidr| match prefix.address() {
        IpAddress::Ipv4(_) => 32 - prefix.prefix_len(),
        IpAddress::Ipv6(_) => 128 - prefix.prefix_len(),
    };
    let mut kept = Vec::new();
    for bits in (0..=128).rev() {
        let next = all.iter().filter(|prefix| host_bits(prefix) == bits);
        kept.extend(next.take(room.min(MAX_PREFIXES) - kept.len()));
    }
    *ranges = Ranges::of_prefixes(&kept);
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

    /// Peers that have these prefixes.
    fn peers(allowed: [&str; 2]) -> Peers {
        let key = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
        let keys = [
            "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=",
            "/FHNjmIYoaONpH7QAjDwWAgW7RO6MwOsXeuRFUiQgCU=",
        ];
        let mut text = format!(
            "config interface 'vpn0'\n\toption proto 'simplevpn'\n\toption private_key '{key}'\n"
        );
        for (allowed, key) in allowed.iter().zip(keys) {
            text += &format!(
                "config simplevpn_vpn0\n\toption public_key '{key}'\n\
                 \tlist allowed_ips '{allowed}'\n"
            );
        }
        let interface = crate::config::parse("f", &text).unwrap().interfaces.remove(0);
        let (peers, built) = Peers::build(&interface.peers, Peers::none(), &[], &mut None);
        built.unwrap();
        peers
    }

    #[test]
    fn a_peer_with_a_wider_prefix_cannot_choose_what_is_anothers() {
        let prefixes = |texts: &[&str]| -> Vec<IpCidr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let agreed = |texts: &[&str]| Ranges::of_prefixes(&prefixes(texts));
        let (hub, site, any) = (PeerId(0), PeerId(1), Ranges::of_prefixes(&[]));
        let mut peers = peers(["10.0.0.0/8", "10.5.0.0/16"]);
        for inside in ["10.5.0.0/16", "10.5.6.0/24", "10.5.6.7/32"] {
            assert_eq!(peers.narrow(hub, &any, &agreed(&[inside])), Err(Refused), "{inside}");
        }
        assert_eq!(peers.narrow(site, &any, &agreed(&["10.5.6.0/24"])), Ok(()));
        assert_eq!(peers.narrow(hub, &any, &agreed(&["10.5.7.0/24"])), Err(Refused));
        assert_eq!(peers.narrow(hub, &any, &agreed(&["10.5.0.0/16", "10.6.0.0/16"])), Ok(()));
        let sealer = &mut peers.tunnel.sealer;
        let owners = ["10.5.0.0/16", "10.5.6.0/24", "10.6.0.0/16"]
            .map(|text| sealer.remove_policy(&text.parse().unwrap()));
        assert_eq!(owners, [None, Some(site), Some(hub)]);
        assert_eq!(peers.narrow(hub, &any, &agreed(&["10.0.0.0/8"])), Ok(()));
    }

    #[test]
    fn what_is_agreed_for_our_end_is_kept_and_told_once() {
        let mut peers = peers(["10.1.0.0/16", "10.2.0.0/16"]);
        let remote = Ranges::of_prefixes(&["10.1.0.0/16".parse().unwrap()]);
        let told = |peers: &mut Peers, local: &[&str]| {
            let local: Vec<IpCidr> = local.iter().map(|text| text.parse().unwrap()).collect();
            peers.narrow(PeerId(0), &Ranges::of_prefixes(&local), &remote).unwrap();
            (core::mem::take(&mut peers.agreed), peers.list[0].agreed.clone())
        };
        let lan: IpCidr = "192.168.1.0/24".parse().unwrap();
        assert_eq!(told(&mut peers, &[]), (false, vec![]));
        assert_eq!(told(&mut peers, &["192.168.1.0/24"]), (true, vec![lan]));
        assert_eq!(told(&mut peers, &["192.168.1.0/24"]), (false, vec![lan]));
        peers.widen(PeerId(0));
        assert_eq!((peers.agreed, &peers.list[0].agreed), (false, &vec![lan]));
        assert_eq!(told(&mut peers, &["192.168.1.0/24", "0.0.0.0/0"]), (false, vec![lan]));
        assert_eq!(told(&mut peers, &[]), (true, vec![]));
    }

    #[test]
    fn no_peer_takes_up_the_policies_of_others() {
        let mut peers = peers(["10.1.0.0/16", "10.2.0.0/16"]);
        let apart = |count| {
            let addresses = (0..count).map(|n| IpAddr::from([10, 1, 0, 2 * n + 1]));
            Ranges::of_addresses(&addresses.collect::<Vec<_>>())
        };
        let (id, any) = (PeerId(0), Ranges::of_prefixes(&[]));
        let most = 1 + SPARE_PREFIXES as u8;
        assert_eq!(peers.narrow(id, &any, &apart(most + 1)), Err(Refused));
        assert_eq!(peers.narrow(id, &any, &apart(most)), Ok(()));
        // It is not agreed on in the first place.
        let (mut local, mut remote) = (apart(7), apart(most + 5));
        Database { peers: &mut peers }.narrow(id, &mut local, &mut remote);
        assert_eq!((local, remote), (apart(7), apart(most)));
    }

    #[test]
    fn of_too_many_prefixes_the_largest_are_kept() {
        let range = |text: &str| -> IpCidr { text.parse().unwrap() };
        let mut ranges = Ranges::of_prefixes(&[range("10.1.0.0/24"), range("10.2.0.0/16")]);
        keep_largest(&mut ranges, 2);
        assert_eq!(ranges.iter().count(), 2);
        keep_largest(&mut ranges, 1);
        assert_eq!(prefixes(&ranges), [range("10.2.0.0/16")]);
        // Of a range from .1 to .6: 1/32, 2/31, 4/31, 6/32.
        let addresses = (1..=6).map(|host| IpAddr::from([10, 0, 0, host]));
        let mut ranges = Ranges::of_addresses(&addresses.collect::<Vec<_>>());
        keep_largest(&mut ranges, 3);
        assert_eq!(prefixes(&ranges).len(), 3);
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
