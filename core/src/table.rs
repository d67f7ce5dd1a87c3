//! A hash table of fixed capacity over lent storage, for look-ups on the packet path.
//!
//! Open addressing with linear probing and no tombstones. The table takes at most half of its
//! storage, so that a look-up, also one that finds nothing, ends after a few slots. Keys come
//! from configuration or from our own SPI allocation, never from a stranger, so the hash needs
//! no secret.

use managed::ManagedSlice;

/// What a table can be keyed by.
pub(crate) trait Key: Copy + Eq {
    /// The key folded into 32 bits; [`mix`] spreads them afterwards.
    fn fold(&self) -> u32;
}

impl Key for u32 {
    fn fold(&self) -> u32 {
        *self
    }
}

/// Spreads the bits of `word` over all 32 (a finalizer with full avalanche).
pub(crate) const fn mix(word: u32) -> u32 {
    let word = (word ^ (word >> 16)).wrapping_mul(0x7feb_352d);
    let word = (word ^ (word >> 15)).wrapping_mul(0x846c_a68b);
    word ^ (word >> 16)
}

/// The storage has no room for another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

#[derive(Debug)]
pub(crate) struct Table<'a, K, V> {
    slots: ManagedSlice<'a, Option<(K, V)>>,
    len: usize,
}

impl<'a, K: Key, V: Copy> Table<'a, K, V> {
    /// An empty table; what the storage held is overwritten.
    pub(crate) fn new(mut slots: ManagedSlice<'a, Option<(K, V)>>) -> Table<'a, K, V> {
        slots.fill(None);
        Table { slots, len: 0 }
    }

    fn home(&self, key: &K) -> usize {
        // The high half of a product maps 32 bits onto any length without a division.
        let spread = u64::from(mix(key.fold())) * self.slots.len() as u64;
        (spread >> 32) as usize
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 < self.slots.len() { at + 1 } else { 0 }
    }

    fn slot(&self, at: usize) -> Option<&(K, V)> {
        self.slots.get(at).and_then(Option::as_ref)
    }

    /// The slot that holds `key`.
    fn find(&self, key: &K) -> Option<usize> {
        let mut at = self.home(key);
        // Terminates: at least half of the slots are empty.
        while let Some((found, _)) = self.slot(at) {
            if found == key {
                return Some(at);
            }
            at = self.after(at);
        }
        None
    }

    /// Where the search for `key` begins.
    pub(crate) fn home_slot(&self, key: &K) -> Option<&Option<(K, V)>> {
        self.slots.get(self.home(key))
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        self.find(key).and_then(|at| self.slot(at)).map(|&(_, value)| value)
    }

    /// Adds `key`, or gives it a new value.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Result<(), Full> {
        let at = match self.find(&key) {
            Some(at) => at,
            None if (self.len + 1) * 2 > self.slots.len() => return Err(Full),
            None => {
                self.len += 1;
                let mut at = self.home(&key);
                while self.slot(at).is_some() {
                    at = self.after(at);
                }
                at
            }
        };
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = Some((key, value));
        }
        Ok(())
    }

    /// Removes `key` and closes the gap it leaves in its run.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let mut gap = self.find(key)?;
        let removed = self.slots.get_mut(gap).and_then(Option::take);
        self.len -= 1;
        let mut at = self.after(gap);
        while let Some(&(moved, _)) = self.slot(at) {
            // An entry may move back into the gap unless its home lies behind the gap.
            let from_home = self.distance(self.home(&moved), at);
            if from_home >= self.distance(gap, at) {
                self.slots.swap(gap, at);
                gap = at;
            }
            at = self.after(at);
        }
        removed.map(|(_, value)| value)
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.slots.len() - from }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, V)> + '_ {
        self.slots.iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is done to it, it holds what a map of the standard library holds.
        #[test]
        fn behaves_like_a_map(steps in prop::collection::vec((0u8..3, 0u32..40, any::<u16>()), 0..400)) {
            let mut storage = vec![None; 33];
            let mut table = Table::new(ManagedSlice::Borrowed(&mut storage));
            let mut model = BTreeMap::new();
            for (what, key, value) in steps {
                if what == 0 {
                    prop_assert_eq!(table.remove(&key), model.remove(&key));
                } else if model.len() < 16 || model.contains_key(&key) {
                    prop_assert_eq!(table.insert(key, value), Ok(()));
                    model.insert(key, value);
                } else {
                    prop_assert_eq!(table.insert(key, value), Err(Full));
                }
                for key in 0..40 {
                    prop_assert_eq!(table.get(&key), model.get(&key).copied());
                }
            }
            let mut all: Vec<_> = table.iter().collect();
            all.sort_unstable();
            prop_assert_eq!(all, model.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_storage_holds_nothing() {
        let mut table = Table::<u32, u32>::new(ManagedSlice::Borrowed(&mut []));
        assert_eq!(table.get(&1), None);
        assert_eq!(table.insert(1, 1), Err(Full));
    }
}
