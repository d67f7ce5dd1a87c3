//! Telling a packet's sender that it was too big: ICMP "fragmentation needed" (RFC 1191 §4) and
//! ICMPv6 "packet too big" (RFC 4443 §3.2, RFC 8201), to be written back to the host.
//!
//! The offending packet becomes the answer where it lies. It must still be as the host gave it
//! (host space, before any address offset), or the host does not recognise what is quoted.
//! Nothing is answered that RFC 1812 §4.3.2.7 and RFC 4443 §2.4 (e) forbid to answer; multicast
//! destinations are not answered either, although RFC 4443 would allow it, nor are later
//! fragments over IPv6, which may be parts of an ICMP error.
//!
//! No other ICMP message is made here. How many are sent is bounded by a [`RateLimit`].

use core::net::{Ipv4Addr, Ipv6Addr};

use smoltcp::wire::{
    IPV4_HEADER_LEN, IPV6_HEADER_LEN, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpProtocol,
    Ipv4Packet, Ipv6Packet,
};

use crate::counters::Discard;
use crate::packet::PacketBuf;
use crate::pmtu::MIN_INNER_V6;
use crate::time::Instant;
use crate::wire::ip;

/// The longest ICMPv4 error in bytes (RFC 1812 §4.3.2.3).
const MAX_V4: usize = 576;
/// The longest ICMPv6 error in bytes (RFC 4443 §2.4 (c)).
const MAX_V6: usize = 1280;
const ICMP_HEADER_LEN: usize = 8;

/// Internetwork control, RFC 1812 §4.3.2.5.
const TRAFFIC_CLASS: u8 = 0xc0;
const HOP_LIMIT: u8 = 64;

/// Turns a packet that is larger than `mtu` bytes into the ICMP error that says so, addressed to
/// the packet's source. It claims to come from the packet's destination: a host ignores an error
/// that claims to come from itself. An MTU below 1280 is told as 1280 over IPv6, whose hosts
/// ignore anything less (RFC 8201 §4).
///
/// # Errors
/// No answer is due or possible, and the packet is unchanged: [`Discard::TooBig`] if the RFCs
/// forbid one, [`Discard::Malformed`] if it is no IP packet or damaged, [`Discard::NoRoom`] if
/// its headroom is below 28 (IPv4) or 48 (IPv6) bytes.
pub fn answer_too_big(packet: &mut PacketBuf<'_>, mtu: usize) -> Result<(), Discard> {
    match ip::version(packet.as_slice()) {
        Some(4) => fragmentation_needed(packet, mtu),
        Some(6) => packet_too_big(packet, mtu),
        _ => Err(Discard::Malformed),
    }
}

fn fragmentation_needed(packet: &mut PacketBuf<'_>, mtu: usize) -> Result<(), Discard> {
    const HEADERS: usize = IPV4_HEADER_LEN + ICMP_HEADER_LEN;

    let offending = ip::ipv4(packet.as_slice())?;
    if !may_answer_v4(&offending)? {
        return Err(Discard::TooBig);
    }
    let header = ip::Header {
        source: offending.dst_addr(),
        destination: offending.src_addr(),
        protocol: IpProtocol::Icmp,
        traffic_class: TRAFFIC_CLASS,
        hop_limit: HOP_LIMIT,
    };
    let quoted = usize::from(offending.total_len()).min(MAX_V4 - HEADERS);
    if packet.headroom() < HEADERS {
        return Err(Discard::NoRoom);
    }
    packet.truncate(quoted);
    let [high, low] = u16::try_from(mtu).unwrap_or(u16::MAX).to_be_bytes();
    packet.push_front(ICMP_HEADER_LEN)?.copy_from_slice(&[3, 4, 0, 0, 0, 0, high, low]);
    Icmpv4Packet::new_unchecked(packet.as_mut_slice()).fill_checksum();
    header.push(packet, 0, true)
}

fn packet_too_big(packet: &mut PacketBuf<'_>, mtu: usize) -> Result<(), Discard> {
    const HEADERS: usize = IPV6_HEADER_LEN + ICMP_HEADER_LEN;

    let offending = ip::ipv6(packet.as_slice())?;
    if !may_answer_v6(&offending)? {
        return Err(Discard::TooBig);
    }
    let header = ip::Header {
        source: offending.dst_addr(),
        destination: offending.src_addr(),
        protocol: IpProtocol::Icmpv6,
        traffic_class: TRAFFIC_CLASS,
        hop_limit: HOP_LIMIT,
    };
    let quoted = offending.total_len().min(MAX_V6 - HEADERS);
    if packet.headroom() < HEADERS {
        return Err(Discard::NoRoom);
    }
    packet.truncate(quoted);
    let mtu = u32::try_from(mtu.max(MIN_INNER_V6)).unwrap_or(u32::MAX);
    let [a, b, c, d] = mtu.to_be_bytes();
    packet.push_front(ICMP_HEADER_LEN)?.copy_from_slice(&[2, 0, 0, 0, a, b, c, d]);
    Icmpv6Packet::new_unchecked(packet.as_mut_slice())
        .fill_checksum(&header.source, &header.destination);
    header.push(packet)
}

