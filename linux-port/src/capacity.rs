//! How many packets the daemon has room for, by the memory of the machine: the one place where its
//! buffers get their size.
//!
//! A slot is as long as the longest packet, but costs only the pages that packets have touched:
//! one or two for each slot, unless someone sends longer packets than links carry. So that these
//! do not fill a small router's memory either, it has fewer slots.

/// Where the kernel tells how much memory there is.
const MEMORY: &str = "/proc/meminfo";
/// Below this many KiB a machine is small: one that is sold with 64 MB.
const SMALL: u64 = 96 << 10;

/// The most that [`runs`] returns.
pub const MAX_RUNS: usize = 8;

/// How many packets are handled in one direction before the other gets its turn: the slots of each
/// batch.
#[must_use]
pub fn batch() -> usize {
    batch_for(std::fs::read_to_string(MEMORY).ok().as_deref().and_then(total))
}

/// How many datagrams are received at once from a socket with this batch where the kernel joins
/// what arrives in runs, up to 64 KiB in one.
#[must_use]
pub fn joined(batch: usize) -> usize {
    batch / 4
}

/// How many flows' packets are joined at a time on their way to the host, with this batch.
#[must_use]
pub fn runs(batch: usize) -> usize {
    (batch / 8).min(MAX_RUNS)
}

/// How much may wait in the kernel to be received by a socket with this batch, in bytes: what
/// arrives while the daemon is busy elsewhere for some milliseconds.
#[must_use]
pub fn receive_buffer(batch: usize) -> i32 {
    i32::try_from(batch << 15).unwrap_or(i32::MAX)
}

/// By the machine's memory in KiB; unknown is little.
fn batch_for(memory: Option<u64>) -> usize {
    if memory.is_some_and(|memory| memory >= SMALL) { 64 } else { 16 }
}

/// All memory, in KiB, as in `MemTotal:    60416 kB`.
fn total(meminfo: &str) -> Option<u64> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    rest.trim().strip_suffix(" kB")?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_machines_get_fewer_slots() {
        let router = "MemTotal:          59904 kB\nMemFree:           21044 kB\n";
        let server = "Foo: 1 kB\nMemTotal:       24689764 kB\n";
        assert_eq!(total(router), Some(59_904));
        assert_eq!((batch_for(total(router)), batch_for(total(server))), (16, 64));
        assert_eq!((receive_buffer(16), receive_buffer(64)), (512 << 10, 2 << 20));
    }

    #[test]
    fn memory_that_is_not_told_is_little() {
        for text in ["", "MemTotal:", "MemTotal: many kB", "MemTotal: 1", "MemTotal: -1 kB"] {
            assert_eq!(batch_for(total(text)), 16, "{text}");
        }
    }

    #[test]
    fn the_kernel_tells() {
        assert!(std::fs::read_to_string(MEMORY).ok().as_deref().and_then(total).is_some());
    }
}
