//! Messages that come twice, or before others that were sent earlier.

use crate::crypto::dh::Group;
use crate::ike::timer::Timer;

use super::*;

/// Only IKE_AUTH is to come: both requests and the answer of IKE_SA_INIT were delivered.
fn at_auth() -> (Pair, Datagram) {
    let mut pair = Pair::psk();
    pair.initiate();
    for _ in 0..2 {
        let datagram = pair.wire.pop_front().unwrap();
        pair.deliver(datagram);
    }
    let request = pair.wire.pop_front().unwrap();
    (pair, request)
}

#[test]
fn a_request_may_overtake_the_answer_that_makes_it_possible() {
    for rekeys in [false, true] {
        let (mut pair, request) = at_auth();
        pair.deliver(request);
        let answer = pair.wire.pop_front().unwrap();
        let now = pair.now;
        pair.bob.call(|ike, cx| {
            if rekeys { ike.rekey_child(now, cx, PEER) } else { ike.probe(now, cx, PEER) }
        });
        pair.collect();
        let early = pair.wire.pop_front().unwrap();
        pair.deliver(early.clone());
        assert!(pair.wire.is_empty() && pair.alice.events.is_empty(), "{:?}", pair.alice.events);
        pair.wire.push_back(answer);
        pair.settle();
        pair.assert_up();
        // Bob repeats it, and gets his answer then.
        let (spi, heard) = (pair.alice.sad.outbound.as_ref().unwrap().spi, pair.bob.status());
        pair.advance(SECOND * 70);
        pair.assert_up();
        assert_eq!(pair.alice.sad.outbound.as_ref().unwrap().spi != spi, rekeys);
        assert!(pair.bob.status().last_heard > heard.last_heard);
        for end in [&pair.alice, &pair.bob] {
            let up =
                |event: &IkeEvent| matches!(event, IkeEvent::Up(_) | IkeEvent::ChildRekeyed(_));
            assert!(end.events.iter().all(up), "{:?}", end.events);
        }
    }
}

#[test]
fn a_request_may_overtake_that_of_ike_auth() {
    let (mut pair, request) = at_auth();
    // Whoever has begun the IKE SA has its keys.
    let (key, salt) = key(true, sa(&pair.alice));
    let header = Header::parse(&request.bytes).unwrap();
    for exchange in [ExchangeType::INFORMATIONAL, ExchangeType::CREATE_CHILD_SA] {
        let mut buffer = vec![0; 200];
        for message_id in [1, 2] {
            let header = Header { exchange, message_id, ..header };
            let unsealed = Unsealed::write(&mut buffer, &header, |_| Ok(())).unwrap();
            let bytes = unsealed.seal(&key, &salt, 5000).unwrap().to_vec();
            pair.deliver(Datagram { bytes, ..request.clone() });
            assert!(pair.wire.is_empty() && pair.bob.events.is_empty());
        }
    }
    pair.wire.push_back(request);
    pair.settle();
    pair.assert_up();
}

/// Bob answers each first request with what Alice has to do first; returns his answer, which she has
/// followed once.
fn asked_for_more(pair: &mut Pair, cookie: bool) -> Datagram {
    if cookie {
        pair.bob.ike.settings_mut().cookie_threshold = 0;
    } else {
        let groups = &mut pair.bob.ike.settings_mut().preferences.groups;
        groups.retain(|group| *group == Group::P256);
    }
    pair.initiate();
    let first = pair.wire.pop_front().unwrap();
    pair.deliver(first);
    let answer = pair.wire.pop_front().unwrap();
    pair.deliver(answer.clone());
    answer
}

#[test]
fn what_was_asked_for_twice_is_done_once() {
    for cookie in [true, false] {
        let mut pair = Pair::psk();
        let answer = asked_for_more(&mut pair, cookie);
        let second = pair.wire.pop_front().unwrap();
        for _ in 0..3 {
            pair.deliver(answer.clone());
            assert!(pair.wire.is_empty(), "cookie: {cookie}");
        }
        assert_eq!(sa(&pair.alice).rumour, None);
        // Bob is busy, and the wire slow.
        pair.advance_with(SECOND * 10, |_, _| false);
        assert_eq!(pair.alice.events, []);
        pair.wire.push_back(second);
        pair.settle();
        pair.assert_up();
    }
}

#[test]
fn a_group_that_was_refused_and_is_asked_for_leads_nowhere() {
    let mut pair = Pair::psk();
    pair.initiate();
    let first = pair.wire.pop_front().unwrap();
    let mut buffer = vec![0; 100];
    let header = Header::parse(&first.bytes).unwrap();
    let header = Header { from_initiator: false, response: true, ..header };
    let group = Group::Curve25519.number().to_be_bytes();
    let bytes = super::super::wire::message::write(&mut buffer, &header, |writer| {
        writer.notify(&Notify::new(NotifyType::INVALID_KE_PAYLOAD, &group))
    });
    let bytes = bytes.unwrap().to_vec();
    pair.deliver(Datagram { from: first.to, to: first.from, natt: false, bytes });
    pair.advance_with(SECOND * 6, |_, _| false);
    assert_eq!(pair.failed(), Some(Reason::ProposalRefused));
}

#[test]
fn a_rumour_is_forgotten_when_an_answer_comes() {
    let mut pair = Pair::psk();
    pair.initiate();
    let first = pair.wire.pop_front().unwrap();
    let mut buffer = vec![0; 100];
    let header = Header::parse(&first.bytes).unwrap();
    let forged = Header { from_initiator: false, response: true, ..header };
    let bytes = super::super::wire::message::write(&mut buffer, &forged, |writer| {
        writer.notify_type(NotifyType::NO_PROPOSAL_CHOSEN)
    });
    let bytes = bytes.unwrap().to_vec();
    pair.deliver(Datagram { from: first.to, to: first.from, natt: false, bytes });
    assert_eq!(sa(&pair.alice).rumour, Some(Reason::ProposalRefused));
    pair.deliver(first);
    let answer = pair.wire.pop_front().unwrap();
    pair.deliver(answer);
    assert_eq!((sa(&pair.alice).rumour, sa(&pair.alice).timers.get(Timer::HalfOpen)), (None, None));
    // IKE_AUTH has the time that it needs.
    let request = pair.wire.pop_front().unwrap();
    pair.advance_with(SECOND * 10, |_, _| false);
    assert_eq!(pair.alice.events, []);
    pair.wire.push_back(request);
    pair.settle();
    pair.assert_up();
}
