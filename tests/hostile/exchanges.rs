//! The state machine of IKE as a target: a peer that has the keys, and breaks the rules.
//!
//! Two endpoints talk, and one message between them is spoilt: in the clear where it is sent in
//! the clear, else under its protection, which is renewed. Whatever comes of it, nobody panics,
//! nothing piles up, and after a while both are quiet.

use std::cell::RefCell;
use std::collections::VecDeque;

use simplevpn_core::PeerId;
use simplevpn_core::crypto::dh::Group;
use simplevpn_core::ike::keymat::IkeSpis;
use simplevpn_core::ike::suite::Pfs;
use simplevpn_core::ike::{IkePath, MAX_MESSAGE_LEN, Phase};

use super::Random;
use crate::ike::{CIPHER, Net, Node, Plain, Spy};

/// What happens between two nodes that are connected, besides connecting.
const ACTIONS: u8 = 10;
/// How long after the last message both are quiet, in ms.
const QUIET: u64 = 400_000;
/// How many SAs for what it receives a node may have at once.
const MOST_INBOUND: usize = 8;

/// Types of payloads, known and unknown.
const TYPES: [u8; 16] = [1, 33, 34, 35, 36, 39, 40, 41, 42, 43, 44, 45, 46, 47, 53, 99];
/// Values at the ends of ranges.
const ODD: [u8; 8] = [1, 2, 3, 4, 8, 0x7f, 0x80, 0xff];

thread_local! {
    static PAIR: RefCell<Option<Pair>> = const { RefCell::new(None) };
    static COUNT: RefCell<u64> = const { RefCell::new(0) };
}

/// Two nodes and what is between them.
pub(super) struct Pair {
    nodes: Vec<Node>,
    pub(super) spy: Spy,
    now: u64,
    pub(super) wire: VecDeque<(usize, IkePath, Vec<u8>)>,
    /// How many messages go before the one to be spoilt, and how it is spoilt.
    spoil: Option<(u8, Vec<u8>)>,
    /// How many IKE SAs an end may have.
    pub(super) most: usize,
}

/// Something for [`ike_exchanges`].
pub(super) fn input(random: &mut Random) -> Vec<u8> {
    let first = if random.one_in(6) { random.pick(&TYPES) } else { 0 };
    let mut input = vec![random.byte(), random.byte(), first];
    for _ in 0..=random.below(3) {
        let at = random.below(500) as u16;
        let value = if random.one_in(2) { random.pick(&ODD) } else { random.byte() };
        input.push(random.byte());
        input.extend(at.to_be_bytes());
        input.push(value);
    }
    input
}

/// What happens, which message of it is spoilt, another type for its first payload (0: the same),
/// then edits of four bytes each: what to do, where (two bytes), and a value.
pub fn ike_exchanges(bytes: &[u8]) {
    let Some((&[action, message, first], edits)) = bytes.split_first_chunk() else { return };
    let action = action % ACTIONS;
    let seed = COUNT.with_borrow_mut(|count| {
        *count += 1;
        *count
    });
    let kept = PAIR.take().filter(|_| action > 1);
    let mut pair = kept.unwrap_or_else(|| Pair::new(seed));
    let spoil = Some((message % 8, [&[first], edits].concat()));
    if action > 1 {
        pair.connect();
    }
    pair.spoil = spoil;
    pair.act(action);
    pair.settle();
    pair.spoil = None;
    pair.check_bounds();
    if !pair.is_whole() {
        pair.pass(QUIET);
        return;
    }
    // So that nobody who replaces keys each time has to wait.
    pair.now += 5000;
    PAIR.set(Some(pair));
}

impl Pair {
    pub(super) fn new(seed: u64) -> Pair {
        let mut nodes = Net::psk_pair(seed).nodes;
        for (node, other) in nodes.iter_mut().zip([1, 0]) {
            let preferences = &mut node.settings.preferences;
            preferences.ciphers.clear();
            let _ = preferences.ciphers.push(CIPHER);
            preferences.groups.clear();
            let _ = preferences.groups.push(Group::Curve25519);
            node.pad.0[other].as_mut().unwrap().pfs = Pfs::Never;
            node.restart();
            node.rng.drawn = Some(Vec::new());
        }
        Pair { nodes, spy: Spy::default(), now: 1000, wire: VecDeque::new(), spoil: None, most: 4 }
    }

    fn initiate(&mut self, at: usize) {
        let target = self.nodes[at].target(self.nodes[1 - at].address);
        let id = PeerId(1 - at as u32);
        self.nodes[at].call(self.now, |ike, now, cx| ike.initiate(now, cx, id, &target));
        self.collect(at);
    }

    pub(super) fn connect(&mut self) {
        if self.nodes[0].ike.is_empty() {
            self.initiate(0);
            self.settle();
        }
        assert!(self.is_whole(), "they do not connect");
    }

