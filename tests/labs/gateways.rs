//! The gateways themselves use the tunnel: what they send comes from an address inside the traffic
//! selectors that were agreed, though none is configured.

use std::time::Duration;

use simplevpn_tests::lab::daemon::{Daemon, KeyPair, Peer, Vpn};
use simplevpn_tests::lab::process::eventually;
use simplevpn_tests::lab::{Host, Lab};

use crate::ike::PROMPT;
use crate::topology::assert_secret;

/// ```text
///  client 192.168.1.2 -- lan a wan 203.0.113.1 == 203.0.113.2 wan b lan -- 10.1.0.2 server
///         fd68::2                                                          fd01::2
/// ```
struct Gateways {
    client: Host,
    a: Host,
    b: Host,
    server: Host,
    of_a: Vpn,
    of_b: Vpn,
}

impl Gateways {
    /// What a kernel left to itself takes is an address of the device that was first there.
    fn new(lab: &Lab, lan_first: bool) -> Gateways {
        let [client, a, b, server] = lab.hosts(["client", "a", "b", "server"]);
        for lan in [lan_first, !lan_first] {
            if lan {
                lab.link(
                    client.port("eth0", "192.168.1.2/24 fd68::2/64"),
                    a.port("lan", "192.168.1.1/24 fd68::1/64"),
                );
                lab.link(
                    server.port("eth0", "10.1.0.2/24 fd01::2/64"),
                    b.port("lan", "10.1.0.1/24 fd01::1/64"),
                );
            } else {
                lab.link(
                    a.port("wan", "203.0.113.1/24 2001:db8::1/64"),
                    b.port("wan", "203.0.113.2/24 2001:db8::2/64"),
                );
            }
        }
        client.default_via("192.168.1.1 fd68::1");
        server.default_via("10.1.0.1 fd01::1");
        a.forwards().default_via("203.0.113.2 2001:db8::2");
        b.forwards().default_via("203.0.113.1 2001:db8::1");
        let (at_a, at_b) = (KeyPair::new(&a), KeyPair::new(&b));
        let to_b = Peer::ike("office").option("public_key", &at_b.public).at("203.0.113.2");
        let to_b = to_b.allowed("10.1.0.0/16 fd01::/48");
        let of_a = Vpn::new().option("private_key", &at_a.private).peer(to_b);
        let to_a = Peer::ike("branch").option("public_key", &at_a.public);
        let to_a = to_a.allowed("192.168.1.0/24 fd68::/64");
        let of_b = Vpn::new().option("private_key", &at_b.private).peer(to_a);
        Gateways { client, a, b, server, of_a, of_b }
    }

    /// Everybody reaches everybody at the other side, from the gateways as well.
    fn assert_all_reach(&self, (of_a, of_b): (&Daemon, &Daemon)) {
        assert!(self.client.reaches_within("10.1.0.2", PROMPT), "{}", of_a.show());
        let far = [
            (&self.a, ["10.1.0.2", "10.1.0.1", "fd01::2", "fd01::1"]),
            (&self.b, ["192.168.1.2", "192.168.1.1", "fd68::2", "fd68::1"]),
        ];
        for (gateway, addresses) in &far {
            for address in addresses {
                let reached = gateway.reaches_within(address, PROMPT);
                assert!(reached, "{} does not reach {address}", gateway.name());
            }
        }
        let before = [of_a, of_b].map(|daemon| daemon.counter("outside_selector"));
        self.a.assert_uses(&self.server, "10.1.0.2");
        self.a.assert_uses(&self.server, "fd01::2");
        self.b.assert_uses(&self.client, "192.168.1.2");
        self.b.assert_uses(&self.client, "fd68::2");
        self.client.assert_uses(&self.server, "10.1.0.2");
        let after = [of_a, of_b].map(|daemon| daemon.counter("outside_selector"));
        assert_eq!(before, after);
    }
}

#[test]
fn both_ends_of_the_first_example_use_it_themselves() {
    for (lan_first, steering) in [(true, "auto"), (false, "auto"), (false, "route")] {
        let lab = Lab::new();
        let net = Gateways::new(&lab, lan_first);
        let (of_a, of_b) =
            (net.of_a.clone().steering(steering), net.of_b.clone().steering(steering));
        let (a, b) = (net.a.starts(&of_a), net.b.starts(&of_b));
        let wire = net.a.capture("wan");
        net.assert_all_reach((&a, &b));
        assert_secret(&wire.finish());

        // New keys are nothing new; an address that changes is followed.
        let source = |address: &str| {
            let source = format!(" src {address} ");
            let way = || net.a.attempt("ip route get 10.1.0.2").stdout;
            assert!(eventually(Duration::from_secs(5), || way().contains(&source)), "{}", way());
        };
        source("192.168.1.1");
        a.rekeys();
        net.a.run("ip addr del 192.168.1.1/24 dev lan");
        net.a.run("ip addr add 192.168.1.9/24 dev lan");
        net.client.run("ip route replace default via 192.168.1.9");
        source("192.168.1.9");
        assert!(net.a.pings("10.1.0.2"), "{steering}");

        // The other end goes and comes again: the source stays meanwhile.
        drop(b);
        source("192.168.1.9");
        let b = net.b.starts(&of_b);
        assert!(net.a.reaches_within("10.1.0.2", Duration::from_secs(30)), "{}", a.show());
        assert!(net.b.reaches_within("192.168.1.2", PROMPT), "{}", b.show());
    }
}
