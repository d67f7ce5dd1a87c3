//! Packets in slots on their way through one socket, in order: many with one `sendmmsg`, and runs
//! of equal datagrams as one message that the kernel cuts (`UDP_SEGMENT`), or the network adapter.
//!
//! Sending never waits and never gives up on the socket: an error that ICMP left behind is
//! swallowed, a run that cannot be cut goes packet by packet, and a packet that cannot leave is
//! counted ([`SendDrops`]) and costs no other.

use core::net::{IpAddr, SocketAddr};
use core::ops::Range;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use simplevpn_core::{Path, Transmit};

use crate::batch::{Slots, empty_header, empty_iovec};
use crate::cmsg::Control;
use crate::send_drops::{SendDrops, is_remote};
use crate::sockaddr::SockAddr;
use crate::socket_option;

/// Most datagrams of a run (`UDP_MAX_SEGMENTS` of kernels before 6.9).
const RUN_PACKETS: usize = 64;
/// Most bytes of a run: the payload of the longest UDP datagram over IPv4.
const RUN_BYTES: usize = 65_507;
/// How many runs go packet by packet after the kernel refused one: the route may lead through
/// another device by then.
const RUNS_UNTIL_NEXT_ATTEMPT: u32 = 1000;

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

    /// Whether one header would do for both, but for its length.
    fn is_like(&self, other: &Outgoing) -> bool {
        self.to == other.to
            && self.from == other.from
            && self.traffic_class == other.traffic_class
            && self.oversize == other.oversize
    }
}

/// What the kernel reads beside the packets of one message.
#[derive(Clone)]
struct Message {
    name: SockAddr,
    control: Control<96>,
    /// How many packets it carries.
    packets: usize,
}

/// Whether runs are sent as one message.
#[derive(Debug, Clone, Copy)]
struct Segmentation {
    possible: bool,
    /// Runs that still go packet by packet.
    pause: u32,
}

/// Packets in slots that wait to be sent through one socket, in order.
pub struct SendQueue {
    packets: Vec<Outgoing>,
    /// The packets before this one are sent.
    sent: usize,
    /// The packets before this one go alone.
    alone: usize,
    segmentation: Segmentation,
    messages: Box<[Message]>,
    headers: Box<[libc::mmsghdr]>,
    iovecs: Box<[libc::iovec]>,
}

impl SendQueue {
    /// A queue of up to `capacity` packets, each a message of its own.
    #[must_use]
    pub fn new(capacity: usize) -> SendQueue {
        let message = Message { name: SockAddr::new(), control: Control::new(), packets: 0 };
        SendQueue {
            packets: Vec::with_capacity(capacity),
            sent: 0,
            alone: 0,
            segmentation: Segmentation { possible: false, pause: 0 },
            messages: vec![message; capacity].into_boxed_slice(),
            headers: (0..capacity).map(|_| empty_header()).collect(),
            iovecs: vec![empty_iovec(); capacity].into_boxed_slice(),
        }
    }

    /// From now on the kernel is asked to cut runs of datagrams.
    pub fn allow_runs(&mut self) {
        self.segmentation.possible = true;
    }

