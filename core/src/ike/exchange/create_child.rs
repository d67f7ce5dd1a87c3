//! CREATE_CHILD_SA (RFC 7296 §1.3): new keys for ESP, or a child where there is none. New keys for
//! the IKE SA itself are in [`super::rekey_ike`].
//!
//! New keys are for the addresses of the old ones, or more as far as the configuration goes (§2.9.2);
//! a peer that has its addresses from us keeps to these ([`first_child::offered`]). One that asks for
//! less gets less: it has its reasons, and nothing passes then that was not meant to.
//!
//! A peer has one child at a time, so that a request for another one beside it is refused with
//! NO_ADDITIONAL_SAS. What happens when both ends ask at once is in RFC 7296 §2.8.1 and §2.25;
//! which of two new pairs stays, [`child`] tells.

use super::{Failure, Task, first_child, rekey_ike};
use crate::crypto::dh::{EphemeralKey, Group, SharedSecret};
use crate::ike::child::{self, Agreed, Child, Known};
use crate::ike::keymat::{ChildKeys, Nonces};
use crate::ike::nonce::Lowest;
use crate::ike::pad::PadEntry;
use crate::ike::proposal;
use crate::ike::reason::Reason;
use crate::ike::sa::{Env, IkeSa, NONCE_LEN, Outcome, State};
use crate::ike::status::IkeEvent;
use crate::ike::suite::{ChildSuite, Pfs};
use crate::ike::timer::Timer;
use crate::ike::want::Want;
use crate::ike::wire::ke::Ke;
use crate::ike::wire::notify::{self, Notify};
use crate::ike::wire::numbers::{
    ExchangeType, KeyExchangeMethod, NotifyType, PayloadType, Protocol,
};
use crate::ike::wire::{Malformed, Message, NoRoom};

const EXCHANGE: ExchangeType = ExchangeType::CREATE_CHILD_SA;

/// A child that we have asked for.
pub(crate) struct NewChild {
    /// Our SPI.
    spi_in: u32,
    /// Our SPI of the one that it replaces.
    replaces: Option<u32>,
    nonce: [u8; NONCE_LEN],
    /// Our half of a key exchange, with perfect forward secrecy.
    key: Option<EphemeralKey>,
}

/// Asks for a child: a first one, or one in place of the current one.
pub(crate) fn request_child(sa: &mut IkeSa, env: &mut Env<'_>) -> Result<(), NoRoom> {
    let Some((_, entry)) = sa.entry(env.pad) else { return Ok(()) };
    if sa.state != State::Established || sa.children.is_being_replaced() {
        return Ok(());
    }
    let group = offers_group(sa, &entry).then(|| preferred_group(sa, env));
    child::close_leftovers(sa, env);
    ask(sa, env, group)
}

/// Whether we want perfect forward secrecy: one of ours always can.
fn offers_group(sa: &IkeSa, entry: &PadEntry<'_>) -> bool {
    entry.pfs == Pfs::Required || entry.pfs == Pfs::Optional && sa.about.ours
}

/// The group that the peer is known to take.
pub(super) fn preferred_group(sa: &IkeSa, env: &Env<'_>) -> Group {
    let groups = &env.settings.preferences.groups;
    let known = sa.suite.map(|suite| suite.group).filter(|group| groups.contains(group));
    known.or(groups.first().copied()).unwrap_or(Group::Curve25519)
}

fn ask(sa: &mut IkeSa, env: &mut Env<'_>, group: Option<Group>) -> Result<(), NoRoom> {
    let Some((_, entry)) = sa.entry(env.pad) else { return Ok(()) };
    let Some(spi_in) = env.child_spi() else {
        sa.children.reason = Some(Reason::Full);
        sa.timers.set(Timer::RekeyChild, env.soon());
        return Ok(());
    };
    let replaces = sa.children.current.map(|child| child.spi_in);
    let key = group.map(|group| EphemeralKey::generate(group, env.rng));
    let nonce = env.nonce();
    let [local, remote] = first_child::offered(sa, &entry);
    let preferences = &env.settings.preferences;
    let groups = if key.is_some() { &preferences.groups[..] } else { &[] };
    sa.link.request(env.now, EXCHANGE, &mut |writer| {
        if let Some(spi) = replaces {
            writer.notify(&Notify::about_esp(NotifyType::REKEY_SA, spi))?;
        }
        proposal::write_child(writer, spi_in, preferences, groups)?;
        writer.nonce(&nonce)?;
        if let Some(key) = &key {
            writer.ke(&public_value(key))?;
        }
        writer.ts_initiator(local.selectors())?;
        writer.ts_responder(remote.selectors())
    })?;
    sa.task = Task::Child(NewChild { spi_in, replaces, nonce, key });
    Ok(())
}

