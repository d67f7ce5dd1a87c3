//! Arithmetic on prefixes: ranges, overlaps and offsets.

use smoltcp::wire::{IpAddress, IpCidr};

use super::model::Peer;

/// First and last address of a prefix as big-endian numbers; host bits do not count.
pub(super) fn range(prefix: IpCidr) -> (u128, u128) {
    let (address, host) = match prefix {
        IpCidr::Ipv4(v4) => {
            let host = u32::MAX.checked_shr(u32::from(v4.prefix_len())).unwrap_or(0);
            (u128::from(u32::from(v4.address())), u128::from(host))
        }
        IpCidr::Ipv6(v6) => {
            let host = u128::MAX.checked_shr(u32::from(v6.prefix_len())).unwrap_or(0);
            (u128::from(v6.address()), host)
        }
    };
    (address & !host, address | host)
}

/// Whether the prefix is of IPv6.
pub(super) fn is_ipv6(prefix: IpCidr) -> bool {
    matches!(prefix, IpCidr::Ipv6(_))
}

/// The prefix with its host bits cleared.
pub(super) fn network(prefix: IpCidr) -> IpCidr {
    with_address(prefix, range(prefix).0)
}

/// The prefix moved by `offset`, modulo the address space.
pub(super) fn moved(prefix: IpCidr, offset: u128) -> IpCidr {
    let address = match prefix.address() {
        IpAddress::Ipv4(v4) => u128::from(u32::from(v4)),
        IpAddress::Ipv6(v6) => u128::from(v6),
    };
    with_address(prefix, address.wrapping_add(offset))
}

/// `prefix` with another address of its family, of which IPv4 takes the low 32 bits.
pub(super) fn with_address(prefix: IpCidr, address: u128) -> IpCidr {
    let len = prefix.prefix_len();
    match prefix {
        IpCidr::Ipv4(_) => IpCidr::new(IpAddress::Ipv4((address as u32).into()), len),
        IpCidr::Ipv6(_) => IpCidr::new(IpAddress::Ipv6(address.into()), len),
    }
}

/// Whether some address lies in both prefixes.
#[must_use]
pub fn overlaps(a: IpCidr, b: IpCidr) -> bool {
    let ((a_first, a_last), (b_first, b_last)) = (range(a), range(b));
    is_ipv6(a) == is_ipv6(b) && a_first <= b_last && b_first <= a_last
}

/// Where this machine sees a prefix of `peer`: wire space plus the peer's offset.
#[must_use]
pub fn host_prefix(peer: &Peer, wire: IpCidr) -> IpCidr {
    match wire {
        IpCidr::Ipv4(_) => moved(wire, u128::from(peer.offset)),
        IpCidr::Ipv6(_) => moved(wire, peer.offset6),
    }
}

#[cfg(test)]
mod tests {
    use super::super::value::cidr;
    use super::*;

    fn p(text: &str) -> IpCidr {
        cidr(text).unwrap()
    }

    #[test]
    fn overlapping_prefixes() {
        let table = [
            ("10.0.0.0/8", "10.1.0.0/16", true),
            ("10.1.0.0/16", "10.0.0.0/8", true),
            ("10.0.0.0/8", "11.0.0.0/8", false),
            ("0.0.0.0/0", "255.255.255.255/32", true),
            ("0.0.0.0/0", "::/0", false),
            ("::/0", "fd00::1/128", true),
            ("fd00::/64", "fd00:0:0:1::/64", false),
            ("10.0.0.5/24", "10.0.0.9/24", true),
        ];
        for (a, b, expected) in table {
            assert_eq!(overlaps(p(a), p(b)), expected, "{a} {b}");
        }
    }

    #[test]
    fn host_bits_are_cleared() {
        for (prefix, meant) in [
            ("10.1.2.3/16", "10.1.0.0/16"),
            ("10.1.2.3/0", "0.0.0.0/0"),
            ("10.1.2.3/32", "10.1.2.3/32"),
            ("fd00::1/64", "fd00::/64"),
            ("fd00::1/0", "::/0"),
        ] {
            assert_eq!(network(p(prefix)), p(meant));
        }
    }

    #[test]
    fn moving_is_modulo_the_address_space() {
        assert_eq!(moved(p("10.0.0.0/24"), 0x100), p("10.0.1.0/24"));
        assert_eq!(moved(p("255.255.255.0/24"), 0x100), p("0.0.0.0/24"));
        assert_eq!(moved(p("fd00::/64"), 1 << 64), p("fd00:0:0:1::/64"));
    }
}
