//! Independent implementations to test against, and the traffic that is sent through them.
//!
//! - [`uml`] is the Linux kernel, booted as a process (User-Mode Linux)
//! - [`xfrm`] is what to tell that kernel, in the words of `ip xfrm`
//! - [`scapy`] is scapy's ESP, for packets that no honest peer would send
//! - [`strongswan`] is strongSwan's IKE and user-space ESP
//! - [`swanctl`] is what to tell strongSwan, in the words of `swanctl.conf`
//! - [`vici`] is what strongSwan tells of itself
//! - [`libreswan`] is libreswan's IKE with the Linux kernel's ESP
//! - [`load`] is what goes through the tunnels

pub mod libreswan;
pub mod load;
pub mod scapy;
pub mod strongswan;
pub mod swanctl;
pub mod uml;
pub mod vici;
pub mod xfrm;
