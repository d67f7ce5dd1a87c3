//! A host whose bridge shows the firewall what it carries, as Docker and libvirt set it up:
//!
//! ```text
//!  peer 192.168.1.3 --+
//!  guest 192.168.1.4 -+- br0 host 192.168.1.2 ==ESP== peer
//!  other 192.168.1.5 -+
//! ```

use std::net::SocketAddr;

use simplevpn_tests::lab::daemon::{Keys, Peer, Vpn};
use simplevpn_tests::lab::traffic::MARKER;
use simplevpn_tests::lab::{Bound, Lab, ip};

#[test]
fn what_is_only_bridged_passes_untouched() {
    for full in [false, true] {
        let lab = Lab::new();
        let [host, peer, guest, other] = lab.hosts(["host", "peer", "guest", "other"]);
        host.run("ip link add name br0 type bridge");
        let ports = [(&peer, 3), (&guest, 4), (&other, 5)];
        for (machine, number) in ports {
            let addresses = format!("192.168.1.{number}/24 fd68::{number}/64");
            lab.link(host.port(machine.name(), ""), machine.port("eth0", &addresses));
            host.run(&format!("ip link set {} master br0", machine.name()));
        }
        host.run("ip link set br0 up");
        host.run("ip addr add 192.168.1.2/24 dev br0");
        host.run("ip addr add fd68::2/64 dev br0 nodad");
        for table in ["iptables", "ip6tables"] {
            host.run(&format!("sysctl -qw net.bridge.bridge-nf-call-{table}=1"));
        }
        let (at_host, at_peer) = Keys::pair();
        let wide = if full { " 0.0.0.0/0 ::/0" } else { "" };
        let to_peer = Peer::new("peer", &at_host).at("192.168.1.3");
        let to_peer = to_peer.allowed(&format!("192.168.1.3/32 fd68::3/128{wide}"));
        let to_host = Peer::new("host", &at_peer).at("192.168.1.2");
        let to_host = to_host.allowed("192.168.1.2/32 fd68::2/128");
        let _peer = peer.starts(&Vpn::new().peer(to_host));
        let daemon = host.starts(&Vpn::new().peer(to_peer));
        let bridged = |when: &str| {
            for (machine, number) in [(&guest, 4), (&other, 5)] {
                for (from, to) in [(machine, "192.168.1.3"), (machine, "fd68::3")] {
                    assert!(from.pings(to), "{} to {to}, {when}", from.name());
                }
                assert!(peer.pings(&format!("192.168.1.{number}")), "{when}");
                assert!(peer.pings(&format!("fd68::{number}")), "{when}");
            }
            assert!(guest.pings("192.168.1.5"), "{when}");
        };
        host.assert_uses(&peer, "192.168.1.3");
        host.assert_uses(&peer, "fd68::3");
        assert!(host.pings("192.168.1.4"), "an ordinary neighbour");
        bridged("tunnel up");
        // The host's own clear text is no bridge's.
        let wire = peer.capture("eth0");
        for to in ["192.168.1.3", "fd68::3"] {
            for how in Bound::ALL {
                host.sends_bound(how, "br0", SocketAddr::new(ip(to), 9), MARKER, 3);
            }
        }
        assert!(!wire.finish().contains(MARKER));
        daemon.dies();
        bridged("daemon killed");
        assert!(host.simplevpn_says("down vpn0").success);
        assert!(!host.run("nft list ruleset").contains("simplevpn"));
    }
}
