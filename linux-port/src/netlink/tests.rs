//! Against the kernel, each test in a network namespace of its own: they need root, or
//! `unshare -Urn`.

use super::*;
use crate::netns::{sh, within};

fn prefix(text: &str) -> IpCidr {
    text.parse().unwrap()
}

fn device(netlink: &mut Netlink, name: &str) -> u32 {
    sh(&format!("ip link add {name} type veth peer name {name}-far; ip link set {name}-far up"));
    let index = netlink.link(name).unwrap().unwrap().index;
    netlink.set_up(index).unwrap();
    index
}

fn addresses(netlink: &mut Netlink, index: u32) -> Vec<IpCidr> {
    let all = netlink.addresses().unwrap();
    all.into_iter().filter(|(device, _)| *device == index).map(|(_, address)| address).collect()
}

#[test]
fn links_and_addresses() {
    within(|| {
        let mut netlink = Netlink::open().unwrap();
        assert_eq!(netlink.link("vpn0").unwrap(), None);
        let index = device(&mut netlink, "vpn0");
        netlink.set_mtu(index, 1400).unwrap();
        let link = netlink.link("vpn0").unwrap().unwrap();
        assert_eq!((link.name.as_str(), link.mtu, link.up), ("vpn0", 1400, true));
        assert!(addresses(&mut netlink, index).is_empty(), "no automatic link-local address");
        for text in ["10.77.0.2/24", "fd77::2/64"] {
            netlink.add_address(index, &prefix(text)).unwrap();
            netlink.add_address(index, &prefix(text)).unwrap();
            assert!(addresses(&mut netlink, index).contains(&prefix(text)));
        }
        let connected = vec![prefix("10.77.0.0/24"), prefix("fd77::/64")];
        assert_eq!(netlink.connected(None).unwrap(), connected);
        assert!(netlink.connected(Some(index)).unwrap().is_empty());
        let tun = device(&mut netlink, "tun7");
        sh(
            "ip address add 10.88.0.1 peer 10.99.0.1/32 dev tun7; ip address add 10.88.0.9/32 dev tun7",
        );
        assert!(addresses(&mut netlink, tun).contains(&prefix("10.88.0.1/32")));
        assert_eq!(netlink.connected(Some(index)).unwrap(), [prefix("10.99.0.1/32")]);
        for text in ["10.77.0.2/24", "fd77::2/64"] {
            netlink.delete_address(index, &prefix(text)).unwrap();
            netlink.delete_address(index, &prefix(text)).unwrap();
        }
        assert!(addresses(&mut netlink, index).is_empty());
    });
}

#[test]
fn routes_are_idempotent_and_recognised() {
    within(|| {
        let mut netlink = Netlink::open().unwrap();
        let vpn = device(&mut netlink, "vpn0");
        let table = 0x5300_0000;
        for (family, texts) in
            [(Family::V4, ["10.1.0.0/16", "0.0.0.0/0"]), (Family::V6, ["fd01::/16", "::/0"])]
        {
            let metric = 1024;
            let mut ours = Vec::new();
            for destination in texts.map(prefix) {
                for (table, target, metric) in [
                    (table, Target::Device(vpn), metric),
                    (table, Target::Unreachable, 70_000),
                    (table, Target::Throw, 70_001),
                    (TABLE_MAIN, Target::Device(vpn), metric),
                    (TABLE_MAIN, Target::Unreachable, 70_000),
                ] {
                    ours.push(Route { destination, table, target, metric, source: None });
                }
            }
            for route in ours.iter().chain(&ours) {
                netlink.add_route(route).unwrap();
            }
            let mut listed = netlink.routes(family).unwrap();
            listed.sort();
            ours.sort();
            assert_eq!(listed, ours);
            for route in ours.iter().chain(&ours) {
                netlink.delete_route(route).unwrap();
            }
            assert!(netlink.routes(family).unwrap().is_empty());
        }
    });
}

