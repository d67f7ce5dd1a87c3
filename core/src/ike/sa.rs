//! One IKE SA: what is known about it, and how far it is.
//!
//! The exchanges ([`super::exchange`]) work on this; it never sees another IKE SA. What concerns
//! several is an [`Outcome`], which the endpoint carries out.

use core::net::IpAddr;
use core::time::Duration;

use rand_core::CryptoRng;

use super::auth::SignedOctets;
use super::child::Children;
use super::crowd::Stranger;
use super::endpoint::{Context, IkeSlot, IkeTransmit, Settings};
use super::exchange::Task;
use super::keymat::{IkeKeys, IkeSecrets, IkeSpis, Nonces};
use super::link::Link;
use super::mobike;
use super::nat::Nat;
use super::nonce::Lowest;
use super::offered::Offered;
use super::pace::Pace;
use super::pad::{Encap, Lifetimes, Pad, PadEntry};
use super::path::{IkePath, Target};
use super::queue::Events;
use super::reason::Reason;
use super::sad::SaDatabase;
use super::status::{Given, IkeEvent, IkeStatus, Phase};
use super::suite::IkeSuite;
use super::timer::{Timer, Timers};
use super::want::Wants;
use super::wire::id::Id;
use super::wire::sa::Sa;
use super::wire::{Message, NoRoom};
use crate::crypto::prf::SHA1_LEN;
use crate::path::Path;
use crate::spd::PeerId;
use crate::time::Instant;

/// How long to wait, and up to as long again, before something is tried once more.
const BUSY_PAUSE: Duration = Duration::from_secs(2);
const REFUSED_PAUSE: Duration = Duration::from_secs(30);
/// How often a peer may have keys replaced on average: what that costs is a key exchange, and slots
/// for what is replaced. How many times at once.
const RENEWAL: Duration = Duration::from_secs(2);
const RENEWALS_AT_ONCE: u32 = 10;
/// Length of our nonces in bytes.
pub(crate) const NONCE_LEN: usize = 32;

/// Two connections between the same ends that came about within this time were begun at once.
const AT_ONCE: Duration = Duration::from_secs(10);

/// What an exchange works with besides the IKE SA: what [`Context`] lends, and
/// what belongs to the endpoint.
pub(crate) struct Env<'e> {
    pub(crate) now: Instant,
    pub(crate) rng: &'e mut dyn CryptoRng,
    pub(crate) pad: &'e dyn Pad,
    pub(crate) sad: &'e mut dyn SaDatabase,
    pub(crate) settings: &'e Settings,
    pub(crate) events: &'e mut Events,
    /// An SPI of ours for another IKE SA, whose slot is free.
    pub(crate) spare_spi: Option<u64>,
    /// Whether that slot is to be kept free.
    pub(crate) spare_taken: bool,
    /// All IKE SAs but the one that is worked on.
    pub(crate) others: [&'e [IkeSlot]; 2],
}

