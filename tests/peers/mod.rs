//! Independent ESP implementations to test against, and the traffic that is sent through them.
//!
//! - [`uml`] is the Linux kernel, booted as a process (User-Mode Linux)
//! - [`xfrm`] is what to tell that kernel, in the words of `ip xfrm`
//! - [`scapy`] is scapy's ESP, for packets that no honest peer would send
//! - [`load`] is what goes through the tunnels

pub mod load;
pub mod scapy;
pub mod uml;
pub mod xfrm;
