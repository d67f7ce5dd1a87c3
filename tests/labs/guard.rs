//! The killswitch without a daemon: closed at boot, before there is a network; kept by whoever
//! ends or dies; opened only when the configuration says so.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use simplevpn_tests::lab::daemon::{Keys, Peer, Vpn};
use simplevpn_tests::lab::traffic::MARKER;
use simplevpn_tests::lab::{Host, Lab, ip, process};

/// ```text
///  client 10.1.0.2 -- lan a wan - - - 192.0.2.2 b      b is gateway and internet: 198.51.100.80
///         fd01::2           192.0.2.1 later   fd00::2                             fd80::80
/// ```
struct Boot {
    client: Host,
    a: Host,
    b: Host,
}

const WEB: [&str; 2] = ["198.51.100.80", "fd80::80"];

impl Boot {
    fn new(lab: &Lab) -> Boot {
        let [client, a, b] = lab.hosts(["client", "a", "b"]);
        lab.link(client.port("eth0", "10.1.0.2/24 fd01::2/64"), a.port("lan", ""));
        lab.link(a.port("wan", ""), b.port("wan", "192.0.2.2/24 fd00::2/64"));
        for address in WEB {
            b.run(&format!("ip addr add {address} dev lo"));
        }
        client.default_via("10.1.0.1 fd01::1");
        a.forwards();
        b.forwards().route("10.1.0.0/24", "192.0.2.1").route("fd01::/64", "fd00::1");
        Boot { client, a, b }
    }

    fn configurations() -> (Vpn, Vpn) {
        let (at_a, at_b) = Keys::pair();
        let everything = Peer::new("b", &at_a).at("192.0.2.2").allowed("0.0.0.0/0 ::/0");
        let site = "10.1.0.0/24 fd01::/64 10.77.0.1/32 fd77::1/128";
        let a = Vpn::new().address("10.77.0.1/32").address("fd77::1/128").peer(everything);
        (a, Vpn::new().peer(Peer::new("a", &at_b).allowed(site)))
    }

    fn lan_comes_up(&self) {
        self.a.run("ip addr add 10.1.0.1/24 dev lan");
        self.a.run("ip addr add fd01::1/64 dev lan nodad");
    }

    fn wan_comes_up(&self) {
        self.a.run("ip addr add 192.0.2.1/24 dev wan");
        self.a.run("ip addr add fd00::1/64 dev wan nodad");
        self.a.default_via("192.0.2.2 fd00::2");
    }

    /// Runs `story` while the client and the router ceaselessly send to the internet, and returns
    /// what left the router for it in the clear.
    fn leaks_during(&self, story: impl FnOnce()) -> Vec<String> {
        let wire = self.b.capture("wan");
        let stop = &AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _end = Stop(stop);
            for host in [&self.client, &self.a] {
                for (from, to) in [("0.0.0.0:0", WEB[0]), ("[::]:0", WEB[1])] {
                    let socket = host.within(|| UdpSocket::bind(from).unwrap());
                    scope.spawn(move || {
                        while !stop.load(Ordering::Relaxed) {
                            // Refused: that is what a killswitch does.
                            let _ = socket.send_to(MARKER, (ip(to), 9));
                            std::thread::sleep(Duration::from_millis(2));
                        }
                    });
                }
            }
            story();
        });
        let seen = wire.finish();
        let clear = |frame: &&simplevpn_tests::lab::capture::Frame| {
            WEB.iter().any(|address| frame.concerns(ip(address)))
        };
        assert!(!seen.frames.is_empty(), "nothing at all was seen");
        seen.frames.iter().filter(clear).map(ToString::to_string).collect()
    }

    fn reaches_the_internet(&self) -> bool {
        WEB.iter().all(|address| self.client.reaches_within(address, Duration::from_secs(5)))
    }
}

/// Ends what runs beside a story, also when the story fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Everything a guard puts into the kernel.
fn closed(host: &Host) -> String {
    host.routing() + &host.run("nft -s list ruleset")
}

