//! What the log is told of those who cannot get in. Strangers can try as often as they like, so that
//! it is told of few of them.

use core::fmt::Display;
use core::net::IpAddr;
use core::time::Duration;

use simplevpn_core::ike::{Offered, Reason};
use simplevpn_core::{Instant, PeerId};

use super::super::engine::Engine;
use super::offer;

/// How often the log tells of each kind.
const PAUSE: Duration = Duration::from_secs(60);

/// Who is refused. Each kind has a line in the log of its own, so that scanners, which mostly speak
/// IKEv1, hide nobody else, and strangers hide no peer.
#[derive(Clone, Copy)]
enum Kind {
    IkeV1,
    Stranger,
    Peer,
}

/// When the log was last told of each [`Kind`].
#[derive(Default)]
pub(super) struct Told([Option<Instant>; 3]);

impl Told {
    fn may(&self, kind: Kind, now: Instant) -> bool {
        self.0[kind as usize].is_none_or(|told| now.saturating_since(told) >= PAUSE)
    }
}

impl Engine {
    /// Somebody was refused, perhaps in the name of a peer.
    pub(super) fn refused(
        &mut self,
        claimed: Option<PeerId>,
        from: IpAddr,
        reason: Reason,
        now: Instant,
    ) {
        if let Some(call) = claimed.and_then(|id| self.ike.as_mut()?.call(id)) {
            call.refused(reason);
        }
        let kind = if reason == Reason::IkeV1 { Kind::IkeV1 } else { Kind::Stranger };
        self.tell_refused(kind, claimed, from, &reason, now);
    }

    /// Nothing that was offered is what we take: the log tells both, so that it can be seen which
    /// end is to be configured otherwise.
    pub(super) fn unacceptable(
        &mut self,
        peer: Option<PeerId>,
        from: IpAddr,
        offered: &Offered,
        now: Instant,
    ) {
        // Only a peer, who is authenticated, gets as far as ESP.
        let esp = peer.is_some();
        let kind = if esp { Kind::Peer } else { Kind::Stranger };
        let Some(control) = self.ike.as_mut().filter(|ike| ike.told.may(kind, now)) else { return };
        let reason = if esp { Reason::NoCommonChildProposal } else { Reason::NoCommonProposal };
        let ours = offer::ours(&control.endpoint.settings_mut().preferences, esp);
        let theirs = offer::theirs(offered);
        let why = format_args!("{reason} (theirs: {theirs}; ours: {ours})");
        self.tell_refused(kind, peer, from, &why, now);
    }

    fn tell_refused(
        &mut self,
        kind: Kind,
        claimed: Option<PeerId>,
        from: IpAddr,
        why: &dyn Display,
        now: Instant,
    ) {
        let Some(control) = self.ike.as_mut().filter(|ike| ike.told.may(kind, now)) else { return };
        control.told.0[kind as usize] = Some(now);
        let name = &self.interface.name;
        let claimed = claimed.and_then(|id| self.interface.peers.get(id.index()));
        let who = claimed.map(|peer| format!(" as {}", peer.name)).unwrap_or_default();
        log::warn!("{name}: {from} tried to connect{who}: {why}; more are not told for a minute");
    }
}
