//! SimpleVPN on Linux: the parts of the `simplevpn` command.

pub mod cli;
pub mod config;
pub mod keys;
pub mod logger;
pub mod sequence_state;
