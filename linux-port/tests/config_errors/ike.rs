//! `keying 'ike'`, which is the default.

use super::*;

const PRIVATE: &str = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
const OWN: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
const OFFICE: &str = "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=";
const PHONE: &str = "/FHNjmIYoaONpH7QAjDwWAgW7RO6MwOsXeuRFUiQgCU=";
const SECRET: &str = "8l7HAG6pdgyC0ecvMKdaEmCCF3vDTUMVYfQoHqOBKHM=";

/// Lines 1–3 the interface, 4–7 `office`, 8–10 `phone`, which only calls.
fn good() -> String {
    format!(
        "config interface 'vpn0'\n\
         \toption proto 'simplevpn'\n\
         \toption private_key '{PRIVATE}'\n\
         config simplevpn_vpn0 'office'\n\
         \toption public_key '{OFFICE}'\n\
         \toption endpoint_host '192.0.2.1'\n\
         \tlist allowed_ips '10.1.0.0/16'\n\
         config simplevpn_vpn0 'phone'\n\
         \toption public_key '{PHONE}'\n\
         \tlist allowed_ips '10.2.0.0/16'\n"
    )
}

/// `good()` with some lines replaced.
fn with(replacements: &[(usize, &str)]) -> String {
    let mut lines: Vec<String> = good().lines().map(str::to_owned).collect();
    for (line, replacement) in replacements {
        lines[line - 1] = (*replacement).to_owned();
    }
    lines.join("\n")
}

/// `good()` with an option of the phone replaced by others.
fn phone(line: usize, options: &str) -> String {
    with(&[(line, options)])
}

fn psk(value: &str) -> String {
    format!("option remote_id 'phone'\noption preshared_key '{value}'")
}

#[test]
fn the_configuration_that_the_cases_change_is_good() {
    assert_eq!(warnings(&good()), [""; 0]);
}

#[test]
fn public_keys() {
    let not_a_point = "option public_key 'AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='";
    let weak = "option public_key 'AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='";
    let no_key = "is no public key; copy it as 'simplevpn pubkey' prints it at the peer";
    for (option, message) in [
        (
            "option public_key 'abc'".to_owned(),
            "f:9: public_key 'abc' has 3 characters; a key has 44, as 'simplevpn pubkey' prints it"
                .to_owned(),
        ),
        (not_a_point.to_owned(), format!("f:9: public_key (of 44 characters) {no_key}")),
        (weak.to_owned(), format!("f:9: public_key (of 44 characters) {no_key}")),
        (
            format!("option public_key '{OWN}'"),
            "f:9: public_key (of 44 characters) is this interface's own; write what 'simplevpn \
             pubkey' prints at the peer"
                .to_owned(),
        ),
        (
            format!("option public_key '{OFFICE}'"),
            "f:9: recognised by the same public_key or remote_id as the peer on line 5; give each \
             peer its own"
                .to_owned(),
        ),
        (
            String::new(),
            "f:8: peer without public_key; add what 'simplevpn pubkey' prints at the peer, or a \
             preshared_key that both have"
                .to_owned(),
        ),
    ] {
        assert_eq!(errors(&phone(9, &option)), [message], "{option}");
    }
}

#[test]
fn a_public_key_needs_a_private_key() {
    let message = "public_key, but the interface has no private_key for the peer to know us by; \
                   add what 'simplevpn genkey' prints to it";
    assert_eq!(errors(&with(&[(3, "")])), [format!("f:5: {message}"), format!("f:9: {message}")]);
    // One complaint about one mistake.
    assert_eq!(errors(&with(&[(3, "option private_key 'abc'")])).len(), 1);
}

#[test]
fn preshared_keys_that_nobody_guesses() {
    for secret in [
        SECRET,
        &format!("0s{SECRET}"),
        "0x8f3c1d7705aa42e96b10fd2283c7915e0d6e4b3ac8f15297a4603be1dc7f1890",
        // Texts: as clouds make them, as 'simplevpn genpsk --text' does, and 24 characters.
        "uQ3_x.Rt7PzK2mWv9cLd4Nf6Hb8Jg5Ys",
        "text:k7m2p.9xq4z.h3vtb.w8c5n.r2d6j.yf4sg.e9u7a",
        "text:uQ3_x.Rt7PzK2mWv9cLd4Nf6",
        &format!("text:{SECRET}"),
    ] {
        assert_eq!(warnings(&phone(9, &psk(secret))), [""; 0], "{secret}");
    }
    let guessable = "f:10: preshared_key can be guessed; write what 'simplevpn genpsk' prints, at \
                     both ends, or accept the risk with option preshared_key_weak '1'";
    for secret in [
        "secret",
        "correct horse battery staple, correct horse battery staple",
        "text:uQ3_x.Rt7PzK2mWv9cLd4Nf",
        "text:uQ3uQ3uQ3uQ3uQ3uQ3uQ3uQ3uQ3uQ3",
        "text:correct horse battery staple, correct horse battery staple",
        "0s8l7HAG6pdgyC0ecvMKdaEg==",
        "0x8f3c1d7705aa42e96b10fd2283c7915e",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        // 32 letters in base64.
        "c3dvcmRmaXNoIGlzIHRoZSBzZWNyZXQgb2YgdGhlbSE=",
    ] {
        assert_eq!(errors(&phone(9, &psk(secret))), [guessable], "{secret}");
        let accepted = format!("{}\noption preshared_key_weak '1'", psk(secret));
        assert_eq!(warnings(&phone(9, &accepted)), [""; 0], "{secret}");
    }
    for (secret, message) in [
        ("0sAAA", "has no base64 after '0s'; write '0s' before what it is in base64"),
        ("0s", "is empty; write what 'simplevpn genpsk' prints"),
        ("text:", "is empty; write what 'simplevpn genpsk' prints"),
        (
            &SECRET[..43],
            "is almost what 'simplevpn genpsk' prints; copy all of it, or write 'text:' before it \
             if these characters are the key",
        ),
        ("0xabc", "has an odd number of hex digits; write two for each byte"),
        ("0xgg", "has a character that is not a hex digit; use 0-9 and a-f"),
    ] {
        let message = format!("f:10: preshared_key {message}");
        assert_eq!(errors(&phone(9, &psk(secret))), [message], "{secret}");
    }
}

