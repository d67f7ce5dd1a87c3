//! A tunnel's end as a process: its life, its log, what it takes of the machine.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use simplevpn_tests::lab::daemon::Daemon;
use simplevpn_tests::lab::{Host, process};

/// Somebody else's program; dropping it kills it.
pub(crate) struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts `command` on `host`; what it says goes to a file.
    pub(crate) fn start(host: &Host, mut command: Command) -> Result<Program, String> {
        let log = host.dir().join("program.log");
        let name = command.get_program().to_string_lossy().into_owned();
        let out = File::create(&log).and_then(|out| Ok((out.try_clone()?, out)));
        let (out, err) = out.map_err(|error| format!("{}: {error}", log.display()))?;
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let child = command.spawn().map_err(|error| format!("cannot start {name}: {error}"))?;
        Ok(Program { child, log })
    }

    fn log(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        process::kill(&mut self.child);
    }
}

/// One end of a tunnel.
pub(crate) enum End {
    Ours(Daemon),
    Theirs(Program),
}

impl End {
    pub(crate) fn pid(&self) -> u32 {
        match self {
            End::Ours(daemon) => daemon.pid(),
            End::Theirs(program) => program.child.id(),
        }
    }

    /// The last it said.
    pub(crate) fn last_words(&self) -> String {
        let log = match self {
            End::Ours(daemon) => daemon.log(),
            End::Theirs(program) => program.log(),
        };
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(5)..).unwrap_or_default().join("\n")
    }

    /// Processor time it has used in all its threads, user and system. Packets that the kernel
    /// handles in an interrupt on its way count for whomever it interrupts.
    pub(crate) fn cpu(&self) -> Result<Duration, String> {
        let clock = clock_getcpuclockid(Pid::from_raw(self.pid() as i32));
        let time = clock.and_then(clock_gettime);
        time.map(Duration::from).map_err(|_| format!("it has ended:\n{}", self.last_words()))
    }

    /// The most that was ever resident, in KiB.
    pub(crate) fn peak_rss(&self) -> Option<f64> {
        self.status("VmHWM:")
    }

    /// What is resident now, in KiB.
    pub(crate) fn rss(&self) -> Option<f64> {
        self.status("VmRSS:")
    }

    fn status(&self, field: &str) -> Option<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.trim().strip_suffix(" kB")?.trim().parse().ok()
    }
}
