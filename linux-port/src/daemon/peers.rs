//! From configured peers to a tunnel with policies and SAs: at start, and anew at each reload.
//!
//! A reload builds a second tunnel of the right size and moves over what did not change: a peer
//! whose keys are the same keeps its SAs, its path and its counters. Manual SAs are installed here,
//! negotiated ones by IKE.

use simplevpn_core::crypto::{SALT_LEN, Salt};
use simplevpn_core::esp::{OutboundSequence, ReplayWindow, window_storage};
use simplevpn_core::sad::{InboundSa, OutboundSa, Sad};
use simplevpn_core::spd::SpdError;
use simplevpn_core::{
    InboundPeer, Instant, Offset, Opener, OutboundPeer, Path, PeerId, Sealer, Selectors, Spd,
    Tunnel,
};
use smoltcp::wire::IpCidr;

use super::engine::Moves;
use crate::config::host_prefix;
use crate::config::model::{Authentication, IkeKeys, Interface, Keying, ManualKeys, Peer};
use crate::crypto::Key;
use crate::netlink::network;
use crate::sequence_state::{BLOCK, Claimed, PairId, SequenceState, StateError};
use crate::sorted::{self, SortedMap};

/// A tunnel whose storage is on the heap.
pub(super) type HeapTunnel = Tunnel<'static, Key>;

/// Numbers left on an outbound SA when the next block should be under way.
const ANNOUNCE_BELOW: u64 = BLOCK / 2;

/// A configured peer at run time. Its place in the list is its [`PeerId`].
pub(super) struct PeerState {
    pub(super) config: Peer,
    /// Its reserved sequence numbers; `None`: it could get none, and has no SAs.
    pub(super) pair: Option<PairId>,
    /// When its path MTU was lowered, if it was.
    pub(super) mtu_learned: Option<Instant>,
    /// The address its packets were last sent to because the configuration, or a name, says so.
    pub(super) aimed: Option<core::net::IpAddr>,
    /// The path on which it was heard since then.
    pub(super) heard: Option<Path>,
    /// The SPIs of its inbound SAs that IKE has installed.
    pub(super) spis: Vec<u32>,
    /// What has followed from its moves.
    pub(super) moves: Moves,
    /// Whether IKE has led its packets elsewhere, which the surroundings do not know yet.
    pub(super) redirected: bool,
    /// What IKE agreed on last for our end, unless that is any address; it stays when the SA goes.
    pub(super) agreed: Vec<IpCidr>,
    /// The prefixes of its policies at present, in host space.
    policies: Vec<IpCidr>,
    /// Our selectors at present; none is any address.
    local: Vec<IpCidr>,
}

impl PeerState {
    fn new(config: &Peer) -> PeerState {
        PeerState {
            config: config.clone(),
            pair: None,
            mtu_learned: None,
            aimed: None,
            heard: None,
            spis: Vec::new(),
            moves: Moves::default(),
            redirected: false,
            agreed: Vec::new(),
            policies: policies(config),
            local: config.local_ips.clone(),
        }
    }

    /// Whether it was heard elsewhere than where it was looked for.
    pub(super) fn has_moved(&self) -> bool {
        self.heard.is_some_and(|path| self.aimed.is_some_and(|aimed| aimed != path.remote()))
    }

    /// Its keys, if they are manual.
    pub(super) fn keys(&self) -> Option<&ManualKeys> {
        manual(&self.config)
    }
}

/// The place in another configuration of the peer that a peer of this one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) at: usize,
    /// Whether its SAs serve as they are.
    pub(super) same_sas: bool,
}

