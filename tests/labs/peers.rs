//! The peers proven against each other, without SimpleVPN.

use std::time::Duration;

use simplevpn_tests::lab::daemon::Keys;
use simplevpn_tests::lab::process::eventually;
use simplevpn_tests::lab::{Host, Lab, ip};
use simplevpn_tests::peers::load::Load;
use simplevpn_tests::peers::scapy::{ScapyPeer, Settings};
use simplevpn_tests::peers::swanctl::Connection;
use simplevpn_tests::peers::uml::{UmlPeer, add_tap};
use simplevpn_tests::peers::xfrm::Tunnel;

use crate::topology::{Sites, assert_secret};

/// Cipher, ESN, UDP encapsulation, and whether the outer addresses are IPv6.
const COMBINATIONS: [(&str, bool, bool, bool); 4] = [
    ("chacha20poly1305", true, false, false),
    ("aes128gcm16", false, true, false),
    ("aes256gcm16", true, true, true),
    ("chacha20poly1305", false, false, true),
];

fn guest(host: &Host, tap: &str, n: u8) -> UmlPeer {
    let mut guest = UmlPeer::start(host, &[tap]);
    guest.joins(&format!("10.9.0.{n}/24 fd09::{n}/64"), &format!("10.77.{n}.1 fd77:{n}::1"));
    let other = 3 - n;
    guest.run(&format!(
        "ip route add 10.77.{other}.0/24 dev vec0 src 10.77.{n}.1 &&
         ip route add fd77:{other}::/64 dev vec0 src fd77:{n}::1"
    ));
    guest.serves();
    guest
}

/// The end `n` of a tunnel between 1 and 2.
fn tunnel(n: usize, keys: Keys, esn: bool, udp: bool, v6: bool) -> Tunnel {
    let outer = if v6 { ["fd09::1", "fd09::2"] } else { ["10.9.0.1", "10.9.0.2"] };
    let inner = [["10.77.1.0/24", "10.77.2.0/24"], ["fd77:1::/64", "fd77:2::/64"]];
    let (here, there) = (n - 1, 2 - n);
    Tunnel {
        keys,
        outer: [ip(outer[here]), ip(outer[there])],
        inner: inner.iter().map(|pair| [pair[here], pair[there]]).collect(),
        esn,
        udp,
    }
}

///  one 10.9.0.1 -- tap1 (bridge) tap2 -- 10.9.0.2 two
///  10.77.1.1 =================================== 10.77.2.1
#[test]
fn linux_speaks_esp_with_linux() {
    let lab = Lab::new();
    let host = lab.host("between");
    host.run("ip link add name bridge type bridge");
    host.run("ip link set bridge up");
    for tap in ["tap1", "tap2"] {
        add_tap(&host, tap, "");
        host.run(&format!("ip link set {tap} master bridge"));
    }
    let (mut one, mut two) = (guest(&host, "tap1", 1), guest(&host, "tap2", 2));
    for (cipher, esn, udp, v6) in COMBINATIONS {
        let (here, there) = Keys::pair_of(cipher);
        one.run(&tunnel(1, here, esn, udp, v6).script());
        two.run(&tunnel(2, there, esn, udp, v6).script());
        let wire = host.capture("tap1");
        for far in ["10.77.2.1", "fd77:2::1"] {
            one.sends(far, Load { stream: 500_000, datagram: 20_000, lossy: false });
        }
        let seen = wire.finish();
        assert!(seen.count(|frame| frame.is_protected()) > 100, "{cipher}");
        for inner in ["10.77.1.1", "fd77:1::1"] {
            seen.assert_none("in the clear", |frame| frame.concerns(ip(inner)));
        }
    }
    one.power_off();
    two.power_off();
}

///  scapy 10.9.0.1 -- tap -- 10.9.0.2 Linux
///  10.77.1.1 ==================== 10.77.2.1
#[test]
fn scapy_speaks_esp_with_linux() {
    let lab = Lab::new();
    let host = lab.host("scapy");
    add_tap(&host, "tap", "10.9.0.1/24 fd09::1/64");
    let mut linux = guest(&host, "tap", 2);
    for (cipher, esn, udp, v6) in COMBINATIONS {
        let (here, there) = Keys::pair_of(cipher);
        let linux_end = tunnel(2, there, esn, udp, v6);
        let [local, remote] = linux_end.outer;
        linux.run(&linux_end.script());
        let mut scapy = ScapyPeer::start(
            &host,
            &Settings {
                keys: here,
                outer: [remote, local],
                inner4: [ip("10.77.1.1"), ip("10.77.2.1")],
                inner6: [ip("fd77:1::1"), ip("fd77:2::1")],
                esn,
                udp,
            },
        );
        for family in ["family=4", "family=6"] {
            assert!(scapy.ping(family), "{cipher} {family}");
            assert!(scapy.ping(&format!("{family} tfc=100")), "{cipher} {family}: TFC padding");
            assert!(scapy.ping(&format!("{family} padlen=255")), "{cipher} {family}: padding");
        }
        assert!(!scapy.ping("flip=-1"), "{cipher}: bad ICV");
        linux.run("ping -c 2 -i 0.2 -W 1 10.77.1.1 && ping -c 2 -i 0.2 -W 1 fd77:1::1");
        let seen = scapy.seen();
        assert_eq!((seen.requests, seen.replies, seen.refused), (4, 6, 0), "{cipher}");
    }
}

