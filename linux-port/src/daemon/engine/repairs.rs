//! How often what others remove of ours is put back: at once the first time, and less and less often
//! when they keep doing it, so that two programs that fight do not take the machine's whole time.

use core::time::Duration;

use simplevpn_core::Instant;

/// The shortest time from one repair to the next.
const FIRST: Duration = Duration::from_millis(500);
/// So many in a row are no fight yet: others remove what is ours piece by piece.
const FEW: u32 = 4;
/// The longest one.
const LAST: Duration = Duration::from_secs(60);
/// Whoever makes us wait this long is told of.
const WORTH_A_WORD: Duration = Duration::from_secs(8);

/// The repairs so far.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    /// Whether something was deleted, perhaps of ours, and not looked for since.
    wanted: bool,
    /// When everything was looked at.
    looked: Option<Instant>,
    /// When something of it had to be put back.
    restored: Option<Instant>,
    /// How often in a row.
    rounds: u32,
    /// From then to the next time, at least.
    wait: Duration,
}

impl Repairs {
    /// Whether there may be one now.
    pub(super) fn are_due(&self, now: Instant) -> bool {
        self.restored.is_none_or(|then| now.saturating_since(then) >= self.wait)
    }

    /// Something was deleted, perhaps of ours.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// When to look after it.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let after = |then: Option<Instant>, wait| then.map(|then| then.saturating_add(wait));
        let due = after(self.restored, self.wait).max(after(self.looked, FIRST));
        self.wanted.then_some(due.unwrap_or(Instant::ZERO))
    }

    /// Notes that everything was looked at, and whether something had to be put back; whether it is
    /// time to complain.
    pub(super) fn done(&mut self, restored: bool, now: Instant) -> bool {
        (self.wanted, self.looked) = (false, Some(now));
        if !restored {
            return false;
        }
        let before = self.wait;
        // Three times as long without any is peace.
        let again = self.restored.is_some_and(|then| now.saturating_since(then) < before * 3);
        self.rounds = if again { self.rounds.saturating_add(1) } else { 1 };
        self.wait = match self.rounds {
            ..=FEW => FIRST,
            _ => (before * 2).min(LAST),
        };
        self.restored = Some(now);
        before < WORTH_A_WORD && self.wait >= WORTH_A_WORD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(half_seconds: u64) -> Instant {
        Instant::from_millis(half_seconds * 500)
    }

    #[test]
    fn a_fight_is_slowed_down_told_of_once_and_forgotten() {
        let mut repairs = Repairs::default();
        let (mut times, mut told) = (Vec::new(), 0);
        for now in 0..600 {
            repairs.want();
            if repairs.deadline().is_some_and(|due| due <= at(now)) {
                assert!(repairs.are_due(at(now)));
                times.push(now);
                told += u32::from(repairs.done(true, at(now)));
            }
        }
        assert_eq!(times, [0, 1, 2, 3, 4, 6, 10, 18, 34, 66, 130, 250, 370, 490]);
        assert_eq!(told, 1);
        assert!(!repairs.done(true, at(2000)));
        assert!(repairs.are_due(at(2001)), "it was quiet for long");
    }

    #[test]
    fn nothing_of_ours_costs_looks_at_a_pace_and_no_patience() {
        let mut repairs = Repairs::default();
        assert_eq!(repairs.deadline(), None);
        for now in 0..100 {
            repairs.want();
            assert!(repairs.deadline().is_some_and(|due| due <= at(now)));
            assert!(!repairs.done(false, at(now)));
            repairs.want();
            assert!(repairs.deadline().is_some_and(|due| due > at(now)));
        }
        assert!(!repairs.done(true, at(100)));
        assert!(repairs.are_due(at(101)));
    }
}
