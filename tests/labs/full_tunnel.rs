//! Full tunnel: everything through the gateway, and the router still at home in its LAN.

use std::time::Duration;

use simplevpn_tests::lab::daemon::{KeyPair, Keys, Peer, Vpn};
use simplevpn_tests::lab::process::eventually;
use simplevpn_tests::lab::{Host, Lab, ip};

use crate::topology::assert_secret;

/// ```text
///  client -- lan a wan -- isp -- wan b     b masquerades towards the internet
///  10.1.0.2    198.51.100.2  |  203.0.113.2
///  fd01::2      fd51::2      |  fd13::2
///                            +-- 192.0.2.80 web, 192.0.2.53 dns
///                                fd80::80
/// ```
struct Internet {
    client: Host,
    a: Host,
    isp: Host,
    b: Host,
    web: Host,
    dns: Host,
}

impl Internet {
    fn new(lab: &Lab) -> Internet {
        let [client, a, isp, b, web, dns] = lab.hosts(["client", "a", "isp", "b", "web", "dns"]);
        lab.link(
            client.port("eth0", "10.1.0.2/24 fd01::2/64"),
            a.port("lan", "10.1.0.1/24 fd01::1/64"),
        );
        lab.link(
            a.port("wan", "198.51.100.2/24 fd51::2/64"),
            isp.port("a", "198.51.100.1/24 fd51::1/64"),
        );
        lab.link(
            b.port("wan", "203.0.113.2/24 fd13::2/64"),
            isp.port("b", "203.0.113.1/24 fd13::1/64"),
        );
        lab.link(
            web.port("eth0", "192.0.2.80/28 fd80::80/64"),
            isp.port("web", "192.0.2.81/28 fd80::1/64"),
        );
        lab.link(dns.port("eth0", "192.0.2.53/28"), isp.port("dns", "192.0.2.54/28"));
        for (host, gateways) in [
            (&client, "10.1.0.1 fd01::1"),
            (&a, "198.51.100.1 fd51::1"),
            (&b, "203.0.113.1 fd13::1"),
            (&web, "192.0.2.81 fd80::1"),
            (&dns, "192.0.2.54"),
        ] {
            host.default_via(gateways);
        }
        isp.forwards();
        a.forwards();
        b.forwards().masquerades("wan");
        Internet { client, a, isp, b, web, dns }
    }

    fn configurations(endpoint: &str) -> (Vpn, Vpn) {
        let (at_a, at_b) = Keys::pair();
        let everything = Peer::new("b", &at_a).at(endpoint).allowed("0.0.0.0/0 ::/0");
        let a = Vpn::new().address("10.77.0.1/32").address("fd77::1/128").steering("policy");
        let site_a = "10.1.0.0/24 fd01::/64 10.77.0.1/32 fd77::1/128";
        let b = Vpn::new().peer(Peer::new("a", &at_b).allowed(site_a));
        (a.peer(everything), b)
    }

    /// a is at home in its LAN, and its neighbours on the wire reach it.
    fn assert_at_home(&self) {
        assert!(self.client.pings("10.1.0.1"), "the LAN client reaches its router");
        assert!(self.client.pings("fd01::1"), "the LAN client reaches its router, IPv6");
        assert!(self.a.pings("10.1.0.2"), "the router reaches its LAN");
        assert!(self.a.pings("198.51.100.1"), "the router reaches an on-link host");
        assert!(self.isp.pings("198.51.100.2"), "an on-link host reaches the router");
    }
}

#[test]
fn everything_goes_through_the_tunnel_and_the_lan_stays() {
    let lab = Lab::new();
    let net = Internet::new(&lab);
    let (a, b) = Internet::configurations("203.0.113.2");
    let (_b, _a) = (net.b.starts(&b), net.a.starts(&a));

    let wire = net.isp.capture("a");
    for address in ["192.0.2.80", "fd80::80"] {
        net.client.assert_uses(&net.web, address);
        net.a.assert_uses(&net.web, address);
    }
    assert_secret(&wire.finish());
    net.assert_at_home();
}

#[test]
fn after_kill_9_nothing_leaks_and_a_named_endpoint_recovers() {
    let lab = Lab::new();
    let net = Internet::new(&lab);
    net.a.resolv_conf("nameserver 192.0.2.53\n");
    let names = net.dns.serves_name("192.0.2.53", "vpn.example.net", "203.0.113.2");
    let (a, b) = Internet::configurations("vpn.example.net");
    let _b = net.b.starts(&b);
    let running = net.a.starts(&a);
    net.client.assert_uses(&net.web, "192.0.2.80");
    let asked = names.asked();
    assert!(asked > 0, "the name server was asked");

    running.dies();
    let wire = net.isp.capture("a");
    for address in ["192.0.2.80", "fd80::80"] {
        assert!(net.client.tcp(&net.web, ip(address), 1000).is_err());
        assert_eq!(net.client.ping_sized(ip(address), 56, 3).right, 0);
        assert_eq!(net.a.ping_sized(ip(address), 56, 3).right, 0);
        let answers = net.client.udp(&net.web, ip(address), 300, 2);
        assert!(!answers.is_ok_and(|answers| answers.right > 0));
    }
    let seen = wire.finish();
    for address in ["192.0.2.80", "fd80::80"] {
        seen.assert_none("leaked", |frame| frame.concerns(ip(address)));
    }
    net.assert_at_home();

    let _a = net.a.starts(&a);
    assert!(net.client.reaches_within("192.0.2.80", Duration::from_secs(8)), "recovers");
    net.client.assert_uses(&net.web, "fd80::80");
    assert!(names.asked() > asked, "the name was asked for again");
}

/// A router with a full tunnel and no address of its own in it: its resolver, whose queries its LAN
/// waits for, asks through the tunnel, from the router's address in the LAN.
#[test]
fn the_routers_own_questions_go_through_the_tunnel() {
    let lab = Lab::new();
    let net = Internet::new(&lab);
    // What a kernel left to itself would take.
    net.a.run("ip addr add 172.16.0.1/32 dev lo");
    net.a.resolv_conf("nameserver 192.0.2.53\n");
    let names = net.dns.serves_name("192.0.2.53", "www.example.net", "192.0.2.80");
    let (at_a, at_b) = (KeyPair::new(&net.a), KeyPair::new(&net.b));
    let to_b = Peer::ike("b").option("public_key", &at_b.public).at("203.0.113.2");
    let of_a = Vpn::new().option("private_key", &at_a.private).peer(to_b.allowed("0.0.0.0/0 ::/0"));
    let to_a = Peer::ike("a").option("public_key", &at_a.public).allowed("10.1.0.0/24 fd01::/64");
    let of_b = Vpn::new().option("private_key", &at_b.private).peer(to_a);
    let (_b, running) = (net.b.starts(&of_b), net.a.starts(&of_a));
    assert!(net.client.reaches_within("192.0.2.80", Duration::from_secs(8)), "{}", running.show());

    let wire = net.isp.capture("a");
    let found = || net.a.attempt("getent -s dns ahosts www.example.net").stdout;
    let resolved = eventually(Duration::from_secs(8), || found().starts_with("192.0.2.80"));
    assert!(resolved && names.asked() > 0, "{}\n{}", running.json(), net.a.routing());
    for address in ["192.0.2.80", "fd80::80"] {
        net.a.assert_uses(&net.web, address);
    }
    assert_secret(&wire.finish());
    net.assert_at_home();
}
