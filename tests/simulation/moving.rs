//! A peer whose address changes.

use std::net::IpAddr;
use std::time::Duration;

use simplevpn_core::{Event, Offset, Path, PeerId};
use simplevpn_tests::sim::{Endpoint, Net, Percent, Tie, Transfer};

use crate::places::{inner, on_ipv4, on_ipv6};

fn remote(endpoint: &mut Endpoint) -> IpAddr {
    endpoint.tunnel().sealer.peer(PeerId(0)).unwrap().path().unwrap().remote()
}

/// The endpoint that moves is the one that sends, or the one that only acknowledges.
#[test]
fn a_transfer_goes_on_when_one_end_moves() {
    for (udp, mover) in [(false, 0), (false, 1), (true, 0), (true, 1)] {
        let setups = [on_ipv4(161), on_ipv4(160)];
        let tie = Tie { udp, ..Tie::default() };
        let mut net = Net::pair(setups, &tie, Percent { lost: 1, ..Percent::NONE }, 1);
        let address = inner(&setups[1], true, Offset::default());
        let mut transfer = Transfer::start(&mut net, 0, 1, address, 80, 2_000_000);
        net.run(100_000, |net| {
            transfer.drive(net);
            transfer.received() > 1_000_000
        });
        let stayer = 1 - mover;
        net.endpoints[stayer].events.clear();
        let elsewhere = on_ipv4(33).outer;
        net.endpoints[mover].move_to(elsewhere);
        // Who moves and only answers is never asked again unless it speaks up.
        let sealer = &mut net.endpoints[mover].tunnel().sealer;
        sealer.set_keepalive(PeerId(0), Some(Duration::from_secs(20)));
        net.run(200_000, |net| transfer.drive(net));

        assert_eq!(remote(&mut net.endpoints[stayer]), elsewhere);
        let moves: Vec<Event> = net.endpoints[stayer].events.drain(..).collect();
        let [Event::Moved(PeerId(0), path)] = moves[..] else { panic!("{moves:?}") };
        assert_eq!((path.remote(), path.local()), (elsewhere, setups[stayer].outer));
        assert_eq!(path.outer_len(), if udp { 28 } else { 20 });
    }
}

/// Packets that were on their way before the move and arrive after it do not undo it.
#[test]
fn late_packets_do_not_bring_a_peer_back() {
    let setups = [on_ipv6(161), on_ipv6(160)];
    let mut net = Net::pair(setups, &Tie::default(), Percent::NONE, 1);
    net.link.recording = Some(Vec::new());
    let address = inner(&setups[1], false, Offset::default());
    let mut transfer = Transfer::start(&mut net, 0, 1, address, 80, 1_000_000);
    net.run(100_000, |net| {
        transfer.drive(net);
        transfer.received() > 500_000
    });
    let acknowledged = net.now + 5;
    net.run(5, |net| {
        transfer.drive(net);
        net.now == acknowledged
    });
    // Everything on its way now is late.
    let mut late = Vec::new();
    while let Some(flight) = net.link.arrival(u64::MAX) {
        late.push(flight);
    }
    assert!(late.iter().filter(|flight| flight.to == setups[1].outer).count() > 10);
    let elsewhere = on_ipv6(33).outer;
    net.endpoints[0].move_to(elsewhere);
    net.run(100_000, |net| {
        transfer.drive(net);
        transfer.received() > 600_000
    });
    assert_eq!(remote(&mut net.endpoints[1]), elsewhere);
    net.endpoints[1].events.clear();
    for flight in late {
        net.link.inject(net.now, flight);
    }
    net.run(100_000, |net| transfer.drive(net));
    assert_eq!(remote(&mut net.endpoints[1]), elsewhere);
    assert!(net.endpoints[1].events.is_empty(), "{:?}", net.endpoints[1].events);
}

/// Who copies a packet and sends it from elsewhere moves nobody.
#[test]
fn a_copy_from_elsewhere_moves_nobody() {
    let setups = [on_ipv6(161), on_ipv6(160)];
    let mut net = Net::pair(setups, &Tie::default(), Percent::NONE, 1);
    net.link.recording = Some(Vec::new());
    let address = inner(&setups[1], false, Offset::default());
    let mut transfer = Transfer::start(&mut net, 0, 1, address, 80, 1_000_000);
    net.run(100_000, |net| transfer.drive(net));
    net.pass(1000);
    for (number, mut flight) in net.link.recording.take().unwrap().into_iter().enumerate() {
        // The source address of an IPv6 header, which nothing protects.
        flight.bytes[8 + 15] = 66;
        if number % 2 == 0 {
            flight.bytes[flight.outer_len + 5] ^= 1; // another sequence number
            flight.altered = true;
        }
        net.link.inject(net.now, flight);
    }
    net.pass(1000);
    assert_eq!(remote(&mut net.endpoints[0]), setups[1].outer);
    assert_eq!(remote(&mut net.endpoints[1]), setups[0].outer);
}

/// A name that leads nowhere does not cost us a peer that speaks to us from where it always was.
#[test]
fn a_peer_aimed_at_elsewhere_is_answered_where_it_speaks_from() {
    let setups = [on_ipv4(161), on_ipv4(160)];
    let mut net = Net::pair(setups, &Tie::default(), Percent::NONE, 1);
    let address = inner(&setups[1], true, Offset::default());
    let mut transfer = Transfer::start(&mut net, 0, 1, address, 80, 1_000_000);
    net.run(100_000, |net| {
        transfer.drive(net);
        transfer.received() > 500_000
    });
    let tunnel = net.endpoints[1].tunnel();
    let path = *tunnel.sealer.peer(PeerId(0)).unwrap().path().unwrap();
    let nowhere = Path::Esp { local: path.local(), remote: on_ipv4(66).outer };
    tunnel.set_path(PeerId(0), Some(nowhere));
    assert_eq!(remote(&mut net.endpoints[1]), on_ipv4(66).outer);
    net.run(100_000, |net| transfer.drive(net));
    assert_eq!(remote(&mut net.endpoints[1]), setups[0].outer);
}
