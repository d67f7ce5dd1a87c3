//! TUN to wire: what is read from TUN becomes sealed packets in slots, which are sent in batches.

use simplevpn_core::fragment::Fragments;
use simplevpn_core::icmp::answer_too_big;
use simplevpn_core::offload::Offload;
use simplevpn_core::segment::Segments;
use simplevpn_core::{Discard, HEADROOM, Instant, PacketBuf, Sealed};

use super::DataPath;
use super::ahead::Held;
use crate::daemon::peers::HeapTunnel;

impl DataPath {
    /// Reads a batch from TUN, seals it and sends it.
    ///
    /// # Errors
    /// A sentence, when the device is gone.
    pub(in crate::daemon) fn outbound(
        &mut self,
        tunnel: &mut HeapTunnel,
        now: Instant,
    ) -> Result<(), String> {
        self.was_full = false;
        let mut more = true;
        while more || !self.waiting.is_empty() {
            // Each packet that waits will have its slot.
            while more && self.waiting.wants_more(tunnel) {
                let used = self.used + self.waiting.len();
                more = !self.was_full && used < self.slots.count() && self.read()?;
                self.waiting.look_ahead(tunnel);
            }
            self.seal_held(tunnel, now);
        }
        self.send();
        Ok(())
    }

    /// Reads one packet or super-packet; `false` if there is none.
    fn read(&mut self) -> Result<bool, String> {
        let mut room = self.waiting.room();
        match self.tun.read(&mut room) {
            Ok(Some((len, offload))) => {
                self.waiting.push(room, len, offload);
                Ok(true)
            }
            other => {
                self.waiting.give_back(room);
                match other {
                    Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                        self.counters.malformed += 1;
                        Ok(true)
                    }
                    Err(error) => {
                        let name = &self.name;
                        Err(format!("{name}: its TUN device is gone, was it deleted? ({error})"))
                    }
                    Ok(_) => Ok(false),
                }
            }
        }
    }

    /// Seals the first of what waits.
    fn seal_held(&mut self, tunnel: &mut HeapTunnel, now: Instant) {
        let Some(mut held) = self.waiting.pop() else { return };
        let sealed = match held.offload.gso {
            None => self.seal_one(tunnel, now, &mut held),
            Some(_) => self.seal_segments(tunnel, now, &held),
        };
        if let Err(why) = sealed {
            tunnel.sealer.count_discard(why);
        }
        self.waiting.give_back(held.room);
    }

    /// Seals a packet that is none too long.
    fn seal_one(
        &mut self,
        tunnel: &mut HeapTunnel,
        now: Instant,
        held: &mut Held,
    ) -> Result<(), Discard> {
        self.make_room();
        let offload = held.offload;
        let packet = held.packet();
        offload.complete_checksum(packet)?;
        let slot = self.slots.get_mut(self.used).unwrap_or_default();
        let room = slot.get_mut(HEADROOM..).and_then(|room| room.get_mut(..packet.len()));
        room.ok_or(Discard::NoRoom)?.copy_from_slice(packet);
        self.seal_slot(tunnel, now, packet.len())
    }

    /// Cuts a super-packet into the free slots and seals each segment there; sends whenever there are no
    /// more.
    fn seal_segments(
        &mut self,
        tunnel: &mut HeapTunnel,
        now: Instant,
        held: &Held,
    ) -> Result<(), Discard> {
        let packet = held.room.get(..held.len).unwrap_or_default();
        let mut segments = Segments::new(packet, &held.offload)?;
        loop {
            self.make_room();
            let slot = self.slots.get_mut(self.used).unwrap_or_default();
            let room = slot.get_mut(HEADROOM..).unwrap_or_default();
            let Some(len) = segments.next_into(room)? else { return Ok(()) };
            if let Err(why) = self.seal_slot(tunnel, now, len) {
                tunnel.sealer.count_discard(why);
            }
        }
    }

    /// Makes slots free if none are.
    fn make_room(&mut self) {
        if self.used >= self.slots.count() {
            self.was_full = true;
            self.send();
        }
    }

    /// Seals the packet of `len` bytes in the first free slot, and lets it wait to be sent.
    fn seal_slot(
        &mut self,
        tunnel: &mut HeapTunnel,
        now: Instant,
        len: usize,
    ) -> Result<(), Discard> {
        let slot = self.slots.get_mut(self.used).unwrap_or_default();
        let mut packet = PacketBuf::new(slot, HEADROOM, len)?;
        match tunnel.sealer.seal(now, &mut packet) {
            Ok(Sealed::Transmit(_, transmit)) => {
                let start = packet.start();
                self.queue(&transmit, start);
            }
            Ok(Sealed::TooBig(mtu)) => {
                if self.icmp_limit.allow(now) && answer_too_big(&mut packet, mtu).is_ok() {
                    let answer = self.tun.write(&Offload::default(), packet.as_slice());
                    self.counters.tun_refused += u64::from(answer.is_err());
                }
            }
            Ok(Sealed::Fragment(mtu)) => {
                let len = packet.len();
                if let Some(whole) = self.whole.get_mut(..len) {
                    whole.copy_from_slice(packet.as_slice());
                }
                self.seal_fragments(tunnel, now, len, mtu)?;
            }
            Err(_) => {} // the sealer has counted it
        }
        Ok(())
    }

    /// Cuts the packet in `whole` into fragments of at most `mtu` bytes, and seals each.
    fn seal_fragments(
        &mut self,
        tunnel: &mut HeapTunnel,
        now: Instant,
        len: usize,
        mtu: usize,
    ) -> Result<(), Discard> {
        let whole = core::mem::take(&mut self.whole);
        let fragments = Fragments::new(whole.get(..len).unwrap_or_default(), mtu);
        let sealed = fragments.and_then(|mut fragments| {
            while self.seal_fragment(tunnel, now, &mut fragments)? {}
            Ok(())
        });
        self.whole = whole;
        sealed
    }

    /// Seals the next fragment into the next slot; `false` after the last.
    fn seal_fragment(
        &mut self,
        tunnel: &mut HeapTunnel,
        now: Instant,
        fragments: &mut Fragments<'_>,
    ) -> Result<bool, Discard> {
        self.make_room();
        let slot = self.slots.get_mut(self.used).unwrap_or_default();
        let room = slot.get_mut(HEADROOM..).unwrap_or_default();
        let Some(len) = fragments.next_into(room)? else { return Ok(false) };
        let mut packet = PacketBuf::new(slot, HEADROOM, len)?;
        // What the sealer drops it counts.
        if let Ok(Sealed::Transmit(_, transmit)) = tunnel.sealer.seal(now, &mut packet) {
            let start = packet.start();
            self.queue(&transmit, start);
        }
        Ok(true)
    }
}
