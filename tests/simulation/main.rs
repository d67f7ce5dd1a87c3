//! Tunnels in virtual time: what applications see of them, whatever the link does.

mod attack;
mod hub;
mod link;
mod moving;
mod mtu;
mod places;
mod tcp;
mod timing;
mod udp;
