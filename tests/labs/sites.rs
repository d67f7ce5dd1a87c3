//! Scenario 1, different subnets: a LAN client behind one gateway and a server behind the other.

use std::time::Duration;

use simplevpn_tests::lab::daemon::{Keys, Peer, Vpn};
use simplevpn_tests::lab::process::eventually;
use simplevpn_tests::lab::{Lab, ip};

use crate::topology::{SITE_B, Sites, assert_secret};

///  client 10.1.0.2 -- a 192.0.2.1 ==ESP== 192.0.2.2 b -- 10.2.0.2 server
///         fd01::2       fd00::1           fd00::2        fd02::2
fn routed(ipv6: bool, encap: &str) {
    let lab = Lab::new();
    let sites = Sites::new(&lab);
    let (a, b) = sites.configurations(Keys::pair(), ipv6, encap);
    let (a, b) = (sites.a.starts(&a), sites.b.starts(&b));

    let wire = sites.a.capture("wan");
    for (of_server, of_client) in [("10.2.0.2", "10.1.0.2"), ("fd02::2", "fd01::2")] {
        sites.client.assert_uses(&sites.server, of_server);
        sites.server.assert_uses(&sites.client, of_client);
        sites.a.assert_uses(&sites.server, of_server);
    }
    let seen = wire.finish();
    assert_secret(&seen);
    let outer = if ipv6 { ip("fd00::2") } else { ip("192.0.2.2") };
    seen.assert_none("ESP between wrong addresses", |frame| {
        !frame.concerns(outer) && frame.kind != simplevpn_tests::lab::capture::Kind::Neighbour
    });
    assert!(a.counter("packets") > 100 && b.counter("packets") > 100, "{}", a.json());
}

#[test]
fn routed_in_esp_over_ipv4() {
    routed(false, "esp");
}

#[test]
fn routed_in_esp_over_ipv6() {
    routed(true, "esp");
}

#[test]
fn routed_in_udp_over_ipv4() {
    routed(false, "udp");
}

#[test]
fn routed_in_udp_over_ipv6() {
    routed(true, "udp");
}

///  client -- a ==ESP== b -- server, with every cipher, with and without ESN
#[test]
fn every_cipher_with_and_without_extended_sequence_numbers() {
    for cipher in ["chacha20poly1305", "aes128gcm16", "aes256gcm16"] {
        for esn in ["0", "1"] {
            let lab = Lab::new();
            let Sites { client, a, b, server } = Sites::new(&lab);
            let (at_a, at_b) = Keys::pair_of(cipher);
            let of_a = Peer::new("b", &at_a).at("192.0.2.2").allowed(SITE_B).option("esn", esn);
            let of_b =
                Peer::new("a", &at_b).at("192.0.2.1").allowed("10.1.0.0/24").option("esn", esn);
            let _a = a.starts(&Vpn::new().peer(of_a));
            let _b = b.starts(&Vpn::new().peer(of_b));
            client.assert_uses(&server, "10.2.0.2");
        }
    }
}

///  client 10.1.0.2 -- a, masquerades as 10.77.0.1 ==ESP== b -- 10.2.0.2 server
#[test]
fn masqueraded_behind_the_tunnel_address() {
    let lab = Lab::new();
    let Sites { client, a, b, server } = Sites::new(&lab);
    let (at_a, at_b) = Keys::pair();
    a.masquerades("vpn0");
    let _a = a.starts(
        &Vpn::new()
            .address("10.77.0.1/32")
            .address("fd77::1/128")
            .peer(Peer::new("b", &at_a).at("192.0.2.2").allowed(SITE_B)),
    );
    // b knows nothing of the LAN behind a.
    let only_a = Peer::new("a", &at_b).at("192.0.2.1").allowed("10.77.0.1/32 fd77::1/128");
    let _b = b.starts(&Vpn::new().peer(only_a));

    let wire = b.capture("wan");
    let inside = b.capture("lan");
    client.assert_uses(&server, "10.2.0.2");
    client.assert_uses(&server, "fd02::2");
    assert_secret(&wire.finish());
    let inside = inside.finish();
    assert!(inside.count(|frame| frame.concerns(ip("10.77.0.1"))) > 10);
    assert!(inside.count(|frame| frame.concerns(ip("fd77::1"))) > 10);
}

