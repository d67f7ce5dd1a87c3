//! The inbound half: packets from the wire become packets for the host.
//!
//! Implements inbound processing of RFC 4301 §5.2: the SA by SPI, anti-replay, the AEAD, then the
//! inner addresses against what was agreed with the peer. It never waits for the outbound half
//! and shares nothing with it.

use core::net::IpAddr;

use heapless::Deque;
use managed::ManagedSlice;
use smoltcp::wire::IpCidr;

use crate::ahead::Fetch;
use crate::checksum::Checksum;
use crate::counters::{Discard, Discards, Traffic};
use crate::crypto::Aead;
use crate::ecn;
use crate::esp;
use crate::inner::Inner;
use crate::offset::Offset;
use crate::packet::PacketBuf;
use crate::path::Path;
use crate::sad::{InboundSa, Sad, SadError};
use crate::selectors::Selectors;
use crate::spd::{PeerId, Prefix, Spd, SpdError};
use crate::time::Instant;
use crate::trace::debug;
use crate::wire::esp::{Header, NextHeader};

/// How many events wait at most; a further one is told again later.
const EVENTS: usize = 16;

/// An inbound peer, in a slot that the caller lends.
///
/// As with [`OutboundPeer`](crate::OutboundPeer), what each packet needs lies in front.
#[repr(C)]
pub struct InboundPeer<'a> {
    traffic: Traffic,
    path: Option<Path>,
    /// The prefix that its last packet came from, in host space, if no other peer has a part of it
    /// ([`Spd::is_whole`]): a packet from there needs no further look.
    from: Option<Prefix>,
    offset: Offset,
    local: Selectors<'a>,
}

/// One slot of storage for an inbound peer; `None` is empty.
pub type InboundSlot<'a> = Option<InboundPeer<'a>>;

impl<'a> InboundPeer<'a> {
    /// A peer that was not heard yet.
    #[must_use]
    pub fn new(offset: Offset, local: Selectors<'a>) -> InboundPeer<'a> {
        InboundPeer { traffic: Traffic::default(), path: None, from: None, offset, local }
    }

    /// The same peer, with its counters, under another offset and other selectors.
    #[must_use]
    pub fn with_policy(self, offset: Offset, local: Selectors<'a>) -> InboundPeer<'a> {
        InboundPeer { from: None, offset, local, ..self }
    }

    /// Packets and bytes opened, and when the last one was authenticated.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// The path of the newest authenticated packet.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_ref()
    }
}

/// What the inbound half has to tell the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenerEvent {
    /// The peer's newest authenticated packet came on another path than the one before.
    Moved(PeerId, Path),
}

/// The inbound half of a tunnel.
pub struct Opener<'a, A: Aead> {
    sad: Sad<'a, A>,
    spd: Spd<'a>,
    peers: ManagedSlice<'a, InboundSlot<'a>>,
    discards: Discards,
    events: Deque<OpenerEvent, EVENTS>,
}

