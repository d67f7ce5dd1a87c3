//! The exchanges of IKEv2: one module each, with what either end says and what it makes of what the
//! other one said.
//!
//! | module | exchange |
//! |---|---|
//! | `init` | IKE_SA_INIT: algorithms, keys, NAT detection (RFC 7296 §1.2) |
//! | `auth` | IKE_AUTH: who both are, and the first child (§1.2) |
//! | `first_child` | the first child, on the way |
//! | `create_child` | CREATE_CHILD_SA: new keys for ESP (§1.3.1, §1.3.3) |
//! | `rekey_ike` | CREATE_CHILD_SA: new keys for the IKE SA (§1.3.2) |
//! | `informational` | INFORMATIONAL: deletion, liveness, addresses (§1.4) |
//!
//! An exchange that we begin is a [`Task`] while its request is on the way, and waits as a
//! [`Want`] before.

pub(crate) mod auth;
pub(crate) mod create_child;
pub(crate) mod first_child;
pub(crate) mod informational;
pub(crate) mod init;
pub(crate) mod rekey_ike;

use super::path::IkePath;
use super::reason::Reason;
use super::sa::{Env, IkeSa, Outcome, State};
use super::timer::Timer;
use super::want::Want;
use super::window::{Arrival, GiveUp};
use super::wire::notify::Notify;
use super::wire::numbers::{ExchangeType, PayloadType};
use super::wire::{Header, Malformed, Message, NoRoom};
use crate::path::Path;

/// What our request on the way is for, with what its answer needs.
#[allow(clippy::large_enum_variant)] // there is no heap, and IkeSa has room for the largest
pub(crate) enum Task {
    /// There is none.
    Idle,
    /// IKE_SA_INIT.
    Init(init::Initiation),
    /// IKE_AUTH.
    Auth(auth::Authentication),
    /// CREATE_CHILD_SA, for a child.
    Child(create_child::NewChild),
    /// CREATE_CHILD_SA, for the IKE SA.
    Rekey(rekey_ike::NewIke),
    /// INFORMATIONAL.
    Informational(informational::Purpose),
}

/// Begins what the IKE SA wants, when no request is on the way.
pub(crate) fn start_next(sa: &mut IkeSa, env: &mut Env<'_>) -> Outcome {
    while !sa.link.window.is_busy() && sa.is_established() {
        let Some(want) = sa.wants.take() else { break };
        let started = match want {
            Want::RekeyIke => rekey_ike::request(sa, env),
            Want::RekeyChild | Want::NewChild => create_child::request_child(sa, env),
            _ => informational::request(sa, env, want),
        };
        if started == Err(NoRoom) {
            return Outcome::Gone(Reason::TooLong);
        }
    }
    Outcome::Keep
}

/// Whether a message with this header is worth being opened: whether its id is that of a request
/// or an answer that we wait for, or of the last request; and whether the IKE SA is as far as that.
///
/// An end that has done its part of IKE_AUTH may send a request at once, which can overtake its
/// message of IKE_AUTH. It comes again when that has arrived: until then it is as good as lost.
pub(crate) fn expects(sa: &IkeSa, header: &Header) -> bool {
    let window = &sa.link.window;
    if header.response {
        return window.awaits(header.message_id);
    }
    let too_early = match sa.state {
        State::Initiating => true,
        State::HalfOpen => header.exchange != ExchangeType::IKE_AUTH,
        _ => false,
    };
    !too_early && window.arrival(header.message_id) != Arrival::Outside
}

/// Whether it is the header of the request that was answered last. In fragments, only the first of
/// them has the answer sent again (RFC 7383 §2.6.1).
pub(crate) fn was_answered(sa: &IkeSa, header: &Header) -> bool {
    !header.response && sa.link.window.arrival(header.message_id) == Arrival::Again
}

/// The answer got lost, or the request came twice.
pub(crate) fn answer_again(sa: &mut IkeSa, path: &IkePath) -> Outcome {
    sa.link.window.response.send_again(*path);
    Outcome::Keep
}

/// Takes an authentic message that came on `path`.
pub(crate) fn handle_message(
    sa: &mut IkeSa,
    env: &mut Env<'_>,
    path: &IkePath,
    header: &Header,
    message: Result<&Message<'_>, Malformed>,
) -> Outcome {
    if !expects(sa, header) {
        return Outcome::Keep;
    }
    if header.response {
        return handle_answer(sa, env, path, message);
    }
    if was_answered(sa, header) {
        return answer_again(sa, path);
    }
    if sa.state == State::Ended {
        return Outcome::Keep;
    }
    sa.heard(env, path);
    sa.link.answer_path = *path;
    handle_request(sa, env, header, message)
}

fn handle_answer(
    sa: &mut IkeSa,
    env: &mut Env<'_>,
    path: &IkePath,
    message: Result<&Message<'_>, Malformed>,
) -> Outcome {
    sa.heard(env, path);
    sa.link.window.answered();
    let task = core::mem::replace(&mut sa.task, Task::Idle);
    match (sa.state, message) {
        (State::Ended, _) => Outcome::Gone(Reason::Closed),
        (_, Ok(message)) => handle_response(sa, env, task, message),
        // The end that asked has nobody to tell (RFC 7296 §2.21.3).
        (_, Err(malformed)) => Outcome::Gone(Reason::Malformed(malformed)),
    }
}

