//! Steering against the kernel, each test in network namespaces of its own. `lan` is the wire
//! with a neighbour on it; the tunnel is a device without a daemon.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use simplevpn_core::crypto::Cipher;
use zeroize::Zeroizing;

use super::*;
use crate::config::model::{Encap, Endpoint, Fwmark, Host, Keying, ManualKeys, Peer};
use crate::netns::{Neighbour, Scratch, sh, try_sh, within};

mod firewall;
mod netifd;
mod onlink;
mod refused;
mod source;

const MARK: u32 = 0x5300_0000;

fn peer(name: &str, endpoint: Option<&str>, allowed: &[&str]) -> Peer {
    let key = || Zeroizing::new(vec![0; 36]);
    let host = |text: &str| match text.parse() {
        Ok(address) => Host::Address(address),
        Err(_) => Host::Name(text.into()),
    };
    Peer {
        name: name.into(),
        description: None,
        endpoint: endpoint.map(|e| Endpoint { host: host(e), port: 500, nat_port: 4500 }),
        allowed_ips: allowed.iter().map(|a| a.parse().unwrap()).collect(),
        local_ips: vec![],
        route_allowed_ips: true,
        encap: Encap::Auto,
        persistent_keepalive: None,
        offset: 0,
        offset6: 0,
        keying: Keying::Manual(ManualKeys {
            cipher: Cipher::ChaCha20Poly1305,
            spi_in: 0x1001,
            spi_out: 0x2001,
            key_in: key(),
            key_out: key(),
            esn: true,
            replay_window: 2048,
        }),
    }
}

fn interface(steering: model::Steering, peers: Vec<Peer>) -> Interface {
    Interface {
        name: "vpn0".into(),
        private_key: None,
        addresses: vec![],
        virtual_addresses: false,
        name_servers: Vec::new(),
        mtu: None,
        port: 500,
        nat_port: 4500,
        steering,
        fwmark: None,
        tunlink: None,
        zone: None,
        killswitch: true,
        state_dir: "/etc/simplevpn".into(),
        connected: vec![],
        peers,
        refused: vec![],
        flawed: false,
    }
}

fn policy(allowed: &[&str]) -> Interface {
    interface(model::Steering::Policy, vec![peer("b", Some("192.0.2.1"), allowed)])
}

fn shifted(allowed: &[&str], endpoint: &str) -> Interface {
    let mut b = peer("b", Some(endpoint), allowed);
    (b.offset, b.offset6) = (0x100, 1 << 64);
    interface(model::Steering::Offset, vec![b])
}

/// The endpoints of peers called `b`, `c`, …
fn of_peers(endpoints: &[&str]) -> Endpoints {
    let names = ('b'..).map(String::from);
    names.zip(endpoints.iter().map(|e| e.parse().unwrap())).collect()
}

fn underlay(endpoints: &[&str]) -> Underlay {
    Underlay {
        ports: vec![500, 4500],
        endpoints: of_peers(endpoints),
        agreed: Agreed::new(),
        connected: vec![],
        mtu: 1400,
        delegated: false,
    }
}

fn tun(name: &str) -> u32 {
    // Like a TUN device it has no neighbours; unlike one it needs no /dev/net/tun.
    sh(&format!(
        "ip link add {name} arp off type veth peer name far-{name}; ip link set far-{name} up"
    ));
    nix::net::if_::if_nametoindex(name).unwrap()
}

/// The whole of it, with the TUN device there.
fn start(interface: &Interface, scratch: &Scratch) -> Steering {
    let mut steering = Steering::prepare(interface, underlay(&[]), scratch.path()).unwrap();
    steering.install(tun(&interface.name)).unwrap();
    steering
}

fn lan() -> Neighbour {
    let neighbour = Neighbour::new();
    neighbour.join("lan", &["10.0.0.161/24", "fd00::161/64"], &["10.0.0.160/24", "fd00::160/64"]);
    sh("ip route add default via 10.0.0.1; ip -6 route add default via fd00::1");
    neighbour
}