impl<'e> Env<'e> {
    /// For an IKE SA that needs no slot beside its own.
    pub(crate) fn new(
        now: Instant,
        cx: &'e mut Context<'_>,
        settings: &'e Settings,
        events: &'e mut Events,
    ) -> Env<'e> {
        let Context { rng, pad, sad } = cx;
        let (spare_spi, spare_taken, others) = (None, false, [&[][..]; 2]);
        Env {
            now,
            rng: *rng,
            pad: *pad,
            sad: *sad,
            settings,
            events,
            spare_spi,
            spare_taken,
            others,
        }
    }

    /// A nonce of ours.
    pub(crate) fn nonce(&mut self) -> [u8; NONCE_LEN] {
        let mut nonce = [0; NONCE_LEN];
        self.rng.fill_bytes(&mut nonce);
        nonce
    }

    /// When keys with this lifetime are to be replaced, with jitter, and when they end.
    pub(crate) fn ages(&mut self, lifetime: Duration) -> [Instant; 2] {
        let tenth = lifetime / 10;
        let share = u64::from(self.rng.next_u32() >> 16);
        let millis = u64::try_from(tenth.as_millis()).unwrap_or(u64::MAX);
        let jitter = Duration::from_millis(millis.saturating_mul(share) >> 16);
        let soft = self.now.saturating_add(lifetime.saturating_sub(jitter));
        [soft, self.now.saturating_add(lifetime.saturating_add(tenth))]
    }

    /// When to try once more what the peer was too busy for (RFC 7296 §2.25).
    pub(crate) fn soon(&mut self) -> Instant {
        self.later(BUSY_PAUSE)
    }

    /// When to try once more what the peer refuses.
    pub(crate) fn much_later(&mut self) -> Instant {
        self.later(REFUSED_PAUSE)
    }

    /// With jitter, so that two ends that are in each other's way seldom are again.
    fn later(&mut self, pause: Duration) -> Instant {
        let share = self.rng.next_u32() >> 16;
        let jitter = pause.saturating_mul(share) / (1 << 16);
        self.now.saturating_add(pause.saturating_add(jitter))
    }

    /// The other IKE SAs with a peer.
    pub(crate) fn others(&self, peer: PeerId) -> impl Iterator<Item = &IkeSa> {
        self.others.iter().copied().flatten().flatten().filter(move |sa| sa.peer == Some(peer))
    }

    /// An SPI of ours for a successor ([`Outcome::Succeeded`]), whose slot is kept free for a
    /// minute; `None` if no slot is free.
    pub(crate) fn take_spare_spi(&mut self) -> Option<u64> {
        self.spare_taken = true;
        self.spare_spi
    }

    /// An SPI for a child SA of ours.
    pub(crate) fn child_spi(&mut self) -> Option<u32> {
        self.sad.allocate_spi(self.rng.next_u32())
    }
}

/// How far an IKE SA is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// We initiate; nothing about the peer is authentic.
    Initiating,
    /// The peer initiates, and nothing about it is authentic.
    HalfOpen,
    /// Both ends are authenticated.
    Established,
    /// Another one has taken its place (RFC 7296 §2.18); its initiator deletes it.
    Replaced,
    /// We have sent that it is deleted, and wait for the answer; the user knows.
    Closing,
    /// It is no more, and the user knows: only its last answer is given again.
    Ended,
}

/// What an exchange means for the IKE SA as a whole.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It stays.
    Keep,
    /// It is authenticated: others with the same peer have to go.
    Established,
    /// It is authenticated, and is the one to go.
    Yields,
    /// [`IkeSa::successor`] is there, and gets the slot that its SPI of ours leads to.
    Succeeded,
    /// It is gone, which the user is told.
    Gone(Reason),
    /// The same, but its slot stays for a moment: our last answer may be asked for again.
    Lingers(Reason),
}

/// What is known about the peer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct About {
    /// It runs this software.
    pub(crate) ours: bool,
    /// It verifies Ed25519 signatures (RFC 8420 §2).
    pub(crate) ed25519: bool,
    /// It speaks MOBIKE (RFC 4555 §3.1).
    pub(crate) mobike: bool,
    /// It has no other IKE SA with us, as it says (RFC 7296 §2.4).
    pub(crate) initial_contact: bool,
    /// It has announced USE_PPK (RFC 8784 §3).
    pub(crate) use_ppk: bool,
    /// A PPK is mixed into the keys.
    pub(crate) ppk: bool,
    /// It has addresses of our network.
    pub(crate) leased: Leased,
}

/// Of which families a peer has addresses from us.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Leased {
    v4: bool,
    v6: bool,
}

impl Leased {
    pub(crate) fn of(given: &Given) -> Leased {
        let [v4, v6] =
            [true, false].map(|v4| given.addresses.iter().any(|address| address.is_ipv4() == v4));
        Leased { v4, v6 }
    }

    /// Whether it has any.
    pub(crate) fn any(self) -> bool {
        self.v4 || self.v6
    }

