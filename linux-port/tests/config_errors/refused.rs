//! Peers with errors: they are left out by name, the others run, and what can be read of their
//! prefixes stays closed.

use simplevpn::config::model::{Interface, RefusedPeer};
use simplevpn::config::{Reading, read_text};

use super::*;

fn reading(text: &str) -> Reading {
    read_text("f", text)
}

/// The only interface of a text.
fn interface(text: &str) -> Interface {
    let mut interfaces = reading(text).interfaces;
    assert_eq!(interfaces.len(), 1, "{text}");
    interfaces.remove(0)
}

/// The names of the peers that run, and of those that are refused with what stays closed.
fn parted(text: &str) -> (Vec<String>, Vec<(String, Vec<String>)>) {
    let Interface { peers, refused, .. } = interface(text);
    let closed = |peer: &RefusedPeer| peer.prefixes.iter().map(ToString::to_string).collect();
    (
        peers.into_iter().map(|peer| peer.name).collect(),
        refused.iter().map(|peer| (peer.label.clone(), closed(peer))).collect(),
    )
}

#[test]
fn a_peer_with_an_error_leaves_the_others_alone() {
    let text = with(8, "option colour 'blue'");
    let found = reading(&text);
    assert!(found.can_run());
    assert_eq!(found.errors, []);
    assert_eq!(found.all_errors(), found.interfaces[0].refused[0].errors);
    assert!(found.interfaces[0].flawed);
    let refused = ("'office'".to_owned(), vec!["10.1.0.0/16".to_owned()]);
    assert_eq!(parted(&text), (vec!["home".to_owned()], vec![refused]));
    assert!(!interface(&good()).flawed);
}

#[test]
fn without_a_peer_that_is_right_nothing_runs() {
    let text = with(8, "option colour 'blue'").replace("'0x1002'", "'7'");
    assert!(!reading(&text).can_run());
    assert!(!reading(&with(6, "option killswitch 'perhaps'")).can_run());
    assert!(reading(&good()).can_run());
}

/// Each of these lines of `office` makes it bad; what stays closed of it.
#[test]
fn whatever_can_be_read_stays_closed() {
    let table = [
        ("option allowed_ip '10.1.0.0/16'", "10.1.0.0/16"),
        ("list alowed_ips '10.1.0.0/16 10.3.0.0/16'", "10.1.0.0/16 10.3.0.0/16"),
        ("option allowed_ips '10.1.0.0/16 10.3.0.0/33 fd01::/48'", "10.1.0.0/16 fd01::/48"),
        ("list allowed_ips '10.1.2.3/16'", "10.1.0.0/16"),
        ("list allowed_ips '10.1.0.0/16'\noption offset '0.16.0.0'\noption x '1'", "10.17.0.0/16"),
        ("list allowed_ips '10.1.0.0/16'\noption offset 'far'", "10.1.0.0/16"),
        ("list allowed_ips '0.0.0.0/0 ::/0'\noption x '1'", "0.0.0.0/0 ::/0"),
        ("list allowed_ips 'everything'", ""),
    ];
    for (line, closed) in table {
        let (others, refused) = parted(&with(9, line));
        assert_eq!(others, ["home"], "{line}");
        assert_eq!(refused[0].1.join(" "), closed, "{line}");
    }
    let routed = |line: &str| interface(&with(9, line)).refused[0].routed;
    assert!(!routed("list allowed_ips '10.1.0.0/16'\noption route_allowed_ips '0'\noption x '1'"));
    assert!(routed("list allowed_ips '10.1.0.0/16'\noption route_allowed_ips 'no?'"));
}

#[test]
fn under_steering_offset_real_and_moved_addresses_stay_closed() {
    let offset = "list allowed_ips '10.1.0.0/16'\noption offset '0.16.0.0'\noption x '1'";
    let text = with(9, offset).replace("steering 'auto'", "steering 'offset'");
    assert_eq!(parted(&text).1[0].1, ["10.1.0.0/16", "10.17.0.0/16"]);
    // Nor is it known without `steering`, of peers that are right.
    let text = with(9, &offset.replace("\noption x '1'", "")).replace("'auto'", "'ofset'");
    let found = reading(&text);
    assert!(!found.can_run());
    assert_eq!(parted(&text).0, ["office", "home"]);
    assert_eq!(parted(&text).1, [("'office'".to_owned(), vec!["10.1.0.0/16".to_owned()])]);
}

