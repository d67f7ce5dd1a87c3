//! Both ends connect at once.

use simplevpn_core::ike::IkeEvent;
use simplevpn_tests::ike::Net;
use simplevpn_tests::sim::Percent;

fn both_connect(seed: u64) -> Net {
    let mut net = Net::psk_pair(seed);
    net.peer_mut(1, 0).wanted = true;
    net
}

/// It stays as it is.
fn does_not_flap(net: &mut Net) {
    net.check_settled();
    let events: Vec<usize> = net.nodes.iter().map(|node| node.events.len()).collect();
    let since = net.status(0, 1).unwrap().since;
    net.pause = 2000;
    net.pass(600_000);
    net.check_settled();
    assert_eq!(net.status(0, 1).unwrap().since, since);
    for (node, before) in net.nodes.iter().zip(events) {
        let after: Vec<&IkeEvent> = node.events[before..].iter().collect();
        assert!(after.is_empty(), "{after:?}");
    }
}

#[test]
fn one_connection_comes_of_two_begun_at_once() {
    for seed in 0..20 {
        let mut net = both_connect(seed);
        net.grace = 2000;
        net.pass(30_000);
        does_not_flap(&mut net);
    }
}

#[test]
fn whenever_the_second_begins() {
    for later in 1..30 {
        let mut net = both_connect(later);
        net.grace = 2000;
        net.peer_mut(1, 0).retry_at = net.now + later;
        net.pass(30_000);
        does_not_flap(&mut net);
    }
}

#[test]
fn one_connection_comes_of_two_whatever_is_lost() {
    for seed in 0..30 {
        let mut net = both_connect(seed);
        net.grace = 60_000;
        net.link.percent = Percent::of_each(25);
        net.pass(20_000);
        net.link.percent = Percent::NONE;
        net.pass(120_000);
        does_not_flap(&mut net);
    }
}
