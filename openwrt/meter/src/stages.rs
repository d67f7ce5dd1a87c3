//! `stages CIPHER STAGE COUNT ROUNDS` does one stage of a packet's path to COUNT packets of 1400
//! bytes, ROUNDS times, and prints the median of the nanoseconds that a packet took. Everything
//! else that it does is the same whatever COUNT is, so the instructions that two runs differ by are
//! those of the stage. `openwrt/stages` has emulators count them.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::time::Instant as Clock;

use managed::ManagedSlice;
use simplevpn::crypto::Key;
use simplevpn_core::checksum::{self, Checksum};
use simplevpn_core::crypto::{Aead, Cipher, ICV_LEN};
use simplevpn_core::esp::{self, OutboundSequence, ReplayWindow, window_storage};
use simplevpn_core::pmtu::sealed_len;
use simplevpn_core::sad::{InboundSa, OutboundSa, Sad};
use simplevpn_core::wire::esp::NextHeader;
use simplevpn_core::{
    HEADROOM, InboundPeer, Instant, Offset, Opener, OutboundPeer, PacketBuf, Path, PeerId, Sealed,
    Sealer, Selectors, Spd, TAILROOM,
};
use smoltcp::wire::{IpAddress, IpCidr, IpProtocol, Ipv4Packet, UdpPacket};

/// Packets in a round, at most.
const PACKETS: usize = 16;
/// Bytes of each.
const LEN: usize = 1400;
/// What the AEAD sees of it: padding and trailer too, but neither header, IV nor ICV.
const TEXT: std::ops::Range<usize> = HEADROOM..HEADROOM + sealed_len(LEN) - 32;
/// Where the ESP packet begins whose inner packet lies at [`HEADROOM`].
const SEALED_AT: usize = HEADROOM - 16;
/// Both ends of every packet in wire space, so that it passes the policies in both directions.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 9);
const OFFSET: Offset = Offset::new(0x0010_0000, 0);
const SPI: u32 = 0x1234_5678;
const PEER: PeerId = PeerId(0);
const PATH: Path = Path::Esp {
    local: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    remote: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
};

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    /// Whose a packet is.
    Spd,
    /// The offset on its destination, with its checksums.
    Offset,
    /// The whole checksum of a packet that came without.
    Checksum,
    /// Whether a sequence number is new, and noting it.
    Replay,
    /// The AEAD alone.
    AeadSeal,
    AeadOpen,
    /// ESP around it: what one SA does to a packet.
    EspSeal,
    EspOpen,
    /// A half of the tunnel: everything.
    Seal,
    Open,
}

const STAGES: [(&str, Stage); 10] = [
    ("spd", Stage::Spd),
    ("offset", Stage::Offset),
    ("checksum", Stage::Checksum),
    ("replay", Stage::Replay),
    ("aead-seal", Stage::AeadSeal),
    ("aead-open", Stage::AeadOpen),
    ("esp-seal", Stage::EspSeal),
    ("esp-open", Stage::EspOpen),
    ("seal", Stage::Seal),
    ("open", Stage::Open),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [cipher, stage, count, rounds] = arguments.as_slice() else { return usage() };
    let cipher = Cipher::ALL.into_iter().find(|known| known.name() == cipher);
    let stage = STAGES.into_iter().find(|(name, _)| name == stage).map(|(_, stage)| stage);
    let (Some(cipher), Some(stage), Ok(count), Ok(rounds)) =
        (cipher, stage, count.parse(), rounds.parse::<usize>())
    else {
        return usage();
    };
    if count > PACKETS || rounds == 0 {
        return usage();
    }
    let measured = Bench::new(cipher).and_then(|mut bench| {
        let mut figures = Vec::from_iter((0..rounds).map(|_| bench.round(stage, count)));
        figures.sort();
        figures.get(rounds / 2).copied().flatten()
    });
    match measured {
        Some(nanoseconds) => {
            println!("{}", nanoseconds / count.max(1) as u128);
            ExitCode::SUCCESS
        }
        None => {
            eprintln!("stages: a packet was not sealed or not opened");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    let names = STAGES.map(|(name, _)| name).join(", ");
    eprintln!("usage: stages CIPHER STAGE COUNT ROUNDS, with COUNT <= {PACKETS}; stages: {names}");
    ExitCode::from(2)
}

fn lent<T>(count: usize) -> ManagedSlice<'static, Option<T>> {
    ManagedSlice::Borrowed((0..count).map(|_| None).collect::<Vec<_>>().leak())
}

fn window() -> Option<ReplayWindow<'static>> {
    ReplayWindow::new(ManagedSlice::Borrowed(vec![0; window_storage(2048)].leak())).ok()
}

/// A tunnel to a peer who says to us what we say to it, and its parts once more.
struct Bench {
    sealer: Sealer<'static, Key>,
    opener: Opener<'static, Key>,
    spd: Spd<'static>,
    key: Key,
    outbound: OutboundSa<Key>,
    inbound: InboundSa<'static, Key>,
    window: ReplayWindow<'static>,
    sequence: u64,
    plain: Vec<u8>,
    packets: Vec<Vec<u8>>,
    icvs: Vec<[u8; ICV_LEN]>,
}

