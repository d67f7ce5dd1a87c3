//! The outer sockets of one interface: raw ESP, ESP in UDP and IKE, IPv4 and IPv6, used as one.

use core::net::IpAddr;
use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};
use simplevpn_core::ike::IkePath;
use simplevpn_core::{PacketBuf, Path, Transmit};

use super::ike;
use crate::batch::Slots;
use crate::config::model::Interface;
use crate::outer_socket::{Family, OuterSocket};
use crate::send_drops::{SendDrop, SendDrops};
use crate::stranger_socket::StrangerSocket;
use crate::{esp_socket, sorted, udp_socket};

/// IKE messages that fit into the queues of their own sockets.
const IKE_BATCH: usize = 8;

/// Which of the sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    EspV4,
    EspV6,
    UdpV4,
    UdpV6,
    /// IKE alone, on port 500.
    IkeV4,
    IkeV6,
}

impl Which {
    pub(super) const ALL: [Which; 6] =
        [Which::EspV4, Which::EspV6, Which::UdpV4, Which::UdpV6, Which::IkeV4, Which::IkeV6];

    /// The socket for ESP along `path`.
    pub(super) fn of(path: &Path) -> Which {
        match (path, Family::of(path.remote())) {
            (Path::Esp { .. }, Family::V4) => Which::EspV4,
            (Path::Esp { .. }, Family::V6) => Which::EspV6,
            (Path::Udp { .. }, Family::V4) => Which::UdpV4,
            (Path::Udp { .. }, Family::V6) => Which::UdpV6,
        }
    }

    /// The socket for an IKE message to `remote`, from the port that it shares with ESP or not.
    pub(super) fn of_ike(remote: IpAddr, natt: bool) -> Which {
        match (natt, Family::of(remote)) {
            (true, Family::V4) => Which::UdpV4,
            (true, Family::V6) => Which::UdpV6,
            (false, Family::V4) => Which::IkeV4,
            (false, Family::V6) => Which::IkeV6,
        }
    }

    fn family(self) -> Family {
        match self {
            Which::EspV4 | Which::UdpV4 | Which::IkeV4 => Family::V4,
            Which::EspV6 | Which::UdpV6 | Which::IkeV6 => Family::V6,
        }
    }

    pub(super) fn is_udp(self) -> bool {
        matches!(self, Which::UdpV4 | Which::UdpV6)
    }

    pub(super) fn is_ike(self) -> bool {
        matches!(self, Which::IkeV4 | Which::IkeV6)
    }
}

/// The only device that packets may leave through.
struct Tunlink {
    device: String,
    /// Whether it is there, and the sockets are bound to it. Until then they send nothing.
    bound: bool,
}

/// The sockets; one that the kernel does not offer is missing.
pub(super) struct Outer {
    sockets: [Option<OuterSocket>; Which::ALL.len()],
    /// The UDP ports of the sockets that have one.
    ports: [Option<u16>; Which::ALL.len()],
    /// Where answers to strangers leave, if any are answered.
    strangers: [Option<StrangerSocket>; 2],
    tunlink: Option<Tunlink>,
    /// Packets that fit into each queue.
    batch: usize,
    pub(super) drops: SendDrops,
}

impl Outer {
    /// Opens the sockets of `interface`, whose queues hold `batch` packets. One that only calls
    /// others goes without the ports that another program has.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what would help.
    pub(super) fn open(interface: &Interface, mark: u32, batch: usize) -> Result<Outer, String> {
        let (port, nat_port) = (interface.port, interface.nat_port);
        let (ike, calls) = (ike::is_used(interface), ike::only_calls(interface));
        let mut sockets = [const { None }; Which::ALL.len()];
        for which in Which::ALL {
            let family = which.family();
            let opened = if which.is_ike() {
                // Messages come one by one.
                let open = || udp_socket::open(family, port, mark, IKE_BATCH);
                let opened = if ike { open() } else { Ok(None) };
                opened.or_else(|error| match calls && is_taken(&error) {
                    true => {
                        log::info!("{}: another program has UDP port {port}", interface.name);
                        Ok(None)
                    }
                    false => Err(cannot_open("port", port, &error)),
                })
            } else if which.is_udp() {
                let opened = udp_socket::open(family, nat_port, mark, batch);
                let opened = opened.or_else(|error| match calls && is_taken(&error) {
                    true => udp_socket::open(family, 0, mark, batch),
                    false => Err(error),
                });
                opened.map_err(|error| cannot_open("nat_port", nat_port, &error))
            } else {
                esp_socket::open(family, mark, batch)
                    .map_err(|error| format!("cannot open a socket for ESP: {error}"))
            };
            if let Some(socket) = sockets.get_mut(which as usize) {
                *socket = opened?;
            }
        }
        let udp = Which::ALL.map(|which| which.is_udp() || which.is_ike());
        let mut ports = [None; Which::ALL.len()];
        for ((port, socket), udp) in ports.iter_mut().zip(&sockets).zip(udp) {
            *port = match socket.as_ref().filter(|_| udp).map(udp_socket::local_port) {
                Some(port) => Some(port.map_err(|error| error.to_string())?),
                None => None,
            };
        }
        let mut strangers = [None, None];
        if ike {
            for (socket, family) in strangers.iter_mut().zip([Family::V4, Family::V6]) {
                *socket = StrangerSocket::open(family, mark)
                    .map_err(|error| format!("cannot open a raw socket: {error}"))?;
            }
        }
        let tunlink = interface.tunlink.as_ref();
        let tunlink = tunlink.map(|device| Tunlink { device: device.clone(), bound: true });
        let drops = SendDrops::of(&interface.name);
        let mut outer = Outer { sockets, ports, strangers, tunlink, batch, drops };
        outer.follow_tunlink();
        Ok(outer)
    }

