//! What a configuration may not say, and what the user is told instead.
//!
//! Each case changes one thing in a valid configuration: `GOOD` with one line replaced, or with
//! lines added to a section.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use simplevpn::config::{self, Diagnostic, Loaded};

const KEY_A: &str = "a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4";
const KEY_B: &str = "d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4";
const KEY_C: &str = "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324";
const KEY_D: &str = "4142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f6061626364";

fn peer(name: &str, prefix: &str, spi: u32, key_in: &str, key_out: &str) -> String {
    format!(
        "config simplevpn_vpn0 '{name}'\n\
         \toption endpoint_host '192.0.2.{spi}'\n\
         \tlist allowed_ips '{prefix}'\n\
         \toption keying 'manual'\n\
         \toption spi_in '0x1{spi:03}'\n\
         \toption spi_out '0x2{spi:03}'\n\
         \toption key_in '{key_in}'\n\
         \toption key_out '{key_out}'\n"
    )
}

/// Lines 1–6 the interface, 7–14 `office`, 15–22 `home`.
fn good() -> String {
    let interface = "config interface 'vpn0'\n\
                     \toption proto 'simplevpn'\n\
                     \tlist addresses '10.77.0.2/24'\n\
                     \toption mtu 'auto'\n\
                     \toption steering 'auto'\n\
                     \toption killswitch '1'\n";
    let office = peer("office", "10.1.0.0/16", 1, KEY_A, KEY_B);
    let home = peer("home", "10.2.0.0/16", 2, KEY_C, KEY_D);
    format!("{interface}{office}{home}")
}

/// `good()` with line number `line` replaced, from which later lines keep their numbers only if
/// the replacement is one line.
fn with(line: usize, replacement: &str) -> String {
    let mut lines: Vec<String> = good().lines().map(str::to_owned).collect();
    lines[line - 1] = replacement.to_owned();
    lines.join("\n")
}

fn errors(text: &str) -> Vec<String> {
    match config::parse("f", text) {
        Ok(loaded) => panic!("accepted: {loaded:?}\n{text}"),
        Err(errors) => errors.iter().map(Diagnostic::to_string).collect(),
    }
}

fn accepted(text: &str) -> Loaded {
    config::parse("f", text).unwrap_or_else(|errors| panic!("{errors:?}\n{text}"))
}

fn warnings(text: &str) -> Vec<String> {
    accepted(text).warnings.iter().map(Diagnostic::to_string).collect()
}

#[test]
fn the_configuration_that_the_cases_change_is_good() {
    assert_eq!(warnings(&good()), [""; 0]);
}

/// Line replaced, replacement, the one message expected.
type Case = (usize, &'static str, &'static str);

fn check(cases: &[Case]) {
    for (line, replacement, message) in cases {
        assert_eq!(errors(&with(*line, replacement)), [*message], "line {line}: {replacement}");
    }
}

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
            "f:3: addresses 'auto' needs keying 'ike', which asks the peer for an address; write the address",
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
            "list pool '10.77.0.0/24'",
            "f:4: pool needs keying 'ike', which hands its addresses out; remove it",
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
fn pool_prefixes_are_checked_too() {
    assert_eq!(
        errors(&with(4, "list pool '10.77.0.1/24'")),
        [
            "f:4: pool '10.77.0.1/24' has bits set in its host part; the prefix is '10.77.0.0/24'",
            "f:4: pool needs keying 'ike', which hands its addresses out; remove it",
        ]
    );
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
        (
            8,
            "option local_ips '10.5.0.0/16 10.6.0.0/16 10.7.0.0/16 10.8.0.0/16 10.9.0.0/16'",
            "f:8: local_ips has more than 4 prefixes; join some into larger ones",
        ),
    ]);
}

