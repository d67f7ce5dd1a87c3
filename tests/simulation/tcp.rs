//! TCP over a tunnel over a link that misbehaves.

use simplevpn_core::crypto::Cipher;
use simplevpn_core::{Offset, PeerId};
use simplevpn_tests::sim::{Net, Percent, Tie, Transfer};

use crate::places::{inner, on_ipv4, on_ipv6, shifted};

const TEN_MB: usize = 10_000_000;
/// Ten hours of virtual time.
const LIMIT: u64 = 36_000_000;
/// So little below 2^32 that the high half of the numbers changes during a transfer.
const ALMOST_ROLLING_OVER: u64 = (1 << 32) - 2000;

/// Transfers 10 MB and checks that every packet accepted reached the other stack, once.
fn ten_megabytes(v6: bool, outer_v6: bool, tie: Tie, percent: Percent) -> Net {
    let setups = if outer_v6 { [on_ipv6(161), on_ipv6(160)] } else { [on_ipv4(161), on_ipv4(160)] };
    let seed = 1 + 4 * u64::from(tie.udp) + 2 * u64::from(outer_v6) + u64::from(v6);
    let mut net = Net::pair(setups, &tie, percent, seed);
    let address = inner(&setups[1], v6, tie.offset);
    let mut transfer = Transfer::start(&mut net, 0, 1, address, 80, TEN_MB);
    net.run(LIMIT, |net| transfer.drive(net));
    net.pass(1000); // until nothing is on the link any more
    assert_eq!(net.reached(), net.accepted);
    for endpoint in &mut net.endpoints {
        let opened = *endpoint.tunnel().opener.peer(PeerId(0)).unwrap().traffic();
        assert_eq!(opened.packets, endpoint.reached());
    }
    net
}

fn refused(net: &Net, why: &str) -> u64 {
    net.refused.get(why).copied().unwrap_or(0)
}

#[test]
fn survives_loss() {
    let net = ten_megabytes(false, false, Tie::default(), Percent { lost: 5, ..Percent::NONE });
    assert!(net.refused.is_empty(), "{:?}", net.refused);
    assert!(net.link.sent() > net.accepted);
}

#[test]
fn survives_duplication_and_nothing_is_accepted_twice() {
    let net =
        ten_megabytes(true, false, Tie::default(), Percent { duplicated: 5, ..Percent::NONE });
    assert!(refused(&net, "replayed") > 100);
    assert_eq!(net.refused.len(), 1, "{:?}", net.refused);
    assert_eq!(net.link.sent(), net.accepted);
}

#[test]
fn survives_reordering() {
    let tie = Tie { cipher: Cipher::Aes128Gcm16, ..Tie::default() };
    let net = ten_megabytes(false, true, tie, Percent { reordered: 5, ..Percent::NONE });
    assert!(net.refused.is_empty(), "{:?}", net.refused);
    assert_eq!(net.link.sent(), net.accepted);
}

#[test]
fn survives_corruption_and_nothing_altered_is_accepted() {
    let tie = Tie { udp: true, ..Tie::default() };
    let net = ten_megabytes(false, false, tie, Percent { corrupted: 5, ..Percent::NONE });
    assert!(refused(&net, "bad_icv") > 100);
    assert_eq!(net.link.sent(), net.accepted + net.refused.values().sum::<u64>());
}

#[test]
fn survives_delay() {
    let tie = Tie { cipher: Cipher::Aes256Gcm16, ..Tie::default() };
    let net = ten_megabytes(true, true, tie, Percent { delayed: 5, ..Percent::NONE });
    assert!(net.refused.is_empty(), "{:?}", net.refused);
    assert_eq!(net.link.sent(), net.accepted);
}

/// 5 % of everything, while the high half of the sequence numbers rolls over.
fn survives_everything(v6: bool, outer_v6: bool, udp: bool, offset: Offset, cipher: Cipher) {
    let tie = Tie { cipher, first: ALMOST_ROLLING_OVER, udp, offset, ..Tie::default() };
    let mut net = ten_megabytes(v6, outer_v6, tie, Percent::of_each(5));
    for why in ["replayed", "bad_icv"] {
        assert!(refused(&net, why) > 50, "{:?}", net.refused);
    }
    let sealer = &net.endpoints[0].tunnel().sealer;
    let sa = sealer.peer(PeerId(0)).unwrap().sa().unwrap();
    assert!(sa.sequence.next() > (1 << 32) + 2000);
}

#[test]
fn ipv4_in_esp() {
    survives_everything(false, false, false, Offset::default(), Cipher::ChaCha20Poly1305);
}

#[test]
fn ipv6_in_esp() {
    survives_everything(true, true, false, Offset::default(), Cipher::Aes128Gcm16);
}

#[test]
fn ipv4_in_udp() {
    survives_everything(false, true, true, Offset::default(), Cipher::Aes256Gcm16);
}

#[test]
fn ipv6_in_udp() {
    survives_everything(true, false, true, Offset::default(), Cipher::Aes256Gcm16);
}

#[test]
fn shifted_ipv4_in_esp() {
    survives_everything(false, true, false, shifted(), Cipher::Aes256Gcm16);
}

#[test]
fn shifted_ipv6_in_esp() {
    survives_everything(true, false, false, shifted(), Cipher::Aes128Gcm16);
}

#[test]
fn shifted_ipv4_in_udp() {
    survives_everything(false, false, true, shifted(), Cipher::Aes128Gcm16);
}

#[test]
fn shifted_ipv6_in_udp() {
    survives_everything(true, true, true, shifted(), Cipher::ChaCha20Poly1305);
}
