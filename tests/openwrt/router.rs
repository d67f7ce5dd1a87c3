//! A router's root directory: our two scripts, what they call, and a record of every call.
//!
//! The scripts run under busybox's ash, as on OpenWrt, on the real `uci`, `jshn` and `simplevpn
//! check`. Stand-ins take the place of netifd's, procd's and ubus's own calls (`root/`), and of each
//! program the scripts can start (`recorder`). Nothing here needs root or changes the machine.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use simplevpn_tests::lab::process;

/// How long a script may take: longer than any does on a busy machine, shorter than netifd's own
/// patience with a teardown would make a difference.
const PATIENCE: Duration = Duration::from_secs(20);
/// The programs that our scripts may start.
const PROGRAMS: [&str; 10] =
    ["awk", "cat", "jshn", "logger", "mkdir", "mv", "rm", "sleep", "touch", "ubus"];
const BUSYBOX: &str = "/bin/busybox";

/// A program that was started: its name and its arguments.
pub(crate) type Call = Vec<String>;

/// The router.
pub(crate) struct Router {
    root: PathBuf,
}

impl Router {
    /// A router with a WAN and the configuration `vpn`, where nothing has run yet.
    pub(crate) fn new(name: &str, vpn: &str) -> Router {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openwrt").join(name);
        let _ = fs::remove_dir_all(&root);
        let router = Router { root };
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (ours, stand_ins) =
            (project.join("../openwrt/simplevpn/files"), project.join("openwrt/root"));
        router.place(&ours.join("simplevpn.sh"), "lib/netifd/proto/simplevpn.sh");
        router.place(&ours.join("simplevpn.init"), "etc/init.d/simplevpn");
        for file in [
            "lib/functions.sh",
            "lib/functions/network.sh",
            "lib/netifd/netifd-proto.sh",
            "etc/rc.common",
        ] {
            router.place(&stand_ins.join(file), file);
        }
        router.place(&tools().join("jshn.sh"), "usr/share/libubox/jshn.sh");
        let recorder = project.join("openwrt/recorder");
        for program in PROGRAMS.iter().chain(&["uci"]) {
            router.place(&recorder, &format!("bin/{program}"));
        }
        router.place(&recorder, "usr/sbin/simplevpn");
        for directory in ["status", "tmp/.uci", "var/run"] {
            fs::create_dir_all(router.path(directory)).unwrap();
        }
        router.guard_says("");
        router.configure("firewall", FIREWALL);
        router.configure("network", &format!("{WAN}{vpn}"));
        router
    }

    fn place(&self, file: &Path, at: &str) {
        let link = self.path(at);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(file, link).unwrap();
    }

