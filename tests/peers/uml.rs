//! The Linux kernel as a peer: a User-Mode Linux guest, attached to a network namespace by a TAP
//! device.
//!
//! The guest's root is the host's own file system, mounted read-only, so that it has the host's
//! `ip`, `tc` and `ping`; it can write to one temporary directory only. Scripts go in through that
//! directory, a serial line says when they ended. The guest powers itself off when the line
//! closes, so nothing stays behind even when the test is killed.
//!
//! Needs the Debian packages `user-mode-linux` and `kmod`. One processor, no KVM, boots in about
//! a second.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use crate::lab::{Host, process};
use crate::peers::load::{Load, PATIENCE, peer_tool};

/// How long a guest may take until it answers.
const BOOT: Duration = Duration::from_secs(30);

/// A running guest. Dropping it ends it.
pub struct UmlPeer {
    child: Child,
    commands: Option<ChildStdin>,
    replies: Receiver<String>,
    next: u32,
    dir: PathBuf,
}

/// Makes a TAP device on `host` for a guest to attach to, with addresses (prefix lengths included,
/// separated by spaces), and brings it up.
pub fn add_tap(host: &Host, tap: &str, addresses: &str) {
    host.run(&format!("ip tuntap add {tap} mode tap"));
    host.run(&format!("ip link set {tap} up"));
    for address in addresses.split_whitespace() {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        host.run(&format!("ip addr add {address} dev {tap} {nodad}"));
    }
}

impl UmlPeer {
    /// Boots a guest beside `host`; its `vec0`, `vec1`, … are wired to the TAP devices `taps` there.
    ///
    /// # Panics
    /// When User-Mode Linux is not installed, or the guest does not come up within 30 seconds:
    /// with its console's text.
    #[must_use]
    pub fn start(host: &Host, taps: &[&str]) -> UmlPeer {
        let dir = private_dir().unwrap_or_else(|e| panic!("temporary directory: {e}"));
        let spawned = command(host, taps, &dir).and_then(|mut command| command.spawn());
        let mut child = spawned.unwrap_or_else(|e| panic!("cannot start a guest: {e}"));
        let commands = child.stdin.take();
        let replies = lines(child.stdout.take());
        let mut peer = UmlPeer { child, commands, replies, next: 1, dir };
        match peer.reply(BOOT) {
            Ok(line) if line == "ready" => peer,
            other => panic!("the guest did not boot: {other:?}\n{}", peer.console()),
        }
    }

    /// The directory that host and guest share, under the same path on both.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Runs a shell script in the guest, and returns what it printed, standard error included.
    /// It must redirect the output of background processes that it leaves behind.
    ///
    /// # Panics
    /// When it fails or runs longer than a minute, with its output.
    pub fn run(&mut self, script: &str) -> String {
        match self.attempt(script, PATIENCE) {
            (0, output) => output,
            (status, output) => panic!("guest: status {status}\n{script}\n{output}"),
        }
    }

    /// As [`UmlPeer::run`], for a script that may fail: its exit status comes first.
    ///
    /// # Panics
    /// When the guest does not answer within `patience`.
    pub fn attempt(&mut self, script: &str, patience: Duration) -> (i32, String) {
        let n = self.next;
        self.next += 1;
        let (status, output) = self
            .order(n, script)
            .and_then(|()| self.reply(patience))
            .and_then(|reply| self.outcome(n, &reply))
            .unwrap_or_else(|e| panic!("guest: {e}\n{script}\n{}", self.console()));
        (status, output)
    }

    /// Gives `vec0` its addresses (with prefix lengths), and the loopback device the inner ones
    /// (without); words are separated by spaces.
    ///
    /// # Panics
    /// When the guest refuses.
    pub fn is_at(&mut self, outer: &str, inner: &str) {
        let mut script = String::from("set -e\nip link set vec0 up\n");
        for (device, addresses) in [("vec0", outer), ("lo", inner)] {
            for address in addresses.split_whitespace() {
                let nodad = if address.contains(':') { "nodad" } else { "" };
                script += &format!("ip addr add {address} dev {device} {nodad}\n");
            }
        }
        self.run(&script);
    }

    /// The same, and UDP-encapsulated ESP is welcome from now on.
    ///
    /// # Panics
    /// When the guest refuses.
    pub fn joins(&mut self, outer: &str, inner: &str) {
        self.is_at(outer, inner);
        self.background("udp-encap 4500");
    }

