//! Address translation between the peers, and in front of others.

use std::time::Duration;

use simplevpn_tests::lab::capture::Kind;
use simplevpn_tests::lab::daemon::{Keys, Peer, Vpn};
use simplevpn_tests::lab::raw::ip_packet;
use simplevpn_tests::lab::{Lab, ip};

use crate::topology::{SITE_A, SITE_B, Sites, assert_secret, translate_to};

///  client 10.1.0.2 -- a 10.9.0.2 -- nat 192.0.2.1 ==UDP 4500== 192.0.2.2 b -- 10.2.0.2 server
#[test]
fn a_nat_between_the_peers() {
    let lab = Lab::new();
    let (Sites { client, a, b, server }, nat) = Sites::behind_nat(&lab);
    let (at_a, at_b) = Keys::pair();
    let to_b = Peer::new("b", &at_a).at("192.0.2.2").allowed(SITE_B);
    let to_b = to_b.option("encap", "udp").option("persistent_keepalive", "1");
    let _a = a.starts(&Vpn::new().address("10.77.0.1/32").address("fd77::1/128").peer(to_b));
    let _b = b.starts(&Vpn::new().peer(Peer::new("a", &at_b).allowed(SITE_A)));

    let wire = b.capture("wan");
    client.assert_uses(&server, "10.2.0.2");
    client.assert_uses(&server, "fd02::2");
    server.assert_uses(&client, "10.1.0.2");
    // The NAT forgets and chooses another port; a's keepalives and data tell b.
    translate_to(&nat, "20000-30000");
    a.run("ip link set dev wan down");
    a.run("ip link set dev wan up");
    a.default_via("10.9.0.1");
    client.assert_uses(&server, "10.2.0.2");
    server.assert_uses(&client, "10.1.0.2");
    let seen = wire.finish();
    assert_secret(&seen);
    assert_eq!(seen.count_kind(Kind::Esp), 0, "raw ESP would not pass the NAT");
}

///  client 10.1.0.2 -- a, masquerades on wan 192.0.2.1 -- 192.0.2.50 office
///                                              \==ESP== 192.0.2.2 b
#[test]
fn the_own_ipsec_of_a_lan_client_passes_through() {
    for steering in ["policy", "route", "offset"] {
        let lab = Lab::new();
        let [client, a, b, office] = lab.hosts(["client", "a", "b", "office"]);
        lab.link(client.port("eth0", "10.1.0.2/24"), a.port("lan", "10.1.0.1/24"));
        lab.switch([
            a.port("wan", "192.0.2.1/24"),
            b.port("wan", "192.0.2.2/24"),
            office.port("wan", "192.0.2.50/24"),
        ]);
        client.default_via("10.1.0.1");
        a.forwards().masquerades("wan");
        let (at_a, at_b) = Keys::pair();
        let shift = |peer: Peer| match steering {
            "offset" => peer.option("offset", "0.0.100.0"),
            _ => peer,
        };
        let to_b = shift(Peer::new("b", &at_a).at("192.0.2.2").allowed("10.2.0.0/24"));
        let to_a = shift(Peer::new("a", &at_b).at("192.0.2.1").allowed("10.1.0.0/24"));
        b.run("ip addr add 10.2.0.1/32 dev lo");
        let _a = a.starts(&Vpn::new().steering(steering).peer(to_b.option("encap", "esp")));
        let _b = b.starts(&Vpn::new().steering(steering).peer(to_a.option("encap", "esp")));
        client.assert_uses(&b, "10.2.0.1");

        let office_hears = office.listens_for(ip("192.0.2.50"), 50).unwrap();
        let client_hears = client.listens_for(ip("10.1.0.2"), 50).unwrap();
        let esp = |from, to, text: &[u8]| {
            ip_packet(ip(from), ip(to), 50, &[b"\x12\x34\x56\x78\0\0\0\x01", text].concat())
        };
        client.send_packet(&esp("10.1.0.2", "192.0.2.50", b"from the client")).unwrap();
        let heard = office_hears.hears(b"from the client", Duration::from_secs(2));
        let heard = heard.unwrap_or_else(|| panic!("{steering}: nothing reached the office"));
        assert_eq!(heard[12..16], [192, 0, 2, 1], "{steering}: not masqueraded");
        office.send_packet(&esp("192.0.2.50", "192.0.2.1", b"from the office")).unwrap();
        let heard = client_hears.hears(b"from the office", Duration::from_secs(2));
        assert!(heard.is_some(), "{steering}: no answer reached the client");
        client.assert_uses(&b, "10.2.0.1");
    }
}

///  client 10.1.0.2 -- a 192.0.2.1 ==ESP== 192.0.2.2 b, which filters its input
#[test]
fn a_firewall_that_accepts_esp_is_enough() {
    let lab = Lab::new();
    let sites = Sites::new(&lab);
    sites.b.feed(
        "nft -f -",
        "table inet fw { chain input { type filter hook input priority 0; policy drop; \
         meta l4proto esp accept; ct state established,related accept; \
         iifname lo accept; iifname vpn0 accept; meta l4proto icmpv6 accept; }; }\n",
    );
    let (a, b) = sites.configurations(Keys::pair(), false, "esp");
    let (_a, _b) = (sites.a.starts(&a), sites.b.starts(&b));
    sites.client.assert_uses(&sites.server, "10.2.0.2");
    sites.server.assert_uses(&sites.client, "10.1.0.2");
}

///  client -- a 192.0.2.1 ==ESP in UDP, each packet from another port== 192.0.2.2 b -- server
#[test]
fn a_peer_that_moves_with_every_packet_does_not_flood_the_log() {
    let lab = Lab::new();
    let Sites { client, a, b, .. } = Sites::new(&lab);
    let (at_a, at_b) = Keys::pair();
    let to_b = Peer::new("b", &at_a).at("192.0.2.2").allowed(SITE_B).option("encap", "udp");
    let _a = a.starts(&Vpn::new().peer(to_b));
    let at_b = b.starts(&Vpn::new().peer(Peer::new("a", &at_b).allowed(SITE_A)));
    a.feed(
        "nft -f -",
        "table ip moves { \
         chain post { type filter hook postrouting priority 300; udp dport 4500 \
         udp sport set numgen inc mod 2 map { 0 : 40001, 1 : 40002 }; }; \
         chain pre { type filter hook prerouting priority -400; \
         udp dport { 40001, 40002 } udp dport set 4500; }; }\n",
    );
    let answers = client.ping_with(ip("10.2.0.2"), "-i 0.002", 1000);
    assert!(answers.right > 990, "{}: every packet is followed: {}", answers.right, at_b.show());
    let lines = at_b.log().matches("heard from").count();
    assert_eq!(lines, 1, "{}", at_b.log());
}
