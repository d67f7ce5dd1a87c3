//! The interface section: `config interface 'vpn0'` with `option proto 'simplevpn'`.

use std::path::PathBuf;

use smoltcp::wire::IpCidr;

use super::diagnostic::Report;
use super::ike;
use super::model::{Authentication, Fwmark, Interface, Keying, Peer, Steering};
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
    // netifd's, fw4's and LuCI's.
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

/// An interface as far as it could be read, and where its peers stand.
pub(super) struct Found {
    pub(super) interface: Interface,
    /// Lines of `interface.peers`, in the same order.
    pub(super) lines: Vec<Lines>,
}

/// Reads the section and those of its peers; `None`: disabled.
pub(super) fn read(
    section: &Section<'_>,
    peer_sections: &[&Section<'_>],
    report: &mut Report,
) -> Option<Found> {
    let options = Options::new(section, &KNOWN, report);
    if options.get("disabled", report, value::boolean) == Some(true) {
        return None;
    }
    let name = name(section, report);
    let (private_key, own) = ike::private_key(&options, report);
    let around = Around { own, has_pool: options.many("pool").next().is_some() };
    let (mut peers, mut lines) = peers(&options, &name, peer_sections, &around, report);
    private_key_in_use(&options, &peers, report);
    let (port, nat_port) = ports(&options, &peers, report);
    let (addresses, virtual_addresses) = addresses(&options, &peers, report);
    let pool = options.list("pool", report, value::network);
    pool::assign(&pool, &addresses, &mut peers, &mut lines, report);
    let interface = Interface {
        name,
        private_key,
        virtual_addresses,
        mtu: mtu(&options, &addresses, &peers, report),
        addresses,
        port,
        nat_port,
        steering: steering(&options, &peers, report),
        fwmark: options.get("fwmark", report, fwmark),
        tunlink: options.get("tunlink", report, value::device_name),
        zone: options.one("zone").map(|value| value.text.to_owned()),
        killswitch: options.get("killswitch", report, value::boolean).unwrap_or(true),
        state_dir: options
            .get("state_dir", report, value::absolute_path)
            .unwrap_or_else(|| PathBuf::from(STATE_DIR)),
        connected: Vec::new(),
        peers,
    };
    Some(Found { interface, lines })
}

fn name(section: &Section<'_>, report: &mut Report) -> String {
    let Some(name) = section.name.as_deref() else {
        report.error(section.line, "interface without a name; write config interface 'vpn0'");
        return String::new();
    };
    if let Err(wrong) = value::device_name(name) {
        report.error(section.line, format!("interface {} {wrong}", value::shown(name)));
    } else if matches!(name, "lo" | "all" | "default") {
        let message = format!("interface '{name}': Linux keeps this name for itself; use another");
        report.error(section.line, message);
    }
    name.to_owned()
}

fn peers(
    options: &Options<'_, '_>,
    interface: &str,
    sections: &[&Section<'_>],
    around: &Around,
    report: &mut Report,
) -> (Vec<Peer>, Vec<Lines>) {
    if sections.is_empty() && !interface.is_empty() {
        let message =
            format!("interface '{interface}' has no peers; add config simplevpn_{interface}");
        report.error(options.line(), message);
    }
    let mut read = Vec::new();
    let mut enabled = 0;
    for (section, position) in sections.iter().zip(1..) {
        if let peer::Outcome::Enabled(found) = peer::read(section, position, around, report) {
            enabled += 1;
            read.extend(found.map(|found| *found));
        }
    }
    if enabled == 0 && !sections.is_empty() {
        let message = format!("every peer of interface '{interface}' is disabled");
        report.warning(options.line(), message);
    }
    check_peer_names(sections, report);
    read.into_iter().unzip()
}

/// An anonymous peer is called `peerN`; no other may have that name.
fn check_peer_names(sections: &[&Section<'_>], report: &mut Report) {
    for section in sections {
        let Some(name) = section.name.as_deref() else { continue };
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
    report: &mut Report,
) -> (Vec<IpCidr>, bool) {
    let mut automatic = options.many("addresses").filter(|value| value.text == "auto");
    let first = automatic.next();
    let asked = |peer: &Peer| is_ike(peer) && peer.endpoint.is_some();
    if let Some(value) = first.filter(|_| !peers.is_empty() && !peers.iter().any(asked)) {
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

fn steering(options: &Options<'_, '_>, peers: &[Peer], report: &mut Report) -> Steering {
    let choices = [
        ("auto", Steering::Auto),
        ("policy", Steering::Policy),
        ("route", Steering::Route),
        ("offset", Steering::Offset),
        ("none", Steering::None),
    ];
    let steering = options.get("steering", report, |text| value::choice(text, &choices));
    let steering = steering.unwrap_or(Steering::Auto);
    let has_offset = peers.iter().any(|peer| peer.offset != 0 || peer.offset6 != 0);
    if steering == Steering::Offset && !has_offset {
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
