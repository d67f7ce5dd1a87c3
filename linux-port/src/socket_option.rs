//! Options of sockets, set as the numbers they are.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sets an option whose value is an `int`.
pub(crate) fn set_option(fd: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the kernel reads `size_of::<i32>()` bytes of `value`.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether outer packets may be fragmented.
///
/// Not allowed means `PROBE`: DF always, and never mind the MTU in the kernel's route cache, which
/// inner packets of the same subnet drive down. Allowed means without DF over IPv4, in fragments
/// of 1280 bytes over IPv6.
pub(crate) fn fragment(fd: BorrowedFd<'_>, ipv4: bool, allowed: bool) -> io::Result<()> {
    if ipv4 {
        let value = if allowed { libc::IP_PMTUDISC_DONT } else { libc::IP_PMTUDISC_PROBE };
        return set_option(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, value);
    }
    let (value, mtu) =
        if allowed { (libc::IPV6_PMTUDISC_DONT, 1280) } else { (libc::IPV6_PMTUDISC_PROBE, 0) };
    set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, value)?;
    set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU, mtu)
}