    /// Whether it has this one of its lease.
    pub(crate) fn has(self, address: &IpAddr) -> bool {
        if address.is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// An IKE SA that takes the place of another (RFC 7296 §2.18), and gets its children, peer and path.
pub(crate) struct Successor {
    /// Whether we have begun the exchange that makes it.
    pub(crate) initiator: bool,
    /// Our SPI is one of [`Env::take_spare_spi`].
    pub(crate) spis: IkeSpis,
    pub(crate) suite: IkeSuite,
    pub(crate) keys: IkeKeys,
}

/// The peer's successor for an IKE SA for which we have asked for one as well (RFC 7296 §2.8.2).
pub(crate) struct Rival {
    pub(crate) successor: Successor,
    /// Of the nonces of the exchange that has made it.
    pub(crate) lowest: Lowest,
}

/// One IKE SA with its child.
pub struct IkeSa {
    pub(crate) state: State,
    /// Whose it is: known from the beginning if we initiate, else by IKE_AUTH.
    pub(crate) peer: Option<PeerId>,
    /// Where the peer was to be found, if we initiate.
    pub(crate) target: Option<Target>,
    pub(crate) link: Link,
    pub(crate) suite: Option<IkeSuite>,
    pub(crate) about: About,
    pub(crate) nat: Nat,
    /// The hash of our address as the peer has last seen it, with MOBIKE.
    pub(crate) seen: Option<[u8; SHA1_LEN]>,
    /// How ESP travels, as configured for the peer.
    pub(crate) encap: Encap,
    /// Whether it was begun from where a peer is configured to be.
    pub(crate) expected: bool,
    /// How often the peer may have keys replaced.
    renewals: Pace,
    /// What our request is for that is on the way.
    pub(crate) task: Task,
    /// What is to be requested when no request is on the way.
    pub(crate) wants: Wants,
    pub(crate) timers: Timers,
    pub(crate) children: Children,
    /// What takes its place; see [`Outcome::Succeeded`].
    pub(crate) successor: Option<Successor>,
    /// What would have done so, but is one too many: it is only deleted.
    pub(crate) redundant: Option<Successor>,
    /// What the peer has made to take its place, while we want to make another.
    pub(crate) rival: Option<Rival>,
    /// Our nonce of IKE_SA_INIT.
    pub(crate) nonce: [u8; NONCE_LEN],
    pub(crate) since: Instant,
    pub(crate) last_heard: Instant,
    /// What somebody said who need not be the peer: the reason if nothing better comes.
    pub(crate) rumour: Option<Reason>,
}

impl IkeSa {
    pub(crate) fn new(now: Instant, state: State, link: Link) -> IkeSa {
        IkeSa {
            state,
            peer: None,
            target: None,
            link,
            suite: None,
            about: About::default(),
            nat: Nat::default(),
            task: Task::Idle,
            wants: Wants::default(),
            timers: Timers::default(),
            children: Children::default(),
            successor: None,
            redundant: None,
            rival: None,
            nonce: [0; NONCE_LEN],
            since: now,
            last_heard: now,
            rumour: None,
            encap: Encap::Auto,
            seen: None,
            expected: false,
            renewals: Pace::FRESH,
        }
    }

    /// Another IKE SA between the same two ends, with keys of its own, in nobody's use yet.
    pub(crate) fn twin(
        &self,
        now: Instant,
        initiator: bool,
        spis: IkeSpis,
        keys: IkeKeys,
    ) -> IkeSa {
        let mut link = Link::new(initiator, spis, self.link.path);
        link.keys = Some(keys);
        link.fragments = self.link.fragments;
        let IkeSa { peer, target, about, nat, encap, since, last_heard, renewals, .. } = *self;
        let twin = IkeSa::new(now, State::Replaced, link);
        IkeSa { peer, target, about, nat, encap, since, last_heard, renewals, ..twin }
    }

    /// The peer, and what is configured for it.
    pub(crate) fn entry<'p>(&self, pad: &'p dyn Pad) -> Option<(PeerId, PadEntry<'p>)> {
        let peer = self.peer?;
        Some((peer, pad.entry(peer)?))
    }

    /// It, as one of the strangers, if it is of one.
    pub(crate) fn as_stranger(&self, slot: usize) -> Option<Stranger> {
        self.is_strangers().then_some(Stranger {
            slot,
            address: self.link.path.remote.ip(),
            since: self.since,
            refused: self.state == State::Ended,
            expected: self.expected,
        })
    }

    /// Whether it is of somebody who is not authenticated, or was refused just now.
    pub(crate) fn is_strangers(&self) -> bool {
        let begun = matches!(self.state, State::HalfOpen | State::Ended);
        begun && self.peer.is_none() && !self.link.initiator
    }

    /// Whether it is in nobody's use any more: all has been said but that it has ended, or even
    /// that.
    pub(crate) fn is_replaced(&self) -> bool {
        matches!(self.state, State::Replaced | State::Closing) && !self.link.window.has_to_send()
    }

    /// Whether we have begun the first of all IKE SAs that have succeeded each other: the
    /// initiator, as MOBIKE understands it (RFC 4555 §1.3).
    pub(crate) fn has_connected(&self) -> bool {
        self.target.is_some()
    }

    /// Whether both ends are authenticated.
    pub(crate) fn is_established(&self) -> bool {
        matches!(self.state, State::Established | State::Replaced | State::Closing)
    }

    /// A message that waits to be sent, copied to `out`.
    pub(crate) fn take_message(&mut self, out: &mut [u8]) -> Option<IkeTransmit> {
        let (path, len) = self.link.window.take(out)?;
        // An answer is given again to wherever the request comes from again: somebody may have
        // caught that, and repeat it under any address.
        let known = match self.state {
            State::Initiating => true,
            State::Established | State::Replaced | State::Closing => path == self.link.path,
            State::HalfOpen | State::Ended => false,
        };
        Some(IkeTransmit { path, len, stranger: !known })
    }

    /// When [`super::exchange::handle_timeout`] has something to do.
    pub(crate) fn due(&self) -> Option<Instant> {
        [self.timers.next(), self.link.window.due()].into_iter().flatten().min()
    }

    /// Whether ESP is to travel in UDP: through a NAT, where it is configured, and between two of
    /// ours, since it is faster (the kernel cuts and joins UDP). A peer that we have made believe in a
    /// NAT, before it was known who it is, knows nothing else any more.
    pub(crate) fn wants_udp(&self) -> bool {
        self.nat.pretended
            || match self.encap {
                Encap::Auto => self.nat.is_there() || self.about.ours,
                Encap::Esp => false,
                Encap::Udp => true,
            }
    }

    /// Where ESP goes. In UDP, it takes the ports of IKE behind a NAT (RFC 3948 §2.1).
    pub(crate) fn esp_path(&self) -> Path {
        let IkePath { local, remote, natt } = self.link.path;
        if natt && self.wants_udp() {
            Path::Udp { local, remote }
        } else {
            Path::Esp { local: local.ip(), remote: remote.ip() }
        }
    }

    /// Something authentic and new came from the peer on `path`. Behind a NAT, the peer may have
    /// got another address there, which we follow (RFC 7296 §2.23); with MOBIKE it tells us itself
    /// (RFC 4555 §3.8).
    pub(crate) fn heard(&mut self, env: &mut Env<'_>, path: &IkePath) {
        self.last_heard = env.now;
        let may_move = self.state == State::Established && !self.about.mobike;
        if may_move && self.nat.remote && !self.nat.local && self.link.path != *path {
            self.move_to(env, path);
        }
    }

    /// Whether the peer may have keys replaced now, or has to wait, since it does that without
    /// pause; counts it if so.
    pub(crate) fn may_renew(&mut self, now: Instant) -> bool {
        let permitted = self.renewals.permits(now, RENEWAL, RENEWALS_AT_ONCE);
        if permitted {
            self.renewals.count(now, RENEWAL);
        }
        permitted
    }

    /// From now on the peer is reached on `path`, with IKE and ESP.
    pub(crate) fn move_to(&mut self, env: &mut Env<'_>, path: &IkePath) {
        self.link.path = *path;
        let Some(peer) = self.peer else { return };
        if self.children.current.is_some() {
            env.sad.set_path(peer, self.esp_path());
            env.events.push(IkeEvent::Moved(peer, self.esp_path()));
        }
    }

    /// Tells the user, if it is known whom it is about.
    pub(crate) fn tell(&self, events: &mut Events, event: impl FnOnce(PeerId) -> IkeEvent) {
        if let Some(peer) = self.peer {
            events.push(event(peer));
        }
    }

    /// Tells the user that the peer offers no algorithms of ours for ESP.
    pub(crate) fn offers_nothing(&self, env: &mut Env<'_>, offer: Sa<'_>) {
        let event =
            IkeEvent::Unacceptable(self.peer, self.link.path.remote.ip(), Offered::of(offer));
        env.events.push(event);
    }

    /// The nonces of IKE_SA_INIT, as long as the peer's message of it is there.
    pub(crate) fn nonces(&self) -> Option<Nonces<'_>> {
        let (ours, theirs) = (&self.nonce[..], self.peer_nonce()?);
        let (initiator, responder) =
            if self.link.initiator { (ours, theirs) } else { (theirs, ours) };
        Some(Nonces { initiator, responder })
    }

