//! What the client speaks about: families, devices, routes and rules, in words of `ip(8)`.

use core::fmt;
use core::net::IpAddr;

use smoltcp::wire::IpCidr;

use super::TABLE_MAIN;

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// AF_INET.
    V4,
    /// AF_INET6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// The family of a prefix.
    #[must_use]
    pub fn of(prefix: &IpCidr) -> Family {
        match prefix {
            IpCidr::Ipv4(_) => Family::V4,
            IpCidr::Ipv6(_) => Family::V6,
        }
    }

    /// The family of an address.
    #[must_use]
    pub fn of_address(address: IpAddr) -> Family {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    pub(super) fn number(self) -> u8 {
        match self {
            Family::V4 => 2,
            Family::V6 => 10,
        }
    }

    pub(super) fn from_number(number: u8) -> Option<Family> {
        Family::ALL.into_iter().find(|f| f.number() == number)
    }

    pub(super) fn unspecified(self) -> IpAddr {
        match self {
            Family::V4 => IpAddr::from([0; 4]),
            Family::V6 => IpAddr::from([0; 16]),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// `prefix` without its host bits.
#[must_use]
pub fn network(prefix: &IpCidr) -> IpCidr {
    match prefix {
        IpCidr::Ipv4(p) => IpCidr::Ipv4(p.network()),
        IpCidr::Ipv6(p) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(p.prefix_len())).unwrap_or(0);
            let bits = u128::from_be_bytes(p.address().octets()) & mask;
            IpCidr::new(IpAddr::from(bits.to_be_bytes()).into(), p.prefix_len())
        }
    }
}

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
}

/// How packets leave this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Index of the device they leave through; that of `lo` when they stay.
    pub device: u32,
    /// The address of ours they come from, if there is one.
    pub source: Option<IpAddr>,
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// Out of the device with this index.
    Device(u32),
    /// Nowhere: the sender gets "host unreachable".
    Unreachable,
    /// Out of its table: the rules that follow decide.
    Throw,
}

/// A route of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Destination, without host bits.
    pub destination: IpCidr,
    /// Number of the routing table.
    pub table: u32,
    /// Where it leads.
    pub target: Target,
    /// Lower wins. IPv6 knows no 0: the kernel makes it 1024.
    pub metric: u32,
    /// The address of ours that packets come from which have none yet (`src`); `None`: the kernel
    /// chooses.
    pub source: Option<IpAddr>,
}

impl Route {
    /// The route without its preferred source: what tells it from others in the kernel.
    #[must_use]
    pub fn key(&self) -> Route {
        Route { source: None, ..*self }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.target {
            Target::Device(index) => {
                let name = nix::net::if_::if_indextoname(index).ok();
                let name = name.and_then(|n| n.into_string().ok());
                let name = name.unwrap_or_else(|| format!("#{index}"));
                write!(f, "{} dev {name}", self.destination)?;
            }
            Target::Unreachable => write!(f, "unreachable {}", self.destination)?,
            Target::Throw => write!(f, "throw {}", self.destination)?,
        }
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        write!(f, " metric {}", self.metric)?;
        if self.table != TABLE_MAIN { write!(f, " table {}", self.table) } else { Ok(()) }
    }
}

/// A policy rule: packets whose mark matches are looked up in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// The family it is for.
    pub family: Family,
    /// Its place among the rules; lower comes first.
    pub priority: u32,
    /// The rule is for packets whose mark, masked, is *not* this one: `(mark, mask)`.
    pub not_mark: Option<(u32, u32)>,
    /// The rule is for packets to this prefix, without host bits; `None`: to any address.
    pub to: Option<IpCidr>,
    /// The table.
    pub table: u32,
    /// Results with a prefix of at most this length do not count.
    pub suppress_prefix_len: Option<u32>,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}:", self.family, self.priority)?;
        if let Some((mark, mask)) = self.not_mark {
            write!(f, " not fwmark {mark:#x}/{mask:#x}")?;
        }
        if let Some(to) = self.to {
            write!(f, " to {to}")?;
        }
        write!(f, " lookup {}", self.table)?;
        match self.suppress_prefix_len {
            Some(len) => write!(f, " suppress_prefixlength {len}"),
            None => Ok(()),
        }
    }
}
