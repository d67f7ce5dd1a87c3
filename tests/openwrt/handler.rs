//! What the handler says to netifd: the interface comes up, or it says why not.

use std::os::unix::fs::PermissionsExt;

use super::router::{Router, calls_of, notify, said};
use super::vpn;

/// What starts the daemon.
fn run_command(router: &Router, arguments: &str) -> String {
    let program = router.path("usr/sbin/simplevpn").display().to_string();
    let file = router.path("var/run/simplevpn/vpn0.uci").display().to_string();
    let words: Vec<String> =
        format!("{program} run --netifd{arguments} {file} vpn0").split(' ').map(quoted).collect();
    notify(&format!("{{\"action\":1,\"command\":[{}]}}", words.join(",")), "vpn0")
}

fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('/', "\\/"))
}

#[test]
fn netifd_learns_what_a_restart_needs_and_no_secrets() {
    let router = Router::new("dump", "");
    assert_eq!(
        router.dump(),
        "{\"name\":\"simplevpn\",\"config\":[[\"addresses\",1],[\"mtu\",3],[\"port\",5],\
         [\"nat_port\",5],[\"steering\",3],[\"killswitch\",7],[\"tunlink\",3],[\"fwmark\",3],\
         [\"state_dir\",3],[\"zone\",3]],\"no-device\":true,\"available\":true,\
         \"renew-handler\":true,\"lasterror\":true}"
    );
}

#[test]
fn setup_starts_the_daemon_on_what_netifd_sees() {
    let router = Router::new("setup", &vpn("vpn0", "", "\toption endpoint_host '192.0.2.1'"));
    router.uci(&["set", "network.vpn0_peer.description=not committed"]);
    let calls = router.setup("vpn0");
    assert_eq!(said(&calls), [run_command(&router, "")]);
    assert_eq!(calls_of("logger", &calls), [""; 0]);

    let given = router.run_file("vpn0.uci").unwrap();
    assert!(given.contains("option description 'not committed'"), "{given}");
    let mode = |path: &str| router.path(path).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("var/run/simplevpn"), 0o700);
    assert_eq!(mode("var/run/simplevpn/vpn0.uci"), 0o600);
}

#[test]
fn an_endpoint_out_of_reach_holds_nothing_back() {
    let peers = "\toption endpoint_host '192.0.2.1'

config simplevpn_vpn0 'far'
	list allowed_ips 'fd00:2::/64'
	option endpoint_host '2001:db8::1'
	option keying 'manual'
	option spi_in '0x1002'
	option spi_out '0x2002'
	option key_in '0202030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324'
	option key_out 'f202030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324'";
    let router = Router::new("endpoints", &vpn("vpn0", "", peers));
    // No dependency on a host, which netifd would wait for.
    assert_eq!(said(&router.setup("vpn0")), [run_command(&router, "")]);
}

#[test]
fn tunlink_is_the_only_condition() {
    let router = Router::new("tunlink", &vpn("vpn0", "\toption tunlink 'wan'", ""));
    let dependency = notify("{\"action\":6,\"host\":\"\",\"ifname\":\"wan\"}", "vpn0");
    let calls = router.setup("vpn0");
    assert_eq!(said(&calls), [&*dependency]);
    assert_eq!(calls_of("logger", &calls), ["-t simplevpn -p daemon.notice vpn0: waiting for wan"]);

    router.is_up("wan", "eth1");
    assert_eq!(said(&router.setup("vpn0")), [dependency, run_command(&router, " --tunlink eth1")]);
}

#[test]
fn a_wrong_configuration_is_refused_with_the_reason() {
    let bad = vpn("vpn0", "", "\toption allowd_ips '10.2.0.0/16'\n\toption esn 'maybe'");
    let router = Router::new("refused", &bad);
    let calls = router.setup("vpn0");
    let line = |option: &str| {
        let export = router.uci(&["export", "network"]);
        1 + export.lines().position(|line| line.contains(option)).unwrap()
    };
    let reason = format!(
        "uci export network:{}: peer 'vpn0_peer': unknown option 'allowd_ips'; did you mean \
         allowed_ips?",
        line("allowd_ips")
    );
    assert_eq!(
        said(&calls),
        [
            notify(&format!("{{\"action\":3,\"error\":[\"{reason}\"]}}"), "vpn0"),
            notify("{\"action\":4}", "vpn0"),
        ]
    );
    let log = calls_of("logger", &calls);
    assert_eq!(log.len(), 2, "{log:?}");
    assert_eq!(log[0], format!("-t simplevpn -p daemon.err vpn0: {reason}"));
    let second = format!("-t simplevpn -p daemon.err vpn0: uci export network:{}: ", line("esn"));
    assert!(log[1].starts_with(&second), "{log:?}");

    // netifd takes down what did not start: nothing of it is left but the reason to wait.
    let calls = router.teardown("vpn0", None);
    assert_eq!(said(&calls), [notify("{\"action\":2,\"signal\":15}", "vpn0")]);
    assert!(router.run_file("vpn0.refused").is_some());
    // Someone asks for it again.
    router.configure_vpn(&vpn("vpn0", "", ""));
    assert_eq!(said(&router.setup("vpn0")), [run_command(&router, "")]);
    assert!(router.run_file("vpn0.refused").is_none());
}

