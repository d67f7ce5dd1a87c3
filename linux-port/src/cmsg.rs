//! Control messages (`cmsg`) beside packets: written and read as plain bytes in the kernel's
//! layout, in space that is allocated once.
//!
//! The kernel's `struct cmsghdr` is a `size_t` length (header included), an `int` level and an
//! `int` type; messages begin at multiples of the size of a `long`.

use core::net::IpAddr;

const WORD: usize = size_of::<usize>();
const HEADER: usize = WORD + 8;

const fn align(len: usize) -> usize {
    (len + WORD - 1) & !(WORD - 1)
}

/// Room for the control messages of one packet.
#[derive(Clone)]
#[repr(C, align(8))]
pub(crate) struct Control<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Control<N> {
    pub(crate) fn new() -> Control<N> {
        Control { bytes: [0; N], len: 0 }
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// The messages written so far.
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// All the room, for the kernel to write into.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    /// What the kernel has written, by what it says in `header`.
    #[allow(clippy::unnecessary_cast, reason = "the field's type differs between C libraries")]
    pub(crate) fn filled(&self, header: &libc::msghdr) -> &[u8] {
        self.bytes.get(..header.msg_controllen as usize).unwrap_or(&self.bytes)
    }

    /// Adds one message; a message for which there is no room is left out.
    pub(crate) fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let end = self.len + align(HEADER + data.len());
        let Some(room) = self.bytes.get_mut(self.len..end) else {
            debug_assert!(false, "control space is too small");
            return;
        };
        room.fill(0);
        for (at, part) in [
            (0, (HEADER + data.len()).to_ne_bytes().as_slice()),
            (WORD, level.to_ne_bytes().as_slice()),
            (WORD + 4, kind.to_ne_bytes().as_slice()),
            (HEADER, data),
        ] {
            if let Some(field) = room.get_mut(at..at + part.len()) {
                field.copy_from_slice(part);
            }
        }
        self.len = end;
    }

    /// The address to send from (`IP_PKTINFO`, `IPV6_PKTINFO`); the interface stays free.
    pub(crate) fn push_source(&mut self, source: IpAddr) {
        match source {
            IpAddr::V4(source) => {
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&source.octets());
                self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            IpAddr::V6(source) => {
                let mut info = [0; 20];
                info[..16].copy_from_slice(&source.octets());
                self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
        }
    }

    /// DSCP and ECN of the outer header (`IP_TOS`, `IPV6_TCLASS`).
    pub(crate) fn push_traffic_class(&mut self, ipv4: bool, traffic_class: u8) {
        let (level, kind) = if ipv4 {
            (libc::IPPROTO_IP, libc::IP_TOS)
        } else {
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
        };
        self.push(level, kind, &i32::from(traffic_class).to_ne_bytes());
    }

    /// The length of the datagrams that the kernel is to cut the message into (`UDP_SEGMENT`).
    pub(crate) fn push_segment(&mut self, len: usize) {
        let len = u16::try_from(len).unwrap_or(u16::MAX);
        self.push(libc::IPPROTO_UDP, libc::UDP_SEGMENT, &len.to_ne_bytes());
    }
}

/// One control message: its level, its type, its data.
type Message<'a> = (i32, i32, &'a [u8]);

/// The control messages in `bytes`; ends at the first that does not fit.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    core::iter::from_fn(move || {
        let (header, _) = bytes.split_at_checked(HEADER)?;
        let (len, rest) = header.split_first_chunk::<WORD>()?;
        let (level, kind) = rest.split_first_chunk::<4>()?;
        let len = usize::from_ne_bytes(*len);
        let data = bytes.get(HEADER..len)?;
        let level = i32::from_ne_bytes(*level);
        let kind = i32::from_ne_bytes(*kind.first_chunk()?);
        bytes = bytes.get(align(len)..).unwrap_or_default();
        Some((level, kind, data))
    })
}

/// What the control messages of a received packet say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Reception {
    /// Our address that the packet was sent to.
    pub(crate) local: Option<IpAddr>,
    /// DSCP and ECN of the outer header.
    pub(crate) traffic_class: u8,
    /// Length of each datagram but the last, if the kernel has joined several (`UDP_GRO`).
    pub(crate) segment: Option<usize>,
}

impl Reception {
    pub(crate) fn parse(control: &[u8]) -> Reception {
        let mut found = Reception::default();
        for (level, kind, data) in messages(control) {
            match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let address = data.get(8..).and_then(|data| data.first_chunk::<4>());
                    found.local = address.map(|octets| IpAddr::from(*octets));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    found.local = data.first_chunk::<16>().map(|octets| IpAddr::from(*octets));
                }
                // The kernel gives IP_TOS as one byte, IPV6_TCLASS as an int.
                (libc::IPPROTO_IP, libc::IP_TOS) => {
                    found.traffic_class = data.first().copied().unwrap_or(0);
                }
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    let class = data.first_chunk().map_or(0, |class| i32::from_ne_bytes(*class));
                    found.traffic_class = u8::try_from(class).unwrap_or(0);
                }
                (libc::IPPROTO_UDP, libc::UDP_GRO) => {
                    let len = data.first_chunk().map(|len| i32::from_ne_bytes(*len));
                    found.segment = len.and_then(|len| usize::try_from(len).ok());
                }
                _ => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_that_of_the_c_library() {
        let mut control = Control::<64>::new();
        control.push(7, 9, &[1, 2, 3]);
        // SAFETY: both only compute with the length.
        let (len, space) = unsafe { (libc::CMSG_LEN(3), libc::CMSG_SPACE(3)) };
        assert_eq!(control.as_slice().len(), space as usize);
        assert_eq!(control.as_slice()[..WORD], (len as usize).to_ne_bytes());
        control.push(1, 2, &[]);
        let read: Vec<_> = messages(control.as_slice()).collect();
        assert_eq!(read, [(7, 9, [1, 2, 3].as_slice()), (1, 2, [].as_slice())]);
    }

    #[test]
    fn truncated_messages_end_the_list() {
        let mut control = Control::<64>::new();
        control.push(7, 9, &[1, 2, 3, 4]);
        for len in 0..HEADER + 4 {
            assert_eq!(messages(&control.as_slice()[..len]).count(), 0, "{len}");
        }
        let mut lying = control.as_slice().to_vec();
        for len in [0, 1, HEADER - 1, usize::MAX, usize::MAX - 3] {
            lying[..WORD].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(messages(&lying).count(), 0, "{len}");
        }
    }
}
