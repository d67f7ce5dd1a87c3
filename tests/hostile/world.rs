//! A tunnel with three unlike peers, and the far ends of their SAs.
//!
//! ```text
//! host 192.168.1.7, fd01::7 - tunnel under attack ~ peers n: 10.n.0.0/16, fd00:n::/32 (wire space)
//! ```
//! Peer 0: ChaCha20-Poly1305, ESN. Peer 1: AES-128-GCM, 32-bit numbers, an offset, our selectors
//! narrowed, UDP over IPv6. Peer 2: AES-256-GCM, ESN, an offset for IPv4 only, an endpoint that
//! lies in its own prefix, and an SPI of its own choice.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use managed::ManagedSlice;
use simplevpn_core::crypto::{Aead, AnyAead, Cipher};
use simplevpn_core::esp::{OutboundSequence, ReplayWindow, window_storage};
use simplevpn_core::sad::{InboundSa, OutboundSa, Sad};
use simplevpn_core::{
    HEADROOM, InboundPeer, Instant, Offset, Opener, OutboundPeer, PacketBuf, Path, PeerId, Sealer,
    Selectors, Spd, TAILROOM, Tunnel,
};
use smoltcp::wire::IpCidr;

pub(super) const PEERS: usize = 3;
/// 0.100.0.0, so that 10.n becomes 10.(100 + n).
const OFFSET_V4: u32 = 100 << 16;
/// fd00:n:: becomes fd00:n:5::
const OFFSET_V6: u128 = 5 << 80;
const SALT: [u8; 4] = [1, 2, 3, 4];
const WINDOW: u32 = 64;

/// One family of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// Our host.
pub(super) fn us(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(192, 168, 1, 7).into(),
        Family::V6 => Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 7).into(),
    }
}

/// A host behind a peer, in wire space.
pub(super) fn them(peer: usize, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, peer as u8, 0, 1).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, peer as u16, 0, 0, 0, 0, 0, 1).into(),
    }
}

pub(super) fn offset(peer: usize) -> Offset {
    match peer {
        0 => Offset::default(),
        1 => Offset::new(OFFSET_V4, OFFSET_V6),
        _ => Offset::new(OFFSET_V4, 0),
    }
}

/// What a peer has, in host space.
pub(super) fn prefixes(peer: usize) -> [IpCidr; 2] {
    [(Family::V4, 16), (Family::V6, 32)]
        .map(|(family, len)| IpCidr::new(offset(peer).to_host(them(peer, family)).into(), len))
}

/// Our own selectors towards a peer.
pub(super) fn local(peer: usize) -> Selectors<'static> {
    let prefixes = ["192.168.1.0/24", "fd01::/64"].map(|prefix| prefix.parse().unwrap());
    if peer == 1 { Selectors::new(&prefixes).unwrap() } else { Selectors::ANY }
}

/// Where a peer is.
pub(super) fn path(peer: usize) -> Path {
    let (v4, v6) = (Ipv4Addr::new(192, 0, 2, 1), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
    match peer {
        0 => Path::Esp { local: v4.into(), remote: Ipv4Addr::new(198, 51, 100, 1).into() },
        1 => Path::Udp { local: (v6, 4500).into(), remote: (v6, 4501).into() },
        _ => Path::Esp { local: v4.into(), remote: them(peer, Family::V4) },
    }
}

fn cipher(peer: usize) -> Cipher {
    Cipher::ALL[peer]
}

fn esn(peer: usize) -> bool {
    peer != 1
}

/// A key for one direction of a peer.
fn key(peer: usize, outbound: bool) -> AnyAead {
    let keymat = [peer as u8 * 2 + u8::from(outbound); 32];
    AnyAead::new(cipher(peer), &keymat[..cipher(peer).key_len()]).unwrap()
}

/// The far end of the SAs with one peer.
pub(super) struct Remote {
    /// What seals towards the tunnel: SPI, key and the last sequence number used.
    pub(super) spi: u32,
    key: AnyAead,
    esn: bool,
    pub(super) number: u64,
    /// What opens what the tunnel sealed.
    pub(super) inbound: InboundSa<'static, AnyAead>,
}

/// What a misbehaving peer may choose.
pub(super) struct Choices<'a> {
    pub(super) iv: [u8; 8],
    /// Behind the inner packet; the pad length is told as `pad_len`.
    pub(super) padding: &'a [u8],
    pub(super) pad_len: u8,
    pub(super) next_header: u8,
}

