//! The path of a packet through the daemon, both ways.
//!
//! TUN to wire: packets are read into slots, sealed there, and sent from there in one batch. When
//! a socket takes no more, TUN is not read, so that its queue is the buffer. Wire to TUN: a batch
//! is received, each packet is opened where it lies and written. Neither allocates memory.

use core::net::SocketAddr;
use core::time::Duration;

use simplevpn_core::fragment::Fragments;
use simplevpn_core::icmp::{RateLimit, answer_too_big};
use simplevpn_core::ike::IkePath;
use simplevpn_core::wire::natt::NON_ESP_MARKER;
use simplevpn_core::{Discard, HEADROOM, Instant, PacketBuf, Path, Sealed, Transmit};

use super::ike::Inbox;
use super::outer::{Outer, Which};
use super::peers::HeapTunnel;
use crate::batch::{Datagram, MAX_PACKET, ReceiveBatch, Slots};
use crate::esp_socket;
use crate::outer_socket::{Arrival, Family};
use crate::tun::{TunDevice, VnetHeader};
use crate::udp_socket::{self, Encapsulated};

/// ICMP errors to the host: per second on average, and at once.
const ICMP_RATE: (u32, u32) = (100, 50);
/// How long the log is spared after a line about a socket that cannot be read.
const QUIET: Duration = Duration::from_secs(60);

/// What is dropped here and nowhere else.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counters {
    /// The host did not take an opened packet.
    pub(super) tun_refused: u64,
    /// IKE messages where all keys are manual.
    pub(super) no_ike: u64,
    /// IKE messages that came faster than they were processed, or that no socket took.
    pub(super) ike_overflow: u64,
    /// Datagrams that are no ESP packet.
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
    /// A packet while it is cut into fragments.
    whole: Box<[u8]>,
    icmp_limit: RateLimit,
    /// The interface, as the log calls it.
    name: String,
    /// When the log was last told that a socket cannot be read.
    told: Option<Instant>,
}

impl DataPath {
    /// With as many slots as the sockets' queues have room for.
    pub(super) fn new(name: &str, tun: TunDevice, outer: Outer) -> DataPath {
        DataPath {
            inbox: None,
            name: name.to_owned(),
            told: None,
            tun,
            slots: Slots::new(outer.batch(), MAX_PACKET),
            outer,
            counters: Counters::default(),
            used: 0,
            whole: vec![0; MAX_PACKET].into_boxed_slice(),
            icmp_limit: RateLimit::new(ICMP_RATE.0, ICMP_RATE.1),
        }
    }

    /// Whether TUN may be read: no packet waits for a socket.
    pub(super) fn is_ready(&self) -> bool {
        self.used == 0
    }

    /// Reads a batch from TUN, seals it and sends it.
    ///
    /// # Errors
    /// A sentence, when the device is gone.
    pub(super) fn outbound(&mut self, tunnel: &mut HeapTunnel, now: Instant) -> Result<(), String> {
        if !self.is_ready() {
            return Ok(());
        }
        for _ in 0..self.slots.count() {
            if self.used >= self.slots.count() || !self.seal_next(tunnel, now)? {
                break;
            }
        }
        self.send(now);
        Ok(())
    }

    /// Reads one packet and seals it; `false` if there is none.
    fn seal_next(&mut self, tunnel: &mut HeapTunnel, now: Instant) -> Result<bool, String> {
        let slot = self.slots.get_mut(self.used).unwrap_or_default();
        let read = self.tun.read(slot).map_err(|error| {
            format!("{}: its TUN device is gone, was it deleted? ({error})", self.name)
        })?;
        let Some((_, mut packet)) = read else { return Ok(false) };
        match tunnel.sealer.seal(now, &mut packet) {
            Ok(Sealed::Transmit(_, transmit)) => {
                self.outer.queue(&transmit, self.used, packet.start());
                self.used += 1;
            }
            Ok(Sealed::TooBig(mtu)) => {
                if self.icmp_limit.allow(now) && answer_too_big(&mut packet, mtu).is_ok() {
                    to_host(&self.tun, &packet, &mut self.counters);
                }
            }
            Ok(Sealed::Fragment(mtu)) => {
                let len = packet.len();
                if let Some(whole) = self.whole.get_mut(..len) {
                    whole.copy_from_slice(packet.as_slice());
                }
                if let Err(why) = self.seal_fragments(tunnel, now, len, mtu) {
                    tunnel.sealer.count_discard(why);
                }
            }
            Err(_) => {} // the sealer has counted it
        }
        Ok(true)
    }

    /// Cuts the packet in `whole` into fragments of at most `mtu` bytes, and seals each.
    fn seal_fragments(
        &mut self,
        tunnel: &mut HeapTunnel,
        now: Instant,
        len: usize,
        mtu: usize,
    ) -> Result<(), Discard> {
        // Taken for as long as its fragments live, since sending needs the rest of `self`.
        let whole = core::mem::take(&mut self.whole);
        let fragments = Fragments::new(whole.get(..len).unwrap_or_default(), mtu);
        let sealed = fragments.and_then(|mut fragments| {
            while self.seal_fragment(tunnel, now, &mut fragments)? {}
            Ok(())
        });
        self.whole = whole;
        sealed
    }

