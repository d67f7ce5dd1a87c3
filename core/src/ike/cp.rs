//! Addresses that one end has of the other's network (RFC 7296 §2.19, §3.15).
//!
//! The initiator asks in IKE_AUTH, the responder gives what its configuration leases. Only
//! addresses and name servers are asked for and given.

use core::net::IpAddr;

use heapless::Vec;

use super::pad::Lease;
use super::status::{Given, MAX_GIVEN};
use super::wire::cp::{CfgAttribute, Configuration};
use super::wire::numbers::CfgType;
use super::wire::{NoRoom, PayloadWriter};

/// The prefix length that an address of IPv6 comes with: it is the only one.
const HOST: u8 = 128;

/// Asks for an address of each family, and for name servers.
pub(crate) fn write_request(writer: &mut PayloadWriter<'_>) -> Result<(), NoRoom> {
    let attributes = [
        CfgAttribute::Ip4Address(None),
        CfgAttribute::Ip6Address(None),
        CfgAttribute::Ip4Dns(None),
        CfgAttribute::Ip6Dns(None),
    ];
    write(writer, CfgType::CFG_REQUEST, &attributes)
}

/// Gives what `given` has.
pub(crate) fn write_reply(writer: &mut PayloadWriter<'_>, given: &Given) -> Result<(), NoRoom> {
    let mut attributes = Vec::<_, { 2 * MAX_GIVEN }>::new();
    attributes.extend(given.addresses.iter().map(|address| match *address {
        IpAddr::V4(address) => CfgAttribute::Ip4Address(Some(address)),
        IpAddr::V6(address) => CfgAttribute::Ip6Address(Some((address, HOST))),
    }));
    attributes.extend(given.dns.iter().map(|server| match *server {
        IpAddr::V4(address) => CfgAttribute::Ip4Dns(Some(address)),
        IpAddr::V6(address) => CfgAttribute::Ip6Dns(Some(address)),
    }));
    write(writer, CfgType::CFG_REPLY, &attributes)
}

fn write(
    writer: &mut PayloadWriter<'_>,
    cfg_type: CfgType,
    attributes: &[CfgAttribute<'_>],
) -> Result<(), NoRoom> {
    writer.configuration(cfg_type, attributes.iter().copied())
}

/// What the peer gets of its lease when it asks like this: addresses of the families that it asks
/// for. Which address it would like is of no interest.
pub(crate) fn grant(lease: &Lease<'_>, request: &Configuration<'_>) -> Given {
    let asks = |v4: bool| {
        request.attributes().any(|attribute| match attribute {
            CfgAttribute::Ip4Address(_) => v4,
            CfgAttribute::Ip6Address(_) => !v4,
            _ => false,
        })
    };
    let of_family = |address: &&IpAddr| asks(address.is_ipv4());
    let mut given = Given::default();
    given.addresses.extend(lease.addresses.iter().filter(of_family).take(MAX_GIVEN).copied());
    given.dns.extend(lease.dns.iter().filter(of_family).take(MAX_GIVEN).copied());
    given
}

/// What the peer has given; what is too much for us is left.
pub(crate) fn read_reply(reply: &Configuration<'_>) -> Given {
    let mut given = Given::default();
    for attribute in reply.attributes() {
        // A full list stays as it is.
        let _ = match attribute {
            CfgAttribute::Ip4Address(Some(address)) => given.addresses.push(address.into()),
            CfgAttribute::Ip6Address(Some((address, _))) => given.addresses.push(address.into()),
            CfgAttribute::Ip4Dns(Some(address)) => given.dns.push(address.into()),
            CfgAttribute::Ip6Dns(Some(address)) => given.dns.push(address.into()),
            _ => Ok(()),
        };
    }
    given
}