impl<'a, A: Aead> Opener<'a, A> {
    /// No peers yet.
    #[must_use]
    pub fn new(
        sad: Sad<'a, A>,
        spd: Spd<'a>,
        mut peers: ManagedSlice<'a, InboundSlot<'a>>,
    ) -> Opener<'a, A> {
        peers.iter_mut().for_each(|slot| *slot = None);
        Opener { sad, spd, peers, discards: Discards::default(), events: Deque::new() }
    }

    /// Opens an ESP packet that came on path `from` with this outer traffic class (DSCP and ECN).
    ///
    /// `packet` begins with the ESP header. Opened, it is the inner IP packet, in host space.
    ///
    /// # Errors
    /// Why the packet was dropped, already counted.
    pub fn open(
        &mut self,
        now: Instant,
        from: &Path,
        traffic_class: u8,
        packet: &mut PacketBuf<'_>,
    ) -> Result<PeerId, Discard> {
        let opened = self.try_open(now, from, traffic_class, packet);
        opened.inspect_err(|why| self.discards.count(*why))
    }

    fn try_open(
        &mut self,
        now: Instant,
        from: &Path,
        traffic_class: u8,
        packet: &mut PacketBuf<'_>,
    ) -> Result<PeerId, Discard> {
        let header = Header::parse(packet.as_slice()).ok_or(Discard::Malformed)?;
        let sa = self.sad.get_mut(header.spi).ok_or(Discard::UnknownSpi)?;
        let id = sa.peer;
        let opened = esp::open(sa, packet)?;
        let slot = self.peers.get_mut(id.index()).and_then(Option::as_mut);
        let peer = slot.ok_or(Discard::UnknownSpi)?;
        peer.traffic.last = Some(now);
        if opened.newest
            && peer.path != Some(*from)
            && self.events.push_back(OpenerEvent::Moved(id, *from)).is_ok()
        {
            peer.path = Some(*from);
        }

        let inner = parse_payload(opened.next_header, packet)?;
        ecn::decapsulate(packet.as_mut_slice(), traffic_class)?;
        check_selectors(&self.spd, peer, id, inner.source, inner.destination)?;
        peer.offset.shift_source(packet.as_mut_slice(), Checksum::Full)?;
        peer.traffic.count(inner.len);
        Ok(id)
    }

    /// Look-ahead, the first step: begins to fetch the SA that `packet`, which begins with its ESP
    /// header, asks for.
    pub fn fetch_sa(&self, packet: &[u8], fetch: &impl Fetch<A>) {
        if let Some(header) = Header::parse(packet) {
            self.sad.fetch(header.spi, fetch);
        }
    }

    /// The second: begins to fetch what that SA leads to. It should be there by now.
    pub fn fetch_state(&self, packet: &[u8], fetch: &impl Fetch<A>) {
        let sa = Header::parse(packet).and_then(|header| self.sad.get(header.spi));
        let Some(sa) = sa else { return };
        fetch.key(&sa.key);
        fetch.value(sa.window.edge());
        if let Some(slot) = self.peers.get(sa.peer.index()) {
            fetch.value(slot);
        }
    }

    /// The next thing to tell the control plane.
    pub fn poll_event(&mut self) -> Option<OpenerEvent> {
        self.events.pop_front()
    }

    /// Forgets on which path the peer was heard: its next packet tells it as a new one.
    pub fn forget_path(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(id.index()).and_then(Option::as_mut) {
            peer.path = None;
        }
    }

    /// Puts `peer` into slot `id`, replacing the one there.
    ///
    /// # Errors
    /// [`SpdError::Full`] if there is no such slot.
    pub fn insert_peer(&mut self, id: PeerId, peer: InboundPeer<'a>) -> Result<(), SpdError> {
        let slot = self.peers.get_mut(id.index()).ok_or(SpdError::Full)?;
        *slot = Some(InboundPeer { from: None, ..peer });
        Ok(())
    }

    /// Removes a peer; its prefixes and SAs have to be removed, too.
    pub fn remove_peer(&mut self, id: PeerId) -> Option<InboundPeer<'a>> {
        self.peers.get_mut(id.index()).and_then(Option::take)
    }

    /// Accepts inner sources in `prefix` (host space) from `id`.
    ///
    /// # Errors
    /// As [`Spd::insert`].
    pub fn insert_policy(&mut self, prefix: &IpCidr, id: PeerId) -> Result<(), SpdError> {
        for around in self.spd.around(prefix) {
            if let Some(peer) = self.peers.get_mut(around.index()).and_then(Option::as_mut) {
                peer.from = None;
            }
        }
        self.spd.insert(prefix, id)
    }

    /// Takes back [`insert_policy`](Self::insert_policy).
    pub fn remove_policy(&mut self, prefix: &IpCidr) -> Option<PeerId> {
        let id = self.spd.remove(prefix)?;
        if let Some(peer) = self.peers.get_mut(id.index()).and_then(Option::as_mut) {
            peer.from = None;
        }
        Some(id)
    }

    /// Accepts packets under this SA from now on.
    ///
    /// # Errors
    /// As [`Sad::insert`].
    pub fn install(&mut self, sa: InboundSa<'a, A>) -> Result<(), SadError> {
        debug!("peer {}: inbound SA {:#x} installed", sa.peer.0, sa.spi);
        self.sad.insert(sa)
    }

    /// Accepts no more packets under this SPI.
    pub fn uninstall(&mut self, spi: u32) -> Option<InboundSa<'a, A>> {
        debug!("inbound SA {:#x} removed", spi);
        self.sad.remove(spi)
    }

    /// An SPI for a new SA; see [`Sad::allocate_spi`].
    pub fn allocate_spi(&mut self, random: u32) -> Option<u32> {
        self.sad.allocate_spi(random)
    }

    /// The SA with this SPI.
    #[must_use]
    pub fn sa(&self, spi: u32) -> Option<&InboundSa<'a, A>> {
        self.sad.get(spi)
    }

    /// The peer in slot `id`.
    #[must_use]
    pub fn peer(&self, id: PeerId) -> Option<&InboundPeer<'a>> {
        self.peers.get(id.index()).and_then(Option::as_ref)
    }

    /// Counts a packet that its caller dropped, on the way to [`open`](Self::open) or from it.
    pub fn count_discard(&mut self, why: Discard) {
        self.discards.count(why);
    }

    /// Packets dropped so far, by reason.
    #[must_use]
    pub fn discards(&self) -> &Discards {
        &self.discards
    }
}

/// The inner packet behind `next_header`, with TFC padding (RFC 4303 §2.7) taken off.
fn parse_payload(next_header: NextHeader, packet: &mut PacketBuf<'_>) -> Result<Inner, Discard> {
    if next_header == NextHeader::Dummy {
        return Err(Discard::Dummy);
    }
    let inner = Inner::parse(packet.as_slice())?;
    if inner.next_header() != next_header {
        return Err(Discard::Malformed);
    }
    packet.truncate(inner.len);
    Ok(inner)
}

/// RFC 4301 §5.2: the inner source is the peer's, the inner destination among our selectors.
///
/// The source is looked up in host space, where each address belongs to one peer: two peers may
/// use the same addresses in wire space.
fn check_selectors(
    spd: &Spd<'_>,
    peer: &mut InboundPeer<'_>,
    id: PeerId,
    source: IpAddr,
    destination: IpAddr,
) -> Result<(), Discard> {
    let source = peer.offset.to_host(source);
    if !peer.from.is_some_and(|prefix| prefix.holds(source)) {
        let (prefix, owner) = spd.find(source).ok_or(Discard::OutsideSelector)?;
        if owner != id {
            return Err(Discard::OutsideSelector);
        }
        // A wide prefix leaves to other peers what is theirs.
        peer.from = spd.is_whole(&prefix).then_some(prefix);
    }
    if peer.local.contain(destination) { Ok(()) } else { Err(Discard::OutsideSelector) }
}
