//! The rules of an interface's firewall table.
//!
//! - `inbound`: what claims to come from a protected prefix and did not come through the tunnel is
//!   dropped and counted (RFC 4301 section 5.2), whether the tunnel is up or down. Protected are
//!   all allowed_ips longer than /0, in host space, and under `steering offset` the real addresses
//!   too; but not what of them is a connected network's ([`super::onlink`]). A /0 protects nothing by itself: every packet of the LAN and of the WAN, such as the
//!   ICMP errors for our own ESP, comes from some address within it.
//! - `inbound`: nobody on the link talks to the tunnel's own addresses, configured or given by a
//!   peer: Linux answers for every address on every device, so that a stranger could learn them,
//!   reach what listens there and meddle with connections in the tunnel (CVE-2019-14899). An
//!   address which another device has as well is that device's to open. This is decided here, and
//!   not in the killswitch's table, because it is wanted without a killswitch, too, and because
//!   this hook has a chain already. What a bridge carries from port to port ([`BRIDGED`]) is not
//!   for this machine and left alone.
//! - `inbound` and `notrack_out`: ESP between us and the peers is not tracked, since an entry of
//!   one direction would make the kernel refuse the other. The ESP of hosts behind us stays tracked.
//!   Untracked ESP is never `established`: whoever filters input has to accept protocol 50
//!   explicitly. What leaves is known by its mark, at the same price whatever the number of peers;
//!   by its destination only where the kernel knows no marks.
//! - `clamp`: TCP's maximum segment size is lowered to what fits the tunnel, in both directions.
//! - `redirect_*`, under `steering offset` only: real addresses become offset ones, which are
//!   routed into the tunnel.
//!
//! The kernel evaluates every chain of a hook for every packet of ours, which costs more than its
//! rules. So there is one chain for each hook, and what is most frequent is decided first in it.

use core::net::IpAddr;

use smoltcp::wire::IpCidr;

use super::cover::Cover;
use super::identity::Identity;
use super::killswitch::BRIDGED;
use super::underlay::{Endpoints, Underlay, prefixes};
use super::{Error, Mode, onlink};
use crate::config::model::{Interface, Peer};
use crate::netlink::{DEVICE_GROUP, Family};
use crate::nft::{Chain, Count, Counter, Set, Table};
use crate::sorted;

/// Counts what `inbound` drops.
pub(super) const REJECTED: &str = "rejected";

/// Bytes of an IPv4 header and a TCP header without options.
const HEADERS_V4: u16 = 40;
/// The same for IPv6.
const HEADERS_V6: u16 = 60;

/// The kind of addresses that are never redirected: our own, and those of several hosts.
const SPECIAL: &str = "fib daddr type { local, broadcast, anycast, multicast } accept";

/// The whole table.
pub(super) fn table(
    interface: &Interface,
    identity: &Identity,
    mode: Mode,
    mark: (u32, u32),
    underlay: &Underlay,
) -> Table {
    let tun = &interface.name;
    let mut sets = endpoint_sets(&underlay.endpoints);
    let protected = protected_prefixes(interface, mode);
    sets.extend(by_family(["protected4", "protected6"], &protected));
    let bypassed = onlink::bypassed(&protected, &underlay.connected);
    sets.extend(by_family(["onlink4", "onlink6"], &bypassed));
    sets.extend(own_sets(&[]));
    let mut chains = vec![clamp(underlay.mtu)];
    chains.extend(inbound(tun, &underlay.ports));
    chains.extend(outbound(tun, mark));
    if mode == Mode::Offset {
        chains.extend(redirect(interface, mark, &underlay.ports));
    }
    let counters = vec![Counter { name: REJECTED, start: Count::default() }];
    Table { name: identity.table(), counters, sets, chains }
}

/// The sets of the peers' present addresses.
pub(super) fn endpoint_sets(endpoints: &Endpoints) -> Vec<Set> {
    let of = |v4: bool| {
        sorted::set(endpoints.values().filter(|a| a.is_ipv4() == v4).map(IpAddr::to_string))
    };
    vec![
        Set { name: "endpoints4", kind: "ipv4_addr", prefixes: false, elements: of(true) },
        Set { name: "endpoints6", kind: "ipv6_addr", prefixes: false, elements: of(false) },
    ]
}