    /// A path on the router.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The text of a file in the run directory, if it is there.
    pub(crate) fn run_file(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path("var/run/simplevpn").join(name)).ok()
    }

    /// Writes a file in the run directory.
    pub(crate) fn write_run_file(&self, name: &str, text: &str) {
        fs::write(self.path("var/run/simplevpn").join(name), text).unwrap();
    }

    /// Replaces `/etc/config/PACKAGE`.
    pub(crate) fn configure(&self, package: &str, text: &str) {
        let file = self.path("etc/config").join(package);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Replaces `/etc/config/network`; WAN stays.
    pub(crate) fn configure_vpn(&self, vpn: &str) {
        self.configure("network", &format!("{WAN}{vpn}"));
    }

    /// Runs `uci`, past the record; what it printed.
    pub(crate) fn uci(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(tools().join("uci"));
        command.arg("-c").arg(self.path("etc/config")).arg("-t").arg(self.path("tmp/.uci"));
        command.args(arguments);
        process::run(command, "", PATIENCE).stdout.trim_end().to_owned()
    }

    /// What `ubus call network.interface.NAME status` answers from now on.
    pub(crate) fn is_up(&self, interface: &str, device: &str) {
        let status = format!("{{\n\t\"up\": true,\n\t\"l3_device\": \"{device}\"\n}}\n");
        fs::write(self.path("status").join(format!("network.interface.{interface}")), status)
            .unwrap();
    }

    /// What `simplevpn guard` prints from now on.
    pub(crate) fn guard_says(&self, lines: &str) {
        fs::write(self.path("guard"), lines).unwrap();
    }

    /// netifd asks the handler what it is; the answer.
    pub(crate) fn dump(&self) -> String {
        let output = self.handler(&["", "dump"], None);
        compact(&output)
    }

    /// netifd sets an interface up; what was called.
    pub(crate) fn setup(&self, interface: &str) -> Vec<Call> {
        self.act("setup", interface, None)
    }

    /// netifd passes on that someone asked for a renewal.
    pub(crate) fn renew(&self, interface: &str) -> Vec<Call> {
        self.act("renew", interface, None)
    }

    /// netifd takes an interface down: because someone asked for it, or because the daemon ended by
    /// itself with `status` (0: by a signal, too).
    pub(crate) fn teardown(&self, interface: &str, status: Option<u8>) -> Vec<Call> {
        self.act("teardown", interface, status)
    }

    /// As [`Self::setup`], [`Self::renew`] and [`Self::teardown`], with declared options that netifd
    /// has read before.
    pub(crate) fn act_with(
        &self,
        action: &str,
        interface: &str,
        options: &str,
        status: Option<u8>,
    ) -> Vec<Call> {
        self.handler(&["simplevpn", action, interface, options], status);
        self.calls()
    }

    fn act(&self, action: &str, interface: &str, status: Option<u8>) -> Vec<Call> {
        self.act_with(action, interface, &self.declared(interface), status)
    }

    /// The options of `interface` that the handler declared, as netifd passes them to it.
    pub(crate) fn declared(&self, interface: &str) -> String {
        let mut members = Vec::new();
        for (name, kind) in declarations(&self.dump()) {
            let value =
                self.uci(&["-q", "-d", "\",\"", "get", &format!("network.{interface}.{name}")]);
            match kind {
                _ if value.is_empty() => {}
                1 => members.push(format!("\"{name}\":[\"{value}\"]")),
                5 => members.push(format!("\"{name}\":{value}")),
                7 => members.push(format!("\"{name}\":{}", value == "1")),
                _ => members.push(format!("\"{name}\":\"{value}\"")),
            }
        }
        self.calls();
        format!("{{{}}}", members.join(","))
    }

    fn handler(&self, arguments: &[&str], status: Option<u8>) -> String {
        let mut command = self.shell("lib/netifd/proto");
        command.arg("./simplevpn.sh").args(arguments);
        if let Some(status) = status {
            command.env("ERROR", status.to_string());
        }
        run(command)
    }

    /// Runs `/etc/init.d/simplevpn ACTION`; what was called.
    pub(crate) fn init(&self, action: &str) -> Vec<Call> {
        let mut command = self.shell("");
        command.arg(self.path("etc/rc.common")).arg(self.path("etc/init.d/simplevpn")).arg(action);
        run(command);
        self.calls()
    }

    /// Runs a script of the package, which may start every program of this machine; what it printed.
    pub(crate) fn script(&self, script: &Path, arguments: &[&str]) -> String {
        let mut command = self.shell("");
        let sh = self.path("bin/sh");
        if !sh.exists() {
            symlink(BUSYBOX, sh).unwrap();
        }
        let path = format!(
            "{}:{}:/usr/bin:/bin",
            self.path("usr/sbin").display(),
            self.path("bin").display()
        );
        command.arg(script).args(arguments).env("PATH", path);
        run(command)
    }

    fn shell(&self, directory: &str) -> Command {
        let mut command = Command::new(BUSYBOX);
        command
            .arg("ash")
            .current_dir(self.path(directory))
            .env_clear()
            .env("PATH", self.path("bin"))
            .env("IPKG_INSTROOT", &self.root)
            .env("SIMPLEVPN_RUN_DIR", self.path("var/run/simplevpn"))
            .env("ROUTER", &self.root)
            .env("RECORD", self.path("record"))
            .env("TOOLS", tools())
            .env("SIMPLEVPN", simplevpn());
        command
    }

    /// What was called since this was last asked.
    fn calls(&self) -> Vec<Call> {
        let record = fs::read_to_string(self.path("record")).unwrap_or_default();
        let _ = fs::rename(self.path("record"), self.path("record.last"));
        let mut all = fs::OpenOptions::new();
        let mut all = all.append(true).create(true).open(self.path("record.all")).unwrap();
        std::io::Write::write_all(&mut all, record.as_bytes()).unwrap();
        let fields = |call: &str| call.split_terminator('\x1f').map(str::to_owned).collect();
        record.split_terminator('\x1e').map(fields).collect()
    }

    /// The arguments of every program that was ever started here, and its environment.
    pub(crate) fn everything(&self) -> String {
        self.calls();
        ["record.all", "record.environment"]
            .iter()
            .map(|file| fs::read_to_string(self.path(file)).unwrap())
            .collect()
    }
}

