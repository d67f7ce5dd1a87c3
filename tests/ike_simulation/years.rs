//! Long times.

use std::time::Duration;

use simplevpn_core::ike::suite::Pfs;
use simplevpn_core::ike::{IkeEvent, Lifetimes};
use simplevpn_tests::ike::Net;

const HOUR: u64 = 3600 * 1000;

/// Keys live for a work day, so that a test of ten years takes seconds.
fn daily(net: &mut Net) {
    for (at, other) in [(0, 1), (1, 0)] {
        net.nodes[at].settings.liveness = Duration::from_secs(2 * 3600);
        net.nodes[at].restart();
        let peer = net.peer_mut(at, other);
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        peer.lifetimes = Lifetimes { ike: hours(24), child: hours(8) };
        peer.pfs = Pfs::Never;
    }
    net.pause = HOUR / 2;
}

#[test]
fn ten_years_of_new_keys_at_one_percent_loss() {
    let mut net = Net::psk_pair(10);
    daily(&mut net);
    net.pass(1000);
    net.link.percent.lost = 1;
    // Losses are paid for by time; what is sent meanwhile still finds its SA.
    net.pass(10 * 365 * 24 * HOUR);
    net.link.percent.lost = 0;
    net.pass(HOUR);
    net.check_settled();
    for node in &net.nodes {
        let count = |is: fn(&IkeEvent) -> bool| node.events.iter().filter(|it| is(it)).count();
        let downs = count(|event| matches!(event, IkeEvent::Down(..)));
        let rekeyed = count(|event| matches!(event, IkeEvent::Rekeyed(_)));
        let children = count(|event| matches!(event, IkeEvent::ChildRekeyed(_)));
        println!("{}: {rekeyed} IKE SAs, {children} children, {downs} ends", node.number);
        assert_eq!(downs, 0);
        assert!(rekeyed > 3000 && children > 10_000);
    }
    assert!(net.received > 2 * 10 * 365 * 48 * 98 / 100, "{}", net.received);
}
