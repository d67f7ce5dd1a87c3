//! The TUN device: packets of this machine and its LAN, one per read and write, each behind a
//! `virtio_net_hdr` (`IFF_VNET_HDR`, no packet information).
//!
//! No offload is asked for, so every header the kernel writes says "nothing special"; segmentation
//! and checksum offloads need no other structure than this one. The device is not persistent: it
//! vanishes with the daemon.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::uio::writev;
use nix::unistd::read;
use simplevpn_core::packet::{HEADROOM, PacketBuf, TAILROOM};

mod ioctls {
    nix::ioctl_write_int!(tunsetoffload, b'T', 208);
    nix::ioctl_write_ptr!(tunsetvnethdrsz, b'T', 216, libc::c_int);
    nix::ioctl_write_ptr!(tunsetvnetle, b'T', 220, libc::c_int);
}

/// What precedes each packet: `struct virtio_net_hdr` (virtio 1.2 §5.1.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VnetHeader {
    /// `VIRTIO_NET_HDR_F_*`: 1 = the checksum is partial, 2 = it is known to be right.
    pub flags: u8,
    /// `VIRTIO_NET_HDR_GSO_*`: 0 = one packet.
    pub gso_type: u8,
    /// Length of all headers, in bytes.
    pub hdr_len: u16,
    /// Payload bytes of each segment.
    pub gso_size: u16,
    /// Where the checksummed part begins, in bytes from the packet's first.
    pub csum_start: u16,
    /// Where the checksum lies, in bytes from `csum_start`.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// Bytes of the header in front of each packet.
    pub const LEN: usize = 10;

    fn parse(bytes: &[u8; VnetHeader::LEN], little_endian: bool) -> VnetHeader {
        let [flags, gso_type, fields @ ..] = bytes;
        let field = |at: usize| {
            let pair = fields.get(at..).and_then(|rest| rest.first_chunk()).copied();
            let pair = pair.unwrap_or_default();
            if little_endian { u16::from_le_bytes(pair) } else { u16::from_ne_bytes(pair) }
        };
        VnetHeader {
            flags: *flags,
            gso_type: *gso_type,
            hdr_len: field(0),
            gso_size: field(2),
            csum_start: field(4),
            csum_offset: field(6),
        }
    }

    fn emit(&self, little_endian: bool) -> [u8; VnetHeader::LEN] {
        let mut bytes = [0; VnetHeader::LEN];
        bytes[..2].copy_from_slice(&[self.flags, self.gso_type]);
        let fields = [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset];
        for (room, field) in bytes[2..].chunks_exact_mut(2).zip(fields) {
            room.copy_from_slice(&if little_endian {
                field.to_le_bytes()
            } else {
                field.to_ne_bytes()
            });
        }
        bytes
    }
}

/// A TUN device, open and non-blocking.
#[derive(Debug)]
pub struct TunDevice {
    fd: OwnedFd,
    little_endian: bool,
}

impl TunDevice {
    /// Creates the device `name`, down and without addresses.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what would help.
    pub fn create(name: &str) -> Result<TunDevice, String> {
        let mut configuration = tun::Configuration::default();
        configuration.tun_name(name).platform_config(|platform| {
            platform.ensure_root_privileges(false).vnet_hdr(true);
        });
        let device = tun::create(&configuration).map_err(|error| explain(name, error))?;
        // SAFETY: `into_raw_fd` gives up the descriptor, so that it has no other owner.
        let fd = unsafe { OwnedFd::from_raw_fd(device.into_raw_fd()) };
        let mut device = TunDevice { fd, little_endian: true };
        device
            .configure()
            .map_err(|error| format!("cannot set up the TUN device {name}: {error}"))?;
        Ok(device)
    }

