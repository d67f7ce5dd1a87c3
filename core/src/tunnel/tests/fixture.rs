//! Tunnels, packets and a peer that can do wrong, for the tests beside.

use core::net::IpAddr;
use std::vec;
use std::vec::Vec;

use managed::ManagedSlice;
use smoltcp::wire::IpCidr;

use crate::crypto::ChaCha20Poly1305;
use crate::esp::{self, OutboundSequence, ReplayWindow, window_storage};
use crate::opener::InboundPeer;
use crate::packet::TAILROOM;
use crate::sad::{InboundSa, OutboundSa, Sad};
use crate::sealer::OutboundPeer;
use crate::selectors::Selectors;
use crate::spd::Spd;
use crate::wire::esp::NextHeader;
use crate::wire::samples;
use crate::{
    Discard, Discards, Emit, HEADROOM, Instant, Offset, Opener, PacketBuf, Path, PeerId, Sealer,
    Transmit,
};

pub(super) type Tunnel = crate::Tunnel<'static, ChaCha20Poly1305>;

pub(super) const NOW: Instant = Instant::from_millis(1000);
pub(super) const A: PeerId = PeerId(0);
pub(super) const B: PeerId = PeerId(1);
pub(super) const WINDOW: u32 = 64;

fn storage<T>(count: usize) -> ManagedSlice<'static, Option<T>> {
    ManagedSlice::Borrowed(Vec::from_iter((0..count).map(|_| None)).leak())
}

/// A tunnel without peers.
pub(super) fn tunnel() -> Tunnel {
    let sealer = Sealer::new(Spd::new(storage(64)), storage(32));
    let opener =
        Opener::new(Sad::new(storage(32), storage(64)), Spd::new(storage(64)), storage(32));
    crate::Tunnel::new(sealer, opener)
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn esp_path(local: &str, remote: &str) -> Path {
    Path::Esp { local: ip(local), remote: ip(remote) }
}

pub(super) fn udp_path(local: &str, remote: &str) -> Path {
    Path::Udp { local: (ip(local), 4500).into(), remote: (ip(remote), 4500).into() }
}

/// The path to peer `id`.
pub(super) fn path(id: PeerId) -> Path {
    esp_path("192.0.2.1", ["192.0.2.2", "192.0.2.3"][id.index() % 2])
}

/// SPIs of what `id` sends us, and of what we send it.
pub(super) fn spis(id: PeerId) -> (u32, u32) {
    (0x1000 + id.0, 0x2000 + id.0)
}

pub(super) fn key(spi: u32) -> ChaCha20Poly1305 {
    let key: Vec<u8> = spi.to_be_bytes().into_iter().cycle().take(32).collect();
    ChaCha20Poly1305::new(&key).unwrap()
}

pub(super) fn outbound_sa(spi: u32, first: u64, limit: u64) -> OutboundSa<ChaCha20Poly1305> {
    let sequence = OutboundSequence::reserved(false, first, limit);
    OutboundSa { spi, key: key(spi), salt: (*b"salt").into(), sequence }
}

pub(super) fn inbound_sa(spi: u32, peer: PeerId) -> InboundSa<'static, ChaCha20Poly1305> {
    let blocks = vec![0; window_storage(WINDOW)].leak();
    let window = ReplayWindow::new(ManagedSlice::Borrowed(blocks)).unwrap();
    InboundSa { spi, key: key(spi), salt: (*b"salt").into(), esn: false, window, peer }
}

/// Adds a peer with `theirs` (wire space) behind it, `ours` on our side, and a pair of SAs.
pub(super) fn add_peer(
    tunnel: &mut Tunnel,
    id: PeerId,
    theirs: &[&str],
    ours: &[&str],
    offset: Offset,
) {
    let ours: Vec<IpCidr> = ours.iter().map(|prefix| prefix.parse().unwrap()).collect();
    let local = || Selectors::lent(ours.clone().leak().into());
    tunnel.sealer.insert_peer(id, OutboundPeer::new(offset, local())).unwrap();
    tunnel.opener.insert_peer(id, InboundPeer::new(offset, local())).unwrap();
    for prefix in theirs {
        let wire: IpCidr = prefix.parse().unwrap();
        let host = IpCidr::new(offset.to_host(wire.address().into()).into(), wire.prefix_len());
        tunnel.sealer.insert_policy(&host, id).unwrap();
        tunnel.opener.insert_policy(&host, id).unwrap();
    }
    let (inbound, outbound) = spis(id);
    tunnel.sealer.install(id, outbound_sa(outbound, 1, u64::MAX), 0);
    tunnel.opener.install(inbound_sa(inbound, id)).unwrap();
    tunnel.sealer.set_path(id, Some(path(id)));
}

