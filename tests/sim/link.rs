//! The wire between the endpoints.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use simplevpn_core::path::Path;

use super::random::SplitMix64;

/// How long every packet is on its way, in ms.
const LATENCY: u64 = 5;

/// What the link does to packets, each in percent of all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Percent {
    /// Packets that vanish.
    pub lost: u64,
    /// Packets that arrive twice.
    pub duplicated: u64,
    /// Packets that a few later ones overtake.
    pub reordered: u64,
    /// Packets with one bit flipped, behind the outer headers: those have their own checksums.
    pub corrupted: u64,
    /// Packets that arrive up to 100 ms late.
    pub delayed: u64,
}

impl Percent {
    /// Nothing happens to any packet.
    pub const NONE: Percent =
        Percent { lost: 0, duplicated: 0, reordered: 0, corrupted: 0, delayed: 0 };

    /// All of it, equally often.
    pub fn of_each(percent: u64) -> Percent {
        Percent {
            lost: percent,
            duplicated: percent,
            reordered: percent,
            corrupted: percent,
            delayed: percent,
        }
    }
}

/// One packet on the wire, with its outer headers.
#[derive(Debug, Clone)]
pub struct Flight {
    /// Which of all packets sent it is.
    pub number: u64,
    /// The outer source.
    pub from: IpAddr,
    /// The outer destination.
    pub to: IpAddr,
    /// Bytes of outer headers in front of the ESP header.
    pub outer_len: usize,
    /// Outer IP packet.
    pub bytes: Vec<u8>,
    /// Whether a bit was flipped.
    pub altered: bool,
}

/// The link: packets by their time of arrival.
pub struct Link {
    /// What it does to packets from now on.
    pub percent: Percent,
    /// Keeps a copy of everything that was sent, as an eavesdropper would.
    pub recording: Option<Vec<Flight>>,
    random: SplitMix64,
    flights: BTreeMap<(u64, u64), Flight>,
    sent: u64,
    queued: u64,
    arrived: HashSet<u64>,
}

impl Link {
    /// A link whose misbehaviour follows from `seed`.
    pub fn new(percent: Percent, seed: u64) -> Link {
        Link {
            percent,
            recording: None,
            random: SplitMix64::new(seed),
            flights: BTreeMap::new(),
            sent: 0,
            queued: 0,
            arrived: HashSet::new(),
        }
    }

    /// How many packets were sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Sends a packet at `now`.
    pub fn send(&mut self, now: u64, path: &Path, bytes: Vec<u8>) {
        self.sent += 1;
        let (from, to, outer_len) = (path.local(), path.remote(), path.outer_len());
        let flight = Flight { number: self.sent, from, to, outer_len, bytes, altered: false };
        if let Some(recording) = &mut self.recording {
            recording.push(flight.clone());
        }
        if self.random.percent(self.percent.lost) {
            return;
        }
        if self.random.percent(self.percent.duplicated) {
            self.launch(now, flight.clone());
        }
        self.launch(now, flight);
    }

    fn launch(&mut self, now: u64, mut flight: Flight) {
        let mut arrival = now + LATENCY;
        if self.random.percent(self.percent.reordered) {
            arrival += 1 + self.random.below(3);
        }
        if self.random.percent(self.percent.delayed) {
            arrival += 10 + self.random.below(90);
        }
        if self.random.percent(self.percent.corrupted) {
            let bits = (flight.bytes.len() - flight.outer_len) as u64 * 8;
            let bit = self.random.below(bits) as usize;
            flight.bytes[flight.outer_len + bit / 8] ^= 1 << (bit % 8);
            flight.altered = true;
        }
        self.inject(arrival, flight);
    }

    /// Lets `flight` arrive at `arrival`, whatever the link does to others.
    pub fn inject(&mut self, arrival: u64, flight: Flight) {
        self.queued += 1;
        self.flights.insert((arrival, self.queued), flight);
    }

    /// When the next packet arrives.
    pub fn next_arrival(&self) -> Option<u64> {
        self.flights.first_key_value().map(|((arrival, _), _)| *arrival)
    }

    /// The next packet that arrived by `now`.
    pub fn arrival(&mut self, now: u64) -> Option<Flight> {
        self.next_arrival().filter(|arrival| *arrival <= now)?;
        self.flights.pop_first().map(|(_, flight)| flight)
    }

    /// Whether whoever `flight` is for has to accept it: as it was sent, and for the first time.
    pub fn is_genuine(&mut self, flight: &Flight) -> bool {
        !flight.altered && self.arrived.insert(flight.number)
    }
}
