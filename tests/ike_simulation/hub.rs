//! Three nodes.

use simplevpn_tests::ike::Net;
use simplevpn_tests::sim::Percent;

/// ```text
/// 0 ──▶ 1 ◀── 2 ──▶ 0
/// ```
fn hub(seed: u64) -> Net {
    let mut net = Net::new(3, 16, seed);
    net.join(0, 1);
    net.join(2, 1);
    net.join(2, 0);
    net
}

fn check(net: &mut Net) {
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        net.check_agreed(a, b);
    }
    for node in &net.nodes {
        assert_eq!((node.ike.len(), node.database.inbound.len()), (2, 2), "{}", node.number);
    }
}

#[test]
fn three_nodes_connect_and_rekey_without_loss() {
    let mut net = hub(1);
    net.pass(2000);
    check(&mut net);
    for (at, other) in [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)] {
        net.rekey_child(at, other);
        net.rekey_ike(other, at);
    }
    net.pass(30_000);
    check(&mut net);
}

#[test]
fn one_that_restarts_leaves_the_others_alone() {
    let mut net = hub(2);
    net.pass(2000);
    let before = net.status(1, 2).unwrap().since;
    net.restart(0);
    net.pass(200_000);
    check(&mut net);
    assert_eq!(net.status(1, 2).unwrap().since, before);
}

#[test]
fn three_nodes_agree_once_a_bad_link_is_good_again() {
    for seed in 0..5 {
        let mut net = hub(seed);
        net.grace = 60_000;
        net.link.percent = Percent::of_each(15);
        for (at, other) in [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)] {
            net.pass(4000);
            net.rekey_child(at, other);
            net.rekey_ike(other, at);
        }
        net.link.percent = Percent::NONE;
        net.pass(200_000);
        check(&mut net);
    }
}
