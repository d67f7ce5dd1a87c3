//! Full queues: what is for one peer does not hold up what is for another.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use simplevpn_tests::lab::daemon::{Daemon, Keys, Peer, Vpn};
use simplevpn_tests::lab::{Host, Lab, ip};

/// For how long the slow uplink is given more than it carries.
const SPAN: Duration = Duration::from_secs(6);
/// From then on its queue is full.
const FULL: Duration = Duration::from_secs(2);
/// Echo requests to the other peer meanwhile, 2 ms apart.
const PINGS: u32 = 1500;

///  a wan1 192.0.2.1 --- 2 Mbit/s, a long queue --- 192.0.2.2 b    10.77.0.2
///    wan2 198.51.100.1 -------- idle -------- 198.51.100.2 c      10.77.0.3
///    10.77.0.1
struct Uplinks {
    a: Host,
    b: Host,
    slow: IpAddr,
    idle: IpAddr,
    daemons: [Daemon; 3],
}

impl Uplinks {
    fn new(lab: &Lab, encap: &str) -> Uplinks {
        let [a, b, c] = lab.hosts(["a", "b", "c"]);
        lab.link(a.port("wan1", "192.0.2.1/24"), b.port("wan1", "192.0.2.2/24"));
        lab.link(a.port("wan2", "198.51.100.1/24"), c.port("wan2", "198.51.100.2/24"));
        a.run("tc qdisc add dev wan1 root handle 1: tbf rate 2mbit burst 16k limit 100k");
        a.run(&format!("tc qdisc add dev wan1 parent 1:1 pfifo limit {}", longest_queue()));
        let (a_to_b, at_b) = Keys::pair();
        let (a_to_c, at_c) = Keys::pair();
        let peer = |name, keys: &Keys, address| {
            Peer::new(name, keys).allowed(address).option("encap", encap)
        };
        let of_a = Vpn::new()
            .address("10.77.0.1/32")
            .peer(peer("b", &a_to_b, "10.77.0.2/32").at("192.0.2.2"))
            .peer(peer("c", &a_to_c, "10.77.0.3/32").at("198.51.100.2"));
        let of = |address: &str, keys, endpoint| {
            Vpn::new().address(address).peer(peer("a", keys, "10.77.0.1/32").at(endpoint))
        };
        let daemons = [
            b.starts(&of("10.77.0.2/32", &at_b, "192.0.2.1")),
            c.starts(&of("10.77.0.3/32", &at_c, "198.51.100.1")),
            a.starts(&of_a),
        ];
        let (slow, idle) = (ip("10.77.0.2"), ip("10.77.0.3"));
        assert!(a.pings("10.77.0.2") && a.pings("10.77.0.3"), "{}", daemons[2].log());
        Uplinks { a, b, slow, idle, daemons }
    }

    /// How many echo requests to c were not answered while the queue to b fills up or is full.
    fn lost(&self) -> u32 {
        PINGS - self.a.ping_times(self.idle, PINGS).len() as u32
    }

    /// What of a's packets did not leave, by the reason.
    fn dropped(&self, why: &str) -> u64 {
        self.daemons[2].counter(why)
    }
}

/// A modem's queue, in packets. Where the kernel does not let the daemon have a larger send buffer
/// than anybody, less than what that holds.
fn longest_queue() -> u32 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    if setsockopt(&socket, sockopt::SndBufForce, &(1 << 20)).is_ok() { 1000 } else { 150 }
}

/// 10 Mbit/s of datagrams, five times what the uplink carries.
fn flood_costs_another_peer_nothing(encap: &str) {
    let lab = Lab::new();
    let net = Uplinks::new(&lab, encap);
    let (flooded, lost) = std::thread::scope(|scope| {
        let flood = || net.a.udp_load(&net.b, net.slow, 1200, Some(1000.0), SPAN);
        let flood = scope.spawn(flood);
        std::thread::sleep(FULL);
        let lost = net.lost();
        (flood.join().unwrap().unwrap(), lost)
    });
    let full = net.dropped("send_queue_full");
    println!("{encap}: {flooded:?}, {full} packets met a full queue; pings lost: {lost}");
    assert_eq!(lost, 0, "of {PINGS} pings to the idle peer");
    assert!(full > 0, "it is the device's queue that drops");
    assert_eq!(net.dropped("send_buffer_full"), 0);
}

fn streams_cost_another_peer_nothing(encap: &str) {
    let lab = Lab::new();
    let net = Uplinks::new(&lab, encap);
    let (lost, rate) = net.a.tcp_load(&net.b, net.slow, 8, || net.lost()).unwrap();
    println!("{encap}: {:.1} Mbit/s to the slow peer; pings lost: {lost}", rate * 8e-6);
    assert_eq!(lost, 0, "of {PINGS} pings to the idle peer");
    assert!(rate * 8e-6 > 1.0, "the streams carry {:.2} Mbit/s", rate * 8e-6);
}

#[test]
fn a_flood_to_a_slow_peer_costs_another_peer_nothing_over_udp() {
    flood_costs_another_peer_nothing("udp");
}

#[test]
fn a_flood_to_a_slow_peer_costs_another_peer_nothing_over_esp() {
    flood_costs_another_peer_nothing("esp");
}

#[test]
fn streams_to_a_slow_peer_cost_another_peer_nothing_over_udp() {
    streams_cost_another_peer_nothing("udp");
}

#[test]
fn streams_to_a_slow_peer_cost_another_peer_nothing_over_esp() {
    streams_cost_another_peer_nothing("esp");
}