impl Bench {
    fn new(cipher: Cipher) -> Option<Bench> {
        let key = || Key::new(cipher, [7; 32].get(..cipher.key_len())?).ok();
        let salt = || [9; 4].into();
        let sequence = || OutboundSequence::new(true);
        let prefix = IpCidr::new(IpAddress::from(OFFSET.to_host(HOST.into())), 24);
        let mut sealer = Sealer::new(Spd::new(lent(2)), lent(1));
        let mut opener = Opener::new(Sad::new(lent(1), lent(2)), Spd::new(lent(2)), lent(1));
        let mut spd = Spd::new(lent(2));
        spd.insert(&prefix, PEER).ok()?;
        sealer.insert_peer(PEER, OutboundPeer::new(OFFSET, Selectors::ANY)).ok()?;
        sealer.insert_policy(&prefix, PEER).ok()?;
        sealer.set_path(PEER, Some(PATH));
        opener.insert_peer(PEER, InboundPeer::new(OFFSET, Selectors::ANY)).ok()?;
        opener.insert_policy(&prefix, PEER).ok()?;
        let outbound =
            || Some(OutboundSa { spi: SPI, key: key()?, salt: salt(), sequence: sequence() });
        let inbound = || {
            let (key, window) = (key()?, window()?);
            Some(InboundSa { spi: SPI, key, salt: salt(), esn: true, window, peer: PEER })
        };
        sealer.install(PEER, outbound()?, 0);
        opener.install(inbound()?).ok()?;
        Some(Bench {
            sealer,
            opener,
            spd,
            key: key()?,
            outbound: outbound()?,
            inbound: inbound()?,
            window: window()?,
            sequence: 0,
            plain: packet(),
            packets: vec![Vec::new(); PACKETS],
            icvs: vec![[0; ICV_LEN]; PACKETS],
        })
    }

    /// Nanoseconds that `stage` took with `count` packets; `None` if one was refused.
    fn round(&mut self, stage: Stage, count: usize) -> Option<u128> {
        let before = match stage {
            Stage::AeadOpen => Some(Stage::AeadSeal),
            Stage::EspOpen => Some(Stage::EspSeal),
            Stage::Open => Some(Stage::Seal),
            _ => None,
        };
        for at in 0..PACKETS {
            self.packets[at].clone_from(&self.plain);
            if let Some(before) = before {
                self.packet(before, at)?;
            }
        }
        let begin = Clock::now();
        for at in 0..count {
            self.packet(black_box(stage), at)?;
        }
        Some(begin.elapsed().as_nanos())
    }

    /// Does `stage` to one packet.
    fn packet(&mut self, stage: Stage, at: usize) -> Option<()> {
        let now = Instant::from_millis(1);
        let bytes = black_box(self.packets[at].as_mut_slice());
        let nonce = [at as u8; 12];
        match stage {
            Stage::Spd => {
                let host = black_box(OFFSET.to_host(HOST.into()));
                self.spd.lookup(host).map(|_| ())
            }
            Stage::Offset => {
                OFFSET.shift_destination(&mut bytes[HEADROOM..][..LEN], Checksum::Full).ok()
            }
            Stage::Checksum => checksum::complete(&mut bytes[HEADROOM..][..LEN], 20, 6).ok(),
            Stage::Replay => {
                self.sequence += 1;
                self.window.check(black_box(self.sequence)).ok()?;
                self.window.mark(self.sequence);
                Some(())
            }
            Stage::AeadSeal => {
                self.icvs[at] = self.key.seal(&nonce, &nonce, &mut bytes[TEXT]);
                Some(())
            }
            Stage::AeadOpen => self.key.open(&nonce, &nonce, &mut bytes[TEXT], &self.icvs[at]).ok(),
            Stage::EspSeal => {
                let mut packet = PacketBuf::new(bytes, HEADROOM, LEN).ok()?;
                esp::seal(&mut self.outbound, &mut packet, NextHeader::Ipv4).ok()
            }
            Stage::EspOpen => {
                let mut packet = PacketBuf::new(bytes, SEALED_AT, sealed_len(LEN)).ok()?;
                esp::open(&mut self.inbound, &mut packet).ok().map(|_| ())
            }
            Stage::Seal => {
                let mut packet = PacketBuf::new(bytes, HEADROOM, LEN).ok()?;
                let sealed = self.sealer.seal(now, &mut packet);
                matches!(sealed, Ok(Sealed::Transmit(..))).then_some(())
            }
            Stage::Open => {
                let mut packet = PacketBuf::new(bytes, SEALED_AT, sealed_len(LEN)).ok()?;
                self.opener.open(now, &PATH, 0, &mut packet).ok().map(|_| ())
            }
        }
    }
}

/// A UDP packet from a host in wire space to one in host space, between its room.
fn packet() -> Vec<u8> {
    let mut bytes = vec![0x5a; HEADROOM + LEN + TAILROOM];
    let IpAddr::V4(destination) = OFFSET.to_host(HOST.into()) else { return bytes };
    let mut ip = Ipv4Packet::new_unchecked(&mut bytes[HEADROOM..][..LEN]);
    ip.set_version(4);
    ip.set_header_len(20);
    ip.set_dscp(0);
    ip.set_ecn(0);
    ip.set_total_len(LEN as u16);
    ip.clear_flags();
    ip.set_frag_offset(0);
    ip.set_next_header(IpProtocol::Udp);
    ip.set_src_addr(HOST);
    ip.set_dst_addr(destination);
    ip.fill_checksum();
    let mut udp = UdpPacket::new_unchecked(ip.payload_mut());
    udp.set_len(LEN as u16 - 20);
    udp.fill_checksum(&HOST.into(), &destination.into());
    bytes
}
