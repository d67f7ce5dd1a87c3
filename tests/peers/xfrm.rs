//! A tunnel in the words of `ip xfrm`.

use std::net::IpAddr;

use crate::lab::daemon::Keys;

/// The command that empties the kernel's SAD and SPD.
pub const FLUSH: &str = "ip xfrm state flush; ip xfrm policy flush\n";

/// Two SAs and their policies, as one end has them. Both inner families share an SA (`flag
/// af-unspec`, no selector), as they do in SimpleVPN.
#[derive(Clone)]
pub struct Tunnel {
    /// Ciphers, keys and SPIs.
    pub keys: Keys,
    /// Outer addresses: its own, and the other end's.
    pub outer: [IpAddr; 2],
    /// What is protected: pairs of its own prefix and the other end's.
    pub inner: Vec<[&'static str; 2]>,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Encapsulated in UDP 4500 (RFC 3948).
    pub udp: bool,
}

impl Tunnel {
    /// The shell commands that make it, in place of all that was there before.
    #[must_use]
    pub fn script(&self) -> String {
        let [local, remote] = self.outer;
        let inbound = self.sa([remote, local], self.keys.spi_in, &self.keys.key_in, 0);
        let outbound = self.sa([local, remote], self.keys.spi_out, &self.keys.key_out, 0);
        let mut script = ["set -e\n", FLUSH, &inbound, &outbound].concat();
        for &[here, there] in &self.inner {
            script += &policy("out", [here, there], [local, remote]);
            script += &policy("in", [there, here], [remote, local]);
            script += &policy("fwd", [there, here], [remote, local]);
        }
        script
    }

    /// The shell commands after which the next packet sent has the sequence number `next`.
    #[must_use]
    pub fn sends_from(&self, next: u64) -> String {
        let [local, remote] = self.outer;
        let spi = self.keys.spi_out;
        let outbound = self.sa([local, remote], spi, &self.keys.key_out, next - 1);
        format!("set -e\nip xfrm state delete src {local} dst {remote} proto esp spi {spi:#x}\n")
            + &outbound
    }

    fn sa(&self, [src, dst]: [IpAddr; 2], spi: u32, key: &str, sent: u64) -> String {
        let cipher = match self.keys.cipher {
            "chacha20poly1305" => "rfc7539esp(chacha20,poly1305)",
            _ => "rfc4106(gcm(aes))",
        };
        let esn = if self.esn { "esn" } else { "" };
        let any = if src.is_ipv4() { "0.0.0.0" } else { "::" };
        let encap =
            if self.udp { format!("encap espinudp 4500 4500 {any}") } else { String::new() };
        let (high, low) = (sent >> 32, sent & 0xffff_ffff);
        let high = if self.esn { format!("replay-oseq-hi {high:#x}") } else { String::new() };
        format!(
            "ip xfrm state add src {src} dst {dst} proto esp spi {spi:#x} reqid 1 mode tunnel \
             replay-window 128 replay-oseq {low:#x} {high} flag af-unspec {esn} \
             aead '{cipher}' 0x{key} 128 {encap}\n"
        )
    }
}

fn policy(dir: &str, [from, to]: [&str; 2], [src, dst]: [IpAddr; 2]) -> String {
    format!(
        "ip xfrm policy add src {from} dst {to} dir {dir} \
         tmpl src {src} dst {dst} proto esp reqid 1 mode tunnel\n"
    )
}
