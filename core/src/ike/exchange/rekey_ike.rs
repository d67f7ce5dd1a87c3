//! CREATE_CHILD_SA for the IKE SA itself (RFC 7296 §1.3.2, §2.18): new keys and SPIs. The successor
//! gets the children, and whoever has begun the exchange deletes the old one.
//!
//! When both ends begin at once there are two successors: the one whose exchange has the lowest of
//! the four nonces is one too many, and is deleted by the end that has begun it (§2.8.2).

use super::create_child::sent_group;
use super::create_child::{Refusal, agree, other_group, preferred_group, public_value, refuse};
use super::{Failure, Task, informational};
use crate::crypto::dh::{EphemeralKey, Group};
use crate::ike::keymat::{IkeKeys, IkeSpis, Nonces};
use crate::ike::nonce::Lowest;
use crate::ike::proposal;
use crate::ike::reason::Reason;
use crate::ike::sa::{Env, IkeSa, NONCE_LEN, Outcome, Rival, State, Successor};
use crate::ike::suite::IkeSuite;
use crate::ike::timer::Timer;
use crate::ike::want::Want;
use crate::ike::wire::notify::Notify;
use crate::ike::wire::numbers::{ExchangeType, NotifyType, PayloadType};
use crate::ike::wire::sa::Spi;
use crate::ike::wire::{Malformed, Message, NoRoom};

/// A successor of the IKE SA that we have asked for.
pub(crate) struct NewIke {
    spi: u64,
    nonce: [u8; NONCE_LEN],
    key: EphemeralKey,
}

/// Asks for a successor of the IKE SA.
pub(crate) fn request(sa: &mut IkeSa, env: &mut Env<'_>) -> Result<(), NoRoom> {
    if sa.state != State::Established {
        return Ok(());
    }
    let group = preferred_group(sa, env);
    ask(sa, env, group)
}

fn ask(sa: &mut IkeSa, env: &mut Env<'_>, group: Group) -> Result<(), NoRoom> {
    let Some(spi) = env.take_spare_spi() else {
        sa.timers.set(Timer::RekeyIke, env.soon());
        return Ok(());
    };
    let key = EphemeralKey::generate(group, env.rng);
    let nonce = env.nonce();
    sa.link.request(env.now, ExchangeType::CREATE_CHILD_SA, &mut |writer| {
        proposal::write_ike(writer, Spi::Ike(spi), &env.settings.preferences)?;
        writer.nonce(&nonce)?;
        writer.ke(&public_value(&key))
    })?;
    sa.task = Task::Rekey(NewIke { spi, nonce, key });
    Ok(())
}

/// Answers.
pub(super) fn respond(
    sa: &mut IkeSa,
    env: &mut Env<'_>,
    message: &Message<'_>,
) -> Result<Outcome, Failure> {
    let theirs = message.nonce()?;
    let (offer, ke) = (message.sa()?, message.ke()?);
    let Some(spare) = env.spare_spi.filter(|_| is_free(sa)) else {
        refuse(sa, Refusal::Because(NotifyType::TEMPORARY_FAILURE))?;
        return Ok(Outcome::Keep);
    };
    let chosen = proposal::choose_ike(offer, &env.settings.preferences, sent_group(message));
    let Some((chosen, peer_spi)) = chosen.and_then(|chosen| match chosen.spi {
        Spi::Ike(spi) => Some((chosen, spi)),
        _ => None,
    }) else {
        refuse(sa, Refusal::Because(NotifyType::NO_PROPOSAL_CHOSEN))?;
        return Ok(Outcome::Keep);
    };
    if chosen.suite.group.number() != ke.method.0 {
        refuse(sa, Refusal::Group(chosen.suite.group))?;
        return Ok(Outcome::Keep);
    }
    if !sa.may_renew(env.now) {
        refuse(sa, Refusal::Because(NotifyType::TEMPORARY_FAILURE))?;
        return Ok(Outcome::Keep);
    }
    let key = EphemeralKey::generate(chosen.suite.group, env.rng);
    let nonce = env.nonce();
    let nonces = Nonces { initiator: theirs, responder: &nonce };
    let spis = IkeSpis { initiator: peer_spi, responder: spare };
    let successor = successor(sa, false, spis, chosen.suite, &key, nonces, message)?;
    sa.link.respond(ExchangeType::CREATE_CHILD_SA, &mut |writer| {
        proposal::write_chosen_ike(writer, chosen.number, Spi::Ike(spare), chosen.suite)?;
        writer.nonce(&nonce)?;
        writer.ke(&public_value(&key))
    })?;
    // Only now: whoever is refused shall not take up slots.
    let _ = env.take_spare_spi();
    if matches!(sa.task, Task::Rekey(_)) {
        sa.rival = Some(Rival { successor, lowest: Lowest::of(theirs, &nonce) });
        return Ok(Outcome::Keep);
    }
    sa.successor = Some(successor);
    Ok(Outcome::Succeeded)
}

/// Whether nothing stands in the way of a successor: no child is being made or deleted by us, and
/// no address changes (RFC 7296 §2.25.2).
fn is_free(sa: &IkeSa) -> bool {
    let idle = match &sa.task {
        Task::Idle | Task::Rekey(_) => true,
        Task::Informational(purpose) => *purpose == informational::Purpose::Liveness,
        _ => false,
    };
    idle && sa.state == State::Established && sa.rival.is_none()
}

