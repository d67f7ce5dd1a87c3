//! What an IKE SA is to request when no request is on the way: a set, of which the most urgent
//! comes first.

/// An exchange to begin. The order is the one in which they are begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Want {
    /// Delete the IKE SA.
    CloseIke,
    /// Tell the peer our new address (RFC 4555 §3.5).
    UpdateAddress,
    /// See whether the peer is where it says that it is now (RFC 4555 §3.7).
    CheckAddress,
    /// Delete the child SAs that [`Children`](super::child::Children) has marked.
    CloseChild,
    /// Replace the keys of IKE.
    RekeyIke,
    /// Replace the keys of ESP.
    RekeyChild,
    /// Make a child where there is none.
    NewChild,
    /// See whether the peer is alive.
    Liveness,
}

const ALL: [Want; 8] = [
    Want::CloseIke,
    Want::UpdateAddress,
    Want::CheckAddress,
    Want::CloseChild,
    Want::RekeyIke,
    Want::RekeyChild,
    Want::NewChild,
    Want::Liveness,
];

/// A set of them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wants(u8);

impl Wants {
    pub(crate) fn add(&mut self, want: Want) {
        self.0 |= 1 << want as u8;
    }

    pub(crate) fn remove(&mut self, want: Want) {
        self.0 &= !(1 << want as u8);
    }

    pub(crate) fn has(self, want: Want) -> bool {
        self.0 & 1 << want as u8 != 0
    }

    /// Removes and returns the most urgent.
    pub(crate) fn take(&mut self) -> Option<Want> {
        let want = ALL.into_iter().find(|want| self.has(*want))?;
        self.remove(want);
        Some(want)
    }

    /// Wants nothing any more.
    pub(crate) fn clear(&mut self) {
        self.0 = 0;
    }
}
