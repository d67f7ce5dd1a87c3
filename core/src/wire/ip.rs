//! IP headers in front of a packet, and the way past IPv6 extension headers (RFC 8200 §4).

use core::net::{Ipv4Addr, Ipv6Addr};

use smoltcp::wire::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, IpProtocol, Ipv4Packet, Ipv6Packet};

use crate::counters::Discard;
use crate::packet::PacketBuf;

/// The IP version that the first byte of a packet names: 4, 6, or anything else.
pub(crate) fn version(packet: &[u8]) -> Option<u8> {
    packet.first().map(|first| first >> 4)
}

/// `packet` as IPv4, its lengths checked; [`Discard::Malformed`] if it is not.
pub(crate) fn ipv4(packet: &[u8]) -> Result<Ipv4Packet<&[u8]>, Discard> {
    Ipv4Packet::new_checked(packet)
        .ok()
        .filter(|packet| packet.version() == 4)
        .ok_or(Discard::Malformed)
}

/// `packet` as IPv6, its length checked; [`Discard::Malformed`] if it is not.
pub(crate) fn ipv6(packet: &[u8]) -> Result<Ipv6Packet<&[u8]>, Discard> {
    Ipv6Packet::new_checked(packet)
        .ok()
        .filter(|packet| packet.version() == 6)
        .ok_or(Discard::Malformed)
}

/// What two IP versions' headers have in common.
pub(crate) struct Header<A> {
    pub(crate) source: A,
    pub(crate) destination: A,
    pub(crate) protocol: IpProtocol,
    pub(crate) traffic_class: u8,
    pub(crate) hop_limit: u8,
}

impl Header<Ipv4Addr> {
    /// Puts an IPv4 header without options in front of `packet`.
    pub(crate) fn push(
        &self,
        packet: &mut PacketBuf<'_>,
        identification: u16,
        dont_fragment: bool,
    ) -> Result<(), Discard> {
        let total_len =
            u16::try_from(packet.len() + IPV4_HEADER_LEN).map_err(|_| Discard::TooBig)?;
        packet.push_front(IPV4_HEADER_LEN)?.fill(0);
        let mut header = Ipv4Packet::new_unchecked(packet.as_mut_slice());
        header.set_version(4);
        header.set_header_len(IPV4_HEADER_LEN as u8);
        header.set_dscp(self.traffic_class >> 2);
        header.set_ecn(self.traffic_class & 0b11);
        header.set_total_len(total_len);
        header.set_ident(identification);
        header.set_dont_frag(dont_fragment);
        header.set_hop_limit(self.hop_limit);
        header.set_next_header(self.protocol);
        header.set_src_addr(self.source);
        header.set_dst_addr(self.destination);
        header.fill_checksum();
        Ok(())
    }
}

impl Header<Ipv6Addr> {
    /// Puts an IPv6 header in front of `packet`.
    pub(crate) fn push(&self, packet: &mut PacketBuf<'_>) -> Result<(), Discard> {
        let payload_len = u16::try_from(packet.len()).map_err(|_| Discard::TooBig)?;
        packet.push_front(IPV6_HEADER_LEN)?.fill(0);
        let mut header = Ipv6Packet::new_unchecked(packet.as_mut_slice());
        header.set_version(6);
        header.set_traffic_class(self.traffic_class);
        header.set_payload_len(payload_len);
        header.set_next_header(self.protocol);
        header.set_hop_limit(self.hop_limit);
        header.set_src_addr(self.source);
        header.set_dst_addr(self.destination);
        Ok(())
    }
}

/// What follows an IPv6 packet's extension headers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UpperLayer<'a> {
    pub(crate) protocol: IpProtocol,
    /// From the upper-layer header to the packet's end; in a later fragment, from anywhere.
    pub(crate) bytes: &'a [u8],
    /// Whether this is a fragment other than the first, which has no upper-layer header.
    pub(crate) later_fragment: bool,
    /// Whether a fragment or authentication header binds the rest to the packet as it is.
    pub(crate) is_bound: bool,
    /// Whether a routing header has segments left: the packet's destination is not its last.
    pub(crate) is_routed: bool,
}

