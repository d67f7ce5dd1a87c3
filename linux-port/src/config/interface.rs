//! The interface section: `config interface 'vpn0'` with `option proto 'simplevpn'`.

use core::net::IpAddr;
use std::path::PathBuf;

use simplevpn_core::ike::MAX_GIVEN;
use smoltcp::wire::IpCidr;

use super::connected::{self, Connected};
use super::diagnostic::Report;
use super::ike;
use super::model::{Authentication, Fwmark, Interface, Keying, Peer, RefusedPeer, Steering};
use super::options::{Known, Options};
use super::peer::{self, Around, Lines};
use super::uci::Section;
use super::{pool, prefix, value};

const KNOWN: Known = Known {
    scalars: &[
        "proto",
        "disabled",
        "private_key",
        "private_key_file",
        "mtu",
        "port",
        "nat_port",
        "steering",
        "killswitch",
        "state_dir",
        "fwmark",
        "tunlink",
    ],
    lists: &["addresses", "pool"],
    // netifd's, fw4's and LuCI's; beside `pool`, `dns` is ours as well.
    foreign: &[
        "auto",
        "metric",
        "dns",
        "dns_search",
        "dns_metric",
        "peerdns",
        "defaultroute",
        "ip4table",
        "ip6table",
        "delegate",
        "force_link",
        "zone",
        "device",
        "ifname",
        "ipv6",
        "ip6assign",
        "ip6hint",
        "ip6class",
        "ip6ifaceid",
        "ip6weight",
        "ip6prefix",
        "ip6gw",
        "norelease",
        "nohostroute",
        "macaddr",
        "multicast",
        "type",
        "label",
        "description",
    ],
    open: true,
};

/// Where reserved sequence numbers are kept if nothing else is said.
const STATE_DIR: &str = "/etc/simplevpn";
/// Smallest MTU of a link that carries IPv6 (RFC 8200 §5).
const MIN_MTU_IPV6: u32 = 1280;
/// What every IPv4 host accepts (RFC 791).
const MIN_MTU_IPV4: u32 = 576;

/// An interface as far as it could be read, and what is said about its peers.
pub(super) struct Found<'s, 'a> {
    /// Its peers are all that could be read, also those with errors.
    pub(super) interface: Interface,
    /// What is said about `interface.peers`, in the same order.
    pub(super) lines: Vec<Lines>,
    /// The other peers that are not disabled, by the number of their section.
    unreadable: Vec<(usize, Report)>,
    sections: Vec<&'s Section<'a>>,
    /// Whether `option steering` is there and cannot be read.
    steering_unclear: bool,
}

/// Reads the section and those of its peers; `None`: disabled. `again` are the sections whose name
/// another one has, by line, with what is said about that.
pub(super) fn read<'s, 'a>(
    section: &Section<'_>,
    peer_sections: Vec<&'s Section<'a>>,
    again: &[(usize, String)],
    report: &mut Report,
) -> Option<Found<'s, 'a>> {
    let options = Options::new(section, &KNOWN, report);
    if options.get("disabled", report, value::boolean) == Some(true) {
        return None;
    }
    let name = name(section, report);
    let (private_key, own) = ike::private_key(&options, report);
    let around = Around { own, has_pool: options.many("pool").next().is_some() };
    let Peers { mut peers, mut lines, unreadable } =
        peers(&options, &name, &peer_sections, again, &around, report);
    // A peer with errors may be the one that would be needed.
    let all_right = unreadable.is_empty() && !lines.iter().any(|l| l.report.has_errors());
    private_key_in_use(&options, &peers, report);
    let (port, nat_port) = ports(&options, &peers, report);
    let (addresses, virtual_addresses) = addresses(&options, &peers, all_right, report);
    let pool = options.list("pool", report, value::network);
    pool::assign(&pool, &addresses, &mut peers, &mut lines);
    let name_servers = name_servers(&options, around.has_pool, report);
    let steering = steering(&options, &peers, all_right, report);
    let interface = Interface {
        name,
        private_key,
        virtual_addresses,
        name_servers,
        mtu: mtu(&options, &addresses, &peers, report),
        addresses,
        port,
        nat_port,
        steering: steering.unwrap_or(Steering::Auto),
        fwmark: options.get("fwmark", report, fwmark),
        tunlink: options.get("tunlink", report, value::device_name),
        zone: options.one("zone").map(|value| value.text.to_owned()),
        killswitch: options.get("killswitch", report, value::boolean).unwrap_or(true),
        state_dir: options
            .get("state_dir", report, value::absolute_path)
            .unwrap_or_else(|| PathBuf::from(STATE_DIR)),
        connected: Vec::new(),
        peers,
        refused: Vec::new(),
        flawed: false,
    };
    let steering_unclear = steering.is_none() && options.one("steering").is_some();
    Some(Found { interface, lines, unreadable, sections: peer_sections, steering_unclear })
}

