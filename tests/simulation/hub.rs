//! Several peers of one endpoint.

use simplevpn_core::crypto::Cipher;
use simplevpn_core::{Offset, PeerId};
use simplevpn_tests::sim::{Net, Percent, Setup, Tie, Transfer};

use crate::places::on_ipv4;

/// Two sites that both use 10.0.0.7, and a hub that sees one of them shifted:
///
/// ```text
/// 10.0.0.7  west --+
///                  +-- hub 10.0.0.1
/// 10.0.0.7  east --+   (sees east as 10.0.1.7)
/// ```
fn hub() -> (Net, Offset) {
    let west = on_ipv4(7);
    let east = Setup { outer: on_ipv4(8).outer, ..west };
    let mut net = Net::new(&[on_ipv4(1), west, east], Percent::of_each(2), 1);
    let offset = Offset::new(0x100, 1 << 64);
    net.join(0, 1, &Tie { cipher: Cipher::Aes128Gcm16, ..Tie::default() });
    net.join(0, 2, &Tie { udp: true, offset, ..Tie::default() });
    (net, offset)
}

#[test]
fn a_hub_talks_to_two_sites_with_the_same_addresses_at_once() {
    let (mut net, offset) = hub();
    let [hub, west, east] = [0, 1, 2].map(|at: usize| net.endpoints[at].setup);
    let mut transfers = [
        Transfer::start(&mut net, 0, 1, west.v4.into(), 80, 1_000_000),
        Transfer::start(&mut net, 0, 2, offset.to_host(east.v4.into()), 81, 1_000_000),
        Transfer::start(&mut net, 1, 0, hub.v6.into(), 82, 1_000_000),
        Transfer::start(&mut net, 2, 0, hub.v6.into(), 83, 1_000_000),
    ];
    net.run(1_000_000, |net| {
        let done = transfers.each_mut().map(|transfer| transfer.drive(net));
        done == [true; 4]
    });
    let tunnel = net.endpoints[0].tunnel();
    for id in [PeerId(0), PeerId(1)] {
        assert!(tunnel.sealer.peer(id).unwrap().traffic().bytes > 1_000_000);
        assert!(tunnel.opener.peer(id).unwrap().traffic().bytes > 1_000_000);
    }
}
