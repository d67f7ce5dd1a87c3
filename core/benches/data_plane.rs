//! What the data plane costs: `cargo bench -p simplevpn-core`; a part of it: `-- aead`, `offloads`,
//! `peers`, `sizes`.
//!
//! Everything that is compared runs in turns, round by round, on one machine in one run; printed
//! are the median and, in brackets, the least and the most of all rounds. The AEAD alone does the
//! same bytes (padding and trailer included) in the same rounds. Absolute figures drift with the
//! machine's clock and neighbours; ratios of medians hold.

#![allow(clippy::unwrap_used)] // nothing to measure then

use std::hint::black_box;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant as Clock;

use managed::ManagedSlice;
use simplevpn_core::checksum::{pseudo_header_v4, sum};
use simplevpn_core::coalesce::{Coalescer, MAX_LEN, Run};
use simplevpn_core::crypto::{Aead, Aes128Gcm16, Aes256Gcm16, ChaCha20Poly1305, Cipher};
use simplevpn_core::esp::{OutboundSequence, ReplayWindow, window_storage};
use simplevpn_core::offload::{Gso, Offload, PartialChecksum};
use simplevpn_core::opener::InboundSlot;
use simplevpn_core::pmtu::sealed_len;
use simplevpn_core::sad::{InboundSa, OutboundSa, SaSlot, Sad, SpiSlot};
use simplevpn_core::sealer::OutboundSlot;
use simplevpn_core::segment::Segments;
use simplevpn_core::spd::SpdSlot;
use simplevpn_core::{
    HEADROOM, InboundPeer, Instant, Offset, Opener, OutboundPeer, PacketBuf, Path, PeerId, Sealed,
    Sealer, Selectors, Spd, TAILROOM,
};
use smoltcp::wire::{IpAddress, IpCidr, IpProtocol, Ipv4Packet, TcpPacket, UdpPacket};

/// Packets in one batch: few enough to stay in the first-level cache with their state.
const BATCH: usize = 16;
const ROUNDS: usize = 31;
const WINDOW: u32 = 2048;
const OFFSET: Offset = Offset::new(0x0010_0000, 0);

/// What a cipher needs to take part.
trait Suite: Aead + Sized + 'static {
    const CIPHER: Cipher;
    fn with_key(key: &[u8]) -> Self;
}

macro_rules! suites {
    ($($name:ident,)*) => {$(
        impl Suite for $name {
            const CIPHER: Cipher = Cipher::$name;
            fn with_key(key: &[u8]) -> Self {
                $name::new(key).unwrap()
            }
        }
    )*};
}

suites! { ChaCha20Poly1305, Aes128Gcm16, Aes256Gcm16, }

fn key<A: Suite>(peer: u32) -> A {
    let mut key = vec![7; A::CIPHER.key_len()];
    key[..4].copy_from_slice(&peer.to_be_bytes());
    A::with_key(&key)
}

/// `peers` peers, each with an SA in both directions, that talk to us: what we seal to a peer comes
/// back as if it had sealed it. Peer n has 10.x.y.0/24 in wire space.
struct Setup<A: Suite> {
    sealer: Sealer<'static, A>,
    opener: Opener<'static, A>,
    offset: Offset,
    alone: A,
}

const PATH: Path = Path::Esp {
    local: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    remote: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
};

/// A host behind a peer, in wire space.
fn host(peer: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0000 + (peer << 8) + 9)
}

fn in_host_space(offset: Offset, address: Ipv4Addr) -> Ipv4Addr {
    match offset.to_host(address.into()) {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => unreachable!(),
    }
}

/// `count` empty slots.
fn lent<T>(count: usize) -> ManagedSlice<'static, Option<T>> {
    ManagedSlice::Borrowed((0..count).map(|_| None).collect::<Vec<_>>().leak())
}

impl<A: Suite> Setup<A> {
    fn new(peers: u32, offset: Offset) -> Setup<A> {
        let count = peers as usize;
        let sad = Sad::new(lent(count), lent(2));
        let mut setup = Setup {
            sealer: Sealer::new(Spd::new(lent(2 * count)), lent(count)),
            opener: Opener::new(sad, Spd::new(lent(2 * count)), lent(count)),
            offset,
            alone: key(0),
        };
        (0..peers).for_each(|peer| setup.add(peer));
        setup
    }