/// The device to which the kernel routes, or `unreachable`.
fn way(to: &str) -> String {
    let (success, text) = try_sh(&format!("ip route get {to}"));
    let mut words = text.split_whitespace();
    match (success, words.find(|w| *w == "dev")) {
        (true, Some(_)) => words.next().unwrap().into(),
        _ => {
            assert!(text.contains("unreachable") || text.contains("No route"), "{to}: {text}");
            "unreachable".into()
        }
    }
}

fn marked(to: &str) -> String {
    way(&format!("{to} mark {MARK:#x}"))
}

/// Everything steering can change.
fn state() -> String {
    // Automatic link-local addresses, multicast routes and a link's carrier take their time.
    sh("ip rule; ip -6 rule; \
        (ip route show table all; ip -6 route show table all) | grep -vE 'fe80|ff00' | sed 's/ linkdown//'; nft list ruleset; \
        cat /proc/sys/net/ipv4/conf/*/rp_filter")
}

fn udp(address: &str) -> UdpSocket {
    UdpSocket::bind(address).unwrap()
}

fn mark_socket(socket: &UdpSocket) {
    socket::setsockopt(socket, sockopt::Mark, &MARK).unwrap();
}

fn hears(socket: &UdpSocket) -> bool {
    heard_within(socket, 3000)
}

fn silent(socket: &UdpSocket) -> bool {
    !heard_within(socket, 300)
}