/// RFC 1812 §4.3.2.7.
fn may_answer_v4(offending: &Ipv4Packet<&[u8]>) -> Result<bool, Discard> {
    if !offending.verify_checksum() {
        return Err(Discard::Malformed);
    }
    if offending.frag_offset() != 0
        || !is_single_host_v4(offending.src_addr())
        || !is_single_host_v4(offending.dst_addr())
    {
        return Ok(false);
    }
    if offending.next_header() != IpProtocol::Icmp {
        return Ok(true);
    }
    // Only messages known to be queries and replies: an unknown type may be an error.
    let kind = offending.payload().first().ok_or(Discard::Malformed)?;
    Ok(matches!(kind, 0 | 8 | 13..=18 | 42 | 43))
}

/// RFC 4443 §2.4 (e).
fn may_answer_v6(offending: &Ipv6Packet<&[u8]>) -> Result<bool, Discard> {
    let upper = ip::upper_layer(offending)?;
    if upper.later_fragment
        || !is_single_host_v6(offending.src_addr())
        || !is_single_host_v6(offending.dst_addr())
    {
        return Ok(false);
    }
    if upper.protocol != IpProtocol::Icmpv6 {
        return Ok(true);
    }
    let kind = upper.bytes.first().ok_or(Discard::Malformed)?;
    let message = Icmpv6Message::from(*kind);
    Ok(!message.is_error() && message != Icmpv6Message::Redirect)
}

/// Neither 0.0.0.0/8, 127.0.0.0/8, multicast, reserved nor the limited broadcast address. A
/// directed broadcast cannot be told from a host here.
fn is_single_host_v4(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first != 0 && first != 127 && first < 224
}

fn is_single_host_v6(address: Ipv6Addr) -> bool {
    !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
}

/// A token bucket: how often something may happen (RFC 4443 §2.4 (f), RFC 1812 §4.3.2.8).
///
/// The host's own limit on ICMP errors does not see those that come out of the tunnel.
#[derive(Debug, Clone, Copy)]
pub struct RateLimit {
    per_second: u32,
    burst: u32,
    /// Thousandths of a token: a token per second grows by one of them each millisecond.
    credit: u64,
    last: Instant,
}

impl RateLimit {
    const TOKEN: u64 = 1000;

    /// Allows `per_second` on average, and up to `burst` at once after a pause.
    #[must_use]
    pub const fn new(per_second: u32, burst: u32) -> RateLimit {
        let credit = burst as u64 * RateLimit::TOKEN;
        RateLimit { per_second, burst, credit, last: Instant::ZERO }
    }

