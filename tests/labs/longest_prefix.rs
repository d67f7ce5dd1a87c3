//! The longest prefix wins: connected networks inside a peer's prefix, and prefixes of two peers
//! that nest.

use std::time::Duration;

use simplevpn_tests::lab::daemon::{KeyPair, Peer, Vpn};
use simplevpn_tests::lab::process::eventually;
use simplevpn_tests::lab::{Host, Lab, ip};

use crate::ike::PROMPT;
use crate::topology::assert_secret;

/// What the spokes know of the hub: everything private.
const WIDE: &str = "10.0.0.0/8 172.16.0.0/12 fd00::/16";

/// ```text
///  client -- lan a wan ====================== wan hub lan -- server
///  10.1.2.2       192.0.2.1            192.0.2.2       10.9.0.2
///  fd00:12::2     2001:db8::1        2001:db8::2       fd00:9::2
///            `- docker0 -- container 172.17.0.2, fd00:17::2: comes and goes
/// ```
///
/// The way out of a is the hub's own wire, so that what is not in the tunnel is seen there.
struct Spoke {
    client: Host,
    a: Host,
    hub: Host,
    server: Host,
    container: Host,
    of_a: Vpn,
    of_hub: Vpn,
}

impl Spoke {
    fn new(lab: &Lab) -> Spoke {
        let [client, a, hub, server, container] =
            lab.hosts(["client", "a", "hub", "server", "container"]);
        lab.link(
            client.port("eth0", "10.1.2.2/24 fd00:12::2/64"),
            a.port("lan", "10.1.2.1/24 fd00:12::1/64"),
        );
        lab.link(
            a.port("wan", "192.0.2.1/24 2001:db8::1/64"),
            hub.port("wan", "192.0.2.2/24 2001:db8::2/64"),
        );
        lab.link(
            hub.port("lan", "10.9.0.1/24 fd00:9::1/64"),
            server.port("eth0", "10.9.0.2/24 fd00:9::2/64"),
        );
        client.default_via("10.1.2.1 fd00:12::1");
        server.default_via("10.9.0.1 fd00:9::1");
        a.forwards().default_via("192.0.2.2 2001:db8::2");
        hub.forwards();
        let (at_a, at_hub) = (KeyPair::new(&a), KeyPair::new(&hub));
        let to_hub = Peer::ike("hub").option("public_key", &at_hub.public).at("192.0.2.2");
        let of_a = Vpn::new().option("private_key", &at_a.private).peer(to_hub.allowed(WIDE));
        let to_a = Peer::ike("a").option("public_key", &at_a.public);
        let to_a = to_a.allowed("10.1.2.0/24 172.17.0.0/16 fd00:12::/64 fd00:17::/64");
        let of_hub = Vpn::new().option("private_key", &at_hub.private).peer(to_a);
        Spoke { client, a, hub, server, container, of_a, of_hub }
    }

    /// Both sides of the tunnel reach each other.
    fn assert_connected(&self) {
        for (of_server, of_client) in [("10.9.0.2", "10.1.2.2"), ("fd00:9::2", "fd00:12::2")] {
            assert!(self.client.reaches_within(of_server, PROMPT), "{of_server}");
            self.client.assert_uses(&self.server, of_server);
            self.server.assert_uses(&self.client, of_client);
        }
    }

    /// a and its LAN reach each other in the clear.
    fn assert_at_home(&self) {
        for (of_client, of_a) in [("10.1.2.2", "10.1.2.1"), ("fd00:12::2", "fd00:12::1")] {
            assert!(self.a.pings(of_client), "from the router to its LAN at {of_client}");
            assert!(self.client.pings(of_a), "from the LAN to its router at {of_a}");
        }
    }

    /// Containers, as a program that manages them makes them.
    fn containers_come(&self, lab: &Lab) {
        lab.link(
            self.a.port("docker0", "172.17.0.1/16 fd00:17::1/64"),
            self.container.port("eth0", "172.17.0.2/16 fd00:17::2/64"),
        );
        self.container.default_via("172.17.0.1 fd00:17::1");
    }
}

