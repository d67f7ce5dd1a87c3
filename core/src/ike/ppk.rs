//! Postquantum preshared keys (RFC 8784): who uses which, and what happens without.
//!
//! A PPK protects child SAs and later IKE SAs, but not the first IKE SA. If it is required, there
//! is no connection without it; else, an initiator also sends what authenticates it without, in
//! NO_PPK_AUTH.

use super::keymat::IkeSecrets;
use super::pad::{PadEntry, Ppk};
use super::reason::Reason;
use super::sa::About;
use super::wire::numbers::{NotifyType, PpkIdType};
use super::wire::{Message, NoRoom, PayloadWriter};

/// What the initiator does about a PPK, once IKE_SA_INIT is done.
///
/// # Errors
/// [`Reason::NoPpk`] if it is required and the peer knows nothing of it.
pub(crate) fn to_offer<'p>(entry: &PadEntry<'p>, about: &About) -> Result<Option<Ppk<'p>>, Reason> {
    match entry.ppk {
        Some(ppk) if about.use_ppk => Ok(Some(ppk)),
        Some(ppk) if ppk.required => Err(Reason::NoPpk),
        _ => Ok(None),
    }
}

/// Writes what the initiator says about its PPK, but for NO_PPK_AUTH.
pub(crate) fn write_identity(writer: &mut PayloadWriter<'_>, ppk: &Ppk<'_>) -> Result<(), NoRoom> {
    writer.ppk_identity(PpkIdType::PPK_ID_FIXED, ppk.id)
}

/// What the responder does about the PPK that the initiator's IKE_AUTH names, if it names one:
/// `Some` if it is ours as well.
///
/// # Errors
/// [`Reason::NoPpk`] if ours is required and was not named, or another was and the initiator does
/// not go without.
pub(crate) fn to_accept<'p>(
    entry: &PadEntry<'p>,
    message: &Message<'_>,
) -> Result<Option<Ppk<'p>>, Reason> {
    let named = message.notification(NotifyType::PPK_IDENTITY);
    let ours = entry.ppk.filter(|ppk| {
        let named = named.and_then(|notify| notify.ppk_identity());
        named == Some((PpkIdType::PPK_ID_FIXED, ppk.id))
    });
    let required = entry.ppk.is_some_and(|ppk| ppk.required);
    let insists = named.is_some() && message.notification(NotifyType::NO_PPK_AUTH).is_none();
    if ours.is_none() && (required || insists) { Err(Reason::NoPpk) } else { Ok(ours) }
}

/// Whether the responder has used our PPK, as its IKE_AUTH tells the initiator.
///
/// # Errors
/// [`Reason::NoPpk`] if it has not, and has to.
pub(crate) fn was_accepted(ppk: Option<&Ppk<'_>>, message: &Message<'_>) -> Result<bool, Reason> {
    let accepted = message.notification(NotifyType::PPK_IDENTITY).is_some();
    match ppk {
        Some(_) if accepted => Ok(true),
        Some(ppk) if ppk.required => Err(Reason::NoPpk),
        _ => Ok(false),
    }
}

/// The secrets with the PPK mixed in, if there is one.
pub(crate) fn mixed(secrets: &IkeSecrets, ppk: Option<&Ppk<'_>>) -> IkeSecrets {
    ppk.map_or_else(|| secrets.clone(), |ppk| secrets.with_ppk(ppk.key))
}
