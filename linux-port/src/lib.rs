//! SimpleVPN on Linux: the parts of the `simplevpn` command.

pub mod config;
pub mod netlink;
#[cfg(test)]
pub(crate) mod netns;
pub mod nft;
pub mod resolver;
pub mod steering;
