//! A gateway, all of its peers, and one machine behind it.
//!
//! ```text
//!  lan 10.1.0.2 ---- 10.1.0.1 hub 192.0.2.1 ==== 192.0.2.2 world: all peers, each with its address
//! ```
//!
//! Packets are put on the cables in bursts, while the daemon stands still, and it is then let go:
//! so it meets the same queues whatever the speed of the sender, and its processor time divided by
//! the packets it took is what one costs: system calls, routing and the way to the next machine
//! included. Whatever arrives anywhere is dropped there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use simplevpn::crypto::Key;
use simplevpn_core::crypto::{Cipher, SALT_LEN, Salt};
use simplevpn_core::esp::{self, OutboundSequence};
use simplevpn_core::sad::OutboundSa;
use simplevpn_core::wire::esp::NextHeader;
use simplevpn_core::{HEADROOM, PacketBuf, TAILROOM};
use simplevpn_tests::lab::daemon::{Keys, Peer, Vpn};
use simplevpn_tests::lab::raw::{ip_packet, udp_packet};
use simplevpn_tests::lab::{Host, Lab};
use smoltcp::wire::Ipv4Packet;

use super::wire::Wire;
use crate::program::End;
use crate::subjects::launch;

/// Packets in a burst: what fits the queues of a TUN device and of a socket.
const BURST: usize = 400;
/// How long the daemon may take for a burst.
const PATIENCE: Duration = Duration::from_secs(2);
/// A protocol for experiments: nothing that anybody would join to longer packets.
const PROTOCOL: u8 = 253;
const HUB: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const LAN: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
const NAT_PORT: u16 = 4500;

/// The direction of packets, as the hub sees it.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Way {
    Sealing,
    Opening,
}

/// How many peers have the packets of a round.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Talk {
    One,
    All,
}

pub(super) struct Gateway {
    pub(super) ready: Duration,
    pub(super) end: End,
    encap: &'static str,
    peers: Vec<Remote>,
    hub: Host,
    from_lan: Wire,
    from_world: Wire,
    /// State of the order in which peers talk.
    random: u32,
    _lab: Lab,
}

/// A peer, seen from its own end.
struct Remote {
    number: u32,
    sa: OutboundSa<Key>,
}

impl Remote {
    /// Where it is.
    fn address(&self) -> Ipv4Addr {
        let [_, _, high, low] = self.number.to_be_bytes();
        Ipv4Addr::new(198, 18, high, low)
    }

    /// A machine behind it.
    fn host(&self) -> Ipv4Addr {
        let [_, _, high, low] = self.number.to_be_bytes();
        Ipv4Addr::new(10, 100 + high, low, 9)
    }

    fn new(number: u32, keys: &Keys, cipher: Cipher) -> Option<Remote> {
        let hex = |at: usize| u8::from_str_radix(keys.key_in.get(at..at + 2)?, 16).ok();
        let keymat: Option<Vec<u8>> = (0..keys.key_in.len()).step_by(2).map(hex).collect();
        let keymat = keymat?;
        let (key, salt) = keymat.split_last_chunk::<SALT_LEN>()?;
        let (key, salt) = (Key::new(cipher, key).ok()?, Salt::new(*salt));
        let sequence = OutboundSequence::new(true);
        Some(Remote { number, sa: OutboundSa { spi: keys.spi_in, key, salt, sequence } })
    }

    /// An inner packet of `len` bytes to the machine behind the hub, on its way.
    fn packet(&mut self, len: usize, encap: &str) -> Option<Vec<u8>> {
        let inner = inner(self.host(), LAN, len);
        let mut bytes = [&[0; HEADROOM][..], &inner, &[0; TAILROOM]].concat();
        let mut packet = PacketBuf::new(&mut bytes, HEADROOM, len).ok()?;
        esp::seal(&mut self.sa, &mut packet, NextHeader::Ipv4).ok()?;
        let (from, to) = (IpAddr::from(self.address()), IpAddr::from(HUB));
        Some(match encap {
            "udp" => {
                let [from, to] = [from, to].map(|address| SocketAddr::new(address, NAT_PORT));
                udp_packet(from, to, packet.as_slice())
            }
            _ => ip_packet(from, to, simplevpn_core::wire::esp::PROTOCOL, packet.as_slice()),
        })
    }
}

fn inner(from: Ipv4Addr, to: Ipv4Addr, len: usize) -> Vec<u8> {
    ip_packet(from.into(), to.into(), PROTOCOL, &vec![0x5a; len - 20])
}