#[test]
fn a_lan_inside_a_wide_prefix_stays_and_all_else_goes_through_the_tunnel() {
    for steering in ["policy", "route"] {
        let lab = Lab::new();
        let spoke = Spoke::new(&lab);
        let of_a = spoke.of_a.clone().steering(steering);
        let wire = spoke.hub.capture("wan");
        let _hub = spoke.hub.starts(&spoke.of_hub);
        let running = spoke.a.starts(&of_a);
        spoke.assert_connected();
        spoke.assert_at_home();
        assert_eq!(running.counter("clear_text"), 0, "{}", running.json());

        // Somebody talks to the containers all the time: they are behind the hub, or here.
        let talk = |host: &Host, to: &str| {
            let mut ping = host.command(&format!("ping -q -i 0.01 -w 60 {to}"));
            ping.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            ping.spawn().unwrap()
        };
        let talkers = [&spoke.a, &spoke.client]
            .map(|host| ["172.17.0.2", "fd00:17::2"].map(|to| talk(host, to)));
        for round in 0..3 {
            spoke.containers_come(&lab);
            for address in ["172.17.0.2", "fd00:17::2"] {
                let reached = spoke.a.reaches_within(address, Duration::from_secs(3));
                assert!(reached, "{steering}, round {round}: {address} is not reached here");
            }
            assert!(spoke.container.reaches_within("10.9.0.2", PROMPT), "through the tunnel");
            spoke.assert_at_home();
            match round {
                0 => spoke.a.run("ip link del docker0"),
                // The addresses go and the device stays.
                1 => {
                    spoke.a.run("ip addr flush dev docker0");
                    std::thread::sleep(Duration::from_millis(500));
                    spoke.a.run("ip link del docker0")
                }
                _ => spoke.a.run("ip link set docker0 down"),
            };
            std::thread::sleep(Duration::from_millis(500));
        }
        // Neither is it forgotten when there is no daemon.
        running.dies();
        spoke.assert_at_home();
        assert_eq!(spoke.client.ping_sized(ip("10.9.0.2"), 56, 2).right, 0);
        assert_eq!(spoke.a.ping_sized(ip("172.17.0.2"), 56, 2).right, 0);
        for mut ping in talkers.into_iter().flatten() {
            let _ = ping.kill();
            let _ = ping.wait();
        }
        assert_secret(&wire.finish());

        let _again = spoke.a.starts(&of_a);
        spoke.assert_connected();
        spoke.assert_at_home();
    }
}

///  client -- lan a, with nothing but `simplevpn guard` and the same file
#[test]
fn a_guard_that_runs_before_the_network_closes_around_the_lan_of_its_file() {
    let lab = Lab::new();
    let [client, a] = lab.hosts(["client", "a"]);
    let peer = Peer::ike("hub").option("public_key", &KeyPair::new(&a).public).allowed(WIDE);
    let vpn = Vpn::new().option("private_key", &KeyPair::new(&a).private).peer(peer);
    // The LAN's section stands in the same file, as on a router.
    let lan = "config interface 'lan'\n\toption proto 'static'\n\tlist ipaddr '10.1.2.1/24'\n\
               \tlist ip6addr 'fd00:12::1/64'\n";
    let file = a.dir().join("guarded");
    std::fs::write(&file, format!("{vpn}{lan}")).unwrap();
    let guarded = a.simplevpn_says(&format!("guard {}", file.display()));
    assert!(guarded.success, "{}", guarded.stderr);
    lab.link(
        client.port("eth0", "10.1.2.2/24 fd00:12::2/64"),
        a.port("lan", "10.1.2.1/24 fd00:12::1/64"),
    );
    a.default_via("10.1.2.2 fd00:12::2");
    for (of_client, of_a) in [("10.1.2.2", "10.1.2.1"), ("fd00:12::2", "fd00:12::1")] {
        assert!(a.pings(of_client) && client.pings(of_a), "{of_client}");
    }
    for closed in ["10.1.3.1", "fd00:13::1"] {
        assert!(!a.attempt(&format!("ping -c 1 -W 1 {closed}")).success);
        let way = a.attempt(&format!("ip route get {closed}"));
        assert!(!way.stdout.contains("lan"), "{}", way.stdout);
    }
}

