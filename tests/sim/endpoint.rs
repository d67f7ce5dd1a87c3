//! One end: a TCP/IP stack over an `EspDevice`, as firmware has it.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simplevpn_core::crypto::AnyAead;
use simplevpn_core::device::{self, EspDevice};
use simplevpn_core::path::Path;
use simplevpn_core::sad::Sad;
use simplevpn_core::wire::natt::Datagram;
use simplevpn_core::{
    Discard, Event, HEADROOM, Instant, Opener, PacketBuf, PeerId, Sealer, Spd, TAILROOM, Tunnel,
    outer,
};
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{self, Device, DeviceCapabilities};
use smoltcp::storage::{PacketBuffer, PacketMetadata};
use smoltcp::wire::{HardwareAddress, IpCidr};

use super::link::{Flight, Link};

/// How many peers an endpoint can have.
const PEERS: usize = 4;
/// Packets that fit each queue of the device.
const QUEUE: usize = 512;
/// Bytes in the longest packet.
const LONGEST: usize = 1600;

/// What an endpoint is made of.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// Its inner IPv4 address (wire space).
    pub v4: Ipv4Addr,
    /// Its inner IPv6 address (wire space).
    pub v6: Ipv6Addr,
    /// Its address on the link.
    pub outer: IpAddr,
    /// The largest inner packet that its stack makes.
    pub mtu: usize,
}

/// A stack, its tunnel and its place on the link.
pub struct Endpoint {
    /// What it was made of; `outer` changes when it moves.
    pub setup: Setup,
    /// The stack's sockets.
    pub sockets: SocketSet<'static>,
    /// The stack.
    pub interface: Interface,
    /// Events of the tunnel, the oldest first.
    pub events: VecDeque<Event>,
    tap: Tap,
    sent: u16,
}

impl Endpoint {
    /// An endpoint without peers.
    pub fn new(setup: Setup) -> Endpoint {
        let mut tap = Tap { device: esp_device(setup.mtu), reached: 0 };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = u64::from(setup.v4.to_bits());
        let epoch = smoltcp::time::Instant::ZERO;
        let mut interface = Interface::new(config, &mut tap, epoch);
        interface.update_ip_addrs(|addresses| {
            // So short that everyone else is a neighbour, whatever the offset.
            addresses.push(IpCidr::new(setup.v4.into(), 4)).unwrap();
            addresses.push(IpCidr::new(setup.v6.into(), 4)).unwrap();
        });
        let sockets = SocketSet::new(Vec::new());
        Endpoint { setup, sockets, interface, events: VecDeque::new(), tap, sent: 0 }
    }

