//! Packet sizes: links of any MTU, with DF and without, datagrams of 64 KiB, and the path MTU.

use std::time::Duration;

use simplevpn_tests::lab::daemon::{Keys, Peer, Vpn};
use simplevpn_tests::lab::process::eventually;
use simplevpn_tests::lab::traffic::MARKER;
use simplevpn_tests::lab::{Host, Lab, ip};

use crate::topology::{SITE_A, SITE_B, Sites, assert_secret};

/// The largest IPv4 packet that gets through with DF set, in bytes.
fn largest(from: &Host, to: &str) -> u16 {
    let (mut passes, mut fails) = (600, 1501);
    while fails - passes > 1 {
        let middle = (passes + fails) / 2;
        let options = format!("-M do -s {}", middle - 28);
        // The first one may be lost to learning.
        let passed = from.ping_with(ip(to), &options, 2).right > 0;
        *(if passed { &mut passes } else { &mut fails }) = middle;
    }
    passes
}

///  client -- a ==ESP, MTU n== b -- server
#[test]
fn links_from_1280_to_1500() {
    for mtu in [1280, 1281, 1350, 1399, 1437, 1492, 1499, 1500] {
        for encap in ["esp", "udp"] {
            let lab = Lab::new();
            let sites = Sites::new(&lab);
            sites.a.mtu("wan", mtu);
            sites.b.mtu("wan", mtu);
            let (a, b) = sites.configurations(Keys::pair(), false, encap);
            let (_a, _b) = (sites.a.starts(&a), sites.b.starts(&b));

            let wire = sites.a.capture("wan");
            sites.client.assert_uses(&sites.server, "10.2.0.2");
            let whole = sites.client.ping_with(ip("10.2.0.2"), "-M dont -s 1472", 3);
            assert!(whole.all(), "MTU {mtu}, {encap}: 1500 bytes without DF");
            // 20 of IPv4, 8 of UDP, 8 of SPI and sequence number, 8 of IV, 16 of ICV; padding
            // length and next header end on a multiple of four.
            let overhead = if encap == "udp" { 60 } else { 52 };
            let room = (mtu - overhead) / 4 * 4 - 2;
            let fits = format!("-M do -s {}", room - 28);
            let passed = sites.client.ping_with(ip("10.2.0.2"), &fits, 2);
            assert!(passed.right > 0, "MTU {mtu}, {encap}: {room} bytes with DF");
            let too_big = format!("-M do -s {}", room - 27);
            let passed = sites.client.ping_with(ip("10.2.0.2"), &too_big, 1);
            assert_eq!(passed.right, 0, "MTU {mtu}, {encap}: {room} bytes and one with DF");
            let seen = wire.finish();
            assert_secret(&seen);
            let limit = usize::from(mtu) + 14;
            seen.assert_none("too big", |frame| frame.bytes.len() > limit);
        }
    }
}

///  client -- a ==ESP, MTU 1280== b -- server: nothing has to be lost to learn what the link says
#[test]
fn the_first_big_datagram_passes_a_narrow_link() {
    for (encap, ipv6) in [("esp", false), ("udp", false), ("esp", true), ("udp", true)] {
        let lab = Lab::new();
        let sites = Sites::new(&lab);
        sites.a.mtu("wan", 1280);
        sites.b.mtu("wan", 1280);
        let (a, b) = sites.configurations(Keys::pair(), ipv6, encap);
        let (a, b) = (sites.a.starts(&a), sites.b.starts(&b));
        let first = sites.client.ping_with(ip("10.2.0.2"), "-M dont -s 1472", 1);
        assert!(first.all(), "{encap}, IPv6 outside: {ipv6}");
        for end in [&a, &b] {
            assert_eq!(end.counter("send_too_big"), 0, "{}", end.json());
        }
    }
}

///  client -- a ==ESP, MTU 1500, 1400, 1500== b -- server
#[test]
fn a_path_follows_the_mtu_of_its_first_link() {
    let lab = Lab::new();
    let sites = Sites::new(&lab);
    let (of_a, of_b) = sites.configurations(Keys::pair(), false, "esp");
    let (a, _b) = (sites.a.starts(&of_a), sites.b.starts(&of_b));
    let has = |mtu: u16| {
        let mtu = format!(" mtu {mtu} ");
        eventually(Duration::from_secs(10), || sites.a.run("ip link show vpn0").contains(&mtu))
    };
    assert!(has(1446), "{}", a.json());
    sites.a.mtu("wan", 1400);
    assert!(has(1346), "{}", a.json());
    sites.a.mtu("wan", 1500);
    assert!(has(1446), "{}", a.json());
}

///  client fd01::2 -- a ==ESP, MTU 1280== b -- fd02::2 server
#[test]
fn ipv6_inside_has_its_1280_bytes_on_the_narrowest_link() {
    for encap in ["esp", "udp"] {
        let lab = Lab::new();
        let sites = Sites::new(&lab);
        sites.a.mtu("wan", 1280);
        sites.b.mtu("wan", 1280);
        let (a, b) = sites.configurations(Keys::pair(), false, encap);
        let (_a, _b) = (sites.a.starts(&a), sites.b.starts(&b));
        let wire = sites.a.capture("wan");
        sites.client.assert_uses(&sites.server, "fd02::2");
        // 40 of IPv6 and 8 of ICMPv6.
        assert!(sites.client.ping_with(ip("fd02::2"), "-M do -s 1232", 3).all(), "{encap}");
        assert!(!wire.finish().contains(MARKER), "{encap}");
    }
}

