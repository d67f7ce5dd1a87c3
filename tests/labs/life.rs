//! The daemon's life: reload, restart, and an end that leaves nothing behind.

use std::time::Duration;

use simplevpn_tests::lab::daemon::{Keys, Peer, Vpn};
use simplevpn_tests::lab::{Host, Lab, ReversePath, ip, process};

use crate::topology::Sites;

///  client -- a ==ESP== b -- server, and a is told of a third peer meanwhile
#[test]
fn reload_while_a_transfer_runs() {
    let lab = Lab::new();
    let sites = Sites::new(&lab);
    let (of_a, of_b) = sites.configurations(Keys::pair(), false, "auto");
    let (mut a, mut b) = (sites.a.starts(&of_a), sites.b.starts(&of_b));
    assert!(sites.client.reaches_within("10.2.0.2", Duration::from_secs(5)));
    let third = Peer::new("c", &Keys::pair().0).at("192.0.2.3").allowed("10.3.0.0/24");
    let larger = of_a.clone().peer(third);

    std::thread::scope(|scope| {
        let transfer = scope.spawn(|| sites.client.tcp(&sites.server, ip("10.2.0.2"), 60_000_000));
        let mut reloads = 0;
        while !transfer.is_finished() {
            a.reloads(if reloads % 2 == 0 { &larger } else { &of_a });
            b.reloads(&of_b);
            reloads += 1;
            std::thread::sleep(Duration::from_millis(150));
        }
        assert!(reloads >= 2, "the transfer was too quick to be disturbed");
        transfer.join().unwrap().unwrap();
    });
    let answers = sites.client.ping_sized(ip("10.2.0.2"), 56, 5);
    assert!(answers.all(), "{answers:?}");
    a.reloads(&larger);
    assert!(
        process::eventually(Duration::from_secs(10), || { a.json().contains("10.3.0.0/24") }),
        "{}",
        a.json()
    );
    assert!(sites.a.run("ip route get 10.3.0.9").contains("vpn0"));
    assert!(a.counter("packets") > 1000, "unchanged peers keep their counters: {}", a.json());
}

///  client -- a ==ESP== b -- server
#[test]
fn a_reload_that_cannot_be_read_changes_nothing() {
    let lab = Lab::new();
    let sites = Sites::new(&lab);
    let (mut a, _b) = sites.tunnel();
    sites.client.assert_uses(&sites.server, "10.2.0.2");
    a.reloads(&Vpn::new().option("steering", "sideways"));
    std::thread::sleep(Duration::from_millis(300));
    sites.client.assert_uses(&sites.server, "10.2.0.2");
    assert!(a.log().contains("sideways"), "{}", a.log());
}

///  client -- a ==ESP== b -- server
#[test]
fn restart_after_kill_9() {
    let lab = Lab::new();
    let sites = Sites::new(&lab);
    let (of_a, of_b) = sites.configurations(Keys::pair(), false, "auto");
    let mut a = sites.a.starts(&of_a);
    let mut b = sites.b.starts(&of_b);
    for round in 0..3 {
        sites.client.assert_uses(&sites.server, "10.2.0.2");
        if round % 2 == 0 {
            a.dies();
            a = sites.a.starts(&of_a);
        } else {
            b.dies();
            b = sites.b.starts(&of_b);
        }
    }
    sites.client.assert_uses(&sites.server, "10.2.0.2");
    assert!(a.counter("packets") > 0 && b.counter("packets") > 0);
}

///  client -- a ==ESP== b -- server, and somebody flushes a's firewall
#[test]
fn a_firewall_table_that_was_flushed_comes_back() {
    let lab = Lab::new();
    let sites = Sites::new(&lab);
    let (_a, _b) = sites.tunnel();
    let before = sites.a.run("nft list table inet simplevpn_vpn0");
    sites.a.run("nft flush ruleset");
    let back = process::eventually(Duration::from_secs(10), || {
        sites.a.attempt("nft list table inet simplevpn_vpn0").success
    });
    assert!(back, "the table is not made anew");
    let rules = |text: &str| text.lines().filter(|line| !line.contains("packets")).count();
    let after = sites.a.run("nft list table inet simplevpn_vpn0");
    assert_eq!(rules(&after), rules(&before), "{after}");
}

///  a, whose configuration wants a device name that something else has
#[test]
fn a_start_that_fails_leaves_nothing_behind() {
    let lab = Lab::new();
    let [a] = lab.hosts(["a"]);
    a.run("ip link add vpn0 type veth peer name eth0");
    let before = traces(&a);
    let peer = Peer::new("b", &Keys::pair().0).at("192.0.2.2").allowed("10.3.0.0/24");
    let vpn = Vpn::new().option("killswitch", "0").peer(peer);
    let state = a.dir().join("state/sequence-numbers");
    for _ in 0..2 {
        let why = a.launches(&vpn).becomes_ready(Duration::from_secs(10)).unwrap_err();
        assert!(why.contains("vpn0: cannot create the TUN device"), "{why}");
        assert_eq!(traces(&a), before);
        assert!(!state.exists(), "no sequence number is lost");
    }
}