///  client 10.1.0.2 -- strongSwan 192.0.2.1 ==UDP 4500== 192.0.2.2 strongSwan -- 10.2.0.2 server
#[test]
fn strongswan_speaks_ike_with_strongswan() {
    let lab = Lab::new();
    let sites = Sites::new(&lab);
    let [here, there] = ["192.0.2.1", "192.0.2.2"];
    let connection = |[local, remote]: [&str; 2], [own, other]: [&str; 2]| {
        Connection::between(local, remote).protects(own, other)
    };
    let secret = "0sAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let lans = ["10.1.0.0/24", "10.2.0.0/24"];
    let a =
        sites.a.runs_strongswan(&connection([here, there], lans).psk("a.test", "b.test", secret));
    let b = sites.b.runs_strongswan(
        &connection([there, here], [lans[1], lans[0]]).psk("b.test", "a.test", secret),
    );
    let wire = sites.a.capture("wan");
    a.initiates().unwrap();
    assert!(sites.client.pings("10.2.0.2"));
    let before = (a.sa(), b.sa());
    assert_eq!(before.0.child("spi-in"), before.1.child("spi-out"));

    let stream = sites.client.streams_to(&sites.server, ip("10.2.0.2"), Duration::from_millis(1));
    assert!(eventually(Duration::from_secs(5), || stream.arrived() > 100));
    a.rekeys_child().unwrap();
    let new_child = || a.sa().child("spi-in") != before.0.child("spi-in");
    assert!(eventually(Duration::from_secs(5), new_child));
    b.rekeys_ike().unwrap();
    let new_ike = || b.sa().value("initiator-spi") != before.1.value("initiator-spi");
    assert!(eventually(Duration::from_secs(5), new_ike));
    let before = stream.arrived();
    assert!(eventually(Duration::from_secs(5), || stream.arrived() > before + 100));
    let account = stream.ends();
    assert!(account.is_complete(), "{account:?}");
    sites.server.assert_uses(&sites.client, "10.1.0.2");
    assert_secret(&wire.finish());
}

///  strongSwan 10.9.0.1 -- tap -- 10.9.0.2 strongSwan in a guest, with the kernel's ESP
///  10.77.1.1 =====================  UDP 4500  ===================== 10.77.2.1
#[test]
fn strongswan_speaks_ike_with_strongswan_in_a_guest() {
    let lab = Lab::new();
    let host = lab.host("between");
    add_tap(&host, "tap", "10.9.0.1/24");
    host.run("ip addr add 10.77.1.1/32 dev lo");
    let secret = "0sAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let here = Connection::between("10.9.0.1", "10.9.0.2")
        .psk("a.test", "b.test", secret)
        .protects("10.77.1.0/24", "10.77.2.0/24");
    let there = Connection::between("10.9.0.2", "10.9.0.1")
        .psk("b.test", "a.test", secret)
        .protects("10.77.2.0/24", "10.77.1.0/24");
    let here = host.runs_strongswan(&here);
    let mut guest = UmlPeer::start(&host, &["tap"]);
    guest.is_at("10.9.0.2/24", "10.77.2.1");
    let there = guest.runs_strongswan(&there);
    here.initiates().unwrap();
    assert!(host.pings("10.77.2.1"));
    assert_eq!(there.sa().child("encap"), "yes");
    assert_eq!(there.sa().child("spi-in"), here.sa().child("spi-out"));
    there.guest("ping -c 1 -W 10 10.77.1.1");
}

///  strongSwan 10.9.0.1 -- tap -- 10.9.0.2 libreswan in a guest
///  10.77.1.1 =====================  UDP 4500  ===================== 10.77.2.1
#[test]
fn strongswan_speaks_ike_with_libreswan() {
    let lab = Lab::new();
    let host = lab.host("between");
    add_tap(&host, "tap", "10.9.0.1/24");
    host.run("ip addr add 10.77.1.1/32 dev lo");
    let swan = Connection::between("10.9.0.1", "10.9.0.2")
        .psk("a.test", "b.test", "\"a secret of some length\"")
        .protects("10.77.1.0/24", "10.77.2.0/24")
        .option("proposals", "aes256gcm16-prfsha256-x25519")
        .child("esp_proposals", "chacha20poly1305-x25519");
    let swan = host.runs_strongswan(&swan);
    let mut guest = UmlPeer::start(&host, &["tap"]);
    guest.is_at("10.9.0.2/24", "10.77.2.1");
    guest.run("ip route add 10.77.1.0/24 via 10.9.0.1 src 10.77.2.1");
    let mut libreswan = guest.runs_libreswan(
        "left=10.9.0.2
        leftid=@b.test
        leftsubnet=10.77.2.0/24
        right=10.9.0.1
        rightid=@a.test
        rightsubnet=10.77.1.0/24
        authby=secret
        ikev2=insist
        ike=aes_gcm256-sha2_256;dh31
        esp=chacha20_poly1305",
        "\"a secret of some length\"",
    );
    swan.initiates().unwrap();
    assert!(host.pings("10.77.2.1"));
    libreswan.guest("ping -c 1 -W 10 10.77.1.1");
    let before = swan.sa();
    libreswan.rekeys_child();
    assert!(
        eventually(Duration::from_secs(5), || swan.sa().child("spi-in") != before.child("spi-in"))
    );
    libreswan.rekeys_ike();
    let new = || swan.sa().value("initiator-spi") != before.value("initiator-spi");
    assert!(eventually(Duration::from_secs(5), new));
    assert!(host.pings("10.77.2.1"));
}
