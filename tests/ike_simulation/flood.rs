//! More first messages than anybody wants.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use simplevpn_tests::ike::Net;
use simplevpn_tests::sim::SplitMix64;

/// A pair with more slots than half-open IKE SAs may take, not connected yet, and a first message
/// such as the first one sends.
fn target(seed: u64) -> (Net, Vec<u8>) {
    let mut sample = Net::psk_pair(3);
    sample.link.recording = Some(Vec::new());
    sample.pass(1);
    let (_, _, first) = sample.recorded()[0].clone();
    let mut net = Net::psk_pair(seed);
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
    let (mut net, first) = target(4);
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
    let (mut net, first) = target(4);
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

/// Attackers with so many real addresses, `of_network` in each network, that return their cookies
/// and ask as often as they can; how often node 0 connects at the first call, of five.
fn newcomers_against(count: u32, of_network: u32) -> usize {
    (0..5)
        .filter(|seed| {
            let mut crowd = Crowd::new(*seed, count, of_network);
            (0..20).for_each(|_| crowd.asks_for_100_ms());
            crowd.net.peer_mut(0, 1).wanted = true;
            crowd.net.peer_mut(0, 1).retry_at = 0;
            (0..30).for_each(|_| crowd.asks_for_100_ms());
            crowd.net.status(0, 1).is_some_and(|status| status.child.is_some())
        })
        .count()
}

/// Attackers who receive what is sent to them.
struct Crowd {
    net: Net,
    first: Vec<u8>,
    random: SplitMix64,
    count: u32,
    of_network: u32,
}

impl Crowd {
    fn new(seed: u64, count: u32, of_network: u32) -> Crowd {
        let (mut net, first) = target(100 + seed);
        net.peer_mut(0, 1).wanted = false;
        Crowd { net, first, random: SplitMix64::new(seed), count, of_network }
    }

    /// Each asks once, and once more with its cookie if it gets one.
    fn asks_for_100_ms(&mut self) {
        let to = SocketAddr::new(self.net.nodes[1].address, 500);
        for n in 0..self.count {
            let address = ((n / self.of_network) << 8) | (n % self.of_network + 1);
            let from = SocketAddr::new(Ipv4Addr::from(0x0a00_0000 | address).into(), 500);
            let mut message = self.first.clone();
            message[..8].copy_from_slice(&self.random.draw().to_be_bytes());
            if let Some(cookie) = self.net.ask(from, to, &message) {
                self.net.ask(from, to, &with_cookie(&message, &cookie));
            }
        }
        self.net.pass(100);
    }
}

/// The same request with a cookie in front.
fn with_cookie(request: &[u8], cookie: &[u8]) -> Vec<u8> {
    let len = 8 + cookie.len() as u8;
    let mut message =
        [&request[..28], &[request[16], 0, 0, len, 0, 0, 0x40, 0x06], cookie, &request[28..]]
            .concat();
    message[16] = 41;
    let len = message.len() as u32;
    message[24..28].copy_from_slice(&len.to_be_bytes());
    message
}

#[test]
fn an_honest_newcomer_gets_in_among_many_real_sources() {
    for (count, of_network, at_least) in [(60, 1, 5), (250, 250, 5), (100, 1, 4), (1000, 20, 4)] {
        let connected = newcomers_against(count, of_network);
        println!("{count} addresses, {of_network} in each network: {connected} of 5");
        assert!(connected >= at_least, "{count} addresses: {connected} of 5");
    }
}
