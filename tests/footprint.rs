//! What the daemon takes of a machine: resident memory, idle and under load, and the time from its
//! start to its first encrypted packet. `openwrt/footprint` builds and starts it.
//!
//! `SIMPLEVPN_BIN` is the daemon, or an emulator and the daemon; with the argument `--time` only
//! the time is measured, since an emulator's memory says nothing.

use std::io;
use std::net::UdpSocket;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use simplevpn_tests::lab::daemon::{Daemon, Keys, Peer, Vpn};
use simplevpn_tests::lab::sites::Sites;
use simplevpn_tests::lab::{Host, Lab, ip};

const SERVER: &str = "10.2.0.2";
/// How long an emulated daemon may take until the test is given up.
const PATIENCE: Duration = Duration::from_secs(20);
const LOAD: Duration = Duration::from_secs(2);
const STARTS: usize = 5;

fn main() -> ExitCode {
    let only_time = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--time") => true,
        Some(_) => {
            eprintln!("usage: footprint [--time]");
            return ExitCode::from(2);
        }
    };
    if !only_time {
        for encap in ["esp", "udp"] {
            memory(encap);
        }
    }
    let mut times: Vec<Duration> = (0..STARTS).map(|_| first_packet()).collect();
    times.sort();
    let [least, .., most] = times.as_slice() else { return ExitCode::FAILURE };
    println!("start to first encrypted packet, {STARTS} times: {least:.0?} to {most:.0?}");
    ExitCode::SUCCESS
}

/// `client -- a == b -- server`
fn memory(encap: &str) {
    let lab = Lab::new();
    let sites = Sites::new(&lab);
    let Sites { client, a, b, server } = &sites;
    let (of_a, of_b) = sites.configurations(Keys::pair(), false, encap);
    let daemon = a.starts(&of_a);
    let _other = b.starts(&of_b);
    assert!(client.reaches_within(SERVER, Duration::from_secs(5)), "{encap}: no ping");
    let idle = resident(&daemon);
    let both = load(client, server, SERVER).and_then(|()| load(server, client, "10.1.0.2"));
    if let Err(error) = both {
        panic!("{encap}: load: {error}");
    }
    println!("resident memory, {encap}: idle {idle} KiB, under load {} KiB", resident(&daemon));
}

/// TCP as fast as it goes, and a flood of datagrams that fill the link's MTU.
fn load(from: &Host, to: &Host, address: &str) -> io::Result<()> {
    from.tcp(to, ip(address), 50_000_000)?;
    from.udp_load(to, ip(address), 1300, None, LOAD)?;
    Ok(())
}

/// The most that was ever resident, in KiB: pages that were touched are not given back.
fn resident(daemon: &Daemon) -> u64 {
    let path = format!("/proc/{}/status", daemon.pid());
    let status = std::fs::read_to_string(&path).unwrap_or_default();
    let field = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = field.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse().ok());
    kib.unwrap_or_else(|| panic!("{path} does not tell VmHWM"))
}

/// How long it takes until what `a` sends to b's subnet arrives at b encrypted.
fn first_packet() -> Duration {
    let lab = Lab::new();
    let [a, b] = lab.hosts(["a", "b"]);
    lab.link(a.port("wan", "192.0.2.1/24"), b.port("wan", "192.0.2.2/24"));
    a.pings("192.0.2.2");
    let listen = || UdpSocket::bind("192.0.2.2:4500");
    let (Ok(arrivals), Ok(source)) = (b.within(listen), a.within(|| UdpSocket::bind("0.0.0.0:0")))
    else {
        panic!("cannot open sockets");
    };
    // The socket's own time-out is the pace of what is sent.
    let pace = arrivals.set_read_timeout(Some(Duration::from_millis(2)));
    assert!(pace.is_ok(), "{pace:?}");
    let peer = Peer::new("b", &Keys::pair().0).at("192.0.2.2").allowed("10.2.0.0/24");
    let peer = peer.option("encap", "udp");
    let started = Instant::now();
    let daemon = a.launches(&Vpn::new().peer(peer));
    while started.elapsed() < PATIENCE {
        // Without a route, or with an unreachable one, it fails, and is sent again.
        let _ = source.send_to(b"hello", "10.2.0.2:9");
        if arrivals.recv(&mut [0; 2048]).is_ok() {
            return started.elapsed();
        }
    }
    panic!("no encrypted packet within {PATIENCE:?}:\n{}", daemon.log());
}