/// What may come out of the tunnel only and, with the killswitch, leave through it only: all
/// allowed_ips longer than /0, also those of refused peers, in order.
pub(super) fn protected_prefixes(interface: &Interface, mode: Mode) -> Vec<IpCidr> {
    let all = interface
        .peers
        .iter()
        .flat_map(prefixes)
        .flat_map(|p| [Some(p.host), (mode == Mode::Offset).then_some(p.wire)])
        .flatten()
        .chain(interface.refused.iter().flat_map(|peer| peer.prefixes.iter().copied()))
        .filter(|p| p.prefix_len() > 0);
    sorted::set(all)
}

/// The sets of prefixes of the one and the other family.
pub(super) fn by_family([v4, v6]: [&'static str; 2], all: &[IpCidr]) -> [Set; 2] {
    let of =
        |family| all.iter().filter(|p| Family::of(p) == family).map(IpCidr::to_string).collect();
    [
        Set { name: v4, kind: "ipv4_addr", prefixes: true, elements: of(Family::V4) },
        Set { name: v6, kind: "ipv6_addr", prefixes: true, elements: of(Family::V6) },
    ]
}

/// The sets of the tunnel's own addresses.
pub(super) fn own_sets(own: &[IpAddr]) -> Vec<Set> {
    let of =
        |v4: bool| sorted::set(own.iter().filter(|a| a.is_ipv4() == v4).map(IpAddr::to_string));
    let set = |name, kind, elements| Set { name, kind, prefixes: false, elements };
    vec![set("own4", "ipv4_addr", of(true)), set("own6", "ipv6_addr", of(false))]
}

fn inbound(tun: &str, ports: &[u16]) -> Vec<Chain> {
    let mut suspicious = vec![
        "ip saddr @onlink4 accept".to_string(),
        "ip6 saddr @onlink6 accept".to_string(),
        // Our own multicasts come back to us; nobody else may use our addresses anyway.
        "fib saddr type local accept".to_string(),
        "meta l4proto esp fib daddr type local accept".to_string(),
    ];
    suspicious
        .extend(port_set(ports).map(|p| format!("udp dport {p} fib daddr type local accept")));
    suspicious.extend([
        "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, \
         nd-neighbor-advert } ip6 hoplimit 255 accept"
            .to_string(),
        format!("counter name {REJECTED} drop"),
    ]);
    let mut entry = vec![format!("iifname \"{tun}\" goto clamp")];
    entry.extend(untracked("saddr", "fib daddr type local notrack accept"));
    entry.extend([
        "iifname \"lo\" accept".to_string(),
        format!("{} accept", ours(BRIDGED.0, BRIDGED.1)),
        stranger("ip", "own4"),
        stranger("ip6", "own6"),
        "ip saddr @protected4 goto suspicious".to_string(),
        "ip6 saddr @protected6 goto suspicious".to_string(),
    ]);
    let hook = "type filter hook prerouting priority raw";
    vec![
        Chain { name: "suspicious", hook: "", rules: suspicious },
        Chain { name: "inbound", hook, rules: entry },
    ]
}

/// Drops what comes for the tunnel's own address by another way than a tunnel of ours.
fn stranger(ip: &str, own: &str) -> String {
    format!(
        "{ip} daddr @{own} iifgroup != {DEVICE_GROUP} fib saddr type != local \
         counter name {REJECTED} drop"
    )
}

/// What leaves this machine, by whatever way.
fn outbound(tun: &str, (mark, mask): (u32, u32)) -> Vec<Chain> {
    let mut esp = vec![format!("meta l4proto esp {} notrack accept", ours(mark, mask))];
    esp.extend(untracked("daddr", "notrack"));
    vec![
        Chain { name: "notrack_out", hook: "type filter hook output priority raw", rules: esp },
        // Not in output and forward: under offset steering the way is known only here.
        Chain {
            name: "clamp_out",
            hook: "type filter hook postrouting priority mangle",
            rules: vec![format!("oifname \"{tun}\" goto clamp")],
        },
    ]
}

/// Matches what our own sockets send.
pub(super) fn ours(mark: u32, mask: u32) -> String {
    format!("meta mark & {mask:#x} == {mark:#x}")
}

/// Rules that do `then` with the ESP of which a peer is one end.
fn untracked(end: &str, then: &str) -> Vec<String> {
    let rule = |ip: &str, set: &str| format!("meta l4proto esp {ip} {end} @{set} {then}");
    vec![rule("ip", "endpoints4"), rule("ip6", "endpoints6")]
}

/// Clamping; what comes out of the tunnel is told what may be sent back into it.
fn clamp(mtu: u16) -> Chain {
    let rules = [("ipv4", HEADERS_V4), ("ipv6", HEADERS_V6)].map(|(family, headers)| {
        let size = mtu.saturating_sub(headers);
        format!(
            "meta nfproto {family} tcp flags & (syn | rst) == syn tcp option maxseg size > {size} \
             tcp option maxseg size set {size}"
        )
    });
    Chain { name: "clamp", hook: "", rules: rules.to_vec() }
}

fn redirect(interface: &Interface, (mark, mask): (u32, u32), ports: &[u16]) -> Vec<Chain> {
    let mut leave_alone =
        [(mark, mask), BRIDGED].map(|(mark, mask)| format!("{} accept", ours(mark, mask))).to_vec();
    leave_alone
        .extend(port_set(ports).map(|p| format!("udp sport {p} fib saddr type local accept")));
    leave_alone.push(SPECIAL.to_string());
    leave_alone.extend(["ip daddr @onlink4 accept", "ip6 daddr @onlink6 accept"].map(String::from));
    let dnat = dnat(interface);
    let output = [leave_alone.clone(), dnat.clone()].concat();
    let came_through = vec![format!("iifname \"{}\" accept", interface.name)];
    let prerouting = [came_through, leave_alone, dnat].concat();
    vec![
        // In this hook nft takes the number only, not the name dstnat.
        Chain { name: "redirect_out", hook: "type nat hook output priority -100", rules: output },
        Chain {
            name: "redirect_in",
            hook: "type nat hook prerouting priority dstnat",
            rules: prerouting,
        },
    ]
}

/// Real prefixes and what becomes of them, without those that a shorter one covers.
fn redirections(interface: &Interface) -> Vec<(IpCidr, IpCidr)> {
    let peers = interface.peers.iter().filter(|p| p.route_allowed_ips);
    let moved = peers.flat_map(prefixes).filter(|p| p.wire != p.host);
    let mut all = sorted::set(moved.map(|p| (p.wire, p.host)));
    let cover = Cover::of(all.iter().map(|(real, _)| *real));
    all.retain(|(real, _)| cover.around(real.address().into()) == Some(*real));
    all
}

fn dnat(interface: &Interface) -> Vec<String> {
    let all = redirections(interface);
    let of = |family, ip: &str| {
        let pairs: Vec<String> = all
            .iter()
            .filter(|(real, _)| Family::of(real) == family)
            .map(|(real, host)| format!("{real} : {host}"))
            .collect();
        let map = pairs.join(", ");
        (!map.is_empty()).then(|| format!("dnat {ip} prefix to {ip} daddr map {{ {map} }}"))
    };
    [of(Family::V4, "ip"), of(Family::V6, "ip6")].into_iter().flatten().collect()
}

/// Under `steering offset` a real address has to mean one peer and one offset.
pub(super) fn unambiguous(interface: &Interface) -> Result<(), Error> {
    let peers = interface.peers.iter().filter(|p| p.route_allowed_ips);
    let offset = |peer: &Peer| (peer.offset, peer.offset6);
    let mut all: Vec<_> =
        peers.flat_map(|peer| prefixes(peer).map(move |p| (p.wire, offset(peer)))).collect();
    // Sorted, a prefix comes before those that it contains.
    all.sort_unstable();
    let mut cover: Option<(IpCidr, (u32, u128))> = None;
    for (real, offset) in all {
        match cover {
            Some((first, theirs)) if first.contains_subnet(&real) => {
                if theirs != offset {
                    return Err(Error::Ambiguous { first, second: real });
                }
            }
            _ => cover = Some((real, offset)),
        }
    }
    Ok(())
}

pub(super) fn port_set(ports: &[u16]) -> Option<String> {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    (!ports.is_empty()).then(|| format!("{{ {} }}", ports.join(", ")))
}