    fn configure(&mut self) -> nix::Result<()> {
        fcntl(&self.fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let fd = self.fd.as_raw_fd();
        // SAFETY: the kernel reads one int; the descriptor is a TUN device's.
        unsafe { ioctls::tunsetvnethdrsz(fd, &(VnetHeader::LEN as libc::c_int)) }?;
        // Little endian wherever it can be chosen, as an emulated machine may differ from its
        // kernel; else the machine's own order.
        // SAFETY: as above.
        self.little_endian = unsafe { ioctls::tunsetvnetle(fd, &1) }.is_ok();
        // SAFETY: takes a number; the descriptor is a TUN device's.
        unsafe { ioctls::tunsetoffload(fd, 0) }?;
        Ok(())
    }

    /// Reads one packet into `slot`, behind [`HEADROOM`] bytes and with [`TAILROOM`] bytes left
    /// behind it. `None` if there is none to read.
    ///
    /// # Errors
    /// Those of `read(2)`; `EBADFD` if the device was deleted.
    pub fn read<'a>(&self, slot: &'a mut [u8]) -> io::Result<Option<(VnetHeader, PacketBuf<'a>)>> {
        let end = slot.len().saturating_sub(TAILROOM);
        let Some(room) = slot.get_mut(HEADROOM - VnetHeader::LEN..end) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let len = loop {
            match read(&self.fd, room) {
                Ok(len) => break len,
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        };
        let header = room.first_chunk().map(|header| VnetHeader::parse(header, self.little_endian));
        let len = len.checked_sub(VnetHeader::LEN);
        let packet = len.and_then(|len| PacketBuf::new(slot, HEADROOM, len).ok());
        Ok(header.zip(packet))
    }

    /// Writes one packet to the host.
    ///
    /// # Errors
    /// Those of `write(2)`; `EIO` while the device is down.
    pub fn write(&self, header: &VnetHeader, packet: &[u8]) -> io::Result<()> {
        let header = header.emit(self.little_endian);
        loop {
            match writev(&self.fd, &[IoSlice::new(&header), IoSlice::new(packet)]) {
                Ok(_) => return Ok(()),
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for TunDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn explain(name: &str, error: tun::Error) -> String {
    let help = match &error {
        tun::Error::Io(error) => match error.raw_os_error() {
            Some(libc::ENOENT) => {
                "; /dev/net/tun is missing: load the kernel module tun (OpenWrt: kmod-tun)"
            }
            Some(libc::EPERM) => "; it needs root, or CAP_NET_ADMIN",
            Some(libc::EACCES) => "; this user may not open /dev/net/tun",
            Some(libc::EBUSY) => "; another program has this device open",
            Some(libc::EINVAL) => {
                "; an interface of another kind has this name, or the name is not a valid one"
            }
            _ => "",
        },
        _ => "",
    };
    format!("cannot create the TUN device {name}: {error}{help}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Slots;
    use crate::testing::in_namespace;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::net::UdpSocket;
    use std::process::Command;

    #[test]
    fn headers_read_back_in_both_byte_orders() {
        let header = VnetHeader {
            flags: 1,
            gso_type: 4,
            hdr_len: 54,
            gso_size: 1400,
            csum_start: 34,
            csum_offset: 16,
        };
        for little_endian in [true, false] {
            let bytes = header.emit(little_endian);
            assert_eq!(VnetHeader::parse(&bytes, little_endian), header);
        }
        assert_eq!(header.emit(true)[2..4], [54, 0]);
    }

    fn ip(arguments: &str) {
        let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
        assert!(status.success(), "ip {arguments}");
    }

    #[test]
    fn packets_pass_both_ways_and_the_device_vanishes() {
        in_namespace("tun::tests::packets_pass_both_ways_and_the_device_vanishes", || {
            let device = TunDevice::create("io0").unwrap();
            let refusal = TunDevice::create("io0").unwrap_err();
            assert!(refusal.contains("another program has this device open"), "{refusal}");
            let refusal = TunDevice::create("lo").unwrap_err();
            assert!(refusal.contains("an interface of another kind"), "{refusal}");
            assert!(TunDevice::create("a-name-that-is-too-long").is_err());

            let header = VnetHeader::default();
            let down = device.write(&header, &[0x45; 20]).unwrap_err();
            assert_eq!(down.raw_os_error(), Some(libc::EIO));

            ip("addr add 10.9.0.1/24 dev io0");
            ip("link set io0 mtu 1400 up");
            let mut slots = Slots::new(1, 1400);
            let host = UdpSocket::bind("10.9.0.1:7000").unwrap();
            host.send_to(b"hello", "10.9.0.2:7000").unwrap();
            let mut packet = loop {
                let mut fds = [PollFd::new(device.as_fd(), PollFlags::POLLIN)];
                assert_eq!(poll(&mut fds, PollTimeout::from(2000u16)).unwrap(), 1);
                let (header, packet) =
                    device.read(slots.get_mut(0).unwrap()).unwrap().expect("readable");
                assert_eq!(header.gso_type, 0);
                assert_eq!(header.flags & 1, 0, "the checksum is complete");
                assert_eq!(packet.headroom(), HEADROOM);
                // The kernel greets the new link with IPv6 packets of its own.
                if packet.as_slice()[0] >> 4 == 4 {
                    break packet.as_slice().to_vec();
                }
            };
            assert_eq!((packet.len(), &packet[28..]), (33, b"hello".as_slice()));

            // The same packet the other way round: no sum changes when addresses swap.
            for at in 12..16 {
                packet.swap(at, at + 4);
            }
            device.write(&header, &packet).unwrap();
            let mut text = [0; 10];
            let (len, from) = host.recv_from(&mut text).unwrap();
            assert_eq!(
                (&text[..len], from.to_string().as_str()),
                (b"hello".as_slice(), "10.9.0.2:7000")
            );

            drop(device);
            let gone = Command::new("ip").args(["link", "show", "io0"]).output().unwrap();
            assert!(!gone.status.success(), "the device vanishes with its descriptor");
        });
    }
}
