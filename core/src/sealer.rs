//! The outbound half: packets from the host become sealed packets for the wire.
//!
//! Implements outbound processing of RFC 4301 §5.1 with one action, PROTECT: policy by inner
//! destination, our own selectors by inner source, un-offset, PMTU, ESP. It never waits for the
//! inbound half and shares nothing with it.

use core::num::NonZeroU32;
use core::time::Duration;

use heapless::Deque;
use managed::ManagedSlice;
use smoltcp::wire::IpCidr;

use crate::ahead::Fetch;
use crate::checksum::Checksum;
use crate::counters::{Discard, Discards, Traffic};
use crate::crypto::Aead;
use crate::ecn;
use crate::esp;
use crate::inner::{self, Inner};
use crate::offset::Offset;
use crate::packet::PacketBuf;
use crate::path::{Path, Transmit};
use crate::pmtu::{self, Fit};
use crate::sad::OutboundSa;
use crate::selectors::Selectors;
use crate::spd::{PeerId, Spd, SpdError};
use crate::time::Instant;
use crate::trace::debug;
use crate::wire::esp::NextHeader;

/// How many events wait at most; a further one is told again later.
const EVENTS: usize = 16;

/// No clock gets there.
const NEVER: Instant = Instant::from_millis(u64::MAX);

/// An outbound peer, in a slot that the caller lends.
///
/// On a hub it comes from memory with nearly every packet, so what each packet needs lies together
/// and in front.
#[repr(C)]
pub struct OutboundPeer<'a, A> {
    sa: Option<OutboundSa<A>>,
    path: Option<Path>,
    traffic: Traffic,
    /// When something was last sent, or [`NEVER`]: an `Option` would be 8 bytes more.
    silent_since: Instant,
    /// Numbers left below which the SA's end is announced, once.
    announce_below: u64,
    offset: Offset,
    path_mtu: u16,
    /// Whether it is to be told at once where we are.
    greet: bool,
    local: Selectors<'a>,
    /// Milliseconds of silence after which a keepalive is sent.
    keepalive: Option<NonZeroU32>,
    /// In which second an SA was last asked for, counted from one.
    asked: Option<NonZeroU32>,
}

/// One slot of storage for an outbound peer; `None` is empty.
pub type OutboundSlot<'a, A> = Option<OutboundPeer<'a, A>>;

impl<'a, A> OutboundPeer<'a, A> {
    /// A peer without SA and path yet, whose path MTU is 1500.
    #[must_use]
    pub fn new(offset: Offset, local: Selectors<'a>) -> OutboundPeer<'a, A> {
        OutboundPeer {
            sa: None,
            path: None,
            traffic: Traffic::default(),
            silent_since: NEVER,
            announce_below: 0,
            offset,
            path_mtu: 1500,
            greet: false,
            local,
            keepalive: None,
            asked: None,
        }
    }

    /// The same peer, with its SA, path and counters, under another offset and other selectors.
    #[must_use]
    pub fn with_policy(self, offset: Offset, local: Selectors<'a>) -> OutboundPeer<'a, A> {
        OutboundPeer { offset, local, ..self }
    }

    /// Where its packets go.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_ref()
    }

    /// Books a packet sent, and tells once that few sequence numbers are left.
    fn sent(&mut self, now: Instant, id: PeerId, events: &mut Deque<SealerEvent, EVENTS>) {
        self.traffic.last = Some(now);
        self.speaks(now);
        let left = self.sa.as_ref().map_or(0, |sa| sa.sequence.remaining());
        // Without room for the event it is told with the next packet.
        if left < self.announce_below && events.push_back(SealerEvent::Exhausting(id)).is_ok() {
            self.announce_below = 0;
        }
    }

    /// Books a packet dropped for want of an SA, and asks for one.
    fn lacks_sa(&mut self, now: Instant, id: PeerId, events: &mut Deque<SealerEvent, EVENTS>) {
        let second = now.saturating_since(Instant::ZERO).as_secs() as u32;
        let second = NonZeroU32::MIN.saturating_add(second);
        if self.asked != Some(second) && events.push_back(SealerEvent::Wanted(id)).is_ok() {
            self.asked = Some(second);
        }
    }

    /// We say something to it, or would have.
    fn speaks(&mut self, now: Instant) {
        self.silent_since = now;
        self.greet = false;
    }

    /// When its next keepalive is due, if it can be sent one.
    fn keepalive_due(&self) -> Option<Instant> {
        if self.sa.is_none() || self.path.is_none() {
            return None;
        }
        if self.greet {
            return Some(Instant::ZERO);
        }
        let interval = Duration::from_millis(self.keepalive?.get().into());
        if self.silent_since == NEVER {
            return Some(Instant::ZERO);
        }
        Some(self.silent_since.saturating_add(interval))
    }

    /// The largest outer packet that reaches it, in bytes.
    #[must_use]
    pub fn path_mtu(&self) -> usize {
        self.path_mtu.into()
    }

    /// Packets and bytes sealed, and when the last one was.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// The SA in use.
    #[must_use]
    pub fn sa(&self) -> Option<&OutboundSa<A>> {
        self.sa.as_ref()
    }

    /// Length in bytes of the largest inner packet that fits its path whole; 0 without a path.
    #[must_use]
    pub fn largest_inner(&self) -> usize {
        self.path.map_or(0, |path| pmtu::largest_inner(self.path_mtu.into(), path.outer_len()))
    }
}

/// What became of a packet from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Sealed {
    /// Sealed in place: send it.
    Transmit(PeerId, Transmit),
    /// Unchanged, and too big for the path: cut it ([`Fragments`](crate::fragment::Fragments))
    /// into packets of at most this many bytes and seal each.
    Fragment(usize),
    /// Unchanged and counted as dropped: tell its sender this MTU
    /// ([`answer_too_big`](crate::icmp::answer_too_big)).
    TooBig(usize),
}

