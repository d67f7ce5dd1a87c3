//! IKE_SA_INIT (RFC 7296 §1.2): algorithms, keys, NAT detection.
//!
//! ```text
//! initiator                                   responder
//! [N(COOKIE)] SA KE Ni N(NAT_D…) …  -->
//!                                   <--       N(COOKIE)             (§2.6), or
//!                                   <--       N(INVALID_KE_PAYLOAD) (§1.3), or both in a row
//! the same with what was asked for  -->
//!                                   <--       SA KE Nr N(NAT_D…) …
//! ```
//! Nothing of this is authentic before IKE_AUTH. An answer that brings the exchange no further is
//! therefore no more than a rumour: the exchange goes on, and the rumour becomes the reason if
//! nothing better comes.

use core::time::Duration;

use heapless::Vec;

use super::{Task, auth};
use crate::crypto::dh::{EphemeralKey, Group};
use crate::ike::keymat::{IkeKeys, IkeSpis, Nonces};
use crate::ike::link::Link;
use crate::ike::nat::{self, Nat};
use crate::ike::offered::Offered;
use crate::ike::pad::Encap;
use crate::ike::path::IkePath;
use crate::ike::proposal::{self, Chosen};
use crate::ike::reason::Reason;
use crate::ike::sa::{About, Env, IkeSa, NONCE_LEN, Outcome, State};
use crate::ike::suite::IkeSuite;
use crate::ike::timer::Timer;
use crate::ike::wire::ke::Ke;
use crate::ike::wire::notify::Notify;
use crate::ike::wire::numbers::{
    ExchangeType, HashAlgorithm, KeyExchangeMethod, NotifyType, PayloadType,
};
use crate::ike::wire::sa::Spi;
use crate::ike::wire::{Malformed, Message, NoRoom, PayloadWriter};

/// By this vendor ID, two of this software know each other.
const VENDOR_ID: &[u8; 16] = b"SimpleVPN IKEv2\0";
/// The longest cookie (§3.10.1).
const MAX_COOKIE_LEN: usize = 64;
/// How often we let ourselves be asked to ask again.
const MAX_ROUNDS: u8 = 6;
/// How long an IKE SA may be half open.
const HALF_OPEN: Duration = Duration::from_secs(20);
/// How long to wait for something better than a rumour.
const RUMOUR: Duration = Duration::from_secs(5);

/// Our request, as far as its answer needs it.
pub(crate) struct Initiation {
    key: EphemeralKey,
    cookie: Cookie,
    rounds: u8,
    /// Whether the peer has asked for the group of the key.
    other_group: bool,
    /// Whether it says that there is a NAT in front of us.
    pretends: bool,
}

/// Sends the first request for an IKE SA.
pub(crate) fn begin(sa: &mut IkeSa, env: &mut Env<'_>) -> Outcome {
    let Some(group) = env.settings.preferences.groups.first().copied() else {
        return Outcome::Gone(Reason::NoCommonProposal);
    };
    sa.nonce = env.nonce();
    let key = EphemeralKey::generate(group, env.rng);
    let pretends = sa.entry(env.pad).is_some_and(|(_, entry)| entry.encap == Encap::Udp);
    let (cookie, rounds, other_group) = (Cookie::new(), 0, false);
    request(sa, env, Initiation { key, cookie, rounds, other_group, pretends })
}

fn request(sa: &mut IkeSa, env: &mut Env<'_>, initiation: Initiation) -> Outcome {
    let Some((_, entry)) = sa.entry(env.pad) else { return Outcome::Gone(Reason::Forgotten) };
    let IkeSa { link, nonce, .. } = sa;
    let nat = nat::Hashes::new(link.spis, &link.path, initiation.pretends);
    let (preferences, cookie) = (&env.settings.preferences, &initiation.cookie);
    let written = link.request(env.now, ExchangeType::IKE_SA_INIT, &mut |writer| {
        if !cookie.is_empty() {
            writer.notify(&Notify::new(NotifyType::COOKIE, cookie))?;
        }
        proposal::write_ike(writer, Spi::None, preferences)?;
        write_key_and_nonce(writer, &initiation.key, nonce)?;
        nat.write(writer)?;
        write_abilities(writer, entry.ppk.is_some())
    });
    sa.task = Task::Init(initiation);
    written.map_or(Outcome::Gone(Reason::TooLong), |()| Outcome::Keep)
}

