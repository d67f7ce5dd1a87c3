//! Many peers: what a thousand of them cost in time and memory.

use std::time::{Duration, Instant};

use simplevpn_tests::lab::Lab;
use simplevpn_tests::lab::daemon::{Keys, Peer};

use crate::topology::Sites;

/// The daemon's resident memory: all of it, and what is not mapped from a file.
fn resident(pid: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let figure = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    format!("{} KiB ({} of its own)", figure("VmRSS:"), figure("RssAnon:"))
}

///  client -- a ==ESP== b -- server, and a has 999 more peers, which are not there
#[test]
fn a_thousand_peers() {
    let lab = Lab::new();
    let sites = Sites::new(&lab);
    let (of_a, of_b) = sites.configurations(Keys::pair(), false, "auto");
    let _b = sites.b.starts(&of_b);
    for strangers in [0, 999] {
        let peers = strangers + 1;
        let vpn = of_a.clone().strangers(strangers);
        let begin = Instant::now();
        let mut a = sites.a.launches(&vpn);
        a.becomes_ready(Duration::from_secs(20)).unwrap();
        let ready = begin.elapsed();
        let idle = resident(a.pid());
        sites.client.assert_uses(&sites.server, "10.2.0.2");
        let begin = Instant::now();
        a.reloads(&vpn.clone().peer(Peer::new("new", &Keys::pair().0).allowed("10.3.0.0/24")));
        while !a.json().contains("10.3.0.0/24") {
            assert!(begin.elapsed() < Duration::from_secs(20), "{}", a.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        let reloaded = begin.elapsed();
        sites.client.assert_uses(&sites.server, "10.2.0.2");
        let used = resident(a.pid());
        let begin = Instant::now();
        assert!(a.stops().success());
        println!(
            "{peers} peers: ready after {ready:.0?}, reloaded after {reloaded:.0?}, ended after {:.0?}; \
             resident {idle}, after traffic {used}",
            begin.elapsed()
        );
        assert!(ready < Duration::from_secs(5), "{peers} peers: ready after {ready:?}");
    }
}
