//! Independent ESP implementations to test against, and the traffic that is sent through them.
//!
//! - [`uml`]: the Linux kernel, booted as a process (User-Mode Linux).
//! - [`xfrm`]: what to tell that kernel, in the words of `ip xfrm`.
//! - [`scapy`]: scapy's ESP, for packets that no honest peer would send.
//!
//! All of them live in a network namespace that the caller made; `peer-tool` (tool.rs) sends and
//! answers TCP and UDP on either side.

pub mod scapy;
pub mod uml;
pub mod xfrm;

use std::path::PathBuf;

/// The path of `peer-tool`, in this build's directory.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn peer_tool() -> PathBuf {
    let me = std::env::current_exe().unwrap_or_else(|e| panic!("cannot find myself: {e}"));
    me.ancestors()
        .skip(1)
        .take(3)
        .map(|dir| dir.join("peer-tool"))
        .find(|tool| tool.is_file())
        .unwrap_or_else(|| panic!("no peer-tool beside {}: cargo build --bins", me.display()))
}