    /// How many packets it has room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.headers.len()
    }

    /// Appends a packet; `false` if the queue is full.
    #[must_use]
    pub fn push(&mut self, outgoing: Outgoing) -> bool {
        if self.packets.len() >= self.headers.len() {
            return false;
        }
        self.packets.push(outgoing);
        true
    }

    fn clear(&mut self) {
        self.packets.clear();
        (self.sent, self.alone) = (0, 0);
    }

    /// Sends what waits, each packet now or never: the slots are free afterwards.
    ///
    /// A full queue costs the packets that meet it, which are counted. Waiting for room would keep
    /// up the packets behind them, which may be for other peers and other devices.
    pub fn flush(&mut self, socket: BorrowedFd<'_>, slots: &Slots, drops: &mut SendDrops) {
        while let Some(first) = self.packets.get(self.sent).copied() {
            let count = self.prepare(slots, first.oversize);
            if !first.oversize {
                self.send_messages(socket, count, drops);
                continue;
            }
            // Where the kernel refuses either, packets are refused or fragmented, not lost unseen.
            let _ = socket_option::fragment(socket, first.to.is_ipv4(), true);
            self.send_messages(socket, count, drops);
            let _ = socket_option::fragment(socket, first.to.is_ipv4(), false);
        }
        self.clear();
    }

    /// Sends the first `count` messages, up to one that has to be prepared anew.
    fn send_messages(&mut self, socket: BorrowedFd<'_>, count: usize, drops: &mut SendDrops) {
        let (mut at, mut retried) = (0, false);
        while at < count {
            let error = match self.send_some(socket, at..count) {
                Ok(sent) => {
                    at += sent;
                    retried = false;
                    continue;
                }
                Err(error) => error,
            };
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                // The error may be an older packet's, told by ICMP: only a second refusal is this
                // packet's own.
                Some(code) if !retried && is_remote(code) => retried = true,
                code => {
                    if !self.refused(at, code, &error, drops) {
                        return;
                    }
                    at += 1;
                    retried = false;
                }
            }
        }
    }

    /// Makes the best of message `at`, which the kernel refused with `error`. `true`: its packets
    /// are dropped; `false`: they are to be prepared anew.
    fn refused(
        &mut self,
        at: usize,
        code: Option<i32>,
        error: &io::Error,
        drops: &mut SendDrops,
    ) -> bool {
        let packets = self.messages.get(at).map_or(1, |message| message.packets);
        let Some(packet) = self.packets.get_mut(self.sent) else { return false };
        match code {
            // A queue is full, or memory is short: as many small packets would not fare better.
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => {}
            // Each packet of a run finds out for itself.
            code if packets > 1 => {
                self.alone = self.sent + packets;
                // The device computes no checksums (EIO), or something cannot cut. All else is
                // about these packets and their path.
                if matches!(code, Some(libc::EIO | libc::EINVAL | libc::EOPNOTSUPP)) {
                    self.segmentation.pause = RUNS_UNTIL_NEXT_ATTEMPT;
                }
                return false;
            }
            // Kernels before 3.13 do not know the traffic class of a single packet, and some
            // emulators garble it: better none than no packet.
            Some(libc::EINVAL) if packet.traffic_class != 0 => {
                packet.traffic_class = 0;
                return false;
            }
            // The wanted source may have gone away: better any other than none.
            Some(libc::EINVAL | libc::EADDRNOTAVAIL | libc::ENETUNREACH)
                if packet.from.is_some() =>
            {
                packet.from = None;
                return false;
            }
            _ => {}
        }
        drops.refused(error, packet.to, packets);
        self.sent += packets;
        true
    }

    /// One `sendmmsg` of these messages; returns how many were sent.
    fn send_some(&mut self, socket: BorrowedFd<'_>, which: Range<usize>) -> io::Result<usize> {
        let Some(headers) = self.headers.get_mut(which.clone()) else { return Ok(which.len()) };
        // SAFETY: the headers were pointed by `prepare` at names, controls and iovecs that `self`
        // owns and at packets that `slots` lent; the kernel only reads them. The system call
        // itself, because musl's function sends the packets one by one.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_sendmmsg,
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        let sent = usize::try_from(sent).map_err(|_| io::Error::last_os_error())?;
        let messages = self.messages.get(which).and_then(|messages| messages.get(..sent));
        let packets = messages.unwrap_or_default().iter().map(|message| message.packets);
        self.sent += packets.sum::<usize>();
        Ok(sent)
    }

    /// Turns the packets that wait, up to where [`Outgoing::oversize`] changes, into messages, and
    /// returns their number.
    fn prepare(&mut self, slots: &Slots, oversize: bool) -> usize {
        let mut next = self.sent;
        let mut count = 0;
        while self.packets.get(next).is_some_and(|packet| packet.oversize == oversize) {
            let waiting = self.packets.get(next..).unwrap_or_default();
            let mut packets = 1;
            if self.segmentation.possible && next >= self.alone {
                packets = run(waiting);
                if packets > 1 && self.segmentation.pause > 0 {
                    self.segmentation.pause -= 1;
                    self.alone = next + packets;
                    packets = 1;
                }
            }
            self.prepare_message(slots, count, next, packets);
            next += packets;
            count += 1;
        }
        count
    }

    /// Makes message `at` of `packets` packets from `first` on.
    fn prepare_message(&mut self, slots: &Slots, at: usize, first: usize, packets: usize) {
        let Some(outgoing) = self.packets.get(first..first + packets) else { return };
        let (Some(message), Some(header)) = (self.messages.get_mut(at), self.headers.get_mut(at))
        else {
            return;
        };
        let Some(iovecs) = self.iovecs.get_mut(first..first + packets) else { return };
        for (iovec, Outgoing { slot, start, len, .. }) in iovecs.iter_mut().zip(outgoing) {
            let bytes = slots.get(*slot).and_then(|bytes| bytes.get(*start..)?.get(..*len));
            debug_assert!(bytes.is_some(), "a packet lies inside its slot");
            let bytes = bytes.unwrap_or_default();
            *iovec =
                libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        }
        let Some(like) = outgoing.first() else { return };
        message.packets = packets;
        message.write_control(like);
        header.msg_hdr.msg_name = message.name.as_mut_ptr().cast();
        header.msg_hdr.msg_namelen = message.name.set(like.to);
        header.msg_hdr.msg_iov = iovecs.as_mut_ptr();
        header.msg_hdr.msg_iovlen = packets as _;
        let control = message.control.as_slice().len();
        header.msg_hdr.msg_control =
            if control == 0 { core::ptr::null_mut() } else { message.control.as_mut_ptr().cast() };
        header.msg_hdr.msg_controllen = control as _;
    }
}

