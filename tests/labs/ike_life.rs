//! IKE with strongSwan when an end goes away: closed in good order, killed, frozen, and back.
//!
//! ```text
//!   client -- a simplevpn ======== ESP in UDP ======== strongSwan b -- server
//!   10.1.0.2    192.0.2.1                               192.0.2.2    10.2.0.2
//! ```

use std::time::Duration;

use simplevpn_tests::lab::ip;
use simplevpn_tests::lab::process::eventually;

use crate::ike::{Caller, Ends, PROMPT, Story, Traffic, sites};

/// How long either end may take to find out that there is nobody any more, and to begin anew.
const LIVENESS: Duration = Duration::from_secs(30);

///  a, which calls again == b, which closes
#[test]
fn strongswan_closes_and_is_called_again() {
    let (_lab, sites) = sites();
    let ends = Story::psk(Caller::Us).connects(&sites);
    let before = ends.swan.sa();
    ends.swan.terminates().unwrap();
    assert!(sites.client.reaches_within("10.2.0.2", PROMPT), "{}", ends.us.show());
    assert_ne!(ends.swan.sa().value("initiator-spi"), before.value("initiator-spi"));
}

///  a, which always wants SAs and has nothing to say == b, which deletes them and keeps the IKE SA
#[test]
fn strongswan_deletes_the_child_and_is_asked_for_another() {
    let (_lab, sites) = sites();
    let ends = Story::psk(Caller::Us).connects(&sites);
    let before = ends.swan.sa();
    // Nothing of the traffic that has connected them is left.
    std::thread::sleep(Duration::from_secs(2));
    for _ in 0..2 {
        ends.swan.terminates_child().unwrap();
        let up = || matches!(&ends.swan.sas()[..], [sa] if sa.is_up());
        assert!(eventually(PROMPT, up), "{}\n{}", ends.us.show(), ends.us.log());
        ends.we_log("down: they deleted the SAs for packets");
    }
    assert_eq!(ends.swan.sa().value("initiator-spi"), before.value("initiator-spi"));
    assert!(sites.client.pings("10.2.0.2"));
}

///  a, which only answers == b, which deletes the SAs and keeps the IKE SA
#[test]
fn strongswan_deletes_the_child_and_we_say_so() {
    let (_lab, sites) = sites();
    let ends = Story::psk(Caller::Them).connects(&sites);
    ends.swan.terminates_child().unwrap();
    ends.we_say("without SAs: they deleted the SAs for packets");
    assert!(!ends.us.show().contains("they closed the connection"), "{}", ends.us.show());
}

///  a, which only answers == b, which closes
#[test]
fn strongswan_closes_and_we_say_so() {
    let (_lab, sites) = sites();
    let ends = Story::psk(Caller::Them).connects(&sites);
    let wire = sites.a.capture("wan");
    ends.swan.terminates().unwrap();
    ends.we_say("they closed the connection");
    assert_eq!(sites.client.ping_sized(ip("10.2.0.2"), 56, 1).right, 0);
    wire.finish().assert_none("in the clear", |frame| frame.concerns(ip("10.2.0.2")));
    ends.swan.initiates().unwrap();
    assert!(sites.client.reaches_within("10.2.0.2", PROMPT));
}

///  a, which is asked to end == b, which learns of it
#[test]
fn we_close_in_good_order() {
    for caller in Caller::BOTH {
        let (_lab, sites) = sites();
        let Ends { us, swan } = Story::psk(caller).connects(&sites);
        assert!(us.stops().success());
        assert!(eventually(PROMPT, || swan.sas().is_empty()), "{caller:?}: {:?}", swan.sas());
        assert!(swan.log().contains("received DELETE for IKE_SA"), "{caller:?}");
    }
}

///  a, killed and started again, == b
#[test]
fn we_are_killed_and_start_again() {
    let (_lab, sites) = sites();
    let story = Story::psk(Caller::Us);
    let Ends { us, swan } = story.connects(&sites);
    us.dies();
    let wire = sites.a.capture("wan");
    assert_eq!(sites.client.ping_sized(ip("10.2.0.2"), 56, 1).right, 0);
    let _us = sites.a.starts(&story.our_end());
    assert!(sites.client.reaches_within("10.2.0.2", PROMPT));
    wire.finish().assert_none("in the clear", |frame| frame.concerns(ip("10.2.0.2")));
    // INITIAL_CONTACT: b keeps nothing of what was before.
    assert!(swan.sa().is_up());
}

///  a == b, killed and started again, which calls
#[test]
fn strongswan_is_killed_and_calls_again() {
    let (_lab, sites) = sites();
    let story = Story::psk(Caller::Them);
    let Ends { us, swan } = story.connects(&sites);
    swan.dies();
    let swan = sites.b.runs_strongswan(&story.connection);
    swan.initiates().unwrap();
    assert!(sites.client.reaches_within("10.2.0.2", PROMPT), "{}", us.show());
    assert!(swan.sa().is_up());
}

///  a, which calls == b, killed and started again, of which a has to find out by itself
#[test]
fn strongswan_is_killed_and_called_again() {
    let (_lab, sites) = sites();
    let story = Story::psk(Caller::Us);
    let Ends { us, swan } = story.connects(&sites);
    swan.dies();
    let swan = sites.b.runs_strongswan(&story.connection);
    assert!(sites.client.reaches_within("10.2.0.2", LIVENESS), "{}", us.show());
    assert!(swan.sa().is_up());
}

///  a, which is gone without a word == b, which asks every second
#[test]
fn strongswan_finds_out_that_we_are_gone() {
    let (_lab, sites) = sites();
    let story = Story::psk(Caller::Them).theirs(|c| c.option("dpd_delay", "1s"));
    let Ends { us, swan } = story.connects(&sites);
    // As long as we are there, that is what it hears.
    assert!(eventually(PROMPT, || swan.log().matches("sending DPD request").count() >= 2));
    assert!(swan.sa().is_up());
    us.dies();
    assert!(eventually(LIVENESS, || swan.sas().is_empty()), "{:?}", swan.sas());
}

///  a, with a new configuration in the middle of traffic == b
#[test]
fn a_reload_disturbs_nobody() {
    let (_lab, sites) = sites();
    let story = Story::psk(Caller::Us);
    let mut ends = story.connects(&sites);
    let before = ends.swan.sa();
    let traffic = Traffic::starts(&sites);
    for _ in 0..3 {
        ends.us.reloads(&story.our_end());
        traffic.goes_on();
    }
    traffic.ends_complete();
    assert_eq!(ends.swan.sa().value("initiator-spi"), before.value("initiator-spi"));
}

///  client, which has nothing to say at first -- a, which calls when it has == b
#[test]
fn a_call_when_there_is_traffic() {
    let (_lab, sites) = sites();
    let (ends, _) = Story::psk(Caller::Us).ours("start", "traffic").begins(&sites.a, &sites.b);
    std::thread::sleep(Duration::from_secs(1));
    assert!(ends.swan.sas().is_empty(), "nothing was to be said");
    assert!(sites.client.reaches_within("10.2.0.2", PROMPT), "{}", ends.us.show());
    assert!(ends.swan.sa().is_up());
}
