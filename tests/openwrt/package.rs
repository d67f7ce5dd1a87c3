//! The package: what is in it, that it is the same each time, what its index says, and what its
//! scripts do. Made by `openwrt/package` of the program as it was built for this machine: what
//! the program can do is not asked here.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use simplevpn_tests::lab::process;

use super::router::{Router, simplevpn};
use super::vpn;

const PATIENCE: Duration = Duration::from_secs(180);
/// Two architectures that share a binary.
const ARCHITECTURES: [&str; 2] = ["mips_24kc", "x86_64"];
const RELEASE: &str = "r1";

/// The project's directory.
fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn version() -> String {
    format!("{}-{RELEASE}", env!("CARGO_PKG_VERSION"))
}

/// A directory with what `openwrt/cross` would have put there.
struct Target(PathBuf);

impl Target {
    fn new(name: &str) -> Target {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("package").join(name);
        let _ = fs::remove_dir_all(&target);
        for of in ["mips", "x86_64"] {
            let directory = target.join("bin").join(of);
            fs::create_dir_all(&directory).unwrap();
            symlink(program(), directory.join("simplevpn")).unwrap();
        }
        Target(target)
    }

    fn package(&self, arguments: &[&str]) -> process::Output {
        self.package_with(arguments, "022", "UTC")
    }

    fn package_with(&self, arguments: &[&str], umask: &str, zone: &str) -> process::Output {
        let mut command = Command::new("bash");
        command.args(["-c", &format!("umask {umask}; exec openwrt/package \"$@\""), "-"]);
        command.args(arguments).current_dir(project());
        command.env("OPENWRT_WORK", &self.0).env("TZ", zone);
        // Some other time than that of the files, and no need for git.
        command.env("SOURCE_DATE_EPOCH", "1700000000");
        process::run(command, "", PATIENCE)
    }

    /// One where packages were made, for all who only look at them.
    fn made() -> &'static Target {
        static MADE: OnceLock<Target> = OnceLock::new();
        MADE.get_or_init(|| {
            let target = Target::new("made");
            let output = target.package(&ARCHITECTURES);
            assert!(output.success, "{}{}", output.stdout, output.stderr);
            target
        })
    }

    fn feed(&self, architecture: &str) -> PathBuf {
        self.0.join("packages").join(architecture)
    }

    fn ipk(&self, architecture: &str) -> PathBuf {
        self.feed(architecture).join(format!("simplevpn_{}_{architecture}.ipk", version()))
    }

    /// Unpacks an .ipk for test `name`; the directory with `control` and `data`.
    fn unpacked(&self, architecture: &str, name: &str) -> PathBuf {
        let directory = self.0.join("unpacked").join(name).join(architecture);
        fs::create_dir_all(directory.join("control")).unwrap();
        fs::create_dir_all(directory.join("data")).unwrap();
        let ipk = self.ipk(architecture);
        tar(&["-xzf", text(&ipk), "-C", text(&directory)]);
        for part in ["control", "data"] {
            let archive = directory.join(format!("{part}.tar.gz"));
            tar(&["-xzf", text(&archive), "-C", text(&directory.join(part))]);
        }
        directory
    }
}

/// The program, without what makes it big when it is built for tests.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let stripped = Path::new(env!("CARGO_TARGET_TMPDIR")).join("simplevpn.stripped");
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(&stripped).arg(simplevpn());
        let output = process::run(strip, "", PATIENCE);
        assert!(output.success, "{}", output.stderr);
        stripped
    })
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn tar(arguments: &[&str]) -> String {
    let mut command = Command::new("tar");
    command.args(arguments).env("TZ", "UTC");
    let output = process::run(command, "", PATIENCE);
    assert!(output.success && output.stderr.is_empty(), "{arguments:?}: {}", output.stderr);
    output.stdout
}

/// What `tar` lists of an archive, without sizes: mode, owner, time and name.
fn listing(archive: &Path) -> Vec<String> {
    let lines = tar(&["-tvzf", text(archive), "--numeric-owner", "--full-time"]);
    let fields = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines = lines.lines().map(fields);
    lines.map(|f| format!("{} {} {} {} {}", f[0], f[1], f[3], f[4], f[5..].join(" "))).collect()
}

