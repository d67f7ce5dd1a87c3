//! Generic segmentation offload: one super-packet of the host becomes IP packets of final size.
//!
//! Cuts TCP (RFC 9293) and UDP over IPv4 and IPv6, the latter behind hop-by-hop, routing and
//! destination options headers, as a network card would: each segment has the super-packet's headers
//! with its own lengths, IPv4 identification, sequence number and checksums. CWR stays on the
//! first segment (RFC 3168 §6.1.2), FIN and PSH on the last, and URG on those in front of the
//! urgent pointer. Writing a segment to where it is sealed is the only copy.
//!
//! Fragments and authenticated headers (RFC 4302) are not cut. Nothing is believed of the offload's
//! `header_len`: the headers are read. Whether a segment fits the path is the sealer's to judge.

use smoltcp::wire::{
    IPV4_HEADER_LEN, IPV6_HEADER_LEN, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket, TcpSeqNumber,
    UDP_HEADER_LEN, UdpPacket,
};

use crate::checksum;
use crate::counters::Discard;
use crate::offload::{Gso, Offload};
use crate::wire::ip;

/// The segments of one super-packet, written one at a time into buffers of the caller's.
#[derive(Debug)]
pub struct Segments<'p> {
    headers: &'p [u8],
    payload: &'p [u8],
    /// Where in `headers` the transport header begins.
    transport: usize,
    is_tcp: bool,
    /// The sum of the pseudo-header, as if its length were 0.
    pseudo_header: u16,
    /// Bytes of the payload per segment.
    segment_len: usize,
    /// How many segments were written, modulo 2^16.
    written: u16,
    /// How many bytes of the payload are in segments already; `None` after the last.
    done: Option<usize>,
}

