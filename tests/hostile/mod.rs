//! Hostile input: random and mutated packets against the core, in runs that can be repeated.
//!
//! [`Attack`] sends a tunnel what a stranger, a misbehaving peer and a careless host could send
//! it, and checks after each packet that it was delivered or counted, once, and that nothing which
//! was altered is delivered. [`targets`] are the same checks as functions of bytes, for cargo-fuzz
//! (`tests/fuzz`). The command `hostile` runs as many packets as it is told to.

#![allow(clippy::unwrap_used)] // a check that cannot go on has failed

mod attack;
mod exchanges;
mod ike;
mod offloads;
mod packets;
mod random;
mod states;
pub mod targets;
mod world;

pub use attack::{Attack, Tally};
pub use random::Random;
