//! Tunnels in virtual time: what applications see of them, whatever the link does.

mod link;
mod places;
mod tcp;