fn handle_request(
    sa: &mut IkeSa,
    env: &mut Env<'_>,
    header: &Header,
    message: Result<&Message<'_>, Malformed>,
) -> Outcome {
    let answered = match (message, header.exchange) {
        (Ok(message), ExchangeType::IKE_AUTH) if sa.state == State::HalfOpen => {
            auth::respond(sa, env, message)
        }
        (Ok(message), ExchangeType::CREATE_CHILD_SA) if sa.is_established() => {
            create_child::respond(sa, env, message)
        }
        (Ok(message), ExchangeType::INFORMATIONAL) if sa.is_established() => {
            informational::respond(sa, env, message)
        }
        (Ok(_), _) => Err(Malformed::Length.into()),
        (Err(malformed), _) => Err(malformed.into()),
    };
    match answered {
        Ok(outcome) => outcome,
        Err(Failure::Malformed(malformed)) => refuse(sa, header.exchange, malformed),
        Err(Failure::NoRoom) => Outcome::Gone(Reason::TooLong),
    }
}

/// Why a request was not answered in its own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It breaks the rules.
    Malformed(Malformed),
    /// The answer is too long.
    NoRoom,
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Failure {
        Failure::Malformed(malformed)
    }
}

impl From<NoRoom> for Failure {
    fn from(_: NoRoom) -> Failure {
        Failure::NoRoom
    }
}

/// Tells the peer that its request breaks the rules. Whoever sends something malformed in a
/// protected exchange is broken, and its IKE SA ends (RFC 7296 §2.21.3); a critical payload that
/// is new to us only ends the exchange, unless that is IKE_AUTH (§2.5).
fn refuse(sa: &mut IkeSa, exchange: ExchangeType, malformed: Malformed) -> Outcome {
    let (notify_type, data) = malformed.notification();
    let data = data.as_slice();
    let written =
        sa.link.respond(exchange, &mut |writer| writer.notify(&Notify::new(notify_type, data)));
    match (written, malformed) {
        (Ok(()), Malformed::CriticalPayload(_)) if sa.is_established() => Outcome::Keep,
        (Ok(()), _) => Outcome::Lingers(Reason::Malformed(malformed)),
        (Err(NoRoom), _) => Outcome::Gone(Reason::TooLong),
    }
}

fn handle_response(
    sa: &mut IkeSa,
    env: &mut Env<'_>,
    task: Task,
    message: &Message<'_>,
) -> Outcome {
    match task {
        // Those of IKE_SA_INIT are not protected, and have a way of their own.
        Task::Idle | Task::Init(_) => Outcome::Keep,
        Task::Auth(authentication) => auth::handle_response(sa, env, authentication, message),
        Task::Child(child) => create_child::handle_child_response(sa, env, child, message),
        Task::Rekey(ike) => rekey_ike::handle_response(sa, env, ike, message),
        Task::Informational(purpose) => informational::handle_response(sa, env, purpose, message),
    }
}

/// Where our request goes that was not answered yet: every other time to where the peer's packets
/// come from by now, if there is a NAT in front of it (RFC 7296 §2.23).
///
/// With MOBIKE, only the peer itself moves IKE (RFC 4555 §3.8), and as long as packets reach it, it
/// need not have noticed that the NAT has changed its mind. Nothing moves here either: one message
/// that nobody answers is tried where somebody may.
fn retransmission_path(sa: &IkeSa, env: &Env<'_>) -> IkePath {
    let path = sa.link.path;
    let elsewhere = sa.is_established() && !sa.link.window.sendings().is_multiple_of(2);
    let peer = sa.peer.filter(|_| elsewhere && path.natt);
    let heard = peer.and_then(|peer| env.sad.heard_on(peer));
    match heard.filter(|heard| sa.status().follows(heard)) {
        Some(Path::Udp { remote, .. }) => IkePath { remote, ..path },
        _ => path,
    }
}

/// Does what is due.
pub(crate) fn handle_timeout(sa: &mut IkeSa, env: &mut Env<'_>) -> Outcome {
    let path = retransmission_path(sa, env);
    if sa.link.window.retransmit(env.now, path) == Err(GiveUp) {
        return Outcome::Gone(sa.rumour.unwrap_or(Reason::NoAnswer));
    }
    while let Some(timer) = sa.timers.take_due(env.now) {
        match timer {
            Timer::HalfOpen => return Outcome::Gone(sa.rumour.unwrap_or(Reason::NoAnswer)),
            Timer::Forget => return Outcome::Gone(Reason::Closed),
            Timer::ExpireIke => return Outcome::Gone(Reason::Expired),
            Timer::Liveness => informational::check_liveness(sa, env),
            Timer::RekeyIke => sa.wants.add(Want::RekeyIke),
            Timer::RekeyChild
            | Timer::Retry
            | Timer::ExpireChild
            | Timer::SwitchOutbound
            | Timer::RetireChild => create_child::handle_timer(sa, env, timer),
        }
    }
    Outcome::Keep
}
