//! The endpoint: which IKE SA a message is for, and what strangers get.
//!
//! Sans-IO: the caller brings datagrams and the time, and takes datagrams, events and the next
//! deadline. All storage is lent. What concerns several IKE SAs is in `table`.
//!
//! Other versions of IKE are met with silence, although later ones might be told which one we speak
//! (RFC 7296 §2.5). The user is told of version 1, which many gateways speak unless told otherwise.

use core::time::Duration;

use managed::ManagedSlice;
use rand_core::CryptoRng;

use super::by_peer::PeerLink;
use super::cookie;
use super::erase::erase_stack;
use super::exchange;
use super::exchange::init::{self, Refusal};
use super::pad::Pad;
use super::path::{IkePath, Target};
use super::reason::Reason;
use super::sa::IkeSa;
use super::sad::SaDatabase;
use super::stateless::Stateless;
use super::status::{IkeEvent, IkeStatus};
use super::suite::Preferences;
use super::table::Table;
use super::want::Want;
use super::wire::notify::Notify;
use super::wire::numbers::{ExchangeType, NotifyType};
use super::wire::sk::{OpenError, Opened, Sealed};
use super::wire::skf::{Reassembled, Reassembly, ReassemblyError};
use super::wire::{Header, Malformed, Message};
use crate::counters::{Discard, Discards};
use crate::spd::PeerId;
use crate::time::Instant;

/// How many slots an endpoint can have: the low bits of our SPIs are a slot's number.
pub const MAX_SLOTS: usize = 1 << SLOT_BITS;
pub(crate) const SLOT_BITS: u32 = 20;
/// For how long fragments of one message keep those of strangers' out.
const REASSEMBLY: Duration = Duration::from_secs(2);

/// One slot of storage for an IKE SA; `None` is empty.
pub type IkeSlot = Option<IkeSa>;

/// What holds for all peers.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The algorithms.
    pub preferences: Preferences,
    /// After how long without a sign of life a peer is asked for one.
    pub liveness: Duration,
    /// How many IKE SAs somebody may have begun who is not authenticated, or was refused just now.
    /// Another one takes the place of one of them.
    pub half_open_limit: usize,
    /// From how many of them on a stranger has to return a cookie first (RFC 7296 §2.6).
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
    /// Whether somebody unknown has asked for it, perhaps from an address that is not his: what it
    /// needs on its way (room in a queue, a neighbour's address) must not be what packets and the
    /// messages of peers need. It may as well be dropped.
    pub stranger: bool,
}

