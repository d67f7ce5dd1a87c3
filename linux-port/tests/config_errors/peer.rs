//! Options of peers, whatever their keys.

use super::*;

#[test]
fn peer_endpoints() {
    check(&[
        (
            8,
            "option endpoint_host '10.0.0.256'",
            "f:8: endpoint_host '10.0.0.256' is neither an address nor a host name; write it like '192.0.2.1', '2001:db8::1' or 'vpn.example.net'",
        ),
        (
            8,
            "option endpoint_host 'a..b'",
            "f:8: endpoint_host 'a..b' is neither an address nor a host name; write it like '192.0.2.1', '2001:db8::1' or 'vpn.example.net'",
        ),
        (
            8,
            "option endpoint_host 'vpn.example.net:500'",
            "f:8: endpoint_host 'vpn.example.net:500' has a port or brackets; write the address alone, and the port as endpoint_port or endpoint_nat_port",
        ),
        (
            8,
            "option endpoint_host '[2001:db8::1]'",
            "f:8: endpoint_host '[2001:db8::1]' has a port or brackets; write the address alone, and the port as endpoint_port or endpoint_nat_port",
        ),
        (
            8,
            "option endpoint_host '0.0.0.0'",
            "f:8: endpoint_host '0.0.0.0' cannot be a peer's address; write a unicast address",
        ),
        (
            8,
            "option endpoint_host 'ff02::1'",
            "f:8: endpoint_host 'ff02::1' cannot be a peer's address; write a unicast address",
        ),
        (
            8,
            "option endpoint_host 'fe80::1'",
            "f:8: endpoint_host 'fe80::1' is link-local and names no link; write a global or unique local address",
        ),
        (
            8,
            "option endpoint_port '500'",
            "f:8: endpoint_port without endpoint_host; add it, or remove endpoint_port",
        ),
        (
            8,
            "option endpoint_nat_port '4500'",
            "f:8: endpoint_nat_port without endpoint_host; add it, or remove endpoint_nat_port",
        ),
        (
            8,
            "option encap 'gre'",
            "f:8: encap 'gre' is not known; write one of 'auto', 'esp', 'udp'",
        ),
        (
            8,
            "option persistent_keepalive '65536'",
            "f:8: persistent_keepalive '65536' is not in range; write a number from 0 to 65535",
        ),
        (
            8,
            "option persistent_keepalive '-1'",
            "f:8: persistent_keepalive '-1' is not in range; write a number from 0 to 65535",
        ),
    ]);
}

#[test]
fn peer_prefixes() {
    check(&[
        (
            9,
            "",
            "f:7: peer without allowed_ips; list the prefixes behind it, or '0.0.0.0/0' and '::/0' for everything",
        ),
        (
            9,
            "list allowed_ips '10.1.2.3/16'",
            "f:9: allowed_ips '10.1.2.3/16' has bits set in its host part; the prefix is '10.1.0.0/16'",
        ),
        (
            9,
            "list allowed_ips 'fd00:1::5/48'",
            "f:9: allowed_ips 'fd00:1::5/48' has bits set in its host part; the prefix is 'fd00:1::/48'",
        ),
        (
            9,
            "list allowed_ips 'somewhere'",
            "f:9: allowed_ips 'somewhere' is not an IPv4 or IPv6 address or prefix; write it like '10.1.0.0/16' or 'fd00:1::/48'",
        ),
        (
            9,
            "option allowed_ips '10.1.0.0/16 10.1.0.0/16'",
            "f:9: allowed_ips '10.1.0.0/16' is listed twice; remove one",
        ),
        (
            9,
            "list allowed_ips ''\nlist allowed_ips '10.1.0.0/16'",
            "f:9: list allowed_ips without a value; remove the line",
        ),
        (
            9,
            "option allowed_ips '10.1.0.0/16'\nlist allowed_ips '10.3.0.0/16'",
            "f:10: allowed_ips is already given on line 9; write each value as a list line",
        ),
        (
            8,
            "list local_ips '192.168.1.1/24'",
            "f:8: local_ips '192.168.1.1/24' has bits set in its host part; the prefix is '192.168.1.0/24'",
        ),
    ]);
    let many: Vec<_> = (0..33).map(|n| format!("10.5.{n}.0/24")).collect();
    assert_eq!(
        errors(&with(8, &format!("option local_ips '{}'", many.join(" ")))),
        ["f:8: local_ips has more than 32 prefixes; join some into larger ones"]
    );
}

