//! rtnetlink messages as bytes: requests are built, answers are taken apart.
//!
//! The layouts are those of `linux/netlink.h`, `rtnetlink.h`, `fib_rules.h`, `if_addr.h` and
//! `if_link.h`, in the byte order of the machine; attribute payloads are padded to 4 bytes. No
//! message is trusted to be complete: what is cut short is left out.

use core::net::IpAddr;

use super::Errno;

/// Numbers of `linux/*.h` which are the same on every architecture.
pub(super) mod number {
    pub(crate) const NLMSG_ERROR: u16 = 2;
    pub(crate) const NLMSG_DONE: u16 = 3;

    pub(crate) const RTM_NEWLINK: u16 = 16;
    pub(crate) const RTM_DELLINK: u16 = 17;
    pub(crate) const RTM_GETLINK: u16 = 18;
    pub(crate) const RTM_SETLINK: u16 = 19;
    pub(crate) const RTM_NEWADDR: u16 = 20;
    pub(crate) const RTM_DELADDR: u16 = 21;
    pub(crate) const RTM_GETADDR: u16 = 22;
    pub(crate) const RTM_NEWROUTE: u16 = 24;
    pub(crate) const RTM_DELROUTE: u16 = 25;
    pub(crate) const RTM_GETROUTE: u16 = 26;
    pub(crate) const RTM_NEWRULE: u16 = 32;
    pub(crate) const RTM_DELRULE: u16 = 33;
    pub(crate) const RTM_GETRULE: u16 = 34;

    pub(crate) const NLM_F_REQUEST: u16 = 0x1;
    pub(crate) const NLM_F_ACK: u16 = 0x4;
    pub(crate) const NLM_F_DUMP_INTR: u16 = 0x10;
    pub(crate) const NLM_F_DUMP: u16 = 0x300;
    pub(crate) const NLM_F_REPLACE: u16 = 0x100;
    pub(crate) const NLM_F_EXCL: u16 = 0x200;
    pub(crate) const NLM_F_CREATE: u16 = 0x400;
    pub(crate) const NLM_F_CAPPED: u16 = 0x100;
    pub(crate) const NLM_F_ACK_TLVS: u16 = 0x200;
    pub(crate) const NLMSGERR_ATTR_MSG: u16 = 1;

    pub(crate) const IFLA_IFNAME: u16 = 3;
    pub(crate) const IFLA_MTU: u16 = 4;
    pub(crate) const IFLA_AF_SPEC: u16 = 26;
    pub(crate) const IFLA_GROUP: u16 = 27;
    pub(crate) const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
    pub(crate) const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
    pub(crate) const IFF_UP: u32 = 1;

    pub(crate) const IFA_ADDRESS: u16 = 1;
    pub(crate) const IFA_LOCAL: u16 = 2;
    pub(crate) const IFA_FLAGS: u16 = 8;
    pub(crate) const IFA_F_NODAD: u32 = 2;

    pub(crate) const RTA_DST: u16 = 1;
    pub(crate) const RTA_OIF: u16 = 4;
    pub(crate) const RTA_GATEWAY: u16 = 5;
    pub(crate) const RTA_PRIORITY: u16 = 6;
    pub(crate) const RTA_PREFSRC: u16 = 7;
    pub(crate) const RTA_TABLE: u16 = 15;
    pub(crate) const RTA_MARK: u16 = 16;
    pub(crate) const RT_TABLE_UNSPEC: u8 = 0;
    pub(crate) const RTN_UNICAST: u8 = 1;
    pub(crate) const RTN_LOCAL: u8 = 2;
    pub(crate) const RTN_UNREACHABLE: u8 = 7;
    pub(crate) const RTN_THROW: u8 = 9;
    pub(crate) const RT_SCOPE_UNIVERSE: u8 = 0;
    pub(crate) const RT_SCOPE_LINK: u8 = 253;
    pub(crate) const RT_SCOPE_NOWHERE: u8 = 255;