/// What the peer seals: `payload`, whatever it is, under `sequence`.
pub(super) fn sealed(spi: u32, sequence: u64, payload: &[u8], next_header: NextHeader) -> Vec<u8> {
    let mut bytes = [&[0; HEADROOM], payload, &[0; TAILROOM]].concat();
    let mut packet = PacketBuf::new(&mut bytes, HEADROOM, payload.len()).unwrap();
    esp::seal(&mut outbound_sa(spi, sequence, sequence), &mut packet, next_header).unwrap();
    packet.as_slice().to_vec()
}

/// What comes out of the tunnel for `esp` with this outer traffic class.
pub(super) fn opened_with(
    tunnel: &mut Tunnel,
    from: &Path,
    traffic_class: u8,
    esp: &[u8],
) -> Result<(PeerId, Vec<u8>), Discard> {
    let mut bytes = esp.to_vec();
    let mut packet = PacketBuf::new(&mut bytes, 0, esp.len()).unwrap();
    let id = tunnel.inbound(NOW, from, traffic_class, &mut packet)?;
    Ok((id, packet.as_slice().to_vec()))
}

pub(super) fn opened(
    tunnel: &mut Tunnel,
    from: &Path,
    esp: &[u8],
) -> Result<(PeerId, Vec<u8>), Discard> {
    opened_with(tunnel, from, 0, esp)
}

/// What a tunnel made of a packet from the host.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) wire: Vec<(Transmit, Vec<u8>)>,
    pub(super) host: Vec<Vec<u8>>,
}

pub(super) fn sent_at(
    tunnel: &mut Tunnel,
    now: Instant,
    packet: &[u8],
) -> (Result<(), Discard>, Outcome) {
    let mut bytes = [&[0; HEADROOM], packet, &[0; TAILROOM]].concat();
    let mut packet = PacketBuf::new(&mut bytes, HEADROOM, packet.len()).unwrap();
    let mut outcome = Outcome::default();
    let result = tunnel.outbound(now, &mut packet, &mut [0; 2000], |emit| match emit {
        Emit::Wire(transmit, bytes) => outcome.wire.push((transmit, bytes.to_vec())),
        Emit::Host(bytes) => outcome.host.push(bytes.to_vec()),
    });
    (result, outcome)
}

pub(super) fn sent(tunnel: &mut Tunnel, packet: &[u8]) -> (Result<(), Discard>, Outcome) {
    sent_at(tunnel, NOW, packet)
}

/// An IP packet of either version with these addresses.
pub(super) fn packet(source: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
    let mut packet;
    match (ip(source), ip(destination)) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            packet = samples::ipv4(253, payload);
            samples::edit_ipv4(&mut packet, |header| {
                header.set_src_addr(source);
                header.set_dst_addr(destination);
            });
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            packet = samples::ipv6(253, payload);
            let mut header = smoltcp::wire::Ipv6Packet::new_unchecked(&mut packet);
            header.set_src_addr(source);
            header.set_dst_addr(destination);
        }
        mixed => panic!("{mixed:?}"),
    }
    packet
}

pub(super) fn source(packet: &[u8]) -> IpAddr {
    crate::inner::Inner::parse(packet).unwrap().source
}

pub(super) fn destination(packet: &[u8]) -> IpAddr {
    crate::inner::Inner::parse(packet).unwrap().destination
}

/// Only this counter went up by this much.
#[track_caller]
pub(super) fn assert_counted(before: &Discards, after: &Discards, why: Discard, times: u64) {
    for ((reason, before), (_, after)) in before.iter().zip(after.iter()) {
        let expected = if reason == why { times } else { 0 };
        assert_eq!(after - before, expected, "counter {}", reason.name());
    }
}