    pub(super) fn act(&mut self, action: u8) {
        let [a, b] = [PeerId(1), PeerId(0)];
        let now = self.now;
        let action = action % ACTIONS;
        match action {
            0 => return self.initiate(0),
            1 => {
                self.initiate(1);
                return self.initiate(0);
            }
            _ => {}
        }
        for (at, peer) in [(0, a), (1, b)] {
            self.nodes[at].call(now, |ike, now, cx| match (action, at) {
                (2, 0) | (3, 1) | (4, _) | (8, 0) => ike.rekey_child(now, cx, peer),
                (5, 0) | (6, 1) | (7, _) | (8, 1) => ike.rekey(now, cx, peer),
                (9, 0) => ike.probe(now, cx, peer),
                (9, _) => ike.terminate(now, cx, peer),
                _ => {}
            });
            self.collect(at);
        }
    }

    fn collect(&mut self, at: usize) {
        let mut out = [0; MAX_MESSAGE_LEN];
        while let Some(transmit) = self.nodes[at].ike.poll_transmit(&mut out) {
            let message = &out[..transmit.len];
            let drawn = self.nodes.iter().flat_map(|node| node.rng.drawn.iter().flatten());
            self.spy.watch(message, &drawn.copied().collect::<Vec<_>>());
            for node in &mut self.nodes {
                forget(&mut node.rng.drawn);
            }
            let message = self.spoilt(message);
            self.wire.push_back((at, transmit.path, message));
        }
        while self.nodes[at].ike.poll_event().is_some() {}
    }

    /// What becomes of a message.
    fn spoilt(&mut self, message: &[u8]) -> Vec<u8> {
        match &mut self.spoil {
            None => return message.to_vec(),
            Some((0, _)) => {}
            Some((before, _)) => {
                *before -= 1;
                return message.to_vec();
            }
        }
        let Some((_, how)) = self.spoil.take() else { return message.to_vec() };
        self.altered(message, &how)
    }

    /// A message with edits: under its protection, or in the clear if it is sent in the clear.
    pub(super) fn altered(&self, message: &[u8], how: &[u8]) -> Vec<u8> {
        if message.len() < 28 {
            return message.to_vec();
        }
        let Some(mut plain) = self.spy.open(message) else {
            let mut plain = Plain { first: message[16], text: message[28..].to_vec() };
            edit(how, &mut plain);
            let mut spoilt = [&message[..28], &plain.text].concat();
            spoilt[16] = plain.first;
            let len = spoilt.len() as u32;
            spoilt[24..28].copy_from_slice(&len.to_be_bytes());
            return spoilt;
        };
        edit(how, &mut plain);
        self.spy.seal(message, &plain).unwrap_or_else(|| message.to_vec())
    }

    pub(super) fn settle(&mut self) {
        let mut count = 0;
        while let Some((from, path, mut message)) = self.wire.pop_front() {
            let IkePath { local, remote, natt } = path;
            let path = IkePath { local: remote, remote: local, natt };
            let to = 1 - from;
            self.nodes[to].call(self.now, |ike, now, cx| ike.handle(now, cx, &path, &mut message));
            self.collect(to);
            count += 1;
            assert!(count < 200, "they talk without end");
        }
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        let mut steps = 0;
        loop {
            self.settle();
            self.check_bounds();
            let due = self.nodes.iter().filter_map(|node| node.ike.poll_timeout()).min();
            let Some(due) = due.map(simplevpn_core::Instant::as_millis).filter(|at| *at <= end)
            else {
                break;
            };
            self.now = self.now.max(due);
            for at in [0, 1] {
                self.nodes[at].call(self.now, |ike, now, cx| ike.handle_timeout(now, cx));
                self.collect(at);
            }
            steps += 1;
            assert!(steps < 1000, "they are never quiet");
        }
        self.now = end;
    }

    pub(super) fn check_bounds(&self) {
        for node in &self.nodes {
            let inbound = node.database.inbound.len();
            assert!(inbound <= MOST_INBOUND, "{inbound} inbound SAs");
            assert!(node.ike.len() <= self.most, "{} IKE SAs", node.ike.len());
        }
    }

    /// Brings the first message on the wire to whom it is for.
    pub(super) fn deliver_next(&mut self) {
        let Some((from, path, mut message)) = self.wire.pop_front() else { return };
        let IkePath { local, remote, natt } = path;
        let path = IkePath { local: remote, remote: local, natt };
        let to = 1 - from;
        self.nodes[to].call(self.now, |ike, now, cx| ike.handle(now, cx, &path, &mut message));
        self.collect(to);
    }

