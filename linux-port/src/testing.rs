//! For tests that need a network of their own.

use std::process::Command;

const INSIDE: &str = "SIMPLEVPN_TEST_INSIDE";

/// Runs `body`, the body of the test with the full name `test`, as root of new user, network and
/// mount namespaces with `lo` up: the test program starts itself again there, so that tests do
/// not disturb each other or the machine, and need no privileges.
pub(crate) fn in_namespace(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.expect("the command `ip`").success());
        return body();
    }
    let program = std::env::current_exe().expect("the test program");
    let output = Command::new("unshare")
        .args(["-Urnm", "timeout", "30"])
        .arg(program)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .expect("the command `unshare`");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "in the namespace:\n{stdout}\n{stderr}");
    assert!(stdout.contains("1 passed"), "no test has the name {test}:\n{stdout}");
}