    fn add(&mut self, peer: u32) {
        let id = PeerId(peer);
        let prefix = in_host_space(self.offset, host(peer));
        let prefix = IpCidr::new(IpAddress::Ipv4(prefix), 24);
        let spi = self.opener.allocate_spi(peer.wrapping_mul(0x9e37_79b9)).unwrap();
        self.sealer.insert_peer(id, OutboundPeer::new(self.offset, Selectors::ANY)).unwrap();
        self.sealer.insert_policy(&prefix, id).unwrap();
        self.sealer.set_path(id, Some(PATH));
        let sequence = OutboundSequence::new(true);
        self.sealer.install(
            id,
            OutboundSa { spi, key: key(peer), salt: [9; 4].into(), sequence },
            0,
        );
        self.opener.insert_peer(id, InboundPeer::new(self.offset, Selectors::ANY)).unwrap();
        self.opener.insert_policy(&prefix, id).unwrap();
        let blocks = vec![0; window_storage(WINDOW)].leak();
        let window = ReplayWindow::new(ManagedSlice::Borrowed(blocks)).unwrap();
        let sa =
            InboundSa { spi, key: key(peer), salt: [9; 4].into(), esn: true, window, peer: id };
        self.opener.install(sa).unwrap();
    }

    /// A UDP packet of `len` bytes in wire space whose both ends lie behind `peer`: so it passes the
    /// selectors in both directions.
    fn packet(&self, peer: u32, len: usize) -> Vec<u8> {
        let mut bytes = vec![0x5a; len];
        let (source, destination) = (host(peer), in_host_space(self.offset, host(peer)));
        let mut ip = Ipv4Packet::new_unchecked(&mut bytes);
        ip.set_version(4);
        ip.set_header_len(20);
        ip.set_dscp(0);
        ip.set_ecn(0);
        ip.set_total_len(len as u16);
        ip.clear_flags();
        ip.set_dont_frag(true);
        ip.set_frag_offset(0);
        ip.set_next_header(IpProtocol::Udp);
        ip.set_src_addr(source);
        ip.set_dst_addr(destination);
        ip.fill_checksum();
        let mut udp = UdpPacket::new_unchecked(ip.payload_mut());
        udp.set_len(len as u16 - 20);
        udp.fill_checksum(&source.into(), &destination.into());
        bytes
    }
}

/// Nanoseconds per packet in one round.
#[derive(Clone, Copy)]
struct Cost {
    seal: f64,
    open: f64,
}

impl Cost {
    fn sum(self) -> f64 {
        self.seal + self.open
    }
}

/// One batch of packets where they are sealed and opened.
struct Batch(Vec<Vec<u8>>);

/// Where the ESP packet begins whose inner packet lies at [`HEADROOM`].
const SEALED_AT: usize = HEADROOM - 16;

impl Batch {
    fn new() -> Batch {
        Batch(vec![vec![0; HEADROOM + 2048 + TAILROOM]; BATCH])
    }

    /// Nanoseconds per packet of doing `work` with each.
    fn time(&mut self, mut work: impl FnMut(&mut [u8])) -> f64 {
        let begin = Clock::now();
        self.0.iter_mut().for_each(|bytes| work(black_box(bytes)));
        begin.elapsed().as_nanos() as f64 / BATCH as f64
    }
}

/// The average of `batches` runs.
fn average(batches: usize, mut run: impl FnMut() -> Cost) -> Cost {
    let costs = Vec::from_iter((0..batches).map(|_| run()));
    let mean = |part: fn(&Cost) -> f64| costs.iter().map(part).sum::<f64>() / batches as f64;
    Cost { seal: mean(|cost| cost.seal), open: mean(|cost| cost.open) }
}

