//! Datagrams through a tunnel.

use simplevpn_core::Offset;
use simplevpn_tests::sim::{Datagrams, Net, Percent, Tie};

use crate::places::{inner, on_ipv4, on_ipv6, shifted};

#[test]
fn datagrams_of_every_size_come_back_from_where_they_were_sent_to() {
    for (v6, udp) in [(false, false), (false, true), (true, false), (true, true)] {
        let setups = [on_ipv6(161), on_ipv6(160)];
        let tie = Tie { udp, offset: shifted(), ..Tie::default() };
        let mut net = Net::pair(setups, &tie, Percent::NONE, 1);
        let [client, server] =
            [Datagrams::bind(&mut net, 0, 5000), Datagrams::bind(&mut net, 1, 7)];
        let to = (inner(&setups[1], v6, tie.offset), 7);
        let largest = setups[0].mtu - if v6 { 48 } else { 28 };
        for len in 0..=largest {
            let data: Vec<u8> = (0..len).map(|at| (at * 7 + len) as u8).collect();
            client.send(&mut net, to, &data);
            net.run(1000, |net| {
                server.echo(net);
                let Some((from, echoed)) = client.receive(net) else { return false };
                assert_eq!((from.ip(), from.port()), to, "{len} bytes");
                assert!(echoed == data, "{len} bytes");
                true
            });
        }
        assert_eq!(net.reached(), 2 * (largest as u64 + 1));
        assert!(net.refused.is_empty());
    }
}

#[test]
fn what_is_lost_is_lost_and_the_rest_is_whole() {
    let setups = [on_ipv4(161), on_ipv4(160)];
    let mut net = Net::pair(setups, &Tie::default(), Percent::of_each(5), 3);
    let [client, server] = [Datagrams::bind(&mut net, 0, 5000), Datagrams::bind(&mut net, 1, 7)];
    let to = (inner(&setups[1], false, Offset::default()), 7);
    let mut seen = [0u8; 256];
    for number in 0..=255u8 {
        client.send(&mut net, to, &[number; 1000]);
        net.run(200, {
            let end = net.now + 200;
            let seen = &mut seen;
            move |net| {
                server.echo(net);
                while let Some((_, data)) = client.receive(net) {
                    assert!(data.len() == 1000 && data.iter().all(|byte| *byte == data[0]));
                    seen[usize::from(data[0])] += 1;
                }
                net.now == end
            }
        });
    }
    assert!(seen.iter().all(|count| *count <= 1), "nothing comes twice");
    let arrived: usize = seen.iter().map(|count| usize::from(*count)).sum();
    // Both ways are 10 % lossy: lost, or corrupted and hence dropped.
    assert!((180..245).contains(&arrived), "{arrived}");
}