fn write_key_and_nonce(
    writer: &mut PayloadWriter<'_>,
    key: &EphemeralKey,
    nonce: &[u8; NONCE_LEN],
) -> Result<(), NoRoom> {
    let method = KeyExchangeMethod(key.group().number());
    writer.ke(&Ke { method, data: key.public() })?;
    writer.nonce(nonce)
}

/// What we can do, and who we are.
fn write_abilities(writer: &mut PayloadWriter<'_>, ppk: bool) -> Result<(), NoRoom> {
    writer.notify_type(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED)?;
    let hash = HashAlgorithm::IDENTITY.0.to_be_bytes();
    writer.notify(&Notify::new(NotifyType::SIGNATURE_HASH_ALGORITHMS, &hash))?;
    if ppk {
        writer.notify_type(NotifyType::USE_PPK)?;
    }
    writer.vendor(VENDOR_ID)
}

impl About {
    fn of_init(message: &Message<'_>) -> About {
        let has = |notify_type| message.notification(notify_type).is_some();
        let hashes = message.notification(NotifyType::SIGNATURE_HASH_ALGORITHMS);
        About {
            ours: message.has_vendor(VENDOR_ID),
            ed25519: hashes.is_some_and(|hashes| {
                hashes.hash_algorithms().any(|hash| hash == HashAlgorithm::IDENTITY)
            }),
            use_ppk: has(NotifyType::USE_PPK),
            ..About::default()
        }
    }
}

/// Whether the peer puts fragments together; we have told that we do (RFC 7383 §2.3).
fn announces_fragments(message: &Message<'_>) -> bool {
    message.notification(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED).is_some()
}

/// Takes an answer, of whoever sent it.
pub(crate) fn handle_response(
    sa: &mut IkeSa,
    env: &mut Env<'_>,
    path: &IkePath,
    datagram: &[u8],
) -> Outcome {
    if sa.state != State::Initiating || !sa.link.window.awaits(0) {
        return Outcome::Keep;
    }
    let Task::Init(initiation) = core::mem::replace(&mut sa.task, Task::Idle) else {
        return Outcome::Keep;
    };
    let answered = Message::parse(datagram)
        .map_err(Answer::from)
        .and_then(|message| answer(sa, env, path, datagram, &message, &initiation));
    match answered {
        Ok(()) => auth::request(sa, env),
        Err(Answer::Again(group, cookie)) => {
            sa.link.window.asked_again();
            let Initiation { key, cookie: before, rounds, other_group, pretends } = initiation;
            let other_group = other_group || group.is_some();
            let key = group.map_or(key, |group| EphemeralKey::generate(group, env.rng));
            let cookie = cookie.unwrap_or(before);
            let rounds = rounds.saturating_add(1);
            request(sa, env, Initiation { key, cookie, rounds, other_group, pretends })
        }
        Err(Answer::Repeated) => {
            sa.task = Task::Init(initiation);
            Outcome::Keep
        }
        Err(Answer::Rumour(reason)) => {
            sa.task = Task::Init(initiation);
            sa.rumour = Some(reason);
            let soon = env.now.saturating_add(RUMOUR);
            let at = sa.timers.get(Timer::HalfOpen).map_or(soon, |at| at.min(soon));
            sa.timers.set(Timer::HalfOpen, at);
            Outcome::Keep
        }
    }
}

/// A cookie of the peer's.
type Cookie = Vec<u8, MAX_COOKIE_LEN>;

