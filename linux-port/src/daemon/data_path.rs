//! The path of a packet through the daemon, both ways. Neither allocates memory.
//!
//! [`outbound`], TUN to wire: what is read is cut into segments, which are sealed where they lie,
//! and sent from there in one batch, now or never: a queue that is full on the way to one peer does
//! not hold up what is for another. [`inbound`], wire to TUN: a batch is received, each packet is
//! opened where it lies, and runs of one flow are written as one. No packet ever waits for another
//! to come.

mod ahead;
mod inbound;
mod outbound;

use simplevpn_core::icmp::RateLimit;
use simplevpn_core::ike::IkeTransmit;
use simplevpn_core::wire::natt::NON_ESP_MARKER;
use simplevpn_core::{HEADROOM, Instant, PacketBuf, Path, Transmit};

use self::ahead::Waiting;
use super::ike::Inbox;
use super::outer::{Outer, Which};
use super::peers::HeapTunnel;
use crate::batch::{MAX_PACKET, Slots};
use crate::capacity;
use crate::pages::Pages;
use crate::tun::TunDevice;

/// ICMP errors to the host: per second on average, and at once.
const ICMP_RATE: (u32, u32) = (100, 50);

/// What is dropped here and nowhere else.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counters {
    /// Packets that the host did not take.
    pub(super) tun_refused: u64,
    /// IKE messages where all keys are manual.
    pub(super) no_ike: u64,
    /// IKE messages that came faster than they were processed, or that no socket took.
    pub(super) ike_overflow: u64,
    /// Datagrams that are no ESP packet, and what the host sent and is no packet.
    pub(super) malformed: u64,
}

/// The TUN device, the sockets, and the memory for packets between them.
pub(super) struct DataPath {
    pub(super) tun: TunDevice,
    pub(super) outer: Outer,
    pub(super) counters: Counters,
    /// IKE messages that have come; `None` if nobody wants them.
    pub(super) inbox: Option<Inbox>,
    slots: Slots,
    /// Slots that hold packets on their way to the wire.
    used: usize,
    /// Whether packets had to leave before all that was read had a slot: it is the other
    /// direction's turn.
    was_full: bool,
    /// What was read from TUN and is not in slots yet.
    waiting: Waiting,
    /// A packet while it is cut into fragments.
    whole: Box<[u8]>,
    icmp_limit: RateLimit,
    /// Where runs of opened packets grow together.
    runs: Pages,
    /// The interface, as the log calls it.
    name: String,
    /// When the log was last told that a socket cannot be read.
    told: Option<Instant>,
}

impl DataPath {
    /// With as many slots as the sockets' queues have room for.
    pub(super) fn new(name: &str, tun: TunDevice, outer: Outer) -> DataPath {
        let batch = outer.batch();
        DataPath {
            inbox: None,
            name: name.to_owned(),
            told: None,
            tun,
            slots: Slots::new(batch, MAX_PACKET),
            outer,
            counters: Counters::default(),
            used: 0,
            was_full: false,
            waiting: Waiting::new(),
            whole: vec![0; MAX_PACKET].into_boxed_slice(),
            icmp_limit: RateLimit::new(ICMP_RATE.0, ICMP_RATE.1),
            runs: Pages::new(capacity::runs(batch) * MAX_PACKET),
        }
    }

    /// Sends the keepalives that are due.
    pub(super) fn keepalives(&mut self, tunnel: &mut HeapTunnel, now: Instant) {
        while self.used < self.slots.count() {
            let slot = self.slots.get_mut(self.used).unwrap_or_default();
            let Ok(mut packet) = PacketBuf::new(slot, HEADROOM, 0) else { return };
            let Some(transmit) = tunnel.poll_transmit(now, &mut packet) else { break };
            let start = packet.start();
            self.queue(&transmit, start);
        }
        self.send();
    }

    /// Sends what waits: every slot is free afterwards.
    fn send(&mut self) {
        self.outer.flush(&self.slots);
        self.used = 0;
    }

    /// Sends an IKE message. It is lost where a queue is full, and will be sent again.
    pub(super) fn send_message(&mut self, transmit: &IkeTransmit, message: &[u8]) {
        let IkeTransmit { path, stranger, .. } = *transmit;
        let marker: &[u8] = if path.natt { &NON_ESP_MARKER } else { &[] };
        let len = marker.len() + message.len();
        let slot = self.slots.get_mut(self.used).unwrap_or_default();
        let Some(room) = slot.get_mut(HEADROOM..).and_then(|room| room.get_mut(..len)) else {
            self.counters.ike_overflow += 1;
            return;
        };
        let bytes = marker.iter().chain(message);
        room.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        // Where an emulator does not tell our address, only the socket knows it.
        if stranger && !path.local.ip().is_unspecified() {
            if let Ok(mut packet) = PacketBuf::new(slot, HEADROOM, len) {
                self.outer.send_to_stranger(&mut packet, &path);
            }
            return;
        }
        let udp = Path::Udp { local: path.local, remote: path.remote };
        let transmit = Transmit { path: udp, traffic_class: 0, len, oversize: false };
        let which = Which::of_ike(path.remote.ip(), path.natt);
        self.queue_on(which, &transmit, HEADROOM);
        self.send();
    }

    /// Lets the packet in the first free slot, which begins at byte `start` of it, wait to be sent.
    fn queue(&mut self, transmit: &Transmit, start: usize) {
        self.queue_on(Which::of(&transmit.path), transmit, start);
    }

    /// The same, through this socket.
    fn queue_on(&mut self, which: Which, transmit: &Transmit, start: usize) {
        self.outer.queue(which, transmit, self.used, start);
        self.slots.pack(self.used, start + transmit.len);
        self.used += 1;
    }
}
