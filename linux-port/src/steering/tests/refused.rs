//! What stays closed although no peer in use has it.

use super::*;
use crate::config::model::RefusedPeer;

fn refused(prefixes: &[&str]) -> RefusedPeer {
    RefusedPeer {
        label: "'c'".into(),
        prefixes: prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(),
        routed: true,
        negotiated: true,
        errors: vec![],
    }
}

fn with_refused(mut interface: Interface, prefixes: &[&str]) -> Interface {
    interface.refused.push(refused(prefixes));
    interface.flawed = true;
    interface
}

fn plan(interface: &Interface, mode: Mode) -> Plan {
    Plan::new(interface, mode, &underlay(&["192.0.2.1"])).unwrap()
}

fn destinations(routes: &[Route]) -> Vec<String> {
    routes.iter().map(|route| route.destination.to_string()).collect()
}

fn led(plan: &Plan) -> Vec<String> {
    plan.steered.iter().map(|(prefix, ..)| prefix.to_string()).collect()
}

#[test]
fn refused_peers_are_closed_and_not_led_into_the_tunnel() {
    let interface = with_refused(policy(&["10.1.0.0/16"]), &["10.2.0.0/16", "fd02::/64"]);
    let whole = plan(&interface, Mode::Policy);
    assert_eq!(destinations(&whole.killswitch), ["10.1.0.0/16", "10.2.0.0/16", "fd02::/64"]);
    assert_eq!(led(&whole), ["10.1.0.0/16"]);
    assert_eq!(whole.rules.len(), 2, "one for each family");
    let table = format!("{:?}", whole.table);
    assert!(table.contains("10.2.0.0/16") && table.contains("fd02::/64"), "{table}");
    let open = Interface { killswitch: false, ..interface.clone() };
    assert_eq!(plan(&open, Mode::Policy).killswitch, []);
    assert_eq!(plan(&open, Mode::Policy).rules.len(), 1);
    let mut unrouted = interface;
    unrouted.refused[0].routed = false;
    assert_eq!(destinations(&plan(&unrouted, Mode::Policy).killswitch), ["10.1.0.0/16"]);
}

/// Reverse path filtering has to find a way to the peers.
#[test]
fn around_peers_in_use_what_is_closed_is_led_into_the_tunnel_and_ends_there() {
    let around = |prefixes: &[&str], own: &[&str]| {
        led(&plan(&with_refused(policy(own), prefixes), Mode::Policy))
    };
    assert_eq!(around(&["192.0.2.0/24"], &["10.1.0.0/16"]), ["10.1.0.0/16", "192.0.2.0/24"]);
    assert_eq!(around(&["0.0.0.0/0"], &["10.1.0.0/16"]), ["0.0.0.0/0", "10.1.0.0/16"]);
    assert_eq!(around(&["192.0.2.0/24"], &["0.0.0.0/0"]), ["0.0.0.0/0"], "b would get it");
}

#[test]
fn a_default_route_in_main_cannot_close() {
    let mut own = policy(&["10.1.0.0/16"]);
    own.steering = model::Steering::Route;
    let interface = with_refused(own, &["0.0.0.0/0", "10.2.0.0/16"]);
    let plan = plan(&interface, Mode::Route);
    assert_eq!(destinations(&plan.killswitch), ["10.1.0.0/16", "10.2.0.0/16"]);
}

/// What a configuration with errors does not name may be what cannot be read in it.
#[test]
fn nothing_is_opened_until_there_are_no_errors() {
    within(|| {
        let _lan = lan();
        let scratch = Scratch::new();
        let mut steering = start(&policy(&["10.1.0.0/16", "10.2.0.0/16"]), &scratch);
        let flawed = with_refused(policy(&["10.1.0.0/16"]), &["10.3.0.0/16"]);
        steering.update(&flawed, underlay(&[])).unwrap();
        assert_eq!(
            ["10.1.0.1", "10.2.0.1", "10.3.0.1"].map(way),
            ["vpn0", "unreachable", "unreachable"]
        );
        steering.refresh().unwrap();
        assert_eq!(["10.2.0.1", "10.3.0.1"].map(way), ["unreachable"; 2]);
        steering.update(&policy(&["10.1.0.0/16"]), underlay(&[])).unwrap();
        assert_eq!(["10.1.0.1", "10.2.0.1", "10.3.0.1"].map(way), ["vpn0", "lan", "lan"]);
        steering.remove().unwrap();
    });
}

#[test]
fn the_owner_s_networks_stay_open() {
    within(|| {
        let _lan = lan();
        let scratch = Scratch::new();
        let flawed = with_refused(policy(&["10.1.0.0/16"]), &["10.0.0.0/24", "10.2.0.0/16"]);
        let mut steering = start(&flawed, &scratch);
        assert_eq!(["10.0.0.160", "10.2.0.1"].map(way), ["lan", "unreachable"]);
        // A network that comes later is not taken away either.
        sh("ip addr add 10.2.0.9/16 dev lan");
        steering.refresh().unwrap();
        assert_eq!(way("10.2.0.1"), "lan");
        sh("ip addr del 10.2.0.9/16 dev lan");
        steering.refresh().unwrap();
        assert_eq!(way("10.2.0.1"), "unreachable");
        steering.remove().unwrap();
    });
}
