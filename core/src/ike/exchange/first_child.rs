//! The first child SA, which IKE_AUTH makes on the way (RFC 7296 §1.2): it takes its keys from
//! IKE_SA_INIT. When it fails, the IKE SA is there all the same (§1.2, §2.21.2).

use crate::ike::child::{self, Agreed, Child};
use crate::ike::cp;
use crate::ike::keymat::ChildKeys;
use crate::ike::pad::PadEntry;
use crate::ike::proposal::{self, Chosen};
use crate::ike::reason::Reason;
use crate::ike::sa::{Env, IkeSa, Leased};
use crate::ike::status::{Given, IkeEvent, MAX_GIVEN};
use crate::ike::suite::{ChildSuite, Pfs};
use crate::ike::ts::{self, Ranges};
use crate::ike::want::Want;
use crate::ike::wire::numbers::{CfgType, NotifyType};
use crate::ike::wire::ts::TrafficSelectors;
use crate::ike::wire::{Malformed, Message, NoRoom, PayloadWriter};
use crate::spd::PeerId;

/// The addresses that we offer for a child that we begin, and that one may have which the peer
/// replaces: ours, and the peer's. Ours may be any if the peer is to give us one; the peer's are those
/// that it has from us, once it does (§2.19), whatever else is configured for it.
pub(crate) fn offered(sa: &IkeSa, entry: &PadEntry<'_>) -> [Ranges; 2] {
    let ours = if entry.request_address { &[] } else { entry.local };
    let theirs = match entry.lease.filter(|_| sa.about.leased.any()) {
        Some(lease) => {
            let mut leased = heapless::Vec::<_, MAX_GIVEN>::new();
            let addresses = lease.addresses.iter().filter(|address| sa.about.leased.has(address));
            leased.extend(addresses.take(MAX_GIVEN).copied());
            Ranges::of_addresses(&leased)
        }
        None => Ranges::of_prefixes(entry.remote),
    };
    [Ranges::of_prefixes(ours), theirs]
}

