//! Nodes that forget everything.

use simplevpn_core::ike::Encap;
use simplevpn_tests::ike::{Nat, Net};

/// A node restarts after so many messages, counted in a run in which keys are replaced.
fn restarts(who: usize, connects_again: [bool; 2]) {
    for after in 0..26 {
        println!("node {who} restarts after message {after}");
        let mut net = Net::psk_pair(after as u64);
        let mut to_do: Vec<fn(&mut Net)> = vec![
            |net| net.rekey_ike(1, 0),
            |net| net.rekey_child(1, 0),
            |net| net.rekey_ike(0, 1),
            |net| net.rekey_child(0, 1),
        ];
        while net.messages <= after {
            for _ in 0..1000 {
                if net.messages > after {
                    break;
                }
                net.pass(2);
            }
            match to_do.pop() {
                Some(act) if net.messages <= after => act(&mut net),
                _ => break,
            }
        }
        net.restart(who);
        for at in [0, 1] {
            net.peer_mut(at, 1 - at).wanted = connects_again[at];
        }
        net.pass(200_000);
        net.check_settled();
    }
}

#[test]
fn the_end_that_connects_restarts_at_any_step() {
    restarts(0, [true, false]);
}

#[test]
fn the_end_that_answers_restarts_at_any_step() {
    restarts(1, [true, false]);
}

#[test]
fn an_end_restarts_at_any_step_while_both_connect() {
    restarts(0, [true, true]);
    restarts(1, [true, true]);
}

/// The end that connects loses its power, and comes back where nobody expects it: it has another
/// address, or its NAT has given it another port. All packets of the other end go there.
#[test]
fn the_end_that_connects_comes_back_elsewhere() {
    let nat = |offset| Some(Nat { address: "203.0.113.9".parse().unwrap(), offset });
    let places = [("192.0.2.77", None), ("192.0.2.1", nat(1000)), ("192.0.2.1", nat(2000))];
    for encap in [Encap::Auto, Encap::Esp] {
        for (address, nat) in places.into_iter().filter(|(_, nat)| {
            // No NAT lets raw ESP through.
            nat.is_none() || encap == Encap::Auto
        }) {
            for behind_nat_before in [false, true] {
                let mut net = Net::pair(5);
                net.peer_mut(0, 1).encap = encap;
                net.peer_mut(1, 0).encap = encap;
                if behind_nat_before && encap == Encap::Auto {
                    net.nodes[0].nat =
                        Some(Nat { address: "203.0.113.8".parse().unwrap(), offset: 7 });
                }
                net.pass(2000);
                net.check_settled();
                net.nodes[0].address = address.parse().unwrap();
                net.nodes[0].nat = nat;
                net.restart(0);
                net.pass(10_000);
                net.check_settled();
                net.rekey_child(1, 0);
                net.pass(10_000);
                net.check_settled();
            }
        }
    }
}
