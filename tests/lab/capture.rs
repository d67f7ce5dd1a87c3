//! The eavesdropper: every frame on an interface, and what it tells.
//!
//! A plain AF_PACKET socket, because tcpdump wants privileges that a user namespace cannot give.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, setsockopt, sockopt};
use nix::sys::socket::{SockProtocol, socket};
use nix::sys::time::TimeVal;

use super::Host;

/// UDP port of UDP-encapsulated ESP (RFC 3948).
pub const NAT_PORT: u16 = 4500;

/// UDP port of IKE (RFC 7296 §2).
pub const IKE_PORT: u16 = 500;

/// What a frame is, as far as an eavesdropper can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// ESP, protocol 50, whole or a fragment.
    Esp,
    /// UDP from or to port 4500: ESP, and IKE once a NAT was suspected.
    UdpEncapsulated,
    /// UDP from or to port 500.
    Ike,
    /// Address resolution: ARP, neighbour and router discovery, multicast membership.
    Neighbour,
    /// Any other ICMP or ICMPv6.
    Icmp,
    /// TCP, with its ports.
    Tcp(u16, u16),
    /// UDP, with its ports.
    Udp(u16, u16),
    /// A later fragment of a packet of this other protocol.
    Fragment(u8),
    /// Another protocol above IP.
    Protocol(u8),
    /// Not IP: the EtherType.
    Ether(u16),
}

/// One frame.
#[derive(Clone)]
pub struct Frame {
    /// From the Ethernet header on.
    pub bytes: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Source and destination, if it is IP.
    pub addresses: Option<(IpAddr, IpAddr)>,
}

impl Frame {
    /// Reads a frame; never fails, since anything may be on a wire.
    pub fn parse(bytes: Vec<u8>) -> Frame {
        let (kind, addresses) = classify(&bytes).unwrap_or((Kind::Ether(0), None));
        Frame { bytes, kind, addresses }
    }

    /// The IP packet inside, if there is one.
    pub fn packet(&self) -> &[u8] {
        self.bytes.get(14..).unwrap_or_default()
    }

    /// ESP, raw or in UDP, IKE, or what a link needs to live.
    pub fn is_protected(&self) -> bool {
        matches!(self.kind, Kind::Esp | Kind::UdpEncapsulated | Kind::Ike | Kind::Neighbour)
    }

    /// Whether its source or destination is `address`.
    pub fn concerns(&self, address: IpAddr) -> bool {
        self.addresses.is_some_and(|(from, to)| from == address || to == address)
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addresses {
            Some((from, to)) => write!(f, "{from} > {to} {:?} {}", self.kind, self.bytes.len()),
            None => write!(f, "{:?} {}", self.kind, self.bytes.len()),
        }
    }
}

/// A capture that is running. Dropping it ends it.
pub struct Capture {
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<Vec<Frame>>>,
    socket: Arc<OwnedFd>,
}

/// A capture that has ended.
pub struct Captured {
    /// Every frame, in both directions, in order.
    pub frames: Vec<Frame>,
    /// How many frames came too fast to be caught.
    pub missed: u32,
}

impl Host {
    /// Starts to record every frame on an interface of this machine.
    ///
    /// # Panics
    /// When there is no such interface.
    pub fn capture(&self, interface: &str) -> Capture {
        let socket = Arc::new(self.within(|| packet_socket(interface)));
        let stop = Arc::new(AtomicBool::new(false));
        let (ours, theirs) = (Arc::clone(&socket), Arc::clone(&stop));
        let reader = std::thread::spawn(move || record(&ours, &theirs));
        Capture { stop, reader: Some(reader), socket }
    }
}

impl Capture {
    /// Ends the capture, a moment later, so that what is under way is caught.
    pub fn finish(mut self) -> Captured {
        std::thread::sleep(Duration::from_millis(50));
        let frames = self.end();
        Captured { frames, missed: missed(&self.socket) }
    }

    fn end(&mut self) -> Vec<Frame> {
        self.stop.store(true, Ordering::Relaxed);
        self.reader.take().and_then(|reader| reader.join().ok()).unwrap_or_default()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.end();
    }
}

impl Captured {
    /// Whether any frame contains `marker`.
    ///
    /// # Panics
    /// When `marker` is empty.
    pub fn contains(&self, marker: &[u8]) -> bool {
        self.frames.iter().any(|frame| find(&frame.bytes, marker))
    }

    /// How many frames satisfy the condition.
    pub fn count(&self, condition: impl Fn(&Frame) -> bool) -> usize {
        self.frames.iter().filter(|frame| condition(frame)).count()
    }

    /// How many frames are of this kind.
    pub fn count_kind(&self, kind: Kind) -> usize {
        self.count(|frame| frame.kind == kind)
    }

    /// Fails unless there was ESP and nothing else but IKE and what a link needs to live.
    ///
    /// # Panics
    /// When an eavesdropper learned more, or frames were missed.
    pub fn assert_only_esp(&self) {
        assert!(self.count(|f| matches!(f.kind, Kind::Esp | Kind::UdpEncapsulated)) > 0, "no ESP");
        self.assert_none("in the clear", |frame| !frame.is_protected());
    }

    /// Fails if any frame satisfies the condition.
    ///
    /// # Panics
    /// When one does, with the first few.
    pub fn assert_none(&self, what: &str, condition: impl Fn(&Frame) -> bool) {
        let found: Vec<String> =
            self.frames.iter().filter(|f| condition(f)).take(8).map(Frame::to_string).collect();
        assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
    }
}

