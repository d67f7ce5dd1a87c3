//! Security associations in the words of `ip xfrm`.
//!
//! Two SAs and their policies make a tunnel. Both inner families share one SA (`flag af-unspec`,
//! no selector), as they do in SimpleVPN.

use std::net::IpAddr;

/// An ESP cipher, under its three names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cipher {
    /// RFC 7634.
    ChaCha20Poly1305,
    /// RFC 4106 with a 128-bit key.
    Aes128Gcm,
    /// RFC 4106 with a 256-bit key.
    Aes256Gcm,
}

impl Cipher {
    /// All of them.
    pub const ALL: [Cipher; 3] =
        [Cipher::ChaCha20Poly1305, Cipher::Aes128Gcm, Cipher::Aes256Gcm];

    /// The value of `option cipher`.
    #[must_use]
    pub const fn uci(self) -> &'static str {
        match self {
            Cipher::ChaCha20Poly1305 => "chacha20poly1305",
            Cipher::Aes128Gcm => "aes128gcm16",
            Cipher::Aes256Gcm => "aes256gcm16",
        }
    }

    /// The kernel's name for it.
    #[must_use]
    pub const fn kernel(self) -> &'static str {
        match self {
            Cipher::ChaCha20Poly1305 => "rfc7539esp(chacha20,poly1305)",
            Cipher::Aes128Gcm | Cipher::Aes256Gcm => "rfc4106(gcm(aes))",
        }
    }

    /// Length of key and salt together, in bytes (KEYMAT).
    #[must_use]
    pub const fn keymat(self) -> usize {
        match self {
            Cipher::Aes128Gcm => 20,
            Cipher::ChaCha20Poly1305 | Cipher::Aes256Gcm => 36,
        }
    }

    /// Key and salt in hexadecimal, different for each `seed`.
    #[must_use]
    pub fn key(self, seed: u8) -> String {
        let byte = |i: u8| i.wrapping_mul(151).wrapping_add(seed.wrapping_mul(59)) ^ 0xa5;
        (0..).take(self.keymat()).map(|i| format!("{:02x}", byte(i))).collect()
    }
}

/// One direction of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sa {
    /// Outer source.
    pub src: IpAddr,
    /// Outer destination.
    pub dst: IpAddr,
    /// Security parameter index.
    pub spi: u32,
    /// Cipher.
    pub cipher: Cipher,
    /// Key and salt in hexadecimal.
    pub key: String,
    /// Extended sequence numbers.
    pub esn: bool,
    /// UDP source and destination port, when encapsulated (RFC 3948).
    pub udp: Option<(u16, u16)>,
    /// Sequence number of the last packet sent: high and low half.
    pub sent: (u32, u32),
}

impl Sa {
    /// The command that adds this SA to the kernel's SAD.
    #[must_use]
    pub fn add(&self) -> String {
        let Sa { src, dst, spi, cipher, key, .. } = self;
        let esn = if self.esn { " esn" } else { "" };
        let encap = self.udp.map_or(String::new(), |(from, to)| {
            let any = if src.is_ipv4() { "0.0.0.0" } else { "::" };
            format!(" encap espinudp {from} {to} {any}")
        });
        let sent = match self.sent {
            (0, 0) => String::new(),
            (0, low) => format!(" replay-oseq {low:#x}"),
            (high, low) => format!(" replay-oseq {low:#x} replay-oseq-hi {high:#x}"),
        };
        format!(
            "ip xfrm state add src {src} dst {dst} proto esp spi {spi:#x} reqid 1 mode tunnel \
             replay-window 128{sent} flag af-unspec{esn} aead '{}' 0x{key} 128{encap}\n",
            cipher.kernel(),
        )
    }

    /// The command that removes it.
    #[must_use]
    pub fn delete(&self) -> String {
        let Sa { src, dst, spi, .. } = self;
        format!("ip xfrm state delete src {src} dst {dst} proto esp spi {spi:#x}\n")
    }
}

/// The policy that protects what goes from one inner prefix to the other, by ESP between `src`
/// and `dst`: `dir` is `out`, `in` or `fwd`.
#[must_use]
pub fn policy(dir: &str, inner: (&str, &str), src: IpAddr, dst: IpAddr) -> String {
    let (from, to) = inner;
    format!(
        "ip xfrm policy add src {from} dst {to} dir {dir} \
         tmpl src {src} dst {dst} proto esp reqid 1 mode tunnel\n"
    )
}

/// The command that empties the kernel's SAD and SPD.
pub const FLUSH: &str = "ip xfrm state flush; ip xfrm policy flush\n";
