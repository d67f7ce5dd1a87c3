//! SA payloads: what we offer, what we choose of an offer, and what was chosen of ours.
//!
//! All our ciphers are AEADs, so that one proposal holds everything (RFC 7296 §3.3, RFC 5282 §8).

use heapless::Vec;

use super::suite::{ChildSuite, IkeSuite, Pfs, Preferences};
use super::wire::numbers::Protocol;
use super::wire::sa::{Proposal, Sa, Spi, Transform};
use super::wire::{NoRoom, PayloadWriter};
use crate::crypto::Cipher;
use crate::crypto::dh::Group;

/// How many transforms we ever put in one proposal.
const MAX_TRANSFORMS: usize = 8;
/// The number of our only proposal; what is chosen keeps it.
const NUMBER: u8 = 1;

type Transforms = Vec<Transform, MAX_TRANSFORMS>;

/// What was chosen of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chosen<S, T> {
    /// Which proposal it was.
    pub(crate) number: u8,
    /// The SPI of the end that made the proposal.
    pub(crate) spi: S,
    pub(crate) suite: T,
}

/// Writes an SA payload for an IKE SA; `spi` is [`Spi::None`] in IKE_SA_INIT.
pub(crate) fn write_ike(
    writer: &mut PayloadWriter<'_>,
    spi: Spi,
    preferences: &Preferences,
) -> Result<(), NoRoom> {
    let Preferences { ciphers, groups } = preferences;
    write_ike_proposal(writer, NUMBER, spi, ciphers, groups)
}

/// Writes what we have chosen for an IKE SA, with our SPI.
pub(crate) fn write_chosen_ike(
    writer: &mut PayloadWriter<'_>,
    number: u8,
    spi: Spi,
    suite: IkeSuite,
) -> Result<(), NoRoom> {
    write_ike_proposal(writer, number, spi, &[suite.cipher], &[suite.group])
}

fn write_ike_proposal(
    writer: &mut PayloadWriter<'_>,
    number: u8,
    spi: Spi,
    ciphers: &[Cipher],
    groups: &[Group],
) -> Result<(), NoRoom> {
    let mut transforms = Transforms::new();
    transforms.extend(ciphers.iter().map(|cipher| Transform::encr(*cipher)));
    transforms.extend([Transform::prf()]);
    transforms.extend(groups.iter().map(|group| Transform::ke(*group)));
    write(writer, Proposal { number, protocol: Protocol::IKE, spi, transforms })
}

/// Writes an SA payload for a child, with our SPI. There are no `groups` without perfect forward
/// secrecy. Sequence numbers of either length will do.
pub(crate) fn write_child(
    writer: &mut PayloadWriter<'_>,
    spi: u32,
    preferences: &Preferences,
    groups: &[Group],
) -> Result<(), NoRoom> {
    write_child_proposal(writer, NUMBER, spi, &preferences.ciphers, groups, &[true, false])
}

/// Writes what we have chosen for a child, with our SPI.
pub(crate) fn write_chosen_child(
    writer: &mut PayloadWriter<'_>,
    number: u8,
    spi: u32,
    suite: ChildSuite,
) -> Result<(), NoRoom> {
    let group = suite.group;
    write_child_proposal(writer, number, spi, &[suite.cipher], group.as_slice(), &[suite.esn])
}

fn write_child_proposal(
    writer: &mut PayloadWriter<'_>,
    number: u8,
    spi: u32,
    ciphers: &[Cipher],
    groups: &[Group],
    esn: &[bool],
) -> Result<(), NoRoom> {
    let mut transforms = Transforms::new();
    transforms.extend(ciphers.iter().map(|cipher| Transform::encr(*cipher)));
    transforms.extend(groups.iter().map(|group| Transform::ke(*group)));
    transforms.extend(esn.iter().map(|esn| Transform::sn(*esn)));
    write(writer, Proposal { number, protocol: Protocol::ESP, spi: Spi::Child(spi), transforms })
}

fn write(writer: &mut PayloadWriter<'_>, proposal: Proposal<Transforms>) -> Result<(), NoRoom> {
    writer.sa([proposal])
}

const _: () = assert!(Cipher::ALL.len() + 1 + Group::ALL.len() <= MAX_TRANSFORMS);
const _: () = assert!(Cipher::ALL.len() + Group::ALL.len() + 2 <= MAX_TRANSFORMS);

/// Whether proposals are numbered as those of a request have to be (RFC 7296 §3.3.1).
fn is_offer(sa: Sa<'_>) -> bool {
    sa.proposals().next().is_some_and(|first| first.number == 1)
}

/// What we choose for an IKE SA: the first proposal with something of ours in it. `sent` is the
/// group of the KE payload.
pub(crate) fn choose_ike(
    sa: Sa<'_>,
    ours: &Preferences,
    sent: Option<Group>,
) -> Option<Chosen<Spi, IkeSuite>> {
    let proposals = sa.proposals().filter(|proposal| proposal.protocol == Protocol::IKE);
    let mut choices = proposals.filter_map(|proposal| {
        let suite = proposal.offer().choose_ike(ours, sent)?;
        Some(Chosen { number: proposal.number, spi: proposal.spi, suite })
    });
    choices.next().filter(|_| is_offer(sa))
}

/// What we choose for a child. `sent` is the group of the KE payload, if there is one.
pub(crate) fn choose_child(
    sa: Sa<'_>,
    ours: &Preferences,
    pfs: Pfs,
    sent: Option<Group>,
) -> Option<Chosen<u32, ChildSuite>> {
    let mut choices = sa.proposals().filter_map(|proposal| {
        let spi = child_spi(proposal.protocol, proposal.spi)?;
        let suite = proposal.offer().choose_child(ours, pfs, sent)?;
        Some(Chosen { number: proposal.number, spi, suite })
    });
    choices.next().filter(|_| is_offer(sa))
}

/// What the peer has chosen of our offer for an IKE SA, with its SPI.
pub(crate) fn chosen_ike(sa: Sa<'_>, ours: &Preferences) -> Option<(Spi, IkeSuite)> {
    let proposal = sa.chosen()?;
    let ours_it_is = (proposal.number, proposal.protocol) == (NUMBER, Protocol::IKE);
    let suite = proposal.offer().chosen_ike(ours)?;
    ours_it_is.then_some((proposal.spi, suite))
}

/// What the peer has chosen of our offer for a child, with its SPI.
pub(crate) fn chosen_child(sa: Sa<'_>, ours: &Preferences, pfs: Pfs) -> Option<(u32, ChildSuite)> {
    let proposal = sa.chosen()?;
    let spi = child_spi(proposal.protocol, proposal.spi)?;
    let suite = proposal.offer().chosen_child(ours, pfs)?;
    (proposal.number == NUMBER).then_some((spi, suite))
}

fn child_spi(protocol: Protocol, spi: Spi) -> Option<u32> {
    match (protocol, spi) {
        (Protocol::ESP, Spi::Child(spi)) => Some(spi),
        _ => None,
    }
}