/// Whether `marker` occurs in `bytes`.
///
/// # Panics
/// When `marker` is empty.
pub fn find(bytes: &[u8], marker: &[u8]) -> bool {
    let (first, rest) = marker.split_first().unwrap_or_else(|| panic!("an empty marker"));
    let mut from = bytes;
    while let Some(at) = from.iter().position(|byte| byte == first) {
        from = from.get(at + 1..).unwrap_or_default();
        if from.starts_with(rest) {
            return true;
        }
    }
    false
}

fn packet_socket(interface: &str) -> OwnedFd {
    let index = match nix::net::if_::if_nametoindex(interface) {
        Ok(index) => index,
        Err(error) => panic!("cannot listen on {interface}: {error}"),
    };
    let protocol = SockProtocol::EthAll;
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = match socket(AddressFamily::Packet, SockType::Raw, flags, protocol) {
        Ok(socket) => socket,
        Err(error) => panic!("cannot make a packet socket: {error}"),
    };
    // The forced size needs more rights than a user namespace gives; then the usual one must do.
    let _ = setsockopt(&socket, sockopt::RcvBuf, &(8 << 20));
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &(32 << 20));
    let patience = TimeVal::new(0, 20_000);
    if let Err(error) = setsockopt(&socket, sockopt::ReceiveTimeout, &patience) {
        panic!("cannot set a time limit: {error}");
    }
    // SAFETY: an all-zero sockaddr_ll is a valid one.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as i32;
    let length = std::mem::size_of_val(&address) as u32;
    // SAFETY: bind reads `length` bytes of `address`, which is that long.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    assert_eq!(bound, 0, "cannot bind to {interface}: {}", std::io::Error::last_os_error());
    socket
}

fn record(socket: &OwnedFd, stop: &AtomicBool) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut buffer = vec![0; 1 << 17];
    let mut stopped = None;
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => {
                frames.push(Frame::parse(buffer.get(..length).unwrap_or_default().to_vec()));
                // A wire that is never quiet has no last frame.
                let stop = stop.load(Ordering::Relaxed);
                let since = stop.then(|| *stopped.get_or_insert_with(Instant::now));
                if since.is_some_and(|since| since.elapsed() > Duration::from_millis(200)) {
                    return frames;
                }
            }
            // An empty queue, or the interface went down: both may be part of the story.
            Err(_) if stop.load(Ordering::Relaxed) => return frames,
            Err(_) => {}
        }
    }
}

fn missed(socket: &OwnedFd) -> u32 {
    // struct tpacket_stats: packets, drops.
    let mut stats = [0_u32; 2];
    let mut length = std::mem::size_of_val(&stats) as u32;
    // SAFETY: getsockopt writes at most `length` bytes to `stats`, which is that long.
    unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            stats.as_mut_ptr().cast(),
            &mut length,
        )
    };
    stats[1]
}

type Seen = (Kind, Option<(IpAddr, IpAddr)>);

fn classify(bytes: &[u8]) -> Option<Seen> {
    let packet = bytes.get(14..)?;
    match u16_at(bytes, 12)? {
        0x0800 => ipv4(packet),
        0x86dd => ipv6(packet),
        0x0806 => Some((Kind::Neighbour, None)),
        other => Some((Kind::Ether(other), None)),
    }
}

fn ipv4(packet: &[u8]) -> Option<Seen> {
    let protocol = *packet.get(9)?;
    let from = Ipv4Addr::from(*packet.get(12..)?.first_chunk::<4>()?);
    let to = Ipv4Addr::from(*packet.get(16..)?.first_chunk::<4>()?);
    let addresses = Some((from.into(), to.into()));
    if u16_at(packet, 6)? & 0x1fff != 0 {
        return Some((fragment(protocol), addresses));
    }
    let header = usize::from(packet.first()? & 0xf) * 4;
    // IGMP is to IPv4 what MLD is to IPv6.
    let kind =
        if protocol == 2 { Kind::Neighbour } else { upper(protocol, packet.get(header..)?)? };
    Some((kind, addresses))
}

fn ipv6(packet: &[u8]) -> Option<Seen> {
    let from = Ipv6Addr::from(*packet.get(8..)?.first_chunk::<16>()?);
    let to = Ipv6Addr::from(*packet.get(24..)?.first_chunk::<16>()?);
    let addresses = Some((from.into(), to.into()));
    let mut next = *packet.get(6)?;
    let mut payload = packet.get(40..)?;
    if next == 0 {
        next = *payload.first()?;
        payload = payload.get((usize::from(*payload.get(1)?) + 1) * 8..)?;
    }
    if next == 44 {
        next = *payload.first()?;
        if u16_at(payload, 2)? & 0xfff8 != 0 {
            return Some((fragment(next), addresses));
        }
        payload = payload.get(8..)?;
    }
    Some((upper(next, payload)?, addresses))
}

fn fragment(protocol: u8) -> Kind {
    if protocol == 50 { Kind::Esp } else { Kind::Fragment(protocol) }
}

fn upper(protocol: u8, payload: &[u8]) -> Option<Kind> {
    Some(match protocol {
        50 => Kind::Esp,
        1 => Kind::Icmp,
        58 if matches!(payload.first()?, 130..=137 | 143) => Kind::Neighbour,
        58 => Kind::Icmp,
        6 => Kind::Tcp(u16_at(payload, 0)?, u16_at(payload, 2)?),
        17 => match (u16_at(payload, 0)?, u16_at(payload, 2)?) {
            (NAT_PORT, _) | (_, NAT_PORT) => Kind::UdpEncapsulated,
            (IKE_PORT, _) | (_, IKE_PORT) => Kind::Ike,
            (from, to) => Kind::Udp(from, to),
        },
        other => Kind::Protocol(other),
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}
