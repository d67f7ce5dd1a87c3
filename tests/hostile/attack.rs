//! The attack on a tunnel, and what has to hold after every packet.

use std::fmt;
use std::time::Duration;

use simplevpn_core::esp;
use simplevpn_core::{Discard, Discards, Emit, Event, PacketBuf, Path, PeerId};
use smoltcp::wire::IpAddress;

use super::Random;
use super::exchanges;
use super::packets::{mutate, packet};
use super::states;
use super::targets::{Target, sample};
use super::world::{Choices, Family, PEERS, World, local, offset, path, prefixes, them, us};

const DUMMY: u8 = 59;

/// How many packets met which end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Delivered: to the host, or (packets and fragments) to the wire.
    pub delivered: u64,
    /// Dropped, by reason.
    pub discards: Discards,
}

impl Tally {
    /// All packets.
    pub fn total(&self) -> u64 {
        self.delivered + self.discards.iter().map(|(_, count)| count).sum::<u64>()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {:20}{:>12}", "delivered", self.delivered)?;
        for (why, count) in self.discards.iter().filter(|(_, count)| *count > 0) {
            writeln!(f, "  {:20}{count:>12}", why.name())?;
        }
        Ok(())
    }
}

/// Attacks a tunnel from both sides. Panics when the tunnel does what it must not do.
pub struct Attack {
    world: World,
    random: Random,
    /// Authentic packets that were received already.
    received: Vec<(usize, Vec<u8>)>,
    /// What became of the packets to the opener.
    pub inbound: Tally,
    /// What became of the packets to the sealer.
    pub outbound: Tally,
}

impl Attack {
    /// A new tunnel, and the attack that `seed` stands for.
    pub fn new(seed: u64) -> Attack {
        let tally = Tally::default();
        let (world, random) = (World::new(), Random::new(seed));
        Attack { world, random, received: Vec::new(), inbound: tally, outbound: tally }
    }

    /// One packet from the wire.
    pub fn inbound(&mut self) {
        match self.random.below(10) {
            0 => self.noise(),
            1 => self.replay(),
            2 | 3 => self.altered(),
            4 => self.honest(),
            _ => self.misbehaving_peer(),
        }
    }

    /// Random bytes, some behind an SPI of ours.
    fn noise(&mut self) {
        let random = &mut self.random;
        let len = random.length(9000);
        let mut bytes = random.bytes(len);
        if let Some(spi) = bytes.first_chunk_mut::<4>()
            && !random.one_in(4)
        {
            *spi = self.world.remotes[random.below(PEERS)].spi.to_be_bytes();
        }
        let traffic_class = random.byte();
        assert!(self.receive(&bytes, traffic_class).is_err(), "noise is not authentic");
    }

    /// An authentic packet once more.
    fn replay(&mut self) {
        if self.received.is_empty() {
            return self.honest();
        }
        let at = self.random.below(self.received.len());
        let (_, bytes) = self.received[at].clone();
        let result = self.receive(&bytes, 0);
        let expected = [Discard::Replayed, Discard::TooOld, Discard::BadIcv];
        assert!(result.is_err_and(|why| expected.contains(&why)), "{result:?} for a replay");
    }

    /// An authentic packet changed on its way.
    fn altered(&mut self) {
        let peer = self.next_peer();
        let inner = self.honest_inner(peer);
        let bytes = self.sealed(peer, &inner);
        let mut altered = bytes.clone();
        mutate(&mut self.random, &mut altered);
        let result = self.receive(&altered, 0);
        assert!(altered == bytes || result.is_err(), "an altered packet was delivered");
    }

    /// What a peer should send; it must arrive.
    fn honest(&mut self) {
        let peer = self.next_peer();
        let inner = self.honest_inner(peer);
        let bytes = self.sealed(peer, &inner);
        let result = self.receive(&bytes, 0);
        assert_eq!(result, Ok(PeerId(peer as u32)), "{} bytes", inner.len());
        self.remember(peer, bytes);
    }

