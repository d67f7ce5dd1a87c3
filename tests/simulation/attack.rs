//! Somebody on the wire who keeps copies of everything.

use simplevpn_core::{Discard, Offset};
use simplevpn_tests::sim::{Net, Percent, SplitMix64, Tie, Transfer};

use crate::places::{inner, on_ipv4};

fn recorded_transfer(tie: &Tie) -> Net {
    let setups = [on_ipv4(161), on_ipv4(160)];
    let mut net = Net::pair(setups, tie, Percent::NONE, 1);
    net.link.recording = Some(Vec::new());
    let address = inner(&setups[1], false, Offset::default());
    let mut transfer = Transfer::start(&mut net, 0, 1, address, 80, 4_000_000);
    net.run(100_000, |net| transfer.drive(net));
    net.pass(1000);
    net
}

#[test]
fn nothing_that_is_sent_again_reaches_the_stack() {
    for esn in [true, false] {
        let mut net = recorded_transfer(&Tie { esn, ..Tie::default() });
        let before = net.reached();
        let recording = net.link.recording.take().unwrap();
        for flight in &recording {
            net.link.inject(net.now, flight.clone());
        }
        net.pass(1000);
        assert_eq!(net.reached(), before);
        let [mut old, mut replayed, mut forged] = [0; 3];
        for endpoint in &mut net.endpoints {
            old += endpoint.dropped(Discard::TooOld);
            replayed += endpoint.dropped(Discard::Replayed);
            forged += endpoint.dropped(Discard::BadIcv);
        }
        assert_eq!(old + replayed + forged, recording.len() as u64);
        // The last of each direction are in the window. Older ones are too old; with ESN their
        // low half stands for a number of the next 2^32, for which their ICV is wrong.
        assert!(replayed > 2048, "{replayed}");
        assert_eq!(if esn { old } else { forged }, 0);
    }
}

#[test]
fn nothing_that_was_altered_reaches_the_stack() {
    let mut net = recorded_transfer(&Tie::default());
    let (accepted, before) = (net.accepted, net.reached());
    let mut random = SplitMix64::new(5);
    let recording = net.link.recording.take().unwrap();
    for mut flight in recording.iter().cloned() {
        // A number never seen, so that only the ICV is in the way.
        flight.bytes[flight.outer_len + 5] ^= 0x80;
        let bits = (flight.bytes.len() - flight.outer_len) as u64 * 8;
        let bit = random.below(bits) as usize;
        flight.bytes[flight.outer_len + bit / 8] ^= 1 << (bit % 8);
        flight.altered = true;
        net.link.inject(net.now, flight);
    }
    net.pass(1000);
    assert_eq!((net.accepted, net.reached()), (accepted, before));
    let refused: u64 = net.refused.values().sum();
    assert_eq!(refused, recording.len() as u64);
    assert!(net.refused["bad_icv"] > refused * 9 / 10, "{:?}", net.refused);
}

/// After all that noise the tunnel is as good as new.
#[test]
fn the_victims_do_not_notice() {
    let mut net = recorded_transfer(&Tie::default());
    let address = inner(&net.endpoints[1].setup, false, Offset::default());
    let recording = net.link.recording.take().unwrap();
    for (number, mut flight) in recording.into_iter().enumerate() {
        let at = flight.outer_len + 4 + number % 12;
        flight.bytes[at] ^= 0x55;
        flight.altered = true;
        net.link.inject(net.now + number as u64 / 50, flight);
    }
    let mut transfer = Transfer::start(&mut net, 0, 1, address, 81, 4_000_000);
    let (begun, sent) = (net.now, net.link.sent());
    net.run(100_000, |net| transfer.drive(net));
    let mut undisturbed = recorded_transfer(&Tie::default());
    let undisturbed_sent = undisturbed.link.recording.take().unwrap().len() as u64;
    assert_eq!(net.link.sent() - sent, undisturbed_sent);
    assert!(net.now - begun < undisturbed.now);
}
