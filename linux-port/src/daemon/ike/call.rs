//! One peer, and when to call it.

use core::net::IpAddr;
use core::time::Duration;

use simplevpn_core::Instant;
use simplevpn_core::ike::identity::Identity;
use simplevpn_core::ike::{self, Given, Reason};

use super::directory;
use super::one_way::OneWay;
use super::random;
use super::silence::Silence;
use crate::config::model::{self, Interface, Peer, Start};

/// The pause after the first attempt that failed; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How long an answer may take before there is traffic enough to ask once more.
const ANSWER: Duration = Duration::from_secs(3);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is known of a peer beside its IKE SA.
#[derive(Default)]
pub(in crate::daemon) struct Call {
    /// Where it is to be called, as far as that is known.
    pub(super) address: Option<IpAddr>,
    /// The same as an identity, for a peer without any other.
    pub(super) address_id: Option<Identity>,
    /// What it gets when it asks for an address.
    pub(super) lease: Vec<IpAddr>,
    /// What it has given us.
    pub(super) given: Given,
    /// Since when packets can pass.
    pub(super) up: Option<Instant>,
    /// Whether we have called.
    pub(super) by_us: bool,
    /// Why they cannot.
    pub(super) reason: Option<Reason>,
    start: Option<Start>,
    /// Whether somebody wants it called.
    wanted: bool,
    /// Not called before.
    not_before: Instant,
    /// Attempts that failed, one after the other.
    failures: u32,
    /// How often the peer has deleted the child SA soon after it was made, one after the other.
    children_lost: u32,
    /// Raw ESP does not arrive: UDP is used instead.
    pub(super) through_udp: bool,
    /// What goes out unanswered.
    pub(super) silence: Silence,
    /// What goes out while nothing comes but IKE.
    pub(super) one_way: OneWay,
    /// Why there is no way to where it is to be called, if there is none.
    pub(super) no_way: Option<String>,
    /// When its name was last resolved for want of a way.
    pub(super) resolved: Instant,
}

impl Call {
    pub(super) fn new(interface: &Interface, peer: &Peer) -> Call {
        let start = directory::keys(peer).map(|keys| keys.start);
        // An address of ours comes from the peer: without one there may be no traffic to wait for.
        let wanted = start == Some(Start::Auto)
            || (start == Some(Start::Traffic) && interface.virtual_addresses);
        Call { lease: directory::lease(peer), start, wanted, ..Call::default() }
    }

    /// The same peer in another configuration, whose call was `before`. Without the same SAs all
    /// begins anew; an address of ours stays until the peer has given another.
    pub(super) fn after(
        before: Option<Call>,
        same_sas: bool,
        interface: &Interface,
        peer: &Peer,
    ) -> Call {
        let new = Call::new(interface, peer);
        let Some(mut call) = before else { return new };
        if !same_sas {
            let asks = interface.virtual_addresses && peer.endpoint.is_some();
            let given = if asks { call.given } else { Given::default() };
            return Call { given, ..new };
        }
        if call.start != new.start {
            (call.start, call.wanted) = (new.start, new.wanted);
        }
        if peer.endpoint.is_none() {
            (call.address, call.address_id) = (None, None);
        }
        call
    }

    /// The peer is to be called there.
    pub(super) fn aim(&mut self, address: IpAddr) {
        if self.address != Some(address) {
            self.address = Some(address);
            self.address_id = Some(Identity::of_address(address));
            self.not_before = Instant::ZERO;
        }
    }

    /// There are packets for it.
    pub(super) fn want(&mut self) {
        self.wanted |= self.start == Some(Start::Traffic);
    }

    /// Whether it is ever called.
    pub(super) fn calls(&self) -> bool {
        self.address.is_some() && self.calls_by_itself()
    }

    /// Whether it would be called, if it were known where.
    pub(super) fn calls_by_itself(&self) -> bool {
        matches!(self.start, Some(Start::Auto | Start::Traffic))
    }