/// What an answer is that does not complete the exchange.
enum Answer {
    /// We are to ask again, with another group or cookie than before.
    Again(Option<Group>, Option<Cookie>),
    /// What it asks for has been done: it came twice, since our request before did.
    Repeated,
    /// Somebody says that it will come to nothing.
    Rumour(Reason),
}

impl From<Malformed> for Answer {
    fn from(malformed: Malformed) -> Answer {
        Answer::Rumour(Reason::Malformed(malformed))
    }
}

/// Takes what the answer says into the IKE SA.
fn answer(
    sa: &mut IkeSa,
    env: &mut Env<'_>,
    path: &IkePath,
    datagram: &[u8],
    message: &Message<'_>,
    initiation: &Initiation,
) -> Result<(), Answer> {
    let preferences = &env.settings.preferences;
    let Ok(chosen) = message.sa() else {
        return Err(asked_again(initiation, &preferences.groups, message));
    };
    let (ke, nonce) = (message.ke()?, message.nonce()?);
    let spis = message.header().spis;
    let chosen = proposal::chosen_ike(chosen, preferences);
    let group = initiation.key.group();
    let (_, suite) = chosen
        .filter(|(_, suite)| suite.group == group && ke.method.0 == group.number())
        .ok_or(Answer::Rumour(Reason::ProposalNotOffered))?;
    let shared = initiation.key.agree(ke.data);
    let shared = shared.map_err(|_| Answer::Rumour(Reason::BadPublicValue))?;
    if spis.responder == 0 || sa.keep_peer_init(datagram).is_err() {
        return Err(Malformed::Length.into());
    }
    let nonces = Nonces { initiator: &sa.nonce, responder: nonce };
    sa.link.keys = Some(IkeKeys::initial(suite.cipher, &shared, nonces, spis));
    sa.link.spis = spis;
    sa.link.window.answered();
    // Something better than a rumour has come.
    sa.rumour = None;
    sa.timers.clear(Timer::HalfOpen);
    sa.suite = Some(suite);
    sa.about = About::of_init(message);
    sa.link.fragments = announces_fragments(message);
    sa.nat = Nat::detect(message, path).pretending(initiation.pretends);
    Ok(())
}

/// An answer without SA: perhaps we are to ask again with a cookie, or with another group.
fn asked_again(initiation: &Initiation, groups: &[Group], message: &Message<'_>) -> Answer {
    let group = message
        .notification(NotifyType::INVALID_KE_PAYLOAD)
        .and_then(|notify| Group::from_number(notify.key_exchange_method()?.0))
        .filter(|group| groups.contains(group));
    let cookie = message
        .notification(NotifyType::COOKIE)
        .and_then(|notify| Cookie::from_slice(notify.data).ok());
    let new_group = group.filter(|group| *group != initiation.key.group());
    let known = cookie.as_ref().is_some_and(|cookie| *cookie == initiation.cookie);
    let new_cookie = cookie.filter(|_| !known);
    let is_new = new_group.is_some() || new_cookie.is_some();
    if initiation.rounds < MAX_ROUNDS && is_new {
        return Answer::Again(new_group, new_cookie);
    }
    // The group of our first request cannot be what we were asked for.
    let known_group = group.is_some() && initiation.other_group;
    if !is_new && (known || known_group) {
        return Answer::Repeated;
    }
    Answer::Rumour(match message.error().map(|notify| notify.notify_type) {
        Some(NotifyType::NO_PROPOSAL_CHOSEN | NotifyType::INVALID_KE_PAYLOAD) => {
            Reason::ProposalRefused
        }
        Some(other) => Reason::Refused(other),
        None => Reason::Malformed(Malformed::Missing(PayloadType::SA)),
    })
}

/// What a first request of somebody wants, if it makes sense.
pub(crate) struct Request<'m> {
    message: &'m Message<'m>,
    datagram: &'m [u8],
    pub(crate) path: IkePath,
    ke: Ke<'m>,
    pub(crate) nonce: &'m [u8],
    /// The cookie it returns, if it does.
    pub(crate) cookie: &'m [u8],
}

