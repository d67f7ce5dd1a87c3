//! IKE between two of ours.
//!
//! ```text
//!   client -- a 192.0.2.1 ======== ESP in UDP ======== 192.0.2.2 b -- server
//!   10.1.0.2                                                          10.2.0.2
//! ```

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use simplevpn_tests::lab::capture::{Frame, Kind};
use simplevpn_tests::lab::daemon::{Daemon, KeyPair, Peer, Vpn};
use simplevpn_tests::lab::process::eventually;
use simplevpn_tests::lab::raw::udp_packet;
use simplevpn_tests::lab::{Host, Lab, ip};

use crate::ike::{
    OTHER_PSK, PROMPT, PSK, SITE_A, SITE_B, Traffic, renumber, says, sites, two_of_ours,
};
use crate::topology::{Sites, assert_secret, translate_to};

/// How long an end may take to find out that there is nobody any more, and to begin anew.
const LIVENESS: Duration = Duration::from_secs(30);

/// Both gateways at work, and the client reaches the server.
fn connected(sites: &Sites, (of_a, of_b): &(Vpn, Vpn)) -> (Daemon, Daemon) {
    let b = sites.b.starts(of_b);
    let a = sites.a.starts(of_a);
    let reached = sites.client.reaches_within("10.2.0.2", PROMPT);
    assert!(reached, "a:\n{}\nb:\n{}", a.show(), b.show());
    (a, b)
}

///  client -- a == b -- server, with a key pair each and nothing that could be left out
#[test]
fn the_shortest_configuration() {
    let (_lab, sites) = sites();
    let wire = sites.a.capture("wan");
    let (a, b) = connected(&sites, &two_of_ours(&sites));
    for (of_server, of_client) in [("10.2.0.2", "10.1.0.2"), ("fd02::2", "fd01::2")] {
        sites.client.assert_uses(&sites.server, of_server);
        sites.server.assert_uses(&sites.client, of_client);
    }
    let seen = wire.finish();
    assert_secret(&seen);
    assert_eq!(seen.count_kind(Kind::Esp), 0, "two of ours encapsulate, for the offloads' sake");
    for daemon in [a, b] {
        assert!(daemon.stops().success());
    }
}

///  a == b by raw ESP, since a says so
#[test]
fn raw_esp_when_asked_for() {
    let (_lab, sites) = sites();
    let (at_a, at_b) = (KeyPair::new(&sites.a), KeyPair::new(&sites.b));
    let to_b = Peer::ike("b").option("public_key", &at_b.public).at("192.0.2.2").allowed(SITE_B);
    let to_a = Peer::ike("a").option("public_key", &at_a.public).allowed(SITE_A);
    let of_a = Vpn::new().option("private_key", &at_a.private).peer(to_b.option("encap", "esp"));
    let of_b = Vpn::new().option("private_key", &at_b.private).peer(to_a);
    let wire = sites.a.capture("wan");
    let _both = connected(&sites, &(of_a, of_b));
    sites.client.assert_uses(&sites.server, "10.2.0.2");
    let seen = wire.finish();
    assert!(seen.count_kind(Kind::Esp) > 100);
    assert_secret(&seen);
}

///  a == b, each of which calls the other at the same time
#[test]
fn both_call_at_once() {
    let (_lab, sites) = sites();
    let (at_a, at_b) = (KeyPair::new(&sites.a), KeyPair::new(&sites.b));
    let to_b = Peer::ike("b").option("public_key", &at_b.public).at("192.0.2.2").allowed(SITE_B);
    let to_a = Peer::ike("a").option("public_key", &at_a.public).at("192.0.2.1").allowed(SITE_A);
    let of_a = Vpn::new().option("private_key", &at_a.private).peer(to_b);
    let of_b = Vpn::new().option("private_key", &at_b.private).peer(to_a);
    let _both = connected(&sites, &(of_a, of_b));
    // And from then on it stays as it is.
    let traffic = Traffic::starts(&sites);
    std::thread::sleep(Duration::from_secs(2));
    traffic.ends_complete();
}

