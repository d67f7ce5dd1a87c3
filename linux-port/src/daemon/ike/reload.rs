//! What becomes of the connections under another configuration.

use simplevpn_core::{Instant, PeerId};

use super::call::Call;
use super::{directory, links, private_key, slots};
use crate::config::model::Peer;
use crate::daemon::engine::Engine;
use crate::daemon::peers::Place;

impl Engine {
    /// Closes the connections with peers that another configuration does not have, or has with
    /// other SAs: those that `places` do not keep.
    pub(in crate::daemon) fn close_changed(&mut self, places: &[Option<Place>], now: Instant) {
        for (at, kept) in kept(places, self.peers.list.len()).iter().enumerate() {
            if kept.is_none() {
                self.drop_connection(PeerId(at as u32), now);
            }
        }
    }

    /// Goes on under another configuration, in which each peer has the place before that is given
    /// for it, if it was there. Returns whether a peer gave us an address that is not asked for any
    /// more.
    pub(in crate::daemon) fn adopt_connections(&mut self, places: &[Option<Place>]) -> bool {
        let Some(control) = &mut self.ike else { return false };
        let given = control.given().count();
        control.private_key = self.interface.private_key.as_ref().and_then(private_key);
        control.endpoint.enlarge(slots(places.len()).into());
        control.endpoint.index(links(control.endpoint.capacity()).into());
        let mut calls: Vec<_> = core::mem::take(&mut control.calls).into_iter().map(Some).collect();
        let count = calls.len();
        let mut before =
            |place: &Option<Place>| calls.get_mut(place.as_ref()?.at).and_then(Option::take);
        let call = |(place, peer): (&Option<Place>, &Peer)| {
            let same_sas = place.is_some_and(|place| place.same_sas);
            Call::after(before(place), same_sas, &self.interface, peer)
        };
        control.calls = places.iter().zip(&self.interface.peers).map(call).collect();
        let kept = kept(places, count);
        control.endpoint.renumber(&|id| kept.get(id.index()).copied().flatten());
        let fewer = control.given().count() < given;
        for id in (0..places.len() as u32).map(PeerId) {
            if directory::keys(&self.interface.peers[id.index()]).is_some() {
                self.keep_nat_open(id);
            }
        }
        fewer
    }
}

/// The numbers that those of so many peers get whose SAs `places` keep.
fn kept(places: &[Option<Place>], before: usize) -> Vec<Option<PeerId>> {
    let mut kept = vec![None; before];
    for (id, place) in (0..).map(PeerId).zip(places) {
        let at = place.filter(|place| place.same_sas).map(|place| place.at);
        if let Some(number) = at.and_then(|at| kept.get_mut(at)) {
            *number = Some(id);
        }
    }
    kept
}
