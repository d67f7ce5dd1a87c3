//! The child SA pair of an IKE SA: what ESP uses.
//!
//! Each peer has one pair. While it is being replaced there are more for a moment; what becomes of
//! them then is told in [`super::rekey`].

use super::keymat::{ChildKeys, CipherKey};
use super::pad::Lifetimes;
use super::reason::Reason;
use super::sa::{Env, IkeSa};
use super::sad::{ChildSa, Refused, SaDatabase};
use super::suite::ChildSuite;
use super::timer::Timer;
use super::ts::Ranges;
use crate::path::Path;
use crate::spd::PeerId;

/// A child SA pair.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Child {
    /// Our SPI, with which we receive.
    pub(crate) spi_in: u32,
    /// The peer's SPI, with which we send.
    pub(crate) spi_out: u32,
    pub(crate) suite: ChildSuite,
}

/// The child SA pairs of an IKE SA.
#[derive(Default)]
pub(crate) struct Children {
    /// The one in use.
    pub(crate) current: Option<Child>,
    /// Our SPI of one that the peer has and we do not want, to be deleted.
    pub(crate) unwanted: Option<u32>,
    /// Why there is none.
    pub(crate) reason: Option<Reason>,
}

impl Children {
    /// The algorithms of the one in use.
    pub(crate) fn suite(&self) -> Option<ChildSuite> {
        self.current.map(|child| child.suite)
    }
}

/// What two ends have agreed on for a child, to be installed.
pub(crate) struct Agreed<'k> {
    pub(crate) child: Child,
    /// The key for what we receive, and
    pub(crate) key_in: &'k CipherKey,
    /// the one for what we send.
    pub(crate) key_out: &'k CipherKey,
    /// Our addresses, and
    pub(crate) local: &'k Ranges,
    /// the peer's.
    pub(crate) remote: &'k Ranges,
    pub(crate) path: Path,
}

impl<'k> Agreed<'k> {
    /// `initiator` tells whether we have begun the exchange that makes the child.
    pub(crate) fn new(
        child: Child,
        initiator: bool,
        keys: &'k ChildKeys,
        [local, remote]: [&'k Ranges; 2],
        path: Path,
    ) -> Agreed<'k> {
        let ChildKeys { initiator: i, responder: r } = keys;
        let (key_out, key_in) = if initiator { (i, r) } else { (r, i) };
        Agreed { child, key_in, key_out, local, remote, path }
    }

    fn sa(&self, peer: PeerId, spi: u32, key: &'k CipherKey) -> ChildSa<'k> {
        let Agreed { child, local, remote, path, .. } = self;
        ChildSa { peer, spi, key, esn: child.suite.esn, local, remote, path: *path }
    }

    /// From now on packets with it are accepted.
    pub(crate) fn install_inbound(&self, env: &mut Env<'_>, peer: PeerId) -> Result<(), Refused> {
        env.sad.install_inbound(&self.sa(peer, self.child.spi_in, self.key_in))
    }

    /// From now on packets leave with it.
    pub(crate) fn install_outbound(&self, env: &mut Env<'_>, peer: PeerId) -> Result<(), Refused> {
        env.sad.install_outbound(&self.sa(peer, self.child.spi_out, self.key_out))
    }

    /// Both at once, as for the first child.
    ///
    /// # Errors
    /// [`Refused`]; nothing is installed then.
    pub(crate) fn install(&self, env: &mut Env<'_>, peer: PeerId) -> Result<(), Refused> {
        self.install_inbound(env, peer)?;
        self.install_outbound(env, peer).inspect_err(|_| {
            env.sad.remove_inbound(self.child.spi_in);
        })
    }
}

/// The child SAs are gone with their IKE SA (RFC 7296 §1.4.1).
pub(crate) fn remove_all(sa: &mut IkeSa, sad: &mut dyn SaDatabase) {
    let Some(peer) = sa.peer else { return };
    if let Some(child) = sa.children.current.take() {
        sad.remove_outbound(peer, child.spi_out);
        sad.remove_inbound(child.spi_in);
    }
}

/// Our SPI of a child that we want deleted.
pub(crate) fn next_to_close(sa: &mut IkeSa) -> Option<u32> {
    sa.children.unwanted
}

/// The peer has confirmed that the child with this SPI of ours is deleted.
pub(crate) fn closed(sa: &mut IkeSa, env: &mut Env<'_>, spi_in: u32) {
    sa.children.unwanted = None;
    if sa.children.current.is_some_and(|child| child.spi_in == spi_in) {
        remove_all(sa, env.sad);
    }
}

/// The peer has deleted the child with this SPI of its own; returns ours, to be told in answer
/// (RFC 7296 §1.4.1).
pub(crate) fn deleted_by_peer(sa: &mut IkeSa, env: &mut Env<'_>, spi_out: u32) -> Option<u32> {
    let child = sa.children.current.filter(|child| child.spi_out == spi_out)?;
    remove_all(sa, env.sad);
    Some(child.spi_in)
}

/// The keys of the child in use begin to age.
pub(crate) fn start_lifetime(sa: &mut IkeSa, env: &mut Env<'_>, lifetimes: &Lifetimes) {
    let [soft, hard] = env.ages(lifetimes.child);
    sa.timers.set(Timer::RekeyChild, soft);
    sa.timers.set(Timer::ExpireChild, hard);
}
