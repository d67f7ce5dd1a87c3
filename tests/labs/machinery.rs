//! The lab itself, without any VPN: what the other labs rely on.

use std::net::UdpSocket;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use simplevpn_tests::lab::capture::{Frame, Kind};
use simplevpn_tests::lab::raw::{ip_packet, udp_packet};
use simplevpn_tests::lab::traffic::MARKER;
use simplevpn_tests::lab::{Lab, ip};

///  client 10.1.0.2 -- 10.1.0.1 router 192.0.2.1 -- 192.0.2.2 server
#[test]
fn a_masquerading_router_forwards_and_an_eavesdropper_reads_everything() {
    let lab = Lab::new();
    let [client, router, server] = lab.hosts(["client", "router", "server"]);
    lab.link(
        client.port("lan0", "10.1.0.2/24 fd01::2/64"),
        router.port("lan", "10.1.0.1/24 fd01::1/64"),
    );
    lab.link(
        router.port("wan", "192.0.2.1/24 fd02::1/64"),
        server.port("eth0", "192.0.2.2/24 fd02::2/64"),
    );
    client.default_via("10.1.0.1 fd01::1");
    router.forwards().masquerades("wan");

    let wire = router.capture("wan");
    for address in ["192.0.2.2", "fd02::2"] {
        client.assert_uses(&server, address);
        let answers = client.udp(&server, ip(address), 65_000, 3);
        assert!(answers.is_ok_and(|answers| answers.all()));
    }
    let seen = wire.finish();

    assert!(seen.contains(MARKER));
    assert_eq!(seen.missed, 0);
    assert_eq!(seen.count_kind(Kind::Esp), 0);
    assert!(seen.count_kind(Kind::Icmp) >= 4);
    assert!(seen.count(|f| matches!(f.kind, Kind::Tcp(..))) > 100);
    assert!(seen.count(|f| f.kind == Kind::Fragment(17)) > 100);
    assert!(seen.count(|f| f.bytes.len() > 1514) == 0, "super-packets on the wire");
    // Later fragments are left out: the kernel rewrites their headers in the very memory that the
    // eavesdropper's copy shares.
    seen.assert_none("not masqueraded", |frame| {
        frame.concerns(ip("10.1.0.2")) && !matches!(frame.kind, Kind::Fragment(_))
    });
}

///  a 10.0.0.1 -- 10.0.0.2 b
#[test]
fn a_cable_carries_super_packets_only_where_it_is_told_to() {
    let lab = Lab::new();
    let [a, b] = lab.hosts(["a", "b"]);
    lab.link(a.port("eth0", "10.0.0.1/24"), b.port("eth0", "10.0.0.2/24"));
    let sink = b.within(|| UdpSocket::bind("10.0.0.2:9")).unwrap();
    let socket = a.within(|| UdpSocket::bind("10.0.0.1:0")).unwrap();
    setsockopt(&socket, sockopt::UdpGsoSegment, &1000).unwrap();
    for on in [false, true, false] {
        a.offloads("eth0", on);
        b.offloads("eth0", on);
        let wire = b.capture("eth0");
        a.tcp(&b, ip("10.0.0.2"), 3_000_000).unwrap();
        socket.send_to(&[1; 10_000], sink.local_addr().unwrap()).unwrap();
        let seen = wire.finish();
        let long = |frame: &Frame| frame.bytes.len() > 1514;
        assert_eq!(seen.count(|f| long(f) && matches!(f.kind, Kind::Tcp(..))) > 0, on);
        let datagrams = seen.count(|f| matches!(f.kind, Kind::Udp(_, 9)));
        assert_eq!(datagrams, if on { 1 } else { 10 }, "offloads: {on}");
    }
}

///  a 10.0.0.1 --+-- 10.0.0.2 b
///               +-- 10.0.0.3 c
#[test]
fn a_switch_connects_and_wrong_addresses_do_not_answer() {
    let lab = Lab::new();
    let [a, b, c] = lab.hosts(["a", "b", "c"]);
    lab.switch([
        a.port("eth0", "10.0.0.1/24"),
        b.port("eth0", "10.0.0.2/24"),
        c.port("eth0", "10.0.0.3/24"),
    ]);

    assert!(a.pings("10.0.0.2") && a.pings("10.0.0.3") && b.pings("10.0.0.3"));
    assert_eq!(a.ping_sized(ip("10.0.0.9"), 56, 1).right, 0);
    assert!(a.tcp(&b, ip("10.0.0.3"), 1000).is_err(), "c has no listener");
    assert!(b.ping_with(ip("10.0.0.1"), "-M do -s 1472", 2).all());
    assert!(!b.ping_with(ip("10.0.0.1"), "-M do -s 1473", 1).all());
}

