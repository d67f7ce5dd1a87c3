//! Uplinks that come late, change, or are several.

use std::time::{Duration, Instant};

use simplevpn_tests::lab::capture::Kind;
use simplevpn_tests::lab::daemon::{Keys, Peer, Vpn};
use simplevpn_tests::lab::{Host, Lab, process};

/// How long a tunnel may take to follow its uplink.
const PROMPT: Duration = Duration::from_millis(2500);

///  client 10.1.0.2 -- a wan - - - 192.0.2.2 b, which is also the name server
struct Late {
    client: Host,
    a: Host,
    b: Host,
}

impl Late {
    fn new(lab: &Lab) -> Late {
        let [client, a, b] = lab.hosts(["client", "a", "b"]);
        lab.link(client.port("eth0", "10.1.0.2/24"), a.port("lan", "10.1.0.1/24"));
        lab.link(a.port("wan", ""), b.port("wan", "192.0.2.2/24"));
        b.run("ip addr add 10.2.0.2/32 dev lo");
        b.run("ip addr add 198.51.100.53/32 dev lo");
        client.default_via("10.1.0.1");
        a.forwards();
        Late { client, a, b }
    }

    fn configurations() -> (Vpn, Vpn) {
        let (at_a, at_b) = Keys::pair();
        let to_b = Peer::new("b", &at_a).at("vpn.example.net").allowed("10.2.0.0/24");
        let to_a = Peer::new("a", &at_b).allowed("10.1.0.0/24");
        let keepalive = to_b.option("persistent_keepalive", "25");
        (Vpn::new().peer(keepalive), Vpn::new().peer(to_a))
    }

    fn wan_comes_up(&self, address: &str) {
        self.a.run(&format!("ip addr add {address} dev wan"));
        self.a.run("ip route add default via 192.0.2.2 dev wan");
    }
}

#[test]
fn a_wan_that_comes_late_is_followed() {
    let lab = Lab::new();
    let net = Late::new(&lab);
    net.a.resolv_conf("nameserver 198.51.100.53\n");
    let _names = net.b.serves_name("198.51.100.53", "vpn.example.net", "192.0.2.2");
    let (of_a, of_b) = Late::configurations();
    let _b = net.b.starts(&of_b);
    let netifd = net.a.has_netifd();
    let a = netifd.starts(&of_a);
    std::thread::sleep(Duration::from_secs(3));
    assert!(a.show().contains("no address known yet"), "{}", a.show());
    net.wan_comes_up("192.0.2.1/24");
    let up = Instant::now();
    assert!(net.client.reaches_within("10.2.0.2", PROMPT), "{}\n{}", a.log(), a.show());
    println!("from WAN to traffic: {:?}", up.elapsed());

    // Another address: PPP came back.
    net.a.run("ip addr flush dev wan");
    std::thread::sleep(Duration::from_secs(1));
    assert!(!net.client.pings("10.2.0.2"));
    net.wan_comes_up("192.0.2.99/24");
    let up = Instant::now();
    assert!(net.client.reaches_within("10.2.0.2", PROMPT), "{}\n{}", a.log(), a.show());
    println!("from the new address to traffic: {:?}", up.elapsed());
    net.client.assert_uses(&net.b, "10.2.0.2");
}

/// A name server that is known only after the WAN is up, as netifd writes it.
#[test]
fn a_name_server_that_comes_late_is_asked() {
    let lab = Lab::new();
    let net = Late::new(&lab);
    let servers = net.a.dir().join("resolv.conf");
    net.a.resolv_conf("# none\n");
    let _names = net.b.serves_name("198.51.100.53", "vpn.example.net", "192.0.2.2");
    let (of_a, of_b) = Late::configurations();
    let _b = net.b.starts(&of_b);
    let mut a = net.a.launches(&of_a);
    a.becomes_ready(Duration::from_secs(5)).unwrap();
    // Long enough for pauses to grow.
    std::thread::sleep(Duration::from_secs(8));
    net.wan_comes_up("192.0.2.1/24");
    std::thread::sleep(Duration::from_millis(300));
    std::fs::write(servers, "nameserver 198.51.100.53\n").unwrap();
    assert!(net.client.reaches_within("10.2.0.2", PROMPT), "{}\n{}", a.log(), a.show());
}

///  a wan1 192.0.2.1 ==== 192.0.2.2 b, and a wan2 198.51.100.1 ==== 198.51.100.2 b
#[test]
fn only_the_tunlink_carries_esp() {
    // An address could be sent to at once, a name has to be asked for first.
    for (encap, endpoint) in [("esp", "203.0.113.2"), ("udp", "vpn.example.net")] {
        let lab = Lab::new();
        let [a, b] = lab.hosts(["a", "b"]);
        lab.link(a.port("wan1", "192.0.2.1/24"), b.port("wan1", "192.0.2.2/24"));
        b.run("ip addr add 203.0.113.2/32 dev lo");
        b.run("ip addr add 203.0.113.53/32 dev lo");
        a.resolv_conf("nameserver 203.0.113.53\n");
        let names = b.serves_name("203.0.113.53", "vpn.example.net", "203.0.113.2");
        a.run("ip route add 203.0.113.0/24 via 192.0.2.2");
        let (at_a, at_b) = Keys::pair();
        let to_b = Peer::new("b", &at_a).at(endpoint).allowed("10.77.0.2/32");
        let to_b = to_b.option("encap", encap).option("persistent_keepalive", "1");
        let of_a = Vpn::new().address("10.77.0.1/32").option("tunlink", "wan2").peer(to_b);
        let to_a = Peer::new("a", &at_b).allowed("10.77.0.1/32").option("encap", encap);
        let _b = b.starts(&Vpn::new().address("10.77.0.2/32").peer(to_a));

        let other = b.capture("wan1");
        let a_runs = a.starts(&of_a);
        assert!(a_runs.log().contains("tunlink wan2: No such device"), "{}", a_runs.log());
        assert!(!a.pings("10.77.0.2"));
        for round in 0..2 {
            lab.link(a.port("wan2", "198.51.100.1/24"), b.port("wan2", "198.51.100.2/24"));
            a.run("ip route add 203.0.113.0/24 via 198.51.100.2 metric 10");
            let reached = a.reaches_within("10.77.0.2", PROMPT);
            assert!(reached, "{encap} {round}: {}\n{}", a_runs.log(), a_runs.show());
            let wire = b.capture("wan2");
            assert!(a.pings("10.77.0.2"));
            let seen = wire.finish();
            let kind = if encap == "esp" { Kind::Esp } else { Kind::UdpEncapsulated };
            assert!(seen.count_kind(kind) >= 2, "{encap} on the chosen uplink");
            a.run("ip link del wan2");
            assert!(process::eventually(PROMPT, || !a.pings("10.77.0.2")));
        }
        assert_eq!(names.asked() > 0, endpoint == "vpn.example.net");
        std::thread::sleep(Duration::from_millis(1500));
        let seen = other.finish();
        // Before wan2 has an address, questions leave it with that of wan1, and answers go there.
        seen.assert_none("on the other uplink", |frame| {
            matches!(frame.kind, Kind::Esp | Kind::UdpEncapsulated | Kind::Udp(_, 53))
        });
        assert!(a_runs.stops().success());
    }
}
