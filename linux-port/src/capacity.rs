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
    batch_for(memory())
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

/// The send buffer of a socket for outer packets, in bytes as `SO_SNDBUF` wants them; the kernel
/// allows twice as many, of which a full packet takes 2304.
///
/// All peers share the buffer, and packets are charged to it until the device has sent them. A
/// device's queue that holds more than the buffer would keep the packets of every other peer from
/// being sent, also through other devices. The buffer is therefore as large as a queue may become:
/// with the kernel's allowance 4 MiB on a small machine (what OpenWrt's fq_codel and Wi-Fi without
/// VHT hold at most), 32 MiB on a large one (the limit of fq_codel elsewhere), between the two a
/// sixteenth of the memory. It takes memory only while a queue is that long.
#[must_use]
pub fn send_buffer() -> i32 {
    send_buffer_for(memory())
}

/// By the machine's memory in KiB; unknown is little.
fn send_buffer_for(memory: Option<u64>) -> i32 {
    let sixteenth = memory.unwrap_or(0).saturating_mul(1 << 10) >> 4;
    i32::try_from(sixteenth.clamp(4 << 20, 32 << 20) / 2).unwrap_or(i32::MAX)
}

/// By the machine's memory in KiB; unknown is little.
fn batch_for(memory: Option<u64>) -> usize {
    if memory.is_some_and(|memory| memory >= SMALL) { 64 } else { 16 }
}

/// All memory of the machine, in KiB; `None` if the kernel does not tell.
fn memory() -> Option<u64> {
    std::fs::read_to_string(MEMORY).ok().as_deref().and_then(total)
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
    fn the_send_buffer_grows_with_the_memory_between_its_limits() {
        for (megabytes, wanted) in
            [(Some(60), 2 << 20), (None, 2 << 20), (Some(128), 4 << 20), (Some(24_000), 16 << 20)]
        {
            assert_eq!(send_buffer_for(megabytes.map(|m: u64| m << 10)), wanted, "{megabytes:?}");
        }
        assert_eq!(send_buffer_for(Some(u64::MAX)), 16 << 20);
    }

    #[test]
    fn memory_that_is_not_told_is_little() {
        for text in ["", "MemTotal:", "MemTotal: many kB", "MemTotal: 1", "MemTotal: -1 kB"] {
            assert_eq!(batch_for(total(text)), 16, "{text}");
        }
    }

    #[test]
    fn the_kernel_tells() {
        assert!(memory().is_some());
    }
}
