//! IKE and the tunnels that it keys in virtual time: whatever happens to messages and nodes, both
//! ends agree in the end, and new keys cost no packet.
#![allow(clippy::unwrap_used)] // clippy takes helpers of tests for no tests

mod attack;
mod faults;
mod flood;
mod hub;
mod kinds;
mod paths;
mod restarts;
mod simultaneous;
mod years;