/// Walks past the extension headers of `packet`; [`Discard::Malformed`] if they run out of it.
pub(crate) fn upper_layer<'a>(packet: &Ipv6Packet<&'a [u8]>) -> Result<UpperLayer<'a>, Discard> {
    let mut upper = UpperLayer {
        protocol: packet.next_header(),
        bytes: packet.payload(),
        later_fragment: false,
        is_bound: false,
        is_routed: false,
    };
    while !upper.later_fragment
        && let IpProtocol::HopByHop
        | IpProtocol::Ipv6Route
        | IpProtocol::Ipv6Frag
        | IpProtocol::IpSecAh
        | IpProtocol::Ipv6Opts = upper.protocol
    {
        let &[next, length, offset_high, offset_low, ..] =
            upper.bytes.first_chunk::<8>().ok_or(Discard::Malformed)?;
        let len = match upper.protocol {
            IpProtocol::Ipv6Frag => 8,
            IpProtocol::IpSecAh => (usize::from(length) + 2) * 4,
            _ => (usize::from(length) + 1) * 8,
        };
        upper.is_bound |= matches!(upper.protocol, IpProtocol::Ipv6Frag | IpProtocol::IpSecAh);
        upper.is_routed |= upper.protocol == IpProtocol::Ipv6Route && offset_low != 0;
        upper.later_fragment = upper.protocol == IpProtocol::Ipv6Frag
            && u16::from_be_bytes([offset_high, offset_low]) >> 3 != 0;
        upper.bytes = upper.bytes.get(len..).ok_or(Discard::Malformed)?;
        upper.protocol = IpProtocol::from(next);
    }
    Ok(upper)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::samples;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn walk(next_header: u8, payload: &[u8]) -> Result<(u8, usize, bool), Discard> {
        let packet = samples::ipv6(next_header, payload);
        let upper = upper_layer(&ipv6(&packet).unwrap())?;
        Ok((upper.protocol.into(), upper.bytes.len(), upper.later_fragment))
    }

    #[test]
    fn a_view_is_of_its_version_and_within_its_bytes() {
        let (v4, v6) = (samples::ipv4(17, &[0x60; 40]), samples::ipv6(17, &[0x45; 40]));
        for (packet, version) in [(&v4, 4), (&v6, 6)] {
            assert_eq!(self::version(packet), Some(version));
            assert_eq!(ipv4(packet).is_ok(), version == 4);
            assert_eq!(ipv6(packet).is_ok(), version == 6);
            let shorter = &packet[..packet.len() - 1];
            assert!(ipv4(shorter).is_err() && ipv6(shorter).is_err());
        }
        // The other version's nibble over lengths that would do.
        let mut v4_as_v6 = v4;
        v4_as_v6[0] = 0x65;
        assert!(ipv4(&v4_as_v6).is_err());
        let mut v6_as_v4 = v6;
        v6_as_v4[0] = 0x40;
        assert!(ipv6(&v6_as_v4).is_err());
    }

    #[test]
    fn walks_past_extension_headers() {
        let hop_by_hop = [60, 0, 0, 0, 0, 0, 0, 0];
        let options = [44, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let fragment = |offset: u8| [51, 0, 0, offset << 3 | 1, 0, 0, 0, 1];
        let authentication =
            [17, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let chain = |offset| -> Vec<u8> {
            [&hop_by_hop[..], &options, &fragment(offset), &authentication, &[1, 2, 3]].concat()
        };
        assert_eq!(walk(17, &[1, 2]), Ok((17, 2, false)));
        assert_eq!(walk(0, &chain(0)), Ok((17, 3, false)));
        assert_eq!(walk(0, &chain(5)), Ok((51, 27, true)), "what follows is not a header");
        assert_eq!(walk(60, &[17, 1, 0, 0, 0, 0, 0, 0]), Err(Discard::Malformed));
        assert_eq!(walk(60, &[17, 0, 0, 0, 0, 0, 0]), Err(Discard::Malformed));
    }

    proptest! {
        #[test]
        fn arbitrary_chains_end(
            next_header in any::<u8>(),
            payload in proptest::collection::vec(
                prop_oneof![Just(0u8), Just(44), Just(51), Just(60), any::<u8>()], 0..256),
        ) {
            let _ = walk(next_header, &payload);
        }
    }
}
