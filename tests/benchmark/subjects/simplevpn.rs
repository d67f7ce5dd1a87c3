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
    Ok(vec![launch(&sites.a, &vpn(to_b))?.0, launch(&sites.b, &vpn(to_a))?.0])
}

/// Starts one gateway, and tells how long it took to be ready.
pub(crate) fn launch(host: &Host, vpn: &Vpn) -> Result<(End, Duration), String> {
    let begin = Instant::now();
    let mut daemon = host.launches(vpn);
    daemon.becomes_ready(PATIENCE)?;
    Ok((End::Ours(daemon), begin.elapsed()))
}
