//! Two IKE endpoints and the wire between them, message by message: what is sent waits until a test
//! delivers it, drops it or has it delivered late. After every step it is checked that nobody sends
//! with an SA that the other end has not installed.
#![allow(clippy::unwrap_used)] // clippy takes helpers of tests for no tests

use std::collections::VecDeque;
use std::time::Duration;

use simplevpn_core::Instant;
use simplevpn_core::crypto::dh::Group;
use simplevpn_core::ike::{Context, Ike, IkePath, MAX_MESSAGE_LEN, Target};

use super::ike_pair::{End, Installed, PEER, Pair};

/// How long a message is on its way, in ms.
const LATENCY: u64 = 10;

/// A message on the wire.
#[derive(Clone)]
pub(crate) struct Flight {
    pub(crate) from: usize,
    pub(crate) path: IkePath,
    pub(crate) bytes: Vec<u8>,
    pub(crate) arrival: u64,
}

/// Both ends and the wire.
pub(crate) struct Net {
    pub(crate) now: u64,
    pub(crate) ends: [End; 2],
    pub(crate) wire: VecDeque<Flight>,
    /// Whether it is checked after each step that both accept what the other sends.
    pub(crate) strict: bool,
}

pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;

impl Net {
    /// Two ends that know each other's public keys.
    pub(crate) fn new() -> Net {
        let Pair { alice, bob, .. } = Pair::keys();
        Net { now: 0, ends: [alice, bob], wire: VecDeque::new(), strict: true }
    }

    /// Two ends with a child.
    pub(crate) fn established() -> Net {
        let mut net = Net::new();
        net.strict = false;
        net.initiate(A);
        net.settle();
        net.strict = true;
        net.check_agreed();
        net
    }

    /// Has one end do something.
    pub(crate) fn act<R>(
        &mut self,
        at: usize,
        act: impl FnOnce(&mut Ike<'static>, Instant, &mut Context<'_>) -> R,
    ) -> R {
        let now = Instant::from_millis(self.now);
        let result = self.ends[at].call(|ike, cx| act(ike, now, cx));
        self.collect(at);
        result
    }

    pub(crate) fn initiate(&mut self, at: usize) {
        let [local, remote] = [self.ends[at].address, self.ends[1 - at].address];
        let target = Target { local, remote, ports: Some((500, 500)), nat_ports: (4500, 4500) };
        self.act(at, |ike, now, cx| ike.initiate(now, cx, PEER, &target));
    }

    pub(crate) fn rekey_child(&mut self, at: usize) {
        self.act(at, |ike, now, cx| ike.rekey_child(now, cx, PEER));
    }

    pub(crate) fn rekey_ike(&mut self, at: usize) {
        self.act(at, |ike, now, cx| ike.rekey(now, cx, PEER));
    }

    fn collect(&mut self, at: usize) {
        let End { ike, events, .. } = &mut self.ends[at];
        let mut out = [0; MAX_MESSAGE_LEN];
        while let Some(transmit) = ike.poll_transmit(&mut out) {
            let bytes = out[..transmit.len].to_vec();
            let arrival = self.now + LATENCY;
            self.wire.push_back(Flight { from: at, path: transmit.path, bytes, arrival });
        }
        while let Some(event) = ike.poll_event() {
            events.push(event);
        }
        self.check();
    }

    /// Whoever sends with an SA does so with one that the other end accepts, under the same key.
    fn check(&self) {
        for at in [A, B] {
            let Some(Installed { spi, key, .. }) = &self.ends[at].sad.outbound else { continue };
            let accepted = self.ends[1 - at].sad.inbound.get(spi).map(|sa| &sa.key);
            if self.strict {
                assert_eq!(accepted, Some(key), "{} sends with {spi:#x}", ["A", "B"][at]);
            }
        }
    }

    /// Takes the `n`th message off the wire.
    pub(crate) fn take(&mut self, n: usize) -> Flight {
        self.wire.remove(n).unwrap()
    }

    /// Takes the oldest message of an end off the wire.
    pub(crate) fn take_from(&mut self, from: usize) -> Flight {
        let at = self.wire.iter().position(|flight| flight.from == from);
        self.take(at.unwrap_or_else(|| panic!("{} has sent nothing", ["A", "B"][from])))
    }

    /// Has a message arrive now.
    pub(crate) fn deliver(&mut self, flight: Flight) {
        let IkePath { local, remote, natt } = flight.path;
        let path = IkePath { local: remote, remote: local, natt };
        let mut bytes = flight.bytes;
        self.act(1 - flight.from, |ike, now, cx| ike.handle(now, cx, &path, &mut bytes));
    }

    /// Delivers the newest message of an end, if there is one.
    pub(crate) fn deliver_newest_from(&mut self, from: usize) {
        if let Some(at) = self.wire.iter().rposition(|flight| flight.from == from) {
            let flight = self.take(at);
            self.deliver(flight);
        }
    }

    /// An end takes, and offers, only this group from now on.
    pub(crate) fn only_group(&mut self, at: usize, group: Group) {
        let groups = &mut self.ends[at].ike.settings_mut().preferences.groups;
        groups.clear();
        groups.push(group).unwrap();
    }

    /// Each end has so many IKE SAs with a peer.
    pub(crate) fn check_only_ike_sas(&self, count: usize) {
        for end in &self.ends {
            assert_eq!(end.ike.len(), count);
        }
    }

    /// Delivers the next message of an end.
    pub(crate) fn deliver_from(&mut self, from: usize) {
        let flight = self.take_from(from);
        self.deliver(flight);
    }

    /// Delivers all there is, until nobody has anything to say.
    pub(crate) fn settle(&mut self) {
        while let Some(flight) = self.wire.pop_front() {
            self.now = self.now.max(flight.arrival);
            self.deliver(flight);
        }
    }

    /// Lets time pass; everything is delivered, unless `lost` says otherwise.
    pub(crate) fn pass_losing(&mut self, time: Duration, mut lost: impl FnMut(&Flight) -> bool) {
        let end = self.now + time.as_millis() as u64;
        loop {
            let timers = self.ends.iter().filter_map(|end| end.ike.poll_timeout());
            let timers = timers.map(Instant::as_millis);
            let next = timers.chain(self.wire.iter().map(|flight| flight.arrival)).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            while let Some(at) = self.wire.iter().position(|flight| flight.arrival <= self.now) {
                let flight = self.take(at);
                if !lost(&flight) {
                    self.deliver(flight);
                }
            }
            for at in [A, B] {
                self.act(at, |ike, now, cx| ike.handle_timeout(now, cx));
            }
        }
        self.now = end;
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.pass_losing(time, |_| false);
    }

    /// After some seconds, each end has one pair, the other half of the other's.
    pub(crate) fn check_agreed(&self) {
        for at in [A, B] {
            let inbound: Vec<_> = self.ends[at].sad.inbound.values().map(|sa| &sa.key).collect();
            let outbound = self.ends[1 - at].sad.outbound.as_ref();
            assert_eq!(inbound, [&outbound.expect("a child").key], "{}", ["A", "B"][at]);
            let status = self.ends[at].ike.status(PEER).expect("an IKE SA");
            assert!(status.child.is_some(), "{}", ["A", "B"][at]);
        }
    }

    /// The SPIs that each end receives with.
    pub(crate) fn spis(&self) -> [u32; 2] {
        let spi = |at: usize| self.ends[1 - at].sad.outbound.as_ref().unwrap().spi;
        [spi(A), spi(B)]
    }
}
