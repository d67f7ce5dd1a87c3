//! Options of the interface.

use super::*;

#[test]
fn interface_options() {
    check(&[
        (1, "config interface", "f:1: interface without a name; write config interface 'vpn0'"),
        (
            3,
            "list addresses '10.77.0.300/24'",
            "f:3: addresses '10.77.0.300/24' is not an IPv4 or IPv6 address or prefix; write it like '10.1.0.0/16' or 'fd00:1::/48'",
        ),
        (
            3,
            "list addresses '10.77.0.2/33'",
            "f:3: addresses '10.77.0.2/33' has a bad prefix length; write a number from 0 to 32",
        ),
        (
            3,
            "list addresses 'fd00::1/+64'",
            "f:3: addresses 'fd00::1/+64' has a bad prefix length; write a number from 0 to 128",
        ),
        (
            3,
            "list addresses '0.0.0.0/0'",
            "f:3: addresses '0.0.0.0/0' cannot be an interface's address; write a unicast address",
        ),
        (
            3,
            "list addresses 'auto'",
            "f:3: addresses 'auto' asks a peer, and none has an endpoint_host and keying 'ike'; write the address",
        ),
        (
            3,
            "option addresses '10.0.0.1/24 10.0.0.1/24'",
            "f:3: addresses '10.0.0.1/24' is listed twice; remove one",
        ),
        (
            4,
            "option mtu '500'",
            "f:4: mtu '500' is not an MTU; write 'auto' or a number from 576 to 65535",
        ),
        (
            4,
            "option mtu '65536'",
            "f:4: mtu '65536' is not an MTU; write 'auto' or a number from 576 to 65535",
        ),
        (
            4,
            "option mtu '1279'\nlist addresses 'fd00::1/64'",
            "f:4: mtu '1279' is not an MTU; write 'auto' or a number from 1280 to 65535, since it carries IPv6",
        ),
        (4, "option nat_port '500'", "f:4: port and nat_port are both 500; they have to differ"),
        (
            4,
            "option nat_port '0'",
            "f:4: nat_port '0' is not a port; write a number from 1 to 65535",
        ),
        (
            4,
            "option nat_port '65536'",
            "f:4: nat_port '65536' is not a port; write a number from 1 to 65535",
        ),
        (
            4,
            "option state_dir 'state'",
            "f:4: state_dir 'state' is not an absolute path; begin it with '/'",
        ),
        (
            4,
            "option fwmark '0'",
            "f:4: fwmark '0' is not a mark; write a number from 1 to 0xffffffff, or remove it and one is chosen",
        ),
        (
            4,
            "option fwmark '0x100/'",
            "f:4: fwmark '0x100/' has a mask without some of the mark's bits; write it like '0x100/0x100'",
        ),
        (
            4,
            "option fwmark '0x300/0x100'",
            "f:4: fwmark '0x300/0x100' has a mask without some of the mark's bits; write it like '0x300/0x300'",
        ),
        (
            4,
            "option tunlink 'a/b'",
            "f:4: tunlink 'a/b' is not an interface name; write at most 15 characters, no '/', ':' or space",
        ),
        (
            4,
            "list pool '10.77.0.1/24'",
            "f:4: pool '10.77.0.1/24' has bits set in its host part; the prefix is '10.77.0.0/24'",
        ),
        (
            4,
            "option private_key 'abc'",
            "f:4: private_key has 3 characters; a key has 44, as 'simplevpn genkey' prints it",
        ),
        (
            4,
            "option private_key_file 'abc'",
            "f:4: private_key_file 'abc' is not an absolute path; begin it with '/'",
        ),
        (
            4,
            "option private_key_file '/dev/null'",
            "f:4: private_key_file '/dev/null' is not a file; name the file that holds the key",
        ),
        (
            5,
            "option steering 'magic'",
            "f:5: steering 'magic' is not known; write one of 'auto', 'policy', 'route', 'offset', 'none'",
        ),
        (
            5,
            "option steering 'offset'",
            "f:5: steering 'offset' needs a peer with an offset; give a peer option offset or offset6, or write option steering 'auto'",
        ),
        (
            6,
            "option killswitch 'maybe'",
            "f:6: killswitch 'maybe' is not a boolean; write '1' or '0'",
        ),
        (6, "option disabled '2'", "f:6: disabled '2' is not a boolean; write '1' or '0'"),
        (
            6,
            "list killswitch '1'",
            "f:6: list killswitch: it takes one value; write option killswitch",
        ),
        (6, "option mtu '1400'", "f:6: mtu is already given on line 4; keep one of them"),
    ]);
}

#[test]
fn interface_names() {
    let renamed = |name: &str| good().replace("vpn0", name);
    assert_eq!(
        errors(&renamed("a234567890123456")),
        [
            "f:1: interface 'a234567890123456' is not an interface name; write at most 15 characters, no '/', ':' or space"
        ]
    );
    assert_eq!(
        errors(&renamed("all")),
        ["f:1: interface 'all': Linux keeps this name for itself; use another"]
    );
    assert_eq!(accepted(&renamed("a23456789012345")).interfaces[0].name, "a23456789012345");
}
