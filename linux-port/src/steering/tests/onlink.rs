//! Connected networks inside wider prefixes of peers.

use super::*;

/// A hub's peers: everything private, and a neighbour in the LAN itself.
fn hub(allowed: &[&str]) -> Interface {
    let hub = peer("hub", Some("192.0.2.1"), allowed);
    let neighbour = peer("neighbour", None, &["10.0.0.160/32", "fd00::160/128"]);
    interface(model::Steering::Policy, vec![hub, neighbour])
}

const WIDE: [&str; 2] = ["10.0.0.0/8", "fd00::/16"];

#[test]
fn the_longest_prefix_wins() {
    for steering in [model::Steering::Policy, model::Steering::Route] {
        within(|| {
            let (_lan, scratch) = (lan(), Scratch::new());
            let before = state();
            let config = Interface { steering, ..hub(&WIDE) };
            let mut steering = start(&config, &scratch);
            let at_first = state();
            for round in ["at work", "dead", "closed"] {
                let into = if round == "at work" { "vpn0" } else { "unreachable" };
                for (far, near, peer) in [
                    ("10.1.2.3", "10.0.0.162", "10.0.0.160"),
                    ("fd00:1::3", "fd00::162", "fd00::160"),
                ] {
                    assert_eq!([way(far), way(near), way(peer)], [into, "lan", into], "{round}");
                }
                match round {
                    "at work" => {
                        steering.refresh().unwrap();
                        assert_eq!(state(), at_first);
                        sh("ip link del vpn0");
                    }
                    "dead" => {
                        down("vpn0", scratch.path()).unwrap();
                        assert_eq!(state(), before);
                        close(&config, underlay(&[]), scratch.path()).unwrap();
                    }
                    _ => down("vpn0", scratch.path()).unwrap(),
                }
            }
            assert_eq!(state(), before);
        });
    }
}

