//! Batches of packets: [`Slots`] hold them, a [`ReceiveBatch`] fills slots with one `recvmmsg`, a
//! [`SendQueue`] empties them with `sendmmsg`. Everything is allocated once, when it is made.
//!
//! Sending never gives up on the socket: an error that ICMP left behind is swallowed, a full
//! socket buffer makes the queue wait, and a packet that cannot leave is counted ([`SendDrops`]).

use core::net::{IpAddr, SocketAddr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use simplevpn_core::Transmit;
use simplevpn_core::packet::{HEADROOM, PacketBuf, TAILROOM};

use crate::cmsg::{Control, Reception};
use crate::pages::Pages;
use crate::send_drops::{SendDrop, SendDrops, is_remote};
use crate::sockaddr::SockAddr;
use crate::socket_option;

/// Largest IP packet, in bytes.
pub const MAX_PACKET: usize = 65_535;

/// A fixed number of equal buffers, each with [`HEADROOM`] and [`TAILROOM`] around its packet.
///
/// Memory that no packet has touched yet is only reserved, not used.
#[derive(Debug)]
pub struct Slots {
    bytes: Pages,
    stride: usize,
}

impl Slots {
    /// `count` slots for packets of up to `capacity` bytes.
    #[must_use]
    pub fn new(count: usize, capacity: usize) -> Slots {
        let stride = (HEADROOM + capacity + TAILROOM).next_multiple_of(64);
        // Slots a multiple of a page apart would compete for the same few cache lines.
        let stride = if stride.is_multiple_of(4096) { stride + 64 } else { stride };
        Slots { bytes: Pages::new(stride * count), stride }
    }

    /// How many slots there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.bytes.len() / self.stride
    }

    /// The bytes of a slot, headroom and tailroom included.
    #[must_use]
    pub fn get(&self, slot: usize) -> Option<&[u8]> {
        let start = slot.checked_mul(self.stride)?;
        self.bytes.get(start..start.checked_add(self.stride)?)
    }

    /// The same, to be written.
    pub fn get_mut(&mut self, slot: usize) -> Option<&mut [u8]> {
        let start = slot.checked_mul(self.stride)?;
        self.bytes.get_mut(start..start.checked_add(self.stride)?)
    }
}

const fn empty_iovec() -> libc::iovec {
    libc::iovec { iov_base: core::ptr::null_mut(), iov_len: 0 }
}

fn empty_header() -> libc::mmsghdr {
    // SAFETY: a C struct of numbers and pointers, for which zeros are valid.
    unsafe { core::mem::zeroed() }
}

/// A datagram that was received.
#[derive(Debug)]
pub struct Datagram<'a> {
    /// Its sender; the port is 0 on a raw socket.
    pub from: SocketAddr,
    /// Our address that it was sent to; `None` if the kernel did not tell.
    pub local: Option<IpAddr>,
    /// DSCP and ECN of the outer header.
    pub traffic_class: u8,
    /// Length of each datagram but the last, if the kernel has joined several (`UDP_GRO`).
    pub segment: Option<usize>,
    /// What it carries; on a raw IPv4 socket the outer header comes first.
    pub packet: PacketBuf<'a>,
}

/// Receives up to one batch of datagrams with one system call.
pub struct ReceiveBatch {
    slots: Slots,
    headers: Box<[libc::mmsghdr]>,
    iovecs: Box<[libc::iovec]>,
    names: Box<[SockAddr]>,
    controls: Box<[Control<128>]>,
    received: usize,
}

impl ReceiveBatch {
    /// A batch of up to `count` datagrams of up to `capacity` bytes.
    #[must_use]
    pub fn new(count: usize, capacity: usize) -> ReceiveBatch {
        ReceiveBatch {
            slots: Slots::new(count, capacity),
            headers: (0..count).map(|_| empty_header()).collect(),
            iovecs: vec![empty_iovec(); count].into_boxed_slice(),
            names: vec![SockAddr::new(); count].into_boxed_slice(),
            controls: vec![Control::new(); count].into_boxed_slice(),
            received: 0,
        }
    }

