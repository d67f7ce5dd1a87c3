//! Programs that the daemon runs: `nft` and `ubus`.
//!
//! A program inherits nothing but its standard descriptors, complains in English, and finds its
//! signals as if nobody had touched them. Its complaints are caught, its output is thrown away.
//! `std::process` can do more, and costs a router twenty times as much flash.

use std::ffi::{CStr, CString};
use std::fs::OpenOptions;
use std::io::{self, PipeReader, PipeWriter, Read, pipe};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawnp};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// The longest output that [`Program::poll`] looks at, in bytes.
const MAX_WORDS: u64 = 500;

/// How a program ended: its complaints after success, else those or the exit status.
pub(crate) type Ended = Result<String, String>;

/// A program that runs. Dropping it ends it.
pub(crate) struct Program {
    pid: Pid,
    output: PipeReader,
    runs: bool,
}

impl Program {
    /// Starts the program `name`, which is looked for in `PATH` if it is no path, and gives its
    /// standard input as well.
    ///
    /// # Errors
    /// Those of `pipe(2)` and `posix_spawnp(3)`: `NotFound` without such a program.
    pub(crate) fn start(name: &CStr, arguments: &[&str]) -> io::Result<(Program, PipeWriter)> {
        let (stdin, input) = pipe()?;
        let (output, catching) = pipe()?;
        let null = OpenOptions::new().write(true).open("/dev/null")?;
        let (stdout, stderr) = (null.as_raw_fd(), catching.as_raw_fd());
        let mut files = PosixSpawnFileActions::init()?;
        for (ours, theirs) in [(stdin.as_raw_fd(), 0), (stdout, 1), (stderr, 2)] {
            files.add_dup2(ours, theirs)?;
        }
        let mut signals = PosixSpawnAttr::init()?;
        let flags =
            PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF;
        signals.set_flags(flags)?;
        signals.set_sigmask(&SigSet::empty())?;
        // Rust programs ignore it.
        signals.set_sigdefault(&SigSet::from(Signal::SIGPIPE))?;
        let mut words = vec![name.to_owned()];
        for argument in arguments {
            words.push(CString::new(*argument)?);
        }
        let pid = posix_spawnp(name, &files, &signals, &words, &environment())?;
        Ok((Program { pid, output, runs: true }, input))
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.pid.as_raw().cast_unsigned()
    }

    /// Waits until it has ended.
    pub(crate) fn wait(mut self) -> io::Result<Ended> {
        let mut bytes = Vec::new();
        self.output.read_to_end(&mut bytes)?;
        loop {
            match self.reap(None) {
                Ok(Some(status)) => return Ok(ended(status, &bytes)),
                Ok(None) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether it has ended, and how.
    pub(crate) fn poll(&mut self) -> io::Result<Option<Ended>> {
        let Some(status) = self.reap(Some(WaitPidFlag::WNOHANG))? else { return Ok(None) };
        // Never waited for, since another could hold its end: what it has said is there.
        fcntl(&self.output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let mut bytes = Vec::new();
        let _ = (&mut self.output).take(MAX_WORDS).read_to_end(&mut bytes);
        Ok(Some(ended(status, &bytes)))
    }

    fn reap(&mut self, flags: Option<WaitPidFlag>) -> nix::Result<Option<WaitStatus>> {
        let status = waitpid(self.pid, flags)?;
        self.runs = status == WaitStatus::StillAlive;
        Ok((!self.runs).then_some(status))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.runs {
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = waitpid(self.pid, None);
        }
    }
}

fn ended(status: WaitStatus, output: &[u8]) -> Ended {
    let output = String::from_utf8_lossy(output).trim().to_owned();
    match status {
        WaitStatus::Exited(_, 0) => Ok(output),
        _ if !output.is_empty() => Err(output),
        WaitStatus::Exited(_, status) => Err(format!("exit status: {status}")),
        WaitStatus::Signaled(_, signal, _) => Err(format!("signal: {}", signal as i32)),
        _ => Err("stopped".to_owned()),
    }
}

/// Our environment, except for the language.
fn environment() -> Vec<CString> {
    let ours = std::env::vars_os().filter(|(name, _)| name != "LC_ALL");
    let ours = ours.map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat());
    ours.chain([b"LC_ALL=C".to_vec()]).filter_map(|entry| CString::new(entry).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn sh(script: &str) -> Ended {
        let (program, input) = Program::start(c"sh", &["-c", script]).unwrap();
        drop(input);
        program.wait().unwrap()
    }

    #[test]
    fn output_and_status_tell_how_it_ended() {
        let both = "echo out; echo err >&2; exit";
        assert_eq!(sh(both), Ok("err".to_owned()));
        assert_eq!(sh(&format!("{both} 3")), Err("err".to_owned()));
        assert_eq!(sh("exit 3"), Err("exit status: 3".to_owned()));
        assert_eq!(sh("kill -9 $$"), Err("signal: 9".to_owned()));
    }

    #[test]
    fn input_is_read() {
        let (program, mut input) = Program::start(c"sh", &["-c", "cat >&2"]).unwrap();
        input.write_all(b"words").unwrap();
        drop(input);
        assert_eq!(program.wait().unwrap(), Ok("words".to_owned()));
    }

    #[test]
    fn signals_and_language_are_as_they_should_be() {
        SigSet::from(Signal::SIGTERM).thread_block().unwrap();
        let started = Program::start(c"sh", &["-c", "exec cat /proc/self/status >&2"]);
        SigSet::from(Signal::SIGTERM).thread_unblock().unwrap();
        let told = started.unwrap().0.wait().unwrap().unwrap();
        let value = |name| told.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
        assert_eq!(value("SigBlk:"), "0000000000000000");
        let ignored = u64::from_str_radix(value("SigIgn:"), 16).unwrap();
        assert_eq!(ignored & 1 << (Signal::SIGPIPE as i32 - 1), 0);
        assert_eq!(sh("echo $LC_ALL >&2"), Ok("C".to_owned()));
    }

    #[test]
    fn what_is_missing_is_not_found() {
        let start = |name| Program::start(name, &[]).err().map(|e| e.kind());
        assert_eq!(start(c"no-such-program"), Some(io::ErrorKind::NotFound));
        assert_eq!(start(c"/no/such/program"), Some(io::ErrorKind::NotFound));
    }

    #[test]
    fn one_that_runs_is_not_waited_for_and_ended_when_dropped() {
        let (mut program, _) = Program::start(c"sleep", &["60"]).unwrap();
        assert!(program.poll().unwrap().is_none());
        let pid = program.pid;
        drop(program);
        assert_eq!(kill(pid, None), Err(Errno::ESRCH));
    }
}
