//! Connections of which IKE lives, and ESP of one direction does not.
//!
//! That IKE is answered says nothing about ESP. The peer may send it to where we are no more, may have
//! lost an SA or its kernel may, or something on the way drops it. All that is seen here is that
//! packets go out and none comes in, and so it looks as well when the peer has nothing to say: a
//! stream of one direction is legal, and ESP has no message that has to be answered. So what is
//! done must not hurt such a peer, and becomes rarer the longer it lasts.
//!
//! 1. **The path and the keys are renewed**, once some seconds have passed without ESP, several
//!    packets were sent in that time and IKE has been answered. Our packets go on the path of the IKE
//!    SA ([`IkeStatus::astray`](simplevpn_core::ike::IkeStatus::astray)), and the child SA is
//!    replaced. This costs an exchange and no packet, since the old SA is accepted until the new one
//!    is in use (RFC 7296 §2.8); and one of ours sees to the path of its own packets then, too.
//! 2. **What comes then tells.** One of ours sends a dummy packet (RFC 4303 §2.6) with an SA that has
//!    taken the place of another, as soon as it sends with that. So if its IKE answers twice and
//!    nothing comes by ESP both times, ESP does not get through, whatever it has to say.
//! 3. **The connection is made anew** then, by the end that notices: if that one cannot call, its
//!    deletion has the other one call. A peer that is not one of ours proves nothing by its
//!    silence. It is called anew once, if no ESP has come since the connection is up: that is how a
//!    peer looks which sends to where we were before. Then it counts as one that only receives,
//!    until ESP comes, and only its keys are renewed.
//!
//! Between renewals a minute passes, then two, and so on up to an hour, until a connection was well for
//! as long as that.

use core::time::Duration;

use simplevpn_core::Instant;

/// After so long without ESP it is looked closer, and packets sent in vain by then.
const CLOSER: Duration = Duration::from_secs(12);
const IN_VAIN: u64 = 3;
/// How long after its keys were renewed one of ours is given to be heard: its switch to them takes a
/// second, and two ways.
const PROOF: Duration = Duration::from_secs(4);
/// How often it is given that, since a packet may get lost.
const PROOFS: u8 = 2;
/// The first and the longest pause between two renewals.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// What is known of a peer that is sent to and not heard by ESP. Lasts longer than a connection.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct OneWay {
    /// Packets sent at the last look.
    sent: u64,
    /// When the first packet was sent since ESP last came, and how many were sent before.
    since: Option<(Instant, u64)>,
    /// When it last looked as if ESP did not get through.
    suspected: Option<Instant>,
    /// No renewal begins before, and how long the pause after that one is.
    not_before: Instant,
    pause: Duration,
    /// How many renewals in a row were asked for without ESP after them, and when the last one was
    /// done, if it was.
    proofs: u8,
    renewed: Option<Instant>,
    /// Whether the peer was called anew, and no ESP has come since.
    called_anew: bool,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask whether IKE lives.
    Ask,
    /// Make sure of the path, and replace the child SA.
    Renew,
    /// Make the connection anew.
    CallAnew,
}

/// What is seen of a connection.
pub(super) struct Seen {
    /// Packets sent.
    pub(super) sent: u64,
    /// Since when it is up.
    pub(super) up: Instant,
    /// When ESP last came.
    pub(super) esp: Option<Instant>,
    /// When IKE last came.
    pub(super) ike: Instant,
    /// Whether the peer is one of ours.
    pub(super) ours: bool,
    /// Whether it is one that we call.
    pub(super) calls: bool,
}

impl OneWay {
    /// Whether there is nothing to look at, if so many packets were sent.
    pub(super) fn is_calm(&self, sent: u64) -> bool {
        self.since.is_none() && self.sent == sent
    }

    /// ESP has come since the last look; so many packets were sent.
    pub(super) fn heard(&mut self, sent: u64) {
        (self.sent, self.since, self.proofs, self.renewed) = (sent, None, 0, None);
        self.called_anew = false;
    }

    /// Another connection has come up.
    pub(super) fn begin(&mut self) {
        (self.since, self.proofs, self.renewed) = (None, 0, None);
    }

    /// The child SA was replaced.
    pub(super) fn was_renewed(&mut self, now: Instant) {
        if self.proofs > 0 {
            self.renewed.get_or_insert(now);
        }
    }

    /// Looks at a connection, once a second or so.
    pub(super) fn look(&mut self, now: Instant, seen: &Seen) -> Option<Step> {
        let Seen { sent, esp, ike, .. } = *seen;
        if self.since.is_some_and(|(since, _)| esp.is_some_and(|esp| esp >= since)) {
            self.heard(sent);
        }
        let before = core::mem::replace(&mut self.sent, sent);
        if sent != before {
            self.since.get_or_insert((now, before));
        }
        let (since, before) = self.since?;
        if let Some(renewed) = self.renewed {
            let over = now.saturating_since(renewed) >= PROOF && ike >= renewed;
            return over.then(|| self.judge(seen)).flatten();
        }
        if now.saturating_since(since) < CLOSER || sent.saturating_sub(before) < IN_VAIN {
            return None;
        }
        if ike <= since {
            return Some(Step::Ask);
        }
        let suspected = self.suspected.replace(now);
        if suspected.is_none_or(|then| now.saturating_since(then) >= LONGEST_PAUSE) {
            (self.not_before, self.pause) = (now, FIRST_PAUSE);
        }
        if now < self.not_before {
            return None;
        }
        self.not_before = now.saturating_add(self.pause);
        self.pause = self.pause.saturating_mul(2).min(LONGEST_PAUSE);
        self.proofs = 1;
        Some(Step::Renew)
    }

