//! scapy as a peer: a driver for `esp_peer.py`, which says what its commands are.
//!
//! It runs in the Python environment that `tests/setup` makes: `scapy-venv` in the build's target
//! directory, or `$SIMPLEVPN_SCAPY`.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use crate::lab::daemon::Keys;
use crate::lab::{Host, process};
use crate::peers::uml::lines;

/// How long the peer may take to start (Python compiles scapy the first time), and to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Both SAs of a scapy peer, and what is on either side of them.
#[derive(Clone)]
pub struct Settings {
    /// Cipher, keys and SPIs.
    pub keys: Keys,
    /// Outer addresses: its own, and the other side's.
    pub outer: [IpAddr; 2],
    /// Inner IPv4 addresses: its own, and the one that it pings.
    pub inner4: [IpAddr; 2],
    /// Inner IPv6 addresses: its own, and the one that it pings.
    pub inner6: [IpAddr; 2],
    /// Extended sequence numbers.
    pub esn: bool,
    /// Encapsulated in UDP 4500 (RFC 3948).
    pub udp: bool,
}

/// A running peer. Dropping it ends it.
pub struct ScapyPeer {
    child: Child,
    commands: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl ScapyPeer {
    /// Starts a peer on `host`.
    ///
    /// # Panics
    /// When its Python environment is missing, or it does not start.
    #[must_use]
    pub fn start(host: &Host, settings: &Settings) -> ScapyPeer {
        let spawned = command(host, settings).and_then(|mut command| command.spawn());
        let mut child = spawned.unwrap_or_else(|e| panic!("cannot start scapy: {e}"));
        let commands = child.stdin.take();
        let answers = lines(child.stdout.take());
        let mut peer = ScapyPeer { child, commands, answers };
        assert_eq!(peer.answer("its start"), "ready");
        peer
    }

    /// Sends an echo request as described and waits a second for the reply.
    /// Returns whether it came.
    ///
    /// # Panics
    /// When the peer has died, as with all of its methods.
    pub fn ping(&mut self, how: &str) -> bool {
        self.reply(how).is_some()
    }

    /// The same; returns the sequence number of the ESP packet that the reply came in.
    pub fn reply(&mut self, how: &str) -> Option<u64> {
        let answer = self.tell(&format!("ping {how}"));
        answer.strip_prefix("reply ").and_then(|seq| seq.parse().ok())
    }

    /// Sends an echo request as described.
    pub fn send(&mut self, how: &str) {
        let answer = self.tell(&format!("send {how}"));
        assert!(answer.starts_with("sent "), "scapy, send {how}: {answer}");
    }

    /// Sends the last packet once more.
    pub fn replay(&mut self) {
        let answer = self.tell("again");
        assert!(answer.starts_with("sent "), "scapy, again: {answer}");
    }

    /// Sends an echo request as described, without ESP.
    pub fn send_plain(&mut self, how: &str) {
        let answer = self.tell(&format!("plain {how}"));
        assert!(answer.starts_with("sent "), "scapy, plain {how}: {answer}");
    }

    /// What has arrived so far.
    pub fn seen(&mut self) -> Seen {
        let answer = self.tell("seen");
        let words: Vec<&str> = answer.split_whitespace().collect();
        let count = |name: &str| {
            let at = words.iter().position(|&word| word == name);
            at.and_then(|at| words.get(at + 1)?.parse().ok())
                .unwrap_or_else(|| panic!("scapy, seen: {answer}"))
        };
        Seen {
            opened: count("opened"),
            requests: count("requests"),
            replies: count("replies"),
            refused: count("refused"),
        }
    }

    fn tell(&mut self, command: &str) -> String {
        let told = match self.commands.as_mut() {
            Some(line) => writeln!(line, "{command}"),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        told.unwrap_or_else(|e| panic!("scapy, {command}: {e}"));
        self.answer(command)
    }

    fn answer(&mut self, to: &str) -> String {
        self.answers
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|_| panic!("scapy says nothing to {to}; its error is above"))
    }
}

impl Drop for ScapyPeer {
    fn drop(&mut self) {
        process::kill(&mut self.child);
    }
}

/// What a scapy peer has received through its tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// ESP packets that it could open.
    pub opened: u64,
    /// Echo requests among them; all were answered.
    pub requests: u64,
    /// Echo replies among them.
    pub replies: u64,
    /// ESP packets that it refused.
    pub refused: u64,
}

fn command(host: &Host, settings: &Settings) -> io::Result<Command> {
    let Settings { keys, outer, inner4, inner6, esn, udp } = settings;
    let python = venv()?.join("bin/python");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/esp_peer.py");
    let mut command = host.command(&python.to_string_lossy());
    command.args(["-B", script, "--cipher", keys.cipher]);
    for (name, pair) in [("", outer), ("4", inner4), ("6", inner6)] {
        for (side, address) in ["local", "remote"].iter().zip(pair) {
            command.args([format!("--{side}{name}"), address.to_string()]);
        }
    }
    for (side, spi, key) in
        [("in", keys.spi_in, &keys.key_in), ("out", keys.spi_out, &keys.key_out)]
    {
        command.args([format!("--spi-{side}"), spi.to_string()]);
        command.args([format!("--key-{side}"), key.clone()]);
    }
    for (wanted, flag) in [(esn, "--esn"), (udp, "--udp")] {
        if *wanted {
            command.arg(flag);
        }
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    Ok(command)
}

fn venv() -> io::Result<PathBuf> {
    let chosen = std::env::var_os("SIMPLEVPN_SCAPY").map(PathBuf::from);
    let me = std::env::current_exe()?;
    let beside = me.ancestors().skip(1).take(4).map(|dir| dir.join("scapy-venv"));
    chosen
        .into_iter()
        .chain(beside)
        .find(|dir| dir.join("bin/python").exists())
        .ok_or_else(|| io::Error::other("no Python environment with scapy: run tests/setup"))
}
