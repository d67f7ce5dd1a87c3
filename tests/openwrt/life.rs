//! Edits and crashes.

use super::router::{Router, calls_of, notify, said};
use super::vpn;

const RELOAD: &str = "network reload";
const SIGHUP: &str = "{\"action\":2,\"signal\":1}";

/// What the init script said, without what it publishes.
fn reload(router: &Router) -> Vec<String> {
    said(&router.init("reload")).into_iter().filter(|said| !said.starts_with("service ")).collect()
}

#[test]
fn a_peer_edit_is_a_renewal() {
    let router = Router::new("peer-edit", &vpn("vpn0", "", ""));
    router.init("boot");
    router.setup("vpn0");
    assert_eq!(reload(&router), [""; 0], "nothing was edited");

    router.uci(&["set", "network.vpn0_peer.persistent_keepalive=25"]);
    assert_eq!(reload(&router), [RELOAD, "network.interface.vpn0 renew"]);
    assert_eq!(said(&router.renew("vpn0")), [notify(SIGHUP, "vpn0")]);
    assert!(router.run_file("vpn0.uci").unwrap().contains("option persistent_keepalive '25'"));
    assert_eq!(reload(&router), [""; 0], "the daemon has it");

    router.uci(&["commit", "network"]);
    assert_eq!(reload(&router), [""; 0], "it is the same");
}

#[test]
fn edits_of_others_are_none_of_ours() {
    let two = vpn("vpn1", "", "") + &vpn("vpn10", "", "");
    let router = Router::new("other-edits", &two);
    router.setup("vpn1");
    router.setup("vpn10");
    router.uci(&["set", "network.lan.ipaddr=192.168.2.1/24"]);
    router.uci(&["set", "network.other=interface"]);
    router.uci(&["set", "network.other.proto=simplevpn"]);
    assert_eq!(reload(&router), [""; 0]);

    router.uci(&["set", "network.vpn10_peer.esn=0"]);
    assert_eq!(reload(&router), [RELOAD, "network.interface.vpn10 renew"]);
}

#[test]
fn a_wrong_edit_leaves_alone_what_runs() {
    let router = Router::new("wrong-edit", &vpn("vpn0", "", ""));
    router.setup("vpn0");
    let before = router.run_file("vpn0.uci");
    router.uci(&["set", "network.vpn0_peer.key_in=short"]);
    assert_eq!(reload(&router), [RELOAD, "network.interface.vpn0 renew"]);
    let calls = router.renew("vpn0");
    let said = said(&calls);
    assert!(
        said.len() == 1
            && said[0].starts_with("network.interface notify_proto {\"action\":3,\"error\":["),
        "{said:?}"
    );
    assert_eq!(calls_of("logger", &calls).len(), 1);
    assert_eq!(router.run_file("vpn0.uci"), before);

    router.uci(&["revert", "network"]);
    assert_eq!(reload(&router), [""; 0], "as it runs");
    router.uci(&["set", "network.vpn0_peer.esn=0"]);
    assert_eq!(reload(&router), [RELOAD, "network.interface.vpn0 renew"]);
}

#[test]
fn a_corrected_configuration_comes_up() {
    let router = Router::new("corrected", &vpn("vpn0", "", "\toption esn 'maybe'"));
    router.setup("vpn0");
    router.teardown("vpn0", None);
    assert_eq!(reload(&router), [""; 0], "it is as wrong as before");
    router.uci(&["set", "network.lan.ipaddr=192.168.2.1/24"]);
    assert_eq!(reload(&router), [""; 0], "no less wrong for that");

    router.uci(&["set", "network.vpn0_peer.esn=1"]);
    assert_eq!(reload(&router), [RELOAD, "network.interface.vpn0 up"]);
    router.setup("vpn0");
    assert_eq!(reload(&router), [""; 0]);
}

#[test]
fn what_someone_took_down_stays_down() {
    let router = Router::new("taken-down", &vpn("vpn0", "", ""));
    router.setup("vpn0");
    router.teardown("vpn0", None);
    router.uci(&["set", "network.vpn0_peer.esn=0"]);
    assert_eq!(reload(&router), [""; 0]);
}

#[test]
fn a_refused_interface_that_goes_is_forgotten() {
    let router = Router::new("forgotten", &vpn("vpn0", "", "\toption esn 'maybe'"));
    router.setup("vpn0");
    router.teardown("vpn0", None);
    router.configure_vpn("");
    assert_eq!(reload(&router), [""; 0]);
    assert_eq!((router.run_file("vpn0.uci"), router.run_file("vpn0.refused")), (None, None));
}

#[test]
fn a_daemon_that_crashes_is_started_ever_later() {
    let router = Router::new("crashes", &vpn("vpn0", "", ""));
    assert_eq!(calls_of("sleep", &router.setup("vpn0")), [""; 0]);
    for (status, wait) in
        [(1, "1"), (0, "2"), (101, "4"), (1, "8"), (1, "16"), (1, "32"), (1, "60"), (1, "60")]
    {
        router.teardown("vpn0", Some(status));
        let calls = router.setup("vpn0");
        assert_eq!(calls_of("sleep", &calls), [wait]);
        assert_eq!(calls_of("logger", &calls).len(), 1);
        assert_eq!(said(&calls).len(), 1, "it is started");
    }

    // One that ran for a while since.
    router.write_run_file("vpn0.crashed", "8 -1000\n");
    assert_eq!(calls_of("sleep", &router.setup("vpn0")), [""; 0]);
    router.teardown("vpn0", Some(0));
    assert_eq!(calls_of("sleep", &router.setup("vpn0")), ["1"]);

    // Someone took it down.
    router.teardown("vpn0", None);
    assert_eq!(calls_of("sleep", &router.setup("vpn0")), [""; 0]);
}

#[test]
fn a_configuration_that_the_daemon_refuses_waits_for_an_edit() {
    let router = Router::new("refused-later", &vpn("vpn0", "", ""));
    router.setup("vpn0");
    let calls = router.teardown("vpn0", Some(3));
    assert!(said(&calls).contains(&notify("{\"action\":4}", "vpn0")), "{calls:?}");
    assert_eq!(reload(&router), [""; 0]);
    router.uci(&["set", "network.vpn0_peer.esn=0"]);
    assert_eq!(reload(&router), [RELOAD, "network.interface.vpn0 up"]);
}
