//! The peers proven without SimpleVPN: Linux against Linux.
//!
//! ```text
//!   guest one                namespace                guest two
//!   vec0 10.9.0.1  ── tap1 ──  bridge  ── tap2 ──  vec0 10.9.0.2
//!        fd09::1                                        fd09::2
//!   lo   10.77.1.1 ═════════════ ESP ═════════════ lo   10.77.2.1
//!        fd77:1::1                                      fd77:2::1
//! ```

use std::net::IpAddr;

use simplevpn_tests::lab::{Host, Lab, ip};
use simplevpn_tests::peers::uml::{UmlPeer, add_tap};
use simplevpn_tests::peers::xfrm::{self, Cipher, Sa};
use simplevpn_tests::peers::peer_tool;

fn guest(host: &Host, tap: &str, n: u8) -> UmlPeer {
    let mut guest = UmlPeer::start(host, &[tap]);
    guest.run(&format!(
        "set -e
         ip addr add 10.9.0.{n}/24 dev vec0
         ip addr add fd09::{n}/64 dev vec0 nodad
         ip link set vec0 up
         ip addr add 10.77.{n}.1/32 dev lo
         ip addr add fd77:{n}::1/128 dev lo nodad
         ip route add 10.77.0.0/16 dev vec0 src 10.77.{n}.1
         ip route add fd77::/16 dev vec0 src fd77:{n}::1
         ({tool} serve 10.77.{n}.1 7 & {tool} serve fd77:{n}::1 7 & {tool} udp-encap 4500 &) >/dev/null 2>&1",
        tool = peer_tool().display(),
    ));
    guest
}

/// What guest `n` has to be told so that it speaks ESP with the other one.
fn tunnel(n: u8, outer: [IpAddr; 2], cipher: Cipher, esn: bool, udp: bool) -> String {
    let sa = |from: usize, to: usize| Sa {
        src: outer[from],
        dst: outer[to],
        spi: 0x1001 + from as u32,
        cipher,
        key: cipher.key(from as u8),
        esn,
        udp: udp.then_some((4500, 4500)),
        sent: (0, 0),
    };
    let mut script = String::from("set -e\n") + xfrm::FLUSH + &sa(0, 1).add() + &sa(1, 0).add();
    for inner in [["10.77.1.0/24", "10.77.2.0/24"], ["fd77:1::/64", "fd77:2::/64"]] {
        let (me, other) = if n == 1 { (0, 1) } else { (1, 0) };
        script += &xfrm::policy("out", (inner[me], inner[other]), outer[me], outer[other]);
        script += &xfrm::policy("in", (inner[other], inner[me]), outer[other], outer[me]);
    }
    script
}

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
    let v4 = [ip("10.9.0.1"), ip("10.9.0.2")];
    let v6 = [ip("fd09::1"), ip("fd09::2")];
    let tool = peer_tool();
    let tool = tool.display();
    for (cipher, esn, udp, outer) in [
        (Cipher::ChaCha20Poly1305, true, false, v4),
        (Cipher::Aes128Gcm, false, true, v4),
        (Cipher::Aes256Gcm, true, true, v6),
        (Cipher::ChaCha20Poly1305, false, false, v6),
    ] {
        one.run(&tunnel(1, outer, cipher, esn, udp));
        two.run(&tunnel(2, outer, cipher, esn, udp));
        for far in ["10.77.2.1", "fd77:2::1"] {
            let said = one.run(&format!(
                "ping -c2 -W1 {far} && {tool} tcp {far} 7 1000000 && {tool} udp {far} 7 20000 10"
            ));
            println!("{cipher:?} esn {esn} udp {udp}: {said}");
        }
        let stat = one.run("ip -s xfrm state; ip xfrm policy; cat /proc/net/xfrm_stat");
        println!("{stat}");
    }
    one.power_off();
    two.power_off();
}
