//! Super-packets as targets: what a host calls one, and what is made of a peer's packets.

use simplevpn_core::Discard;
use simplevpn_core::checksum::{checksum, combine, never_zero, sum};
use simplevpn_core::coalesce::{Coalescer, MAX_LEN, Run};
use simplevpn_core::offload::{Gso, Offload, PartialChecksum};
use simplevpn_core::segment::Segments;

/// The segments of a super-packet.
fn cut(packet: &[u8], offload: &Offload) -> Result<Vec<Vec<u8>>, Discard> {
    let (mut all, mut room) = (Vec::new(), vec![0; packet.len()]);
    let mut segments = Segments::new(packet, offload)?;
    while let Some(len) = segments.next_into(&mut room).expect("a segment is no longer") {
        all.push(room[..len].to_vec());
    }
    Ok(all)
}

/// The length of an IP packet by its header.
fn ip_len(packet: &[u8]) -> usize {
    let (at, more) = if packet[0] >> 4 == 4 { (2, 0) } else { (4, 40) };
    more + usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]))
}

/// What the host calls a super-packet, or a packet whose checksum is partial: six bytes that choose
/// the offload, then the packet.
pub fn segment(bytes: &[u8]) {
    let Some((&[kind, high, low, start, offset, partial], packet)) = bytes.split_first_chunk()
    else {
        return;
    };
    let gso = [Some(Gso::TcpV4), Some(Gso::TcpV6), Some(Gso::Udp), None][usize::from(kind % 4)];
    let checksum = PartialChecksum { start: start.into(), offset: offset.into() };
    let offload = Offload {
        gso,
        ecn: kind & 0x80 != 0,
        header_len: u16::from_be_bytes([start, offset]),
        segment_len: u16::from_be_bytes([high, low]),
        checksum: (partial != 0).then_some(checksum),
    };
    let mut single = packet.to_vec();
    match offload.complete_checksum(&mut single) {
        Err(_) => assert_eq!(single, packet, "refused and changed"),
        Ok(()) => {
            assert!(gso.is_none(), "a super-packet has many checksums");
            let field = usize::from(start) + usize::from(offset);
            let changed = (0..packet.len()).filter(|at| single[*at] != packet[*at]);
            assert!({ changed }.all(|at| partial != 0 && (at == field || at == field + 1)));
        }
    }

    let Ok(segments) = cut(packet, &offload) else { return };
    let whole = &packet[..ip_len(packet)];
    let (first, behind) = segments.split_first().expect("at least one");
    let header_len = match behind {
        [] => whole.len(),
        _ => first.len() - usize::from(offload.segment_len),
    };
    let mut payload = &whole[header_len..];
    for segment in &segments {
        assert_eq!(ip_len(segment), segment.len());
        let (part, rest) = payload.split_at(segment.len() - header_len);
        assert_eq!(segment[header_len..], *part, "a segment's payload is another's");
        payload = rest;
    }
    assert!(payload.is_empty(), "lost {} bytes", payload.len());
    let mut shorter = segments.iter().position(|segment| segment.len() != first.len());
    assert!(shorter.take().is_none_or(|at| at + 1 == segments.len()), "only the last is shorter");
}

/// Packets of a peer, four bytes each: which flow goes on, with how many bytes of payload, and a
/// change of one byte; the top bit of the first leaves the checksums as they were before that.
pub fn coalesce(bytes: &[u8]) {
    let (steps, _) = bytes.as_chunks::<4>();
    let mut next = [(0xFFFF_FE00_u32, 0xFFF8_u16); 4];
    let packets = Vec::from_iter(steps.iter().take(200).map(|&[flow, size, at, change]| {
        let (sequence, ident) = &mut next[usize::from(flow % 4)];
        let mut packet = packet_of(flow % 4, *sequence, *ident, size.into());
        (*sequence, *ident) = (sequence.wrapping_add(size.into()), ident.wrapping_add(1));
        let at = usize::from(at) % packet.len();
        packet[at] ^= change;
        if flow & 0x80 == 0 {
            fill_checksums(&mut packet);
        }
        packet
    }));

    let runs = (0..3).map(|at| Run::new(vec![0; [MAX_LEN, MAX_LEN, 1000][at]].into()));
    let mut coalescer = Coalescer::new(Vec::from_iter(runs).into(), true);
    let mut seen = Vec::new();
    let mut write = |offload: &Offload, packet: &[u8]| match offload.gso {
        None => {
            assert_eq!(*offload, Offload::default());
            seen.push(packet.to_vec());
        }
        Some(_) => seen.extend(cut(packet, offload).expect("our own super-packet")),
    };
    for (packet, &[flow, ..]) in packets.iter().zip(steps) {
        coalescer.push(packet, &mut write);
        if flow & 0x70 == 0x70 {
            coalescer.flush(&mut write);
        }
    }
    coalescer.flush(&mut write);

    // Stable sorts: what the host sees of each flow is what the peer sent, in its order.
    let mut packets = packets;
    packets.sort_by_key(|packet| flow_of(packet));
    seen.sort_by_key(|packet| flow_of(packet));
    assert_eq!(seen, packets);
}

