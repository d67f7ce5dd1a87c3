//! strongSwan behind address translation, which calls us; we see nothing but the translated address.
//!
//! ```text
//!   client -- a 10.9.0.2 -- nat 192.0.2.1 ==UDP 4500== 192.0.2.2 b -- server
//!   10.1.0.2  strongSwan                               simplevpn      10.2.0.2
//! ```

use simplevpn_tests::lab::capture::Kind;
use simplevpn_tests::lab::daemon::{Peer, Vpn};
use simplevpn_tests::lab::process::eventually;
use simplevpn_tests::lab::traffic::MARKER;
use simplevpn_tests::lab::{Host, Lab, ip};
use simplevpn_tests::peers::strongswan::StrongSwan;
use simplevpn_tests::peers::swanctl::Connection;

use crate::ike::{Caller, Ends, PROMPT, PSK, Story, in_swanctl};
use crate::topology::{Sites, translate_to};

/// strongSwan has called from behind the NAT, and both sites reach each other.
fn called(sites: &Sites) -> Ends {
    let mut story = Story::psk(Caller::Them).theirs(|c| {
        c.option("local_addrs", "%any")
            .option("remote_addrs", "192.0.2.2")
            .option("dpd_delay", "2s")
            .protects("10.1.0.0/24", "10.2.0.0/24")
    });
    story.peer = Peer::ike("a")
        .allowed("10.1.0.0/24")
        .option("preshared_key", PSK)
        .option("local_id", "a.test")
        .option("remote_id", "b.test");
    let (ends, outcome) = story.begins(&sites.b, &sites.a);
    outcome.unwrap();
    reaches_both_ways(sites, &ends);
    ends
}

fn reaches_both_ways(sites: &Sites, ends: &Ends) {
    assert!(sites.client.reaches_within("10.2.0.2", PROMPT), "{}", ends.us.show());
    sites.client.assert_uses(&sites.server, "10.2.0.2");
    sites.server.assert_uses(&sites.client, "10.1.0.2");
}

/// The NAT forgets what it has translated, and takes other ports from now on.
fn forgets(nat: &Host, ports: &str) {
    translate_to(nat, ports);
    // The kernel drops what it translates to a device's address when that device goes down.
    nat.run("ip link set dev outside down");
    nat.run("ip link set dev outside up");
}

/// Both ends replace the keys of ESP and of IKE, one after the other.
fn keys_are_replaced(sites: &Sites, ends: &Ends) {
    let before = ends.swan.sa();
    ends.swan.rekeys_child().unwrap();
    assert!(eventually(PROMPT, || ends.swan.sa().child("spi-in") != before.child("spi-in")));
    ends.swan.rekeys_ike().unwrap();
    let spi = |ends: &Ends| ends.swan.sa().value("initiator-spi");
    assert!(eventually(PROMPT, || spi(ends) != before.value("initiator-spi")));
    reaches_both_ways(sites, ends);
    let (before, child) = (spi(ends), ends.swan.sa().child("spi-in"));
    ends.us.rekeys();
    assert!(eventually(PROMPT, || spi(ends) != before));
    assert!(eventually(PROMPT, || ends.swan.sa().child("spi-in") != child));
    reaches_both_ways(sites, ends);
}

