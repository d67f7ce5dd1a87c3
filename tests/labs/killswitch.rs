//! The killswitch is a packet filter as well as routes: nothing for the tunnel leaves in the clear by
//! whatever way, and nobody on the link talks to the tunnel's own addresses.
//!
//! ```text
//!  client 10.1.0.2 -- lan a wan 192.0.2.1 --+-- 192.0.2.2 b: 10.2.0.2 is its site,
//!         fd01::2           fd00::1         |   fd00::2      fd02::2   198.51.100.80 the internet
//!                                           |                          fd80::80
//!                                           +-- 192.0.2.66, fd00::66 stranger
//! ```

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use simplevpn_tests::lab::capture::Frame;
use simplevpn_tests::lab::daemon::{Daemon, KeyPair, Keys, Peer, Vpn};
use simplevpn_tests::lab::process::eventually;
use simplevpn_tests::lab::traffic::MARKER;
use simplevpn_tests::lab::{Bound, Host, Lab, ip};

const SITE: [&str; 2] = ["10.2.0.2", "fd02::2"];
const WEB: [&str; 2] = ["198.51.100.80", "fd80::80"];

/// How long it may take until what was removed is back.
const PROMPT: Duration = Duration::from_secs(2);

struct Net {
    client: Host,
    a: Host,
    b: Host,
    stranger: Host,
    switch: Host,
}

impl Net {
    fn new(lab: &Lab) -> Net {
        let [client, a, b, stranger] = lab.hosts(["client", "a", "b", "stranger"]);
        let inside = (client.port("eth0", "10.1.0.2/24 fd01::2/64"), a.port("lan", ""));
        lab.link(inside.0, inside.1);
        let switch = lab.switch([
            a.port("wan", ""),
            b.port("wan", "192.0.2.2/24 fd00::2/64"),
            stranger.port("eth0", "192.0.2.66/24 fd00::66/64"),
        ]);
        for address in SITE.iter().chain(&WEB) {
            b.run(&format!("ip addr add {address} dev lo"));
        }
        client.default_via("10.1.0.1 fd01::1");
        a.forwards();
        // In the clear everything would arrive and be answered.
        b.forwards().route("10.1.0.0/24", "192.0.2.1").route("fd01::/64", "fd00::1");
        Net { client, a, b, stranger, switch }
    }

    /// The same, with a's networks up.
    fn up(lab: &Lab) -> Net {
        let net = Net::new(lab);
        net.comes_up();
        net
    }

    fn comes_up(&self) {
        for (device, address) in [
            ("lan", "10.1.0.1/24"),
            ("lan", "fd01::1/64"),
            ("wan", "192.0.2.1/24"),
            ("wan", "fd00::1/64"),
        ] {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            self.a.run(&format!("ip addr add {address} dev {device} {nodad}"));
        }
        self.a.default_via("192.0.2.2 fd00::2");
    }

    /// Of a and b; `allowed` is what a leads into the tunnel.
    fn configurations(allowed: &str) -> (Vpn, Vpn) {
        let (at_a, at_b) = Keys::pair();
        let a = Vpn::new().address("10.77.0.1/32").address("fd77::1/128");
        let a = a.peer(Peer::new("b", &at_a).at("192.0.2.2").allowed(allowed));
        let site = "10.1.0.0/24 fd01::/64 10.77.0.1/32 fd77::1/128";
        (a, Vpn::new().peer(Peer::new("a", &at_b).allowed(site)))
    }

    /// What goes over a's uplink in the clear, from or to one of `targets`, during `story`.
    fn clear(&self, targets: &[&str], story: impl FnOnce()) -> Vec<String> {
        let wire = self.switch.capture("a");
        story();
        let clear = |frame: &&Frame| targets.iter().any(|address| frame.concerns(ip(address)));
        wire.finish().frames.iter().filter(clear).map(ToString::to_string).collect()
    }

