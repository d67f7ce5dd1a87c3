//! A network that leads to addresses of one family, and names that have both.
//!
//! ```text
//!   client 10.1.0.2 -- a wan == wan b, which is also the name server -- server 10.2.0.2
//! ```

use std::time::Duration;

use simplevpn_tests::lab::Lab;
use simplevpn_tests::lab::daemon::{Daemon, Keys, Peer, Vpn};
use simplevpn_tests::lab::dns::NameServer;

use crate::ike::{PROMPT, says, two_of_ours};
use crate::topology::Sites;

/// A name as long as there is one.
const NAME: &str = "vpn.example.net";

/// The sites with these addresses outside, and a name server at b's first one.
fn net(lab: &Lab, at_a: &str, at_b: &str, name_is: &str) -> (Sites, NameServer) {
    let sites = Sites::apart(lab);
    lab.link(sites.a.port("wan", at_a), sites.b.port("wan", at_b));
    let server = at_b.split('/').next().unwrap();
    sites.a.resolv_conf(&format!("nameserver {server}\n"));
    let names = sites.b.serves_name(server, NAME, name_is);
    (sites, names)
}

/// Both gateways at work; a calls b at `endpoint`.
fn start(sites: &Sites, endpoint: &str) -> (Daemon, Daemon) {
    let (of_a, of_b) = two_of_ours(sites);
    let of_a = of_a.called_at(endpoint);
    (sites.a.starts(&of_a), sites.b.starts(&of_b))
}

///  a fd00::1 == fd00::2 b, whose name has an IPv4 address as well; so it is behind DNS64, where the
///  IPv6 address is made of the other one
#[test]
fn ipv6_only() {
    for at_b in ["fd00::2", "64:ff9b::192.0.2.2"] {
        let lab = Lab::new();
        let (sites, _names) = net(
            &lab,
            "fd00::1/64 64:ff9b::1/96",
            "fd00::2/64 64:ff9b::c000:202/96",
            &format!("192.0.2.2 {at_b}"),
        );
        let (a, b) = start(&sites, NAME);
        let reached = sites.client.reaches_within("10.2.0.2", Duration::from_secs(5));
        assert!(reached, "{}\n{}\n{}", a.log(), a.show(), b.show());
        sites.client.assert_uses(&sites.server, "10.2.0.2");
        // It stays there when it is called again.
        drop(b);
        let of_b = std::fs::read_to_string(sites.b.dir().join("network")).unwrap();
        let b = sites.b.starts_text(&of_b);
        let reached = sites.client.reaches_within("10.2.0.2", Duration::from_secs(30));
        assert!(reached, "{}\n{}", a.show(), b.show());
    }
}

///  a 192.0.2.1 == 192.0.2.2 b, whose name has an IPv6 address as well
#[test]
fn ipv4_only() {
    let lab = Lab::new();
    let (sites, _names) = net(&lab, "192.0.2.1/24", "192.0.2.2/24", "2001:db8::2 192.0.2.2");
    let (a, _b) = start(&sites, NAME);
    assert!(sites.client.reaches_within("10.2.0.2", PROMPT), "{}\n{}", a.log(), a.show());
    sites.client.assert_uses(&sites.server, "10.2.0.2");
}

///  a 192.0.2.1 == b, which is called by an address of IPv6, or by a name that has no other: why it
///  is not reached is shown, and it is called as soon as there is a way
#[test]
fn no_way_at_all() {
    for (endpoint, shown) in [
        ("2001:db8::2", "no route to 2001:db8::2"),
        (NAME, "no address of vpn.example.net can be reached: no route to 2001:db8::2"),
    ] {
        let lab = Lab::new();
        let (sites, _names) = net(&lab, "192.0.2.1/24", "192.0.2.2/24", "2001:db8::2");
        let (a, _b) = start(&sites, endpoint);
        says(&a, shown);
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(a.log().matches(shown).count(), 1, "told once: {}", a.log());
        sites.b.run("ip addr add 2001:db8::2/64 dev wan nodad");
        sites.a.run("ip addr add 2001:db8::1/64 dev wan nodad");
        let reached = sites.client.reaches_within("10.2.0.2", Duration::from_secs(3));
        assert!(reached, "{}\n{}", a.log(), a.show());
        assert!(!a.show().contains("no route"), "{}", a.show());
    }
}

///  a == b, whose name cannot be resolved: that is shown
#[test]
fn a_name_that_is_none() {
    let lab = Lab::new();
    let (sites, _names) = net(&lab, "192.0.2.1/24", "192.0.2.2/24", "192.0.2.2");
    let (a, _b) = start(&sites, "vpm.example.net");
    says(&a, "cannot resolve vpm.example.net: there is no such name");
}

///  a fd00::1 == fd00::2 b with manual keys, whose name has an IPv4 address as well
#[test]
fn manual_keys() {
    let lab = Lab::new();
    let (sites, _names) = net(&lab, "fd00::1/64", "fd00::2/64", "192.0.2.2 fd00::2");
    let (at_a, at_b) = Keys::pair();
    let to_b = Peer::new("b", &at_a).at(NAME).allowed("10.2.0.0/24");
    let to_a = Peer::new("a", &at_b).allowed("10.1.0.0/24");
    let _b = sites.b.starts(&Vpn::new().peer(to_a));
    let a = sites.a.starts(&Vpn::new().peer(to_b));
    assert!(sites.client.reaches_within("10.2.0.2", PROMPT), "{}\n{}", a.log(), a.show());
    // Another uplink, which leads to the other address only.
    sites.a.run("ip addr flush dev wan");
    sites.b.run("ip addr add 192.0.2.2/24 dev wan");
    sites.a.run("ip addr add 192.0.2.1/24 dev wan");
    assert!(sites.client.reaches_within("10.2.0.2", PROMPT), "{}\n{}", a.log(), a.show());
}
