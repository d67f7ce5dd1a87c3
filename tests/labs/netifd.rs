//! The daemon as OpenWrt's netifd runs it: netifd has the addresses and the routes in `main`.

use std::time::{Duration, Instant};

use simplevpn_tests::lab::daemon::{Keys, Peer, Vpn};
use simplevpn_tests::lab::{Host, Lab, ip, process};

use crate::topology::Sites;

fn eventually(question: impl FnMut() -> bool) -> bool {
    process::eventually(Duration::from_secs(10), question)
}

///  client -- a ==ESP== b -- server, netifd on a
#[test]
fn addresses_and_main_routes_are_netifds() {
    let lab = Lab::new();
    let sites = Sites::new(&lab);
    let netifd = sites.a.has_netifd();
    let (of_a, of_b) = sites.configurations(Keys::pair(), false, "auto");
    let of_a = of_a.steering("route").option("zone", "vpn");
    let _b = sites.b.starts(&of_b);
    let mut a = netifd.starts(&of_a);
    sites.client.assert_uses(&sites.server, "10.2.0.2");
    sites.client.assert_uses(&sites.server, "fd02::2");
    let first = netifd.messages();
    assert_eq!(
        first,
        ["network.interface.vpn0 notify_proto {\"action\":0,\"ifname\":\"vpn0\",\"link-up\":true,\
          \"address-external\":false,\"keep\":false,\
          \"ipaddr\":[{\"ipaddr\":\"10.77.0.1\",\"mask\":\"32\"}],\
          \"ip6addr\":[{\"ipaddr\":\"fd77::1\",\"mask\":\"128\"}],\
          \"routes\":[{\"target\":\"10.2.0.0\",\"netmask\":\"24\"},\
          {\"target\":\"10.77.0.2\",\"netmask\":\"32\"}],\
          \"routes6\":[{\"target\":\"fd02::\",\"netmask\":\"64\"},\
          {\"target\":\"fd77::2\",\"netmask\":\"128\"}],\"data\":{\"zone\":\"vpn\"}}"]
    );
    assert!(!sites.a.run("ip route show table all dev vpn0").contains("proto 50"));

    // What is not netifd's does not concern it; what is, it is told.
    a.reloads(&of_a.clone().option("mtu", "1400"));
    assert!(eventually(|| a.log().contains("reloaded")), "{}", a.log());
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(netifd.messages(), first);
    let third = Peer::new("c", &Keys::pair().0).at("192.0.2.3").allowed("10.3.0.0/24");
    a.reloads(&of_a.clone().option("mtu", "1400").address("10.78.0.1/24").peer(third));
    assert!(eventually(|| netifd.messages().len() == 2), "{:?}", netifd.messages());
    let led = || sites.a.attempt("ip route get 10.3.0.9").stdout.contains("vpn0");
    assert!(eventually(led));
    assert!(sites.a.run("ip addr show dev vpn0").contains("10.78.0.1/24"));
    a.reloads(&of_a);
    assert!(eventually(|| netifd.messages().len() == 3), "{:?}", netifd.messages());
    assert_eq!(netifd.messages()[2], first[0]);
    assert!(eventually(|| !sites.a.run("ip addr show dev vpn0").contains("10.78.0.1")));
    assert!(!sites.a.run("ip route").contains("10.3.0.0/24 dev vpn0"));
    sites.client.assert_uses(&sites.server, "10.2.0.2");
    assert!(a.stops().success());
}