    pub(crate) const FRA_DST: u16 = 1;
    pub(crate) const FRA_PRIORITY: u16 = 6;
    pub(crate) const FRA_FWMARK: u16 = 10;
    pub(crate) const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
    pub(crate) const FRA_TABLE: u16 = 15;
    pub(crate) const FRA_FWMASK: u16 = 16;
    pub(crate) const FRA_PROTOCOL: u16 = 21;
    pub(crate) const FR_ACT_TO_TBL: u8 = 1;
    pub(crate) const FIB_RULE_INVERT: u32 = 2;
}

/// Bytes of a message's header.
const HEADER: usize = 16;
/// Type bits which only say how an attribute is encoded.
const ATTRIBUTE_TYPE: u16 = 0x3fff;

fn align(len: usize) -> usize {
    len.next_multiple_of(4)
}

/// A request being built.
#[derive(Debug, Clone)]
pub(super) struct Request {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Request {
    /// A request of type `kind` whose fixed part is `header`.
    pub(super) fn new(kind: u16, flags: u16, header: &[u8]) -> Request {
        Request { kind, flags: flags | number::NLM_F_REQUEST, body: header.to_vec() }
    }

    pub(super) fn bytes(mut self, kind: u16, payload: &[u8]) -> Request {
        let len = u16::try_from(payload.len() + 4).expect("attributes are short");
        self.body.extend_from_slice(&len.to_ne_bytes());
        self.body.extend_from_slice(&kind.to_ne_bytes());
        self.body.extend_from_slice(payload);
        self.body.resize(align(self.body.len()), 0);
        self
    }

    pub(super) fn u32(self, kind: u16, value: u32) -> Request {
        self.bytes(kind, &value.to_ne_bytes())
    }

    pub(super) fn address(self, kind: u16, address: IpAddr) -> Request {
        match address {
            IpAddr::V4(a) => self.bytes(kind, &a.octets()),
            IpAddr::V6(a) => self.bytes(kind, &a.octets()),
        }
    }

    pub(super) fn text(self, kind: u16, text: &str) -> Request {
        let mut payload = text.as_bytes().to_vec();
        payload.push(0);
        self.bytes(kind, &payload)
    }

    /// The attribute by itself, for nesting.
    pub(super) fn nested(kind: u16, payload: &[u8]) -> Vec<u8> {
        Request::new(0, 0, &[]).bytes(kind, payload).body
    }

    /// Whether the answer ends with a message of its own: an acknowledgement or the dump's end.
    pub(super) fn expects_more(&self) -> bool {
        self.flags & (number::NLM_F_ACK | number::NLM_F_DUMP) != 0
    }

    /// The message as it goes to the kernel.
    pub(super) fn finish(&self, sequence: u32) -> Vec<u8> {
        let len = u32::try_from(HEADER + self.body.len()).expect("requests are short");
        let mut message = Vec::with_capacity(HEADER + self.body.len());
        message.extend_from_slice(&len.to_ne_bytes());
        message.extend_from_slice(&self.kind.to_ne_bytes());
        message.extend_from_slice(&self.flags.to_ne_bytes());
        message.extend_from_slice(&sequence.to_ne_bytes());
        message.extend_from_slice(&0u32.to_ne_bytes());
        message.extend_from_slice(&self.body);
        message
    }
}

/// One message of the kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    /// Who asked for what the kernel tells about; mostly the number of a process.
    pub(super) sender: u32,
    pub(super) body: &'a [u8],
}

/// The messages in what was received.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let len = read_u32(bytes, 0)? as usize;
        let message = Message {
            kind: read_u16(bytes, 4)?,
            flags: read_u16(bytes, 6)?,
            sequence: read_u32(bytes, 8)?,
            sender: read_u32(bytes, 12)?,
            body: bytes.get(HEADER..len)?,
        };
        bytes = bytes.get(align(len)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in `bytes`: type and payload.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = read_u16(bytes, 0)? as usize;
        let kind = read_u16(bytes, 2)? & ATTRIBUTE_TYPE;
        let payload = bytes.get(4..len)?;
        bytes = bytes.get(align(len)..).unwrap_or_default();
        Some((kind, payload))
    })
}

