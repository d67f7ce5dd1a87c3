//! CREATE_CHILD_SA (RFC 7296 §1.3): another child, and new keys.
//!
//! Not here yet. An end need not take part in this exchange (§1.3): it refuses with
//! NO_ADDITIONAL_SAS.

use super::Failure;
use crate::ike::sa::{Env, IkeSa, Outcome};
use crate::ike::timer::Timer;
use crate::ike::wire::numbers::{ExchangeType, NotifyType};
use crate::ike::wire::{Message, NoRoom};

/// A child that we have asked for.
pub(crate) struct NewChild;

/// A successor of the IKE SA that we have asked for.
pub(crate) struct NewIke;

/// Asks for a child: a first one, or one in place of the current one.
pub(crate) fn request_child(_sa: &mut IkeSa, _env: &mut Env<'_>) -> Result<(), NoRoom> {
    Ok(())
}

/// Asks for a successor of the IKE SA.
pub(crate) fn request_rekey(_sa: &mut IkeSa, _env: &mut Env<'_>) -> Result<(), NoRoom> {
    Ok(())
}

/// Answers.
pub(crate) fn respond(
    sa: &mut IkeSa,
    _env: &mut Env<'_>,
    _message: &Message<'_>,
) -> Result<Outcome, Failure> {
    sa.link.respond(ExchangeType::CREATE_CHILD_SA, &mut |writer| {
        writer.notify_type(NotifyType::NO_ADDITIONAL_SAS)
    })?;
    Ok(Outcome::Keep)
}

/// Takes the answer for a child.
pub(crate) fn handle_child_response(
    _sa: &mut IkeSa,
    _env: &mut Env<'_>,
    _child: NewChild,
    _message: &Message<'_>,
) -> Outcome {
    Outcome::Keep
}

/// Takes the answer for the IKE SA.
pub(crate) fn handle_rekey_response(
    _sa: &mut IkeSa,
    _env: &mut Env<'_>,
    _ike: NewIke,
    _message: &Message<'_>,
) -> Outcome {
    Outcome::Keep
}

/// One of the timers of children is due.
pub(crate) fn handle_timer(_sa: &mut IkeSa, _env: &mut Env<'_>, _timer: Timer) {}
