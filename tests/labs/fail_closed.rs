//! Fail closed, both ways: nothing leaves in the clear when the daemon is dead, and nothing in the
//! clear comes in as if it had been protected.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use simplevpn_tests::lab::daemon::{Keys, Peer, Vpn};
use simplevpn_tests::lab::raw::udp_packet;
use simplevpn_tests::lab::traffic::MARKER;
use simplevpn_tests::lab::{Host, Lab, ReversePath, ip};

use crate::topology::Sites;

///  client 10.1.0.2 -- a 192.0.2.1 ==ESP== 192.0.2.2 b -- 10.2.0.2 server
///  b would forward what comes in the clear, if a let it out
#[test]
fn after_kill_9_nothing_leaks_and_the_lan_stays() {
    let lab = Lab::new();
    let sites = Sites::new(&lab);
    let Sites { client, a, b, server } = &sites;
    // The trap: in the clear, everything would arrive.
    a.default_via("192.0.2.2 fd00::2");
    b.route("10.1.0.0/24", "192.0.2.1").route("fd01::/64", "fd00::1");
    client.assert_uses(server, "10.2.0.2");
    client.assert_uses(server, "fd02::2");
    let (of_a, of_b) = sites.configurations(Keys::pair(), false, "auto");
    let _b = b.starts(&of_b);
    let daemon = a.starts(&of_a);
    client.assert_uses(server, "10.2.0.2");

    daemon.dies();
    let wire = a.capture("wan");
    for address in ["10.2.0.2", "fd02::2"] {
        assert!(client.tcp(server, ip(address), 1000).is_err(), "TCP to {address}");
        assert_eq!(client.ping_sized(ip(address), 56, 3).right, 0, "ping {address}");
        assert_eq!(a.ping_sized(ip(address), 56, 3).right, 0, "ping {address} from a");
        let answers = client.udp(server, ip(address), 300, 2);
        assert!(!answers.is_ok_and(|answers| answers.right > 0), "UDP to {address}");
    }
    let seen = wire.finish();
    assert!(!seen.contains(MARKER));
    for address in ["10.2.0.2", "fd02::2"] {
        seen.assert_none("leaked", |frame| frame.concerns(ip(address)));
    }
    assert!(client.pings("10.1.0.1") && client.pings("fd01::1"), "the LAN reaches its router");
    assert!(b.pings("192.0.2.1") && a.pings("192.0.2.2"), "on-link hosts reach the router");

    let daemon = a.starts(&of_a);
    client.assert_uses(server, "10.2.0.2");
    client.assert_uses(server, "fd02::2");
    daemon.dies();
    let down = a.simplevpn_says("down vpn0");
    assert!(down.success, "{down:?}");
    assert_eq!(a.run("ip -4 route show table all type unreachable"), "");
}

///  a 10.0.0.161 ==ESP== 10.0.0.160 b: the same for a neighbour, in both ways to steer
#[test]
fn after_kill_9_nothing_leaks_to_a_neighbour() {
    for steering in ["policy", "offset"] {
        let lab = Lab::new();
        let [a, b, c] = lab.hosts(["a", "b", "c"]);
        let switch = lab.switch([
            a.port("eth0", "10.0.0.161/24"),
            b.port("eth0", "10.0.0.160/24"),
            c.port("eth0", "10.0.0.170/24"),
        ]);
        assert!(a.pings("10.0.0.160"), "in the clear it would arrive");
        let (at_a, at_b) = Keys::pair();
        let peer = |keys: &Keys, address: &str| {
            let peer = Peer::new("n", keys).at(address).allowed(&format!("{address}/32"));
            if steering == "offset" { peer.option("offset", "0.0.1.0") } else { peer }
        };
        let vpn = Vpn::new().steering(steering).peer(peer(&at_a, "10.0.0.160"));
        let daemon = a.starts(&vpn);
        let _b = b.starts(&Vpn::new().steering(steering).peer(peer(&at_b, "10.0.0.161")));
        a.assert_uses(&b, "10.0.0.160");

        daemon.dies();
        let wire = switch.capture("a");
        assert!(a.tcp(&b, ip("10.0.0.160"), 1000).is_err(), "{steering}");
        assert_eq!(a.ping_sized(ip("10.0.0.160"), 56, 3).right, 0, "{steering}");
        let answers = a.udp(&b, ip("10.0.0.160"), 300, 2);
        assert!(!answers.is_ok_and(|answers| answers.right > 0), "{steering}");
        assert!(a.pings("10.0.0.170"), "{steering}: other neighbours are reachable");
        let seen = wire.finish();
        assert!(!seen.contains(MARKER));
        seen.assert_none("leaked", |frame| {
            frame.concerns(ip("10.0.0.160")) && !frame.is_protected()
        });
        let _a = a.starts(&vpn);
        a.assert_uses(&b, "10.0.0.160");
    }
}

