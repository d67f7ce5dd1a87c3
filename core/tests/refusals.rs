//! A packet that has to be refused increments its own counter and does nothing else.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::net::{IpAddr, Ipv4Addr};

use managed::ManagedSlice;
use simplevpn_core::crypto::{AnyAead, Cipher};
use simplevpn_core::esp::{OutboundSequence, ReplayWindow, seal, window_storage};
use simplevpn_core::sad::{InboundSa, OutboundSa, Sad};
use simplevpn_core::wire::esp::NextHeader;
use simplevpn_core::{
    Discard, Discards, HEADROOM, InboundPeer, Instant, Offset, Opener, PacketBuf, Path, PeerId,
    Selectors, Spd, TAILROOM, Traffic,
};

const SPI: u32 = 0x1000;
const PEER: PeerId = PeerId(0);
const US: [u8; 4] = [192, 168, 1, 7];
const THEM: [u8; 4] = [10, 1, 0, 1];

fn path(last: u8) -> Path {
    let at = |last| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last));
    Path::Esp { local: at(1), remote: at(last) }
}

fn key() -> AnyAead {
    AnyAead::new(Cipher::ChaCha20Poly1305, &[5; 32]).unwrap()
}

fn lent<T>(count: usize) -> ManagedSlice<'static, Option<T>> {
    ManagedSlice::Borrowed(Vec::from_iter((0..count).map(|_| None)).leak())
}

/// Takes 10.1.0.0/16 to 192.168.1.0/24, window 64.
fn opener() -> Opener<'static, AnyAead> {
    let mut opener = Opener::new(Sad::new(lent(1), lent(2)), Spd::new(lent(2)), lent(1));
    let local = Selectors::new(&["192.168.1.0/24".parse().unwrap()]).unwrap();
    opener.insert_peer(PEER, InboundPeer::new(Offset::default(), local)).unwrap();
    opener.insert_policy(&"10.1.0.0/16".parse().unwrap(), PEER).unwrap();
    let blocks = ManagedSlice::Borrowed(vec![0; window_storage(64)].leak());
    let window = ReplayWindow::new(blocks).unwrap();
    let sa =
        InboundSa { spi: SPI, key: key(), salt: [0; 4].into(), esn: false, window, peer: PEER };
    opener.install(sa).unwrap();
    opener
}

fn sealed(number: u64, source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
    let mut inner = [0; 20];
    inner[..4].copy_from_slice(&[0x45, 0, 0, 20]);
    inner[12..16].copy_from_slice(&source);
    inner[16..].copy_from_slice(&destination);
    let sequence = OutboundSequence::reserved(false, number, number);
    let mut sa = OutboundSa { spi: SPI, key: key(), salt: [0; 4].into(), sequence };
    let mut bytes = [&[0; HEADROOM][..], &inner, &[0; TAILROOM]].concat();
    let mut packet = PacketBuf::new(&mut bytes, HEADROOM, inner.len()).unwrap();
    seal(&mut sa, &mut packet, NextHeader::Ipv4).unwrap();
    packet.as_slice().to_vec()
}

fn open(opener: &mut Opener<'_, AnyAead>, from: Path, bytes: &[u8]) -> Result<PeerId, Discard> {
    let mut bytes = bytes.to_vec();
    let len = bytes.len();
    let mut packet = PacketBuf::new(&mut bytes, 0, len).unwrap();
    opener.open(Instant::from_millis(1), &from, 0, &mut packet)
}

/// All that a packet can change.
fn state(opener: &Opener<'_, AnyAead>) -> (Traffic, Option<Path>, u64) {
    let peer = opener.peer(PEER).unwrap();
    (*peer.traffic(), peer.path().copied(), opener.sa(SPI).unwrap().window.top())
}

#[test]
fn each_refusal_has_its_counter() {
    let mut opener = opener();
    for number in [100, 110] {
        assert_eq!(open(&mut opener, path(2), &sealed(number, THEM, US)), Ok(PEER));
    }
    while opener.poll_event().is_some() {}
    let before = state(&opener);

    let good = sealed(111, THEM, US);
    let with = |at: usize, bits: u8| {
        let mut bytes = good.clone();
        bytes[at] ^= bits;
        bytes
    };
    let last = good.len() - 1;
    let forged = [
        ("too short for a header", good[..7].to_vec(), Discard::Malformed),
        ("too short for a trailer", good[..33].to_vec(), Discard::Malformed),
        ("truncated", good[..last].to_vec(), Discard::BadIcv),
        ("of another SPI", with(3, 1), Discard::UnknownSpi),
        ("with another sequence number", with(7, 0x80), Discard::BadIcv),
        ("with another IV", with(15, 1), Discard::BadIcv),
        ("with another text", with(16, 1), Discard::BadIcv),
        ("with another ICV", with(last, 0x80), Discard::BadIcv),
        ("replayed", sealed(100, THEM, US), Discard::Replayed),
        ("left of the window", sealed(46, THEM, US), Discard::TooOld),
    ];
    let mut expected = Discards::default();
    for (name, bytes, why) in forged {
        assert_eq!(open(&mut opener, path(3), &bytes), Err(why), "{name}");
        expected.count(why);
        assert_eq!(*opener.discards(), expected, "{name}");
        assert_eq!(state(&opener), before, "{name}");
        assert_eq!(opener.poll_event(), None, "{name}");
    }
    assert_eq!(open(&mut opener, path(2), &good), Ok(PEER), "it was good all along");
}

#[test]
fn what_lies_outside_the_selectors_is_received_but_not_delivered() {
    let mut opener = opener();
    let mut expected = Discards::default();
    for (number, source, destination) in
        [(1, [10, 2, 0, 1], US), (2, THEM, [192, 168, 2, 7]), (3, US, THEM)]
    {
        let bytes = sealed(number, source, destination);
        assert_eq!(open(&mut opener, path(2), &bytes), Err(Discard::OutsideSelector));
        expected.count(Discard::OutsideSelector);
        assert_eq!(*opener.discards(), expected);
        let (traffic, _, top) = state(&opener);
        assert_eq!((traffic.packets, traffic.bytes, top), (0, 0, number));
        assert_eq!(open(&mut opener, path(2), &bytes), Err(Discard::Replayed));
        expected.count(Discard::Replayed);
    }
}