/// Finds each peer of `after` among those of `before`: by what it is recognised by, whatever its
/// section is called and wherever it stands.
pub(super) fn places(before: &Interface, after: &Interface) -> Vec<Option<Place>> {
    let peers = before.peers.iter().enumerate();
    let known = sorted::set(peers.map(|(at, peer)| (peer.identity(), at)));
    let place = |peer: &Peer| {
        let identity = peer.identity();
        let found = known.get(known.partition_point(|(other, _)| *other < identity));
        let at = found.filter(|(other, _)| *other == identity)?.1;
        let same_sas = same_sas((before, before.peers.get(at)?), (after, peer));
        Some(Place { at, same_sas })
    };
    after.peers.iter().map(place).collect()
}

/// Whether the SAs of a peer serve it in another configuration.
fn same_sas((before, old): (&Interface, &Peer), (after, new): (&Interface, &Peer)) -> bool {
    let same_keys = match (&old.keying, &new.keying) {
        (Keying::Manual(old), Keying::Manual(new)) => return old == new,
        (Keying::Ike(old), Keying::Ike(new)) => of_keys(old) == of_keys(new),
        _ => return false,
    };
    let by_key = |keys: &IkeKeys| matches!(keys.authentication, Authentication::PublicKey { .. });
    let by_key = matches!(&new.keying, Keying::Ike(keys) if by_key(keys));
    let asks =
        |interface: &Interface, peer: &Peer| interface.virtual_addresses && peer.endpoint.is_some();
    same_keys
        && of_sas(old) == of_sas(new)
        && (!by_key || before.private_key == after.private_key)
        && asks(before, old) == asks(after, new)
        // One that is not to be looked for any more has been found.
        && (new.endpoint.is_none() || old.endpoint == new.endpoint)
}

/// The keys that negotiated SAs depend on: when they are negotiated does not matter.
fn of_keys(keys: &IkeKeys) -> impl PartialEq {
    let IkeKeys { local_id, remote_id, authentication, start: _ } = keys;
    (local_id, remote_id, authentication)
}

/// What negotiated SAs depend on beside the keys.
fn of_sas(peer: &Peer) -> impl PartialEq {
    let Peer { offset, offset6, encap, allowed_ips, local_ips, .. } = peer;
    (offset, offset6, encap, allowed_ips, local_ips)
}

fn manual(peer: &Peer) -> Option<&ManualKeys> {
    match &peer.keying {
        Keying::Manual(keys) => Some(keys),
        Keying::Ike(_) => None,
    }
}

/// A tunnel and its peers.
pub(super) struct Peers {
    pub(super) tunnel: HeapTunnel,
    pub(super) list: Vec<PeerState>,
    /// Whether some peer [was redirected](PeerState::redirected): nobody looks through all of them
    /// for each message.
    pub(super) redirected: bool,
    /// Whether something else was [agreed](PeerState::agreed) with some peer, which the surroundings
    /// do not know yet.
    pub(super) agreed: bool,
    /// Whose each configured prefix is, in host space.
    owners: SortedMap<IpCidr, PeerId>,
}

impl Peers {
    /// Builds the tunnel for `configs`. What `previous` has in common with it, as `places` tell,
    /// moves over; the sequence numbers of the rest are given back, and those of new peers claimed.
    ///
    /// # Errors
    /// When a new peer gets no sequence numbers. All new peers then lack SAs: nothing is sent to
    /// or accepted from them.
    pub(super) fn build(
        configs: &[Peer],
        mut previous: Peers,
        places: &[Option<Place>],
        state: &mut Option<SequenceState>,
    ) -> (Peers, Result<(), StateError>) {
        let mut peers = Peers { redirected: true, ..Peers::without(configs) };
        // A manual one that got no sequence numbers tries again.
        let is_kept = |at: &usize| {
            let before = previous.list.get(*at);
            before.is_some_and(|peer| peer.keys().is_none() || peer.pair.is_some())
        };
        let kept = |place: &Option<Place>| place.filter(|p| p.same_sas).map(|p| p.at);
        let kept: Vec<_> = places.iter().map(|place| kept(place).filter(is_kept)).collect();
        let mut new = Vec::new();
        let kept = kept.into_iter().chain(core::iter::repeat(None));
        for ((id, config), kept) in (0..).map(PeerId).zip(configs).zip(kept) {
            match kept {
                Some(at) => peers.adopt(id, config, &mut previous, at),
                None => {
                    new.extend(manual(config).map(|_| id));
                    peers.add(id, config);
                }
            }
        }
        previous.release(state);
        let claimed = peers.claim(&new, state);
        (peers, claimed)
    }

