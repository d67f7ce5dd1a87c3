//! Peers whose packets come from elsewhere.
//!
//! Each packet of a peer can move it, and a peer (or what it says is a NAT in front of it) may move
//! with every packet. What follows for packets follows at once; the kernel is asked for the way to the
//! new place once a second at most, and the log is told once a minute at most, with how many moves were
//! left out.

use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;

use simplevpn_core::{Instant, Path, PeerId};

use super::{Engine, esp_path, udp_path};
use crate::config::model::Encap;

/// How often the log is told of one peer's moves at most.
const TELL: Duration = Duration::from_secs(60);
/// How often the way to one peer is asked for at most because it has moved.
const MEASURE: Duration = Duration::from_secs(1);

/// What has followed from the moves of a peer.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::daemon) struct Moves {
    /// When the log was last told, and of how many moves it was not told since.
    told: Option<Instant>,
    untold: Untold,
    /// When the way to it was last asked for, and whether that is to be done again.
    measured: Option<Instant>,
    to_measure: bool,
}

/// How many moves the log was not told of, as the end of a sentence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::daemon) struct Untold(u32);

impl fmt::Display for Untold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            1 => f.write_str("; one move before was not told"),
            more => write!(f, "; {more} moves before were not told"),
        }
    }
}

impl Moves {
    /// The peer has moved: how many moves the log was not told of, if it is to be told now.
    fn tell(&mut self, now: Instant) -> Option<Untold> {
        if self.told.is_some_and(|told| now.saturating_since(told) < TELL) {
            self.untold.0 = self.untold.0.saturating_add(1);
            return None;
        }
        self.told = Some(now);
        Some(core::mem::take(&mut self.untold))
    }

    /// How many moves the log was not told of, if it is time to tell of the last of them.
    fn tell_late(&mut self, now: Instant) -> Option<Untold> {
        let before = Untold(self.untold.0.checked_sub(1)?);
        if self.told.is_some_and(|told| now.saturating_since(told) < TELL) {
            return None;
        }
        (self.told, self.untold) = (Some(now), Untold::default());
        Some(before)
    }

    /// Whether the way to it is to be asked for now; if not, it is due later.
    fn measure(&mut self, now: Instant) -> bool {
        self.to_measure = self.measured.is_some_and(|then| now.saturating_since(then) < MEASURE);
        if !self.to_measure {
            self.measured = Some(now);
        }
        !self.to_measure
    }
}

impl Engine {
    /// A peer's newest packet came on another path, on which it is answered by now.
    pub(super) fn moved(&mut self, id: PeerId, path: Path, now: Instant) {
        let Some(peer) = self.peers.list.get_mut(id.index()) else { return };
        let nat_port = self.interface.nat_port;
        let port = peer.config.endpoint.as_ref().map_or(nat_port, |endpoint| endpoint.nat_port);
        let (sealer, encap) = (&mut self.peers.tunnel.sealer, peer.config.encap);
        match (encap, path) {
            (Encap::Esp, Path::Udp { remote, .. }) => {
                sealer.set_path(id, Some(esp_path(remote.ip())));
            }
            (Encap::Udp, Path::Esp { remote, .. }) => {
                let path = udp_path(SocketAddr::new(remote, port), nat_port);
                sealer.set_path(id, Some(path));
            }
            _ => {}
        }
        let from = |path: Path| match path {
            Path::Esp { remote, .. } => esp_path(remote),
            Path::Udp { remote, local } => udp_path(remote, local.port()),
        };
        // To be heard from the same place at another address of ours is no news.
        if peer.heard.replace(path).is_some_and(|before| from(before) == from(path)) {
            return;
        }
        self.changed.endpoints = true;
        if peer.moves.measure(now) {
            self.begin_path_mtu(id);
        }
        if let Some(untold) = self.may_tell_move(id, now) {
            self.tell_place(id, path, untold);
        }
    }

    /// Whether the log is to be told now that a peer has moved, and of how many moves it was not told.
    pub(in crate::daemon) fn may_tell_move(&mut self, id: PeerId, now: Instant) -> Option<Untold> {
        self.peers.list.get_mut(id.index())?.moves.tell(now)
    }

    /// Tells the log where a peer is heard from.
    fn tell_place(&self, id: PeerId, path: Path, untold: Untold) {
        let Some(peer) = self.peers.list.get(id.index()) else { return };
        let name = format!("{}: {}", self.interface.name, peer.config.name);
        match (peer.config.encap, path) {
            (Encap::Esp, Path::Udp { .. }) => {
                log::warn!(
                    "{name}: heard through UDP, answered with raw ESP as configured{untold}"
                );
            }
            (Encap::Udp, Path::Esp { .. }) => {
                log::warn!("{name}: heard as raw ESP, answered through UDP as configured{untold}");
            }
            (_, Path::Esp { remote, .. }) => {
                log::info!("{name}: heard from {remote}, raw ESP{untold}");
            }
            (_, Path::Udp { remote, .. }) => {
                log::info!("{name}: heard from {remote}, ESP in UDP{untold}");
            }
        }
    }

    /// Does for peers that have moved what could not be done at once.
    pub(super) fn follow_moves(&mut self, now: Instant) {
        for at in 0..self.peers.list.len() {
            let (id, peer) = (PeerId(at as u32), &mut self.peers.list[at]);
            let late = peer.moves.tell_late(now).zip(peer.heard);
            if peer.moves.to_measure && peer.moves.measure(now) {
                self.begin_path_mtu(id);
            }
            if let Some((untold, path)) = late {
                self.tell_place(id, path, untold);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(1_000_000 + millis)
    }

    #[test]
    fn the_log_is_told_once_a_minute_and_of_how_many() {
        let mut moves = Moves::default();
        let mut lines = Vec::new();
        // Three thousand moves a second, for 90 seconds.
        for millis in 0..90_000 {
            for _ in 0..3 {
                lines.extend(moves.tell(at(millis)).map(|untold| (millis, untold.0)));
            }
            if millis % 1000 == 0 {
                lines.extend(moves.tell_late(at(millis)).map(|untold| (millis, untold.0)));
            }
        }
        assert_eq!(lines, [(0, 0), (60_000, 3 * 60_000 - 1)]);
        assert_eq!(moves.tell_late(at(119_999)), None);
        assert_eq!(moves.tell_late(at(120_000)), Some(Untold(3 * 30_000 - 2)));
        assert_eq!(moves.tell_late(at(500_000)), None, "nothing more has happened");
        assert_eq!(moves.tell(at(500_000)), Some(Untold(0)));
    }

    #[test]
    fn the_way_is_asked_for_once_a_second_and_after_the_last_move() {
        let mut moves = Moves::default();
        let asked = (0..5000).filter(|millis| moves.measure(at(*millis))).count();
        assert_eq!(asked, 5);
        assert!(moves.to_measure);
        assert!(moves.measure(at(6000)));
        assert!(!moves.to_measure);
    }
}
