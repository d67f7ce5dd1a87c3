//! What a link can do to messages.

use simplevpn_tests::ike::{Fault, Kind, Net};
use simplevpn_tests::sim::Percent;

/// Two nodes connect, and replace all keys in every way.
fn everything(net: &mut Net) {
    net.pass(2000);
    for at in [0, 1] {
        net.rekey_child(at, 1 - at);
        net.pass(4000);
        net.rekey_ike(at, 1 - at);
        net.pass(4000);
    }
    for at in [0, 1] {
        net.rekey_child(at, 1 - at);
    }
    net.pass(4000);
    for at in [0, 1] {
        net.rekey_ike(at, 1 - at);
    }
    net.pass(4000);
    net.rekey_ike(0, 1);
    net.rekey_child(1, 0);
    net.pass(4000);
}

/// How many datagrams that takes.
fn datagrams_without_fault(pair: fn(u64) -> Net) -> usize {
    let mut net = pair(1);
    everything(&mut net);
    net.pass(60_000);
    net.check_settled();
    net.messages
}

fn survives(kind: Kind) {
    let short = datagrams_without_fault(Net::psk_pair);
    let long = datagrams_without_fault(Net::wordy_pair);
    assert!(short > 30 && long > short, "{short}, and in fragments {long}");
    for (pair, count) in [(Net::psk_pair as fn(u64) -> Net, short), (Net::wordy_pair, long)] {
        for at in 0..count {
            println!("datagram {at} of {count} is {kind:?}");
            let mut net = pair(1);
            net.fault = Some(Fault { at, kind });
            everything(&mut net);
            net.pass(60_000);
            net.check_settled();
        }
    }
}

#[test]
fn no_packet_is_lost_whatever_message_is_lost() {
    survives(Kind::Lost);
}

#[test]
fn no_packet_is_lost_whatever_message_arrives_twice() {
    survives(Kind::Duplicated);
}

#[test]
fn no_packet_is_lost_whatever_message_is_repeated_later() {
    survives(Kind::Repeated);
}

#[test]
fn no_packet_is_lost_whatever_message_is_overtaken() {
    survives(Kind::Overtaken);
}

#[test]
fn no_packet_is_lost_whatever_message_is_late() {
    survives(Kind::Delayed);
}

#[test]
fn no_packet_is_lost_whatever_message_is_corrupted() {
    survives(Kind::Corrupted);
}

/// Both agree when a link is good again that has done everything that links do to so many per cent.
fn gets_over(net: &mut Net, percent: u64) {
    net.grace = 60_000;
    net.link.percent = Percent::of_each(percent);
    everything(net);
    everything(net);
    net.link.percent = Percent::NONE;
    net.pass(150_000);
    net.check_settled();
}

#[test]
fn both_agree_once_a_bad_link_is_good_again() {
    for percent in [1, 3, 5, 10, 20, 30] {
        for seed in 0..10 {
            println!("{percent} % of each, seed {seed}");
            let mut net = Net::psk_pair(seed << 8 | percent);
            gets_over(&mut net, percent);
        }
    }
}

#[test]
fn both_agree_although_many_fragments_are_lost() {
    for percent in [3, 10, 20] {
        for seed in 0..4 {
            println!("{percent} % of each, seed {seed}");
            let mut net = Net::wordy_pair(seed << 8 | percent);
            gets_over(&mut net, percent);
        }
    }
}

#[test]
fn a_link_that_delays_packets_makes_none_miss_its_keys() {
    for seed in 0..4 {
        let mut net = Net::psk_pair(seed);
        net.pause = 3;
        net.pass(1000);
        net.link.percent = Percent { reordered: 40, delayed: 40, duplicated: 5, ..Percent::NONE };
        everything(&mut net);
        net.link.percent = Percent::NONE;
        net.pass(60_000);
        net.check_settled();
    }
}
