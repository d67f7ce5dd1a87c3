//! Nodes that forget everything.

use simplevpn_tests::ike::Net;

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
