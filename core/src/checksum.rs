//! Internet checksums: the one place where they are done.
//!
//! Implements the sum of RFC 1071, the incremental update of RFC 1624
//! (equation 3), the pseudo-header checksums of TCP and UDP over both families (RFC 8200 §8.1), and
//! UDP's zero (RFC 768: none). Does not do SCTP's CRC, nor choose which bytes a checksum covers.
//!
//! A *sum* is the folded ones-complement sum of 16-bit words; a *checksum* is its complement.

use crate::counters::Discard;

pub use smoltcp::wire::checksum::{combine, pseudo_header_v4, pseudo_header_v6};

/// What a transport header's checksum field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checksum {
    /// The whole checksum, as on the wire.
    #[default]
    Full,
    /// Only the sum of the pseudo-header, without complement (virtio `VIRTIO_NET_HDR_F_NEEDS_CSUM`).
    Partial {
        /// Where in the packet the bytes begin that are still to be summed, counted from the IP
        /// header (virtio `csum_start`). Not always the packet's own transport header: a kernel
        /// that runs a tunnel inside ours may have left the innermost checksum to us.
        start: usize,
    },
}

/// What a change of bytes adds to a sum over them: ~m + m' of RFC 1624, equation 3.
///
/// Taken once per change and applied to every checksum that covers the bytes. They have to lie at
/// an even distance from where such a checksum begins; all fields of IP and its transports do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delta(u16);

impl Delta {
    /// No change: leaves every checksum as it is, bit for bit.
    pub const NONE: Delta = Delta(0);

    /// The change of a field of `N` bytes (an even number) from `old` to `new`.
    #[must_use]
    pub fn between<const N: usize>(old: [u8; N], new: [u8; N]) -> Delta {
        const { assert!(N.is_multiple_of(2), "checksums are made of 16-bit words") };
        Delta(combine(&[!sum(&old), sum(&new)]))
    }

    /// Both changes.
    #[must_use]
    pub fn and(self, other: Delta) -> Delta {
        Delta(combine(&[self.0, other.0]))
    }

    /// The checksum `old` after the change (RFC 1624, equation 3).
    #[must_use]
    pub fn update(self, old: u16) -> u16 {
        !combine(&[!old, self.0])
    }

    /// The UDP or UDP-Lite checksum `old` after the change: zero means that there is none.
    #[must_use]
    pub fn update_udp(self, old: u16) -> u16 {
        if old == 0 { 0 } else { never_zero(self.update(old)) }
    }

    /// The sum `old` after the change. A partial checksum is such a sum, and therefore moves the
    /// other way than a full one.
    #[must_use]
    pub fn update_sum(self, old: u16) -> u16 {
        combine(&[old, self.0])
    }
}

/// The sum of `bytes` (RFC 1071); an odd last one counts as if a zero followed.
#[must_use]
pub fn sum(bytes: &[u8]) -> u16 {
    // In the machine's byte order and in words that it loads at once, as RFC 1071 §2 allows: this
    // is the loop that reads every byte of a segment. 32-bit MIPS needs half as many instructions
    // for it as for 16-bit words, and x86-64 makes vectors of either.
    let (pairs, rest) = bytes.as_chunks::<8>();
    let [mut even, mut odd] = [0_u64; 2];
    for &[a, b, c, d, e, f, g, h] in pairs {
        even += u64::from(u32::from_ne_bytes([a, b, c, d]));
        odd += u64::from(u32::from_ne_bytes([e, f, g, h]));
    }
    let (words, last) = rest.as_chunks::<2>();
    for word in words {
        even += u64::from(u16::from_ne_bytes(*word));
    }
    for &byte in last {
        even += u64::from(u16::from_ne_bytes([byte, 0]));
    }
    let mut total = even + odd;
    while total > 0xFFFF {
        total = (total & 0xFFFF) + (total >> 16);
    }
    u16::from_be_bytes((total as u16).to_ne_bytes())
}

/// The sum of the pseudo-header of `len` bytes of `protocol` between `addresses`, which are both
/// addresses as they lie in an IP header (RFC 9293 §3.1, RFC 8200 §8.1).
pub(crate) fn pseudo_header(addresses: &[u8], protocol: u8, len: u16) -> u16 {
    combine(&[sum(addresses), protocol.into(), len])
}

/// The checksum of `bytes` (RFC 1071). Their checksum field, if any, counts as what it holds: zero
/// it to compute a checksum; with the right one in place the result is 0.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    !sum(bytes)
}

/// How a computed checksum is sent where zero means that there is none: 0 as 0xFFFF, which is the
/// same number in ones-complement arithmetic (RFC 768). Harmless for TCP.
#[must_use]
pub fn never_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xFFFF } else { checksum }
}