///  client -- a ==ESP== b -- server: everything, and the wan of a has a default route
#[test]
fn a_default_route_never_goes_to_netifd() {
    let lab = Lab::new();
    let sites = Sites::new(&lab);
    let Sites { client, a, b, server } = &sites;
    a.default_via("192.0.2.2 fd00::2");
    // In the clear everything would arrive.
    b.route("10.1.0.0/24", "192.0.2.1").route("fd01::/64", "fd00::1");
    let netifd = a.has_netifd();
    let wan = || a.run("ip route show default") + &a.run("ip -6 route show default dev wan");
    let before = wan();
    let (at_a, at_b) = Keys::pair();
    let everything = Peer::new("b", &at_a).at("192.0.2.2").allowed("0.0.0.0/0 ::/0");
    let of_a = Vpn::new().address("10.77.0.1/24").address("fd77::1/64").peer(everything);
    let site = "10.1.0.0/24 fd01::/64 10.77.0.0/24 fd77::/64";
    let _b = b.starts(&Vpn::new().peer(Peer::new("a", &at_b).allowed(site)));
    let serve = || {
        let daemon = netifd.starts(&of_a);
        for address in ["10.2.0.2", "fd02::2"] {
            let reached = client.reaches_within(address, Duration::from_secs(2));
            assert!(reached, "{address}\n{}", daemon.log());
        }
        assert_eq!(wan(), before);
        daemon
    };
    let closed = |after: &str| {
        let wire = a.capture("wan");
        for address in ["10.2.0.2", "fd02::2"] {
            assert!(client.tcp(server, ip(address), 1000).is_err(), "TCP to {address} {after}");
            assert_eq!(client.ping_sized(ip(address), 56, 3).right, 0, "ping {address} {after}");
            assert_eq!(a.ping_sized(ip(address), 56, 3).right, 0, "ping {address} {after}");
        }
        let seen = wire.finish();
        for address in ["10.2.0.2", "fd02::2"] {
            seen.assert_none(after, |frame| frame.concerns(ip(address)));
        }
        assert_eq!(wan(), before, "{after}");
        assert!(client.pings("10.1.0.1"), "the LAN reaches its router {after}");
    };
    assert!(serve().stops().success());
    closed("after ifdown");
    serve().dies();
    closed("after kill -9");
    serve();
    let messages = netifd.messages();
    assert_eq!(messages.len(), 3);
    for message in messages {
        assert!(!message.contains("route"), "{message}");
    }
}

/// How many children a process has, the dead among them.
fn children(parent: u32) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let stats = processes.filter_map(|p| std::fs::read_to_string(p.path().join("stat")).ok());
    // pid (program) state ppid …
    let words = stats
        .filter_map(|stat| stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok());
    words.filter(|of| *of == parent).count()
}

///  a whose ubus does not answer, complains, is missing
#[test]
fn trouble_with_ubus_is_told_once_and_stalls_nothing() {
    let lab = Lab::new();
    let sites = Sites::new(&lab);
    let netifd = sites.a.has_netifd();
    netifd.has_trouble("hang");
    // Unnumbered, so that it works without netifd.
    let (at_a, at_b) = Keys::pair();
    let to_b = Peer::new("b", &at_a).at("192.0.2.2").allowed("10.2.0.0/24");
    let to_a = Peer::new("a", &at_b).at("192.0.2.1").allowed("10.1.0.0/24");
    let _b = sites.b.starts(&Vpn::new().peer(to_a));
    let mut a = netifd.launches(&Vpn::new().peer(to_b), "");
    a.becomes_ready(Duration::from_secs(5)).unwrap();
    assert_eq!(children(a.pid()), 1);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(6) {
        let answers = sites.client.ping_sized(ip("10.2.0.2"), 56, 5);
        assert!(answers.all(), "{answers:?} after {:?}", start.elapsed());
    }
    let told = |what: &str| a.log().matches(what).count();
    assert!(eventually(|| told("cannot tell netifd that it is up: ubus does not end") == 1));
    netifd.has_trouble("Command failed: Permission denied");
    let refused = "cannot tell netifd that it is up: ubus: Command failed: Permission denied";
    assert!(eventually(|| told(refused) == 1), "{}", a.log());
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(told(refused), 1, "{}", a.log());
    netifd.has_trouble("");
    assert!(eventually(|| netifd.messages().len() == 1), "{}", a.log());
    assert!(eventually(|| children(a.pid()) == 0), "its child is waited for");
    assert!(a.stops().success());

    std::fs::remove_file(sites.a.dir().join("bin/ubus")).unwrap();
    let to_b = Peer::new("b", &Keys::pair().0).at("192.0.2.2").allowed("10.2.0.0/24");
    let a = netifd.launches(&Vpn::new().peer(to_b), "");
    let missing = "the program ubus is missing; --netifd is for OpenWrt, leave it out elsewhere";
    assert!(eventually(|| a.log().contains(missing)), "{}", a.log());
    assert!(a.stops().success());
}

