//! The hint to the processor that memory will be needed soon, where Rust has a way to give it:
//! x86-64, and 64-bit ARM. Elsewhere it is nothing.
//!
//! Fetching only pays where the state of all peers does not fit a cache ([`is_worth`]).

use simplevpn_core::ahead::Fetch;

use crate::crypto::{self, Key};

/// Bytes of a cache line.
const LINE: usize = 64;
/// From so many peers on their state, a KiB or two each, fills a second-level cache.
const MANY_PEERS: usize = 128;

/// Whether it pays to look ahead with so many peers.
#[must_use]
pub const fn is_worth(peers: usize) -> bool {
    cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) && peers >= MANY_PEERS
}

/// Brings lines into the nearest cache.
pub struct Prefetch;

impl Fetch<Key> for Prefetch {
    #[inline]
    fn value<T: ?Sized>(&self, value: &T) {
        let start = core::ptr::from_ref(value).cast::<u8>();
        // The first line may begin before the value.
        let len = start.addr() % LINE + size_of_val(value);
        for at in (0..len).step_by(LINE) {
            hint(start.wrapping_add(at));
        }
    }

    fn key(&self, key: &Key) {
        crypto::fetch(key, self);
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn hint(line: *const u8) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint, which reads nothing, never faults, and takes any address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
}

#[cfg(target_arch = "aarch64")]
#[inline]
fn hint(line: *const u8) {
    // SAFETY: as on x86-64; no register or flag changes.
    unsafe {
        core::arch::asm!("prfm pldl1keep, [{line}]", line = in(reg) line,
            options(nostack, preserves_flags, readonly));
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn hint(_: *const u8) {}
