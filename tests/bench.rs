//! What the tunnel costs on this machine, beside the same wires without it. `tests/bench` builds
//! and starts it.
//!
//! Every way to send through the tunnel has namespaces of its own, all in the same topology, and
//! all are measured in turns, round by round, since a machine's speed drifts. The wires take no
//! super-packets and no unfinished checksums, as real ones do not. Daemons, sender, receiver and
//! the wires themselves share this machine's cores.

use std::process::ExitCode;
use std::time::Duration;

use simplevpn_tests::lab::daemon::{Daemon, Keys, Peer, Vpn};
use simplevpn_tests::lab::{Host, Lab, ip};

/// How long and how often.
struct Effort {
    rounds: usize,
    /// Of each TCP stream and each flood of datagrams.
    span: Duration,
    pings: u32,
}

const WHOLE: Effort = Effort { rounds: 5, span: Duration::from_millis(1500), pings: 500 };
const QUICK: Effort = Effort { rounds: 3, span: Duration::from_millis(300), pings: 100 };

/// Bytes of payload in each datagram of a flood: small, so that it is packets that count.
const DATAGRAM: usize = 64;
const SERVER: &str = "10.2.0.2";

/// `client -- a == b -- server`, with or without a tunnel between a and b.
struct Way {
    name: String,
    client: Host,
    server: Host,
    _daemons: Vec<Daemon>,
    _lab: Lab,
    /// Bytes of TCP that take about as long as wanted.
    stream: u64,
}

/// What was measured in one round.
#[derive(Clone, Copy)]
struct Figures {
    /// Mbit/s of one TCP stream.
    tcp: f64,
    /// Datagrams a second that arrived.
    udp: f64,
    /// Microseconds.
    ping_p50: f64,
    ping_p99: f64,
}

fn main() -> ExitCode {
    let effort = match std::env::args().nth(1).as_deref() {
        None => WHOLE,
        Some("--quick") => QUICK,
        Some(_) => {
            eprintln!("usage: bench [--quick]");
            return ExitCode::from(2);
        }
    };
    println!(
        "client ---- a ==== b ---- server, in namespaces; {} rounds in turns; median [least - most]\n\
         x: beside no tunnel in the same round\n",
        effort.rounds
    );
    let mut ways = vec![Way::new(None, &effort)];
    for encap in ["esp", "udp"] {
        for cipher in ["chacha20poly1305", "aes128gcm16"] {
            ways.push(Way::new(Some((encap, cipher)), &effort));
        }
    }
    let rounds: Vec<Vec<Figures>> = (0..effort.rounds)
        .map(|_| ways.iter_mut().map(|way| way.measure(&effort)).collect())
        .collect();
    for (title, figure) in [
        ("one TCP stream, Mbit/s", (|f| f.tcp) as fn(&Figures) -> f64),
        ("datagrams of 64 bytes a second that arrive of a flood", |f| f.udp),
        ("ping, microseconds, median of a round", |f| f.ping_p50),
        ("ping, microseconds, 99th percentile of a round", |f| f.ping_p99),
    ] {
        println!("{title}");
        for (at, way) in ways.iter().enumerate() {
            let [median, least, most] =
                spread(rounds.iter().filter_map(|r| Some(figure(r.get(at)?))));
            let ratios =
                rounds.iter().filter_map(|r| Some(figure(r.get(at)?) / figure(r.first()?)));
            let [ratio, low, high] = spread(ratios);
            let range = format!("[{least:.0} - {most:.0}]");
            println!(
                "   {:22} {median:9.0} {range:20} x {ratio:.2} [{low:.2} - {high:.2}]",
                way.name
            );
        }
    }
    ExitCode::SUCCESS
}

impl Way {
    /// With ESP like this between the gateways, or without.
    fn new(tunnel: Option<(&str, &'static str)>, effort: &Effort) -> Way {
        let lab = Lab::new();
        let [client, a, b, server] = lab.hosts(["client", "a", "b", "server"]);
        lab.link(client.port("eth0", "10.1.0.2/24"), a.port("lan", "10.1.0.1/24"));
        lab.link(a.port("wan", "192.0.2.1/24"), b.port("wan", "192.0.2.2/24"));
        lab.link(b.port("lan", "10.2.0.1/24"), server.port("eth0", "10.2.0.2/24"));
        client.default_via("10.1.0.1");
        server.default_via("10.2.0.1");
        a.forwards();
        b.forwards();
        let mut daemons = Vec::new();
        if let Some((encap, cipher)) = tunnel {
            let (at_a, at_b) = Keys::pair_of(cipher);
            let to_b = Peer::new("b", &at_a).at("192.0.2.2").allowed("10.2.0.0/24");
            let to_a = Peer::new("a", &at_b).at("192.0.2.1").allowed("10.1.0.0/24");
            daemons.push(a.starts(&Vpn::new().peer(to_b.option("encap", encap))));
            daemons.push(b.starts(&Vpn::new().peer(to_a.option("encap", encap))));
        } else {
            a.route("10.2.0.0/24", "192.0.2.2");
            b.route("10.1.0.0/24", "192.0.2.1");
        }
        assert!(client.reaches_within(SERVER, Duration::from_secs(5)), "{tunnel:?}: no ping");
        let name = tunnel.map_or("no tunnel".into(), |(encap, cipher)| {
            format!("{} {cipher}", if encap == "esp" { "ESP" } else { "UDP" })
        });
        let mut way = Way { name, client, server, _daemons: daemons, _lab: lab, stream: 3_000_000 };
        // Twice: the first stream is too short to tell how many bytes fill the time.
        for _ in 0..2 {
            let rate = way.tcp();
            way.stream = (rate * 1e6 / 8.0 * effort.span.as_secs_f64()) as u64;
        }
        way
    }

    fn tcp(&self) -> f64 {
        match self.client.tcp(&self.server, ip(SERVER), self.stream) {
            Ok(transfer) => transfer.rate(),
            Err(error) => panic!("{}: TCP: {error}", self.name),
        }
    }

    fn measure(&mut self, effort: &Effort) -> Figures {
        let pings = self.client.ping_times(ip(SERVER), effort.pings);
        let at = |share: f64| {
            let rank = (pings.len() as f64 * share) as usize;
            let time = pings.get(rank.min(pings.len().saturating_sub(1)));
            time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
        };
        let tcp = self.tcp();
        let udp = match self.client.udp_flood(&self.server, ip(SERVER), DATAGRAM, effort.span) {
            Ok(flood) => flood,
            Err(error) => panic!("{}: UDP: {error}", self.name),
        };
        Figures { tcp, udp, ping_p50: at(0.5), ping_p99: at(0.99) }
    }
}

/// Median, least and most.
fn spread(figures: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    [figures.len() / 2, 0, figures.len().saturating_sub(1)]
        .map(|at| figures.get(at).copied().unwrap_or(f64::NAN))
}
