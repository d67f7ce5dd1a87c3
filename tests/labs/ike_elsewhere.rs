//! A gateway that comes back from elsewhere than where it was, and could not say goodbye.
//!
//! ```text
//!   client -- a 192.0.2.1, then elsewhere == 192.0.2.2 b, which still has the old connection -- server
//!   10.1.0.2                                                                               10.2.0.2
//! ```

use std::net::UdpSocket;
use std::time::Duration;

use simplevpn_tests::lab::Lab;
use simplevpn_tests::lab::daemon::{Daemon, KeyPair, Peer, Vpn};

use crate::ike::{PROMPT, SITE_A, SITE_B, renumber, says, sites, two_of_ours};
use crate::topology::Sites;

/// How long a may take to find out that there is nobody any more, and to connect again.
const LIVENESS: Duration = Duration::from_secs(30);

/// Both reach each other, from either side, with no more than the server saying something first.
fn reach_each_other(sites: &Sites, a: &Daemon, b: &Daemon) {
    let reached = sites.server.reaches_within("10.1.0.2", PROMPT);
    assert!(reached, "a:\n{}\nb:\n{}", a.show(), b.show());
    sites.client.assert_uses(&sites.server, "10.2.0.2");
    sites.server.assert_uses(&sites.client, "10.1.0.2");
}

///  client -- a 192.0.2.1, without power, then .77 == b -- server; ESP in UDP, and raw
#[test]
fn a_new_public_address_after_a_power_cut() {
    for (encap, shown) in [("auto", "192.0.2.77:4500 (udp)"), ("esp", "192.0.2.77 (esp)")] {
        let (_lab, sites) = sites();
        let (at_a, at_b) = (KeyPair::new(&sites.a), KeyPair::new(&sites.b));
        let to_b = Peer::ike("b").option("public_key", &at_b.public).at("192.0.2.2");
        let to_a = Peer::ike("a").option("public_key", &at_a.public);
        let to_b = to_b.allowed(SITE_B).option("encap", encap);
        let to_a = to_a.allowed(SITE_A).option("encap", encap);
        let of_a = Vpn::new().option("private_key", &at_a.private).peer(to_b);
        let b = sites.b.starts(&Vpn::new().option("private_key", &at_b.private).peer(to_a));
        let a = sites.a.starts(&of_a);
        reach_each_other(&sites, &a, &b);
        a.dies();
        renumber(&sites.a, "192.0.2.1", "192.0.2.77");
        let a = sites.a.starts(&of_a);
        reach_each_other(&sites, &a, &b);
        says(&b, shown);
        // New keys do not lead back.
        b.rekeys();
        std::thread::sleep(Duration::from_secs(2));
        reach_each_other(&sites, &a, &b);
        assert!(b.show().contains(shown), "{}", b.show());
    }
}

///  client -- a, whose ports another program has after kill -9 == b -- server
#[test]
fn another_port_after_kill_9() {
    let (_lab, sites) = sites();
    let (of_a, of_b) = two_of_ours(&sites);
    let b = sites.b.starts(&of_b);
    let a = sites.a.starts(&of_a);
    reach_each_other(&sites, &a, &b);
    a.dies();
    let bind = |port| UdpSocket::bind(("0.0.0.0", port)).unwrap();
    let _others = sites.a.within(|| [500, 4500].map(bind));
    let a = sites.a.starts(&of_a);
    reach_each_other(&sites, &a, &b);
    assert!(!b.show().contains("192.0.2.1:4500"), "{}", b.show());
}

///  client -- a wwan0 100.64.1.10 -- provider -- 192.0.2.2 b -- server: a modem that is pulled, and
///  after a while is there again with another index, another address and another gateway
#[test]
fn a_modem_that_reappears() {
    let lab = Lab::new();
    let sites = Sites::apart(&lab);
    let provider = lab.host("provider");
    lab.link(provider.port("core", "192.0.2.1/24"), sites.b.port("wan", "192.0.2.2/24"));
    provider.forwards();
    sites.b.default_via("192.0.2.1");
    let plug = |number: u8| {
        let (ours, theirs) = (format!("100.64.{number}.10/24"), format!("100.64.{number}.1/24"));
        let modem = format!("modem{number}");
        lab.link(sites.a.port("wwan0", &ours), provider.port(&modem, &theirs));
        sites.a.default_via(&format!("100.64.{number}.1"));
    };
    let (of_a, of_b) = two_of_ours(&sites);
    let of_a = of_a.option("tunlink", "wwan0");
    plug(1);
    let b = sites.b.starts(&of_b);
    let a = sites.a.starts(&of_a);
    reach_each_other(&sites, &a, &b);
    sites.a.run("ip link del dev wwan0");
    // Longer than it takes a to give the connection up, since packets get no answer.
    assert!(!sites.client.reaches_within("10.2.0.2", Duration::from_secs(20)));
    plug(2);
    assert!(sites.client.reaches_within("10.2.0.2", LIVENESS), "{}\n{}", a.show(), b.show());
    reach_each_other(&sites, &a, &b);
    says(&b, "100.64.2.10");
}