    /// The tunnel.
    pub fn tunnel(&mut self) -> &mut Tunnel<'static, AnyAead> {
        self.tap.device.tunnel()
    }

    /// How many packets the tunnel has handed to the stack.
    pub fn reached(&self) -> u64 {
        self.tap.reached
    }

    /// How many packets were dropped for this reason.
    pub fn dropped(&mut self, why: Discard) -> u64 {
        self.tunnel().discards().get(why)
    }

    /// Moves to another address on the link.
    pub fn move_to(&mut self, outer: IpAddr) {
        self.setup.outer = outer;
        for id in (0..).map(PeerId).take(PEERS) {
            let path = self.tunnel().sealer.peer(id).and_then(|peer| peer.path()).copied();
            let moved = path.map(|path| match path {
                Path::Esp { remote, .. } => Path::Esp { local: outer, remote },
                Path::Udp { local, remote } => {
                    Path::Udp { local: (outer, local.port()).into(), remote }
                }
            });
            self.tunnel().sealer.set_path(id, moved);
        }
    }

    /// Takes a packet off the link.
    pub fn receive(&mut self, now: u64, flight: Flight) -> Result<PeerId, Discard> {
        let mut bytes = flight.bytes;
        let len = bytes.len();
        let mut packet = PacketBuf::new(&mut bytes, 0, len)?;
        let (path, traffic_class) = outer::strip(&mut packet)?;
        if matches!(path, Path::Udp { .. })
            && Datagram::classify(packet.as_slice()) != Datagram::Esp
        {
            return Err(Discard::Malformed); // IKE, as far as anyone can tell
        }
        let now = Instant::from_millis(now);
        self.tap.device.handle_datagram(now, &path, traffic_class, packet.as_mut_slice())
    }

    /// Lets the stack work, and sends what it has to say.
    pub fn poll(&mut self, now: u64, link: &mut Link) {
        let (stack_now, now) =
            (smoltcp::time::Instant::from_millis(now as i64), Instant::from_millis(now));
        self.interface.poll(stack_now, &mut self.tap, &mut self.sockets);
        // Once more for the answers of the tunnel to what was just sent.
        self.interface.poll(stack_now, &mut self.tap, &mut self.sockets);
        while let Some((transmit, esp)) = self.tap.device.poll_transmit(now) {
            let mut bytes = [&[0; HEADROOM], esp].concat();
            let mut packet = PacketBuf::new(&mut bytes, HEADROOM, esp.len()).unwrap();
            self.sent = self.sent.wrapping_add(1);
            outer::prepend(&mut packet, &transmit, 64, self.sent).unwrap();
            link.send(now.as_millis(), &transmit.path, packet.as_slice().to_vec());
        }
        while let Some(event) = self.tunnel().poll_event() {
            self.events.push_back(event);
        }
    }

    /// When the stack or the tunnel wants to be polled next.
    pub fn next_wakeup(&mut self, now: u64) -> Option<u64> {
        let stack_now = smoltcp::time::Instant::from_millis(now as i64);
        let stack = self.interface.poll_at(stack_now, &self.sockets);
        let stack = stack.map(|at| (at.total_micros().unsigned_abs()).div_ceil(1000));
        let tunnel = self.tunnel().poll_timeout().map(Instant::as_millis);
        stack.into_iter().chain(tunnel).min()
    }
}

fn esp_device(mtu: usize) -> EspDevice<'static, AnyAead> {
    fn lent<T>(slot: impl FnMut() -> T, count: usize) -> &'static mut [T] {
        Vec::from_iter(std::iter::repeat_with(slot).take(count)).leak()
    }
    let spd = || Spd::new(lent(|| None, 16).into());
    let sealer = Sealer::new(spd(), lent(|| None, PEERS).into());
    let sad = Sad::new(lent(|| None, PEERS).into(), lent(|| None, 2 * PEERS).into());
    let opener = Opener::new(sad, spd(), lent(|| None, PEERS).into());
    EspDevice::new(
        Tunnel::new(sealer, opener),
        PacketBuffer::new(vec![PacketMetadata::EMPTY; QUEUE], vec![0; QUEUE * LONGEST]),
        PacketBuffer::new(vec![PacketMetadata::EMPTY; QUEUE], vec![0; QUEUE * LONGEST]),
        lent(|| 0, HEADROOM + mtu + TAILROOM),
        lent(|| 0, HEADROOM + mtu + TAILROOM),
    )
}

/// Counts what the stack gets to see.
struct Tap {
    device: EspDevice<'static, AnyAead>,
    reached: u64,
}

struct Counted<'t>(device::RxToken<'t, 'static>, &'t mut u64);

impl phy::RxToken for Counted<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        *self.1 += 1;
        self.0.consume(f)
    }
}

impl Device for Tap {
    type RxToken<'t> = Counted<'t>;
    type TxToken<'t> = device::TxToken<'t, 'static, AnyAead>;

    fn receive(
        &mut self,
        timestamp: smoltcp::time::Instant,
    ) -> Option<(Counted<'_>, Self::TxToken<'_>)> {
        let (rx, tx) = self.device.receive(timestamp)?;
        Some((Counted(rx, &mut self.reached), tx))
    }

    fn transmit(&mut self, timestamp: smoltcp::time::Instant) -> Option<Self::TxToken<'_>> {
        self.device.transmit(timestamp)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.device.capabilities()
    }
}