#[test]
fn a_full_tunnel_leaks_nothing_from_boot_to_the_end() {
    let lab = Lab::new();
    let net = Boot::new(&lab);
    let (a, b) = Boot::configurations();
    let before = closed(&net.a);
    let leaks = net.leaks_during(|| {
        let guarded = net.a.guards(Some(&a));
        assert!(guarded.success, "{guarded:?}");
        net.lan_comes_up();
        net.wan_comes_up();
        // What was sent before there was a router left neighbours that are thought to be dead.
        let pings =
            |host: &Host, to: &str| process::eventually(Duration::from_secs(5), || host.pings(to));
        assert!(pings(&net.client, "10.1.0.1") && pings(&net.client, "fd01::1"), "the LAN is here");
        assert!(pings(&net.a, "192.0.2.2"), "on-link hosts are reached");
        std::thread::sleep(Duration::from_millis(300));
    });
    assert_eq!(leaks, [""; 0], "WAN came up before the daemon");

    let _b = net.b.starts(&b);
    let leaks = net.leaks_during(|| {
        let daemon = net.a.starts(&a);
        assert!(net.reaches_the_internet(), "the daemon takes over:\n{}", daemon.log());
        assert!(daemon.stops().success());
        std::thread::sleep(Duration::from_millis(300));
        net.a.starts(&a).dies();
        std::thread::sleep(Duration::from_millis(300));
        assert!(net.a.guards(Some(&a)).success);
    });
    assert_eq!(leaks, [""; 0], "starts, SIGTERM and kill -9");

    // The section is removed: only then, everything arrives in the clear, if b takes it.
    assert!(net.b.simplevpn_says("down vpn0").success);
    assert!(net.a.guards(None).success);
    assert_eq!(closed(&net.a).matches("simplevpn").count(), 0);
    assert!(!closed(&net.a).contains("unreachable"));
    assert!(net.reaches_the_internet());
    let leaks = net.leaks_during(|| std::thread::sleep(Duration::from_millis(100)));
    assert!(!leaks.is_empty(), "the trap works");
    let rules = |text: &str| text.lines().filter(|line| line.contains("lookup")).count();
    assert_eq!(rules(&closed(&net.a)), rules(&before));
}

#[test]
fn without_nft_the_way_is_closed_all_the_same() {
    let lab = Lab::new();
    let net = Boot::new(&lab);
    let (a, _) = Boot::configurations();
    let config = net.a.dir().join("network");
    assert!(net.a.guards(Some(&a)).success);
    std::fs::copy(net.a.dir().join("guarded"), &config).unwrap();
    let whole = net.a.routing();
    assert!(net.a.guards(None).success);
    assert_ne!(net.a.routing(), whole);
    let script = format!(
        "unshare -m sh -ec 'mount -t tmpfs none /usr/sbin; {} guard {}'",
        simplevpn_tests::lab::daemon::binary().display(),
        config.display()
    );
    let mut command = net.a.command("sh");
    command.arg("-c").arg(script).env("SIMPLEVPN_RUN_DIR", net.a.dir().join("run"));
    let output = process::run(command, "", process::PATIENCE);
    assert!(!output.success, "{output:?}");
    assert!(output.stderr.contains("nft"), "{output:?}");
    assert_eq!(net.a.routing(), whole);
}

