//! What fw4 is asked to accept. It reads `data.firewall` of services as it reads its own sections,
//! and takes rules of interfaces for rules of their devices.

use super::router::{Router, said};
use super::vpn;

fn rule(zone: &str, proto: &str, port: &str) -> String {
    let port = if port.is_empty() { String::new() } else { format!("\"dest_port\":\"{port}\",") };
    format!(
        "{{\"type\":\"rule\",\"src\":\"{zone}\",\"proto\":\"{proto}\",{port}\
         \"family\":\"any\",\"target\":\"ACCEPT\"}}"
    )
}

/// The rules that procd was handed, and what was said after that.
fn published(router: &Router, action: &str) -> (Vec<String>, Vec<String>) {
    let mut said =
        said(&router.init(action)).into_iter().skip_while(|s| !s.starts_with("service set"));
    let set = said.next().unwrap();
    let (_, rules) = set.split_once("\"data\":{\"firewall\":[").unwrap();
    let rules = rules.strip_suffix("]}}").unwrap();
    let rules = rules.split_inclusive('}').map(|rule| rule.trim_start_matches(',').to_owned());
    (rules.collect(), said.collect())
}

const CHANGED: &str =
    "service event {\"type\":\"config.change\",\"data\":{\"package\":\"firewall\"}}";

#[test]
fn wan_may_send_esp_and_to_our_ports() {
    let router = Router::new("ports", &vpn("vpn0", "", ""));
    let rules = [rule("wan", "esp", ""), rule("wan", "udp", "500"), rule("wan", "udp", "4500")];
    assert_eq!(published(&router, "boot"), (rules.to_vec(), vec![CHANGED.into()]));
    assert_eq!(published(&router, "reload"), (rules.to_vec(), vec![]), "they are the same");

    router.configure_vpn(&vpn("vpn0", "\toption port '0501'\n\toption nat_port '4501'", ""));
    let rules = [rule("wan", "esp", ""), rule("wan", "udp", "0501"), rule("wan", "udp", "4501")];
    assert_eq!(published(&router, "reload"), (rules.to_vec(), vec![CHANGED.into()]));
}

#[test]
fn each_uplink_has_its_zone_and_no_rule_comes_twice() {
    let interfaces = vpn("vpn0", "", "")
        + &vpn("vpn1", "\toption nat_port '4501'", "")
        + &vpn("vpn2", "\toption tunlink 'wwan'", "")
        + &vpn("vpn3", "\toption tunlink 'dsl'", "")
        + "config interface 'dsl'\n\toption proto 'pppoe'\n\toption zone 'line'\n"
        + &vpn("vpn4", "\toption disabled '1'\n\toption port '7'", "");
    let router = Router::new("zones", &interfaces);
    let rules = [
        rule("wan", "esp", ""),
        rule("wan", "udp", "500"),
        rule("wan", "udp", "4500"),
        rule("wan", "udp", "4501"),
        rule("mobile", "esp", ""),
        rule("mobile", "udp", "500"),
        rule("mobile", "udp", "4500"),
        rule("line", "esp", ""),
        rule("line", "udp", "500"),
        rule("line", "udp", "4500"),
    ];
    assert_eq!(published(&router, "start").0, rules);
}

#[test]
fn nothing_is_open_for_nobody() {
    let router = Router::new("no-rules", "");
    assert_eq!(published(&router, "boot"), (vec![], vec![]));
}

#[test]
fn procd_reloads_us_when_network_or_firewall_change() {
    let router = Router::new("triggers", &vpn("vpn0", "", ""));
    let set = said(&router.init("start"));
    let trigger = |package: &str| {
        format!(
            "[\"config.change\",[\"if\",[\"eq\",\"package\",\"{package}\"],\
             [\"run_script\",\"\\/etc\\/init.d\\/simplevpn\",\"reload\"]],1000]"
        )
    };
    let triggers = format!("\"triggers\":[{},{}]", trigger("network"), trigger("firewall"));
    assert!(set[0].contains(&triggers), "{set:?}");
}

#[test]
fn a_stopped_service_accepts_nothing() {
    let router = Router::new("stop", &vpn("vpn0", "", ""));
    router.init("boot");
    let stopped = said(&router.init("stop"));
    assert_eq!(stopped, ["service delete {\"name\":\"simplevpn\"}", CHANGED]);
    assert_eq!(published(&router, "start").1, [CHANGED]);
}

#[test]
fn a_package_that_uci_cannot_read_changes_no_rule() {
    let router = Router::new("rules-unreadable", &vpn("vpn0", "", ""));
    let (rules, _) = published(&router, "boot");
    router.configure_vpn("config interface 'vpn0\n");
    assert_eq!(published(&router, "reload"), (rules, vec![]));
}
