//! A peer section: `config simplevpn_vpn0 'office'`.

use core::net::{Ipv4Addr, Ipv6Addr};

use simplevpn_core::ike::Ranges;
use simplevpn_core::ike::pad::{MAX_PREFIXES, MAX_PREFIXES_V6};
use smoltcp::wire::IpCidr;

use super::diagnostic::{Diagnostic, Report};
use super::ike::{self, Own};
use super::manual;
use super::model::{Encap, Endpoint, Keying, Peer, RefusedPeer, Steering};
use super::options::{Known, Options, Value, nearest};
use super::prefix::{self, is_ipv6, moved, overlaps, range};
use super::uci::Section;
use super::value;
use crate::{logger, sorted};

const KNOWN: Known = Known {
    scalars: &[
        "public_key",
        "preshared_key",
        "preshared_key_file",
        "preshared_key_weak",
        "endpoint_host",
        "endpoint_port",
        "endpoint_nat_port",
        "local_id",
        "remote_id",
        "start",
        "ppk_id",
        "ppk_required",
        "route_allowed_ips",
        "encap",
        "persistent_keepalive",
        "offset",
        "offset6",
        "keying",
        "cipher",
        "spi_in",
        "spi_out",
        "key_in",
        "key_out",
        "esn",
        "replay_window",
        "disabled",
        "description",
    ],
    lists: &["allowed_ips", "local_ips"],
    foreign: &[],
    open: false,
};

/// Most traffic selectors of our own in one peer.
const MAX_LOCAL_IPS: usize = MAX_PREFIXES;

/// What peers have to know of their interface.
pub(super) struct Around {
    /// Our key.
    pub(super) own: Own,
    /// Whether peers can get an address from a pool.
    pub(super) has_pool: bool,
}

/// What is said about a peer, and where the parts of it stand that are compared with other peers.
pub(super) struct Lines {
    pub(super) report: Report,
    /// Which section of its interface it is, from 0.
    pub(super) index: usize,
    /// Line of the section.
    pub(super) section: usize,
    /// Lines of `allowed_ips`, in the same order.
    pub(super) allowed_ips: Vec<usize>,
    pub(super) endpoint: usize,
    /// Line of what the peer is recognised by.
    pub(super) identity: usize,
    pub(super) manual: manual::Lines,
}

/// What became of a section.
pub(super) enum Outcome {
    /// `option disabled '1'`: not even looked at.
    Disabled,
    /// In use, perhaps with errors.
    Read(Box<(Peer, Lines)>),
    /// In use; its errors leave nothing to compare with others.
    Unreadable(Report),
}

/// What messages call the peer of a section that is number `index`, from 0, of its type.
pub(super) fn label(section: &Section<'_>, index: usize) -> String {
    if let Some(name) = section.name.as_deref() {
        return value::shown(name);
    }
    let place = format!("@{}[{index}]", &*section.kind);
    let mut entries = section.entries.iter();
    match entries.find(|entry| *entry.name == *"description" && !entry.value.is_empty()) {
        Some(description) => format!("'{}' ({place})", logger::one_line(&description.value)),
        None => place,
    }
}

/// What stays closed of a peer with these errors. `read` are its prefixes in wire space that were
/// read, or given to it.
pub(super) fn refused(
    section: &Section<'_>,
    index: usize,
    steering: Steering,
    read: &[IpCidr],
    errors: Vec<Diagnostic>,
) -> RefusedPeer {
    let values = |name: &'static str| {
        let named = section.entries.iter().filter(move |entry| is_meant(&entry.name, name));
        named.flat_map(|entry| entry.value.split_ascii_whitespace())
    };
    let network = |text| value::cidr(text).map(prefix::network).ok();
    let wire = sorted::set(values("allowed_ips").filter_map(network).chain(read.iter().copied()));
    let offset = values("offset").map(value::offset).next();
    let offset6 = values("offset6").map(value::offset6).next();
    let unclear = matches!(offset, Some(Err(_))) || matches!(offset6, Some(Err(_)));
    let [offset, offset6] = [
        offset.and_then(Result::ok).unwrap_or(0).into(),
        offset6.and_then(Result::ok).unwrap_or(0),
    ];
    let host = wire.iter().map(|p| moved(*p, if is_ipv6(*p) { offset6 } else { offset }));
    // Under `steering offset` programs use the real addresses.
    let real = wire.iter().filter(|_| unclear || steering == Steering::Offset).copied();
    RefusedPeer {
        label: label(section, index),
        prefixes: sorted::set(host.chain(real)),
        routed: values("route_allowed_ips").all(|text| value::boolean(text) != Ok(false)),
        negotiated: values("keying").all(|text| text != "manual"),
        errors,
    }
}

/// Whether an option is `name`, or one that does not exist and that `name` was probably meant by.
fn is_meant(option: &str, name: &str) -> bool {
    let known = || KNOWN.scalars.iter().chain(KNOWN.lists).copied();
    option == name
        || (!known().any(|other| other == option) && nearest(option, known()) == Some(name))
}

