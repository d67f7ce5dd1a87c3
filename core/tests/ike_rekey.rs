//! New keys for ESP and for IKE: by one end, by both at once, and when other things happen
//! meanwhile (RFC 7296 §2.8, §2.8.1, §2.8.2, §2.25).
//!
//! The nonces are chosen: of two exchanges the one with the lowest of the four nonces gives way.
#![allow(clippy::unwrap_used)]

mod ike_net;

use std::time::Duration;

use ike_net::{A, B, Net};
use simplevpn_core::ike::suite::Pfs;

const MINUTE: Duration = Duration::from_secs(60);

/// One exchange after the other has the lower nonces.
fn nonces(net: &mut Net, at: usize, first: u8) {
    net.ends[at].rng.nonce = Some(first);
}

fn check_new_child(net: &mut Net, before: [u32; 2]) {
    net.pass(MINUTE / 4);
    net.check_agreed();
    let now = net.spis();
    assert!(now[0] != before[0] && now[1] != before[1], "still the old child");
}

#[test]
fn either_end_replaces_the_keys_of_esp() {
    for (at, pfs) in [(A, Pfs::Never), (B, Pfs::Never), (A, Pfs::Required), (B, Pfs::Required)] {
        let mut net = Net::established(1);
        net.ends.iter_mut().for_each(|end| end.config.pfs = pfs);
        let before = net.spis();
        net.rekey_child(at);
        net.settle();
        check_new_child(&mut net, before);
        let group = net.ends[at].ike.status(ike_net::PEER).unwrap().child.unwrap().group;
        assert_eq!(group.is_some(), pfs == Pfs::Required);
    }
}

#[test]
fn either_end_replaces_the_keys_of_ike() {
    for at in [A, B] {
        let mut net = Net::established(2);
        let before = net.spis();
        net.rekey_ike(at);
        net.settle();
        net.pass(MINUTE / 4);
        net.check_agreed();
        assert_eq!(net.spis(), before, "children move over");
        // And again, by the other end, on the new one.
        net.rekey_ike(1 - at);
        net.settle();
        net.rekey_child(at);
        net.settle();
        check_new_child(&mut net, before);
    }
}

/// ```text
///   A                      B
///   rekey C ────╮ ╭──── rekey C
///           ◀───┼─╯
///   answer  ────┼─╮
///               ╰─┼───▶
///           ◀───╮ ╰───▶   answer
/// ```
#[test]
fn both_replace_the_same_child_at_once_and_the_lowest_nonce_gives_way() {
    for lower in [A, B] {
        let mut net = Net::established(3);
        let before = net.spis();
        nonces(&mut net, lower, 1);
        nonces(&mut net, 1 - lower, 200);
        net.rekey_child(A);
        net.rekey_child(B);
        net.settle();
        check_new_child(&mut net, before);
    }
}
