//! What an IKE SA has to do later, and when.

use crate::time::Instant;

/// What there is to do later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Timer {
    /// Give up an IKE SA that is not authenticated.
    HalfOpen,
    /// See whether the peer is alive (§2.4).
    Liveness,
    /// Try once more what the peer was too busy for (§2.25).
    Retry,
    /// Replace the keys of ESP.
    RekeyChild,
    /// Replace the keys of IKE.
    RekeyIke,
    /// The keys of ESP are too old.
    ExpireChild,
    /// The keys of IKE are too old.
    ExpireIke,
    /// Send with the new child SA, whether or not the peer has used it (§2.8).
    SwitchOutbound,
    /// Accept nothing with the old child SA any more.
    RetireChild,
    /// Forget an IKE SA that was replaced, or is being deleted.
    Forget,
}

const COUNT: usize = Timer::Forget as usize + 1;

const ALL: [Timer; COUNT] = [
    Timer::HalfOpen,
    Timer::Liveness,
    Timer::Retry,
    Timer::RekeyChild,
    Timer::RekeyIke,
    Timer::ExpireChild,
    Timer::ExpireIke,
    Timer::SwitchOutbound,
    Timer::RetireChild,
    Timer::Forget,
];

/// When to do what.
#[derive(Default)]
pub(crate) struct Timers([Option<Instant>; COUNT]);

impl Timers {
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        self.put(timer, Some(at));
    }

    pub(crate) fn clear(&mut self, timer: Timer) {
        self.put(timer, None);
    }

    fn put(&mut self, timer: Timer, at: Option<Instant>) {
        if let Some(slot) = self.0.get_mut(timer as usize) {
            *slot = at;
        }
    }

    /// When it is due, if it is set.
    pub(crate) fn get(&self, timer: Timer) -> Option<Instant> {
        self.0.get(timer as usize).copied().flatten()
    }

    /// The next one to be due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }

    /// Clears and returns one that is due.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Timer> {
        let due = |timer: &Timer| self.get(*timer).is_some_and(|at| at <= now);
        let timer = ALL.into_iter().find(due)?;
        self.clear(timer);
        Some(timer)
    }
}