/// What the outbound half has to tell the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SealerEvent {
    /// Few sequence numbers are left on the peer's SA: extend it, or install another.
    Exhausting(PeerId),
    /// Packets for the peer are dropped because it has no SA; told once a second.
    Wanted(PeerId),
}

/// The outbound half of a tunnel.
pub struct Sealer<'a, A: Aead> {
    spd: Spd<'a>,
    peers: ManagedSlice<'a, OutboundSlot<'a, A>>,
    discards: Discards,
    events: Deque<SealerEvent, EVENTS>,
    keepalives: Keepalives,
}

/// The walk over all peers in search of those that were silent for too long.
#[derive(Default)]
struct Keepalives {
    /// No walk begins before this.
    due: Option<Instant>,
    /// Where the walk goes on.
    cursor: u32,
    /// The earliest deadline met during this walk.
    earliest: Option<Instant>,
}

impl<'a, A: Aead> Sealer<'a, A> {
    /// No peers yet.
    #[must_use]
    pub fn new(spd: Spd<'a>, mut peers: ManagedSlice<'a, OutboundSlot<'a, A>>) -> Sealer<'a, A> {
        peers.iter_mut().for_each(|slot| *slot = None);
        Sealer {
            spd,
            peers,
            discards: Discards::default(),
            events: Deque::new(),
            keepalives: Keepalives::default(),
        }
    }

    /// How many peers there is room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.peers.len()
    }

    /// Seals the IP packet that the host routed into the tunnel.
    ///
    /// `packet` has [`HEADROOM`](crate::HEADROOM) and [`TAILROOM`](crate::TAILROOM). Its transport
    /// checksum is complete.
    ///
    /// # Errors
    /// Why the packet was dropped, already counted.
    pub fn seal(&mut self, now: Instant, packet: &mut PacketBuf<'_>) -> Result<Sealed, Discard> {
        let sealed = self.try_seal(now, packet);
        match sealed {
            Err(why) => self.discards.count(why),
            Ok(Sealed::TooBig(_)) => self.discards.count(Discard::TooBig),
            Ok(_) => {}
        }
        sealed
    }

    fn try_seal(&mut self, now: Instant, packet: &mut PacketBuf<'_>) -> Result<Sealed, Discard> {
        let inner = Inner::parse(packet.as_slice())?;
        packet.truncate(inner.len);
        let id = self.spd.lookup(inner.destination).ok_or(Discard::NoPolicy)?;
        let slot = self.peers.get_mut(id.index()).and_then(Option::as_mut);
        let peer = slot.ok_or(Discard::NoPolicy)?;
        if !peer.local.contain(inner.source) {
            return Err(Discard::OutsideSelector);
        }
        if peer.sa.is_none() {
            peer.lacks_sa(now, id, &mut self.events);
        }
        let sa = peer.sa.as_mut().ok_or(Discard::NoSa)?;
        let path = peer.path.ok_or(Discard::NoEndpoint)?;
        let destinations = [inner.destination, peer.offset.to_wire(inner.destination)];
        if inner::is_own_outer(packet.as_slice(), destinations, &path, sa.spi) {
            return Err(Discard::Loop);
        }
        let oversize = match pmtu::fit(packet.as_slice(), peer.path_mtu.into(), path.outer_len())? {
            Fit::Whole => false,
            Fit::Oversize => true,
            Fit::Fragment(mtu) => return Ok(Sealed::Fragment(mtu)),
            Fit::TooBig(mtu) => return Ok(Sealed::TooBig(mtu)),
        };
        peer.offset.shift_destination(packet.as_mut_slice(), Checksum::Full)?;
        let traffic_class = ecn::outer_traffic_class(packet.as_slice())?;
        esp::seal(sa, packet, inner.next_header())?;
        peer.traffic.count(inner.len);
        peer.sent(now, id, &mut self.events);
        let transmit = Transmit { path, traffic_class, len: packet.len(), oversize };
        Ok(Sealed::Transmit(id, transmit))
    }

