//! For tests only: a network namespace of one's own, and the shell in it.

use std::process::Command;

/// Runs `test` in a thread with a new network namespace in which `lo` is up.
///
/// Needs root, or `unshare -Urn` around the test process: without it the test fails and says so.
pub(crate) fn within(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect(
                "network namespaces need root: run the tests as root or under unshare -Urnm",
            );
            sh("ip link set lo up");
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// What a command that must succeed printed, in the namespace of this thread.
pub(crate) fn sh(command: &str) -> String {
    let (success, text) = try_sh(command);
    assert!(success, "{command}: {text}");
    text
}

/// Whether a command succeeded, and what it printed.
pub(crate) fn try_sh(command: &str) -> (bool, String) {
    let output = Command::new("sh").args(["-c", command]).output().expect("sh runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).trim().to_string())
}
