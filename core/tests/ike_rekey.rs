//! New keys for ESP and for IKE: by one end, by both at once, and when other things happen
//! meanwhile (RFC 7296 §2.8, §2.8.1, §2.8.2, §2.25).
//!
//! The nonces are chosen: of two exchanges the one with the lowest of the four nonces gives way.
#![allow(clippy::unwrap_used)]

mod ike_net;
mod ike_pair;

use std::time::Duration;

use ike_net::{A, B, Net};
use ike_pair::PEER;
use simplevpn_core::crypto::dh::Group;
use simplevpn_core::ike::suite::Pfs;

const MINUTE: Duration = Duration::from_secs(60);

/// One exchange after the other has the lower nonces.
fn nonces(net: &mut Net, at: usize, first: u8) {
    net.ends[at].rng.1 = Some(first);
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
        let mut net = Net::established();
        net.ends.iter_mut().for_each(|end| end.pad.pfs = pfs);
        let before = net.spis();
        net.rekey_child(at);
        net.settle();
        check_new_child(&mut net, before);
        let group = net.ends[at].ike.status(PEER).unwrap().child.unwrap().group;
        assert_eq!(group.is_some(), pfs == Pfs::Required);
    }
}

#[test]
fn either_end_replaces_the_keys_of_ike() {
    for at in [A, B] {
        let mut net = Net::established();
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

#[test]
fn a_group_that_the_peer_does_not_want_is_replaced_by_the_one_it_wants() {
    for at in [A, B] {
        let mut net = Net::established();
        net.ends.iter_mut().for_each(|end| end.pad.pfs = Pfs::Required);
        net.only_group(1 - at, Group::P256);
        let before = net.spis();
        net.rekey_child(at);
        net.settle();
        check_new_child(&mut net, before);
        let suite = net.ends[at].ike.status(PEER).unwrap().child.unwrap();
        assert_eq!(suite.group, Some(Group::P256));
        net.rekey_ike(at);
        net.settle();
        net.pass(MINUTE / 4);
        net.check_agreed();
        let suite = net.ends[at].ike.status(PEER).unwrap().suite.unwrap();
        assert_eq!(suite.group, Group::P256);
    }
}

#[test]
fn keys_are_replaced_again_and_again_before_they_are_too_old() {
    let mut net = Net::established();
    for _ in 0..48 {
        let before = net.spis();
        net.pass(61 * MINUTE);
        net.check_agreed();
        assert_ne!(net.spis(), before);
    }
}

/// ```text
///   A                         B
///   rekey C ───────╮ ╭────── rekey C
///           ◀──────┼─╯
///   answer  ───────┼───────▶         (either may be first, or last)
///                  ╰───────▶ answer
///           ◀───────────────
/// ```
/// Whatever the order in which the four messages arrive, both end with the same pair.
#[test]
fn both_replace_the_same_child_at_once_and_the_lowest_nonce_gives_way() {
    for lower in [A, B] {
        for order in ORDERS {
            let mut net = Net::established();
            let before = net.spis();
            nonces(&mut net, lower, 1);
            nonces(&mut net, 1 - lower, 200);
            net.rekey_child(A);
            net.rekey_child(B);
            order.iter().for_each(|from| net.deliver_newest_from(*from));
            net.settle();
            check_new_child(&mut net, before);
            net.check_only_ike_sas(1);
        }
    }
}

/// The same for the IKE SA (RFC 7296 §2.8.2): the children move to the one that stays.
#[test]
fn both_replace_the_ike_sa_at_once_and_the_lowest_nonce_gives_way() {
    for lower in [A, B] {
        for order in ORDERS {
            let mut net = Net::established();
            let before = net.spis();
            nonces(&mut net, lower, 1);
            nonces(&mut net, 1 - lower, 200);
            net.rekey_ike(A);
            net.rekey_ike(B);
            order.iter().for_each(|from| net.deliver_newest_from(*from));
            net.settle();
            net.pass(2 * MINUTE);
            net.check_agreed();
            assert_eq!(net.spis(), before);
            net.check_only_ike_sas(1);
            // It works.
            net.rekey_child(lower);
            net.settle();
            check_new_child(&mut net, before);
        }
    }
}

/// In which order the ends' messages arrive: of those that an end has sent, the newest first.
const ORDERS: [&[usize]; 8] =
    [&[], &[A], &[B], &[A, B], &[B, A], &[A, B, B, A], &[B, A, A, B], &[A, B, A, B]];

/// Either exchange stands in the way of the other (RFC 7296 §2.25): one of them is tried again.
#[test]
fn a_child_and_its_ike_sa_are_replaced_at_once() {
    for (one, other) in [(A, B), (B, A)] {
        for order in ORDERS {
            let mut net = Net::established();
            let before = net.spis();
            net.rekey_child(one);
            net.rekey_ike(other);
            order.iter().for_each(|from| net.deliver_newest_from(*from));
            net.settle();
            net.pass(2 * MINUTE);
            check_new_child(&mut net, before);
            net.check_only_ike_sas(1);
        }
    }
}

/// ```text
///   A                      B
///   rekey C ────╮ ╭──── delete IKE SA
///           ◀───┼─╯
///               ╰─────▶
/// ```
#[test]
fn nothing_is_left_when_the_connection_is_closed_while_something_is_replaced() {
    for at in [A, B] {
        for order in ORDERS {
            for rekey in [Net::rekey_child, Net::rekey_ike] {
                let mut net = Net::established();
                net.strict = false;
                rekey(&mut net, at);
                net.act(1 - at, |ike, now, cx| ike.terminate(now, cx, PEER));
                order.iter().for_each(|from| net.deliver_newest_from(*from));
                net.settle();
                net.pass(3 * MINUTE);
                for end in &net.ends {
                    assert!(end.sad.inbound.is_empty() && end.sad.outbound.is_none());
                    assert_eq!(end.ike.status(PEER), None);
                }
            }
        }
    }
}

/// Every message in turn is lost; its sender, or whoever waits for it, sends again.
#[test]
fn a_lost_message_is_no_lost_child() {
    for rekey in [Net::rekey_child, Net::rekey_ike] {
        for both in [false, true] {
            for lost in 0..10 {
                let mut net = Net::established();
                rekey(&mut net, A);
                if both {
                    rekey(&mut net, B);
                }
                let mut count = 0;
                net.pass_losing(3 * MINUTE, |_| {
                    count += 1;
                    count == lost + 1
                });
                net.check_agreed();
                net.check_only_ike_sas(1);
            }
        }
    }
}

/// The end that did not begin uses the new pair as soon as the other one does, even if it is never
/// told that the old one is deleted.
#[test]
fn use_of_the_new_child_tells_that_it_can_be_used() {
    let mut net = Net::established();
    let before = net.spis();
    net.rekey_child(A);
    net.deliver_from(A);
    net.deliver_from(B);
    assert_ne!(net.spis()[B], before[B], "A sends with it");
    assert_eq!(net.spis()[A], before[A], "B does not yet");
    let used = net.spis()[B];
    net.ends[B].sad.used.push(used);
    net.pass_losing(Duration::from_secs(2), |_| true);
    assert_ne!(net.spis()[A], before[A], "now it does");
    net.pass(MINUTE);
    net.check_agreed();
}
