//! A small blocking rtnetlink client: links, addresses, routes and policy rules.
//!
//! Everything it adds can be recognised by [`PROTOCOL`] and is therefore found again after a
//! crash. Adding what is there and deleting what is not there are no errors. Not here: gateways,
//! multipath, routing by source, neighbours; [`monitor`] follows changes that others make.

mod attachment;
pub mod firewall;
mod message;
pub mod monitor;
mod mtu;
mod types;

use core::fmt;
use core::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

pub use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};
use smoltcp::wire::IpCidr;

pub use attachment::Attachment;
pub use types::{Family, Link, Route, Rule, Target, Way, network};

use crate::sorted;
use message::{Message, Request, attributes, number::*, read_address, read_u8, read_u32};

/// Who made a route or rule (`ip route show proto 50`): the number of ESP among IP protocols.
pub const PROTOCOL: u8 = 50;
/// The group of our TUN devices (`ip link show group`), by which firewall rules know those of other
/// interfaces.
pub const DEVICE_GROUP: u32 = 0x5300_0032;
/// The table `main`.
pub const TABLE_MAIN: u32 = 254;

/// What was attempted, and why it failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// "adding route 10.1.0.0/16 dev vpn0".
    pub attempt: String,
    /// The kernel's error number.
    pub errno: Errno,
    /// The kernel's explanation, where it gives one.
    pub explanation: Option<String>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = std::io::Error::from(self.errno).to_string();
        let reason = reason.split(" (os error").next().unwrap_or_default();
        write!(f, "{}: {reason}", self.attempt)?;
        match &self.explanation {
            Some(text) => write!(f, " ({text})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// A connection to the kernel's routing tables, in the network namespace it was made in.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Connects.
    ///
    /// # Errors
    /// When the kernel gives no netlink socket.
    pub fn open() -> Result<Netlink, Error> {
        Netlink::of(SockProtocol::NetlinkRoute)
    }

    fn of(protocol: SockProtocol) -> Result<Netlink, Error> {
        let socket = open_socket(SockFlag::empty(), protocol)?;
        const EXT_ACK: i32 = 11;
        const CAP_ACK: i32 = 10;
        const GET_STRICT_CHK: i32 = 12;
        // Older kernels have some of them not: explanations are missing, dumps are filtered here.
        for option in [EXT_ACK, CAP_ACK, GET_STRICT_CHK] {
            set_netlink_option(&socket, option);
        }
        Ok(Netlink { socket, sequence: 0, buffer: vec![0; 65_536] })
    }

    /// The device called `name`, if there is one.
    ///
    /// # Errors
    /// When the kernel refuses the question.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let request = Request::new(RTM_GETLINK, 0, &[0; 16]).text(IFLA_IFNAME, name);
        let mut found = None;
        let result = self.exchange(&request, &mut |m| found = found.take().or(parse_link(m)));
        match result {
            Ok(()) => Ok(found),
            Err((Errno::ENODEV, _)) => Ok(None),
            Err(e) => Err(error(format!("looking for device {name}"), e)),
        }
    }

    /// Brings the device up as one of ours ([`DEVICE_GROUP`]), without an automatic IPv6 link-local address: a TUN device has no
    /// neighbours who would answer router solicitations.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_up(&mut self, index: u32) -> Result<(), Error> {
        let mode = Request::nested(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
        let inet6 = Request::nested(Family::V6.number().into(), &mode);
        let quiet = Request::new(RTM_SETLINK, NLM_F_ACK, &link_header(index, 0, 0))
            .bytes(IFLA_AF_SPEC, &inet6);
        // A kernel without IPv6 has no such mode and needs none.
        let _ = self.exchange(&quiet, &mut |_| {});
        let header = link_header(index, IFF_UP, IFF_UP);
        let request = Request::new(RTM_NEWLINK, NLM_F_ACK, &header).u32(IFLA_GROUP, DEVICE_GROUP);
        self.exchange(&request, &mut |_| {})
            .map_err(|e| error(format!("bringing device #{index} up"), e))
    }

    /// Sets the device's MTU in bytes.
    ///
    /// # Errors
    /// When the kernel refuses, e.g. below 1280 with IPv6 in use.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), Error> {
        mtu::set(&self.socket, index, mtu).map_err(|errno| {
            error(format!("setting the MTU of device #{index} to {mtu}"), (errno, None))
        })
    }

    /// The MTU in bytes of the device with this index, if there is one.
    ///
    /// # Errors
    /// When the kernel refuses the question.
    pub fn mtu(&mut self, index: u32) -> Result<Option<u32>, Error> {
        let request = Request::new(RTM_GETLINK, 0, &link_header(index, 0, 0));
        let mut found = None;
        match self.exchange(&request, &mut |m| found = parse_link(m).map(|link| link.mtu)) {
            Ok(()) => Ok(found),
            Err((Errno::ENODEV, _)) => Ok(None),
            Err(e) => Err(error(format!("asking for the MTU of device #{index}"), e)),
        }
    }

    /// Every address of this machine: index of its device, and the address with its prefix length.
    ///
    /// # Errors
    /// When the kernel refuses the question.
    pub fn addresses(&mut self) -> Result<Vec<(u32, IpCidr)>, Error> {
        Ok(self.all_addresses()?.into_iter().map(|(index, local, _)| (index, local)).collect())
    }

    /// The networks that are connected to devices other than `except`: those of their addresses,
    /// and the other ends of point-to-point links.
    ///
    /// # Errors
    /// When the kernel refuses the question.
    pub fn connected(&mut self, except: Option<u32>) -> Result<Vec<IpCidr>, Error> {
        let prefixes = self
            .all_addresses()?
            .into_iter()
            .filter(|(index, address, connected)| {
                let local = IpAddr::from(address.address());
                let link_local = matches!(local, IpAddr::V6(a) if a.is_unicast_link_local());
                let alone = is_host(connected) && address == connected;
                Some(*index) != except && !local.is_loopback() && !link_local && !alone
            })
            .map(|(.., connected)| network(&connected));
        Ok(sorted::set(prefixes))
    }

    /// Index of the device, address and connected network of each address.
    fn all_addresses(&mut self) -> Result<Vec<(u32, IpCidr, IpCidr)>, Error> {
        let mut found = Vec::new();
        let request = Request::new(RTM_GETADDR, NLM_F_DUMP, &[0; 8]);
        self.exchange(&request, &mut |m| found.extend(parse_address(m)))
            .map_err(|e| error("listing addresses".into(), e))?;
        Ok(found)
    }

    /// Gives a device an address.
    ///
    /// # Errors
    /// When the kernel refuses; not when the device has it already.
    pub fn add_address(&mut self, index: u32, address: &IpCidr) -> Result<(), Error> {
        let request = address_request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, index, address);
        let request = match address {
            IpCidr::Ipv4(_) => request,
            // Nobody else is on the link who could have it too.
            IpCidr::Ipv6(_) => request.u32(IFA_FLAGS, IFA_F_NODAD),
        };
        self.change(&request, &[Errno::EEXIST])
            .map_err(|e| error(format!("adding address {address} to device #{index}"), e))
    }

    /// Takes an address from a device.
    ///
    /// # Errors
    /// When the kernel refuses; not when it is not there.
    pub fn delete_address(&mut self, index: u32, address: &IpCidr) -> Result<(), Error> {
        self.change(
            &address_request(RTM_DELADDR, 0, index, address),
            &[Errno::EADDRNOTAVAIL, Errno::ENODEV],
        )
        .map_err(|e| error(format!("deleting address {address} from device #{index}"), e))
    }

    /// Our routes ([`PROTOCOL`]) in all tables.
    ///
    /// # Errors
    /// When the kernel refuses the question.
    pub fn routes(&mut self, family: Family) -> Result<Vec<Route>, Error> {
        let mut header = [0; 12];
        header[0] = family.number();
        header[5] = PROTOCOL;
        let mut found = Vec::new();
        let request = Request::new(RTM_GETROUTE, NLM_F_DUMP, &header);
        match self.exchange(&request, &mut |m| found.extend(parse_route(m))) {
            Ok(()) => Ok(found),
            Err((errno, _)) if missing(errno) => Ok(Vec::new()),
            Err(e) => Err(error(format!("listing {family} routes"), e)),
        }
    }

    /// How packets with this mark leave for `remote`, `through` the device with this index if
    /// their socket is bound to one; `None` when they would not.
    ///
    /// # Errors
    /// When the kernel refuses the question.
    pub fn route_to(
        &mut self,
        remote: IpAddr,
        mark: u32,
        through: Option<u32>,
    ) -> Result<Option<Way>, Error> {
        let mut header = [0; 12];
        header[0] = Family::of_address(remote).number();
        header[1] = if remote.is_ipv4() { 32 } else { 128 };
        let request =
            Request::new(RTM_GETROUTE, 0, &header).address(RTA_DST, remote).u32(RTA_MARK, mark);
        let request = match through {
            Some(index) => request.u32(RTA_OIF, index),
            None => request,
        };
        let mut found = None;
        match self.exchange(&request, &mut |m| found = parse_way(m)) {
            Ok(()) => Ok(found),
            Err((errno, _)) if closed(errno) || missing(errno) => Ok(None),
            Err(e) => Err(error(format!("looking for the way to {remote}"), e)),
        }
    }

    /// Adds a route of ours.
    ///
    /// # Errors
    /// When the kernel refuses, e.g. a source that is not an address of this machine (`EINVAL`);
    /// not when our same route is there already.
    pub fn add_route(&mut self, route: &Route) -> Result<(), Error> {
        let request = route_request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, route);
        let refused = match self.change(&request, &[]) {
            Ok(()) => return Ok(()),
            Err(refused) => refused,
        };
        let theirs = refused.0 != Errno::EEXIST
            || !self.routes(Family::of(&route.destination))?.contains(route);
        if theirs { Err(error(format!("adding route {route}"), refused)) } else { Ok(()) }
    }

    /// Puts a route of ours in the place of our one which differs in its source: in tables of our
    /// own without a gap. In `main` the kernel could take somebody else's route for it, so there
    /// ours is deleted first and the new one comes before others of the same metric.
    ///
    /// # Errors
    /// When the kernel refuses, e.g. a source that is not an address of this machine (`EINVAL`);
    /// in `main` there is none of both then.
    pub fn replace_route(&mut self, route: &Route) -> Result<(), Error> {
        let flags = match route.table {
            TABLE_MAIN => {
                self.delete_route(route)?;
                NLM_F_CREATE
            }
            _ => NLM_F_CREATE | NLM_F_REPLACE,
        };
        let request = route_request(RTM_NEWROUTE, flags, route);
        self.change(&request, &[]).map_err(|e| error(format!("replacing route {route}"), e))
    }

    /// Deletes a route of ours, whatever its source.
    ///
    /// # Errors
    /// When the kernel refuses; not when it is not there.
    pub fn delete_route(&mut self, route: &Route) -> Result<(), Error> {
        let gone = [Errno::ESRCH, Errno::ENOENT, Errno::ENODEV];
        self.change(&route_request(RTM_DELROUTE, 0, &route.key()), &gone)
            .map_err(|e| error(format!("deleting route {route}"), e))
    }

    /// Our policy rules ([`PROTOCOL`]); `None` where the kernel has no policy routing.
    ///
    /// # Errors
    /// When the kernel refuses the question for another reason.
    pub fn rules(&mut self, family: Family) -> Result<Option<Vec<Rule>>, Error> {
        let mut header = [0; 12];
        header[0] = family.number();
        let mut found = Vec::new();
        let request = Request::new(RTM_GETRULE, NLM_F_DUMP, &header);
        match self.exchange(&request, &mut |m| found.extend(parse_rule(m))) {
            Ok(()) => Ok(Some(found)),
            Err((errno, _)) if missing(errno) => Ok(None),
            Err(e) => Err(error(format!("listing {family} rules"), e)),
        }
    }

    /// Adds a rule of ours.
    ///
    /// # Errors
    /// When the kernel refuses; not when the same rule is there already.
    pub fn add_rule(&mut self, rule: &Rule) -> Result<(), Error> {
        self.change(&rule_request(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, rule), &[Errno::EEXIST])
            .map_err(|e| error(format!("adding rule {rule}"), e))
    }

    /// Deletes a rule of ours.
    ///
    /// # Errors
    /// When the kernel refuses; not when it is not there.
    pub fn delete_rule(&mut self, rule: &Rule) -> Result<(), Error> {
        self.change(&rule_request(RTM_DELRULE, 0, rule), &[Errno::ENOENT])
            .map_err(|e| error(format!("deleting rule {rule}"), e))
    }

    /// A request that changes something; the errors in `fine` mean that it is so already.
    fn change(&mut self, request: &Request, fine: &[Errno]) -> Result<(), Refusal> {
        match self.exchange(request, &mut |_| {}) {
            Err((errno, _)) if fine.contains(&errno) => Ok(()),
            result => result,
        }
    }

    /// Sends the request and hands every answer to `each`; a dump that others' changes interrupted
    /// is asked for again, so `each` may see an entry twice.
    fn exchange(
        &mut self,
        request: &Request,
        each: &mut dyn FnMut(&Message<'_>),
    ) -> Result<(), Refusal> {
        for _ in 0..5 {
            if !self.attempt(request, each)? {
                return Ok(());
            }
        }
        Err((Errno::EINTR, Some("the tables keep changing while they are listed".into())))
    }

    /// One try; true when it was interrupted.
    fn attempt(
        &mut self,
        request: &Request,
        each: &mut dyn FnMut(&Message<'_>),
    ) -> Result<bool, Refusal> {
        self.sequence = self.sequence.wrapping_add(1);
        let fd = self.socket.as_raw_fd();
        retry(|| socket::send(fd, &request.finish(self.sequence), MsgFlags::empty()))?;
        let mut interrupted = false;
        loop {
            let len = retry(|| socket::recv(fd, &mut self.buffer, MsgFlags::empty()))?;
            let received = self.buffer.get(..len).unwrap_or_default();
            for message in message::messages(received) {
                if message.sequence != self.sequence {
                    continue;
                }
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.kind {
                    NLMSG_ERROR => return message::outcome(&message).map(|()| interrupted),
                    // A dump that fails half-way says so in its last message.
                    NLMSG_DONE => return message::outcome(&message).map(|()| interrupted),
                    _ => each(&message),
                }
                if !request.expects_more() {
                    return Ok(interrupted);
                }
            }
        }
    }
}

type Refusal = (Errno, Option<String>);

fn error(attempt: String, (errno, explanation): Refusal) -> Error {
    Error { attempt, errno, explanation }
}

/// What the kernel says when it was built without something.
fn missing(errno: Errno) -> bool {
    matches!(errno, Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT | Errno::ENOENT)
}

/// What the kernel says of a destination to which nothing leads: no route, or one of the types
/// unreachable, prohibit and blackhole; or the device it is to go through has gone.
fn closed(errno: Errno) -> bool {
    use Errno::{EACCES, EHOSTUNREACH, EINVAL, ENETUNREACH, ENODEV, ESRCH};
    matches!(errno, ENETUNREACH | EHOSTUNREACH | EACCES | EINVAL | ENODEV | ESRCH)
}

fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> Result<T, Refusal> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result.map_err(|errno| (errno, None)),
        }
    }
}

