//! Messages of ours that go in fragments (RFC 7383).

use super::*;

/// A connection whose ends list 32 networks behind Bob.
fn wordy() -> Pair {
    let mut pair = Pair::keys();
    let networks = (0..32).map(|number| std::format!("fd02:{number}::/32").parse().unwrap());
    pair.alice.pad.remote = networks.collect();
    pair.bob.pad.local = vec!["fd02::/16".parse().unwrap()];
    pair
}

/// Whether a datagram is a fragment, and belongs to an exchange of this type.
fn is_fragment(datagram: &Datagram, exchange: ExchangeType) -> bool {
    datagram.bytes[16] == PayloadType::SKF.0 && datagram.bytes[18] == exchange.0
}

#[test]
fn what_does_not_fit_one_datagram_is_sent_in_fragments() {
    let mut pair = wordy();
    pair.connect();
    let fragments =
        |pair: &Pair, exchange| pair.sent.iter().filter(|sent| is_fragment(sent, exchange)).count();
    assert_eq!(fragments(&pair, ExchangeType::IKE_AUTH), 4, "request and answer, of two each");
    let now = pair.now;
    pair.alice.call(|ike, cx| ike.rekey_child(now, cx, PEER));
    pair.advance(SECOND * 10);
    assert_eq!(fragments(&pair, ExchangeType::CREATE_CHILD_SA), 4);
    // So do the IKE SAs that succeed the first one.
    pair.alice.call(|ike, cx| ike.rekey(now, cx, PEER));
    pair.advance(SECOND * 10);
    let now = pair.now;
    pair.alice.call(|ike, cx| ike.rekey_child(now, cx, PEER));
    pair.advance(SECOND * 10);
    assert_eq!(fragments(&pair, ExchangeType::CREATE_CHILD_SA), 8);
    pair.assert_up();
    assert_eq!(pair.bob.sad.outbound.as_ref().unwrap().local.len(), 32);
    let longest = pair.sent.iter().map(|sent| sent.bytes.len()).max();
    assert_eq!(longest, Some(crate::ike::MAX_MESSAGE_LEN));
}

#[test]
fn all_fragments_are_sent_again_as_they_were() {
    for lost in 0..4 {
        let mut pair = wordy();
        pair.initiate();
        let mut seen = 0;
        pair.advance_with(SECOND * 3, |_, datagram| {
            let fragment = is_fragment(datagram, ExchangeType::IKE_AUTH);
            seen += usize::from(fragment);
            !fragment || seen != lost + 1
        });
        pair.assert_up();
        let auth = |sent: &&Datagram| is_fragment(sent, ExchangeType::IKE_AUTH);
        let [requests, answers] = [true, false].map(|to_bob| {
            let sent = pair.sent.iter().filter(auth);
            let sent = sent.filter(|sent| (sent.to.ip() == pair.bob.address) == to_bob);
            sent.map(|sent| sent.bytes.clone()).collect::<Vec<_>>()
        });
        assert_eq!(requests.len(), 4, "the request, and once more");
        assert_eq!(requests[..2], requests[2..]);
        // If Bob has answered before, the first fragment alone has him do it again.
        assert_eq!(answers.len(), if lost < 2 { 2 } else { 4 });
        assert_eq!(answers[..2], answers[answers.len() - 2..]);
    }
}

#[test]
fn an_answer_is_asked_for_again_by_the_first_fragment_alone() {
    let mut pair = wordy();
    pair.connect();
    let to_bob = pair.sent.iter().filter(|sent| sent.to.ip() == pair.bob.address);
    let fragments = to_bob.filter(|sent| is_fragment(sent, ExchangeType::IKE_AUTH));
    let fragments: Vec<Datagram> = fragments.cloned().collect();
    pair.deliver(fragments[1].clone());
    assert!(pair.wire.is_empty());
    pair.deliver(fragments[0].clone());
    assert_eq!(pair.wire.len(), 2, "all of the answer");
    pair.wire.clear();
    pair.deliver(fragments[1].clone());
    assert!(pair.wire.is_empty());
}

#[test]
fn a_peer_that_takes_no_fragments_gets_none() {
    let mut pair = Pair::keys();
    pair.connect();
    let (now, wordy) = (pair.now, wordy());
    let at = pair.alice.ike.table.find_peer(PEER).unwrap();
    pair.alice.call(|ike, cx| {
        ike.table.with(at, now, cx, &mut |sa, _| {
            sa.link.fragments = false;
            crate::ike::sa::Outcome::Keep
        });
    });
    pair.alice.pad.remote = wordy.alice.pad.remote;
    pair.alice.call(|ike, cx| ike.rekey_child(now, cx, PEER));
    pair.settle();
    let down = IkeEvent::Down(PEER, Reason::TooLong);
    assert!(pair.alice.events.contains(&down), "{:?}", pair.alice.events);
    assert!(!pair.sent.iter().any(|sent| sent.bytes[16] == PayloadType::SKF.0));
}
