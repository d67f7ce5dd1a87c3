//! The Linux kernel at the other end: `ip xfrm` in a User-Mode Linux guest.
//!
//! ```text
//!   simplevpn 10.9.0.1 --- tap / vec0 --- 10.9.0.2 Linux
//!              fd09::1                    fd09::2
//!   10.77.1.1 ══════════════ ESP ══════════════ 10.77.2.1
//!   fd77:1::1                                   fd77:2::1
//! ```

use std::time::Duration;

use simplevpn_tests::lab::daemon::{Daemon, Keys, Peer, Vpn};
use simplevpn_tests::lab::process::eventually;
use simplevpn_tests::lab::{Host, Lab, ip};
use simplevpn_tests::peers::load::{Load, Service};
use simplevpn_tests::peers::uml::{UmlPeer, add_tap};
use simplevpn_tests::peers::xfrm::Tunnel;

/// Inner addresses of this end and of the kernel's.
const HERE: [&str; 2] = ["10.77.1.1", "fd77:1::1"];
const THERE: [&str; 2] = ["10.77.2.1", "fd77:2::1"];

struct Ends {
    us: Host,
    linux: UmlPeer,
    _service: Service,
    _lab: Lab,
}

/// How the two ends speak.
#[derive(Debug, Clone, Copy)]
struct Dialect {
    cipher: &'static str,
    esn: bool,
    udp: bool,
    outer_v6: bool,
}

impl Ends {
    fn new() -> Ends {
        let lab = Lab::new();
        let us = lab.host("us");
        add_tap(&us, "tap", "10.9.0.1/24 fd09::1/64");
        let mut linux = UmlPeer::start(&us, &["tap"]);
        linux.joins("10.9.0.2/24 fd09::2/64", &THERE.join(" "));
        linux.run(
            "ip route add 10.77.1.0/24 via 10.9.0.1 src 10.77.2.1 &&
             ip route add fd77:1::/64 via fd09::1 src fd77:2::1",
        );
        linux.serves();
        let service = us.serves();
        Ends { us, linux, _service: service, _lab: lab }
    }

    /// Both ends with fresh keys.
    fn meet(&mut self, dialect: Dialect) -> (Daemon, Tunnel) {
        let (ours, theirs) = Keys::pair_of(dialect.cipher);
        let [here, there] =
            if dialect.outer_v6 { ["fd09::1", "fd09::2"] } else { ["10.9.0.1", "10.9.0.2"] };
        let tunnel = Tunnel {
            keys: theirs,
            outer: [ip(there), ip(here)],
            inner: vec![["10.77.2.0/24", "10.77.1.0/24"], ["fd77:2::/64", "fd77:1::/64"]],
            esn: dialect.esn,
            udp: dialect.udp,
        };
        self.linux.run(&tunnel.script());
        let peer = Peer::new("linux", &ours)
            .at(there)
            .allowed("10.77.2.0/24 fd77:2::/64")
            .option("encap", if dialect.udp { "udp" } else { "esp" })
            .option("esn", if dialect.esn { "1" } else { "0" });
        let vpn = Vpn::new().address("10.77.1.1/24").address("fd77:1::1/64").peer(peer);
        (self.us.starts(&vpn), tunnel)
    }

    /// Packets that the kernel refused to open, by its own names.
    fn refused_by_linux(&mut self) -> String {
        self.linux.run("awk '/InHdr|InNoStates|InState/ && $2' /proc/net/xfrm_stat")
    }
}

/// Packets that the daemon refused to open, by name.
fn refused_by_us(daemon: &Daemon) -> Vec<(&'static str, u64)> {
    [
        "unknown_spi",
        "replayed",
        "too_old",
        "bad_icv",
        "bad_padding",
        "malformed",
        "outside_selector",
        "congestion",
        "no_room",
    ]
    .into_iter()
    .map(|name| (name, daemon.counter(name)))
    .filter(|&(_, count)| count > 0)
    .collect()
}

