//! The child SA pairs of an IKE SA: what ESP uses.
//!
//! Each peer has one pair. While it is replaced there are more for a moment (RFC 7296 §2.8): no
//! packet is lost if each end accepts with the new pair before the other one sends with it, and
//! goes on accepting with the old pair for as long as packets may be on the way. What either end
//! asks and answers is told in [`super::exchange::create_child`]; here is what becomes of a pair.
//!
//! ```text
//!                   we rekey                              the peer rekeys
//!   Current ─────── answer is in ──▶ Closing     Waiting ── the old one is deleted, ──▶ Current
//!   (the new one is Current)            │                   the peer uses it, or
//!                            deletion confirmed             minutes have passed
//!                                       ▼                   (the old one: Superseded,
//!                                    Retired ◀── deleted ── and Retired when deleted)
//!                                       │
//!                                 some seconds
//!                                       ▼
//!                                     gone
//! ```

use core::time::Duration;

use super::keymat::{ChildKeys, CipherKey};
use super::nonce::Lowest;
use super::pad::Lifetimes;
use super::reason::Reason;
use super::sa::{Env, IkeSa};
use super::sad::{ChildSa, Refused, SaDatabase};
use super::status::IkeEvent;
use super::suite::ChildSuite;
use super::timer::Timer;
use super::ts::{Both, Ranges};
use super::want::Want;
use crate::path::Path;
use crate::spd::PeerId;

/// How many pairs there can be at once: one in use, one from each end in its place, one that is
/// retired.
const MAX_PAIRS: usize = 4;
/// How long packets of a pair that was deleted are still accepted.
const RETIREMENT: Duration = Duration::from_secs(5);
/// How often it is looked whether the peer uses the pair it has made.
const SWITCH_PAUSE: Duration = Duration::from_secs(1);
/// How often at most: then it is used anyway. Until then the peer may still be asking for the answer
/// that tells it our half, or not; strongSwan asks for almost three minutes.
const SWITCH_PAUSES: u8 = 180;

/// A child SA pair.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Child {
    /// Our SPI, with which we receive.
    pub(crate) spi_in: u32,
    /// The peer's SPI, with which we send.
    pub(crate) spi_out: u32,
    pub(crate) suite: ChildSuite,
}

/// What becomes of a pair that is not in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Past {
    /// Its deletion is the peer's affair: the peer has replaced it, or has made one too many.
    Superseded,
    /// We delete it.
    Closing,
    /// It is deleted; what is on the way is accepted for a moment.
    Retired,
}

/// A pair that the peer has made in place of the current one, and that we do not send with yet.
pub(crate) struct Waiting {
    child: Child,
    key_out: CipherKey,
    ranges: Both,
    /// Of the nonces of the exchange that has made it.
    lowest: Lowest,
    /// How often it was looked whether the peer uses it.
    looked: u8,
}

/// The child SA pairs of an IKE SA.
#[derive(Default)]
pub(crate) struct Children {
    /// The one in use.
    pub(crate) current: Option<Child>,
    waiting: Option<Waiting>,
    past: heapless::Vec<(Child, Past), MAX_PAIRS>,
    /// Our SPI of one that the peer has made and we could not, to be deleted.
    pub(crate) unwanted: Option<u32>,
    /// Why there is none.
    pub(crate) reason: Option<Reason>,
}

impl Children {
    /// The algorithms of the one in use.
    pub(crate) fn suite(&self) -> Option<ChildSuite> {
        self.current.map(|child| child.suite)
    }

    /// Whether the peer is replacing the one in use.
    pub(crate) fn is_being_replaced(&self) -> bool {
        self.waiting.is_some()
    }

    /// Our SPI of a pair that we have to delete.
    pub(crate) fn next_to_close(&self) -> Option<u32> {
        let mut closing = self.past.iter().filter(|(_, past)| *past == Past::Closing);
        self.unwanted.or_else(|| closing.next().map(|(child, _)| child.spi_in))
    }

    fn past(&mut self, is: impl Fn(&Child) -> bool) -> Option<&mut (Child, Past)> {
        self.past.iter_mut().find(|(child, _)| is(child))
    }
}

