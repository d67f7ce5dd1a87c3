//! The endpoint: which IKE SA a message is for, and what concerns several of them.
//!
//! Sans-IO: the caller brings datagrams and the time, and takes datagrams, events and the next
//! deadline. All storage is lent.

use core::time::Duration;

use heapless::Deque;
use managed::ManagedSlice;
use rand_core::CryptoRng;

use super::exchange::{self, init, rekey_ike};
use super::keymat::IkeSpis;
use super::link::Link;
use super::pad::Pad;
use super::path::{IkePath, Target};
use super::queue::Events;
use super::reason::Reason;
use super::sa::{Env, IkeSa, Outcome, State};
use super::sad::SaDatabase;
use super::status::{IkeEvent, IkeStatus};
use super::suite::Preferences;
use super::timer::Timer;
use super::want::Want;
use super::wire::numbers::ExchangeType;
use super::wire::sk::{OpenError, Opened, Sealed};
use super::wire::skf::{Reassembled, Reassembly, ReassemblyError};
use super::wire::{Header, Malformed};
use super::{child, cookie};
use crate::spd::PeerId;
use crate::time::Instant;

/// How many slots an endpoint can have: the low bits of our SPIs are a slot's number.
pub const MAX_SLOTS: usize = 1 << SLOT_BITS;
const SLOT_BITS: u32 = 20;
/// How long an IKE SA that has ended answers the same request again.
const LINGER: Duration = Duration::from_secs(10);
/// How long a slot is kept free for the successor of an IKE SA: longer than its request is sent.
const RESERVATION: Duration = Duration::from_secs(60);
/// How many slots are remembered as having something to send, before all are looked through.
const OUTBOX_LEN: usize = 16;

/// One slot of storage for an IKE SA; `None` is empty.
pub type IkeSlot = Option<IkeSa>;

/// What holds for all peers.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The algorithms.
    pub preferences: Preferences,
    /// After how long without a sign of life a peer is asked for one.
    pub liveness: Duration,
    /// How many IKE SAs may be half open, that is, begun by somebody who is not authenticated.
    pub half_open_limit: usize,
    /// From how many half open ones on a stranger has to return a cookie first
    /// (RFC 7296 §2.6).
    pub cookie_threshold: usize,
}

impl Settings {
    /// The usual ones.
    #[must_use]
    pub fn new(preferences: Preferences) -> Settings {
        Settings {
            preferences,
            liveness: Duration::from_secs(30),
            half_open_limit: 64,
            cookie_threshold: 16,
        }
    }
}

/// What the caller lends for one call.
pub struct Context<'c> {
    /// Where all secrets come from.
    pub rng: &'c mut dyn CryptoRng,
    /// The peers.
    pub pad: &'c dyn Pad,
    /// The SAs that packets use.
    pub sad: &'c mut dyn SaDatabase,
}

/// A message to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the peer waits for it"]
pub struct IkeTransmit {
    /// From where, to where, and whether the non-ESP marker has to be put in front.
    pub path: IkePath,
    /// Its length in bytes.
    pub len: usize,
}

/// An IKE endpoint: initiator and responder for any number of peers.
pub struct Ike<'a> {
    settings: Settings,
    slots: ManagedSlice<'a, IkeSlot>,
    reassembly: Reassembly<'a>,
    guard: cookie::Guard,
    events: Events,
    /// The slots that have something to send; `None` if they are more than fit.
    outbox: Option<Deque<u32, OUTBOX_LEN>>,
    /// An answer to a stranger, of whom nothing is kept.
    stateless: init::Stateless,
    /// No IKE SA has anything to do before.
    earliest: Option<Instant>,
    /// Where the search for a free slot begins.
    next_free: usize,
}