///  a, with its own secret == b, with another, or with the same
#[test]
fn preshared_keys_alone_and_beside_public_ones() {
    let (_lab, sites) = sites();
    let by_psk = |peer: Peer, [own, other]: [&str; 2], psk: &str| {
        peer.option("preshared_key", psk).option("local_id", own).option("remote_id", other)
    };
    let to_b = || Peer::ike("b").at("192.0.2.2").allowed(SITE_B);
    let to_a = || Peer::ike("a").allowed(SITE_A);
    let a_to_b = |psk| Vpn::new().peer(by_psk(to_b(), ["a.test", "b.test"], psk));
    let b_to_a = |psk| Vpn::new().peer(by_psk(to_a(), ["b.test", "a.test"], psk));
    drop(connected(&sites, &(a_to_b(PSK), b_to_a(PSK))));
    refused(&sites, &(a_to_b(PSK), b_to_a(OTHER_PSK)), "authentication failed");

    let (at_a, at_b) = (KeyPair::new(&sites.a), KeyPair::new(&sites.b));
    let a_to_b = |psk| {
        let peer = to_b().option("public_key", &at_b.public).option("preshared_key", psk);
        Vpn::new().option("private_key", &at_a.private).peer(peer)
    };
    let b_to_a = |psk| {
        let peer = to_a().option("public_key", &at_a.public).option("preshared_key", psk);
        Vpn::new().option("private_key", &at_b.private).peer(peer)
    };
    drop(connected(&sites, &(a_to_b(PSK), b_to_a(PSK))));
    refused(&sites, &(a_to_b(PSK), b_to_a(OTHER_PSK)), "authentication failed");
}

/// Both start, nothing comes of it, and a says why.
fn refused(sites: &Sites, (of_a, of_b): &(Vpn, Vpn), why: &str) {
    let wire = sites.a.capture("wan");
    let _b = sites.b.starts(of_b);
    let a = sites.a.starts(of_a);
    says(&a, why);
    assert_eq!(sites.client.ping_sized(ip("10.2.0.2"), 56, 1).right, 0);
    wire.finish().assert_none("in the clear", |frame| frame.concerns(ip("10.2.0.2")));
}

///  client -- a 192.0.2.1, then .77, then .78 == b -- server, and a transfer goes on
#[test]
fn roaming_in_the_middle_of_a_transfer() {
    let (_lab, sites) = sites();
    let (_a, b) = connected(&sites, &two_of_ours(&sites));
    std::thread::scope(|scope| {
        let transfer = scope.spawn(|| sites.client.tcp(&sites.server, ip("10.2.0.2"), 100_000_000));
        for (old, new) in [("192.0.2.1", "192.0.2.77"), ("192.0.2.77", "192.0.2.78")] {
            std::thread::sleep(Duration::from_millis(300));
            renumber(&sites.a, old, new);
            says(&b, new);
        }
        transfer.join().unwrap().unwrap();
    });
}

///  attacker 192.0.2.99 --+
///  client -- a 192.0.2.1 =+= 192.0.2.2 b -- server: what a sends comes from the attacker's address
#[test]
fn whoever_sends_packets_on_gets_none_of_the_answers() {
    let lab = Lab::new();
    let sites = Sites::apart(&lab);
    let attacker = lab.host("attacker");
    lab.switch([
        sites.a.port("wan", "192.0.2.1/24"),
        sites.b.port("wan", "192.0.2.2/24"),
        attacker.port("wan", "192.0.2.99/24"),
    ]);
    let (_a, b) = connected(&sites, &two_of_ours(&sites));
    let wire = attacker.capture("wan");
    // As if somebody on the way had taken them, and sent them from where he is.
    sites.a.feed(
        "nft -f -",
        "table ip attack { chain post { type filter hook postrouting priority 300; \
         ip daddr 192.0.2.2 udp dport 4500 ip saddr set 192.0.2.99; }; }\n",
    );
    assert_eq!(sites.client.ping_sized(ip("10.2.0.2"), 56, 5).right, 5);
    assert!(!b.show().contains("192.0.2.99"), "{}", b.show());
    let to_attacker = |frame: &Frame| frame.addresses.is_some_and(|(_, to)| to == ip("192.0.2.99"));
    let diverted = wire.finish().count(to_attacker);
    assert_eq!(diverted, 0, "{}", b.show());
    sites.a.run("nft delete table ip attack");
    sites.client.assert_uses(&sites.server, "10.2.0.2");
}

///  client -- a -- nat 192.0.2.1 == 192.0.2.2 nat -- b -- server, and a's NAT forgets
#[test]
fn both_behind_nats() {
    let lab = Lab::new();
    let (sites, [nat, _]) = Sites::behind_nats(&lab);
    let wire = nat.capture("outside");
    let _both = connected(&sites, &two_of_ours(&sites));
    sites.client.assert_uses(&sites.server, "10.2.0.2");
    translate_to(&nat, "20000-30000");
    sites.a.run("ip link set dev wan down");
    sites.a.run("ip link set dev wan up");
    sites.a.default_via("10.9.0.1");
    assert!(sites.client.reaches_within("10.2.0.2", PROMPT));
    sites.client.assert_uses(&sites.server, "10.2.0.2");
    sites.server.assert_uses(&sites.client, "10.1.0.2");
    let seen = wire.finish();
    assert_secret(&seen);
    assert_eq!(seen.count_kind(Kind::Esp), 0, "raw ESP would not pass the NATs");
}

