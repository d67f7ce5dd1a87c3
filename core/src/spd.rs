//! The security policy database: which peer an address belongs to.
//!
//! Implements the outbound look-up of RFC 4301 §4.4.1 as a longest-prefix match over one hash
//! table for all prefix lengths: a look-up costs one probe per *distinct prefix length* in use,
//! however many peers there are. Addresses are in **host space** (wire space + the peer's
//! offset). There is one action, PROTECT; what matches nothing is not for us. Ports and protocols
//! are no selectors here.

use core::net::IpAddr;

use managed::ManagedSlice;
use smoltcp::wire::IpCidr;

use crate::ahead::Fetch;
use crate::table::{Full, Key, Table, mix};

/// A peer, by its place in the lists that the caller lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);

impl PeerId {
    /// The peer's place in the lists.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Why a prefix was not added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpdError {
    /// The storage is full.
    Full,
    /// The prefix overlaps one of this other peer.
    Overlap(PeerId),
}

impl From<Full> for SpdError {
    fn from(_: Full) -> SpdError {
        SpdError::Full
    }
}

/// A prefix as the database keeps it: family, length and the masked address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    words: [u32; 4],
    len: u8,
    v6: bool,
}

impl Prefix {
    /// The first `len` bits of `address`.
    fn of(address: IpAddr, len: u8) -> Prefix {
        let (words, v6) = match address {
            IpAddr::V4(v4) => ([v4.to_bits(), 0, 0, 0], false),
            IpAddr::V6(v6) => (words_of(v6.to_bits()), true),
        };
        Prefix { words, len: u8::MAX, v6 }.shortened(len)
    }

    fn of_cidr(cidr: &IpCidr) -> Prefix {
        Prefix::of(cidr.address().into(), cidr.prefix_len())
    }

    /// The first `len` bits of this prefix, which has more.
    fn shortened(&self, len: u8) -> Prefix {
        let mut rest = u32::from(len);
        let words = self.words.map(|word| {
            let bits = rest.min(32);
            rest -= bits;
            word & leading_ones(bits)
        });
        Prefix { words, len, v6: self.v6 }
    }

    /// Whether it holds `address`.
    pub(crate) fn holds(&self, address: IpAddr) -> bool {
        self.v6 == address.is_ipv6() && Prefix::of(address, self.len) == *self
    }

    /// Whether it is a /0.
    pub(crate) fn is_everything(&self) -> bool {
        self.len == 0
    }

    /// Whether `self` holds all of `other`.
    fn contains(&self, other: &Prefix) -> bool {
        self.len <= other.len && other.shortened(self.len) == *self
    }
}

/// A word whose first `bits` bits are set.
fn leading_ones(bits: u32) -> u32 {
    u32::MAX.checked_shl(32 - bits).unwrap_or(0)
}

fn words_of(bits: u128) -> [u32; 4] {
    [(bits >> 96) as u32, (bits >> 64) as u32, (bits >> 32) as u32, bits as u32]
}

impl Key for Prefix {
    fn fold(&self) -> u32 {
        let [a, b, c, d] = self.words;
        if self.v6 {
            a ^ mix(b ^ mix(c ^ mix(d ^ u32::from(self.len))))
        } else {
            a ^ u32::from(self.len).rotate_right(8)
        }
    }
}

/// For how many prefix lengths a look-up is prepared.
const LENGTHS_AHEAD: usize = 2;

/// One slot of storage for an [`Spd`]; `None` is empty.
pub type SpdSlot = Option<(Prefix, PeerId)>;

/// The prefix lengths in use, by family: bit n-1 stands for /n.
#[derive(Debug, Clone, Copy, Default)]
struct Lengths {
    longer: u128,
    zero: bool,
}

impl Lengths {
    fn add(&mut self, len: u8) {
        match len.checked_sub(1) {
            Some(bit) => self.longer |= 1 << bit,
            None => self.zero = true,
        }
    }

    /// From the longest to the shortest.
    fn iter(self) -> impl Iterator<Item = u8> {
        let mut bits = self.longer;
        core::iter::from_fn(move || {
            let bit = bits.checked_ilog2()?;
            bits &= !(1 << bit);
            Some(bit as u8 + 1)
        })
        .chain(self.zero.then_some(0))
    }
}

/// Longest-prefix match from host-space addresses to peers.
#[derive(Debug)]
pub struct Spd<'a> {
    table: Table<'a, Prefix, PeerId>,
    v4: Lengths,
    v6: Lengths,
}

