//! IKE_AUTH (RFC 7296 §1.2): who both ends are, and the first child.

use super::Failure;
use crate::ike::sa::{Env, IkeSa, Outcome};
use crate::ike::wire::{Malformed, Message};

/// Our request, as far as its answer needs it.
pub(crate) struct Authentication {
    /// Our SPI of the child.
    pub(crate) spi_in: u32,
}

/// Answers.
pub(crate) fn respond(
    _sa: &mut IkeSa,
    _env: &mut Env<'_>,
    _message: &Message<'_>,
) -> Result<Outcome, Failure> {
    Err(Malformed::Length.into())
}

/// Takes the answer.
pub(crate) fn handle_response(
    _sa: &mut IkeSa,
    _env: &mut Env<'_>,
    _authentication: Authentication,
    _message: &Message<'_>,
) -> Outcome {
    Outcome::Keep
}
