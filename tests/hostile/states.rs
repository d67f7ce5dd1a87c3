//! The states of IKE as a target: a whole story in one input.
//!
//! Two endpoints are connected, and somebody who has the keys of both stands between them: he
//! loses, holds back, repeats and reorders what they say, spoils it under its protection, and says
//! things of his own in the name of either, at any time. Whatever comes of it: nobody panics,
//! nothing piles up, and an end that says it is connected has the SAs that it speaks of.
//!
//! Each step of the story is two bytes, what happens and a choice, and some steps take more. At the
//! end both are left in peace: if they still agree, the next story goes on with them, else two new
//! ones connect.

use std::cell::RefCell;
use std::collections::VecDeque;

use simplevpn_core::ike::wire::Header;
use simplevpn_core::ike::wire::numbers::ExchangeType;

use super::Random;
use super::exchanges::{Pair, edit};
use crate::ike::Plain;

/// Steps of one story at the most: what is longer repeats itself.
const STEPS: usize = 40;
/// Messages on the wire at the most; who sends more is cut off.
const WIRE: usize = 64;
/// How many of the last messages can be repeated.
const MEMORY: usize = 32;
/// How long they are left in peace at the end, in ms: until retransmissions have given up.
const PEACE: u64 = 200_000;
/// After so many stories two new ones connect, so that a failure is found again from few inputs.
const STORIES: u32 = 200;

thread_local! {
    static STAGE: RefCell<Option<Stage>> = const { RefCell::new(None) };
    static SEED: RefCell<u64> = const { RefCell::new(0) };
}

struct Stage {
    pair: Pair,
    /// What was sent, for repetitions: who sent it, and the message.
    said: VecDeque<(usize, Vec<u8>)>,
    stories: u32,
}

/// A story as described above.
pub fn ike_states(bytes: &[u8]) {
    let kept = STAGE.take().filter(|stage| stage.stories < STORIES);
    let mut stage = kept.unwrap_or_else(Stage::new);
    let mut rest = bytes;
    for _ in 0..STEPS {
        let Some((&[what, choice], after)) = rest.split_first_chunk() else { break };
        rest = stage.step(what, choice, after);
        stage.remember();
        stage.pair.check_bounds();
        stage.pair.check_claims();
    }
    if stage.ends_well() {
        stage.stories += 1;
        STAGE.set(Some(stage));
    }
}

impl Stage {
    fn new() -> Stage {
        let seed = SEED.with_borrow_mut(|seed| {
            *seed += 1;
            *seed
        });
        let mut pair = Pair::new(seed);
        pair.connect();
        // Whoever starts anew leaves something half open each time.
        pair.most = 16;
        Stage { pair, said: VecDeque::new(), stories: 0 }
    }