///  client -- a ==ESP== b -- server
#[test]
fn datagrams_of_64_kib() {
    for encap in ["esp", "udp"] {
        let lab = Lab::new();
        let sites = Sites::new(&lab);
        let (a, b) = sites.configurations(Keys::pair(), false, encap);
        let (_a, _b) = (sites.a.starts(&a), sites.b.starts(&b));
        for (size, address) in
            [(65_507, "10.2.0.2"), (65_000, "10.2.0.2"), (65_527, "fd02::2"), (9000, "fd02::2")]
        {
            let answers = sites.client.udp(&sites.server, ip(address), size, 10).unwrap();
            assert!(answers.all(), "{encap}, {size} bytes to {address}: {answers:?}");
            let answers = sites.a.udp(&sites.server, ip(address), size, 10).unwrap();
            assert!(answers.all(), "{encap}, {size} bytes from a to {address}: {answers:?}");
        }
    }
}

///  client -- a -- middle, MTU 1400 towards b -- b -- server
///             ==================ESP============
#[test]
fn a_narrow_place_between_the_peers() {
    for encap in ["esp", "udp"] {
        let lab = Lab::new();
        let [client, a, middle, b, server] = lab.hosts(["client", "a", "middle", "b", "server"]);
        lab.link(client.port("eth0", "10.1.0.2/24"), a.port("lan", "10.1.0.1/24"));
        lab.link(a.port("wan", "192.0.2.1/28"), middle.port("a", "192.0.2.2/28"));
        lab.link(middle.port("b", "192.0.2.17/28"), b.port("wan", "192.0.2.18/28"));
        lab.link(b.port("lan", "10.2.0.1/24"), server.port("eth0", "10.2.0.2/24"));
        middle.forwards().mtu("b", 1400);
        b.mtu("wan", 1400);
        client.default_via("10.1.0.1");
        server.default_via("10.2.0.1");
        a.forwards().default_via("192.0.2.2");
        b.forwards().default_via("192.0.2.17");
        let (at_a, at_b) = Keys::pair();
        let to_b = Peer::new("b", &at_a).at("192.0.2.18").allowed(SITE_B).option("encap", encap);
        let to_a = Peer::new("a", &at_b).at("192.0.2.1").allowed(SITE_A).option("encap", encap);
        let _a = a.starts(&Vpn::new().peer(to_b));
        let _b = b.starts(&Vpn::new().peer(to_a));

        // The first big packet is lost, and teaches.
        client.ping_with(ip("10.2.0.2"), "-M dont -s 1400", 2);
        client.assert_uses(&server, "10.2.0.2");
        assert!(client.ping_with(ip("10.2.0.2"), "-M dont -s 1472", 3).all(), "{encap}");
        let overhead = if encap == "udp" { 60 } else { 52 };
        assert_eq!(largest(&client, "10.2.0.2"), (1400 - overhead) / 4 * 4 - 2, "{encap}");
        server.assert_uses(&client, "10.1.0.2");
    }
}

///  a 10.0.0.161 ==ESP== 10.0.0.160 b, in every steering mode; one big ping does no lasting harm
#[test]
fn a_big_ping_does_no_lasting_harm() {
    for steering in ["policy", "offset", "route"] {
        let lab = Lab::new();
        let [a, b] = lab.hosts(["a", "b"]);
        lab.switch([a.port("eth0", "10.0.0.161/24"), b.port("eth0", "10.0.0.160/24")]);
        if steering == "route" {
            b.run("ip addr add 10.2.0.1/32 dev lo");
        }
        let (at_a, at_b) = Keys::pair();
        // Only policy and offset can steer towards the peer's own address.
        let (of_a, of_b, target) = match steering {
            "route" => ("10.0.0.161/32", "10.2.0.1/32", "10.2.0.1"),
            _ => ("10.0.0.161/32", "10.0.0.160/32", "10.0.0.160"),
        };
        let peer = |name: &str, keys: &Keys, endpoint: &str, allowed: &str| {
            let peer = Peer::new(name, keys).at(endpoint).allowed(allowed);
            if steering == "offset" { peer.option("offset", "0.0.1.0") } else { peer }
        };
        let at_home = if steering == "route" { "policy" } else { steering };
        let _a =
            a.starts(&Vpn::new().steering(steering).peer(peer("b", &at_a, "10.0.0.160", of_b)));
        let mut to_a = peer("a", &at_b, "10.0.0.161", of_a);
        if steering == "route" {
            to_a = to_a.list("local_ips", of_b);
        }
        let _b = b.starts(&Vpn::new().steering(at_home).peer(to_a));

        a.assert_uses(&b, target);
        let before = largest(&a, target);
        assert!(before > 1400, "{steering}: {before}");
        for _ in 0..3 {
            assert_eq!(a.ping_with(ip(target), "-M do -s 1472", 1).right, 0, "{steering}");
        }
        assert_eq!(largest(&a, target), before, "{steering}: the path shrank");
        a.assert_uses(&b, target);
        b.assert_uses(&a, "10.0.0.161");
    }
}
