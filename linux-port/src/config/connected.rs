//! The networks that this machine will be connected to, as far as the same file says so: on
//! OpenWrt, those of netifd's interfaces with `option proto 'static'`.
//!
//! Inside a wider prefix of a peer they keep their own way, already at boot, when nothing but the
//! killswitch is there; a peer whose prefix is one of them would take the owner's own LAN away.
//! Addresses that come from elsewhere are seen by [`crate::steering`] once they are there. What is
//! wrong with those sections is for others to say.

use core::net::{IpAddr, Ipv4Addr};

use smoltcp::wire::IpCidr;

use super::interface::Found;
use super::model::Steering;
use super::prefix::{host_prefix, is_ipv6, network};
use super::uci::Section;
use super::value;

/// A connected network.
pub(super) struct Connected<'s> {
    prefix: IpCidr,
    interface: &'s str,
    line: usize,
}

/// The networks of the file, in its order.
pub(super) fn read<'s>(sections: &'s [Section<'_>]) -> Vec<Connected<'s>> {
    sections.iter().filter(|section| is_static(section)).flat_map(of_section).collect()
}

/// Their prefixes.
pub(super) fn networks(connected: &[Connected<'_>]) -> Vec<IpCidr> {
    connected.iter().map(|connected| connected.prefix).collect()
}

fn one<'s>(section: &'s Section<'_>, name: &str) -> Option<&'s str> {
    section.entries.iter().find(|entry| *entry.name == *name).map(|entry| &*entry.value)
}

fn is_static(section: &Section<'_>) -> bool {
    let off = one(section, "disabled").is_some_and(|text| value::boolean(text) == Ok(true))
        || one(section, "auto").is_some_and(|text| value::boolean(text) == Ok(false));
    &*section.kind == "interface" && one(section, "proto") == Some("static") && !off
}

fn of_section<'s>(section: &'s Section<'_>) -> Vec<Connected<'s>> {
    let netmask = one(section, "netmask").and_then(|text| text.parse::<Ipv4Addr>().ok());
    let mut found = Vec::new();
    for entry in section.entries.iter().filter(|e| matches!(&*e.name, "ipaddr" | "ip6addr")) {
        for text in entry.value.split_ascii_whitespace() {
            let Ok(address) = value::cidr(text) else { continue };
            let address = match netmask {
                Some(mask) if !text.contains('/') && !is_ipv6(address) => {
                    IpCidr::new(address.address(), mask.to_bits().leading_ones() as u8)
                }
                _ => address,
            };
            if is_network(&address) {
                let interface = section.name.as_deref().unwrap_or_default();
                let (prefix, line) = (network(address), entry.line);
                found.push(Connected { prefix, interface, line });
            }
        }
    }
    found
}

/// Whether there are others on the link, who are known by its prefix.
fn is_network(address: &IpCidr) -> bool {
    match address.address().into() {
        IpAddr::V4(a) => !a.is_loopback() && (1..32).contains(&address.prefix_len()),
        IpAddr::V6(a) => {
            let local = a.is_loopback() || a.is_unicast_link_local();
            !local && (1..128).contains(&address.prefix_len())
        }
    }
}

/// The connected network that a prefix in host space would take away: itself. Longer ones within it
/// are fine, that is the same-subnet case; and so are wider ones, which leave it out.
pub(super) fn taken_away<'c, 's>(
    prefix: &IpCidr,
    connected: &'c [Connected<'s>],
) -> Option<&'c Connected<'s>> {
    connected.iter().find(|connected| connected.prefix == *prefix)
}

/// Reports prefixes of peers that are a connected network.
pub(super) fn check(found: &mut Found<'_, '_>, connected: &[Connected<'_>]) {
    if found.interface.steering == Steering::None {
        return;
    }
    for (peer, lines) in found.interface.peers.iter().zip(&mut found.lines) {
        for (wire, line) in peer.allowed_ips.iter().zip(&lines.allowed_ips) {
            let host = network(host_prefix(peer, *wire));
            if let Some(Connected { interface, line: other, .. }) = taken_away(&host, connected)
                && peer.route_allowed_ips
            {
                let message = format!(
                    "allowed_ips '{host}' is the network of interface '{interface}' on line \
                     {other}, which could not be reached any more; give the peer an offset, or a \
                     wider prefix or longer ones"
                );
                lines.report.error(*line, message);
            }
        }
    }
}