    /// No peers at all.
    pub(super) fn none() -> Peers {
        Peers::without(&[])
    }

    /// Room for peers of these configurations, none of which is there yet.
    fn without(configs: &[Peer]) -> Peers {
        let all = (0..).map(PeerId).zip(configs);
        let owners = all.flat_map(|(id, peer)| policies(peer).into_iter().map(move |p| (p, id)));
        Peers {
            tunnel: tunnel_for(configs),
            list: Vec::new(),
            redirected: false,
            agreed: false,
            owners: owners.collect(),
        }
    }

    /// The peer that a prefix in host space is configured for: the one with the longest prefix around
    /// it.
    pub(super) fn owner(&self, prefix: &IpCidr) -> Option<PeerId> {
        let around = (0..=prefix.prefix_len()).rev();
        let around = around.map(|len| network(&IpCidr::new(prefix.address(), len)));
        around.into_iter().find_map(|around| self.owners.get(&around).copied())
    }

    /// Gives all sequence numbers back that were not used.
    pub(super) fn release(&mut self, state: &mut Option<SequenceState>) {
        let Some(state) = state else { return };
        // The last first, which moves nothing in the state's table.
        for at in (0..self.list.len()).rev() {
            let (next, top) = self.progress(at);
            if let Some(pair) = self.list[at].pair.take() {
                state.release(pair, next, top);
            }
        }
    }

    /// Notes how far each pair has come.
    pub(super) fn record(&self, state: &mut Option<SequenceState>) {
        let Some(state) = state else { return };
        for (at, peer) in self.list.iter().enumerate() {
            if let Some(pair) = peer.pair {
                let (next, top) = self.progress(at);
                state.record(pair, next, top);
            }
        }
    }

    /// The next outbound and the highest inbound number of a peer.
    fn progress(&self, at: usize) -> (u64, u64) {
        let outbound = self.tunnel.sealer.peer(PeerId(at as u32)).and_then(OutboundPeer::sa);
        let inbound = self.list[at].keys().and_then(|keys| self.tunnel.opener.sa(keys.spi_in));
        (outbound.map_or(0, |sa| sa.sequence.next()), inbound.map_or(0, |sa| sa.window.top()))
    }

    /// Lets pairs whose reservation has grown use it.
    pub(super) fn extend(&mut self, state: &mut Option<SequenceState>) {
        let Some(state) = state else { return };
        while let Some((pair, end)) = state.poll_extended() {
            let found = self.list.iter().position(|peer| peer.pair == Some(pair));
            if let Some(at) = found {
                self.tunnel.sealer.extend(PeerId(at as u32), end - 1, ANNOUNCE_BELOW);
            }
        }
    }

    /// A peer that was not there before, still without SAs.
    fn add(&mut self, id: PeerId, config: &Peer) {
        let (offset, local) = (offset(config), || selectors(&config.local_ips));
        let outbound = OutboundPeer::new(offset, local());
        self.put(id, config, outbound, InboundPeer::new(offset, local()));
        self.list.push(PeerState::new(config));
    }