    /// How many datagrams it has room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.headers.len()
    }

    /// Receives what is there, replacing the previous batch, and returns the number of datagrams.
    ///
    /// # Errors
    /// Those of `recvmmsg(2)`, except that nothing to read is a batch of none, and errors that
    /// ICMP left behind on the socket are skipped (the error queue tells them).
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.received = 0;
        // Each attempt takes one pending error off the socket.
        for _ in 0..4 {
            self.prepare();
            // SAFETY: `prepare` has pointed every header at memory that `self` owns, that is as
            // long as it says and that nothing else uses during the call.
            let received = unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    self.headers.as_mut_ptr(),
                    self.headers.len() as _,
                    libc::MSG_DONTWAIT as _,
                    core::ptr::null_mut(),
                )
            };
            if let Ok(received) = usize::try_from(received) {
                self.received = received;
                return Ok(received);
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EAGAIN) => return Ok(0),
                Some(libc::EINTR) => {}
                Some(code) if is_remote(code) => {}
                _ => return Err(error),
            }
        }
        Ok(0)
    }

    fn prepare(&mut self) {
        let parts = self.headers.iter_mut().zip(&mut self.iovecs);
        let parts = parts.zip(self.names.iter_mut().zip(&mut self.controls));
        for (slot, ((header, iovec), (name, control))) in parts.enumerate() {
            let room = self.slots.get_mut(slot).unwrap_or_default();
            let room = room.get_mut(HEADROOM..).unwrap_or_default();
            *iovec = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
            header.msg_hdr.msg_name = name.as_mut_ptr().cast();
            header.msg_hdr.msg_namelen = SockAddr::ROOM;
            header.msg_hdr.msg_iov = iovec;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = size_of::<[u8; 128]>() as _;
            header.msg_hdr.msg_flags = 0;
            header.msg_len = 0;
        }
    }

    /// One datagram of the batch; `None` if it came without a sender or was longer than a slot.
    pub fn get(&mut self, index: usize) -> Option<Datagram<'_>> {
        let header = self.headers.get(..self.received)?.get(index)?;
        if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            return None;
        }
        let from = self.names.get(index)?.get(header.msg_hdr.msg_namelen)?;
        let control = self.controls.get(index)?.filled(&header.msg_hdr);
        let reception = Reception::parse(control);
        let len = usize::try_from(header.msg_len).ok()?;
        let packet = PacketBuf::new(self.slots.get_mut(index)?, HEADROOM, len).ok()?;
        Some(Datagram {
            from,
            local: reception.local,
            traffic_class: reception.traffic_class,
            segment: reception.segment,
            packet,
        })
    }
}

/// A packet in a slot, and how it is to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing {
    /// Destination; the port is 0 on a raw socket.
    pub to: SocketAddr,
    /// Source address; `None` leaves it to the routing.
    pub from: Option<IpAddr>,
    /// DSCP and ECN of the outer header.
    pub traffic_class: u8,
    /// Whether it exceeds the path's MTU and has to go all the same, in outer fragments.
    pub oversize: bool,
    /// Where the packet lies.
    pub slot: usize,
    /// Where in the slot it begins, in bytes.
    pub start: usize,
    /// Its length in bytes.
    pub len: usize,
}

impl Outgoing {
    /// A sealed packet that begins at byte `start` of `slot`.
    #[must_use]
    pub fn new(transmit: &Transmit, slot: usize, start: usize) -> Outgoing {
        use simplevpn_core::Path;
        let (local, to) = match transmit.path {
            Path::Esp { local, remote } => (local, SocketAddr::new(remote, 0)),
            Path::Udp { local, remote } => (local.ip(), remote),
        };
        Outgoing {
            to,
            from: (!local.is_unspecified()).then_some(local),
            traffic_class: transmit.traffic_class,
            oversize: transmit.oversize,
            slot,
            start,
            len: transmit.len,
        }
    }
}

/// Whether a queue is empty after [`SendQueue::flush`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "packets of a blocked queue still lie in their slots"]
pub enum Flush {
    /// Everything is sent (or counted as dropped): the slots are free.
    Done,
    /// The socket's buffer is full: wait until it is writable and flush again.
    Blocked,
}