/// Reads the section, which is number `index`, from 0, of its interface.
pub(super) fn read(
    section: &Section<'_>,
    index: usize,
    around: &Around,
    mut of_peer: Report,
) -> Outcome {
    let report = &mut of_peer;
    let off = |entry: &super::uci::Entry<'_>| {
        *entry.name == *"disabled" && value::boolean(&entry.value) == Ok(true)
    };
    if section.entries.iter().any(off) {
        return Outcome::Disabled;
    }
    let options = Options::new(section, &KNOWN, report);
    options.get("disabled", report, value::boolean);
    let keying = keying(&options, &around.own, report);
    let manual = options.one("keying").is_some_and(|keying| keying.text == "manual");
    let (endpoint, endpoint_line) = endpoint(&options, manual, report);
    let allowed_ips = allowed_ips(&options, around.has_pool && !manual, report);
    let local_ips = local_ips(&options, &allowed_ips, report);
    let (offset, offset6) = offsets(&options, &allowed_ips, report);
    let route_allowed_ips =
        options.get("route_allowed_ips", report, value::boolean).unwrap_or(true);
    let encap = encap(&options, report);
    let persistent_keepalive = options
        .get("persistent_keepalive", report, |text| value::within(text, 0..=65535))
        .and_then(|seconds| u16::try_from(seconds).ok())
        .filter(|seconds| *seconds != 0);
    let Some((keying, identity, manual)) = keying else { return Outcome::Unreadable(of_peer) };
    if let (Keying::Ike(_), Some((_, line))) = (&keying, allowed_ips.get(MAX_PREFIXES)) {
        let message = format!(
            "allowed_ips has more than {MAX_PREFIXES} prefixes, which one message of IKE cannot \
             hold; join some into larger ones"
        );
        report.error(*line, message);
    }
    let first_line = allowed_ips.first().map(|(_, line)| *line);
    let (allowed_ips, lines): (Vec<_>, _) = allowed_ips.into_iter().unzip();
    if let (Keying::Ike(_), Some(line)) = (&keying, first_line)
        && !Ranges::of_prefixes(&local_ips).fit_together(&Ranges::of_prefixes(&allowed_ips))
    {
        let message = format!(
            "allowed_ips and local_ips have more than {MAX_PREFIXES_V6} IPv6 prefixes together, \
             which one message of IKE cannot hold; join some into larger ones"
        );
        report.error(line, message);
    }
    let peer = Peer {
        name: section.name.as_deref().map_or_else(|| format!("peer{}", index + 1), str::to_owned),
        description: options.one("description").map(|value| value.text.to_owned()),
        endpoint,
        allowed_ips,
        local_ips,
        route_allowed_ips,
        encap,
        persistent_keepalive,
        offset,
        offset6,
        keying,
    };
    let lines = Lines {
        report: of_peer,
        index,
        section: section.line,
        allowed_ips: lines,
        endpoint: endpoint_line.unwrap_or(section.line),
        identity,
        manual,
    };
    Outcome::Read(Box::new((peer, lines)))
}

fn endpoint(
    options: &Options<'_, '_>,
    manual: bool,
    report: &mut Report,
) -> (Option<Endpoint>, Option<usize>) {
    let line = options.one("endpoint_host").map(|value| value.line);
    let host = options.get("endpoint_host", report, value::host);
    let port = options.get("endpoint_port", report, value::port);
    let nat_port = options.get("endpoint_nat_port", report, value::port);
    for name in ["endpoint_port", "endpoint_nat_port"] {
        if let Some(value) = options.one(name).filter(|_| line.is_none()) {
            let message = format!("{name} without endpoint_host; add it, or remove {name}");
            report.error(value.line, message);
        }
    }
    if let Some(value) = options.one("endpoint_port").filter(|_| line.is_some() && manual) {
        report.warning(value.line, "endpoint_port is IKE's and not used with keying 'manual'");
    }
    let endpoint = host.map(|host| Endpoint {
        host,
        port: port.unwrap_or(500),
        nat_port: nat_port.unwrap_or(4500),
    });
    (endpoint, line)
}

fn allowed_ips(
    options: &Options<'_, '_>,
    has_pool: bool,
    report: &mut Report,
) -> Vec<(IpCidr, usize)> {
    if options.many("allowed_ips").next().is_none() && !has_pool {
        let message = "peer without allowed_ips; list the prefixes behind it, or '0.0.0.0/0' and \
                       '::/0' for everything";
        report.error(options.line(), message);
    }
    let allowed = options.list("allowed_ips", report, value::network);
    let mut in_order = allowed.clone();
    in_order.sort_unstable();
    let mut before = None;
    for (prefix, line) in in_order {
        if before.replace(prefix) == Some(prefix) {
            report.error(line, format!("allowed_ips '{prefix}' is listed twice; remove one"));
        }
    }
    allowed
}

