//! Views over bytes, for what `smoltcp::wire` does not have.

pub mod esp;