/// ```text
///  client -- a 192.0.2.1 --+-- 192.0.2.2 hub -- server 10.9.0.2
///  10.1.2.2                +-- 192.0.2.3 b   -- site 10.5.0.2
/// ```
#[test]
fn a_site_inside_the_hubs_prefix_is_reached_directly() {
    let lab = Lab::new();
    let [client, a, hub, server, b, site] =
        lab.hosts(["client", "a", "hub", "server", "b", "site"]);
    lab.link(client.port("eth0", "10.1.2.2/24"), a.port("lan", "10.1.2.1/24"));
    lab.link(hub.port("lan", "10.9.0.1/24"), server.port("eth0", "10.9.0.2/24"));
    lab.link(b.port("lan", "10.5.0.1/16"), site.port("eth0", "10.5.0.2/16"));
    lab.switch([
        a.port("wan", "192.0.2.1/24"),
        hub.port("wan", "192.0.2.2/24"),
        b.port("wan", "192.0.2.3/24"),
    ]);
    for (host, gateway) in [(&client, "10.1.2.1"), (&server, "10.9.0.1"), (&site, "10.5.0.1")] {
        host.default_via(gateway);
    }
    for gateway in [&a, &hub, &b] {
        gateway.forwards();
    }
    a.default_via("192.0.2.2");
    let [at_a, at_hub, at_b] = [&a, &hub, &b].map(KeyPair::new);
    let hubs = Peer::ike("hub").option("public_key", &at_hub.public).at("192.0.2.2");
    let direct = Peer::ike("b").option("public_key", &at_b.public).at("192.0.2.3");
    let only_hub = Vpn::new().option("private_key", &at_a.private).peer(hubs.allowed("10.0.0.0/8"));
    let both = only_hub.clone().peer(direct.allowed("10.5.0.0/16"));
    let knows_a = |keys: &KeyPair| {
        let to_a = Peer::ike("a").option("public_key", &at_a.public).allowed("10.1.2.0/24");
        Vpn::new().option("private_key", &keys.private).peer(to_a)
    };
    let _hub = hub.starts(&knows_a(&at_hub));
    let at_b = b.starts(&knows_a(&at_b));
    let wire = a.capture("wan");
    let mut running = a.starts(&both);
    for (other, address) in [(&server, "10.9.0.2"), (&site, "10.5.0.2")] {
        assert!(client.reaches_within(address, PROMPT), "{address}:\n{}", running.show());
        client.assert_uses(other, address);
        a.assert_uses(other, address);
    }
    site.assert_uses(&client, "10.1.2.2");

    // The hub cannot speak for the site, whatever it said before.
    hub.run("ip addr add 10.5.0.9/32 dev lo");
    let before = running.counter("outside_selector");
    assert_eq!(hub.ping_with(ip("10.1.2.2"), "-I 10.5.0.9", 3).right, 0);
    assert!(running.counter("outside_selector") >= before + 3, "{}", running.json());
    hub.run("ip addr del 10.5.0.9/32 dev lo");

    assert_secret(&wire.finish());

    // What is the site's does not go to the hub when the site is gone.
    let wire = a.capture("wan");
    let to_hub = hub.capture("vpn0");
    at_b.dies();
    assert_eq!(client.ping_sized(ip("10.5.0.2"), 56, 3).right, 0);
    to_hub.finish().assert_none("led astray", |frame| frame.concerns(ip("10.5.0.2")));
    // Without a section of its own it is one of the hub's.
    running.reloads(&only_hub);
    let led = eventually(PROMPT, || {
        let to_hub = hub.capture("vpn0");
        client.ping_sized(ip("10.5.0.2"), 56, 1);
        to_hub.finish().count(|frame| frame.bytes.windows(4).any(|w| w == [10, 5, 0, 2])) > 0
    });
    assert!(led, "{}", running.show());
    wire.finish().assert_none("leaked", |frame| frame.concerns(ip("10.5.0.2")));
}
