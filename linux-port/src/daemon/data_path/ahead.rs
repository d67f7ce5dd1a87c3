//! Look-ahead ([`simplevpn_core::ahead`]): on a hub, where each packet is another peer's, the state
//! of the next packets is fetched while others are worked on. With few peers nothing is.
//!
//! From the wire a whole batch is there. From TUN packets come one by one, so a few are read before
//! the first is sealed, and none is waited for: those that are there leave together in any case.

use std::collections::VecDeque;

use simplevpn_core::PeerId;
use simplevpn_core::offload::Offload;

use crate::batch::{MAX_PACKET, ReceiveBatch};
use crate::daemon::outer::Which;
use crate::daemon::peers::HeapTunnel;
use crate::prefetch::{Prefetch, is_worth};

/// How many packets further on the SA is fetched, and how many what it leads to.
const SA_AHEAD: usize = 8;
const STATE_AHEAD: usize = 4;

/// Looks ahead from packet `index` of a batch from the wire.
pub(super) fn inbound(tunnel: &HeapTunnel, which: Which, batch: &ReceiveBatch, index: usize) {
    if !is_worth(tunnel.sealer.capacity()) {
        return;
    }
    // What the kernel has joined has one sender: the first of it speaks for all.
    let esp = |at: usize| {
        let bytes = batch.peek(at)?;
        let header = match which {
            Which::EspV4 => bytes.first().map_or(0, |first| usize::from(first & 0xf) * 4),
            _ => 0,
        };
        bytes.get(header..)
    };
    let sa = |at| esp(at).map(|packet| tunnel.opener.fetch_sa(packet, &Prefetch));
    let state = |at| esp(at).map(|packet| tunnel.opener.fetch_state(packet, &Prefetch));
    if index == 0 {
        (0..SA_AHEAD).for_each(|at| _ = sa(at));
        (0..STATE_AHEAD).for_each(|at| _ = state(at));
    }
    _ = sa(index + SA_AHEAD);
    _ = state(index + STATE_AHEAD);
}

/// Packets from TUN that are read before the first of them is sealed.
const READ_AHEAD: usize = 4;

/// What was read from TUN and is not sealed yet.
pub(super) struct Held {
    /// Packet or super-packet, in the room that it was read into.
    pub(super) room: Box<[u8]>,
    pub(super) len: usize,
    pub(super) offload: Offload,
    step: Step,
}

/// What is fetched next for a packet.
#[derive(Clone, Copy)]
enum Step {
    Policy,
    Peer,
    Key(PeerId),
    Done,
}

impl Held {
    pub(super) fn packet(&mut self) -> &mut [u8] {
        self.room.get_mut(..self.len).unwrap_or_default()
    }

    fn look_ahead(&mut self, tunnel: &HeapTunnel) {
        let sealer = &tunnel.sealer;
        let packet = self.room.get(..self.len).unwrap_or_default();
        self.step = match self.step {
            Step::Policy => {
                sealer.fetch_policy(packet, &Prefetch);
                Step::Peer
            }
            Step::Peer => sealer.fetch_peer(packet, &Prefetch).map_or(Step::Done, Step::Key),
            Step::Key(id) => {
                sealer.fetch_key(id, &Prefetch);
                Step::Done
            }
            Step::Done => Step::Done,
        };
    }
}

/// The packets from TUN that wait to be sealed, in their order, and rooms for more.
pub(super) struct Waiting {
    held: VecDeque<Held>,
    /// Each is made when it is needed first.
    rooms: Vec<Box<[u8]>>,
}

impl Waiting {
    pub(super) fn new() -> Waiting {
        let (held, rooms) = (VecDeque::with_capacity(READ_AHEAD), Vec::with_capacity(READ_AHEAD));
        Waiting { held, rooms }
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether one more is to be read before the first is sealed.
    pub(super) fn wants_more(&self, tunnel: &HeapTunnel) -> bool {
        let most = if is_worth(tunnel.sealer.capacity()) { READ_AHEAD } else { 1 };
        self.held.len() < most
    }

    /// Room to read a packet into.
    pub(super) fn room(&mut self) -> Box<[u8]> {
        self.rooms.pop().unwrap_or_else(|| vec![0; MAX_PACKET].into_boxed_slice())
    }

    /// A room that is free again.
    pub(super) fn give_back(&mut self, room: Box<[u8]>) {
        self.rooms.push(room);
    }

    /// One more waits in `room`.
    pub(super) fn push(&mut self, room: Box<[u8]>, len: usize, offload: Offload) {
        self.held.push_back(Held { room, len, offload, step: Step::Policy });
    }

    /// Takes each that waits behind the first one step further.
    pub(super) fn look_ahead(&mut self, tunnel: &HeapTunnel) {
        self.held.iter_mut().skip(1).for_each(|held| held.look_ahead(tunnel));
    }

    /// The first.
    pub(super) fn pop(&mut self) -> Option<Held> {
        self.held.pop_front()
    }
}
