//! How large a packet may be, inside the tunnel and outside (RFC 4301 §8, RFC 1191, RFC 8201).
//!
//! The *path MTU* of an SA is the largest outer packet, in bytes from its IP header on, that
//! reaches the peer. From it follows what becomes of an inner packet ([`fit`]).
//!
//! An ICMP error is not authenticated, so what it may teach is bounded ([`learn`]): it never
//! raises the path MTU, and never lowers it below [`MIN_PATH_MTU_V4`] or [`MIN_PATH_MTU_V6`].
//! Inner IPv6 has its own floor: its links carry 1280 bytes (RFC 8200 §5), so an inner IPv6
//! packet of up to [`MIN_INNER_V6`] bytes is never refused, whatever the path MTU says. When
//! that makes the outer packet larger than the path MTU, it goes out as one outer packet that
//! may be fragmented outside ([`Fit::Oversize`], RFC 2473 §7.1). This is the only case in which
//! the tunnel relies on outer fragments: IPv6 left no other, and a forged error thus costs inner
//! IPv6 speed but not its connection.
//!
//! When a learned path MTU grows old (RFC 1191 §6.3: ten minutes) is the caller's timer.

use crate::counters::Discard;
use crate::crypto::ICV_LEN;
use crate::path::Path;
use crate::wire::esp::{ALIGNMENT, HEADER_LEN, IV_LEN, TRAILER_LEN};
use crate::wire::ip;

/// The least path MTU that an ICMP error may teach for an IPv4 path: what every IPv4 host takes
/// (RFC 791 §3.1). Links below that exist on paper only.
pub const MIN_PATH_MTU_V4: usize = 576;

/// The least path MTU of any IPv6 path (RFC 8200 §5).
pub const MIN_PATH_MTU_V6: usize = 1280;

/// The inner IPv6 packet in bytes that always passes (RFC 8200 §5).
pub const MIN_INNER_V6: usize = 1280;

/// In front of the ciphertext: SPI, sequence number and IV.
const BEFORE: usize = HEADER_LEN + IV_LEN;

/// RFC 1191 §7.1: what paths usually carry, for routers that do not tell.
const PLATEAUS: [usize; 7] = [32000, 17914, 8166, 4352, 2002, 1492, 1006];

/// Length in bytes, from the ESP header to the ICV, of a sealed inner packet of `inner_len`
/// bytes: with an 8-byte IV, a 16-byte ICV and the least padding.
#[must_use]
pub const fn sealed_len(inner_len: usize) -> usize {
    let text = inner_len.saturating_add(TRAILER_LEN + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    text.saturating_add(BEFORE + ICV_LEN)
}

/// The largest inner packet in bytes whose outer packet fits `path_mtu`; 0 if none does.
/// `outer_len` is that of the outer IP and UDP headers ([`Path::outer_len`]).
#[must_use]
pub const fn largest_inner(path_mtu: usize, outer_len: usize) -> usize {
    let text = path_mtu.saturating_sub(outer_len).saturating_sub(BEFORE + ICV_LEN);
    (text / ALIGNMENT * ALIGNMENT).saturating_sub(TRAILER_LEN)
}

/// The MTU to give a tunnel's device: [`largest_inner`], but never below what IPv6 needs to run
/// on it at all ([`MIN_INNER_V6`]).
#[must_use]
pub fn device_mtu(path_mtu: usize, outer_len: usize) -> usize {
    largest_inner(path_mtu, outer_len).max(MIN_INNER_V6)
}

/// The path MTU in bytes after an ICMP error about `path`, whose MTU was `current`, claimed
/// that it is `claimed` (0: an old router that does not tell, RFC 1191 §5).
///
/// Never more than `current`. A claim below an IPv4 path's minimum counts as that minimum; one
/// below an IPv6 path's minimum is ignored (RFC 8201 §4). That the error quotes one of our own
/// packets (its SPI) is for the caller to check.
#[must_use]
pub fn learn(path: &Path, current: usize, claimed: usize) -> usize {
    let claimed = match (path.remote().is_ipv4(), claimed) {
        (true, 0) => PLATEAUS.into_iter().find(|&mtu| mtu < current).unwrap_or(MIN_PATH_MTU_V4),
        (true, claimed) => claimed.max(MIN_PATH_MTU_V4),
        (false, claimed) if claimed < MIN_PATH_MTU_V6 => current,
        (false, claimed) => claimed,
    };
    claimed.min(current)
}

/// What is to become of an inner packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// It fits: seal it.
    Whole,
    /// IPv6 that must pass although its outer packet exceeds the path MTU: seal it, and send it
    /// with outer fragmentation allowed (IPv4: DF clear; IPv6: fragmented by us).
    Oversize,
    /// IPv4 without DF: fragment it to this many bytes ([`Fragments`](crate::fragment::Fragments)),
    /// seal the fragments.
    Fragment(usize),
    /// Drop it, and tell its sender this MTU ([`answer_too_big`](crate::icmp::answer_too_big)).
    TooBig(usize),
}

