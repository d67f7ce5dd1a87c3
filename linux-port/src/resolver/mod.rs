//! A small DNS resolver for the names of endpoints.
//!
//! It exists because the machine's own would ask through the tunnel that is not up yet: queries
//! leave through sockets that carry our mark, to the upstream servers rather than to a forwarder
//! on this machine. It never blocks: [`Resolver::as_fd`] becomes readable when
//! [`Resolver::handle_readable`] has something to do, [`Resolver::poll_timeout`] says when
//! [`Resolver::handle_timeout`] has. Names are resolved again when their time to live is over, and
//! with growing pauses after a failure; the last good addresses are remembered, in a file too.
//!
//! Every query has a random id and, through a socket of its own, a random port. The hosts file
//! comes first. Not here: search domains, caching for others, DNSSEC, TCP.

mod dns;

use core::fmt::Write as _;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, sockopt,
};
use simplevpn_core::time::Instant;

use crate::sorted::SortedMap;

use dns::{Kind, Reply};

/// How long one server is given.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the other family is waited for once one has answered.
const COURTESY: Duration = Duration::from_millis(300);
/// Servers asked, one after the other and round again, before a lookup has failed.
const ATTEMPTS: usize = 4;
/// Bounds of the time until a good answer is asked for again.
const FRESH: (u32, u32) = (60, 3600);
/// The longest pause after failures; the first is a second.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Bytes of the longest answer that is read.
const LONGEST_ANSWER: usize = 4096;

/// Where the resolver looks, and how its packets leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `SO_MARK` of its sockets.
    pub mark: u32,
    /// `SO_BINDTODEVICE` of its sockets.
    pub device: Option<String>,
    /// Files with `nameserver` lines; the first that names a server elsewhere than on this
    /// machine counts.
    pub resolv_conf: Vec<PathBuf>,
    /// The hosts file.
    pub hosts: PathBuf,
    /// Where the last good addresses are kept over a restart.
    pub memory: Option<PathBuf>,
}

impl Settings {
    /// The usual files: `/etc/resolv.conf`, and where OpenWrt, systemd and NetworkManager put the
    /// upstream servers when that one names a forwarder on this machine.
    #[must_use]
    pub fn new(mark: u32) -> Settings {
        let files = [
            "/etc/resolv.conf",
            "/tmp/resolv.conf.d/resolv.conf.auto",
            "/run/systemd/resolve/resolv.conf",
            "/run/NetworkManager/no-stub-resolv.conf",
        ];
        Settings {
            mark,
            device: None,
            resolv_conf: files.map(PathBuf::from).to_vec(),
            hosts: "/etc/hosts".into(),
            memory: None,
        }
    }
}

/// What has become known about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Its addresses, IPv4 first; perhaps the same as before.
    Resolved {
        /// The name.
        name: String,
        /// At least one address.
        addresses: Vec<IpAddr>,
    },
    /// It could not be resolved and will be tried again; [`Resolver::last`] still tells the last
    /// good addresses.
    Failed {
        /// The name.
        name: String,
        /// Why.
        reason: &'static str,
    },
}

/// The resolver.
#[derive(Debug)]
pub struct Resolver {
    settings: Settings,
    epoll: Epoll,
    names: SortedMap<String, Name>,
    events: Vec<Event>,
    memory: SortedMap<String, Vec<IpAddr>>,
}

/// A name that is watched.
#[derive(Debug)]
struct Name {
    last: Vec<IpAddr>,
    failures: u32,
    due: Instant,
    lookup: Option<Lookup>,
}

/// A lookup under way; `Name::due` is the end of its present attempt.
#[derive(Debug)]
struct Lookup {
    attempt: usize,
    /// Addresses and their time to live in seconds, by [`Kind`].
    found: [Option<(Vec<IpAddr>, u32)>; 2],
    queries: Vec<Query>,
    reason: &'static str,
}

#[derive(Debug)]
struct Query {
    kind: Kind,
    id: u16,
    socket: OwnedFd,
}

