//! The slots of IKE SAs: which one is whose, and what concerns several of them.

use core::net::IpAddr;
use core::time::Duration;

use heapless::{Deque, HistoryBuf};
use managed::ManagedSlice;
use rand_core::CryptoRng;

use super::by_peer::{ByPeer, PeerLink};
use super::child;
use super::crowd;
use super::endpoint::{Context, IkeSlot, IkeTransmit, MAX_SLOTS, SLOT_BITS, Settings};
use super::exchange::{self, informational, init, rekey_ike};
use super::keymat::IkeSpis;
use super::link::Link;
use super::path::{IkePath, Target};
use super::queue::Events;
use super::reason::Reason;
use super::sa::{Env, IkeSa, Outcome, State};
use super::status::IkeEvent;
use super::timer::{Timer, Timers};
use super::want::Want;
use super::wire::Header;
use crate::spd::PeerId;
use crate::time::Instant;

/// How long an IKE SA that has ended answers the same request again.
const LINGER: Duration = Duration::from_secs(20);
/// How long an IKE SA that was replaced waits for its deletion.
const REPLACED: Duration = Duration::from_secs(60);
/// How long the slot of a successor is kept free.
const RESERVED: Duration = Duration::from_secs(60);
/// How many slots are remembered as having something to send, before all are looked through.
const OUTBOX_LEN: usize = 16;

/// How many strangers are known who were answered, and may ask again.
const ANSWERED_LEN: usize = 64;

/// How many strangers are compared to find out who gives way.
const MOST_COMPARED: usize = 64;
/// How many IKE SAs of one peer wait for their deletion at most.
const MOST_REPLACED: usize = 3;

/// What an exchange does with an IKE SA.
pub(crate) type Work<'w> = &'w mut dyn FnMut(&mut IkeSa, &mut Env<'_>) -> Outcome;

/// The slots of IKE SAs.
pub(crate) struct Table<'a> {
    pub(crate) settings: Settings,
    slots: ManagedSlice<'a, IkeSlot>,
    pub(crate) events: Events,
    /// How many are of somebody who is not authenticated ([`IkeSa::is_strangers`]).
    pub(crate) strangers: usize,
    /// The slots that have something to send; `None` if they are more than fit.
    outbox: Option<Deque<u32, OUTBOX_LEN>>,
    /// No IKE SA has anything to do before.
    pub(crate) earliest: Option<Instant>,
    /// Where the search for a free slot begins.
    next_free: usize,
    /// The SPIs of strangers that were answered last, and their slots: whoever repeats himself is
    /// found without a look at all slots, which anybody could demand at no cost.
    answered: HistoryBuf<(u64, u32), ANSWERED_LEN>,
    /// The slots of each peer.
    by_peer: ByPeer<'a>,
}

