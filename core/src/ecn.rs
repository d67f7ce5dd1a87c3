//! Congestion marks and traffic classes across the tunnel (RFC 6040, normal mode; RFC 2983 §3).
//!
//! On the way in, an inner packet's DSCP and ECN are copied to the outer header. On the way out,
//! only a congestion mark of the outer header reaches the inner packet; its DSCP never does.
//! RFC 6040's compatibility mode is not implemented: IKEv2 peers all understand ECN
//! (RFC 6040 §4.3).

use smoltcp::wire::{Ipv4Packet, Ipv6Packet};

use crate::counters::Discard;
use crate::wire::ip;

/// The ECN field of an IP header (RFC 3168 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Ecn {
    /// The transport does not understand ECN.
    NotEct = 0b00,
    /// ECN-capable transport, codepoint 1.
    Ect1 = 0b01,
    /// ECN-capable transport, codepoint 0.
    Ect0 = 0b10,
    /// Congestion experienced.
    Ce = 0b11,
}

impl Ecn {
    /// The lower two bits of an IPv4 TOS octet or an IPv6 traffic class.
    #[must_use]
    pub const fn of(traffic_class: u8) -> Ecn {
        match traffic_class & 0b11 {
            0b00 => Ecn::NotEct,
            0b01 => Ecn::Ect1,
            0b10 => Ecn::Ect0,
            _ => Ecn::Ce,
        }
    }

    /// The ECN field of a packet that leaves the tunnel (RFC 6040 §4.2, Figure 4).
    ///
    /// # Errors
    /// [`Discard::Congestion`]: congestion was marked, and dropping is the only way to tell a
    /// transport that does not understand the mark.
    pub const fn leaving(inner: Ecn, outer: Ecn) -> Result<Ecn, Discard> {
        match (inner, outer) {
            (Ecn::NotEct, Ecn::Ce) => Err(Discard::Congestion),
            (_, Ecn::Ce) => Ok(Ecn::Ce),
            (Ecn::Ect0, Ecn::Ect1) => Ok(Ecn::Ect1),
            (inner, _) => Ok(inner),
        }
    }
}

/// The outer traffic class of the inner packet `inner`: its own DSCP and ECN
/// (RFC 6040 §4.1, normal mode).
///
/// # Errors
/// [`Discard::Malformed`] if `inner` is not an IP packet.
pub fn outer_traffic_class(inner: &[u8]) -> Result<u8, Discard> {
    match (ip::version(inner), inner) {
        (Some(4), &[_, traffic_class, ..]) => Ok(traffic_class),
        (Some(6), &[high, low, ..]) => Ok(high << 4 | low >> 4),
        _ => Err(Discard::Malformed),
    }
}

/// Brings the congestion mark of the outer header into the inner packet that left the tunnel
/// (RFC 6040 §4.2).
///
/// # Errors
/// [`Discard::Congestion`] if the inner packet cannot carry the mark; [`Discard::Malformed`] if
/// it is not an IP packet, or is to be marked and its IPv4 header checksum is wrong already.
/// The packet is unchanged then.
pub fn decapsulate(inner: &mut [u8], outer_traffic_class: u8) -> Result<(), Discard> {
    let traffic_class = self::outer_traffic_class(inner)?;
    let before = Ecn::of(traffic_class);
    let after = Ecn::leaving(before, Ecn::of(outer_traffic_class))?;
    if after == before {
        return Ok(());
    }
    if ip::version(inner) == Some(4) {
        // A new checksum over a damaged header would make the damage look right.
        if !ip::ipv4(inner)?.verify_checksum() {
            return Err(Discard::Malformed);
        }
        let mut header = Ipv4Packet::new_unchecked(inner);
        header.set_ecn(after as u8);
        header.fill_checksum();
    } else {
        ip::ipv6(inner)?;
        let mut header = Ipv6Packet::new_unchecked(inner);
        header.set_traffic_class(traffic_class & !0b11 | after as u8);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::samples;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// RFC 6040 Figure 4: inner, outer, leaving (`None`: dropped).
    const FIGURE_4: [(Ecn, Ecn, Option<Ecn>); 16] = {
        use Ecn::{Ce, Ect0, Ect1, NotEct};
        [
            (NotEct, NotEct, Some(NotEct)),
            (NotEct, Ect0, Some(NotEct)),
            (NotEct, Ect1, Some(NotEct)),
            (NotEct, Ce, None),
            (Ect0, NotEct, Some(Ect0)),
            (Ect0, Ect0, Some(Ect0)),
            (Ect0, Ect1, Some(Ect1)),
            (Ect0, Ce, Some(Ce)),
            (Ect1, NotEct, Some(Ect1)),
            (Ect1, Ect0, Some(Ect1)),
            (Ect1, Ect1, Some(Ect1)),
            (Ect1, Ce, Some(Ce)),
            (Ce, NotEct, Some(Ce)),
            (Ce, Ect0, Some(Ce)),
            (Ce, Ect1, Some(Ce)),
            (Ce, Ce, Some(Ce)),
        ]
    };

    fn with_traffic_class(version: u8, traffic_class: u8) -> Vec<u8> {
        if version == 4 {
            let mut packet = samples::ipv4(17, &[0; 9]);
            samples::edit_ipv4(&mut packet, |header| {
                header.set_dscp(traffic_class >> 2);
                header.set_ecn(traffic_class & 0b11);
            });
            packet
        } else {
            let mut packet = samples::ipv6(17, &[0; 9]);
            let mut header = Ipv6Packet::new_unchecked(&mut packet);
            header.set_flow_label(0xf_ffff);
            header.set_traffic_class(traffic_class);
            packet
        }
    }

    #[test]
    fn leaves_the_tunnel_as_figure_4_says() {
        const INNER_DSCP: u8 = 0b101110 << 2;
        const OUTER_DSCP: u8 = 0b010001 << 2;
        for (number, (inner, outer, leaving)) in FIGURE_4.into_iter().enumerate() {
            for version in [4, 6] {
                let before = with_traffic_class(version, INNER_DSCP | inner as u8);
                let mut packet = before.clone();
                let result = decapsulate(&mut packet, OUTER_DSCP | outer as u8);
                let (expected, after) = match leaving {
                    None => (Err(Discard::Congestion), before),
                    Some(ecn) => (Ok(()), with_traffic_class(version, INNER_DSCP | ecn as u8)),
                };
                assert_eq!(result, expected, "case {number}, IPv{version}");
                assert_eq!(packet, after, "case {number}, IPv{version}");
            }
        }
    }

    #[test]
    fn enters_the_tunnel_with_its_own_dscp_and_ecn() {
        for traffic_class in 0..=255 {
            for version in [4, 6] {
                let packet = with_traffic_class(version, traffic_class);
                assert_eq!(outer_traffic_class(&packet), Ok(traffic_class), "IPv{version}");
            }
        }
    }

    #[test]
    fn does_not_hide_a_damaged_header() {
        let mut packet = with_traffic_class(4, Ecn::Ect0 as u8);
        packet[8] ^= 1;
        let before = packet.clone();
        assert_eq!(decapsulate(&mut packet, Ecn::Ce as u8), Err(Discard::Malformed));
        assert_eq!(packet, before);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            first in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()],
            rest in proptest::collection::vec(any::<u8>(), 0..64),
            outer in any::<u8>(),
        ) {
            let mut bytes = [&[first], &rest[..]].concat();
            for len in 0..=bytes.len() {
                let _ = decapsulate(&mut bytes[..len], outer);
            }
        }
    }
}
