//! SimpleVPN on Linux: the parts of the `simplevpn` command.

pub mod batch;
pub mod clock;
mod cmsg;
pub mod config;
pub mod control;
pub mod error_queue;
pub mod esp_socket;
mod json;
pub mod outer_socket;
pub mod privileges;
mod sockaddr;
pub mod status;
#[cfg(test)]
mod testing;
pub mod tun;
pub mod udp_socket;
