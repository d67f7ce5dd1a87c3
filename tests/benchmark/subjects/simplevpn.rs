//! Ours, with manual keys.

use std::time::{Duration, Instant};

use simplevpn_tests::lab::Host;
use simplevpn_tests::lab::daemon::{Keys, Peer, Vpn};
use simplevpn_tests::lab::sites::Sites;

use crate::program::End;

/// How long a daemon with many peers may take to be ready.
const PATIENCE: Duration = Duration::from_secs(120);

/// Starts both gateways.
pub(crate) fn start(
    sites: &Sites,
    encap: &str,
    cipher: &'static str,
    offset: bool,
) -> Result<Vec<End>, String> {
    let (at_a, at_b) = Keys::pair_of(cipher);
    let to_b = Peer::new("b", &at_a).at("192.0.2.2").allowed("10.2.0.0/24");
    let to_a = Peer::new("a", &at_b).at("192.0.2.1").allowed("10.1.0.0/24");
    let vpn = |peer: Peer| {
        let peer = peer.option("encap", encap);
        Vpn::new().peer(if offset { peer.option("offset", "0.0.100.0") } else { peer })
    };
    Ok(vec![run(&sites.a, &vpn(to_b))?.0, run(&sites.b, &vpn(to_a))?.0])
}

/// The same, but gateway a has so many peers, all but one of which are not there; and how long it
/// took gateway a to be ready.
pub(crate) fn hub(sites: &Sites, peers: u32) -> Result<(Vec<End>, Duration), String> {
    let (at_a, at_b) = Keys::pair();
    let to_b = Peer::new("b", &at_a).at("192.0.2.2").allowed("10.2.0.0/24").option("encap", "udp");
    let to_a = Peer::new("a", &at_b).at("192.0.2.1").allowed("10.1.0.0/24").option("encap", "udp");
    let (end, _) = run(&sites.b, &Vpn::new().peer(to_a))?;
    let (hub, ready) = run(&sites.a, &Vpn::new().peer(to_b).strangers(peers - 1))?;
    Ok((vec![hub, end], ready))
}

fn run(host: &Host, vpn: &Vpn) -> Result<(End, Duration), String> {
    let begin = Instant::now();
    let mut daemon = host.launches(vpn);
    daemon.becomes_ready(PATIENCE)?;
    Ok((End::Ours(daemon), begin.elapsed()))
}
