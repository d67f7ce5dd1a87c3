//! Which AEAD protects the packets: the fastest that there is for the machine it is built for.
//!
//! | built for | feature `ring` | provider |
//! |---|---|---|
//! | x86-64, 64-bit ARM | on, as by default | [`ring`](https://docs.rs/ring): assembly for each generation of processor |
//! | x86-64, 64-bit ARM | off | RustCrypto, from the core |
//! | everything else | either | RustCrypto, from the core |
//!
//! Whichever it is, it is called [`Key`], implements [`Aead`](simplevpn_core::crypto::Aead), passes
//! the same vectors (`tests/aead.rs`) and keeps a ChaCha20-Poly1305 key in less than 48 bytes and
//! expanded AES keys on the heap, so that a hub's thousands of SAs stay small. IKE's own messages,
//! a few per hour, are left to RustCrypto everywhere.

#[cfg(all(feature = "ring", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod ring;

#[cfg(all(feature = "ring", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) use ring::fetch;
#[cfg(all(feature = "ring", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub use ring::{Key, PROVIDER};

/// A key of an SA, ready to use.
#[cfg(not(all(feature = "ring", any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub type Key = simplevpn_core::crypto::Suite<
    Box<simplevpn_core::crypto::Aes128Gcm16>,
    Box<simplevpn_core::crypto::Aes256Gcm16>,
>;

/// What [`Key`] is built on.
#[cfg(not(all(feature = "ring", any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub const PROVIDER: &str = "RustCrypto";

/// Begins to fetch what a key has on the heap.
#[cfg(not(all(feature = "ring", any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub(crate) fn fetch(key: &Key, fetch: &impl simplevpn_core::ahead::Fetch<Key>) {
    match key {
        Key::ChaCha20Poly1305(_) => {}
        Key::Aes128Gcm16(expanded) => fetch.value(&**expanded),
        Key::Aes256Gcm16(expanded) => fetch.value(&**expanded),
    }
}
