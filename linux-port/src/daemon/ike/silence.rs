//! Connections over which packets go out and nothing comes back.
//!
//! A peer that was started anew knows nothing of us, and may be unable to call: so one that is not
//! heard while there is traffic is called anew long before IKE gives it up. And what lies on the
//! way may let only UDP pass: then ESP is put into UDP. When IKE lives, and ESP of one direction does
//! not, is in [`super::one_way`].

use core::time::Duration;

use simplevpn_core::{Instant, Path, PeerId};

use super::super::engine::Engine;
use super::one_way::{Seen, Step};
use crate::config::model::Encap;

/// A peer that was not heard for so long after something was sent is asked for a sign of life.
const ASK: Duration = Duration::from_secs(8);
/// One that was not heard for so long is called anew.
const LOST: Duration = Duration::from_secs(16);
/// After so long without any ESP, and packets sent in vain by then, something on the way drops it.
const NO_ESP: Duration = Duration::from_secs(8);
const IN_VAIN: u64 = 3;

/// What goes out unanswered.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Silence {
    /// When the last look was.
    looked: Instant,
    /// Packets sent at the last look.
    sent: u64,
    /// When the first one was sent since the peer was last heard.
    unanswered: Option<Instant>,
    /// When the first one was sent since the connection is up, and how many were then, if no ESP
    /// has come since.
    no_esp: Option<(Instant, u64)>,
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remedy {
    Ask,
    CallAnew,
    UseUdp,
    /// IKE lives, and ESP does not.
    OneWay(Step),
}

/// What is known of a connection.
struct Signs {
    /// Packets sent.
    sent: u64,
    up: Instant,
    /// When ESP last came.
    esp: Option<Instant>,
    /// When IKE last came.
    ike: Instant,
    /// Whether ESP may and could be put into UDP.
    raw: bool,
}

impl Silence {
    /// Whether there is nothing to look at, if so many packets were sent.
    fn is_calm(&self, sent: u64) -> bool {
        self.sent == sent && self.unanswered.is_none() && self.no_esp.is_none()
    }

    /// ESP has come since the last look; so many packets were sent.
    fn heard(&mut self, sent: u64) {
        (self.sent, self.unanswered, self.no_esp) = (sent, None, None);
    }

    /// Looks at a connection, once a second or so.
    fn look(&mut self, now: Instant, signs: &Signs) -> Option<Remedy> {
        let sends = signs.sent != self.sent;
        self.sent = signs.sent;
        let heard = signs.esp.map_or(signs.ike, |esp| esp.max(signs.ike));
        self.unanswered = self.unanswered.filter(|since| heard < *since);
        self.unanswered = self.unanswered.or(sends.then_some(now));
        let mute = signs.raw && signs.esp.is_none_or(|esp| esp < signs.up);
        self.no_esp = self.no_esp.or(Some((now, signs.sent)).filter(|_| sends)).filter(|_| mute);
        let for_so_long = |since: Instant, long| now.saturating_since(since) >= long;
        // Only if the peer answers is it ESP that does not come through.
        if let Some((since, sent)) = self.no_esp
            && for_so_long(since, NO_ESP)
            && signs.sent - sent >= IN_VAIN
            && signs.ike > since
        {
            return Some(Remedy::UseUdp);
        }
        match self.unanswered {
            Some(since) if for_so_long(since, LOST) => Some(Remedy::CallAnew),
            Some(since) if for_so_long(since, ASK) => Some(Remedy::Ask),
            _ => None,
        }
    }
}

impl Engine {
    /// Looks for peers that are not heard, and does what can be done.
    pub(in crate::daemon) fn look_for_silence(&mut self, now: Instant) {
        let count = self.ike.as_ref().map_or(0, |ike| ike.calls.len());
        for id in (0..count as u32).map(PeerId) {
            match self.remedy(id, now) {
                None => {}
                Some(Remedy::Ask) => {
                    self.with_ike(now, &mut |ike, cx| ike.probe(now, cx, id));
                }
                Some(Remedy::CallAnew) => {
                    self.tell(id, log::Level::Info, &"not heard any more; calling again");
                    self.drop_connection(id, now);
                }
                Some(Remedy::UseUdp) => {
                    self.tell(id, log::Level::Warn, &"no ESP comes through; trying ESP in UDP");
                    if let Some(call) = self.ike.as_mut().and_then(|ike| ike.call(id)) {
                        call.through_udp = true;
                    }
                    self.drop_connection(id, now);
                }
                Some(Remedy::OneWay(Step::Ask)) => {
                    self.with_ike(now, &mut |ike, cx| ike.probe(now, cx, id));
                }
                Some(Remedy::OneWay(Step::Renew)) => {
                    self.tell(id, log::Level::Debug, &"packets go out, none comes; new keys");
                    self.follow_ike(id);
                    self.renew_keys(id, now);
                }
                Some(Remedy::OneWay(Step::CallAnew)) => {
                    let what = "IKE is answered, and no ESP comes through; connecting anew";
                    self.tell(id, log::Level::Warn, &what);
                    self.drop_connection(id, now);
                }
            }
        }
    }