/// What was said to ubus, in order: `OBJECT METHOD MESSAGE`. Questions are left out.
pub(crate) fn said(calls: &[Call]) -> Vec<String> {
    let to_ubus = calls.iter().filter(|call| call[0] == "ubus" && call[3] != "status");
    to_ubus.map(|call| compact(&call[2..].join(" "))).collect()
}

/// The arguments of each call of `program`, joined by spaces, in order.
pub(crate) fn calls_of(program: &str, calls: &[Call]) -> Vec<String> {
    calls.iter().filter(|call| call[0] == program).map(|call| call[1..].join(" ")).collect()
}

/// Message to netifd about `interface`.
pub(crate) fn notify(message: &str, interface: &str) -> String {
    format!(
        "network.interface notify_proto {},\"interface\":\"{interface}\"}}",
        message.strip_suffix('}').unwrap()
    )
}

/// JSON without spaces between its parts.
fn compact(json: &str) -> String {
    let (mut quoted, mut escaped, mut depth) = (false, false, 0);
    let mut compact = String::new();
    for c in json.trim().chars() {
        if !quoted {
            match c {
                '{' | '[' => depth += 1,
                '}' | ']' => depth -= 1,
                _ => {}
            }
        }
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        if quoted || depth == 0 || !c.is_ascii_whitespace() {
            compact.push(c);
        }
    }
    compact
}

/// `[["addresses",1],["mtu",3]]` somewhere in the answer to `dump`.
fn declarations(dump: &str) -> Vec<(String, u8)> {
    let (_, config) = dump.split_once("\"config\":[[").unwrap();
    let (config, _) = config.split_once("]]").unwrap();
    config
        .split("],[")
        .map(|declaration| {
            let (name, kind) = declaration.rsplit_once(',').unwrap();
            (name.trim_matches('"').to_owned(), kind.parse().unwrap())
        })
        .collect()
}

fn run(command: Command) -> String {
    let output = process::run(command, "", PATIENCE);
    // What a script says past the log, a shell complained about.
    assert!(output.success && output.stderr.is_empty(), "{}{}", output.stdout, output.stderr);
    output.stdout
}

/// Where `uci`, `jshn` and `jshn.sh` are; builds them the first time.
fn tools() -> &'static Path {
    static TOOLS: OnceLock<PathBuf> = OnceLock::new();
    TOOLS.get_or_init(|| {
        assert!(Path::new(BUSYBOX).exists(), "no {BUSYBOX}: run tests/setup first");
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openwrt-tools");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("openwrt/tools");
        if !directory.join("jshn").exists() {
            let mut command = Command::new(script);
            command.arg(&directory);
            let output = process::run(command, "", Duration::from_secs(300));
            assert!(output.success, "tests/openwrt/tools: {}{}", output.stdout, output.stderr);
        }
        directory
    })
}

/// Our program; brings it up to date first.
pub(crate) fn simplevpn() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(path) = std::env::var_os("SIMPLEVPN_BIN") {
            return path.into();
        }
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "-q", "-p", "simplevpn"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        let output = process::run(build, "", Duration::from_secs(900));
        assert!(output.success, "cargo build: {}", output.stderr);
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        target.join("debug/simplevpn")
    })
}

const WAN: &str = "\
config interface 'lan'
	option proto 'static'
	option device 'br-lan'
	list ipaddr '192.168.1.1/24'

config interface 'wan'
	option proto 'dhcp'
	option device 'eth1'

";

const FIREWALL: &str = "\
config zone
	option name 'lan'
	list network 'lan'
	list network 'guest'
	option input 'ACCEPT'

config zone
	option name 'wan'
	list network 'wan'
	list network 'wan6'
	option input 'REJECT'

config zone 'second'
	option name 'mobile'
	list network 'wwan'
	option input 'REJECT'
";
