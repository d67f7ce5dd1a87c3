//! The daemon's life: reload, restart, and an end that leaves nothing behind.

use std::time::Duration;

use simplevpn_tests::lab::daemon::{Keys, Peer, Vpn};
use simplevpn_tests::lab::{Host, Lab, ReversePath, ip};

use crate::topology::Sites;

///  client -- a ==ESP== b -- server, and a is told of a third peer meanwhile
#[test]
fn reload_while_a_transfer_runs() {
    let lab = Lab::new();
    let sites = Sites::new(&lab);
    let (of_a, of_b) = sites.configurations(Keys::pair(), false, "auto");
    let (mut a, mut b) = (sites.a.starts(&of_a), sites.b.starts(&of_b));
    assert!(sites.client.reaches_within("10.2.0.2", Duration::from_secs(5)));
    let third = Peer::new("c", &Keys::pair().0).at("192.0.2.3").allowed("10.3.0.0/24");
    let larger = of_a.clone().peer(third);

    std::thread::scope(|scope| {
        let transfer = scope.spawn(|| sites.client.tcp(&sites.server, ip("10.2.0.2"), 60_000_000));
        let mut reloads = 0;
        while !transfer.is_finished() {
            a.reloads(if reloads % 2 == 0 { &larger } else { &of_a });
            b.reloads(&of_b);
            reloads += 1;
            std::thread::sleep(Duration::from_millis(150));
        }
        assert!(reloads >= 2, "the transfer was too quick to be disturbed");
        transfer.join().unwrap().unwrap();
    });
    let answers = sites.client.ping_sized(ip("10.2.0.2"), 56, 5);
    assert!(answers.all(), "{answers:?}");
    a.reloads(&larger);
    assert!(
        simplevpn_tests::lab::process::eventually(Duration::from_secs(3), || {
            a.json().contains("10.3.0.0/24")
        }),
        "{}",
        a.json()
    );
    assert!(sites.a.run("ip route get 10.3.0.9").contains("vpn0"));
    assert!(a.counter("packets") > 1000, "unchanged peers keep their counters: {}", a.json());
}

///  client -- a ==ESP== b -- server
#[test]
fn a_reload_that_cannot_be_read_changes_nothing() {
    let lab = Lab::new();
    let sites = Sites::new(&lab);
    let (mut a, _b) = sites.tunnel();
    sites.client.assert_uses(&sites.server, "10.2.0.2");
    a.reloads(&Vpn::new().option("steering", "sideways"));
    std::thread::sleep(Duration::from_millis(300));
    sites.client.assert_uses(&sites.server, "10.2.0.2");
    assert!(a.log().contains("sideways"), "{}", a.log());
}

///  client -- a ==ESP== b -- server
#[test]
fn restart_after_kill_9() {
    let lab = Lab::new();
    let sites = Sites::new(&lab);
    let (of_a, of_b) = sites.configurations(Keys::pair(), false, "auto");
    let mut a = sites.a.starts(&of_a);
    let mut b = sites.b.starts(&of_b);
    for round in 0..3 {
        sites.client.assert_uses(&sites.server, "10.2.0.2");
        if round % 2 == 0 {
            a.dies();
            a = sites.a.starts(&of_a);
        } else {
            b.dies();
            b = sites.b.starts(&of_b);
        }
    }
    sites.client.assert_uses(&sites.server, "10.2.0.2");
    assert!(a.counter("packets") > 0 && b.counter("packets") > 0);
}

/// Everything a daemon could leave behind in the kernel.
fn traces(host: &Host) -> String {
    [
        "ip -4 rule",
        "ip -6 rule",
        "ip -4 route show table all",
        "ip -6 route show table all",
        "ip -o link",
        "nft list ruleset",
        "cat /proc/sys/net/ipv4/conf/all/rp_filter /proc/sys/net/ipv4/conf/eth0/rp_filter",
    ]
    .map(|command| host.run(command))
    .join("\n")
}

///  a 10.0.0.161 ==ESP== 10.0.0.160 b, in every way to steer, under every `rp_filter`
#[test]
fn the_end_leaves_nothing_behind() {
    for reverse_path in [ReversePath::Off, ReversePath::Strict, ReversePath::Loose] {
        for steering in ["policy", "offset"] {
            let lab = Lab::with_reverse_path(reverse_path);
            let [a, b] = lab.hosts(["a", "b"]);
            lab.switch([a.port("eth0", "10.0.0.161/24"), b.port("eth0", "10.0.0.160/24")]);
            let story = format!("{steering}, rp_filter {reverse_path:?}");
            let (at_a, at_b) = Keys::pair();
            let vpn = |keys: &Keys, address: &str| {
                let peer = Peer::new("n", keys).at(address).allowed(&format!("{address}/32"));
                let peer =
                    if steering == "offset" { peer.option("offset", "0.0.1.0") } else { peer };
                Vpn::new().steering(steering).peer(peer)
            };
            let _b = b.starts(&vpn(&at_b, "10.0.0.161"));
            let vpn = vpn(&at_a, "10.0.0.160");
            let before = traces(&a);

            // Without the killswitch SIGTERM leaves nothing.
            let daemon = a.starts(&vpn.clone().option("killswitch", "0"));
            a.assert_uses(&b, "10.0.0.160");
            assert_ne!(traces(&a), before, "{story}");
            assert!(daemon.stops().success(), "{story}");
            assert_eq!(traces(&a), before, "{story}: after SIGTERM");

            // With it the way stays closed until `down`, whether the daemon runs or not.
            let daemon = a.starts(&vpn);
            a.assert_uses(&b, "10.0.0.160");
            assert!(daemon.stops().success(), "{story}");
            assert_eq!(a.ping_sized(ip("10.0.0.160"), 56, 2).right, 0, "{story}: still closed");
            assert!(a.simplevpn_says("down vpn0").success, "{story}");
            assert_eq!(traces(&a), before, "{story}: after down");
            let daemon = a.starts(&vpn);
            assert!(a.simplevpn_says("down vpn0").success, "{story}");
            drop(daemon);
            assert_eq!(traces(&a), before, "{story}: after down of a running daemon");

            // And a crash leaves nothing that `down` does not find.
            a.starts(&vpn).dies();
            assert!(a.simplevpn_says("down vpn0").success, "{story}");
            assert_eq!(traces(&a), before, "{story}: after a crash and down");
        }
    }
}