/// What a listing has to be: `d`irectories, executables (`x`) and other files of root's.
fn expected(entries: &str) -> Vec<String> {
    let entries = entries.lines().map(|line| line.trim().split_once(' ').unwrap());
    let mode = |kind| match kind {
        "d" => "drwxr-xr-x",
        "x" => "-rwxr-xr-x",
        _ => "-rw-r--r--",
    };
    entries.map(|(kind, name)| format!("{} 0/0 2023-11-14 22:13:20 {name}", mode(kind))).collect()
}

/// The files in `directory`, by name.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let file = |entry: fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
    };
    entries.map(file).collect()
}

#[test]
fn an_ipk_holds_exactly_what_it_should() {
    let target = Target::made();
    let directory = target.unpacked("mips_24kc", "layout");
    assert_eq!(
        listing(&target.ipk("mips_24kc")),
        expected("- ./debian-binary\n- ./data.tar.gz\n- ./control.tar.gz")
    );
    assert_eq!(
        listing(&directory.join("data.tar.gz")),
        expected(
            "d ./
             d ./etc/
             d ./etc/init.d/
             x ./etc/init.d/simplevpn
             d ./lib/
             d ./lib/netifd/
             d ./lib/netifd/proto/
             x ./lib/netifd/proto/simplevpn.sh
             d ./lib/upgrade/
             d ./lib/upgrade/keep.d/
             - ./lib/upgrade/keep.d/simplevpn
             d ./usr/
             d ./usr/sbin/
             x ./usr/sbin/simplevpn
             d ./usr/share/
             d ./usr/share/licenses/
             d ./usr/share/licenses/simplevpn/
             - ./usr/share/licenses/simplevpn/NOTICES.gz"
        )
    );
    assert_eq!(
        listing(&directory.join("control.tar.gz")),
        expected("d ./\n- ./control\nx ./postinst\nx ./postinst-pkg\nx ./prerm\nx ./prerm-pkg")
    );
}

#[test]
fn what_is_in_it_is_what_was_built_and_written() {
    let target = Target::made();
    let directory = target.unpacked("x86_64", "contents");
    let data = |path| fs::read(directory.join("data").join(path)).unwrap();
    let ours = |path| fs::read(project().join("openwrt/simplevpn/files").join(path)).unwrap();
    assert!(data("usr/sbin/simplevpn") == fs::read(program()).unwrap());
    assert!(data("lib/netifd/proto/simplevpn.sh") == ours("simplevpn.sh"));
    assert!(data("etc/init.d/simplevpn") == ours("simplevpn.init"));
    assert_eq!(data("lib/upgrade/keep.d/simplevpn"), b"/etc/simplevpn/\n");
    let mut zcat = Command::new("zcat");
    zcat.arg(directory.join("data/usr/share/licenses/simplevpn/NOTICES.gz"));
    assert!(process::run(zcat, "", PATIENCE).stdout.as_bytes() == ours("NOTICES"));
    assert_eq!(fs::read(directory.join("debian-binary")).unwrap(), b"2.0\n");
}

#[test]
fn the_control_file_is_of_this_version_and_architecture() {
    let target = Target::made();
    let directory = target.unpacked("mips_24kc", "control");
    let control = fs::read_to_string(directory.join("control/control")).unwrap();
    for line in [
        "Package: simplevpn".to_owned(),
        format!("Version: {}", version()),
        "Depends: kmod-tun, kmod-nft-fib, nftables".to_owned(),
        "Architecture: mips_24kc".to_owned(),
        "License: Apache-2.0 OR MIT".to_owned(),
        "SourceDateEpoch: 1700000000".to_owned(),
    ] {
        assert!(control.lines().any(|other| other == line), "no '{line}' in:\n{control}");
    }
    let size: u64 = value("Installed-Size", &control).parse().unwrap();
    let least = fs::metadata(program()).unwrap().len();
    assert!((least..least + 100_000).contains(&size), "{size} with a program of {least}");
}

/// Value of a field of a control file or an entry of an index.
fn value<'a>(field: &str, control: &'a str) -> &'a str {
    let value = |line: &'a str| line.strip_prefix(field)?.strip_prefix(": ");
    control.lines().find_map(value).unwrap_or_else(|| panic!("no {field} in:\n{control}"))
}

