//! Keys are in no argument and no environment variable of any program, as `ps` shows them.

use super::router::Router;
use super::{keys, vpn};

#[test]
fn no_program_is_told_a_key() {
    const PRIVATE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let (key_in, key_out) = keys("vpn0");
    let interface = format!("\toption private_key '{PRIVATE}'\n\toption nat_port '4501'");
    let router = Router::new("secrets", &vpn("vpn0", &interface, ""));
    router.init("boot");
    let declared = router.declared("vpn0");
    assert_eq!(declared, "{\"nat_port\":4501}");
    router.setup("vpn0");
    assert!(router.run_file("vpn0.uci").unwrap().contains(PRIVATE), "the daemon is");
    router.uci(&["set", "network.vpn0_peer.esn=0"]);
    router.init("reload");
    router.renew("vpn0");
    // Complaints quote no key either.
    router.uci(&["set", &format!("network.vpn0_peer.key_in={key_in}00")]);
    router.renew("vpn0");
    router.teardown("vpn0", Some(1));
    router.setup("vpn0");
    router.teardown("vpn0", None);
    router.init("stop");

    let everything = router.everything();
    assert!(everything.contains("notify_proto"), "there is a record");
    for key in [PRIVATE, &key_in, &key_out] {
        assert!(!everything.contains(key), "{key}");
    }
}