    /// Returns what comes by TCP and UDP to port 7 of its addresses, until it ends.
    ///
    /// # Panics
    /// When the port is taken.
    pub fn serves(&mut self) {
        self.background("serve :: 7");
    }

    /// Sends a load to `far`.
    ///
    /// # Panics
    /// When something is altered, or lost against the load's terms.
    pub fn sends(&mut self, far: &str, load: Load) {
        load.check(&self.run(&load.script(far)));
    }

    fn background(&mut self, words: &str) {
        let tool = peer_tool();
        let n = self.next;
        self.run(&format!(
            "{tool} {words} >$DIR/background.{n} 2>&1 &\n\
             for i in 1 2 3 4 5 6 7 8 9; do\n\
             grep -q ready $DIR/background.{n} && exit 0\n\
             sleep 0.1\n\
             done\n\
             cat $DIR/background.{n}; exit 1\n",
            tool = tool.display(),
        ));
    }

    fn order(&mut self, n: u32, script: &str) -> Result<(), String> {
        let file = self.dir.join(format!("cmd.{n}"));
        fs::write(&file, script).map_err(|e| format!("{}: {e}", file.display()))?;
        let line = self.commands.as_mut().ok_or("it was powered off")?;
        writeln!(line, "{n}").map_err(|e| format!("serial line: {e}"))
    }

    fn outcome(&self, n: u32, reply: &str) -> Result<(i32, String), String> {
        let status = reply
            .strip_prefix(&format!("{n} "))
            .and_then(|status| status.parse().ok())
            .ok_or_else(|| format!("unexpected answer {reply:?}"))?;
        let file = self.dir.join(format!("out.{n}"));
        let output = fs::read(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        Ok((status, String::from_utf8_lossy(&output).into_owned()))
    }

    /// What the guest's kernel printed, and what the modules it needs failed with.
    #[must_use]
    pub fn console(&self) -> String {
        let text = fs::read(self.dir.join("console")).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Powers the guest off in good order.
    ///
    /// # Panics
    /// When it has not ended after five seconds.
    pub fn power_off(mut self) {
        drop(self.commands.take());
        let ended = process::wait(&mut self.child, Duration::from_secs(5));
        assert!(ended.is_some(), "the guest does not power off\n{}", self.console());
    }

    fn reply(&mut self, patience: Duration) -> Result<String, String> {
        self.replies.recv_timeout(patience).map_err(|e| match e {
            RecvTimeoutError::Timeout => format!("no answer within {} s", patience.as_secs()),
            RecvTimeoutError::Disconnected => "it ended".into(),
        })
    }
}

impl Drop for UmlPeer {
    fn drop(&mut self) {
        // Its helper processes and the guest's own are in the process group that it leads.
        let group = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn command(host: &Host, taps: &[&str], dir: &Path) -> io::Result<Command> {
    const KERNEL: &str = "/usr/bin/linux.uml";
    if !Path::new(KERNEL).is_file() {
        return Err(io::Error::other("apt-get install user-mode-linux kmod"));
    }
    let init = dir.join("init");
    fs::write(&init, include_str!("guest-init"))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    let mut command = host.command(KERNEL);
    command.args(["mem=96M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet"]);
    command.args([format!("init={}", init.display()), format!("DIR={}", dir.display())]);
    // Console to standard error, the first serial line to standard input and output, no others.
    command.args(["con=null", "con0=null,fd:2", "ssl=null", "ssl0=fd:0,fd:1"]);
    command.args([format!("uml_dir={}", dir.display()), "umid=guest".into()]);
    for (n, tap) in taps.iter().enumerate() {
        command.arg(format!("vec{n}:transport=tap,ifname={tap},depth=128"));
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(fs::File::create(dir.join("console"))?).process_group(0);
    Ok(command)
}

fn private_dir() -> io::Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("simplevpn-uml-{}-{n}", std::process::id()));
    fs::DirBuilder::new().mode(0o700).create(&dir)?;
    Ok(dir)
}

/// The lines of a pipe, read by a thread, so that waiting for one can be bounded.
pub(super) fn lines(from: Option<impl io::Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = channel();
    if let Some(from) = from {
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
    }
    receiver
}