    /// Whether it is to be called now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.wanted && self.address.is_some() && now >= self.not_before
    }

    /// When it is going to be called.
    pub(super) fn next(&self) -> Option<Instant> {
        (self.wanted && self.address.is_some()).then_some(self.not_before)
    }

    /// What it waits for if nothing went wrong.
    pub(super) fn waits_for(&self) -> &'static str {
        match (self.start, self.address) {
            (Some(Start::Auto), None) => "its address is not known yet",
            (Some(Start::Auto), Some(_)) => "it is going to be called",
            (Some(Start::Traffic), _) => "waits for traffic",
            (Some(Start::None) | None, _) => "waits for the peer to call",
        }
    }

    pub(super) fn came_up(&mut self, now: Instant, by_us: bool) {
        (self.up, self.by_us) = (Some(now), by_us);
        (self.reason, self.failures, self.silence) = (None, 0, Silence::default());
        self.one_way.begin();
    }

    /// The connection has ended, or an attempt to make one.
    pub(super) fn failed(&mut self, now: Instant, reason: Reason) {
        (self.up, self.reason) = (None, Some(reason));
        // Whoever waits for traffic waits for more of it.
        self.wanted = self.start == Some(Start::Auto);
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(6)).min(LONGEST_PAUSE);
        self.failures += 1;
        // Those who lost the same peer at the same time do not all come back at once.
        let pause = pause.as_millis() as u64;
        let pause = pause / 2 + random::below(pause / 2 + 1);
        self.not_before = now.saturating_add(Duration::from_millis(pause));
    }

    /// The peer has deleted the child SA, and the connection has none any more. Another one is asked
    /// for at once, and later each time if the peer deletes that soon as well.
    pub(super) fn lost_child(&mut self, now: Instant) {
        let lasted = self.up.is_some_and(|up| now.saturating_since(up) >= LONGEST_PAUSE);
        self.failures = if lasted { 0 } else { self.children_lost };
        self.failed(now, Reason::PeerClosedChild);
        self.children_lost = self.failures;
    }

    /// Another child SA was asked for. If nothing comes of that, IKE asks again by itself.
    pub(super) fn asked_for_child(&mut self, now: Instant) {
        self.wanted = false;
        self.not_before = now.saturating_add(ANSWER);
    }

    /// We have dropped the connection, to make another.
    pub(super) fn dropped(&mut self) {
        (self.up, self.wanted) = (None, self.calls());
        self.not_before = Instant::ZERO;
    }

    /// Somebody who claims to be the peer was refused.
    pub(super) fn refused(&mut self, reason: Reason) {
        if self.up.is_none() {
            self.reason = Some(reason);
        }
    }

    /// The next call is not made before.
    pub(super) fn hold(&mut self, until: Instant) {
        self.not_before = until;
    }

    pub(super) fn not_before(&self) -> Instant {
        self.not_before
    }

    /// Whether attempts have failed since it was last up.
    pub(super) fn has_failed(&self) -> bool {
        self.failures > 0
    }

    /// How ESP is to travel.
    pub(super) fn encap(&self, peer: &Peer) -> ike::Encap {
        match peer.encap {
            model::Encap::Auto if self.through_udp => ike::Encap::Udp,
            encap => directory::encap(encap),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(start: &str) -> (Interface, Peer) {
        let key = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
        let office = "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=";
        let text = format!(
            "config interface 'vpn0'\n\toption proto 'simplevpn'\n\toption private_key '{key}'\n\
             config simplevpn_vpn0 'office'\n\toption public_key '{office}'\n\
             \toption endpoint_host '192.0.2.1'\n\tlist allowed_ips '10.1.0.0/16'\n\
             \toption start '{start}'\n"
        );
        let interface = crate::config::parse("f", &text).unwrap().interfaces.remove(0);
        let peer = interface.peers[0].clone();
        (interface, peer)
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    #[test]
    fn pauses_grow_to_a_minute_and_begin_anew_after_success() {
        let (interface, peer) = peer("auto");
        let mut call = Call::new(&interface, &peer);
        assert!(!call.is_due(at(0)), "its address is not known");
        call.aim("192.0.2.1".parse().unwrap());
        assert!(call.is_due(at(0)));
        let pause = |call: &mut Call| {
            call.failed(at(100), Reason::NoAnswer);
            call.next().unwrap().saturating_since(at(100)).as_millis()
        };
        for longest in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            let pause = pause(&mut call);
            assert!((longest * 500..=longest * 1000).contains(&pause), "{pause} ms of {longest} s");
        }
        call.came_up(at(200), true);
        assert!(pause(&mut call) <= 1000);
        call.aim("192.0.2.2".parse().unwrap());
        assert!(call.is_due(at(100)), "elsewhere it may be reached");
    }

    #[test]
    fn a_child_that_the_peer_deletes_is_asked_for_again_and_later_each_time() {
        let (interface, peer) = peer("auto");
        let mut call = Call::new(&interface, &peer);
        call.aim("192.0.2.1".parse().unwrap());
        let mut pause = |lasts: u64| {
            call.came_up(at(1000), true);
            let now = at(1000 + lasts);
            call.lost_child(now);
            let pause = call.next().unwrap().saturating_since(now).as_millis();
            call.asked_for_child(now);
            assert_eq!(call.next(), None, "once");
            pause
        };
        for (lasts, longest) in [(5, 1), (5, 2), (5, 4), (59, 8), (3600, 1), (0, 2)] {
            let pause = pause(lasts);
            assert!((longest * 500..=longest * 1000).contains(&pause), "{pause} ms of {longest} s");
        }
    }

    #[test]
    fn traffic_calls_once() {
        let (interface, peer) = peer("traffic");
        let mut call = Call::new(&interface, &peer);
        call.aim("192.0.2.1".parse().unwrap());
        assert!(!call.is_due(at(0)));
        call.want();
        assert!(call.is_due(at(0)));
        call.failed(at(0), Reason::NoAnswer);
        assert!(!call.is_due(at(100)));
        call.want();
        assert!(!call.is_due(at(0)) && call.is_due(at(1)));
    }

    #[test]
    fn who_only_answers_calls_nobody() {
        let (interface, peer) = peer("none");
        let mut call = Call::new(&interface, &peer);
        call.aim("192.0.2.1".parse().unwrap());
        call.want();
        assert!(!call.is_due(at(100)));
    }
}
