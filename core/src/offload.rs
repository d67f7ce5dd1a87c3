//! What a `virtio_net_hdr` says about the packet behind it (virtio 1.2 §5.1.6), as values.
//!
//! The host's kernel leaves work to whoever takes its packets: cutting a super-packet into
//! segments ([`segment`](crate::segment)) and completing a checksum. In the other direction it
//! takes super-packets ([`coalesce`](crate::coalesce)). Reading and writing the header's bytes is
//! left to the port.

use crate::checksum;
use crate::counters::Discard;
use crate::inner::Inner;

/// What a super-packet is to be cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gso {
    /// TCP segments over IPv4 (`VIRTIO_NET_HDR_GSO_TCPV4`).
    TcpV4,
    /// TCP segments over IPv6 (`VIRTIO_NET_HDR_GSO_TCPV6`).
    TcpV6,
    /// UDP datagrams over either (`VIRTIO_NET_HDR_GSO_UDP_L4`); not the fragments of one datagram.
    Udp,
}

/// A transport checksum that covers only the pseudo-header so far (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Where the bytes begin that are still to be summed, in bytes from the packet's first.
    pub start: u16,
    /// Where the checksum lies, in bytes from `start`.
    pub offset: u16,
}

/// What is still to be done with a packet from the host, or was not done to one for the host.
/// The default: nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offload {
    /// Set for a super-packet.
    pub gso: Option<Gso>,
    /// The super-packet's first segment bears CWR (`VIRTIO_NET_HDR_GSO_ECN`, RFC 3168 §6.1.2).
    pub ecn: bool,
    /// Length in bytes of all headers of a super-packet. Kernels fill it in carelessly: it is
    /// written, and never read here.
    pub header_len: u16,
    /// Payload bytes of each segment of a super-packet but the last (`gso_size`).
    pub segment_len: u16,
    /// Set if the transport checksum is partial.
    pub checksum: Option<PartialChecksum>,
}

impl Offload {
    /// Completes the transport checksum of the IP packet that `packet` begins with, which is no
    /// super-packet. Does nothing if the checksum is not partial.
    ///
    /// # Errors
    /// [`Discard::Malformed`] if it is a super-packet, or no IP packet, or the checksum lies in its
    /// IP header or outside of it; it is unchanged then.
    pub fn complete_checksum(&self, packet: &mut [u8]) -> Result<(), Discard> {
        if self.gso.is_some() {
            return Err(Discard::Malformed);
        }
        let Some(PartialChecksum { start, offset }) = self.checksum else { return Ok(()) };
        let inner = Inner::parse(packet)?;
        if usize::from(start) < inner.header_len {
            return Err(Discard::Malformed);
        }
        let packet = packet.get_mut(..inner.len).ok_or(Discard::Malformed)?;
        checksum::complete(packet, start.into(), offset.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::samples::{self, fill_checksum};

    const UDP_V4: PartialChecksum = PartialChecksum { start: 20, offset: 6 };

    fn with(checksum: PartialChecksum) -> Offload {
        Offload { checksum: Some(checksum), ..Offload::default() }
    }

    #[test]
    fn a_partial_checksum_is_completed_and_a_whole_one_left_alone() {
        let mut expected = samples::ipv4(17, &samples::udp([1, 2], b"hello"));
        let mut packet = expected.clone();
        fill_checksum(&mut expected, 20, false);
        let sum = checksum::pseudo_header(&packet[12..20], 17, 13).to_be_bytes();
        packet[26..28].copy_from_slice(&sum);
        // What lies behind the packet does not count.
        packet.extend([0xee; 3]);

        assert_eq!(Offload::default().complete_checksum(&mut packet), Ok(()));
        assert_eq!(packet[26..28], sum);
        assert_eq!(with(UDP_V4).complete_checksum(&mut packet), Ok(()));
        assert_eq!(packet[..expected.len()], expected);
    }

    #[test]
    fn a_checksum_outside_of_the_transport_is_refused() {
        let packet = samples::ipv4(17, &samples::udp([1, 2], b"hello"));
        let bad = [(0, 10), (19, 7), (20, 12), (20, 0xffff), (33, 0), (0xffff, 0xffff)];
        for (start, offset) in bad {
            let mut copy = packet.clone();
            let completed = with(PartialChecksum { start, offset }).complete_checksum(&mut copy);
            assert_eq!(completed, Err(Discard::Malformed), "{start} + {offset}");
            assert_eq!(copy, packet, "refused and changed");
        }
        assert_eq!(with(UDP_V4).complete_checksum(&mut []), Err(Discard::Malformed));
    }

    #[test]
    fn a_super_packet_has_no_single_checksum() {
        let mut packet = samples::ipv4(17, &samples::udp([1, 2], b"hello"));
        let offload = Offload { gso: Some(Gso::Udp), ..with(UDP_V4) };
        assert_eq!(offload.complete_checksum(&mut packet), Err(Discard::Malformed));
    }
}
