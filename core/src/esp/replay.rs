//! The anti-replay window (RFC 4303 §3.4.3) as a ring of blocks (RFC 6479).
//!
//! Nothing is shifted: blocks are zeroed as the window advances. The ring is one block longer
//! than the window, so that a whole window always lies behind its newest number. Numbers are
//! compared by subtraction; the sample code's `seq + W < last` would overflow.

use managed::ManagedSlice;

use crate::counters::Discard;

const BLOCK_BITS: u32 = u32::BITS;

/// The window's size is not a multiple of 32 from 32 to 65536.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadWindow;

/// How many blocks of storage a window of `size` packets needs.
#[must_use]
pub const fn window_storage(size: u32) -> usize {
    (size / BLOCK_BITS) as usize + 1
}

/// Which sequence numbers were already accepted.
#[derive(Debug)]
pub struct ReplayWindow<'a> {
    blocks: ManagedSlice<'a, u32>,
    /// Index of the block that holds `top`.
    head: usize,
    /// The highest number accepted so far.
    top: u64,
}

impl<'a> ReplayWindow<'a> {
    /// An empty window over [`window_storage`]`(size)` blocks: 32 to 65536 packets, in steps
    /// of 32.
    ///
    /// # Errors
    /// [`BadWindow`] if the storage stands for another size.
    pub fn new(mut blocks: ManagedSlice<'a, u32>) -> Result<ReplayWindow<'a>, BadWindow> {
        if !(window_storage(32)..=window_storage(65536)).contains(&blocks.len()) {
            return Err(BadWindow);
        }
        blocks.fill(0);
        let mut window = ReplayWindow { blocks, head: 0, top: 0 };
        window.set(0, 0); // the number 0 is never sent, hence never accepted
        Ok(window)
    }

    /// Takes everything up to and including `top` as already seen: where a restarted receiver
    /// goes on.
    pub fn resume(&mut self, top: u64) {
        self.blocks.fill(u32::MAX);
        self.head = 0;
        self.top = top;
        let newer = u32::MAX.checked_shl(top as u32 % BLOCK_BITS + 1).unwrap_or(0);
        if let Some(block) = self.blocks.get_mut(0) {
            *block = !newer;
        }
    }

    /// The window's size in packets.
    #[must_use]
    pub fn size(&self) -> u64 {
        (self.blocks.len() as u64 - 1) * u64::from(BLOCK_BITS)
    }

    /// The highest number accepted so far; 0 before the first.
    #[must_use]
    pub fn top(&self) -> u64 {
        self.top
    }

    /// The blocks where the numbers are that come next if all goes well.
    pub(crate) fn edge(&self) -> &[u32] {
        let behind = self.blocks.get(self.head..).unwrap_or_default();
        behind.get(..2).unwrap_or(behind)
    }

    /// Whether `number` may still be accepted. Asked *before* the packet is authenticated.
    ///
    /// # Errors
    /// [`Discard::Replayed`] or [`Discard::TooOld`].
    pub fn check(&self, number: u64) -> Result<(), Discard> {
        if number > self.top {
            return Ok(());
        }
        if self.top - number >= self.size() {
            return Err(Discard::TooOld);
        }
        let seen = self.blocks.get(self.index(number)).copied().unwrap_or(u32::MAX);
        if seen & bit(number) == 0 { Ok(()) } else { Err(Discard::Replayed) }
    }

    /// Remembers `number`, which [`check`](Self::check) allowed and whose packet is authentic.
    pub fn mark(&mut self, number: u64) {
        if number > self.top {
            self.advance(number);
        }
        self.set(self.index(number), number);
    }

    fn set(&mut self, index: usize, number: u64) {
        if let Some(block) = self.blocks.get_mut(index) {
            *block |= bit(number);
        }
    }

    /// The block of a number that is not newer than `top` and not older than the ring.
    fn index(&self, number: u64) -> usize {
        let back = (block_of(self.top) - block_of(number)) as usize;
        if back <= self.head { self.head - back } else { self.head + self.blocks.len() - back }
    }

    /// Moves the window's right edge to `top`.
    fn advance(&mut self, top: u64) {
        let steps = block_of(top) - block_of(self.top);
        if steps >= self.blocks.len() as u64 {
            self.blocks.fill(0);
        } else {
            for _ in 0..steps {
                self.head = if self.head + 1 < self.blocks.len() { self.head + 1 } else { 0 };
                if let Some(block) = self.blocks.get_mut(self.head) {
                    *block = 0;
                }
            }
        }
        self.top = top;
    }
}

fn block_of(number: u64) -> u64 {
    number / u64::from(BLOCK_BITS)
}

fn bit(number: u64) -> u32 {
    1 << (number as u32 % BLOCK_BITS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::vec;

    use proptest::prelude::*;

    use super::*;
    use Discard::{Replayed, TooOld};

    fn window(size: u32) -> ReplayWindow<'static> {
        ReplayWindow::new(ManagedSlice::Borrowed(vec![7; window_storage(size)].leak())).unwrap()
    }

    fn accept(window: &mut ReplayWindow<'_>, number: u64) -> Result<(), Discard> {
        window.check(number)?;
        window.mark(number);
        Ok(())
    }

    /// A story in numbered steps: the cases that a window gets wrong when it gets one wrong.
    #[test]
    fn a_numbered_table() {
        const W: u64 = 2048;
        let mut window = window(W as u32);
        for (step, (number, expected)) in [
            (0, Err(Replayed)), // 0: zero is never sent
            (1, Ok(())),
            (1, Err(Replayed)),
            (9, Ok(())),
            (8, Ok(())),
            (7, Ok(())), // 5
            (7, Err(Replayed)),
            (W, Ok(())),
            (W - 1, Ok(())),
            (W - 1, Err(Replayed)),
            (2, Ok(())), // 10: still inside
            (W + 16, Ok(())),
            (3, Err(TooOld)),
            (16, Err(TooOld)),
            (17, Ok(())), // 14: the left edge
            (17, Err(Replayed)),
            (4 * W, Ok(())),
            (4 * W - (W - 1), Ok(())),
            (4 * W - W, Err(TooOld)),
            (10, Err(TooOld)),
            (4 * W + 3 * W, Ok(())), // 20: a jump over the whole ring
            (4 * W, Err(TooOld)),
            (7 * W - 1, Ok(())),
            (1 << 40, Ok(())),
            ((1 << 40) - W + 1, Ok(())),
            ((1 << 40) - W, Err(TooOld)), // 25
            (u64::MAX - 1, Ok(())),
            (u64::MAX, Ok(())),
            (u64::MAX, Err(Replayed)),
            (u64::MAX - W + 1, Ok(())),
            (u64::MAX - W, Err(TooOld)), // 30
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(accept(&mut window, number), expected, "step {step}: {number}");
        }
    }

    #[test]
    fn checking_alone_changes_nothing() {
        let mut window = window(32);
        assert_eq!(window.check(1000), Ok(()));
        assert_eq!(window.check(1000), Ok(()));
        assert_eq!(window.top(), 0);
        assert_eq!(accept(&mut window, 1), Ok(()));
    }

    #[test]
    fn a_restarted_receiver_accepts_nothing_twice() {
        for top in [0, 1, 31, 32, 63, 64, 5000, (1 << 32) - 1, 1 << 32] {
            let mut window = window(64);
            window.resume(top);
            for number in top.saturating_sub(100)..=top {
                assert!(window.check(number).is_err(), "{number} up to {top}");
            }
            for number in (top + 1..top + 200).rev().step_by(1) {
                let expected = if top + 199 - number < 64 { Ok(()) } else { Err(TooOld) };
                assert_eq!(accept(&mut window, number), expected, "{number} after {top}");
            }
        }
    }

    #[test]
    fn sizes_from_32_to_65536() {
        for size in [0, 16, 65536 + 32] {
            let blocks = vec![0; window_storage(size)].leak();
            assert_eq!(
                ReplayWindow::new(ManagedSlice::Borrowed(blocks)).unwrap_err(),
                BadWindow,
                "{size}"
            );
        }
        for size in [32, 64, 2048, 65536] {
            assert_eq!(window(size).size(), u64::from(size));
        }
    }

    proptest! {
        /// The same answers as a set of all numbers ever seen.
        #[test]
        fn agrees_with_a_set(
            size in prop::sample::select(vec![32u32, 64, 96, 256]),
            steps in prop::collection::vec(-300i64..600, 1..300),
            start in prop::sample::select(vec![0u64, 1 << 31, (1 << 32) - 50]),
        ) {
            let mut window = window(size);
            let (mut seen, mut top) = (BTreeSet::from([0]), 0u64);
            let mut at = start;
            for step in steps {
                at = at.saturating_add_signed(step);
                let expected = if at <= top && top - at >= u64::from(size) {
                    Err(TooOld)
                } else if seen.contains(&at) {
                    Err(Replayed)
                } else {
                    seen.insert(at);
                    top = top.max(at);
                    Ok(())
                };
                prop_assert_eq!(accept(&mut window, at), expected, "{}", at);
            }
        }
    }
}
