//! scapy at the other end: an ESP that nobody here wrote, and that sends what no honest peer would.
//!
//! ```text
//!   simplevpn 10.9.0.1 ---- eth0 / eth0 ---- 10.9.0.2 scapy
//!              fd09::1                       fd09::2
//!   10.77.1.1 ══════════════ ESP ═══════════════ 10.77.2.1
//!   fd77:1::1                                    fd77:2::1
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use simplevpn_core::Discard;
use simplevpn_tests::lab::daemon::{Daemon, Keys, Peer, Vpn};
use simplevpn_tests::lab::process::eventually;
use simplevpn_tests::lab::{Host, Lab, ip};
use simplevpn_tests::peers::scapy::{ScapyPeer, Settings};

struct Ends {
    us: Host,
    daemon: Daemon,
    scapy: ScapyPeer,
    _lab: Lab,
}

impl Ends {
    fn new(cipher: &'static str, esn: bool, udp: bool, outer_v6: bool) -> Ends {
        let lab = Lab::new();
        let [us, them] = lab.hosts(["us", "scapy"]);
        lab.link(
            us.port("eth0", "10.9.0.1/24 fd09::1/64"),
            them.port("eth0", "10.9.0.2/24 fd09::2/64"),
        );
        let [here, there] =
            if outer_v6 { ["fd09::1", "fd09::2"] } else { ["10.9.0.1", "10.9.0.2"] };
        let (ours, theirs) = Keys::pair_of(cipher);
        let peer = Peer::new("scapy", &ours)
            .at(there)
            .allowed("10.77.2.0/24 fd77:2::/64")
            .list("local_ips", "10.77.1.0/24 fd77:1::/64")
            .option("encap", if udp { "udp" } else { "esp" })
            .option("esn", if esn { "1" } else { "0" });
        let vpn = Vpn::new().address("10.77.1.1/24").address("fd77:1::1/64").peer(peer);
        let daemon = us.starts(&vpn);
        let settings = Settings {
            keys: theirs,
            outer: [ip(there), ip(here)],
            inner4: [ip("10.77.2.1"), ip("10.77.1.1")],
            inner6: [ip("fd77:2::1"), ip("fd77:1::1")],
            esn,
            udp,
        };
        let scapy = ScapyPeer::start(&them, &settings);
        Ends { us, daemon, scapy, _lab: lab }
    }

    /// What was dropped so far, by the daemon's names.
    fn drops(&self) -> BTreeMap<&'static str, u64> {
        let json = self.daemon.json();
        let of_interface = json.split("\"peers\"").next().unwrap_or_default();
        let inbound = Discard::ALL.iter().map(|why| why.name());
        inbound.map(|name| (name, sum_of(of_interface, name))).collect()
    }

    /// Packets that came out of the tunnel.
    fn delivered(&self) -> u64 {
        let devices = self.us.within(|| std::fs::read_to_string("/proc/thread-self/net/dev"));
        let devices = devices.unwrap_or_default();
        let line = devices.lines().find_map(|line| line.trim().strip_prefix("vpn0:"));
        let packets = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        packets.unwrap_or_else(|| panic!("no vpn0 in\n{devices}"))
    }

    /// Whatever `send` sends increments the counter `name` once, and does nothing else: no other
    /// counter moves, nothing is delivered, and the tunnel works on.
    fn dropped_as(&mut self, name: &'static str, what: &str, send: impl FnOnce(&mut ScapyPeer)) {
        let (mut expected, delivered) = (self.drops(), self.delivered());
        *expected.get_mut(name).unwrap_or_else(|| panic!("no counter {name}")) += 1;
        send(&mut self.scapy);
        let limit = Duration::from_secs(2);
        let counted = eventually(limit, || self.drops()[name] >= expected[name]);
        assert!(counted, "{what}: {name} did not move: {:?}", self.drops());
        assert_eq!(self.drops(), expected, "{what}");
        assert_eq!(self.delivered(), delivered, "{what}");
    }
}

const COMBINATIONS: [(&str, bool, bool, bool); 6] = [
    ("chacha20poly1305", true, false, false),
    ("chacha20poly1305", false, true, true),
    ("aes128gcm16", true, true, false),
    ("aes128gcm16", false, false, true),
    ("aes256gcm16", true, false, true),
    ("aes256gcm16", false, true, false),
];

#[test]
fn echoes_return_both_ways() {
    for (cipher, esn, udp, outer_v6) in COMBINATIONS {
        let mut ends = Ends::new(cipher, esn, udp, outer_v6);
        let which = format!("{cipher}, ESN {esn}, UDP {udp}, outer IPv6 {outer_v6}");
        for family in ["family=4", "family=6"] {
            for size in [0, 1, 2, 3, 56, 1300] {
                assert!(ends.scapy.ping(&format!("{family} size={size}")), "{which}: {size}");
            }
        }
        for far in ["10.77.2.1", "fd77:2::1"] {
            for size in [0, 1, 2, 3, 56, 1300] {
                let answers = ends.us.ping_sized(ip(far), size, 1);
                assert!(answers.all(), "{which}: {far}, {size} bytes");
            }
        }
        let seen = ends.scapy.seen();
        assert_eq!((seen.requests, seen.replies, seen.refused), (12, 12, 0), "{which}");
        assert!(ends.drops().values().all(|&count| count == 0), "{which}: {:?}", ends.drops());
    }
}

