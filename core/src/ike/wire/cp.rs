//! The payload CP (RFC 7296 §3.15): addresses and name servers that one end gives the other.
//!
//! ```text
//! what it is (1) | reserved (3) | attributes
//! attribute: reserved (1 bit) | type (15 bits) | length of the value (2) | value
//! ```
//! In a request, an attribute without value asks for any, and one with a value for that.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::numbers::{CfgAttributeType, CfgType, PayloadType};
use super::writer::{NoRoom, PayloadWriter, Writer};

/// The bit in front of an attribute's type.
const RESERVED: u16 = 0x8000;

/// Addresses that one end asks for or gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Configuration<'a> {
    /// Whether it asks or gives.
    pub cfg_type: CfgType,
    attributes: &'a [u8],
}

/// An attribute; its value is `None` where it is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CfgAttribute<'a> {
    /// INTERNAL_IP4_ADDRESS: the address of the end that asks.
    Ip4Address(Option<Ipv4Addr>),
    /// INTERNAL_IP4_NETMASK: the mask of the network it is in.
    Ip4Netmask(Option<Ipv4Addr>),
    /// INTERNAL_IP4_DNS: a name server.
    Ip4Dns(Option<Ipv4Addr>),
    /// INTERNAL_IP4_SUBNET: a network behind the end that gives, and its mask.
    Ip4Subnet(Option<(Ipv4Addr, Ipv4Addr)>),
    /// INTERNAL_IP6_ADDRESS: the address of the end that asks, and its prefix length.
    Ip6Address(Option<(Ipv6Addr, u8)>),
    /// INTERNAL_IP6_DNS: a name server.
    Ip6Dns(Option<Ipv6Addr>),
    /// INTERNAL_IP6_SUBNET: a network behind the end that gives, and its prefix length.
    Ip6Subnet(Option<(Ipv6Addr, u8)>),
    /// Anything else.
    Other(CfgAttributeType, &'a [u8]),
}

/// A value that is there or not: `None` if it is malformed, `Some(None)` if it is empty.
fn optional<T>(value: &[u8], parse: impl FnOnce(&[u8]) -> Option<T>) -> Option<Option<T>> {
    if value.is_empty() { Some(None) } else { parse(value).map(Some) }
}

fn ip4(value: &[u8]) -> Option<Ipv4Addr> {
    Some(<[u8; 4]>::try_from(value).ok()?.into())
}

fn ip6(value: &[u8]) -> Option<Ipv6Addr> {
    Some(<[u8; 16]>::try_from(value).ok()?.into())
}

fn ip4_masked(value: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let (address, mask) = value.split_first_chunk::<4>()?;
    Some(((*address).into(), ip4(mask)?))
}

fn ip6_prefix(value: &[u8]) -> Option<(Ipv6Addr, u8)> {
    let (prefix_len, address) = value.split_last()?;
    (*prefix_len <= 128).then_some((ip6(address)?, *prefix_len))
}

impl<'a> CfgAttribute<'a> {
    /// Takes one off `bytes`, and returns what follows it.
    fn parse(bytes: &'a [u8]) -> Option<(CfgAttribute<'a>, &'a [u8])> {
        let (&[a, b, c, d], rest) = bytes.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(u16::from_be_bytes([c, d]).into())?;
        let attribute_type = CfgAttributeType(u16::from_be_bytes([a, b]) & !RESERVED);
        let attribute = match attribute_type {
            CfgAttributeType::INTERNAL_IP4_ADDRESS => {
                CfgAttribute::Ip4Address(optional(value, ip4)?)
            }
            CfgAttributeType::INTERNAL_IP4_NETMASK => {
                CfgAttribute::Ip4Netmask(optional(value, ip4)?)
            }
            CfgAttributeType::INTERNAL_IP4_DNS => CfgAttribute::Ip4Dns(optional(value, ip4)?),
            CfgAttributeType::INTERNAL_IP4_SUBNET => {
                CfgAttribute::Ip4Subnet(optional(value, ip4_masked)?)
            }
            CfgAttributeType::INTERNAL_IP6_ADDRESS => {
                CfgAttribute::Ip6Address(optional(value, ip6_prefix)?)
            }
            CfgAttributeType::INTERNAL_IP6_DNS => CfgAttribute::Ip6Dns(optional(value, ip6)?),
            CfgAttributeType::INTERNAL_IP6_SUBNET => {
                CfgAttribute::Ip6Subnet(optional(value, ip6_prefix)?)
            }
            _ => CfgAttribute::Other(attribute_type, value),
        };
        Some((attribute, rest))
    }

