//! Which slots hold IKE SAs of a peer: an index over lent storage, so that a hub need not look
//! through all slots for each of its peers.
//!
//! The slots of a peer are linked in a list, of which nothing lies in the IKE SAs themselves: the
//! table tells of a slot whenever its owner may have become another ([`ByPeer::note`]). That one has
//! none any more need not be told, so what is found here has to be looked at. Without storage, or
//! with less than there are slots, there is no index, and the table looks through its slots.

use core::num::NonZeroU32;

use managed::ManagedSlice;

use crate::spd::PeerId;

/// One place of the storage that [`Ike::index`](super::Ike::index) takes: as many as peers, or as
/// slots, whichever are more.
#[derive(Debug, Clone, Copy, Default)]
pub struct PeerLink {
    /// The first slot of the peer with this number.
    first: Option<Number>,
    /// The next slot with the same owner as the slot with this number.
    next: Option<Number>,
    /// The peer that this slot belongs to.
    owner: Option<Number>,
}

/// The number of a slot or a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Number(NonZeroU32);

impl Number {
    fn new(index: usize) -> Option<Number> {
        let above = u32::try_from(index).ok()?.checked_add(1)?;
        NonZeroU32::new(above).map(Number)
    }

    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// The index.
pub(super) struct ByPeer<'a> {
    links: ManagedSlice<'a, PeerLink>,
}

impl<'a> ByPeer<'a> {
    /// An empty one; what the storage held is overwritten.
    pub(super) fn new(mut links: ManagedSlice<'a, PeerLink>) -> ByPeer<'a> {
        links.fill(PeerLink::default());
        ByPeer { links }
    }

    /// Whether it knows of all of so many slots.
    pub(super) fn covers(&self, slots: usize) -> bool {
        slots <= self.links.len() && !self.links.is_empty()
    }

    /// The slots that are, or were, of a peer.
    pub(super) fn of(&self, peer: PeerId) -> impl Iterator<Item = usize> + '_ {
        let first = self.links.get(peer.index()).and_then(|link| link.first);
        core::iter::successors(first.map(Number::index), |at| self.next(*at))
    }

    /// What the slot `at` holds belongs to `owner`.
    pub(super) fn note(&mut self, at: usize, owner: Option<PeerId>) {
        let owner = owner.and_then(|peer| Number::new(peer.index()));
        let Some(before) = self.links.get(at).map(|link| link.owner) else { return };
        if before == owner {
            return;
        }
        if let Some(peer) = before {
            self.unlink(at, peer.index());
        }
        if let Some(peer) = owner {
            self.link(at, peer);
        }
    }

    fn link(&mut self, at: usize, peer: Number) {
        let Some(head) = self.links.get_mut(peer.index()) else { return };
        let next = core::mem::replace(&mut head.first, Number::new(at));
        if let Some(link) = self.links.get_mut(at) {
            (link.next, link.owner) = (next, Some(peer));
        }
    }

    fn unlink(&mut self, at: usize, peer: usize) {
        let Some(link) = self.links.get_mut(at) else { return };
        link.owner = None;
        let next = link.next.take();
        let id = PeerId(peer as u32);
        let before = self.of(id).find(|other| self.next(*other) == Some(at));
        match before {
            Some(before) => {
                if let Some(link) = self.links.get_mut(before) {
                    link.next = next;
                }
            }
            None => {
                if let Some(head) = self.links.get_mut(peer) {
                    head.first = next;
                }
            }
        }
    }

    fn next(&self, at: usize) -> Option<usize> {
        self.links.get(at)?.next.map(Number::index)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn links(count: usize) -> ManagedSlice<'static, PeerLink> {
        ManagedSlice::Borrowed(vec![PeerLink::default(); count].leak())
    }

    proptest! {
        /// Whatever changes hands, it knows the slots of each peer.
        #[test]
        fn knows_the_slots_of_each_peer(
            steps in prop::collection::vec((0usize..12, prop::option::of(0u32..5)), 0..200),
        ) {
            let mut index = ByPeer::new(links(12));
            let mut owners = [None; 12];
            for (at, owner) in steps {
                let owner = owner.map(PeerId);
                index.note(at, owner);
                owners[at] = owner;
                for peer in (0..5).map(PeerId) {
                    let slots = owners.iter().enumerate().filter(|(_, owner)| **owner == Some(peer));
                    let expected: BTreeSet<usize> = slots.map(|(at, _)| at).collect();
                    let found: Vec<usize> = index.of(peer).collect();
                    prop_assert_eq!(found.len(), expected.len());
                    prop_assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
                }
            }
        }
    }

    #[test]
    fn without_room_it_covers_nothing() {
        let mut index = ByPeer::new(links(2));
        assert!(index.covers(2) && !index.covers(3));
        assert!(!ByPeer::new(ManagedSlice::Borrowed(&mut [])).covers(0));
        index.note(7, Some(PeerId(0)));
        index.note(0, Some(PeerId(7)));
        assert_eq!(index.of(PeerId(0)).count() + index.of(PeerId(7)).count(), 0);
    }
}