impl<'a> Spd<'a> {
    /// An empty database over `storage`, which holds half as many prefixes as it has slots.
    #[must_use]
    pub fn new(storage: ManagedSlice<'a, SpdSlot>) -> Spd<'a> {
        Spd { table: Table::new(storage), v4: Lengths::default(), v6: Lengths::default() }
    }

    /// Gives all of `prefix` (host space; host bits are ignored) to `peer`.
    ///
    /// # Errors
    /// [`SpdError::Full`], or [`SpdError::Overlap`] if another peer has this prefix, or one that
    /// holds it or that it holds. A /0 means "everything else" and overlaps only another /0.
    pub fn insert(&mut self, prefix: &IpCidr, peer: PeerId) -> Result<(), SpdError> {
        let prefix = Prefix::of_cidr(prefix);
        if let Some(other) = self.overlapping(&prefix, peer) {
            return Err(SpdError::Overlap(other));
        }
        self.table.insert(prefix, peer)?;
        self.lengths_mut(prefix.v6).add(prefix.len);
        Ok(())
    }

    /// Takes `prefix` away from its peer, which is returned.
    pub fn remove(&mut self, prefix: &IpCidr) -> Option<PeerId> {
        let prefix = Prefix::of_cidr(prefix);
        let peer = self.table.remove(&prefix)?;
        let mut left = Lengths::default();
        for (other, _) in self.table.iter().filter(|(other, _)| other.v6 == prefix.v6) {
            left.add(other.len);
        }
        *self.lengths_mut(prefix.v6) = left;
        Some(peer)
    }

    /// The peer whose prefix holds `address` (host space); the longest prefix wins.
    #[must_use]
    pub fn lookup(&self, address: IpAddr) -> Option<PeerId> {
        self.find(address).map(|(_, peer)| peer)
    }

    /// The same, and the prefix.
    pub(crate) fn find(&self, address: IpAddr) -> Option<(Prefix, PeerId)> {
        self.candidates(address).find_map(|prefix| Some((prefix, self.table.get(&prefix)?)))
    }

    /// Begins to fetch what a look-up of `address` reads first.
    pub(crate) fn fetch<A>(&self, address: IpAddr, fetch: &impl Fetch<A>) {
        // Most have one or two lengths; of more, the longest are the likely ones.
        let slots = self.candidates(address).take(LENGTHS_AHEAD);
        slots.filter_map(|prefix| self.table.home_slot(&prefix)).for_each(|slot| fetch.value(slot));
    }

    /// What an address can be looked up by, the longest first.
    fn candidates(&self, address: IpAddr) -> impl Iterator<Item = Prefix> {
        let lengths = if address.is_ipv6() { self.v6 } else { self.v4 };
        lengths.iter().map(move |len| Prefix::of(address, len))
    }

    fn lengths_mut(&mut self, v6: bool) -> &mut Lengths {
        if v6 { &mut self.v6 } else { &mut self.v4 }
    }

    /// Another peer than `peer` with a prefix that overlaps this one.
    fn overlapping(&self, prefix: &Prefix, peer: PeerId) -> Option<PeerId> {
        if let Some(other) = self.table.get(prefix).filter(|other| *other != peer) {
            return Some(other);
        }
        if prefix.len == 0 {
            return None;
        }
        let lengths = if prefix.v6 { self.v6 } else { self.v4 };
        let wider = lengths
            .iter()
            .filter(|len| (1..prefix.len).contains(len))
            .find_map(|len| self.table.get(&prefix.shortened(len)).filter(|other| *other != peer));
        // Only where longer prefixes exist does it take a walk to see whether this one holds them.
        let walk = lengths.iter().next().is_some_and(|longest| longest > prefix.len);
        wider.or_else(|| {
            let mut all = self.table.iter().filter(|_| walk);
            all.find(|(held, other)| *other != peer && prefix.contains(held))
                .map(|(_, other)| other)
        })
    }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn cidr(text: &str) -> IpCidr {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn spd(slots: usize) -> Spd<'static> {
        Spd::new(ManagedSlice::Borrowed(vec![None; slots].leak()))
    }

    #[test]
    fn the_longest_prefix_wins_and_the_rest_goes_to_the_default_route() {
        let mut spd = spd(16);
        spd.insert(&cidr("0.0.0.0/0"), PeerId(0)).unwrap();
        spd.insert(&cidr("10.1.0.0/16"), PeerId(1)).unwrap();
        spd.insert(&cidr("10.1.2.3/32"), PeerId(1)).unwrap();
        spd.insert(&cidr("2001:db8::/32"), PeerId(2)).unwrap();
        assert_eq!(spd.lookup(ip("10.1.2.3")), Some(PeerId(1)));
        assert_eq!(spd.lookup(ip("10.1.255.255")), Some(PeerId(1)));
        assert_eq!(spd.lookup(ip("10.2.0.0")), Some(PeerId(0)));
        assert_eq!(spd.lookup(ip("2001:db8:ffff::1")), Some(PeerId(2)));
        assert_eq!(spd.lookup(ip("2001:db9::1")), None, "an IPv4 default is no IPv6 default");
        assert_eq!(spd.remove(&cidr("10.1.0.0/16")), Some(PeerId(1)));
        assert_eq!(spd.lookup(ip("10.1.255.255")), Some(PeerId(0)));
        assert_eq!(spd.lookup(ip("10.1.2.3")), Some(PeerId(1)));
    }

    #[test]
    fn overlapping_prefixes_of_two_peers_are_refused() {
        let mut spd = spd(16);
        spd.insert(&cidr("10.1.0.0/16"), PeerId(1)).unwrap();
        for prefix in ["10.1.0.0/16", "10.1.2.0/24", "10.0.0.0/8", "10.1.0.0/32"] {
            assert_eq!(spd.insert(&cidr(prefix), PeerId(2)), Err(SpdError::Overlap(PeerId(1))));
            assert_eq!(spd.insert(&cidr(prefix), PeerId(1)), Ok(()), "one's own may nest");
            if prefix != "10.1.0.0/16" {
                spd.remove(&cidr(prefix)).unwrap();
            }
        }
        assert_eq!(spd.insert(&cidr("10.2.0.0/16"), PeerId(2)), Ok(()));
        assert_eq!(spd.insert(&cidr("0.0.0.0/0"), PeerId(3)), Ok(()));
        assert_eq!(spd.insert(&cidr("0.0.0.0/0"), PeerId(4)), Err(SpdError::Overlap(PeerId(3))));
        assert_eq!(spd.insert(&cidr("::/0"), PeerId(4)), Ok(()));
    }

    #[test]
    fn a_full_database_says_so() {
        let mut spd = spd(2);
        spd.insert(&cidr("10.1.0.0/16"), PeerId(1)).unwrap();
        assert_eq!(spd.insert(&cidr("10.2.0.0/16"), PeerId(1)), Err(SpdError::Full));
    }

    fn any_cidr() -> impl Strategy<Value = IpCidr> {
        // Few distinct bits, so that prefixes often nest.
        prop_oneof![
            (0u32..8, 0u8..=32).prop_map(|(bits, len)| {
                IpCidr::new(Ipv4Addr::from_bits(bits.rotate_right(3) | bits).into(), len)
            }),
            (0u128..8, 0u8..=128).prop_map(|(bits, len)| {
                IpCidr::new(Ipv6Addr::from_bits(bits.rotate_right(3) | bits).into(), len)
            }),
        ]
    }

    proptest! {
        /// The same answers as a linear search for the longest matching prefix.
        #[test]
        fn agrees_with_a_linear_search(
            prefixes in prop::collection::vec((any_cidr(), 0u32..3), 0..24),
            probes in prop::collection::vec(any_cidr(), 16),
        ) {
            let mut spd = spd(64);
            let mut kept: Vec<(IpCidr, PeerId)> = Vec::new();
            for (prefix, peer) in prefixes {
                let peer = PeerId(peer);
                let overlap = kept.iter().any(|(other, owner)| {
                    let (a, b) = (prefix.prefix_len(), other.prefix_len());
                    *owner != peer && (a == 0) == (b == 0)
                        && (prefix.contains_addr(&other.address()) && a <= b
                            || other.contains_addr(&prefix.address()) && b <= a)
                });
                prop_assert_eq!(spd.insert(&prefix, peer).is_err(), overlap);
                if !overlap {
                    kept.push((prefix, peer));
                }
            }
            for probe in probes {
                let address = probe.address();
                let expected = kept
                    .iter()
                    .filter(|(prefix, _)| prefix.contains_addr(&address))
                    .max_by_key(|(prefix, _)| prefix.prefix_len())
                    .map(|(_, peer)| *peer);
                prop_assert_eq!(spd.lookup(address.into()), expected);
            }
        }
    }
}