fn successor(
    sa: &IkeSa,
    initiator: bool,
    spis: IkeSpis,
    suite: IkeSuite,
    key: &EphemeralKey,
    nonces: Nonces<'_>,
    message: &Message<'_>,
) -> Result<Successor, Malformed> {
    let shared = agree(key, message)?;
    let keys = sa.link.keys.as_ref().ok_or(Malformed::Content(PayloadType::KE))?;
    let keys = IkeKeys::rekeyed(suite.cipher, &keys.secrets.sk_d, &shared, nonces, spis);
    Ok(Successor { initiator, spis, suite, keys })
}

/// Takes the answer.
pub(crate) fn handle_response(
    sa: &mut IkeSa,
    env: &mut Env<'_>,
    asked: NewIke,
    message: &Message<'_>,
) -> Outcome {
    if let Some(error) = message.error() {
        return handle_refusal(sa, env, &asked, &error);
    }
    let (ours, lowest) = match take_successor(sa, env, &asked, message) {
        Ok(taken) => taken,
        Err(malformed) => return Outcome::Gone(Reason::Malformed(malformed)),
    };
    match sa.rival.take() {
        // The peer has gone over to its own while the answer was on the way.
        None if sa.state != State::Established => sa.redundant = Some(ours),
        None => sa.successor = Some(ours),
        Some(rival) if lowest < rival.lowest => {
            (sa.redundant, sa.successor) = (Some(ours), Some(rival.successor));
        }
        Some(rival) => (sa.redundant, sa.successor) = (Some(rival.successor), Some(ours)),
    }
    Outcome::Succeeded
}

fn take_successor(
    sa: &IkeSa,
    env: &Env<'_>,
    asked: &NewIke,
    message: &Message<'_>,
) -> Result<(Successor, Lowest), Malformed> {
    const SA: Malformed = Malformed::Content(PayloadType::SA);
    let theirs = message.nonce()?;
    let chosen = proposal::chosen_ike(message.sa()?, &env.settings.preferences);
    let (Spi::Ike(responder), suite) = chosen.ok_or(SA)? else { return Err(SA) };
    if suite.group != asked.key.group() {
        return Err(SA);
    }
    let spis = IkeSpis { initiator: asked.spi, responder };
    let nonces = Nonces { initiator: &asked.nonce, responder: theirs };
    let ours = successor(sa, true, spis, suite, &asked.key, nonces, message)?;
    Ok((ours, Lowest::of(&asked.nonce, theirs)))
}

/// The peer gives us no successor, or not now; perhaps because its own is there.
fn handle_refusal(
    sa: &mut IkeSa,
    env: &mut Env<'_>,
    asked: &NewIke,
    error: &Notify<'_>,
) -> Outcome {
    if let Some(outcome) = adopt_rival(sa) {
        return outcome;
    }
    if sa.state != State::Established {
        return Outcome::Keep;
    }
    if error.notify_type == NotifyType::INVALID_KE_PAYLOAD
        && let Some(group) = other_group(env, &asked.key, error)
    {
        return match ask(sa, env, group) {
            Ok(()) => Outcome::Keep,
            Err(NoRoom) => Outcome::Gone(Reason::TooLong),
        };
    }
    let again = match error.notify_type {
        NotifyType::TEMPORARY_FAILURE => env.soon(),
        _ => env.much_later(),
    };
    sa.timers.set(Timer::RekeyIke, again);
    Outcome::Keep
}

/// Ours has come to nothing, or the peer has gone over to its own: that is the successor.
pub(crate) fn adopt_rival(sa: &mut IkeSa) -> Option<Outcome> {
    let rival = sa.rival.take()?;
    sa.successor = Some(rival.successor);
    Some(Outcome::Succeeded)
}

/// What takes the place of `old`, or would have: without `heir` it is one too many.
pub(crate) fn succeed(old: &mut IkeSa, env: &mut Env<'_>, new: Successor, heir: bool) -> IkeSa {
    let Successor { initiator, spis, suite, keys } = new;
    let mut sa = old.twin(env.now, initiator, spis, keys);
    sa.suite = Some(suite);
    if heir {
        sa.state = State::Established;
        sa.children = core::mem::take(&mut old.children);
        sa.timers = core::mem::take(&mut old.timers);
        sa.wants = core::mem::take(&mut old.wants);
        sa.wants.remove(Want::RekeyIke);
        sa.timers.clear(Timer::Forget);
        if let Some((_, entry)) = sa.entry(env.pad) {
            sa.start_lifetime(env, &entry.lifetimes);
        }
        retire(old, env, initiator);
    } else {
        retire(&mut sa, env, initiator);
    }
    sa
}

/// It is in nobody's use any more: whoever has made what takes its place deletes it.
fn retire(sa: &mut IkeSa, env: &mut Env<'_>, by_us: bool) {
    sa.state = State::Replaced;
    if by_us {
        sa.wants.add(Want::CloseIke);
    }
    sa.timers.set(Timer::Forget, env.much_later());
}
