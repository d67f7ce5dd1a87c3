//! A program that only copies: every packet of a TUN device into a UDP datagram, and back, one
//! thread each way. No encryption, no check, no offloads. What a ping takes through it is what the
//! way through two programs takes, whatever they do there.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::thread;

use simplevpn_tests::lab::Host;
use simplevpn_tests::lab::sites::Sites;

use super::{await_that, has_device, use_device};
use crate::program::{End, Program};

const DEVICE: &str = "copy0";
const MTU: u16 = 1400;
const PORT: u16 = 4999;

/// Starts it on both gateways.
pub(crate) fn start(sites: &Sites) -> Result<Vec<End>, String> {
    let (a, b) = ("192.0.2.1", "192.0.2.2");
    Ok(vec![run(sites, &sites.a, a, b)?, run(sites, &sites.b, b, a)?])
}

fn run(sites: &Sites, at: &Host, local: &str, remote: &str) -> Result<End, String> {
    let me = std::env::current_exe().map_err(|error| format!("cannot find myself: {error}"))?;
    let command = at.command(&format!("{} --copy {local} {remote}", me.display()));
    let end = End::Theirs(Program::start(at, command)?);
    await_that(&end, DEVICE, || has_device(at, DEVICE))?;
    use_device(sites, at, DEVICE, MTU);
    Ok(end)
}

/// The program itself, until it is killed.
pub(crate) fn copy(local: &str, remote: &str) -> Result<(), String> {
    let (mut from_host, mut to_host) = device(DEVICE)
        .and_then(|tun| Ok((tun.try_clone()?, tun)))
        .map_err(|e| format!("TUN: {e}"))?;
    let socket = UdpSocket::bind((local, PORT))
        .and_then(|socket| socket.connect((remote, PORT)).map(|()| socket))
        .and_then(|socket| Ok((socket.try_clone()?, socket)));
    let (from_wire, to_wire) = socket.map_err(|error| format!("UDP: {error}"))?;
    thread::spawn(move || forward(|room| from_wire.recv(room), |packet| to_host.write(packet)));
    forward(|room| from_host.read(room), |packet| to_wire.send(packet))
        .map_err(|error| format!("{DEVICE}: {error}"))
}

fn forward(
    mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    mut write: impl FnMut(&[u8]) -> io::Result<usize>,
) -> io::Result<()> {
    let mut room = vec![0; 65_536];
    loop {
        match read(&mut room) {
            // What the other side does not take is lost, as on any link.
            Ok(len) => drop(write(&room[..len])),
            // The other end has not begun.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
        }
    }
}

/// A TUN device, without headers before its packets.
fn device(name: &str) -> io::Result<File> {
    let tun = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: a C struct of numbers, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the request outlives the call, which reads it and writes the name.
    let done = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(tun) }
}
