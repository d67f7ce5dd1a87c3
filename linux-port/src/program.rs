//! Programs that the daemon runs: what it tells them, what they say, and how they end.
//!
//! The standard library's `Command` can do much more, and takes twenty kilobytes of a router's
//! flash for it.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawnp};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};

/// How a program has ended; its way to say so if that was no success.
pub(crate) type Ended = Result<(), String>;

/// A program that runs. Dropping it ends it.
pub(crate) struct Program {
    pid: Pid,
    /// Whether it was waited for.
    ended: bool,
    /// Where it reads from, until this is dropped.
    pub(crate) input: Option<File>,
    /// What it prints, errors too.
    pub(crate) output: File,
}

impl Program {
    /// Runs the program `name`, looked for in `PATH` if that is no path, in the C locale.
    ///
    /// # Errors
    /// Those of `posix_spawn(3)`, or when the system has no descriptor left.
    pub(crate) fn start(name: &str, arguments: &[&str]) -> io::Result<Program> {
        let name = CString::new(name)?;
        let mut words = vec![name.clone()];
        for argument in arguments {
            words.push(CString::new(*argument)?);
        }
        let (stdin, input) = pipe2(OFlag::O_CLOEXEC)?;
        let (output, stdout) = pipe2(OFlag::O_CLOEXEC)?;
        let mut files = PosixSpawnFileActions::init()?;
        files.add_dup2(stdin.as_raw_fd(), libc::STDIN_FILENO)?;
        files.add_dup2(stdout.as_raw_fd(), libc::STDOUT_FILENO)?;
        files.add_dup2(stdout.as_raw_fd(), libc::STDERR_FILENO)?;
        // Ours is ignored, which it would inherit.
        let mut attributes = PosixSpawnAttr::init()?;
        attributes.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF)?;
        attributes.set_sigdefault(&SigSet::from(Signal::SIGPIPE))?;
        let pid = posix_spawnp(&name, &files, &attributes, &words, &environment())?;
        Ok(Program { pid, ended: false, input: Some(input.into()), output: output.into() })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Those of `waitpid(2)`.
    pub(crate) fn wait(&mut self) -> nix::Result<Ended> {
        loop {
            if let Some(ended) = self.poll(WaitPidFlag::empty())? {
                return Ok(ended);
            }
        }
    }

    /// How it has ended, if it has.
    ///
    /// # Errors
    /// Those of `waitpid(2)`.
    pub(crate) fn try_wait(&mut self) -> nix::Result<Option<Ended>> {
        self.poll(WaitPidFlag::WNOHANG)
    }

    fn poll(&mut self, how: WaitPidFlag) -> nix::Result<Option<Ended>> {
        let ended = match waitpid(self.pid, Some(how)) {
            Ok(WaitStatus::Exited(_, 0)) => Ok(()),
            Ok(WaitStatus::Exited(_, status)) => Err(format!("exit status {status}")),
            Ok(WaitStatus::Signaled(_, signal, _)) => Err(format!("ended by {signal}")),
            Ok(_) | Err(Errno::EINTR) => return Ok(None),
            Err(error) => return Err(error),
        };
        self.ended = true;
        Ok(Some(ended))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.ended {
            // There is nobody to tell.
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = self.wait();
        }
    }
}

/// Our environment but for the language.
fn environment() -> Vec<CString> {
    let mut all = vec![c"LC_ALL=C".to_owned()];
    for (name, value) in std::env::vars_os().filter(|(name, _)| name != "LC_ALL") {
        let mut variable = name.into_vec();
        variable.push(b'=');
        variable.extend(value.into_vec());
        // What came in as an environment has no NUL.
        all.extend(CString::new(variable));
    }
    all
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn shell(script: &str) -> Program {
        Program::start("sh", &["-c", script]).unwrap()
    }

    fn said(program: &mut Program) -> String {
        let mut text = String::new();
        program.output.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn what_it_is_told_and_what_it_says() {
        let mut program = shell("cat; echo error >&2; echo $LC_ALL $HOME");
        program.input.take().unwrap().write_all(b"told\n").unwrap();
        let home = std::env::var("HOME").unwrap_or_default();
        assert_eq!(said(&mut program).trim(), format!("told\nerror\nC {home}").trim());
        assert_eq!(program.wait(), Ok(Ok(())));
    }

    #[test]
    fn how_it_ends() {
        assert_eq!(shell("exit 3").wait(), Ok(Err("exit status 3".to_owned())));
        let mut killed = shell("kill -PIPE $$");
        assert_eq!(killed.wait(), Ok(Err("ended by SIGPIPE".to_owned())), "not ignored");
        assert_eq!(killed.try_wait(), Err(Errno::ECHILD));
        let mut runs = shell("read line");
        assert_eq!(runs.try_wait(), Ok(None));
        let pid = runs.pid;
        drop(runs);
        assert_eq!(kill(pid, None), Err(Errno::ESRCH), "gone with its owner");
    }

    #[test]
    fn one_that_is_not_there() {
        let error = Program::start("no-such-program", &[]).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
