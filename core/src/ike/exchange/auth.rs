//! IKE_AUTH (RFC 7296 §1.2): who both ends are, and the first child.
//!
//! ```text
//! initiator                                         responder
//! IDi [N(INITIAL_CONTACT)] IDr AUTH
//!   [N(PPK_IDENTITY) [N(NO_PPK_AUTH)]] [CP]
//!   SA TSi TSr N(MOBIKE_SUPPORTED)          -->
//!                                           <--     IDr AUTH [N(PPK_IDENTITY)]
//!                                                     [CP] SA TSi TSr [N(MOBIKE_SUPPORTED)]
//! ```
//! An end that is not authenticated hears AUTHENTICATION_FAILED, in the protected exchange, and
//! nothing of why (§2.21.2): the user at this end is told.

use super::informational::Purpose;
use super::{Failure, Task, first_child};
use crate::ike::auth::{AuthData, AuthError, Credential};
use crate::ike::identity::Identity;
use crate::ike::keymat::IkeSecrets;
use crate::ike::pad::{Encap, PadEntry, Ppk};
use crate::ike::ppk;
use crate::ike::reason::Reason;
use crate::ike::sa::{About, Env, IkeSa, Outcome, State};
use crate::ike::status::IkeEvent;
use crate::ike::wire::auth::Auth;
use crate::ike::wire::id::Id;
use crate::ike::wire::notify::Notify;
use crate::ike::wire::numbers::{ExchangeType, NotifyType, PayloadType};
use crate::ike::wire::{Malformed, Message, NoRoom};
use crate::spd::PeerId;

/// Our request, as far as its answer needs it.
pub(crate) struct Authentication {
    /// Our SPI of the child.
    spi_in: u32,
}

/// Asks, once IKE_SA_INIT is done.
pub(crate) fn request(sa: &mut IkeSa, env: &mut Env<'_>) -> Outcome {
    match write_request(sa, env) {
        Ok(()) => Outcome::Keep,
        Err(reason) => Outcome::Gone(reason),
    }
}

fn write_request(sa: &mut IkeSa, env: &mut Env<'_>) -> Result<(), Reason> {
    let (peer, entry) = sa.entry(env.pad).ok_or(Reason::Forgotten)?;
    sa.encap = entry.encap;
    let ppk = ppk::to_offer(&entry, &sa.about)?;
    let own_id = own_identity(sa, &entry);
    let id = Id::from(&own_id);
    let Proof { auth, without_ppk } = prove(sa, &entry, &id, ppk.as_ref())?;
    float(sa);
    // One that has ended, or is being closed, is none that packets could still use.
    let is_gone = |sa: &IkeSa| matches!(sa.state, State::Ended | State::Closing);
    let alone = env.others(peer).all(is_gone);
    let spi_in = env.child_spi().ok_or(Reason::Full)?;
    let offered = first_child::offered(sa, &entry);
    let env = &*env;
    sa.link.request(env.now, ExchangeType::IKE_AUTH, &mut |writer| {
        writer.id_initiator(&id)?;
        if alone {
            writer.notify_type(NotifyType::INITIAL_CONTACT)?;
        }
        writer.id_responder(&Id::from(entry.remote_id))?;
        writer.auth(&Auth::from(&auth))?;
        if let Some(ppk) = &ppk {
            ppk::write_identity(writer, ppk)?;
        }
        if let Some(auth) = &without_ppk {
            writer.notify(&Notify::new(NotifyType::NO_PPK_AUTH, auth.data()))?;
        }
        first_child::write_request(writer, env, &entry, spi_in, &offered)?;
        writer.notify_type(NotifyType::MOBIKE_SUPPORTED)
    })?;
    sa.task = Task::Auth(Authentication { spi_in });
    Ok(())
}

/// Goes on where ESP in UDP travels as well: because there is a NAT, or in case there is one later
/// (RFC 7296 §2.23, RFC 4555 §3.3).
fn float(sa: &mut IkeSa) {
    if let Some(target) = sa.target
        && sa.nat.supported
        && (sa.nat.is_there() || sa.encap != Encap::Esp)
    {
        sa.link.path = target.floated();
    }
}

impl From<NoRoom> for Reason {
    fn from(_: NoRoom) -> Reason {
        Reason::TooLong
    }
}

/// What we call ourselves.
fn own_identity(sa: &IkeSa, entry: &PadEntry<'_>) -> Identity {
    let address = || Identity::of_address(sa.link.answer_path.local.ip());
    entry.local_id.cloned().unwrap_or_else(address)
}

