//! What the tunnel does of its own accord, and what it stops doing.

use std::time::Duration;

use simplevpn_core::{Discard, Event, Offset, PeerId};
use simplevpn_tests::sim::{Datagrams, Net, Percent, Tie};

use crate::places::{inner, on_ipv4};

const PEER: PeerId = PeerId(0);

fn pair(tie: &Tie) -> Net {
    Net::pair([on_ipv4(161), on_ipv4(160)], tie, Percent::NONE, 1)
}

/// When packets were sent while `ms` pass and `app` is asked at every wake-up.
fn sending_times(net: &mut Net, ms: u64, mut app: impl FnMut(&mut Net)) -> Vec<u64> {
    let (begin, end) = (net.now, net.now + ms);
    let mut sent = net.link.sent();
    let mut times = Vec::new();
    net.run(ms, |net| {
        app(net);
        times.extend((sent..net.link.sent()).map(|_| net.now - begin));
        sent = net.link.sent();
        net.now == end
    });
    times
}

#[test]
fn without_keepalives_a_silent_tunnel_is_silent() {
    let mut net = pair(&Tie::default());
    assert_eq!(sending_times(&mut net, 3_600_000, |_| {}), []);
}

#[test]
fn keepalives_are_sent_after_silence_and_reach_no_stack() {
    let mut net = pair(&Tie::default());
    let sealer = &mut net.endpoints[0].tunnel().sealer;
    sealer.set_keepalive(PEER, Some(Duration::from_secs(20)));
    // The first tells the peer where we are.
    let times = sending_times(&mut net, 110_000, |_| {});
    assert_eq!(times, [0, 20_000, 40_000, 60_000, 80_000, 100_000]);
    assert_eq!(net.endpoints[1].dropped(Discard::Dummy), 6);
    assert_eq!(net.reached(), 0);
    assert!(net.endpoints[1].tunnel().opener.peer(PEER).unwrap().traffic().last.is_some());

    let sealer = &mut net.endpoints[0].tunnel().sealer;
    sealer.set_keepalive(PEER, None);
    assert_eq!(sending_times(&mut net, 110_000, |_| {}), []);
}

#[test]
fn a_greeting_is_sent_once_and_at_once() {
    let mut net = pair(&Tie::default());
    net.endpoints[0].tunnel().sealer.greet(PEER);
    assert_eq!(sending_times(&mut net, 3_600_000, |_| {}), [0]);
    assert_eq!(net.endpoints[1].dropped(Discard::Dummy), 1);
    assert!(net.endpoints[1].tunnel().opener.peer(PEER).unwrap().traffic().last.is_some());
}

#[test]
fn what_is_sent_saves_the_keepalive() {
    let mut net = pair(&Tie::default());
    let address = inner(&net.endpoints[1].setup, false, Offset::default());
    let [client, server] = [Datagrams::bind(&mut net, 0, 5000), Datagrams::bind(&mut net, 1, 9)];
    client.send(&mut net, (address, 9), b"first");
    net.pass(1000);
    let sealer = &mut net.endpoints[0].tunnel().sealer;
    sealer.set_keepalive(PEER, Some(Duration::from_secs(20)));
    let silence_begins = (0..5)
        .map(|_| {
            net.pass(15_000);
            client.send(&mut net, (address, 9), b"again");
            net.now
        })
        .last();
    net.pass(5000);
    assert_eq!(net.endpoints[1].dropped(Discard::Dummy), 0);
    assert_eq!(net.link.sent(), 6);
    assert_eq!(std::iter::from_fn(|| server.receive(&mut net)).count(), 6);

    let begin = net.now - silence_begins.unwrap();
    let times = sending_times(&mut net, 50_000, |_| {});
    let silences: Vec<u64> = times.iter().map(|time| time + begin).collect();
    let [first, second] = silences[..] else { panic!("{silences:?}") };
    // Deadlines within a second share a look at all peers.
    assert!((20_000..=21_000).contains(&first) && (20_000..=21_000).contains(&(second - first)));
}

#[test]
fn the_end_of_the_sequence_numbers_is_announced_and_then_final() {
    for esn in [true, false] {
        let first = u64::from(u32::MAX) - 99;
        let limit = u64::from(u32::MAX);
        let mut net = pair(&Tie { esn, first, limit, announce_below: 20, ..Tie::default() });
        let address = inner(&net.endpoints[1].setup, false, Offset::default());
        let [client, server] =
            [Datagrams::bind(&mut net, 0, 5000), Datagrams::bind(&mut net, 1, 9)];
        let mut arrived = 0;
        let mut announced_after = None;
        for sent in 1..=120 {
            client.send(&mut net, (address, 9), &[sent]);
            net.pass(10);
            arrived += usize::from(server.receive(&mut net).is_some());
            if net.endpoints[0].events.contains(&Event::Exhausting(PEER)) {
                announced_after.get_or_insert(sent);
            }
        }
        assert_eq!(announced_after, Some(81), "19 are left");
        let announcements = net.endpoints[0].events.iter();
        assert_eq!(announcements.filter(|event| matches!(event, Event::Exhausting(_))).count(), 1);
        assert_eq!((arrived, net.link.sent()), (100, 100));
        assert_eq!(net.endpoints[0].dropped(Discard::SequenceExhausted), 20);

        // More numbers exist only with ESN.
        net.endpoints[0].events.clear();
        net.endpoints[0].tunnel().sealer.extend(PEER, u64::MAX, 0);
        client.send(&mut net, (address, 9), b"more");
        net.pass(10);
        assert_eq!(server.receive(&mut net).is_some(), esn);
    }
}