impl Found<'_, '_> {
    /// Parts the peers with errors from the others; their warnings go to `report`. `connected` are
    /// the networks of the file, which are never closed.
    pub(super) fn settle(self, connected: &[Connected<'_>], report: &mut Report) -> Interface {
        let Found { mut interface, lines, unreadable, sections, steering_unclear } = self;
        let steering = interface.steering;
        let mut refused: Vec<Option<RefusedPeer>> = sections.iter().map(|_| None).collect();
        let mut refuse = |index: usize, read: &[IpCidr], errors| {
            if let (Some(section), Some(refused)) = (sections.get(index), refused.get_mut(index)) {
                *refused = Some(peer::refused(section, index, steering, read, errors));
            }
        };
        let mut kept = Vec::new();
        for (peer, lines) in core::mem::take(&mut interface.peers).into_iter().zip(lines) {
            let has_offset = peer.offset != 0 || peer.offset6 != 0;
            match lines.report.has_errors() {
                true => refuse(lines.index, &peer.allowed_ips, report.absorb(lines.report)),
                false => {
                    report.absorb(lines.report);
                    // Perhaps it is `offset` that cannot be read.
                    if steering_unclear && has_offset {
                        let wire = peer.allowed_ips.clone();
                        interface.refused.push(real_addresses(&peer.name, wire));
                    }
                    kept.push(peer);
                }
            }
        }
        for (index, of_peer) in unreadable {
            refuse(index, &[], report.absorb(of_peer));
        }
        interface.peers = kept;
        interface.refused.extend(refused.into_iter().flatten());
        for refused in &mut interface.refused {
            refused.prefixes.retain(|prefix| connected::taken_away(prefix, connected).is_none());
        }
        interface
    }
}

/// What else stays closed of a peer without errors: its prefixes in wire space.
fn real_addresses(name: &str, prefixes: Vec<IpCidr>) -> RefusedPeer {
    let label = value::shown(name);
    RefusedPeer { label, prefixes, routed: true, negotiated: false, errors: Vec::new() }
}

/// Whether an interface can have this name.
pub(super) fn is_name(name: &str) -> bool {
    value::device_name(name).is_ok() && !RESERVED.contains(&name)
}

/// What Linux keeps for itself.
const RESERVED: [&str; 3] = ["lo", "all", "default"];

fn name(section: &Section<'_>, report: &mut Report) -> String {
    let Some(name) = section.name.as_deref() else {
        report.error(section.line, "interface without a name; write config interface 'vpn0'");
        return String::new();
    };
    if let Err(wrong) = value::device_name(name) {
        report.error(section.line, format!("interface {} {wrong}", value::shown(name)));
    } else if RESERVED.contains(&name) {
        let message = format!("interface '{name}': Linux keeps this name for itself; use another");
        report.error(section.line, message);
    }
    name.to_owned()
}

/// The peers of an interface.
#[derive(Default)]
struct Peers {
    /// Those that could be read, also with errors.
    peers: Vec<Peer>,
    /// What is said about them, in the same order.
    lines: Vec<Lines>,
    /// The others, by the number of their section.
    unreadable: Vec<(usize, Report)>,
}

fn peers(
    options: &Options<'_, '_>,
    interface: &str,
    sections: &[&Section<'_>],
    again: &[(usize, String)],
    around: &Around,
    report: &mut Report,
) -> Peers {
    if sections.is_empty() && !interface.is_empty() {
        let message =
            format!("interface '{interface}' has no peers; add config simplevpn_{interface}");
        report.error(options.line(), message);
    }
    let mut read = Peers::default();
    for (index, section) in sections.iter().enumerate() {
        let mut of_peer = report.of_peer(&peer::label(section, index));
        check_peer_name(section, sections, &mut of_peer);
        for (line, message) in again.iter().filter(|(line, _)| *line == section.line) {
            of_peer.error(*line, message);
        }
        match peer::read(section, index, around, of_peer) {
            peer::Outcome::Disabled => {}
            peer::Outcome::Read(found) => {
                let (peer, lines) = *found;
                read.peers.push(peer);
                read.lines.push(lines);
            }
            peer::Outcome::Unreadable(of_peer) => read.unreadable.push((index, of_peer)),
        }
    }
    if read.peers.is_empty() && read.unreadable.is_empty() && !sections.is_empty() {
        let message = format!("every peer of interface '{interface}' is disabled");
        report.warning(options.line(), message);
    }
    read
}

/// An anonymous peer is called `peerN`; no other may have that name.
fn check_peer_name(section: &Section<'_>, sections: &[&Section<'_>], report: &mut Report) {
    let Some(name) = section.name.as_deref() else { return };
    let position = name.strip_prefix("peer").and_then(|n| n.parse::<usize>().ok());
    let other = position.and_then(|n| sections.get(n.checked_sub(1)?));
    if let Some(other) = other.filter(|other| other.name.is_none()) {
        let message = format!(
            "'{name}' is also what the peer without a name on line {} is called; rename one",
            other.line
        );
        report.error(section.line, message);
    }
}

fn is_ike(peer: &Peer) -> bool {
    matches!(peer.keying, Keying::Ike(_))
}

fn private_key_in_use(options: &Options<'_, '_>, peers: &[Peer], report: &mut Report) {
    let by_key = |peer: &Peer| match &peer.keying {
        Keying::Ike(keys) => matches!(keys.authentication, Authentication::PublicKey { .. }),
        Keying::Manual(_) => false,
    };
    // Without peers there is something else to say.
    if peers.is_empty() || peers.iter().any(by_key) {
        return;
    }
    for name in ["private_key", "private_key_file"] {
        if let Some(value) = options.one(name) {
            report.warning(value.line, format!("{name} is not used: no peer has a public_key"));
        }
    }
}

fn ports(options: &Options<'_, '_>, peers: &[Peer], report: &mut Report) -> (u16, u16) {
    let port = options.get("port", report, value::port).unwrap_or(500);
    let nat_port = options.get("nat_port", report, value::port).unwrap_or(4500);
    if let Some(given) =
        options.one("port").filter(|_| !peers.is_empty() && !peers.iter().any(is_ike))
    {
        report.warning(given.line, "port is IKE's and not used with keying 'manual'");
    }
    if port == nat_port {
        let line = options.one("nat_port").or_else(|| options.one("port")).map_or(0, |v| v.line);
        report.error(line, format!("port and nat_port are both {port}; they have to differ"));
    }
    (port, nat_port)
}

/// The addresses, and whether others are asked for.
fn addresses(
    options: &Options<'_, '_>,
    peers: &[Peer],
    all_right: bool,
    report: &mut Report,
) -> (Vec<IpCidr>, bool) {
    let mut automatic = options.many("addresses").filter(|value| value.text == "auto");
    let first = automatic.next();
    let asked = |peer: &Peer| is_ike(peer) && peer.endpoint.is_some();
    let nobody = all_right && !peers.is_empty() && !peers.iter().any(asked);
    if let Some(value) = first.filter(|_| nobody) {
        let message = "addresses 'auto' asks a peer, and none has an endpoint_host and keying \
                       'ike'; write the address";
        report.error(value.line, message);
    }
    if let Some(value) = automatic.next() {
        report.error(value.line, "addresses 'auto' is listed twice; remove one");
    }
    let addresses = options.list("addresses", report, |text| match text {
        "auto" => Ok(None),
        _ => value::host_address(text).map(Some),
    });
    let addresses: Vec<(IpCidr, usize)> =
        addresses.into_iter().filter_map(|(address, line)| Some((address?, line))).collect();
    for (position, (address, line)) in addresses.iter().enumerate() {
        let earlier = addresses.iter().take(position);
        if earlier.into_iter().any(|(other, _)| other.address() == address.address()) {
            report.error(*line, format!("addresses '{address}' is listed twice; remove one"));
        }
    }
    (addresses.into_iter().map(|(address, _)| address).collect(), first.is_some())
}

/// What `dns` gives to those who get an address of the pool. Without a pool the option is netifd's
/// alone, which takes what we need not understand.
fn name_servers(options: &Options<'_, '_>, has_pool: bool, report: &mut Report) -> Vec<IpAddr> {
    if !has_pool {
        return Vec::new();
    }
    let servers = options.list("dns", report, value::name_server);
    if let Some((_, line)) = servers.get(MAX_GIVEN) {
        let message = format!("dns lists more than {MAX_GIVEN} name servers; remove some");
        report.error(*line, message);
    }
    servers.into_iter().map(|(server, _)| server).collect()
}

fn mtu(
    options: &Options<'_, '_>,
    addresses: &[IpCidr],
    peers: &[Peer],
    report: &mut Report,
) -> Option<u16> {
    let mut prefixes = addresses.iter().chain(peers.iter().flat_map(|peer| &peer.allowed_ips));
    let ipv6 = prefixes.any(|prefix| prefix::is_ipv6(*prefix));
    let least = if ipv6 { MIN_MTU_IPV6 } else { MIN_MTU_IPV4 };
    options.get("mtu", report, |text| match text {
        "auto" => Ok(None),
        _ => {
            let why = if ipv6 { ", since it carries IPv6" } else { "" };
            let mtu =
                value::within(text, least..=65535).ok().and_then(|mtu| u16::try_from(mtu).ok());
            mtu.map(Some).ok_or_else(|| {
                format!("is not an MTU; write 'auto' or a number from {least} to 65535{why}")
            })
        }
    })?
}

fn steering(
    options: &Options<'_, '_>,
    peers: &[Peer],
    all_right: bool,
    report: &mut Report,
) -> Option<Steering> {
    let choices = [
        ("auto", Steering::Auto),
        ("policy", Steering::Policy),
        ("route", Steering::Route),
        ("offset", Steering::Offset),
        ("none", Steering::None),
    ];
    let steering = options.get("steering", report, |text| value::choice(text, &choices));
    let has_offset = peers.iter().any(|peer| peer.offset != 0 || peer.offset6 != 0);
    if steering == Some(Steering::Offset) && all_right && !has_offset {
        let line = options.one("steering").map_or(0, |value| value.line);
        let message = "steering 'offset' needs a peer with an offset; give a peer option offset \
                       or offset6, or write option steering 'auto'";
        report.error(line, message);
    }
    steering
}

fn fwmark(text: &str) -> Result<Fwmark, String> {
    let (mark, mask) = match text.split_once('/') {
        Some((mark, mask)) => (mark, Some(mask)),
        None => (text, None),
    };
    let mark = value::number(mark).filter(|mark| *mark != 0).ok_or_else(|| {
        "is not a mark; write a number from 1 to 0xffffffff, or remove it and one is chosen"
            .to_owned()
    })?;
    let Some(mask) = mask else { return Ok(Fwmark { mark, mask: None }) };
    let mask = value::number(mask).filter(|mask| mark & !mask == 0).ok_or_else(|| {
        format!("has a mask without some of the mark's bits; write it like '{mark:#x}/{mark:#x}'")
    })?;
    Ok(Fwmark { mark, mask: Some(mask) })
}
