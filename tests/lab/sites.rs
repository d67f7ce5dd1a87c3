//! The topology that most labs share.

use super::daemon::{Daemon, Keys, Peer, Vpn};
use super::{Host, Lab};

/// Two sites, each with a gateway and one machine behind it:
///
/// ```text
///  client 10.1.0.2 -- lan a wan 192.0.2.1 == 192.0.2.2 wan b lan -- 10.2.0.2 server
///         fd01::2               fd00::1      fd00::2                fd02::2
/// ```
pub struct Sites {
    /// Behind gateway a.
    pub client: Host,
    /// The gateway of site a.
    pub a: Host,
    /// The gateway of site b.
    pub b: Host,
    /// Behind gateway b.
    pub server: Host,
}

/// Everything at site a, and the tunnel address of its gateway.
pub const SITE_A: &str = "10.1.0.0/24 fd01::/64 10.77.0.1/32 fd77::1/128";
/// Everything at site b, and the tunnel address of its gateway.
pub const SITE_B: &str = "10.2.0.0/24 fd02::/64 10.77.0.2/32 fd77::2/128";

impl Sites {
    /// The machines and their wires; both gateways forward, and know no way to each other's site.
    pub fn new(lab: &Lab) -> Sites {
        let sites = Sites::apart(lab);
        lab.link(
            sites.a.port("wan", "192.0.2.1/24 fd00::1/64"),
            sites.b.port("wan", "192.0.2.2/24 fd00::2/64"),
        );
        sites
    }

    /// The same with a home router in front of a, and nothing but IPv4 outside:
    ///
    /// ```text
    ///  client -- a wan 10.9.0.2 -- 10.9.0.1 nat 192.0.2.1 == 192.0.2.2 wan b -- server
    /// ```
    pub fn behind_nat(lab: &Lab) -> (Sites, Host) {
        let sites = Sites::apart(lab);
        let nat = home_router(lab, &sites.a, 9);
        lab.link(nat.port("outside", "192.0.2.1/24"), sites.b.port("wan", "192.0.2.2/24"));
        (sites, nat)
    }

    /// The same with a home router in front of each, of which b's sends what comes for IKE and
    /// encapsulated ESP to b:
    ///
    /// ```text
    ///  a 10.9.0.2 -- 10.9.0.1 nat 192.0.2.1 == 192.0.2.2 nat 10.8.0.1 -- 10.8.0.2 b
    /// ```
    pub fn behind_nats(lab: &Lab) -> (Sites, [Host; 2]) {
        let sites = Sites::apart(lab);
        let nats = [home_router(lab, &sites.a, 9), home_router(lab, &sites.b, 8)];
        let [nat_a, nat_b] = &nats;
        lab.link(nat_a.port("outside", "192.0.2.1/24"), nat_b.port("outside", "192.0.2.2/24"));
        nat_b.feed(
            "nft -f -",
            "add chain inet lab pre { type nat hook prerouting priority -100; }\n\
             add rule inet lab pre iifname outside udp dport { 500, 4500 } dnat ip to 10.8.0.2\n",
        );
        (sites, nats)
    }

    /// The same, with no cable between the gateways.
    pub fn apart(lab: &Lab) -> Sites {
        let [client, a, b, server] = lab.hosts(["client", "a", "b", "server"]);
        lab.link(
            client.port("eth0", "10.1.0.2/24 fd01::2/64"),
            a.port("lan", "10.1.0.1/24 fd01::1/64"),
        );
        lab.link(
            b.port("lan", "10.2.0.1/24 fd02::1/64"),
            server.port("eth0", "10.2.0.2/24 fd02::2/64"),
        );
        client.default_via("10.1.0.1 fd01::1");
        server.default_via("10.2.0.1 fd02::1");
        a.forwards();
        b.forwards();
        Sites { client, a, b, server }
    }

    /// Configurations of both gateways, which reach each other over IPv4, or over IPv6.
    pub fn configurations(&self, keys: (Keys, Keys), ipv6: bool, encap: &str) -> (Vpn, Vpn) {
        let (at_a, at_b) = if ipv6 { ("fd00::1", "fd00::2") } else { ("192.0.2.1", "192.0.2.2") };
        let to_b = Peer::new("b", &keys.0).at(at_b).allowed(SITE_B).option("encap", encap);
        let to_a = Peer::new("a", &keys.1).at(at_a).allowed(SITE_A).option("encap", encap);
        let a = Vpn::new().address("10.77.0.1/32").address("fd77::1/128").peer(to_b);
        let b = Vpn::new().address("10.77.0.2/32").address("fd77::2/128").peer(to_a);
        (a, b)
    }

    /// Starts both gateways over IPv4.
    pub fn tunnel(&self) -> (Daemon, Daemon) {
        let (a, b) = self.configurations(Keys::pair(), false, "auto");
        (self.a.starts(&a), self.b.starts(&b))
    }
}

/// A router with 10.n.0.1 for `gateway`, which gets 10.n.0.2, and address translation `outside`. As
/// a busy one, it translates port numbers, too.
fn home_router(lab: &Lab, gateway: &Host, n: u8) -> Host {
    let nat = lab.host(&format!("nat{n}"));
    lab.link(
        gateway.port("wan", &format!("10.{n}.0.2/24")),
        nat.port("inside", &format!("10.{n}.0.1/24")),
    );
    gateway.default_via(&format!("10.{n}.0.1"));
    nat.forwards();
    translate_to(&nat, "40000-50000");
    nat
}

/// Lets a router forget what it translated, and take ports of this range from now on.
pub fn translate_to(nat: &Host, ports: &str) {
    let _ = nat.attempt("nft delete chain inet lab post");
    nat.masquerades("outside");
    nat.feed(
        "nft -f -",
        &format!(
            "insert rule inet lab post oifname outside udp sport {{ 500, 4500 }} \
             masquerade to :{ports}\n"
        ),
    );
}
