//! The inner IP packet: what the tunnel needs to know of it, checked once.

use core::net::IpAddr;

use smoltcp::wire::UdpPacket;

use crate::counters::Discard;
use crate::path::Path;
use crate::wire::esp::{self, NextHeader};
use crate::wire::ip;

/// The protocol number of UDP.
const UDP: u8 = 17;

/// The facts of an inner packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inner {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// Length by its own header, in bytes; never more than the buffer holds.
    pub(crate) len: usize,
    /// Length of the IP header in bytes, with IPv4 options, without IPv6 extension headers.
    pub(crate) header_len: usize,
}

impl Inner {
    /// Reads the header of the IP packet that `bytes` begin with.
    ///
    /// # Errors
    /// [`Discard::Malformed`].
    pub(crate) fn parse(bytes: &[u8]) -> Result<Inner, Discard> {
        if ip::version(bytes) == Some(6) {
            let ip = ip::ipv6(bytes)?;
            return Ok(Inner {
                source: ip.src_addr().into(),
                destination: ip.dst_addr().into(),
                len: ip.total_len(),
                header_len: ip.header_len(),
            });
        }
        let ip = ip::ipv4(bytes)?;
        if ip.header_len() < 20 {
            return Err(Discard::Malformed);
        }
        Ok(Inner {
            source: ip.src_addr().into(),
            destination: ip.dst_addr().into(),
            len: ip.total_len().into(),
            header_len: ip.header_len().into(),
        })
    }

    pub(crate) fn next_header(&self) -> NextHeader {
        if self.source.is_ipv4() { NextHeader::Ipv4 } else { NextHeader::Ipv6 }
    }
}

/// Whether the inner packet, on its way to `destinations` (host space and wire space), is what we
/// just sent ourselves on `path` under `spi`: a routing loop. Redirected to the peer's shifted
/// address or not, it comes back.
pub(crate) fn is_own_outer(bytes: &[u8], destinations: [IpAddr; 2], path: &Path, spi: u32) -> bool {
    if !destinations.contains(&path.remote()) {
        return false;
    }
    let ip = if path.remote().is_ipv4() {
        ip::ipv4(bytes).map(|ip| (u8::from(ip.next_header()), ip.payload()))
    } else {
        ip::ipv6(bytes).map(|ip| (u8::from(ip.next_header()), ip.payload()))
    };
    let Ok((protocol, payload)) = ip else {
        return false;
    };
    let is_ours = |bytes: &[u8]| esp::Header::parse(bytes).is_some_and(|header| header.spi == spi);
    match *path {
        Path::Esp { .. } => protocol == esp::PROTOCOL && is_ours(payload),
        Path::Udp { remote, .. } if protocol == UDP => UdpPacket::new_checked(payload)
            .is_ok_and(|udp| udp.dst_port() == remote.port() && is_ours(udp.payload())),
        Path::Udp { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_that_contradict_each_other_are_malformed() {
        let mut ip = [0u8; 40];
        ip[0] = 0x45;
        ip[3] = 40;
        assert_eq!(Inner::parse(&ip).map(|inner| inner.len), Ok(40));
        for (at, value) in [(0, 0x44), (0, 0x4f), (0, 0x55), (3, 19), (3, 41), (2, 1)] {
            let mut bad = ip;
            bad[at] = value;
            assert_eq!(Inner::parse(&bad), Err(Discard::Malformed), "byte {at} = {value}");
        }
        assert_eq!(Inner::parse(&[]), Err(Discard::Malformed));
        ip[0] = 0x60;
        assert_eq!(Inner::parse(&ip).map(|inner| inner.len), Ok(40));
        assert_eq!(Inner::parse(&ip[..39]), Err(Discard::Malformed));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(inner) = Inner::parse(&bytes) {
                prop_assert!(inner.len <= bytes.len());
                for path in [
                    Path::Esp { local: inner.source, remote: inner.destination },
                    Path::Udp {
                        local: (inner.source, 4500).into(),
                        remote: (inner.destination, 4500).into(),
                    },
                ] {
                    is_own_outer(&bytes, [inner.destination; 2], &path, 1);
                }
            }
        }
    }
}