    /// Binds every socket to the device that is the tunlink as it is now: one that went and came
    /// back, as PPP's do, is another to the kernel. Without it nothing is sent.
    pub(super) fn follow_tunlink(&mut self) {
        let Some(Tunlink { device, bound }) = &mut self.tunlink else { return };
        let name = device.as_str().into();
        let strangers = self.strangers.iter().flatten().map(AsFd::as_fd);
        let mut sockets = self.sockets.iter().flatten().map(AsFd::as_fd).chain(strangers);
        let result = sockets.try_for_each(|s| setsockopt(&s, sockopt::BindToDevice, &name));
        match (result, *bound) {
            (Ok(()), false) => log::info!("tunlink {device}: there"),
            (Err(error), true) => {
                let error = io::Error::from(error);
                log::warn!("tunlink {device}: {error}; nothing is sent until it is there");
            }
            _ => {}
        }
        *bound = result.is_ok();
    }

    /// The UDP port that a socket has; `None` without it.
    pub(super) fn port(&self, which: Which) -> Option<u16> {
        self.ports.get(which as usize).copied().flatten()
    }

    /// All UDP ports that the sockets have.
    pub(super) fn all_ports(&self) -> Vec<u16> {
        sorted::set(self.ports.iter().copied().flatten())
    }

    /// How many packets fit into each queue.
    pub(super) fn batch(&self) -> usize {
        self.batch
    }

    pub(super) fn get(&self, which: Which) -> Option<&OuterSocket> {
        self.sockets.get(which as usize).and_then(Option::as_ref)
    }

    /// Lets a sealed packet wait in this socket for [`Outer::flush`]; without room or socket it is
    /// dropped.
    pub(super) fn queue(&mut self, which: Which, transmit: &Transmit, slot: usize, start: usize) {
        if self.tunlink.as_ref().is_some_and(|tunlink| !tunlink.bound) {
            return self.drops.count(SendDrop::Unreachable, 1);
        }
        match self.sockets.get_mut(which as usize) {
            Some(Some(socket)) => {
                if !socket.queue(transmit, slot, start) {
                    self.drops.count(SendDrop::QueueFull, 1);
                }
            }
            _ => self.drops.count(SendDrop::NoSocket, 1),
        }
    }

    /// Sends a datagram to somebody unknown at once, or never: it leaves packets of others alone.
    pub(super) fn send_to_stranger(&mut self, packet: &mut PacketBuf<'_>, path: &IkePath) {
        let bound = self.tunlink.as_ref().is_none_or(|tunlink| tunlink.bound);
        let family = Family::of(path.remote.ip());
        let mut sockets = self.strangers.iter().flatten();
        let socket = sockets.find(|socket| bound && socket.family() == family);
        if socket.is_none_or(|socket| socket.send(packet, path.local, path.remote).is_err()) {
            self.drops.count(SendDrop::Stranger, 1);
        }
    }

    /// Sends what waits, each packet now or never: every slot is free afterwards.
    pub(super) fn flush(&mut self, slots: &Slots) {
        for socket in self.sockets.iter_mut().flatten() {
            socket.flush(slots, &mut self.drops);
        }
    }

    /// Whether packets of this IP version can be sent at all.
    pub(super) fn serves(&self, family: Family) -> bool {
        self.sockets.iter().flatten().any(|socket| socket.family() == family)
    }

    /// Packets that the kernel dropped because we did not read them in time.
    pub(super) fn overflows(&self) -> u64 {
        self.sockets.iter().flatten().map(OuterSocket::overflows).sum()
    }
}

/// Whether another program has the port.
fn is_taken(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EADDRINUSE)
}

fn cannot_open(option: &str, port: u16, error: &io::Error) -> String {
    let advice = match error.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            "; another program (another IPsec daemon?) has it: stop that, or set "
        }
        Some(libc::EACCES) => {
            "; a port below 1024 takes the privilege CAP_NET_BIND_SERVICE, which a running daemon \
             has given up: start it anew, or set another "
        }
        _ => return format!("cannot open UDP port {port}: {error}"),
    };
    format!("cannot open UDP port {port}: {error}{advice}{option}")
}
