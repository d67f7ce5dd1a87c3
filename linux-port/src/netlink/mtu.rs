//! The MTU of a device, set by `ioctl`: emulators of other architectures translate that, and not
//! the netlink attribute.

use std::os::fd::{AsRawFd, OwnedFd};

use super::Errno;

/// Sets the MTU in bytes of the device with this index; any socket will do.
pub(super) fn set(socket: &OwnedFd, index: u32, mtu: u32) -> Result<(), Errno> {
    let name = nix::net::if_::if_indextoname(index)?;
    // SAFETY: an all-zero ifreq is a valid one.
    let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.to_bytes()) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_mtu = libc::c_int::try_from(mtu).map_err(|_| Errno::EINVAL)?;
    // SAFETY: SIOCSIFMTU reads an ifreq, which `request` is.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFMTU as _, &raw const request) };
    Errno::result(result).map(drop)
}