/// The AEAD on the bytes that a packet of `len` bytes has when it is padded.
fn alone<A: Suite>(key: &A, batch: &mut Batch, len: usize) -> Cost {
    let text = HEADROOM..HEADROOM + sealed_len(len) - 32;
    let (mut nonce, mut icvs) = ([9; 12], Vec::with_capacity(BATCH));
    let seal = batch.time(|bytes| {
        nonce[11] += 1;
        icvs.push(key.seal(&nonce, &[3; 12], &mut bytes[text.clone()]));
    });
    nonce = [9; 12];
    let mut icvs = icvs.iter();
    let open = batch.time(|bytes| {
        nonce[11] += 1;
        let icv = icvs.next().unwrap();
        key.open(&nonce, &[3; 12], &mut bytes[text.clone()], icv).unwrap();
    });
    Cost { seal, open }
}

impl<A: Suite> Setup<A> {
    /// One batch of packets of `len` bytes, to a peer that `pick` chooses for each.
    fn round_trip(&mut self, batch: &mut Batch, len: usize, mut pick: impl FnMut() -> u32) -> Cost {
        for bytes in &mut batch.0 {
            bytes[HEADROOM..][..len].copy_from_slice(&self.packet(pick(), len));
        }
        let now = Instant::from_millis(1);
        let seal = batch.time(|bytes| {
            let mut packet = PacketBuf::new(bytes, HEADROOM, len).unwrap();
            let sealed = self.sealer.seal(now, &mut packet);
            assert!(matches!(sealed, Ok(Sealed::Transmit(..))), "{sealed:?}");
        });
        let open = batch.time(|bytes| {
            let mut packet = PacketBuf::new(bytes, SEALED_AT, sealed_len(len)).unwrap();
            self.opener.open(now, &PATH, 0, &mut packet).unwrap();
        });
        while self.opener.poll_event().is_some() {}
        Cost { seal, open }
    }
}

/// Median, least and most of one figure of all rounds.
fn spread<T>(rounds: &[T], figure: impl Fn(&T) -> f64) -> [f64; 3] {
    let mut figures = Vec::from_iter(rounds.iter().map(figure));
    figures.sort_by(f64::total_cmp);
    [figures[figures.len() / 2], figures[0], figures[figures.len() - 1]]
}

fn nanoseconds<T>(rounds: &[T], figure: impl Fn(&T) -> f64) -> String {
    let [median, least, most] = spread(rounds, figure);
    format!("{:22}", format!("{median:5.0} [{least:.0} - {most:.0}]"))
}

fn percent<T>(rounds: &[T], ratio: impl Fn(&T) -> f64) -> String {
    let [median, least, most] = spread(rounds, |round| (ratio(round) - 1.0) * 100.0);
    format!("{median:+5.1} % [{least:+.1} - {most:+.1}]")
}

fn beside_the_aead<A: Suite>() {
    let batch = &mut Batch::new();
    let mut plain = Setup::<A>::new(1, Offset::default());
    let mut offset = Setup::<A>::new(1, OFFSET);
    for len in [64, 512, 1400] {
        let rounds = Vec::from_iter((0..ROUNDS).map(|_| {
            [
                average(16, || alone(&plain.alone, batch, len)),
                average(16, || plain.round_trip(batch, len, || 0)),
                average(16, || offset.round_trip(batch, len, || 0)),
            ]
        }));
        for (at, name) in ["AEAD alone", "tunnel", "tunnel, offset"].iter().enumerate() {
            let beside = if at == 0 {
                String::new()
            } else {
                percent(&rounds, |round| round[at].sum() / round[0].sum())
            };
            println!(
                "{:17} {len:4} {name:15} {} {} {beside}",
                A::CIPHER.name(),
                nanoseconds(&rounds, |round| round[at].seal),
                nanoseconds(&rounds, |round| round[at].open),
            );
        }
    }
}

/// A stride that visits all peers of a multiple of ten in an order no prefetcher guesses.
const STRIDE: u32 = 7919;

