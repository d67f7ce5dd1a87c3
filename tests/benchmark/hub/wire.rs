//! Frames put on a cable as they are: packets of ten thousand senders from one machine.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::net::if_::if_nametoindex;
use simplevpn_tests::lab::Host;

/// Packets that are handed to the kernel at once.
const BATCH: usize = 64;

/// One machine's end of a cable.
pub(super) struct Wire {
    socket: OwnedFd,
    to: libc::sockaddr_ll,
}

impl Wire {
    /// `interface` of `from`, at whose other end is `there` of `to`.
    pub(super) fn new(from: &Host, interface: &str, to: &Host, there: &str) -> io::Result<Wire> {
        let address = hardware_address(to, there)?;
        from.within(|| {
            let protocol = (libc::ETH_P_IP as u16).to_be();
            // SAFETY: takes three numbers, and returns a new descriptor or -1. Protocol 0: it
            // receives nothing.
            let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0) };
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: `fd` was made just now and nobody else has it.
            let socket = unsafe { OwnedFd::from_raw_fd(fd) };
            let to = libc::sockaddr_ll {
                sll_family: libc::AF_PACKET as u16,
                sll_protocol: protocol,
                sll_ifindex: if_nametoindex(interface)? as i32,
                sll_hatype: 0,
                sll_pkttype: 0,
                sll_halen: 6,
                sll_addr: address,
            };
            Ok(Wire { socket, to })
        })
    }

    /// Sends IP packets.
    pub(super) fn send(&mut self, packets: &[Vec<u8>]) -> io::Result<()> {
        for packets in packets.chunks(BATCH) {
            let mut parts: Vec<libc::iovec> = packets
                .iter()
                .map(|packet| libc::iovec {
                    iov_base: packet.as_ptr().cast_mut().cast(),
                    iov_len: packet.len(),
                })
                .collect();
            let mut headers: Vec<libc::mmsghdr> =
                parts.iter_mut().map(|part| header(&mut self.to, part)).collect();
            let mut rest = headers.as_mut_slice();
            while !rest.is_empty() {
                let fd = self.socket.as_raw_fd();
                // SAFETY: each header points to the address and to one part, which points to a
                // packet; all of them outlive the call, and sending changes none.
                let sent = unsafe { libc::sendmmsg(fd, rest.as_mut_ptr(), rest.len() as u32, 0) };
                let Ok(sent) = usize::try_from(sent) else {
                    return Err(io::Error::last_os_error());
                };
                rest = rest.get_mut(sent..).unwrap_or_default();
            }
        }
        Ok(())
    }
}

fn header(to: &mut libc::sockaddr_ll, part: &mut libc::iovec) -> libc::mmsghdr {
    // SAFETY: a C struct of numbers and pointers, for which zeros are valid.
    let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
    header.msg_hdr.msg_name = std::ptr::from_mut(to).cast();
    header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_ll>() as u32;
    header.msg_hdr.msg_iov = part;
    header.msg_hdr.msg_iovlen = 1;
    header
}

/// "… link/ether 5e:0b:…", in the first bytes of what the kernel has room for.
fn hardware_address(of: &Host, interface: &str) -> io::Result<[u8; 8]> {
    let text = of.run(&format!("ip -o link show dev {interface}"));
    let mut words = text.split_whitespace().skip_while(|word| *word != "link/ether");
    let address = words.nth(1).unwrap_or_default().split(':');
    let mut bytes = [0; 8];
    let mut count = 0;
    for (byte, word) in bytes.iter_mut().zip(address) {
        *byte = u8::from_str_radix(word, 16).map_err(io::Error::other)?;
        count += 1;
    }
    if count == 6 { Ok(bytes) } else { Err(io::Error::other(format!("no address: {text}"))) }
}
