//! `keying 'manual'`: both SAs of a peer written down in the configuration.
//!
//! RFC 8221 §3 and RFC 4106 §2 forbid counter-mode AEADs with manual keys, because a restart
//! repeats nonces; `crate::sequence_state` is what keeps that from happening.

use simplevpn_core::crypto::{Cipher, SALT_LEN};
use zeroize::Zeroizing;

use super::diagnostic::Report;
use super::model::ManualKeys;
use super::options::Options;
use super::value;
use crate::keys;

/// Where the parts stand that no other peer may have as well.
#[derive(Default)]
pub(super) struct Lines {
    pub(super) spi_in: usize,
    pub(super) key_in: usize,
    pub(super) key_out: usize,
}

/// Options of IKE: with manual keys nothing would look at them, and some promise security.
const IKE_ONLY: [(&str, &str); 9] = [
    ("public_key", "authenticates nobody with keying 'manual'; remove it"),
    ("preshared_key", "authenticates nobody with keying 'manual'; remove it"),
    ("preshared_key_file", "authenticates nobody with keying 'manual'; remove it"),
    ("preshared_key_weak", "accepts nothing with keying 'manual'; remove it"),
    ("ppk_id", "protects nothing with keying 'manual'; remove it"),
    ("ppk_required", "protects nothing with keying 'manual'; remove it"),
    ("local_id", "is not sent with keying 'manual'; remove it"),
    ("remote_id", "is not checked with keying 'manual'; remove it"),
    ("start", "has no effect with keying 'manual', whose SAs are always there; remove it"),
];

/// Reads the options of manual keying; `None` if they are not complete.
pub(super) fn read(options: &Options<'_, '_>, report: &mut Report) -> Option<(ManualKeys, Lines)> {
    for (name, why) in IKE_ONLY {
        options.refuse(name, why, report);
    }
    let ciphers = Cipher::ALL.map(|cipher| (cipher.name(), cipher));
    let cipher = match options.one("cipher") {
        None => Some(Cipher::ChaCha20Poly1305),
        Some(_) => options.get("cipher", report, |text| value::choice(text, &ciphers)),
    };
    let esn = options.get("esn", report, value::boolean).unwrap_or(true);
    let replay_window = options.get("replay_window", report, replay_window).unwrap_or(2048);
    require(options, report);
    let spi_in = options.get("spi_in", report, spi);
    let spi_out = options.get("spi_out", report, spi);
    let key_in = options.secret("key_in", report, |text| key(text, cipher));
    let key_out = options.secret("key_out", report, |text| key(text, cipher));
    let line = |name| options.one(name).map_or(0, |value| value.line);
    let lines = Lines { spi_in: line("spi_in"), key_in: line("key_in"), key_out: line("key_out") };
    let keys = ManualKeys {
        cipher: cipher?,
        spi_in: spi_in?,
        spi_out: spi_out?,
        key_in: key_in?,
        key_out: key_out?,
        esn,
        replay_window,
    };
    Some((keys, lines))
}

/// Reports each of the options that have no default and are missing.
fn require(options: &Options<'_, '_>, report: &mut Report) {
    for (name, what) in [
        ("spi_in", "a number from 0x100 to 0xffffffff, the peer's spi_out"),
        ("spi_out", "a number from 0x100 to 0xffffffff, the peer's spi_in"),
        ("key_in", "key and salt in hex digits, the peer's key_out"),
        ("key_out", "key and salt in hex digits, the peer's key_in"),
    ] {
        if options.one(name).is_none() {
            let message = format!("keying 'manual' without {name}; add option {name}: {what}");
            report.error(options.line(), message);
        }
    }
}

/// SPIs 0 to 255 are not for use (RFC 4303 §2.1).
fn spi(text: &str) -> Result<u32, String> {
    match value::number(text) {
        Some(spi @ 0x100..) => Ok(spi),
        Some(_) => Err("is reserved; write a number from 0x100 to 0xffffffff".to_owned()),
        None => Err("is not an SPI; write a number from 0x100 to 0xffffffff".to_owned()),
    }
}

fn replay_window(text: &str) -> Result<u32, String> {
    value::within(text, 32..=65536).ok().filter(|window| window % 32 == 0).ok_or_else(|| {
        "is not a window; write a multiple of 32 from 32 to 65536, in packets".to_owned()
    })
}

/// Key and salt in hex digits, with or without `0x`, of the length that `cipher` needs.
fn key(text: &str, cipher: Option<Cipher>) -> Result<Zeroizing<Vec<u8>>, String> {
    let key = keys::bytes_of_hex(text.strip_prefix("0x").unwrap_or(text))?;
    match cipher {
        Some(cipher) if key.len() != cipher.keymat_len() => Err(format!(
            "has {} bytes; {} needs {}: {} of key and {SALT_LEN} of salt, {} hex digits",
            key.len(),
            cipher.name(),
            cipher.keymat_len(),
            cipher.key_len(),
            cipher.keymat_len() * 2
        )),
        _ => Ok(key),
    }
}
