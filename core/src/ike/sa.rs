//! One IKE SA: what is known about it, and how far it is.
//!
//! The exchanges ([`super::exchange`]) work on this; it never sees another IKE SA. What concerns
//! several is an [`Outcome`], which the endpoint carries out.

use core::time::Duration;

use rand_core::CryptoRng;

use super::child::{self, Children};
use super::exchange::Task;
use super::keymat::{IkeKeys, IkeSpis};
use super::link::Link;
use super::nat::Nat;
use super::nonce::Lowest;
use super::pad::{Pad, PadEntry};
use super::path::{IkePath, Target};
use super::queue::Events;
use super::reason::Reason;
use super::sad::SaDatabase;
use super::status::{IkeEvent, IkeStatus, Phase};
use super::suite::IkeSuite;
use super::timer::Timers;
use super::want::Wants;
use super::wire::Header;
use crate::ike::endpoint::Settings;
use crate::path::Path;
use crate::spd::PeerId;
use crate::time::Instant;

/// How long a peer's IKE_SA_INIT may be, in bytes: AUTH covers it, so that it has to be kept.
pub const MAX_INIT_LEN: usize = 2048;
/// How long to wait, and up to as much more, before something is tried once more.
const BUSY_PAUSE: Duration = Duration::from_secs(2);
const REFUSED_PAUSE: Duration = Duration::from_secs(30);
/// Length of our nonces in bytes.
pub(crate) const NONCE_LEN: usize = 32;

/// What an exchange works with besides the IKE SA: what [`Context`](super::Context) lends, and
/// what belongs to the endpoint.
pub(crate) struct Env<'e> {
    pub(crate) now: Instant,
    pub(crate) rng: &'e mut dyn CryptoRng,
    pub(crate) pad: &'e dyn Pad,
    pub(crate) sad: &'e mut dyn SaDatabase,
    pub(crate) settings: &'e Settings,
    pub(crate) events: &'e mut Events,
    /// An SPI of ours for another IKE SA, whose slot is free; see [`Outcome::Succeeded`].
    pub(crate) spare_spi: Option<u64>,
}

impl Env<'_> {
    /// A nonce of ours.
    pub(crate) fn nonce(&mut self) -> [u8; NONCE_LEN] {
        let mut nonce = [0; NONCE_LEN];
        self.rng.fill_bytes(&mut nonce);
        nonce
    }

    /// When keys that are to live for `lifetime` are replaced, and when they end if they were not:
    /// each end has times of its own, so that both seldom begin at once.
    pub(crate) fn lifetime(&mut self, lifetime: Duration) -> (Instant, Instant) {
        let tenth = lifetime / 10;
        let earlier = self.random_below(tenth);
        let replace = self.now.saturating_add(lifetime.saturating_sub(earlier));
        (replace, self.now.saturating_add(lifetime.saturating_add(tenth)))
    }

    /// When to try once more what the peer was too busy for (RFC 7296 §2.25).
    pub(crate) fn soon(&mut self) -> Instant {
        let pause = BUSY_PAUSE.saturating_add(self.random_below(BUSY_PAUSE));
        self.now.saturating_add(pause)
    }

    /// When to try once more what the peer refuses.
    pub(crate) fn much_later(&mut self) -> Instant {
        let pause = REFUSED_PAUSE.saturating_add(self.random_below(REFUSED_PAUSE));
        self.now.saturating_add(pause)
    }

    fn random_below(&mut self, limit: Duration) -> Duration {
        let share = self.rng.next_u32() >> 16;
        limit.saturating_mul(share) / (1 << 16)
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
    /// We have sent, or are about to send, that it is deleted.
    Closing,
}

