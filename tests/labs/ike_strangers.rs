//! Strangers on the link, who send first messages of IKE under any name; and what is told of those
//! who cannot get in.
//!
//! ```text
//!   stranger 192.0.2.3 ---+
//!   client -- a 192.0.2.1 =+= 192.0.2.2 b -- server
//!   10.1.0.2                                 10.2.0.2
//! ```

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use simplevpn_tests::lab::capture::Kind;
use simplevpn_tests::lab::daemon::Daemon;
use simplevpn_tests::lab::process::eventually;
use simplevpn_tests::lab::raw::udp_packet;
use simplevpn_tests::lab::{Host, Lab, ip};

use crate::ike::{Caller, PROMPT, Story, sites, two_of_ours};
use crate::topology::Sites;

/// How long a flood lasts.
const FLOOD: Duration = Duration::from_secs(6);
/// Between two datagrams of the traffic that is watched.
const PACE: Duration = Duration::from_millis(2);

/// Two gateways that are connected, a stranger, and the first message of the connection.
struct Flooded {
    _lab: Lab,
    sites: Sites,
    stranger: Host,
    daemons: [Daemon; 2],
    request: Vec<u8>,
}

impl Flooded {
    fn new() -> Flooded {
        let lab = Lab::new();
        let sites = Sites::apart(&lab);
        let stranger = lab.host("stranger");
        lab.switch([
            sites.a.port("wan", "192.0.2.1/24 fd00::1/64"),
            sites.b.port("wan", "192.0.2.2/24 fd00::2/64"),
            stranger.port("wan", "192.0.2.3/24 fd00::3/64"),
        ]);
        let (of_a, of_b) = two_of_ours(&sites);
        let wire = sites.a.capture("wan");
        let daemons = [sites.b.starts(&of_b), sites.a.starts(&of_a)];
        assert!(sites.client.reaches_within("10.2.0.2", PROMPT), "{}", daemons[1].show());
        let seen = wire.finish();
        let first = seen.frames.iter().find(|frame| frame.kind == Kind::Ike).unwrap();
        let request = first.packet()[28..].to_vec();
        Flooded { _lab: lab, sites, stranger, daemons, request }
    }

    /// What arrives of a stream each way while b is asked for connections from addresses on the
    /// link that nobody has.
    fn streams_during_flood(&self, port: u16, ipv6: bool) {
        let (client, server) = (&self.sites.client, &self.sites.server);
        let stop = AtomicBool::new(false);
        let before = self.unanswered();
        std::thread::scope(|scope| {
            let (stranger, request) = (&self.stranger, &self.request);
            scope.spawn(|| flood(stranger, request, (port, ipv6), &stop));
            let there = client.streams_to(server, ip("10.2.0.2"), PACE);
            let back = server.streams_to(client, ip("10.1.0.2"), PACE);
            std::thread::sleep(FLOOD);
            let accounts = [there.ends(), back.ends()];
            stop.store(true, Ordering::Relaxed);
            println!("port {port}, IPv6 {ipv6}: there {:?}; back {:?}", accounts[0], accounts[1]);
            for account in accounts {
                let few = account.sent as usize / 200;
                assert!(
                    account.sent > 500 && account.lost.len() <= few,
                    "port {port}: {account:?}"
                );
            }
        });
        let unanswered = self.unanswered() - before;
        println!("{unanswered} answers were not sent");
        assert!(unanswered > 100, "the flood was too little to fill anything: {unanswered}");
    }

    /// How many answers to strangers b has not sent.
    fn unanswered(&self) -> u64 {
        self.daemons[0].counter("send_stranger")
    }
}