    /// A peer that was there before under the same keys.
    fn adopt(&mut self, id: PeerId, config: &Peer, previous: &mut Peers, at: usize) {
        let (offset, local) = (offset(config), || selectors(&config.local_ips));
        let old = PeerId(at as u32);
        let (sealer, opener) = (&mut previous.tunnel.sealer, &mut previous.tunnel.opener);
        let outbound = sealer.remove_peer(old);
        let inbound = opener.remove_peer(old);
        let (Some(outbound), Some(inbound)) = (outbound, inbound) else {
            return self.add(id, config);
        };
        let outbound = outbound.with_policy(offset, local());
        self.put(id, config, outbound, inbound.with_policy(offset, local()));
        let before = &mut previous.list[at];
        let spis = core::mem::take(&mut before.spis);
        let spi = before.keys().map(|keys| keys.spi_in);
        for mut sa in spis.iter().copied().chain(spi).filter_map(|spi| opener.uninstall(spi)) {
            sa.peer = id;
            // Cannot fail: the SAD has room for the SAs of each peer, and SPIs are unique.
            if self.tunnel.opener.install(sa).is_err() {
                log::error!("peer {}: no room for its inbound SA", config.name);
            }
        }
        let PeerState { mtu_learned, aimed, heard, moves, redirected, .. } = *before;
        let (policies, local) = (before.policies.clone(), before.local.clone());
        let (pair, agreed) = (before.pair.take(), core::mem::take(&mut before.agreed));
        let kept = PeerState { aimed, heard, spis, moves, redirected, ..PeerState::new(config) };
        self.list.push(PeerState { pair, mtu_learned, agreed, ..kept });
        if manual(config).is_none() && self.set_policy(id, policies, local).is_err() {
            log::error!("peer {}: its policies do not fit", config.name);
        }
    }

    /// Gives a peer other policies (in host space) and other selectors of ours.
    ///
    /// # Errors
    /// When another peer has one of them, or they do not fit: then it has fewer.
    pub(super) fn set_policy(
        &mut self,
        id: PeerId,
        policies: Vec<IpCidr>,
        local: Vec<IpCidr>,
    ) -> Result<(), SpdError> {
        let Some(peer) = self.list.get_mut(id.index()) else { return Err(SpdError::Full) };
        if peer.policies == policies && peer.local == local {
            return Ok(());
        }
        let offset = offset(&peer.config);
        let before = core::mem::replace(&mut peer.policies, policies);
        peer.local = local;
        let local = || selectors(&peer.local);
        let (sealer, opener) = (&mut self.tunnel.sealer, &mut self.tunnel.opener);
        for prefix in &before {
            sealer.remove_policy(prefix);
            opener.remove_policy(prefix);
        }
        let (outbound, inbound) = (sealer.remove_peer(id), opener.remove_peer(id));
        if let (Some(outbound), Some(inbound)) = (outbound, inbound) {
            sealer.insert_peer(id, outbound.with_policy(offset, local()))?;
            opener.insert_peer(id, inbound.with_policy(offset, local()))?;
        }
        let mut refused = Ok(());
        peer.policies.retain(|prefix| {
            if refused.is_ok() {
                refused = sealer.insert_policy(prefix, id);
            }
            if refused.is_ok() {
                refused = opener.insert_policy(prefix, id);
            }
            refused.is_ok()
        });
        refused
    }

    /// Puts a peer with its policies into both halves.
    fn put(
        &mut self,
        id: PeerId,
        config: &Peer,
        outbound: OutboundPeer<'static, Key>,
        inbound: InboundPeer<'static>,
    ) {
        let (sealer, opener) = (&mut self.tunnel.sealer, &mut self.tunnel.opener);
        let mut all = sealer.insert_peer(id, outbound).and(opener.insert_peer(id, inbound));
        for prefix in policies(config) {
            all = all
                .and_then(|()| sealer.insert_policy(&prefix, id))
                .and_then(|()| opener.insert_policy(&prefix, id));
        }
        let keepalive = config.persistent_keepalive;
        sealer.set_keepalive(id, keepalive.map(|s| core::time::Duration::from_secs(s.into())));
        // Cannot fail: storage was made for these peers, and overlaps were refused before.
        if all.is_err() {
            log::error!("peer {}: its policies do not fit", config.name);
        }
    }

