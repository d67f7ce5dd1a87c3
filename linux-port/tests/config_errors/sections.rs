//! Sections and options as such, and what is said about them.

use super::*;

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
            "f:4: private_key is not used: no peer has a public_key",
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