impl Gateway {
    /// Starts a hub that has so many peers.
    pub(super) fn new(count: u32, encap: &'static str, cipher: Cipher) -> Result<Gateway, String> {
        let lab = Lab::new();
        let [lan, hub, world] = lab.hosts(["lan", "hub", "world"]);
        lab.link(lan.port("eth0", "10.1.0.2/24"), hub.port("lan", "10.1.0.1/24"));
        lab.link(hub.port("wan", "192.0.2.1/24"), world.port("eth0", "192.0.2.2/24"));
        hub.forwards().default_via("192.0.2.2");
        for host in [&lan, &world] {
            host.feed(
                "nft -f -",
                "add table ip lab\nadd chain ip lab drop_all { type filter hook prerouting priority \
                 -300; policy drop; }\n",
            );
        }
        let mut vpn = Vpn::new();
        let mut peers = Vec::new();
        for number in 0..count {
            let mut keys = Keys::pair_of(cipher.name()).0;
            (keys.spi_in, keys.spi_out) = (0x100 + number, 0x100 + number);
            let remote = Remote::new(number, &keys, cipher).ok_or("no key")?;
            let peer = Peer::new(&format!("peer{number}"), &keys).option("encap", encap);
            let peer = peer.at(&remote.address().to_string());
            let [_, _, high, low] = number.to_be_bytes();
            vpn = vpn.peer(peer.allowed(&format!("10.{}.{low}.0/24", 100 + high)));
            peers.push(remote);
        }
        let (end, ready) = launch(&hub, &vpn)?;
        let wire = |from: &Host, there: &str| {
            Wire::new(from, "eth0", &hub, there).map_err(|error| format!("a cable: {error}"))
        };
        let (from_lan, from_world) = (wire(&lan, "lan")?, wire(&world, "wan")?);
        let random = 1;
        Ok(Gateway { ready, end, encap, peers, hub, from_lan, from_world, random, _lab: lab })
    }

    /// Nanoseconds of the daemon's processor time per packet of `len` bytes, `count` of them.
    pub(super) fn round(
        &mut self,
        way: Way,
        talk: Talk,
        len: usize,
        count: usize,
    ) -> Result<f64, String> {
        let order = self.order(talk, count);
        let (mut cpu, mut taken) = (Duration::ZERO, 0);
        for burst in order.chunks(BURST) {
            let packets = self.packets(way, len, burst).ok_or("a packet was not sealed")?;
            let (begin, before) = (self.end.cpu()?, self.taken(way)?);
            self.burst(way, &packets)?;
            self.rests(before + packets.len() as u64, way)?;
            cpu += self.end.cpu()? - begin;
            taken += self.taken(way)? - before;
        }
        if taken * 10 < count as u64 * 9 {
            return Err(format!("of {count} packets it took {taken}:\n{}", self.end.last_words()));
        }
        Ok(cpu.as_nanos() as f64 / taken as f64)
    }

    /// Whose packets these are, in an order that nobody guesses; each peer once in turn.
    fn order(&mut self, talk: Talk, count: usize) -> Vec<usize> {
        let all = self.peers.len();
        if talk == Talk::One {
            return vec![all / 2; count];
        }
        let mut order: Vec<usize> = (0..all).cycle().take(count).collect();
        for at in (1..count).rev() {
            // Xorshift.
            self.random ^= self.random << 13;
            self.random ^= self.random >> 17;
            self.random ^= self.random << 5;
            order.swap(at, self.random as usize % (at + 1));
        }
        order
    }

    fn packets(&mut self, way: Way, len: usize, order: &[usize]) -> Option<Vec<Vec<u8>>> {
        let Gateway { peers, encap, .. } = self;
        order
            .iter()
            .enumerate()
            .map(|(turn, at)| {
                let peer = peers.get_mut(*at)?;
                if way == Way::Opening {
                    return peer.packet(len, encap);
                }
                let mut packet = inner(LAN, peer.host(), len);
                // Each another traffic class than the one before: what leaves for one peer is not
                // handed to the kernel as one message either.
                let mut header = Ipv4Packet::new_unchecked(&mut packet);
                header.set_dscp(if turn % 2 == 0 { 0 } else { 8 });
                header.fill_checksum();
                Some(packet)
            })
            .collect()
    }

    fn burst(&mut self, way: Way, packets: &[Vec<u8>]) -> Result<(), String> {
        self.signal(Signal::SIGSTOP)?;
        let wire = if way == Way::Sealing { &mut self.from_lan } else { &mut self.from_world };
        let sent = wire.send(packets);
        self.signal(Signal::SIGCONT)?;
        sent.map_err(|error| format!("sending: {error}"))
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        let pid = Pid::from_raw(self.end.pid() as i32);
        kill(pid, signal).map_err(|error| format!("{signal}: {error}"))
    }

    /// Waits until it has taken so many packets, or no more.
    fn rests(&self, until: u64, way: Way) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        let mut before = Duration::MAX;
        while Instant::now() < deadline {
            sleep(Duration::from_millis(1));
            let cpu = self.end.cpu()?;
            if cpu == before
                && (self.taken(way)? >= until || deadline - Instant::now() < PATIENCE / 2)
            {
                return Ok(());
            }
            before = cpu;
        }
        Err(format!("it does not come to rest:\n{}", self.end.last_words()))
    }

    /// Packets that the daemon has read from its device, or written to it.
    fn taken(&self, way: Way) -> Result<u64, String> {
        let text = self.hub.within(|| std::fs::read_to_string("/proc/thread-self/net/dev"));
        let text = text.map_err(|error| format!("/proc/net/dev: {error}"))?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("vpn0:"));
        let column = if way == Way::Opening { 1 } else { 9 };
        let count = line.and_then(|line| line.split_whitespace().nth(column)?.parse().ok());
        count.ok_or(format!("no vpn0 in /proc/net/dev:\n{text}"))
    }
}
