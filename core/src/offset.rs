//! Address offsetting: the same peer under two addresses.
//!
//! In *wire space* a peer has its real addresses: inside ESP, in SA selectors, in `allowed_ips`. In
//! *host space*, which this machine's kernel and its LAN see, it has them plus an [`Offset`]. So a
//! peer on our own subnet, or one whose subnet is numbered like ours, can be routed to.
//!
//! A packet to the wire has the offset taken from its destination, a packet from the wire has it
//! added to its source. What depends on the address follows (RFC 3022 §4.1, §4.3): the IPv4 header
//! checksum, the checksums of TCP, UDP, UDP-Lite, DCCP and ICMPv6, and in ICMP errors (RFC 792,
//! RFC 4443, RFC 4884) the quoted packet, which travelled the other way and therefore names the
//! peer at its other end.
//!
//! Does not do: addresses in payloads (FTP, SIP, DNS); other checksums over addresses (AH, which
//! forbids any such change; routing protocols; IPv4 source routes; Mobile IPv6 home addresses);
//! packets inside packets other than those that ICMP errors quote. A quoted checksum is taken for a
//! full one, since nothing says which it was.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::Range;

use smoltcp::wire::{
    IPV4_HEADER_LEN, IPV6_HEADER_LEN, IpProtocol, IpVersion, Ipv4Packet, Ipv6ExtHeader,
    Ipv6FragmentHeader, Ipv6Packet, Ipv6RoutingHeader,
};

use crate::checksum::{Checksum, Delta};
use crate::counters::Discard;

const DCCP: IpProtocol = IpProtocol::Unknown(33);
const UDP_LITE: IpProtocol = IpProtocol::Unknown(136);

/// Where the checksum of an IPv4 header lies.
const IPV4_CHECKSUM: usize = 10;
/// Bytes of an ICMP error, of either version, in front of the packet that it quotes.
const ICMP_ERROR_HEADER: usize = 8;

/// What is added to a peer's addresses, per IP version; the default adds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Offset {
    v4: u32,
    /// As bytes, which want no alignment: two of these lie with every peer.
    v6: [u8; 16],
}

/// The end of a packet whose address is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Source,
    Destination,
}

impl End {
    fn opposite(self) -> End {
        match self {
            End::Source => End::Destination,
            End::Destination => End::Source,
        }
    }
}

impl Offset {
    /// What the host sees less what is real, modulo 2^32 and 2^128: an offset of 0.0.1.0 is `0x100`.
    #[must_use]
    pub const fn new(v4: u32, v6: u128) -> Offset {
        Offset { v4, v6: v6.to_ne_bytes() }
    }

    fn v6(&self) -> u128 {
        u128::from_ne_bytes(self.v6)
    }

    /// Whether addresses of this version are the same in both spaces.
    #[must_use]
    pub fn is_zero(&self, version: IpVersion) -> bool {
        match version {
            IpVersion::Ipv4 => self.v4 == 0,
            IpVersion::Ipv6 => self.v6() == 0,
        }
    }

    /// The address in wire space of `address` in host space: less the offset, wrapping.
    #[must_use]
    pub fn to_wire(&self, address: IpAddr) -> IpAddr {
        self.negated().to_host(address)
    }

