//! Connected networks inside prefixes of peers: the longest prefix wins.
//!
//! With `10.0.0.0/8` behind a peer, this machine's own 10.1.2.0/24 stays what it is: clear text on
//! its link. A peer's prefix inside that network again, such as 10.1.2.7/32, is the peer's. Only a
//! prefix that is the very network is in conflict with it. `0.0.0.0/0` and `::/0` are no prefixes
//! here: `main` comes before default routes anyway.

use smoltcp::wire::{IpAddress, IpCidr};

use crate::sorted;

/// Those of the `connected` networks that lie inside a wider one of `prefixes` and are none of them,
/// in order.
pub(super) fn networks(prefixes: &[IpCidr], connected: &[IpCidr]) -> Vec<IpCidr> {
    let own = |network: &&IpCidr| {
        prefixes.iter().any(|prefix| wider(prefix, network)) && !prefixes.contains(network)
    };
    sorted::set(connected.iter().filter(own).copied())
}

/// Whether `prefix`, which is no default route, holds all of `network` and more.
pub(super) fn wider(prefix: &IpCidr, network: &IpCidr) -> bool {
    (1..network.prefix_len()).contains(&prefix.prefix_len()) && prefix.contains_subnet(network)
}

/// The addresses inside `prefixes` that belong to a `connected` network all the same, because of
/// all prefixes around them the longest is connected; as prefixes of which none overlap, in order.
pub(super) fn bypassed(prefixes: &[IpCidr], connected: &[IpCidr]) -> Vec<IpCidr> {
    let networks = networks(prefixes, connected);
    let mut found = Vec::new();
    for network in &networks {
        if !networks.iter().any(|other| wider(other, network)) {
            let inside = |other: &&IpCidr| network.contains_subnet(other);
            let marks = prefixes.iter().filter(inside).map(|prefix| (*prefix, false));
            let marks = marks.chain(networks.iter().filter(inside).map(|own| (*own, true)));
            divide(*network, true, &marks.collect::<Vec<_>>(), &mut found);
        }
    }
    sorted::set(found)
}

/// Collects the parts of `prefix` that are connected. `marks` are the prefixes inside it, and
/// whether they are; `around` says it of the longest prefix around it.
fn divide(prefix: IpCidr, around: bool, marks: &[(IpCidr, bool)], found: &mut Vec<IpCidr>) {
    let own = marks.iter().find(|(mark, _)| *mark == prefix).map_or(around, |(_, own)| *own);
    let inside = |mark: &&(IpCidr, bool)| mark.0 != prefix && prefix.contains_subnet(&mark.0);
    let inside: Vec<_> = marks.iter().filter(inside).copied().collect();
    match halves(prefix) {
        Some(halves) if !inside.is_empty() => {
            halves.into_iter().for_each(|half| divide(half, own, &inside, found));
        }
        _ if own => found.push(prefix),
        _ => {}
    }
}

/// The two halves of a prefix, if it has more than one address.
fn halves(prefix: IpCidr) -> Option<[IpCidr; 2]> {
    let len = prefix.prefix_len() + 1;
    let upper: IpAddress = match prefix {
        IpCidr::Ipv4(p) => {
            let bit = 1_u32.checked_shl(32_u32.checked_sub(len.into())?)?;
            IpAddress::Ipv4((p.address().to_bits() | bit).into())
        }
        IpCidr::Ipv6(p) => {
            let bit = 1_u128.checked_shl(128_u32.checked_sub(len.into())?)?;
            IpAddress::Ipv6((p.address().to_bits() | bit).into())
        }
    };
    Some([IpCidr::new(prefix.address(), len), IpCidr::new(upper, len)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidrs(texts: &[&str]) -> Vec<IpCidr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn only_a_wider_prefix_around_a_network_takes_part() {
        let connected = ["10.1.2.0/24", "172.17.0.0/16", "192.168.1.0/24", "fd01:2::/64"];
        for (prefixes, expected) in [
            (&["10.0.0.0/8", "fd01::/16"][..], &["10.1.2.0/24", "fd01:2::/64"][..]),
            (&["0.0.0.0/0", "::/0"], &[]),
            (&["172.16.0.0/12", "192.168.0.0/16"], &["172.17.0.0/16", "192.168.1.0/24"]),
            (&["10.0.0.0/8", "10.1.2.0/24"], &[]),
            (&["10.1.2.7/32", "10.1.3.0/24"], &[]),
        ] {
            let found = networks(&cidrs(prefixes), &cidrs(&connected));
            assert_eq!(found, cidrs(expected), "{prefixes:?}");
        }
    }

    #[test]
    fn what_is_bypassed_leaves_out_the_longer_prefixes_of_peers() {
        for (prefixes, connected, expected) in [
            (&["10.0.0.0/8"][..], &["10.1.2.0/24", "192.0.2.0/24"][..], &["10.1.2.0/24"][..]),
            (&["10.0.0.0/8", "10.1.2.128/25"], &["10.1.2.0/24"], &["10.1.2.0/25"]),
            (
                &["10.0.0.0/8", "10.1.2.5/32"],
                &["10.1.2.0/29"],
                &["10.1.2.0/30", "10.1.2.4/32", "10.1.2.6/31"],
            ),
            // Connected inside a peer's inside connected inside a peer's.
            (
                &["10.0.0.0/8", "10.1.0.0/17"],
                &["10.1.0.0/16", "10.1.64.0/18"],
                &["10.1.64.0/18", "10.1.128.0/17"],
            ),
            (
                &["fd01::/16", "fd01:2::7/128"],
                &["fd01:2::/125"],
                &["fd01:2::/126", "fd01:2::4/127", "fd01:2::6/128"],
            ),
            (&["10.0.0.0/8"], &["10.1.2.3/32"], &["10.1.2.3/32"]),
        ] {
            assert_eq!(bypassed(&cidrs(prefixes), &cidrs(connected)), cidrs(expected));
        }
    }
}