/// Why a request leads to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no room for another IKE SA; nothing is said.
    Busy,
    /// It breaks the rules; nothing is said.
    Malformed,
    /// It is longer than any message of ours; nothing is said.
    TooBig,
    /// It should use another group.
    Group(Group),
    /// There is nothing of ours in the offer.
    NoProposal,
}

impl<'m> Request<'m> {
    /// Reads it. `message` was read from `datagram`, which came on `path`.
    pub(crate) fn read(
        message: &'m Message<'m>,
        datagram: &'m [u8],
        path: &IkePath,
    ) -> Result<Request<'m>, Malformed> {
        let cookie = message.notification(NotifyType::COOKIE).map_or(&[][..], |it| it.data);
        let (ke, nonce) = (message.ke()?, message.nonce()?);
        Ok(Request { message, datagram, path: *path, ke, nonce, cookie })
    }

    /// What it offers.
    pub(crate) fn offered(&self) -> Offered {
        self.message.sa().map(Offered::of).unwrap_or_default()
    }

    fn choose(&self, env: &Env<'_>) -> Result<Chosen<Spi, IkeSuite>, Refusal> {
        let sent = Group::from_number(self.ke.method.0);
        let offer = self.message.sa().map_err(|_| Refusal::Malformed)?;
        let chosen = proposal::choose_ike(offer, &env.settings.preferences, sent);
        let chosen = chosen.ok_or(Refusal::NoProposal)?;
        if sent == Some(chosen.suite.group) {
            Ok(chosen)
        } else {
            Err(Refusal::Group(chosen.suite.group))
        }
    }
}

/// Answers somebody's first request: makes a half-open IKE SA in `slot`, which is empty, with the
/// SPI `own_spi`.
///
/// # Errors
/// [`Refusal`]; the slot stays empty then.
pub(crate) fn respond(
    slot: &mut Option<IkeSa>,
    env: &mut Env<'_>,
    own_spi: u64,
    request: &Request<'_>,
) -> Result<(), Refusal> {
    let Chosen { number, suite, .. } = request.choose(env)?;
    let key = EphemeralKey::generate(suite.group, env.rng);
    let shared = key.agree(request.ke.data).map_err(|_| Refusal::Malformed)?;
    let nonce = env.nonce();
    let initiator = request.message.header().spis.initiator;
    let spis = IkeSpis { initiator, responder: own_spi };
    let nonces = Nonces { initiator: request.nonce, responder: &nonce };

    let sa =
        slot.insert(IkeSa::new(env.now, State::HalfOpen, Link::new(false, spis, request.path)));
    sa.link.keys = Some(IkeKeys::initial(suite.cipher, &shared, nonces, spis));
    sa.suite = Some(suite);
    sa.about = About::of_init(request.message);
    let pretends = env.pad.pretends_nat(request.path.remote.ip());
    sa.nat = Nat::detect(request.message, &request.path).pretending(pretends);
    sa.link.fragments = announces_fragments(request.message);
    sa.nonce = nonce;
    sa.timers.set(Timer::HalfOpen, env.now.saturating_add(HALF_OPEN));
    let ppk = sa.about.use_ppk && env.pad.has_ppk();
    let nat = nat::Hashes::new(spis, &request.path, pretends);
    let supported = sa.nat.supported;
    let kept = sa.keep_peer_init(request.datagram);
    let written = sa.link.respond(ExchangeType::IKE_SA_INIT, &mut |writer| {
        proposal::write_chosen_ike(writer, number, Spi::None, suite)?;
        write_key_and_nonce(writer, &key, &nonce)?;
        if supported {
            nat.write(writer)?;
        }
        write_abilities(writer, ppk)
    });
    // Ours is far shorter than what there is room for.
    kept.and(written).map_err(|NoRoom| {
        *slot = None;
        Refusal::TooBig
    })
}