struct Message {
    outgoing: Outgoing,
    name: SockAddr,
    name_len: u32,
    control: Control<64>,
}

impl Message {
    /// Writes the control messages; called again when the source address has gone away.
    fn write_control(&mut self) {
        self.control.clear();
        if let Some(from) = self.outgoing.from {
            self.control.push_source(from);
        }
        if self.outgoing.traffic_class != 0 {
            self.control
                .push_traffic_class(self.outgoing.to.is_ipv4(), self.outgoing.traffic_class);
        }
    }
}

/// Packets in slots that wait to be sent through one socket, in order.
pub struct SendQueue {
    messages: Vec<Message>,
    sent: usize,
    headers: Box<[libc::mmsghdr]>,
    iovecs: Box<[libc::iovec]>,
}

impl SendQueue {
    /// A queue of up to `capacity` packets.
    #[must_use]
    pub fn new(capacity: usize) -> SendQueue {
        SendQueue {
            messages: Vec::with_capacity(capacity),
            sent: 0,
            headers: (0..capacity).map(|_| empty_header()).collect(),
            iovecs: vec![empty_iovec(); capacity].into_boxed_slice(),
        }
    }

    /// How many packets it has room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.headers.len()
    }

    /// Whether no packet waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Appends a packet; `false` if the queue is full.
    #[must_use]
    pub fn push(&mut self, outgoing: Outgoing) -> bool {
        if self.messages.len() >= self.headers.len() {
            return false;
        }
        let mut name = SockAddr::new();
        let name_len = name.set(outgoing.to);
        let mut message = Message { outgoing, name, name_len, control: Control::new() };
        message.write_control();
        self.messages.push(message);
        true
    }

    /// Drops what waits and counts it.
    pub fn abandon(&mut self, why: SendDrop, drops: &mut SendDrops) {
        drops.count(why, (self.messages.len() - self.sent) as u64);
        self.clear();
    }

    fn clear(&mut self) {
        self.messages.clear();
        self.sent = 0;
    }

    /// Sends what waits, as far as the socket takes it.
    pub fn flush(&mut self, socket: BorrowedFd<'_>, slots: &Slots, drops: &mut SendDrops) -> Flush {
        let mut retried = false;
        while self.sent < self.messages.len() {
            let Err(error) = self.send_some(socket, slots) else {
                retried = false;
                continue;
            };
            let Some(message) = self.messages.get_mut(self.sent) else { break };
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN) => return Flush::Blocked,
                // The error may be an older packet's, told by ICMP: only a second refusal is this
                // packet's own.
                Some(code) if !retried && is_remote(code) => retried = true,
                // Kernels before 3.13 do not know the traffic class of a single packet, and some
                // emulators garble it: better none than no packet.
                Some(libc::EINVAL) if message.outgoing.traffic_class != 0 => {
                    message.outgoing.traffic_class = 0;
                    message.write_control();
                }
                // The wanted source may have gone away: better any other than none.
                Some(libc::EINVAL | libc::EADDRNOTAVAIL | libc::ENETUNREACH)
                    if message.outgoing.from.is_some() =>
                {
                    message.outgoing.from = None;
                    message.write_control();
                }
                _ => {
                    drops.refused(&error, message.outgoing.to);
                    self.sent += 1;
                    retried = false;
                }
            }
        }
        self.clear();
        Flush::Done
    }

    /// One `sendmmsg` of what waits, up to where [`Outgoing::oversize`] changes.
    fn send_some(&mut self, socket: BorrowedFd<'_>, slots: &Slots) -> io::Result<()> {
        let waiting = self.messages.get(self.sent..).unwrap_or_default();
        let Some(first) = waiting.first().map(|message| message.outgoing) else { return Ok(()) };
        let alike = |message: &&Message| message.outgoing.oversize == first.oversize;
        let count = waiting.iter().take_while(alike).count();
        if !first.oversize {
            return self.send_run(socket, slots, count);
        }
        socket_option::fragment(socket, first.to.is_ipv4(), true)?;
        let result = self.send_run(socket, slots, count);
        socket_option::fragment(socket, first.to.is_ipv4(), false)?;
        result
    }

    /// One `sendmmsg` of the next `count` packets.
    fn send_run(&mut self, socket: BorrowedFd<'_>, slots: &Slots, count: usize) -> io::Result<()> {
        self.prepare(slots);
        // SAFETY: the first `count` headers were just pointed by `prepare` at names, controls and iovecs
        // that `self` owns and at packets that `slots` lends; the kernel only reads them. The system
        // call itself, because musl's function sends the packets one by one.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_sendmmsg,
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        match usize::try_from(sent) {
            Ok(sent) => {
                self.sent += sent;
                Ok(())
            }
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    /// Points the headers at the packets that wait, the next one first.
    fn prepare(&mut self, slots: &Slots) {
        let waiting = self.messages.get_mut(self.sent..).unwrap_or_default();
        let parts = waiting.iter_mut().zip(self.headers.iter_mut().zip(&mut self.iovecs));
        for (message, (header, iovec)) in parts {
            let Outgoing { slot, start, len, .. } = message.outgoing;
            let bytes = slots.get(slot).and_then(|bytes| bytes.get(start..)?.get(..len));
            debug_assert!(bytes.is_some(), "a packet lies inside its slot");
            let bytes = bytes.unwrap_or_default();
            *iovec =
                libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            let control = message.control.as_slice().len();
            header.msg_hdr.msg_name = message.name.as_mut_ptr().cast();
            header.msg_hdr.msg_namelen = message.name_len;
            header.msg_hdr.msg_iov = iovec;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = if control == 0 {
                core::ptr::null_mut()
            } else {
                message.control.as_mut_ptr().cast()
            };
            header.msg_hdr.msg_controllen = control as _;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    fn pair() -> (UdpSocket, UdpSocket) {
        (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap())
    }

    fn outgoing(to: SocketAddr, slot: usize, len: usize) -> Outgoing {
        Outgoing { to, from: None, traffic_class: 0, oversize: false, slot, start: HEADROOM, len }
    }

    fn fill(slots: &mut Slots, slot: usize, text: &[u8]) {
        slots.get_mut(slot).unwrap()[HEADROOM..HEADROOM + text.len()].copy_from_slice(text);
    }

    #[test]
    fn slots_are_apart_and_their_number_is_bounded() {
        let mut slots = Slots::new(3, 4096 - HEADROOM - TAILROOM);
        assert_eq!(slots.count(), 3);
        assert!(!slots.stride.is_multiple_of(4096));
        slots.get_mut(1).unwrap().fill(7);
        assert!(slots.get(0).unwrap().iter().chain(slots.get(2).unwrap()).all(|&byte| byte == 0));
        assert!(slots.get(3).is_none() && slots.get(usize::MAX).is_none());
    }

    #[test]
    fn a_batch_arrives_in_order() {
        let (a, b) = pair();
        let mut slots = Slots::new(4, 100);
        let mut queue = SendQueue::new(4);
        for slot in 0..4 {
            fill(&mut slots, slot, &[slot as u8; 50]);
            assert!(queue.push(outgoing(b.local_addr().unwrap(), slot, 10 + slot)));
        }
        assert!(!queue.push(outgoing(b.local_addr().unwrap(), 0, 1)), "the queue is full");
        let mut drops = SendDrops::default();
        assert_eq!(queue.flush(a.as_fd(), &slots, &mut drops), Flush::Done);
        assert!(queue.is_empty());

        let mut batch = ReceiveBatch::new(3, 100);
        assert_eq!(batch.receive(b.as_fd()).unwrap(), 3);
        for index in 0..3 {
            let datagram = batch.get(index).unwrap();
            assert_eq!(datagram.from, a.local_addr().unwrap());
            assert_eq!(datagram.packet.as_slice(), vec![index as u8; 10 + index]);
            assert_eq!(datagram.packet.headroom(), HEADROOM);
        }
        assert!(batch.get(3).is_none());
        assert_eq!(batch.receive(b.as_fd()).unwrap(), 1);
        assert_eq!(batch.receive(b.as_fd()).unwrap(), 0);
        assert!(batch.get(0).is_none(), "an older batch is gone");
    }

    #[test]
    fn a_datagram_longer_than_its_slot_is_not_taken_for_a_whole_one() {
        let (a, b) = pair();
        let mut batch = ReceiveBatch::new(2, 40);
        a.send_to(&[1; 4000], b.local_addr().unwrap()).unwrap();
        a.send_to(&[2; 40], b.local_addr().unwrap()).unwrap();
        assert_eq!(batch.receive(b.as_fd()).unwrap(), 2);
        assert!(batch.get(0).is_none());
        assert_eq!(batch.get(1).unwrap().packet.as_slice(), [2; 40]);
    }

    #[test]
    fn a_source_address_that_went_away_does_not_stop_sending() {
        let (a, b) = pair();
        let mut slots = Slots::new(1, 100);
        fill(&mut slots, 0, b"hello");
        let mut queue = SendQueue::new(1);
        let from = Some("192.0.2.77".parse().unwrap());
        assert!(queue.push(Outgoing { from, ..outgoing(b.local_addr().unwrap(), 0, 5) }));
        let mut drops = SendDrops::default();
        assert_eq!(queue.flush(a.as_fd(), &slots, &mut drops), Flush::Done);
        let mut batch = ReceiveBatch::new(1, 100);
        assert_eq!(batch.receive(b.as_fd()).unwrap(), 1);
        assert_eq!(batch.get(0).unwrap().packet.as_slice(), b"hello");
    }

    #[test]
    fn a_packet_that_cannot_leave_is_counted_and_the_next_one_leaves() {
        let (a, b) = pair();
        let mut slots = Slots::new(2, MAX_PACKET);
        fill(&mut slots, 1, b"hello");
        let mut queue = SendQueue::new(2);
        assert!(queue.push(outgoing(b.local_addr().unwrap(), 0, MAX_PACKET)));
        assert!(queue.push(outgoing(b.local_addr().unwrap(), 1, 5)));
        let mut drops = SendDrops::default();
        assert_eq!(queue.flush(a.as_fd(), &slots, &mut drops), Flush::Done);
        let counted: Vec<_> = drops.iter().filter(|&(_, count)| count > 0).collect();
        assert_eq!(counted, [(SendDrop::TooBig, 1)]);
        let mut batch = ReceiveBatch::new(2, 100);
        assert_eq!(batch.receive(b.as_fd()).unwrap(), 1);
        assert_eq!(batch.get(0).unwrap().packet.as_slice(), b"hello");
    }

    #[test]
    fn a_full_socket_makes_the_queue_wait_and_loses_nothing() {
        use std::os::unix::net::UnixDatagram;
        // A Unix socket is full when its reader is slow, which loopback UDP never is.
        let (a, b) = UnixDatagram::pair().unwrap();
        let mut filled = 0;
        a.set_nonblocking(true).unwrap();
        while a.send(&[0; 100]).is_ok() {
            filled += 1;
        }
        let mut slots = Slots::new(1, 100);
        fill(&mut slots, 0, b"hello");
        let mut queue = SendQueue::new(1);
        assert!(queue.push(outgoing("127.0.0.1:9".parse().unwrap(), 0, 5)));
        // A connected Unix socket wants no address.
        queue.messages[0].name_len = 0;
        let mut drops = SendDrops::default();
        assert_eq!(queue.flush(a.as_fd(), &slots, &mut drops), Flush::Blocked);
        assert!(!queue.is_empty());
        let mut buffer = [0; 100];
        for _ in 0..filled {
            b.recv(&mut buffer).unwrap();
        }
        assert_eq!(queue.flush(a.as_fd(), &slots, &mut drops), Flush::Done);
        assert_eq!(b.recv(&mut buffer).unwrap(), 5);
        assert!(drops.iter().all(|(_, count)| count == 0));
    }

    #[test]
    fn what_waited_too_long_is_dropped_by_name() {
        let mut queue = SendQueue::new(2);
        for slot in 0..2 {
            assert!(queue.push(outgoing("127.0.0.1:9".parse().unwrap(), slot, 5)));
        }
        let mut drops = SendDrops::default();
        queue.abandon(SendDrop::Timeout, &mut drops);
        assert!(queue.is_empty());
        assert!(drops.iter().any(|dropped| dropped == (SendDrop::Timeout, 2)));
    }
}
