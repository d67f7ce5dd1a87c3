//! With name servers of our own in network namespaces, in virtual time where nothing answers.

use std::net::UdpSocket;
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::dns::tests::{answer, record};
use super::*;
use crate::netns::{Scratch, sh, within};

const MARK: u32 = 0x5300_0000;
const START: Instant = Instant::from_millis(1_000_000);
const TO_QUESTION: [u8; 2] = [0xc0, 12];

fn settings(scratch: &Path) -> Settings {
    let [hosts, conf, memory] = ["hosts", "resolv.conf", "memory"].map(|n| scratch.join(n));
    fs::write(&hosts, "").unwrap();
    fs::write(&conf, "nameserver 192.0.2.53\n").unwrap();
    let auto = scratch.join("auto");
    Settings { resolv_conf: vec![conf, auto], hosts, memory: Some(memory), ..Settings::new(MARK) }
}

fn server(address: &str) -> UdpSocket {
    sh(&format!("ip address add {address}/32 dev lo"));
    let socket = UdpSocket::bind((address, 53)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

fn serve(socket: &UdpSocket, mut with: impl FnMut(&[u8]) -> Vec<Vec<u8>>) {
    let mut buffer = [0; 512];
    let (len, from) = socket.recv_from(&mut buffer).expect("a query");
    for message in with(&buffer[..len]) {
        socket.send_to(&message, from).unwrap();
    }
}

/// The type a query asks for.
fn asked(query: &[u8]) -> u8 {
    query[query.len() - 3]
}

fn readable(resolver: &Resolver, millis: u16) -> bool {
    let mut fds = [PollFd::new(resolver.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(millis)).unwrap() > 0
}

/// Lets it work until it knows something, without letting time pass.
fn next(resolver: &mut Resolver, now: Instant) -> Event {
    loop {
        if let Some(event) = resolver.poll_event() {
            return event;
        }
        assert!(readable(resolver, 5000), "nothing comes");
        resolver.handle_readable(now);
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn resolved(name: &str, addresses: &[&str]) -> Event {
    Event::Resolved { name: name.into(), addresses: addresses.iter().map(|a| ip(a)).collect() }
}

fn both(query: &[u8]) -> Vec<Vec<u8>> {
    let record = match asked(query) {
        1 => record(&TO_QUESTION, 1, 120, &[198, 51, 100, 7]),
        _ => record(&TO_QUESTION, 28, 600, &[0x20; 16]),
    };
    vec![answer(query, 0, &[record])]
}

const SIX: &str = "2020:2020:2020:2020:2020:2020:2020:2020";

#[test]
fn both_families_are_found_and_asked_for_again() {
    within(|| {
        let scratch = Scratch::new();
        let dns = server("192.0.2.53");
        let mut resolver = Resolver::new(settings(scratch.path())).unwrap();
        assert_eq!(resolver.poll_timeout(), None);
        resolver.watch("vpn.example.net", START);
        assert_eq!(resolver.poll_timeout(), Some(START));
        let mut now = START;
        for _ in 0..2 {
            resolver.handle_timeout(now);
            serve(&dns, both);
            serve(&dns, both);
            let expected = resolved("vpn.example.net", &["198.51.100.7", SIX]);
            assert_eq!(next(&mut resolver, now), expected);
            now = now.saturating_add(Duration::from_secs(120));
            assert_eq!(resolver.poll_timeout(), Some(now), "the shorter time to live");
        }
        assert_eq!(resolver.last("vpn.example.net").len(), 2);
        resolver.forget("vpn.example.net");
        assert_eq!(resolver.poll_timeout(), None);
        // A restart remembers.
        let mut resolver = Resolver::new(settings(scratch.path())).unwrap();
        resolver.watch("vpn.example.net", START);
        assert_eq!(resolver.last("vpn.example.net"), [ip("198.51.100.7"), ip(SIX)]);
    });
}

#[test]
fn the_hosts_file_comes_first() {
    let scratch = Scratch::new();
    let settings = settings(scratch.path());
    fs::write(&settings.hosts, "192.0.2.9 gw vpn.example.net\n").unwrap();
    let mut resolver = Resolver::new(settings).unwrap();
    resolver.watch("VPN.example.net", START);
    resolver.handle_timeout(START);
    assert_eq!(resolver.poll_event(), Some(resolved("VPN.example.net", &["192.0.2.9"])));
}

#[test]
fn forged_answers_do_not_count() {
    within(|| {
        let scratch = Scratch::new();
        let dns = server("192.0.2.53");
        let mut resolver = Resolver::new(settings(scratch.path())).unwrap();
        resolver.watch("vpn.example.net", START);
        resolver.handle_timeout(START);
        let elsewhere = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..2 {
            let mut buffer = [0; 512];
            let (len, from) = dns.recv_from(&mut buffer).unwrap();
            let query = &buffer[..len];
            let evil = [record(&TO_QUESTION, asked(query).into(), 9999, &[66; 4])];
            elsewhere.send_to(&answer(query, 0, &evil), from).unwrap();
            let mut other_id = answer(query, 0, &evil);
            other_id[0] ^= 1;
            let mut other_name = answer(query, 0, &evil);
            other_name[13] ^= 1;
            for message in [other_id, other_name, vec![0; 3], vec![0xff; 512]] {
                dns.send_to(&message, from).unwrap();
            }
            dns.send_to(&both(query)[0], from).unwrap();
        }
        let expected = resolved("vpn.example.net", &["198.51.100.7", SIX]);
        assert_eq!(next(&mut resolver, START), expected);
    });
}

#[test]
fn queries_carry_the_mark_and_differ_in_id_and_port() {
    within(|| {
        let scratch = Scratch::new();
        let dns = server("192.0.2.53");
        sh("nft 'table inet t { chain o { type filter hook output priority 0; udp dport 53 \
            meta mark != 0x53000000 drop; }; }'");
        let mut resolver = Resolver::new(settings(scratch.path())).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for round in 0..8 {
            resolver.watch(&format!("n{round}.example.net"), START);
        }
        resolver.handle_timeout(START);
        for _ in 0..16 {
            let mut buffer = [0; 512];
            let (_, from) = dns.recv_from(&mut buffer).expect("only marked packets arrive");
            seen.insert((buffer[0], buffer[1], from.port()));
        }
        let ids: std::collections::BTreeSet<_> = seen.iter().map(|s| (s.0, s.1)).collect();
        let ports: std::collections::BTreeSet<_> = seen.iter().map(|s| s.2).collect();
        assert!(ids.len() > 12 && ports.len() > 12, "{seen:?}");
    });
}

#[test]
fn silence_leads_to_the_next_server_and_failure_to_pauses() {
    within(|| {
        let scratch = Scratch::new();
        let (mute, dns) = (server("192.0.2.53"), server("192.0.2.54"));
        let settings = settings(scratch.path());
        let conf = &settings.resolv_conf[0];
        fs::write(conf, "nameserver 192.0.2.53\nnameserver 192.0.2.54\n").unwrap();
        let conf = conf.clone();
        let mut resolver = Resolver::new(settings).unwrap();
        resolver.watch("vpn.example.net", START);
        resolver.handle_timeout(START);
        let mut now = resolver.poll_timeout().unwrap();
        assert_eq!(now, START.saturating_add(PATIENCE));
        resolver.handle_timeout(now);
        serve(&dns, both);
        serve(&dns, |_| vec![]);
        assert!(readable(&resolver, 1000));
        resolver.handle_readable(now);
        assert_eq!(resolver.poll_event(), None, "the other family may still answer");
        now = resolver.poll_timeout().unwrap();
        resolver.handle_timeout(now);
        let event = resolver.poll_event().unwrap();
        assert!(matches!(&event, Event::Resolved { addresses, .. } if addresses.len() == 1));

        let good = resolver.last("vpn.example.net").to_vec();
        fs::write(conf, "nameserver 192.0.2.53\n").unwrap();
        let mut pauses = Vec::new();
        for _ in 0..9 {
            now = resolver.poll_timeout().unwrap();
            let failed = loop {
                resolver.handle_timeout(now);
                match resolver.poll_event() {
                    Some(event) => break event,
                    None => now = resolver.poll_timeout().unwrap(),
                }
            };
            let reason = "no name server answers";
            assert_eq!(failed, Event::Failed { name: "vpn.example.net".into(), reason });
            pauses.push(resolver.poll_timeout().unwrap().saturating_since(now).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(resolver.last("vpn.example.net"), good, "the last good address is remembered");
        drop(mute);
    });
}

#[test]
fn failures_say_why() {
    within(|| {
        let scratch = Scratch::new();
        let dns = server("192.0.2.53");
        for (rcode, reason) in [(3, NO_SUCH_NAME), (0, "the name has no address")] {
            let mut resolver = Resolver::new(settings(scratch.path())).unwrap();
            resolver.watch("vpn.example.net", START);
            resolver.handle_timeout(START);
            for _ in 0..2 {
                serve(&dns, |query| vec![answer(query, rcode, &[])]);
            }
            let expected = Event::Failed { name: "vpn.example.net".into(), reason };
            assert_eq!(next(&mut resolver, START), expected);
        }
        // Nobody listens: no need to wait for the end of the server's time.
        drop(dns);
        let mut resolver = Resolver::new(settings(scratch.path())).unwrap();
        resolver.watch("vpn.example.net", START);
        resolver.watch("not a name", START);
        resolver.handle_timeout(START);
        let reason = "this cannot be the name of a host";
        assert_eq!(
            resolver.poll_event(),
            Some(Event::Failed { name: "not a name".into(), reason })
        );
        // The kernel tells of closed ports only so often in a second, to all of the machine.
        let mut now = START;
        while !readable(&resolver, 1200) {
            now = resolver.poll_timeout().unwrap();
            resolver.handle_timeout(now);
        }
        let reason = "the name servers do not tell";
        let expected = Event::Failed { name: "vpn.example.net".into(), reason };
        assert_eq!(next(&mut resolver, now), expected);
    });
}

#[test]
fn a_forwarder_on_this_machine_is_passed_over() {
    let scratch = Scratch::new();
    let settings = settings(scratch.path());
    let [conf, auto] = [0, 1].map(|n| settings.resolv_conf[n].clone());
    fs::write(&conf, "nameserver 127.0.0.1\nnameserver ::1\n").unwrap();
    let text = |files: &[PathBuf]| upstream(files).first().map(SocketAddr::to_string);
    let files = [conf, auto.clone()];
    assert_eq!(text(&files).as_deref(), Some("127.0.0.1:53"), "better than nothing");
    fs::write(&auto, "# Interface wan\nnameserver 192.0.2.1\n").unwrap();
    assert_eq!(text(&files).as_deref(), Some("192.0.2.1:53"));
    assert_eq!(text(&[]), None);
}