fn local_ips(
    options: &Options<'_, '_>,
    allowed_ips: &[(IpCidr, usize)],
    report: &mut Report,
) -> Vec<IpCidr> {
    let local = options.list("local_ips", report, value::network);
    if let Some((_, line)) = local.get(MAX_LOCAL_IPS) {
        let message =
            format!("local_ips has more than {MAX_LOCAL_IPS} prefixes; join some into larger ones");
        report.error(*line, message);
    }
    if let Some((_, line)) = local.first() {
        for (ipv6, family) in [(false, "IPv4"), (true, "IPv6")] {
            let of_family =
                |list: &[(IpCidr, usize)]| list.iter().any(|(p, _)| is_ipv6(*p) == ipv6);
            if of_family(allowed_ips) && !of_family(&local) {
                let message = format!(
                    "local_ips has no {family} prefix but allowed_ips has one: {family} packets \
                     will be dropped"
                );
                report.warning(*line, message);
            }
        }
    }
    local.into_iter().map(|(prefix, _)| prefix).collect()
}

fn offsets(
    options: &Options<'_, '_>,
    allowed_ips: &[(IpCidr, usize)],
    report: &mut Report,
) -> (u32, u128) {
    let offset = options.get("offset", report, value::offset).unwrap_or(0);
    let offset6 = options.get("offset6", report, value::offset6).unwrap_or(0);
    for (name, offset, ipv6) in [("offset", offset.into(), false), ("offset6", offset6, true)] {
        if let Some(value) = options.one(name).filter(|_| offset != 0) {
            let prefixes = allowed_ips.iter().map(|(prefix, _)| *prefix);
            let prefixes: Vec<IpCidr> = prefixes.filter(|p| is_ipv6(*p) == ipv6).collect();
            check_offset(name, value, offset, &prefixes, report);
        }
    }
    (offset, offset6)
}

/// A prefix moved by the offset has to be a prefix of the same length, of usable addresses.
fn check_offset(
    name: &str,
    value: Value<'_>,
    offset: u128,
    prefixes: &[IpCidr],
    report: &mut Report,
) {
    let shown = format!("{name} {}", value::shown(value.text));
    for prefix in prefixes.iter().copied() {
        let (first, last) = range(prefix);
        let space = if is_ipv6(prefix) { u128::MAX } else { u32::MAX.into() };
        let wrong = if prefix.prefix_len() == 0 {
            format!(
                "cannot move allowed_ips '{prefix}', which is every address; list smaller prefixes"
            )
        } else if offset & (last - first) != 0 {
            let unit = last - first + 1;
            format!(
                "has bits in the host part of allowed_ips '{prefix}'; use a multiple of '{}'",
                written(unit, is_ipv6(prefix))
            )
        } else if last.checked_add(offset).is_none_or(|moved_last| moved_last > space) {
            format!(
                "moves allowed_ips '{prefix}' past the end of the address space; use a smaller one"
            )
        } else if !is_unicast(moved(prefix, offset)) {
            format!(
                "moves allowed_ips '{prefix}' to '{}', which no host can have; use another one",
                moved(prefix, offset)
            )
        } else {
            continue;
        };
        report.error(value.line, format!("{shown} {wrong}"));
    }
    if prefixes.is_empty() {
        let family = if name == "offset" { "IPv4" } else { "IPv6" };
        report.error(
            value.line,
            format!("{shown} moves nothing: allowed_ips has no {family} prefix; remove it"),
        );
    }
}

/// A number written as an address.
fn written(number: u128, ipv6: bool) -> String {
    if ipv6 {
        Ipv6Addr::from(number).to_string()
    } else {
        Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).to_string()
    }
}

/// Whether no part of the prefix is loopback, multicast or reserved.
fn is_unicast(prefix: IpCidr) -> bool {
    let special = ["0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "::/127", "ff00::/8"];
    let mut special = special.iter().filter_map(|text| value::cidr(text).ok());
    !special.any(|special| overlaps(special, prefix))
}

fn encap(options: &Options<'_, '_>, report: &mut Report) -> Encap {
    let choices = [("auto", Encap::Auto), ("esp", Encap::Esp), ("udp", Encap::Udp)];
    let encap = options.get("encap", report, |text| value::choice(text, &choices));
    encap.unwrap_or(Encap::Auto)
}

/// The keys, where that stands which the peer is recognised by, and where those keys stand that no
/// other peer may have.
fn keying(
    options: &Options<'_, '_>,
    own: &Own,
    report: &mut Report,
) -> Option<(Keying, usize, manual::Lines)> {
    let choices = [("ike", true), ("manual", false)];
    let ike = match options.one("keying") {
        None => true,
        Some(_) => options.get("keying", report, |text| value::choice(text, &choices))?,
    };
    if ike {
        let (keys, line) = ike::read(options, own, report)?;
        return Some((Keying::Ike(Box::new(keys)), line, manual::Lines::default()));
    }
    let (keys, lines) = manual::read(options, report)?;
    Some((Keying::Manual(keys), 0, lines))
}