#[test]
fn options_of_keys_go_together() {
    let no_secret = "needs preshared_key, which it is about; add it, or remove this";
    let no_public = "needs public_key beside preshared_key, which authenticates without; remove it";
    for name in ["preshared_key_weak", "ppk_id", "ppk_required"] {
        let option = format!("list allowed_ips '10.2.0.0/16'\noption {name} '1'");
        assert_eq!(errors(&phone(10, &option)), [format!("f:11: {name} {no_secret}")]);
    }
    for name in ["ppk_id", "ppk_required"] {
        let options = format!("{}\noption {name} '1'", psk(SECRET));
        assert_eq!(errors(&phone(9, &options)), [format!("f:11: {name} {no_public}")]);
    }
    let twice = format!("{}\noption preshared_key_file '/x'", psk(SECRET));
    assert_eq!(
        errors(&phone(9, &twice)),
        ["f:11: preshared_key_file beside preshared_key; keep one of them"]
    );
    let twice = format!("option private_key '{PRIVATE}'\noption private_key_file '/x'");
    assert_eq!(
        errors(&with(&[(3, &twice)])),
        ["f:4: private_key_file beside private_key; keep one of them"]
    );
    for (name, value) in [
        ("cipher", "chacha20poly1305"),
        ("spi_in", "0x1001"),
        ("spi_out", "0x2001"),
        ("key_in", KEY_A),
        ("key_out", KEY_B),
        ("esn", "1"),
        ("replay_window", "2048"),
    ] {
        let option = format!("list allowed_ips '10.2.0.0/16'\noption {name} '{value}'");
        assert_eq!(
            errors(&phone(10, &option)),
            [format!("f:11: {name} needs option keying 'manual'; add it, or remove this")]
        );
    }
}

#[test]
fn identities() {
    for (option, message) in [
        ("local_id", "'%any' would fit several peers; write the one identity that this peer has"),
        ("remote_id", "'%any' would fit several peers; write the one identity that this peer has"),
    ] {
        let text = phone(10, &format!("list allowed_ips '10.2.0.0/16'\noption {option} '%any'"));
        assert_eq!(errors(&text), [format!("f:11: {option} {message}")]);
    }
    let anonymous = format!("option preshared_key '{SECRET}'");
    assert_eq!(
        errors(&phone(9, &anonymous)),
        [
            "f:8: peer without public_key, endpoint_host and remote_id; add remote_id, by which it is recognised"
        ]
    );
    // It is recognised by its address.
    assert_eq!(warnings(&with(&[(5, &anonymous)])), [""; 0]);
    let twins = with(&[(5, &psk(SECRET)), (9, &psk(SECRET))]);
    assert_eq!(
        errors(&twins),
        [
            "f:10: recognised by the same public_key or remote_id as the peer on line 5; give each peer its own"
        ]
    );
}

#[test]
fn who_calls() {
    let start = |line: usize, value: &str| {
        with(&[(line, &format!("list allowed_ips '10.{}.0.0/16'\noption start '{value}'", line))])
    };
    assert_eq!(
        errors(&start(7, "soon")),
        ["f:8: start 'soon' is not known; write one of 'auto', 'traffic', 'none'"]
    );
    for value in ["auto", "traffic"] {
        assert_eq!(
            errors(&start(10, value)),
            ["f:11: start needs endpoint_host, where the peer is called; add it, or remove this"]
        );
    }
    assert_eq!(warnings(&start(10, "none")), [""; 0]);
}