fn many_peers<A: Suite>() {
    let batch = &mut Batch::new();
    let mut setups = [1, 1000, 10_000].map(|peers| (peers, Setup::<A>::new(peers, OFFSET)));
    let cases = [(0, false), (1, false), (1, true), (2, false), (2, true)];
    let mut at = 0u32;
    for len in [64, 1400] {
        let rounds = Vec::from_iter((0..ROUNDS).map(|_| {
            cases.map(|(setup, all)| {
                let (peers, setup) = &mut setups[setup];
                let mut pick = || {
                    at = at.wrapping_add(1);
                    if all { at.wrapping_mul(STRIDE) % *peers } else { *peers / 2 }
                };
                average(64, || setup.round_trip(batch, len, &mut pick))
            })
        }));
        for (at, (setup, all)) in cases.iter().enumerate() {
            let traffic = if *all { "to all" } else { "to one" };
            println!(
                "{:17} {len:4} {:6} {traffic}  {} {} {}",
                A::CIPHER.name(),
                setups[*setup].0,
                nanoseconds(&rounds, |round| round[at].seal),
                nanoseconds(&rounds, |round| round[at].open),
                percent(&rounds, |round| round[at].sum() / round[0].sum()),
            );
        }
    }
}

/// The payload of each segment: with 52 bytes of headers, packets of 1400 bytes.
const SEGMENT: usize = 1348;
/// Segments in a super-packet: as many as an IP packet has room for.
const SEGMENTS: usize = (65_535 - 52) / SEGMENT;

/// A TCP super-packet over IPv4 with timestamps, as the kernel writes it, and what it says of it.
fn super_packet(source: Ipv4Addr) -> (Vec<u8>, Offload) {
    let mut bytes = vec![0x5a; 52 + SEGMENTS * SEGMENT];
    let destination = Ipv4Addr::new(10, 0, 0, 9);
    let len = bytes.len() as u16;
    let mut ip = Ipv4Packet::new_unchecked(&mut bytes);
    ip.set_version(4);
    ip.set_header_len(20);
    ip.set_total_len(len);
    ip.set_frag_offset(0);
    ip.clear_flags();
    ip.set_dont_frag(true);
    ip.set_next_header(IpProtocol::Tcp);
    ip.set_src_addr(source);
    ip.set_dst_addr(destination);
    ip.fill_checksum();
    let mut tcp = TcpPacket::new_unchecked(ip.payload_mut());
    tcp.clear_flags();
    tcp.set_ack(true);
    tcp.set_header_len(32);
    let sum = pseudo_header_v4(&source, &destination, IpProtocol::Tcp, u32::from(len) - 20);
    tcp.set_checksum(sum);
    let offload = Offload {
        gso: Some(Gso::TcpV4),
        segment_len: SEGMENT as u16,
        checksum: Some(PartialChecksum { start: 20, offset: 16 }),
        ..Offload::default()
    };
    (bytes, offload)
}

/// Nanoseconds per segment of doing `work` for each of `count`.
fn per_segment(count: usize, mut work: impl FnMut()) -> f64 {
    let begin = Clock::now();
    (0..count / SEGMENTS).for_each(|_| work());
    begin.elapsed().as_nanos() as f64 / count as f64
}