    /// Authentic packets, whatever is in them.
    fn misbehaving_peer(&mut self) {
        let peer = self.next_peer();
        let random = &mut self.random;
        let bytes = match random.below(50) {
            0 => {
                let len = random.length(200);
                let payload = random.bytes(len);
                self.sealed_as(peer, &payload, DUMMY, None)
            }
            1 => {
                let (next_header, wrong) = (random.byte(), random.byte());
                let inner = self.honest_inner(peer);
                self.sealed_as(peer, &inner, next_header, Some(wrong))
            }
            _ => {
                let mut inner = self.honest_inner(peer);
                mutate(&mut self.random, &mut inner);
                self.sealed(peer, &inner)
            }
        };
        let traffic_class = self.random.byte();
        let result = self.receive(&bytes, traffic_class);
        let forged = [Discard::BadIcv, Discard::Replayed, Discard::TooOld, Discard::UnknownSpi];
        assert!(!result.is_err_and(|why| forged.contains(&why)), "{result:?}, but authentic");
        self.remember(peer, bytes);
    }

    fn remember(&mut self, peer: usize, bytes: Vec<u8>) {
        if self.received.len() < 64 {
            self.received.push((peer, bytes));
        } else {
            let at = self.random.below(64);
            self.received[at] = (peer, bytes);
        }
    }

    /// A peer, whose sequence number may just have leapt; without ESN, as far as it goes.
    fn next_peer(&mut self) -> usize {
        let peer = self.random.below(PEERS);
        let number = &mut self.world.remotes[peer].number;
        if self.random.one_in(100) {
            *number += self.random.number() >> self.random.pick(&[33, 40, 50, 58]);
        }
        let last = if peer == 1 { u64::from(u32::MAX) } else { u64::MAX / 2 };
        if *number >= last || self.random.one_in(100_000) {
            self.received.retain(|(of, _)| *of != peer);
            self.world.renew(peer, self.random.number() as u32);
        }
        peer
    }

    fn honest_inner(&mut self, peer: usize) -> Vec<u8> {
        let family = self.random.pick(&[Family::V4, Family::V6]);
        packet(&mut self.random, them(peer, family), us(family))
    }

    fn sealed(&mut self, peer: usize, inner: &[u8]) -> Vec<u8> {
        let next_header = match inner.first().map(|first| first >> 4) {
            Some(6) => 41,
            _ => 4,
        };
        self.sealed_as(peer, inner, next_header, None)
    }

    /// Sealed with padding of any length, sometimes with TFC padding; `wrong` is a pad length.
    fn sealed_as(
        &mut self,
        peer: usize,
        inner: &[u8],
        next_header: u8,
        wrong: Option<u8>,
    ) -> Vec<u8> {
        let random = &mut self.random;
        let len = random.pick(&[0, 1, 2, 3, 3, 255]);
        let mut payload = inner.to_vec();
        if random.one_in(10) {
            let len = random.length(500);
            payload.extend(random.bytes(len));
        }
        let choices = Choices {
            iv: random.number().to_be_bytes(),
            padding: &Vec::from_iter(1..=len),
            pad_len: wrong.unwrap_or(len),
            next_header,
        };
        self.world.remotes[peer].seal(&payload, &choices)
    }

    /// An authentic packet of one peer, all of whose plaintext is `text`'s choice.
    pub(super) fn plaintext(&mut self, text: &[u8]) {
        let Some((&[peer, pad_len, next_header, traffic_class], inner)) = text.split_first_chunk()
        else {
            return;
        };
        let choices = Choices { iv: [0; 8], padding: &[], pad_len, next_header };
        let bytes = self.world.remotes[usize::from(peer) % PEERS].seal(inner, &choices);
        let _counted = self.receive(&bytes, traffic_class);
    }

