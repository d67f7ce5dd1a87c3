//! Scenario 2: the peers are on the same subnet, and are addressed as if there were no tunnel.

use std::net::UdpSocket;
use std::time::Duration;

use simplevpn_tests::lab::capture::Kind;
use simplevpn_tests::lab::daemon::{Daemon, Keys, Peer, Vpn};
use simplevpn_tests::lab::raw::ip_packet;
use simplevpn_tests::lab::traffic::MARKER;
use simplevpn_tests::lab::{Bound, Host, Lab, ReversePath, ip};

use crate::topology::assert_secret;

/// The two ways to lead packets for a neighbour into a tunnel to that neighbour.
const STEERINGS: [&str; 2] = ["policy", "offset"];

/// A neighbour as a peer: `10.0.0.<number>` and `fd00::<number>`.
fn neighbour(number: u8, keys: &Keys, steering: &str) -> Peer {
    let peer = Peer::new(&format!("n{number}"), keys)
        .at(&format!("10.0.0.{number}"))
        .allowed(&format!("10.0.0.{number}/32 fd00::{number}/128"));
    match steering {
        "offset" => peer.option("offset", "0.0.1.0").option("offset6", "0:0:0:1::"),
        _ => peer,
    }
}

fn addresses(number: u8) -> String {
    format!("10.0.0.{number}/24 fd00::{number}/64")
}

/// Both families, both ways, between two machines.
fn assert_neighbours(one: (&Host, u8), other: (&Host, u8)) {
    for (from, to) in [(one, other), (other, one)] {
        from.0.assert_uses(to.0, &format!("10.0.0.{}", to.1));
        from.0.assert_uses(to.0, &format!("fd00::{}", to.1));
    }
}

///  a 10.0.0.161 ==ESP== 10.0.0.160 b, a switch between them
fn two_hosts(steering: &str, reverse_path: ReversePath) {
    let lab = Lab::with_reverse_path(reverse_path);
    let [a, b] = lab.hosts(["a", "b"]);
    let switch = lab.switch([a.port("eth0", &addresses(161)), b.port("eth0", &addresses(160))]);
    let (at_a, at_b) = Keys::pair();
    let _a = a.starts(&Vpn::new().steering(steering).peer(neighbour(160, &at_a, steering)));
    let _b = b.starts(&Vpn::new().steering(steering).peer(neighbour(161, &at_b, steering)));

    let wire = switch.capture("a");
    assert_neighbours((&a, 161), (&b, 160));
    assert_secret(&wire.finish());
}

#[test]
fn two_hosts_by_policy() {
    two_hosts("policy", ReversePath::Loose);
}

#[test]
fn two_hosts_by_policy_without_reverse_path_filter() {
    two_hosts("policy", ReversePath::Off);
}

#[test]
fn two_hosts_by_policy_under_a_strict_reverse_path_filter() {
    two_hosts("policy", ReversePath::Strict);
}

#[test]
fn two_hosts_by_offset() {
    two_hosts("offset", ReversePath::Loose);
}

#[test]
fn two_hosts_by_offset_without_reverse_path_filter() {
    two_hosts("offset", ReversePath::Off);
}

#[test]
fn two_hosts_by_offset_under_a_strict_reverse_path_filter() {
    two_hosts("offset", ReversePath::Strict);
}

///  a 10.0.0.161, steers by policy ==ESP== 10.0.0.160 b, which only answers
#[test]
fn the_answering_side_need_not_know_the_endpoint() {
    let lab = Lab::new();
    let [a, b] = lab.hosts(["a", "b"]);
    let switch = lab.switch([a.port("eth0", &addresses(161)), b.port("eth0", &addresses(160))]);
    let (at_a, at_b) = Keys::pair();
    let _a = a.starts(&Vpn::new().steering("policy").peer(neighbour(160, &at_a, "policy")));
    let anywhere = Peer::new("a", &at_b).allowed("10.0.0.161/32 fd00::161/128");
    let _b = b.starts(&Vpn::new().steering("policy").peer(anywhere));

    let wire = switch.capture("b");
    assert_neighbours((&a, 161), (&b, 160));
    assert_secret(&wire.finish());
}

///  a 10.0.0.161 --+== 10.0.0.160 b
///                 +== 10.0.0.170 c
///                 +== 10.0.0.180 d
#[test]
fn three_servers() {
    for steering in STEERINGS {
        let lab = Lab::new();
        let [a, b, c, d] = lab.hosts(["a", "b", "c", "d"]);
        let switch = lab.switch([
            a.port("eth0", &addresses(161)),
            b.port("eth0", &addresses(160)),
            c.port("eth0", &addresses(170)),
            d.port("eth0", &addresses(180)),
        ]);
        let mut vpn = Vpn::new().steering(steering);
        let mut running: Vec<Daemon> = Vec::new();
        for (server, number) in [(&b, 160), (&c, 170), (&d, 180)] {
            let (at_a, at_server) = Keys::pair();
            vpn = vpn.peer(neighbour(number, &at_a, steering));
            let to_a = neighbour(161, &at_server, steering);
            running.push(server.starts(&Vpn::new().steering(steering).peer(to_a)));
        }
        running.push(a.starts(&vpn));

        let wire = switch.capture("a");
        assert_neighbours((&a, 161), (&b, 160));
        assert_neighbours((&a, 161), (&c, 170));
        assert_neighbours((&a, 161), (&d, 180));
        assert_secret(&wire.finish());
        assert!(b.pings("10.0.0.170"), "servers that are no peers talk as ever");
    }
}

