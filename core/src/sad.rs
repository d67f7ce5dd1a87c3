//! The security association database: inbound SAs by SPI in O(1).
//!
//! Implements the parts of RFC 4301 §4.4.2 that a data plane needs. Outbound SAs belong to their
//! peer (see [`Sealer`](crate::Sealer)). How SAs come about, and when they end, is the control
//! plane's business.

use managed::ManagedSlice;

use crate::ahead::Fetch;
use crate::crypto::{Aead, Salt};
use crate::esp::{OutboundSequence, ReplayWindow};
use crate::spd::PeerId;
use crate::table::{Full, Table};
use crate::wire::esp::FIRST_SPI;

/// An SA for what we send.
pub struct OutboundSa<A> {
    /// The SPI that the receiver chose.
    pub spi: u32,
    /// The AEAD with its key.
    pub key: A,
    /// First four bytes of each nonce.
    pub salt: Salt,
    /// The numbers still to use.
    pub sequence: OutboundSequence,
}

/// An SA for what we receive. It lies in storage as long-lived as what it borrows, which the
/// compiler allows on the stack only while it has no `Drop` of its own: key and salt erase
/// themselves.
pub struct InboundSa<'a, A> {
    /// The SPI that we chose.
    pub spi: u32,
    /// The AEAD with its key.
    pub key: A,
    /// First four bytes of each nonce.
    pub salt: Salt,
    /// Extended (64-bit) sequence numbers.
    pub esn: bool,
    /// Which numbers were received.
    pub window: ReplayWindow<'a>,
    /// Whose packets these are.
    pub peer: PeerId,
}

/// Why an SA was not added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SadError {
    /// The storage is full.
    Full,
    /// Another SA has this SPI.
    SpiInUse,
    /// SPIs 0 to 255 are reserved (RFC 4303 §2.1).
    ReservedSpi,
}

impl From<Full> for SadError {
    fn from(_: Full) -> SadError {
        SadError::Full
    }
}

/// One slot of storage for an SA; `None` is empty.
pub type SaSlot<'a, A> = Option<InboundSa<'a, A>>;

/// One slot of storage for the index of SPIs that someone else chose; `None` is empty.
pub type SpiSlot = Option<(u32, u32)>;

/// Inbound SAs by SPI.
///
/// An SPI from [`allocate_spi`](Self::allocate_spi) carries its slot in its low bits, so a
/// look-up is an index. An SPI that someone else chose goes to the slot it happens to name, or,
/// when that is taken, to another one that a hash table remembers.
pub struct Sad<'a, A> {
    slots: ManagedSlice<'a, SaSlot<'a, A>>,
    displaced: Table<'a, u32, u32>,
    /// Where the search for a free slot begins.
    next_free: usize,
}

impl<'a, A: Aead> Sad<'a, A> {
    /// An empty database of `slots.len()` SAs. `displaced` holds half as many foreign SPIs as it
    /// has slots; twice as long as `slots` is always enough.
    #[must_use]
    pub fn new(
        mut slots: ManagedSlice<'a, SaSlot<'a, A>>,
        displaced: ManagedSlice<'a, SpiSlot>,
    ) -> Sad<'a, A> {
        slots.iter_mut().for_each(|slot| *slot = None);
        Sad { slots, displaced: Table::new(displaced), next_free: 0 }
    }

    /// The slot that an SPI names.
    fn named_slot(&self, spi: u32) -> usize {
        spi as usize & (self.slots.len().next_power_of_two() - 1)
    }

    fn holds(&self, at: usize, spi: u32) -> bool {
        self.slots.get(at).and_then(Option::as_ref).is_some_and(|sa| sa.spi == spi)
    }

    fn find(&self, spi: u32) -> Option<usize> {
        let named = self.named_slot(spi);
        if self.holds(named, spi) {
            return Some(named);
        }
        self.displaced.get(&spi).map(|at| at as usize).filter(|at| self.holds(*at, spi))
    }

    /// The SA with this SPI.
    #[must_use]
    pub fn get(&self, spi: u32) -> Option<&InboundSa<'a, A>> {
        self.find(spi).and_then(|at| self.slots.get(at)).and_then(Option::as_ref)
    }

    /// The SA with this SPI, to be used.
    pub fn get_mut(&mut self, spi: u32) -> Option<&mut InboundSa<'a, A>> {
        self.find(spi).and_then(|at| self.slots.get_mut(at)).and_then(Option::as_mut)
    }

    /// Begins to fetch the slot that an SPI names.
    pub(crate) fn fetch(&self, spi: u32, fetch: &impl Fetch<A>) {
        if let Some(slot) = self.slots.get(self.named_slot(spi)) {
            fetch.value(slot);
        }
    }

    /// Adds an SA.
    ///
    /// # Errors
    /// [`SadError`]; the database is then as it was.
    pub fn insert(&mut self, sa: InboundSa<'a, A>) -> Result<(), SadError> {
        if sa.spi < FIRST_SPI {
            return Err(SadError::ReservedSpi);
        }
        if self.find(sa.spi).is_some() {
            return Err(SadError::SpiInUse);
        }
        let named = self.named_slot(sa.spi);
        let at = if matches!(self.slots.get(named), Some(None)) {
            named
        } else {
            let free = self.free_slot().ok_or(SadError::Full)?;
            self.displaced.insert(sa.spi, free as u32)?;
            free
        };
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = Some(sa);
        }
        Ok(())
    }

    /// Removes an SA; dropping it erases its key.
    pub fn remove(&mut self, spi: u32) -> Option<InboundSa<'a, A>> {
        let at = self.find(spi)?;
        self.displaced.remove(&spi);
        self.next_free = at;
        self.slots.get_mut(at).and_then(Option::take)
    }

    /// An SPI for a new SA: the low bits are a free slot's, the high bits those of `random`,
    /// which the caller draws anew each time. `None` when every slot is taken.
    ///
    /// The slot is only taken by [`insert`](Self::insert).
    pub fn allocate_spi(&mut self, random: u32) -> Option<u32> {
        let mask = self.slots.len().next_power_of_two() as u32 - 1;
        let drawn = (random & !mask) | self.free_slot()? as u32;
        // Reserved, or that of a foreign SA in another slot: then the next that names this slot.
        let step = mask.wrapping_add(1).max(FIRST_SPI);
        let steps = 0..=self.slots.len() as u32 + 1;
        let mut candidates = steps.map(|n| drawn.wrapping_add(n.wrapping_mul(step)));
        candidates.find(|spi| *spi >= FIRST_SPI && self.find(*spi).is_none())
    }

    fn free_slot(&mut self) -> Option<usize> {
        let count = self.slots.len();
        let mut order = (self.next_free..count).chain(0..self.next_free.min(count));
        let free = order.find(|at| matches!(self.slots.get(*at), Some(None)))?;
        self.next_free = free;
        Some(free)
    }

    /// All SAs.
    pub fn iter(&self) -> impl Iterator<Item = &InboundSa<'a, A>> {
        self.slots.iter().flatten()
    }
}

#[cfg(test)]
mod tests;
