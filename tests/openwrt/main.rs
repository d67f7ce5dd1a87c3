//! The OpenWrt package, and the scripts in it: netifd's handler of the protocol and the init script.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod firewall;
mod guard;
mod handler;
mod life;
mod package;
mod router;
mod secrets;

/// Interface `name` with one peer in manual keying, of SPIs and keys that are its own; `interface`
/// and `peer` are more lines of each.
fn vpn(name: &str, interface: &str, peer: &str) -> String {
    let (key_in, key_out) = keys(name);
    let spi = 0x1000 + u32::from(number(name));
    format!(
        "config interface '{name}'\n\toption proto 'simplevpn'\n{interface}\n\
         config simplevpn_{name} '{name}_peer'\n\
         \tlist allowed_ips '10.1.0.0/16'\n\
         \toption keying 'manual'\n\
         \toption spi_in '{spi:#x}'\n\
         \toption spi_out '0x2001'\n\
         \toption key_in '{key_in}'\n\
         \toption key_out '{key_out}'\n{peer}\n"
    )
}

fn number(name: &str) -> u8 {
    name.trim_start_matches("vpn").parse().unwrap()
}

/// The keys of the peer of interface `name`.
fn keys(name: &str) -> (String, String) {
    let key = |first: u8| format!("{first:02x}").repeat(36);
    (key(0x10 + number(name)), key(0xa0 + number(name)))
}
