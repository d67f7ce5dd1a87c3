//! The TUN device: packets of this machine and its LAN, one per read and write, each behind a
//! `virtio_net_hdr` (`IFF_VNET_HDR`, no packet information).
//!
//! The kernel is asked for all that it can leave to us: super-packets of TCP and UDP, unfinished
//! checksums. It decides how much of that it does. The device is not persistent: it vanishes with
//! the daemon.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::uio::{readv, writev};
use simplevpn_core::offload::{Gso, Offload, PartialChecksum};

mod ioctls {
    nix::ioctl_write_int!(tunsetoffload, b'T', 208);
    nix::ioctl_write_ptr!(tunsetvnethdrsz, b'T', 216, libc::c_int);
    nix::ioctl_write_ptr!(tunsetvnetle, b'T', 220, libc::c_int);
}

/// What the kernel may leave to us: `TUN_F_*` of linux/if_tun.h.
mod feature {
    pub(super) const CHECKSUM: u64 = 0x01;
    /// TCP super-packets over IPv4 and IPv6, also with CWR.
    pub(super) const TSO: u64 = 0x02 | 0x04 | 0x08;
    /// UDP super-packets over IPv4 and IPv6 (since Linux 6.2).
    pub(super) const USO: u64 = 0x20 | 0x40;
}

/// Bytes of the `virtio_net_hdr` in front of each packet (virtio 1.2 §5.1.6): flags, type, length
/// of all headers, payload bytes of each segment, where the checksummed part begins, and where in it
/// the checksum lies.
const HEADER_LEN: usize = 10;
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`
const PARTIAL_CHECKSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_ECN`
const ECN: u8 = 0x80;
/// `VIRTIO_NET_HDR_GSO_TCPV4`, `…TCPV6` and `…UDP_L4`
const TYPES: [(u8, Gso); 3] = [(1, Gso::TcpV4), (4, Gso::TcpV6), (5, Gso::Udp)];

/// What a header says; `None`: something that was not asked for.
fn parse(bytes: &[u8; HEADER_LEN], little_endian: bool) -> Option<Offload> {
    let &[flags, kind, ref fields @ ..] = bytes;
    let (pairs, _) = fields.as_chunks::<2>();
    let mut fields = pairs.iter().map(|pair| {
        if little_endian { u16::from_le_bytes(*pair) } else { u16::from_ne_bytes(*pair) }
    });
    let [header_len, segment_len, start, offset] =
        core::array::from_fn(|_| fields.next().unwrap_or(0));
    let checksum = (flags & PARTIAL_CHECKSUM != 0).then_some(PartialChecksum { start, offset });
    let gso = match kind & !ECN {
        0 => None,
        kind => Some(TYPES.iter().find(|(number, _)| *number == kind)?.1),
    };
    Some(Offload { gso, ecn: kind & ECN != 0, header_len, segment_len, checksum })
}

fn emit(offload: &Offload, little_endian: bool) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    let number =
        |gso| TYPES.iter().find(|(_, other)| *other == gso).map_or(0, |(number, _)| *number);
    let kind = offload.gso.map_or(0, number);
    bytes[0] = if offload.checksum.is_some() { PARTIAL_CHECKSUM } else { 0 };
    bytes[1] = if offload.ecn { kind | ECN } else { kind };
    let PartialChecksum { start, offset } =
        offload.checksum.unwrap_or(PartialChecksum { start: 0, offset: 0 });
    let fields = [offload.header_len, offload.segment_len, start, offset];
    for (room, field) in bytes[2..].chunks_exact_mut(2).zip(fields) {
        let field = if little_endian { field.to_le_bytes() } else { field.to_ne_bytes() };
        room.copy_from_slice(&field);
    }
    bytes
}

