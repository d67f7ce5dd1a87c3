//! Tunnels in virtual time: what applications see of them, whatever the link does.
#![allow(clippy::unwrap_used)] // clippy takes helpers of tests for no tests

mod attack;
mod hub;
mod link;
mod moving;
mod mtu;
mod places;
mod tcp;
mod timing;
mod udp;
