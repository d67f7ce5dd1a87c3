//! IKE lives, and ESP of one direction does not, or has nothing to carry.
//!
//! ```text
//!   client -- a 192.0.2.1 ======== ESP in UDP ======== 192.0.2.2 b -- server
//!   10.1.0.2                                                          10.2.0.2
//! ```

use std::time::{Duration, Instant};

use simplevpn_tests::lab::daemon::Daemon;
use simplevpn_tests::lab::process::eventually;
use simplevpn_tests::lab::{Host, ip};

use crate::ike::{Caller, PROMPT, Story, sites, two_of_ours};
use crate::topology::Sites;

/// How long it may take that something is noticed and done.
const REMEDY: Duration = Duration::from_secs(40);
/// How long a stream is watched.
const STREAM: Duration = Duration::from_secs(45);

/// Has a machine drop what comes to port 4500 and is so.
fn drops(host: &Host, what: &str) {
    host.feed(
        "nft -f -",
        &format!(
            "table ip lossy {{ chain pre {{ type filter hook prerouting priority -400; \
             udp dport 4500 {what} drop; }}; }}\n"
        ),
    );
}

fn drops_no_more(host: &Host) {
    host.run("nft delete table ip lossy");
}

/// Not IKE, whose messages begin with four zeros there (RFC 3948 §2.2).
const ESP: &str = "@th,64,32 != 0";

fn tunnel(sites: &Sites) -> (Daemon, Daemon) {
    let (of_a, of_b) = two_of_ours(sites);
    let b = sites.b.starts(&of_b);
    let a = sites.a.starts(&of_a);
    assert!(sites.client.reaches_within("10.2.0.2", PROMPT), "{}\n{}", a.show(), b.show());
    (a, b)
}

///  client -- a == b -- server: nothing of one SA comes through any more
#[test]
fn an_sa_that_is_dead_is_replaced() {
    let (_lab, sites) = sites();
    let (a, b) = tunnel(&sites);
    drops(&sites.a, &format!("@th,64,32 == {}", a.counter("spi_in")));
    let begun = Instant::now();
    let reached = sites.client.reaches_within("10.2.0.2", REMEDY);
    assert!(reached, "{}\n{}", a.show(), b.show());
    println!("replaced after {:?}", begun.elapsed());
    assert_eq!(a.log().matches(": up: ").count(), 1, "it is the same connection");
}

///  client -- a == b -- server: no ESP reaches a; then b
#[test]
fn a_direction_that_is_dead_has_the_connection_made_anew() {
    let (_lab, sites) = sites();
    let (a, b) = tunnel(&sites);
    let whole = "IKE is answered, and no ESP comes through; connecting anew";
    for (deaf, daemon, sender, to) in
        [(&sites.a, &a, &sites.client, "10.2.0.2"), (&sites.b, &b, &sites.server, "10.1.0.2")]
    {
        drops(deaf, ESP);
        assert!(!sender.reaches_within(to, Duration::from_secs(1)));
        let noticed = || {
            sender.pings(to);
            daemon.log().contains(whole)
        };
        assert!(eventually(REMEDY, noticed), "{}\n{}", daemon.log(), daemon.show());
        drops_no_more(deaf);
        assert!(sender.reaches_within(to, PROMPT), "{}\n{}", a.show(), b.show());
    }
    assert!(b.log().matches(": up: ").count() >= 3, "{}", b.log());
}

/// A stream from the client to the server, which says nothing: not one datagram is lost.
fn streams(sites: &Sites) {
    let stream = sites.client.streams_to(&sites.server, ip("10.2.0.2"), Duration::from_millis(20));
    std::thread::sleep(STREAM);
    let account = stream.ends();
    assert!(account.is_complete(), "{account:?}");
}

///  client -- a == b -- server, which only receives
#[test]
fn a_stream_of_one_direction_is_left_alone() {
    let (_lab, sites) = sites();
    let (a, b) = tunnel(&sites);
    let before = a.counter("spi_in");
    streams(&sites);
    for daemon in [&a, &b] {
        assert_eq!(daemon.log().matches(": up: ").count(), 1, "{}", daemon.log());
    }
    assert_ne!(a.counter("spi_in"), before, "it was looked closer, which costs no packet");
}

///  client -- a == strongSwan b -- server, which only receives
#[test]
fn a_stream_to_strongswan_is_left_alone() {
    let (_lab, sites) = sites();
    let ends = Story::psk(Caller::Us).connects(&sites);
    let before = ends.swan.sa().value("initiator-spi");
    streams(&sites);
    assert_eq!(ends.swan.sa().value("initiator-spi"), before, "{}", ends.us.log());
}