/// A TUN device, open and non-blocking.
#[derive(Debug)]
pub struct TunDevice {
    fd: OwnedFd,
    little_endian: bool,
    features: u64,
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
        let mut device = TunDevice { fd, little_endian: true, features: 0 };
        device
            .configure()
            .map_err(|error| format!("cannot set up the TUN device {name}: {error}"))?;
        Ok(device)
    }

    fn configure(&mut self) -> nix::Result<()> {
        fcntl(&self.fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let fd = self.fd.as_raw_fd();
        // SAFETY: the kernel reads one int; the descriptor is a TUN device's.
        unsafe { ioctls::tunsetvnethdrsz(fd, &(HEADER_LEN as libc::c_int)) }?;
        // Little endian wherever it can be chosen, as an emulated machine may differ from its
        // kernel; else the machine's own order.
        // SAFETY: as above.
        self.little_endian = unsafe { ioctls::tunsetvnetle(fd, &1) }.is_ok();
        use feature::{CHECKSUM, TSO, USO};
        let mut result = Ok(());
        for features in [CHECKSUM | TSO | USO, CHECKSUM | TSO, CHECKSUM, 0] {
            // SAFETY: takes a number; the descriptor is a TUN device's.
            let taken = unsafe { ioctls::tunsetoffload(fd, features as libc::c_ulong) };
            (self.features, result) = (features, taken.map(|_| ()));
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// Whether the kernel takes and gives super-packets of UDP.
    #[must_use]
    pub fn joins_udp(&self) -> bool {
        self.features & feature::USO != 0
    }

    /// Reads one packet or super-packet to the front of `room`, and returns its length in bytes and
    /// what is left to do with it. `None` if there is none to read.
    ///
    /// # Errors
    /// Those of `readv(2)`; `EBADFD` if the device was deleted. `InvalidData` if what was read is
    /// of no use.
    pub fn read(&self, room: &mut [u8]) -> io::Result<Option<(usize, Offload)>> {
        let mut header = [0; HEADER_LEN];
        let len = loop {
            let parts = &mut [IoSliceMut::new(&mut header), IoSliceMut::new(room)];
            match readv(&self.fd, parts) {
                Ok(len) => break len,
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        };
        let offload = parse(&header, self.little_endian);
        match len.checked_sub(HEADER_LEN).zip(offload) {
            Some(read) => Ok(Some(read)),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Writes one packet or super-packet to the host.
    ///
    /// # Errors
    /// Those of `writev(2)`; `EIO` while the device is down.
    pub fn write(&self, offload: &Offload, packet: &[u8]) -> io::Result<()> {
        let header = emit(offload, self.little_endian);
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
    use crate::testing::in_namespace;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::net::UdpSocket;
    use std::process::Command;

    #[test]
    fn headers_read_back_in_both_byte_orders() {
        let checksum = Some(PartialChecksum { start: 34, offset: 16 });
        let plain = Offload { checksum, ..Offload::default() };
        let tcp = Offload { gso: Some(Gso::TcpV6), header_len: 54, segment_len: 1400, ..plain };
        let offloads = [
            Offload::default(),
            plain,
            tcp,
            Offload { ecn: true, ..tcp },
            Offload { gso: Some(Gso::TcpV4), ..tcp },
            Offload { gso: Some(Gso::Udp), ..tcp },
        ];
        for offload in offloads {
            for little_endian in [true, false] {
                let bytes = emit(&offload, little_endian);
                assert_eq!(parse(&bytes, little_endian), Some(offload));
            }
        }
        assert_eq!(emit(&tcp, true), [1, 4, 54, 0, 0x78, 5, 34, 0, 16, 0]);
    }

    #[test]
    fn what_was_not_asked_for_is_not_taken() {
        // UDP in fragments, and what nobody knows.
        for kind in [2, 3, 3 | ECN, 6, 0x7f] {
            assert_eq!(parse(&[0, kind, 0, 0, 0, 0, 0, 0, 0, 0], true), None);
        }
    }

    fn ip(arguments: &str) {
        let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
        assert!(status.success(), "ip {arguments}");
    }

    /// The next packet of IPv4: the kernel greets a new link with IPv6 packets of its own.
    fn next(device: &TunDevice) -> (Offload, Vec<u8>) {
        let mut room = vec![0; 1 << 16];
        loop {
            let mut fds = [PollFd::new(device.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut fds, PollTimeout::from(2000u16)).unwrap(), 1);
            let (len, offload) = device.read(&mut room).unwrap().expect("readable");
            if room[0] >> 4 == 4 {
                return (offload, room[..len].to_vec());
            }
        }
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

            let down = device.write(&Offload::default(), &[0x45; 20]).unwrap_err();
            assert_eq!(down.raw_os_error(), Some(libc::EIO));

            ip("addr add 10.9.0.1/24 dev io0");
            ip("link set io0 mtu 1400 up");
            let host = UdpSocket::bind("10.9.0.1:7000").unwrap();
            host.send_to(b"hello", "10.9.0.2:7000").unwrap();
            let (offload, mut packet) = next(&device);
            assert_eq!(offload.gso, None);
            offload.complete_checksum(&mut packet).unwrap();
            assert_eq!((packet.len(), &packet[28..]), (33, b"hello".as_slice()));

            // The same packet the other way round: no sum changes when addresses swap.
            for at in 12..16 {
                packet.swap(at, at + 4);
            }
            device.write(&Offload::default(), &packet).unwrap();
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

    #[test]
    fn super_packets_pass_both_ways() {
        in_namespace("tun::tests::super_packets_pass_both_ways", || {
            let device = TunDevice::create("io0").unwrap();
            assert!(device.joins_udp(), "a kernel since 6.2");
            ip("addr add 10.9.0.1/24 dev io0");
            ip("link set io0 mtu 1400 up");
            let host = UdpSocket::bind("10.9.0.1:7000").unwrap();
            let (udp, cut) = (libc::IPPROTO_UDP, libc::UDP_SEGMENT);
            crate::socket_option::set_option(host.as_fd(), udp, cut, 1000).unwrap();
            host.send_to(&[7; 3500], "10.9.0.2:7000").unwrap();
            let (offload, mut packet) = next(&device);
            assert_eq!((offload.gso, offload.segment_len), (Some(Gso::Udp), 1000));
            assert_eq!(packet.len(), 3528);

            for at in 12..16 {
                packet.swap(at, at + 4);
            }
            device.write(&offload, &packet).unwrap();
            let mut text = [0; 2000];
            let lens = [(); 4].map(|()| host.recv(&mut text).unwrap());
            assert_eq!((lens, text[0]), ([1000, 1000, 1000, 500], 7));
        });
    }
}
