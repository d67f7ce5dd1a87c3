//! MOBIKE (RFC 4555): an initiator whose address changes takes its SAs along.
//!
//! The initiator tells its new address with UPDATE_SA_ADDRESSES, sent from there; behind a NAT it
//! also looks out for another mapping of its address (§3.8). The responder sends IKE there at once,
//! and packets when the initiator has shown that it receives what is sent there (§3.7): otherwise
//! whoever is authenticated could have them sent to anybody. The initiator need not check, since the
//! responder's address stays what it was. Nobody here has several addresses at a time (§3.4, §3.6).

use super::exchange::Task;
use super::exchange::informational::Purpose;
use super::nat::{self, Nat};
use super::reason::Reason;
use super::sa::{Env, IkeSa, Outcome};
use super::want::Want;
use super::wire::notify::Notify;
use super::wire::numbers::{ExchangeType, NotifyType};
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
///
/// Without our COOKIE2 in it, the answer was made by somebody who has not seen the request on its way,
/// although it has the keys: the IKE SA is closed (§3.7). So it is if the peer does not accept the
/// address (§3.5): we have no other, and it sends to where we are no more.
pub(crate) fn handle_update_response(
    sa: &mut IkeSa,
    env: &mut Env<'_>,
    cookie: &Cookie2,
    message: &Message<'_>,
) -> Outcome {
    if let Some(error) = message.error() {
        return gives_up(sa, env, Reason::Refused(error.notify_type));
    }
    if !repeats(message, cookie) {
        return gives_up(sa, env, Reason::NotRoutable);
    }
    // With another address since then, it answers a question of the past (§3.5).
    if !sa.wants.has(Want::UpdateAddress) {
        learn(sa, message);
        let path = sa.link.path;
        sa.move_to(env, &path);
    }
    Outcome::Keep
}

fn repeats(message: &Message<'_>, cookie: &Cookie2) -> bool {
    message.notification(NotifyType::COOKIE2).is_some_and(|notify| notify.data == cookie)
}

/// Writes what only somebody can answer who receives it.
pub(crate) fn write_check(writer: &mut PayloadWriter<'_>, cookie: &Cookie2) -> Result<(), NoRoom> {
    writer.notify(&Notify::new(NotifyType::COOKIE2, cookie))
}

/// Takes the answer to that: from now on packets go there as well.
pub(crate) fn handle_check_response(
    sa: &mut IkeSa,
    env: &mut Env<'_>,
    cookie: &Cookie2,
    message: &Message<'_>,
) -> Outcome {
    if !repeats(message, cookie) {
        return gives_up(sa, env, Reason::NotRoutable);
    }
    // With another address since then, it proves nothing about that.
    if !sa.wants.has(Want::CheckAddress) {
        let path = sa.link.path;
        sa.move_to(env, &path);
    }
    Outcome::Keep
}

/// Whether it is not known yet that the peer is where it says.
pub(crate) fn is_checking(sa: &IkeSa) -> bool {
    let asked = matches!(sa.task, Task::Informational(Purpose::CheckAddress(_)));
    asked || sa.wants.has(Want::CheckAddress)
}

/// Closes the IKE SA, of which the peer is told once.
fn gives_up(sa: &mut IkeSa, env: &mut Env<'_>, reason: Reason) -> Outcome {
    let exchange = ExchangeType::INFORMATIONAL;
    let told = sa.link.request(env.now, exchange, &mut |writer| writer.delete_ike());
    told.map_or(Outcome::Gone(reason), |()| {
        sa.task = Task::Informational(Purpose::CloseIke);
        Outcome::Lingers(reason)
    })
}

/// Whether there are NATs now, and which address of ours the peer sees.
fn learn(sa: &mut IkeSa, message: &Message<'_>) {
    let path = sa.link.path;
    let nat = Nat::detect(message, &path);
    if nat.supported {
        sa.nat = nat.pretending(sa.nat.pretended);
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

/// Whether liveness checks look out for how our address is translated: as the initiator. There may
/// be a NAT where there was none, and the peer follows nothing but what we tell it then
/// ([`IkeStatus::follows`](super::IkeStatus::follows)).
pub(crate) fn looks_out(sa: &IkeSa) -> bool {
    sa.about.mobike && sa.has_connected() && sa.nat.supported
}

/// Whether that has to be done also while packets come: behind a NAT, as the initiator.
pub(crate) fn is_behind_nat(sa: &IkeSa) -> bool {
    looks_out(sa) && sa.nat.local
}

/// Takes the answer to a liveness check that looked out for that.
pub(crate) fn handle_liveness_response(sa: &mut IkeSa, message: &Message<'_>) {
    let Some(seen) = seen(message).filter(|_| looks_out(sa)) else { return };
    let now = Nat::detect(message, &sa.link.path);
    if now.local != sa.nat.local {
        sa.wants.add(Want::UpdateAddress);
    // What IKE_SA_INIT has told was about another port, or the SPIs of a predecessor.
    } else if now.local && sa.seen.replace(seen) != Some(seen) {
        sa.wants.add(Want::UpdateAddress);
    }
}

/// The peer, the initiator, may tell a new address in this request: the one that it came from.
pub(crate) fn handle_request(sa: &mut IkeSa, env: &mut Env<'_>, message: &Message<'_>) {
    let update = message.notification(NotifyType::UPDATE_SA_ADDRESSES).is_some();
    if update && sa.about.mobike && !sa.has_connected() {
        let path = sa.link.answer_path;
        let checked = path == sa.link.path && !is_checking(sa);
        sa.link.path = path;
        // A request of ours may have gone to where the peer is no more.
        sa.link.window.redirect(path);
        learn(sa, message);
        if checked {
            sa.move_to(env, &path);
        } else {
            sa.wants.add(Want::CheckAddress);
        }
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