#[test]
fn a_second_build_is_the_same_to_the_byte() {
    let (first, second) = (Target::made(), Target::new("again"));
    let output = second.package_with(&ARCHITECTURES, "077", "Pacific/Auckland");
    assert!(output.success, "{}", output.stderr);
    for architecture in ARCHITECTURES {
        let (first, second) = (files(&first.feed(architecture)), files(&second.feed(architecture)));
        assert_eq!(first.keys().collect::<Vec<_>>(), second.keys().collect::<Vec<_>>());
        for (name, bytes) in first {
            assert!(second[&name] == bytes, "{name} for {architecture} differs");
        }
    }
}

#[test]
fn the_index_is_of_the_packages() {
    let target = Target::made();
    for architecture in ARCHITECTURES {
        let feed = target.feed(architecture);
        let index = fs::read_to_string(feed.join("Packages")).unwrap();
        let mut zcat = Command::new("zcat");
        zcat.arg(feed.join("Packages.gz"));
        assert_eq!(process::run(zcat, "", PATIENCE).stdout, index);
        assert!(index.ends_with("\n\n") && index.matches("\n\n").count() == 1, "{index}");

        let ipk = feed.join(value("Filename", &index));
        assert_eq!(ipk, target.ipk(architecture));
        assert_eq!(value("Size", &index), fs::metadata(&ipk).unwrap().len().to_string());
        let mut sha256sum = Command::new("sha256sum");
        sha256sum.arg(&ipk);
        let sum = process::run(sha256sum, "", PATIENCE).stdout;
        assert_eq!(Some(value("SHA256sum", &index)), sum.split_whitespace().next());

        let of_the_index = ["Filename: ", "Size: ", "SHA256sum: "];
        let rest = index.lines().filter(|line| !of_the_index.iter().any(|f| line.starts_with(f)));
        let control = target.unpacked(architecture, "index").join("control/control");
        let control = fs::read_to_string(control).unwrap() + "\n";
        assert_eq!(rest.collect::<Vec<_>>(), control.lines().collect::<Vec<_>>());
    }
}

#[test]
fn a_signed_index_is_what_opkg_can_verify() {
    let target = Target::new("signed");
    let signify = |arguments: &[&str]| {
        let mut command = Command::new("signify-openbsd");
        command.args(arguments).current_dir(&target.0);
        process::run(command, "", PATIENCE)
    };
    assert!(signify(&["-G", "-n", "-p", "feed.pub", "-s", "feed.sec"]).success);
    let key = target.0.join("feed.sec");
    let output = target.package(&["--sign", text(&key), "x86_64"]);
    assert!(output.success, "{}", output.stderr);
    let index = target.feed("x86_64").join("Packages");
    let signature = target.feed("x86_64").join("Packages.sig");
    let verify = || {
        let (index, signature) = (text(&index), text(&signature));
        signify(&["-V", "-p", "feed.pub", "-m", index, "-x", signature]).success
    };
    assert!(verify());
    fs::write(&index, fs::read_to_string(&index).unwrap().replace("Size: ", "Size: 1")).unwrap();
    assert!(!verify());
}

#[test]
fn what_cannot_be_made_is_said() {
    let target = Target::new("errors");
    let cases: [(&[&str], &str); 4] = [
        (&["mips_foo"], "there is no binary for 'mips_foo'; known are: mips_24kc "),
        (&["mipsel_24kc"], "bin/mipsel/simplevpn: run openwrt/cross mipsel"),
        (&["--sign", "/no/key", "x86_64"], "there is none at '/no/key'"),
        (&["--help"], "usage: openwrt/package "),
    ];
    for (arguments, words) in cases {
        let output = target.package(arguments);
        assert!(!output.success && output.stderr.contains(words), "{arguments:?}: {output:?}");
    }
    assert!(!target.0.join("packages").exists(), "half of a feed");
}