#[test]
fn somebody_elses_route_is_an_error_that_names_it() {
    within(|| {
        let mut netlink = Netlink::open().unwrap();
        let vpn = device(&mut netlink, "vpn0");
        sh("ip route add 10.1.0.0/16 dev vpn0");
        let route = Route {
            destination: prefix("10.1.0.0/16"),
            table: TABLE_MAIN,
            target: Target::Device(vpn),
            metric: 0,
            source: None,
        };
        let error = netlink.add_route(&route).unwrap_err();
        assert_eq!(error.to_string(), "adding route 10.1.0.0/16 dev vpn0 metric 0: File exists");
        netlink.delete_route(&route).unwrap();
        assert_ne!(sh("ip route show 10.1.0.0/16"), "", "it is not ours to delete");
        let nowhere = Route { target: Target::Device(9999), ..route };
        assert_eq!(netlink.add_route(&nowhere).unwrap_err().errno, Errno::ENODEV);
    });
}

#[test]
fn a_preferred_source_is_set_replaced_and_told() {
    within(|| {
        let mut netlink = Netlink::open().unwrap();
        let vpn = device(&mut netlink, "vpn0");
        sh("ip address add 192.0.2.1/32 dev lo; ip address add 192.0.2.2/32 dev lo;
            ip address add fd00::1/128 dev lo nodad; ip address add fd00::2/128 dev lo nodad");
        for (destination, sources, missing) in [
            ("10.1.0.0/16", ["192.0.2.1", "192.0.2.2"], "192.0.2.3"),
            ("fd01::/16", ["fd00::1", "fd00::2"], "fd00::3"),
        ] {
            let destination = prefix(destination);
            let family = Family::of(&destination);
            let with = |source: Option<&str>| Route {
                destination,
                table: 0x5300_0000,
                target: Target::Device(vpn),
                metric: 1024,
                source: source.map(|text| text.parse().unwrap()),
            };
            netlink.add_route(&with(None)).unwrap();
            for source in [Some(sources[0]), Some(sources[1]), None, Some(sources[0])] {
                netlink.replace_route(&with(source)).unwrap();
                assert_eq!(netlink.routes(family).unwrap(), [with(source)]);
            }
            let refused = netlink.replace_route(&with(Some(missing))).unwrap_err();
            assert_eq!(refused.errno, Errno::EINVAL, "{refused}");
            assert_eq!(netlink.routes(family).unwrap(), [with(Some(sources[0]))]);
            netlink.delete_route(&with(None)).unwrap();
            assert!(netlink.routes(family).unwrap().is_empty());
            let refused = netlink.add_route(&with(Some(missing))).unwrap_err();
            assert_eq!(refused.errno, Errno::EINVAL, "{refused}");
        }
    });
}

#[test]
fn the_way_to_an_address() {
    within(|| {
        let mut netlink = Netlink::open().unwrap();
        let (near, far) = (device(&mut netlink, "near"), device(&mut netlink, "far"));
        let lo = netlink.link("lo").unwrap().unwrap().index;
        netlink.set_mtu(near, 1400).unwrap();
        sh("ip address add 192.0.2.1/24 dev near; ip address add fd00::1/64 dev near nodad;
            ip address add 198.51.100.1/24 dev far; ip address add fd01::1/64 dev far nodad;
            ip route add 10.1.0.0/16 via 192.0.2.2; ip -6 route add fd02::/64 via fd00::2;
            ip route add 10.1.0.0/16 via 198.51.100.2 table 77;
            ip -6 route add fd02::/64 via fd01::2 table 77;
            ip rule add fwmark 7 lookup 77; ip -6 rule add fwmark 7 lookup 77;
            for type in unreachable prohibit blackhole; do
                ip route add $type 10.2.$((n += 1)).0/24; ip -6 route add $type fd03:$n::/32;
            done");
        let mut to = |remote: &str, mark, through| {
            netlink.route_to(remote.parse().unwrap(), mark, through).unwrap()
        };
        let way = |device, source: &str| Some(Way { device, source: source.parse().ok() });
        for (remote, by_near, by_far) in
            [("10.1.2.3", "192.0.2.1", "198.51.100.1"), ("fd02::3", "fd00::1", "fd01::1")]
        {
            assert_eq!(to(remote, 0, None), way(near, by_near));
            assert_eq!(to(remote, 0, Some(near)), way(near, by_near));
            assert_eq!(to(remote, 7, None), way(far, by_far));
            assert_eq!(to(by_near, 0, None), way(lo, by_near));
        }
        for closed in
            ["10.2.1.1", "10.2.2.1", "10.2.3.1", "fd03:1::1", "fd03:2::1", "fd03:3::1", "10.9.0.1"]
        {
            assert_eq!(to(closed, 0, None), None, "{closed}");
        }
        assert_eq!(netlink.mtu(near).unwrap(), Some(1400));
        assert_eq!(netlink.mtu(9999).unwrap(), None);
    });
}

#[test]
fn the_kernel_explains_itself() {
    within(|| {
        let mut netlink = Netlink::open().unwrap();
        let rule = Rule {
            family: Family::V6,
            priority: 500,
            not_mark: None,
            to: None,
            table: 0,
            suppress_prefix_len: None,
        };
        let error = netlink.add_rule(&rule).unwrap_err();
        assert!(error.explanation.is_some(), "{error:?}");
        assert!(
            error.to_string().starts_with("adding rule IPv6 500: lookup 0: Invalid argument (")
        );
    });
}

#[test]
fn rules_are_idempotent_and_recognised() {
    within(|| {
        let mut netlink = Netlink::open().unwrap();
        for family in Family::ALL {
            let marked = Rule {
                family,
                priority: 500,
                not_mark: Some((0x5300_0000, 0xff00_0000)),
                to: None,
                table: 0x5300_0000,
                suppress_prefix_len: None,
            };
            let suppressed = Rule {
                priority: 600,
                not_mark: None,
                table: TABLE_MAIN,
                suppress_prefix_len: Some(0),
                ..marked
            };
            let to = if family == Family::V4 { "10.1.2.0/24" } else { "fd01:2::/64" };
            let to = Rule { to: Some(prefix(to)), suppress_prefix_len: Some(23), ..suppressed };
            let other = if family == Family::V4 { "10.1.3.0/24" } else { "fd01:3::/64" };
            let other = Rule { to: Some(prefix(other)), ..to };
            let all = [marked, suppressed, to, other];
            for rule in all.iter().chain(&all) {
                netlink.add_rule(rule).unwrap();
            }
            assert_eq!(netlink.rules(family).unwrap(), Some(all.to_vec()));
            netlink.delete_rule(&suppressed).unwrap();
            assert_eq!(netlink.rules(family).unwrap(), Some(vec![marked, to, other]));
            for rule in all.iter().chain(&all) {
                netlink.delete_rule(rule).unwrap();
            }
            assert_eq!(netlink.rules(family).unwrap(), Some(vec![]), "the kernel's stay");
        }
        assert!(sh("ip rule").contains("lookup main"));
    });
}

#[test]
fn changes_of_others_are_seen() {
    within(|| {
        let mut netlink = Netlink::open().unwrap();
        let mut monitor = monitor::Monitor::open().unwrap();
        assert!(!monitor.changes().unwrap().any());
        let lo = netlink.link("lo").unwrap().unwrap().index;
        netlink.set_mtu(lo, 9000).unwrap();
        let seen = monitor.changes().unwrap();
        assert!(seen.links && !seen.addresses && !seen.routes, "{seen:?}");
        let destination = prefix("10.1.0.0/16");
        let target = Target::Device(lo);
        let route = Route { destination, table: TABLE_MAIN, target, metric: 0, source: None };
        netlink.add_route(&route).unwrap();
        assert!(!monitor.changes().unwrap().any(), "our own routes are no news");
        sh("ip address add 192.0.2.1/24 dev lo");
        let seen = monitor.changes().unwrap();
        assert!(seen.addresses && seen.routes && !seen.links, "{seen:?}");
    });
}