pub(super) fn public_value(key: &EphemeralKey) -> Ke<'_> {
    Ke { method: KeyExchangeMethod(key.group().number()), data: key.public() }
}

/// Answers.
pub(crate) fn respond(
    sa: &mut IkeSa,
    env: &mut Env<'_>,
    message: &Message<'_>,
) -> Result<Outcome, Failure> {
    let first = message.sa()?.proposals().next();
    if first.is_some_and(|proposal| proposal.protocol == Protocol::IKE) {
        return rekey_ike::respond(sa, env, message);
    }
    match answer_child(sa, env, message)? {
        None => {}
        Some(refusal) => refuse(sa, refusal)?,
    }
    Ok(Outcome::Keep)
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// For this reason.
    Because(NotifyType),
    /// It is about a child that we do not know, with this SPI of the peer's.
    NotFound(u32),
    /// Its key exchange is for another group than this one.
    Group(Group),
}

pub(super) fn refuse(sa: &mut IkeSa, refusal: Refusal) -> Result<(), NoRoom> {
    sa.link.respond(EXCHANGE, &mut |writer| match refusal {
        Refusal::Because(notify_type) => writer.notify_type(notify_type),
        Refusal::NotFound(spi) => {
            writer.notify(&Notify::about_esp(NotifyType::CHILD_SA_NOT_FOUND, spi))
        }
        Refusal::Group(group) => {
            let group = group.number().to_be_bytes();
            writer.notify(&Notify::new(NotifyType::INVALID_KE_PAYLOAD, &group))
        }
    })
}

/// Answers a request for a child, or says why it is refused.
fn answer_child(
    sa: &mut IkeSa,
    env: &mut Env<'_>,
    message: &Message<'_>,
) -> Result<Option<Refusal>, Failure> {
    let because = |notify_type| Ok(Some(Refusal::Because(notify_type)));
    let theirs = message.nonce()?;
    let [tsi, tsr] = [message.ts_initiator()?, message.ts_responder()?];
    let replaced = message.notification(NotifyType::REKEY_SA).and_then(|notify| notify.child);
    if let Some(refusal) = permitted(sa, replaced) {
        return Ok(Some(refusal));
    }
    let Some((peer, entry)) = sa.entry(env.pad) else {
        return because(NotifyType::NO_ADDITIONAL_SAS);
    };
    let sent = sent_group(message);
    let preferences = &env.settings.preferences;
    let chosen = proposal::choose_child(message.sa()?, preferences, entry.pfs, sent);
    let Some(chosen) = chosen else {
        sa.offers_nothing(env, message.sa()?);
        return because(NotifyType::NO_PROPOSAL_CHOSEN);
    };
    if chosen.suite.group.is_some() && chosen.suite.group != sent {
        return Ok(chosen.suite.group.map(Refusal::Group));
    }
    let common = first_child::common(env, peer, first_child::offered(sa, &entry), [tsr, tsi]);
    let Some([local, remote]) = common else { return because(NotifyType::TS_UNACCEPTABLE) };
    if !sa.may_renew(env.now) {
        return because(NotifyType::TEMPORARY_FAILURE);
    }
    let Some(spi_in) = env.child_spi() else { return because(NotifyType::NO_ADDITIONAL_SAS) };
    let (key, shared) = match chosen.suite.group {
        None => (None, None),
        Some(group) => {
            let key = EphemeralKey::generate(group, env.rng);
            let shared = agree(&key, message)?;
            (Some(key), Some(shared))
        }
    };
    let nonce = env.nonce();
    let nonces = Nonces { initiator: theirs, responder: &nonce };
    let Some(keys) = child_keys(sa, chosen.suite, shared.as_ref(), nonces) else {
        return because(NotifyType::NO_ADDITIONAL_SAS);
    };
    let pair = Child { spi_in, spi_out: chosen.spi, suite: chosen.suite };
    let agreed = Agreed::new(pair, false, &keys, [&local, &remote], sa.esp_path());
    // First it is accepted, then said so.
    if agreed.install_inbound(env, peer).is_err() {
        return because(NotifyType::NO_ADDITIONAL_SAS);
    }
    sa.link.respond(EXCHANGE, &mut |writer| {
        proposal::write_chosen_child(writer, chosen.number, spi_in, chosen.suite)?;
        writer.nonce(&nonce)?;
        if let Some(key) = &key {
            writer.ke(&public_value(key))?;
        }
        writer.ts_initiator(remote.selectors())?;
        writer.ts_responder(local.selectors())
    })?;
    if replaced.is_some() {
        child::close_leftovers(sa, env);
        child::await_peer(sa, env, &agreed, Lowest::of(theirs, &nonce));
    } else {
        child::begin(sa, env, &agreed);
    }
    Ok(None)
}