impl Message {
    fn write_control(&mut self, like: &Outgoing) {
        self.control.clear();
        if let Some(from) = like.from {
            self.control.push_source(from);
        }
        if like.traffic_class != 0 {
            self.control.push_traffic_class(like.to.is_ipv4(), like.traffic_class);
        }
        if self.packets > 1 {
            self.control.push_segment(like.len);
        }
    }
}

/// How many of the first packets can go as one message that is cut: all alike and of equal length,
/// but for the last, which may be shorter.
fn run(waiting: &[Outgoing]) -> usize {
    let Some(first) = waiting.first().filter(|first| !first.oversize && first.len > 0) else {
        return 1;
    };
    let most = RUN_PACKETS.min(RUN_BYTES / first.len).max(1);
    let rest = waiting.get(1..).unwrap_or_default().iter().take(most - 1);
    let equal = rest.take_while(|packet| packet.is_like(first) && packet.len == first.len).count();
    let shorter = waiting.get(1 + equal).filter(|_| 1 + equal < most);
    let shorter = shorter
        .is_some_and(|packet| packet.is_like(first) && packet.len > 0 && packet.len < first.len);
    1 + equal + usize::from(shorter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{MAX_PACKET, ReceiveBatch};
    use crate::send_drops::SendDrop;
    use crate::testing::in_namespace;
    use simplevpn_core::packet::HEADROOM;
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
        queue.flush(a.as_fd(), &slots, &mut drops);
        assert!(queue.packets.is_empty());

        let mut batch = ReceiveBatch::new(3, 100);
        assert_eq!(batch.receive(b.as_fd(), 9).unwrap(), 3);
        for index in 0..3 {
            let datagram = batch.get(index).unwrap();
            assert_eq!(datagram.from, a.local_addr().unwrap());
            assert_eq!(datagram.packet.as_slice(), vec![index as u8; 10 + index]);
            assert_eq!(datagram.packet.headroom(), HEADROOM);
        }
        assert!(batch.get(3).is_none());
        assert_eq!(batch.receive(b.as_fd(), 9).unwrap(), 1);
        assert_eq!(batch.receive(b.as_fd(), 9).unwrap(), 0);
        assert!(batch.get(0).is_none(), "an older batch is gone");
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
        queue.flush(a.as_fd(), &slots, &mut drops);
        let mut batch = ReceiveBatch::new(1, 100);
        assert_eq!(batch.receive(b.as_fd(), 9).unwrap(), 1);
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
        queue.flush(a.as_fd(), &slots, &mut drops);
        let counted: Vec<_> = drops.iter().filter(|&(_, count)| count > 0).collect();
        assert_eq!(counted, [(SendDrop::TooBig, 1)]);
        let mut batch = ReceiveBatch::new(2, 100);
        assert_eq!(batch.receive(b.as_fd(), 9).unwrap(), 1);
        assert_eq!(batch.get(0).unwrap().packet.as_slice(), b"hello");
    }

    #[test]
    fn a_full_buffer_costs_the_packets_that_meet_it_and_no_later_one() {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
        use std::os::unix::net::UnixDatagram;
        // A Unix socket is full when its reader is slow, which loopback UDP never is; one of this
        // type does not mind the address.
        let (kind, flags) = (SockType::SeqPacket, SockFlag::empty());
        let (a, b) = socketpair(AddressFamily::Unix, kind, None, flags).unwrap();
        let (a, b) = (UnixDatagram::from(a), UnixDatagram::from(b));
        let mut filled = 0;
        a.set_nonblocking(true).unwrap();
        while a.send(&[0; 100]).is_ok() {
            filled += 1;
        }
        let to = "127.0.0.1:9".parse().unwrap();
        let mut slots = Slots::new(2, 100);
        fill(&mut slots, 0, b"hello");
        let mut queue = SendQueue::new(2);
        assert!(queue.push(outgoing(to, 0, 5)) && queue.push(outgoing(to, 0, 5)));
        let mut drops = SendDrops::default();
        queue.flush(a.as_fd(), &slots, &mut drops);
        assert!(queue.packets.is_empty());
        let mut buffer = [0; 100];
        for _ in 0..filled {
            b.recv(&mut buffer).unwrap();
        }
        assert!(queue.push(outgoing(to, 0, 5)));
        queue.flush(a.as_fd(), &slots, &mut drops);
        assert_eq!(b.recv(&mut buffer).unwrap(), 5);
        let counted: Vec<_> = drops.iter().filter(|&(_, count)| count > 0).collect();
        assert_eq!(counted, [(SendDrop::BufferFull, 2)]);
    }

    /// Packets of these lengths in slots of their own, to one receiver; the first byte of each is
    /// its number.
    fn packets(to: SocketAddr, lens: &[usize]) -> (Slots, SendQueue) {
        let mut slots = Slots::new(lens.len(), MAX_PACKET);
        let mut queue = SendQueue::new(lens.len());
        queue.allow_runs();
        for (slot, len) in lens.iter().enumerate() {
            fill(&mut slots, slot, &vec![slot as u8; *len]);
            assert!(queue.push(outgoing(to, slot, *len)));
        }
        (slots, queue)
    }

    /// What arrives, datagram by datagram.
    fn arrivals(socket: &UdpSocket) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; MAX_PACKET];
        socket.set_nonblocking(true).unwrap();
        let mut arrived = Vec::new();
        while let Ok(len) = socket.recv(&mut buffer) {
            arrived.push(buffer[..len].to_vec());
        }
        arrived
    }

    fn sent(lens: &[usize]) -> Vec<Vec<u8>> {
        lens.iter().enumerate().map(|(slot, len)| vec![slot as u8; *len]).collect()
    }

    #[test]
    fn a_run_is_of_equal_packets_and_ends_with_a_shorter_one() {
        let run_of = |lens: &[usize]| run(&packets("127.0.0.1:9".parse().unwrap(), lens).1.packets);
        assert_eq!(run_of(&[100]), 1);
        assert_eq!(run_of(&[100, 100, 100]), 3);
        assert_eq!(run_of(&[100, 100, 99, 99, 100]), 3);
        assert_eq!(run_of(&[100, 99, 100]), 2);
        assert_eq!(run_of(&[100, 101, 100]), 1);
        assert_eq!(run_of(&[100, 0, 100]), 1, "an empty packet is none that could be cut off");
        assert_eq!(run_of(&[100; 70]), RUN_PACKETS);
        assert_eq!(run_of(&[&[100; 64][..], &[1]].concat()), RUN_PACKETS);
        assert_eq!(run_of(&[1488; 60]), 44, "65,472 bytes");
        assert_eq!(run_of(&[&[1488; 44][..], &[35]].concat()), 44, "it would be 65,507 bytes");
        assert_eq!(run_of(&[40_000, 100]), 1);
    }

    #[test]
    fn a_run_ends_where_the_outer_header_changes() {
        let like = outgoing("127.0.0.1:9".parse().unwrap(), 0, 100);
        assert_eq!(run(&[like, like]), 2);
        for other in [
            Outgoing { to: "127.0.0.1:10".parse().unwrap(), ..like },
            Outgoing { from: Some("127.0.0.1".parse().unwrap()), ..like },
            Outgoing { traffic_class: 1, ..like },
            Outgoing { oversize: true, ..like },
        ] {
            assert_eq!(run(&[like, other, other]), 1, "{other:?}");
            assert_eq!(run(&[like, Outgoing { len: 50, ..other }]), 1, "{other:?}");
        }
        assert_eq!(run(&[Outgoing { oversize: true, ..like }; 2]), 1, "fragments are not cut");
    }

    #[test]
    fn runs_arrive_as_the_packets_they_were() {
        let (a, b) = pair();
        let lens = [&[1400; 50][..], &[700, 1400, 1400, 9, 1200, 1300, 1300, 1]].concat();
        let (slots, mut queue) = packets(b.local_addr().unwrap(), &lens);
        let mut drops = SendDrops::default();
        queue.flush(a.as_fd(), &slots, &mut drops);
        assert_eq!(arrivals(&b), sent(&lens));
        assert_eq!(queue.segmentation.pause, 0, "the kernel has cut them");
        assert_eq!(queue.messages[0].packets, 46, "50 × 1400 bytes are too many for one");
    }

    #[test]
    fn a_refused_run_goes_packet_by_packet_and_later_ones_do_at_once() {
        let (a, b) = pair();
        // Without checksums there is no cutting.
        socket_option::set_option(a.as_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
        let lens = [1000, 1000, 1000, 500, 900];
        let mut drops = SendDrops::default();
        let (slots, mut queue) = packets(b.local_addr().unwrap(), &lens);
        queue.flush(a.as_fd(), &slots, &mut drops);
        assert_eq!(arrivals(&b), sent(&lens));
        assert_eq!(queue.segmentation.pause, RUNS_UNTIL_NEXT_ATTEMPT);
        for _ in 0..RUNS_UNTIL_NEXT_ATTEMPT {
            for (slot, len) in lens.iter().enumerate().take(2) {
                assert!(queue.push(outgoing(b.local_addr().unwrap(), slot, *len)));
            }
            queue.flush(a.as_fd(), &slots, &mut drops);
            assert_eq!(arrivals(&b), sent(&lens[..2]));
        }
        assert_eq!(queue.segmentation.pause, 0, "the next run is attempted again");
        assert!(drops.iter().all(|(_, count)| count == 0));
    }

    #[test]
    fn a_full_queue_of_the_device_costs_whole_runs_and_no_segmentation() {
        in_namespace(
            "send_queue::tests::a_full_queue_of_the_device_costs_whole_runs_and_no_segmentation",
            || {
                let slow_link = "ip link add d0 type veth peer name d1; ip link set d1 up;
                    ip link set d0 up; ip addr add 10.9.0.1/24 dev d0;
                    ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev d0;
                    tc qdisc add dev d0 root tbf rate 8kbit burst 2000 limit 20000";
                let made = std::process::Command::new("sh").args(["-ec", slow_link]).status();
                assert!(made.unwrap().success());
                let (a, to) = (UdpSocket::bind("0.0.0.0:0").unwrap(), "10.9.0.2:9");
                socket_option::set_option(a.as_fd(), libc::IPPROTO_IP, libc::IP_RECVERR, 1)
                    .unwrap();
                let mut drops = SendDrops::default();
                for _ in 0..10 {
                    let (slots, mut queue) = packets(to.parse().unwrap(), &[1400; 40]);
                    queue.flush(a.as_fd(), &slots, &mut drops);
                    assert_eq!(queue.segmentation.pause, 0, "a full queue can still be cut for");
                    assert_eq!(queue.messages[0].packets, 40);
                }
                // The device has cut the first run, taken what it has room for, and refused whole
                // runs after that, unless it had room for a packet again.
                let counted: Vec<_> = drops.iter().filter(|&(_, count)| count > 0).collect();
                let [(SendDrop::QueueFull, full)] = counted[..] else { panic!("{counted:?}") };
                assert!((200..=360).contains(&full) && full % 40 == 0, "{full} of 400");
            },
        );
    }

    #[test]
    fn of_a_run_too_long_for_the_link_each_packet_is_counted() {
        in_namespace(
            "send_queue::tests::of_a_run_too_long_for_the_link_each_packet_is_counted",
            || {
                let mtu = std::process::Command::new("ip")
                    .args(["link", "set", "lo", "mtu", "1400"])
                    .status();
                assert!(mtu.unwrap().success());
                let (a, b) = pair();
                socket_option::fragment(a.as_fd(), true, false).unwrap();
                let lens = [1400, 1400, 1400, 100];
                let (slots, mut queue) = packets(b.local_addr().unwrap(), &lens);
                let mut drops = SendDrops::default();
                queue.flush(a.as_fd(), &slots, &mut drops);
                assert!(drops.iter().any(|dropped| dropped == (SendDrop::TooBig, 3)));
                assert_eq!(arrivals(&b), [vec![3; 100]]);
            },
        );
    }
}
