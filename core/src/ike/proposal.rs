//! SA payloads: what we offer, what we choose of an offer, and what was chosen of ours.
//!
//! All our ciphers are AEADs, so that one proposal could hold everything (RFC 7296 §3.3, RFC 5282
//! §8). Proposals are in order of preference, though, and transforms need not be: where
//! ChaCha20-Poly1305 is preferred, which is where AES takes several times as long, it has a proposal
//! of its own in front of the others. strongSwan takes it from there, if it is configured to take it
//! at all; of one proposal with all ciphers it takes what it prefers itself.

use heapless::Vec;

use super::suite::{ChildSuite, IkeSuite, Pfs, Preferences};
use super::wire::numbers::Protocol;
use super::wire::sa::{Proposal, Sa, Spi, Transform};
use super::wire::{NoRoom, PayloadWriter};
use crate::crypto::Cipher;
use crate::crypto::dh::Group;

/// How many transforms we ever put in one proposal.
const MAX_TRANSFORMS: usize = 8;

/// How many proposals we ever make.
const MAX_PROPOSALS: usize = 2;

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

/// The ciphers of each proposal that we make, with its number.
fn offered(ours: &Preferences) -> Vec<(u8, &[Cipher]), MAX_PROPOSALS> {
    let first = match ours.ciphers.first() {
        Some(Cipher::ChaCha20Poly1305) => 1,
        _ => ours.ciphers.len(),
    };
    let (first, others) = ours.ciphers.split_at_checked(first).unwrap_or_default();
    let mut offered = Vec::from_array([(1, first), (2, others)]);
    offered.retain(|(_, ciphers)| !ciphers.is_empty());
    offered
}

/// Writes one proposal for each of these numbers.
fn write(
    writer: &mut PayloadWriter<'_>,
    offered: &[(u8, &[Cipher])],
    proposal: &dyn Fn(u8, &[Cipher]) -> Proposal<Transforms>,
) -> Result<(), NoRoom> {
    writer.sa(offered.iter().map(|(number, ciphers)| proposal(*number, ciphers)))
}

/// Writes an SA payload for an IKE SA; `spi` is [`Spi::None`] in IKE_SA_INIT.
pub(crate) fn write_ike(
    writer: &mut PayloadWriter<'_>,
    spi: Spi,
    preferences: &Preferences,
) -> Result<(), NoRoom> {
    let groups = &preferences.groups;
    let offered = offered(preferences);
    write(writer, &offered, &|number, ciphers| ike(number, spi, ciphers, groups))
}

/// Writes what we have chosen for an IKE SA, with our SPI.
pub(crate) fn write_chosen_ike(
    writer: &mut PayloadWriter<'_>,
    number: u8,
    spi: Spi,
    suite: IkeSuite,
) -> Result<(), NoRoom> {
    let chosen = [(number, &[suite.cipher][..])];
    write(writer, &chosen, &|number, ciphers| ike(number, spi, ciphers, &[suite.group]))
}

fn ike(number: u8, spi: Spi, ciphers: &[Cipher], groups: &[Group]) -> Proposal<Transforms> {
    let mut transforms = Transforms::new();
    transforms.extend(ciphers.iter().map(|cipher| Transform::encr(*cipher)));
    transforms.extend([Transform::prf()]);
    transforms.extend(groups.iter().map(|group| Transform::ke(*group)));
    Proposal { number, protocol: Protocol::IKE, spi, transforms }
}

/// Writes an SA payload for a child, with our SPI. There are no `groups` without perfect forward
/// secrecy. Sequence numbers of either length will do.
pub(crate) fn write_child(
    writer: &mut PayloadWriter<'_>,
    spi: u32,
    preferences: &Preferences,
    groups: &[Group],
) -> Result<(), NoRoom> {
    let offered = offered(preferences);
    write(writer, &offered, &|number, ciphers| child(number, spi, ciphers, groups, &[true, false]))
}

/// Writes what we have chosen for a child, with our SPI.
pub(crate) fn write_chosen_child(
    writer: &mut PayloadWriter<'_>,
    number: u8,
    spi: u32,
    suite: ChildSuite,
) -> Result<(), NoRoom> {
    let (group, chosen) = (suite.group.as_slice(), [(number, &[suite.cipher][..])]);
    write(writer, &chosen, &|number, ciphers| child(number, spi, ciphers, group, &[suite.esn]))
}

fn child(
    number: u8,
    spi: u32,
    ciphers: &[Cipher],
    groups: &[Group],
    esn: &[bool],
) -> Proposal<Transforms> {
    let mut transforms = Transforms::new();
    transforms.extend(ciphers.iter().map(|cipher| Transform::encr(*cipher)));
    transforms.extend(groups.iter().map(|group| Transform::ke(*group)));
    transforms.extend(esn.iter().map(|esn| Transform::sn(*esn)));
    Proposal { number, protocol: Protocol::ESP, spi: Spi::Child(spi), transforms }
}

const _: () = assert!(Cipher::ALL.len() + 1 + Group::ALL.len() <= MAX_TRANSFORMS);
const _: () = assert!(Cipher::ALL.len() + Group::ALL.len() + 2 <= MAX_TRANSFORMS);

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
    choices.next()
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
    choices.next()
}

/// Whether we have made a proposal with this number and this cipher in it.
fn have_offered(ours: &Preferences, number: u8, cipher: Cipher) -> bool {
    offered(ours).iter().any(|(ours, ciphers)| *ours == number && ciphers.contains(&cipher))
}

/// What the peer has chosen of our offer for an IKE SA, with its SPI.
pub(crate) fn chosen_ike(sa: Sa<'_>, ours: &Preferences) -> Option<(Spi, IkeSuite)> {
    let proposal = sa.chosen()?;
    let suite = proposal.offer().chosen_ike(ours)?;
    let is_ours = have_offered(ours, proposal.number, suite.cipher);
    (is_ours && proposal.protocol == Protocol::IKE).then_some((proposal.spi, suite))
}

/// What the peer has chosen of our offer for a child, with its SPI.
pub(crate) fn chosen_child(sa: Sa<'_>, ours: &Preferences, pfs: Pfs) -> Option<(u32, ChildSuite)> {
    let proposal = sa.chosen()?;
    let spi = child_spi(proposal.protocol, proposal.spi)?;
    let suite = proposal.offer().chosen_child(ours, pfs)?;
    have_offered(ours, proposal.number, suite.cipher).then_some((spi, suite))
}

fn child_spi(protocol: Protocol, spi: Spi) -> Option<u32> {
    match (protocol, spi) {
        (Protocol::ESP, Spi::Child(spi)) => Some(spi),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chacha20_has_a_proposal_in_front_where_it_is_preferred() {
        let numbers = |ours: &Preferences| {
            let offered = offered(ours);
            offered
                .iter()
                .map(|(number, ciphers)| (*number, ciphers.len()))
                .collect::<std::vec::Vec<_>>()
        };
        assert_eq!(numbers(&Preferences::new(true)), [(1, 3)]);
        let mut slow = Preferences::new(false);
        assert_eq!(numbers(&slow), [(1, 1), (2, 2)]);
        assert!(have_offered(&slow, 1, Cipher::ChaCha20Poly1305));
        assert!(have_offered(&slow, 2, Cipher::Aes128Gcm16));
        assert!(!have_offered(&slow, 2, Cipher::ChaCha20Poly1305), "of another proposal");
        assert!(!have_offered(&slow, 3, Cipher::Aes128Gcm16));
        slow.ciphers.truncate(1);
        assert_eq!(numbers(&slow), [(1, 1)]);
    }
}