/// What is offered of both ends, and is in the peer's selectors for our end and for its own as well,
/// as far as there is room for it. `None` if nothing is left at one end.
pub(crate) fn common(
    env: &Env<'_>,
    peer: PeerId,
    [mut local, mut remote]: [Ranges; 2],
    [ts_ours, ts_theirs]: [TrafficSelectors<'_>; 2],
) -> Option<[Ranges; 2]> {
    (local, remote) = (local.narrowed(ts_ours), remote.narrowed(ts_theirs));
    env.sad.narrow(peer, &mut local, &mut remote);
    ts::fit(&mut local, &mut remote);
    (!local.is_empty() && !remote.is_empty()).then_some([local, remote])
}

/// Writes what we ask for.
pub(crate) fn write_request(
    writer: &mut PayloadWriter<'_>,
    env: &Env<'_>,
    entry: &PadEntry<'_>,
    spi_in: u32,
    [ours, theirs]: &[Ranges; 2],
) -> Result<(), NoRoom> {
    if entry.request_address {
        cp::write_request(writer)?;
    }
    proposal::write_child(writer, spi_in, &env.settings.preferences, &[])?;
    writer.ts_initiator(ours.selectors())?;
    writer.ts_responder(theirs.selectors())
}

/// Takes what the responder says: installs the child, or keeps the reason why there is none.
pub(crate) fn handle_response(
    sa: &mut IkeSa,
    env: &mut Env<'_>,
    (peer, entry): (PeerId, &PadEntry<'_>),
    spi_in: u32,
    message: &Message<'_>,
) {
    let made = match message.sa() {
        Ok(_) => accept(sa, env, (peer, entry), spi_in, message).inspect_err(|_| {
            // The responder has a child that we have not.
            sa.children.unwanted = Some(spi_in);
            sa.wants.add(Want::CloseChild);
        }),
        Err(_) => Err(refused(message)),
    };
    finish(sa, env, peer, entry, made.err());
}

/// Why the responder has made no child.
pub(crate) fn refused(message: &Message<'_>) -> Reason {
    match message.error().map(|notify| notify.notify_type) {
        Some(NotifyType::NO_PROPOSAL_CHOSEN) => Reason::ChildProposalRefused,
        Some(NotifyType::TS_UNACCEPTABLE) => Reason::SelectorsRefused,
        Some(NotifyType::INTERNAL_ADDRESS_FAILURE) => Reason::NoAddress,
        Some(other) => Reason::Refused(other),
        None => Reason::Malformed(Malformed::Missing(super::PayloadType::SA)),
    }
}

/// Tells how it has ended, for both roles.
fn finish(
    sa: &mut IkeSa,
    env: &mut Env<'_>,
    peer: PeerId,
    entry: &PadEntry<'_>,
    failure: Option<Reason>,
) {
    sa.children.reason = failure;
    match failure {
        None => {
            child::start_lifetime(sa, env, &entry.lifetimes);
            env.events.push(IkeEvent::Up(peer));
        }
        Some(reason) => env.events.push(IkeEvent::Failed(peer, reason)),
    }
}

fn accept(
    sa: &mut IkeSa,
    env: &mut Env<'_>,
    (peer, entry): (PeerId, &PadEntry<'_>),
    spi_in: u32,
    message: &Message<'_>,
) -> Result<(), Reason> {
    let chosen = message.sa().map_err(Reason::Malformed)?;
    let chosen = proposal::chosen_child(chosen, &env.settings.preferences, Pfs::Never);
    let (spi_out, suite) = chosen.ok_or(Reason::ProposalNotOffered)?;
    let given = match message.configuration() {
        Ok(reply) if entry.request_address && reply.cfg_type == CfgType::CFG_REPLY => {
            cp::read_reply(&reply)
        }
        _ => Given::default(),
    };
    if entry.request_address && given.addresses.is_empty() {
        return Err(Reason::NoAddress);
    }
    let [ours, theirs] = offered(sa, entry);
    let ts_ours = message.ts_initiator().map_err(Reason::Malformed)?;
    let ts_theirs = message.ts_responder().map_err(Reason::Malformed)?;
    if !ours.contain(ts_ours) || !theirs.contain(ts_theirs) {
        return Err(Reason::NoCommonSelectors);
    }
    let agreed = common(env, peer, [ours, theirs], [ts_ours, ts_theirs]);
    let agreed = agreed.ok_or(Reason::NoCommonSelectors)?;
    install(sa, env, peer, Child { spi_in, spi_out, suite }, &agreed)?;
    if entry.request_address {
        env.events.push(IkeEvent::Address(peer, given));
    }
    Ok(())
}

/// What the responder answers about the child: it is installed, or there is none.
pub(crate) type Answer = Result<Made, NotifyType>;

/// A child that is installed.
pub(crate) struct Made {
    number: u8,
    spi_in: u32,
    suite: ChildSuite,
    ranges: [Ranges; 2],
    given: Option<Given>,
}

/// Makes the child that the initiator asks for, or finds out why not.
///
/// # Errors
/// [`Malformed`] if the request lacks what it needs.
pub(crate) fn respond(
    sa: &mut IkeSa,
    env: &mut Env<'_>,
    (peer, entry): (PeerId, &PadEntry<'_>),
    message: &Message<'_>,
) -> Result<Answer, Malformed> {
    // Looked at first, so that nothing is installed when one is missing.
    let (ts_theirs, ts_ours) = (message.ts_initiator()?, message.ts_responder()?);
    let offer = message.sa()?;
    let asked = message.configuration().ok().filter(|it| it.cfg_type == CfgType::CFG_REQUEST);
    let given = match (entry.lease, asked) {
        (Some(lease), Some(asked)) => Some(cp::grant(&lease, &asked)),
        _ => None,
    };
    sa.about.leased = given.as_ref().map(Leased::of).unwrap_or_default();
    let ranges = common(env, peer, offered(sa, entry), [ts_ours, ts_theirs]);
    let chosen = proposal::choose_child(offer, &env.settings.preferences, Pfs::Never, None);
    let no_address = asked.is_some() && given.as_ref().is_none_or(|it| it.addresses.is_empty());
    let made = match (chosen, ranges) {
        _ if no_address && entry.lease.is_some() => {
            Err((NotifyType::INTERNAL_ADDRESS_FAILURE, Reason::NoCommonSelectors))
        }
        (None, _) => {
            sa.offers_nothing(env, offer);
            Err((NotifyType::NO_PROPOSAL_CHOSEN, Reason::NoCommonChildProposal))
        }
        (Some(_), None) => Err((NotifyType::TS_UNACCEPTABLE, Reason::NoCommonSelectors)),
        (Some(Chosen { number, spi, suite }), Some(ranges)) => {
            make(sa, env, peer, (spi, suite), &ranges)
                .map(|spi_in| Made { number, spi_in, suite, ranges, given })
                .map_err(|reason| (NotifyType::NO_ADDITIONAL_SAS, reason))
        }
    };
    finish(sa, env, peer, entry, made.as_ref().err().map(|(_, reason)| *reason));
    Ok(made.map_err(|(notify, _)| notify))
}

fn make(
    sa: &mut IkeSa,
    env: &mut Env<'_>,
    peer: PeerId,
    (spi_out, suite): (u32, ChildSuite),
    ranges: &[Ranges; 2],
) -> Result<u32, Reason> {
    let spi_in = env.child_spi().ok_or(Reason::Full)?;
    install(sa, env, peer, Child { spi_in, spi_out, suite }, ranges)?;
    Ok(spi_in)
}

/// Writes that.
pub(crate) fn write_answer(writer: &mut PayloadWriter<'_>, answer: &Answer) -> Result<(), NoRoom> {
    match answer {
        Err(notify_type) => writer.notify_type(*notify_type),
        Ok(Made { number, spi_in, suite, ranges: [ours, theirs], given }) => {
            if let Some(given) = given {
                cp::write_reply(writer, given)?;
            }
            proposal::write_chosen_child(writer, *number, *spi_in, *suite)?;
            writer.ts_initiator(theirs.selectors())?;
            writer.ts_responder(ours.selectors())
        }
    }
}

/// Both directions at once: each end sends only when the other one has its inbound SA.
fn install(
    sa: &mut IkeSa,
    env: &mut Env<'_>,
    peer: PeerId,
    child: Child,
    [ours, theirs]: &[Ranges; 2],
) -> Result<(), Reason> {
    let missing = Reason::Malformed(Malformed::Missing(super::PayloadType::NONCE));
    let keys = sa.link.keys.as_ref().ok_or(missing)?;
    let nonces = sa.nonces().ok_or(missing)?;
    let keys = ChildKeys::new(child.suite.cipher, &keys.secrets.sk_d, None, nonces);
    let path = sa.esp_path();
    let agreed = Agreed::new(child, sa.link.initiator, &keys, [ours, theirs], path);
    let agreed = Agreed { first: true, ..agreed };
    agreed.install(env, peer).map_err(|_| Reason::Full)?;
    sa.children.current = Some(child);
    Ok(())
}
