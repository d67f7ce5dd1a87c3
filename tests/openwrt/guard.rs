//! The killswitch is closed before networking starts. What `simplevpn guard` does is for the labs.

use std::os::unix::fs::PermissionsExt;

use super::router::{Router, calls_of};
use super::vpn;

#[test]
fn networking_starts_after_the_guard() {
    let script = std::fs::read_to_string(Router::new("order", "").path("etc/init.d/simplevpn"));
    let start = script.unwrap().lines().find_map(|line| line.strip_prefix("START=")?.parse().ok());
    // 20 in OpenWrt 24.10; it has been 18 and 15 since. The firewall starts at 19.
    assert_eq!(start, Some(14));
}

#[test]
fn boot_guards_first_and_from_its_own_export() {
    let router = Router::new("boot", &vpn("vpn0", "", ""));
    let calls = router.init("boot");
    let network = router.path("var/run/simplevpn/network");
    assert_eq!(calls_of("simplevpn", &calls), [format!("guard {}", network.display())]);
    let at = |program: &str| calls.iter().position(|call| call[0] == program).unwrap();
    assert!(at("simplevpn") < at("ubus"), "{calls:?}");
    assert!(!network.exists(), "it has keys in it");
    let state = router.path("etc/simplevpn").metadata().unwrap();
    assert_eq!(state.permissions().mode() & 0o777, 0o700);
}

#[test]
fn reload_guards_again() {
    let router = Router::new("guard-reload", &vpn("vpn0", "", ""));
    router.init("boot");
    router.configure_vpn("");
    assert_eq!(calls_of("simplevpn", &router.init("reload")).len(), 1);
}

#[test]
fn a_package_that_uci_cannot_read_leaves_the_guards() {
    let router = Router::new("guard-unreadable", "config interface 'vpn0\n");
    let calls = router.init("boot");
    assert_eq!(calls_of("simplevpn", &calls), [""; 0]);
    assert_eq!(calls_of("logger", &calls).len(), 1);
}

#[test]
fn what_the_guard_says_is_in_the_log() {
    let router = Router::new("guard-log", &vpn("vpn0", "", ""));
    let file = router.path("var/run/simplevpn/network");
    router.guard_says(&format!(
        "vpn0: closed\nwarning: vpn2: has errors\nerror: {}:7: no such option\n\
         error: vpn1: no memory\n",
        file.display()
    ));
    assert_eq!(
        calls_of("logger", &router.init("boot")),
        [
            "-t simplevpn -p daemon.info guard: vpn0: closed",
            "-t simplevpn -p daemon.warn guard: vpn2: has errors",
            "-t simplevpn -p daemon.err guard: vpn1: no memory",
        ],
        "what is wrong with the configuration is logged once, by the handler or the daemon"
    );
}
