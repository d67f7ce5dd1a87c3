//! SimpleVPN on Linux: the parts of the `simplevpn` command.

pub mod batch;
pub mod capacity;
pub mod cli;
pub mod clock;
mod cmsg;
pub mod config;
pub mod control;
pub mod crypto;
pub mod daemon;
pub mod error_queue;
pub mod esp_socket;
mod json;
pub mod keys;
pub mod logger;
mod netifd;
pub mod netlink;
#[cfg(test)]
pub(crate) mod netns;
pub mod nft;
pub mod outer_socket;
mod pages;
pub mod prefetch;
pub mod privileges;
mod program;
pub mod resolver;
pub mod send_drops;
pub mod send_queue;
pub mod sequence_state;
mod sockaddr;
mod socket_option;
mod sorted;
pub mod status;
pub mod steering;
pub mod stranger_socket;
#[cfg(test)]
mod testing;
pub mod tun;
pub mod udp_socket;
