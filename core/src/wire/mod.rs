//! Views over bytes on the wire that `smoltcp::wire` lacks.

pub mod esp;
pub(crate) mod ip;
pub mod natt;
#[cfg(test)]
pub(crate) mod samples;