    /// Keys were renewed, and no ESP has come since.
    fn judge(&mut self, seen: &Seen) -> Option<Step> {
        self.renewed = None;
        if seen.ours && self.proofs < PROOFS {
            self.proofs += 1;
            return Some(Step::Renew);
        }
        self.proofs = 0;
        let never = seen.esp.is_none_or(|esp| esp < seen.up);
        let anew = seen.ours || seen.calls && never && !self.called_anew;
        self.called_anew |= anew;
        anew.then_some(Step::CallAnew)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    /// A connection that is up at 100, second by second until `until`: a packet is sent each second,
    /// keys are renewed a second after they are to be, and ESP has last come at `esp(now, renewed)`.
    fn steps(
        ours: bool,
        calls: bool,
        until: u64,
        esp: impl Fn(u64, Option<u64>) -> Option<u64>,
    ) -> Vec<(u64, Step)> {
        let (mut one_way, mut found) = (OneWay::default(), Vec::new());
        let (mut renewed, mut up) = (None, 100);
        for now in 101..until {
            if let Some((at, Step::Renew)) = found.last()
                && at + 1 == now
            {
                renewed = Some(now);
                one_way.was_renewed(super::tests::at(now));
            }
            let esp = esp(now, renewed).map(at);
            let seen = Seen { sent: now, up: at(up), esp, ike: at(now), ours, calls };
            if let Some(step) = one_way.look(at(now), &seen) {
                found.push((now, step));
                if step == Step::CallAnew {
                    up = now;
                    one_way.begin();
                }
            }
        }
        found
    }

    #[test]
    fn who_is_heard_is_left_alone() {
        assert_eq!(steps(true, true, 4000, |now, _| Some(now)), []);
        assert_eq!(steps(false, true, 4000, |now, _| Some(now - now % 10)), [], "now and then");
    }

    #[test]
    fn one_of_ours_that_proves_to_receive_keeps_its_connection() {
        let found = steps(true, true, 20_000, |_, renewed| renewed);
        assert!(found.iter().all(|(_, step)| *step == Step::Renew), "{found:?}");
        let times: Vec<u64> = found.iter().map(|(at, _)| *at).collect();
        assert_eq!(times[..4], [113, 173, 293, 533], "pauses grow");
        assert!(times.windows(2).skip(6).all(|pair| pair[1] - pair[0] == 3600), "{times:?}");
    }

    #[test]
    fn one_of_ours_from_which_nothing_comes_is_called_anew() {
        let expected = [(113, Step::Renew), (118, Step::Renew), (123, Step::CallAnew)];
        for calls in [true, false] {
            let found = steps(true, calls, 400, |_, _| Some(99));
            assert_eq!(found[..3], expected);
            let again = found.iter().filter(|(_, step)| *step == Step::CallAnew).count();
            assert!(again <= 3, "less and less often: {found:?}");
        }
        // A single packet that gets lost proves nothing.
        let second = |_, renewed: Option<u64>| renewed.filter(|at| *at > 116);
        let found = steps(true, true, 170, second);
        assert_eq!(found, [(113, Step::Renew), (118, Step::Renew)]);
    }

    #[test]
    fn another_that_was_never_heard_is_called_anew_once() {
        let anew = |found: &[(u64, Step)]| -> Vec<u64> {
            let steps = found.iter().filter(|(_, step)| *step == Step::CallAnew);
            steps.map(|(at, _)| *at).collect()
        };
        assert_eq!(anew(&steps(false, true, 20_000, |_, _| None)), [118]);
        assert_eq!(
            anew(&steps(false, false, 20_000, |_, _| None)),
            [0_u64; 0],
            "it could not be called"
        );
        let heard_once = steps(false, true, 20_000, |now, _| Some(now.min(110)));
        assert_eq!(anew(&heard_once), [0_u64; 0], "it has something to say at times");
        assert!(heard_once.len() < 15, "{heard_once:?}");
    }

    #[test]
    fn a_connection_without_ike_is_not_judged() {
        let mut one_way = OneWay::default();
        for now in 101..200 {
            let (up, ike) = (at(100), at(100));
            let seen = Seen { sent: now, up, esp: None, ike, ours: true, calls: true };
            let step = one_way.look(at(now), &seen);
            assert_eq!(step, (now >= 113).then_some(Step::Ask), "{now}");
        }
    }

    #[test]
    fn pauses_begin_anew_after_an_hour_that_was_well() {
        // Silent until 1000, well until 10000, silent again.
        let found = steps(false, false, 10_100, |now, _| match now {
            ..1000 => None,
            1000..10_000 => Some(now),
            _ => Some(9999),
        });
        let times: Vec<u64> = found.iter().map(|(at, _)| *at).collect();
        assert_eq!(times, [113, 173, 293, 533, 10_013, 10_073]);
    }
}
