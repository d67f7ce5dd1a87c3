//! Peers that are numbered anew, and larger storage: what a changed configuration brings, without
//! disturbing connections.
#![allow(clippy::unwrap_used)]

mod ike_pair;

use std::time::Duration;

use ike_pair::{End, PEER, Pair, SLOTS};
use simplevpn_core::PeerId;
use simplevpn_core::ike::{Ike, IkeSlot};

fn slots(count: usize) -> &'static mut [IkeSlot] {
    std::iter::repeat_with(|| None).take(count).collect::<Vec<_>>().leak()
}

/// How many peers an endpoint has a connection with.
fn connections(ike: &Ike<'static>) -> usize {
    (0..1000).map(PeerId).filter(|peer| ike.status(*peer).is_some()).count()
}

fn spi_out(end: &End) -> u32 {
    end.sad.outbound.as_ref().unwrap().spi
}

/// Both ends replace the keys of ESP, one after the other.
fn assert_goes_on(pair: &mut Pair) {
    for alice in [true, false] {
        let before = [spi_out(&pair.alice), spi_out(&pair.bob)];
        let now = pair.now;
        let end = if alice { &mut pair.alice } else { &mut pair.bob };
        end.call(|ike, cx| ike.rekey_child(now, cx, PEER));
        pair.advance(Duration::from_secs(20));
        pair.assert_up();
        assert_ne!([spi_out(&pair.alice), spi_out(&pair.bob)], before, "the old keys");
    }
}

#[test]
fn a_connection_goes_on_in_larger_storage() {
    let mut pair = Pair::keys();
    pair.connect();
    pair.alice.ike.enlarge(slots(SLOTS + 100).into());
    // Less is not taken.
    pair.alice.ike.enlarge(slots(1).into());
    assert_goes_on(&mut pair);
}

#[test]
fn a_connection_goes_on_under_another_number() {
    let mut pair = Pair::keys();
    pair.connect();
    let other = PeerId(3);
    pair.alice.ike.renumber(&|id| (id == PEER).then_some(other));
    assert!(pair.alice.ike.status(PEER).is_none());
    assert!(pair.alice.ike.status(other).is_some());
    assert_eq!(connections(&pair.alice.ike), 1);
    pair.alice.ike.renumber(&|id| (id == other).then_some(PEER));
    assert_goes_on(&mut pair);
    pair.alice.ike.renumber(&|_| None);
    assert_eq!(connections(&pair.alice.ike), 0);
}