/// Whether the peer may have another child now, in place of one of ours or where there is none.
fn permitted(sa: &mut IkeSa, replaced: Option<notify::Child>) -> Option<Refusal> {
    const BUSY: Option<Refusal> = Some(Refusal::Because(NotifyType::TEMPORARY_FAILURE));
    if sa.state != State::Established || matches!(sa.task, Task::Rekey(_)) || sa.rival.is_some() {
        return BUSY;
    }
    match replaced {
        Some(replaced) => match child::known(sa, replaced.spi) {
            Known::Current => None,
            Known::Busy => BUSY,
            Known::No => Some(Refusal::NotFound(replaced.spi)),
        },
        None if sa.children.current.is_some() => {
            Some(Refusal::Because(NotifyType::NO_ADDITIONAL_SAS))
        }
        // Both would have one: rather one of them later.
        None if matches!(sa.task, Task::Child(_)) => BUSY,
        None => None,
    }
}

/// The group of the KE payload, if it is one of ours.
pub(super) fn sent_group(message: &Message<'_>) -> Option<Group> {
    message.ke().ok().and_then(|ke| Group::from_number(ke.method.0))
}

pub(super) fn agree(key: &EphemeralKey, message: &Message<'_>) -> Result<SharedSecret, Malformed> {
    let ke = message.ke()?;
    if ke.method.0 != key.group().number() {
        return Err(Malformed::Content(PayloadType::KE));
    }
    key.agree(ke.data).map_err(|_| Malformed::Content(PayloadType::KE))
}

fn child_keys(
    sa: &IkeSa,
    suite: ChildSuite,
    shared: Option<&SharedSecret>,
    nonces: Nonces<'_>,
) -> Option<ChildKeys> {
    let sk_d = &sa.link.keys.as_ref()?.secrets.sk_d;
    Some(ChildKeys::new(suite.cipher, sk_d, shared, nonces))
}

/// Takes the answer for a child.
pub(crate) fn handle_child_response(
    sa: &mut IkeSa,
    env: &mut Env<'_>,
    asked: NewChild,
    message: &Message<'_>,
) -> Outcome {
    if let Some(error) = message.error() {
        return handle_refusal(sa, env, &asked, &error);
    }
    match take_child(sa, env, &asked, message) {
        Ok(()) => Outcome::Keep,
        Err(malformed) => {
            // The peer has a child now that we cannot have, and we cannot even name it.
            sa.wants.add(Want::CloseIke);
            sa.children.reason = Some(Reason::Malformed(malformed));
            Outcome::Keep
        }
    }
}

