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
    /// This other peer has the very same prefix.
    Taken(PeerId),
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
    /// Whether a prefix other than a /0 ever held one of another peer.
    nested: bool,
}

impl<'a> Spd<'a> {
    /// An empty database over `storage`, which holds half as many prefixes as it has slots.
    #[must_use]
    pub fn new(storage: ManagedSlice<'a, SpdSlot>) -> Spd<'a> {
        let (v4, v6) = (Lengths::default(), Lengths::default());
        Spd { table: Table::new(storage), v4, v6, nested: false }
    }

    /// Gives `prefix` (host space; host bits are ignored) to `peer`, except for what longer
    /// prefixes, of whatever peer, hold of it.
    ///
    /// # Errors
    /// [`SpdError::Full`], or [`SpdError::Taken`] if another peer has this very prefix.
    pub fn insert(&mut self, prefix: &IpCidr, peer: PeerId) -> Result<(), SpdError> {
        let prefix = Prefix::of_cidr(prefix);
        if let Some(other) = self.table.get(&prefix).filter(|other| *other != peer) {
            return Err(SpdError::Taken(other));
        }
        self.nested = self.nested || self.nests(&prefix, peer);
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

    /// Whether every address in `prefix`, which is in the database, is its peer's. Where prefixes
    /// of two peers nest, that is said only of the longest ones.
    pub(crate) fn is_whole(&self, prefix: &Prefix) -> bool {
        let longest = self.lengths(prefix.v6).iter().next();
        prefix.len > 0 && (!self.nested || longest <= Some(prefix.len))
    }

    /// The peers whose prefixes hold all of `prefix` and more.
    pub(crate) fn around(&self, prefix: &IpCidr) -> impl Iterator<Item = PeerId> {
        self.wider(Prefix::of_cidr(prefix)).map(|(_, peer)| peer)
    }

    /// Begins to fetch what a look-up of `address` reads first.
    pub(crate) fn fetch<A>(&self, address: IpAddr, fetch: &impl Fetch<A>) {
        // Most have one or two lengths; of more, the longest are the likely ones.
        let slots = self.candidates(address).take(LENGTHS_AHEAD);
        slots.filter_map(|prefix| self.table.home_slot(&prefix)).for_each(|slot| fetch.value(slot));
    }

    /// What an address can be looked up by, the longest first.
    fn candidates(&self, address: IpAddr) -> impl Iterator<Item = Prefix> {
        self.lengths(address.is_ipv6()).iter().map(move |len| Prefix::of(address, len))
    }

    /// The prefixes that hold all of this one and more, and whose they are; the longest first.
    fn wider(&self, prefix: Prefix) -> impl Iterator<Item = (Prefix, PeerId)> {
        let lengths = self.lengths(prefix.v6).iter().filter(move |len| *len < prefix.len);
        lengths.filter_map(move |len| {
            let wider = prefix.shortened(len);
            Some((wider, self.table.get(&wider)?))
        })
    }

    /// Whether this prefix of `peer` and one of another peer would nest. That /0 holds everything
    /// does not count.
    fn nests(&self, prefix: &Prefix, peer: PeerId) -> bool {
        let mut wider = self.wider(*prefix).filter(|(wider, _)| wider.len > 0);
        // Only where longer prefixes exist does it take a walk to see whether this one holds them.
        let longest = self.lengths(prefix.v6).iter().next();
        let walk = prefix.len > 0 && longest > Some(prefix.len);
        let mut all = self.table.iter().filter(|_| walk);
        wider.any(|(_, other)| other != peer)
            || all.any(|(held, other)| other != peer && prefix.contains(&held))
    }

    fn lengths(&self, v6: bool) -> Lengths {
        if v6 { self.v6 } else { self.v4 }
    }

    fn lengths_mut(&mut self, v6: bool) -> &mut Lengths {
        if v6 { &mut self.v6 } else { &mut self.v4 }
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
    fn prefixes_of_two_peers_may_nest_and_only_the_same_one_is_refused() {
        let mut spd = spd(16);
        spd.insert(&cidr("10.5.0.0/16"), PeerId(1)).unwrap();
        spd.insert(&cidr("10.0.0.0/8"), PeerId(2)).unwrap();
        spd.insert(&cidr("10.5.6.0/24"), PeerId(3)).unwrap();
        for (address, peer) in [("10.4.0.1", 2), ("10.5.0.1", 1), ("10.5.6.1", 3)] {
            assert_eq!(spd.lookup(ip(address)), Some(PeerId(peer)), "{address}");
        }
        let again = spd.insert(&cidr("10.5.0.0/16"), PeerId(2));
        assert_eq!(again, Err(SpdError::Taken(PeerId(1))));
        assert_eq!(spd.insert(&cidr("10.5.0.0/16"), PeerId(1)), Ok(()), "it has it already");
        assert_eq!(spd.remove(&cidr("10.5.0.0/16")), Some(PeerId(1)));
        assert_eq!(spd.lookup(ip("10.5.0.1")), Some(PeerId(2)), "what is left is the wider one's");
        assert_eq!(spd.insert(&cidr("0.0.0.0/0"), PeerId(3)), Ok(()));
        assert_eq!(spd.insert(&cidr("0.0.0.0/0"), PeerId(4)), Err(SpdError::Taken(PeerId(3))));
        assert_eq!(spd.insert(&cidr("::/0"), PeerId(4)), Ok(()));
    }

    #[test]
    fn a_prefix_is_whole_unless_it_may_hold_one_of_another_peer() {
        let mut spd = spd(16);
        let whole = |spd: &Spd<'_>, prefix: &str| spd.is_whole(&Prefix::of_cidr(&cidr(prefix)));
        for (prefix, peer) in [("0.0.0.0/0", 0), ("10.0.0.0/8", 1), ("192.168.1.0/24", 2)] {
            spd.insert(&cidr(prefix), PeerId(peer)).unwrap();
            assert_eq!(whole(&spd, prefix), prefix != "0.0.0.0/0");
        }
        spd.insert(&cidr("10.5.0.0/16"), PeerId(1)).unwrap();
        assert!(whole(&spd, "10.0.0.0/8"), "both are of one peer");
        spd.insert(&cidr("10.6.0.0/16"), PeerId(2)).unwrap();
        assert!(!whole(&spd, "10.0.0.0/8"));
        assert!(whole(&spd, "192.168.1.0/24"));
        let around: Vec<_> = spd.around(&cidr("10.6.7.0/24")).collect();
        assert_eq!(around, [PeerId(2), PeerId(1), PeerId(0)]);
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
                let taken = kept.iter().any(|(other, owner)| {
                    *owner != peer
                        && prefix.prefix_len() == other.prefix_len()
                        && prefix.contains_addr(&other.address())
                });
                prop_assert_eq!(spd.insert(&prefix, peer).is_err(), taken);
                if !taken {
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