    /// Claims sequence numbers for new peers, and installs their SAs.
    fn claim(
        &mut self,
        new: &[PeerId],
        state: &mut Option<SequenceState>,
    ) -> Result<(), StateError> {
        let Some(state) = state else { return Ok(()) };
        let keys: Vec<&ManualKeys> =
            new.iter().filter_map(|id| self.list[id.index()].keys()).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let claimed = state.claim(&keys)?;
        for (id, claimed) in new.iter().zip(claimed) {
            self.install(*id, claimed);
        }
        Ok(())
    }

    fn install(&mut self, id: PeerId, claimed: Claimed) {
        let peer = &mut self.list[id.index()];
        peer.pair = Some(claimed.id);
        let Some(keys) = manual(&peer.config) else { return };
        let Some((outbound, inbound)) = associations(keys, id, claimed) else {
            log::error!("peer {}: its keys do not fit its cipher", peer.config.name);
            return;
        };
        self.tunnel.sealer.install(id, outbound, ANNOUNCE_BELOW);
        if self.tunnel.opener.install(inbound).is_err() {
            log::error!("peer {}: no room for its inbound SA", peer.config.name);
        }
    }
}

/// Inbound SAs of a peer of IKE: one in use, one that takes its place, and one that lingers.
const NEGOTIATED: usize = 3;
/// Inbound SAs beyond that, for all together: keys that are replaced several times in a row, and
/// connections that take the place of others.
const SPARE_SAS: usize = 16;
/// Prefixes beyond those configured that the policies of a peer of IKE may need: to leave something
/// out takes more of them.
pub(super) const SPARE_PREFIXES: usize = 8;

/// Empty storage of the right size: as many slots as peers and SAs, twice as many for hash tables.
fn tunnel_for(configs: &[Peer]) -> HeapTunnel {
    let count = configs.len();
    let negotiated = configs.iter().filter(|peer| manual(peer).is_none()).count();
    let spare = if negotiated > 0 { SPARE_SAS } else { 0 };
    let sas = count + negotiated * (NEGOTIATED - 1) + spare;
    let prefixes = configs.iter().map(|peer| peer.allowed_ips.len()).sum::<usize>();
    let prefixes = prefixes + negotiated * SPARE_PREFIXES;
    let spd = || Spd::new(vec![None; 2 * prefixes].into());
    let slots: Vec<_> = (0..sas).map(|_| None).collect();
    let sad = Sad::new(slots.into(), vec![None; 2 * sas].into());
    let outbound: Vec<_> = (0..count).map(|_| None).collect();
    let inbound: Vec<_> = (0..count).map(|_| None).collect();
    Tunnel::new(Sealer::new(spd(), outbound.into()), Opener::new(sad, spd(), inbound.into()))
}

/// What a peer's policies are about, in host space.
pub(super) fn policies(config: &Peer) -> Vec<IpCidr> {
    config.allowed_ips.iter().map(|prefix| network(&host_prefix(config, *prefix))).collect()
}

fn offset(config: &Peer) -> Offset {
    Offset::new(config.offset, config.offset6)
}

/// The same prefixes for one half of the tunnel. Most peers have few, which need no memory of their
/// own.
fn selectors(local: &[IpCidr]) -> Selectors<'static> {
    Selectors::new(local).unwrap_or_else(|| Selectors::lent(local.to_vec().into()))
}