    /// Opens `bytes`, and checks that this is counted once, as what it was.
    pub(super) fn receive(&mut self, bytes: &[u8], traffic_class: u8) -> Result<PeerId, Discard> {
        let from = path(self.random.below(PEERS));
        let before = self.world.opener_counters();
        let now = self.world.now;
        let (result, opened) = self.world.with_packet(bytes, |tunnel, packet, _| {
            let result = tunnel.inbound(now, &from, traffic_class, packet);
            (result, result.is_ok().then(|| packet.as_slice().to_vec()))
        });
        let mut expected = before;
        match result {
            Ok(PeerId(peer)) => {
                self.inbound.delivered += 1;
                expected.1[peer as usize] += 1;
            }
            Err(why) => {
                self.inbound.discards.count(why);
                expected.0.count(why);
            }
        }
        assert_eq!(self.world.opener_counters(), expected, "counted once as {result:?}");
        if let (Ok(peer), Some(opened)) = (result, opened) {
            check_delivered(peer, &opened);
        }
        self.follow(from);
        result
    }

    /// Time passes, and peers are where they were before a packet came from elsewhere.
    fn follow(&mut self, from: Path) {
        let world = &mut self.world;
        world.now = world.now.saturating_add(Duration::from_millis(1));
        while let Some(event) = world.tunnel.poll_event() {
            if let Event::Moved(peer, to) = event {
                assert_eq!(to, from);
                world.tunnel.sealer.set_path(peer, Some(path(peer.index())));
            }
        }
    }

    /// One packet from the host: noise, well-formed, or spoilt, over paths of many MTUs.
    pub fn outbound(&mut self) {
        let peer = self.random.below(PEERS);
        let mtu = self.random.pick(&[0, 100, 576, 1280, 1500, 1500, 4200, 65_535]);
        self.world.tunnel.sealer.set_path_mtu(PeerId(peer as u32), mtu);
        let family = self.random.pick(&[Family::V4, Family::V6]);
        let destination = offset(peer).to_host(them(peer, family));
        let mut bytes = packet(&mut self.random, us(family), destination);
        match self.random.below(8) {
            0 => {
                let len = self.random.length(66_000);
                bytes = self.random.bytes(len);
            }
            1 | 2 => {}
            3 => self.looping(peer, family, &mut bytes),
            _ => mutate(&mut self.random, &mut bytes),
        }
        self.send(&bytes);
    }

    /// Makes the packet look like ESP under the SPI that the tunnel itself uses.
    fn looping(&mut self, peer: usize, family: Family, bytes: &mut [u8]) {
        let (protocol, header) = if family == Family::V4 { (9, 20) } else { (6, 40) };
        bytes[protocol] = 50;
        if let Some(spi) = bytes.get_mut(header..header + 4) {
            spi.copy_from_slice(&self.world.remotes[peer].inbound.spi.to_be_bytes());
        }
    }

    /// One spoilt input for one of the checks.
    pub fn parsers(&mut self, (name, target): &(&str, Target)) {
        match *name {
            "ike_exchanges" => return target(&exchanges::input(&mut self.random)),
            "ike_states" => return target(&states::input(&mut self.random)),
            _ => {}
        }
        let peer = self.random.below(PEERS);
        let inner = self.honest_inner(peer);
        let mut input = sample(name, inner);
        mutate(&mut self.random, &mut input);
        target(&input);
    }

    /// Seals `bytes`, checks that this is counted, and opens what comes out at the far end.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        let before = self.world.sealer_counters();
        let now = self.world.now;
        let (mut wire, mut host) = (Vec::new(), Vec::new());
        let result = self.world.with_packet(bytes, |tunnel, packet, scratch| {
            tunnel.outbound(now, packet, scratch, |emit| match emit {
                Emit::Wire(transmit, esp) => {
                    assert_eq!(transmit.len, esp.len());
                    wire.push((transmit.path, esp.to_vec()));
                }
                Emit::Host(answer) => host.push(answer.to_vec()),
            })
        });
        let mut expected = before;
        expected.1 += wire.len() as u64;
        self.outbound.delivered += wire.len() as u64;
        if let Err(why) = result {
            expected.0.count(why);
            self.outbound.discards.count(why);
        }
        assert_eq!(self.world.sealer_counters(), expected, "counted once as {result:?}");
        assert!(result.is_err() || !wire.is_empty(), "neither delivered nor counted");
        assert!(host.is_empty() || result == Err(Discard::TooBig), "{result:?} with an answer");
        host.iter().for_each(|answer| check_answer(answer, bytes));
        wire.into_iter().for_each(|(path, esp)| self.far_end(&path, esp));
        self.world.now = now.saturating_add(Duration::from_millis(1));
    }

    /// What leaves the tunnel is authentic ESP for the peer, in wire space.
    fn far_end(&mut self, to: &Path, mut esp: Vec<u8>) {
        let peer = (0..PEERS).find(|peer| path(*peer) == *to).unwrap();
        let len = esp.len();
        let mut packet = PacketBuf::new(&mut esp, 0, len).unwrap();
        esp::open(&mut self.world.remotes[peer].inbound, &mut packet).unwrap();
        let (_, destination) = addresses(packet.as_slice());
        let destination = IpAddress::from(offset(peer).to_host(destination.into()));
        assert!(prefixes(peer).iter().any(|prefix| prefix.contains_addr(&destination)));
    }
}

