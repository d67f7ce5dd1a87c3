//! Socket addresses as the kernel reads and writes them: plain bytes in the layout of
//! `sockaddr_in` and `sockaddr_in6`.

use core::net::{IpAddr, SocketAddr};

const LEN_V4: u32 = 16;
const LEN_V6: u32 = 28;

/// Room for the address of an IPv4 or IPv6 socket.
#[derive(Clone, Copy)]
#[repr(C, align(4))]
pub(crate) struct SockAddr([u8; LEN_V6 as usize]);

impl SockAddr {
    /// Bytes of room, `socklen_t` as the kernel wants it.
    pub(crate) const ROOM: u32 = LEN_V6;

    pub(crate) const fn new() -> SockAddr {
        SockAddr([0; LEN_V6 as usize])
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr()
    }

    /// Writes `address` and returns its length in bytes.
    pub(crate) fn set(&mut self, address: SocketAddr) -> u32 {
        self.0 = [0; LEN_V6 as usize];
        self.0[2..4].copy_from_slice(&address.port().to_be_bytes());
        let (family, len) = match address {
            SocketAddr::V4(address) => {
                self.0[4..8].copy_from_slice(&address.ip().octets());
                (libc::AF_INET, LEN_V4)
            }
            SocketAddr::V6(address) => {
                self.0[8..24].copy_from_slice(&address.ip().octets());
                self.0[24..28].copy_from_slice(&address.scope_id().to_ne_bytes());
                (libc::AF_INET6, LEN_V6)
            }
        };
        self.0[..2].copy_from_slice(&(family as libc::sa_family_t).to_ne_bytes());
        len
    }

    /// The address that the kernel has written, `len` bytes of it.
    pub(crate) fn get(&self, len: u32) -> Option<SocketAddr> {
        let bytes = &self.0;
        let family = i32::from(libc::sa_family_t::from_ne_bytes([bytes[0], bytes[1]]));
        let port = u16::from_be_bytes([bytes[2], bytes[3]]);
        match family {
            libc::AF_INET if len >= LEN_V4 => {
                let octets: [u8; 4] = *bytes.get(4..)?.first_chunk()?;
                Some(SocketAddr::new(IpAddr::from(octets), port))
            }
            libc::AF_INET6 if len >= LEN_V6 => {
                let octets: [u8; 16] = *bytes.get(8..)?.first_chunk()?;
                Some(SocketAddr::new(IpAddr::from(octets), port))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_addresses_read_back() {
        for text in ["192.0.2.1:4500", "[2001:db8::1]:0"] {
            let address: SocketAddr = text.parse().unwrap();
            let mut raw = SockAddr::new();
            let len = raw.set(address);
            assert_eq!(raw.get(len), Some(address));
            assert_eq!(raw.get(len - 1), None);
        }
        assert_eq!(SockAddr::new().get(LEN_V6), None);
    }

    #[test]
    fn layout_is_that_of_the_c_library() {
        assert_eq!(size_of::<libc::sockaddr_in>(), LEN_V4 as usize);
        assert_eq!(size_of::<libc::sockaddr_in6>(), LEN_V6 as usize);
        assert_eq!(core::mem::offset_of!(libc::sockaddr_in6, sin6_addr), 8);
        assert_eq!(core::mem::offset_of!(libc::sockaddr_in6, sin6_scope_id), 24);
        assert_eq!(core::mem::offset_of!(libc::sockaddr_in, sin_addr), 4);
    }
}
