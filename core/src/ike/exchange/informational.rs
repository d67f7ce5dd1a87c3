//! INFORMATIONAL (RFC 7296 §1.4): deletion, liveness, and with MOBIKE addresses.

use super::{Failure, Task, rekey_ike};
use crate::ike::child;
use crate::ike::mobike::{self, Cookie2};
use crate::ike::nat;
use crate::ike::reason::Reason;
use crate::ike::sa::{Env, IkeSa, Outcome, State};
use crate::ike::status::IkeEvent;
use crate::ike::timer::Timer;
use crate::ike::want::Want;
use crate::ike::wire::numbers::{ExchangeType, NotifyType, Protocol};
use crate::ike::wire::{Message, NoRoom};

/// What our request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To see whether the peer answers.
    Liveness,
    /// To delete the IKE SA.
    CloseIke,
    /// To delete the child SA with this SPI of ours.
    CloseChild(u32),
    /// To tell our new address.
    UpdateAddress(Cookie2),
    /// To see whether the peer is where it says.
    CheckAddress(Cookie2),
}

/// Begins what is wanted.
pub(crate) fn request(sa: &mut IkeSa, env: &mut Env<'_>, want: Want) -> Result<(), NoRoom> {
    let purpose = match want {
        Want::CloseIke => {
            sa.state = State::Closing;
            Purpose::CloseIke
        }
        Want::CloseChild => match sa.children.next_to_close() {
            Some(spi) => Purpose::CloseChild(spi),
            None => return Ok(()),
        },
        Want::UpdateAddress => Purpose::UpdateAddress(mobike::cookie2(env)),
        Want::CheckAddress => Purpose::CheckAddress(mobike::cookie2(env)),
        _ => Purpose::Liveness,
    };
    let looks_out = mobike::looks_out(sa);
    let nat = nat::Hashes::new(sa.link.spis, &sa.link.path, sa.nat.pretended);
    sa.link.request(env.now, ExchangeType::INFORMATIONAL, &mut |writer| match &purpose {
        Purpose::Liveness if looks_out => nat.write(writer),
        Purpose::Liveness => Ok(()),
        Purpose::CloseIke => writer.delete_ike(),
        Purpose::CloseChild(spi) => writer.delete_esp(&[*spi]),
        Purpose::UpdateAddress(cookie) => mobike::write_update(writer, &nat, cookie),
        Purpose::CheckAddress(cookie) => mobike::write_check(writer, cookie),
    })?;
    sa.task = Task::Informational(purpose);
    Ok(())
}

/// Takes the answer.
pub(crate) fn handle_response(
    sa: &mut IkeSa,
    env: &mut Env<'_>,
    purpose: Purpose,
    message: &Message<'_>,
) -> Outcome {
    match purpose {
        Purpose::Liveness => {
            mobike::handle_liveness_response(sa, message);
            Outcome::Keep
        }
        Purpose::UpdateAddress(cookie) => mobike::handle_update_response(sa, env, &cookie, message),
        Purpose::CheckAddress(cookie) => mobike::handle_check_response(sa, env, &cookie, message),
        Purpose::CloseIke => Outcome::Gone(Reason::Closed),
        Purpose::CloseChild(spi) => {
            child::closed(sa, env, spi);
            Outcome::Keep
        }
    }
}

/// Answers.
pub(crate) fn respond(
    sa: &mut IkeSa,
    env: &mut Env<'_>,
    message: &Message<'_>,
) -> Result<Outcome, Failure> {
    if message.notification(NotifyType::AUTHENTICATION_FAILED).is_some() {
        sa.link.respond(ExchangeType::INFORMATIONAL, &mut |_| Ok(()))?;
        return Ok(Outcome::Lingers(Reason::TheyRefuseOurKey));
    }
    let mut gone = heapless::Vec::<u32, 4>::new();
    for deletion in message.deletions() {
        if deletion.protocol == Protocol::IKE {
            sa.link.respond(ExchangeType::INFORMATIONAL, &mut |_| Ok(()))?;
            // The peer has gone over to its own successor, if it has made one.
            return Ok(rekey_ike::adopt_rival(sa).unwrap_or(Outcome::Lingers(Reason::PeerClosed)));
        }
        if deletion.protocol == Protocol::ESP {
            for spi in deletion.spis() {
                if let Some(ours) = child::deleted_by_peer(sa, env, spi) {
                    let _ = gone.push(ours);
                }
            }
        }
    }
    mobike::handle_request(sa, env, message);
    let nat = nat::Hashes::new(sa.link.spis, &sa.link.answer_path, sa.nat.pretended);
    sa.link.respond(ExchangeType::INFORMATIONAL, &mut |writer| {
        mobike::write_answer(writer, &nat, message)?;
        if gone.is_empty() { Ok(()) } else { writer.delete_esp(&gone) }
    })?;
    Ok(Outcome::Keep)
}

/// Closes the connection: nothing passes any more, and the peer is told.
pub(crate) fn close(sa: &mut IkeSa, env: &mut Env<'_>) {
    child::remove_all(sa, env.sad);
    if let Some(peer) = sa.peer {
        env.events.push(IkeEvent::Down(peer, Reason::Closed));
    }
    sa.state = State::Closing;
    sa.wants.clear();
    sa.wants.add(Want::CloseIke);
}

/// Asks the peer whether it is there if nothing was heard of it for long, neither by IKE nor by
/// ESP (RFC 7296 §2.4). ESP does not tell whether IKE still finds us through a NAT: whoever has to
/// look out for that asks twice as often.
pub(crate) fn check_liveness(sa: &mut IkeSa, env: &mut Env<'_>) {
    let by_esp = sa.peer.and_then(|peer| env.sad.last_inbound(peer)).unwrap_or_default();
    let (heard, pause) = if mobike::is_behind_nat(sa) {
        (sa.last_heard, env.settings.liveness / 2)
    } else {
        (sa.last_heard.max(by_esp), env.settings.liveness)
    };
    let due = heard.saturating_add(pause);
    if due <= env.now {
        sa.wants.add(Want::Liveness);
        sa.timers.set(Timer::Liveness, env.now.saturating_add(pause));
    } else {
        sa.timers.set(Timer::Liveness, due);
    }
}
