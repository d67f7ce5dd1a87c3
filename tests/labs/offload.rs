//! Offloads: super-packets and unfinished checksums in, sealed segments through the tunnel, and
//! super-packets out again. Whatever either kernel takes or refuses, what arrives is what was sent.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use simplevpn_tests::lab::daemon::{Daemon, Keys};
use simplevpn_tests::lab::{Host, Lab, ip, traffic::any};

use crate::topology::{Sites, assert_secret};

///  client 10.1.0.2 -- lan a wan 192.0.2.1 == 192.0.2.2 wan b lan -- 10.2.0.2 server
///         fd01::2               fd00::1      fd00::2                fd02::2
///
/// The cables of both LANs carry super-packets, so that the gateways meet them.
fn sites(lab: &Lab) -> Sites {
    let sites = Sites::new(lab);
    for (host, interface) in
        [(&sites.client, "eth0"), (&sites.a, "lan"), (&sites.b, "lan"), (&sites.server, "eth0")]
    {
        host.offloads(interface, true);
    }
    sites
}

fn set(socket: &UdpSocket, name: i32, value: i32) {
    // SAFETY: the kernel reads one int.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_UDP,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Sends runs of datagrams, each run with one system call, and compares what arrives: every
/// datagram as long as it was, with the bytes it had, in order.
fn runs_of_datagrams_arrive(client: &Host, server: &Host, address: IpAddr) {
    let sink = server.within(|| UdpSocket::bind((any(address), 0))).unwrap();
    sink.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let to = SocketAddr::new(address, sink.local_addr().unwrap().port());
    let source = client.within(|| UdpSocket::bind((any(address), 0))).unwrap();
    let mut buffer = vec![0; 1 << 16];
    for (segment, total) in [(1000, 3500), (1, 40), (2, 63), (1301, 1301 * 40 + 17), (1200, 1199)] {
        set(&source, libc::UDP_SEGMENT, segment as i32);
        let text: Vec<u8> = (0..total).map(|at: usize| (at / 7 + at) as u8).collect();
        source.send_to(&text, to).unwrap();
        for sent in text.chunks(segment) {
            match sink.recv(&mut buffer) {
                Ok(len) => assert_eq!(&buffer[..len], sent, "{total} bytes cut at {segment}"),
                Err(error) => panic!("{total} bytes cut at {segment} to {address}: {error}"),
            }
        }
    }
    sink.set_nonblocking(true).unwrap();
    assert_eq!(sink.recv(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock, "one too many");
}

/// How many packets in the tunnel there were for each one that was read from the TUN device, and
/// for each one that was written to it: a super-packet counts as one there.
fn joined(host: &Host, daemon: &Daemon) -> [f64; 2] {
    let table = host.within(|| std::fs::read_to_string("/proc/thread-self/net/dev")).unwrap();
    let line = table.lines().find_map(|line| line.trim().strip_prefix("vpn0:")).unwrap();
    let fields: Vec<f64> = line.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let json = daemon.json();
    let tunnel = |way: &str| {
        let (_, rest) = json.split_once(&format!("\"{way}\":{{\"packets\":")).unwrap();
        rest.split(',').next().unwrap().parse::<f64>().unwrap()
    };
    [tunnel("sent") / fields[9], tunnel("received") / fields[1]]
}

/// Everything both ways, byte by byte. Returns how far streams were joined at a and b.
fn exchange(sites: &Sites, a: &Daemon, b: &Daemon) -> [[f64; 2]; 2] {
    let Sites { client, server, .. } = sites;
    for (of_server, of_client) in [("10.2.0.2", "10.1.0.2"), ("fd02::2", "fd01::2")] {
        for (from, to, address) in [(client, server, of_server), (server, client, of_client)] {
            let address = ip(address);
            from.tcp(to, address, 6_000_001).unwrap();
            for size in [0, 1, 2, 3, 511, 1371, 1372, 1373, 1399, 4001] {
                let answers = from.udp(to, address, size, 3).unwrap();
                assert!(answers.all(), "{size} bytes to {address}: {answers:?}");
            }
        }
    }
    let ratios = [joined(&sites.a, a), joined(&sites.b, b)];
    for (of_server, of_client) in [("10.2.0.2", "10.1.0.2"), ("fd02::2", "fd01::2")] {
        runs_of_datagrams_arrive(client, server, ip(of_server));
        runs_of_datagrams_arrive(server, client, ip(of_client));
    }
    for daemon in [a, b] {
        for counter in ["tun_refused", "malformed", "bad_icv", "outside_selector", "send_error"] {
            assert_eq!(daemon.counter(counter), 0, "{counter}: {}", daemon.json());
        }
    }
    ratios
}

/// A tunnel between gateways that `prepare` has made what they are; `adjust` changes their devices.
/// `at_a` and `at_b`: whether super-packets are read from TUN and written to it there.
fn passes(
    encap: &str,
    prepare: impl Fn(&Sites),
    adjust: impl Fn(&Sites),
    at_a: [bool; 2],
    at_b: [bool; 2],
) {
    let lab = Lab::new();
    let sites = sites(&lab);
    prepare(&sites);
    let (a, b) = sites.configurations(Keys::pair_of("aes128gcm16"), false, encap);
    let (a, b) = (sites.a.starts(&a), sites.b.starts(&b));
    adjust(&sites);
    let wire = sites.a.capture("wan");
    let ratios = exchange(&sites, &a, &b);
    assert_secret(&wire.finish());
    let seen = ratios.map(|ways| ways.map(|ratio| ratio > 1.5));
    assert_eq!(seen, [at_a, at_b], "{encap}: {ratios:?}");
}

const BOTH: [bool; 2] = [true, true];
/// Super-packets are not read, but written.
const WRITTEN: [bool; 2] = [false, true];

fn wire_offloads(sites: &Sites) {
    sites.a.offloads("wan", true);
    sites.b.offloads("wan", true);
}

///  client -- a == b -- server, and every cable carries super-packets
#[test]
fn on_everywhere() {
    for encap in ["udp", "esp"] {
        passes(encap, wire_offloads, |_| (), BOTH, BOTH);
    }
}

///  client -- a == b -- server, and the cable between the gateways is as real ones are
#[test]
fn off_on_the_wire() {
    for encap in ["udp", "esp"] {
        passes(encap, |_| (), |_| (), BOTH, BOTH);
    }
}

///  client -- a == b -- server: the kernel at a cuts and sums all itself on its way into TUN, and
///  its LAN joins nothing
#[test]
fn off_at_one_end() {
    let off = |sites: &Sites| {
        for interface in ["vpn0", "lan"] {
            sites.a.offloads(interface, false);
        }
        sites.client.offloads("eth0", false);
    };
    passes("udp", wire_offloads, off, WRITTEN, BOTH);
}

///  client -- a == b -- server, and no device of any kernel takes more than single packets
#[test]
fn off_into_tun_at_both_ends() {
    let off = |sites: &Sites| {
        for (host, interface) in [
            (&sites.client, "eth0"),
            (&sites.a, "lan"),
            (&sites.a, "vpn0"),
            (&sites.b, "vpn0"),
            (&sites.b, "lan"),
            (&sites.server, "eth0"),
        ] {
            host.offloads(interface, false);
        }
    };
    passes("udp", |_| (), off, WRITTEN, WRITTEN);
}

///  client -- a, with an old kernel == b -- server, and the other way round, and both
#[test]
fn kernels_without_offloads_of_udp() {
    for (a, b) in [(true, false), (false, true), (true, true)] {
        let prepare = |sites: &Sites| {
            wire_offloads(sites);
            for (host, old) in [(&sites.a, a), (&sites.b, b)] {
                if old {
                    host.has_an_old_kernel();
                }
            }
        };
        passes("udp", prepare, |_| (), BOTH, BOTH);
    }
}

///  client -- a == b -- server, and every packet of a capable flow bears a congestion mark when it
///  leaves a
#[test]
fn congestion_marks_reach_the_ends() {
    for wire in [true, false] {
        let lab = Lab::new();
        let sites = sites(&lab);
        if wire {
            wire_offloads(&sites);
        }
        for host in [&sites.client, &sites.server] {
            host.sysctl("ipv4/tcp_ecn", "1");
        }
        sites.a.feed(
            "nft -f -",
            "add table inet congested\n\
             add chain inet congested out { type filter hook postrouting priority 0; }\n\
             add rule inet congested out oifname wan ip ecn ect0 ip ecn set ce\n",
        );
        let (a, b) = sites.configurations(Keys::pair_of("aes128gcm16"), false, "udp");
        let (_a, b) = (sites.a.starts(&a), sites.b.starts(&b));
        let marked = |host: &Host| {
            let table = host.within(|| std::fs::read_to_string("/proc/thread-self/net/netstat"));
            let table = table.unwrap();
            let mut lines = table.lines().filter(|line| line.starts_with("IpExt:"));
            let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
            let at = names.split(' ').position(|name| name == "InCEPkts").unwrap();
            values.split(' ').nth(at).unwrap().parse::<u64>().unwrap()
        };
        for address in ["10.2.0.2", "fd02::2"] {
            let before = marked(&sites.server);
            sites.client.tcp(&sites.server, ip(address), 1_000_000).unwrap();
            if !address.contains(':') {
                assert!(marked(&sites.server) > before + 20, "{}", marked(&sites.server));
            }
        }
        assert_eq!(b.counter("congestion"), 0, "{}", b.json());
    }
}