#[test]
fn what_a_receiver_has_to_accept_is_accepted() {
    for esn in [true, false] {
        let mut ends = Ends::new("chacha20poly1305", esn, false, false);
        for odd in [
            "seq=100000",
            "seq=99000",
            "tfc=1",
            "tfc=700",
            "padlen=254",
            "padlen=250",
            "iv=0000000000000000",
            "iv=ffffffffffffffff",
            "tos=3 inner_tos=2",
            "tos=184",
        ] {
            // RFC 4303 §2.4 right-aligns the trailer; 86 bytes of payload and trailer need 2 more.
            assert!(ends.scapy.ping(odd), "ESN {esn}: {odd}");
        }
        assert!(ends.drops().values().all(|&count| count == 0), "{:?}", ends.drops());
    }
}

#[test]
fn hostile_packets_are_counted_by_name_and_do_nothing_else() {
    for (esn, udp, outer_v6) in [(false, false, false), (true, true, false), (true, false, true)] {
        let mut ends = Ends::new("chacha20poly1305", esn, udp, outer_v6);
        assert!(ends.scapy.ping("seq=10000"));
        ends.dropped_as("replayed", "replayed", ScapyPeer::replay);
        // With ESN, what lies left of the window is taken for the next half (RFC 4303 Appendix
        // A2.2), so that it is the authentication that fails.
        let too_old = if esn { "bad_icv" } else { "too_old" };
        for (how, counter) in [
            ("seq=7900", too_old),
            ("seq=10001 cut=3", "malformed"),
            ("seq=10002 cut=8", "malformed"),
            ("seq=10003 cut=33", "malformed"),
            ("seq=10004 cut=60", "bad_icv"),
            ("seq=10005 spi=0x100", "unknown_spi"),
            ("seq=10006 spi=0xffffffff", "unknown_spi"),
            ("seq=10007 flip=-1", "bad_icv"),
            ("seq=10008 flip=8", "bad_icv"),
            ("seq=10009 flip=20", "bad_icv"),
            ("seq=10010 padding=0202", "bad_padding"),
            ("seq=10011 claim=255", "bad_padding"),
            ("seq=10012 nh=59", "dummy"),
            ("seq=10013 nh=59 family=6 tfc=9", "dummy"),
            ("seq=10014 nh=41", "malformed"),
            ("seq=10015 nh=17", "malformed"),
            ("seq=10016 src=10.88.0.1", "outside_selector"),
            ("seq=10017 src=10.77.1.1", "outside_selector"),
            ("seq=10018 dst=10.88.0.1", "outside_selector"),
            ("seq=10019 family=6 src=fd88::1", "outside_selector"),
            ("seq=10020 dst=fd88::1", "outside_selector"),
            ("seq=10021 tos=3 inner_tos=0", "congestion"),
        ] {
            ends.dropped_as(counter, &format!("ESN {esn}: {how}"), |scapy| scapy.send(how));
        }
        // None of the forged ones moved the window: those numbers are still free.
        for forged in [10004, 10007, 10008, 10009] {
            assert!(ends.scapy.ping(&format!("seq={forged}")), "ESN {esn}: {forged}");
        }
        // The authentic ones did.
        for authentic in [10010, 10012, 10016] {
            let how = format!("seq={authentic}");
            ends.dropped_as("replayed", &how, |scapy| scapy.send(&how));
        }
        assert!(ends.scapy.ping("seq=10100 family=6"), "ESN {esn}");
    }
}

#[test]
fn extended_sequence_numbers_cross_into_the_next_half_and_no_further() {
    let mut ends = Ends::new("aes256gcm16", true, false, false);
    // The window starts at 0; only above its size can 2^32 - 1 be meant by what is sent for it.
    for accepted in [3000u64, 0xffff_fff0, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0005] {
        assert!(ends.scapy.ping(&format!("seq={accepted}")), "{accepted:#x}");
    }
    // Late, from the half before, inside the window.
    assert!(ends.scapy.ping("seq=0xfffffff5"));
    ends.dropped_as("replayed", "again", ScapyPeer::replay);
    // The right low half under a wrong high half.
    for wrong in ["seq=0x200000006", "seq=0x6", "seq=0x1fffffff6"] {
        ends.dropped_as("bad_icv", wrong, |scapy| scapy.send(wrong));
    }
    assert!(ends.scapy.ping("seq=0x100000006"));
}

/// The sum of all numbers of this name.
fn sum_of(json: &str, name: &str) -> u64 {
    let key = format!("\"{name}\":");
    let numbers = json.split(&key).skip(1).map(|rest| {
        let rest = rest.trim_start();
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse::<u64>().unwrap_or(0)
    });
    numbers.sum()
}
