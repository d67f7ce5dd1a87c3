//! MOBIKE (RFC 4555): an initiator whose address changes takes its SAs along.
//!
//! The initiator tells its new address with UPDATE_SA_ADDRESSES, sent from there; behind a NAT it
//! also looks out for another mapping of its address (§3.8). The responder takes an address for
//! what it is once an authentic request has come from it: return routability checks (§3.7) are
//! answered, and not made. Nobody here has several addresses at a time (§3.4, §3.6).

use super::nat::{self, Nat};
use super::sa::{Env, IkeSa};
use super::want::Want;
use super::wire::notify::Notify;
use super::wire::numbers::NotifyType;
use super::wire::{Message, NoRoom, PayloadWriter};
use crate::crypto::prf::SHA1_LEN;

/// Length of our COOKIE2 in bytes.
const COOKIE2_LEN: usize = 16;

/// What an answer has to repeat, so that it was made by somebody who has seen the request on its
/// way (§4.2.5).
pub(crate) type Cookie2 = [u8; COOKIE2_LEN];

/// A COOKIE2 for an update.
pub(crate) fn cookie2(env: &mut Env<'_>) -> Cookie2 {
    let mut cookie = [0; COOKIE2_LEN];
    env.rng.fill_bytes(&mut cookie);
    cookie
}

/// Writes what tells the peer our new address.
pub(crate) fn write_update(
    writer: &mut PayloadWriter<'_>,
    nat: &nat::Hashes,
    cookie: &Cookie2,
) -> Result<(), NoRoom> {
    writer.notify_type(NotifyType::UPDATE_SA_ADDRESSES)?;
    nat.write(writer)?;
    writer.notify(&Notify::new(NotifyType::COOKIE2, cookie))
}

/// Takes the answer to that: the peer sends to our new address from now on.
pub(crate) fn handle_update_response(
    sa: &mut IkeSa,
    env: &mut Env<'_>,
    cookie: &Cookie2,
    message: &Message<'_>,
) {
    let repeated = message.notification(NotifyType::COOKIE2);
    if message.error().is_none() && repeated.is_some_and(|notify| notify.data == cookie) {
        learn(sa, message);
        let path = sa.link.path;
        sa.move_to(env, &path);
    }
}

/// Whether there are NATs now, and which address of ours the peer sees.
fn learn(sa: &mut IkeSa, message: &Message<'_>) {
    let path = sa.link.path;
    let nat = Nat::detect(message, &path);
    if nat.supported {
        sa.nat = nat;
    }
    if let Some(seen) = seen(message) {
        sa.seen = Some(seen);
    }
}

/// The hash of our address as the peer sees it.
fn seen(message: &Message<'_>) -> Option<[u8; SHA1_LEN]> {
    let notify = message.notification(NotifyType::NAT_DETECTION_DESTINATION_IP)?;
    notify.data.try_into().ok()
}

/// Whether we have to look out for another mapping of our address: as the initiator behind a NAT.
pub(crate) fn looks_out(sa: &IkeSa) -> bool {
    sa.about.mobike && sa.has_connected() && sa.nat.local
}

/// Takes the answer to a liveness check that looked out for another mapping.
pub(crate) fn handle_liveness_response(sa: &mut IkeSa, message: &Message<'_>) {
    let Some(seen) = seen(message).filter(|_| looks_out(sa)) else { return };
    // What IKE_SA_INIT has told was about another port, or the SPIs of a predecessor.
    if sa.seen.replace(seen) != Some(seen) {
        sa.wants.add(Want::UpdateAddress);
    }
}

/// The peer, the initiator, may tell a new address in this request: the one that it came from.
pub(crate) fn handle_request(sa: &mut IkeSa, env: &mut Env<'_>, message: &Message<'_>) {
    let update = message.notification(NotifyType::UPDATE_SA_ADDRESSES).is_some();
    if update && sa.about.mobike && !sa.has_connected() {
        let path = sa.link.answer_path;
        sa.link.path = path;
        // A request of ours may have gone to where the peer is no more.
        sa.link.window.redirect(path);
        learn(sa, message);
        sa.move_to(env, &path);
    }
}

/// Writes what an answer to that needs, or to any other request that asks how it looks from here.
pub(crate) fn write_answer(
    writer: &mut PayloadWriter<'_>,
    nat: &nat::Hashes,
    message: &Message<'_>,
) -> Result<(), NoRoom> {
    if message.notification(NotifyType::NAT_DETECTION_SOURCE_IP).is_some() {
        nat.write(writer)?;
    }
    match message.notification(NotifyType::COOKIE2) {
        Some(cookie) => writer.notify(&Notify::new(NotifyType::COOKIE2, cookie.data)),
        None => Ok(()),
    }
}