#[test]
fn networks_come_and_go_and_nothing_falls_through() {
    within(|| {
        let (_lan, scratch) = (lan(), Scratch::new());
        let mut steering = start(&hub(&["10.0.0.0/8", "172.16.0.0/12", "fd00::/16"]), &scratch);
        let at_first = state();
        let containers = || ["172.17.0.2", "fd00:17::2"].map(way);
        sh("ip link add docker0 type bridge; ip link set docker0 up;
            ip address add 172.17.0.1/16 dev docker0; ip address add fd00:17::1/64 dev docker0 nodad");
        assert_eq!(containers(), ["vpn0"; 2], "it is not known yet");
        steering.follow_connected().unwrap();
        assert_eq!(containers(), ["docker0"; 2]);
        // What is unreachable by itself goes into the tunnel at once, and back.
        sh("ip link set docker0 down");
        assert_eq!(way("172.17.0.2"), "vpn0");
        sh("ip link set docker0 up");
        assert_eq!(way("172.17.0.2"), "docker0");
        // The daemon dies, and then the network goes.
        sh("ip link del vpn0; ip link del docker0");
        assert_eq!(way("172.17.0.2"), "unreachable");
        steering.install(tun("vpn0")).unwrap();
        steering.follow_connected().unwrap();
        assert_eq!(state(), at_first);

        // Renumbered, with an address that is a peer's prefix and one that is not.
        sh("ip address add 10.9.0.1/16 dev lan; ip address add 172.16.0.1/12 dev lan");
        let conflict = steering.refresh().unwrap_err().to_string();
        assert!(conflict.starts_with("172.16.0.0/12 of peer hub is a network"), "{conflict}");
        assert_eq!([way("10.9.0.2"), way("172.16.0.2")], ["lan", "vpn0"]);
        // With a full tunnel beside it everything else is the same.
        let full = hub(&["10.0.0.0/8", "0.0.0.0/0"]);
        sh("ip address del 172.16.0.1/12 dev lan");
        steering.update(&full, underlay(&[])).unwrap();
        let ways = ["10.9.0.2", "10.0.0.9", "10.8.0.2", "8.8.8.8"].map(way);
        assert_eq!(ways, ["lan", "lan", "vpn0", "vpn0"]);
        sh("ip address del 10.9.0.1/16 dev lan");
        assert_eq!(way("10.9.0.2"), "vpn0");
        steering.follow_connected().unwrap();
        assert_eq!(way("10.9.0.2"), "vpn0");
    });
}

#[test]
fn what_the_file_says_is_closed_around_before_it_is_there() {
    within(|| {
        let scratch = Scratch::new();
        let lan = "10.1.2.0/24".parse().unwrap();
        let config = Interface { connected: vec![lan], ..policy(&["10.0.0.0/8"]) };
        // As at boot: nothing but the killswitch, and then the LAN.
        close(&config, underlay(&[]), scratch.path()).unwrap();
        assert_eq!(way("10.1.2.3"), "unreachable");
        let neighbour = Neighbour::new();
        neighbour.join("home", &["10.1.2.1/24"], &["10.1.2.3/24"]);
        assert_eq!([way("10.1.2.3"), way("10.1.3.3")], ["home", "unreachable"]);
        let here = udp("10.1.2.1:7000");
        neighbour.run(|| udp("0.0.0.0:0").send_to(b"x", "10.1.2.1:7000").unwrap());
        assert!(hears(&here));
    });
}

#[test]
fn interfaces_of_one_slot_share_a_network() {
    within(|| {
        let (_lan, scratch) = (lan(), Scratch::new());
        let slot = |name: &str| {
            let config = Interface { name: name.into(), ..policy(&["0.0.0.0/0"]) };
            let plan = Plan::new(&config, Mode::Policy, &underlay(&[])).unwrap();
            plan.rules.iter().map(|r| r.priority).min().unwrap()
        };
        let twin = (1..).map(|n| format!("vpn{n}")).find(|n| slot(n) == slot("vpn0")).unwrap();
        start(&policy(&["10.0.0.0/8"]), &scratch);
        start(&Interface { name: twin.clone(), ..policy(&["10.0.0.0/12"]) }, &scratch);
        down(&twin, scratch.path()).unwrap();
        assert_eq!([way("10.0.0.9"), way("10.1.0.1")], ["lan", "vpn0"]);
    });
}

#[test]
fn clear_text_of_a_connected_network_is_let_in_and_no_other() {
    for steering in [model::Steering::Policy, model::Steering::Route, model::Steering::None] {
        within(|| {
            let (lan, scratch) = (lan(), Scratch::new());
            sh("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.lan.rp_filter=0");
            lan.run(|| {
                sh("ip address add 10.0.0.162/24 dev lan; ip address add fd00::162/64 dev lan nodad;
                    ip address add 10.7.0.1/24 dev lan; ip address add fd00:7::1/64 dev lan nodad")
            });
            let _steering = start(&Interface { steering, ..hub(&WIDE) }, &scratch);
            let (v4, v6) = (udp("10.0.0.161:7000"), udp("[fd00::161]:7000"));
            let from = |source: &str| {
                let (heard, to) = match source.contains(':') {
                    true => (&v6, "[fd00::161]:7000"),
                    false => (&v4, "10.0.0.161:7000"),
                };
                let source = match source.contains(':') {
                    true => format!("[{source}]:0"),
                    false => format!("{source}:0"),
                };
                lan.run(move || udp(&source).send_to(b"x", to).unwrap());
                heard_within(heard, 500)
            };
            for (neighbour, protected, elsewhere) in
                [("10.0.0.162", "10.0.0.160", "10.7.0.1"), ("fd00::162", "fd00::160", "fd00:7::1")]
            {
                assert!(from(neighbour), "{neighbour}");
                assert!(!from(protected), "{protected}");
                assert!(!from(elsewhere), "{elsewhere}");
            }
        });
    }
}

#[test]
fn a_network_inside_a_redirected_prefix_is_not_redirected() {
    within(|| {
        let (lan, scratch) = (lan(), Scratch::new());
        let mut config = shifted(&["10.0.0.0/8"], "192.0.2.1");
        config.peers[0].offset = 0x0100_0000;
        let _steering = start(&config, &scratch);
        let clear = lan.run(|| udp("10.0.0.160:7000"));
        udp("0.0.0.0:0").send_to(b"x", "10.0.0.160:7000").unwrap();
        assert!(hears(&clear));
        let rules = sh("nft list chain inet simplevpn_vpn0 redirect_out");
        assert!(rules.contains("10.0.0.0/8 : 11.0.0.0/8"), "{rules}");
    });
}
