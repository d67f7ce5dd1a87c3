//! The demo: the main job, shown in network namespaces. `tests/demo` builds and starts it.
//!
//! Each scene draws its topology, starts daemons, sends a ping, TCP and UDP through the tunnel,
//! and asks an eavesdropper on the wire what was to be seen.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use simplevpn_tests::lab::capture::{Captured, Kind};
use simplevpn_tests::lab::daemon::{Daemon, Keys, Peer, Vpn};
use simplevpn_tests::lab::traffic::{Answers, MARKER};
use simplevpn_tests::lab::{Host, Lab, ip};

/// Bytes of TCP while someone listens, and for the rate.
const OVERHEARD: u64 = 4_000_000;
const MEASURED: u64 = 50_000_000;

fn main() -> ExitCode {
    let start = Instant::now();
    let scenes: [(&str, fn()); 5] = [
        ("Different subnets: a LAN client reaches a server behind the other gateway", two_sites),
        ("One subnet: two hosts, steered by policy routing", || neighbours("policy", &[160])),
        ("One subnet: two hosts, steered by address offset", || neighbours("offset", &[160])),
        ("One subnet: three servers, steered by policy routing", || {
            neighbours("policy", &[160, 170, 180]);
        }),
        ("One subnet: three servers, steered by address offset", || {
            neighbours("offset", &[160, 170, 180]);
        }),
    ];
    let mut failed = 0;
    for (number, (title, scene)) in scenes.into_iter().enumerate() {
        println!("\n{}. {title}\n", number + 1);
        if catch_unwind(AssertUnwindSafe(scene)).is_err() {
            println!("   FAILED");
            failed += 1;
        }
    }
    let seconds = start.elapsed().as_secs();
    if failed > 0 {
        println!("\n{failed} of {} scenes failed ({seconds} s).", scenes.len());
        return ExitCode::FAILURE;
    }
    println!("\nAll of this worked, in {seconds} seconds. tests/run tests the rest.");
    ExitCode::SUCCESS
}

fn two_sites() {
    println!(
        "   client ---- router A ======== ESP ======== gateway B ---- server\n   \
         10.1.0.2    192.0.2.1    (eavesdropper)    192.0.2.2    10.2.0.2\n   \
         fd01::2                                                 fd02::2\n"
    );
    let lab = Lab::new();
    let [client, a, b, server] = lab.hosts(["client", "a", "b", "server"]);
    let lan_a = a.port("lan", "10.1.0.1/24 fd01::1/64");
    let lan_b = b.port("lan", "10.2.0.1/24 fd02::1/64");
    lab.link(client.port("eth0", "10.1.0.2/24 fd01::2/64"), lan_a);
    lab.link(a.port("wan", "192.0.2.1/24"), b.port("wan", "192.0.2.2/24"));
    lab.link(lan_b, server.port("eth0", "10.2.0.2/24 fd02::2/64"));
    client.default_via("10.1.0.1 fd01::1");
    server.default_via("10.2.0.1 fd02::1");
    a.forwards();
    b.forwards();
    let (at_a, at_b) = Keys::pair();
    let to_b = Peer::new("b", &at_a).at("192.0.2.2").allowed("10.2.0.0/24 fd02::/64");
    let to_a = Peer::new("a", &at_b).at("192.0.2.1").allowed("10.1.0.0/24 fd01::/64");
    let _a = a.starts(&Vpn::new().peer(to_b));
    let _b = b.starts(&Vpn::new().peer(to_a));

    let lan = a.capture("lan");
    converse(&client, &server, "10.2.0.2", (&a, "wan"));
    let overheard = if lan.finish().contains(MARKER) { "reads it" } else { "sees nothing" };
    println!("   in the LAN     the same eavesdropper {overheard}, as one would expect");
    assert_eq!(overheard, "reads it", "an eavesdropper who finds nothing anywhere proves nothing");
    converse(&client, &server, "fd02::2", (&a, "wan"));
}