    /// One step; returns what of the story is left.
    fn step<'b>(&mut self, what: u8, choice: u8, rest: &'b [u8]) -> &'b [u8] {
        let pair = &mut self.pair;
        let from = usize::from(choice & 1);
        match what % 12 {
            0 => pair.act(choice),
            1 => pair.deliver_next(),
            2 => pair.settle(),
            3 => drop(pair.wire.pop_front()),
            4 => {
                // What was said first comes last.
                let count = pair.wire.len().max(1);
                pair.wire.rotate_left(usize::from(choice) % count);
            }
            5 => {
                if let Some(first) = pair.wire.front().cloned() {
                    pair.wire.push_back(first);
                }
            }
            6 => pair.pass(
                [10, 1100, 2100, 5100, 9000, 17_000, 31_000, 61_000][usize::from(choice % 8)],
            ),
            7 => self.repeat(choice),
            8 => return self.spoil(choice, rest),
            9 => return self.say(from, choice, rest),
            10 => pair.restart_one(choice),
            _ => pair.move_one(from, choice),
        }
        rest
    }

    fn remember(&mut self) {
        self.pair.wire.truncate(WIRE);
        if let Some((from, _, message)) = self.pair.wire.back() {
            if self.said.back().is_none_or(|(_, last)| last != message) {
                self.said.push_back((*from, message.clone()));
            }
            if self.said.len() > MEMORY {
                self.said.pop_front();
            }
        }
    }

    /// Something that was said already, in the same direction or back to whoever said it.
    fn repeat(&mut self, choice: u8) {
        let Some((from, message)) =
            self.said.get(usize::from(choice >> 1) % self.said.len().max(1))
        else {
            return;
        };
        let from = if choice & 1 == 0 { *from } else { 1 - *from };
        self.pair.inject(from, message.clone());
    }

    /// Spoils the next message: edits of four bytes each.
    fn spoil<'b>(&mut self, choice: u8, rest: &'b [u8]) -> &'b [u8] {
        let (edits, rest) = take_edits(choice, rest);
        if let Some((from, path, message)) = self.pair.wire.pop_front() {
            let message = self.pair.altered(&message, &edits);
            self.pair.wire.push_front((from, path, message));
        }
        rest
    }

    /// Something that an end has not said, under its keys: exchange, message id and flags as chosen,
    /// and the payloads of something that was said, spoilt.
    fn say<'b>(&mut self, from: usize, choice: u8, rest: &'b [u8]) -> &'b [u8] {
        let Some((&[exchange, id, like], rest)) = rest.split_first_chunk() else { return &[] };
        let (edits, rest) = take_edits(choice >> 1, rest);
        let Some((_, example)) = self.said.get(usize::from(like) % self.said.len().max(1)).cloned()
        else {
            return rest;
        };
        let plain = self.pair.spy.open(&example);
        let mut plain = plain.unwrap_or(Plain { first: 0, text: vec![0] });
        edit(&edits, &mut plain);
        let Some((spis, initiator, next)) = self.pair.where_it_is(from) else { return rest };
        let response = exchange & 0x80 != 0;
        let header = Header {
            spis,
            exchange: ExchangeType(34 + exchange % 4),
            from_initiator: initiator,
            response,
            message_id: next[usize::from(response)].wrapping_add(u32::from(id % 4)).wrapping_sub(1),
        };
        if let Some(message) = self.pair.spy.write(&header, &plain) {
            self.pair.inject(from, message);
        }
        rest
    }

    /// Leaves both in peace, and tells whether they agree then.
    fn ends_well(&mut self) -> bool {
        self.pair.settle();
        self.pair.pass(PEACE);
        let most = std::mem::replace(&mut self.pair.most, 4);
        self.pair.check_bounds();
        self.pair.most = most;
        self.pair.check_claims();
        self.pair.is_whole()
    }
}

/// A first type of payload and up to three edits; how many, the choice tells.
fn take_edits(choice: u8, rest: &[u8]) -> (Vec<u8>, &[u8]) {
    let len = (1 + 4 * usize::from(choice % 4)).min(rest.len());
    let (edits, rest) = rest.split_at(len);
    (edits.to_vec(), rest)
}

/// Something for [`ike_states`].
pub(super) fn input(random: &mut Random) -> Vec<u8> {
    let steps = 2 + random.below(20);
    (0..steps).flat_map(|_| story_step(random)).collect()
}

fn story_step(random: &mut Random) -> Vec<u8> {
    // Mostly what happens by itself.
    let what = random.pick(&[0, 0, 1, 1, 1, 2, 2, 3, 4, 5, 6, 7, 8, 8, 8, 9, 9, 10, 11]);
    let choice = random.byte();
    let mut step = vec![what, choice];
    let edits = |random: &mut Random, choice: u8, step: &mut Vec<u8>| {
        step.push(if random.one_in(4) { random.byte() } else { 0 });
        for _ in 0..choice % 4 {
            let at = random.below(300) as u16;
            step.extend([random.byte(), (at >> 8) as u8, at as u8, random.byte()]);
        }
    };
    match what {
        8 => edits(random, choice, &mut step),
        9 => {
            step.extend(random.bytes(3));
            edits(random, choice >> 1, &mut step);
        }
        _ => {}
    }
    step
}