impl AsFd for Resolver {
    /// Readable when there is something for [`Resolver::handle_readable`]; never changes.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

impl Resolver {
    /// A resolver that watches nothing yet.
    ///
    /// # Errors
    /// When the kernel has no descriptor left.
    pub fn new(settings: Settings) -> io::Result<Resolver> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let text = settings.memory.as_ref().and_then(|path| fs::read_to_string(path).ok());
        let mut memory = SortedMap::new();
        for (name, addresses) in text.unwrap_or_default().lines().filter_map(recall) {
            memory.insert(name, addresses);
        }
        Ok(Resolver { settings, epoll, names: SortedMap::new(), events: Vec::new(), memory })
    }

    /// Resolves `name` from now on, until it is forgotten; a name that is watched already is
    /// resolved again now.
    pub fn watch(&mut self, name: &str, now: Instant) {
        match self.names.get_mut(name) {
            Some(entry) if entry.lookup.is_none() => entry.due = now,
            Some(_) => {}
            None => {
                let last = self.memory.get(name).cloned().unwrap_or_default();
                let entry = Name { last, failures: 0, due: now, lookup: None };
                self.names.insert(name.into(), entry);
            }
        }
    }

    /// To be called when the machine's network has changed, as far as that is known: what could not
    /// be resolved may be now, and pauses begin small again.
    pub fn network_changed(&mut self, now: Instant) {
        for entry in self.names.values_mut() {
            match &entry.lookup {
                // The server is still given its time.
                Some(lookup) if !lookup.queries.is_empty() => entry.failures = 0,
                None if entry.failures == 0 && !entry.last.is_empty() => {}
                _ => (entry.failures, entry.due, entry.lookup) = (0, now, None),
            }
        }
    }

    /// Watches `name` no more.
    pub fn forget(&mut self, name: &str) {
        self.names.remove(name);
    }

    /// The last good addresses of a watched name, also from before a restart.
    #[must_use]
    pub fn last(&self, name: &str) -> &[IpAddr] {
        self.names.get(name).map_or(&[], |entry| &entry.last)
    }