///  a alone: why it does not come up is shown by ifstatus, too
#[test]
fn errors_at_the_start_are_told() {
    let lab = Lab::new();
    let [a] = lab.hosts(["a"]);
    let netifd = a.has_netifd();
    let peer = Peer::new("b", &Keys::pair().0).at("192.0.2.2").allowed("10.3.0.0/24");
    let vpn = Vpn::new().peer(peer);
    let ends = |vpn: &Vpn, options: &str| {
        let mut daemon = netifd.launches(vpn, options);
        let status = daemon.ends_within(Duration::from_secs(10));
        let message = netifd.messages().pop().unwrap_or_default();
        (status.and_then(|status| status.code()), message, daemon.log())
    };
    let (status, message, log) = a.within(|| {
        let _taken = std::net::UdpSocket::bind("0.0.0.0:4500").unwrap();
        ends(&vpn, "")
    });
    assert_eq!(status, Some(1));
    let told = "network.interface.vpn0 notify_proto {\"action\":3,\"error\":[\"vpn0: cannot open \
                UDP port 4500: ";
    assert!(message.starts_with(told), "{message}");
    assert!(log.contains("cannot open UDP port 4500"), "{log}");

    let (status, message, log) = ends(&vpn.clone().option("mtu", "7"), "");
    assert_eq!(status, Some(3));
    assert!(message.contains("mtu '7' is not an MTU"), "{message}");
    assert!(log.contains("mtu '7' is not an MTU"), "{log}");

    let (status, message, _) = ends(&vpn.clone().option("tunlink", "wan"), "");
    assert_eq!(status, Some(1));
    assert!(message.contains("tunlink 'wan' is netifd's name for an interface"), "{message}");
}

/// netifd crashes: its daemon ends, so that the next netifd can start one, and stays closed.
#[test]
fn a_daemon_does_not_outlive_who_started_it() {
    let lab = Lab::new();
    let [a] = lab.hosts(["a"]);
    let netifd = a.has_netifd();
    let peer = Peer::new("b", &Keys::pair().0).at("192.0.2.2").allowed("10.3.0.0/24");
    let vpn = Vpn::new().peer(peer);
    assert!(netifd.starts(&vpn).stops().success());
    let simplevpn = a.simplevpn("");
    let mut parent = a.command("sh");
    for (name, value) in simplevpn.get_envs() {
        parent.env(name, value.unwrap_or_default());
    }
    let (program, config) = (simplevpn.get_program().display(), a.dir().join("network"));
    let script = format!("{program} run --netifd {} vpn0 & wait", config.display());
    let mut parent = parent.arg("-c").arg(script).spawn().unwrap();
    let served = || a.simplevpn_says("show vpn0").success;
    assert!(eventually(served));
    process::kill(&mut parent);
    let ended = eventually(|| !served());
    if !ended {
        a.simplevpn_says("down vpn0");
    }
    assert!(ended, "it is still there");
    assert!(a.run("ip route show table all").contains("unreachable 10.3.0.0/24"));
    assert!(netifd.starts(&vpn).stops().success());
}

///  a ==ESP== b: somebody deletes the device
#[test]
fn a_device_that_is_deleted_ends_its_interface_only() {
    let lab = Lab::new();
    let [a, b] = lab.hosts(["a", "b"]);
    lab.link(a.port("wan", "192.0.2.1/24"), b.port("wan", "192.0.2.2/24"));
    let (at_a, at_b) = Keys::pair();
    let lonely = Vpn::new().peer(Peer::new("c", &Keys::pair().0).allowed("10.3.0.0/24"));
    let closed = |host: &Host| host.run("ip route show table all").contains("able 10.3.0.0/24");
    let netifd = a.has_netifd();
    let mut daemon = netifd.starts(&lonely);
    a.run("ip link del vpn0");
    let status = daemon.ends_within(Duration::from_secs(5));
    assert_eq!(status.and_then(|status| status.code()), Some(1), "{}", daemon.log());
    assert!(netifd.messages().pop().unwrap().contains("its TUN device is gone, was it deleted?"));
    assert!(closed(&a));

    let state = a.dir().join("state").display().to_string();
    let second = Vpn::named("vpn1").option("nat_port", "4600").option("state_dir", &state);
    let second = second.address("10.77.0.1/32");
    let to_b = Peer::new("b", &at_a).at("192.0.2.2").allowed("10.77.0.2/32");
    let mut daemon = a.starts(&lonely.clone().and(&second.peer(to_b)));
    let to_a = Peer::new("a", &at_b).at("192.0.2.1").allowed("10.77.0.1/32");
    let _b = b.starts(&Vpn::new().address("10.77.0.2/32").peer(to_a));
    assert!(a.reaches_within("10.77.0.2", Duration::from_secs(5)), "{}", daemon.log());
    a.run("ip link del vpn0");
    assert!(eventually(|| daemon.log().contains("its TUN device is gone")), "{}", daemon.log());
    assert!(a.pings("10.77.0.2"), "the other interface works:\n{}", daemon.log());
    assert!(closed(&a));
    a.run("ip link del vpn1");
    let status = daemon.ends_within(Duration::from_secs(5));
    assert_eq!(status.and_then(|status| status.code()), Some(1), "{}", daemon.log());
}