///  a, whose UDP port somebody else has: the killswitch closes all the same
#[test]
fn a_start_that_fails_leaves_the_killswitch_closed() {
    let lab = Lab::new();
    let [a] = lab.hosts(["a"]);
    a.run("ip link set lo up");
    let peer = Peer::new("b", &Keys::pair().0).at("192.0.2.2").allowed("10.3.0.0/24");
    let why = a
        .within(|| {
            let _taken = std::net::UdpSocket::bind("0.0.0.0:4500").unwrap();
            a.launches(&Vpn::new().peer(peer)).becomes_ready(Duration::from_secs(10))
        })
        .unwrap_err();
    assert!(why.contains("cannot open UDP port 4500"), "{why}");
    let closed = || a.run("ip route show table all").contains("unreachable 10.3.0.0/24");
    assert!(closed());
    assert!(a.simplevpn_says("down vpn0").success);
    assert!(!closed());
}

///  a, which serves two interfaces from one file
#[test]
fn every_thread_has_dropped_its_privileges() {
    let lab = Lab::new();
    let [a] = lab.hosts(["a"]);
    let peer = |name, prefix| Peer::new(name, &Keys::pair().0).allowed(prefix);
    let first = Vpn::new().peer(peer("b", "10.3.0.0/24"));
    let state = a.dir().join("state").display().to_string();
    let second = Vpn::named("vpn1").option("nat_port", "4600").option("state_dir", &state);
    let daemon = a.starts(&first.and(&second.peer(peer("c", "10.4.0.0/24"))));
    let up = process::eventually(Duration::from_secs(10), || a.simplevpn_says("show vpn1").success);
    assert!(up, "{}", daemon.log());
    let tasks = format!("/proc/{}/task", daemon.pid());
    let mut threads = 0;
    for task in std::fs::read_dir(tasks).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        assert!(status.contains("CapPrm:\t0000000000003000"), "{status}");
        threads += 1;
    }
    assert!(threads >= 3, "one loop, and a writer for each interface");
}

///  a, two of whose interfaces want the same port
#[test]
fn two_interfaces_with_one_port_are_refused_before_anything_happens() {
    let lab = Lab::new();
    let [a] = lab.hosts(["a"]);
    a.run("ip link add eth0 type veth peer name eth1");
    let before = traces(&a);
    let peer = |name, prefix| Peer::new(name, &Keys::pair().0).allowed(prefix);
    let second = Vpn::named("vpn1").peer(peer("c", "10.4.0.0/24"));
    let both = Vpn::new().peer(peer("b", "10.3.0.0/24")).and(&second);
    let why = a.launches(&both).becomes_ready(Duration::from_secs(10)).unwrap_err();
    assert!(why.contains("vpn0 and vpn1 both have nat_port 4500"), "{why}");
    assert_eq!(traces(&a), before);
}

/// Everything a daemon could leave behind in the kernel.
fn traces(host: &Host) -> String {
    [
        "ip -o link",
        "nft list ruleset",
        "cat /proc/sys/net/ipv4/conf/all/rp_filter /proc/sys/net/ipv4/conf/eth0/rp_filter",
    ]
    .map(|command| host.run(command))
    .join("\n")
        + &host.routing()
}

///  a 10.0.0.161 ==ESP== 10.0.0.160 b, in every way to steer, under every `rp_filter`
#[test]
fn the_end_leaves_nothing_behind() {
    for reverse_path in [ReversePath::Off, ReversePath::Strict, ReversePath::Loose] {
        for steering in ["policy", "offset"] {
            let lab = Lab::with_reverse_path(reverse_path);
            let [a, b] = lab.hosts(["a", "b"]);
            lab.switch([a.port("eth0", "10.0.0.161/24"), b.port("eth0", "10.0.0.160/24")]);
            let story = format!("{steering}, rp_filter {reverse_path:?}");
            let (at_a, at_b) = Keys::pair();
            let vpn = |keys: &Keys, address: &str| {
                let peer = Peer::new("n", keys).at(address).allowed(&format!("{address}/32"));
                let peer =
                    if steering == "offset" { peer.option("offset", "0.0.1.0") } else { peer };
                Vpn::new().steering(steering).peer(peer)
            };
            let _b = b.starts(&vpn(&at_b, "10.0.0.161"));
            let vpn = vpn(&at_a, "10.0.0.160");
            let before = traces(&a);

            // Without the killswitch SIGTERM leaves nothing.
            let daemon = a.starts(&vpn.clone().option("killswitch", "0"));
            a.assert_uses(&b, "10.0.0.160");
            assert_ne!(traces(&a), before, "{story}");
            assert!(daemon.stops().success(), "{story}");
            assert_eq!(traces(&a), before, "{story}: after SIGTERM");

            // With it the way stays closed until `down`, whether the daemon runs or not.
            let daemon = a.starts(&vpn);
            a.assert_uses(&b, "10.0.0.160");
            assert!(daemon.stops().success(), "{story}");
            assert_eq!(a.ping_sized(ip("10.0.0.160"), 56, 2).right, 0, "{story}: still closed");
            assert!(a.simplevpn_says("down vpn0").success, "{story}");
            assert_eq!(traces(&a), before, "{story}: after down");
            let daemon = a.starts(&vpn);
            assert!(a.simplevpn_says("down vpn0").success, "{story}");
            drop(daemon);
            assert_eq!(traces(&a), before, "{story}: after down of a running daemon");

            // And a crash leaves nothing that `down` does not find.
            a.starts(&vpn).dies();
            assert!(a.simplevpn_says("down vpn0").success, "{story}");
            assert_eq!(traces(&a), before, "{story}: after a crash and down");
        }
    }
}
