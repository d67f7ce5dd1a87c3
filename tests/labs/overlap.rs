//! Overlapping subnets: two sites that both chose 192.168.1.0/24 see each other as
//! 192.168.101.0/24.

use simplevpn_tests::lab::Lab;
use simplevpn_tests::lab::daemon::{Keys, Peer, Vpn};

use crate::topology::assert_secret;

///  client 192.168.1.2 -- a 192.0.2.1 ==ESP== 192.0.2.2 b -- 192.168.1.3 server
///         fd01::2                                           fd01::3
#[test]
fn both_sites_are_192_168_1_0() {
    let lab = Lab::new();
    let [client, neighbour, a, b, server] = lab.hosts(["client", "neighbour", "a", "b", "server"]);
    lab.switch([
        client.port("eth0", "192.168.1.2/24 fd01::2/64"),
        // The same address as the server at the other site.
        neighbour.port("eth0", "192.168.1.3/24 fd01::3/64"),
        a.port("lan", "192.168.1.1/24 fd01::1/64"),
    ]);
    lab.link(a.port("wan", "192.0.2.1/24"), b.port("wan", "192.0.2.2/24"));
    lab.link(
        b.port("lan", "192.168.1.1/24 fd01::1/64"),
        server.port("eth0", "192.168.1.3/24 fd01::3/64"),
    );
    client.default_via("192.168.1.1 fd01::1");
    server.default_via("192.168.1.1 fd01::1");
    a.forwards();
    b.forwards();
    let (at_a, at_b) = Keys::pair();
    let other_site = |name: &str, endpoint: &str, keys: &Keys| {
        Peer::new(name, keys)
            .at(endpoint)
            .allowed("192.168.1.0/24 fd01::/64")
            .option("offset", "0.0.100.0")
            .option("offset6", "0:100::")
    };
    let _a = a.starts(&Vpn::new().peer(other_site("b", "192.0.2.2", &at_a)));
    let _b = b.starts(&Vpn::new().peer(other_site("a", "192.0.2.1", &at_b)));

    let wire = a.capture("wan");
    client.assert_uses(&server, "192.168.101.3");
    client.assert_uses(&server, "fd01:100::3");
    server.assert_uses(&client, "192.168.101.2");
    server.assert_uses(&client, "fd01:100::2");
    assert_secret(&wire.finish());
    // What an error quotes is understood: traceroute's and connect()'s bread and butter.
    let refused = client.within(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(std::time::Duration::from_secs(2)))?;
        socket.connect("192.168.101.3:9")?;
        socket.send(b"is anybody there?")?;
        socket.recv(&mut [0; 10])
    });
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    // The real prefix is still the own LAN.
    client.assert_uses(&neighbour, "192.168.1.3");
}
