//! Batches of packets: [`Slots`] hold them, a [`ReceiveBatch`] fills slots with one `recvmmsg`.
//! Everything is allocated once, when it is made.

use core::net::{IpAddr, SocketAddr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use simplevpn_core::packet::{HEADROOM, PacketBuf, TAILROOM};

use crate::cmsg::{Control, Reception};
use crate::pages::Pages;
use crate::send_drops::is_remote;
use crate::sockaddr::SockAddr;

/// Largest IP packet, in bytes.
pub const MAX_PACKET: usize = 65_535;

/// A fixed number of equal buffers, each with [`HEADROOM`] and [`TAILROOM`] around its packet.
///
/// Memory that no packet has touched yet is only reserved, not used. Slots that are filled in order
/// may lie close together ([`Slots::pack`]), so that few pages are.
#[derive(Debug)]
pub struct Slots {
    bytes: Pages,
    /// Length of each.
    stride: usize,
    /// Where each begins.
    starts: Box<[usize]>,
}

impl Slots {
    /// `count` slots for packets of up to `capacity` bytes.
    #[must_use]
    pub fn new(count: usize, capacity: usize) -> Slots {
        let stride = (HEADROOM + capacity + TAILROOM).next_multiple_of(64);
        // Slots a multiple of a page apart would compete for the same few cache lines.
        let stride = if stride.is_multiple_of(4096) { stride + 64 } else { stride };
        let starts = (0..count).map(|slot| slot * stride).collect();
        Slots { bytes: Pages::new(stride * count), stride, starts }
    }

    /// How many slots there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.starts.len()
    }

    /// Lets the next slot begin behind the first `len` bytes of this one, which are all that is
    /// kept of it.
    pub fn pack(&mut self, slot: usize, len: usize) {
        let len = len.min(self.stride).next_multiple_of(64);
        if let Some([start, next]) = self.starts.get_mut(slot..).and_then(|s| s.first_chunk_mut()) {
            *next = *start + len;
        }
    }

    /// The bytes of a slot, headroom and tailroom included.
    #[must_use]
    pub fn get(&self, slot: usize) -> Option<&[u8]> {
        let start = *self.starts.get(slot)?;
        self.bytes.get(start..start.checked_add(self.stride)?)
    }

    /// The same, to be written.
    pub fn get_mut(&mut self, slot: usize) -> Option<&mut [u8]> {
        let start = *self.starts.get(slot)?;
        self.bytes.get_mut(start..start.checked_add(self.stride)?)
    }
}

pub(crate) const fn empty_iovec() -> libc::iovec {
    libc::iovec { iov_base: core::ptr::null_mut(), iov_len: 0 }
}

pub(crate) fn empty_header() -> libc::mmsghdr {
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

impl Datagram<'_> {
    /// The datagrams that the kernel has joined, each as it came.
    pub fn split(&mut self) -> impl Iterator<Item = Datagram<'_>> {
        let Datagram { from, local, traffic_class, segment, .. } = *self;
        let bytes = self.packet.as_mut_slice();
        let whole = bytes.len().max(1);
        let len = segment.filter(|len| *len > 0).unwrap_or(whole);
        bytes.chunks_mut(len).filter_map(move |bytes| {
            let len = bytes.len();
            let packet = PacketBuf::new(bytes, 0, len).ok()?;
            Some(Datagram { from, local, traffic_class, segment: None, packet })
        })
    }
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

    /// Receives what is there, at most `limit` datagrams, replacing the previous batch, and returns
    /// their number. What the kernel has joined counts as one.
    ///
    /// # Errors
    /// Those of `recvmmsg(2)`, except that nothing to read is a batch of none, and errors that
    /// ICMP left behind on the socket are skipped (the error queue tells them).
    pub fn receive(&mut self, socket: BorrowedFd<'_>, limit: usize) -> io::Result<usize> {
        self.received = 0;
        let count = self.headers.len().min(limit);
        // Each attempt takes one pending error off the socket.
        for _ in 0..4 {
            self.prepare(count);
            // SAFETY: `prepare` has pointed the first `count` headers at memory that `self` owns, that is as
            // long as it says and that nothing else uses during the call.
            let received = unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    self.headers.as_mut_ptr(),
                    count as _,
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

    fn prepare(&mut self, count: usize) {
        let parts = self.headers.iter_mut().take(count).zip(&mut self.iovecs);
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

    /// The bytes of a datagram as it came, for whoever looks ahead.
    #[must_use]
    pub fn peek(&self, index: usize) -> Option<&[u8]> {
        let len = usize::try_from(self.headers.get(..self.received)?.get(index)?.msg_len).ok()?;
        self.slots.get(index)?.get(HEADROOM..)?.get(..len)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    fn pair() -> (UdpSocket, UdpSocket) {
        (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap())
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
    fn packed_slots_lie_close_together_and_keep_their_packets() {
        let mut slots = Slots::new(4, 4096);
        let len = slots.get(0).unwrap().len();
        for (slot, used) in [100, len, 0].into_iter().enumerate() {
            slots.get_mut(slot).unwrap()[..used].fill(slot as u8 + 1);
            slots.pack(slot, used);
        }
        slots.pack(3, 100);
        slots.pack(9, 100);
        slots.get_mut(3).unwrap().fill(9);
        let start = |slot: usize| slots.get(slot).unwrap().as_ptr() as usize;
        assert_eq!([start(1) - start(0), start(2) - start(1)], [128, len]);
        assert_eq!(start(3), start(2), "nothing of it is kept");
        assert!(slots.get(0).unwrap()[..100].iter().all(|&byte| byte == 1));
        assert!(slots.get(1).unwrap().iter().all(|&byte| byte == 2));
        assert!((0..4).all(|slot| slots.get(slot).unwrap().len() == len));
    }

    #[test]
    fn a_datagram_longer_than_its_slot_is_not_taken_for_a_whole_one() {
        let (a, b) = pair();
        let mut batch = ReceiveBatch::new(2, 40);
        a.send_to(&[1; 4000], b.local_addr().unwrap()).unwrap();
        a.send_to(&[2; 40], b.local_addr().unwrap()).unwrap();
        assert_eq!(batch.receive(b.as_fd(), 2).unwrap(), 2);
        assert!(batch.get(0).is_none());
        assert_eq!(batch.get(1).unwrap().packet.as_slice(), [2; 40]);
    }

    #[test]
    fn joined_datagrams_are_told_apart() {
        let split = |len: usize, segment: Option<usize>| {
            let mut bytes: Vec<u8> = (0..len).map(|byte| byte as u8).collect();
            let packet = PacketBuf::new(&mut bytes, 0, len).unwrap();
            let from = "192.0.2.1:4500".parse().unwrap();
            let mut datagram = Datagram { from, local: None, traffic_class: 3, segment, packet };
            let parts = datagram.split().map(|part| {
                assert_eq!((part.from, part.traffic_class, part.segment), (from, 3, None));
                part.packet.as_slice().to_vec()
            });
            parts.collect::<Vec<_>>()
        };
        assert_eq!(split(5, None), [[0, 1, 2, 3, 4]]);
        assert_eq!(split(5, Some(2)), [&[0, 1][..], &[2, 3], &[4]]);
        assert_eq!(split(4, Some(2)), [[0, 1], [2, 3]]);
        assert_eq!(split(4, Some(9)), [[0, 1, 2, 3]]);
        assert_eq!(split(4, Some(0)), [[0, 1, 2, 3]]);
        assert!(split(0, None).is_empty() && split(0, Some(3)).is_empty());
    }
}