    fn remedy(&mut self, id: PeerId, now: Instant) -> Option<Remedy> {
        let control = self.ike.as_mut()?;
        let call = control.call(id)?;
        let up = call.up?;
        let outbound = self.peers.tunnel.sealer.peer(id)?;
        let (sent, esp) =
            (outbound.traffic().packets, self.peers.tunnel.opener.peer(id)?.traffic().last);
        let looked = core::mem::replace(&mut call.silence.looked, now);
        // Most peers are heard, or nothing is sent to them; and looking at a connection takes a
        // while.
        if esp.is_some_and(|esp| esp > looked) {
            call.silence.heard(sent);
            call.one_way.heard(sent);
            return None;
        }
        if call.silence.is_calm(sent) && call.one_way.is_calm(sent) {
            return None;
        }
        let status = control.status(id)?;
        let call = control.call(id)?;
        let (ours, calls, ike) = (status.ours, call.calls(), status.last_heard);
        let peer = self.interface.peers.get(id.index())?;
        let raw = matches!(outbound.path(), Some(Path::Esp { .. })) && !call.through_udp;
        let raw = raw && peer.encap == Encap::Auto;
        // Only who can call can do something about a peer that is silent altogether.
        let silent = if calls {
            call.silence.look(now, &Signs { sent, up, esp, ike, raw })
        } else {
            call.silence.heard(sent);
            None
        };
        if let Some(Remedy::CallAnew | Remedy::UseUdp) = silent {
            return silent;
        }
        let step = call.one_way.look(now, &Seen { sent, up, esp, ike, ours, calls });
        step.map(Remedy::OneWay).or(silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    /// A connection, second by second: what is sent (each second a packet), and when ESP and IKE
    /// last came.
    fn remedies(
        raw: bool,
        sends: bool,
        esp: impl Fn(u64) -> Option<u64>,
        ike: impl Fn(u64) -> u64,
    ) -> Vec<(u64, Remedy)> {
        let mut silence = Silence::default();
        let mut found = Vec::new();
        for now in 101..140 {
            let signs = Signs {
                sent: if sends { now } else { 0 },
                up: at(100),
                esp: esp(now).map(at),
                ike: at(ike(now)),
                raw,
            };
            if let Some(remedy) = silence.look(at(now), &signs)
                && found.last().is_none_or(|(_, last)| *last != remedy)
            {
                found.push((now, remedy));
            }
        }
        found
    }

    #[test]
    fn who_is_heard_is_left_alone() {
        assert_eq!(remedies(true, true, Some, |_| 100), []);
        assert_eq!(remedies(false, true, |_| None, |now| now), [], "traffic of one direction");
        assert_eq!(remedies(true, false, |_| None, |_| 100), [], "nothing is sent");
    }

    #[test]
    fn who_is_not_heard_is_asked_and_then_called_anew() {
        let expected = [(109, Remedy::Ask), (117, Remedy::CallAnew)];
        assert_eq!(remedies(false, true, |_| None, |_| 100), expected);
        assert_eq!(remedies(true, true, |_| None, |_| 100), expected);
        let until_110 = |now: u64| Some(now.min(110));
        let expected = [(119, Remedy::Ask), (127, Remedy::CallAnew)];
        assert_eq!(remedies(true, true, until_110, |_| 100), expected);
    }

    #[test]
    fn esp_goes_through_udp_if_only_ike_comes_through() {
        let answers_at_110 = |now: u64| if now >= 110 { 110 } else { 100 };
        let found = remedies(true, true, |_| None, answers_at_110);
        assert_eq!(found[..2], [(109, Remedy::Ask), (110, Remedy::UseUdp)]);
    }
}