#[test]
fn the_version_is_the_programs() {
    let makefile = fs::read_to_string(project().join("openwrt/simplevpn/Makefile")).unwrap();
    let version = makefile.lines().find_map(|line| line.strip_prefix("PKG_VERSION:="));
    assert_eq!(version, Some(env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_test_of_the_packages_feed_passes() {
    let router = Router::new("feed-test", &vpn("vpn0", "", ""));
    let script = project().join("openwrt/simplevpn/test.sh");
    let said = router.script(&script, &["simplevpn", env!("CARGO_PKG_VERSION")]);
    assert!(said.contains(concat!("simplevpn ", env!("CARGO_PKG_VERSION"))), "{said}");
    assert!(said.contains("\"name\": \"simplevpn\""), "{said}");
}

#[test]
fn scripts_for_both_package_managers_are_clean() {
    let target = Target::made();
    let directory = target.0.join("staging/mips_24kc");
    let mut shellcheck = Command::new("shellcheck");
    // What is sourced is on the router.
    shellcheck.args(["--shell=dash", "--exclude=SC1091"]);
    for script in ["postinst", "postinst-pkg", "prerm", "prerm-pkg"] {
        shellcheck.arg(directory.join("control").join(script));
    }
    for script in ["post-install", "post-upgrade", "pre-deinstall"] {
        shellcheck.arg(directory.join("apk").join(script));
    }
    let output = process::run(shellcheck, "", PATIENCE);
    assert!(output.success, "{}", output.stdout);
}

/// Runs a script of the package as OpenWrt's own scripts do, `setting` the surroundings, and goes
/// on; what was called and printed, in order.
fn run_script(target: &Target, script: &str, setting: &str) -> Vec<String> {
    let script = target.0.join("staging/mips_24kc/control").join(script);
    let text = format!(
        "
        said() {{ echo \"$*\"; }}
        uci() {{ said uci \"$@\" >&2; printf \"network.lan.proto='static'\\n\
            network.vpn0=interface\\nnetwork.vpn0.proto='simplevpn'\\n\
            network.vpn0.mtu='auto'\\nnetwork.a_b=interface\\nnetwork.a_b.proto='simplevpn'\\n\
            network.@simplevpn_vpn0[0].description='network.x.proto=simplevpn'\\n\"; }}
        ubus() {{ echo \"$handlers\"; }}
        ifdown() {{ said ifdown \"$@\"; }}
        pidof() {{ [ -n \"$running\" ]; }}
        simplevpn() {{ said simplevpn \"$@\"; }}
        handlers= running= IPKG_INSTROOT= PKG_UPGRADE=0
        {setting}
        . {}
        said the end",
        script.display()
    );
    let mut command = Command::new("/bin/busybox");
    // An absolute path, such as that of network's init script, would still be found.
    command.args(["ash", "-c", &text]).env_clear().env("PATH", "/usr/bin:/bin");
    let output = process::run(command, "", PATIENCE);
    assert!(output.success, "{}", output.stderr);
    output.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn removal_takes_tunnels_down_and_opens_what_they_closed() {
    let target = Target::made();
    let calls = run_script(target, "prerm-pkg", "");
    assert_eq!(calls[..3], ["ifdown vpn0", "ifdown a_b", "simplevpn guard /dev/null"]);
    assert!(calls[3].contains("in the clear"), "{calls:?}");
    assert_eq!(calls.last().unwrap(), "the end");
}

#[test]
fn upgrades_and_images_leave_everything_as_it_is() {
    let target = Target::made();
    assert_eq!(run_script(target, "prerm-pkg", "PKG_UPGRADE=1"), ["the end"]);
    assert_eq!(run_script(target, "prerm-pkg", "IPKG_INSTROOT=/tmp/x"), ["the end"]);
    assert_eq!(run_script(target, "postinst-pkg", "IPKG_INSTROOT=/tmp/x"), ["the end"]);
}

#[test]
fn installation_says_what_is_left_to_do_and_does_not_do_it() {
    let target = Target::made();
    let first = run_script(target, "postinst-pkg", "");
    assert_eq!(first[1], "  /etc/init.d/network restart");
    assert_eq!(first.len(), 3, "{first:?}");
    let known = "handlers='{ \"simplevpn\": { } }'";
    assert_eq!(run_script(target, "postinst-pkg", known), ["the end"]);
    let upgrade = run_script(target, "postinst-pkg", &format!("{known} running=yes"));
    assert!(upgrade[0].ends_with("until: ifup INTERFACE") && upgrade.len() == 2, "{upgrade:?}");
}
