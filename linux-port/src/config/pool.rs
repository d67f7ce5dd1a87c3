//! `list pool`: addresses for peers that have none, such as phones.
//!
//! A peer without `allowed_ips` gets one address of each family that the pools have, for good: which
//! one follows from what the peer calls itself. They become its `allowed_ips`; it learns of them
//! when it asks (RFC 7296 §2.19). Nothing here is leased or remembered.

use simplevpn_core::crypto::prf::sha1;
use smoltcp::wire::IpCidr;

use super::model::{Keying, Peer};
use super::peer::Lines;
use super::prefix::{host_prefix, is_ipv6, overlaps, range, with_address};

/// How many addresses are tried for a peer before the pool counts as full.
const TRIES: u64 = 65536;

/// Gives addresses to peers without `allowed_ips`.
pub(super) fn assign(
    pools: &[(IpCidr, usize)],
    own: &[IpCidr],
    peers: &mut [Peer],
    lines: &mut [Lines],
) {
    let listed =
        peers.iter().flat_map(|peer| peer.allowed_ips.iter().map(|ip| host_prefix(peer, *ip)));
    let own = own.iter().map(|own| with_len(*own, if is_ipv6(*own) { 128 } else { 32 }));
    let mut taken: Vec<IpCidr> = listed.chain(own).collect();
    let without: Vec<bool> = peers.iter().map(|peer| peer.allowed_ips.is_empty()).collect();
    for ipv6 in [false, true] {
        let pools: Vec<_> = pools.iter().filter(|(pool, _)| is_ipv6(*pool) == ipv6).collect();
        let Some((_, line)) = pools.first() else { continue };
        let mut full = false;
        for ((peer, lines), _) in peers.iter_mut().zip(&mut *lines).zip(&without).filter(|x| *x.1) {
            let Keying::Ike(keys) = &peer.keying else { continue };
            // One without an identity of its own is called.
            let host = peer.endpoint.as_ref().map(|endpoint| endpoint.host.to_string());
            let host = host.unwrap_or_default();
            let name = keys.remote_id.as_ref().map_or(host.as_bytes(), |id| id.data());
            let mut pools = pools.iter().filter(|_| !full);
            let Some(address) = pools.find_map(|(pool, _)| free(*pool, name, &taken)) else {
                full = true;
                lines.report.error(*line, "the pool has no address left for it; list another");
                continue;
            };
            taken.push(address);
            peer.allowed_ips.push(address);
            lines.allowed_ips.push(lines.section);
        }
    }
}

/// An address of `pool` that is not `taken`, mostly the same one for a name.
fn free(pool: IpCidr, name: &[u8], taken: &[IpCidr]) -> Option<IpCidr> {
    let (first, last) = range(pool);
    let longest = if is_ipv6(pool) { 128 } else { 32 };
    // The network itself, all its routers, or every host in it (RFC 919, RFC 4291 §2.6.1).
    let no_host =
        |address| longest - pool.prefix_len() > 1 && (address == first || address == last);
    let hash = sha1(&[name]).first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let count = u64::try_from(last - first).unwrap_or(u64::MAX).saturating_add(1);
    // A wider prefix is around the pool, not in it.
    let taken: Vec<_> =
        taken.iter().filter(|other| other.prefix_len() >= pool.prefix_len()).collect();
    (0..count.min(TRIES)).find_map(|n| {
        let address = first + u128::from(hash.wrapping_add(n) % count);
        let candidate = with_len(with_address(pool, address), longest);
        let in_use = no_host(address) || taken.iter().any(|other| overlaps(**other, candidate));
        (!in_use).then_some(candidate)
    })
}

fn with_len(prefix: IpCidr, len: u8) -> IpCidr {
    IpCidr::new(prefix.address(), len)
}
