//! Vectors that nobody here wrote, on the AEADs of RustCrypto. Whoever brings another provider runs
//! the same on that.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use simplevpn_core::crypto::AnyAead as Key;

#[path = "aead/vectors.rs"]
mod vectors;