    /// Look-ahead, the first step: begins to fetch the policy for an IP packet of the host.
    pub fn fetch_policy(&self, packet: &[u8], fetch: &impl Fetch<A>) {
        if let Ok(inner) = Inner::parse(packet) {
            self.spd.fetch(inner.destination, fetch);
        }
    }

    /// The second: begins to fetch the peer that the policy names, which should be there by now.
    pub fn fetch_peer(&self, packet: &[u8], fetch: &impl Fetch<A>) -> Option<PeerId> {
        let inner = Inner::parse(packet).ok()?;
        let id = self.spd.lookup(inner.destination)?;
        fetch.value(self.peers.get(id.index())?);
        Some(id)
    }

    /// The third: begins to fetch the key of that peer, which should be there by now.
    pub fn fetch_key(&self, id: PeerId, fetch: &impl Fetch<A>) {
        if let Some(sa) = self.peer(id).and_then(OutboundPeer::sa) {
            fetch.key(&sa.key);
        }
    }

    /// Seals a dummy packet (RFC 4303 §2.6) to `id` into `packet`, which is emptied first: a
    /// keepalive that also proves to the peer where we are.
    ///
    /// # Errors
    /// [`Discard::NoSa`], [`Discard::NoEndpoint`], or as [`esp::seal`]; already counted.
    pub fn seal_dummy(
        &mut self,
        now: Instant,
        id: PeerId,
        packet: &mut PacketBuf<'_>,
    ) -> Result<Transmit, Discard> {
        let sealed = self.try_seal_dummy(now, id, packet);
        sealed.inspect_err(|why| self.discards.count(*why))
    }

    fn try_seal_dummy(
        &mut self,
        now: Instant,
        id: PeerId,
        packet: &mut PacketBuf<'_>,
    ) -> Result<Transmit, Discard> {
        packet.truncate(0);
        let slot = self.peers.get_mut(id.index()).and_then(Option::as_mut);
        let peer = slot.ok_or(Discard::NoSa)?;
        if peer.sa.is_none() {
            return Err(Discard::NoSa);
        }
        let path = peer.path.ok_or(Discard::NoEndpoint)?;
        // Also if it fails: no further attempt before the next interval.
        peer.speaks(now);
        let sa = peer.sa.as_mut().ok_or(Discard::NoSa)?;
        esp::seal(sa, packet, NextHeader::Dummy)?;
        peer.sent(now, id, &mut self.events);
        Ok(Transmit { path, traffic_class: 0, len: packet.len(), oversize: false })
    }

    /// The next keepalive that is due by `now`, sealed into `packet` (see
    /// [`seal_dummy`](Self::seal_dummy)). To be called until it returns `None`.
    pub fn poll_keepalive(
        &mut self,
        now: Instant,
        packet: &mut PacketBuf<'_>,
    ) -> Option<(PeerId, Transmit)> {
        if self.keepalives.due.is_none_or(|due| now < due) {
            return None;
        }
        while (self.keepalives.cursor as usize) < self.peers.len() {
            let id = PeerId(self.keepalives.cursor);
            self.keepalives.cursor += 1;
            let due = self.peer(id).and_then(OutboundPeer::keepalive_due);
            let sealed = due.filter(|due| *due <= now).map(|_| self.seal_dummy(now, id, packet));
            let next = self.peer(id).and_then(OutboundPeer::keepalive_due);
            let earliest = self.keepalives.earliest;
            self.keepalives.earliest = earliest.into_iter().chain(next).min();
            if let Some(Ok(transmit)) = sealed {
                return Some((id, transmit));
            }
        }
        // Deadlines within one second share a walk, however many peers there are.
        let soonest = now.saturating_add(Duration::from_secs(1));
        let due = self.keepalives.earliest.map(|earliest| earliest.max(soonest));
        self.keepalives = Keepalives { due, ..Keepalives::default() };
        None
    }

