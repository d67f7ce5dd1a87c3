//! Traffic selectors: what is configured, and what two ends agree on (RFC 7296 §2.9).
//!
//! Only addresses are told apart. A selector for some protocol or ports alone is passed over:
//! strongSwan puts one in front that describes the packet which made it connect, and the general
//! ones follow.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use heapless::Vec;
use smoltcp::wire::IpCidr;

use super::pad::MAX_PREFIXES;
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

/// How many ranges both ends of a child have together: what fits one message in two fragments, and
/// an IKE SA's slot.
const MAX_RANGES: usize = MAX_PREFIXES + 4;

/// The ranges of both ends of a child, in no more room than they need together.
pub(crate) struct Both {
    ranges: Vec<Addresses, MAX_RANGES>,
    /// How many of them are of our end; these come first.
    local: usize,
}

impl Both {
    /// Of our end and the peer's; `None` if they are too many.
    pub(crate) fn new([local, remote]: [&Ranges; 2]) -> Option<Both> {
        let mut ranges = Vec::from_slice(&local.0).ok()?;
        ranges.extend_from_slice(&remote.0).ok()?;
        Some(Both { ranges, local: local.0.len() })
    }

    /// Whether a child can have them: some at each end, and no more than there is room for.
    pub(crate) fn fit([local, remote]: [&Ranges; 2]) -> bool {
        !local.is_empty()
            && !remote.is_empty()
            && local.0.len().saturating_add(remote.0.len()) <= MAX_RANGES
    }

    /// Those of our end, and those of the peer's.
    pub(crate) fn split(&self) -> [Ranges; 2] {
        let (local, remote) = self.ranges.split_at_checked(self.local).unwrap_or_default();
        // Neither is longer than it was.
        [local, remote].map(|ranges| Ranges(Vec::from_slice(ranges).unwrap_or_default()))
    }
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
