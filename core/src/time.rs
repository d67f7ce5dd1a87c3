//! Time as the caller tells it: the core never reads a clock.

use core::time::Duration;

/// Milliseconds since any fixed point that the caller chose (boot, start of the simulation).
///
/// The clock behind it must not jump: `CLOCK_BOOTTIME` on Linux, never the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The caller's fixed point itself.
    pub const ZERO: Instant = Instant(0);

    /// An instant `millis` milliseconds after the caller's fixed point.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Instant {
        Instant(millis)
    }

    /// Milliseconds since the caller's fixed point.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this instant lies; zero if it does not.
    // Dividing 64 bits is a lot of code for 32-bit processors, and this is asked for everywhere.
    #[inline(never)]
    #[must_use]
    pub const fn saturating_since(self, earlier: Instant) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// This instant moved `by` later; the end of time if that overflows.
    #[inline(never)]
    #[must_use]
    pub const fn saturating_add(self, by: Duration) -> Instant {
        let by = by.as_secs().saturating_mul(1000).saturating_add(by.subsec_millis() as u64);
        Instant(self.0.saturating_add(by))
    }
}
