//! Wire to TUN: received packets are opened where they lie, and runs of one flow written as one.

use core::net::SocketAddr;
use core::time::Duration;

use simplevpn_core::coalesce::{Coalescer, Run};
use simplevpn_core::ike::IkePath;
use simplevpn_core::offload::Offload;
use simplevpn_core::{Discard, Instant};

use super::{Counters, DataPath, ahead};
use crate::batch::{Datagram, MAX_PACKET, ReceiveBatch};
use crate::capacity::MAX_RUNS;
use crate::daemon::ike::Inbox;
use crate::daemon::outer::Which;
use crate::daemon::peers::HeapTunnel;
use crate::esp_socket;
use crate::outer_socket::{Arrival, Family};
use crate::udp_socket::{self, Encapsulated};

/// How long the log is spared after a line about a socket that cannot be read.
const QUIET: Duration = Duration::from_secs(60);

impl DataPath {
    /// Receives a batch from one of the sockets, opens it and writes it to TUN. `true`:
    /// something came.
    pub(in crate::daemon) fn inbound(
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
        if received == 0 {
            return false;
        }
        let DataPath { tun, counters, inbox, runs, .. } = self;
        let mut refused = 0;
        let mut write = |offload: &Offload, packet: &[u8]| {
            if tun.write(offload, packet).is_err() {
                refused += packets(offload, packet);
            }
        };
        // Made anew for each batch: nothing can be held back for longer.
        let mut rooms = runs.chunks_exact_mut(MAX_PACKET);
        let count = rooms.len();
        let mut runs: [Run<'_>; MAX_RUNS] =
            core::array::from_fn(|_| Run::new(rooms.next().unwrap_or_default().into()));
        let runs = runs.get_mut(..count).unwrap_or_default();
        let mut coalescer = Coalescer::new(runs.into(), tun.joins_udp());
        for index in 0..received {
            ahead::inbound(tunnel, which, batch, index);
            let Some(mut datagram) = batch.get(index) else { break };
            if datagram.packet.is_empty() {
                counters.malformed += 1;
            }
            for datagram in datagram.split() {
                let arrival = arrival(which, port, datagram, counters, inbox.as_mut());
                let Some(arrival) = arrival else { continue };
                let Arrival { path, traffic_class, mut packet } = arrival;
                if tunnel.inbound(now, &path, traffic_class, &mut packet).is_ok() {
                    coalescer.push(packet.as_slice(), &mut write);
                }
            }
        }
        coalescer.flush(&mut write);
        counters.tun_refused += refused;
        true
    }
}

/// The ESP packet in a datagram; anything else is dealt with.
fn arrival<'d>(
    which: Which,
    port: u16,
    datagram: Datagram<'d>,
    counters: &mut Counters,
    inbox: Option<&mut Inbox>,
) -> Option<Arrival<'d>> {
    let arrived = if which.is_ike() {
        keep_message(&datagram, port, false, counters, inbox);
        return None;
    } else if which.is_udp() {
        match udp_socket::arrival(datagram, port) {
            Encapsulated::Esp(arrival) => Ok(arrival),
            Encapsulated::Keepalive => return None,
            Encapsulated::Ike(datagram) => {
                keep_message(&datagram, port, true, counters, inbox);
                return None;
            }
            Encapsulated::Malformed => Err(Discard::Malformed),
        }
    } else {
        esp_socket::arrival(datagram)
    };
    counters.malformed += u64::from(arrived.is_err());
    arrived.ok()
}

/// Keeps an IKE message for those who understand it.
fn keep_message(
    datagram: &Datagram<'_>,
    port: u16,
    natt: bool,
    counters: &mut Counters,
    inbox: Option<&mut Inbox>,
) {
    let Datagram { from, local, packet, .. } = datagram;
    let local = local.unwrap_or_else(|| Family::of(from.ip()).unspecified(0).ip());
    let path = IkePath { local: SocketAddr::new(local, port), remote: *from, natt };
    match inbox {
        None => counters.no_ike += 1,
        Some(inbox) => counters.ike_overflow += u64::from(!inbox.push(path, packet.as_slice())),
    }
}

/// How many packets a super-packet stands for.
fn packets(offload: &Offload, packet: &[u8]) -> u64 {
    let payload = packet.len().saturating_sub(offload.header_len.into());
    let each =
        if offload.gso.is_some() { usize::from(offload.segment_len).max(1) } else { payload };
    payload.div_ceil(each.max(1)).max(1) as u64
}
