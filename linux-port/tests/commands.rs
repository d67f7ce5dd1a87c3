//! The `simplevpn` command as its users see it: what it prints where, and its exit status.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

const CONFIGURATION: &str = "\
config interface 'vpn0'
	option proto 'simplevpn'
	option colour 'blue'

config simplevpn_vpn0
	list allowed_ips '10.1.0.0/16'
	option keying 'manual'
	option spi_in '0x1001'
	option spi_out '0x2001'
	option key_in '010102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223'
	option key_out '020102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223'
";

/// Exit status, stdout and stderr of a run with `stdin`.
fn run(arguments: &[&str], stdin: &str) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_simplevpn"))
        .args(arguments)
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads nothing may have closed its end.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn file(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn check_prints_a_summary_and_warnings() {
    file("good.conf", CONFIGURATION);
    assert_eq!(
        run(&["check", "good.conf"], ""),
        (
            0,
            "good.conf: ok, 1 interface, 1 peer\n".to_owned(),
            "good.conf:3: warning: unknown option 'colour'; ignored\n".to_owned()
        )
    );
}

#[test]
fn check_prints_every_error_and_fails() {
    file("bad.conf", &CONFIGURATION.replace("10.1.0.0", "10.1.2.3").replace("0x2001", "1"));
    assert_eq!(
        run(&["check", "bad.conf"], ""),
        (
            3,
            String::new(),
            "bad.conf:6: peer @simplevpn_vpn0[0]: allowed_ips '10.1.2.3/16' has bits set in its host part; the prefix is \
             '10.1.0.0/16'\n\
             bad.conf:9: peer @simplevpn_vpn0[0]: spi_out '1' is reserved; write a number from 0x100 to 0xffffffff\n"
                .to_owned()
        )
    );
}

/// Two interfaces; the second has an error, and a key of the first.
fn two_interfaces() -> String {
    let second = CONFIGURATION
        .replace("vpn0", "vpn1")
        .replace("colour", "metric")
        .replace("10.1.0.0", "10.1.2.3")
        .replace("0x1001", "0x1003")
        .replace("'0201", "'0301");
    format!("{CONFIGURATION}\n{second}")
}

#[test]
fn check_of_one_interface_leaves_the_others_alone() {
    file("two.conf", &two_interfaces());
    let (status, stdout, stderr) = run(&["check", "two.conf", "vpn0"], "");
    assert_eq!((status, &*stdout), (0, "two.conf: ok, 1 interface, 1 peer\n"));
    assert_eq!(stderr, "two.conf:3: warning: unknown option 'colour'; ignored\n");
    let (status, stdout, stderr) = run(&["check", "two.conf", "vpn1"], "");
    assert_eq!((status, &*stdout), (3, ""));
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(
        lines[0].starts_with(
            "two.conf:18: peer @simplevpn_vpn1[0]: allowed_ips '10.1.2.3/16' has bits set"
        ),
        "{stderr}"
    );
    assert!(
        lines[1].starts_with(
            "two.conf:22: peer @simplevpn_vpn1[0]: key_in is the key of key_in on line 10;"
        ),
        "{stderr}"
    );
    assert_eq!(run(&["check", "two.conf"], "").0, 4, "the first one runs");
    assert_eq!(
        run(&["check", "two.conf", "vpn2"], ""),
        (
            3,
            String::new(),
            "two.conf: no interface 'vpn2' with option proto 'simplevpn' is in it\n".to_owned()
        )
    );
}

/// A status of its own says that the other peers run.
#[test]
fn check_tells_errors_of_peers_from_those_that_stop_everything() {
    let second = CONFIGURATION
        .split_once("config simplevpn_vpn0\n")
        .map(|(_, peer)| peer.replace("10.1.", "10.2.").replace("0x1001", "0x1003"))
        .unwrap();
    let second = second.replace("'0101", "'0301").replace("'0201", "'0401");
    let second = format!("config simplevpn_vpn0\n\toption description 'Head office'\n{second}");
    file("some.conf", &format!("{CONFIGURATION}\n{second}\toption esn 'maybe'\n"));
    let (status, stdout, stderr) = run(&["check", "some.conf"], "");
    assert_eq!((status, &*stdout), (4, ""));
    assert_eq!(
        stderr,
        "some.conf:3: warning: unknown option 'colour'; ignored\n\
         some.conf:21: peer 'Head office' (@simplevpn_vpn0[1]): esn 'maybe' is not a boolean; \
         write '1' or '0'\n"
    );
}

#[test]
fn check_reads_a_pipe() {
    let (status, stdout, _) = run(&["check", "/dev/stdin"], CONFIGURATION);
    assert_eq!((status, &*stdout), (0, "/dev/stdin: ok, 1 interface, 1 peer\n"));
}

/// The key of RFC 8032 §7.1, test 1.
#[test]
fn pubkey_of_a_known_key() {
    let private = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=\n";
    let public = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n";
    assert_eq!(run(&["pubkey"], private), (0, public.to_owned(), String::new()));
}

/// The same key, as `openssl pkey -pubin` reads it.
#[test]
fn pubkey_for_other_programs() {
    let private = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=\n";
    let pem = "-----BEGIN PUBLIC KEY-----\n\
               MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n\
               -----END PUBLIC KEY-----\n";
    assert_eq!(run(&["pubkey", "--pem"], private), (0, pem.to_owned(), String::new()));
}

#[test]
fn pubkey_of_no_key() {
    for (stdin, message) in [
        ("", "simplevpn: standard input holds no key; give it what 'simplevpn genkey' prints\n"),
        (
            "abc",
            "simplevpn: standard input has 3 characters; a key has 44, as 'simplevpn genkey' prints it\n",
        ),
    ] {
        assert_eq!(run(&["pubkey"], stdin), (1, String::new(), message.to_owned()));
    }
}

#[test]
fn generated_keys_are_keys() {
    for command in ["genkey", "genpsk"] {
        let (status, key, stderr) = run(&[command], "");
        assert_eq!((status, key.len(), &*stderr), (0, 45, ""));
        assert_eq!(run(&["pubkey"], &key).0, 0);
        assert_ne!(run(&[command], "").1, key);
    }
}

#[test]
fn a_generated_text_is_a_preshared_key() {
    let (status, text, stderr) = run(&["genpsk", "--text"], "");
    assert_eq!((status, text.len(), &*stderr), (0, 42, ""), "{text}");
    assert_ne!(run(&["genpsk", "--text"], "").1, text);
    assert_eq!(simplevpn::keys::secret(text.trim(), false).unwrap().len(), 41);
}

#[test]
fn a_key_written_where_others_can_read_it_is_warned_about() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("generated.key");
    let stdout = std::fs::File::create(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_simplevpn"))
        .arg("genkey")
        .stdout(stdout)
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "simplevpn: warning: other users can read this file; run umask 077 before\n"
    );
}

#[test]
fn version_help_and_wrong_usage() {
    let version = concat!("simplevpn ", env!("CARGO_PKG_VERSION"), "\n").to_owned();
    assert_eq!(run(&["--version"], ""), (0, version, String::new()));
    let (status, help, stderr) = run(&["--help"], "");
    assert!(status == 0 && help.contains("exit status") && stderr.is_empty());
    assert_eq!(
        run(&["chek"], ""),
        (
            2,
            String::new(),
            "simplevpn: unknown command \"chek\"; see simplevpn --help\n".to_owned()
        )
    );
}