    /// The same while the client and a ceaselessly send to the targets.
    fn clear_while_talking(&self, targets: &[&str], story: impl FnOnce()) -> Vec<String> {
        let stop = &AtomicBool::new(false);
        self.clear(targets, || {
            std::thread::scope(|scope| {
                let _end = Stop(stop);
                for host in [&self.client, &self.a] {
                    for to in targets {
                        let any = if to.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
                        let socket = host.within(|| UdpSocket::bind(any).unwrap());
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
        })
    }

    /// Every way in which a program of a insists on the uplink, and none.
    fn insists(&self, targets: &[&str]) -> Vec<String> {
        self.clear(targets, || {
            for to in targets {
                for how in Bound::ALL {
                    self.a.sends_bound(how, "wan", SocketAddr::new(ip(to), 9), MARKER, 3);
                }
            }
        })
    }

    /// The client, or a itself, uses what b has, which is at home at more than one address.
    fn uses(&self, from: &Host, to: &str) {
        assert!(from.reaches_within(to, Duration::from_secs(5)), "{to} from {}", from.name());
        from.tcp(&self.b, ip(to), 100_000).unwrap_or_else(|e| panic!("{to}: {e}"));
    }

    fn lan_lives(&self, when: &str) {
        let (a, client) = (&self.a, &self.client);
        for (from, to) in [(client, "10.1.0.1"), (client, "fd01::1"), (a, "10.1.0.2")] {
            assert!(from.reaches_within(to, Duration::from_secs(5)), "{to}, {when}");
        }
        assert!(a.reaches_within("fd01::2", Duration::from_secs(5)), "fd01::2, {when}");
        for (from, to) in [(a, "192.0.2.66"), (a, "fd00::66"), (&self.stranger, "192.0.2.1")] {
            assert!(from.reaches_within(to, Duration::from_secs(5)), "{to}, {when}");
        }
        for (to, port) in [
            ("10.1.0.255", 137),
            ("255.255.255.255", 67),
            ("224.0.0.251", 5353),
            ("239.255.255.250", 1900),
            ("ff02::fb", 5353),
        ] {
            let wire = client.capture("eth0");
            a.sends_bound(Bound::ToDevice, "lan", SocketAddr::new(ip(to), port), MARKER, 0);
            a.within(|| {
                let any = if to.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
                let socket = UdpSocket::bind(any).unwrap();
                socket.set_broadcast(true).unwrap();
                bind_to(&socket, "lan");
                socket
                    .send_to(MARKER, (ip(to), port))
                    .unwrap_or_else(|e| panic!("{to}, {when}: {e}"));
            });
            assert!(wire.finish().contains(MARKER), "{to}, {when}");
        }
    }
}

fn bind_to(socket: &UdpSocket, device: &str) {
    nix::sys::socket::setsockopt(
        socket,
        nix::sys::socket::sockopt::BindToDevice,
        &std::ffi::OsString::from(device),
    )
    .unwrap();
}

/// Ends what runs beside a story, also when the story fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a counter of a's firewall has counted, without a daemon.
fn counted(host: &Host, table: &str) -> u64 {
    let counters = host.run(&format!("nft list counters table inet {table}"));
    let words: Vec<&str> = counters.split_whitespace().collect();
    let numbers = words.windows(2).filter(|pair| pair[0] == "packets");
    numbers.filter_map(|pair| pair[1].parse::<u64>().ok()).sum()
}

/// Everything that steers and closes.
fn state(host: &Host) -> String {
    let rules = host.run("nft -s list ruleset");
    // What the rules of a killswitch without a daemon have learned is no part of it.
    host.routing() + &rules
}

/// The lines of which one has more than the other.
fn differences(before: &str, after: &str) -> String {
    let only = |these: &str, those: &str, sign: char| -> String {
        let count = |text: &str, line: &str| text.lines().filter(|other| *other == line).count();
        let more = these.lines().filter(|line| count(these, line) > count(those, line));
        more.map(|line| format!("{sign}{line}\n")).collect()
    };
    only(before, after, '-') + &only(after, before, '+')
}

const NOTHING: [&str; 0] = [];

#[test]
fn programs_that_insist_on_a_device_send_nothing_in_the_clear() {
    let lab = Lab::new();
    let net = Net::up(&lab);
    for (what, allowed, targets) in
        [("split", "10.2.0.0/24 fd02::/64", SITE), ("full", "0.0.0.0/0 ::/0", WEB)]
    {
        assert!(!net.insists(&targets).is_empty(), "without a tunnel it is seen");
        let (of_a, of_b) = Net::configurations(allowed);
        let _b = net.b.starts(&of_b);
        let daemon = net.a.starts(&of_a);
        for to in targets {
            net.uses(&net.client, to);
            net.uses(&net.a, to);
        }
        assert_eq!(net.insists(&targets), NOTHING, "{what}, tunnel up");
        assert!(daemon.counter("clear_text_out") >= 18, "{}", daemon.json());
        let before = counted(&net.a, "simplevpn_vpn0-guard");
        daemon.dies();
        assert_eq!(net.insists(&targets), NOTHING, "{what}, daemon killed");
        assert!(counted(&net.a, "simplevpn_vpn0-guard") >= before + 18);
        assert!(net.a.starts(&of_a).stops().success());
        assert_eq!(net.insists(&targets), NOTHING, "{what}, daemon ended");
        net.lan_lives(what);
        assert!(net.a.simplevpn_says("down vpn0").success);
        assert!(!net.insists(&targets).is_empty(), "down opens it");
        assert!(!state(&net.a).contains("simplevpn"), "{}", state(&net.a));
    }
}

/// DHCP option 121 and router advertisements give routes that are longer than a default route.
#[test]
fn longer_routes_with_a_gateway_lead_nothing_past_a_full_tunnel() {
    let lab = Lab::new();
    let net = Net::up(&lab);
    let (of_a, of_b) = Net::configurations("0.0.0.0/0 ::/0");
    let _b = net.b.starts(&of_b);
    let daemon = net.a.starts(&of_a);
    net.uses(&net.client, WEB[0]);
    let all = [WEB, SITE].concat();
    let routes = || {
        for route in ["198.51.100.80/32", "0.0.0.0/1", "128.0.0.0/1"] {
            net.a.run(&format!("ip route add {route} via 192.0.2.66"));
        }
        net.a.run("ip -6 route add fd00::/9 via fd00::66");
        std::thread::sleep(Duration::from_millis(1500));
    };
    assert_eq!(net.clear_while_talking(&all, routes), NOTHING, "tunnel up");
    assert_eq!(net.insists(&all), NOTHING, "tunnel up");
    net.lan_lives("tunnel up, with the routes");
    daemon.dies();
    let dead = net.clear_while_talking(&all, || std::thread::sleep(Duration::from_millis(300)));
    assert_eq!(dead, NOTHING, "daemon killed");
    assert!(net.a.guards(Some(&of_a)).success);
    let dead = net.clear_while_talking(&all, || std::thread::sleep(Duration::from_millis(300)));
    assert_eq!(dead, NOTHING, "guarded");
    assert!(net.a.simplevpn_says("down vpn0").success);
    let open = net.clear_while_talking(&all, || std::thread::sleep(Duration::from_millis(300)));
    assert!(!open.is_empty(), "the trap works");
}

/// Every way in which other programs remove what is ours.
fn wipes() -> Vec<(&'static str, Vec<String>)> {
    let words = |scripts: &[&str]| scripts.iter().map(ToString::to_string).collect();
    vec![
        (
            "all rules",
            words(&[
                "ip -4 rule flush",
                "ip -4 rule add pref 32766 lookup main",
                "ip -4 rule add pref 32767 lookup default",
                "ip -6 rule flush",
                "ip -6 rule add pref 32766 lookup main",
            ]),
        ),
        (
            "our routes",
            words(&[
                "ip -4 route flush table all proto 50",
                "ip -6 route flush table all proto 50",
            ]),
        ),
        ("the killswitch's rules", words(&["nft flush table inet simplevpn_vpn0-guard"])),
        ("the table's rules", words(&["nft flush table inet simplevpn_vpn0"])),
        ("a set", words(&["nft flush set inet simplevpn_vpn0-guard closed4"])),
        ("the killswitch's table", words(&["nft delete table inet simplevpn_vpn0-guard"])),
        ("a rule in front", words(&["nft insert rule inet simplevpn_vpn0-guard last accept"])),
        ("everything", words(&["nft flush ruleset"])),
    ]
}

#[test]
fn what_others_remove_is_back_at_once_and_nothing_leaks_meanwhile() {
    for (allowed, targets) in [("10.2.0.0/24 fd02::/64", SITE), ("0.0.0.0/0 ::/0", WEB)] {
        let lab = Lab::new();
        let net = Net::up(&lab);
        let (of_a, of_b) = Net::configurations(allowed);
        let _b = net.b.starts(&of_b);
        let daemon = net.a.starts(&of_a);
        net.uses(&net.client, targets[0]);
        std::thread::sleep(PROMPT);
        let whole = state(&net.a);
        for (what, scripts) in wipes() {
            // Soon after each other they would look like a fight.
            std::thread::sleep(Duration::from_millis(1600));
            let clear = net.clear_while_talking(&targets, || {
                for script in &scripts {
                    net.a.run(script);
                }
                let back = eventually(PROMPT, || state(&net.a) == whole);
                assert!(back, "{what}: {}\n{}", differences(&whole, &state(&net.a)), daemon.show());
            });
            assert_eq!(clear, NOTHING, "{what}");
        }
        assert!(daemon.show().contains("killswitch on"), "{}", daemon.show());
        assert!(!daemon.log().contains("another program"), "{}", daemon.log());
        net.uses(&net.client, targets[1]);
    }
}

#[test]
fn a_program_that_keeps_removing_our_rules_is_not_fought_for_ever() {
    let lab = Lab::new();
    let net = Net::up(&lab);
    let (of_a, of_b) =
        Net::configurations(&SITE.map(|a| format!("{a}/128").replace(".2/128", ".2/32")).join(" "));
    let _b = net.b.starts(&of_b);
    let daemon = net.a.starts(&of_a);
    net.uses(&net.client, SITE[0]);
    let priority = net.a.run("ip -4 rule").lines().find_map(|line| {
        line.contains("lookup 1").then(|| line.split(':').next().unwrap().to_owned())
    });
    let delete = format!("ip -4 rule del pref {}", priority.unwrap());
    std::thread::sleep(PROMPT);
    let mut deleted = 0;
    let mut shown = String::new();
    let clear = net.clear_while_talking(&SITE[..1], || {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(17) {
            deleted += u32::from(net.a.attempt(&delete).success);
            std::thread::sleep(Duration::from_millis(10));
            let told = ["killswitch not in place: rule IPv4", "\"killswitch\":false"];
            if begin.elapsed() > Duration::from_secs(5) && !told.iter().all(|t| shown.contains(t)) {
                shown = daemon.show() + &daemon.json();
            }
        }
    });
    assert_eq!(clear, NOTHING);
    // Put back at 0, 0.5, 1, 1.5, 2, 3, 5 and 9 seconds, and at 17.
    assert!((7..=10).contains(&deleted), "{deleted} times");
    assert!(
        shown.contains("killswitch not in place: rule IPv4") && !shown.contains("killswitch on"),
        "{shown}"
    );
    assert!(shown.contains("\"killswitch\":false"), "{shown}");
    assert_eq!(
        daemon.log().matches("another program keeps removing").count(),
        1,
        "{}",
        daemon.log()
    );
    let back = || daemon.show().contains("killswitch on");
    assert!(eventually(Duration::from_secs(20), back), "{}", daemon.show());
}

/// What steers is gone with the daemon dead: the filter alone keeps the way closed.
#[test]
fn without_rules_and_routes_a_killswitch_without_a_daemon_is_closed() {
    let lab = Lab::new();
    for (allowed, targets) in [("10.2.0.0/24 fd02::/64", SITE), ("0.0.0.0/0 ::/0", WEB)] {
        let net = Net::new(&lab);
        let (of_a, of_b) = Net::configurations(allowed);
        let everything_of_routing = || {
            for (_, scripts) in &wipes()[..2] {
                scripts.iter().for_each(|script| drop(net.a.run(script)));
            }
        };
        let clear = net.clear_while_talking(&targets, || {
            assert!(net.a.guards(Some(&of_a)).success);
            everything_of_routing();
            net.comes_up();
            net.lan_lives("guarded before there was a network");
            std::thread::sleep(Duration::from_millis(200));
        });
        assert_eq!(clear, NOTHING, "guarded");
        assert_eq!(net.insists(&targets), NOTHING, "guarded");
        let _b = net.b.starts(&of_b);
        let daemon = net.a.starts(&of_a);
        net.uses(&net.client, targets[0]);
        daemon.dies();
        let clear = net.clear_while_talking(&targets, || {
            everything_of_routing();
            net.lan_lives("daemon killed");
        });
        assert_eq!(clear, NOTHING, "daemon killed");
    }
}

/// A DHCP client renews its lease at a server that is not on the link; nobody else gets out so.
#[test]
fn a_dhcp_client_reaches_its_server() {
    let lab = Lab::new();
    let net = Net::up(&lab);
    let server = ["198.51.100.80"];
    let (of_a, _) = Net::configurations("0.0.0.0/0");
    let _daemon = net.a.starts(&of_a);
    let renews = |host: &Host, device: Option<&str>| {
        host.within(|| {
            let socket = UdpSocket::bind("0.0.0.0:68").unwrap();
            if let Some(device) = device {
                bind_to(&socket, device);
            }
            for _ in 0..3 {
                let _ = socket.send_to(MARKER, (ip(server[0]), 67));
                std::thread::sleep(Duration::from_millis(20));
            }
        });
    };
    let seen = net.clear(&server, || renews(&net.a, Some("wan")));
    assert_eq!(seen.iter().filter(|frame| frame.contains("Udp(68, 67)")).count(), 3, "{seen:?}");
    net.a.run("ip route add 198.51.100.80/32 via 192.0.2.2");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(net.clear(&server, || renews(&net.client, None)), NOTHING, "a LAN client's");
}

/// Whether the stranger's echo requests to this address of a are answered.
fn answers(net: &Net, address: &str) -> bool {
    net.stranger.ping_sized(ip(address), 56, 2).right > 0
}

#[test]
fn a_stranger_on_the_link_does_not_reach_the_tunnels_addresses() {
    let lab = Lab::new();
    let net = Net::up(&lab);
    net.stranger.route("10.77.0.0/16", "192.0.2.1").route("fd77::/64", "fd00::1");
    let own = ["10.77.0.1", "fd77::1"];
    for allowed in ["10.2.0.0/24 fd02::/64 10.77.0.2/32", "0.0.0.0/0 ::/0"] {
        let (of_a, of_b) = Net::configurations(allowed);
        let _b = net.b.starts(&of_b);
        let daemon = net.a.starts(&of_a);
        net.uses(&net.client, if allowed.starts_with('0') { WEB[0] } else { SITE[0] });
        let before = daemon.counter("clear_text");
        for address in own {
            assert!(!answers(&net, address), "{address}");
            assert!(net.a.pings(address), "{address} from a itself");
        }
        assert!(daemon.counter("clear_text") >= before + 4, "{}", daemon.json());
        assert!(net.b.attempt("ping -c 1 -W 2 -I 10.2.0.2 10.77.0.1").success, "the peer does");
        assert!(answers(&net, "192.0.2.1") && answers(&net, "fd00::1"), "other addresses");

        // An address that the LAN has as well is the LAN's.
        net.a.run("ip addr add 10.77.0.1/32 dev lan");
        assert!(
            eventually(PROMPT, || answers(&net, "10.77.0.1")),
            "{}",
            net.a.run("nft list ruleset")
        );
        net.a.run("ip addr del 10.77.0.1/32 dev lan");
        assert!(eventually(PROMPT, || !answers(&net, "10.77.0.1")));
    }
}

#[test]
fn a_stranger_does_not_reach_an_address_that_a_peer_has_given() {
    let lab = Lab::new();
    let net = Net::up(&lab);
    net.stranger.route("10.77.0.0/16", "192.0.2.1");
    let (at_a, at_b) = (KeyPair::new(&net.a), KeyPair::new(&net.b));
    let to_b = Peer::ike("b").option("public_key", &at_b.public).at("192.0.2.2");
    let of_a = Vpn::new().option("private_key", &at_a.private).list("addresses", "auto");
    let of_a = of_a.peer(to_b.allowed("0.0.0.0/0"));
    let of_b = Vpn::new().option("private_key", &at_b.private).list("pool", "10.77.0.0/24");
    let of_b = of_b.peer(Peer::ike("a").option("public_key", &at_a.public));
    let _b = net.b.starts(&of_b);
    let daemon = net.a.starts(&of_a);
    let given = || {
        let shown = net.a.run("ip -o -4 addr show dev vpn0");
        shown.split_whitespace().find_map(|word| Some(word.strip_suffix("/32")?.to_owned()))
    };
    assert!(eventually(Duration::from_secs(10), || given().is_some()), "{}", daemon.log());
    let given = given().unwrap();
    assert!(eventually(PROMPT, || !answers(&net, &given)), "{given}");
    assert!(daemon.counter("clear_text") > 0 && answers(&net, "192.0.2.1"));
}

///  a: vpn0 is a full tunnel to b, vpn1 a tunnel to the stranger, who has 10.3.0.2
#[test]
fn another_interface_works_beside_a_full_tunnel_also_a_closed_one() {
    let lab = Lab::new();
    let net = Net::up(&lab);
    net.stranger.run("ip addr add 10.3.0.2 dev lo");
    let (full, of_b) = Net::configurations("0.0.0.0/0 ::/0");
    let (at_a, at_stranger) = Keys::pair();
    let state = net.a.dir().join("state").display().to_string();
    let second = Vpn::named("vpn1").option("nat_port", "4600").option("state_dir", &state);
    let second = second.address("10.78.0.1/32");
    let second = second.peer(Peer::new("s", &at_a).at("192.0.2.66").allowed("10.3.0.0/24"));
    let of_stranger = Peer::new("a", &at_stranger).allowed("10.1.0.0/24 10.78.0.1/32");
    let _stranger = net.stranger.starts(&Vpn::new().peer(of_stranger));
    let _b = net.b.starts(&of_b);
    let both = net.a.starts(&full.clone().and(&second));
    net.client.assert_uses(&net.stranger, "10.3.0.2");
    net.a.assert_uses(&net.stranger, "10.3.0.2");
    net.uses(&net.client, WEB[0]);
    both.dies();
    let _one = net.a.launches_with(&full.and(&second), "", "vpn1");
    assert!(net.a.reaches_within("10.3.0.2", Duration::from_secs(5)));
    net.client.assert_uses(&net.stranger, "10.3.0.2");
    assert_eq!(net.insists(&WEB), NOTHING);
}

#[test]
fn with_ipv6_switched_off_ipv4_works_and_ipv6_comes_later() {
    let lab = Lab::new();
    let net = Net::up(&lab);
    let (of_a, of_b) = Net::configurations("0.0.0.0/0 ::/0");
    net.a.sysctl("ipv6/conf/all/disable_ipv6", "1");
    let _b = net.b.starts(&of_b);
    let mut daemon = net.a.starts(&of_a);
    net.uses(&net.client, WEB[0]);
    assert!(net.a.run("ip addr show dev vpn0").contains("10.77.0.1"));
    net.a.run("ip link set wan down");
    net.a.run("ip link set wan up");
    net.a.default_via("192.0.2.2");
    std::thread::sleep(Duration::from_millis(1500));
    daemon.reloads(&of_a.clone().option("mtu", "1300"));
    assert!(eventually(PROMPT, || daemon.log().contains("reloaded")), "{}", daemon.log());
    net.uses(&net.client, WEB[0]);
    let warned = || daemon.log().matches("IPv6 is switched off").count();
    assert_eq!(warned(), 1, "{}", daemon.log());
    assert!(!daemon.log().contains("rror"), "{}", daemon.log());

    net.a.sysctl("ipv6/conf/all/disable_ipv6", "0");
    net.a.run("ip addr add fd01::1/64 dev lan nodad");
    let carried = || net.client.ping_sized(ip(WEB[1]), 56, 1).right > 0;
    assert!(eventually(Duration::from_secs(5), carried), "{}", net.a.routing());
    assert!(net.a.run("ip addr show dev vpn0").contains("fd77::1"));
}

/// netifd deletes every rule of the machine when it starts, and gives its protocols a new daemon.
#[test]
fn netifd_that_starts_anew_opens_nothing() {
    for (allowed, targets) in [("10.2.0.0/24 fd02::/64", SITE), ("0.0.0.0/0 ::/0", WEB)] {
        let lab = Lab::new();
        let net = Net::up(&lab);
        let netifd = net.a.has_netifd();
        let (of_a, of_b) = Net::configurations(allowed);
        // `option auto '0'`: nobody but the guard.
        assert!(net.a.guards(Some(&of_a)).success);
        let clear = net.clear_while_talking(&targets, || {
            netifd.begins();
            std::thread::sleep(Duration::from_millis(500));
        });
        assert_eq!(clear, NOTHING, "{allowed}, without a daemon");
        let _b = net.b.starts(&of_b);
        let reached = |daemon: &Daemon| {
            for to in targets {
                let reached = net.client.reaches_within(to, Duration::from_secs(5));
                assert!(reached, "{to}:\n{}", daemon.log());
            }
        };
        let daemon = netifd.starts(&of_a);
        reached(&daemon);
        let clear = net.clear_while_talking(&targets, || {
            // The daemon goes on.
            netifd.begins();
            std::thread::sleep(Duration::from_millis(1500));
            reached(&daemon);
            // It is ended and started again, as by `service network restart`.
            assert!(daemon.stops().success());
            std::thread::sleep(Duration::from_millis(200));
            netifd.begins();
            std::thread::sleep(Duration::from_millis(200));
            reached(&netifd.starts(&of_a));
        });
        assert_eq!(clear, NOTHING, "{allowed}, network restart");
    }
}