/// One host, and servers on the same subnet that it reaches at their own addresses.
fn neighbours(steering: &str, servers: &[u8]) {
    println!("   host 10.0.0.161 ---- switch ----+==ESP== server 10.0.0.{}", servers[0]);
    for number in &servers[1..] {
        println!("   {:33}+==ESP== server 10.0.0.{number}", "");
    }
    println!();
    let lab = Lab::new();
    let host = lab.host("host");
    let names: Vec<String> = servers.iter().map(|number| format!("server{number}")).collect();
    let machines: Vec<Host> = names.iter().map(|name| lab.host(name)).collect();
    let addresses: Vec<String> =
        servers.iter().map(|number| format!("10.0.0.{number}/24")).collect();
    let mut ports = vec![host.port("eth0", "10.0.0.161/24")];
    ports.extend(machines.iter().zip(&addresses).map(|(server, at)| server.port("eth0", at)));
    let switch = lab.switch(ports);

    let peer = |name: &str, number: u8, keys: &Keys| {
        let address = format!("10.0.0.{number}");
        let peer = Peer::new(name, keys).at(&address).allowed(&format!("{address}/32"));
        if steering == "offset" { peer.option("offset", "0.0.1.0") } else { peer }
    };
    let mut vpn = Vpn::new().steering(steering);
    let mut daemons: Vec<Daemon> = Vec::new();
    for (server, &number) in machines.iter().zip(servers) {
        let (ours, theirs) = Keys::pair();
        vpn = vpn.peer(peer(server.name(), number, &ours));
        let back = Vpn::new().steering(steering).peer(peer("host", 161, &theirs));
        daemons.push(server.starts(&back));
    }
    let daemon = host.starts(&vpn);
    for (server, number) in machines.iter().zip(servers) {
        converse(&host, server, &format!("10.0.0.{number}"), (&switch, "host"));
    }
    if servers.len() > 1 && steering == "offset" {
        println!("\n   $ simplevpn show");
        for line in daemon.show().lines() {
            println!("   {line}");
        }
    }
}

/// Everything one does over a network, and what the eavesdropper made of it.
fn converse(client: &Host, server: &Host, address: &str, ears: (&Host, &str)) {
    println!("   {} to {} at {address}", client.name(), server.name());
    let address = ip(address);
    let wire = ears.0.capture(ears.1);
    report("ping", client.ping_sized(address, 56, 3));
    for size in [100, 1400, 65_000] {
        let answers = client.udp(server, address, size, 10);
        let answers = answers.unwrap_or_else(|error| panic!("UDP: {error}"));
        report(&format!("UDP, {size} bytes"), answers);
    }
    if let Err(error) = client.tcp(server, address, OVERHEARD) {
        panic!("TCP: {error}");
    }
    let seen = wire.finish();
    match client.tcp(server, address, MEASURED) {
        Ok(transfer) => println!("   {:18} {transfer}", "  TCP"),
        Err(error) => panic!("TCP: {error}"),
    }
    eavesdropped(&seen);
}

fn report(what: &str, answers: Answers) {
    println!("   {:18} {} of {} answered", format!("  {what}"), answers.right, answers.asked);
    assert!(answers.all(), "{what} was not always answered");
}

fn eavesdropped(seen: &Captured) {
    let esp = seen.count(|frame| matches!(frame.kind, Kind::Esp | Kind::UdpEncapsulated));
    let link = seen.count_kind(Kind::Neighbour);
    let clear = seen.count(|frame| !frame.is_protected());
    let marker = if seen.contains(MARKER) { "FOUND" } else { "not found" };
    println!(
        "   {:18} {esp} frames of ESP, {link} of ARP or neighbour discovery, {clear} others; \
         the text that was sent: {marker}",
        "  eavesdropper"
    );
    seen.assert_only_esp();
    assert_eq!(marker, "not found");
}