    /// When [`Resolver::handle_timeout`] is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.names.values().map(|entry| entry.due).min()
    }

    /// What has become known, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        (!self.events.is_empty()).then(|| self.events.remove(0))
    }

    /// Starts what is due and gives up on what takes too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = self.names.iter().filter(|(_, entry)| entry.due <= now);
        let names: Vec<String> = due.map(|(name, _)| name.clone()).collect();
        for name in names {
            match self.names.get(&name).is_some_and(|entry| entry.lookup.is_some()) {
                true => self.next_attempt(&name, now),
                false => self.start(&name, now),
            }
        }
    }

    /// Reads the answers that have come.
    pub fn handle_readable(&mut self, now: Instant) {
        let mut ready = [EpollEvent::empty(); 16];
        let count = self.epoll.wait(&mut ready, EpollTimeout::ZERO).unwrap_or(0);
        for event in ready.iter().take(count) {
            let owner = self.names.iter().find_map(|(name, entry)| {
                let queries = &entry.lookup.as_ref()?.queries;
                let index = queries.iter().position(|q| token(&q.socket) == event.data())?;
                Some((name.clone(), index))
            });
            if let Some((name, index)) = owner {
                self.receive(&name, index, now);
            }
        }
    }

    fn start(&mut self, name: &str, now: Instant) {
        let hosts = fs::read_to_string(&self.settings.hosts).unwrap_or_default();
        let local = dns::in_hosts(&hosts, name);
        if !local.is_empty() {
            return self.succeed(name, local, FRESH.0, now);
        }
        let Some(entry) = self.names.get_mut(name) else { return };
        let queries = Vec::new();
        let reason = "no name server answers";
        entry.lookup = Some(Lookup { attempt: 0, found: [None, None], queries, reason });
        self.ask(name, now);
    }

    /// Asks the server whose turn it is for the kinds of addresses that are still missing.
    fn ask(&mut self, name: &str, now: Instant) {
        let Some(wire) = dns::encode(name) else {
            return self.fail(name, "this cannot be the name of a host", now);
        };
        let servers = upstream(&self.settings.resolv_conf);
        let Some(entry) = self.names.get_mut(name) else { return };
        let Some(lookup) = &mut entry.lookup else { return };
        if servers.is_empty() {
            return self.fail(name, "no name server is known", now);
        }
        let server = servers.iter().cycle().nth(lookup.attempt);
        for kind in [Kind::A, Kind::Aaaa] {
            if lookup.found[kind as usize].is_none()
                && let Some(server) = server
                && let Ok(query) = send(&self.settings, &self.epoll, *server, &wire, kind)
            {
                lookup.queries.push(query);
            }
        }
        // A server that cannot be reached is given its time too: the WAN may be on its way up.
        entry.due = now.saturating_add(PATIENCE);
    }

    fn next_attempt(&mut self, name: &str, now: Instant) {
        let Some(entry) = self.names.get_mut(name) else { return };
        let Some(lookup) = &mut entry.lookup else { return };
        lookup.queries.clear();
        lookup.attempt += 1;
        let mut found = lookup.found.iter().flatten();
        let answered = found.any(|(addresses, _)| !addresses.is_empty());
        let complete = lookup.found.iter().all(Option::is_some);
        if answered || complete || lookup.attempt >= ATTEMPTS {
            return self.conclude(name, now);
        }
        self.ask(name, now);
    }

    fn conclude(&mut self, name: &str, now: Instant) {
        let lookup = self.names.get_mut(name).and_then(|entry| entry.lookup.take());
        let Some(lookup) = lookup else { return };
        let complete = lookup.found.iter().all(Option::is_some);
        let (mut addresses, mut least) = (Vec::new(), u32::MAX);
        for (found, ttl) in lookup.found.into_iter().flatten() {
            addresses.extend(found);
            least = least.min(ttl);
        }
        match addresses.is_empty() {
            false => self.succeed(name, addresses, least, now),
            true if complete && lookup.reason != NO_SUCH_NAME => {
                self.fail(name, "the name has no address", now);
            }
            true => self.fail(name, lookup.reason, now),
        }
    }

    fn succeed(&mut self, name: &str, addresses: Vec<IpAddr>, ttl: u32, now: Instant) {
        let Some(entry) = self.names.get_mut(name) else { return };
        let ttl = Duration::from_secs(ttl.clamp(FRESH.0, FRESH.1).into());
        *entry = Name {
            last: addresses.clone(),
            failures: 0,
            due: now.saturating_add(ttl),
            lookup: None,
        };
        self.remember(name, &addresses);
        self.events.push(Event::Resolved { name: name.into(), addresses });
    }

    fn fail(&mut self, name: &str, reason: &'static str, now: Instant) {
        let Some(entry) = self.names.get_mut(name) else { return };
        let pause = Duration::from_secs(1_u64 << entry.failures.min(6)).min(LONGEST_PAUSE);
        entry.failures = entry.failures.saturating_add(1);
        entry.due = now.saturating_add(pause);
        entry.lookup = None;
        self.events.push(Event::Failed { name: name.into(), reason });
    }

    /// One datagram; what does not answer our question is as if it had not come.
    fn receive(&mut self, name: &str, index: usize, now: Instant) {
        let Some(entry) = self.names.get_mut(name) else { return };
        let Some(lookup) = &mut entry.lookup else { return };
        let Some(query) = lookup.queries.get(index) else { return };
        let mut buffer = [0; LONGEST_ANSWER];
        let received = socket::recv(query.socket.as_raw_fd(), &mut buffer, MsgFlags::empty());
        let reply = match received {
            Ok(len) => dns::encode(name)
                .and_then(|wire| dns::reply(buffer.get(..len)?, query.id, &wire, query.kind)),
            Err(Errno::EAGAIN | Errno::EINTR) => None,
            // The server's host says that nobody listens there.
            Err(_) => Some(Reply::Unwilling),
        };
        let Some(reply) = reply else { return };
        let kind = lookup.queries.remove(index).kind;
        match reply {
            Reply::Addresses(addresses, ttl) => {
                if !addresses.is_empty() {
                    entry.due = entry.due.min(now.saturating_add(COURTESY));
                }
                lookup.found[kind as usize] = Some((addresses, ttl));
            }
            Reply::NoSuchName => {
                lookup.reason = NO_SUCH_NAME;
                lookup.found[kind as usize] = Some((Vec::new(), u32::MAX));
            }
            Reply::Unwilling => lookup.reason = "the name servers do not tell",
        }
        if lookup.queries.is_empty() {
            self.next_attempt(name, now);
        }
    }

    /// Keeps the addresses for the next start; what cannot be written is resolved then.
    fn remember(&mut self, name: &str, addresses: &[IpAddr]) {
        if self.memory.get(name).is_some_and(|before| before == addresses) {
            return;
        }
        self.memory.insert(name.into(), addresses.to_vec());
        let Some(path) = &self.settings.memory else { return };
        let mut text = String::new();
        for (name, addresses) in self.memory.iter() {
            text.push_str(name);
            for address in addresses {
                // Writing to a String cannot fail.
                let _ = write!(text, " {address}");
            }
            text.push('\n');
        }
        let new = path.with_extension("new");
        if let Err(e) = fs::write(&new, text).and_then(|()| fs::rename(&new, path)) {
            log::warn!("writing {}: {e}", path.display());
        }
    }
}