    /// Whether it may happen once more at `now`; if so, it is counted. Time that runs backwards
    /// earns nothing.
    pub fn allow(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_since(self.last).as_millis();
        let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
        let earned = elapsed.saturating_mul(u64::from(self.per_second));
        let full = u64::from(self.burst) * RateLimit::TOKEN;
        self.last = self.last.max(now);
        self.credit = self.credit.saturating_add(earned).min(full);
        match self.credit.checked_sub(RateLimit::TOKEN) {
            Some(left) => {
                self.credit = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::HEADROOM;
    use crate::wire::samples::{self, HOST_V4, HOST_V6, SERVER_V4, SERVER_V6};
    use proptest::prelude::*;
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{Icmpv4Message, Icmpv6Repr, Ipv4Repr, Ipv6Repr};
    use std::vec;
    use std::vec::Vec;

    fn answer_with(headroom: usize, packet: &[u8], mtu: usize) -> Result<Vec<u8>, Discard> {
        let mut bytes = [&vec![0xaa; headroom], packet].concat();
        let mut buf = PacketBuf::new(&mut bytes, headroom, packet.len()).unwrap();
        let result = answer_too_big(&mut buf, mtu);
        if result.is_err() {
            assert_eq!(buf.as_slice(), packet, "a refused packet is unchanged");
        }
        result.map(|()| buf.as_slice().to_vec())
    }

    fn answer(packet: &[u8], mtu: usize) -> Result<Vec<u8>, Discard> {
        answer_with(HEADROOM, packet, mtu)
    }

    fn check_v4(answer: &[u8], offending: &[u8], mtu: u16) {
        let ip = Ipv4Packet::new_checked(answer).unwrap();
        let repr = Ipv4Repr::parse(&ip, &ChecksumCapabilities::default()).unwrap();
        assert_eq!((repr.src_addr, repr.dst_addr), (SERVER_V4, HOST_V4));
        assert_eq!(repr.next_header, IpProtocol::Icmp);
        assert_eq!(usize::from(ip.total_len()), answer.len());
        let icmp = Icmpv4Packet::new_checked(ip.payload()).unwrap();
        assert!(icmp.verify_checksum());
        assert_eq!((icmp.msg_type(), icmp.msg_code()), (Icmpv4Message::DstUnreachable, 4));
        assert_eq!(ip.payload()[4..8], [0, 0, (mtu >> 8) as u8, mtu as u8]);
        assert_eq!(icmp.data(), &offending[..offending.len().min(548)]);
    }

    fn check_v6(answer: &[u8], offending: &[u8], mtu: u32) {
        let ip = Ipv6Packet::new_checked(answer).unwrap();
        let repr = Ipv6Repr::parse(&ip).unwrap();
        assert_eq!((repr.src_addr, repr.dst_addr), (SERVER_V6, HOST_V6));
        assert_eq!(repr.next_header, IpProtocol::Icmpv6);
        assert_eq!(ip.total_len(), answer.len());
        let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
        let caps = ChecksumCapabilities::default();
        match Icmpv6Repr::parse(&SERVER_V6, &HOST_V6, &icmp, &caps).unwrap() {
            Icmpv6Repr::PktTooBig { mtu: told, .. } => assert_eq!(told, mtu),
            other => panic!("{other:?}"),
        }
        assert_eq!(icmp.payload(), &offending[..offending.len().min(1232)]);
    }

    #[test]
    fn quotes_as_much_as_allowed() {
        for (len, total) in [(30, 58), (547, 575), (548, 576), (549, 576), (1500, 576)] {
            let offending = samples::ipv4(17, &vec![7; len - 20]);
            let answer = answer(&offending, 1446).unwrap();
            assert_eq!(answer.len(), total);
            check_v4(&answer, &offending, 1446);
        }
        for (len, total) in [(60, 108), (1231, 1279), (1232, 1280), (1233, 1280), (1500, 1280)] {
            let offending = samples::ipv6(17, &vec![7; len - 40]);
            let answer = answer(&offending, 1446).unwrap();
            assert_eq!(answer.len(), total);
            check_v6(&answer, &offending, 1446);
        }
    }

    #[test]
    fn tells_ipv6_no_less_than_1280_and_ipv4_no_more_than_fits() {
        let offending = samples::ipv6(6, &[0; 1460]);
        check_v6(&answer(&offending, 1000).unwrap(), &offending, 1280);
        let offending = samples::ipv4(6, &[0; 1460]);
        check_v4(&answer(&offending, 1000).unwrap(), &offending, 1000);
        check_v4(&answer(&offending, 70_000).unwrap(), &offending, 65_535);
    }

    #[test]
    fn quotes_no_byte_behind_the_packet() {
        let offending = samples::ipv4(17, &[7; 30]);
        let answer = answer(&[&offending[..], b"behind"].concat(), 1446).unwrap();
        check_v4(&answer, &offending, 1446);
    }

    #[test]
    fn needs_headroom() {
        let v4 = samples::ipv4(17, &[7; 1400]);
        assert_eq!(answer_with(27, &v4, 1300), Err(Discard::NoRoom));
        assert!(answer_with(28, &v4, 1300).is_ok());
        let v6 = samples::ipv6(17, &[7; 1400]);
        assert_eq!(answer_with(47, &v6, 1300), Err(Discard::NoRoom));
        assert!(answer_with(48, &v6, 1300).is_ok());
    }

    #[test]
    fn answers_no_icmpv4_error() {
        for kind in 0..=255u8 {
            let query = [0, 8, 13, 14, 15, 16, 17, 18, 42, 43].contains(&kind);
            let packet = samples::ipv4(1, &[&[kind][..], &[0; 1400]].concat());
            assert_eq!(answer(&packet, 1300).is_ok(), query, "type {kind}");
        }
        assert_eq!(answer(&samples::ipv4(1, &[]), 1300), Err(Discard::Malformed));
    }

    #[test]
    fn answers_no_icmpv6_error_however_deep_it_is() {
        for kind in 0..=255u8 {
            let message = [&[kind][..], &[0; 1400]].concat();
            let behind_options = [&[58, 0, 1, 4, 0, 0, 0, 0], &message[..]].concat();
            let in_first_fragment = [&[58, 0, 0, 1, 0, 0, 0, 1], &message[..]].concat();
            for (next, payload) in [(58, message), (60, behind_options), (44, in_first_fragment)] {
                let may = kind >= 128 && kind != 137;
                let result = answer(&samples::ipv6(next, &payload), 1300);
                assert_eq!(result.is_ok(), may, "type {kind} behind {next}");
            }
        }
        assert_eq!(answer(&samples::ipv6(58, &[]), 1300), Err(Discard::Malformed));
    }

    #[test]
    fn answers_no_later_fragment() {
        let fragment = |offset, more| {
            let mut packet = samples::ipv4(17, &[0; 1400]);
            samples::edit_ipv4(&mut packet, |header| {
                header.set_frag_offset(offset);
                header.set_more_frags(more);
            });
            packet
        };
        assert!(answer(&fragment(0, true), 1300).is_ok());
        assert_eq!(answer(&fragment(8, true), 1300), Err(Discard::TooBig));
        assert_eq!(answer(&fragment(8, false), 1300), Err(Discard::TooBig));
        let later = [&[17, 0, 0, 8, 0, 0, 0, 1][..], &[0; 1400]].concat();
        assert_eq!(answer(&samples::ipv6(44, &later), 1300), Err(Discard::TooBig));
    }

    #[test]
    fn answers_no_damaged_header() {
        let mut packet = samples::ipv4(17, &[0; 1400]);
        packet[8] ^= 1;
        assert_eq!(answer(&packet, 1300), Err(Discard::Malformed));
    }

    #[test]
    fn answers_only_between_single_hosts() {
        let v4 = [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "224.0.0.1",
            "239.9.9.9",
            "240.0.0.1",
            "255.255.255.255",
        ];
        for address in v4.map(|address| address.parse::<Ipv4Addr>().unwrap()) {
            let mut packet = samples::ipv4(17, &[0; 1400]);
            samples::edit_ipv4(&mut packet, |header| header.set_src_addr(address));
            assert_eq!(answer(&packet, 1300), Err(Discard::TooBig), "from {address}");
            let mut packet = samples::ipv4(17, &[0; 1400]);
            samples::edit_ipv4(&mut packet, |header| header.set_dst_addr(address));
            assert_eq!(answer(&packet, 1300), Err(Discard::TooBig), "to {address}");
        }
        for address in ["::", "::1", "ff02::1"].map(|address| address.parse::<Ipv6Addr>().unwrap())
        {
            let mut packet = samples::ipv6(17, &[0; 1400]);
            Ipv6Packet::new_unchecked(&mut packet).set_src_addr(address);
            assert_eq!(answer(&packet, 1300), Err(Discard::TooBig), "from {address}");
            let mut packet = samples::ipv6(17, &[0; 1400]);
            Ipv6Packet::new_unchecked(&mut packet).set_dst_addr(address);
            assert_eq!(answer(&packet, 1300), Err(Discard::TooBig), "to {address}");
        }
    }

    #[test]
    fn an_answer_is_never_answered() {
        for packet in [samples::ipv4(17, &[0; 1400]), samples::ipv6(17, &[0; 1400])] {
            let first = answer(&packet, 1300).unwrap();
            assert_eq!(answer(&first, 100), Err(Discard::TooBig));
        }
    }

    #[test]
    fn rate_limit_allows_a_burst_and_then_its_rate() {
        let mut limit = RateLimit::new(10, 3);
        let mut allowed = |from: u64, to: u64| {
            (from..to).filter(|&ms| limit.allow(Instant::from_millis(ms))).count()
        };
        assert_eq!(allowed(5000, 5010), 3, "the burst");
        assert_eq!(allowed(5010, 15_010), 100, "ten seconds at ten a second");
        assert_eq!(allowed(1_000_000, 1_000_010), 3, "a pause earns no more than the burst");
        assert_eq!(allowed(0, 10_000), 0, "the past earns nothing");
        assert_eq!(allowed(u64::MAX - 1, u64::MAX), 1, "the end of time");
        let mut never = RateLimit::new(u32::MAX, 0);
        assert!(!never.allow(Instant::from_millis(u64::MAX)));
    }

    proptest! {
        #[test]
        fn every_answer_parses(payload in proptest::collection::vec(any::<u8>(), 1..1600), mtu in 0usize..2000) {
            let v4 = samples::ipv4(17, &payload);
            check_v4(&answer(&v4, mtu).unwrap(), &v4, mtu as u16);
            let v6 = samples::ipv6(17, &payload);
            check_v6(&answer(&v6, mtu).unwrap(), &v6, mtu.max(1280) as u32);
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            first in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()],
            rest in proptest::collection::vec(any::<u8>(), 0..96),
            headroom in 0usize..64,
        ) {
            let bytes = [&[first], &rest[..]].concat();
            for len in 0..=bytes.len() {
                let _ = answer_with(headroom, &bytes[..len], 1280);
            }
        }
    }
}