///  a == b, of which one and then the other is killed and comes back
#[test]
fn restart_after_kill_9() {
    let (_lab, sites) = sites();
    let (of_a, of_b) = two_of_ours(&sites);
    let (a, b) = connected(&sites, &(of_a.clone(), of_b.clone()));
    a.dies();
    let a = sites.a.starts(&of_a);
    assert!(sites.client.reaches_within("10.2.0.2", PROMPT), "{}", a.show());
    b.dies();
    let b = sites.b.starts(&of_b);
    assert!(sites.client.reaches_within("10.2.0.2", LIVENESS), "{}\n{}", a.show(), b.show());
}

///  client -- a, which asks for an address == b, which has a pool -- server
#[test]
fn a_virtual_address() {
    let (_lab, sites) = sites();
    sites.a.masquerades("vpn0");
    let (at_a, at_b) = (KeyPair::new(&sites.a), KeyPair::new(&sites.b));
    let to_b = Peer::ike("b").option("public_key", &at_b.public).at("192.0.2.2").allowed(SITE_B);
    let to_a = Peer::ike("a").option("public_key", &at_a.public);
    let of_a = Vpn::new().option("private_key", &at_a.private).address("auto").peer(to_b);
    let of_b = Vpn::new()
        .option("private_key", &at_b.private)
        .list("pool", "10.77.0.0/24 fd77::/64")
        .list("dns", "10.2.0.2 fd02::2");
    let (a, _b) = connected(&sites, &(of_a, of_b.peer(to_a)));
    for server in ["10.2.0.2", "fd02::2"] {
        let told = format!("offers the name server {server}");
        assert_eq!(a.log().matches(&told).count(), 1, "{}", a.log());
    }
    for address in ["10.2.0.2", "fd02::2"] {
        sites.a.assert_uses(&sites.server, address);
        sites.client.assert_uses(&sites.server, address);
    }
    let given = sites.a.run("ip addr show dev vpn0");
    assert!(given.contains("inet 10.77.0.") && given.contains("inet6 fd77::"), "{given}");
    says(&a, "10.77.0.");
}

///  stranger 192.0.2.66 --+
///  client -- a 192.0.2.1 =+= 192.0.2.2 b -- server: b is flooded while a calls
#[test]
fn a_flood_of_strangers() {
    let lab = Lab::new();
    let sites = Sites::apart(&lab);
    let stranger = lab.host("stranger");
    lab.switch([
        sites.a.port("wan", "192.0.2.1/24"),
        sites.b.port("wan", "192.0.2.2/24"),
        stranger.port("wan", "192.0.2.66/24"),
    ]);
    // What strangers send is what a itself began with once.
    let (of_a, of_b) = two_of_ours(&sites);
    let wire = sites.a.capture("wan");
    drop(connected(&sites, &(of_a.clone(), of_b.clone())));
    let seen = wire.finish();
    let first = seen.frames.iter().find(|frame| frame.kind == Kind::Ike).unwrap();
    let request = first.packet()[28..].to_vec();
    // What b answers to addresses that are made up goes to its router, where it ends.
    sites.b.default_via("192.0.2.66");

    let b = sites.b.starts(&of_b);
    let before = resident(&b);
    let (stop, sent) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| flood(&stranger, &request, &sent, &stop));
        let flooded = |times| eventually(LIVENESS, || sent.load(Ordering::Relaxed) > times);
        assert!(flooded(1000));
        let a = sites.a.starts(&of_a);
        let reached = sites.client.reaches_within("10.2.0.2", LIVENESS);
        let shown = (a.show(), b.show());
        if reached {
            sites.client.assert_uses(&sites.server, "10.2.0.2");
            assert!(flooded(10_000));
        }
        stop.store(true, Ordering::Relaxed);
        assert!(reached, "{}\n{}", shown.0, shown.1);
        let grown = resident(&b).saturating_sub(before);
        assert!(grown < 1024, "strangers took {grown} KiB");
    });
}

/// Sends the first message of a connection again and again, each time from another address and
/// with another SPI, until told to stop.
fn flood(stranger: &Host, request: &[u8], sent: &AtomicU32, stop: &AtomicBool) {
    let to: SocketAddr = "192.0.2.2:500".parse().unwrap();
    while !stop.load(Ordering::Relaxed) {
        let n = sent.fetch_add(1, Ordering::Relaxed);
        let mut message = request.to_vec();
        message[..4].copy_from_slice(&(n + 1).to_be_bytes());
        let from = SocketAddr::new(ip(&format!("198.51.100.{}", n % 250 + 1)), 500);
        stranger.send_packet(&udp_packet(from, to, &message)).unwrap();
        if n.is_multiple_of(20) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Resident memory of a daemon, in KiB.
fn resident(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
