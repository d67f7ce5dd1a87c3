//! The tunnel as a `smoltcp::phy::Device`, so that firmware can run TCP/IP over ESP.
//!
//! ```text
//! sockets - Interface - EspDevice ~ poll_transmit / handle_datagram ~ wire
//! ```
//! The stack's packets are sealed into one lent queue, datagrams from the wire are opened into
//! another. How datagrams travel (a raw or UDP socket of a second, outer interface; a modem) is
//! the firmware's business; [`crate::outer`] builds whole outer packets for those who need them.

use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::storage::PacketBuffer;

use crate::counters::Discard;
use crate::crypto::Aead;
use crate::packet::{HEADROOM, PacketBuf, TAILROOM};
use crate::path::{Path, Transmit};
use crate::sealer::Sealed;
use crate::spd::PeerId;
use crate::time::Instant;
use crate::tunnel::Tunnel;

/// A tunnel with its two queues.
pub struct EspDevice<'a, A: Aead> {
    tunnel: Tunnel<'a, A>,
    from_wire: PacketBuffer<'a, ()>,
    to_wire: PacketBuffer<'a, Transmit>,
    scratch: &'a mut [u8],
}

impl<'a, A: Aead> EspDevice<'a, A> {
    /// A device over `tunnel`. `scratch` takes one packet while it is sealed, so its length sets
    /// the MTU: [`HEADROOM`] and [`TAILROOM`] less.
    #[must_use]
    pub fn new(
        tunnel: Tunnel<'a, A>,
        from_wire: PacketBuffer<'a, ()>,
        to_wire: PacketBuffer<'a, Transmit>,
        scratch: &'a mut [u8],
    ) -> EspDevice<'a, A> {
        EspDevice { tunnel, from_wire, to_wire, scratch }
    }

    /// The tunnel, to install SAs, read counters and poll events.
    pub fn tunnel(&mut self) -> &mut Tunnel<'a, A> {
        &mut self.tunnel
    }

    /// The largest inner packet in bytes.
    #[must_use]
    pub fn mtu(&self) -> usize {
        self.scratch.len().saturating_sub(HEADROOM + TAILROOM)
    }

    /// Opens an ESP packet that came on path `from`, and queues it for the stack. `datagram`
    /// begins with the ESP header and is overwritten.
    ///
    /// # Errors
    /// Why the packet was dropped: already counted, but [`Discard::NoRoom`] when the queue is
    /// full.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: &Path,
        traffic_class: u8,
        datagram: &mut [u8],
    ) -> Result<PeerId, Discard> {
        let len = datagram.len();
        let mut packet = PacketBuf::new(datagram, 0, len)?;
        let peer = self.tunnel.inbound(now, from, traffic_class, &mut packet)?;
        let room = self.from_wire.enqueue(packet.len(), ()).map_err(|_| Discard::NoRoom)?;
        room.copy_from_slice(packet.as_slice());
        Ok(peer)
    }

    /// The next packet for the wire, from its ESP header on: what the stack sent, then keepalives.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<(Transmit, &[u8])> {
        if self.to_wire.is_empty() {
            let mut packet = PacketBuf::new(self.scratch, HEADROOM, 0).ok()?;
            let transmit = self.tunnel.poll_transmit(now, &mut packet)?;
            self.to_wire.enqueue(packet.len(), transmit).ok()?.copy_from_slice(packet.as_slice());
        }
        self.to_wire.dequeue().ok().map(|(transmit, bytes)| (transmit, &*bytes))
    }
}

/// One opened packet for the stack.
pub struct RxToken<'t, 'a>(&'t mut PacketBuffer<'a, ()>);

impl phy::RxToken for RxToken<'_, '_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        // `receive` made this token because the queue is not empty.
        f(self.0.dequeue().map_or(&[], |((), packet)| packet))
    }
}

/// Leave to send one packet.
pub struct TxToken<'t, 'a, A: Aead> {
    tunnel: &'t mut Tunnel<'a, A>,
    to_wire: &'t mut PacketBuffer<'a, Transmit>,
    scratch: &'t mut [u8],
    now: Instant,
}

impl<A: Aead> TxToken<'_, '_, A> {
    /// Seals the first `len` bytes behind the headroom. What is dropped is counted by the tunnel;
    /// a full queue looks to the stack like a lossy wire.
    fn seal(self, len: usize) -> Result<(), Discard> {
        let mut packet = PacketBuf::new(self.scratch, HEADROOM, len)?;
        match self.tunnel.sealer.seal(self.now, &mut packet)? {
            Sealed::Transmit(_, transmit) => {
                let room = self.to_wire.enqueue(packet.len(), transmit);
                room.map_err(|_| Discard::NoRoom)?.copy_from_slice(packet.as_slice());
            }
            // Its fragments would want a second buffer.
            Sealed::Fragment(_) => self.tunnel.sealer.count(Discard::TooBig),
            Sealed::TooBig(_) => {}
        }
        Ok(())
    }
}

impl<A: Aead> phy::TxToken for TxToken<'_, '_, A> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let room = self.scratch.get_mut(HEADROOM..).unwrap_or_default();
        let result = f(room.get_mut(..len).unwrap_or_default());
        let _counted = self.seal(len);
        result
    }
}

impl<'a, A: Aead> phy::Device for EspDevice<'a, A> {
    type RxToken<'t>
        = RxToken<'t, 'a>
    where
        Self: 't;
    type TxToken<'t>
        = TxToken<'t, 'a, A>
    where
        Self: 't;

    fn receive(
        &mut self,
        timestamp: smoltcp::time::Instant,
    ) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        if self.from_wire.is_empty() || self.to_wire.is_full() {
            return None;
        }
        let now = Instant::from_millis(timestamp.total_millis().unsigned_abs());
        let Self { tunnel, from_wire, to_wire, scratch } = self;
        Some((RxToken(from_wire), TxToken { tunnel, to_wire, scratch, now }))
    }

    fn transmit(&mut self, timestamp: smoltcp::time::Instant) -> Option<Self::TxToken<'_>> {
        if self.to_wire.is_full() {
            return None;
        }
        let now = Instant::from_millis(timestamp.total_millis().unsigned_abs());
        let Self { tunnel, to_wire, scratch, .. } = self;
        Some(TxToken { tunnel, to_wire, scratch, now })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu();
        capabilities
    }
}
