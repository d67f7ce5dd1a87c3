//! Simulation: tunnels with TCP/IP stacks on top, in virtual time, over a link that misbehaves.
//!
//! Nothing here reads a clock or draws entropy: the same seed gives the same run. Time jumps from
//! one wake-up to the next. The link knows what it did to each packet, so that it can be told of
//! every single one whether the tunnel had to take or to drop it; [`Net`] checks that.

// What fails here is the test that uses it.
#![allow(clippy::unwrap_used)]

mod datagrams;
mod endpoint;
mod link;
mod net;
mod random;
mod transfer;

pub use datagrams::Datagrams;
pub use endpoint::{Endpoint, Setup};
pub use link::{Flight, Link, Percent};
pub use net::{Net, Tie};
pub use random::SplitMix64;
pub use transfer::Transfer;