    /// When to call [`poll_keepalive`](Self::poll_keepalive) next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.keepalives.due
    }

    /// Sends the peer a keepalive after so much silence, to the millisecond, at least one and at
    /// most 49 days; `None`: never.
    pub fn set_keepalive(&mut self, id: PeerId, interval: Option<Duration>) {
        if let Some(peer) = self.peer_mut(id) {
            peer.keepalive = interval.map(|interval| {
                let milliseconds = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
                NonZeroU32::new(milliseconds).unwrap_or(NonZeroU32::MIN)
            });
        }
        self.reconsider_keepalives();
    }

    /// Sends the peer a keepalive at the next occasion: our address has changed, and until it
    /// hears us it answers to the old one.
    pub fn greet(&mut self, id: PeerId) {
        if let Some(peer) = self.peer_mut(id) {
            peer.greet = true;
        }
        self.reconsider_keepalives();
    }

    /// A peer may have become due: walk at the next occasion.
    fn reconsider_keepalives(&mut self) {
        self.keepalives = Keepalives { due: Some(Instant::ZERO), ..Keepalives::default() };
    }

    /// The next thing to tell the control plane.
    pub fn poll_event(&mut self) -> Option<SealerEvent> {
        self.events.pop_front()
    }

    /// Puts `peer` into slot `id`, replacing the one there.
    ///
    /// # Errors
    /// [`SpdError::Full`] if there is no such slot.
    pub fn insert_peer(&mut self, id: PeerId, peer: OutboundPeer<'a, A>) -> Result<(), SpdError> {
        *self.peers.get_mut(id.index()).ok_or(SpdError::Full)? = Some(peer);
        Ok(())
    }

    /// Removes a peer with its SA; its prefixes have to be removed, too.
    pub fn remove_peer(&mut self, id: PeerId) -> Option<OutboundPeer<'a, A>> {
        self.peers.get_mut(id.index()).and_then(Option::take)
    }

    /// Protects traffic to `prefix` (host space) by sending it to `id`.
    ///
    /// # Errors
    /// As [`Spd::insert`].
    pub fn insert_policy(&mut self, prefix: &IpCidr, id: PeerId) -> Result<(), SpdError> {
        self.spd.insert(prefix, id)
    }

    /// Takes back [`insert_policy`](Self::insert_policy).
    pub fn remove_policy(&mut self, prefix: &IpCidr) -> Option<PeerId> {
        self.spd.remove(prefix)
    }

    /// Uses `sa` for what is sent to the peer from now on; returns the SA used before.
    /// [`SealerEvent::Exhausting`] comes when fewer than `announce_below` numbers are left.
    ///
    /// Without such a peer `sa` is dropped.
    pub fn install(
        &mut self,
        id: PeerId,
        sa: OutboundSa<A>,
        announce_below: u64,
    ) -> Option<OutboundSa<A>> {
        self.reconsider_keepalives();
        let peer = self.peer_mut(id)?;
        debug!("peer {}: outbound SA {:#x} in use", id.0, sa.spi);
        peer.announce_below = announce_below;
        peer.sa.replace(sa)
    }

    /// Stops sending to the peer.
    pub fn uninstall(&mut self, id: PeerId) -> Option<OutboundSa<A>> {
        debug!("peer {}: no outbound SA any more", id.0);
        self.peer_mut(id)?.sa.take()
    }

    /// Allows the peer's SA sequence numbers up to `limit`, and arms the announcement of their
    /// end again.
    pub fn extend(&mut self, id: PeerId, limit: u64, announce_below: u64) {
        if let Some(peer) = self.peer_mut(id)
            && let Some(sa) = peer.sa.as_mut()
        {
            sa.sequence.extend(limit);
            peer.announce_below = announce_below;
        }
    }

    /// Sends the peer's packets this way from now on.
    pub fn set_path(&mut self, id: PeerId, path: Option<Path>) {
        if let Some(peer) = self.peer_mut(id) {
            peer.path = path;
        }
        self.reconsider_keepalives();
    }

    /// The largest outer packet that reaches the peer, in bytes; at most 65,535.
    pub fn set_path_mtu(&mut self, id: PeerId, mtu: usize) {
        if let Some(peer) = self.peer_mut(id) {
            peer.path_mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        }
    }

    /// The peer in slot `id`.
    #[must_use]
    pub fn peer(&self, id: PeerId) -> Option<&OutboundPeer<'a, A>> {
        self.peers.get(id.index()).and_then(Option::as_ref)
    }

    fn peer_mut(&mut self, id: PeerId) -> Option<&mut OutboundPeer<'a, A>> {
        self.peers.get_mut(id.index()).and_then(Option::as_mut)
    }

    /// All peers with their slots.
    pub fn peers(&self) -> impl Iterator<Item = (PeerId, &OutboundPeer<'a, A>)> {
        (0..).map(PeerId).zip(self.peers.iter()).filter_map(|(id, slot)| Some((id, slot.as_ref()?)))
    }

    /// Counts a packet that its caller dropped, on the way to [`seal`](Self::seal) or from it.
    pub fn count_discard(&mut self, why: Discard) {
        self.discards.count(why);
    }

    /// Packets dropped so far, by reason.
    #[must_use]
    pub fn discards(&self) -> &Discards {
        &self.discards
    }
}
