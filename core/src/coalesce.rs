//! Generic receive offload: opened packets of one flow become one super-packet for the host.
//!
//! Merges what [`segment`](crate::segment) would cut into the very same packets again, byte for
//! byte, so that no host behind this one can tell. These are packets without IPv4 options, IPv6
//! extension headers or fragments, whose checksums are right, and which differ only as segments
//! of one super-packet do:
//!
//! - IP: equal but for lengths and checksum; the IPv4 identification counts up.
//! - TCP: the sequence number goes on where the packet before ended; everything else is equal,
//!   acknowledgement, window and options (timestamps) included. There is payload, of one size but
//!   for the last packet's, which may have less. PSH ends a super-packet; FIN, SYN, RST, URG and CWR
//!   are in none, nor is a segment without ACK.
//! - UDP, for hosts that take it: there is a checksum, and payload, again of one size.
//!
//! Everything else passes as it is, behind what was held back of its flow. Packets of one flow thus
//! stay in order, and a packet waits for nobody but the end of the caller's batch. Linux's GRO also
//! merges atomic datagrams with equal identifications (RFC 6864); they pass here one by one.

use core::cmp::Reverse;

use managed::ManagedSlice;
use smoltcp::wire::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, Ipv4Packet, Ipv6Packet, UDP_HEADER_LEN};

use crate::checksum;
use crate::offload::{Gso, Offload, PartialChecksum};
use crate::wire::ip;

/// The longest IP packet in bytes.
pub const MAX_LEN: usize = 65_535;
/// The most UDP datagrams in a super-packet: as many as Linux cuts (`UDP_MAX_SEGMENTS`).
pub const MAX_DATAGRAMS: u16 = 64;

const TCP: u8 = 6;
const UDP: u8 = 17;

const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
/// CWR, URG, RST, SYN, FIN: flags of segments that are not merged.
const ALONE: u8 = 0x80 | 0x20 | 0x04 | 0x02 | 0x01;

/// Takes one packet for the host, which may be a super-packet.
pub type Write<'w> = dyn FnMut(&Offload, &[u8]) + 'w;

/// A run of packets of one flow, growing into a super-packet in a buffer that the caller lends.
#[derive(Debug)]
pub struct Run<'a> {
    room: ManagedSlice<'a, u8>,
    /// How many packets it holds.
    packets: u16,
    /// Bytes of the super-packet so far.
    len: usize,
    /// Bytes of all its headers.
    header_len: usize,
    /// Payload bytes of its first packet.
    segment_len: usize,
    /// Whether the first packet's checksums were verified: not before a second comes.
    is_verified: bool,
    /// When its last packet came.
    touched: u32,
}

