//! IKE_SA_INIT (RFC 7296 §1.2): algorithms, keys, NAT detection.

use crate::crypto::dh::EphemeralKey;
use crate::ike::path::IkePath;
use crate::ike::sa::{Env, IkeSa, Outcome};

/// Our request, as far as its answer needs it.
pub(crate) struct Initiation {
    pub(crate) key: EphemeralKey,
}

/// An answer to somebody of whom nothing is kept.
#[derive(Default)]
pub(crate) struct Stateless {
    path: Option<IkePath>,
}

impl Stateless {
    pub(crate) fn refuse_version(&mut self, path: &IkePath, _datagram: &[u8]) {
        let _ = path;
    }

    pub(crate) fn take(&mut self, _out: &mut [u8]) -> Option<(IkePath, usize)> {
        self.path.take().map(|path| (path, 0))
    }
}

/// Takes an answer: nothing about it is authentic.
pub(crate) fn handle_response(
    _sa: &mut IkeSa,
    _env: &mut Env<'_>,
    _path: &IkePath,
    _datagram: &[u8],
) -> Outcome {
    Outcome::Keep
}