fn open_socket(flags: SockFlag, protocol: SockProtocol) -> Result<OwnedFd, Error> {
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    socket::socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)
        .map_err(|errno| error("opening a netlink socket".into(), (errno, None)))
}

fn set_netlink_option(socket: &OwnedFd, option: i32) {
    let on: libc::c_int = 1;
    let len = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or(4);
    // SAFETY: `on` outlives the call and `len` is its size; the result tells nothing we need.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            len,
        );
    }
}

fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

fn parse_link(message: &Message<'_>) -> Option<Link> {
    let mut link = Link {
        index: read_u32(message.body, 4)?,
        name: String::new(),
        mtu: 0,
        up: read_u32(message.body, 8)? & IFF_UP != 0,
    };
    for (kind, payload) in attributes(message.body.get(16..)?) {
        match kind {
            IFLA_IFNAME => link.name = message::read_text(payload),
            IFLA_MTU => link.mtu = read_u32(payload, 0)?,
            _ => {}
        }
    }
    Some(link)
}

fn address_request(kind: u16, flags: u16, index: u32, address: &IpCidr) -> Request {
    let mut header = [Family::of(address).number(), address.prefix_len(), 0, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    Request::new(kind, flags | NLM_F_ACK, &header)
        .address(IFA_LOCAL, address.address().into())
        .address(IFA_ADDRESS, address.address().into())
}

/// The address, and what it connects: on a point-to-point link another one.
fn parse_address(message: &Message<'_>) -> Option<(u32, IpCidr, IpCidr)> {
    let prefix_len = read_u8(message.body, 1)?;
    let index = read_u32(message.body, 4)?;
    let (mut local, mut connected) = (None, None);
    for (kind, payload) in attributes(message.body.get(8..)?) {
        match kind {
            IFA_LOCAL => local = read_address(payload),
            IFA_ADDRESS => connected = read_address(payload),
            _ => {}
        }
    }
    let (local, connected) = (local.or(connected)?, connected.or(local)?);
    Some((index, cidr(local, prefix_len)?, cidr(connected, prefix_len)?))
}

fn is_host(prefix: &IpCidr) -> bool {
    prefix.prefix_len() == if Family::of(prefix) == Family::V4 { 32 } else { 128 }
}

/// None for a prefix length that the family does not have.
fn cidr(address: IpAddr, prefix_len: u8) -> Option<IpCidr> {
    let most = if address.is_ipv4() { 32 } else { 128 };
    (prefix_len <= most).then(|| IpCidr::new(address.into(), prefix_len))
}

fn route_request(kind: u16, flags: u16, route: &Route) -> Request {
    let destination = &route.destination;
    let (route_type, add_scope) = match route.target {
        Target::Device(_) => (RTN_UNICAST, RT_SCOPE_LINK),
        Target::Unreachable => (RTN_UNREACHABLE, RT_SCOPE_UNIVERSE),
        Target::Throw => (RTN_THROW, RT_SCOPE_UNIVERSE),
    };
    let mut header = [0; 12];
    header[0] = Family::of(destination).number();
    header[1] = destination.prefix_len();
    header[5] = PROTOCOL;
    header[6] = match (kind, destination) {
        (RTM_DELROUTE, _) => RT_SCOPE_NOWHERE,
        (_, IpCidr::Ipv4(_)) => add_scope,
        (_, IpCidr::Ipv6(_)) => RT_SCOPE_UNIVERSE,
    };
    header[7] = route_type;
    // As ip(8) does it: the attribute is for numbers that the header has no room for.
    header[4] = u8::try_from(route.table).unwrap_or(RT_TABLE_UNSPEC);
    let mut request = Request::new(kind, flags | NLM_F_ACK, &header)
        .address(RTA_DST, destination.address().into())
        .u32(RTA_PRIORITY, route.metric);
    if header[4] == RT_TABLE_UNSPEC {
        request = request.u32(RTA_TABLE, route.table);
    }
    let request = match route.source {
        Some(source) => request.address(RTA_PREFSRC, source),
        None => request,
    };
    match route.target {
        Target::Device(index) => request.u32(RTA_OIF, index),
        Target::Unreachable | Target::Throw => request,
    }
}

/// A route of ours; none of anybody else's.
fn parse_route(message: &Message<'_>) -> Option<Route> {
    let body = message.body;
    let family = Family::from_number(read_u8(body, 0)?)?;
    if read_u8(body, 5)? != PROTOCOL {
        return None;
    }
    let (mut destination, mut device, mut metric) = (family.unspecified(), None, 0);
    let mut source = None;
    let mut table = u32::from(read_u8(body, 4)?);
    for (kind, payload) in attributes(body.get(12..)?) {
        match kind {
            RTA_DST => destination = read_address(payload)?,
            RTA_OIF => device = read_u32(payload, 0),
            RTA_PRIORITY => metric = read_u32(payload, 0)?,
            RTA_TABLE => table = read_u32(payload, 0)?,
            RTA_PREFSRC => source = read_address(payload),
            RTA_GATEWAY => return None,
            _ => {}
        }
    }
    let target = match read_u8(body, 7)? {
        RTN_UNICAST => Target::Device(device?),
        RTN_UNREACHABLE => Target::Unreachable,
        RTN_THROW => Target::Throw,
        _ => return None,
    };
    let destination = cidr(destination, read_u8(body, 1)?)?;
    Some(Route { destination, table, target, metric, source })
}

/// The answer to one question about a destination.
fn parse_way(message: &Message<'_>) -> Option<Way> {
    let body = message.body;
    // IPv6 answers with what an unreachable route looks like, not with an error.
    if ![RTN_UNICAST, RTN_LOCAL].contains(&read_u8(body, 7)?) {
        return None;
    }
    let (mut device, mut source) = (None, None);
    for (kind, payload) in attributes(body.get(12..)?) {
        match kind {
            RTA_OIF => device = read_u32(payload, 0),
            RTA_PREFSRC => source = read_address(payload),
            _ => {}
        }
    }
    Some(Way { device: device?, source })
}

fn rule_request(kind: u16, flags: u16, rule: &Rule) -> Request {
    let mut header = [0; 12];
    header[0] = rule.family.number();
    header[1] = rule.to.map_or(0, |to| to.prefix_len());
    header[7] = FR_ACT_TO_TBL;
    let invert = if rule.not_mark.is_some() { FIB_RULE_INVERT } else { 0 };
    header[8..12].copy_from_slice(&invert.to_ne_bytes());
    let mut request = Request::new(kind, flags | NLM_F_ACK, &header)
        .u32(FRA_PRIORITY, rule.priority)
        .u32(FRA_TABLE, rule.table)
        .bytes(FRA_PROTOCOL, &[PROTOCOL]);
    if let Some(to) = rule.to {
        request = request.address(FRA_DST, to.address().into());
    }
    if let Some((mark, mask)) = rule.not_mark {
        request = request.u32(FRA_FWMARK, mark).u32(FRA_FWMASK, mask);
    }
    if let Some(len) = rule.suppress_prefix_len {
        request = request.u32(FRA_SUPPRESS_PREFIXLEN, len);
    }
    request
}

/// A rule of ours; none of anybody else's.
fn parse_rule(message: &Message<'_>) -> Option<Rule> {
    let body = message.body;
    let family = Family::from_number(read_u8(body, 0)?)?;
    let inverted = read_u32(body, 8)? & FIB_RULE_INVERT != 0;
    let (mut priority, mut mark, mut mask, mut suppress) = (0, 0, 0, None);
    let (mut table, mut ours) = (u32::from(read_u8(body, 4)?), false);
    let mut to = None;
    for (kind, payload) in attributes(body.get(12..)?) {
        match kind {
            FRA_DST => to = cidr(read_address(payload)?, read_u8(body, 1)?),
            FRA_PRIORITY => priority = read_u32(payload, 0)?,
            FRA_FWMARK => mark = read_u32(payload, 0)?,
            FRA_FWMASK => mask = read_u32(payload, 0)?,
            FRA_SUPPRESS_PREFIXLEN => {
                suppress = read_u32(payload, 0).filter(|&len| len != u32::MAX);
            }
            FRA_TABLE => table = read_u32(payload, 0)?,
            FRA_PROTOCOL => ours = read_u8(payload, 0) == Some(PROTOCOL),
            _ => {}
        }
    }
    let not_mark = inverted.then_some((mark, mask));
    ours.then_some(Rule { family, priority, not_mark, to, table, suppress_prefix_len: suppress })
}

#[cfg(test)]
mod tests;