#[test]
fn dialects_carry_ping_tcp_and_large_udp_both_ways() {
    let mut ends = Ends::new();
    let load = Load { stream: 300_000, datagram: 20_000, lossy: false };
    for (n, dialect) in dialects().enumerate() {
        let (daemon, _) = ends.meet(dialect);
        let before = ends.refused_by_linux();
        let wire = ends.us.capture("tap");
        // Both inner families share the SAs; from whom the first packet comes takes turns.
        for family in [n % 2, 1 - n % 2] {
            if n % 4 < 2 {
                ends.us.sends(THERE[family], load);
                ends.linux.sends(HERE[family], load);
            } else {
                ends.linux.sends(HERE[family], load);
                ends.us.sends(THERE[family], load);
            }
        }
        let seen = wire.finish();
        assert!(seen.count(|frame| frame.is_protected()) > 1000, "{dialect:?}");
        for inner in HERE.into_iter().chain(THERE) {
            seen.assert_none("in the clear", |frame| frame.concerns(ip(inner)));
        }
        assert_eq!(refused_by_us(&daemon), [], "{dialect:?}");
        assert_eq!(ends.refused_by_linux(), before, "{dialect:?}");
        assert!(daemon.stops().success());
    }
    ends.linux.power_off();
}

/// Twelve of the 24: each cipher meets every pair of the other options, and so does each of those.
fn dialects() -> impl Iterator<Item = Dialect> {
    let ciphers = ["chacha20poly1305", "aes128gcm16", "aes256gcm16"];
    (0..24u32).filter(|n| (n / 8 + (n % 8).count_ones()) % 2 == 0).map(move |n| Dialect {
        cipher: ciphers[n as usize / 8],
        esn: n & 1 != 0,
        udp: n & 2 != 0,
        outer_v6: n & 4 != 0,
    })
}

#[test]
fn loss_duplicates_and_reordering_harm_nobody() {
    let mut ends = Ends::new();
    let load = Load { stream: 1_000_000, datagram: 8_000, lossy: true };
    ends.linux
        .run("tc qdisc add dev vec0 root netem delay 2ms loss 2% duplicate 2% reorder 20% 50%");
    for dialect in [
        Dialect { cipher: "chacha20poly1305", esn: true, udp: true, outer_v6: false },
        Dialect { cipher: "aes256gcm16", esn: false, udp: false, outer_v6: true },
    ] {
        let (daemon, _) = ends.meet(dialect);
        for (here, there) in HERE.into_iter().zip(THERE) {
            // The first datagrams may be lost to neighbour discovery, too.
            let met = || ends.us.attempt(&format!("ping -c 1 -W 1 {there}")).success;
            assert!(eventually(Duration::from_secs(10), met), "{dialect:?}");
            ends.us.sends(there, load);
            ends.linux.sends(here, load);
        }
        let refused = refused_by_us(&daemon);
        assert!(
            matches!(refused[..], [("replayed", 1..)]),
            "duplicates are replays, nothing else is wrong: {dialect:?} {refused:?}"
        );
    }
    ends.linux.power_off();
}

#[test]
fn the_high_half_of_an_extended_sequence_number_is_understood() {
    let mut ends = Ends::new();
    for cipher in ["chacha20poly1305", "aes128gcm16"] {
        let dialect = Dialect { cipher, esn: true, udp: false, outer_v6: false };
        let (daemon, tunnel) = ends.meet(dialect);
        // A window has to lie above the start before 2^32 - 1 can be its right edge (RFC 4303
        // Appendix A2.2); from there the kernel counts on into the next half.
        for next in [5000, 0xffff_fffe] {
            ends.linux.run(&tunnel.sends_from(next));
            let said = ends.linux.run("for n in 1 2 3 4 5 6; do ping -c 1 -W 10 10.77.1.1; done");
            let answered = said.matches(" 0% packet loss").count();
            let refused = (refused_by_us(&daemon), ends.refused_by_linux());
            assert_eq!(answered, 6, "{cipher} from {next}: {refused:?} {said}");
        }
        // Late, from the half before, but inside the window.
        ends.linux.run(&tunnel.sends_from(0x1_0000_0000 - 1000));
        ends.linux.run("ping -c 1 -W 10 10.77.1.1");
        assert_eq!(refused_by_us(&daemon), [], "{cipher}");
        // Left of the window is taken for the right edge's half (Appendix A2.2), which is not the
        // one that was authenticated.
        ends.linux.run(&tunnel.sends_from(0x1_0000_0000 - 40_000));
        let said = ends.linux.run("ping -c 1 -W 1 10.77.1.1 || true");
        assert!(said.contains(" 100% packet loss"), "{cipher}: {said}");
        assert_eq!(refused_by_us(&daemon), [("bad_icv", 1)], "{cipher}");
    }
    ends.linux.power_off();
}