/// The two SAs of a manually keyed peer; `None` if a key has the wrong length.
fn associations(
    keys: &ManualKeys,
    peer: PeerId,
    claimed: Claimed,
) -> Option<(OutboundSa<Key>, InboundSa<'static, Key>)> {
    let split = |keymat: &[u8]| {
        let (key, salt) = keymat.split_last_chunk::<SALT_LEN>()?;
        Some((Key::new(keys.cipher, key).ok()?, Salt::new(*salt)))
    };
    let (key, salt) = split(&keys.key_out)?;
    let (first, last) = (claimed.outbound.start, claimed.outbound.end - 1);
    let sequence = OutboundSequence::reserved(keys.esn, first, last);
    let outbound = OutboundSa { spi: keys.spi_out, key, salt, sequence };
    let (key, salt) = split(&keys.key_in)?;
    let blocks = vec![0; window_storage(keys.replay_window)];
    let mut window = ReplayWindow::new(blocks.into()).ok()?;
    if claimed.inbound_mark > 0 {
        window.resume(claimed.inbound_mark);
    }
    let inbound = InboundSa { spi: keys.spi_in, key, salt, esn: keys.esn, window, peer };
    Some((outbound, inbound))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 2] = [
        "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=",
        "/FHNjmIYoaONpH7QAjDwWAgW7RO6MwOsXeuRFUiQgCU=",
    ];

    /// An interface with two anonymous peers, the second of which has these further options.
    fn interface(options: &str) -> Interface {
        let key = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
        let mut text = format!(
            "config interface 'vpn0'\n\toption proto 'simplevpn'\n\toption private_key '{key}'\n"
        );
        for (number, key) in (1..).zip(KEYS) {
            text += &format!(
                "config simplevpn_vpn0\n\toption public_key '{key}'\n\
                 \tlist allowed_ips '10.{number}.0.0/16'\n"
            );
        }
        crate::config::parse("f", &(text + options)).unwrap().interfaces.remove(0)
    }

    fn kept(before: &Interface, after: &Interface) -> Vec<Option<(usize, bool)>> {
        let places = places(before, after);
        places.into_iter().map(|place| place.map(|place| (place.at, place.same_sas))).collect()
    }

    #[test]
    fn a_peer_is_recognised_by_what_it_is() {
        let before = interface("");
        let mut after = before.clone();
        after.peers.reverse();
        after.peers[0].name = "renamed".into();
        assert_eq!(kept(&before, &after), [Some((1, true)), Some((0, true))]);
        after.peers.remove(1);
        assert_eq!(kept(&before, &after), [Some((1, true))]);
        assert_eq!(kept(&after, &before), [None, Some((0, true))]);
    }

    #[test]
    fn sas_are_kept_where_an_edit_does_not_concern_them() {
        let before = interface("\toption endpoint_host '192.0.2.1'\n");
        let edited = |options: &str| kept(&before, &interface(options))[1].unwrap().1;
        let endpoint = "\toption endpoint_host '192.0.2.1'\n";
        for same in [
            "option description 'x'",
            "option persistent_keepalive '5'",
            "option start 'none'",
            "option route_allowed_ips '0'",
        ] {
            assert!(edited(&format!("{endpoint}\t{same}\n")), "{same}");
        }
        assert!(edited(""), "it is not looked for any more");
        for other in [
            "list allowed_ips '10.3.0.0/16'",
            "list local_ips '10.9.0.0/16'",
            "option offset '0.16.0.0'",
            "option encap 'udp'",
            "option local_id 'a.example'",
            "option endpoint_port '501'",
            "option preshared_key 'EC6QLBNOuSg5y4669fT6gQbbp7Sz9Yt8zFblA5N2mZo='",
        ] {
            assert!(!edited(&format!("{endpoint}\t{other}\n")), "{other}");
        }
        assert!(!edited("\toption endpoint_host '192.0.2.2'\n"));
    }

    #[test]
    fn what_we_are_concerns_those_who_know_us_by_it() {
        let before = interface("\toption endpoint_host '192.0.2.1'\n");
        let asks = Interface { virtual_addresses: true, ..before.clone() };
        assert_eq!(kept(&before, &asks), [Some((0, true)), Some((1, false))], "it is asked");
        let other = Interface { private_key: None, ..before.clone() };
        assert_eq!(kept(&before, &other), [Some((0, false)), Some((1, false))]);
    }
}
