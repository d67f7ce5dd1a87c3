//! In which of many prefixes an address lies.

use core::net::IpAddr;

use smoltcp::wire::{IpAddress, IpCidr};

/// Prefixes of which none contains another, in order.
pub(super) struct Cover(Vec<IpCidr>);

impl Cover {
    /// What these network prefixes cover together; they have to be sorted.
    pub(super) fn of(sorted: impl IntoIterator<Item = IpCidr>) -> Cover {
        let mut all: Vec<IpCidr> = Vec::new();
        for prefix in sorted {
            // Sorted, a prefix comes before those that it contains.
            if !all.last().is_some_and(|last| last.contains_subnet(&prefix)) {
                all.push(prefix);
            }
        }
        Cover(all)
    }

    /// The widest prefix that contains an address.
    pub(super) fn around(&self, address: IpAddr) -> Option<IpCidr> {
        let address = IpAddress::from(address);
        let behind = self.0.partition_point(|prefix| prefix.address() <= address);
        let prefix = *self.0.get(behind.checked_sub(1)?)?;
        prefix.contains_addr(&address).then_some(prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sorted;

    #[test]
    fn an_address_is_found_in_the_widest_prefix_around_it() {
        let prefixes = ["10.1.0.0/16", "10.1.2.0/24", "10.3.0.1/32", "fd00::/64", "fd00::5/128"];
        let prefixes = prefixes.map(|prefix| prefix.parse::<IpCidr>().unwrap());
        let cover = Cover::of(sorted::set(prefixes));
        for (address, around) in [
            ("10.0.255.255", None),
            ("10.1.0.0", Some("10.1.0.0/16")),
            ("10.1.2.3", Some("10.1.0.0/16")),
            ("10.1.255.255", Some("10.1.0.0/16")),
            ("10.2.0.0", None),
            ("10.3.0.1", Some("10.3.0.1/32")),
            ("10.3.0.2", None),
            ("255.255.255.255", None),
            ("::", None),
            ("fd00::5", Some("fd00::/64")),
            ("fd00:0:0:1::", None),
        ] {
            let found = cover.around(address.parse().unwrap());
            assert_eq!(found, around.map(|prefix| prefix.parse().unwrap()), "{address}");
        }
        assert_eq!(Cover::of([]).around("10.0.0.1".parse().unwrap()), None);
        let all = ["0.0.0.0/0", "10.0.0.0/8"].map(|prefix| prefix.parse::<IpCidr>().unwrap());
        let all = Cover::of(all);
        assert!(all.around("192.0.2.1".parse().unwrap()).is_some());
        assert!(all.around("fd00::1".parse().unwrap()).is_none());
    }
}