/// An IKE endpoint: initiator and responder for any number of peers.
pub struct Ike<'a> {
    pub(super) table: Table<'a>,
    guard: cookie::Guard,
    stateless: Stateless,
    reassembly: Reassembly<'a>,
    /// Which message the fragments are of, and when the first came.
    reassembling: Option<(Header, Instant)>,
    discards: Discards,
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
        slots: ManagedSlice<'a, IkeSlot>,
        reassembly: ManagedSlice<'a, u8>,
        rng: &mut dyn CryptoRng,
    ) -> Ike<'a> {
        Ike {
            table: Table::new(settings, slots),
            guard: cookie::Guard::new(rng),
            stateless: Stateless::new(),
            reassembly: Reassembly::new(reassembly),
            reassembling: None,
            discards: Discards::default(),
        }
    }

    /// What holds for all peers; a change counts from the next exchange on.
    pub fn settings_mut(&mut self) -> &mut Settings {
        &mut self.table.settings
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
            Err(Malformed::MajorVersion(1)) => {
                self.table.events.push(IkeEvent::Refused(None, path.remote.ip(), Reason::IkeV1));
                return self.discards.count(Discard::IkeV1);
            }
            Err(_) => return self.discards.count(Discard::IkeMalformed),
        };
        if header.exchange == ExchangeType::IKE_SA_INIT && !header.response {
            return self.handle_stranger(now, cx, path, &header, datagram);
        }
        let Some(at) = self.table.find(&header) else {
            return self.discards.count(Discard::IkeNoSa);
        };
        if !self.table.get(at).is_some_and(|sa| exchange::expects(sa, &header)) {
            return;
        }
        if header.exchange == ExchangeType::IKE_SA_INIT {
            self.table
                .with(at, now, cx, &mut |sa, env| init::handle_response(sa, env, path, datagram));
            erase_stack();
        } else {
            self.handle_protected(at, now, cx, path, datagram);
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
        let Ok(sealed) = Sealed::parse(datagram) else {
            return self.discards.count(Discard::IkeMalformed);
        };
        let Some(sa) = self.table.get(at) else { return };
        let header = *sealed.header();
        let busy = self.reassembling.is_some_and(|(other, since)| {
            other != header && now.saturating_since(since) < REASSEMBLY
        });
        if let Some(position) = sealed.fragment()
            // Whoever is not authenticated has to wait for others to be complete.
            && (self.reassembly.has(&header, position) || busy && !sa.is_established())
        {
            return;
        }
        let message = match sa.link.open(sealed) {
            Err(OpenError::BadIcv) => return self.discards.count(Discard::IkeBadIcv),
            Err(OpenError::Malformed(malformed)) => Err(malformed),
            Ok(Opened::Message(message)) => Ok(message),
            Ok(Opened::Fragment(fragment)) if exchange::was_answered(sa, &header) => {
                // One fragment tells for all of them that the answer is asked for again.
                if fragment.position().number() == 1 {
                    self.table.with(at, now, cx, &mut |sa, _| exchange::answer_again(sa, path));
                }
                return;
            }
            Ok(Opened::Fragment(fragment)) => {
                if self.reassembling.is_none_or(|(other, _)| other != header) {
                    self.reassembling = Some((header, now));
                }
                match self.reassembly.add(&fragment) {
                    Ok(Reassembled::Message(message)) => Ok(message),
                    Err(ReassemblyError::Malformed(malformed)) => Err(malformed),
                    Err(ReassemblyError::TooBig) => return self.discards.count(Discard::IkeTooBig),
                    Ok(_) => return,
                }
            }
        };
        self.table.with(at, now, cx, &mut |sa, env| {
            exchange::handle_message(sa, env, path, &header, message.as_ref().map_err(|why| *why))
        });
        erase_stack();
        if self.reassembling.is_some_and(|(complete, _)| complete == header) {
            self.reassembly.clear();
            self.reassembling = None;
        }
    }

    /// A first message of somebody.
    fn handle_stranger(
        &mut self,
        now: Instant,
        cx: &mut Context<'_>,
        path: &IkePath,
        header: &Header,
        datagram: &[u8],
    ) {
        let first = header.from_initiator && header.spis.responder == 0 && header.message_id == 0;
        if !first {
            return self.discards.count(Discard::IkeMalformed);
        }
        if self.table.answer_again(path, header, datagram) {
            return;
        }
        let message = match Message::parse(datagram) {
            Ok(message) => message,
            Err(Malformed::CriticalPayload(payload_type)) => {
                let unsupported = NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD;
                let data = [payload_type.0];
                return self.stateless.answer(header, path, &Notify::new(unsupported, &data));
            }
            Err(_) => return self.discards.count(Discard::IkeMalformed),
        };
        let Ok(request) = init::Request::read(&message, datagram, path) else {
            return self.discards.count(Discard::IkeMalformed);
        };
        if !self.admits(now, cx, path, header, &request) {
            return;
        }
        let answered = self.table.begin_answer(now, cx, &request);
        erase_stack();
        match answered {
            Ok(()) | Err(Refusal::Busy) => {}
            Err(Refusal::Malformed) => self.discards.count(Discard::IkeMalformed),
            Err(Refusal::TooBig) => self.discards.count(Discard::IkeTooBig),
            Err(Refusal::Group(group)) => {
                let group = group.number().to_be_bytes();
                let notify = Notify::new(NotifyType::INVALID_KE_PAYLOAD, &group);
                self.stateless.answer(header, path, &notify);
            }
            Err(Refusal::NoProposal) => {
                self.discards.count(Discard::IkeNoProposal);
                let event = IkeEvent::Unacceptable(None, path.remote.ip(), request.offered());
                self.table.events.push(event);
                let notify = Notify::new(NotifyType::NO_PROPOSAL_CHOSEN, &[]);
                self.stateless.answer(header, path, &notify);
            }
        }
    }

    /// Whether to look closer at somebody's first request, which costs time and memory.
    fn admits(
        &mut self,
        now: Instant,
        cx: &Context<'_>,
        path: &IkePath,
        header: &Header,
        request: &init::Request<'_>,
    ) -> bool {
        if self.table.strangers < self.table.settings.cookie_threshold {
            return true;
        }
        let address = path.remote.ip();
        let spi = header.spis.initiator.to_be_bytes();
        let stranger = cookie::Stranger { address, spi, nonce: request.nonce };
        if !self.guard.verify(now, &stranger, request.cookie) {
            let cookie = self.guard.cookie(now, &stranger);
            self.stateless.answer(header, path, &Notify::new(NotifyType::COOKIE, &cookie));
            return false;
        }
        let scarce = self.table.strangers >= self.table.settings.half_open_limit;
        cx.pad.is_expected_from(address) || self.guard.allows(now, address, scarce)
    }

    /// Does what is due. To be called at [`Ike::poll_timeout`], or later.
    pub fn handle_timeout(&mut self, now: Instant, cx: &mut Context<'_>) {
        if self.table.earliest.is_some_and(|earliest| earliest <= now) {
            self.table.handle_timeout(now, cx);
            erase_stack();
        }
    }

    /// When [`Ike::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.table.earliest
    }

    /// A message to be sent, written to the beginning of `out`, which has
    /// [`MAX_MESSAGE_LEN`](super::window::MAX_MESSAGE_LEN) bytes. To be called after every other
    /// call until it returns `None`.
    pub fn poll_transmit(&mut self, out: &mut [u8]) -> Option<IkeTransmit> {
        if let Some((path, len)) = self.stateless.take(out) {
            return Some(IkeTransmit { path, len, stranger: true });
        }
        self.table.take(out)
    }

    /// What has happened. To be called after every other call until it returns `None`.
    pub fn poll_event(&mut self) -> Option<IkeEvent> {
        self.table.events.pop()
    }

    /// Connects to a peer, unless there is a connection or an attempt already.
    pub fn initiate(&mut self, now: Instant, cx: &mut Context<'_>, peer: PeerId, target: &Target) {
        self.table.initiate(now, cx, peer, target);
        erase_stack();
    }

    /// Closes the connection with a peer: tells it, and forgets it then.
    pub fn terminate(&mut self, now: Instant, cx: &mut Context<'_>, peer: PeerId) {
        self.table.close(now, cx, peer);
    }

    /// Drops all about a peer at once, without telling anybody.
    pub fn forget(&mut self, cx: &mut Context<'_>, peer: PeerId) {
        self.table.forget(cx, peer);
    }

    /// Goes over to larger storage; smaller is not taken.
    pub fn enlarge(&mut self, slots: ManagedSlice<'a, IkeSlot>) {
        self.table.enlarge(slots);
    }

    /// Lends storage for an index of the IKE SAs by peer, as many places as there are peers or
    /// slots, whichever are more. What asks about a peer then looks at that peer's slots only, and
    /// not at all; for a few peers it is not worth it.
    pub fn index(&mut self, links: ManagedSlice<'a, PeerLink>) {
        self.table.index(links);
    }

    /// How many IKE SAs there is room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.table.capacity()
    }

    /// The peers have other numbers from now on, as `renamed` tells. Those that have none have to
    /// be [forgotten](Ike::forget) before.
    pub fn renumber(&mut self, renamed: &dyn Fn(PeerId) -> Option<PeerId>) {
        self.table.renumber(renamed);
    }

    /// Replaces the keys of ESP: because few sequence numbers are left, or on request. Without a
    /// child SA, it makes one.
    pub fn rekey_child(&mut self, now: Instant, cx: &mut Context<'_>, peer: PeerId) {
        self.table.want(now, cx, peer, Want::RekeyChild);
        erase_stack();
    }

    /// Replaces the keys of IKE.
    pub fn rekey(&mut self, now: Instant, cx: &mut Context<'_>, peer: PeerId) {
        self.table.want(now, cx, peer, Want::RekeyIke);
        erase_stack();
    }

    /// Asks a peer for a sign of life.
    pub fn probe(&mut self, now: Instant, cx: &mut Context<'_>, peer: PeerId) {
        self.table.want(now, cx, peer, Want::Liveness);
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
        self.table.address_changed(now, cx, peer, target)
    }

    /// Messages that led to nothing, by reason.
    #[must_use]
    pub fn discards(&self) -> &Discards {
        &self.discards
    }

    /// How many IKE SAs there are, with those that are being negotiated, replaced or closed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How the connection with a peer is; `None` if there is neither one nor an attempt.
    #[must_use]
    pub fn status(&self, peer: PeerId) -> Option<IkeStatus> {
        let at = self.table.find_peer(peer)?;
        Some(self.table.get(at)?.status())
    }
}
