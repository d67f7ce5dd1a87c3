//! At which of its addresses a peer is called.
//!
//! A name may have addresses of both families, and a network may lead to one of them only; behind
//! DNS64 (RFC 6147) a name has even an IPv4 address to which nothing leads, and an IPv6 address made
//! of it. So an address to which this machine has no route is passed over at once, and one that
//! does not answer is followed by the next one in turn. If there is no way to any of them,
//! `simplevpn show` says so; it is tried again each second, and as soon as routes change, and the name
//! is resolved again every few seconds.

use core::net::IpAddr;
use core::time::Duration;

use simplevpn_core::ike::Target;
use simplevpn_core::{Instant, PeerId};

use super::call::Call;
use super::{Control, lacks_child};
use crate::daemon::engine::{Engine, name_of};
use crate::daemon::outer::Which;
use crate::outer_socket::Family;

/// How often a name is resolved again while there is no way to any of its addresses: the answer of
/// one family may have come too late.
const RESOLVE_AGAIN: Duration = Duration::from_secs(5);

impl Engine {
    /// Calls the peers that are to be called.
    pub(in crate::daemon) fn call_peers(&mut self, now: Instant) {
        let Some(control) = &self.ike else { return };
        let due = |(at, call): (usize, &Call)| {
            let id = PeerId(at as u32);
            let remote = call.address.filter(|_| call.is_due(now))?;
            match control.status(id) {
                None => Some((id, remote, false)),
                Some(status) => lacks_child(&status).then_some((id, remote, true)),
            }
        };
        let due: Vec<_> = control.calls.iter().enumerate().filter_map(due).collect();
        for (id, remote, lacks_child) in due {
            if lacks_child {
                // From now on IKE tries it again by itself.
                if let Some(call) = self.ike.as_mut().and_then(|ike| ike.call(id)) {
                    call.asked_for_child(now);
                }
                self.renew_keys(id, now);
                continue;
            }
            // Without a way there it is tried again at the next tick.
            if let Some(target) = self.reachable(id, remote, now) {
                self.with_ike(now, &mut |ike, cx| ike.initiate(now, cx, id, &target));
            }
        }
    }

    /// How a peer is reached that is to be called at `first`: there, or at the next of its addresses
    /// to which there is a way. `None` if there is none to any, which is noted.
    fn reachable(&mut self, id: PeerId, first: IpAddr, now: Instant) -> Option<Target> {
        let target = match self.target(id, first) {
            Some(target) => Some(target),
            None => self.others(id, first).into_iter().find_map(|other| self.target(id, other)),
        };
        match &target {
            None => self.note_no_way(id, first, now),
            Some(target) => {
                if let Some(call) = self.ike.as_mut().and_then(|ike| ike.call(id)) {
                    call.no_way = None;
                }
                if target.remote != first {
                    let what = format_args!("no route to {first}; calling {}", target.remote);
                    self.tell(id, log::Level::Info, &what);
                    self.aim_call(id.index(), target.remote);
                }
            }
        }
        target
    }

    /// The name of a peer that is called by a name.
    fn name(&self, id: PeerId) -> Option<&str> {
        self.interface.peers.get(id.index()).and_then(name_of)
    }

    /// The other addresses of a peer, beginning with the one that follows `address`.
    fn others(&self, id: PeerId, address: IpAddr) -> Vec<IpAddr> {
        let all = self.name(id).map_or(&[][..], |name| self.resolver.last(name));
        let at = all.iter().position(|other| *other == address);
        let (before, after) = all.split_at(at.map_or(0, |at| at + 1));
        after.iter().chain(before).copied().filter(|other| *other != address).collect()
    }

    /// Notes that there is no way to a peer; the log is told once.
    fn note_no_way(&mut self, id: PeerId, first: IpAddr, now: Instant) {
        let name = self.name(id).map(str::to_owned);
        let mut why = match &name {
            None => format!("no route to {first}"),
            Some(name) => format!("no address of {name} can be reached: no route to {first}"),
        };
        for other in self.others(id, first) {
            why = format!("{why}, {other}");
        }
        let Some(call) = self.ike.as_mut().and_then(|ike| ike.call(id)) else { return };
        let again = now.saturating_since(call.resolved) >= RESOLVE_AGAIN;
        if again {
            call.resolved = now;
        }
        let news = call.no_way.as_ref() != Some(&why);
        if news {
            call.no_way = Some(why.clone());
        }
        if let Some(name) = name.filter(|_| again) {
            self.resolver.watch(&name, now);
        }
        if news {
            self.tell(id, log::Level::Info, &format_args!("no connection: {why}"));
        }
    }

    /// How a peer at `remote` is reached; `None` if there is no way.
    pub(super) fn target(&mut self, id: PeerId, remote: IpAddr) -> Option<Target> {
        let local = self.local_address(remote)?;
        let endpoint = self.interface.peers.get(id.index())?.endpoint.as_ref();
        let (port, nat_port) = endpoint.map_or((500, 4500), |e| (e.port, e.nat_port));
        let own = |natt| self.data.outer.port(Which::of_ike(remote, natt));
        Some(Target {
            local,
            remote,
            ports: own(false).map(|own| (own, port)),
            nat_ports: (own(true)?, nat_port),
        })
    }

    /// The address of ours from which packets go to `remote`.
    fn local_address(&mut self, remote: IpAddr) -> Option<IpAddr> {
        let through = match &self.interface.tunlink {
            Some(name) => Some(self.netlink.link(name).ok()??.index),
            None => None,
        };
        self.netlink.route_to(remote, self.steering.mark(), through).ok()??.source
    }

    /// Whether packets can be sent to `remote`.
    pub(in crate::daemon) fn has_way(&mut self, remote: IpAddr) -> bool {
        self.data.outer.serves(Family::of(remote)) && self.local_address(remote).is_some()
    }

    /// A peer does not answer: its name may lead elsewhere by now, or to another address as well.
    pub(super) fn look_elsewhere(&mut self, id: PeerId, now: Instant) {
        let Some(name) = self.name(id).map(str::to_owned) else { return };
        self.resolver.watch(&name, now);
        let Some(at) = self.peers.list.get(id.index()).and_then(|peer| peer.aimed) else { return };
        let others = self.others(id, at);
        let Some(next) = others.into_iter().find(|address| self.has_way(*address)) else { return };
        let Some(call) = self.ike.as_mut().and_then(|ike| ike.call(id)) else { return };
        let not_before = call.not_before();
        call.aim(next);
        call.hold(not_before);
        self.peers.list[id.index()].aimed = Some(next);
        self.changed.endpoints = true;
    }

    /// Why the name of a peer that was not reached yet leads nowhere.
    pub(super) fn why_unresolved(&self, id: PeerId) -> Option<String> {
        let call = self.ike.as_ref().map(|ike: &Control| &ike.calls)?.get(id.index())?;
        let name = self.name(id).filter(|_| call.address.is_none() && call.calls_by_itself())?;
        let reason = self.unresolved.get(name)?;
        Some(format!("cannot resolve {name}: {reason}"))
    }
}