/// Completes a partial checksum, which lies `field` bytes after `start` and covers everything from
/// `start` to the end of `packet` (virtio `csum_offset`, `csum_start`).
///
/// # Errors
/// [`Discard::Malformed`] if the field does not lie inside the packet, which is left unchanged.
pub fn complete(packet: &mut [u8], start: usize, field: usize) -> Result<(), Discard> {
    let covered = packet.get_mut(start..).ok_or(Discard::Malformed)?;
    let full = never_zero(checksum(covered));
    let field = covered.get_mut(field..).and_then(<[u8]>::first_chunk_mut);
    *field.ok_or(Discard::Malformed)? = full.to_be_bytes();
    Ok(())
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use proptest::prelude::*;
    use smoltcp::wire::IpProtocol;

    use super::*;

    /// RFC 1071 by its definition, in wide arithmetic, for comparison.
    fn by_definition(bytes: &[u8]) -> u16 {
        let words = bytes
            .chunks(2)
            .map(|pair| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u64::from(low)));
        let mut total: u64 = words.sum();
        while total > 0xFFFF {
            total = (total & 0xFFFF) + (total >> 16);
        }
        !(total as u16)
    }

    #[test]
    fn example_of_rfc_1071_section_3() {
        let bytes = [0x00, 0x01, 0xF2, 0x03, 0xF4, 0xF5, 0xF6, 0xF7];
        assert_eq!(sum(&bytes), 0xDDF2);
        assert_eq!(checksum(&bytes), 0x220D);
    }

    #[test]
    fn example_of_rfc_1624_section_4() {
        // Equation 2 (RFC 1141) gives 0xFFFF here, which is the bug that equation 3 corrects.
        let delta = Delta::between(0x5555_u16.to_be_bytes(), 0x3285_u16.to_be_bytes());
        assert_eq!(delta.update(0xDD2F), 0x0000);
    }

    #[test]
    fn a_partial_checksum_moves_the_other_way() {
        let delta = Delta::between([0, 0, 0, 1], [0, 0, 0, 4]);
        assert_eq!(delta.update(0x1000), 0x0FFD);
        assert_eq!(delta.update_sum(0x1000), 0x1003);
    }

    #[test]
    fn udp_zero_means_none_and_stays_while_a_computed_zero_is_sent_as_ffff() {
        let delta = Delta::between(0x5555_u16.to_be_bytes(), 0x3285_u16.to_be_bytes());
        assert_eq!(delta.update_udp(0), 0, "no checksum stays none");
        assert_eq!(delta.update_udp(0xDD2F), 0xFFFF, "equation 3 computes 0 here");
        let back = Delta::between(0x3285_u16.to_be_bytes(), 0x5555_u16.to_be_bytes());
        assert_eq!(back.update_udp(0xFFFF), 0xDD2F);
    }

    #[test]
    fn no_change_leaves_every_checksum_as_it_is() {
        for value in [0, 1, 0xFFFE, 0xFFFF] {
            assert_eq!(Delta::NONE.update(value), value);
            assert_eq!(Delta::NONE.update_udp(value), value);
            assert_eq!(Delta::NONE.update_sum(value), value);
        }
    }

    #[test]
    fn completes_a_partial_checksum_of_a_dns_query() {
        let (a, b) = (Ipv4Addr::new(10, 0, 0, 161), Ipv4Addr::new(10, 0, 0, 160));
        let mut udp = [0xC0, 0, 0, 53, 0, 13, 0, 0, b'h', b'e', b'l', b'l', b'o'];
        let pseudo = pseudo_header_v4(&a, &b, IpProtocol::Udp, 13);
        udp[6..8].copy_from_slice(&pseudo.to_be_bytes());
        complete(&mut udp, 0, 6).unwrap();
        assert_eq!(combine(&[pseudo, sum(&udp)]), 0xFFFF, "the receiver's check");
        assert_eq!(complete(&mut udp, 14, 0), Err(Discard::Malformed));
        assert_eq!(complete(&mut udp, 6, 6), Err(Discard::Malformed));
    }

    #[test]
    fn a_completed_zero_is_sent_as_ffff() {
        let mut bytes = [0xFF, 0xFF, 0, 0];
        complete(&mut bytes, 0, 2).unwrap();
        assert_eq!(bytes, [0xFF; 4]);
    }

    proptest! {
        #[test]
        fn sums_by_its_definition(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(checksum(&bytes), by_definition(&bytes));
        }

        #[test]
        fn an_update_equals_computing_anew(
            mut bytes in prop::collection::vec(any::<u8>(), 20..60),
            small: [u8; 2], middle: [u8; 4], large: [u8; 16],
        ) {
            // Zero everywhere has two checksums; no IP packet is that.
            bytes[19] = 1;
            let old = by_definition(&bytes);
            let mut change = Delta::NONE;
            fn set<const N: usize>(bytes: &mut [u8], new: [u8; N]) -> Delta {
                let field = bytes.first_chunk_mut::<N>().unwrap();
                Delta::between(core::mem::replace(field, new), new)
            }
            change = change.and(set(&mut bytes, large));
            change = change.and(set(&mut bytes[2..], small));
            change = change.and(set(&mut bytes[4..], middle));
            prop_assert_eq!(change.update(old), by_definition(&bytes));
            prop_assert_eq!(change.update_sum(!old), !by_definition(&bytes));
        }
    }
}