    /// The address in host space of `address` in wire space: plus the offset, wrapping.
    #[must_use]
    pub fn to_host(&self, address: IpAddr) -> IpAddr {
        match address {
            IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits().wrapping_add(self.v4)).into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits().wrapping_add(self.v6())).into(),
        }
    }

    /// Outbound: brings the IP packet at the beginning of `packet` from host space to wire space.
    /// Its destination moves, in an ICMP error also the source of the quoted packet.
    ///
    /// An offset of zero changes nothing and checks nothing beyond the version.
    ///
    /// # Errors
    /// [`Discard::Malformed`] if it is not a whole IP packet up to and including its transport
    /// checksum; it is unchanged then. A first fragment has to be that long, too (RFC 1858,
    /// RFC 7112).
    pub fn shift_destination(&self, packet: &mut [u8], checksum: Checksum) -> Result<(), Discard> {
        self.negated().shift(packet, End::Destination, checksum)
    }

    /// Inbound: brings the IP packet at the beginning of `packet` from wire space to host space.
    /// Its source moves, in an ICMP error also the destination of the quoted packet.
    ///
    /// An offset of zero changes nothing and checks nothing beyond the version.
    ///
    /// # Errors
    /// As for [`Offset::shift_destination`].
    pub fn shift_source(&self, packet: &mut [u8], checksum: Checksum) -> Result<(), Discard> {
        self.shift(packet, End::Source, checksum)
    }

    fn negated(&self) -> Offset {
        Offset::new(self.v4.wrapping_neg(), self.v6().wrapping_neg())
    }

    /// Adds the offset to the packet's address at `end` and to a quoted packet's at the other end.
    fn shift(&self, packet: &mut [u8], end: End, checksum: Checksum) -> Result<(), Discard> {
        let version = version(packet)?;
        if self.is_zero(version) {
            return Ok(());
        }
        // Everything that can be wrong is found before anything is changed.
        let packet = whole(packet, version)?;
        let transport = transport(packet, version)?;
        let quote = match &transport {
            Some(transport) => quote(packet, transport, version)?,
            None => None,
        };

        let quoted = quote.and_then(|quote| packet.get_mut(quote));
        let body = quoted.map_or(Delta::NONE, |quoted| self.shift_quoted(quoted, version, end));
        let Some(moved) = self.add(packet, version, end) else { return Err(Discard::Malformed) };
        if let Some(transport) = transport {
            let pseudo_header = transport.pseudo_header(end, moved.address);
            match checksum {
                Checksum::Partial { start } if start == transport.start => {
                    transport.update_partial(packet, pseudo_header);
                }
                Checksum::Full | Checksum::Partial { .. } => {
                    transport.update(packet, pseudo_header.and(body));
                }
            }
        }
        Ok(())
    }

    /// Shifts the opposite end of a packet quoted by one whose `end` is shifted, as far as it is
    /// there. Returns what that changes in a sum over the quote.
    fn shift_quoted(&self, quoted: &mut [u8], version: IpVersion, end: End) -> Delta {
        let end = end.opposite();
        // Cut off in front of its transport checksum, or a later fragment: it has none to correct.
        let transport = transport(quoted, version).unwrap_or_default();
        let Some(moved) = self.add(quoted, version, end) else { return Delta::NONE };
        let checksum = transport.and_then(|transport| {
            transport.update(quoted, transport.pseudo_header(end, moved.address))
        });
        moved.header.and(checksum.unwrap_or_default())
    }

    /// Adds the offset to the address at `end`, if all of it is there, and corrects an IPv4 header's
    /// checksum.
    fn add(&self, packet: &mut [u8], version: IpVersion, end: End) -> Option<Moved> {
        match version {
            IpVersion::Ipv4 => {
                let at = if end == End::Source { 12 } else { 16 };
                let address = replace(packet, at, |old| {
                    u32::from_be_bytes(old).wrapping_add(self.v4).to_be_bytes()
                })?;
                let checksum = replace_word(packet, IPV4_CHECKSUM, |old| address.update(old))?;
                Some(Moved { address, header: address.and(checksum) })
            }
            IpVersion::Ipv6 => {
                let at = if end == End::Source { 8 } else { 24 };
                let address = replace(packet, at, |old| {
                    u128::from_be_bytes(old).wrapping_add(self.v6()).to_be_bytes()
                })?;
                Some(Moved { address, header: address })
            }
        }
    }
}

/// What moving an address changes.
struct Moved {
    /// In a sum over the address: a pseudo-header.
    address: Delta,
    /// In a sum over the IP header: an ICMP error that quotes it.
    header: Delta,
}

/// A transport header whose checksum we know. The checksum itself is there.
struct Transport {
    protocol: IpProtocol,
    /// Where in the packet the header begins.
    start: usize,
    /// Where in the packet its checksum lies.
    checksum: usize,
    /// A routing header has segments left: the pseudo-header names the final destination, not the
    /// one in the IP header (RFC 8200 §8.1).
    routed: bool,
}

