//! The machine that all of this shares with whatever else it does.

use std::thread::sleep;
use std::time::Duration;

const LOOK: Duration = Duration::from_millis(300);

/// How much of all processors other work takes, 0 to 1, while we do nothing: time stolen by other
/// virtual machines counts, too. Nothing where the kernel does not tell.
pub(crate) fn taken_by_others() -> Option<f64> {
    let (idle, all) = times()?;
    sleep(LOOK);
    let (idle_later, all_later) = times()?;
    Some(1.0 - (idle_later - idle) / (all_later - all))
}

/// Idle time (waiting for disks included), and all time, in ticks since the machine's start.
fn times() -> Option<(f64, f64)> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let ticks = stat.lines().next()?.split_whitespace().skip(1);
    // user nice system idle iowait irq softirq steal; guests count as user.
    let ticks: Vec<f64> = ticks.take(8).filter_map(|tick| tick.parse().ok()).collect();
    Some((ticks.get(3)? + ticks.get(4)?, ticks.iter().sum()))
}
