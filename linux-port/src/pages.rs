//! Zeroed memory straight from the kernel, of which only pages that were touched take room.
//!
//! Not from the allocator: that of a C library for routers may fill what it hands out with zeros
//! itself, and with that touch it all.

use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use std::alloc::{Layout, handle_alloc_error};

/// Memory of a fixed size.
#[derive(Debug)]
pub(crate) struct Pages {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory belongs to its owner alone, whatever thread that is in.
unsafe impl Send for Pages {}
// SAFETY: as above; shared, it can only be read.
unsafe impl Sync for Pages {}

impl Pages {
    /// `len` zeros. Like any allocation, ends the process if there is no memory.
    pub(crate) fn new(len: usize) -> Pages {
        let (access, kind) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping where the kernel likes it touches no memory that is in use.
        let start = unsafe { libc::mmap(core::ptr::null_mut(), len.max(1), access, kind, -1, 0) };
        match NonNull::new(start.cast()) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED.cast() => Pages { start, len },
            _ => handle_alloc_error(Layout::array::<u8>(len).unwrap_or(Layout::new::<u8>())),
        }
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes are mapped from `start` on, zeroed and ours until we are dropped.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and nobody else has a reference.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` has mapped, and nobody has a reference any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len.max(1)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resident memory of this process, in pages.
    fn resident() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn only_what_is_touched_takes_room() {
        // Large beside what other tests take meanwhile.
        const PAGES: usize = 1 << 17;
        let mut pages = Pages::new(PAGES * 4096);
        let before = resident();
        assert!(pages.len() == PAGES * 4096 && pages[PAGES * 4096 - 1] == 0);
        pages[1] = 7;
        assert_eq!(pages[..3], [0, 7, 0]);
        assert!(resident() < before + PAGES / 2);
        drop(pages);
        assert!(Pages::new(0).is_empty());
    }
}