/// What the tunnel delivers is one whole IP packet between the peer and what we let it reach.
fn check_delivered(peer: PeerId, opened: &[u8]) {
    let (source, destination) = addresses(opened);
    let peer = peer.index();
    assert!(prefixes(peer).iter().any(|prefix| prefix.contains_addr(&source)), "{source}");
    assert!(local(peer).contain(destination.into()), "{destination}");
}

/// An answer goes back to where the packet came from.
fn check_answer(answer: &[u8], offending: &[u8]) {
    let (from, to) = addresses(answer);
    let len = total_len(offending);
    assert_eq!(addresses(&offending[..len]), (to, from));
}

fn total_len(packet: &[u8]) -> usize {
    let word = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    if packet[0] >> 4 == 4 { word(2) } else { 40 + word(4) }
}

/// Source and destination of a whole IP packet.
fn addresses(packet: &[u8]) -> (IpAddress, IpAddress) {
    assert_eq!(total_len(packet), packet.len(), "a packet is as long as it says");
    let at = |at: usize| match packet[0] >> 4 {
        4 => std::net::IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap()),
        _ => std::net::IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap()),
    };
    let (source, destination) = if packet[0] >> 4 == 4 { (12, 16) } else { (8, 24) };
    (at(source).into(), at(destination).into())
}

impl World {
    /// The opener's drops, and packets opened by peer.
    fn opener_counters(&self) -> (Discards, [u64; PEERS]) {
        let opener = &self.tunnel.opener;
        let packets = |peer| opener.peer(PeerId(peer as u32)).unwrap().traffic().packets;
        (*opener.discards(), std::array::from_fn(packets))
    }

    /// The sealer's drops, and packets sealed.
    fn sealer_counters(&self) -> (Discards, u64) {
        let sealer = &self.tunnel.sealer;
        (*sealer.discards(), sealer.peers().map(|(_, peer)| peer.traffic().packets).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(default: u64) -> u64 {
        std::env::var("HOSTILE_PACKETS").map_or(default, |count| count.parse().unwrap())
    }

    #[test]
    fn every_packet_from_the_wire_is_delivered_or_counted_once() {
        let count = packets(20_000);
        let mut attack = Attack::new(1);
        (0..count).for_each(|_| attack.inbound());
        assert_eq!(attack.inbound.total(), count);
        let Tally { delivered, discards } = attack.inbound;
        assert!(delivered > count / 10, "the attack gets behind the AEAD\n{}", attack.inbound);
        use Discard::*;
        for why in [
            UnknownSpi,
            Replayed,
            TooOld,
            BadIcv,
            BadPadding,
            Dummy,
            Congestion,
            OutsideSelector,
            Malformed,
        ] {
            assert!(discards.get(why) > 0, "the attack never leads to {why:?}\n{}", attack.inbound);
        }
    }

    #[test]
    fn every_packet_from_the_host_is_sent_or_counted_once() {
        let mut attack = Attack::new(2);
        (0..packets(20_000)).for_each(|_| attack.outbound());
        let Tally { delivered, discards } = attack.outbound;
        assert!(delivered > 0);
        use Discard::*;
        for why in [NoPolicy, Loop, TooBig, OutsideSelector, Malformed, NoRoom] {
            assert!(discards.get(why) > 0, "never leads to {why:?}\n{}", attack.outbound);
        }
    }
}