    /// Seals the next fragment into the next slot; `false` after the last.
    fn seal_fragment(
        &mut self,
        tunnel: &mut HeapTunnel,
        now: Instant,
        fragments: &mut Fragments<'_>,
    ) -> Result<bool, Discard> {
        if self.used >= self.slots.count() && !self.send(now) {
            return Err(Discard::NoRoom);
        }
        let slot = self.slots.get_mut(self.used).unwrap_or_default();
        let room = slot.get_mut(HEADROOM..).unwrap_or_default();
        let Some(len) = fragments.next_into(room)? else { return Ok(false) };
        let mut packet = PacketBuf::new(slot, HEADROOM, len)?;
        // What the sealer drops it counts.
        if let Ok(Sealed::Transmit(_, transmit)) = tunnel.sealer.seal(now, &mut packet) {
            self.outer.queue(&transmit, self.used, packet.start());
            self.used += 1;
        }
        Ok(true)
    }

    /// Sends the keepalives that are due.
    pub(super) fn keepalives(&mut self, tunnel: &mut HeapTunnel, now: Instant) {
        while self.used < self.slots.count() {
            let slot = self.slots.get_mut(self.used).unwrap_or_default();
            let Ok(mut packet) = PacketBuf::new(slot, HEADROOM, 0) else { return };
            let Some(transmit) = tunnel.poll_transmit(now, &mut packet) else { break };
            self.outer.queue(&transmit, self.used, packet.start());
            self.used += 1;
        }
        self.send(now);
    }

    /// Sends what waits, as far as the sockets take it. `true`: every slot is free again.
    pub(super) fn send(&mut self, now: Instant) -> bool {
        let free = self.outer.flush(now, &self.slots);
        self.settle(free)
    }

    /// Drops what has waited for too long.
    pub(super) fn give_up(&mut self, now: Instant) {
        let free = self.outer.give_up(now);
        self.settle(free);
    }

    fn settle(&mut self, free: bool) -> bool {
        if free {
            self.used = 0;
        }
        free
    }

    /// Receives a batch from one of the sockets, opens it and writes it to TUN. `true`: there
    /// may be more.
    pub(super) fn inbound(
        &mut self,
        tunnel: &mut HeapTunnel,
        which: Which,
        port: u16,
        batch: &mut ReceiveBatch,
        now: Instant,
    ) -> bool {
        let Some(socket) = self.outer.get(which) else { return false };
        let received = socket.receive(batch).unwrap_or_else(|error| {
            if self.told.is_none_or(|told| now.saturating_since(told) >= QUIET) {
                self.told = Some(now);
                log::warn!("{}: receiving: {error}", self.name);
            }
            0
        });
        for index in 0..received {
            let Some(datagram) = batch.get(index) else { break };
            let arrived = if which.is_ike() {
                self.keep_message(&datagram, port, false);
                continue;
            } else if which.is_udp() {
                match udp_socket::arrival(datagram, port) {
                    Encapsulated::Esp(arrival) => Ok(arrival),
                    Encapsulated::Keepalive => continue,
                    Encapsulated::Ike(datagram) => {
                        self.keep_message(&datagram, port, true);
                        continue;
                    }
                    Encapsulated::Malformed => Err(Discard::Malformed),
                }
            } else {
                esp_socket::arrival(datagram)
            };
            match arrived {
                Ok(arrival) => self.open(tunnel, arrival, now),
                Err(_) => self.counters.malformed += 1,
            }
        }
        received == batch.capacity()
    }

    /// Keeps an IKE message for those who understand it.
    fn keep_message(&mut self, datagram: &Datagram<'_>, port: u16, natt: bool) {
        let Datagram { from, local, packet, .. } = datagram;
        let local = local.unwrap_or_else(|| Family::of(from.ip()).unspecified(0).ip());
        let path = IkePath { local: SocketAddr::new(local, port), remote: *from, natt };
        match &mut self.inbox {
            None => self.counters.no_ike += 1,
            Some(inbox) => {
                if !inbox.push(path, packet.as_slice()) {
                    self.counters.ike_overflow += 1;
                }
            }
        }
    }

    /// Sends an IKE message. It is lost when packets wait, and will be sent again.
    pub(super) fn send_message(&mut self, path: &IkePath, message: &[u8], now: Instant) {
        let marker: &[u8] = if path.natt { &NON_ESP_MARKER } else { &[] };
        let len = marker.len() + message.len();
        let slot = self.slots.get_mut(self.used).unwrap_or_default();
        let Some(room) = slot.get_mut(HEADROOM..).and_then(|room| room.get_mut(..len)) else {
            self.counters.ike_overflow += 1;
            return;
        };
        let bytes = marker.iter().chain(message);
        room.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        let udp = Path::Udp { local: path.local, remote: path.remote };
        let transmit = Transmit { path: udp, traffic_class: 0, len, oversize: false };
        let which = Which::of_ike(path.remote.ip(), path.natt);
        self.outer.queue_on(which, &transmit, self.used, HEADROOM);
        self.used += 1;
        self.send(now);
    }

    fn open(&mut self, tunnel: &mut HeapTunnel, arrival: Arrival<'_>, now: Instant) {
        let Arrival { path, traffic_class, mut packet, .. } = arrival;
        if tunnel.inbound(now, &path, traffic_class, &mut packet).is_ok() {
            to_host(&self.tun, &packet, &mut self.counters);
        }
    }
}

fn to_host(tun: &TunDevice, packet: &PacketBuf<'_>, counters: &mut Counters) {
    if tun.write(&VnetHeader::default(), packet.as_slice()).is_err() {
        counters.tun_refused += 1;
    }
}
