//! IKE with daemons whose ESP is the Linux kernel's: raw, and with extended sequence numbers, which
//! strongSwan's own lacks. They run in a User-Mode Linux guest.
//!
//! ```text
//!   simplevpn 10.9.0.1 --- tap / vec0 --- 10.9.0.2 strongSwan or libreswan
//!   10.77.1.1 ═══════════════ ESP ═══════════════ 10.77.2.1
//! ```

use simplevpn_tests::lab::capture::Kind;
use simplevpn_tests::lab::daemon::{Daemon, Peer, Vpn};
use simplevpn_tests::lab::process::eventually;
use simplevpn_tests::lab::{Host, Lab, ip};
use simplevpn_tests::peers::libreswan::Libreswan;
use simplevpn_tests::peers::load::{Load, Service};
use simplevpn_tests::peers::strongswan::StrongSwan;
use simplevpn_tests::peers::swanctl::Connection;
use simplevpn_tests::peers::uml::{UmlPeer, add_tap};

use crate::ike::{Caller, PROMPT, PSK, in_swanctl};

/// What goes through the tunnel, each way.
const LOAD: Load = Load { stream: 300_000, datagram: 20_000, lossy: false };

/// Our end, at first without anything at the other.
struct Here {
    host: Host,
    _service: Service,
    _lab: Lab,
}

/// Our end, and a guest for the other.
fn here_and_guest() -> (Here, UmlPeer) {
    let lab = Lab::new();
    let host = lab.host("us");
    add_tap(&host, "tap", "10.9.0.1/24");
    let mut guest = UmlPeer::start(&host, &["tap"]);
    guest.is_at("10.9.0.2/24", "10.77.2.1");
    guest.run("ip route add 10.77.1.0/24 via 10.9.0.1 src 10.77.2.1");
    guest.serves();
    let service = host.serves();
    (Here { host, _service: service, _lab: lab }, guest)
}

impl Here {
    fn starts(&self, caller: Caller, encap: &str) -> Daemon {
        let peer = Peer::ike("linux")
            .allowed("10.77.2.0/24")
            // libreswan takes these selectors or none.
            .list("local_ips", "10.77.1.0/24")
            .option("preshared_key", PSK)
            .option("local_id", "a.test")
            .option("remote_id", "b.test")
            .option("encap", encap);
        let peer = if caller == Caller::Us { peer.at("10.9.0.2") } else { peer };
        self.host.starts(&Vpn::new().address("10.77.1.1/24").peer(peer))
    }

    /// Everything arrives both ways, in packets of this kind, also after the other end has
    /// rekeyed.
    fn uses(&self, us: &Daemon, kind: Kind, other: &mut impl Other) {
        assert!(self.host.reaches_within("10.77.2.1", PROMPT), "{}", us.show());
        let wire = self.host.capture("tap");
        for rekeying in [None, Some(Other::rekeys_child as fn(&mut _)), Some(Other::rekeys_ike)] {
            if let Some(rekeys) = rekeying {
                rekeys(other);
            }
            self.host.sends("10.77.2.1", LOAD);
            LOAD.check(&other.runs(&LOAD.script("10.77.1.1")));
        }
        let seen = wire.finish();
        for inner in ["10.77.1.1", "10.77.2.1"] {
            seen.assert_none("in the clear", |frame| frame.concerns(ip(inner)));
        }
        assert!(seen.count_kind(kind) > 500, "{}", us.show());
        for discard in ["bad_icv", "replayed", "outside_selector", "malformed", "unknown_spi"] {
            assert_eq!(us.counter(discard), 0, "{discard}: {}", us.json());
        }
    }
}

/// What both daemons can do.
trait Other {
    /// Replaces the child's keys; has happened when this returns.
    fn rekeys_child(&mut self);
    /// Replaces the keys of IKE; has happened when this returns.
    fn rekeys_ike(&mut self);
    /// Runs a script beside it.
    fn runs(&mut self, script: &str) -> String;
}

impl Other for StrongSwan {
    fn rekeys_child(&mut self) {
        let before = self.sa().child("spi-in");
        StrongSwan::rekeys_child(self).unwrap();
        assert!(eventually(PROMPT, || self.sa().child("spi-in") != before));
    }

