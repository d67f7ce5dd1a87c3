//! IKE_SA_INIT, IKE_AUTH and INFORMATIONAL between two endpoints: how connections come about, how
//! they do not, and how they end.
#![allow(clippy::unwrap_used, clippy::panic)] // a test that cannot go on has failed

mod ike_pair;

use ike_pair::*;
use simplevpn_core::ike::Phase;

#[test]
fn a_preshared_key_connects() {
    let mut pair = Pair::psk();
    pair.connect();
    assert_eq!(pair.sent.len(), 4, "two round trips");
    let status = pair.alice.status();
    assert_eq!((status.phase, status.initiator, status.ours), (Phase::Up, true, true));
    assert_eq!(pair.bob.status().suite, status.suite);
}

#[test]
fn public_keys_connect() {
    let mut pair = Pair::keys();
    pair.connect();
    assert_eq!(pair.sent.len(), 4, "two round trips");
}
