//! The clock of the daemon: `CLOCK_BOOTTIME`, which neither jumps when the wall clock is set nor
//! stands still while the machine sleeps. The wall clock is never asked: a router has none at boot.

use nix::time::{ClockId, clock_gettime};
use simplevpn_core::Instant;

/// Milliseconds since the machine was started.
#[must_use]
pub fn now() -> Instant {
    match clock_gettime(ClockId::CLOCK_BOOTTIME) {
        Ok(time) => {
            let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
            let nanos = u64::try_from(time.tv_nsec()).unwrap_or(0);
            Instant::from_millis(seconds.wrapping_mul(1000).wrapping_add(nanos / 1_000_000))
        }
        // Every kernel since 2.6.39 has this clock.
        Err(_) => Instant::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    #[test]
    fn counts_milliseconds_since_boot() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let before = now();
        assert!((before.as_millis() as f64 / 1000.0 - seconds).abs() < 5.0);
        std::thread::sleep(Duration::from_millis(30));
        let passed = now().saturating_since(before);
        assert!(passed >= Duration::from_millis(29) && passed < Duration::from_secs(5));
    }
}
