//! The facade for those who have one thread: both halves, ICMP answers, fragments, keepalives.
//!
//! [`Sealer`] and [`Opener`] can be had on their own, one thread each; this module only joins
//! them. It installs no SAs: that is the control plane's business, through the halves.

use crate::counters::{Discard, Discards};
use crate::crypto::Aead;
use crate::fragment::Fragments;
use crate::icmp::{self, RateLimit};
use crate::opener::{Opener, OpenerEvent};
use crate::packet::{HEADROOM, PacketBuf};
use crate::path::{Path, Transmit};
use crate::sealer::{Sealed, Sealer, SealerEvent};
use crate::spd::PeerId;
use crate::time::Instant;
use crate::trace::debug;

/// ICMP errors per second on average, and at once.
const ICMP_PER_SECOND: u32 = 100;
const ICMP_BURST: u32 = 50;

/// A packet that the tunnel hands back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emit<'p> {
    /// A sealed packet for the wire, from its ESP header on.
    Wire(Transmit, &'p [u8]),
    /// An IP packet for the host: an ICMP error about one it sent.
    Host(&'p [u8]),
}

/// What the control plane should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Few sequence numbers are left on the peer's outbound SA.
    Exhausting(PeerId),
    /// Packets for the peer are dropped because it has no SA; told once a second.
    Wanted(PeerId),
    /// The peer is now reached, and answered, on another path.
    Moved(PeerId, Path),
}

/// Both halves of a tunnel.
pub struct Tunnel<'a, A: Aead> {
    /// The outbound half.
    pub sealer: Sealer<'a, A>,
    /// The inbound half.
    pub opener: Opener<'a, A>,
    icmp_limit: RateLimit,
}

impl<'a, A: Aead> Tunnel<'a, A> {
    /// Joins two halves.
    #[must_use]
    pub fn new(sealer: Sealer<'a, A>, opener: Opener<'a, A>) -> Tunnel<'a, A> {
        Tunnel { sealer, opener, icmp_limit: RateLimit::new(ICMP_PER_SECOND, ICMP_BURST) }
    }

    /// Takes an IP packet that the host routed into the tunnel, and hands what becomes of it to
    /// `emit`: mostly one sealed packet, several when it has to be fragmented, or an ICMP error
    /// for the host.
    ///
    /// `packet` has [`HEADROOM`] and [`TAILROOM`](crate::TAILROOM). `scratch` takes one fragment
    /// at a time and is best as long as the path MTU plus both.
    ///
    /// # Errors
    /// Why the packet (or one of its fragments) was dropped, already counted.
    pub fn outbound(
        &mut self,
        now: Instant,
        packet: &mut PacketBuf<'_>,
        scratch: &mut [u8],
        mut emit: impl FnMut(Emit<'_>),
    ) -> Result<(), Discard> {
        match self.sealer.seal(now, packet)? {
            Sealed::Transmit(_, transmit) => {
                emit(Emit::Wire(transmit, packet.as_slice()));
                Ok(())
            }
            Sealed::TooBig(mtu) => {
                if self.icmp_limit.allow(now) && icmp::answer_too_big(packet, mtu).is_ok() {
                    emit(Emit::Host(packet.as_slice()));
                }
                Err(Discard::TooBig)
            }
            Sealed::Fragment(mtu) => self.outbound_fragments(now, packet, mtu, scratch, emit),
        }
    }

    fn outbound_fragments(
        &mut self,
        now: Instant,
        packet: &PacketBuf<'_>,
        mtu: usize,
        scratch: &mut [u8],
        mut emit: impl FnMut(Emit<'_>),
    ) -> Result<(), Discard> {
        let fragments = Fragments::new(packet.as_slice(), mtu);
        let mut fragments = fragments.map_err(|why| self.outbound_dropped(why))?;
        loop {
            let fragment = next_fragment(&mut fragments, scratch);
            let Some(mut fragment) = fragment.map_err(|why| self.outbound_dropped(why))? else {
                return Ok(());
            };
            if let Sealed::Transmit(_, transmit) = self.sealer.seal(now, &mut fragment)? {
                emit(Emit::Wire(transmit, fragment.as_slice()));
            }
        }
    }

    fn outbound_dropped(&mut self, why: Discard) -> Discard {
        self.sealer.count_discard(why);
        why
    }

    /// Takes an ESP packet that came on path `from` with this outer traffic class; opened, it is
    /// an IP packet for the host.
    ///
    /// # Errors
    /// Why the packet was dropped, already counted.
    pub fn inbound(
        &mut self,
        now: Instant,
        from: &Path,
        traffic_class: u8,
        packet: &mut PacketBuf<'_>,
    ) -> Result<PeerId, Discard> {
        self.opener.open(now, from, traffic_class, packet)
    }

    /// The next packet that the tunnel sends of its own accord by `now` (a keepalive), sealed
    /// into `packet`, a new one for each call. To be called until it returns `None`.
    pub fn poll_transmit(&mut self, now: Instant, packet: &mut PacketBuf<'_>) -> Option<Transmit> {
        self.sealer.poll_keepalive(now, packet).map(|(_, transmit)| transmit)
    }

    /// When to call [`poll_transmit`](Self::poll_transmit) next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.sealer.poll_timeout()
    }

    /// Sends the peer's packets on `path` until it is heard on another, be it the one on which it
    /// was heard last.
    pub fn set_path(&mut self, peer: PeerId, path: Option<Path>) {
        self.sealer.set_path(peer, path);
        self.opener.forget_path(peer);
    }

    /// The next event. A peer that moved is already answered on its new path.
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(OpenerEvent::Moved(peer, path)) = self.opener.poll_event() {
            debug!("peer {} moved", peer.0);
            self.sealer.set_path(peer, Some(path));
            return Some(Event::Moved(peer, path));
        }
        self.sealer.poll_event().map(|event| match event {
            SealerEvent::Exhausting(peer) => Event::Exhausting(peer),
            SealerEvent::Wanted(peer) => Event::Wanted(peer),
        })
    }

    /// Packets dropped so far in both directions, by reason.
    #[must_use]
    pub fn discards(&self) -> Discards {
        self.sealer.discards().merged(self.opener.discards())
    }
}

/// The next fragment, in `scratch` behind headroom.
fn next_fragment<'s>(
    fragments: &mut Fragments<'_>,
    scratch: &'s mut [u8],
) -> Result<Option<PacketBuf<'s>>, Discard> {
    let room = scratch.get_mut(HEADROOM..).ok_or(Discard::NoRoom)?;
    match fragments.next_into(room)? {
        Some(len) => PacketBuf::new(scratch, HEADROOM, len).map(Some),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests;
