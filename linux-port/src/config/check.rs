//! What concerns several peers at once.

use core::net::IpAddr;

use simplevpn_core::crypto::SALT_LEN;
use smoltcp::wire::IpCidr;

use super::interface::Found;
use super::model::{Host, Keying, Peer, PeerIdentity, Steering};
use super::peer::Lines;
use super::prefix::{host_prefix, network};
use crate::sorted;

/// Checks the peers of one interface against each other.
pub(super) fn within_interface(found: &mut Found<'_, '_>) {
    same_identities(found);
    same_prefixes(found);
    if found.interface.steering == Steering::Route {
        endpoints_inside(found);
    }
}

/// Checks all interfaces of the file against each other: one process may serve them, and SPIs and
/// keys are the machine's. With `only`, nothing but this interface is blamed.
pub(super) fn across_interfaces(found: &mut [Found<'_, '_>], only: Option<&str>) {
    let mut faults = Vec::new();
    let mut blame = |again: &Use, message| faults.push((again.peer, again.line, message));
    shared_keys(found, only, &mut blame);
    for ((interface, peer), line, message) in faults {
        found[interface].lines[peer].report.error(line, message);
    }
}

fn shared_keys(found: &[Found<'_, '_>], only: Option<&str>, blame: &mut dyn FnMut(&Use, String)) {
    let (mut spis, mut keys) = (Vec::new(), Vec::new());
    for (at, interface) in found.iter().enumerate() {
        let judged = only.is_none_or(|only| interface.interface.name == only);
        for (number, (peer, lines)) in peers(interface).enumerate() {
            let Keying::Manual(manual) = &peer.keying else { continue };
            let lines = &lines.manual;
            let used = |option, line| Use { peer: (at, number), option, line, judged };
            spis.push((manual.spi_in, used("spi_in", lines.spi_in)));
            keys.push((secret(&manual.key_in), used("key_in", lines.key_in)));
            keys.push((secret(&manual.key_out), used("key_out", lines.key_out)));
        }
    }
    for (spi, first, again) in repeated(spis) {
        let first = first.line;
        let message = format!("spi_in '{spi:#x}' is also on line {first}; each SA needs its own");
        blame(&again, message);
    }
    for (_, first, again) in repeated(keys) {
        let message = format!(
            "{} is the key of {} on line {}; each SA and direction needs its own, or nonces repeat",
            again.option, first.option, first.line
        );
        blame(&again, message);
    }
}

/// A key without its salt, which is no part of the secret: another salt does not make it another
/// key.
fn secret(key: &[u8]) -> &[u8] {
    key.split_last_chunk::<SALT_LEN>().map_or(&[], |(secret, _)| secret)
}

/// Where an SPI or a key is used.
#[derive(Clone, Copy)]
struct Use {
    /// Number of the interface, and of the peer in it.
    peer: (usize, usize),
    option: &'static str,
    line: usize,
    judged: bool,
}

/// What is used again, with its use before and the one to blame.
fn repeated<K: Ord + Copy>(mut uses: Vec<(K, Use)>) -> Vec<(K, Use, Use)> {
    // Stable: the uses of one key stay in their order.
    uses.sort_by_key(|(key, _)| *key);
    let mut found = Vec::new();
    let mut before: Option<(K, Use)> = None;
    for (key, again) in uses {
        if let Some((_, first)) = before.filter(|(other, _)| *other == key && again.judged) {
            found.push((key, first, again));
        }
        before = Some((key, again));
    }
    found
}

fn peers<'f>(found: &'f Found<'_, '_>) -> impl Iterator<Item = (&'f Peer, &'f Lines)> {
    found.interface.peers.iter().zip(&found.lines)
}