    /// Puts a message in the name of a node on the wire.
    pub(super) fn inject(&mut self, from: usize, message: Vec<u8>) {
        let [local, remote] = [from, 1 - from].map(|at| (self.nodes[at].address, 4500).into());
        self.wire.push_back((from, IkePath { local, remote, natt: true }, message));
    }

    /// The newest IKE SA that a node and the other one both know: its SPIs, whether the node has
    /// begun it, and the ids that it would use next for a request and an answer, as far as its
    /// messages tell.
    pub(super) fn where_it_is(&self, from: usize) -> Option<(IkeSpis, bool, [u32; 2])> {
        let (spis, ids) = self.spy.newest()?;
        let initiator = self.nodes[from].ike.status(PeerId(1 - from as u32))?.initiator;
        Some((spis, initiator, if initiator { ids } else { [ids[1], ids[0]] }))
    }

    /// One end is started anew, and knows nothing; sometimes it calls.
    pub(super) fn restart_one(&mut self, choice: u8) {
        let at = usize::from(choice & 1);
        self.nodes[at].restart();
        self.nodes[at].rng.drawn = Some(Vec::new());
        if choice & 2 != 0 {
            self.initiate(at);
        }
    }

    /// The path of an end changes, and the other end is told if that is possible.
    pub(super) fn move_one(&mut self, at: usize, choice: u8) {
        let mut target = self.nodes[at].target(self.nodes[1 - at].address);
        target.local = [192, 0, 2, 100 + (choice >> 4)].into();
        let peer = PeerId(1 - at as u32);
        self.nodes[at].call(self.now, |ike, now, cx| ike.address_changed(now, cx, peer, &target));
        self.collect(at);
    }

    /// Whoever has a child has what it takes to receive with it.
    pub(super) fn check_claims(&self) {
        for (at, node) in self.nodes.iter().enumerate() {
            let peer = PeerId(1 - at as u32);
            let child = node.ike.status(peer).and_then(|status| status.child);
            assert!(
                child.is_none() || node.database.outbound(peer).is_some(),
                "a child without SA"
            );
            assert!(child.is_none() || !node.database.inbound.is_empty(), "a child that is deaf");
        }
    }

    /// Whether nothing has come of it: both are connected, and agree.
    pub(super) fn is_whole(&self) -> bool {
        let whole = |at: usize| {
            let peer = PeerId(1 - at as u32);
            let status = self.nodes[at].ike.status(peer);
            let up = status.is_some_and(|it| it.phase == Phase::Up && it.child.is_some());
            let outbound = self.nodes[at].database.outbound(peer);
            let other = &self.nodes[1 - at].database.inbound;
            up && self.nodes[at].ike.len() == 1 && outbound.is_some_and(|spi| other.contains(&spi))
        };
        whole(0) && whole(1)
    }
}

/// Keeps only the newest secrets: those before are of exchanges that have ended.
fn forget(drawn: &mut Option<Vec<[u8; 32]>>) {
    if let Some(drawn) = drawn
        && drawn.len() > 40
    {
        drawn.drain(..drawn.len() - 20);
    }
}

/// Spoils a message: another type of the first payload, then the edits.
pub(super) fn edit(how: &[u8], plain: &mut Plain) {
    let Some((first, edits)) = how.split_first() else { return };
    if *first != 0 {
        plain.first = *first;
    }
    let text = &mut plain.text;
    for edit in edits.chunks_exact(4).take(8) {
        let at = usize::from(u16::from_be_bytes([edit[1], edit[2]]));
        let value = edit[3];
        if text.is_empty() {
            return text.push(value);
        }
        let at = at % text.len();
        match edit[0] % 6 {
            0 => text[at] ^= value,
            1 => text[at] = value,
            2 => text.truncate(at),
            3 => text.insert(at, value),
            4 => {
                text.remove(at);
            }
            _ => {
                let copy = text[at..].iter().copied().take(value.into()).collect::<Vec<_>>();
                text.splice(at..at, copy);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_edit_nothing_comes_of_it() {
        for action in 2..ACTIONS - 1 {
            let mut pair = Pair::new(1);
            pair.connect();
            pair.spoil = Some((0, Vec::new()));
            pair.act(action);
            pair.settle();
            pair.pass(10_000);
            assert!(pair.is_whole(), "{action}");
        }
    }

    #[test]
    fn the_spy_reads_along_through_new_keys_and_is_believed() {
        for action in [2, 5, 6, 2] {
            let mut pair = Pair::new(2);
            pair.connect();
            pair.act(5);
            pair.settle();
            pair.act(6);
            pair.settle();
            // A first payload that is critical and unknown: refused, and so it was read.
            pair.spoil = Some((0, vec![0, 1, 0, 0, 0xff]));
            pair.act(action);
            let before = pair.wire.back().unwrap().2.clone();
            assert!(pair.spy.open(&before).is_some_and(|plain| plain.text[0] == 0xff));
        }
    }
}