impl<'p> Segments<'p> {
    /// The segments of the super-packet that `packet` begins with. One whose payload fits a segment
    /// is its own only segment.
    ///
    /// # Errors
    /// [`Discard::Malformed`] if `offload` does not name a kind of super-packet that this one is,
    /// its headers or lengths contradict each other, it cannot be cut (a fragment; several
    /// segments with SYN or RST), or its partial checksum is not that of its transport.
    pub fn new(packet: &'p [u8], offload: &Offload) -> Result<Segments<'p>, Discard> {
        let segment_len = usize::from(offload.segment_len);
        let Layout { packet, transport, protocol, addresses } = Layout::of(packet)?;
        let is_v4 = ip::version(packet) == Some(4);
        let is_tcp = match (offload.gso, protocol) {
            (Some(Gso::TcpV4), IpProtocol::Tcp) if is_v4 => true,
            (Some(Gso::TcpV6), IpProtocol::Tcp) if !is_v4 => true,
            (Some(Gso::Udp), IpProtocol::Udp) => false,
            _ => return Err(Discard::Malformed),
        };
        let upper = packet.get(transport..).ok_or(Discard::Malformed)?;
        let (header_len, checksum) = if is_tcp { tcp(upper, segment_len)? } else { udp(upper)? };
        let (headers, payload) =
            packet.split_at_checked(transport + header_len).ok_or(Discard::Malformed)?;
        if segment_len == 0 {
            return Err(Discard::Malformed);
        }
        let pseudo_header = match (offload.checksum, addresses) {
            // As it stands there it is right whatever a routing header says.
            (Some(partial), _) => {
                let field = if is_tcp { 16 } else { 6 };
                if usize::from(partial.start) != transport || partial.offset != field {
                    return Err(Discard::Malformed);
                }
                checksum::combine(&[checksum, !length(upper)?])
            }
            (None, Some(addresses)) => checksum::pseudo_header(addresses, protocol.into(), 0),
            (None, None) => return Err(Discard::Malformed),
        };
        Ok(Segments {
            headers,
            payload,
            transport,
            is_tcp,
            pseudo_header,
            segment_len,
            written: 0,
            done: Some(0),
        })
    }

    /// Writes the next segment to the front of `out` and returns its length in bytes; `None`
    /// when there are no more.
    ///
    /// # Errors
    /// [`Discard::NoRoom`] if `out` is too short for it; it can be asked for again then.
    pub fn next_into(&mut self, out: &mut [u8]) -> Result<Option<usize>, Discard> {
        let Some(done) = self.done else {
            return Ok(None);
        };
        let rest = self.payload.get(done..).unwrap_or_default();
        let (text, behind) = rest.split_at_checked(self.segment_len).unwrap_or((rest, &[]));
        let len = self.headers.len() + text.len();
        let segment = out.get_mut(..len).ok_or(Discard::NoRoom)?;
        let (headers, room) =
            segment.split_at_mut_checked(self.headers.len()).ok_or(Discard::NoRoom)?;
        headers.copy_from_slice(self.headers);
        room.copy_from_slice(text);

        let (ip, transport) =
            segment.split_at_mut_checked(self.transport).ok_or(Discard::Malformed)?;
        self.finish_ip(ip, len)?;
        if self.is_tcp {
            self.finish_tcp(transport, done, behind.is_empty())?;
        } else {
            self.finish_udp(transport)?;
        }
        self.written = self.written.wrapping_add(1);
        self.done = (!behind.is_empty()).then_some(done + text.len());
        Ok(Some(len))
    }

    /// What differs from segment to segment in the IP header of a packet of `len` bytes.
    fn finish_ip(&self, header: &mut [u8], len: usize) -> Result<(), Discard> {
        let fits = |len: usize| u16::try_from(len).map_err(|_| Discard::TooBig);
        if ip::version(header) == Some(4) {
            let mut header = Ipv4Packet::new_unchecked(header);
            header.set_total_len(fits(len)?);
            header.set_ident(header.ident().wrapping_add(self.written));
            header.fill_checksum();
        } else {
            Ipv6Packet::new_unchecked(header).set_payload_len(fits(len - IPV6_HEADER_LEN)?);
        }
        Ok(())
    }

    /// What differs in the TCP header of the segment whose payload begins `done` bytes into the
    /// super-packet's.
    fn finish_tcp(&self, bytes: &mut [u8], done: usize, is_last: bool) -> Result<(), Discard> {
        let mut tcp = TcpPacket::new_unchecked(&mut *bytes);
        let done_u16 = u16::try_from(done).map_err(|_| Discard::TooBig)?;
        tcp.set_seq_number(TcpSeqNumber(tcp.seq_number().0.wrapping_add(done_u16.into())));
        tcp.set_cwr(tcp.cwr() && done == 0);
        tcp.set_fin(tcp.fin() && is_last);
        tcp.set_psh(tcp.psh() && is_last);
        if tcp.urg() {
            let urgent = tcp.urgent_at().saturating_sub(done_u16);
            tcp.set_urg(done == 0 || urgent > 0);
            tcp.set_urgent_at(urgent);
        }
        tcp.set_checksum(0);
        let checksum = self.checksum(bytes)?;
        TcpPacket::new_unchecked(bytes).set_checksum(checksum);
        Ok(())
    }

    fn finish_udp(&self, bytes: &mut [u8]) -> Result<(), Discard> {
        let len = length(bytes)?;
        let mut udp = UdpPacket::new_unchecked(&mut *bytes);
        udp.set_len(len);
        udp.set_checksum(0);
        let checksum = checksum::never_zero(self.checksum(bytes)?);
        UdpPacket::new_unchecked(bytes).set_checksum(checksum);
        Ok(())
    }

    fn checksum(&self, bytes: &[u8]) -> Result<u16, Discard> {
        Ok(!checksum::combine(&[self.pseudo_header, length(bytes)?, checksum::sum(bytes)]))
    }
}

fn length(bytes: &[u8]) -> Result<u16, Discard> {
    u16::try_from(bytes.len()).map_err(|_| Discard::TooBig)
}

/// The lengths of a TCP header and what its checksum field holds, if it can be cut into segments
/// of so many bytes.
fn tcp(bytes: &[u8], segment_len: usize) -> Result<(usize, u16), Discard> {
    let tcp = TcpPacket::new_checked(bytes).map_err(|_| Discard::Malformed)?;
    let header_len = usize::from(tcp.header_len());
    let is_one = bytes.len() - header_len <= segment_len;
    if !is_one && (tcp.syn() || tcp.rst()) {
        return Err(Discard::Malformed);
    }
    Ok((header_len, tcp.checksum()))
}

/// The same for UDP.
fn udp(bytes: &[u8]) -> Result<(usize, u16), Discard> {
    let udp = UdpPacket::new_checked(bytes).map_err(|_| Discard::Malformed)?;
    if usize::from(udp.len()) != bytes.len() {
        return Err(Discard::Malformed);
    }
    Ok((UDP_HEADER_LEN, udp.checksum()))
}

/// Where the transport header lies in an IP packet.
struct Layout<'p> {
    /// The packet without what may lie behind it.
    packet: &'p [u8],
    transport: usize,
    protocol: IpProtocol,
    /// Both addresses, unless a routing header names another destination for the pseudo-header
    /// (RFC 8200 §8.1).
    addresses: Option<&'p [u8]>,
}

impl<'p> Layout<'p> {
    fn of(packet: &'p [u8]) -> Result<Layout<'p>, Discard> {
        if ip::version(packet) == Some(6) {
            let header = ip::ipv6(packet)?;
            let packet = packet.get(..header.total_len()).ok_or(Discard::Malformed)?;
            let upper = ip::upper_layer(&ip::ipv6(packet)?)?;
            if upper.is_bound {
                return Err(Discard::Malformed);
            }
            let addresses = packet.get(8..IPV6_HEADER_LEN).filter(|_| !upper.is_routed);
            let transport = packet.len() - upper.bytes.len();
            return Ok(Layout { packet, transport, protocol: upper.protocol, addresses });
        }
        let header = ip::ipv4(packet)?;
        if header.more_frags() || header.frag_offset() != 0 {
            return Err(Discard::Malformed);
        }
        Ok(Layout {
            packet: packet.get(..header.total_len().into()).ok_or(Discard::Malformed)?,
            transport: header.header_len().into(),
            protocol: header.next_header(),
            addresses: packet.get(12..IPV4_HEADER_LEN),
        })
    }
}

#[cfg(test)]
mod tests;