    /// The peer's message of IKE_SA_INIT: AUTH covers it, so that it is kept until that is checked.
    pub(crate) fn peer_init(&self) -> &[u8] {
        self.link.window.peer_init(self.link.initiator)
    }

    /// Keeps it.
    ///
    /// # Errors
    /// [`NoRoom`] if it is longer than any of ours.
    pub(crate) fn keep_peer_init(&mut self, message: &[u8]) -> Result<(), NoRoom> {
        self.link.window.keep_peer_init(self.link.initiator, message)
    }

    fn peer_nonce(&self) -> Option<&[u8]> {
        Message::parse(self.peer_init()).ok()?.nonce().ok()
    }

    /// What our AUTH payload covers (RFC 7296 §2.15). For this, the responder's answer to
    /// IKE_SA_INIT, or the initiator's request, still has to be our last one.
    pub(crate) fn own_octets<'s>(
        &'s self,
        secrets: &IkeSecrets,
        id: &Id<'_>,
    ) -> Option<SignedOctets<'s>> {
        let Link { initiator, window, .. } = &self.link;
        let kept = if *initiator { &window.request } else { &window.response };
        let sk_p = if *initiator { &secrets.sk_pi } else { &secrets.sk_pr };
        Some(SignedOctets::new(kept.bytes(), self.peer_nonce()?, sk_p, &[&id.header(), id.data]))
    }

    /// What the peer's AUTH payload covers.
    pub(crate) fn peer_octets(&self, secrets: &IkeSecrets, id: &Id<'_>) -> SignedOctets<'_> {
        let sk_p = if self.link.initiator { &secrets.sk_pr } else { &secrets.sk_pi };
        SignedOctets::new(self.peer_init(), &self.nonce, sk_p, &[&id.header(), id.data])
    }

    /// Whether both ends have connected to each other at the same time, and this IKE SA is the one
    /// that goes: the one whose initiator has the higher SPI, which both ends see alike. Its
    /// initiator deletes it. This is about an IKE SA that is being authenticated.
    pub(crate) fn yields(&self, env: &Env<'_>, peer: PeerId) -> bool {
        env.others(peer).any(|other| {
            other.state == State::Established
                && other.link.initiator != self.link.initiator
                && env.now.saturating_since(other.since) < AT_ONCE
                && other.link.spis.initiator < self.link.spis.initiator
        })
    }

    /// Both ends are authenticated: what was kept for that is not needed any more, and the keys
    /// begin to age.
    pub(crate) fn establish(&mut self, env: &mut Env<'_>, lifetimes: &Lifetimes) {
        (self.state, self.since, self.rumour) = (State::Established, env.now, None);
        self.link.window.forget_peer_init(self.link.initiator);
        self.timers.clear(Timer::HalfOpen);
        self.timers.set(Timer::Liveness, env.now.saturating_add(env.settings.liveness / 2));
        self.start_lifetime(env, lifetimes);
    }

    /// The keys of IKE begin to age.
    pub(crate) fn start_lifetime(&mut self, env: &mut Env<'_>, lifetimes: &Lifetimes) {
        let [soft, hard] = env.ages(lifetimes.ike);
        self.timers.set(Timer::RekeyIke, soft);
        self.timers.set(Timer::ExpireIke, hard);
    }

    pub(crate) fn status(&self) -> IkeStatus {
        IkeStatus {
            phase: match self.state {
                State::Initiating | State::HalfOpen => Phase::Negotiating,
                State::Established => Phase::Up,
                State::Replaced | State::Closing | State::Ended => Phase::Closing,
            },
            since: self.since,
            initiator: self.link.initiator,
            path: self.link.path,
            esp_path: self.is_established().then(|| self.esp_path()),
            checking: mobike::is_checking(self),
            suite: self.suite,
            child: self.children.suite(),
            rekey_child_at: self.timers.get(Timer::RekeyChild),
            rekey_at: self.timers.get(Timer::RekeyIke),
            last_heard: self.last_heard,
            local_nat: self.nat.local,
            remote_nat: self.nat.remote,
            ours: self.about.ours,
            mobike: self.about.mobike,
            ppk: self.about.ppk,
            child_reason: self.children.reason,
        }
    }
}