#[test]
fn guards_are_idempotent_and_leave_daemons_alone() {
    let lab = Lab::new();
    let net = Boot::new(&lab);
    net.lan_comes_up();
    net.wan_comes_up();
    let (a, b) = Boot::configurations();
    assert!(net.a.guards(Some(&a)).success);
    let once = closed(&net.a);
    assert!(once.contains("unreachable default") && once.contains("simplevpn_vpn0"), "{once}");
    assert!(net.a.guards(Some(&a)).success);
    assert_eq!(closed(&net.a), once);

    let _b = net.b.starts(&b);
    let mut daemon = net.a.starts(&a);
    assert!(net.reaches_the_internet());
    let served = closed(&net.a);
    assert!(net.a.guards(Some(&a)).success);
    let open = a.clone().option("killswitch", "0");
    assert!(net.a.guards(Some(&open)).success);
    assert_eq!(closed(&net.a), served, "a daemon is left alone");
    // It follows its own file, and then there is nothing left to guard.
    daemon.reloads(&open);
    let gone = || !closed(&net.a).contains("unreachable");
    assert!(process::eventually(Duration::from_secs(5), gone), "{}", closed(&net.a));
    daemon.reloads(&a);
    assert!(process::eventually(Duration::from_secs(5), || !gone()), "{}", closed(&net.a));

    // A daemon that is told to end when its section goes is waited for.
    std::thread::scope(|scope| {
        let guard = scope.spawn(|| net.a.guards(None));
        std::thread::sleep(Duration::from_millis(300));
        assert!(daemon.stops().success());
        assert!(guard.join().unwrap().success);
    });
    assert!(gone(), "{}", closed(&net.a));
}

#[test]
fn every_reason_to_open_opens() {
    let lab = Lab::new();
    let [a] = lab.hosts(["a"]);
    let vpn = |name: &str, prefix: &str| {
        Vpn::named(name).peer(Peer::new("b", &Keys::pair().0).allowed(prefix))
    };
    let before = closed(&a);
    let first = vpn("vpn0", "10.3.0.0/24");
    for reason in ["killswitch", "disabled", ""] {
        assert!(a.guards(Some(&first)).success);
        assert_ne!(closed(&a), before);
        let opened = match reason {
            "killswitch" => a.guards(Some(&first.clone().option("killswitch", "0"))),
            "disabled" => a.guards(Some(&first.clone().option("disabled", "1"))),
            _ => a.guards(None),
        };
        assert!(opened.success, "{reason}: {opened:?}");
        assert_eq!(closed(&a), before, "{reason}");
    }
}

#[test]
fn an_interface_with_errors_is_closed_and_leaves_no_other_unguarded() {
    let lab = Lab::new();
    let [a] = lab.hosts(["a"]);
    let state = a.dir().join("state").display().to_string();
    let vpn = |name: &str, prefix: &str| {
        let vpn = Vpn::named(name).option("nat_port", if name == "vpn0" { "4500" } else { "4600" });
        vpn.peer(Peer::new(&format!("of_{name}"), &Keys::pair().0).allowed(prefix))
    };
    let [first, second] = [vpn("vpn0", "10.3.0.0/24"), vpn("vpn1", "10.4.0.0/24")];
    let second = second.option("state_dir", &state);
    let output = a.guards(Some(&first.clone().and(&second)));
    assert!(output.success, "{output:?}");
    let both = closed(&a);
    assert!(both.contains("unreachable 10.3.0.0/24") && both.contains("unreachable 10.4.0.0/24"));

    // What is closed stays as it was, and so does the other.
    let wrong = first.clone().option("mtu", "7").and(&second);
    let output = a.guards(Some(&wrong));
    assert!(!output.success && output.stderr.contains("mtu '7' is not an MTU"), "{output:?}");
    assert_eq!(closed(&a), both);
    // Of a prefix that cannot be read any more nothing is known but that it was closed.
    let unread = vpn("vpn0", "10.3.0.0/24 10.5.0.0/33").option("mtu", "7").and(&second);
    assert!(!a.guards(Some(&unread)).success);
    assert!(closed(&a).contains("unreachable 10.3.0.0/24"));
    let gone = vpn("vpn0", "10.6.0.0/24 10.5.0.0/33").and(&second);
    assert!(!a.guards(Some(&gone)).success);
    assert!(["10.3.0.0/24", "10.6.0.0/24"].iter().all(|to| closed(&a).contains(to)));
    assert!(a.guards(None).success);
    assert!(!closed(&a).contains("unreachable"));
    let output = a.guards(Some(&wrong));
    assert!(!output.success, "{output:?}");
    assert_eq!(closed(&a), both, "what can be read of it is closed");
    let status = a.simplevpn(&format!("guard {}", a.dir().join("guarded").display())).status();
    assert_eq!(status.unwrap().code(), Some(3));
}
