//! How often a peer may replace keys, and what becomes of the IKE SAs that were replaced.

use super::*;

/// Alice has her IKE SA replaced, and never deletes the one before.
fn renew_and_leave(pair: &mut Pair) {
    let now = pair.now;
    pair.alice.call(|ike, cx| ike.rekey(now, cx, PEER));
    pair.settle_with(|_, it| it.bytes[18] != ExchangeType::INFORMATIONAL.0);
}

#[test]
fn replaced_ike_sas_of_one_peer_take_few_slots() {
    let mut pair = Pair::psk();
    pair.connect();
    for round in 0..40 {
        let before = sa(&pair.bob).link.spis;
        renew_and_leave(&mut pair);
        assert_ne!(sa(&pair.bob).link.spis, before, "round {round}");
        for end in [&pair.alice, &pair.bob] {
            assert!(end.ike.len() <= 5, "round {round}: {} IKE SAs", end.ike.len());
        }
        pair.now = pair.now.saturating_add(SECOND * 2);
    }
    pair.assert_up();
    pair.advance(SECOND * 120);
    assert_eq!((pair.alice.ike.len(), pair.bob.ike.len()), (1, 1));
}

#[test]
fn a_peer_that_replaces_keys_without_pause_has_to_wait() {
    for child in [false, true] {
        let mut pair = Pair::psk();
        pair.connect();
        let spi = |pair: &Pair| match child {
            true => pair.alice.sad.outbound.as_ref().unwrap().spi.into(),
            false => sa(&pair.bob).link.spis.initiator,
        };
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..40 {
            let now = pair.now;
            pair.alice.call(|ike, cx| match child {
                true => ike.rekey_child(now, cx, PEER),
                false => ike.rekey(now, cx, PEER),
            });
            pair.settle();
            seen.insert(spi(&pair));
        }
        assert_eq!(seen.len(), 11, "child: {child}");
        pair.advance(SECOND * 60);
        let before = spi(&pair);
        let now = pair.now;
        pair.alice.call(|ike, cx| match child {
            true => ike.rekey_child(now, cx, PEER),
            false => ike.rekey(now, cx, PEER),
        });
        pair.settle();
        assert_ne!(spi(&pair), before, "after a while it may again");
        pair.advance(SECOND * 10);
        pair.assert_up();
    }
}

#[test]
fn when_slots_run_out_what_was_replaced_gives_way() {
    let mut pair = Pair::psk();
    pair.connect();
    (0..3).for_each(|_| renew_and_leave(&mut pair));
    assert_eq!(pair.bob.ike.len(), 4);
    pair.bob.ike.settings_mut().cookie_threshold = 1000;
    let free = pair::SLOTS - 4;
    crowd(&mut pair, free as u64);
    // As if the other slots were all of peers.
    pair.bob.ike.table.strangers = 0;
    let before = sa(&pair.bob).link.spis;
    let now = pair.now;
    pair.alice.call(|ike, cx| ike.rekey(now, cx, PEER));
    pair.settle();
    assert_ne!(sa(&pair.bob).link.spis, before);
    pair.assert_up();
}