///  client 10.1.0.2 -- 10.1.0.1 a ==ESP== b -- 10.2.0.2 server, and the TUN devices have no address
///         fd01::2     fd01::1                 fd02::2
#[test]
fn a_gateway_without_tunnel_address_speaks_from_its_lan() {
    for steering in ["policy", "route"] {
        let lab = Lab::new();
        let Sites { client, a, b, server } = Sites::new(&lab);
        // What a kernel left to itself would take: an address of the first device.
        a.run("ip addr add 172.16.0.1/32 dev lo");
        a.run("ip addr add fd16::1/128 dev lo nodad");
        let (at_a, at_b) = Keys::pair();
        let (lan_a, lan_b) = ("10.1.0.0/24 fd01::/64", "10.2.0.0/24 fd02::/64");
        let to_b = Peer::new("b", &at_a).at("192.0.2.2").allowed(lan_b).list("local_ips", lan_a);
        let to_a = Peer::new("a", &at_b).at("192.0.2.1").allowed(lan_a).list("local_ips", lan_b);
        let at_a = a.starts(&Vpn::new().steering(steering).peer(to_b));
        let at_b = b.starts(&Vpn::new().steering(steering).peer(to_a));

        for address in ["10.2.0.2", "fd02::2"] {
            a.assert_uses(&server, address);
            client.assert_uses(&server, address);
        }
        assert!(b.pings("10.1.0.1") && b.pings("fd01::1"));
        for end in [&at_a, &at_b] {
            assert_eq!(end.counter("outside_selector"), 0, "{steering}: {}", end.json());
        }

        // A LAN that is renumbered inside its selector is followed.
        a.run("ip addr del 10.1.0.1/24 dev lan");
        a.run("ip addr add 10.1.0.9/24 dev lan");
        let speaks = |source: &str| {
            let source = format!(" src {source} ");
            eventually(Duration::from_secs(10), || {
                a.attempt("ip route get 10.2.0.2").stdout.contains(&source)
            })
        };
        assert!(speaks("10.1.0.9"), "{}", a.run("ip route show table all"));
        assert!(a.pings("10.2.0.2"));
    }
}

///  a 192.0.2.1 ==ESP== 192.0.2.2 b, which protect these addresses; a has another one besides
#[test]
fn without_selectors_a_host_speaks_from_where_its_esp_comes() {
    let lab = Lab::new();
    let Sites { a, b, .. } = Sites::new(&lab);
    a.run("ip addr add 172.16.0.1/32 dev lo");
    let (at_a, at_b) = Keys::pair();
    let to_b = Peer::new("b", &at_a).at("192.0.2.2").allowed("192.0.2.2/32");
    let to_a = Peer::new("a", &at_b).at("192.0.2.1").allowed("192.0.2.1/32");
    let _a = a.starts(&Vpn::new().steering("policy").peer(to_b));
    let at_b = b.starts(&Vpn::new().steering("policy").peer(to_a));
    a.assert_uses(&b, "192.0.2.2");
    assert_eq!(at_b.counter("outside_selector"), 0, "{}", at_b.json());
}

///  client -- a ==ESP== b -- server: what lies outside the traffic selectors does not get through
#[test]
fn selectors_are_kept_on_the_way_in() {
    let lab = Lab::new();
    let Sites { client, a, b, server } = Sites::new(&lab);
    let (at_a, at_b) = Keys::pair();
    let _a =
        a.starts(&Vpn::new().peer(Peer::new("b", &at_a).at("192.0.2.2").allowed("10.2.0.0/24")));
    let only_one = Peer::new("a", &at_b).at("192.0.2.1").allowed("10.1.0.2/32");
    let b_runs = b.starts(&Vpn::new().peer(only_one));

    client.assert_uses(&server, "10.2.0.2");
    let before = b_runs.counter("outside_selector");
    client.run("ip addr add 10.1.0.3/24 dev eth0");
    assert_eq!(client.ping_with(ip("10.2.0.2"), "-I 10.1.0.3", 3).right, 0);
    assert!(b_runs.counter("outside_selector") >= before + 3, "{}", b_runs.json());
    assert!(client.pings("10.2.0.2"));
}