/// That we are who we say.
struct Proof {
    auth: AuthData,
    /// The same for a peer that does not know the PPK, if that is acceptable.
    without_ppk: Option<AuthData>,
}

fn prove(
    sa: &IkeSa,
    entry: &PadEntry<'_>,
    id: &Id<'_>,
    ppk: Option<&Ppk<'_>>,
) -> Result<Proof, Reason> {
    if matches!(entry.credential, Credential::PrivateKey(_)) && !sa.about.ed25519 {
        return Err(Reason::NoEd25519);
    }
    let secrets = secrets(sa)?;
    let prove = |secrets: &IkeSecrets| -> Result<AuthData, Reason> {
        let octets = sa.own_octets(secrets, id).ok_or(MISSING)?;
        Ok(entry.credential.authenticate(&octets))
    };
    let without_ppk = match ppk {
        Some(ppk) if !ppk.required => Some(prove(secrets)?),
        _ => None,
    };
    Ok(Proof { auth: prove(&ppk::mixed(secrets, ppk))?, without_ppk })
}

/// There always are keys, and a nonce, once IKE_SA_INIT is done.
const MISSING: Reason = Reason::Malformed(Malformed::Missing(PayloadType::NONCE));

fn secrets(sa: &IkeSa) -> Result<&IkeSecrets, Reason> {
    sa.link.keys.as_ref().map(|keys| &keys.secrets).ok_or(MISSING)
}

/// Checks who the peer is. `secrets` have a PPK mixed in if it was used.
fn check(
    sa: &IkeSa,
    entry: &PadEntry<'_>,
    secrets: &IkeSecrets,
    id: &Id<'_>,
    auth: &Auth<'_>,
) -> Result<(), Reason> {
    if !entry.remote_id.matches(id.id_type.0, id.data) {
        return Err(Reason::WrongIdentity);
    }
    let octets = sa.peer_octets(secrets, id);
    entry.expectation.verify(auth.method.0, auth.data, &octets).map_err(|error| match error {
        AuthError::Method(_) | AuthError::Algorithm => Reason::WrongMethod,
        AuthError::Failed => Reason::WrongKey,
    })
}

/// From now on, keys come from secrets that have the PPK in them (RFC 8784 §3).
fn adopt(sa: &mut IkeSa, secrets: IkeSecrets, ppk: bool) {
    if let Some(keys) = &mut sa.link.keys {
        keys.secrets = secrets;
    }
    sa.about.ppk = ppk;
}

/// Takes the answer.
pub(crate) fn handle_response(
    sa: &mut IkeSa,
    env: &mut Env<'_>,
    authentication: Authentication,
    message: &Message<'_>,
) -> Outcome {
    let Some((peer, entry)) = sa.entry(env.pad) else { return Outcome::Gone(Reason::Forgotten) };
    let (Ok(id), Ok(auth)) = (message.id_responder(), message.auth()) else {
        return Outcome::Gone(match message.error().map(|notify| notify.notify_type) {
            Some(NotifyType::AUTHENTICATION_FAILED) => Reason::TheyRefuseOurKey,
            Some(other) => Reason::Refused(other),
            None => Reason::Malformed(Malformed::Missing(PayloadType::AUTH)),
        });
    };
    match check_responder(sa, &entry, &id, &auth, message) {
        Ok((secrets, ppk)) => adopt(sa, secrets, ppk),
        Err(reason) => return refuse_responder(sa, env, reason),
    }
    sa.about.mobike = message.notification(NotifyType::MOBIKE_SUPPORTED).is_some();
    if sa.yields(env, peer) {
        sa.establish(env, &entry.lifetimes);
        return Outcome::Yields;
    }
    first_child::handle_response(sa, env, (peer, &entry), authentication.spi_in, message);
    sa.establish(env, &entry.lifetimes);
    Outcome::Established
}

fn check_responder(
    sa: &IkeSa,
    entry: &PadEntry<'_>,
    id: &Id<'_>,
    auth: &Auth<'_>,
    message: &Message<'_>,
) -> Result<(IkeSecrets, bool), Reason> {
    let offered = ppk::to_offer(entry, &sa.about)?;
    let accepted = ppk::was_accepted(offered.as_ref(), message)?;
    let secrets = ppk::mixed(secrets(sa)?, offered.as_ref().filter(|_| accepted));
    check(sa, entry, &secrets, id, auth)?;
    Ok((secrets, accepted))
}