fn take_child(
    sa: &mut IkeSa,
    env: &mut Env<'_>,
    asked: &NewChild,
    message: &Message<'_>,
) -> Result<(), Malformed> {
    const SA: Malformed = Malformed::Content(PayloadType::SA);
    let theirs = message.nonce()?;
    let pfs = if asked.key.is_some() { Pfs::Required } else { Pfs::Never };
    let preferences = &env.settings.preferences;
    let (spi_out, suite) = proposal::chosen_child(message.sa()?, preferences, pfs).ok_or(SA)?;
    let pair = Child { spi_in: asked.spi_in, spi_out, suite };
    let shared = match &asked.key {
        Some(key) => Some(agree(key, message)?),
        None => None,
    };
    let (peer, entry) = sa.entry(env.pad).ok_or(SA)?;
    let selectors = [message.ts_initiator()?, message.ts_responder()?];
    let common = first_child::common(env, peer, first_child::offered(sa, &entry), selectors);
    let nonces = Nonces { initiator: &asked.nonce, responder: theirs };
    let keys = child_keys(sa, suite, shared.as_ref(), nonces).ok_or(SA)?;
    if is_redundant(sa, asked, &Lowest::of(&asked.nonce, theirs)) {
        child::close_redundant(sa, env, pair);
        return Ok(());
    }
    let failure = match &common {
        None => Some(Reason::SelectorsRefused),
        Some([local, remote]) => {
            let agreed = Agreed::new(pair, true, &keys, [local, remote], sa.esp_path());
            agreed.install(env, peer).err().map(|_| Reason::Full)
        }
    };
    if let Some(reason) = failure {
        child::close_redundant(sa, env, pair);
        later(sa, env, reason);
        return Ok(());
    }
    let first = sa.children.current.is_none();
    child::give_up_waiting(sa, env);
    child::replace(sa, env, pair);
    sa.tell(env.events, if first { IkeEvent::Up } else { IkeEvent::ChildRekeyed });
    Ok(())
}

/// Whether the peer has replaced the same child, and its new one stays. It does, too, if it is in
/// use already: the peer has chosen, and knew ours.
fn is_redundant(sa: &IkeSa, asked: &NewChild, lowest: &Lowest) -> bool {
    let current = sa.children.current.map(|child| child.spi_in);
    if current.is_some() && current != asked.replaces {
        return true;
    }
    child::is_redundant(sa, lowest).unwrap_or(false)
}

/// The peer gives us no child, or not now.
fn handle_refusal(
    sa: &mut IkeSa,
    env: &mut Env<'_>,
    asked: &NewChild,
    error: &Notify<'_>,
) -> Outcome {
    let group = match (error.notify_type, &asked.key) {
        (NotifyType::INVALID_KE_PAYLOAD, Some(key)) => other_group(env, key, error),
        // Some peers insist on perfect forward secrecy.
        (NotifyType::NO_PROPOSAL_CHOSEN, None) if may_offer_group(sa, env) => {
            Some(preferred_group(sa, env))
        }
        _ => None,
    };
    if group.is_some() {
        return match ask(sa, env, group) {
            Ok(()) => Outcome::Keep,
            Err(NoRoom) => Outcome::Gone(Reason::TooLong),
        };
    }
    match error.notify_type {
        NotifyType::CHILD_SA_NOT_FOUND => {
            if let Some(spi) = asked.replaces {
                child::lost(sa, env, spi);
            }
        }
        NotifyType::TEMPORARY_FAILURE => sa.timers.set(Timer::RekeyChild, env.soon()),
        NotifyType::NO_PROPOSAL_CHOSEN | NotifyType::INVALID_KE_PAYLOAD => {
            later(sa, env, Reason::ChildProposalRefused);
        }
        NotifyType::TS_UNACCEPTABLE => later(sa, env, Reason::SelectorsRefused),
        other => later(sa, env, Reason::Refused(other)),
    }
    Outcome::Keep
}

fn may_offer_group(sa: &IkeSa, env: &Env<'_>) -> bool {
    sa.entry(env.pad).is_some_and(|(_, entry)| entry.pfs != Pfs::Never)
}

/// The group that the peer wants, if it is one of ours and not the one it has refused.
pub(super) fn other_group(env: &Env<'_>, key: &EphemeralKey, error: &Notify<'_>) -> Option<Group> {
    let group = error.key_exchange_method().and_then(|method| Group::from_number(method.0))?;
    let ours = env.settings.preferences.groups.contains(&group);
    (ours && group != key.group()).then_some(group)
}

/// There is no child, or none in place of the current one: we ask again after a while.
fn later(sa: &mut IkeSa, env: &mut Env<'_>, reason: Reason) {
    sa.children.reason = Some(reason);
    sa.timers.set(Timer::RekeyChild, env.much_later());
}

/// One of the timers of children is due.
pub(crate) fn handle_timer(sa: &mut IkeSa, env: &mut Env<'_>, timer: Timer) {
    match timer {
        Timer::RetireChild => child::retire(sa, env),
        Timer::ExpireChild => child::expire(sa, env),
        Timer::SwitchOutbound => {
            let replacing = matches!(sa.task, Task::Child(_));
            child::look_for_use(sa, env, replacing);
        }
        _ => sa.wants.add(Want::RekeyChild),
    }
}
