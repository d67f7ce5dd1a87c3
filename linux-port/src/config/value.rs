//! Values of options. Each reader says what is wrong and what would be right, as the end of a
//! sentence that begins with the option and its value.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::RangeInclusive;
use std::path::PathBuf;

use smoltcp::wire::IpCidr;

use super::model::Host;
use super::prefix;
use crate::logger;

/// A value as a message may show it: quoted, without control characters, and not if it is so long
/// that it may be a key in the wrong place.
pub(super) fn shown(value: &str) -> String {
    let count = value.chars().count();
    let address_like = value.contains([':', '.']) && count <= 80;
    if count > 24 && !address_like {
        return format!("(of {count} characters)");
    }
    format!("'{}'", logger::one_line(value))
}

/// A UCI boolean.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    if ["1", "on", "true", "yes", "enabled"].contains(&text) {
        Ok(true)
    } else if ["0", "off", "false", "no", "disabled"].contains(&text) {
        Ok(false)
    } else {
        Err("is not a boolean; write '1' or '0'".to_owned())
    }
}

/// A number in decimal or, after `0x`, hexadecimal digits.
pub(super) fn number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // from_str_radix would take a sign.
    let valid = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    valid.then(|| u32::from_str_radix(digits, radix).ok()).flatten()
}

/// A number within `range`.
pub(super) fn within(text: &str, range: RangeInclusive<u32>) -> Result<u32, String> {
    number(text).filter(|number| range.contains(number)).ok_or_else(|| {
        format!("is not in range; write a number from {} to {}", range.start(), range.end())
    })
}

/// A UDP port.
pub(super) fn port(text: &str) -> Result<u16, String> {
    let port = number(text).and_then(|number| u16::try_from(number).ok());
    port.filter(|port| *port != 0)
        .ok_or_else(|| "is not a port; write a number from 1 to 65535".to_owned())
}

/// One of `choices` by its name.
pub(super) fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    match choices.iter().find(|(name, _)| *name == text) {
        Some((_, choice)) => Ok(*choice),
        None => Err(none_of(&mut choices.iter().map(|(name, _)| *name))),
    }
}

fn none_of(names: &mut dyn Iterator<Item = &str>) -> String {
    let mut message = "is not known; write one of ".to_owned();
    for (position, name) in names.enumerate() {
        message.push_str(if position == 0 { "'" } else { ", '" });
        message.push_str(name);
        message.push('\'');
    }
    message
}

/// An address with a prefix length; without one it is the address alone.
pub(super) fn cidr(text: &str) -> Result<IpCidr, String> {
    let (address, len) = match text.split_once('/') {
        Some((address, len)) => (address, Some(len)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| {
        "is not an IPv4 or IPv6 address or prefix; write it like '10.1.0.0/16' or 'fd00:1::/48'"
            .to_owned()
    })?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let len = match len {
        None => most,
        Some(len) => Some(len)
            .filter(|len| !len.is_empty() && len.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|len| len.parse().ok())
            .filter(|len| *len <= most)
            .ok_or_else(|| format!("has a bad prefix length; write a number from 0 to {most}"))?,
    };
    Ok(IpCidr::new(address.into(), len))
}

/// The address of a name server that is somewhere else than on the machine that asks it.
pub(super) fn name_server(text: &str) -> Result<IpAddr, String> {
    let address: Option<IpAddr> = text.parse().ok();
    let is_host = |address: &IpAddr| {
        let nobodys = address.is_unspecified() || address.is_loopback() || address.is_multicast();
        !nobodys && *address != IpAddr::V4(Ipv4Addr::BROADCAST)
    };
    address.filter(is_host).ok_or_else(|| {
        "is not the address of a name server; beside pool it is given to peers: write it like \
         '10.77.0.1' or 'fd77::1'"
            .to_owned()
    })
}

/// A prefix without host bits.
pub(super) fn network(text: &str) -> Result<IpCidr, String> {
    let prefix = cidr(text)?;
    let network = prefix::network(prefix);
    if network != prefix {
        return Err(format!("has bits set in its host part; the prefix is '{network}'"));
    }
    Ok(prefix)
}

/// An address of this machine, with host bits.
pub(super) fn host_address(text: &str) -> Result<IpCidr, String> {
    let cidr = cidr(text)?;
    let address: IpAddr = cidr.address().into();
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        return Err("cannot be an interface's address; write a unicast address".to_owned());
    }
    Ok(cidr)
}

/// An IPv4 offset, written like an address.
pub(super) fn offset(text: &str) -> Result<u32, String> {
    let address: Result<Ipv4Addr, _> = text.parse();
    address
        .map(u32::from)
        .map_err(|_| "is not an IPv4 offset; write it like '0.0.100.0'".to_owned())
}

/// An IPv6 offset, written like an address.
pub(super) fn offset6(text: &str) -> Result<u128, String> {
    let address: Result<Ipv6Addr, _> = text.parse();
    address
        .map(u128::from)
        .map_err(|_| "is not an IPv6 offset; write it like '0:0:0:100::'".to_owned())
}

/// An address or a name (RFC 1123, and underscores).
pub(super) fn host(text: &str) -> Result<Host, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return endpoint_address(address.to_canonical()).map(Host::Address);
    }
    let with_port = text.starts_with('[')
        || text
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.contains(':') && number(port).is_some());
    if with_port {
        return Err("has a port or brackets; write the address alone, and the port as endpoint_port or endpoint_nat_port".to_owned());
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let label_is_valid = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    // A name whose last label is a number is a mistyped address (RFC 1123 §2.1).
    let mistyped =
        name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    if name.len() > 253 || mistyped || !name.split('.').all(label_is_valid) {
        return Err("is neither an address nor a host name; write it like '192.0.2.1', '2001:db8::1' or 'vpn.example.net'".to_owned());
    }
    Ok(Host::Name(text.to_owned()))
}

fn endpoint_address(address: IpAddr) -> Result<IpAddr, String> {
    let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    if link_local {
        Err("is link-local and names no link; write a global or unique local address".to_owned())
    } else if address.is_unspecified() || address.is_multicast() || broadcast {
        Err("cannot be a peer's address; write a unicast address".to_owned())
    } else {
        Ok(address)
    }
}

/// The name of a network device: at most 15 bytes (IFNAMSIZ), no slash, colon or space.
///
/// # Errors
/// What is wrong, as the end of a sentence that begins with the name.
pub fn device_name(text: &str) -> Result<String, String> {
    let bad = |b: u8| !b.is_ascii_graphic() || b == b'/' || b == b':';
    if text.is_empty() || text.len() > 15 || text == "." || text == ".." || text.bytes().any(bad) {
        return Err("is not an interface name; write at most 15 characters, no '/', ':' or space"
            .to_owned());
    }
    Ok(text.to_owned())
}

/// An absolute path.
pub(super) fn absolute_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err("is not an absolute path; begin it with '/'".to_owned())
    }
}
