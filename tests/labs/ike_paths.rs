//! IKE with strongSwan on the ways that packets take: address translation, hosts instead of sites,
//! virtual addresses, addresses that change, messages that do not fit one packet.

use std::time::Duration;

use simplevpn_tests::lab::capture::{Frame, Kind};
use simplevpn_tests::lab::process::eventually;
use simplevpn_tests::lab::{Lab, ip};

use crate::ike::{Caller, PROMPT, Story, renumber, sites};
use crate::topology::{Sites, assert_secret};

///  client -- a 10.9.0.2 -- nat 192.0.2.1 ==UDP 4500== 192.0.2.2 strongSwan b -- server
#[test]
fn a_nat_in_front_of_us() {
    let lab = Lab::new();
    let (sites, _nat) = Sites::behind_nat(&lab);
    let story = Story::keys(Caller::Us, &sites).theirs(|c| c.option("remote_addrs", "%any"));
    let wire = sites.b.capture("wan");
    let ends = story.connects(&sites);
    sites.client.assert_uses(&sites.server, "10.2.0.2");
    sites.server.assert_uses(&sites.client, "10.1.0.2");
    assert_secret(&wire.finish());
    assert_eq!(ends.swan.sa().value("nat-remote"), "yes");
    let port = ends.swan.sa().value("remote-port").parse::<u16>().unwrap();
    assert!(port >= 40_000, "the NAT's port: {port}");
}

///  a 192.0.2.1 == 192.0.2.2 b: two hosts that protect what they say to each other, who are called
///  by their addresses and want the same
#[test]
fn host_to_host() {
    for caller in Caller::BOTH {
        let (_lab, sites) = sites();
        let mut story = Story::psk(caller)
            .ours("local_id", "192.0.2.1")
            .ours("remote_id", "192.0.2.2")
            .theirs(|c| {
                c.psk("192.0.2.2", "192.0.2.1", &crate::ike::in_swanctl(crate::ike::PSK))
                    .protects("192.0.2.2/32", "192.0.2.1/32")
            });
        story.peer = story.peer.list("allowed_ips", "192.0.2.2/32");
        let wire = sites.a.capture("wan");
        let (ends, outcome) = story.begins(&sites.a, &sites.b);
        outcome.unwrap();
        assert!(sites.a.reaches_within("192.0.2.2", PROMPT), "{}", ends.us.show());
        sites.a.assert_uses(&sites.b, "192.0.2.2");
        sites.b.assert_uses(&sites.a, "192.0.2.1");
        assert_secret(&wire.finish());
    }
}

///  client -- a, which gets 10.77.0.1 from b and masquerades == b, with a pool -- server
#[test]
fn a_virtual_address_from_strongswan() {
    let (_lab, sites) = sites();
    sites.a.masquerades("vpn0");
    let mut story = Story::psk(Caller::Us)
        .theirs(|c| c.pool("10.77.0.0/24").protects("10.2.0.0/24", "dynamic"));
    story.vpn = story.vpn.address("auto");
    let ends = story.connects(&sites);
    assert_eq!(ends.swan.sa().value("remote-vips"), "[10.77.0.1]");
    assert!(sites.a.run("ip addr show dev vpn0").contains("10.77.0.1"));
    sites.a.assert_uses(&sites.server, "10.2.0.2");
    sites.client.assert_uses(&sites.server, "10.2.0.2");
    // Nobody has it any more when it is over.
    assert!(ends.us.stops().success());
    let gone = || ends.swan.sas().is_empty();
    assert!(eventually(PROMPT, gone), "{:?}", ends.swan.sas());
}