#[test]
fn prefixes_of_two_peers() {
    check(&[
        (
            17,
            "list allowed_ips '10.1.0.0/16'",
            "f:17: allowed_ips '10.1.0.0/16' is also '10.1.0.0/16' of peer 'office' on line 9; give one of them an offset or list other prefixes",
        ),
        (
            9,
            "option allowed_ips '10.1.0.0/16 10.2.0.0/16'",
            "f:17: allowed_ips '10.2.0.0/16' is also '10.2.0.0/16' of peer 'office' on line 9; give one of them an offset or list other prefixes",
        ),
        (
            17,
            "list allowed_ips '10.0.0.0/16'\noption offset '0.1.0.0'",
            "f:17: allowed_ips '10.0.0.0/16' (with its offset '10.1.0.0/16') is also '10.1.0.0/16' of peer 'office' on line 9; give one of them an offset or list other prefixes",
        ),
    ]);
    let both_everything =
        good().replace("'10.1.0.0/16'", "'0.0.0.0/0'").replace("'10.2.0.0/16'", "'0.0.0.0/0'");
    assert_eq!(
        errors(&both_everything),
        [
            "f:17: allowed_ips '0.0.0.0/0' is also '0.0.0.0/0' of peer 'office' on line 9; give one of them an offset or list other prefixes"
        ]
    );
}

#[test]
fn prefixes_that_may_coexist() {
    for (line, replacement) in [
        (17, "list allowed_ips '0.0.0.0/0'\nlist allowed_ips '::/0'"),
        (17, "list allowed_ips '10.1.0.0/16'\noption offset '0.100.0.0'"),
        (17, "option allowed_ips '10.2.0.0/16 10.2.3.0/24'"),
        (17, "list allowed_ips '10.0.0.0/16'"),
        // The longest prefix wins.
        (17, "list allowed_ips '10.1.2.0/24'"),
        (17, "list allowed_ips '10.0.0.0/8'"),
        (9, "option allowed_ips '10.1.0.0/16 10.2.9.9'"),
        (17, "list allowed_ips '10.0.0.0/8'\noption offset '1.0.0.0'"),
        (17, "list allowed_ips 'fd00::/8'"),
    ] {
        assert_eq!(warnings(&with(line, replacement)), [""; 0], "{replacement}");
    }
}

#[test]
fn offsets() {
    check(&[
        (
            8,
            "option offset '100'",
            "f:8: offset '100' is not an IPv4 offset; write it like '0.0.100.0'",
        ),
        (
            8,
            "option offset6 '0.0.1.0'",
            "f:8: offset6 '0.0.1.0' is not an IPv6 offset; write it like '0:0:0:100::'",
        ),
        (
            8,
            "option offset '0.0.1.0'",
            "f:8: offset '0.0.1.0' has bits in the host part of allowed_ips '10.1.0.0/16'; use a multiple of '0.1.0.0'",
        ),
        (
            8,
            "option offset '245.255.0.0'",
            "f:8: offset '245.255.0.0' moves allowed_ips '10.1.0.0/16' past the end of the address space; use a smaller one",
        ),
        (
            8,
            "option offset '214.0.0.0'",
            "f:8: offset '214.0.0.0' moves allowed_ips '10.1.0.0/16' to '224.1.0.0/16', which no host can have; use another one",
        ),
        (
            8,
            "option offset '117.0.0.0'",
            "f:8: offset '117.0.0.0' moves allowed_ips '10.1.0.0/16' to '127.1.0.0/16', which no host can have; use another one",
        ),
        (
            8,
            "option offset6 '0:0:1::'",
            "f:8: offset6 '0:0:1::' moves nothing: allowed_ips has no IPv6 prefix; remove it",
        ),
        (
            9,
            "list allowed_ips 'fd00::/48'\noption offset '0.0.1.0'",
            "f:10: offset '0.0.1.0' moves nothing: allowed_ips has no IPv4 prefix; remove it",
        ),
        (
            9,
            "list allowed_ips 'fd00::/48'\noption offset6 '0:0:0:1::'",
            "f:10: offset6 '0:0:0:1::' has bits in the host part of allowed_ips 'fd00::/48'; use a multiple of '0:0:1::'",
        ),
        (
            9,
            "list allowed_ips 'fd00::/48'\noption offset6 'ff00::'",
            "f:10: offset6 'ff00::' moves allowed_ips 'fd00::/48' past the end of the address space; use a smaller one",
        ),
        (
            9,
            "list allowed_ips '0.0.0.0/0'\noption offset '0.0.1.0'",
            "f:10: offset '0.0.1.0' cannot move allowed_ips '0.0.0.0/0', which is every address; list smaller prefixes",
        ),
    ]);
}

