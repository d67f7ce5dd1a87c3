//! Which address of ours goes into the tunnel: the choice, and what the kernel makes of it.

use super::*;
use crate::steering::source::{Sources, choose};

fn with_local(mut config: Interface, local: &[&str]) -> Interface {
    config.peers[0].local_ips = local.iter().map(|p| p.parse().unwrap()).collect();
    config
}

fn chosen(config: &Interface, endpoints: &[&str], own: &[&str]) -> Sources {
    chosen_by(config, &underlay(endpoints), own)
}

fn chosen_by(config: &Interface, underlay: &Underlay, own: &[&str]) -> Sources {
    let own: Vec<IpAddr> = own.iter().map(|a| a.parse().unwrap()).collect();
    let towards = |remote: IpAddr| -> Result<Option<IpAddr>, ()> {
        let source = if remote.is_ipv4() { "192.0.2.200" } else { "fd00::200" };
        Ok(source.parse().ok())
    };
    choose(config, underlay, &own, towards).unwrap()
}

fn sources(pairs: &[(&str, &str)]) -> Sources {
    pairs.iter().map(|(p, a)| (p.parse().unwrap(), a.parse().unwrap())).collect()
}

#[test]
fn a_local_selector_comes_before_the_way_to_the_peer_and_neither_is_none() {
    let config = policy(&["10.2.0.0/16", "fd02::/64"]);
    let own = ["172.16.0.1", "10.1.0.1", "10.1.0.2", "fd05::1", "fd01::1"];
    let local = with_local(config.clone(), &["10.1.0.0/24", "fd01::/64"]);
    let both = [("10.2.0.0/16", "10.1.0.1"), ("fd02::/64", "fd01::1")];
    assert_eq!(chosen(&local, &[], &own), sources(&both));
    assert_eq!(chosen(&local, &["192.0.2.1"], &own), sources(&both));

    // A peer that protects the address at which it is reached knows us by ours.
    let v4 = sources(&[("10.2.0.0/16", "192.0.2.200")]);
    assert_eq!(chosen(&local, &["10.2.0.9"], &["172.16.0.1"]), v4);
    let any = with_local(config.clone(), &["0.0.0.0/0", "::/0"]);
    for config in [&config, &any] {
        assert_eq!(chosen(config, &["10.2.0.9"], &own), v4);
        let v6 = sources(&[("fd02::/64", "fd00::200")]);
        assert_eq!(chosen(config, &["fd02::9"], &own), v6);
        // Of a site behind a gateway nothing is known.
        assert_eq!(chosen(config, &["192.0.2.1"], &own), Sources::new());
        assert_eq!(chosen(config, &[], &own), Sources::new());
    }
}

/// What was agreed with the first peer.
fn agreed(prefixes: &[&str]) -> Agreed {
    let prefixes: Vec<IpCidr> = prefixes.iter().map(|p| p.parse().unwrap()).collect();
    [("b".to_string(), prefixes)].into_iter().collect()
}

#[test]
fn what_was_agreed_comes_before_what_is_configured() {
    let own = ["203.0.113.2", "10.1.0.1", "10.1.7.1", "fd01::1"];
    let config = policy(&["192.168.1.0/24", "fd02::/64", "0.0.0.0/0"]);
    let by = |config: &Interface, prefixes: &[&str]| {
        let agreed = agreed(prefixes);
        chosen_by(config, &Underlay { agreed, ..underlay(&["192.0.2.1"]) }, &own)
    };
    let v4 = |source| sources(&[("192.168.1.0/24", source), ("0.0.0.0/0", source)]);
    assert_eq!(by(&config, &["10.1.0.0/16"]), v4("10.1.0.1"));
    // A configured selector is narrowed by what was agreed, and used where nothing was.
    let local = with_local(config.clone(), &["10.1.0.0/16"]);
    assert_eq!(by(&local, &["10.1.7.0/24"]), v4("10.1.7.1"));
    assert_eq!(by(&local, &[]), v4("10.1.0.1"));
    // No address of ours is among them, or any would do.
    assert_eq!(by(&config, &["10.9.0.0/16"]), Sources::new());
    assert_eq!(by(&config, &["0.0.0.0/0", "::/0"]), Sources::new());
    assert_eq!(by(&config, &["fd01::/64"]), sources(&[("fd02::/64", "fd01::1")]));
}