///  client -- a, with a pool == b, which gets an address of it
#[test]
fn a_virtual_address_from_us() {
    let (_lab, sites) = sites();
    let mut story = Story::psk(Caller::Them)
        .theirs(|c| c.option("vips", "0.0.0.0").protects("dynamic", "10.1.0.0/24"));
    story.peer = simplevpn_tests::lab::daemon::Peer::ike("b");
    story.vpn = story.vpn.list("pool", "10.77.0.0/24").list("dns", "10.1.0.2 10.1.0.3");
    let story = story
        .ours("preshared_key", crate::ike::PSK)
        .ours("local_id", "a.test")
        .ours("remote_id", "b.test")
        .ours("local_ips", "10.1.0.0/24");
    let (ends, outcome) = story.begins(&sites.a, &sites.b);
    outcome.unwrap();
    let log = ends.swan.log();
    assert!(log.contains("IDr AUTH CPRP(ADDR DNS DNS)"), "{log}");
    let vips = ends.swan.sa().value("local-vips");
    assert!(vips.starts_with("[10.77.0."), "{vips}");
    assert!(sites.b.reaches_within("10.1.0.2", PROMPT));
    sites.b.assert_uses(&sites.client, "10.1.0.2");
    let address = vips.trim_matches(['[', ']']);
    sites.client.assert_uses(&sites.b, address);
}

///  client -- a 192.0.2.1, then .77, == b -- server (RFC 4555: whoever called says so)
#[test]
fn we_move_to_another_address() {
    let (_lab, sites) = sites();
    let story = Story::psk(Caller::Us).theirs(|c| c.option("remote_addrs", "192.0.2.1,192.0.2.77"));
    let ends = story.connects(&sites);
    let before = ends.swan.sa();
    renumber(&sites.a, "192.0.2.1", "192.0.2.77");
    let there = || ends.swan.sa().value("remote-host") == "192.0.2.77";
    assert!(eventually(PROMPT, there), "{:?}", ends.swan.sas());
    assert!(sites.client.reaches_within("10.2.0.2", PROMPT));
    sites.client.assert_uses(&sites.server, "10.2.0.2");
    // It is the same IKE SA.
    assert_eq!(ends.swan.sa().value("initiator-spi"), before.value("initiator-spi"));
}

///  client -- a == 192.0.2.2, then .78, b -- server
#[test]
fn strongswan_moves_to_another_address() {
    let (_lab, sites) = sites();
    let story = Story::psk(Caller::Them).theirs(|c| c.option("local_addrs", "%any"));
    let ends = story.connects(&sites);
    let before = ends.swan.sa();
    sites.b.run("ip addr del fd00::2/64 dev wan");
    renumber(&sites.b, "192.0.2.2", "192.0.2.78");
    ends.we_say("192.0.2.78");
    assert!(sites.client.reaches_within("10.2.0.2", PROMPT));
    sites.server.assert_uses(&sites.client, "10.1.0.2");
    assert_eq!(ends.swan.sa().value("initiator-spi"), before.value("initiator-spi"));
}

///  client -- a fd00::1 == fd00::2 b -- server: IPv6 outside, both families inside
#[test]
fn over_ipv6() {
    for caller in Caller::BOTH {
        let (_lab, sites) = sites();
        let mut story = Story::keys(caller, &sites).theirs(|c| {
            c.option("local_addrs", "fd00::2")
                .option("remote_addrs", "fd00::1")
                .protects("10.2.0.0/24,fd02::/64", "10.1.0.0/24,fd01::/64")
        });
        story.peer = story.peer.allowed("fd02::/64");
        if caller == Caller::Us {
            story = story.ours("endpoint_host", "fd00::2");
        }
        let wire = sites.a.capture("wan");
        let ends = story.connects(&sites);
        for address in ["10.2.0.2", "fd02::2"] {
            sites.client.assert_uses(&sites.server, address);
        }
        let seen = wire.finish();
        assert_secret(&seen);
        seen.assert_none("IPv4", |frame| frame.concerns(ip("192.0.2.2")));
        assert_eq!(ends.swan.sa().value("remote-host"), "fd00::1");
    }
}

