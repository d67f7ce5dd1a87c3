//! What IKE costs a responder: connections a second on one core, in memory, and bytes for each.
//!
//! Only what the responder does is timed: IKE_SA_INIT and IKE_AUTH with the first child, which is
//! two key exchanges' worth of curve arithmetic, and its data plane installing the SAs. The
//! fastest of some rounds is what the machine can do when nobody disturbs.
//! `cargo run --release -p simplevpn-tests --bin ike-bench`

use std::time::{Duration, Instant};

use simplevpn_core::PeerId;
use simplevpn_core::crypto::AnyAead;
use simplevpn_core::esp::window_storage;
use simplevpn_core::ike::{IkePath, IkeSa, MAX_MESSAGE_LEN};
use simplevpn_core::sad::{InboundSa, OutboundSa};
use simplevpn_tests::ike::{Net, Node};

const ROUNDS: usize = 101;
const CONNECTIONS: u32 = 4;

fn main() {
    println!("connections a second of one core (median, fastest of {ROUNDS} rounds)");
    for (name, net) in [("Ed25519", Net::pair as fn(u64) -> Net), ("preshared key", Net::psk_pair)]
    {
        let mut rounds: Vec<[Duration; 2]> = (0..ROUNDS).map(|at| round(net(at as u64))).collect();
        for (at, role) in ["initiator", "responder"].iter().enumerate() {
            rounds.sort_by_key(|round| round.get(at).copied());
            let rate = |at_round: usize| {
                let time = rounds.get(at_round).and_then(|round| round.get(at)).copied();
                f64::from(CONNECTIONS) / time.unwrap_or_default().as_secs_f64()
            };
            println!("   {name:14} {role:10} {:6.0} {:6.0}", rate(ROUNDS / 2), rate(0));
        }
    }
    let ike = size_of::<IkeSa>();
    let esp = size_of::<InboundSa<'_, AnyAead>>() + size_of::<OutboundSa<AnyAead>>();
    let window = window_storage(2048) * size_of::<u32>();
    println!(
        "bytes: {ike} for an IKE SA with what it knows of its child, {esp} for the child's keys in \
         the data plane, {window} for its replay window: {}",
        ike + esp + window
    );
}

/// How long both ends took for all connections of a round.
fn round(net: Net) -> [Duration; 2] {
    let mut nodes = net.nodes;
    let mut spent = [Duration::ZERO; 2];
    let mut now = 1000;
    for _ in 0..CONNECTIONS {
        connect(&mut nodes, now, &mut spent);
        for (node, other) in nodes.iter_mut().zip([1, 0]) {
            node.call(now, |ike, _, cx| ike.forget(cx, PeerId(other)));
        }
        now += 1000;
    }
    spent
}

fn connect(nodes: &mut [Node], now: u64, spent: &mut [Duration; 2]) {
    let [initiator, responder] = nodes else { return };
    let target = initiator.target(responder.address);
    let started = Instant::now();
    initiator.call(now, |ike, now, cx| ike.initiate(now, cx, PeerId(1), &target));
    spent[0] += started.elapsed();
    let mut ends = [(initiator, 1), (responder, 0)];
    let mut buffer = [0; MAX_MESSAGE_LEN];
    let mut messages = 0;
    loop {
        let [(from, _), (to, at)] = {
            let [a, b] = &mut ends;
            if messages % 2 == 0 {
                [(&mut a.0, 0), (&mut b.0, 1)]
            } else {
                [(&mut b.0, 1), (&mut a.0, 0)]
            }
        };
        let Some(transmit) = from.ike.poll_transmit(&mut buffer) else { break };
        let IkePath { local, remote, natt } = transmit.path;
        let path = IkePath { local: remote, remote: local, natt };
        let Some(message) = buffer.get_mut(..transmit.len) else { break };
        let started = Instant::now();
        to.call(now, |ike, now, cx| ike.handle(now, cx, &path, message));
        spent[at] += started.elapsed();
        messages += 1;
    }
    for (node, other) in &mut ends {
        while node.ike.poll_event().is_some() {}
        assert!(node.database.outbound(PeerId(*other)).is_some(), "they are not connected");
    }
    assert_eq!(messages, 4, "two round trips");
}