impl Remote {
    /// An authentic ESP packet under the next sequence number.
    pub(super) fn seal(&mut self, inner: &[u8], choices: &Choices<'_>) -> Vec<u8> {
        self.number += 1;
        let [spi, low] = [self.spi, self.number as u32].map(u32::to_be_bytes);
        let high = ((self.number >> 32) as u32).to_be_bytes();
        let aad = if self.esn { [spi, high, low].concat() } else { [spi, low].concat() };
        let nonce = [&SALT[..], &choices.iv].concat();
        let trailer = [choices.pad_len, choices.next_header];
        let mut text = [inner, choices.padding, &trailer].concat();
        let icv = self.key.seal(&nonce.try_into().unwrap(), &aad, &mut text);
        [&spi[..], &low, &choices.iv, &text, &icv].concat()
    }
}

fn lent<T>(count: usize) -> ManagedSlice<'static, Option<T>> {
    ManagedSlice::Borrowed(Vec::from_iter((0..count).map(|_| None)).leak())
}

fn window() -> ReplayWindow<'static> {
    let blocks = vec![0; window_storage(WINDOW)].leak();
    ReplayWindow::new(ManagedSlice::Borrowed(blocks)).unwrap()
}

/// The tunnel, its peers' far ends, and a clock.
pub(super) struct World {
    pub(super) tunnel: Tunnel<'static, AnyAead>,
    pub(super) remotes: [Remote; PEERS],
    pub(super) now: Instant,
    /// A packet with headroom and tailroom, and room for a fragment, if it is not too long.
    buffers: [Vec<u8>; 2],
}

impl World {
    pub(super) fn new() -> World {
        let opener = Opener::new(Sad::new(lent(8), lent(16)), Spd::new(lent(32)), lent(4));
        let sealer = Sealer::new(Spd::new(lent(32)), lent(4));
        let mut tunnel = Tunnel::new(sealer, opener);
        let remotes = std::array::from_fn(|peer| add_peer(&mut tunnel, peer));
        let buffers = [HEADROOM + 66_000 + TAILROOM, HEADROOM + 4000 + TAILROOM];
        World { tunnel, remotes, now: Instant::ZERO, buffers: buffers.map(|len| vec![0; len]) }
    }

    /// Lets `run` have a packet of these bytes, another buffer, and the tunnel.
    pub(super) fn with_packet<R>(
        &mut self,
        bytes: &[u8],
        run: impl FnOnce(&mut Tunnel<'static, AnyAead>, &mut PacketBuf<'_>, &mut [u8]) -> R,
    ) -> R {
        let [buffer, scratch] = &mut self.buffers;
        let bytes = &bytes[..bytes.len().min(66_000)];
        buffer[HEADROOM..][..bytes.len()].copy_from_slice(bytes);
        let mut packet = PacketBuf::new(buffer, HEADROOM, bytes.len()).unwrap();
        run(&mut self.tunnel, &mut packet, scratch)
    }

    /// A new inbound SA with `peer` in place of the one whose numbers are used up.
    pub(super) fn renew(&mut self, peer: usize, random: u32) {
        let remote = &mut self.remotes[peer];
        let mut sa = self.tunnel.opener.uninstall(remote.spi).unwrap();
        sa.window.resume(0);
        sa.spi = self.tunnel.opener.allocate_spi(random).unwrap();
        (remote.spi, remote.number) = (sa.spi, 0);
        self.tunnel.opener.install(sa).unwrap();
    }
}

fn add_peer(tunnel: &mut Tunnel<'static, AnyAead>, peer: usize) -> Remote {
    let id = PeerId(peer as u32);
    let Tunnel { sealer, opener, .. } = tunnel;
    sealer.insert_peer(id, OutboundPeer::new(offset(peer), local(peer))).unwrap();
    opener.insert_peer(id, InboundPeer::new(offset(peer), local(peer))).unwrap();
    for prefix in prefixes(peer) {
        sealer.insert_policy(&prefix, id).unwrap();
        opener.insert_policy(&prefix, id).unwrap();
    }
    sealer.set_path(id, Some(path(peer)));
    // The third is displaced: its SPI names the first one's slot.
    let spi = if peer == 2 { 0x9000 } else { opener.allocate_spi(0x1111_1111).unwrap() };
    let esn = esn(peer);
    let sa = |outbound| {
        let key = key(peer, outbound);
        InboundSa { spi, key, salt: SALT.into(), esn, window: window(), peer: id }
    };
    let sequence = OutboundSequence::new(esn);
    let outbound = OutboundSa { spi, key: key(peer, true), salt: SALT.into(), sequence };
    opener.install(sa(false)).unwrap();
    sealer.install(id, outbound, 0);
    Remote { spi, key: key(peer, false), esn, number: 0, inbound: sa(true) }
}