pub(super) fn read_u8(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

pub(super) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// An address of 4 or 16 bytes.
pub(super) fn read_address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(*bytes.first_chunk::<4>()?)),
        16 => Some(IpAddr::from(*bytes.first_chunk::<16>()?)),
        _ => None,
    }
}

pub(super) fn read_text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

/// What an `NLMSG_ERROR` says: `Ok` is an acknowledgement; the text is the kernel's extended one.
pub(super) fn outcome(message: &Message<'_>) -> Result<(), (Errno, Option<String>)> {
    let code = read_u32(message.body, 0).map_or(0, u32::cast_signed);
    if code == 0 {
        return Ok(());
    }
    let text = (message.flags & number::NLM_F_ACK_TLVS != 0).then(|| {
        let quoted = match message.flags & number::NLM_F_CAPPED {
            0 => read_u32(message.body, 4).map_or(HEADER, |len| align(len as usize)),
            _ => HEADER,
        };
        let rest = message.body.get(4usize.saturating_add(quoted)..).unwrap_or_default();
        attributes(rest).find(|(kind, _)| *kind == number::NLMSGERR_ATTR_MSG)
    });
    let text = text.flatten().map(|(_, payload)| read_text(payload));
    Err((Errno::from_raw(code.wrapping_neg()), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_back() {
        let request = Request::new(number::RTM_NEWROUTE, number::NLM_F_ACK, &[2; 12])
            .u32(number::RTA_OIF, 7)
            .text(number::IFLA_IFNAME, "vpn0")
            .address(number::RTA_DST, "10.1.0.0".parse().unwrap());
        let bytes = request.finish(9);
        let message = messages(&bytes).next().unwrap();
        assert_eq!((message.kind, message.flags, message.sequence), (24, 5, 9));
        let found: Vec<_> = attributes(&message.body[12..]).collect();
        assert_eq!(found[0], (number::RTA_OIF, &7u32.to_ne_bytes()[..]));
        assert_eq!(read_text(found[1].1), "vpn0");
        assert_eq!(read_address(found[2].1), Some("10.1.0.0".parse().unwrap()));
        assert_eq!(messages(&bytes).count(), 1);
    }

    #[test]
    fn what_is_cut_short_is_left_out() {
        let bytes = Request::new(24, 0, &[0; 12]).u32(4, 7).u32(6, 8).finish(1);
        for len in 0..bytes.len() {
            assert_eq!(messages(&bytes[..len]).count(), 0, "{len}");
        }
        let body = &bytes[HEADER + 12..];
        for len in 0..body.len() {
            assert!(attributes(&body[..len]).count() < 2, "{len}");
        }
        // A length that is shorter than its own header must not loop.
        assert_eq!(messages(&[0; 64]).count(), 0);
        assert_eq!(attributes(&[0; 64]).count(), 0);
    }

    #[test]
    fn the_kernels_own_words_are_found() {
        for capped in [true, false] {
            let quoted = Request::new(24, 0, &[0; 12]).finish(1);
            let mut body = (-17i32).to_ne_bytes().to_vec();
            body.extend_from_slice(if capped { &quoted[..HEADER] } else { &quoted });
            body.extend(Request::nested(number::NLMSGERR_ATTR_MSG, b"no such luck\0"));
            let flags = number::NLM_F_ACK_TLVS | if capped { number::NLM_F_CAPPED } else { 0 };
            let message =
                Message { kind: number::NLMSG_ERROR, flags, sequence: 1, sender: 0, body: &body };
            assert_eq!(outcome(&message), Err((Errno::EEXIST, Some("no such luck".into()))));
        }
    }
}
