//! A thread as POSIX has it.
//!
//! One of the standard library's can be named, and naming it takes C's formatted output: some
//! twenty kilobytes of a router's flash, all told.

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr;
use std::io;

/// A thread that was started. A panic in it ends the process.
#[derive(Debug)]
pub(super) struct Thread(libc::pthread_t);

impl Thread {
    /// Starts one, with this thread's signal mask, that does `work`.
    ///
    /// # Errors
    /// When the system has no room for another.
    pub(super) fn start<W: FnOnce() + Send + 'static>(work: W) -> io::Result<Thread> {
        let work = Box::into_raw(Box::new(work));
        let mut thread = MaybeUninit::uninit();
        // SAFETY: `thread` is written if the call succeeds, and `run` gets what it expects.
        let error = unsafe {
            libc::pthread_create(thread.as_mut_ptr(), ptr::null(), run::<W>, work.cast())
        };
        if error == 0 {
            // SAFETY: `pthread_create` has written it.
            return Ok(Thread(unsafe { thread.assume_init() }));
        }
        // SAFETY: the pointer is from `into_raw` above, and there is no thread to use it.
        drop(unsafe { Box::from_raw(work) });
        Err(io::Error::from_raw_os_error(error))
    }

    /// Waits for its end.
    pub(super) fn join(self) {
        // SAFETY: it was started and, since this takes `self`, not yet waited for.
        unsafe { libc::pthread_join(self.0, ptr::null_mut()) };
    }
}

extern "C" fn run<W: FnOnce()>(work: *mut c_void) -> *mut c_void {
    // SAFETY: `start` made it from a `Box<W>` and has given that up.
    let work = unsafe { Box::from_raw(work.cast::<W>()) };
    work();
    ptr::null_mut()
}