const NO_SUCH_NAME: &str = "there is no such name";

/// A line of the memory file.
fn recall(line: &str) -> Option<(String, Vec<IpAddr>)> {
    let mut words = line.split_whitespace();
    let name = words.next()?.to_string();
    let addresses: Vec<IpAddr> = words.filter_map(|word| word.parse().ok()).collect();
    (!addresses.is_empty()).then_some((name, addresses))
}

fn token(socket: &OwnedFd) -> u64 {
    u64::try_from(socket.as_raw_fd()).unwrap_or(u64::MAX)
}

/// The servers of the first file that has any elsewhere; forwarders on this machine only if no
/// file has.
fn upstream(files: &[PathBuf]) -> Vec<SocketAddr> {
    let index = |device: &str| nix::net::if_::if_nametoindex(device).ok();
    let texts = files.iter().filter_map(|path| fs::read_to_string(path).ok());
    let lists: Vec<_> = texts.map(|text| dns::servers(&text, index)).collect();
    let elsewhere = |servers: &Vec<SocketAddr>| -> Vec<SocketAddr> {
        servers.iter().filter(|s| !s.ip().is_loopback()).copied().collect()
    };
    let found = lists.iter().map(elsewhere).find(|servers| !servers.is_empty());
    found.or_else(|| lists.into_iter().find(|servers| !servers.is_empty())).unwrap_or_default()
}

/// Sends a query from a socket of its own.
fn send(
    settings: &Settings,
    epoll: &Epoll,
    server: SocketAddr,
    name: &[u8],
    kind: Kind,
) -> nix::Result<Query> {
    let family = if server.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(family, SockType::Datagram, flags, None)?;
    if let Err(e) = socket::setsockopt(&socket, sockopt::Mark, &settings.mark) {
        // Without policy routing nothing depends on it; with it, the query ends in the tunnel.
        log::debug!("marking a DNS socket: {}", std::io::Error::from(e));
    }
    if let Some(device) = &settings.device {
        socket::setsockopt(&socket, sockopt::BindToDevice, &OsString::from(device))?;
    }
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(|_| Errno::EIO)?;
    let id = u16::from_ne_bytes(id);
    // Connected, the kernel drops what does not come from the server.
    socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(server))?;
    socket::send(socket.as_raw_fd(), &dns::query(id, name, kind), MsgFlags::empty())?;
    epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, token(&socket)))?;
    Ok(Query { kind, id, socket })
}

#[cfg(test)]
mod tests;
