//! What is sent through a tunnel between a machine of the lab and a guest: the same script on
//! either side, with `peer-tool` (tool.rs) for TCP and UDP.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::lab::{Host, process};

/// How long a load may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Pings, one TCP stream there and back, datagrams there and back one by one.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Bytes of the TCP stream, each way.
    pub stream: usize,
    /// Bytes of each of ten datagrams.
    pub datagram: usize,
    /// The wire loses packets: the stream has to be complete, of the rest something has to return.
    pub lossy: bool,
}

impl Load {
    /// The shell script that sends it to `far`, an address where `peer-tool serve` listens.
    #[must_use]
    pub fn script(&self, far: &str) -> String {
        let tool = peer_tool();
        let tool = tool.display();
        let Load { stream, datagram, lossy } = self;
        let patience = if *lossy { 300 } else { 10_000 };
        // Of several, ping waits for the last no longer than its interval.
        let ping = if *lossy {
            format!("ping -c 4 -i 0.1 -W 1 {far}")
        } else {
            format!("for n in 1 2 3 4; do ping -c 1 -W 10 {far}; done")
        };
        format!(
            "set -e\n\
             {ping}\n\
             {tool} tcp {far} 7 {stream}\n\
             {tool} udp {far} 7 {datagram} 10 {patience}\n"
        )
    }

    /// Checks what the script printed.
    ///
    /// # Panics
    /// When something was lost and should not have been.
    pub fn check(&self, said: &str) {
        if !self.lossy {
            assert_eq!(said.matches(" 0% packet loss").count(), 4, "{said}");
            assert!(said.contains("10 of 10 datagrams"), "{said}");
        }
    }
}

/// `peer-tool serve` on a machine of the lab; dropping it ends it.
pub struct Service(Child);

impl Host {
    /// Sends a load to `far`.
    ///
    /// # Panics
    /// When something is altered, or lost against the load's terms.
    pub fn sends(&self, far: &str, load: Load) {
        let output = process::run(self.command("sh"), &load.script(far), PATIENCE);
        let said = output.stdout + &output.stderr;
        assert!(output.success, "{} to {far}:\n{said}", self.name());
        load.check(&said);
    }

    /// Returns what comes by TCP and UDP to port 7 of its addresses, present and future.
    ///
    /// # Panics
    /// When the port is taken.
    #[must_use]
    pub fn serves(&self) -> Service {
        let mut command = self.command(&format!("{} serve :: 7", peer_tool().display()));
        let spawned = command.stdout(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|e| panic!("peer-tool serve: {e}"));
        let first = super::uml::lines(child.stdout.take()).recv_timeout(process::PATIENCE);
        assert_eq!(first.as_deref(), Ok("ready"), "peer-tool serve on {}", self.name());
        Service(child)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        process::kill(&mut self.0);
    }
}

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
