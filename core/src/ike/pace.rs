//! How often somebody may do something (the generic cell rate algorithm): so many times at once,
//! and from then on once in a while.

use core::time::Duration;

use crate::time::Instant;

/// When somebody will have used up no more than his share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace(Instant);

impl Pace {
    /// Nothing is used up.
    pub(crate) const FRESH: Pace = Pace(Instant::ZERO);

    /// Whether it may be done once more, at the cost of `interval`, of which `burst` may be owed.
    pub(crate) fn permits(self, now: Instant, interval: Duration, burst: u32) -> bool {
        self.0 <= now.saturating_add(interval.saturating_mul(burst))
    }

    /// It was done.
    pub(crate) fn count(&mut self, now: Instant, interval: Duration) {
        self.0 = now.max(self.0).saturating_add(interval);
    }
}