/// The responder takes us to be connected: it is told that we are not (RFC 7296 §2.21.2).
fn refuse_responder(sa: &mut IkeSa, env: &mut Env<'_>, reason: Reason) -> Outcome {
    let written = sa.link.request(env.now, ExchangeType::INFORMATIONAL, &mut |writer| {
        writer.notify_type(NotifyType::AUTHENTICATION_FAILED)
    });
    sa.task = Task::Informational(Purpose::CloseIke);
    written.map_or(Outcome::Gone(reason), |()| Outcome::Lingers(reason))
}

/// Answers.
pub(crate) fn respond(
    sa: &mut IkeSa,
    env: &mut Env<'_>,
    message: &Message<'_>,
) -> Result<Outcome, Failure> {
    let id = message.id_initiator()?;
    let from = sa.link.answer_path.remote.ip();
    let Some(peer) = env.pad.find(&id, message.id_responder().ok().as_ref(), from) else {
        return refuse_initiator(sa, env, Reason::UnknownPeer);
    };
    sa.peer = Some(peer);
    match answer(sa, env, &id, message) {
        Ok(answered) => answered,
        Err(reason) => refuse_initiator(sa, env, reason),
    }
}

/// The outer error is that the initiator is not authenticated.
fn answer(
    sa: &mut IkeSa,
    env: &mut Env<'_>,
    id: &Id<'_>,
    message: &Message<'_>,
) -> Result<Result<Outcome, Failure>, Reason> {
    let (peer, entry) = sa.entry(env.pad).ok_or(Reason::UnknownPeer)?;
    let ppk = check_initiator(sa, &entry, id, message)?;
    let own_id = own_identity(sa, &entry);
    let own_id = Id::from(&own_id);
    let proof = prove(sa, &entry, &own_id, ppk.as_ref())?;
    let secrets = ppk::mixed(secrets(sa)?, ppk.as_ref());
    adopt(sa, secrets, ppk.is_some());
    sa.encap = entry.encap;
    sa.link.path = sa.link.answer_path;
    let has = |notify_type| message.notification(notify_type).is_some();
    sa.about.mobike = has(NotifyType::MOBIKE_SUPPORTED);
    sa.about.initial_contact = has(NotifyType::INITIAL_CONTACT);
    Ok(write_answer(sa, env, (peer, &entry), &own_id, &proof.auth, message))
}

/// Which PPK is used, if the initiator is who it says.
fn check_initiator<'p>(
    sa: &IkeSa,
    entry: &PadEntry<'p>,
    id: &Id<'_>,
    message: &Message<'_>,
) -> Result<Option<Ppk<'p>>, Reason> {
    let auth = message.auth().map_err(|_| Reason::WrongMethod)?; // without it, it wants EAP
    let ppk = ppk::to_accept(entry, message)?;
    let mut proof = auth;
    if ppk.is_none()
        && let Some(without) = message.notification(NotifyType::NO_PPK_AUTH)
    {
        proof.data = without.data;
    }
    check(sa, entry, &ppk::mixed(secrets(sa)?, ppk.as_ref()), id, &proof)?;
    Ok(ppk)
}

fn write_answer(
    sa: &mut IkeSa,
    env: &mut Env<'_>,
    (peer, entry): (PeerId, &PadEntry<'_>),
    own_id: &Id<'_>,
    auth: &AuthData,
    message: &Message<'_>,
) -> Result<Outcome, Failure> {
    let child = if sa.yields(env, peer) {
        Err(NotifyType::NO_ADDITIONAL_SAS)
    } else {
        first_child::respond(sa, env, (peer, entry), message)?
    };
    let About { ppk, mobike, .. } = sa.about;
    sa.link.respond(ExchangeType::IKE_AUTH, &mut |writer| {
        writer.id_responder(own_id)?;
        writer.auth(&Auth::from(auth))?;
        if ppk {
            writer.notify_type(NotifyType::PPK_IDENTITY)?;
        }
        first_child::write_answer(writer, &child)?;
        if mobike { writer.notify_type(NotifyType::MOBIKE_SUPPORTED) } else { Ok(()) }
    })?;
    let yields = sa.yields(env, peer);
    sa.establish(env, &entry.lifetimes);
    Ok(if yields { Outcome::Yields } else { Outcome::Established })
}

/// Tells the initiator that it is not who it says, and forgets it then.
fn refuse_initiator(sa: &mut IkeSa, env: &mut Env<'_>, reason: Reason) -> Result<Outcome, Failure> {
    sa.link.respond(ExchangeType::IKE_AUTH, &mut |writer| {
        writer.notify_type(NotifyType::AUTHENTICATION_FAILED)
    })?;
    let from = sa.link.answer_path.remote.ip();
    env.events.push(IkeEvent::Refused(sa.peer.take(), from, reason));
    Ok(Outcome::Lingers(reason))
}