impl<'a> Ike<'a> {
    /// An endpoint of at most `slots.len()` IKE SAs (of which [`MAX_SLOTS`] are used): one for
    /// each peer, and some more for those that are being replaced and for strangers.
    ///
    /// `reassembly` takes the payloads of one fragmented message of a peer's; 4096 bytes are
    /// plenty.
    #[must_use]
    pub fn new(
        settings: Settings,
        mut slots: ManagedSlice<'a, IkeSlot>,
        reassembly: ManagedSlice<'a, u8>,
        rng: &mut dyn CryptoRng,
    ) -> Ike<'a> {
        slots.iter_mut().for_each(|slot| *slot = None);
        Ike {
            settings,
            slots,
            reassembly: Reassembly::new(reassembly),
            guard: cookie::Guard::new(rng),
            events: Events::default(),
            outbox: Some(Deque::new()),
            stateless: init::Stateless::default(),
            earliest: None,
            next_free: 0,
        }
    }

    /// What holds for all peers; a change counts from the next exchange on.
    pub fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// Takes a datagram that came on `path`, without the non-ESP marker. It is decrypted where it
    /// lies.
    pub fn handle(
        &mut self,
        now: Instant,
        cx: &mut Context<'_>,
        path: &IkePath,
        datagram: &mut [u8],
    ) {
        let header = match Header::parse(datagram) {
            Ok(header) => header,
            Err(malformed) => return self.handle_headless(now, path, datagram, malformed),
        };
        match (header.exchange, header.response) {
            (ExchangeType::IKE_SA_INIT, false) => self.handle_stranger(now, cx, path, datagram),
            (exchange, _) => {
                let Some(at) = self.find(&header) else { return };
                if exchange == ExchangeType::IKE_SA_INIT {
                    self.with(at, now, cx, &mut |sa, env| {
                        init::handle_response(sa, env, path, datagram)
                    });
                } else {
                    self.handle_protected(at, now, cx, path, datagram);
                }
            }
        }
    }

    /// Something whose header makes no sense: somebody may speak a later version of IKE.
    fn handle_headless(
        &mut self,
        now: Instant,
        path: &IkePath,
        datagram: &[u8],
        malformed: Malformed,
    ) {
        if let Malformed::MajorVersion(3..) = malformed
            && self.guard.allows(now, path.remote.ip())
        {
            self.stateless.refuse_version(path, datagram);
        }
    }

    /// A message of an exchange that is protected.
    fn handle_protected(
        &mut self,
        at: usize,
        now: Instant,
        cx: &mut Context<'_>,
        path: &IkePath,
        datagram: &mut [u8],
    ) {
        let Ok(sealed) = Sealed::parse(datagram) else { return };
        let Some(sa) = self.slots.get(at).and_then(Option::as_ref) else { return };
        let header = *sealed.header();
        let half_open = !sa.is_established();
        if let Some(position) = sealed.fragment()
            && self.reassembly.has(&header, position)
        {
            return;
        }
        match sa.link.open(sealed) {
            Err(OpenError::BadIcv) => {}
            Err(OpenError::Malformed(malformed)) => self.with(at, now, cx, &mut |sa, env| {
                sa.follow(path, &header);
                exchange::handle_message(sa, env, &header, Err(malformed))
            }),
            Ok(Opened::Message(message)) => self.with(at, now, cx, &mut |sa, env| {
                sa.follow(path, &header);
                exchange::handle_message(sa, env, &header, Ok(&message))
            }),
            Ok(Opened::Fragment(fragment)) => {
                let _ = half_open;
                let Ok(Reassembled::Message(_)) = self.reassembly.add(&fragment) else { return };
            }
        }
    }

    /// The IKE SA that a message is for.
    fn find(&self, header: &Header) -> Option<usize> {
        let own = if header.from_initiator { header.spis.responder } else { header.spis.initiator };
        let at = slot_of(own);
        let sa = self.slots.get(at)?.as_ref()?;
        (sa.link.own_spi() == own && sa.link.owns(header)).then_some(at)
    }

    /// The IKE SA of a peer that tells how it is: one that is up rather than another.
    fn find_peer(&self, peer: PeerId) -> Option<usize> {
        let rank = |sa: &IkeSa| match sa.state {
            State::Established => 0,
            State::Initiating | State::HalfOpen => 1,
            State::Replaced | State::Closing => 2,
        };
        let slots = self.slots.iter().enumerate();
        let of_peer = slots.filter_map(|(at, slot)| Some((at, slot.as_ref()?)));
        let of_peer = of_peer.filter(|(_, sa)| sa.peer == Some(peer));
        of_peer.min_by_key(|(_, sa)| rank(sa)).map(|(at, _)| at)
    }

    /// A free slot, and an SPI that leads to it.
    fn spare(&mut self, rng: &mut dyn CryptoRng) -> Option<(usize, u64)> {
        let count = self.slots.len().min(MAX_SLOTS);
        let mut order = (self.next_free..count).chain(0..self.next_free.min(count));
        let free = order.find(|at| matches!(self.slots.get(*at), Some(None)))?;
        self.next_free = free;
        // The highest bit keeps it from being zero.
        let random = rng.next_u64() | 1 << 63;
        Some((free, random >> SLOT_BITS << SLOT_BITS | free as u64))
    }

    /// Has an exchange work on an IKE SA, and carries out what comes of it.
    fn with(
        &mut self,
        at: usize,
        now: Instant,
        cx: &mut Context<'_>,
        work: &mut dyn FnMut(&mut IkeSa, &mut Env<'_>) -> Outcome,
    ) {
        let spare_spi = self.spare(cx.rng).map(|(_, spi)| spi);
        let Some(sa) = self.slots.get_mut(at).and_then(Option::as_mut) else { return };
        let mut env = Env {
            now,
            rng: cx.rng,
            pad: cx.pad,
            sad: cx.sad,
            settings: &self.settings,
            events: &mut self.events,
            spare_spi,
        };
        let mut outcome = work(sa, &mut env);
        if matches!(outcome, Outcome::Keep | Outcome::Established)
            && let Outcome::Gone(reason) = exchange::start_next(sa, &mut env)
        {
            outcome = Outcome::Gone(reason);
        }
        self.reserve(at, now);
        match outcome {
            Outcome::Keep => {}
            Outcome::Established => self.replace_others(at, now, cx),
            Outcome::Succeeded => self.succeed(at, now, cx),
            Outcome::Gone(reason) => self.end(at, now, cx, reason, false),
            Outcome::Lingers(reason) => self.end(at, now, cx, reason, true),
        }
        self.settle(at);
    }

    /// Notes what a slot wants to send, and when it is next due.
    fn settle(&mut self, at: usize) {
        let Some(sa) = self.slots.get(at).and_then(Option::as_ref) else { return };
        self.earliest = [self.earliest, sa.due()].into_iter().flatten().min();
        if sa.link.window.has_to_send()
            && let Some(outbox) = &mut self.outbox
            && outbox.push_back(at as u32).is_err()
        {
            self.outbox = None;
        }
    }

    /// Ends an IKE SA, and tells the user unless another one of this peer lives.
    fn end(
        &mut self,
        at: usize,
        _now: Instant,
        cx: &mut Context<'_>,
        reason: Reason,
        linger: bool,
    ) {
        let _ = (&self.events, cx.pad, reason, linger, LINGER);
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = None;
        }
    }

    /// Of the IKE SAs of one peer, only the one that was just authenticated stays.
    fn replace_others(&mut self, _at: usize, _now: Instant, _cx: &mut Context<'_>) {}

    /// Puts what takes the place of an IKE SA, and what would have, into the slots that their SPIs
    /// lead to.
    fn succeed(&mut self, at: usize, now: Instant, cx: &mut Context<'_>) {
        for heir in [true, false] {
            let Some(old) = self.slots.get_mut(at).and_then(Option::as_mut) else { return };
            let new = if heir { old.successor.take() } else { old.redundant.take() };
            let Some(new) = new else { continue };
            let own = if new.initiator { new.spis.initiator } else { new.spis.responder };
            let mut env = Env {
                now,
                rng: cx.rng,
                pad: cx.pad,
                sad: cx.sad,
                settings: &self.settings,
                events: &mut self.events,
                spare_spi: None,
            };
            let sa = rekey_ike::succeed(old, &mut env, new, heir);
            if heir {
                sa.tell(&mut self.events, IkeEvent::Rekeyed);
            }
            let slot = slot_of(own);
            if let Some(place) = self.slots.get_mut(slot) {
                *place = Some(sa);
            }
            self.with(slot, now, cx, &mut |_, _| Outcome::Keep);
        }
        self.with(at, now, cx, &mut |_, _| Outcome::Keep);
    }

    /// Keeps a slot free for an IKE SA that is being negotiated within another.
    fn reserve(&mut self, at: usize, now: Instant) {
        let Some(sa) = self.slots.get_mut(at).and_then(Option::as_mut) else { return };
        let Some(own) = sa.reserve.take() else { return };
        let spis = IkeSpis { initiator: own, responder: 0 };
        let mut placeholder =
            IkeSa::new(now, State::Initiating, Link::new(true, spis, sa.link.path));
        placeholder.timers.set(Timer::Forget, now.saturating_add(RESERVATION));
        if let Some(place) = self.slots.get_mut(slot_of(own)) {
            *place = Some(placeholder);
        }
        self.settle(slot_of(own));
    }

    /// A first message of somebody.
    fn handle_stranger(
        &mut self,
        _now: Instant,
        _cx: &mut Context<'_>,
        _path: &IkePath,
        _datagram: &[u8],
    ) {
    }

    /// Does what is due. To be called at [`Ike::poll_timeout`], or later.
    pub fn handle_timeout(&mut self, now: Instant, cx: &mut Context<'_>) {
        if self.earliest.is_none_or(|earliest| now < earliest) {
            return;
        }
        self.earliest = None;
        for at in 0..self.slots.len() {
            let Some(sa) = self.slots.get(at).and_then(Option::as_ref) else { continue };
            let due = sa.due();
            if due.is_none_or(|due| due > now) || !self.events.has_room() {
                self.earliest = [self.earliest, due].into_iter().flatten().min();
            } else {
                self.with(at, now, cx, &mut exchange::handle_timeout);
            }
        }
    }

    /// When [`Ike::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.earliest
    }

    /// A message to be sent, written to the beginning of `out`, which has
    /// [`MAX_MESSAGE_LEN`](super::window::MAX_MESSAGE_LEN) bytes. To be called after every other
    /// call until it returns `None`.
    pub fn poll_transmit(&mut self, out: &mut [u8]) -> Option<IkeTransmit> {
        if let Some((path, len)) = self.stateless.take(out) {
            return Some(IkeTransmit { path, len });
        }
        if let Some(outbox) = &mut self.outbox {
            while let Some(at) = outbox.front().copied() {
                let slot = self.slots.get_mut(at as usize).and_then(Option::as_mut);
                if let Some((path, len)) = slot.and_then(|sa| sa.link.window.take(out)) {
                    return Some(IkeTransmit { path, len });
                }
                outbox.pop_front();
            }
            return None;
        }
        let mut slots = self.slots.iter_mut().flatten();
        let sent = slots.find_map(|sa| sa.link.window.take(out));
        if sent.is_none() {
            self.outbox = Some(Deque::new());
        }
        sent.map(|(path, len)| IkeTransmit { path, len })
    }

    /// What has happened. To be called after every other call until it returns `None`.
    pub fn poll_event(&mut self) -> Option<IkeEvent> {
        self.events.pop()
    }

    /// Connects to a peer, unless there is a connection or an attempt already.
    pub fn initiate(&mut self, now: Instant, cx: &mut Context<'_>, peer: PeerId, target: &Target) {
        let _ = (now, &cx.pad, peer, target);
    }

    /// Closes the connection with a peer: tells it, and forgets it then.
    pub fn terminate(&mut self, now: Instant, cx: &mut Context<'_>, peer: PeerId) {
        self.want(now, cx, peer, Want::CloseIke);
    }

    /// Drops all about a peer at once, without telling anybody.
    pub fn forget(&mut self, now: Instant, cx: &mut Context<'_>, peer: PeerId) {
        for at in 0..self.slots.len() {
            let Some(Some(sa)) = self.slots.get(at) else { continue };
            if sa.peer == Some(peer) {
                self.end(at, now, cx, Reason::Forgotten, false);
            }
        }
    }

    /// Replaces the keys of ESP: because few sequence numbers are left, or on request. Without a
    /// child SA, it makes one.
    pub fn rekey_child(&mut self, now: Instant, cx: &mut Context<'_>, peer: PeerId) {
        self.want(now, cx, peer, Want::RekeyChild);
    }

    /// Replaces the keys of IKE.
    pub fn rekey(&mut self, now: Instant, cx: &mut Context<'_>, peer: PeerId) {
        self.want(now, cx, peer, Want::RekeyIke);
    }

    /// Asks a peer for a sign of life.
    pub fn probe(&mut self, now: Instant, cx: &mut Context<'_>, peer: PeerId) {
        self.want(now, cx, peer, Want::Liveness);
    }

    /// Tells a peer that our address has changed, if it can follow (RFC 4555); false if it cannot,
    /// so that only a new connection helps.
    pub fn address_changed(
        &mut self,
        now: Instant,
        cx: &mut Context<'_>,
        peer: PeerId,
        target: &Target,
    ) -> bool {
        let _ = (now, &cx.pad, peer, target);
        false
    }

    fn want(&mut self, now: Instant, cx: &mut Context<'_>, peer: PeerId, want: Want) {
        let Some(at) = self.find_peer(peer) else { return };
        self.with(at, now, cx, &mut |sa, _| {
            sa.wants.add(want);
            Outcome::Keep
        });
    }

    /// How the connection with a peer is; `None` if there is neither one nor an attempt.
    #[must_use]
    pub fn status(&self, peer: PeerId) -> Option<IkeStatus> {
        let sa = self.slots.get(self.find_peer(peer)?)?.as_ref()?;
        Some(sa.status())
    }
}

/// The slot that an SPI of ours leads to.
fn slot_of(spi: u64) -> usize {
    (spi & (MAX_SLOTS as u64 - 1)) as usize
}
