//! Sequence numbers: handing them out, and restoring the half that is not sent.
//!
//! Implements RFC 4303 §2.2, §3.3.3 and Appendix A2.2. They are `u64` everywhere; without ESN the
//! high half stays zero.

use crate::counters::Discard;

/// The last sequence number without ESN.
const LAST_32: u64 = u32::MAX as u64;

/// Hands out the sequence numbers of one outbound SA, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundSequence {
    next: u64,
    limit: u64,
    esn: bool,
}

impl OutboundSequence {
    /// Numbers from 1 to the last that the SA allows.
    #[must_use]
    pub fn new(esn: bool) -> OutboundSequence {
        OutboundSequence::reserved(esn, 1, u64::MAX)
    }

    /// Numbers from `first` (at least 1) to `limit`, both included: those that were reserved.
    #[must_use]
    pub fn reserved(esn: bool, first: u64, limit: u64) -> OutboundSequence {
        let mut sequence = OutboundSequence { next: first.max(1), limit: 0, esn };
        sequence.extend(limit);
        sequence
    }

    /// Allows numbers up to `limit`, never past what the SA can count, never fewer than before.
    pub fn extend(&mut self, limit: u64) {
        let last = if self.esn { u64::MAX - 1 } else { LAST_32 };
        self.limit = self.limit.max(limit.min(last));
    }

    /// The next number.
    ///
    /// # Errors
    /// [`Discard::SequenceExhausted`], from then on always: no number comes twice.
    pub fn take(&mut self) -> Result<u64, Discard> {
        if self.next > self.limit {
            return Err(Discard::SequenceExhausted);
        }
        let number = self.next;
        self.next += 1;
        Ok(number)
    }

    /// The number that [`take`](Self::take) would return.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// How many numbers are left.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        (self.limit + 1).saturating_sub(self.next)
    }

    /// Whether numbers are 64 bits long.
    #[must_use]
    pub fn esn(&self) -> bool {
        self.esn
    }
}

/// The full number of a packet whose low half is `low`, seen by a receiver whose window of
/// `window` numbers ends at `top` (RFC 4303 Appendix A2.2): the one in the 2^32 numbers that
/// begin at the window's left edge.
///
/// `None` past 2^64.
pub(crate) fn infer(low: u32, top: u64, window: u64) -> Option<u64> {
    let edge = top.saturating_sub(window.saturating_sub(1));
    edge.checked_add(u64::from(low.wrapping_sub(edge as u32)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_at_one_and_never_repeats() {
        let mut sequence = OutboundSequence::new(true);
        assert_eq!((sequence.take(), sequence.take(), sequence.next()), (Ok(1), Ok(2), 3));
        assert_eq!(OutboundSequence::reserved(true, 0, 9).take(), Ok(1), "0 is never sent");
    }

    #[test]
    fn exhaustion_stops_the_sa() {
        for (esn, last) in [(false, u64::from(u32::MAX)), (true, u64::MAX - 1)] {
            let mut sequence = OutboundSequence::reserved(esn, last - 1, u64::MAX);
            assert_eq!(sequence.remaining(), 2);
            assert_eq!((sequence.take(), sequence.take()), (Ok(last - 1), Ok(last)));
            sequence.extend(u64::MAX);
            assert_eq!(sequence.take(), Err(Discard::SequenceExhausted));
            assert_eq!(sequence.take(), Err(Discard::SequenceExhausted));
            assert_eq!(sequence.remaining(), 0);
        }
    }

    #[test]
    fn a_reservation_ends_until_it_is_extended() {
        let mut sequence = OutboundSequence::reserved(true, 7, 7);
        assert_eq!(sequence.take(), Ok(7));
        assert_eq!(sequence.take(), Err(Discard::SequenceExhausted));
        sequence.extend(8);
        assert_eq!(sequence.take(), Ok(8));
        sequence.extend(3);
        assert_eq!(sequence.take(), Err(Discard::SequenceExhausted), "a limit never shrinks");
    }

    /// RFC 4303 Appendix A2.2, figure 3 (window within one subspace) and 4 (across two).
    #[test]
    fn infers_the_high_half() {
        const G: u64 = 1 << 32;
        for (number, (low, top, window, expected)) in [
            // The window lies in one subspace: left of it means the next subspace.
            (5, 3 * G + 100, 64, Some(4 * G + 5)),
            (37, 3 * G + 100, 64, Some(3 * G + 37)),
            (36, 3 * G + 100, 64, Some(4 * G + 36)),
            (u32::MAX, 3 * G + 100, 64, Some(3 * G + G - 1)),
            // It reaches back into the one before.
            (u32::MAX, 3 * G + 10, 64, Some(3 * G - 1)),
            (u32::MAX - 52, 3 * G + 10, 64, Some(3 * G - 53)),
            (u32::MAX - 53, 3 * G + 10, 64, Some(3 * G + G - 54)),
            (0, 3 * G + 10, 64, Some(3 * G)),
            // At the very beginning there is nothing before.
            (1, 0, 64, Some(1)),
            (u32::MAX, 10, 64, Some(G - 1)),
            // At the very end there is nothing behind.
            (3, u64::MAX, 64, None),
            (u32::MAX, u64::MAX, 64, Some(u64::MAX)),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(infer(low, top, window), expected, "case {number}");
        }
    }
}