/// Super-packets cut into slots, and the segments in them merged again: from one flow, or from four
/// that take turns. Beside them, what must be done with each byte at least: copying and summing it.
fn offloads() {
    const FLOWS: usize = 4;
    const COUNT: usize = 16 * SEGMENTS;
    let names = ["copy", "sum", "segment", "coalesce", "coalesce, 4 flows in turn"];
    let flows = Vec::from_iter((1..=FLOWS as u8).map(|n| super_packet([10, 0, 0, n].into())));
    let mut slots = vec![vec![0; 1400]; FLOWS * SEGMENTS];
    let runs = (0..FLOWS).map(|_| Run::new(ManagedSlice::Borrowed(vec![0; MAX_LEN].leak())));
    let runs = ManagedSlice::Borrowed(Vec::from_iter(runs).leak());
    let mut coalescer = Coalescer::new(runs, false);

    // Segment n of flow m lies in slot n * FLOWS + m.
    for (m, (bytes, offload)) in flows.iter().enumerate() {
        let mut segments = Segments::new(bytes, offload).unwrap();
        slots[m..].iter_mut().step_by(FLOWS).for_each(|slot| {
            assert_eq!(segments.next_into(slot), Ok(Some(1400)));
        });
        assert_eq!(segments.next_into(&mut []), Ok(None));
    }
    let mut merge = |slots: &[Vec<u8>], step| {
        let (mut written, mut len) = (0, 0);
        let mut write =
            |_: &Offload, bytes: &[u8]| (written, len) = (written + 1, len + bytes.len());
        slots.iter().step_by(step).for_each(|slot| coalescer.push(black_box(slot), &mut write));
        coalescer.flush(&mut write);
        assert_eq!((written, len), (FLOWS / step, FLOWS / step * flows[0].0.len()));
    };
    let (bytes, offload) = &flows[0];
    let mut room = vec![vec![0; 1400]; SEGMENTS];
    let rounds = Vec::from_iter((0..ROUNDS).map(|_| {
        [
            per_segment(COUNT, || {
                room.iter_mut().zip(bytes.chunks(1400)).for_each(|(room, chunk)| {
                    black_box(&mut room[..chunk.len()]).copy_from_slice(black_box(chunk));
                });
            }),
            per_segment(COUNT, || {
                bytes.chunks(1400).for_each(|chunk| {
                    black_box(sum(black_box(chunk)));
                });
            }),
            per_segment(COUNT, || {
                let mut segments = Segments::new(black_box(bytes), offload).unwrap();
                let written = room.iter_mut().map_while(|room| segments.next_into(room).unwrap());
                assert_eq!(black_box(written).count(), SEGMENTS);
            }),
            per_segment(COUNT, || merge(&slots, FLOWS)),
            per_segment(COUNT, || merge(&slots, 1)) / FLOWS as f64,
        ]
    }));
    for (at, name) in names.iter().enumerate() {
        println!("{name:26} {}", nanoseconds(&rounds, |round| round[at]));
    }
}

fn sizes<A: Suite>() {
    let [outbound, inbound, sa] =
        [size_of::<OutboundSlot<A>>(), size_of::<InboundSlot>(), size_of::<SaSlot<'_, A>>()];
    let window = window_storage(WINDOW) * size_of::<u32>();
    // A table holds half as many keys as it has slots, and each half of the tunnel has an SPD.
    let spd = 2 * 2 * size_of::<SpdSlot>();
    let total = outbound + inbound + sa + window + spd;
    println!(
        "{:17} {total:5} = outbound {outbound} + inbound {inbound} + inbound SA {sa} \
         + window {window} + policies {spd} (foreign SPIs: {} more)",
        A::CIPHER.name(),
        2 * size_of::<SpiSlot>(),
    );
}

fn main() {
    let wanted = Vec::from_iter(std::env::args().skip(1).filter(|word| !word.starts_with('-')));
    let wants = |part: &str| wanted.is_empty() || wanted.iter().any(|word| word == part);
    if wants("aead") {
        println!("\nns per packet: sealed, opened; sealed and opened beside the AEAD alone\n");
        beside_the_aead::<ChaCha20Poly1305>();
        beside_the_aead::<Aes128Gcm16>();
        beside_the_aead::<Aes256Gcm16>();
    }
    if wants("offloads") {
        println!("\nns per 1400-byte segment of TCP super-packets, {SEGMENTS} segments each\n");
        offloads();
    }
    if wants("peers") {
        println!(
            "\nns per packet with so many peers, traffic to one or all of them, with an offset:\n\
             sealed, opened; sealed and opened beside one peer alone. Traffic to one peer shows\n\
             what the look-ups cost. Traffic to all, a packet each in turn, also shows what it\n\
             costs to fetch each peer's keys and window from memory: no two packets share a cache\n\
             line.\n"
        );
        many_peers::<ChaCha20Poly1305>();
        many_peers::<Aes256Gcm16>();
    }
    if wants("sizes") {
        println!("\nbytes of state per peer, window {WINDOW}, one prefix, outside a rekey:\n");
        sizes::<ChaCha20Poly1305>();
        sizes::<Aes128Gcm16>();
        sizes::<Aes256Gcm16>();
    }
}
