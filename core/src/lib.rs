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

pub mod checksum;
pub mod counters;
pub mod crypto;
#[cfg(feature = "smoltcp")]
pub mod device;
pub mod ecn;
pub mod esp;
pub mod fragment;
pub mod icmp;
mod inner;
pub mod offset;
pub mod opener;
pub mod outer;
pub mod packet;
pub mod path;
pub mod pmtu;
pub mod sad;
pub mod sealer;
pub mod selectors;
pub mod spd;
mod table;
pub mod time;
mod trace;
pub mod tunnel;
pub mod wire;

pub use counters::{Discard, Discards, Traffic};
pub use offset::Offset;
pub use opener::{InboundPeer, Opener, OpenerEvent};
pub use packet::{HEADROOM, PacketBuf, TAILROOM};
pub use path::{Path, Transmit};
pub use sealer::{OutboundPeer, Sealed, Sealer, SealerEvent};
pub use selectors::Selectors;
pub use spd::{PeerId, Spd};
pub use time::Instant;
pub use tunnel::{Emit, Event, Tunnel};