/// What is to become of the inner packet `inner` on an SA with this path MTU, whose outer IP and
/// UDP headers have `outer_len` bytes. What fits is not looked at any further.
///
/// # Errors
/// [`Discard::Malformed`] if it does not fit and is not an IP packet.
pub fn fit(inner: &[u8], path_mtu: usize, outer_len: usize) -> Result<Fit, Discard> {
    let largest = largest_inner(path_mtu, outer_len);
    if inner.len() <= largest {
        return Ok(Fit::Whole);
    }
    match ip::version(inner) {
        Some(4) if ip::ipv4(inner)?.dont_frag() => Ok(Fit::TooBig(largest)),
        Some(4) => Ok(Fit::Fragment(largest)),
        Some(6) if inner.len() <= MIN_INNER_V6 => ip::ipv6(inner).map(|_| Fit::Oversize),
        Some(6) => ip::ipv6(inner).map(|_| Fit::TooBig(largest.max(MIN_INNER_V6))),
        _ => Err(Discard::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::samples;
    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
    use proptest::prelude::*;
    use std::vec;

    fn paths() -> [Path; 4] {
        let v4 = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv4Addr::LOCALHOST));
        let v6 = (IpAddr::from(Ipv6Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST));
        let esp = |(local, remote)| Path::Esp { local, remote };
        let udp = |(local, remote)| Path::Udp {
            local: SocketAddr::new(local, 4500),
            remote: SocketAddr::new(remote, 4500),
        };
        [esp(v4), udp(v4), esp(v6), udp(v6)]
    }

    #[test]
    fn overhead_and_largest_inner_packet_of_every_path() {
        let table = [
            (54, 57, 1446, 1438),
            (62, 65, 1438, 1430),
            (74, 77, 1426, 1418),
            (82, 85, 1418, 1410),
        ];
        for (path, (least, most, at_1500, at_1492)) in paths().iter().zip(table) {
            let outer_len = path.outer_len();
            let overheads = (1000..1004).map(|inner| outer_len + sealed_len(inner) - inner);
            assert_eq!(overheads.clone().min(), Some(least), "{path:?}");
            assert_eq!(overheads.clone().max(), Some(most), "{path:?}");
            assert_eq!(largest_inner(1500, outer_len), at_1500, "{path:?}");
            assert_eq!(largest_inner(1492, outer_len), at_1492, "{path:?}");
        }
    }

    #[test]
    fn extremes_do_not_overflow() {
        assert_eq!(sealed_len(0), 36);
        assert_eq!(sealed_len(usize::MAX), usize::MAX);
        assert_eq!(largest_inner(0, 48), 0);
        assert_eq!(largest_inner(83, 48), 0);
        assert_eq!(device_mtu(1500, 20), 1446);
        assert_eq!(device_mtu(1280, 20), 1280);
    }

    #[test]
    fn icmp_lowers_the_path_mtu_within_bounds() {
        let [v4, _, v6, _] = paths();
        let cases = [
            // path, current, claimed, learned
            (v4, 1500, 1400, 1400),
            (v4, 1500, 1500, 1500),
            (v4, 1400, 1500, 1400),
            (v4, 1500, 576, 576),
            (v4, 1500, 575, 576),
            (v4, 1500, 68, 576),
            (v4, 1500, 1, 576),
            (v4, 1500, 0, 1492),
            (v4, 1492, 0, 1006),
            (v4, 1006, 0, 576),
            (v4, 500, 0, 500),
            (v4, 500, 400, 500),
            (v6, 1500, 1400, 1400),
            (v6, 1400, 1500, 1400),
            (v6, 1500, 1280, 1280),
            (v6, 1500, 1279, 1500),
            (v6, 1500, 0, 1500),
        ];
        for (number, (path, current, claimed, learned)) in cases.into_iter().enumerate() {
            assert_eq!(learn(&path, current, claimed), learned, "case {number}");
        }
    }

    #[test]
    fn a_packet_passes_is_fragmented_or_refused() {
        let v4 = |len: usize| samples::ipv4(17, &vec![0; len - 20]);
        let v4_df = |len| {
            let mut packet = v4(len);
            samples::edit_ipv4(&mut packet, |header| header.set_dont_frag(true));
            packet
        };
        let v6 = |len: usize| samples::ipv6(17, &vec![0; len - 40]);
        let cases = [
            // packet, path MTU, fit over IPv4 ESP
            (v4(1446), 1500, Ok(Fit::Whole)),
            (v4(1447), 1500, Ok(Fit::Fragment(1446))),
            (v4_df(1446), 1500, Ok(Fit::Whole)),
            (v4_df(1447), 1500, Ok(Fit::TooBig(1446))),
            (v6(1446), 1500, Ok(Fit::Whole)),
            (v6(1447), 1500, Ok(Fit::TooBig(1446))),
            (v6(1280), 1280, Ok(Fit::Oversize)),
            (v6(1226), 1280, Ok(Fit::Whole)),
            (v6(1227), 1280, Ok(Fit::Oversize)),
            (v6(1281), 1280, Ok(Fit::TooBig(1280))),
            (v6(1280), 576, Ok(Fit::Oversize)),
            (v4_df(1280), 1280, Ok(Fit::TooBig(1226))),
            (vec![0x50; 1447], 1500, Err(Discard::Malformed)),
            (v4(1500)[..1480].to_vec(), 1500, Err(Discard::Malformed)),
            (v6(1500)[..1480].to_vec(), 1500, Err(Discard::Malformed)),
        ];
        for (number, (packet, path_mtu, expected)) in cases.into_iter().enumerate() {
            assert_eq!(fit(&packet, path_mtu, 20), expected, "case {number}");
        }
    }

    proptest! {
        #[test]
        fn the_largest_inner_packet_fits_and_the_next_does_not(
            path_mtu in 100usize..70_000, outer_len in 20usize..49,
        ) {
            let largest = largest_inner(path_mtu, outer_len);
            prop_assert!(outer_len + sealed_len(largest) <= path_mtu);
            prop_assert!(outer_len + sealed_len(largest + 1) > path_mtu);
        }

        #[test]
        fn no_claim_raises_or_strangles(current in 0usize..70_000, claimed in any::<usize>()) {
            for path in paths() {
                let learned = learn(&path, current, claimed);
                prop_assert!(learned <= current);
                prop_assert!(learned >= current.min(MIN_PATH_MTU_V4));
                prop_assert!(path.remote().is_ipv4() || learned >= current.min(MIN_PATH_MTU_V6));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            first in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()],
            rest in proptest::collection::vec(any::<u8>(), 0..64),
            path_mtu in 0usize..100,
        ) {
            let bytes = [&[first], &rest[..]].concat();
            for len in 0..=bytes.len() {
                let _ = fit(&bytes[..len], path_mtu, 20);
            }
        }
    }
}
