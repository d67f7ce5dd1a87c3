//! `meter CIPHER SEALED OPENED` seals so many packets of 1400 bytes and opens so many of them, from
//! policy look-up to selector check. Everything else it does is the same whatever the numbers:
//! so the instructions that two runs differ by are those of sealing or of opening.
//! `openwrt/footprint` has an emulator count them.

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

use managed::ManagedSlice;
use simplevpn_core::crypto::{AnyAead, Cipher};
use simplevpn_core::esp::{OutboundSequence, ReplayWindow, window_storage};
use simplevpn_core::pmtu::sealed_len;
use simplevpn_core::sad::{InboundSa, OutboundSa, Sad};
use simplevpn_core::{
    HEADROOM, InboundPeer, Instant, Offset, Opener, OutboundPeer, PacketBuf, Path, PeerId, Sealed,
    Sealer, Selectors, Spd, TAILROOM,
};
use smoltcp::wire::{IpAddress, IpCidr, IpProtocol, Ipv4Packet};

/// Packets there are, at most.
const PACKETS: usize = 16;
/// Bytes of each.
const LEN: usize = 1400;
/// Both ends of every packet, so that it passes the policies in both directions.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 9);
const PEER: PeerId = PeerId(0);
const PATH: Path = Path::Esp {
    local: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    remote: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [cipher, sealed, opened] = arguments.as_slice() else { return usage() };
    let cipher = Cipher::ALL.into_iter().find(|known| known.name() == cipher);
    let (Some(cipher), Ok(sealed), Ok(opened)) = (cipher, sealed.parse(), opened.parse()) else {
        return usage();
    };
    if sealed > PACKETS || opened > sealed {
        return usage();
    }
    match run(cipher, sealed, opened) {
        Some(()) => ExitCode::SUCCESS,
        None => {
            eprintln!("meter: a packet was not sealed or not opened");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: meter CIPHER SEALED OPENED, with OPENED <= SEALED <= {PACKETS}");
    ExitCode::from(2)
}

fn lent<T>(count: usize) -> ManagedSlice<'static, Option<T>> {
    ManagedSlice::Borrowed((0..count).map(|_| None).collect::<Vec<_>>().leak())
}

/// A tunnel to a peer who says to us what we say to it.
fn tunnel(cipher: Cipher) -> Option<(Sealer<'static, AnyAead>, Opener<'static, AnyAead>)> {
    let mut sealer = Sealer::new(Spd::new(lent(2)), lent(1));
    let mut opener = Opener::new(Sad::new(lent(1), lent(2)), Spd::new(lent(2)), lent(1));
    let key = || AnyAead::new(cipher, [7; 32].get(..cipher.key_len())?).ok();
    let prefix = IpCidr::new(IpAddress::Ipv4(HOST), 24);
    let spi = opener.allocate_spi(0x9e37_79b9)?;
    sealer.insert_peer(PEER, OutboundPeer::new(Offset::default(), Selectors::ANY)).ok()?;
    sealer.insert_policy(&prefix, PEER).ok()?;
    sealer.set_path(PEER, Some(PATH));
    let sequence = OutboundSequence::new(true);
    sealer.install(PEER, OutboundSa { spi, key: key()?, salt: [9; 4].into(), sequence }, 0);
    opener.insert_peer(PEER, InboundPeer::new(Offset::default(), Selectors::ANY)).ok()?;
    opener.insert_policy(&prefix, PEER).ok()?;
    let window = ReplayWindow::new(ManagedSlice::Borrowed(vec![0; window_storage(2048)].leak()));
    let (window, salt) = (window.ok()?, [9; 4].into());
    opener.install(InboundSa { spi, key: key()?, salt, esn: true, window, peer: PEER }).ok()?;
    Some((sealer, opener))
}

/// An IPv4 packet of no known protocol.
fn packet() -> [u8; HEADROOM + LEN + TAILROOM] {
    let mut bytes = [0x5a; HEADROOM + LEN + TAILROOM];
    let mut ip = Ipv4Packet::new_unchecked(&mut bytes[HEADROOM..][..LEN]);
    ip.set_version(4);
    ip.set_header_len(20);
    ip.set_dscp(0);
    ip.set_ecn(0);
    ip.set_total_len(LEN as u16);
    ip.clear_flags();
    ip.set_frag_offset(0);
    ip.set_next_header(IpProtocol::Unknown(253));
    ip.set_src_addr(HOST);
    ip.set_dst_addr(HOST);
    ip.fill_checksum();
    bytes
}

fn run(cipher: Cipher, sealed: usize, opened: usize) -> Option<()> {
    let (mut sealer, mut opener) = tunnel(cipher)?;
    let mut packets = [packet(); PACKETS];
    let now = Instant::from_millis(1);
    let mut start = 0;
    for bytes in packets.iter_mut().take(sealed) {
        let mut packet = PacketBuf::new(bytes, HEADROOM, LEN).ok()?;
        let Ok(Sealed::Transmit(..)) = sealer.seal(now, &mut packet) else { return None };
        start = packet.start();
    }
    for bytes in packets.iter_mut().take(opened) {
        let mut packet = PacketBuf::new(bytes, start, sealed_len(LEN)).ok()?;
        opener.open(now, &PATH, 0, &mut packet).ok()?;
    }
    Some(())
}
