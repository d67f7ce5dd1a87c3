//! WireGuard in user space: programs that make a device and are told over a socket in
//! /run/wireguard what to do, with `wg`.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use simplevpn_tests::lab::Host;
use simplevpn_tests::lab::sites::Sites;

use super::{ask, await_that, use_device, write};
use crate::program::{End, Program};

const PORT: u16 = 51820;
/// What `wg-quick` sets on a link of 1500 bytes.
const MTU: u16 = 1420;

/// Starts `program` on both gateways.
pub(crate) fn start(sites: &Sites, program: &str, arguments: &str) -> Result<Vec<End>, String> {
    let key = || ask(&sites.a, "wg genkey", "");
    let (of_a, of_b) = (key()?, key()?);
    let public = |key: &str| ask(&sites.a, "wg pubkey", key);
    let a = run(sites, &sites.a, program, arguments, &of_a, &public(&of_b)?, "192.0.2.2")?;
    let b = run(sites, &sites.b, program, arguments, &of_b, &public(&of_a)?, "192.0.2.1")?;
    Ok(vec![a, b])
}

fn run(
    sites: &Sites,
    at: &Host,
    program: &str,
    arguments: &str,
    key: &str,
    peer: &str,
    endpoint: &str,
) -> Result<End, String> {
    // All machines see the same directory of sockets, so that devices need names of their own.
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let device = format!("wg{}", SERIAL.fetch_add(1, Ordering::Relaxed));
    let end = Program::start(at, at.command(&format!("{program} {arguments} {device}")))?;
    let end = End::Theirs(end);
    let socket = format!("/var/run/wireguard/{device}.sock");
    await_that(&end, &socket, || Path::new(&socket).exists())?;
    let key = write(at, "key", key)?;
    ask(
        at,
        &format!(
            "wg set {device} listen-port {PORT} private-key {key} \
             peer {peer} endpoint {endpoint}:{PORT} allowed-ips 0.0.0.0/0"
        ),
        "",
    )?;
    use_device(sites, at, &device, MTU);
    Ok(end)
}