/// Each peer of IKE is recognised by something of its own; of two, the later one is wrong.
fn same_identities(found: &mut Found<'_, '_>) {
    let of_ike = peers(found).enumerate().filter(|(_, (p, _))| matches!(p.keying, Keying::Ike(_)));
    let in_order = sorted::set(of_ike.map(|(number, (peer, _))| (peer.identity(), number)));
    for pair in in_order.windows(2) {
        if let [(id, first), (other, again)] = pair
            && id == other
        {
            let first = found.lines[*first].identity;
            let by = match id {
                PeerIdentity::Ike { remote: None, .. } => "endpoint_host",
                _ => "public_key or remote_id",
            };
            let message = format!(
                "recognised by the same {by} as the peer on line {first}; give each peer its own"
            );
            let lines = &mut found.lines[*again];
            lines.report.error(lines.identity, message);
        }
    }
}

/// A peer's prefix in host space, and where it stands.
struct Claim<'f> {
    host: IpCidr,
    wire: IpCidr,
    peer: usize,
    name: &'f str,
    line: usize,
}

fn claims<'f>(found: &'f Found<'_, '_>) -> Vec<Claim<'f>> {
    let mut claims = Vec::new();
    for (position, (peer, lines)) in peers(found).enumerate() {
        for (wire, line) in peer.allowed_ips.iter().zip(&lines.allowed_ips) {
            let host = network(host_prefix(peer, *wire));
            claims.push(Claim { host, wire: *wire, peer: position, name: &peer.name, line: *line });
        }
    }
    claims
}

/// No prefix in host space belongs to two peers; of prefixes that nest the longest one wins.
fn same_prefixes(found: &mut Found<'_, '_>) {
    let mut faults: Vec<(usize, usize, String)> = Vec::new();
    let mut claims = claims(found);
    claims.sort_by_key(|claim| (claim.host, claim.line));
    for pair in claims.windows(2) {
        if let [early, late] = pair
            && early.host == late.host
            && early.peer != late.peer
        {
            // One message about a line is enough.
            if !faults.iter().any(|(_, line, _)| *line == late.line) {
                faults.push((late.peer, late.line, same_message(late, early)));
            }
        }
    }
    for (peer, line, message) in faults {
        found.lines[peer].report.error(line, message);
    }
}

fn same_message(late: &Claim<'_>, early: &Claim<'_>) -> String {
    let moved = |claim: &Claim<'_>| match claim.host == claim.wire {
        true => format!("'{}'", claim.wire),
        false => format!("'{}' (with its offset '{}')", claim.wire, claim.host),
    };
    format!(
        "allowed_ips {} is also {} of peer '{}' on line {}; give one of them an offset or list \
         other prefixes",
        moved(late),
        moved(early),
        early.name,
        early.line
    )
}

/// Routes in the main table apply to our own outer packets, too.
fn endpoints_inside(found: &mut Found<'_, '_>) {
    let peers_routed = found.interface.peers.iter().filter(|peer| peer.route_allowed_ips);
    let routed = sorted::set(
        peers_routed.flat_map(|peer| peer.allowed_ips.iter().map(|wire| host_prefix(peer, *wire))),
    );
    let everything = routed.iter().find(|prefix| prefix.prefix_len() == 0);
    for (peer, lines) in found.interface.peers.iter().zip(&mut found.lines) {
        let inside = match peer.endpoint.as_ref().map(|endpoint| &endpoint.host) {
            Some(Host::Address(address)) => containing(*address, &routed),
            Some(Host::Name(_)) | None => everything.copied(),
        };
        if let Some(prefix) = inside {
            let message = format!(
                "endpoint of peer '{}' lies inside '{prefix}', and steering 'route' would lead the \
                 tunnel's own packets into the tunnel; write option steering 'policy'",
                peer.name
            );
            lines.report.error(lines.endpoint, message);
        }
    }
}

/// The longest of `prefixes`, which are in order, that `address` lies in.
fn containing(address: IpAddr, prefixes: &[IpCidr]) -> Option<IpCidr> {
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let candidates = (0..=longest).rev().map(|len| network(IpCidr::new(address.into(), len)));
    candidates.into_iter().find(|prefix| prefixes.binary_search(prefix).is_ok())
}
