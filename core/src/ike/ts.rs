//! Traffic selectors: what is configured, and what two ends agree on (RFC 7296 §2.9).
//!
//! Only addresses are told apart. A selector for some protocol or ports alone is passed over:
//! strongSwan puts one in front that describes the packet which made it connect, and the general
//! ones follow.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use heapless::Vec;
use smoltcp::wire::IpCidr;

use super::pad::{MAX_PREFIXES, MAX_PREFIXES_V6};
use super::wire::ts::{Addresses, Ports, TrafficSelector, TrafficSelectors};

/// Ranges of addresses at one end of a child SA.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ranges(Vec<Addresses, MAX_PREFIXES>);

impl Ranges {
    /// The addresses of configured prefixes; none of them means any address, of both families.
    /// Prefixes beyond [`MAX_PREFIXES`] are left out.
    #[must_use]
    pub fn of_prefixes(prefixes: &[IpCidr]) -> Ranges {
        let mut ranges = Ranges::default();
        if prefixes.is_empty() {
            ranges.add(Addresses::new(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into()));
            ranges.add(Addresses::new(
                Ipv6Addr::UNSPECIFIED.into(),
                Ipv6Addr::from(u128::MAX).into(),
            ));
        }
        prefixes.iter().for_each(|prefix| ranges.add(range(prefix)));
        ranges
    }

    /// Single addresses.
    #[must_use]
    pub fn of_addresses(addresses: &[IpAddr]) -> Ranges {
        let mut ranges = Ranges::default();
        addresses.iter().for_each(|address| ranges.add(Addresses::new(*address, *address)));
        ranges
    }

    /// What the selectors of a message have in common with these.
    #[must_use]
    pub fn narrowed(&self, theirs: TrafficSelectors<'_>) -> Ranges {
        let mut common = Ranges::default();
        for theirs in theirs.filter(is_general) {
            for ours in &self.0 {
                common.add(intersection(*ours, theirs.addresses));
            }
        }
        common
    }

    /// Whether the selectors of a message, an answer, are all within these.
    #[must_use]
    pub fn contain(&self, mut theirs: TrafficSelectors<'_>) -> bool {
        theirs.all(|theirs| {
            is_general(&theirs)
                && self
                    .0
                    .iter()
                    .any(|ours| intersection(*ours, theirs.addresses) == Some(theirs.addresses))
        })
    }

    /// The ranges.
    pub fn iter(&self) -> impl Iterator<Item = Addresses> + Clone {
        self.0.iter().copied()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Leaves only the first `len` of them.
    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    fn packed_len(&self) -> usize {
        self.iter().map(|range| if range.first().is_ipv4() { PACKED_V4 } else { PACKED_V6 }).sum()
    }

    /// Whether two ends of a child with these prefixes, and no others, fit one child SA: at most 36
    /// of IPv6, or [`MAX_PREFIXES`] at each end of IPv4.
    #[must_use]
    pub fn fit_together(&self, other: &Ranges) -> bool {
        self.packed_len() + other.packed_len() <= MAX_PACKED
    }

    /// As a message has them.
    pub(super) fn selectors(&self) -> impl Iterator<Item = TrafficSelector> {
        self.0.iter().map(|range| TrafficSelector::all(*range))
    }

    /// Adds one unless it lies in another. Those beyond what fits are left out, which narrows.
    fn add(&mut self, range: Option<Addresses>) {
        let Some(range) = range else { return };
        if !self.0.iter().any(|other| intersection(*other, range) == Some(range)) {
            let _ = self.0.push(range);
        }
    }
}

/// Length of a range of IPv4, and of one of IPv6, in [`Both`], in bytes.
const PACKED_V4: usize = 1 + 2 * 4;
const PACKED_V6: usize = 1 + 2 * 16;
/// Bytes for the ranges of both ends of a child: as many as fit one message in two fragments, and an
/// IKE SA's slot. For IPv4 that is more than both ends can have.
const MAX_PACKED: usize = MAX_PREFIXES_V6 * PACKED_V6;

/// Narrows what both ends have in common to what an IKE SA has room for: ranges are taken from the
/// end of the list that takes more, until both fit.
pub(crate) fn fit(local: &mut Ranges, remote: &mut Ranges) {
    while local.packed_len() + remote.packed_len() > MAX_PACKED {
        let longer =
            if local.packed_len() > remote.packed_len() { &mut *local } else { &mut *remote };
        longer.0.pop();
    }
}

/// The ranges of both ends of a child, in no more room than they need together.
pub(crate) struct Both {
    /// Each one: 4 or 6, the first address, the last one.
    packed: Vec<u8, MAX_PACKED>,
    /// How many bytes are of our end; these come first.
    local: usize,
}

impl Both {
    /// Of our end and the peer's; `None` if they do not [fit](fit).
    pub(crate) fn new([local, remote]: [&Ranges; 2]) -> Option<Both> {
        let mut both = Both { packed: Vec::new(), local: local.packed_len() };
        for range in local.iter().chain(remote.iter()) {
            let of_v4 = range.first().is_ipv4();
            both.packed.push(if of_v4 { 4 } else { 6 }).ok()?;
            for address in [range.first(), range.last()] {
                match address {
                    IpAddr::V4(address) => both.packed.extend_from_slice(&address.octets()).ok()?,
                    IpAddr::V6(address) => both.packed.extend_from_slice(&address.octets()).ok()?,
                }
            }
        }
        Some(both)
    }