/// How many packets the firewall table has counted as clear text from protected addresses.
fn rejected(host: &Host) -> u64 {
    let counters = host.run("nft list counters table inet simplevpn_vpn0");
    let words: Vec<&str> = counters.split_whitespace().collect();
    let numbers = words.windows(2).filter(|pair| pair[0] == "packets");
    numbers.filter_map(|pair| pair[1].parse::<u64>().ok()).sum()
}

/// Whether a forged datagram from `attacker` is delivered to `victim`.
fn delivered(attacker: &Host, victim: &Host, from: &str, to: &str) -> bool {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let socket = victim.within(|| UdpSocket::bind(to).unwrap());
    socket.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
    for _ in 0..3 {
        attacker.send_packet(&udp_packet(from, to, MARKER)).unwrap();
    }
    socket.recv_from(&mut [0; 100]).is_ok()
}

///  client 10.1.0.2 -- a 192.0.2.1 --+==ESP== 192.0.2.2 b -- 10.2.0.2 server
///                                   +-- 192.0.2.66 attacker, claims to be the server
#[test]
fn plaintext_that_claims_a_protected_source_is_dropped() {
    let lab = Lab::with_reverse_path(ReversePath::Off);
    let [client, a, b, attacker] = lab.hosts(["client", "a", "b", "attacker"]);
    lab.link(
        client.port("eth0", "10.1.0.2/24 fd01::2/64"),
        a.port("lan", "10.1.0.1/24 fd01::1/64"),
    );
    lab.switch([
        a.port("wan", "192.0.2.1/24 fd00::1/64"),
        b.port("wan", "192.0.2.2/24 fd00::2/64"),
        attacker.port("wan", "192.0.2.66/24 fd00::66/64"),
    ]);
    client.default_via("10.1.0.1 fd01::1");
    attacker.default_via("192.0.2.1 fd00::1");
    a.forwards();
    b.run("ip addr add 10.2.0.1/32 dev lo");
    let forged = [
        ("10.2.0.2:7", &client, "10.1.0.2:9"),
        ("[fd02::2]:7", &client, "[fd01::2]:9"),
        ("10.2.0.2:7", &a, "192.0.2.1:9"),
    ];
    for (from, victim, to) in forged {
        assert!(delivered(&attacker, victim, from, to), "without a tunnel {from} > {to} arrives");
    }
    let (at_a, at_b) = Keys::pair();
    let to_b = Peer::new("b", &at_a).at("192.0.2.2").allowed("10.2.0.0/24 fd02::/64");
    let daemon = a.starts(&Vpn::new().peer(to_b));
    let to_a = Peer::new("a", &at_b).at("192.0.2.1").allowed("10.1.0.0/24");
    let _b = b.starts(&Vpn::new().peer(to_a));
    client.assert_uses(&b, "10.2.0.1");

    for (from, victim, to) in forged {
        assert!(!delivered(&attacker, victim, from, to), "{from} > {to}, tunnel up");
    }
    // Its neighbour's honest traffic is not hurt.
    assert!(delivered(&attacker, &a, "192.0.2.66:7", "192.0.2.1:9"));
    let counted = rejected(&a);
    assert!(counted >= 9, "only {counted} were counted");
    daemon.dies();
    for (from, victim, to) in forged {
        assert!(!delivered(&attacker, victim, from, to), "{from} > {to}, daemon dead");
    }
    assert!(rejected(&a) >= counted + 9, "counted while the daemon is dead, too");
}
