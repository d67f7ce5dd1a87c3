//! More first messages than anybody wants.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use simplevpn_tests::ike::Net;
use simplevpn_tests::sim::SplitMix64;

/// A pair with more slots than half-open IKE SAs may take, not connected yet, and a first message
/// such as the first one sends.
fn target() -> (Net, Vec<u8>) {
    let mut sample = Net::psk_pair(3);
    sample.link.recording = Some(Vec::new());
    sample.pass(1);
    let (_, _, first) = sample.recorded()[0].clone();
    let mut net = Net::psk_pair(4);
    net.nodes[1].slots = 128;
    net.nodes[1].restart();
    (net, first)
}

/// So many first messages, each from another address.
fn flood(net: &mut Net, first: &[u8], random: &mut SplitMix64, count: usize) {
    let to = SocketAddr::new(net.nodes[1].address, 500);
    for _ in 0..count {
        let mut message = first.to_vec();
        message[..8].copy_from_slice(&random.draw().to_be_bytes());
        let from = IpAddr::from(Ipv4Addr::from(0x0a00_0000 | random.draw() as u32 & 0xff_ffff));
        net.forge(SocketAddr::new(from, 500), to, &message);
    }
}

#[test]
fn a_flood_takes_bounded_memory_and_keeps_nobody_out() {
    let (mut net, first) = target();
    net.peer_mut(0, 1).wanted = false;
    let mut random = SplitMix64::new(5);
    for _ in 0..50 {
        flood(&mut net, &first, &mut random, 100);
        net.pass(100);
        assert!(net.nodes[1].ike.len() <= 64, "{}", net.nodes[1].ike.len());
    }
    let half_open = net.nodes[1].ike.len();
    println!("{half_open} half open");
    assert!(half_open >= 8, "the flood has reached somebody");

    net.peer_mut(0, 1).wanted = true;
    net.peer_mut(0, 1).retry_at = 0;
    for _ in 0..50 {
        flood(&mut net, &first, &mut random, 100);
        net.pass(100);
    }
    net.check_agreed(0, 1);
    net.pass(60_000);
    net.check_settled();
}

#[test]
fn a_flood_does_not_touch_a_connection() {
    let (mut net, first) = target();
    net.pass(2000);
    net.check_settled();
    let events = net.nodes[1].events.len();
    let mut random = SplitMix64::new(5);
    for at in 0..40 {
        flood(&mut net, &first, &mut random, 100);
        if at % 10 == 0 {
            net.rekey_child(at / 10 % 2, 1 - at / 10 % 2);
        }
        if at % 10 == 5 {
            net.rekey_ike(at / 10 % 2, 1 - at / 10 % 2);
        }
        net.pass(1000);
    }
    net.pass(60_000);
    net.check_settled();
    assert_eq!(net.nodes[1].events.len(), events + 8, "{:?}", net.nodes[1].events);
}
