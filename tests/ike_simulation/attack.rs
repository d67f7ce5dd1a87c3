//! Somebody who sees and sends everything, and has no key.

use std::net::SocketAddr;

use simplevpn_core::ike::IkeEvent;
use simplevpn_core::ike::wire::notify::Notify;
use simplevpn_core::ike::wire::numbers::{ExchangeType, NotifyType};
use simplevpn_core::ike::wire::{Header, message};
use simplevpn_tests::ike::Net;
use simplevpn_tests::sim::SplitMix64;

/// A pair that has replaced all keys, and is recorded from the beginning.
fn recorded() -> Net {
    let mut net = Net::psk_pair(1);
    net.link.recording = Some(Vec::new());
    net.pass(2000);
    for at in [0, 1] {
        net.rekey_child(at, 1 - at);
        net.pass(4000);
        net.rekey_ike(at, 1 - at);
        net.pass(20_000);
    }
    net.check_settled();
    net
}

/// Nobody has noticed anything since.
fn unimpressed(net: &mut Net, before: &[usize]) {
    assert_eq!(events(net), before, "{:?}", net.nodes[0].events);
    net.check_settled();
}

/// How many events of each node are about its peers. What it is told of strangers changes nothing.
fn events(net: &Net) -> Vec<usize> {
    let of_strangers = |event: &&IkeEvent| {
        matches!(event, IkeEvent::Refused(None, ..) | IkeEvent::Unacceptable(None, ..))
    };
    let of_peers = |all: &[IkeEvent]| all.len() - all.iter().filter(of_strangers).count();
    net.nodes.iter().map(|node| of_peers(&node.events)).collect()
}

/// Everything somebody can say in the clear about this IKE SA.
fn lies(like: &Header) -> Vec<Vec<u8>> {
    let exchanges = [
        ExchangeType::IKE_SA_INIT,
        ExchangeType::IKE_AUTH,
        ExchangeType::CREATE_CHILD_SA,
        ExchangeType::INFORMATIONAL,
    ];
    let errors = [
        NotifyType::NO_PROPOSAL_CHOSEN,
        NotifyType::INVALID_SYNTAX,
        NotifyType::AUTHENTICATION_FAILED,
        NotifyType::INVALID_IKE_SPI,
        NotifyType::INVALID_MAJOR_VERSION,
    ];
    let mut lies = Vec::new();
    for exchange in exchanges {
        for (from_initiator, response) in
            [(false, false), (false, true), (true, false), (true, true)]
        {
            for message_id in 0..8 {
                let spis = like.spis;
                let header = Header { spis, exchange, from_initiator, response, message_id };
                let mut buffer = [0; 100];
                for error in errors {
                    let lie = message::write(&mut buffer, &header, |writer| {
                        writer.notify(&Notify::new(error, &[]))
                    });
                    lies.push(lie.unwrap().to_vec());
                }
                let lie = message::write(&mut buffer, &header, |writer| writer.delete_ike());
                lies.push(lie.unwrap().to_vec());
            }
        }
    }
    lies
}

#[test]
fn nothing_said_in_the_clear_ends_a_connection() {
    let mut net = recorded();
    let before = events(&net);
    let (from, to, newest) = net.recorded().last().unwrap().clone();
    let lies = lies(&Header::parse(&newest).unwrap());
    assert_eq!(lies.len(), 4 * 4 * 8 * 6);
    let sent = net.messages;
    for lie in &lies {
        net.forge(from, to, lie);
        net.forge(to, from, lie);
    }
    net.pass(5000);
    assert_eq!(net.messages, sent, "nobody answers lies");
    unimpressed(&mut net, &before);

    // And while an answer is waited for.
    for at in [0, 1] {
        net.rekey_child(at, 1 - at);
        for lie in &lies {
            net.forge(from, to, lie);
            net.forge(to, from, lie);
        }
        net.pass(20_000);
        net.check_settled();
    }
    for node in &net.nodes {
        assert_eq!(node.events.len(), before[node.number] + 2, "{:?}", node.events);
    }
}

#[test]
fn whoever_lies_first_keeps_nobody_from_connecting() {
    for error in [NotifyType::NO_PROPOSAL_CHOSEN, NotifyType::INVALID_SYNTAX] {
        let mut net = Net::psk_pair(2);
        net.link.recording = Some(Vec::new());
        net.pass(1);
        let (from, to, request) = net.recorded()[0].clone();
        let spis = Header::parse(&request).unwrap().spis;
        let exchange = ExchangeType::IKE_SA_INIT;
        let header =
            Header { spis, exchange, from_initiator: false, response: true, message_id: 0 };
        let mut buffer = [0; 100];
        let lie = message::write(&mut buffer, &header, |writer| writer.notify_type(error));
        net.forge(to, from, lie.unwrap());
        net.pass(2000);
        net.check_settled();
    }
}

#[test]
fn nothing_that_is_sent_again_has_any_effect() {
    let mut net = recorded();
    let (before, sent) = (events(&net), net.messages);
    let recording = net.link.recording.take().unwrap();
    for flight in &recording {
        net.link.inject(net.now + 1, flight.clone());
    }
    net.pass(1000);
    let answers = net.messages - sent;
    println!("{} packets again, {answers} answers", recording.len());
    net.pass(60_000);
    unimpressed(&mut net, &before);
    let again: usize = net.messages - sent;
    assert!(again < 12, "{again} answers");
}

#[test]
fn nothing_that_is_sent_again_from_elsewhere_moves_the_peer() {
    let mut net = recorded();
    let before = events(&net);
    let elsewhere: SocketAddr = "198.51.100.66:4500".parse().unwrap();
    for (_, to, message) in net.recorded() {
        net.forge(elsewhere, to, &message);
    }
    net.pass(60_000);
    unimpressed(&mut net, &before);
}

#[test]
fn junk_has_no_effect() {
    let mut net = recorded();
    let before = events(&net);
    let mut random = SplitMix64::new(9);
    let recorded = net.recorded();
    for round in 0..200 {
        for (from, to, message) in &recorded {
            let mut junk = message.clone();
            for _ in 0..=random.below(4) {
                let at = random.below(junk.len() as u64) as usize;
                match random.below(3) {
                    0 => junk[at] ^= 1 << random.below(8),
                    1 => junk[at] = random.draw() as u8,
                    _ => junk.truncate(at.max(1)),
                }
            }
            if round % 2 == 0 && junk.len() >= 28 {
                let len = junk.len() as u32;
                junk[24..28].copy_from_slice(&len.to_be_bytes());
            }
            // Otherwise it is a replay, or somebody new who asks.
            if junk != *message && junk.get(18) != Some(&34) {
                net.forge(*from, *to, &junk);
            }
        }
        net.pass(50);
    }
    unimpressed(&mut net, &before);
}