///  client -- a == b -- server, with so many prefixes that b's request does not fit one packet
#[test]
fn a_long_message_comes_in_fragments() {
    let (_lab, sites) = sites();
    let many = |site: u8| -> String {
        let prefixes: Vec<_> = (0..100).map(|n| format!("10.{site}.{n}.0/24")).collect();
        prefixes.join(",")
    };
    let story = Story::keys(Caller::Them, &sites)
        .ours("local_ips", "10.1.0.0/24")
        .theirs(|c| c.protects(&many(2), &many(1)));
    let wire = sites.a.capture("wan");
    let ends = story.connects(&sites);
    sites.client.assert_uses(&sites.server, "10.2.0.2");
    let log = ends.swan.log();
    let sent = |line: &&str| line.contains("generating IKE_AUTH") && line.contains("EF(3/");
    assert!(log.lines().any(|line| sent(&line)), "the request was not long");
    wire.finish().assert_none("fragments of IP", |f| matches!(f.kind, Kind::Fragment(_)));
}

///  client -- a == b -- server, with so many prefixes of IPv6 that what a says does not fit one packet
#[test]
fn our_long_messages_go_in_fragments() {
    for caller in Caller::BOTH {
        let (_lab, sites) = sites();
        let many: Vec<_> = (0..31).map(|n| format!("fd02:0:0:{n}::/64")).collect();
        // strongSwan wants an address of its own in each.
        (1..31).for_each(|n| drop(sites.b.run(&format!("ip addr add fd02:0:0:{n}::1/64 dev lan"))));
        let mut story = Story::keys(caller, &sites).theirs(|c| {
            c.option("local_addrs", "fd00::2")
                .option("remote_addrs", "fd00::1")
                .protects(&format!("10.2.0.0/24,{}", many.join(",")), "10.1.0.0/24,fd01::/64")
        });
        story.peer = story.peer.allowed(&many.join(" "));
        if caller == Caller::Us {
            story = story.ours("endpoint_host", "fd00::2");
        }
        let wire = sites.a.capture("wan");
        let ends = story.connects(&sites);
        for address in ["10.2.0.2", "fd02::2"] {
            sites.client.assert_uses(&sites.server, address);
        }
        let together = || ends.swan.log().matches("of 2, reassembled").count();
        assert_eq!(together(), 1, "{caller:?}: what we say about the first SA");
        let before = ends.swan.sa().child("spi-in");
        ends.us.rekeys();
        assert!(eventually(PROMPT, || ends.swan.sa().child("spi-in") != before));
        assert!(eventually(PROMPT, || together() == 2), "{caller:?}: the request for new keys");
        sites.client.assert_uses(&sites.server, "fd02::2");
        let before = ends.swan.sa().child("spi-in");
        ends.swan.rekeys_child().unwrap();
        assert!(eventually(PROMPT, || ends.swan.sa().child("spi-in") != before));
        assert!(eventually(PROMPT, || together() == 3), "{caller:?}: the answer about new keys");
        sites.client.assert_uses(&sites.server, "fd02::2");
        let seen = wire.finish();
        assert_secret(&seen);
        seen.assert_none("fragments of IP", |f| matches!(f.kind, Kind::Fragment(_)));
        let long = |frame: &Frame| frame.kind == Kind::Ike && frame.packet().len() > 1280;
        seen.assert_none("more than every path of IPv6 carries", long);
    }
}

/// How long our end may take to find out that there is nobody any more.
const LIVENESS: Duration = Duration::from_secs(30);

///  client -- a == b -- server, and the cable between them is cut and mended
#[test]
fn a_cut_cable() {
    let (_lab, sites) = sites();
    let story = Story::psk(Caller::Us).theirs(|c| c.option("dpd_delay", "1s"));
    let ends = story.connects(&sites);
    sites.b.run("ip link set dev wan down");
    assert!(eventually(LIVENESS, || ends.swan.sas().is_empty()), "{:?}", ends.swan.sas());
    sites.b.run("ip link set dev wan up");
    assert!(sites.client.reaches_within("10.2.0.2", LIVENESS), "{}", ends.us.show());
    assert!(ends.swan.sa().is_up());
}
