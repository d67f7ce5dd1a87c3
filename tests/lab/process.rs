//! Running commands for a bounded time.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a command may take unless said otherwise.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What became of a command.
#[derive(Debug, Clone)]
pub struct Output {
    /// It ended in time, and well.
    pub success: bool,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

/// Runs `command` to its end, or kills it after `limit`.
///
/// # Panics
/// When it cannot be started, for instance because it is not installed.
pub fn run(mut command: Command, input: &str, limit: Duration) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => panic!("cannot start {:?}: {error}", command.get_program()),
    };
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read its input says elsewhere what it thinks of it.
        let _ = stdin.write_all(input.as_bytes());
    }
    let status = wait(&mut child, limit);
    if status.is_none() {
        kill(&mut child);
    }
    let mut stderr = stderr.join().unwrap_or_default();
    if status.is_none() {
        stderr.push_str(&format!("(killed after {limit:?})"));
    }
    Output {
        success: status.is_some_and(|status| status.success()),
        stdout: stdout.join().unwrap_or_default(),
        stderr,
    }
}

/// Waits at most `limit` for the end of `child`.
pub fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(3));
            }
            _ => return None,
        }
    }
}

/// Kills `child` and waits for its end; nothing happens if it has ended.
pub fn kill(child: &mut Child) {
    if child.kill().is_ok() {
        let _ = child.wait();
    }
}

/// Asks again and again until the answer is yes, or `limit` has passed.
pub fn eventually(limit: Duration, mut question: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if question() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