#[test]
fn a_wrong_peer_holds_nothing_back() {
    let second = vpn("vpn1", "", "\toption esn 'maybe'");
    let (_, second) = second.split_once("config simplevpn_").unwrap();
    let second = second.replace("vpn1 'vpn1_peer'", "vpn0").replace("10.1.", "10.2.");
    let router = Router::new("one-wrong", &(vpn("vpn0", "", "") + "config simplevpn_" + &second));
    // The daemon says what is wrong, in the log and to netifd.
    let calls = router.setup("vpn0");
    assert_eq!(said(&calls), [run_command(&router, "")]);
    assert_eq!(calls_of("logger", &calls), [""; 0]);
    assert_eq!(said(&router.renew("vpn0")), [notify("{\"action\":2,\"signal\":1}", "vpn0")]);
}

#[test]
fn another_interface_is_none_of_its_business() {
    let both = vpn("vpn0", "", "") + &vpn("vpn1", "\toption steering 'nonsense'", "");
    let router = Router::new("neighbours", &both);
    assert_eq!(said(&router.setup("vpn0")), [run_command(&router, "")]);
    assert_eq!(calls_of("logger", &router.setup("vpn1")).len(), 1);
}

#[test]
fn a_package_that_uci_cannot_read_is_an_error_like_any() {
    let router = Router::new("unreadable", "config interface 'vpn0\n");
    let calls = router.act_with("setup", "vpn0", "{}", None);
    let said = said(&calls);
    let reason = ["{\"action\":3,\"error\":[\"uci export network: ", "Parse error (EOF"];
    assert!(reason.iter().all(|part| said[0].contains(part)), "{said:?}");
    assert_eq!(said[1..], [notify("{\"action\":4}", "vpn0")]);
}

#[test]
fn warnings_reach_the_log_and_nothing_else() {
    let router = Router::new("warning", &vpn("vpn0", "\toption colour 'blue'", ""));
    let calls = router.setup("vpn0");
    assert_eq!(said(&calls), [run_command(&router, "")]);
    let log = calls_of("logger", &calls);
    assert!(
        log.len() == 1 && log[0].starts_with("-t simplevpn -p daemon.warn vpn0: uci export"),
        "{log:?}"
    );
}

#[test]
fn ifdown_ends_the_daemon_and_leaves_the_killswitch() {
    let router = Router::new("ifdown", &vpn("vpn0", "", ""));
    router.setup("vpn0");
    let calls = router.teardown("vpn0", None);
    assert_eq!(said(&calls), [notify("{\"action\":2,\"signal\":15}", "vpn0")]);
    assert_eq!(calls_of("simplevpn", &calls), [""; 0]);
    assert_eq!(calls_of("sleep", &calls), [""; 0]);
    assert_eq!(router.run_file("vpn0.uci"), None);
}

#[test]
fn the_killswitch_opens_with_the_last_wish_for_it() {
    let wanted = vpn("vpn0", "", "");
    let unwanted = [
        vpn("vpn0", "\toption killswitch '0'", ""),
        vpn("vpn0", "\toption disabled '1'", ""),
        wanted.replace("'simplevpn'", "'none'"),
        String::new(),
    ];
    for (at, unwanted) in unwanted.iter().enumerate() {
        let router = Router::new(&format!("open-{at}"), &wanted);
        router.setup("vpn0");
        router.configure_vpn(unwanted);
        let calls = router.teardown("vpn0", None);
        assert_eq!(calls_of("simplevpn", &calls), ["down vpn0"], "{unwanted}");
        assert_eq!(said(&calls), [notify("{\"action\":2,\"signal\":15}", "vpn0")]);
    }
}

#[test]
fn a_configuration_that_cannot_be_read_opens_nothing() {
    let router = Router::new("stays-closed", &vpn("vpn0", "", ""));
    router.setup("vpn0");
    let options = router.declared("vpn0");
    router.configure_vpn("config interface 'vpn0\n");
    let calls = router.act_with("teardown", "vpn0", &options, None);
    assert_eq!(calls_of("simplevpn", &calls), [""; 0]);
}