    /// Those of our end, and those of the peer's.
    pub(crate) fn split(&self) -> [Ranges; 2] {
        let (local, remote) = self.packed.split_at_checked(self.local).unwrap_or_default();
        [local, remote].map(unpacked)
    }
}

fn unpacked(mut packed: &[u8]) -> Ranges {
    fn pair<const N: usize>(bytes: &[u8]) -> Option<([u8; N], [u8; N], &[u8])> {
        let (first, rest) = bytes.split_first_chunk()?;
        let (last, rest) = rest.split_first_chunk()?;
        Some((*first, *last, rest))
    }
    let mut ranges = Ranges::default();
    let mut next = || {
        let (family, rest) = packed.split_first()?;
        let (first, last, rest): (IpAddr, IpAddr, &[u8]) = if *family == 4 {
            let (first, last, rest) = pair::<4>(rest)?;
            (first.into(), last.into(), rest)
        } else {
            let (first, last, rest) = pair::<16>(rest)?;
            (first.into(), last.into(), rest)
        };
        packed = rest;
        Addresses::new(first, last)
    };
    while let Some(range) = next() {
        // There is room: they are no more than they were.
        let _ = ranges.0.push(range);
    }
    ranges
}

fn is_general(selector: &TrafficSelector) -> bool {
    selector.protocol == 0 && selector.ports == Ports::ANY
}

/// What both have in common. Addresses of IPv4 are less than those of IPv6, so that ranges of
/// different families have nothing in common.
fn intersection(one: Addresses, other: Addresses) -> Option<Addresses> {
    Addresses::new(one.first().max(other.first()), one.last().min(other.last()))
}

/// The addresses of a prefix, all of them, whatever is behind its length.
fn range(prefix: &IpCidr) -> Option<Addresses> {
    let len = u32::from(prefix.prefix_len());
    match IpAddr::from(prefix.address()) {
        IpAddr::V4(address) => {
            let host = u32::MAX.checked_shr(len).unwrap_or_default();
            let bits = u32::from(address);
            Addresses::new(Ipv4Addr::from(bits & !host).into(), Ipv4Addr::from(bits | host).into())
        }
        IpAddr::V6(address) => {
            let host = u128::MAX.checked_shr(len).unwrap_or_default();
            let bits = u128::from(address);
            Addresses::new(Ipv6Addr::from(bits & !host).into(), Ipv6Addr::from(bits | host).into())
        }
    }
}
