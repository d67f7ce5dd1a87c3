//! # simplevpn-core
//!
//! ESP (RFC 4303) in tunnel mode for any machine that has an AEAD and some bytes: `no_std`, no
//! heap, no unsafe. The core never opens a socket, reads a clock or draws randomness; bytes and
//! [`Instant`]s come in as arguments, bytes, events and the next deadline come out.
//!
//! The modules, in the order in which a packet meets them: see the list below.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

#[cfg(test)]
extern crate std;

pub mod counters;
pub mod crypto;
pub mod esp;
pub mod packet;
pub mod path;
pub mod sad;
pub mod spd;
mod table;
pub mod time;
pub mod wire;

pub use counters::{Discard, Discards, Traffic};
pub use packet::{HEADROOM, PacketBuf, TAILROOM};
pub use path::{Path, Transmit};
pub use time::Instant;
