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
        let [client, a, b, server] = lab.hosts(["client", "a", "b", "server"]);
        lab.link(
            client.port("eth0", "10.1.0.2/24 fd01::2/64"),
            a.port("lan", "10.1.0.1/24 fd01::1/64"),
        );
        lab.link(
            a.port("wan", "192.0.2.1/24 fd00::1/64"),
            b.port("wan", "192.0.2.2/24 fd00::2/64"),
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
