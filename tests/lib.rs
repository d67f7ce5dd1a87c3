//! Tests of SimpleVPN that need more than one crate: simulation, labs, interoperability, benchmarks.

pub mod hostile;
pub mod ike;
pub mod lab;
pub mod peers;
pub mod sim;
