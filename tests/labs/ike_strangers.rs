//! Strangers on the link, who send first messages of IKE under any name.
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
use simplevpn_tests::lab::raw::udp_packet;
use simplevpn_tests::lab::{Host, Lab, ip};

use crate::ike::{PROMPT, two_of_ours};
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