fn heard_within(socket: &UdpSocket, millis: u64) -> bool {
    socket.set_read_timeout(Some(Duration::from_millis(millis))).unwrap();
    loop {
        match socket.recv_from(&mut [0; 64]) {
            Ok(_) => return true,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return false,
            // Another test gives up privileges: the C library interrupts every thread for that.
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn policy_leads_prefixes_in_and_marked_packets_out() {
    within(|| {
        let (_lan, scratch) = (lan(), Scratch::new());
        let _steering = start(&policy(&["10.1.0.0/16", "fd01::/64"]), &scratch);
        for (inside, outside) in [("10.1.2.3", "10.2.0.1"), ("fd01::3", "fd02::1")] {
            assert_eq!(way(inside), "vpn0");
            assert_eq!(marked(inside), "lan");
            assert_eq!(way(outside), "lan");
        }
        let rules = sh("ip rule; ip -6 rule");
        assert!(!rules.contains("suppress"), "without a full tunnel others' routing is as it was");
    });
}

#[test]
fn policy_serves_the_same_subnet() {
    within(|| {
        let (_lan, scratch) = (lan(), Scratch::new());
        let _steering = start(&policy(&["10.0.0.160/32", "fd00::160/128"]), &scratch);
        for (peer, host) in [("10.0.0.160", "10.0.0.162"), ("fd00::160", "fd00::162")] {
            assert_eq!(
                (way(peer), marked(peer), way(host)),
                ("vpn0".into(), "lan".into(), "lan".into())
            );
        }
    });
}

#[test]
fn a_full_tunnel_leaves_the_lan_and_static_routes() {
    within(|| {
        let (_lan, scratch) = (lan(), Scratch::new());
        sh("ip route add 10.9.0.0/16 via 10.0.0.2");
        let _steering = start(&policy(&["0.0.0.0/0", "::/0"]), &scratch);
        for (world, near) in [("8.8.8.8", "10.0.0.9"), ("2001:db8::8", "fd00::9")] {
            assert_eq!((way(world), marked(world)), ("vpn0".into(), "lan".into()));
            assert_eq!((way(near), marked(near)), ("lan".into(), "lan".into()));
        }
        assert_eq!(way("10.9.1.1"), "lan");
    });
}

#[test]
fn the_killswitch_outlives_the_daemon_until_down() {
    within(|| {
        let (_lan, scratch) = (lan(), Scratch::new());
        let before = state();
        let mut config = policy(&["10.1.0.0/16", "fd01::/64", "0.0.0.0/0", "::/0"]);
        config.addresses = vec!["10.77.0.2/24".parse().unwrap(), "fd77::2/64".parse().unwrap()];
        let inside = ["10.1.2.3", "fd01::3", "8.8.8.8", "2001:db8::8", "10.77.0.9", "fd77::9"];
        for round in 0..2 {
            drop(start(&config, &scratch));
            assert_eq!(inside.map(way), ["vpn0"; 6], "{round}");
            // What a crash does.
            sh("ip link del vpn0");
            assert_eq!(inside.map(way), ["unreachable"; 6], "{round}");
            assert_eq!(inside.map(marked)[..4], ["lan"; 4]);
            assert_eq!([way("10.0.0.9"), way("fd00::9")], ["lan"; 2]);
        }
        // SIGTERM, as in an upgrade, closes as well.
        start(&config, &scratch).leave().unwrap();
        assert_eq!(inside.map(way)[..4], ["unreachable"; 4]);
        sh("ip link del vpn0");
        assert_eq!(inside.map(way), ["unreachable"; 6]);
        down("vpn0", scratch.path()).unwrap();
        assert_eq!(inside.map(way), ["lan"; 6]);
        assert_eq!(state(), before, "nothing of ours is left");
        down("vpn0", scratch.path()).unwrap();
    });
}

#[test]
fn without_killswitch_a_crash_opens() {
    within(|| {
        let (_lan, scratch) = (lan(), Scratch::new());
        let before = state();
        let mut config = policy(&["10.1.0.0/16", "::/0"]);
        config.killswitch = false;
        start(&config, &scratch);
        sh("ip link del vpn0");
        assert_eq!([way("10.1.2.3"), way("2001:db8::8")], ["lan"; 2]);
        start(&config, &scratch).leave().unwrap();
        sh("ip link del vpn0");
        assert_eq!(state(), before);
    });
}

#[test]
fn starting_twice_changes_nothing() {
    within(|| {
        let (_lan, scratch) = (lan(), Scratch::new());
        let config = policy(&["10.1.0.0/16", "0.0.0.0/0", "fd01::/64", "::/0"]);
        let mut steering = start(&config, &scratch);
        let at_first = state();
        steering.refresh().unwrap();
        let mut again = Steering::prepare(&config, underlay(&[]), scratch.path()).unwrap();
        again.install(nix::net::if_::if_nametoindex("vpn0").unwrap()).unwrap();
        again.update(&config, underlay(&[])).unwrap();
        assert_eq!(state(), at_first);
    });
}

#[test]
fn what_others_flush_comes_back() {
    within(|| {
        let (_lan, scratch) = (lan(), Scratch::new());
        let mut steering = start(&policy(&["10.1.0.0/16", "::/0"]), &scratch);
        let at_first = state();
        sh("nft flush ruleset; ip rule flush; ip rule add pref 32766 lookup main; \
            ip rule add pref 32767 lookup default; ip route flush proto 50 table all");
        steering.refresh().unwrap();
        assert_eq!(state(), at_first);
    });
}

#[test]
fn endpoints_are_followed_when_others_have_flushed_them() {
    within(|| {
        let (_lan, scratch) = (lan(), Scratch::new());
        let mut steering = start(&policy(&["10.1.0.0/16"]), &scratch);
        let listed = || sh("nft list set inet simplevpn_vpn0 endpoints4");
        let peers = [&["192.0.2.1", "192.0.2.2"][..], &["192.0.2.2", "192.0.2.3"], &["192.0.2.3"]];
        for flush in ["true", "nft flush set inet simplevpn_vpn0 endpoints4", "nft flush ruleset"] {
            for endpoints in peers {
                sh(flush);
                steering.set_endpoints(of_peers(endpoints)).unwrap();
                let listed = listed();
                for address in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
                    let expected = endpoints.contains(&address);
                    assert_eq!(listed.contains(address), expected, "{flush}: {listed}");
                }
            }
        }
    });
}

#[test]
fn interfaces_coexist_even_in_one_slot() {
    within(|| {
        let (_lan, scratch) = (lan(), Scratch::new());
        let before = state();
        let slot = |name: &str| {
            let config = Interface { name: name.into(), ..policy(&["0.0.0.0/0"]) };
            let plan = Plan::new(&config, Mode::Policy, &underlay(&[])).unwrap();
            plan.rules.iter().map(|r| r.priority).min().unwrap()
        };
        let twin = (1..).map(|n| format!("vpn{n}")).find(|n| slot(n) == slot("vpn0")).unwrap();
        let whole = policy(&["0.0.0.0/0"]);
        let other = Interface { name: twin.clone(), ..policy(&["10.1.0.0/16", "0.0.0.0/0"]) };
        start(&whole, &scratch);
        start(&other, &scratch);
        assert_eq!([way("10.1.2.3"), way("8.8.8.8")], [twin.as_str(), "vpn0"]);
        down(&twin, scratch.path()).unwrap();
        assert_eq!([way("10.1.2.3"), way("8.8.8.8")], ["vpn0", "vpn0"]);
        assert_eq!(way("10.0.0.9"), "lan", "the shared rule for main is still there");
        down("vpn0", scratch.path()).unwrap();
        sh(&format!("ip link del {twin}; ip link del vpn0"));
        assert_eq!(state(), before);
    });
}

#[test]
fn a_configured_mark_is_used() {
    within(|| {
        let (_lan, scratch) = (lan(), Scratch::new());
        let config = Interface {
            fwmark: Some(Fwmark { mark: 0xca6c, mask: None }),
            ..policy(&["10.1.0.0/16"])
        };
        assert_eq!(start(&config, &scratch).mark(), 0xca6c);
        assert_eq!([way("10.1.2.3 mark 0xca6c"), marked("10.1.2.3")], ["lan", "vpn0"]);
        // pbr adds its bits to ours.
        assert_eq!(way("10.1.2.3 mark 0x1ca6c"), "lan");
    });
}

#[test]
fn a_configured_mask_says_which_bits_count() {
    within(|| {
        let (_lan, scratch) = (lan(), Scratch::new());
        let fwmark = Fwmark { mark: 0x0500, mask: Some(0x0f00) };
        let config = Interface { fwmark: Some(fwmark), ..policy(&["10.1.0.0/16"]) };
        assert_eq!(start(&config, &scratch).mark(), 0x0500);
        for (mark, device) in [("0x0500", "lan"), ("0xffff_f5ff", "lan"), ("0x0700", "vpn0")] {
            assert_eq!(way(&format!("10.1.2.3 mark {}", mark.replace('_', ""))), device, "{mark}");
        }
    });
}

#[test]
fn route_mode_uses_main_and_refuses_what_would_loop() {
    within(|| {
        let (_lan, scratch) = (lan(), Scratch::new());
        let before = state();
        let mut config = policy(&["10.1.0.0/16", "fd01::/64", "10.77.0.0/24"]);
        config.steering = model::Steering::Route;
        // The kernel makes a route of its own for this one.
        config.addresses = vec!["10.77.0.2/24".parse().unwrap()];
        let mut steering = start(&config, &scratch);
        let inside = ["10.1.2.3", "fd01::3", "10.77.0.9"];
        assert_eq!(inside.map(way), ["vpn0"; 3]);
        let late = steering.set_endpoints(of_peers(&["10.1.0.5"])).unwrap_err();
        assert!(late.to_string().contains("the endpoint 10.1.0.5 lies inside 10.1.0.0/16"));
        steering.set_mtu(1300).unwrap();
        drop(steering);
        sh("ip link del vpn0");
        assert_eq!(inside.map(way), ["unreachable"; 3]);
        down("vpn0", scratch.path()).unwrap();
        assert_eq!(state(), before);

        let refused = |endpoint, allowed: &[&str]| {
            let peers = vec![peer("b", endpoint, allowed)];
            let config = interface(model::Steering::Route, peers);
            Steering::prepare(&config, underlay(&[]), scratch.path()).unwrap_err().to_string()
        };
        assert!(refused(None, &["0.0.0.0/0"]).contains("use steering 'policy'"));
        assert!(refused(Some("10.1.0.5"), &["10.1.0.0/16"]).contains("lies inside"));
        assert_eq!(state(), before);
    });
}

#[test]
fn none_steers_nothing_but_keeps_clear_text_out() {
    within(|| {
        let (_lan, scratch) = (lan(), Scratch::new());
        let mut config = policy(&["10.1.0.0/16"]);
        config.steering = model::Steering::None;
        let steering = start(&config, &scratch);
        assert_eq!(way("10.1.2.3"), "lan");
        assert!(sh("nft list ruleset").contains("protected4"));
        steering.remove().unwrap();
        config.killswitch = false;
        sh("ip link del vpn0");
        let before = state();
        let steering = start(&config, &scratch);
        sh("ip link del vpn0");
        assert_eq!(state(), before);
        steering.remove().unwrap();
    });
}

#[test]
fn a_prefix_that_is_a_connected_network_is_refused() {
    within(|| {
        let (_lan, scratch) = (lan(), Scratch::new());
        for allowed in ["10.0.0.0/24", "fd00::/64"] {
            let refused = Steering::prepare(&policy(&[allowed]), underlay(&[]), scratch.path());
            assert!(matches!(refused, Err(Error::Conflict(_))), "{allowed}");
        }
        // Overlapping sites: with an offset it is no overlap, and nothing is redirected.
        let mut config = shifted(&["10.0.0.0/24"], "192.0.2.1");
        config.steering = model::Steering::Policy;
        let mut steering = start(&config, &scratch);
        assert_eq!([way("10.0.1.160"), way("10.0.0.160")], ["vpn0", "lan"]);
        assert!(!sh("nft list ruleset").contains("dnat"));
        // Later the LAN is renumbered.
        sh("ip address add 10.0.1.7/24 dev lan");
        let refused = steering.refresh().unwrap_err();
        assert!(refused.to_string().contains("10.0.1.0/24 of peer b is a network to which"));
    });
}

#[test]
fn the_last_clear_packet_does_not_leave_during_a_reload() {
    within(|| {
        let (lan, scratch) = (lan(), Scratch::new());
        sh("ip route replace default via 10.0.0.160");
        lan.run(|| sh("ip address add 10.1.2.3/32 dev lan"));
        let heard = lan.run(|| udp("10.1.2.3:7000"));
        let sender = udp("0.0.0.0:0");
        sender.send_to(b"open", "10.1.2.3:7000").unwrap();
        assert!(hears(&heard), "before the start it is heard");
        let mut steering = start(&policy(&["10.1.0.0/16"]), &scratch);
        let (stop, sent) = (AtomicBool::new(false), AtomicU32::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _ = sender.send_to(b"leak", "10.1.2.3:7000");
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
            for round in 0..12 {
                let mut config = match round % 4 {
                    0 => policy(&["0.0.0.0/0"]),
                    1 => policy(&["10.1.2.0/24", "10.2.0.0/16"]),
                    2 => policy(&["10.1.2.3/32"]),
                    _ => policy(&["10.1.0.0/16"]),
                };
                if round % 4 == 2 {
                    config.steering = model::Steering::Route;
                }
                steering.update(&config, underlay(&[])).unwrap();
                let enough = sent.load(Ordering::Relaxed) + 50;
                while sent.load(Ordering::Relaxed) < enough {
                    std::thread::yield_now();
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(silent(&heard));
    });
}

#[test]
fn the_same_subnet_works_under_every_rp_filter() {
    for strictness in 0..=2 {
        within(|| {
            let (lan, scratch) = (lan(), Scratch::new());
            sh(&format!("sysctl -qw net.ipv4.conf.lan.rp_filter={strictness}"));
            let natt = udp("0.0.0.0:4500");
            mark_socket(&natt);
            let theirs = lan.run(|| udp("10.0.0.160:4500"));
            let exchange = || {
                sh("ip neigh flush all");
                lan.run(|| sh("ip neigh flush all"));
                let there = theirs.try_clone().unwrap();
                lan.run(move || there.send_to(b"x", "10.0.0.161:4500").unwrap());
                let received = hears(&natt);
                natt.send_to(b"x", "10.0.0.160:4500").unwrap();
                received && hears(&theirs)
            };
            let config = interface(
                model::Steering::Policy,
                vec![peer("answering side", None, &["10.0.0.160/32"])],
            );
            let steering = start(&config, &scratch);
            assert!(exchange(), "rp_filter {strictness}");
            if strictness == 1 {
                sh("sysctl -qw net.ipv4.conf.lan.rp_filter=1");
                assert!(!exchange(), "strict filtering is in the way, or this test shows nothing");
                sh("sysctl -qw net.ipv4.conf.lan.rp_filter=2");
            }
            steering.remove().unwrap();
            let value = sh("cat /proc/sys/net/ipv4/conf/lan/rp_filter");
            assert_eq!(value, strictness.to_string());
        });
    }
}

#[test]
fn reverse_path_is_loosened_only_where_it_has_to_be() {
    let loosens = |endpoint, allowed: &[&str], learned: &[&str]| {
        let config = interface(model::Steering::Policy, vec![peer("b", endpoint, allowed)]);
        Plan::new(&config, Mode::Policy, &underlay(learned)).unwrap().loosen
    };
    assert!(!loosens(Some("192.0.2.1"), &["10.1.0.0/16"], &[]));
    assert!(loosens(Some("192.0.2.1"), &["0.0.0.0/0"], &[]));
    assert!(loosens(Some("10.0.0.160"), &["10.0.0.160/32"], &[]));
    assert!(loosens(Some("192.0.2.1"), &["10.1.0.0/16"], &["10.1.0.7"]));
    assert!(loosens(Some("vpn.example.net"), &["10.1.0.0/16"], &[]));
    assert!(loosens(None, &["10.1.0.0/16"], &[]));
    assert!(!loosens(None, &["fd00::/64"], &[]));
}

#[test]
fn marks_are_clear_of_others_bits() {
    let (ours, mask) = mark(None);
    assert_eq!(ours & !mask, 0);
    assert_eq!(mask & (0x3f00 | 0xff_0000), 0);
    let configured = |mark, mask| Some(Fwmark { mark, mask });
    assert_eq!(mark(configured(1, None)), (1, 0xff00_c0ff));
    assert_eq!(mark(configured(0x100, None)), (0x100, 0xff00_ffff));
    assert_eq!(mark(configured(0x100, Some(0x300))), (0x100, 0x300));
}

#[test]
fn a_thousand_peers_do_not_take_long() {
    within(|| {
        let (_lan, scratch) = (lan(), Scratch::new());
        for steering in [model::Steering::Policy, model::Steering::Offset] {
            let peers = (0..1000_u32).map(|n| {
                let prefix = format!("10.{}.{}.0/24", 64 + n / 250, n % 250);
                let mut peer = peer(&format!("p{n}"), None, &[&prefix]);
                peer.offset = 0x0010_0000;
                peer
            });
            let config = interface(steering, peers.collect());
            for round in ["first", "again"] {
                let begin = std::time::Instant::now();
                start(&config, &scratch);
                sh("ip link del vpn0");
                let taken = begin.elapsed();
                println!("{steering:?}, {round}: {taken:?}");
                assert!(taken < Duration::from_secs(5), "{taken:?}");
            }
            let begin = std::time::Instant::now();
            down("vpn0", scratch.path()).unwrap();
            println!("{steering:?}, down: {:?}", begin.elapsed());
        }
    });
}

#[test]
fn names_are_resolved_under_a_closed_full_tunnel() {
    for strictness in 0..=2 {
        within(|| {
            let (lan, scratch) = (lan(), Scratch::new());
            sh(&format!("sysctl -qw net.ipv4.conf.lan.rp_filter={strictness}"));
            lan.run(|| {
                sh("ip address add 10.0.0.1/24 dev lan; ip address add 192.0.2.53/32 dev lan")
            });
            let server = lan.run(|| udp("192.0.2.53:53"));
            // After a crash: the killswitch is there, and the daemon starts again.
            start(&policy(&["0.0.0.0/0"]), &scratch);
            sh("ip link del vpn0");
            let config = interface(
                model::Steering::Policy,
                vec![peer("named", Some("vpn.example.net"), &["0.0.0.0/0"])],
            );
            let steering = start(&config, &scratch);
            let query = |mark: bool| {
                let socket = udp("0.0.0.0:0");
                if mark {
                    socket::setsockopt(&socket, sockopt::Mark, &steering.mark()).unwrap();
                }
                let _ = socket.send_to(b"?", "192.0.2.53:53");
                socket
            };
            query(false);
            assert!(silent(&server), "clear text");
            let asking = query(true);
            server.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
            let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
            server.send_to(b"!", from).unwrap();
            assert!(hears(&asking), "rp_filter {strictness}");
            // Why the device has to be there first.
            sh("ip link del vpn0");
            server.send_to(b"!", from).unwrap();
            assert_eq!(heard_within(&asking, 300), strictness == 0);
        });
    }
}