impl Transport {
    /// What is left, in the sum of the pseudo-header, of a change of the address at `end`.
    fn pseudo_header(&self, end: End, address: Delta) -> Delta {
        let unaffected =
            self.protocol == IpProtocol::Icmp || (self.routed && end == End::Destination);
        if unaffected { Delta::NONE } else { address }
    }

    /// Corrects a full checksum. Returns what that changes in a sum over it.
    fn update(&self, packet: &mut [u8], covered: Delta) -> Option<Delta> {
        replace_word(packet, self.checksum, |old| match self.protocol {
            IpProtocol::Udp | UDP_LITE => covered.update_udp(old),
            _ => covered.update(old),
        })
    }

    /// Corrects a partial checksum, which covers nothing but the pseudo-header.
    fn update_partial(&self, packet: &mut [u8], pseudo_header: Delta) {
        replace_word(packet, self.checksum, |old| pseudo_header.update_sum(old));
    }
}

/// Replaces the field at `at`, if all of it is there. Returns what that changes in a sum over it.
///
/// All fields that are replaced lie at even distances from the beginning of every checksum that
/// covers them: IP headers are multiples of 4 bytes, extension headers of 8, and an ICMP error
/// quotes 8 bytes behind its beginning.
fn replace<const N: usize>(
    bytes: &mut [u8],
    at: usize,
    new: impl FnOnce([u8; N]) -> [u8; N],
) -> Option<Delta> {
    let field = bytes.get_mut(at..)?.first_chunk_mut()?;
    let old = *field;
    *field = new(old);
    Some(Delta::between(old, *field))
}

fn replace_word(bytes: &mut [u8], at: usize, new: impl FnOnce(u16) -> u16) -> Option<Delta> {
    replace(bytes, at, |old| new(u16::from_be_bytes(old)).to_be_bytes())
}

fn malformed(_: smoltcp::wire::Error) -> Discard {
    Discard::Malformed
}

fn version(packet: &[u8]) -> Result<IpVersion, Discard> {
    // smoltcp's look at the version wants a first byte.
    if packet.is_empty() {
        return Err(Discard::Malformed);
    }
    IpVersion::of_packet(packet).map_err(malformed)
}

/// The packet without what may lie behind it.
fn whole(packet: &mut [u8], version: IpVersion) -> Result<&mut [u8], Discard> {
    let len = match version {
        IpVersion::Ipv4 => {
            usize::from(Ipv4Packet::new_checked(&*packet).map_err(malformed)?.total_len())
        }
        IpVersion::Ipv6 => Ipv6Packet::new_checked(&*packet).map_err(malformed)?.total_len(),
    };
    packet.get_mut(..len).ok_or(Discard::Malformed)
}

/// The transport header, if the packet has one and we know its checksum. The packet may end
/// earlier than its header says, but not in front of that checksum.
fn transport(packet: &[u8], version: IpVersion) -> Result<Option<Transport>, Discard> {
    let upper = match version {
        IpVersion::Ipv4 => ipv4_upper(packet)?,
        IpVersion::Ipv6 => ipv6_upper(packet)?,
    };
    let Some(Upper { protocol, start, routed }) = upper else { return Ok(None) };
    let field = match (version, protocol) {
        (_, IpProtocol::Tcp) => 16,
        (_, IpProtocol::Udp | UDP_LITE | DCCP) => 6,
        (IpVersion::Ipv4, IpProtocol::Icmp) | (IpVersion::Ipv6, IpProtocol::Icmpv6) => 2,
        _ => return Ok(None),
    };
    let checksum = start + field;
    if packet.len() < checksum + 2 {
        return Err(Discard::Malformed);
    }
    Ok(Some(Transport { protocol, start, checksum, routed }))
}

/// What lies behind the IP header and its extensions.
struct Upper {
    protocol: IpProtocol,
    start: usize,
    routed: bool,
}

/// `None`: a later fragment.
fn ipv4_upper(packet: &[u8]) -> Result<Option<Upper>, Discard> {
    if packet.len() < IPV4_HEADER_LEN {
        return Err(Discard::Malformed);
    }
    let ip = Ipv4Packet::new_unchecked(packet);
    let start = usize::from(ip.header_len());
    if ip.frag_offset() != 0 {
        return Ok(None);
    }
    Ok(Some(Upper { protocol: ip.next_header(), start, routed: false }))
}

