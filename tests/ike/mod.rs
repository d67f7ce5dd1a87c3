//! Simulation of IKE with real ESP: endpoints, the tunnels that they key, and a link that
//! misbehaves, in virtual time.
//!
//! Packets pass in both directions all the time. Once two nodes are connected, it is checked for
//! each packet that the receiver has the SA it is sent with, and that it accepts what arrives
//! unaltered and for the first time; and of every IKE message that no IV is used twice, of every
//! key that it is installed once.

#![allow(clippy::unwrap_used)] // a run that cannot go on has failed

mod database;
mod dice;
mod net;
mod node;
mod spy;

pub use database::Database;
pub use dice::Dice;
pub use net::{Fault, Kind, Net};
pub use node::{Auth, Nat, Node, Peer, Table, identity};
pub use spy::{CIPHER, Plain, Spy};