impl<'a> Run<'a> {
    /// An empty one. More than [`MAX_LEN`] bytes are never used.
    #[must_use]
    pub const fn new(room: ManagedSlice<'a, u8>) -> Run<'a> {
        Run {
            room,
            packets: 0,
            len: 0,
            header_len: 0,
            segment_len: 0,
            is_verified: false,
            touched: 0,
        }
    }

    fn bytes(&self) -> &[u8] {
        self.room.get(..self.len).unwrap_or_default()
    }

    fn is_of(&self, flow: &Flow<'_>) -> bool {
        self.packets > 0 && Flow::of(self.bytes()).as_ref() == Some(flow)
    }

    fn is_between(&self, ends: &[u8]) -> bool {
        self.packets > 0 && addresses(self.bytes()) == Some(ends)
    }

    /// Begins with `packet`; `false` if there is no room for it.
    fn begin(&mut self, packet: &Mergeable<'_>) -> bool {
        let len = packet.bytes.len();
        let Some(room) = self.room.get_mut(..len) else { return false };
        room.copy_from_slice(packet.bytes);
        self.packets = 1;
        self.len = len;
        self.header_len = packet.header_len;
        self.segment_len = packet.payload().len();
        self.is_verified = false;
        true
    }

    /// Goes on with `packet`, of the same flow; `false` if it must not.
    fn append(&mut self, packet: &Mergeable<'_>) -> bool {
        let payload = packet.payload();
        let len = self.len + payload.len();
        if len > MAX_LEN || payload.len() > self.segment_len || !self.is_continued_by(packet) {
            return false;
        }
        let first = Mergeable { bytes: self.bytes(), ..*packet };
        if !packet.is_verified() || !(self.is_verified || first.is_verified()) {
            return false;
        }
        let Some(room) = self.room.get_mut(self.len..len) else { return false };
        room.copy_from_slice(payload);
        self.is_verified = true;
        self.packets += 1;
        self.len = len;
        if packet.ends_with_push()
            && let Some(flags) = self.room.get_mut(packet.transport + 13)
        {
            *flags |= PSH;
        }
        true
    }

    /// Whether the headers of `packet`, of the same flow, are those of the next segment.
    fn is_continued_by(&self, packet: &Mergeable<'_>) -> bool {
        let Some(held) = self.bytes().get(..self.header_len) else { return false };
        let Some(new) = packet.bytes.get(..packet.header_len) else { return false };
        let same = |at: core::ops::Range<usize>| held.get(at.clone()) == new.get(at);
        let is_next_ip = if packet.is_v4() {
            let next = word(held, 4).map(|ident| ident.wrapping_add(self.packets));
            same(0..2) && word(new, 4) == next && same(6..10)
        } else {
            same(0..4) && same(6..8)
        };
        let at = packet.transport;
        if !is_next_ip || held.len() != new.len() {
            return false;
        }
        if packet.is_udp() {
            return self.packets < MAX_DATAGRAMS;
        }
        let sent = self.len - self.header_len;
        let next = sequence(held, at).map(|first| first.wrapping_add(sent as u32));
        let flags = |header: &[u8]| header.get(at + 13).map(|flags| flags & !PSH);
        sequence(new, at) == next
            && same(at + 8..at + 13)
            && flags(held) == flags(new)
            && same(at + 14..at + 16)
            && same(at + 18..held.len())
    }

    /// Hands over what was gathered, if anything, and is empty again.
    fn finish(&mut self, write: &mut Write<'_>) {
        let packets = core::mem::take(&mut self.packets);
        if packets == 0 {
            return;
        }
        let offload = if packets == 1 { Offload::default() } else { self.complete_headers() };
        write(&offload, self.bytes());
    }

    /// Makes the headers of the first packet those of the super-packet.
    fn complete_headers(&mut self) -> Offload {
        let (len, header_len, segment_len) = (self.len, self.header_len, self.segment_len);
        let Some(bytes) = self.room.get_mut(..len) else { return Offload::default() };
        let Some(flow) = Flow::of(bytes) else { return Offload::default() };
        let (transport, is_tcp) = (flow.transport(), flow.protocol == TCP);
        // All lengths are below 2^16: MAX_LEN bounds them.
        let upper_len = (len - transport) as u16;
        let sum = checksum::pseudo_header(flow.addresses, flow.protocol, upper_len);
        let gso = match (is_tcp, ip::version(bytes)) {
            (false, _) => Gso::Udp,
            (true, Some(4)) => Gso::TcpV4,
            (true, _) => Gso::TcpV6,
        };
        if ip::version(bytes) == Some(4) {
            let mut header = Ipv4Packet::new_unchecked(&mut *bytes);
            header.set_total_len(len as u16);
            header.fill_checksum();
        } else {
            Ipv6Packet::new_unchecked(&mut *bytes).set_payload_len(upper_len);
        }
        let offset = if is_tcp { 16 } else { 6 };
        set_word(bytes, transport + offset, sum);
        if !is_tcp {
            set_word(bytes, transport + 4, upper_len);
        }
        Offload {
            gso: Some(gso),
            ecn: false,
            header_len: header_len as u16,
            segment_len: segment_len as u16,
            checksum: Some(PartialChecksum { start: transport as u16, offset: offset as u16 }),
        }
    }
}

/// Merges packets on their way to the host.
#[derive(Debug)]
pub struct Coalescer<'a> {
    runs: ManagedSlice<'a, Run<'a>>,
    udp: bool,
    /// Counts packets, for the age of runs.
    clock: u32,
}

impl<'a> Coalescer<'a> {
    /// Merges as many flows at a time as there are `runs`, UDP only if the host takes
    /// super-packets of it (`udp`).
    #[must_use]
    pub const fn new(runs: ManagedSlice<'a, Run<'a>>, udp: bool) -> Coalescer<'a> {
        Coalescer { runs, udp, clock: 0 }
    }

    /// Takes an opened packet, and gives `write` what has to be written now: nothing; what was held
    /// back of its flow, with or without it; or the packet itself, behind that.
    pub fn push(&mut self, packet: &[u8], write: &mut Write<'_>) {
        self.clock = self.clock.wrapping_add(1);
        let Some(flow) = Flow::of(packet) else {
            if let Some(ends) = addresses(packet) {
                let concerned = self.runs.iter_mut().filter(|run| run.is_between(ends));
                concerned.for_each(|run| run.finish(write));
            }
            return write(&Offload::default(), packet);
        };
        let mergeable = Mergeable::new(packet, &flow).filter(|new| self.udp || !new.is_udp());
        if let Some(run) = self.runs.iter_mut().find(|run| run.is_of(&flow)) {
            if let Some(new) = &mergeable
                && run.append(new)
            {
                run.touched = self.clock;
                if new.ends_with_push() || new.payload().len() < run.segment_len {
                    run.finish(write);
                }
                return;
            }
            run.finish(write);
        }
        let begun = mergeable.filter(|new| !new.ends_with_push());
        if !begun.is_some_and(|new| self.begin(&new, write)) {
            write(&Offload::default(), packet);
        }
    }

    /// Gives `write` all that is held back. To be called at the end of every batch.
    pub fn flush(&mut self, write: &mut Write<'_>) {
        self.runs.iter_mut().for_each(|run| run.finish(write));
    }

    /// Begins a run in an empty buffer, else in that of the flow that was silent for longest.
    fn begin(&mut self, packet: &Mergeable<'_>, write: &mut Write<'_>) -> bool {
        let clock = self.clock;
        let age = |run: &Run<'_>| Reverse(clock.wrapping_sub(run.touched));
        let best = self.runs.iter_mut().min_by_key(|run| (run.packets > 0, age(run)));
        let Some(run) = best else { return false };
        run.finish(write);
        run.touched = clock;
        run.begin(packet)
    }
}

