//! Raw sockets of protocol 50: ESP directly over IPv4 and IPv6 (RFC 4303).
//!
//! A raw socket sees every ESP packet for this machine, whoever it is for; the SPI sorts them.

use std::io;

use simplevpn_core::{Discard, Path};

use crate::batch::Datagram;
use crate::outer_socket::{Arrival, Family, OuterSocket};

/// Opens the raw socket of one IP version; `None` if the kernel does not have that version.
///
/// # Errors
/// Those of the kernel; `EPERM` without CAP_NET_RAW or CAP_NET_ADMIN.
pub fn open(family: Family, mark: u32, batch: usize) -> io::Result<Option<OuterSocket>> {
    match OuterSocket::open(family, libc::SOCK_RAW, libc::IPPROTO_ESP, mark, batch) {
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(None),
        other => other.map(Some),
    }
}

/// The ESP packet in a datagram: over IPv4 the kernel delivers the outer header, too.
///
/// # Errors
/// [`Discard::Malformed`] if that header is none.
pub fn arrival(datagram: Datagram<'_>) -> Result<Arrival<'_>, Discard> {
    let Datagram { from, local, traffic_class, segment, mut packet } = datagram;
    if from.is_ipv4() {
        let first = packet.as_slice().first().copied().unwrap_or(0);
        let header_len = usize::from(first & 0xf) * 4;
        if first >> 4 != 4 || header_len < 20 {
            return Err(Discard::Malformed);
        }
        packet.pull_front(header_len)?;
    }
    let remote = from.ip();
    let family = if from.is_ipv4() { Family::V4 } else { Family::V6 };
    let local = local.unwrap_or_else(|| family.unspecified(0).ip());
    Ok(Arrival { path: Path::Esp { local, remote }, traffic_class, segment, packet })
}