#[test]
fn only_families_without_an_address_and_prefixes_that_are_led_have_a_source() {
    let local = with_local(policy(&["10.2.0.0/16", "fd02::/64"]), &["10.1.0.0/24", "fd01::/64"]);
    let own = ["10.1.0.1", "fd01::1"];
    let numbered = |address: &str| {
        let addresses = vec![address.parse().unwrap()];
        chosen(&Interface { addresses, ..local.clone() }, &["192.0.2.1"], &own)
    };
    assert_eq!(numbered("10.77.0.1/32"), sources(&[("fd02::/64", "fd01::1")]));
    assert_eq!(numbered("fd77::1/128"), sources(&[("10.2.0.0/16", "10.1.0.1")]));
    let mut not_led = local.clone();
    not_led.peers[0].route_allowed_ips = false;
    assert_eq!(chosen(&not_led, &["192.0.2.1"], &own), Sources::new());
}

#[test]
fn addresses_that_others_do_not_know_are_not_taken() {
    let wide = ["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"];
    let local = with_local(policy(&["10.2.0.0/16", "fd02::/64"]), &wide);
    let private = ["127.0.0.1", "169.254.1.1", "::1", "fe80::1"];
    assert_eq!(chosen(&local, &[], &private), Sources::new());
}

#[test]
fn sources_are_named_in_host_space_and_for_each_peer() {
    let mut config = shifted(&["10.2.0.0/24"], "192.0.2.1");
    config.peers.push(peer("c", None, &["10.3.0.0/24"]));
    config.peers[0].local_ips = vec!["10.1.0.0/24".parse().unwrap()];
    let own = ["10.1.0.1"];
    let expected = sources(&[("10.2.1.0/24", "10.1.0.1"), ("10.3.0.0/24", "192.0.2.200")]);
    assert_eq!(chosen(&config, &["192.0.2.1", "10.3.0.9"], &own), expected);
}

/// The source address with which a packet to `to` would go.
fn source_to(to: &str) -> String {
    let text = sh(&format!("ip route get {to}"));
    let mut words = text.split_whitespace().skip_while(|w| *w != "src");
    words.nth(1).unwrap_or("none").into()
}