impl<'a> Table<'a> {
    pub(crate) fn new(settings: Settings, mut slots: ManagedSlice<'a, IkeSlot>) -> Table<'a> {
        slots.iter_mut().for_each(|slot| *slot = None);
        Table {
            settings,
            slots,
            events: Events::default(),
            strangers: 0,
            outbox: Some(Deque::new()),
            earliest: None,
            next_free: 0,
            answered: HistoryBuf::new(),
            by_peer: ByPeer::new(ManagedSlice::Borrowed(&mut [])),
        }
    }

    pub(crate) fn get(&self, at: usize) -> Option<&IkeSa> {
        self.slots.get(at)?.as_ref()
    }

    fn get_mut(&mut self, at: usize) -> Option<&mut IkeSa> {
        self.slots.get_mut(at)?.as_mut()
    }

    /// How many IKE SAs there are, without those that only give their last answer again.
    pub(crate) fn len(&self) -> usize {
        self.slots.iter().flatten().filter(|sa| sa.state != State::Ended).count()
    }

    /// The IKE SA that a message is for.
    pub(crate) fn find(&self, header: &Header) -> Option<usize> {
        let own = if header.from_initiator { header.spis.responder } else { header.spis.initiator };
        let at = slot_of(own);
        let sa = self.get(at)?;
        (sa.link.own_spi() == own && sa.link.owns(header)).then_some(at)
    }

    /// The IKE SA of a peer that tells how it is: one that is up rather than another.
    pub(crate) fn find_peer(&self, peer: PeerId) -> Option<usize> {
        let rank = |sa: &IkeSa| match sa.state {
            State::Established => 0,
            State::Initiating | State::HalfOpen => 1,
            State::Replaced | State::Closing | State::Ended => 2,
        };
        self.of_peer(peer).min_by_key(|(at, sa)| (rank(sa), *at)).map(|(at, _)| at)
    }

    /// All IKE SAs of a peer, in no order.
    fn of_peer(&self, peer: PeerId) -> impl Iterator<Item = (usize, &IkeSa)> {
        let indexed = self.by_peer.covers(self.slots.len());
        let all = if indexed { 0..0 } else { 0..self.slots.len() };
        let some = indexed.then(|| self.by_peer.of(peer)).into_iter().flatten();
        let found = some.chain(all).filter_map(|at| Some((at, self.get(at)?)));
        found.filter(move |(_, sa)| sa.peer == Some(peer))
    }

    pub(crate) fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// See [`Ike::index`](super::Ike::index).
    pub(crate) fn index(&mut self, links: ManagedSlice<'a, PeerLink>) {
        self.by_peer = ByPeer::new(links);
        for (at, slot) in self.slots.iter().enumerate() {
            self.by_peer.note(at, slot.as_ref().and_then(|sa| sa.peer));
        }
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

    /// The same for whoever comes from `newcomer`, or for somebody known. If there is none,
    /// strangers have to give way, then what is in nobody's use, but not what is at `at`.
    fn spare_or_make(
        &mut self,
        rng: &mut dyn CryptoRng,
        newcomer: Option<IpAddr>,
        at: Option<usize>,
    ) -> Option<(usize, u64)> {
        self.spare(rng).or_else(|| {
            if !self.evict_stranger(newcomer) {
                self.evict_replaced(at);
            }
            self.spare(rng)
        })
    }

    /// Has an exchange work on an IKE SA, and carries out what comes of it.
    pub(crate) fn with(&mut self, at: usize, now: Instant, cx: &mut Context<'_>, work: Work<'_>) {
        let spare = if self.get(at).is_some_and(IkeSa::is_strangers) {
            None
        } else {
            self.spare_or_make(cx.rng, None, Some(at))
        };
        let (before, rest) = self.slots.split_at_mut_checked(at).unwrap_or_default();
        let Some((Some(sa), after)) = rest.split_first_mut() else { return };
        let mut env = Env::new(now, cx, &self.settings, &mut self.events);
        env.spare_spi = spare.map(|(_, spi)| spi);
        env.others = [before, after];
        let was_strangers = sa.is_strangers();
        let mut outcome = work(sa, &mut env);
        if matches!(outcome, Outcome::Keep | Outcome::Established)
            && let Outcome::Gone(reason) = exchange::start_next(sa, &mut env)
        {
            outcome = Outcome::Gone(reason);
        }
        let taken = env.spare_taken;
        let path = sa.link.path;
        if let Some((at, spi)) = spare.filter(|_| taken) {
            self.reserve(at, spi, now, path);
        }
        match outcome {
            Outcome::Keep => {}
            Outcome::Established => {
                self.replace_others(at, now, cx);
                self.limit_replaced(at);
            }
            Outcome::Yields => self.yield_to_other(at, now, cx),
            Outcome::Succeeded => self.succeed(at, now, cx),
            Outcome::Gone(reason) => self.end(at, cx, reason, None),
            Outcome::Lingers(reason) => self.end(at, cx, reason, Some(now)),
        }
        if was_strangers && self.get(at).is_none_or(|sa| !sa.is_strangers()) {
            self.strangers = self.strangers.saturating_sub(1);
        }
        self.settle(at);
    }

    /// Notes what an IKE SA wants to send, and when it is next due.
    fn settle(&mut self, at: usize) {
        self.by_peer.note(at, self.get(at).and_then(|sa| sa.peer));
        let Some(sa) = self.get(at) else { return };
        let (due, to_send) = (sa.due(), sa.link.window.has_to_send());
        self.earliest = [self.earliest, due].into_iter().flatten().min();
        if to_send
            && let Some(outbox) = &mut self.outbox
            && outbox.push_back(at as u32).is_err()
        {
            self.outbox = None;
        }
    }

    /// A message that waits to be sent, copied to `out`.
    pub(crate) fn take(&mut self, out: &mut [u8]) -> Option<IkeTransmit> {
        while let Some(outbox) = &mut self.outbox {
            let at = outbox.front().copied()? as usize;
            if let Some(sent) = self.get_mut(at).and_then(|sa| sa.take_message(out)) {
                return Some(sent);
            }
            self.outbox.as_mut()?.pop_front();
        }
        let sent = self.slots.iter_mut().flatten().find_map(|sa| sa.take_message(out));
        if sent.is_none() {
            self.outbox = Some(Deque::new());
        }
        sent
    }

    /// Does what is due, as far as there is room for events.
    pub(crate) fn handle_timeout(&mut self, now: Instant, cx: &mut Context<'_>) {
        if self.earliest.is_none_or(|earliest| now < earliest) {
            return;
        }
        self.earliest = None;
        for at in 0..self.slots.len() {
            let Some(sa) = self.get(at) else { continue };
            let due = sa.due();
            if due.is_some_and(|due| due <= now) && self.events.has_room() {
                self.with(at, now, cx, &mut exchange::handle_timeout);
            } else {
                self.earliest = [self.earliest, due].into_iter().flatten().min();
            }
        }
    }

    /// Answers a first request again that was answered, or ignores it for good; false if it is a
    /// new one.
    pub(crate) fn answer_again(
        &mut self,
        path: &IkePath,
        header: &Header,
        datagram: &[u8],
    ) -> bool {
        let initiator = header.spis.initiator;
        let same = |sa: &IkeSa| {
            sa.state == State::HalfOpen
                && sa.link.spis.initiator == initiator
                && sa.peer_init() == datagram
        };
        let answered = self.answered.iter().filter(|(spi, _)| *spi == initiator);
        let mut found = answered.map(|(_, at)| *at as usize);
        let found = found.find(|at| self.get(*at).is_some_and(same));
        let Some(at) = found else { return false };
        if let Some(sa) = self.get_mut(at) {
            sa.link.window.response.send_again(*path);
        }
        self.settle(at);
        true
    }

    /// Forgets the stranger who has to give way; false if there is none.
    fn evict_stranger(&mut self, newcomer: Option<IpAddr>) -> bool {
        if self.strangers == 0 {
            return false;
        }
        let strangers = || (0..self.slots.len()).filter_map(|at| self.get(at)?.as_stranger(at));
        let found: heapless::Vec<_, MOST_COMPARED> = strangers().take(MOST_COMPARED).collect();
        let evicted = crowd::gives_way(|| found.iter().copied(), newcomer);
        let Some(slot) = evicted.and_then(|at| self.slots.get_mut(at)) else { return false };
        *slot = None;
        self.strangers = self.strangers.saturating_sub(1);
        true
    }

    /// Forgets the IKE SA whose place another one has taken longest ago: only its deletion is still
    /// to be told.
    fn evict_replaced(&mut self, but: Option<usize>) {
        let replaced =
            |at: &usize| Some(*at) != but && self.get(*at).is_some_and(IkeSa::is_replaced);
        let replaced = (0..self.slots.len()).filter(replaced);
        let oldest = replaced.min_by_key(|at| self.get(*at).map(|sa| sa.last_heard));
        if let Some(slot) = oldest.and_then(|at| self.slots.get_mut(at)) {
            *slot = None;
        }
    }

    /// Of the IKE SAs with the peer of this one that are in nobody's use, only so many stay.
    fn limit_replaced(&mut self, at: usize) {
        let Some(peer) = self.get(at).and_then(|sa| sa.peer) else { return };
        loop {
            let replaced = |other: &usize| {
                let of_peer = |sa: &IkeSa| sa.peer == Some(peer) && sa.is_replaced();
                *other != at && self.get(*other).is_some_and(of_peer)
            };
            let all = || (0..self.slots.len()).filter(replaced);
            if all().count() <= MOST_REPLACED {
                return;
            }
            let oldest = all().min_by_key(|at| self.get(*at).map(|sa| sa.last_heard));
            let Some(slot) = oldest.and_then(|at| self.slots.get_mut(at)) else { return };
            *slot = None;
        }
    }

    /// Answers a first request.
    pub(crate) fn begin_answer(
        &mut self,
        now: Instant,
        cx: &mut Context<'_>,
        request: &init::Request<'_>,
    ) -> Result<(), init::Refusal> {
        let from = request.path.remote.ip();
        if self.strangers >= self.settings.half_open_limit {
            self.evict_stranger(Some(from));
        }
        let spare = self.spare_or_make(cx.rng, Some(from), None);
        let (at, spi) = spare.ok_or(init::Refusal::Busy)?;
        let expected = cx.pad.is_expected_from(from);
        let slot = self.slots.get_mut(at).ok_or(init::Refusal::Busy)?;
        let mut env = Env::new(now, cx, &self.settings, &mut self.events);
        init::respond(slot, &mut env, spi, request)?;
        if let Some(sa) = slot {
            sa.expected = expected;
            self.answered.write((sa.link.spis.initiator, at as u32));
        }
        self.strangers = self.strangers.saturating_add(1);
        self.settle(at);
        Ok(())
    }

    /// See [`Ike::initiate`](super::Ike::initiate).
    pub(crate) fn initiate(
        &mut self,
        now: Instant,
        cx: &mut Context<'_>,
        peer: PeerId,
        target: &Target,
    ) {
        let lives = |at| {
            self.get(at)
                .is_some_and(|sa| matches!(sa.state, State::Initiating | State::Established))
        };
        if self.find_peer(peer).is_some_and(lives) {
            return;
        }
        let Some((at, initiator)) = self.spare_or_make(cx.rng, None, None) else {
            return self.events.push(IkeEvent::Failed(peer, Reason::Full));
        };
        let Some(slot) = self.slots.get_mut(at) else { return };
        let link = Link::new(true, IkeSpis { initiator, responder: 0 }, target.first());
        let sa = slot.insert(IkeSa::new(now, State::Initiating, link));
        (sa.peer, sa.target) = (Some(peer), Some(*target));
        self.with(at, now, cx, &mut init::begin);
    }

    /// Keeps a slot free, as that of an IKE SA which has ended already.
    fn reserve(&mut self, at: usize, initiator: u64, now: Instant, path: IkePath) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        let link = Link::new(true, IkeSpis { initiator, responder: 0 }, path);
        let sa = slot.insert(IkeSa::new(now, State::Ended, link));
        sa.timers.set(Timer::Forget, now.saturating_add(RESERVED));
        self.settle(at);
    }

    /// Ends an IKE SA, and tells the user unless he knows, or another one of this peer lives. With
    /// `linger`, it gives its last answer again for a while.
    fn end(&mut self, at: usize, cx: &mut Context<'_>, reason: Reason, linger: Option<Instant>) {
        let Some(sa) = self.get(at) else { return };
        let (state, peer) = (sa.state, sa.peer);
        self.remove_children(at, cx);
        if let Some(peer) = peer {
            let other_lives = |sa: &IkeSa| sa.peer == Some(peer) && sa.state == State::Established;
            let replaced = (0..self.slots.len())
                .any(|other| other != at && self.get(other).is_some_and(other_lives));
            match state {
                State::Established if !replaced => {
                    self.events.push(IkeEvent::Down(peer, reason));
                }
                State::Initiating if !replaced => {
                    self.events.push(IkeEvent::Failed(peer, reason));
                }
                _ => {}
            }
        }
        let Some(slot) = self.slots.get_mut(at) else { return };
        match (slot, linger) {
            (Some(sa), Some(now)) => {
                sa.state = State::Ended;
                sa.wants.clear();
                sa.timers = Timers::default();
                sa.timers.set(Timer::Forget, now.saturating_add(LINGER));
            }
            (slot, _) => *slot = None,
        }
    }

    fn remove_children(&mut self, at: usize, cx: &mut Context<'_>) {
        if let Some(sa) = self.get_mut(at) {
            child::remove_all(sa, cx.sad);
        }
    }

    /// Of the IKE SAs with one peer, only the one that was just authenticated stays. If the peer
    /// says that it has no other (INITIAL_CONTACT, RFC 7296 §2.4), it need not be told.
    fn replace_others(&mut self, at: usize, now: Instant, cx: &mut Context<'_>) {
        let Some(sa) = self.get(at) else { return };
        let (Some(peer), alone) = (sa.peer, sa.about.initial_contact) else { return };
        for other in 0..self.slots.len() {
            let Some(sa) = self.get(other).filter(|sa| sa.peer == Some(peer) && other != at) else {
                continue;
            };
            match sa.state {
                State::Established if alone => self.end(other, cx, Reason::Replaced, None),
                State::Established => self.close_replaced(other, now, cx),
                // The peer has not heard who we are yet.
                State::Initiating if sa.link.keys.is_none() => {
                    self.end(other, cx, Reason::Replaced, None);
                }
                _ => {}
            }
        }
    }

    /// Of two connections that were begun at once, the end that has begun this one deletes it; the
    /// other end waits for that.
    fn yield_to_other(&mut self, at: usize, now: Instant, cx: &mut Context<'_>) {
        let Some(sa) = self.get_mut(at) else { return };
        if sa.link.initiator {
            self.close_replaced(at, now, cx);
        } else {
            sa.state = State::Replaced;
            sa.timers = Timers::default();
            sa.timers.set(Timer::Forget, now.saturating_add(REPLACED));
        }
    }

    /// Another connection with the same peer has taken the place of this one: the peer is told, in
    /// case it knows it still.
    fn close_replaced(&mut self, at: usize, now: Instant, cx: &mut Context<'_>) {
        self.remove_children(at, cx);
        self.with(at, now, cx, &mut |sa, _| {
            sa.state = State::Replaced;
            sa.timers = Timers::default();
            sa.timers.set(Timer::Forget, now.saturating_add(REPLACED));
            sa.wants.clear();
            sa.wants.add(Want::CloseIke);
            Outcome::Keep
        });
    }

    /// Puts what takes the place of an IKE SA, and what would have, into the slots that their SPIs
    /// lead to.
    fn succeed(&mut self, at: usize, now: Instant, cx: &mut Context<'_>) {
        for heir in [true, false] {
            let Some(old) = self.slots.get_mut(at).and_then(Option::as_mut) else { return };
            let new = if heir { old.successor.take() } else { old.redundant.take() };
            let Some(new) = new else { continue };
            let own = if new.initiator { new.spis.initiator } else { new.spis.responder };
            let mut env = Env::new(now, cx, &self.settings, &mut self.events);
            let sa = rekey_ike::succeed(old, &mut env, new, heir);
            if let (true, Some(peer)) = (heir, sa.peer) {
                self.events.push(IkeEvent::Rekeyed(peer));
            }
            if let Some(slot) = self.slots.get_mut(slot_of(own)) {
                *slot = Some(sa);
            }
            self.with(slot_of(own), now, cx, &mut |_, _| Outcome::Keep);
        }
        self.with(at, now, cx, &mut |_, _| Outcome::Keep);
        self.limit_replaced(at);
    }

    /// See [`Ike::enlarge`](super::Ike::enlarge).
    pub(crate) fn enlarge(&mut self, mut slots: ManagedSlice<'a, IkeSlot>) {
        if slots.len() <= self.slots.len() {
            return;
        }
        // An SPI names its slot: each stays where it is.
        let before =
            self.slots.iter_mut().map(Option::take).chain(core::iter::repeat_with(|| None));
        slots.iter_mut().zip(before).for_each(|(to, from)| *to = from);
        self.slots = slots;
    }

    /// See [`Ike::renumber`](super::Ike::renumber).
    pub(crate) fn renumber(&mut self, renamed: &dyn Fn(PeerId) -> Option<PeerId>) {
        for slot in self.slots.iter_mut() {
            let Some(before) = slot.as_ref().and_then(|sa| sa.peer) else { continue };
            match (renamed(before), slot.as_mut()) {
                (Some(after), Some(sa)) => sa.peer = Some(after),
                _ => *slot = None,
            }
        }
        for (at, slot) in self.slots.iter().enumerate() {
            self.by_peer.note(at, slot.as_ref().and_then(|sa| sa.peer));
        }
    }

    /// See [`Ike::forget`](super::Ike::forget).
    pub(crate) fn forget(&mut self, cx: &mut Context<'_>, peer: PeerId) {
        while let Some(at) = self.find_peer(peer) {
            self.remove_children(at, cx);
            if let Some(slot) = self.slots.get_mut(at) {
                *slot = None;
            }
            self.settle(at);
        }
    }

    /// See [`Ike::terminate`](super::Ike::terminate).
    pub(crate) fn close(&mut self, now: Instant, cx: &mut Context<'_>, peer: PeerId) {
        let lives = |sa: &IkeSa| matches!(sa.state, State::Established | State::Initiating);
        // Whatever is closed lives no more; a peer has few.
        for _ in 0..self.slots.len() {
            let Some((at, sa)) = self.of_peer(peer).find(|(_, sa)| lives(sa)) else { return };
            if sa.state == State::Initiating {
                self.end(at, cx, Reason::Closed, None);
                self.settle(at);
                continue;
            }
            self.with(at, now, cx, &mut |sa, env| {
                informational::close(sa, env);
                Outcome::Keep
            });
        }
    }

    /// See [`Ike::address_changed`](super::Ike::address_changed).
    pub(crate) fn address_changed(
        &mut self,
        now: Instant,
        cx: &mut Context<'_>,
        peer: PeerId,
        target: &Target,
    ) -> bool {
        let moves =
            |sa: &IkeSa| sa.state == State::Established && sa.about.mobike && sa.has_connected();
        let Some(at) = self.find_peer(peer).filter(|at| self.get(*at).is_some_and(moves)) else {
            return false;
        };
        self.with(at, now, cx, &mut |sa, env| {
            sa.target = Some(*target);
            let path = if sa.link.path.natt { target.floated() } else { target.first() };
            sa.link.window.redirect(path);
            sa.move_to(env, &path);
            sa.wants.add(Want::UpdateAddress);
            Outcome::Keep
        });
        true
    }

    /// Has the IKE SA of a peer begin an exchange.
    pub(crate) fn want(&mut self, now: Instant, cx: &mut Context<'_>, peer: PeerId, want: Want) {
        let Some(at) = self.find_peer(peer) else { return };
        self.with(at, now, cx, &mut |sa, _| {
            if sa.state == State::Established {
                sa.wants.add(want);
            }
            Outcome::Keep
        });
    }
}

/// The slot that an SPI of ours leads to.
fn slot_of(spi: u64) -> usize {
    (spi & (MAX_SLOTS as u64 - 1)) as usize
}