#[test]
fn prefixes_fit_one_message() {
    let many = |count: u32| {
        let list = (0..count).map(|n| format!("list allowed_ips '10.9.{n}.0/24'\n"));
        phone(10, &list.collect::<String>())
    };
    assert_eq!(warnings(&many(32)), [""; 0]);
    assert_eq!(
        errors(&many(33)),
        [
            "f:42: allowed_ips has more than 32 prefixes, which one message of IKE cannot hold; join some into larger ones"
        ]
    );
    let both = |ours: u32, theirs: u32, prefix: &dyn Fn(u32) -> String| {
        let list = |name: &str, from: u32, count: u32| -> String {
            (from..from + count).map(|n| format!("list {name} '{}'\n", prefix(n))).collect()
        };
        phone(10, &(list("local_ips", 100, ours) + &list("allowed_ips", 0, theirs)))
    };
    let [v4, v6]: [&dyn Fn(u32) -> String; 2] =
        [&|n| format!("10.9.{n}.0/24"), &|n| format!("fd09:{n}::/32")];
    assert_eq!(warnings(&both(32, 32, v4)), [""; 0]);
    assert_eq!(warnings(&both(5, 31, v6)), [""; 0]);
    assert_eq!(
        errors(&both(6, 31, v6)),
        [
            "f:16: allowed_ips and local_ips have more than 36 IPv6 prefixes together, which one message of IKE cannot hold; join some into larger ones"
        ]
    );
}

#[test]
fn name_servers_for_those_who_get_an_address() {
    let pool = |dns: &str| {
        let key = format!("option private_key '{PRIVATE}'\nlist pool '10.77.0.0/24'\n{dns}");
        with(&[(3, &key), (10, "")])
    };
    for dns in ["list dns '10.77.0.1'\nlist dns 'fd77::1'", "option dns '10.77.0.1 fd77::1'"] {
        let loaded = accepted(&pool(dns));
        assert_eq!(loaded.warnings, []);
        let servers: [core::net::IpAddr; 2] =
            ["10.77.0.1".parse().unwrap(), "fd77::1".parse().unwrap()];
        assert_eq!(loaded.interfaces[0].name_servers, servers, "{dns}");
    }
    for wrong in ["10.77.0.0/24", "dns.example.net", "127.0.0.1", "0.0.0.0", "::1", "ff02::1"] {
        let message = format!(
            "f:5: dns '{wrong}' is not the address of a name server; beside pool it is given to \
             peers: write it like '10.77.0.1' or 'fd77::1'"
        );
        assert_eq!(errors(&pool(&format!("list dns '{wrong}'"))), [message]);
    }
    let five = "option dns '10.77.0.1 10.77.0.2 10.77.0.3 10.77.0.4 10.77.0.5'";
    assert_eq!(errors(&pool(five)), ["f:5: dns lists more than 4 name servers; remove some"]);
    // Without a pool it is netifd's, whatever it says.
    let loaded = accepted(&with(&[(3, &format!("option private_key '{PRIVATE}'\nlist dns 'x'"))]));
    assert!(loaded.warnings.is_empty() && loaded.interfaces[0].name_servers.is_empty());
}

#[test]
fn pools() {
    let without = "f:8: peer without allowed_ips; list the prefixes behind it, or '0.0.0.0/0' and \
                   '::/0' for everything";
    assert_eq!(errors(&phone(10, "")), [without]);
    let pool = |pool: &str| {
        let key = format!("option private_key '{PRIVATE}'\n{pool}");
        with(&[(3, &key), (10, "")])
    };
    assert_eq!(warnings(&pool("list pool '10.77.0.0/24'")), [""; 0]);
    // Inside a prefix of another peer, which is the wider one; one that is the pool takes it all.
    assert_eq!(warnings(&pool("list pool '10.1.77.0/24'")), [""; 0]);
    assert_eq!(
        errors(&pool("list pool '10.1.0.0/16'")),
        ["f:4: peer 'phone': the pool has no address left for it; list another"]
    );
    // Network and broadcast address, and our own two.
    let small = "list addresses '10.77.0.1/24'\nlist addresses '10.77.0.2/24'\nlist pool \
                 '10.77.0.0/30'";
    assert_eq!(
        errors(&pool(small)),
        ["f:6: peer 'phone': the pool has no address left for it; list another"]
    );
    let manual = good() + &super::peer("home", "10.3.0.0/16", 1, KEY_A, KEY_B);
    let manual = manual.replace("\tlist allowed_ips '10.3.0.0/16'\n", "");
    let manual = manual.replace("'simplevpn'\n", "'simplevpn'\nlist pool '10.77.0.0/24'\n");
    assert_eq!(errors(&manual), [without.replace("f:8", "f:12")]);
}

#[test]
fn addresses_that_a_peer_gives() {
    let asking = |line6: &str| {
        let key = format!("option private_key '{PRIVATE}'\nlist addresses 'auto'");
        with(&[(3, &key), (6, line6)])
    };
    assert_eq!(warnings(&asking("option endpoint_host '192.0.2.1'")), [""; 0]);
    assert_eq!(
        errors(&asking("")),
        [
            "f:4: addresses 'auto' asks a peer, and none has an endpoint_host and keying 'ike'; write the address"
        ]
    );
    let twice = format!("option private_key '{PRIVATE}'\noption addresses 'auto auto'");
    assert_eq!(
        errors(&with(&[(3, &twice)])),
        ["f:4: addresses 'auto' is listed twice; remove one"]
    );
}