/// The next packet of a flow: TCP or UDP, over IPv4 or IPv6. Its checksums are right.
fn packet_of(flow: u8, sequence: u32, ident: u16, size: usize) -> Vec<u8> {
    let upper_len = if flow & 2 == 0 { 20 + size } else { 8 + size };
    let upper = if flow & 2 == 0 {
        [&[0, 1, 0, 2][..], &sequence.to_be_bytes(), &[0, 0, 0, 1, 0x50, 0x10, 9, 9, 0, 0, 0, 0]]
            .concat()
    } else {
        [&[0, 1, 0, 2][..], &(upper_len as u16).to_be_bytes(), &[0, 0]].concat()
    };
    let protocol = if flow & 2 == 0 { 6 } else { 17 };
    let mut header = if flow & 1 == 0 {
        let mut header = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
        header[2..4].copy_from_slice(&(20 + upper_len as u16).to_be_bytes());
        header[4..6].copy_from_slice(&ident.to_be_bytes());
        header.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        header
    } else {
        let mut header = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
        header[4..6].copy_from_slice(&(upper_len as u16).to_be_bytes());
        header.extend((0..32).map(|at| if at % 16 == 0 { 0xfd } else { at }));
        header
    };
    header.extend(upper);
    header.extend((0..size).map(|at| at as u8 ^ sequence as u8));
    fill_checksums(&mut header);
    header
}

/// Makes checksums right wherever they would lie if the headers were what they were made as.
fn fill_checksums(packet: &mut [u8]) {
    let v4 = packet[0] >> 4 == 4;
    let (upper, addresses, protocol) =
        if v4 { (20, 12..20, packet[9]) } else { (40, 8..40, packet[6]) };
    let field = upper + if protocol == 6 { 16 } else { 6 };
    if packet.len() < field + 2 {
        return;
    }
    packet[field..field + 2].fill(0);
    let pseudo_header = [sum(&packet[addresses]), protocol.into(), (packet.len() - upper) as u16];
    let whole = combine(&[combine(&pseudo_header), sum(&packet[upper..])]);
    let checksum_of = if protocol == 6 { !whole } else { never_zero(!whole) };
    packet[field..field + 2].copy_from_slice(&checksum_of.to_be_bytes());
    if v4 {
        packet[10..12].fill(0);
        let header = checksum(&packet[..20]);
        packet[10..12].copy_from_slice(&header.to_be_bytes());
    }
}

/// What must stay in order: version, addresses, protocol, ports.
fn flow_of(packet: &[u8]) -> Vec<u8> {
    match packet[0] >> 4 {
        4 => [&packet[12..24.min(packet.len())], &[4, packet[9]]].concat(),
        6 => [&packet[8..44.min(packet.len())], &[6, packet[6]]].concat(),
        _ => Vec::new(),
    }
}

/// Something like what the check called `name` expects, to be spoilt.
pub(super) fn sample(name: &str, seed: u8) -> Vec<u8> {
    if name == "coalesce" {
        let step = |at: u8| [at & 3, if at & 16 == 0 { 100 } else { seed }, seed, 0];
        return (0..60).flat_map(step).collect();
    }
    let flow = seed % 4;
    let (kind, start) = (if flow & 2 == 0 { flow } else { 2 }, if flow & 1 == 0 { 20 } else { 40 });
    let offset = if flow & 2 == 0 { 16 } else { 6 };
    let offload = [kind, 0, seed, start, offset, seed & 4];
    [&offload[..], &packet_of(flow, 1, 1, 1000)].concat()
}