    fn write(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        let v4 = |address: &Option<Ipv4Addr>| address.map(|address| address.octets());
        let v6 = |address: &Option<Ipv6Addr>| address.map(|address| address.octets());
        match self {
            CfgAttribute::Ip4Address(value) => {
                write(writer, CfgAttributeType::INTERNAL_IP4_ADDRESS, &[bytes(&v4(value))])
            }
            CfgAttribute::Ip4Netmask(value) => {
                write(writer, CfgAttributeType::INTERNAL_IP4_NETMASK, &[bytes(&v4(value))])
            }
            CfgAttribute::Ip4Dns(value) => {
                write(writer, CfgAttributeType::INTERNAL_IP4_DNS, &[bytes(&v4(value))])
            }
            CfgAttribute::Ip4Subnet(value) => {
                let value = value.map(|(address, mask)| [address.octets(), mask.octets()]);
                let value = value.as_ref().map_or(&[][..], |value| value.as_flattened());
                write(writer, CfgAttributeType::INTERNAL_IP4_SUBNET, &[value])
            }
            CfgAttribute::Ip6Dns(value) => {
                write(writer, CfgAttributeType::INTERNAL_IP6_DNS, &[bytes(&v6(value))])
            }
            CfgAttribute::Ip6Address(value) => {
                write_prefix(writer, CfgAttributeType::INTERNAL_IP6_ADDRESS, *value)
            }
            CfgAttribute::Ip6Subnet(value) => {
                write_prefix(writer, CfgAttributeType::INTERNAL_IP6_SUBNET, *value)
            }
            CfgAttribute::Other(attribute_type, value) => write(writer, *attribute_type, &[value]),
        }
    }
}

fn bytes<const N: usize>(value: &Option<[u8; N]>) -> &[u8] {
    value.as_ref().map_or(&[], |value| value)
}

fn write_prefix(
    writer: &mut Writer<'_>,
    attribute_type: CfgAttributeType,
    prefix: Option<(Ipv6Addr, u8)>,
) -> Result<(), NoRoom> {
    match prefix {
        None => write(writer, attribute_type, &[]),
        Some((address, prefix_len)) => {
            write(writer, attribute_type, &[&address.octets(), &[prefix_len]])
        }
    }
}

fn write(
    writer: &mut Writer<'_>,
    attribute_type: CfgAttributeType,
    value: &[&[u8]],
) -> Result<(), NoRoom> {
    let len = value.iter().fold(0, |len: usize, part| len.saturating_add(part.len()));
    writer.put_u16(attribute_type.0 & !RESERVED)?;
    writer.put_u16(u16::try_from(len).map_err(|_| NoRoom)?)?;
    value.iter().try_for_each(|part| writer.put(part))
}

/// The attributes of a configuration payload, one after the other.
#[derive(Debug, Clone, Copy)]
pub struct CfgAttributes<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for CfgAttributes<'a> {
    type Item = CfgAttribute<'a>;

    fn next(&mut self) -> Option<CfgAttribute<'a>> {
        let (attribute, rest) = CfgAttribute::parse(self.rest)?;
        self.rest = rest;
        Some(attribute)
    }
}

impl<'a> Configuration<'a> {
    pub(super) fn parse(content: &'a [u8]) -> Option<Configuration<'a>> {
        let (&[cfg_type, _, _, _], attributes) = content.split_first_chunk()?;
        let mut rest = attributes;
        while !rest.is_empty() {
            (_, rest) = CfgAttribute::parse(rest)?;
        }
        Some(Configuration { cfg_type: CfgType(cfg_type), attributes })
    }

    /// The attributes.
    #[must_use]
    pub fn attributes(&self) -> CfgAttributes<'a> {
        CfgAttributes { rest: self.attributes }
    }
}

impl PayloadWriter<'_> {
    /// Writes a payload CP.
    ///
    /// # Errors
    /// [`NoRoom`]
    pub fn configuration<'a>(
        &mut self,
        cfg_type: CfgType,
        attributes: impl IntoIterator<Item = CfgAttribute<'a>>,
    ) -> Result<(), NoRoom> {
        self.payload(PayloadType::CP, |writer| {
            writer.put(&[cfg_type.0, 0, 0, 0])?;
            attributes.into_iter().try_for_each(|attribute| attribute.write(writer))
        })
    }
}
