//! The peers as the configuration has them, for IKE (RFC 4301 §4.4.3).

use core::net::IpAddr;

use simplevpn_core::PeerId;
use simplevpn_core::crypto::sign::PrivateKey;
use simplevpn_core::ike::auth::{Credential, Expectation};
use simplevpn_core::ike::identity::Identity;
use simplevpn_core::ike::suite::Pfs;
use simplevpn_core::ike::wire::id::Id;
use simplevpn_core::ike::{self, Lease, Lifetimes, Pad, PadEntry, Ppk};
use smoltcp::wire::IpCidr;

use super::call::Call;
use crate::config::model::{Authentication, Encap, IkeKeys, Interface, Keying, Peer};

/// The peers of an interface.
pub(super) struct Directory<'d> {
    pub(super) interface: &'d Interface,
    pub(super) private_key: Option<&'d PrivateKey>,
    /// One for each peer.
    pub(super) calls: &'d [Call],
}

impl Directory<'_> {
    fn get(&self, id: PeerId) -> Option<(&Peer, &IkeKeys, &Call)> {
        let peer = self.interface.peers.get(id.index())?;
        Some((peer, keys(peer)?, self.calls.get(id.index())?))
    }
}

/// The keys of a peer whose SAs are negotiated.
pub(super) fn keys(peer: &Peer) -> Option<&IkeKeys> {
    match &peer.keying {
        Keying::Ike(keys) => Some(keys),
        Keying::Manual(_) => None,
    }
}

impl Pad for Directory<'_> {
    fn entry(&self, id: PeerId) -> Option<PadEntry<'_>> {
        let (peer, keys, call) = self.get(id)?;
        let (credential, expectation, ppk) = match &keys.authentication {
            Authentication::PublicKey { key, ppk } => (
                Credential::PrivateKey(self.private_key?),
                Expectation::PublicKey(key),
                ppk.as_ref(),
            ),
            Authentication::PresharedKey(secret) => {
                (Credential::PresharedKey(&secret.0), Expectation::PresharedKey(&secret.0), None)
            }
        };
        let ppk =
            ppk.map(|ppk| Ppk { id: ppk.id.as_bytes(), key: &ppk.key.0, required: ppk.required });
        Some(PadEntry {
            local_id: keys.local_id.as_ref(),
            remote_id: remote_id(keys, call)?,
            credential,
            expectation,
            ppk,
            local: &peer.local_ips,
            remote: &peer.allowed_ips,
            encap: call.encap(peer),
            request_address: self.interface.virtual_addresses && peer.endpoint.is_some(),
            lease: (!call.lease.is_empty())
                .then_some(Lease { addresses: &call.lease, dns: &self.interface.name_servers }),
            pfs: Pfs::Optional,
            lifetimes: Lifetimes::default(),
        })
    }

    fn find(&self, remote: &Id<'_>, local: Option<&Id<'_>>, _: IpAddr) -> Option<PeerId> {
        let is = |id: &Id<'_>, identity: &Identity| identity.matches(id.id_type.0, id.data);
        (0..).map(PeerId).zip(&self.interface.peers).find_map(|(id, _)| {
            let (_, keys, call) = self.get(id)?;
            let theirs = is(remote, remote_id(keys, call)?);
            // Which address of ours they mean is theirs to choose.
            let ours = match (&keys.local_id, local) {
                (Some(identity), Some(local)) => is(local, identity),
                _ => true,
            };
            (theirs && ours).then_some(id)
        })
    }

    fn has_ppk(&self) -> bool {
        self.interface.peers.iter().any(has_ppk)
    }

    fn is_expected_from(&self, from: IpAddr) -> bool {
        self.calls.iter().any(|call| call.address == Some(from))
    }

    /// Whoever calls from the address of a peer is taken for that one. From elsewhere it may be
    /// anyone: if there are peers that have to use UDP, all have to, rather than those not.
    fn pretends_nat(&self, from: IpAddr) -> bool {
        let (mut at_this_address, mut any) = (None, false);
        for (id, _) in (0..).map(PeerId).zip(&self.interface.peers) {
            let Some((peer, _, call)) = self.get(id) else { continue };
            let udp = call.encap(peer) == ike::Encap::Udp;
            any |= udp;
            if call.address == Some(from) {
                at_this_address = Some(udp || at_this_address == Some(true));
            }
        }
        at_this_address.unwrap_or(any)
    }
}

/// Whether a peer has a postquantum preshared key.
fn has_ppk(peer: &Peer) -> bool {
    let authentication = keys(peer).map(|keys| &keys.authentication);
    matches!(authentication, Some(Authentication::PublicKey { ppk: Some(_), .. }))
}

/// What the peer has to call itself: what is configured, or its address.
fn remote_id<'c>(keys: &'c IkeKeys, call: &'c Call) -> Option<&'c Identity> {
    keys.remote_id.as_ref().or(call.address_id.as_ref())
}

/// What `encap` means to IKE.
pub(super) fn encap(encap: Encap) -> ike::Encap {
    match encap {
        Encap::Auto => ike::Encap::Auto,
        Encap::Esp => ike::Encap::Esp,
        Encap::Udp => ike::Encap::Udp,
    }
}

/// What the peer gets if it asks for addresses: the first one of each family that is its alone.
pub(super) fn lease(peer: &Peer) -> Vec<IpAddr> {
    let hosts = |ipv4: bool| {
        let longest = if ipv4 { 32 } else { 128 };
        let host = move |prefix: &&IpCidr| {
            IpAddr::from(prefix.address()).is_ipv4() == ipv4 && prefix.prefix_len() == longest
        };
        peer.allowed_ips.iter().find(host).map(|prefix| prefix.address().into())
    };
    [hosts(true), hosts(false)].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether somebody at 192.0.2.1, and at an address that is nobody's, is to believe in a NAT.
    /// The first peer is called at 192.0.2.1.
    fn pretends(encaps: [&str; 2]) -> [bool; 2] {
        let keys = [
            "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=",
            "/FHNjmIYoaONpH7QAjDwWAgW7RO6MwOsXeuRFUiQgCU=",
        ];
        let mut text = "config interface 'vpn0'\n\toption proto 'simplevpn'\n\toption private_key \
                        'nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A='\n"
            .to_owned();
        for (number, (key, encap)) in keys.iter().zip(encaps).enumerate() {
            text += &format!(
                "config simplevpn_vpn0\n\toption public_key '{key}'\n\toption encap '{encap}'\n\
                 \tlist allowed_ips '10.{number}.0.0/16'\n"
            );
        }
        let interface = crate::config::parse("f", &text).unwrap().interfaces.remove(0);
        let new = |peer| Call::new(&interface, peer);
        let mut calls: Vec<Call> = interface.peers.iter().map(new).collect();
        let known: IpAddr = "192.0.2.1".parse().unwrap();
        calls[0].aim(known);
        let directory = Directory { interface: &interface, private_key: None, calls: &calls };
        [known, "192.0.2.9".parse().unwrap()].map(|from| directory.pretends_nat(from))
    }

    #[test]
    fn a_nat_is_pretended_to_whoever_may_be_a_peer_that_has_to_use_udp() {
        assert_eq!(pretends(["auto", "esp"]), [false, false]);
        assert_eq!(pretends(["auto", "udp"]), [false, true], "the first is known by its address");
        assert_eq!(pretends(["udp", "auto"]), [true, true], "it may call from elsewhere");
    }
}
