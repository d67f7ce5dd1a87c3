//! Nodes behind a NAT, and nodes that move.

use simplevpn_core::Path;
use simplevpn_core::PeerId;
use simplevpn_tests::ike::{Nat, Net};

/// ```text
/// 0 192.0.2.1 ── NAT 203.0.113.9 ── 1 192.0.2.2
/// ```
fn behind_nat(seed: u64) -> Net {
    let mut net = Net::pair(seed);
    net.nodes[0].nat = Some(Nat { address: "203.0.113.9".parse().unwrap(), offset: 1000 });
    net
}

fn replace_all_keys(net: &mut Net) {
    for at in [0, 1] {
        net.rekey_child(at, 1 - at);
        net.pass(4000);
        net.rekey_ike(at, 1 - at);
        net.pass(20_000);
    }
}

#[test]
fn through_a_nat_keys_are_replaced_without_loss() {
    let mut net = behind_nat(1);
    net.pass(2000);
    net.check_settled();
    let [here, there] = [net.status(0, 1).unwrap(), net.status(1, 0).unwrap()];
    assert!(here.local_nat && there.remote_nat && !here.remote_nat && !there.local_nat);
    let remote = "203.0.113.9:5500".parse().unwrap();
    let local = "192.0.2.2:4500".parse().unwrap();
    assert_eq!(there.esp_path, Some(Path::Udp { local, remote }));
    replace_all_keys(&mut net);
    net.check_settled();
}

#[test]
fn a_nat_that_forgets_its_mapping_ends_no_connection() {
    for rekeys_first in [0, 1] {
        let mut net = behind_nat(2);
        net.pass(2000);
        for offset in [2000, 3000, 4000] {
            net.nodes[0].nat.as_mut().unwrap().offset = offset;
            net.path_changed(0, 1);
            net.pass(1000);
            net.rekey_child(rekeys_first, 1 - rekeys_first);
            net.pass(4000);
            net.rekey_ike(rekeys_first, 1 - rekeys_first);
            net.pass(20_000);
            net.check_settled();
        }
        // Connected once, and never again.
        let downs = |at: usize| net.nodes[at].events.iter().filter(|it| is_end(it)).count();
        assert_eq!([downs(0), downs(1)], [0, 0], "{rekeys_first}");
    }
}

fn is_end(event: &simplevpn_core::ike::IkeEvent) -> bool {
    matches!(event, simplevpn_core::ike::IkeEvent::Down(..))
}

#[test]
fn whoever_has_connected_may_move() {
    for nat in [false, true] {
        let mut net = Net::pair(3);
        net.pass(2000);
        assert!(net.status(0, 1).unwrap().mobike);
        for (step, address) in ["192.0.2.77", "198.51.100.3", "192.0.2.1"].iter().enumerate() {
            net.nodes[0].address = address.parse().unwrap();
            net.nodes[0].nat = (nat && step == 1)
                .then(|| Nat { address: "203.0.113.9".parse().unwrap(), offset: 7 });
            let target = net.nodes[0].target(net.nodes[1].public());
            net.path_changed(0, 1);
            assert!(
                net.act(0, |ike, now, cx| { ike.address_changed(now, cx, PeerId(1), &target) })
            );
            net.pass(2000);
            net.check_settled();
            replace_all_keys(&mut net);
            net.check_settled();
            let remote = net.status(1, 0).unwrap().path.remote.ip();
            assert_eq!(remote, net.nodes[0].public());
        }
        assert!(!net.nodes.iter().any(|node| node.events.iter().any(is_end)));
    }
}

#[test]
fn moving_succeeds_although_messages_are_lost() {
    for lost in 0..4 {
        let mut net = Net::pair(4);
        net.pass(2000);
        net.fault = Some(simplevpn_tests::ike::Fault {
            at: net.messages + lost,
            kind: simplevpn_tests::ike::Kind::Lost,
        });
        net.nodes[0].address = "192.0.2.77".parse().unwrap();
        let target = net.nodes[0].target(net.nodes[1].public());
        net.grace = 5000;
        net.path_changed(0, 1);
        assert!(net.act(0, |ike, now, cx| ike.address_changed(now, cx, PeerId(1), &target)));
        net.pass(10_000);
        net.rekey_child(1, 0);
        net.pass(20_000);
        net.check_settled();
    }
}