/// What tells flows apart.
#[derive(PartialEq, Eq)]
struct Flow<'p> {
    ports: &'p [u8; 4],
    protocol: u8,
    addresses: &'p [u8],
}

impl<'p> Flow<'p> {
    /// The flow of a packet whose ports follow its IP header; `None` behind options, extension
    /// headers, in fragments, and of other protocols.
    fn of(packet: &'p [u8]) -> Option<Flow<'p>> {
        let addresses = addresses(packet)?;
        let protocol = match packet {
            [0x45, _, _, _, _, _, fragment, 0, _, protocol, ..] if fragment & 0x3F == 0 => protocol,
            [first, _, _, _, _, _, protocol, ..] if first >> 4 == 6 => protocol,
            _ => return None,
        };
        let mut flow = Flow { ports: &[0; 4], protocol: *protocol, addresses };
        flow.ports = packet.get(flow.transport()..)?.first_chunk()?;
        matches!(flow.protocol, TCP | UDP).then_some(flow)
    }

    /// Where the transport header begins.
    fn transport(&self) -> usize {
        if self.addresses.len() == 8 { IPV4_HEADER_LEN } else { IPV6_HEADER_LEN }
    }
}

/// Both addresses of an IP packet.
fn addresses(packet: &[u8]) -> Option<&[u8]> {
    match ip::version(packet)? {
        4 => packet.get(12..IPV4_HEADER_LEN),
        6 => packet.get(8..IPV6_HEADER_LEN),
        _ => None,
    }
}

/// A packet that may be merged with others like it, if its checksums are right.
#[derive(Clone, Copy)]
struct Mergeable<'p> {
    bytes: &'p [u8],
    /// Where the transport header begins.
    transport: usize,
    /// Bytes of all headers.
    header_len: usize,
}

impl<'p> Mergeable<'p> {
    fn new(bytes: &'p [u8], flow: &Flow<'_>) -> Option<Mergeable<'p>> {
        let transport = flow.transport();
        let len = match transport {
            IPV4_HEADER_LEN => usize::from(word(bytes, 2)?),
            _ => IPV6_HEADER_LEN + usize::from(word(bytes, 4)?),
        };
        let upper = bytes.get(transport..)?;
        let upper_header_len = if flow.protocol == TCP {
            let flags = *upper.get(13)?;
            if flags & (ALONE | ACK) != ACK {
                return None;
            }
            usize::from(upper.get(12)? >> 4) * 4
        } else {
            if usize::from(word(upper, 4)?) != upper.len() || word(upper, 6)? == 0 {
                return None;
            }
            UDP_HEADER_LEN
        };
        let least = if flow.protocol == TCP { 20 } else { UDP_HEADER_LEN };
        let header_len = transport + upper_header_len;
        let is_whole = len == bytes.len() && len <= MAX_LEN;
        (is_whole && upper_header_len >= least && header_len < len).then_some(Mergeable {
            bytes,
            transport,
            header_len,
        })
    }

    fn payload(&self) -> &'p [u8] {
        self.bytes.get(self.header_len..).unwrap_or_default()
    }

    fn is_v4(&self) -> bool {
        self.transport == IPV4_HEADER_LEN
    }

    fn is_udp(&self) -> bool {
        let at = if self.is_v4() { 9 } else { 6 };
        self.bytes.get(at) == Some(&UDP)
    }

    fn ends_with_push(&self) -> bool {
        !self.is_udp() && self.bytes.get(self.transport + 13).is_some_and(|flags| flags & PSH != 0)
    }

    /// Whether its checksums are right, and written as they would be written anew: of the two zeros
    /// of ones-complement arithmetic UDP has one, and TCP and IPv4 the other.
    fn is_verified(&self) -> bool {
        let (protocol, field) = if self.is_udp() { (UDP, 6) } else { (TCP, 16) };
        let (Some(upper), Some(addresses)) =
            (self.bytes.get(self.transport..), addresses(self.bytes))
        else {
            return false;
        };
        let header = self.bytes.get(..IPV4_HEADER_LEN).unwrap_or_default();
        let is_right = |sum: u16| sum == 0xFFFF;
        if self.is_v4() && (!is_right(checksum::sum(header)) || word(header, 10) == Some(0xFFFF)) {
            return false;
        }
        let other_zero = if protocol == UDP { 0 } else { 0xFFFF };
        let pseudo_header = checksum::pseudo_header(addresses, protocol, upper.len() as u16);
        word(upper, field) != Some(other_zero)
            && is_right(checksum::combine(&[pseudo_header, checksum::sum(upper)]))
    }
}

/// The 16-bit field at `at`.
fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

fn set_word(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *field = value.to_be_bytes();
    }
}

/// The sequence number of the TCP header at `at`.
fn sequence(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at + 4..)?.first_chunk().copied().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests;
