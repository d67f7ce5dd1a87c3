//! The payloads TSi and TSr (RFC 7296 §3.13): which packets may use a child SA.
//!
//! ```text
//! how many (1) | reserved (3) | selectors
//! selector: type (1) | IP protocol (1) | length (2) | first port (2) | last port (2) |
//!           first address | last address
//! ```

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::numbers::{PayloadType, TsType};
use super::payload::structure;
use super::writer::{NoRoom, PayloadWriter, Writer};

/// Which packets may use a child SA, as far as one of its ends is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrafficSelectors<'a> {
    selectors: &'a [u8],
}

/// A range of addresses, with one protocol or all, and a range of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrafficSelector {
    /// The IP protocol; 0 is any.
    pub protocol: u8,
    /// The ports.
    pub ports: Ports,
    /// The addresses.
    pub addresses: Addresses,
}

/// A range of ports; for ICMP, of type (high byte) and code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// Any port, or none because there is none.
    pub const ANY: Ports = Ports { first: 0, last: u16::MAX };
    /// Only packets whose port cannot be told, as those of later fragments.
    pub const OPAQUE: Ports = Ports { first: u16::MAX, last: 0 };

    /// From `first` to `last`; `None` if that is less, but for [`Ports::OPAQUE`].
    #[must_use]
    pub fn new(first: u16, last: u16) -> Option<Ports> {
        let ports = Ports { first, last };
        (first <= last || ports == Ports::OPAQUE).then_some(ports)
    }

    /// The first of them.
    #[must_use]
    pub fn first(self) -> u16 {
        self.first
    }

    /// The last of them.
    #[must_use]
    pub fn last(self) -> u16 {
        self.last
    }
}

/// A range of addresses of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    first: IpAddr,
    last: IpAddr,
}

impl Addresses {
    /// From `first` to `last`; `None` if that is less, or of the other family.
    #[must_use]
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Addresses> {
        let ordered = first.is_ipv4() == last.is_ipv4() && first <= last;
        ordered.then_some(Addresses { first, last })
    }

    /// The first of them.
    #[must_use]
    pub fn first(self) -> IpAddr {
        self.first
    }

    /// The last of them, of the same family.
    #[must_use]
    pub fn last(self) -> IpAddr {
        self.last
    }

    fn parse(ts_type: TsType, bytes: &[u8]) -> Option<Addresses> {
        let (first, last): (IpAddr, IpAddr) = if ts_type == TsType::TS_IPV4_ADDR_RANGE {
            let (first, last) = bytes.split_first_chunk::<4>()?;
            (Ipv4Addr::from(*first).into(), Ipv4Addr::from(<[u8; 4]>::try_from(last).ok()?).into())
        } else {
            let (first, last) = bytes.split_first_chunk::<16>()?;
            (Ipv6Addr::from(*first).into(), Ipv6Addr::from(<[u8; 16]>::try_from(last).ok()?).into())
        };
        Addresses::new(first, last)
    }
}

impl TrafficSelector {
    /// All packets from or to these addresses.
    #[must_use]
    pub fn all(addresses: Addresses) -> TrafficSelector {
        TrafficSelector { protocol: 0, ports: Ports::ANY, addresses }
    }

    /// What the content of a selector means; `None` if it is malformed.
    fn parse(ts_type: TsType, protocol: u8, content: &[u8]) -> Option<TrafficSelector> {
        let (&[a, b, c, d], addresses) = content.split_first_chunk()?;
        let ports = Ports::new(u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))?;
        Some(TrafficSelector { protocol, ports, addresses: Addresses::parse(ts_type, addresses)? })
    }

    fn write(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        let Addresses { first, last } = self.addresses;
        let ts_type = match first {
            IpAddr::V4(_) => TsType::TS_IPV4_ADDR_RANGE,
            IpAddr::V6(_) => TsType::TS_IPV6_ADDR_RANGE,
        };
        writer.structure([ts_type.0, self.protocol], |writer| {
            writer.put_u16(self.ports.first)?;
            writer.put_u16(self.ports.last)?;
            [first, last].iter().try_for_each(|address| match address {
                IpAddr::V4(address) => writer.put(&address.octets()),
                IpAddr::V6(address) => writer.put(&address.octets()),
            })
        })
    }
}

/// Takes one off `bytes`: its type, its protocol, its content; and what follows.
fn take(bytes: &[u8]) -> Option<(TsType, u8, &[u8], &[u8])> {
    let ([ts_type, protocol], content, rest) = structure(bytes)?;
    Some((TsType(ts_type), protocol, content, rest))
}

fn known(ts_type: TsType) -> bool {
    matches!(ts_type, TsType::TS_IPV4_ADDR_RANGE | TsType::TS_IPV6_ADDR_RANGE)
}

impl<'a> TrafficSelectors<'a> {
    pub(super) fn parse(content: &'a [u8]) -> Option<TrafficSelectors<'a>> {
        let (&[count, _, _, _], selectors) = content.split_first_chunk()?;
        let mut rest = selectors;
        for _ in 0..count {
            let (ts_type, protocol, content, after) = take(rest)?;
            if known(ts_type) {
                TrafficSelector::parse(ts_type, protocol, content)?;
            }
            rest = after;
        }
        (count > 0 && rest.is_empty()).then_some(TrafficSelectors { selectors })
    }
}

impl Iterator for TrafficSelectors<'_> {
    type Item = TrafficSelector;

    /// The next selector; those of types that we do not know are left out.
    fn next(&mut self) -> Option<TrafficSelector> {
        loop {
            let (ts_type, protocol, content, rest) = take(self.selectors)?;
            self.selectors = rest;
            if known(ts_type) {
                return TrafficSelector::parse(ts_type, protocol, content);
            }
        }
    }
}

impl PayloadWriter<'_> {
    /// Writes a payload TSi: at least one selector, at most 255.
    ///
    /// # Errors
    /// [`NoRoom`]
    pub fn ts_initiator(
        &mut self,
        selectors: impl IntoIterator<Item = TrafficSelector>,
    ) -> Result<(), NoRoom> {
        self.ts(PayloadType::TSi, selectors)
    }

    /// Writes a payload TSr: at least one selector, at most 255.
    ///
    /// # Errors
    /// [`NoRoom`]
    pub fn ts_responder(
        &mut self,
        selectors: impl IntoIterator<Item = TrafficSelector>,
    ) -> Result<(), NoRoom> {
        self.ts(PayloadType::TSr, selectors)
    }

    fn ts(
        &mut self,
        payload_type: PayloadType,
        selectors: impl IntoIterator<Item = TrafficSelector>,
    ) -> Result<(), NoRoom> {
        self.payload(payload_type, |writer| {
            let (count_at, mut count) = (writer.len(), 0_u8);
            writer.put(&[0; 4])?;
            for selector in selectors {
                selector.write(writer)?;
                count = count.checked_add(1).ok_or(NoRoom)?;
            }
            writer.patch(count_at, &[count])
        })
    }
}
