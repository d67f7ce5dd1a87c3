//! Which of many strangers gives way when another one comes.
//!
//! Whoever has begun an IKE SA and is not authenticated takes up a slot, of which strangers have so
//! many ([`Settings::half_open_limit`](super::Settings), or what peers leave free). When there is
//! none, the first of these goes:
//!
//! 1. whoever was refused already, and could only ask for the refusal again;
//! 2. whoever's network has the most slots, counting the one that is to come; then whoever's address
//!    has. A network is a /24 of IPv4 and a /56 of IPv6: nobody has many of these for nothing;
//! 3. whoever is not where a peer is configured to be;
//! 4. whoever has been there longest: who is honest is not for long.
//!
//! So an honest newcomer whose network has no other strangers loses its slot only if the attackers
//! receive at addresses of at least as many networks as there are slots (cookies see to it that
//! they do receive), and then only if it needs longer than it takes them to fill all slots once.
//! Each address fills one a second when slots are scarce ([`super::cookie`]): with 64 slots and N
//! addresses in at least 64 networks, an honest newcomer has about 64 / N seconds between its
//! returned cookie and IKE_AUTH. A thousand addresses thus keep out those who need more than 64 ms, at
//! each attempt anew. A peer that calls from where it is configured to be goes only when all
//! slots are of such peers, or its own network has more than others.
//! An attacker in the newcomer's own network, on the same link above all, has it easier: what
//! remains is rule 2 for addresses, and 3.

use core::net::IpAddr;

use super::cookie::network;
use crate::time::Instant;

/// One of the strangers, and what his slot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stranger {
    pub(crate) slot: usize,
    pub(crate) address: IpAddr,
    pub(crate) since: Instant,
    /// He was refused, and is remembered only to be told so again.
    pub(crate) refused: bool,
    /// A peer is configured to be at his address.
    pub(crate) expected: bool,
}

/// The slot of the one who gives way, if there is one. `newcomer` is who comes.
pub(crate) fn gives_way<S: Iterator<Item = Stranger>>(
    strangers: impl Fn() -> S,
    newcomer: Option<IpAddr>,
) -> Option<usize> {
    let addresses = || strangers().map(|it| it.address).chain(newcomer);
    let order = |it: &Stranger| {
        let of_network = network(it.address);
        let neighbours = addresses().filter(|other| network(*other) == of_network).count();
        let same = addresses().filter(|other| *other == it.address).count();
        (it.refused, neighbours, same, !it.expected, core::cmp::Reverse(it.since))
    };
    strangers().max_by_key(order).map(|it| it.slot)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;
    use std::{format, vec};

    use super::*;

    fn stranger(slot: usize, address: &str) -> Stranger {
        let since = Instant::from_millis(slot as u64);
        let address = address.parse().unwrap();
        Stranger { slot, address, since, refused: false, expected: false }
    }

    fn first(strangers: &[Stranger], newcomer: &str) -> Option<usize> {
        gives_way(|| strangers.iter().copied(), Some(newcomer.parse().unwrap()))
    }

    #[test]
    fn the_largest_network_gives_way_and_in_it_who_was_there_longest() {
        let honest = stranger(0, "198.51.100.1");
        let crowd = (1..60).map(|n| stranger(n, &format!("192.0.2.{n}")));
        let all: Vec<_> = core::iter::once(honest).chain(crowd).collect();
        assert_eq!(first(&all, "203.0.113.1"), Some(1));
        assert_eq!(first(&all[..2], "192.0.2.77"), Some(1), "rather a neighbour of who comes");
        assert_eq!(first(&all[..2], "203.0.113.1"), Some(0), "all are alone: the oldest");
        assert_eq!(first(&[], "203.0.113.1"), None);
    }

    #[test]
    fn of_one_link_the_address_with_the_most_gives_way() {
        let mut all = vec![stranger(0, "192.0.2.1")];
        all.extend((1..9).map(|n| stranger(n, "192.0.2.66")));
        assert_eq!(first(&all, "192.0.2.3"), Some(1));
        let v6 = ["2001:db8:0:1::1", "2001:db8:0:1f::2", "2001:db8:0:100::1"];
        let v6: Vec<_> = (0..).zip(v6).map(|(n, it)| stranger(n, it)).collect();
        assert_eq!(first(&v6, "2001:db8:0:2::1"), Some(0), "they are of one /56");
    }

    #[test]
    fn who_was_refused_goes_first_and_who_is_expected_last() {
        let mut all: Vec<_> = (0..4).map(|n| stranger(n, &format!("10.0.{n}.1"))).collect();
        all[0].expected = true;
        assert_eq!(first(&all, "10.1.0.1"), Some(1));
        all[3].refused = true;
        assert_eq!(first(&all, "10.1.0.1"), Some(3));
    }
}
