//! Our own traffic selectors towards a peer (RFC 4301 §4.4.1.1): a short list of prefixes.

use core::net::IpAddr;

use heapless::Vec;
use smoltcp::wire::{IpAddress, IpCidr};

/// How many prefixes fit a list.
pub const MAX_SELECTORS: usize = 4;

/// Up to [`MAX_SELECTORS`] prefixes; none at all means any address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selectors(Vec<IpCidr, MAX_SELECTORS, u8>);

impl Selectors {
    /// Any address.
    pub const ANY: Selectors = Selectors(Vec::new());

    /// These prefixes; `None` if they are more than fit.
    #[must_use]
    pub fn new(prefixes: &[IpCidr]) -> Option<Selectors> {
        Vec::from_slice(prefixes).ok().map(Selectors)
    }

    /// Whether `address` lies in one of the prefixes.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = IpAddress::from(address);
        self.0.is_empty() || self.0.iter().any(|prefix| prefix.contains_addr(&address))
    }
}