///  a 10.0.0.1 -- 10.0.0.2 b
#[test]
fn forged_packets_arrive() {
    let lab = Lab::new();
    let [a, b] = lab.hosts(["a", "b"]);
    lab.link(a.port("eth0", "10.0.0.1/24 fd00::1/64"), b.port("eth0", "10.0.0.2/24 fd00::2/64"));
    b.sysctl("ipv4/conf/all/rp_filter", "0").sysctl("ipv4/conf/eth0/rp_filter", "0");

    for (from, to) in [("172.16.9.9:7", "10.0.0.2:9"), ("[fd09::9]:7", "[fd00::2]:9")] {
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        let wire = b.capture("eth0");
        let socket = b.within(|| std::net::UdpSocket::bind(to).unwrap());
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        a.send_packet(&udp_packet(from, to, MARKER)).unwrap();
        let mut buffer = [0; 100];
        let (length, claimed) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], claimed), (MARKER, from));
        assert_eq!(wire.finish().count_kind(Kind::Udp(7, 9)), 1);
    }
    for (from, to) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
        let ears = b.listens_for(ip(to), 50).unwrap();
        let wire = b.capture("eth0");
        a.send_packet(&ip_packet(ip(from), ip(to), 50, b"\0\0\x10\x01\0\0\0\x01forged")).unwrap();
        assert!(ears.hears(b"forged", Duration::from_secs(2)).is_some());
        wire.finish().assert_only_esp();
    }
}

///  a 10.0.0.1 -- 10.0.0.2 b, a name server
#[test]
fn a_name_server_answers_and_resolv_conf_is_private() {
    let lab = Lab::new();
    let [a, b] = lab.hosts(["a", "b"]);
    lab.link(a.port("eth0", "10.0.0.1/24"), b.port("eth0", "10.0.0.2/24"));
    a.resolv_conf("nameserver 10.0.0.2\n");
    let names = b.serves_name("10.0.0.2", "vpn.example.net", "10.0.0.77");

    assert_eq!(a.run("cat /etc/resolv.conf"), "nameserver 10.0.0.2\n");
    assert_ne!(b.run("cat /etc/resolv.conf"), "nameserver 10.0.0.2\n");
    let found = a.run("getent -s dns ahosts vpn.example.net");
    assert!(found.starts_with("10.0.0.77"), "{found}");
    assert!(!a.attempt("getent -s dns ahosts other.example.net").success);
    assert!(names.asked() >= 2);
}

#[test]
fn machines_have_their_own_sysctls_and_commands_have_limits() {
    let lab = Lab::new();
    let [a, b] = lab.hosts(["a", "b"]);
    a.forwards();
    assert_eq!(
        (a.read_sysctl("ipv4/ip_forward"), b.read_sysctl("ipv4/ip_forward")),
        ("1".into(), "0".into())
    );
    assert!(!a.attempt("false").success);
    let start = std::time::Instant::now();
    let command = a.command("sleep 20");
    let output = simplevpn_tests::lab::process::run(command, "", Duration::from_millis(100));
    assert!(!output.success && start.elapsed() < Duration::from_secs(5));
}

#[test]
fn hostile_frames_are_read_without_fear() {
    let mut packet = vec![0; 14];
    packet.extend(udp_packet(
        "10.0.0.1:4500".parse().unwrap(),
        "10.0.0.2:9".parse().unwrap(),
        b"x",
    ));
    packet[12] = 8;
    assert_eq!(Frame::parse(packet.clone()).kind, Kind::UdpEncapsulated);
    for length in 0..packet.len() {
        let _ = Frame::parse(packet[..length].to_vec()).to_string();
    }
    packet[12..14].copy_from_slice(&[0x86, 0xdd]);
    for next in 0..=255 {
        packet[20] = next;
        let _ = Frame::parse(packet.clone()).is_protected();
    }
}
