//! The simulated link itself: what the other tests rely on.

use simplevpn_tests::sim::{Net, Percent, Tie, Transfer};

use crate::places::{inner, on_ipv4};

fn run(seed: u64) -> (u64, u64, u64) {
    let setups = [on_ipv4(161), on_ipv4(160)];
    let tie = Tie::default();
    let mut net = Net::pair(setups, &tie, Percent::of_each(5), seed);
    let address = inner(&setups[1], false, tie.offset);
    let mut transfer = Transfer::start(&mut net, 0, 1, address, 80, 200_000);
    net.run(1_000_000, |net| transfer.drive(net));
    (net.now, net.link.sent(), net.accepted)
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