#[test]
fn the_owner_s_networks_are_never_closed() {
    let closed = |address: &str| {
        let lan = format!(
            "\nconfig interface 'lan'\n\toption proto 'static'\n\toption ipaddr '{address}'\n"
        );
        parted(&(with(8, "option colour 'blue'") + &lan)).1[0].1.clone()
    };
    assert_eq!(closed("10.1.0.1/16"), [""; 0]);
    // A wider prefix leaves the network out.
    assert_eq!(closed("10.1.2.1/24"), ["10.1.0.0/16"]);
}

#[test]
fn of_two_that_clash_the_later_one_is_wrong() {
    let twice = good().replace("10.2.0.0/16", "10.1.0.0/16");
    assert_eq!(parted(&twice).0, ["office"]);
    let named = good().replace("'home'", "'office'");
    assert_eq!(parted(&named).0, ["office"]);
    let shared = good().replace(KEY_C, KEY_A);
    assert_eq!(parted(&shared).0, ["office"]);
    // Prefixes that nest do not clash.
    let third = peer("third", "10.0.0.0/8", 3, KEY_A, KEY_B);
    let third = third.replace("a1a2", "a3a2").replace("d1d2", "d3d2");
    let nested = good().replace("10.2.0.0/16", "10.1.2.0/24");
    let nested =
        nested.replacen("config simplevpn_vpn0", &format!("{third}config simplevpn_vpn0"), 1);
    assert_eq!(parted(&nested).0, ["third", "office", "home"]);
}

#[test]
fn a_secret_and_one_address_are_no_two_peers() {
    let peer = |name: &str, prefix: &str, more: &str| {
        format!(
            "config simplevpn_vpn0 '{name}'\n\toption endpoint_host '192.0.2.1'\n\
             \toption preshared_key 'EC6QLBNOuSg5y4669fT6gQbbp7Sz9Yt8zFblA5N2mZo='\n\
             \tlist allowed_ips '{prefix}'\n{more}"
        )
    };
    let interface = "config interface 'vpn0'\n\toption proto 'simplevpn'\n";
    let first = peer("a", "10.1.0.0/16", "");
    let both = |second: &str| format!("{interface}{first}{second}");
    let named = peer("b", "10.2.0.0/16", "\toption remote_id 'b.example'\n");
    accepted(&both(&named));
    assert_eq!(
        errors(&both(&peer("b", "10.2.0.0/16", ""))),
        ["f:7: recognised by the same endpoint_host as the peer on line 3; give each peer its own"]
    );
}

#[test]
fn peers_are_named_as_their_owner_finds_them() {
    let text = with(7, "config simplevpn_vpn0")
        .replace("endpoint_host '192.0.2.1'", "description 'Head office'")
        .replace("'10.1.0.0/16'", "'10.1.0.0/33'");
    let message = config::parse("f", &text).unwrap_err()[0].to_string();
    let wanted = "f:9: peer 'Head office' (@simplevpn_vpn0[0]): allowed_ips '10.1.0.0/33' has";
    assert!(message.starts_with(wanted), "{message}");
}

#[test]
fn what_is_no_uci_hides_only_itself() {
    for (line, fault) in
        [(8, "option endpoint_host '192.0.2.1"), (8, "optio x '1'"), (15, "config")]
    {
        let found = reading(&with(line, fault));
        assert!(!found.can_run() && !found.errors.is_empty(), "{fault}");
        let interface = &found.interfaces[0];
        assert!(interface.flawed && interface.killswitch);
        let peers = interface.peers.iter().flat_map(|peer| peer.allowed_ips.clone());
        let refused = interface.refused.iter().flat_map(|peer| peer.prefixes.clone());
        let closed: Vec<String> = peers.chain(refused).map(|prefix| prefix.to_string()).collect();
        let wanted: &[&str] =
            if fault == "config" { &["10.1.0.0/16"] } else { &["10.1.0.0/16", "10.2.0.0/16"] };
        assert_eq!(closed, wanted, "{fault}");
    }
}
