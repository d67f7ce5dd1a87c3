//! The randomness of IKE: the kernel's.

use core::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng};

/// The kernel's random generator.
pub(in crate::daemon) struct Random;

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        if let Err(error) = getrandom::fill(bytes) {
            // Keys from anything else would be worse than no daemon; the killswitch stays closed.
            log::error!("no randomness: {error}");
            std::process::abort();
        }
        Ok(())
    }
}

impl TryCryptoRng for Random {}

/// A number below `bound`, to spread what several would do at once.
pub(super) fn below(bound: u64) -> u64 {
    match Random.try_next_u64() {
        Ok(number) => number % bound.max(1),
    }
}