#[test]
fn overlapping_peers() {
    check(&[
        (
            17,
            "list allowed_ips '10.1.0.0/16'",
            "f:17: allowed_ips '10.1.0.0/16' overlaps '10.1.0.0/16' of peer 'office' on line 9; give one of them an offset or list other prefixes",
        ),
        (
            17,
            "list allowed_ips '10.1.2.0/24'",
            "f:17: allowed_ips '10.1.2.0/24' overlaps '10.1.0.0/16' of peer 'office' on line 9; give one of them an offset or list other prefixes",
        ),
        (
            17,
            "list allowed_ips '10.0.0.0/8'",
            "f:17: allowed_ips '10.0.0.0/8' overlaps '10.1.0.0/16' of peer 'office' on line 9; give one of them an offset or list other prefixes",
        ),
        (
            9,
            "option allowed_ips '10.1.0.0/16 10.2.9.9'",
            "f:17: allowed_ips '10.2.0.0/16' overlaps '10.2.9.9/32' of peer 'office' on line 9; give one of them an offset or list other prefixes",
        ),
        (
            17,
            "list allowed_ips '10.0.0.0/16'\noption offset '0.1.0.0'",
            "f:17: allowed_ips '10.0.0.0/16' (with its offset '10.1.0.0/16') overlaps '10.1.0.0/16' of peer 'office' on line 9; give one of them an offset or list other prefixes",
        ),
    ]);
    let both_everything =
        good().replace("'10.1.0.0/16'", "'0.0.0.0/0'").replace("'10.2.0.0/16'", "'0.0.0.0/0'");
    assert_eq!(
        errors(&both_everything),
        [
            "f:17: allowed_ips '0.0.0.0/0' overlaps '0.0.0.0/0' of peer 'office' on line 9; give one of them an offset or list other prefixes"
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

#[test]
fn keying() {
    check(&[
        (
            10,
            "option keying 'ike'",
            "f:10: keying 'ike' is not available yet; write option keying 'manual' with spi_in, spi_out, key_in and key_out",
        ),
        (
            10,
            "",
            "f:7: peer without keying, and its default 'ike' is not available yet; write option keying 'manual' with spi_in, spi_out, key_in and key_out",
        ),
        (
            10,
            "option keying 'static'",
            "f:10: keying 'static' is not known; write option keying 'manual' with spi_in, spi_out, key_in and key_out",
        ),
        (
            8,
            "option public_key 'x'",
            "f:8: public_key authenticates nobody with keying 'manual'; remove it",
        ),
        (
            8,
            "option preshared_key 'x'",
            "f:8: preshared_key authenticates nobody with keying 'manual'; remove it",
        ),
        (
            8,
            "option preshared_key_file '/x'",
            "f:8: preshared_key_file authenticates nobody with keying 'manual'; remove it",
        ),
        (8, "option ppk_id 'x'", "f:8: ppk_id protects nothing with keying 'manual'; remove it"),
        (
            8,
            "option ppk_required '1'",
            "f:8: ppk_required protects nothing with keying 'manual'; remove it",
        ),
        (8, "option local_id 'x'", "f:8: local_id is not sent with keying 'manual'; remove it"),
        (
            8,
            "option remote_id 'x'",
            "f:8: remote_id is not checked with keying 'manual'; remove it",
        ),
        (
            8,
            "option start 'auto'",
            "f:8: start has no effect with keying 'manual', whose SAs are always there; remove it",
        ),
    ]);
}

#[test]
fn manual_keys() {
    check(&[
        (
            8,
            "option cipher 'aes128'",
            "f:8: cipher 'aes128' is not known; write one of 'chacha20poly1305', 'aes128gcm16', 'aes256gcm16'",
        ),
        (8, "option esn 'perhaps'", "f:8: esn 'perhaps' is not a boolean; write '1' or '0'"),
        (
            8,
            "option replay_window '31'",
            "f:8: replay_window '31' is not a window; write a multiple of 32 from 32 to 65536, in packets",
        ),
        (
            8,
            "option replay_window '33'",
            "f:8: replay_window '33' is not a window; write a multiple of 32 from 32 to 65536, in packets",
        ),
        (
            8,
            "option replay_window '65568'",
            "f:8: replay_window '65568' is not a window; write a multiple of 32 from 32 to 65536, in packets",
        ),
        (
            11,
            "",
            "f:7: keying 'manual' without spi_in; add option spi_in: a number from 0x100 to 0xffffffff, the peer's spi_out",
        ),
        (
            12,
            "",
            "f:7: keying 'manual' without spi_out; add option spi_out: a number from 0x100 to 0xffffffff, the peer's spi_in",
        ),
        (
            13,
            "",
            "f:7: keying 'manual' without key_in; add option key_in: key and salt in hex digits, the peer's key_out",
        ),
        (
            14,
            "option key_out ''",
            "f:7: keying 'manual' without key_out; add option key_out: key and salt in hex digits, the peer's key_in",
        ),
        (
            11,
            "option spi_in '255'",
            "f:11: spi_in '255' is reserved; write a number from 0x100 to 0xffffffff",
        ),
        (
            11,
            "option spi_in '0'",
            "f:11: spi_in '0' is reserved; write a number from 0x100 to 0xffffffff",
        ),
        (
            12,
            "option spi_out '0xff'",
            "f:12: spi_out '0xff' is reserved; write a number from 0x100 to 0xffffffff",
        ),
        (
            12,
            "option spi_out '0x100000000'",
            "f:12: spi_out '0x100000000' is not an SPI; write a number from 0x100 to 0xffffffff",
        ),
        (
            12,
            "option spi_out '0x+100'",
            "f:12: spi_out '0x+100' is not an SPI; write a number from 0x100 to 0xffffffff",
        ),
        (
            19,
            "option spi_in '0x1001'",
            "f:19: spi_in '0x1001' is also on line 11; each SA needs its own",
        ),
        (
            13,
            "option key_in 'abcdefgh'",
            "f:13: key_in has a character that is not a hex digit; use 0-9 and a-f",
        ),
        (
            13,
            "option key_in 'abc'",
            "f:13: key_in has an odd number of hex digits; write two for each byte",
        ),
        (
            13,
            "option key_in 'abcd'",
            "f:13: key_in has 2 bytes; chacha20poly1305 needs 36: 32 of key and 4 of salt, 72 hex digits",
        ),
    ]);
}

#[test]
fn a_key_fits_its_cipher() {
    let all =
        |cipher: &str| good().replace("'manual'", &format!("'manual'\noption cipher '{cipher}'"));
    assert_eq!(warnings(&all("aes256gcm16")), [""; 0]);
    assert_eq!(
        errors(&all("aes128gcm16"))[0],
        "f:14: key_in has 36 bytes; aes128gcm16 needs 20: 16 of key and 4 of salt, 40 hex digits"
    );
}

#[test]
fn one_key_is_used_once() {
    let repeated = |key: &str| with(14, &format!("option key_out '{key}'"));
    let message = "f:14: key_out is the key of key_in on line 13; each SA and direction needs its own, or nonces repeat";
    assert_eq!(errors(&repeated(KEY_A)), [message]);
    assert_eq!(errors(&repeated(&KEY_A.to_uppercase())), [message]);
    let other_salt = format!("0x{}00000000", &KEY_A[..64]);
    assert_eq!(errors(&repeated(&other_salt)), [message]);
    assert_eq!(
        errors(&good().replace(KEY_D, KEY_B)),
        [
            "f:22: key_out is the key of key_out on line 14; each SA and direction needs its own, or nonces repeat"
        ]
    );
}

#[test]
fn keys_and_spis_are_compared_across_interfaces() {
    let second =
        good().replace("vpn0", "vpn1").replace("office", "office1").replace("home", "home1");
    let errors = errors(&format!("{}{second}", good()));
    assert_eq!(errors.len(), 6);
    assert_eq!(errors[0], "f:33: spi_in '0x1001' is also on line 11; each SA needs its own");
}

/// `good()` beside a LAN of netifd's, which begins on line 23.
fn with_lan(options: &[&str]) -> String {
    let lan = "config interface 'lan'\n\toption proto 'static'";
    format!("{}{lan}\n\t{}\n", good(), options.join("\n\t"))
}

#[test]
fn a_peer_may_not_cover_a_network_of_this_machine() {
    let covers = |peer: &str, lan: &str, line: u32| {
        format!(
            "f:9: allowed_ips '{peer}' covers '{lan}' of interface 'lan' on line {line}, which \
             could not be reached any more; give the peer an offset, or longer prefixes"
        )
    };
    let wide = with_lan(&["option ipaddr '10.1.3.1'", "option netmask '255.255.255.0'"]);
    assert_eq!(errors(&wide), [covers("10.1.0.0/16", "10.1.3.0/24", 25)]);
    let same = with_lan(&["list ipaddr '192.168.1.1/24'", "list ipaddr '10.1.0.1/16'"]);
    assert_eq!(errors(&same), [covers("10.1.0.0/16", "10.1.0.0/16", 26)]);
    let ipv6 = with_lan(&["option ip6addr 'fd01::1/64'"]);
    let ipv6 = ipv6.replace("10.1.0.0/16", "fd01::/48");
    assert_eq!(errors(&ipv6), [covers("fd01::/48", "fd01::/64", 25)]);

    for fine in [
        // Part of a network: the same-subnet case.
        "option ipaddr '10.1.0.1/15'",
        "option ipaddr '10.1.3.1'",
        "option ipaddr '10.1.3.1/24'\n\toption auto '0'",
        "option ipaddr '10.1.3.1/24'\n\toption disabled '1'",
        "option ipaddr 'nonsense/24'",
        "option ipaddr '127.0.0.1/8'",
    ] {
        accepted(&with_lan(&[fine]));
    }
    let lan = ["option ipaddr '10.1.3.1/24'"];
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
fn unknown_options() {
    check(&[
        (
            8,
            "option allowed_ip '10.0.0.0/8'",
            "f:8: unknown option 'allowed_ip'; did you mean allowed_ips?",
        ),
        (8, "option keyin 'secret'", "f:8: unknown option 'keyin'; did you mean key_in?"),
        (8, "option colour 'blue'", "f:8: unknown option 'colour'; remove it"),
    ]);
    assert_eq!(
        warnings(&with(6, "option kilswitch '1'")),
        ["f:6: unknown option 'kilswitch'; did you mean killswitch?"]
    );
    assert_eq!(
        warnings(&with(6, "option colour 'blue'")),
        ["f:6: unknown option 'colour'; ignored"]
    );
}

#[test]
fn options_of_other_programs_are_left_to_them() {
    for name in [
        "auto",
        "metric",
        "dns",
        "dns_search",
        "dns_metric",
        "peerdns",
        "defaultroute",
        "ip4table",
        "ip6table",
        "delegate",
        "force_link",
        "zone",
        "device",
        "ipv6",
        "ip6assign",
    ] {
        assert_eq!(warnings(&with(6, &format!("list {name} 'x'"))), [""; 0], "{name}");
    }
}

#[test]
fn sections() {
    let without_peers: String = good().lines().take(6).map(|line| format!("{line}\n")).collect();
    assert_eq!(
        errors(&without_peers),
        ["f:1: interface 'vpn0' has no peers; add config simplevpn_vpn0"]
    );
    assert_eq!(
        errors(&good().replace("'home'", "'office'")),
        ["f:15: second section 'office', the first is on line 7; rename one"]
    );
    assert_eq!(
        errors(
            &good()
                .replace("simplevpn_vpn0 'office'", "simplevpn_vpn0")
                .replace("'home'", "'peer1'")
        ),
        ["f:15: 'peer1' is also what the peer without a name on line 7 is called; rename one"]
    );
    assert_eq!(
        errors("config interface 'lan'\n\toption proto 'static'\n"),
        ["f: no interface of ours; write config interface 'vpn0' with option proto 'simplevpn'"]
    );
    assert_eq!(errors("config 'x"), ["f:1: single quote without its end; close it with '"]);
}

#[test]
fn peers_of_no_interface_are_warned_about() {
    let stray =
        |name: &str| good() + &peer("other", "10.3.0.0/16", 3, KEY_A, KEY_B).replace("vpn0", name);
    assert_eq!(
        warnings(&stray("vpn00")),
        [
            "f:23: peer of an interface 'vpn00' that is not here or not of proto 'simplevpn'; did you mean config simplevpn_vpn0?"
        ]
    );
    assert_eq!(
        warnings(&stray("elsewhere")),
        [
            "f:23: peer of an interface 'elsewhere' that is not here or not of proto 'simplevpn'; ignored"
        ]
    );
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

#[test]
fn what_is_disabled_is_not_looked_at() {
    let interface =
        good().replace("option mtu 'auto'", "option disabled '1'").replace("10.2.0.0", "10.1.0.0");
    assert_eq!(accepted(&interface).interfaces, []);
    let peer = with(8, "option disabled '1'\noption nonsense '1'").replace("10.2.0.0", "10.1.0.0");
    let names: Vec<_> =
        accepted(&peer).interfaces[0].peers.iter().map(|p| p.name.clone()).collect();
    assert_eq!(names, ["home"]);
    let all = with(8, "option disabled '1'")
        .replace("option endpoint_host '192.0.2.2'", "option disabled 'yes'");
    assert_eq!(warnings(&all), ["f:1: every peer of interface 'vpn0' is disabled"]);
}

#[test]
fn what_is_accepted_with_a_warning() {
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let table = [
        (
            4,
            format!("option private_key '{key}'"),
            "f:4: private_key is not used with keying 'manual'",
        ),
        (4, "option port '501'".to_owned(), "f:4: port is IKE's and not used with keying 'manual'"),
        (
            8,
            "option endpoint_host 'a.example'\noption endpoint_port '501'".to_owned(),
            "f:9: endpoint_port is IKE's and not used with keying 'manual'",
        ),
        (
            9,
            "list allowed_ips '10.1.0.0/16'\nlist local_ips 'fd00::/8'".to_owned(),
            "f:10: local_ips has no IPv4 prefix but allowed_ips has one: IPv4 packets will be dropped",
        ),
    ];
    for (line, replacement, message) in table {
        assert_eq!(warnings(&with(line, &replacement)), [message], "{replacement}");
    }
}

#[test]
fn every_error_of_a_file_is_reported_in_its_order() {
    let text = with(4, "option mtu '1'")
        .replace("'10.1.0.0/16'", "'10.1.2.3/16'")
        .replace(KEY_A, "00")
        .replace("0x2002", "7");
    let lines: Vec<_> = config::parse("f", &text).unwrap_err().iter().map(|e| e.line).collect();
    assert_eq!(lines, [4, 9, 13, 20]);
}

#[test]
fn a_flood_of_errors_is_cut() {
    let options: String = (0..50).map(|n| format!("option x{n} '1'\n")).collect();
    let errors = errors(&with(8, &options));
    assert_eq!(errors.len(), 21);
    assert_eq!(errors[20], "f: 30 more errors; correct these first");
}

#[test]
fn no_message_shows_a_key() {
    let secrets = [
        "private_key",
        "preshared_key",
        "key_in",
        "key_out",
        "spi_in",
        "cipher",
        "mtu",
        "offset",
        "endpoint_host",
        "allowed_ips",
        "addresses",
        "unknown",
    ];
    for secret in [KEY_C, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9x"] {
        for name in secrets {
            for line in [3, 4, 8, 13] {
                let text = with(line, &format!("option {name} '{secret}'"));
                let messages = match config::parse("f", &text) {
                    Ok(loaded) => loaded.warnings,
                    Err(errors) => errors,
                };
                let shown = messages.iter().any(|m| m.message.contains(&secret[..12]));
                assert!(!shown, "{name} on line {line}: {messages:?}");
            }
        }
    }
}

proptest::proptest! {
    #[test]
    fn a_damaged_configuration_never_panics(
        edits in proptest::collection::vec((0usize..2000, ".{0,12}|[0-9a-f/:. ']{0,12}", 0usize..20), 1..6)
    ) {
        let mut text = good();
        for (position, insert, remove) in edits {
            let floor = |at: usize| (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap();
            let (start, end) = (floor(position), floor(position + remove));
            text.replace_range(start..end, &insert);
        }
        if let Err(errors) = config::parse("f", &text) {
            proptest::prop_assert!(!errors.is_empty());
        }
    }
}