/// What two ends have agreed on for a child, to be installed.
pub(crate) struct Agreed<'k> {
    pub(crate) child: Child,
    /// The key for what we receive, and
    pub(crate) key_in: &'k CipherKey,
    /// the one for what we send.
    pub(crate) key_out: &'k CipherKey,
    /// Our addresses, and
    pub(crate) local: &'k Ranges,
    /// the peer's.
    pub(crate) remote: &'k Ranges,
    pub(crate) path: Path,
    /// Whether it is the first child SA of its IKE SA.
    pub(crate) first: bool,
}

impl<'k> Agreed<'k> {
    /// `initiator` tells whether we have begun the exchange that makes the child.
    pub(crate) fn new(
        child: Child,
        initiator: bool,
        keys: &'k ChildKeys,
        [local, remote]: [&'k Ranges; 2],
        path: Path,
    ) -> Agreed<'k> {
        let ChildKeys { initiator: i, responder: r } = keys;
        let (key_out, key_in) = if initiator { (i, r) } else { (r, i) };
        Agreed { child, key_in, key_out, local, remote, path, first: false }
    }

    fn sa(&self, peer: PeerId, spi: u32, key: &'k CipherKey) -> ChildSa<'k> {
        let Agreed { child, local, remote, path, first, .. } = *self;
        ChildSa { peer, spi, key, esn: child.suite.esn, local, remote, path, first }
    }

    /// From now on packets with it are accepted.
    pub(crate) fn install_inbound(&self, env: &mut Env<'_>, peer: PeerId) -> Result<(), Refused> {
        env.sad.install_inbound(&self.sa(peer, self.child.spi_in, self.key_in))
    }

    /// From now on packets leave with it.
    pub(crate) fn install_outbound(&self, env: &mut Env<'_>, peer: PeerId) -> Result<(), Refused> {
        env.sad.install_outbound(&self.sa(peer, self.child.spi_out, self.key_out))
    }

    /// Both at once, as for the first child and by the end that replaces one.
    ///
    /// # Errors
    /// [`Refused`]; nothing is installed then.
    pub(crate) fn install(&self, env: &mut Env<'_>, peer: PeerId) -> Result<(), Refused> {
        self.install_inbound(env, peer)?;
        self.install_outbound(env, peer).inspect_err(|_| {
            env.sad.remove_inbound(self.child.spi_in);
        })
    }
}

/// The keys of the pair in use begin to age.
pub(crate) fn start_lifetime(sa: &mut IkeSa, env: &mut Env<'_>, lifetimes: &Lifetimes) {
    let [soft, hard] = env.ages(lifetimes.child);
    sa.timers.set(Timer::RekeyChild, soft);
    sa.timers.set(Timer::ExpireChild, hard);
}

fn begin_lifetime(sa: &mut IkeSa, env: &mut Env<'_>) {
    if let Some((_, entry)) = sa.entry(env.pad) {
        start_lifetime(sa, env, &entry.lifetimes);
    }
}

/// A pair where there was none, whose inbound half is installed.
pub(crate) fn begin(sa: &mut IkeSa, env: &mut Env<'_>, agreed: &Agreed<'_>) {
    let Some(peer) = sa.peer else { return };
    if agreed.install_outbound(env, peer).is_err() {
        bury(sa, env, agreed.child, Past::Closing);
        return;
    }
    sa.children.current = Some(agreed.child);
    sa.children.reason = None;
    begin_lifetime(sa, env);
    sa.tell(env.events, IkeEvent::Up);
}

/// A pair that we have asked for is installed: from now on it is the one in use, and we delete the
/// one that it replaces.
pub(crate) fn replace(sa: &mut IkeSa, env: &mut Env<'_>, child: Child) {
    if let Some(old) = sa.children.current.replace(child) {
        bury(sa, env, old, Past::Closing);
    }
    sa.children.reason = None;
    begin_lifetime(sa, env);
}

/// A pair that the peer has made in place of the one in use, and whose inbound half is installed:
/// it is not sent with before the peer accepts what comes with it.
pub(crate) fn await_peer(sa: &mut IkeSa, env: &mut Env<'_>, agreed: &Agreed<'_>, lowest: Lowest) {
    let (child, key_out) = (agreed.child, agreed.key_out.clone());
    // They fit: what does not is refused.
    let Some(ranges) = Both::new([agreed.local, agreed.remote]) else { return };
    sa.children.waiting = Some(Waiting { child, key_out, ranges, lowest, looked: 0 });
    sa.timers.set(Timer::SwitchOutbound, env.now.saturating_add(SWITCH_PAUSE));
}

/// Both ends have replaced the same pair at once, and our exchange has these nonces: of the two
/// new pairs the one is too many whose exchange has the lowest of all four (RFC 7296 §2.8.1).
/// Whether that is ours; `None`: the peer has made none.
pub(crate) fn is_redundant(sa: &IkeSa, ours: &Lowest) -> Option<bool> {
    sa.children.waiting.as_ref().map(|waiting| *ours < waiting.lowest)
}

/// The pair that the peer has made is the one too many: it is never sent with, and the peer
/// deletes it.
pub(crate) fn give_up_waiting(sa: &mut IkeSa, env: &mut Env<'_>) {
    if let Some(waiting) = sa.children.waiting.take() {
        bury(sa, env, waiting.child, Past::Superseded);
    }
}

/// The pair that we have made is the one too many, and was never installed: we delete it.
pub(crate) fn close_redundant(sa: &mut IkeSa, env: &mut Env<'_>, child: Child) {
    bury(sa, env, child, Past::Closing);
}

/// From now on the pair that the peer has made is the one in use.
fn adopt(sa: &mut IkeSa, env: &mut Env<'_>, old: Past) {
    let (Some(waiting), Some(peer)) = (sa.children.waiting.take(), sa.peer) else { return };
    sa.timers.clear(Timer::SwitchOutbound);
    let Waiting { child, key_out: key, ranges, .. } = &waiting;
    let [local, remote] = &ranges.split();
    let Child { spi_out: spi, suite, .. } = *child;
    let (esn, path, first) = (suite.esn, sa.esp_path(), false);
    let outbound = ChildSa { peer, spi, key, esn, local, remote, path, first };
    if env.sad.install_outbound(&outbound).is_err() {
        // Rather no pair than one that only one end sends with.
        bury(sa, env, *child, Past::Closing);
        remove_current(sa, env.sad);
        sa.wants.add(Want::NewChild);
        return;
    }
    if let Some(replaced) = sa.children.current.replace(*child) {
        bury(sa, env, replaced, old);
    }
    sa.children.reason = None;
    begin_lifetime(sa, env);
    sa.tell(env.events, IkeEvent::ChildRekeyed);
}

/// A pair is out of use.
fn bury(sa: &mut IkeSa, env: &mut Env<'_>, child: Child, past: Past) {
    let Children { past: all, .. } = &mut sa.children;
    if all.is_full() {
        let (oldest, _) = all.remove(0);
        env.sad.remove_inbound(oldest.spi_in);
    }
    // There is room now.
    let _ = all.push((child, past));
    follow_past(sa, env);
}

/// The pair in use is about to be replaced. What the peer should have deleted after the last
/// time, it has forgotten: we delete it.
pub(crate) fn close_leftovers(sa: &mut IkeSa, env: &mut Env<'_>) {
    let past = sa.children.past.iter_mut();
    past.filter(|(_, past)| *past == Past::Superseded).for_each(|(_, past)| *past = Past::Closing);
    follow_past(sa, env);
}

/// Does what the pairs out of use want to be done.
fn follow_past(sa: &mut IkeSa, env: &mut Env<'_>) {
    if sa.children.next_to_close().is_some() {
        sa.wants.add(Want::CloseChild);
    }
    if sa.children.past.iter().any(|(_, past)| *past == Past::Retired) {
        sa.timers.set(Timer::RetireChild, env.now.saturating_add(RETIREMENT));
    }
}

/// The child SAs are gone with their IKE SA (RFC 7296 §1.4.1).
pub(crate) fn remove_all(sa: &mut IkeSa, sad: &mut dyn SaDatabase) {
    remove_current(sa, sad);
    if let Some(waiting) = sa.children.waiting.take() {
        sad.remove_inbound(waiting.child.spi_in);
    }
    for (child, _) in core::mem::take(&mut sa.children.past) {
        sad.remove_inbound(child.spi_in);
    }
    sa.timers.clear(Timer::SwitchOutbound);
}

/// The pair in use is gone, and none is in its place.
fn remove_current(sa: &mut IkeSa, sad: &mut dyn SaDatabase) -> Option<Child> {
    let child = sa.children.current.take()?;
    if let Some(peer) = sa.peer {
        sad.remove_outbound(peer, child.spi_out);
    }
    sad.remove_inbound(child.spi_in);
    sa.timers.clear(Timer::RekeyChild);
    sa.timers.clear(Timer::ExpireChild);
    Some(child)
}

/// The keys of the pair in use are too old: rather none than these.
pub(crate) fn expire(sa: &mut IkeSa, env: &mut Env<'_>) {
    let Some(child) = remove_current(sa, env.sad) else { return };
    bury(sa, env, child, Past::Closing);
    sa.children.reason = Some(Reason::Expired);
    sa.wants.add(Want::NewChild);
}

/// It is time to see whether the peer sends with the pair that it has made. While we replace the
/// same pair, only that tells which one stays.
pub(crate) fn look_for_use(sa: &mut IkeSa, env: &mut Env<'_>, replacing: bool) {
    let Some(waiting) = &mut sa.children.waiting else { return };
    waiting.looked = waiting.looked.saturating_add(1);
    let patient = replacing || waiting.looked < SWITCH_PAUSES;
    if env.sad.has_received(waiting.child.spi_in) || !patient {
        adopt(sa, env, Past::Superseded);
    } else {
        sa.timers.set(Timer::SwitchOutbound, env.now.saturating_add(SWITCH_PAUSE));
    }
}

/// No packets of deleted pairs are on the way any more.
pub(crate) fn retire(sa: &mut IkeSa, env: &mut Env<'_>) {
    sa.children.past.retain(|(child, past)| {
        let retired = *past == Past::Retired;
        if retired {
            env.sad.remove_inbound(child.spi_in);
        }
        !retired
    });
}

/// The peer does not know the pair in use, which we wanted to replace: it has deleted it. If it
/// has made another one in its place, that is the one in use.
pub(crate) fn lost(sa: &mut IkeSa, env: &mut Env<'_>, spi_in: u32) {
    if sa.children.current.is_none_or(|child| child.spi_in != spi_in) {
        return;
    }
    if sa.children.waiting.is_some() {
        adopt(sa, env, Past::Retired);
    } else {
        remove_current(sa, env.sad);
        sa.wants.add(Want::NewChild);
    }
}

/// The peer has confirmed that the pair with this SPI of ours is deleted.
pub(crate) fn closed(sa: &mut IkeSa, env: &mut Env<'_>, spi_in: u32) {
    sa.children.unwanted.take_if(|unwanted| *unwanted == spi_in);
    if let Some((_, past)) = sa.children.past(|child| child.spi_in == spi_in) {
        *past = Past::Retired;
    }
    follow_past(sa, env);
}

/// The peer has deleted the pair with this SPI of its own; returns ours, to be told in answer
/// (RFC 7296 §1.4.1). If we have deleted it as well, both know already.
pub(crate) fn deleted_by_peer(sa: &mut IkeSa, env: &mut Env<'_>, spi_out: u32) -> Option<u32> {
    if let Some(child) = sa.children.current.filter(|child| child.spi_out == spi_out) {
        if sa.children.waiting.is_some() {
            adopt(sa, env, Past::Retired);
        } else {
            remove_current(sa, env.sad);
            sa.children.reason = Some(Reason::PeerClosedChild);
            sa.tell(env.events, |peer| IkeEvent::Down(peer, Reason::PeerClosedChild));
        }
        return Some(child.spi_in);
    }
    if let Some(waiting) = sa.children.waiting.take_if(|waiting| waiting.child.spi_out == spi_out) {
        env.sad.remove_inbound(waiting.child.spi_in);
        return Some(waiting.child.spi_in);
    }
    let (child, past) = sa.children.past(|child| child.spi_out == spi_out)?;
    let (spi_in, before) = (child.spi_in, core::mem::replace(past, Past::Retired));
    follow_past(sa, env);
    (before == Past::Superseded).then_some(spi_in)
}

/// What there is of a pair that the peer wants to replace, by its SPI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// It is in use.
    Current,
    /// It is being replaced or deleted already.
    Busy,
    /// There is none.
    No,
}

pub(crate) fn known(sa: &mut IkeSa, spi_out: u32) -> Known {
    let children = &mut sa.children;
    let current = children.current.is_some_and(|child| child.spi_out == spi_out);
    match (current, children.waiting.is_some()) {
        (true, false) => Known::Current,
        (true, true) => Known::Busy,
        _ if children.past(|child| child.spi_out == spi_out).is_some() => Known::Busy,
        _ => Known::No,
    }
}