/// Walks the extension headers (RFC 8200 §4). `None`: a later fragment.
fn ipv6_upper(packet: &[u8]) -> Result<Option<Upper>, Discard> {
    if packet.len() < IPV6_HEADER_LEN {
        return Err(Discard::Malformed);
    }
    let mut protocol = Ipv6Packet::new_unchecked(packet).next_header();
    let mut rest = packet.get(IPV6_HEADER_LEN..).unwrap_or_default();
    let mut routed = false;
    loop {
        let len = match protocol {
            IpProtocol::HopByHop | IpProtocol::Ipv6Opts | IpProtocol::Ipv6Route => {
                let header = Ipv6ExtHeader::new_checked(rest).map_err(malformed)?;
                if protocol == IpProtocol::Ipv6Route {
                    let routing = Ipv6RoutingHeader::new_checked(header.payload());
                    routed |= routing.map_err(malformed)?.segments_left() > 0;
                }
                8 + 8 * usize::from(header.header_len())
            }
            IpProtocol::Ipv6Frag => {
                let fields = rest.get(2..).unwrap_or_default();
                let fragment = Ipv6FragmentHeader::new_checked(fields).map_err(malformed)?;
                if fragment.frag_offset() != 0 {
                    return Ok(None);
                }
                8
            }
            _ => return Ok(Some(Upper { protocol, start: packet.len() - rest.len(), routed })),
        };
        let (header, behind) = rest.split_at_checked(len).ok_or(Discard::Malformed)?;
        protocol = header.first().copied().ok_or(Discard::Malformed)?.into();
        rest = behind;
    }
}

/// Where an ICMP error has the packet that it quotes, as far as that is there and is one.
fn quote(
    packet: &[u8],
    transport: &Transport,
    version: IpVersion,
) -> Result<Option<Range<usize>>, Discard> {
    let icmp = packet.get(transport.start..).ok_or(Discard::Malformed)?;
    // Destination unreachable, time exceeded and (ICMPv4) parameter problem may say how long the
    // quote is, in words of so many bytes, since extensions can follow it (RFC 4884 §3).
    let length = match (transport.protocol, icmp.first()) {
        (IpProtocol::Icmp, Some(3 | 11 | 12)) => Some((5, 4)),
        (IpProtocol::Icmpv6, Some(1 | 3)) => Some((4, 8)),
        // Source quench, redirect; packet too big, parameter problem.
        (IpProtocol::Icmp, Some(4 | 5)) | (IpProtocol::Icmpv6, Some(2 | 4)) => None,
        _ => return Ok(None),
    };
    let (header, mut quoted) =
        icmp.split_at_checked(ICMP_ERROR_HEADER).ok_or(Discard::Malformed)?;
    let words = length.and_then(|(at, word)| Some(usize::from(*header.get(at)?) * word));
    if let Some(len @ 1..) = words {
        quoted = quoted.get(..len).unwrap_or(quoted);
    }
    let start = transport.start + ICMP_ERROR_HEADER;
    Ok(quoted_len(quoted, version).map(|len| start..start + len))
}

/// How many of these bytes belong to the quoted packet; `None` if it is not one of this version.
fn quoted_len(quoted: &[u8], expected: IpVersion) -> Option<usize> {
    if version(quoted) != Ok(expected) {
        return None;
    }
    let word = |at| Some(usize::from(u16::from_be_bytes(*quoted.get(at..)?.first_chunk()?)));
    let len = match expected {
        IpVersion::Ipv4 => {
            let header = usize::from(quoted.first()? & 0x0F) * 4;
            if header < IPV4_HEADER_LEN {
                return None;
            }
            // Some hosts quote a length that they have already converted or reduced.
            word(2)?.max(header)
        }
        IpVersion::Ipv6 => IPV6_HEADER_LEN + word(4)?,
    };
    Some(len.min(quoted.len()))
}

#[cfg(test)]
mod tests;