/// First messages, each with another SPI, from addresses on the link that nobody has.
fn flood(stranger: &Host, request: &[u8], (port, ipv6): (u16, bool), stop: &AtomicBool) {
    let marker: &[u8] = if port == 4500 { &[0; 4] } else { &[] };
    let to = SocketAddr::new(ip(if ipv6 { "fd00::2" } else { "192.0.2.2" }), port);
    let mut n = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let mut message = [marker, request].concat();
        message[marker.len()..][..4].copy_from_slice(&n.to_be_bytes());
        let last = n % 180 + 64;
        let from = if ipv6 { format!("fd00::{last:x}") } else { format!("192.0.2.{last}") };
        let packet = udp_packet(SocketAddr::new(ip(&from), port), to, &message);
        stranger.send_packet(&packet).unwrap();
        if n.is_multiple_of(10) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

///  stranger, as everyone who is not there -- b, whose answers nobody takes; a == b undisturbed
#[test]
fn answers_that_nobody_takes_hold_up_no_packets() {
    let lab = Flooded::new();
    lab.streams_during_flood(4500, false);
    lab.streams_during_flood(500, false);
    lab.streams_during_flood(4500, true);
}

///  strongSwan b, which offers what gateways offer unless told otherwise -- a, which says what is missing
#[test]
fn an_offer_with_nothing_of_ours_is_told_with_what_ours_is() {
    let (_lab, sites) = sites();
    let story = Story::psk(Caller::Them);
    let story = story.proposals("aes256-sha256-modp2048,3des-sha1-modp1024", "aes256gcm16");
    let (ends, outcome) = story.begins(&sites.a, &sites.b);
    assert!(outcome.is_err());
    ends.we_log(
        "(theirs: aes-cbc-256, prfsha256, modp2048, 3des, prfsha1, modp1024; ours: aes256gcm16, \
         aes128gcm16, chacha20poly1305, prfsha256, x25519, p256)",
    );
    assert!(ends.us.counter("ike_no_proposal") > 0, "{}", ends.us.json());
    drop(ends);

    let story = Story::psk(Caller::Them);
    let story = story.proposals("aes256gcm16-prfsha256-x25519", "aes256-sha256,aes128-sha1");
    let (ends, outcome) = story.begins(&sites.a, &sites.b);
    assert!(outcome.is_err());
    ends.we_log("for ESP (theirs: aes-cbc-256, aes-cbc-128; ours: aes256gcm16, ");
    ends.we_say("without SAs: proposal refused: they offer no algorithms of ours for ESP");
}

/// A first message of version 1 of IKE: cookies, next payload SA, version 1.0, exchange 2. The rest
/// does not matter.
fn main_mode() -> [u8; 60] {
    let mut message = [7; 60];
    message[8..20].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 1, 0x10, 2, 0]);
    message
}

///  b, which seems to speak version 1 of IKE, and offers nothing of ours in version 2 -- a
#[test]
fn scanners_hide_nobody_in_the_log() {
    let (_lab, sites) = sites();
    let story = Story::psk(Caller::Them).proposals("aes256-sha256-modp2048", "aes256gcm16");
    let us = sites.a.starts(&story.our_end());
    let [from, to] = ["192.0.2.2:500", "192.0.2.1:500"].map(|it| it.parse().unwrap());
    sites.b.send_packet(&udp_packet(from, to, &main_mode())).unwrap();
    assert!(eventually(PROMPT, || us.log().contains("they speak IKEv1")), "{}", us.log());
    let swan = sites.b.runs_strongswan(&story.connection);
    assert!(swan.initiates().is_err());
    assert!(eventually(PROMPT, || us.log().contains("(theirs: aes-cbc-256, ")), "{}", us.log());
}

///  stranger, which speaks version 1 of IKE, or nothing that makes sense -- b
#[test]
fn who_speaks_another_protocol_is_counted_and_told_once() {
    let lab = Flooded::new();
    let b = &lab.daemons[0];
    let send = |message: &[u8]| {
        let [from, to] = ["192.0.2.3:500", "192.0.2.2:500"].map(|it| it.parse().unwrap());
        lab.stranger.send_packet(&udp_packet(from, to, message)).unwrap();
    };
    let main_mode = main_mode();
    let truncated = &lab.request[..lab.request.len() - 20];
    let mut unknown = lab.request.clone();
    // Of an IKE SA that nobody has.
    unknown[8..16].fill(9);
    unknown[18] = 36;
    for _ in 0..5 {
        send(&main_mode);
        send(truncated);
        send(&unknown);
    }
    for name in ["ike_v1", "ike_malformed", "ike_no_sa"] {
        let counted = || b.counter(name) == 5;
        let words = format!("5 {name}");
        assert!(eventually(PROMPT, counted) && b.show().contains(&words), "{name}: {}", b.show());
    }
    let told = b.log().matches("192.0.2.3 tried to connect: they speak IKEv1").count();
    assert_eq!(told, 1, "{}", b.log());
}
