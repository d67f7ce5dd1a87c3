//! Keys are replaced while traffic flows: not one packet is lost, whoever begins.
//!
//! ```text
//!   client -- a simplevpn ======== ESP in UDP ======== strongSwan b -- server
//!   10.1.0.2    192.0.2.1                               192.0.2.2    10.2.0.2
//! ```

use std::time::Duration;

use simplevpn_tests::lab::ip;
use simplevpn_tests::lab::process::eventually;

use crate::ike::{Caller, PROMPT, Story, Traffic, sites, two_of_ours};

/// How often each is replaced in one lab.
const TIMES: usize = 3;

///  a == b, which replaces the child's keys, without and with another Diffie-Hellman exchange
#[test]
fn strongswan_rekeys_the_child() {
    for esp in ["chacha20poly1305", "aes128gcm16-x25519", "aes256gcm16-ecp256"] {
        let (_lab, sites) = sites();
        let ike = "chacha20poly1305-prfsha256-x25519-ecp256";
        let ends = Story::psk(Caller::Us).proposals(ike, esp).connects(&sites);
        let traffic = Traffic::starts(&sites);
        for _ in 0..TIMES {
            let before = ends.swan.sa().child("spi-in");
            ends.swan.rekeys_child().unwrap();
            let new = || ends.swan.sas()[0].child("spi-in") != before;
            assert!(eventually(PROMPT, new), "{esp}: {:?}", ends.swan.sas());
            traffic.goes_on();
        }
        traffic.ends_complete();
    }
}

///  a == b, which replaces the keys of IKE; the child goes on
#[test]
fn strongswan_rekeys_the_ike_sa() {
    for caller in Caller::BOTH {
        let (_lab, sites) = sites();
        let ends = Story::psk(caller).connects(&sites);
        let traffic = Traffic::starts(&sites);
        for _ in 0..TIMES {
            let before = ends.swan.sa();
            ends.swan.rekeys_ike().unwrap();
            let new = || match &ends.swan.sas()[..] {
                [sa] => sa.value("initiator-spi") != before.value("initiator-spi"),
                _ => false,
            };
            assert!(eventually(PROMPT, new), "{caller:?}: {:?}", ends.swan.sas());
            assert_eq!(ends.swan.sa().child("spi-in"), before.child("spi-in"));
            traffic.goes_on();
        }
        traffic.ends_complete();
    }
}

///  a, which replaces all keys, == b
#[test]
fn we_rekey() {
    for (caller, ike, esp) in [
        (Caller::Us, "chacha20poly1305-prfsha256-x25519", "chacha20poly1305"),
        (Caller::Them, "aes256gcm16-prfsha256-ecp256", "aes256gcm16-ecp256"),
    ] {
        let (_lab, sites) = sites();
        let ends = Story::psk(caller).proposals(ike, esp).connects(&sites);
        let traffic = Traffic::starts(&sites);
        for _ in 0..TIMES {
            let before = ends.swan.sa();
            ends.us.rekeys();
            let new = || match &ends.swan.sas()[..] {
                [sa] => {
                    sa.value("initiator-spi") != before.value("initiator-spi")
                        && sa.child("spi-in") != before.child("spi-in")
                }
                _ => false,
            };
            assert!(eventually(PROMPT, new), "{caller:?}: {:?}", ends.swan.sas());
            traffic.goes_on();
        }
        traffic.ends_complete();
    }
}

///  a and b, which both replace all keys, again and again, at the same time
#[test]
fn both_rekey_at_once() {
    let (_lab, sites) = sites();
    let ends = Story::keys(Caller::Us, &sites).connects(&sites);
    let traffic = Traffic::starts(&sites);
    for round in 0..6 {
        let ours = || ends.us.rekeys();
        let theirs = || {
            // What it refuses because it is at it already is what this is about.
            let _ = if round % 2 == 0 { ends.swan.rekeys_child() } else { ends.swan.rekeys_ike() };
        };
        std::thread::scope(|scope| {
            scope.spawn(ours);
            theirs();
        });
        traffic.goes_on();
    }
    traffic.ends_complete();
    assert!(ends.swan.sa().is_up());
}

///  a == b, two of ours, which replace all keys by turns and at once
#[test]
fn two_of_ours_rekey() {
    let (_lab, sites) = sites();
    let (of_a, of_b) = two_of_ours(&sites);
    let (b, a) = (sites.b.starts(&of_b), sites.a.starts(&of_a));
    assert!(sites.client.reaches_within("10.2.0.2", PROMPT), "{}", a.show());
    let traffic = Traffic::starts(&sites);
    // More often within seconds, and there is no room beside the SAs that are kept for stragglers.
    for round in 0..3 {
        let before = a.counter("spi_in");
        if round % 3 != 1 {
            a.rekeys();
        }
        if round % 3 != 0 {
            b.rekeys();
        }
        assert!(eventually(PROMPT, || a.counter("spi_in") != before), "{}", a.show());
        traffic.goes_on();
    }
    traffic.ends_complete();
    assert_eq!(a.counter("spi_in"), b.counter("spi_out"), "{}\n{}", a.show(), b.show());
}

///  a == b, two of ours, which replace all keys while TCP takes all that the tunnel carries
#[test]
fn a_rekey_under_full_load() {
    let (_lab, sites) = sites();
    let (of_a, of_b) = two_of_ours(&sites);
    let (b, a) = (sites.b.starts(&of_b), sites.a.starts(&of_a));
    assert!(sites.client.reaches_within("10.2.0.2", PROMPT), "{}", a.show());
    std::thread::scope(|scope| {
        let transfer = scope.spawn(|| sites.client.tcp(&sites.server, ip("10.2.0.2"), 300_000_000));
        let mut times = 0;
        while !transfer.is_finished() {
            if times % 2 == 0 {
                a.rekeys()
            } else {
                b.rekeys()
            }
            times += 1;
            std::thread::sleep(Duration::from_millis(250));
        }
        transfer.join().unwrap().unwrap();
        assert!(times > 3, "the transfer was too quick for that");
    });
    // Nothing was sealed for an SA that the other end did not have, or had no more.
    for end in [&a, &b] {
        for discard in ["no_sa", "unknown_spi", "bad_icv", "replayed", "too_old"] {
            assert_eq!(end.counter(discard), 0, "{discard}: {}", end.json());
        }
    }
}
