//! SimpleVPN on Linux: the parts of the `simplevpn` command.

pub mod config;
pub mod keys;