/// What an exchange means for the IKE SA as a whole.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It stays.
    Keep,
    /// It is authenticated: others with the same peer have to go.
    Established,
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
    /// It reassembles fragments (RFC 7383 §2.3).
    pub(crate) fragmentation: bool,
    /// It verifies Ed25519 signatures (RFC 8420 §2).
    pub(crate) ed25519: bool,
    /// It speaks MOBIKE (RFC 4555 §3.1).
    pub(crate) mobike: bool,
    /// It has announced USE_PPK (RFC 8784 §3).
    pub(crate) use_ppk: bool,
    /// A PPK is mixed into the keys.
    pub(crate) ppk: bool,
}

/// An IKE SA that takes the place of another (RFC 7296 §2.18), and gets its children, peer and path.
pub(crate) struct Successor {
    /// Whether we have begun the exchange that makes it.
    pub(crate) initiator: bool,
    /// Our SPI is [`Env::spare_spi`].
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
    /// An SPI of ours for a successor, whose slot has to be kept free.
    pub(crate) reserve: Option<u64>,
    /// Our nonce of IKE_SA_INIT.
    pub(crate) nonce: [u8; NONCE_LEN],
    /// The peer's message of IKE_SA_INIT, until AUTH is checked.
    pub(crate) peer_init: heapless::Vec<u8, MAX_INIT_LEN>,
    pub(crate) since: Instant,
    pub(crate) last_heard: Instant,
    /// What somebody said who need not be the peer: the reason if nothing better comes.
    pub(crate) hearsay: Option<Reason>,
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
            reserve: None,
            nonce: [0; NONCE_LEN],
            peer_init: heapless::Vec::new(),
            since: now,
            last_heard: now,
            hearsay: None,
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
        let IkeSa { peer, target, about, nat, since, last_heard, .. } = *self;
        let twin = IkeSa::new(now, State::Replaced, link);
        IkeSa { peer, target, about, nat, since, last_heard, ..twin }
    }

    /// The peer, and what is configured for it.
    pub(crate) fn entry<'p>(&self, pad: &'p dyn Pad) -> Option<(PeerId, PadEntry<'p>)> {
        let peer = self.peer?;
        Some((peer, pad.entry(peer)?))
    }

    /// Whether both ends are authenticated.
    pub(crate) fn is_established(&self) -> bool {
        !matches!(self.state, State::Initiating | State::HalfOpen)
    }

    /// When [`super::exchange::handle_timeout`] has something to do.
    pub(crate) fn due(&self) -> Option<Instant> {
        [self.timers.next(), self.link.window.due()].into_iter().flatten().min()
    }

    /// Whether ESP travels in UDP.
    pub(crate) fn esp_in_udp(&self) -> bool {
        self.nat.is_there() && self.link.path.natt
    }

    /// Where ESP goes.
    pub(crate) fn esp_path(&self) -> Path {
        child::esp_path(&self.link.path, self.esp_in_udp())
    }

    /// An authentic message with this header came on `path`.
    pub(crate) fn follow(&mut self, path: &IkePath, _header: &Header) {
        self.link.path = *path;
    }

    pub(crate) fn status(&self) -> IkeStatus {
        IkeStatus {
            phase: match self.state {
                State::Initiating | State::HalfOpen => Phase::Negotiating,
                State::Established => Phase::Up,
                State::Replaced | State::Closing => Phase::Closing,
            },
            since: self.since,
            initiator: self.link.initiator,
            path: self.link.path,
            esp_path: self.is_established().then(|| self.esp_path()),
            suite: self.suite,
            child: self.children.suite(),
            rekey_child_at: self.timers.get(super::timer::Timer::RekeyChild),
            rekey_at: self.timers.get(super::timer::Timer::RekeyIke),
            last_heard: self.last_heard,
            local_nat: self.nat.local,
            remote_nat: self.nat.remote,
            ours: self.about.ours,
            mobike: self.about.mobike,
            ppk: self.about.ppk,
            child_reason: self.children.reason,
        }
    }

    /// Tells the user, if it is known whom it is about.
    pub(crate) fn tell(&self, events: &mut Events, event: impl FnOnce(PeerId) -> IkeEvent) {
        if let Some(peer) = self.peer {
            events.push(event(peer));
        }
    }
}