///  a 10.0.0.161 ==+
///                 +== 10.0.0.160 server
///  c 10.0.0.162 ==+
#[test]
fn two_clients_of_one_server() {
    for steering in STEERINGS {
        let lab = Lab::new();
        let [a, c, server] = lab.hosts(["a", "c", "server"]);
        let switch = lab.switch([
            a.port("eth0", &addresses(161)),
            c.port("eth0", &addresses(162)),
            server.port("eth0", &addresses(160)),
        ]);
        let mut vpn = Vpn::new().steering(steering);
        let mut running: Vec<Daemon> = Vec::new();
        for (client, number) in [(&a, 161), (&c, 162)] {
            let (at_client, at_server) = Keys::pair();
            let to_server = neighbour(160, &at_client, steering);
            running.push(client.starts(&Vpn::new().steering(steering).peer(to_server)));
            vpn = vpn.peer(neighbour(number, &at_server, steering));
        }
        running.push(server.starts(&vpn));

        let wire = switch.capture("server");
        assert_neighbours((&a, 161), (&server, 160));
        assert_neighbours((&c, 162), (&server, 160));
        assert_secret(&wire.finish());
    }
}

///  client 192.168.5.2 -- router 10.0.0.161 ==ESP== 10.0.0.160 server
///         fd05::2               fd00::161         fd00::160
#[test]
fn lan_clients_of_a_router_reach_a_server_on_its_wan() {
    for steering in STEERINGS {
        let lab = Lab::new();
        let [client, router, server] = lab.hosts(["client", "router", "server"]);
        lab.link(
            client.port("eth0", "192.168.5.2/24 fd05::2/64"),
            router.port("lan", "192.168.5.1/24 fd05::1/64"),
        );
        let switch =
            lab.switch([router.port("wan", &addresses(161)), server.port("eth0", &addresses(160))]);
        client.default_via("192.168.5.1 fd05::1");
        router.forwards().masquerades("wan");
        let (at_router, at_server) = Keys::pair();
        let to_server = neighbour(160, &at_router, steering);
        let _router = router.starts(&Vpn::new().steering(steering).peer(to_server));
        let to_router = neighbour(161, &at_server, steering).allowed("192.168.5.0/24 fd05::/64");
        let _server = server.starts(&Vpn::new().steering(steering).peer(to_router));

        let wire = switch.capture("server");
        for address in ["10.0.0.160", "fd00::160"] {
            client.assert_uses(&server, address);
            router.assert_uses(&server, address);
        }
        assert_secret(&wire.finish());
        assert!(client.pings("192.168.5.1"));
    }
}

///  a 10.0.0.161 ==ESP== 10.0.0.160 b, steered by offset, and a client behind a
#[test]
fn under_offset_nothing_reaches_the_real_address_in_the_clear() {
    let lab = Lab::new();
    let [client, a, b] = lab.hosts(["client", "a", "b"]);
    lab.link(client.port("eth0", "192.168.5.2/24"), a.port("lan", "192.168.5.1/24"));
    let switch = lab.switch([a.port("eth0", "10.0.0.161/24"), b.port("eth0", "10.0.0.160/24")]);
    client.default_via("192.168.5.1");
    a.forwards().masquerades("eth0");
    let (at_a, at_b) = Keys::pair();
    let peer = |keys: &Keys, address: &str| {
        let peer = Peer::new("n", keys).at(address).option("offset", "0.0.1.0");
        peer.allowed(&format!("{address}/32"))
    };
    let of_a = Vpn::new().steering("offset").peer(peer(&at_a, "10.0.0.160"));
    let to_a = peer(&at_b, "10.0.0.161").allowed("192.168.5.0/24");
    let of_b = Vpn::new().steering("offset").peer(to_a);
    // Flows that connection tracking knows since before.
    let talk = |host: &Host| {
        let socket = host.within(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        socket.send_to(MARKER, "10.0.0.160:9").unwrap();
        socket
    };
    let old = [talk(&a), talk(&client)];
    let _b = b.starts(&of_b);
    let daemon = a.starts(&of_a);
    let in_clear = |story: &dyn Fn()| {
        let wire = switch.capture("a");
        story();
        wire.finish().count(|f| {
            let plain = matches!(f.kind, Kind::Udp(..) | Kind::Tcp(..) | Kind::Icmp);
            plain && f.concerns(ip("10.0.0.160"))
        })
    };
    let talks = || {
        for _ in 0..20 {
            for socket in &old {
                let _ = socket.send_to(MARKER, "10.0.0.160:9");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // An acknowledgement in no connection, which connection tracking calls invalid.
        let segment = [0, 80, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 4, 0, 0, 0, 0, 0];
        let from = (ip("10.0.0.161"), ip("10.0.0.160"));
        let _ = a.send_packet(&ip_packet(from.0, from.1, 6, &segment));
    };
    a.assert_uses(&b, "10.0.0.160");
    client.assert_uses(&b, "10.0.0.160");
    assert_eq!(in_clear(&talks), 0, "tunnel up");
    let insists = || {
        for how in Bound::ALL {
            a.sends_bound(how, "eth0", "10.0.0.160:9".parse().unwrap(), MARKER, 3);
        }
    };
    assert_eq!(in_clear(&insists), 0, "tunnel up");
    daemon.dies();
    a.run("nft delete table inet simplevpn_vpn0");
    let anew = || {
        talks();
        insists();
        let _ = talk_if_allowed(&a);
        assert!(!client.pings("10.0.0.160"));
    };
    assert_eq!(in_clear(&anew), 0, "daemon killed, its redirection deleted");
}

fn talk_if_allowed(host: &Host) -> std::io::Result<usize> {
    host.within(|| UdpSocket::bind("0.0.0.0:0")?.send_to(MARKER, "10.0.0.160:9"))
}