    fn rekeys_ike(&mut self) {
        let before = self.sa().value("initiator-spi");
        StrongSwan::rekeys_ike(self).unwrap();
        assert!(eventually(PROMPT, || self.sa().value("initiator-spi") != before));
    }

    fn runs(&mut self, script: &str) -> String {
        self.guest(script)
    }
}

impl Other for Libreswan {
    fn rekeys_child(&mut self) {
        Libreswan::rekeys_child(self);
        assert!(self.says("initiator rekeyed Child SA"));
    }

    fn rekeys_ike(&mut self) {
        Libreswan::rekeys_ike(self);
        assert!(self.says("initiator rekeyed IKE SA"));
    }

    fn runs(&mut self, script: &str) -> String {
        self.guest(script)
    }
}

fn with_strongswan(caller: Caller, encap: &str, esp: &str) -> (Here, Daemon, StrongSwan) {
    let (here, guest) = here_and_guest();
    let connection = Connection::between("10.9.0.2", "10.9.0.1")
        .psk("b.test", "a.test", &in_swanctl(PSK))
        .protects("10.77.2.0/24", "10.77.1.0/24")
        .child("esp_proposals", esp);
    // Who answers is there first.
    if caller == Caller::Us {
        let swan = guest.runs_strongswan(&connection);
        let us = here.starts(caller, encap);
        return (here, us, swan);
    }
    let us = here.starts(caller, encap);
    let swan = guest.runs_strongswan(&connection);
    swan.initiates().unwrap();
    (here, us, swan)
}

///  simplevpn ══ raw ESP with ESN ══ strongSwan, which insists on ESN
#[test]
fn raw_esp_with_extended_sequence_numbers() {
    let esp = [(Caller::Us, "chacha20poly1305-esn"), (Caller::Them, "aes128gcm16-esn")];
    for (caller, esp) in esp {
        let (here, us, mut swan) = with_strongswan(caller, "esp", esp);
        here.uses(&us, Kind::Esp, &mut swan);
        assert_eq!(swan.sa().child("esn"), "1");
        assert_eq!(swan.sa().child("encap"), "");
    }
}

///  simplevpn ══ raw ESP ══ strongSwan, since nothing is in its way: what `encap auto` means
#[test]
fn raw_esp_where_nothing_is_in_its_way() {
    let (here, us, mut swan) = with_strongswan(Caller::Us, "auto", "aes256gcm16-noesn");
    here.uses(&us, Kind::Esp, &mut swan);
    assert_eq!(swan.sa().child("esn"), "");
}

///  simplevpn ══ UDP 4500 ══ strongSwan: what `encap udp` asks for, without any NAT
#[test]
fn encapsulated_when_we_say_so() {
    for caller in Caller::BOTH {
        let (here, us, mut swan) = with_strongswan(caller, "udp", "aes128gcm16-esn-noesn");
        here.uses(&us, Kind::UdpEncapsulated, &mut swan);
        assert_eq!(swan.sa().child("encap"), "yes", "{caller:?}");
    }
}

///  simplevpn ══ raw ESP with ESN ══ libreswan, which offers that by itself
#[test]
fn libreswan() {
    for (caller, ike, esp) in [
        (Caller::Us, "aes_gcm256-sha2_256;dh31", "chacha20_poly1305"),
        (Caller::Them, "chacha20_poly1305-sha2_256;dh19", "aes_gcm256"),
    ] {
        let (here, guest) = here_and_guest();
        let connection = format!(
            "left=10.9.0.2
            leftid=@b.test
            leftsubnet=10.77.2.0/24
            right=10.9.0.1
            rightid=@a.test
            rightsubnet=10.77.1.0/24
            authby=secret
            ikev2=insist
            ike={ike}
            esp={esp}"
        );
        let us = here.starts(caller, "esp");
        let mut libreswan = guest.runs_libreswan(&connection, &in_swanctl(PSK));
        if caller != Caller::Us {
            libreswan.initiates();
        }
        here.uses(&us, Kind::Esp, &mut libreswan);
        assert!(libreswan.log().contains("ESN"), "no extended sequence numbers");
    }
}
