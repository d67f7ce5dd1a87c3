//! Our own traffic selectors towards a peer (RFC 4301 §4.4.1.1): a list of prefixes.

use core::net::IpAddr;

use heapless::Vec;
use managed::ManagedSlice;
use smoltcp::wire::{IpAddress, IpCidr};

/// How many prefixes lie in the peer itself, where a packet finds them without another access to
/// memory. Each takes 18 bytes in each direction, whether it is there or not.
pub const FEW: usize = 3;

/// Prefixes; none at all means any address. Up to [`FEW`] lie in the list itself, more in storage
/// that the caller lends.
#[derive(Debug)]
pub struct Selectors<'a>(Held<'a>);

#[derive(Debug)]
enum Held<'a> {
    Few(Vec<IpCidr, FEW, u8>),
    Lent(ManagedSlice<'a, IpCidr>),
}

impl<'a> Selectors<'a> {
    /// Any address.
    pub const ANY: Selectors<'static> = Selectors(Held::Few(Vec::new()));

    /// These prefixes; `None` if they are more than [`FEW`].
    #[must_use]
    pub fn new(prefixes: &[IpCidr]) -> Option<Selectors<'a>> {
        Some(Selectors(Held::Few(Vec::from_slice(prefixes).ok()?)))
    }

    /// The prefixes that fill `storage`, however many. Where they are [`FEW`] or less, the storage is
    /// given back.
    #[must_use]
    pub fn lent(storage: ManagedSlice<'a, IpCidr>) -> Selectors<'a> {
        Selectors::new(&storage).unwrap_or(Selectors(Held::Lent(storage)))
    }

    /// Whether `address` lies in one of the prefixes.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = IpAddress::from(address);
        let prefixes = match &self.0 {
            Held::Few(prefixes) => prefixes.as_slice(),
            Held::Lent(prefixes) => prefixes,
        };
        prefixes.is_empty() || prefixes.iter().any(|prefix| prefix.contains_addr(&address))
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn prefixes(count: u8) -> Vec<IpCidr> {
        (0..count).map(|net| IpCidr::new(IpAddress::v4(10, net, 0, 0), 16)).collect()
    }

    #[test]
    fn few_and_many_hold_what_they_say() {
        for count in [1, 3, 4, 32] {
            let mut storage = prefixes(count);
            let selectors = Selectors::lent(ManagedSlice::Borrowed(&mut storage));
            for net in 0..=count {
                let address = IpAddr::from([10, net, 7, 7]);
                assert_eq!(selectors.contain(address), net < count, "{address} of {count}");
            }
            assert!(!selectors.contain("fd00::1".parse().unwrap()));
        }
        assert!(Selectors::new(&prefixes(3)).is_some() && Selectors::new(&prefixes(4)).is_none());
    }

    #[test]
    fn none_at_all_is_any() {
        let none = Selectors::lent(ManagedSlice::Borrowed(&mut []));
        for address in ["192.0.2.1", "2001:db8::1"] {
            assert!(none.contain(address.parse().unwrap()));
            assert!(Selectors::ANY.contain(address.parse().unwrap()));
        }
    }
}