#[test]
fn the_source_follows_addresses() {
    for steering in [model::Steering::Policy, model::Steering::Route] {
        within(|| {
            let (_lan, scratch) = (lan(), Scratch::new());
            sh("ip address add 172.16.0.1/32 dev lo; ip address add 10.1.0.1/24 dev lo;
                ip address add fd05::1/128 dev lo nodad; ip address add fd01::1/64 dev lo nodad");
            let allowed = ["10.2.0.0/24", "fd02::/64"];
            let b = peer("b", Some("10.0.0.160"), &allowed);
            let config = with_local(interface(steering, vec![b]), &["10.1.0.0/24", "fd01::/64"]);
            let mut steering = start(&config, &scratch);
            let both = || (source_to("10.2.0.1"), source_to("fd02::1"));
            let is = |v4: &str, v6: &str| (v4.to_string(), v6.to_string());
            assert_eq!(both(), is("10.1.0.1", "fd01::1"));

            // Without these addresses the way remains.
            sh("ip address del 10.1.0.1/24 dev lo; ip address del fd01::1/64 dev lo");
            steering.set_endpoints(of_peers(&["10.0.0.160"])).unwrap();
            steering.refresh().unwrap();
            assert_eq!((way("10.2.0.1"), way("fd02::1")), ("vpn0".into(), "vpn0".into()));

            // They come back, and another configuration needs none.
            sh("ip address add 10.1.0.1/24 dev lo; ip address add fd01::1/64 dev lo nodad");
            steering.refresh().unwrap();
            assert_eq!(both(), is("10.1.0.1", "fd01::1"));
            let before = state();
            steering.refresh().unwrap();
            assert_eq!(state(), before);
            let addresses = vec!["10.77.0.1/32".parse().unwrap(), "fd77::1/128".parse().unwrap()];
            let numbered = Interface { addresses, ..config.clone() };
            steering.update(&numbered, underlay(&["10.0.0.160"])).unwrap();
            assert_eq!(both(), is("10.77.0.1", "fd77::1"));

            steering.update(&config, underlay(&["10.0.0.160"])).unwrap();
            assert_eq!(both(), is("10.1.0.1", "fd01::1"));
            steering.leave().unwrap();
            assert_eq!((way("10.2.0.1"), way("fd02::1")), (is("unreachable", "unreachable")));
            down("vpn0", scratch.path()).unwrap();
            assert_eq!(way("10.2.0.1"), "lan");
        });
    }
}

#[test]
fn the_source_follows_what_is_agreed() {
    for steering in [model::Steering::Policy, model::Steering::Route] {
        within(|| {
            let (_lan, scratch) = (lan(), Scratch::new());
            sh("ip address add 10.1.0.1/24 dev lo; ip address add fd01::1/64 dev lo nodad");
            let peers = [("b", "10.2.0.0/24 fd02::/64"), ("c", "10.3.0.0/24")];
            let peers = peers
                .map(|(name, allowed)| peer(name, None, &allowed.split(' ').collect::<Vec<_>>()));
            let mut steering = start(&interface(steering, peers.to_vec()), &scratch);
            let left_alone = source_to("10.3.0.1");
            let both = || [source_to("10.2.0.1"), source_to("fd02::1")];
            for _ in 0..2 {
                steering.set_agreed(agreed(&["10.1.0.0/16", "fd01::/64"])).unwrap();
                assert_eq!(both(), ["10.1.0.1", "fd01::1"]);
            }
            assert_eq!(source_to("10.3.0.1"), left_alone);
            // Others have taken the routes away meanwhile.
            sh("ip route flush proto 50 table all; ip -6 route flush proto 50 table all");
            steering.set_agreed(agreed(&["10.0.0.161/32", "fd00::161/128"])).unwrap();
            assert_eq!(both(), ["10.0.0.161", "fd00::161"]);
            steering.refresh().unwrap();
            let before = state();
            steering.set_agreed(agreed(&["10.0.0.0/24", "fd00::/64"])).unwrap();
            assert_eq!(state(), before);
            // A device that is down takes no routes; they are made with their source later.
            sh("ip link set vpn0 down");
            steering.set_agreed(agreed(&["10.1.0.0/16", "fd01::/64"])).unwrap();
            assert_eq!(way("10.2.0.1"), "unreachable");
            sh("ip link set vpn0 up");
            steering.refresh().unwrap();
            assert_eq!(both(), ["10.1.0.1", "fd01::1"]);
        });
    }
}

#[test]
fn an_address_that_is_not_ready_delays_the_source_and_not_the_route() {
    within(|| {
        let scratch = Scratch::new();
        // Proving this address unique takes longer than the test.
        sh("ip link add wan type veth peer name far; ip link set far up;
            echo 60 > /proc/sys/net/ipv6/conf/wan/dad_transmits; ip link set wan up;
            ip address add fd01::1/64 dev wan");
        assert!(sh("ip address show dev wan").contains("tentative"));
        let mut steering = start(&with_local(policy(&["fd02::/64"]), &["fd01::/64"]), &scratch);
        assert_eq!(way("fd02::1"), "vpn0");
        sh("ip address del fd01::1/64 dev wan; ip address add fd01::1/64 dev wan nodad");
        steering.refresh().unwrap();
        assert_eq!((way("fd02::1"), source_to("fd02::1")), ("vpn0".into(), "fd01::1".into()));
    });
}

#[test]
fn somebody_elses_route_in_main_stays() {
    within(|| {
        let (_lan, scratch) = (lan(), Scratch::new());
        let config = interface(model::Steering::Route, vec![peer("b", None, &["10.2.0.0/24"])]);
        let mut steering = start(&config, &scratch);
        sh("ip route append 10.2.0.0/24 dev lan proto static");
        steering.set_endpoints(of_peers(&["10.0.0.160"])).unwrap();
        assert_eq!((way("10.2.0.1"), source_to("10.2.0.1")), ("vpn0".into(), "10.0.0.161".into()));
        assert!(sh("ip route show 10.2.0.0/24").contains("dev lan proto static"));
    });
}