/// `good()` beside a LAN of netifd's, which begins on line 23.
fn with_lan(options: &[&str]) -> String {
    let lan = "config interface 'lan'\n\toption proto 'static'";
    format!("{}{lan}\n\t{}\n", good(), options.join("\n\t"))
}

#[test]
fn a_peer_may_not_be_a_network_of_this_machine() {
    let same = |peer: &str, line: u32| {
        format!(
            "f:9: allowed_ips '{peer}' is the network of interface 'lan' on line {line}, which \
             could not be reached any more; give the peer an offset, or a wider prefix or longer \
             ones"
        )
    };
    let masked = with_lan(&["option ipaddr '10.1.3.1'", "option netmask '255.255.0.0'"]);
    assert_eq!(errors(&masked), [same("10.1.0.0/16", 25)]);
    let second = with_lan(&["list ipaddr '192.168.1.1/24'", "list ipaddr '10.1.0.1/16'"]);
    assert_eq!(errors(&second), [same("10.1.0.0/16", 26)]);
    let ipv6 = with_lan(&["option ip6addr 'fd01::1/64'"]);
    assert_eq!(errors(&ipv6.replace("10.1.0.0/16", "fd01::/64")), [same("fd01::/64", 25)]);
    accepted(&ipv6.replace("10.1.0.0/16", "fd01::/48"));

    for fine in [
        // Part of a network: the same-subnet case.
        "option ipaddr '10.1.0.1/15'",
        // Around a network, which keeps its own way.
        "option ipaddr '10.1.3.1/24'",
        "option ipaddr '10.1.3.1'",
        "option ipaddr '10.1.3.1/24'\n\toption auto '0'",
        "option ipaddr '10.1.3.1/24'\n\toption disabled '1'",
        "option ipaddr 'nonsense/24'",
        "option ipaddr '127.0.0.1/8'",
    ] {
        accepted(&with_lan(&[fine]));
    }
    let lan = ["option ipaddr '10.1.3.1/16'"];
    let kept_out =
        with_lan(&lan).replace("'10.1.0.0/16'\n", "'10.1.0.0/16'\n\toption offset '0.9.0.0'\n");
    accepted(&kept_out);
    let not_led = with_lan(&lan)
        .replace("'10.1.0.0/16'\n", "'10.1.0.0/16'\n\toption route_allowed_ips '0'\n");
    accepted(&not_led);
    accepted(&with_lan(&lan).replace("steering 'auto'", "steering 'none'"));
    accepted(&with_lan(&lan).replace("10.1.0.0/16", "0.0.0.0/0"));
}

#[test]
fn endpoints_inside_the_tunnel_under_steering_route() {
    let inside = |prefix: &str| {
        with(5, "option steering 'route'").replace("'10.1.0.0/16'", &format!("'{prefix}'"))
    };
    assert_eq!(
        errors(&inside("192.0.2.0/24")),
        [
            "f:8: endpoint of peer 'office' lies inside '192.0.2.0/24', and steering 'route' would lead the tunnel's own packets into the tunnel; write option steering 'policy'",
            "f:16: endpoint of peer 'home' lies inside '192.0.2.0/24', and steering 'route' would lead the tunnel's own packets into the tunnel; write option steering 'policy'",
        ]
    );
    let named =
        inside("0.0.0.0/0").replace("192.0.2.1", "vpn.example.net").replace("192.0.2.2", "fd00::2");
    assert_eq!(
        errors(&named),
        [
            "f:8: endpoint of peer 'office' lies inside '0.0.0.0/0', and steering 'route' would lead the tunnel's own packets into the tunnel; write option steering 'policy'"
        ]
    );
    let unrouted =
        inside("192.0.2.0/24").replace("endpoint_host '192.0.2.1'", "route_allowed_ips '0'");
    assert_eq!(warnings(&unrouted), [""; 0]);
}