///  client -- a -- nat == b -- server, and the nat forgets, twice
#[test]
fn a_nat_in_front_of_strongswan_that_forgets() {
    let lab = Lab::new();
    let (sites, nat) = Sites::behind_nat(&lab);
    let wire = sites.b.capture("wan");
    let ends = called(&sites);
    ends.we_say("NAT there");
    keys_are_replaced(&sites, &ends);
    let first = ends.swan.sa().value("initiator-spi");
    for ports in ["20000-30000", "50001-60000"] {
        forgets(&nat, ports);
        // Whatever comes first tells us: a packet of the client's, or what strongSwan says.
        reaches_both_ways(&sites, &ends);
        assert_eq!(ends.swan.sa().value("initiator-spi"), first, "another connection");
    }
    keys_are_replaced(&sites, &ends);
    let seen = wire.finish();
    // The NAT itself answers, by ICMP, what comes for a port that it has forgotten.
    assert!(!seen.contains(MARKER), "the marker is on the wire");
    seen.assert_none("in the clear", |frame| frame.concerns(ip("10.2.0.2")));
    assert_eq!(seen.count_kind(Kind::Esp), 0, "raw ESP would not pass the NAT");
    let ours = seen.frames.iter().filter(|frame| frame.kind == Kind::UdpEncapsulated);
    let mut ports: Vec<u16> = ours
        .filter(|frame| frame.packet()[16..20] == [192, 0, 2, 1])
        .map(|frame| u16::from_be_bytes([frame.packet()[22], frame.packet()[23]]) / 10_000)
        .collect();
    // Requests of IKE go to the port of old first.
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 3, "the ports that we have sent to, in tens of thousands: {ports:?}");
}

///  server -- b == nat 192.0.2.1 -- one 10.9.0.2
///                               \- two 10.9.0.3, each with an address of b's pool
#[test]
fn two_strongswans_behind_one_nat() {
    let lab = Lab::new();
    let [one, two, nat, b, server] = lab.hosts(["one", "two", "nat", "b", "server"]);
    lab.switch([
        nat.port("inside", "10.9.0.1/24"),
        one.port("wan", "10.9.0.2/24"),
        two.port("wan", "10.9.0.3/24"),
    ]);
    lab.link(nat.port("outside", "192.0.2.1/24"), b.port("wan", "192.0.2.2/24"));
    lab.link(b.port("lan", "10.2.0.1/24"), server.port("eth0", "10.2.0.2/24"));
    server.default_via("10.2.0.1");
    b.forwards();
    nat.forwards();
    translate_to(&nat, "40000-50000");
    let peer = |name: &str| {
        Peer::ike(name)
            .option("preshared_key", PSK)
            .option("local_id", "b.test")
            .option("remote_id", &format!("{name}.test"))
    };
    let vpn = Vpn::new().list("pool", "10.77.0.0/24").peer(peer("one")).peer(peer("two"));
    let us = b.starts(&vpn);
    let calls = |host: &Host, name: &str| -> (StrongSwan, String) {
        host.default_via("10.9.0.1");
        let connection = Connection::between("%any", "192.0.2.2")
            .psk(&format!("{name}.test"), "b.test", &in_swanctl(PSK))
            .option("vips", "0.0.0.0")
            .protects("dynamic", "10.2.0.0/24");
        let swan = host.runs_strongswan(&connection);
        swan.initiates().unwrap();
        let address = swan.sa().value("local-vips").trim_matches(['[', ']']).to_owned();
        (swan, address)
    };
    let (swan_one, at_one) = calls(&one, "one");
    let (swan_two, at_two) = calls(&two, "two");
    assert_ne!(at_one, at_two);
    let works = || {
        for (host, address) in [(&one, &at_one), (&two, &at_two)] {
            assert!(host.reaches_within("10.2.0.2", PROMPT), "{}", us.show());
            host.assert_uses(&server, "10.2.0.2");
            server.assert_uses(host, address);
        }
    };
    works();
    // Each has its own SAs, of which none goes to the other.
    let (before, other) = (swan_one.sa().child("spi-in"), swan_two.sa().child("spi-in"));
    swan_one.rekeys_child().unwrap();
    assert!(eventually(PROMPT, || swan_one.sa().child("spi-in") != before));
    assert_eq!(swan_two.sa().child("spi-in"), other);
    works();
    // Both are somewhere else all of a sudden.
    forgets(&nat, "20000-30000");
    works();
    assert_eq!(us.counter("outside_selector"), 0, "{}", us.json());
    let wire = b.capture("wan");
    works();
    wire.finish().assert_none("in the clear", |frame| frame.concerns(ip("10.2.0.2")));
}
