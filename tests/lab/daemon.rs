//! `simplevpn` on a machine: its configuration, its life and its death.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Host, process};

/// How long a daemon may take to be ready, and to end when asked to.
const PROMPT: Duration = Duration::from_secs(5);

/// The configuration of one interface, written as UCI text by `Display`.
#[derive(Clone)]
pub struct Vpn {
    name: String,
    lines: Vec<String>,
    peers: Vec<Peer>,
    /// Another interface of the same file.
    next: Option<Box<Vpn>>,
}

/// The configuration of one peer.
#[derive(Clone)]
pub struct Peer {
    name: String,
    lines: Vec<String>,
}

impl Default for Vpn {
    fn default() -> Vpn {
        Vpn::new()
    }
}

impl Vpn {
    /// `config interface 'vpn0'`.
    pub fn new() -> Vpn {
        Vpn::named("vpn0")
    }

    /// An interface of another name.
    pub fn named(name: &str) -> Vpn {
        Vpn { name: name.into(), lines: Vec::new(), peers: Vec::new(), next: None }
    }

    /// Another interface in the same file.
    pub fn and(mut self, next: &Vpn) -> Vpn {
        self.next = Some(Box::new(next.clone()));
        self
    }

    /// One more address of the TUN device, with its prefix length.
    pub fn address(self, address: &str) -> Vpn {
        self.line("list", "addresses", address)
    }

    /// `option steering`.
    pub fn steering(self, steering: &str) -> Vpn {
        self.option("steering", steering)
    }

    /// Any option.
    pub fn option(self, name: &str, value: &str) -> Vpn {
        self.line("option", name, value)
    }

    /// Any list; its values are separated by spaces.
    pub fn list(mut self, name: &str, values: &str) -> Vpn {
        for value in values.split_whitespace() {
            self = self.line("list", name, value);
        }
        self
    }

    /// One more peer.
    pub fn peer(mut self, peer: Peer) -> Vpn {
        self.peers.push(peer);
        self
    }

    /// Its first peer is called somewhere else.
    ///
    /// # Panics
    /// When it has none.
    pub fn called_at(mut self, endpoint: &str) -> Vpn {
        match self.peers.first_mut() {
            Some(peer) => *peer = peer.clone().at(endpoint),
            None => panic!("{} has no peer", self.name),
        }
        self
    }

    /// So many more peers, at most 39,000, with an IPv4 and an IPv6 prefix each; none is there.
    pub fn strangers(mut self, count: u32) -> Vpn {
        for number in 0..count {
            let [_, _, high, low] = number.to_be_bytes();
            let mut keys = Keys::pair().0;
            (keys.spi_in, keys.spi_out) = (0x100 + number, 0x100 + number);
            let stranger = Peer::new(&format!("stranger{number}"), &keys)
                .at(&format!("198.18.{high}.{low}"))
                .allowed(&format!("10.{}.{low}.0/24 fd10:{number:x}::/64", 100 + high));
            self.peers.push(stranger);
        }
        self
    }

    fn line(mut self, keyword: &str, name: &str, value: &str) -> Vpn {
        self.lines.push(format!("\t{keyword} {name} '{value}'"));
        self
    }
}

impl Peer {
    /// A peer section with manual keys.
    pub fn new(name: &str, keys: &Keys) -> Peer {
        Peer { name: name.into(), lines: Vec::new() }
            .option("keying", "manual")
            .option("cipher", keys.cipher)
            .option("spi_in", &format!("{:#x}", keys.spi_in))
            .option("spi_out", &format!("{:#x}", keys.spi_out))
            .option("key_in", &keys.key_in)
            .option("key_out", &keys.key_out)
    }

    /// The same section under another name; `""` makes it anonymous.
    pub fn named(mut self, name: &str) -> Peer {
        name.clone_into(&mut self.name);
        self
    }

    /// A peer section whose keys IKE negotiates.
    pub fn ike(name: &str) -> Peer {
        Peer { name: name.into(), lines: Vec::new() }
    }

    /// `option endpoint_host`: address or name.
    pub fn at(self, endpoint: &str) -> Peer {
        self.option("endpoint_host", endpoint)
    }

    /// Prefixes behind the peer, separated by spaces, in wire space.
    pub fn allowed(self, prefixes: &str) -> Peer {
        self.list("allowed_ips", prefixes)
    }

    /// Any list; its values are separated by spaces.
    pub fn list(mut self, name: &str, values: &str) -> Peer {
        for value in values.split_whitespace() {
            self.lines.push(format!("\tlist {name} '{value}'"));
        }
        self
    }

    /// Any option, in place of one of that name.
    pub fn option(mut self, name: &str, value: &str) -> Peer {
        self.lines.retain(|line| !line.starts_with(&format!("\toption {name} ")));
        self.lines.push(format!("\toption {name} '{value}'"));
        self
    }
}

impl fmt::Display for Vpn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "config interface '{}'\n\toption proto 'simplevpn'", self.name)?;
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        for peer in &self.peers {
            match &*peer.name {
                "" => writeln!(f, "\nconfig simplevpn_{}", self.name)?,
                name => writeln!(f, "\nconfig simplevpn_{} '{name}'", self.name)?,
            }
            for line in &peer.lines {
                writeln!(f, "{line}")?;
            }
        }
        match &self.next {
            Some(next) => write!(f, "\n{next}"),
            None => Ok(()),
        }
    }
}

/// One end's view of a pair of manually keyed SAs.
#[derive(Clone)]
pub struct Keys {
    /// The cipher's UCI name.
    pub cipher: &'static str,
    /// SPI of what arrives.
    pub spi_in: u32,
    /// SPI of what is sent.
    pub spi_out: u32,
    /// Key and salt of what arrives, in hexadecimal.
    pub key_in: String,
    /// Key and salt of what is sent, in hexadecimal.
    pub key_out: String,
}

impl Keys {
    /// Fresh random keys and SPIs for two ends, which mirror each other.
    pub fn pair() -> (Keys, Keys) {
        Keys::pair_of("chacha20poly1305")
    }

    /// The same for another cipher, by its UCI name.
    ///
    /// # Panics
    /// When there is no such cipher, or no randomness.
    pub fn pair_of(cipher: &'static str) -> (Keys, Keys) {
        let length = match cipher {
            "chacha20poly1305" | "aes256gcm16" => 36,
            "aes128gcm16" => 20,
            other => panic!("no cipher {other}"),
        };
        let here = Keys {
            cipher,
            spi_in: random_spi(),
            spi_out: random_spi(),
            key_in: random_hex(length),
            key_out: random_hex(length),
        };
        let there = Keys {
            cipher,
            spi_in: here.spi_out,
            spi_out: here.spi_in,
            key_in: here.key_out.clone(),
            key_out: here.key_in.clone(),
        };
        (here, there)
    }
}

/// A key pair as `simplevpn` makes and prints it.
#[derive(Clone)]
pub struct KeyPair {
    /// What `option private_key` takes.
    pub private: String,
    /// What `option public_key` takes at the other end.
    pub public: String,
    /// The public key in PEM, for other programs.
    pub pem: String,
}

impl KeyPair {
    /// A new one, by this machine's `simplevpn`.
    ///
    /// # Panics
    /// When it cannot.
    pub fn new(host: &Host) -> KeyPair {
        let ask = |words: &str, input: &str| {
            let output = process::run(host.simplevpn(words), input, process::PATIENCE);
            assert!(output.success, "simplevpn {words}: {}", output.stderr);
            output.stdout
        };
        let private = ask("genkey", "").trim().to_owned();
        let public = ask("pubkey", &private).trim().to_owned();
        let pem = ask("pubkey --pem", &private);
        KeyPair { private, public, pem }
    }
}

/// A running `simplevpn`; dropping it kills it, and shows its log if the test failed.
pub struct Daemon {
    host: Host,
    child: Child,
    config: PathBuf,
    log: PathBuf,
}

impl Host {
    /// Runs `simplevpn` with this configuration, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn starts(&self, vpn: &Vpn) -> Daemon {
        let mut daemon = self.launches(vpn);
        if let Err(why) = daemon.becomes_ready(PROMPT) {
            panic!("{why}");
        }
        daemon
    }

    /// Runs `simplevpn` with this configuration, and does not wait.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn launches(&self, vpn: &Vpn) -> Daemon {
        self.launches_with(vpn, "", "")
    }

    /// The same with `options` before the file and `interface` after it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn launches_with(&self, vpn: &Vpn, options: &str, interface: &str) -> Daemon {
        self.launches_text(&self.completed(vpn), options, interface)
    }

    /// Runs `simplevpn` with a configuration as somebody wrote it, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn starts_text(&self, text: &str) -> Daemon {
        let mut daemon = self.launches_text(text, "", "");
        if let Err(why) = daemon.becomes_ready(PROMPT) {
            panic!("{why}");
        }
        daemon
    }

    fn launches_text(&self, text: &str, options: &str, interface: &str) -> Daemon {
        let config = self.dir().join("network");
        let log = self.dir().join("log");
        write_private(&config, text);
        let out = match File::create(&log) {
            Ok(out) => out,
            Err(error) => panic!("cannot write {}: {error}", log.display()),
        };
        let mut command =
            self.simplevpn(&format!("run {options} {} {interface}", config.display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(out);
        match command.spawn() {
            Ok(child) => Daemon { host: self.clone(), child, config, log },
            Err(error) => panic!("cannot start {:?}: {error}", command.get_program()),
        }
    }

    /// A `simplevpn` command on this machine.
    pub fn simplevpn(&self, words: &str) -> Command {
        let mut command = match self.own_simplevpn() {
            Some(program) => self.command(&format!("{program} {words}")),
            None => self.command(&format!("{} {words}", binary().display())),
        };
        command.env("SIMPLEVPN_RUN_DIR", self.dir().join("run"));
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.dir().join("bin").display()));
        command
    }

    /// Runs a `simplevpn` command to its end.
    pub fn simplevpn_says(&self, words: &str) -> process::Output {
        process::run(self.simplevpn(words), "", process::PATIENCE)
    }

    /// Runs `simplevpn guard` with this configuration, or with one that has no interface of ours.
    pub fn guards(&self, vpn: Option<&Vpn>) -> process::Output {
        let config = self.dir().join("guarded");
        let nothing = "config interface 'loopback'\n\toption proto 'static'\n".to_owned();
        write_private(&config, &vpn.map_or(nothing, |vpn| self.completed(vpn)));
        self.simplevpn_says(&format!("guard {}", config.display()))
    }

    fn completed(&self, vpn: &Vpn) -> String {
        let state = self.dir().join("state");
        vpn.clone().option("state_dir", &state.display().to_string()).to_string()
    }
}

impl Daemon {
    /// Waits until the daemon answers on its control socket.
    ///
    /// # Errors
    /// With its log, when it ends or stays silent.
    pub fn becomes_ready(&mut self, limit: Duration) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                let name = self.host.name();
                return Err(format!("simplevpn on {name} ended ({status}):\n{}", self.log()));
            }
            if self.host.simplevpn_says("show vpn0 --json").success {
                return Ok(());
            }
            if Instant::now() > deadline {
                let name = self.host.name();
                return Err(format!("simplevpn on {name} is not ready:\n{}", self.log()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What the daemon has logged.
    pub fn log(&self) -> String {
        let mut text = String::new();
        if let Ok(mut file) = File::open(&self.log) {
            let _ = file.read_to_string(&mut text);
        }
        text
    }

    /// `simplevpn show`, for people.
    pub fn show(&self) -> String {
        self.host.simplevpn_says("show").stdout
    }

    /// `simplevpn show vpn0 --json`.
    pub fn json(&self) -> String {
        self.host.simplevpn_says("show vpn0 --json").stdout
    }

    /// The sum of all numbers that `show --json` gives this name.
    pub fn counter(&self, name: &str) -> u64 {
        let key = format!("\"{name}\":");
        let json = self.json();
        json.match_indices(&key)
            .filter_map(|(at, _)| json.get(at + key.len()..))
            .filter_map(|rest| {
                let rest = rest.trim_start();
                let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                rest.get(..end)?.parse::<u64>().ok()
            })
            .sum()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub fn dies(mut self) {
        process::kill(&mut self.child);
    }

    /// Replaces the configuration and sends SIGHUP.
    ///
    /// # Panics
    /// When the daemon is gone.
    pub fn reloads(&mut self, vpn: &Vpn) {
        write_private(&self.config, &self.host.completed(vpn));
        self.signal(Signal::SIGHUP);
    }

    /// `simplevpn rekey vpn0`: replaces all keys.
    ///
    /// # Panics
    /// When the daemon does not want to.
    pub fn rekeys(&self) {
        let output = self.host.simplevpn_says("rekey vpn0");
        assert!(output.success, "simplevpn rekey on {}: {}", self.host.name(), output.stderr);
    }

    /// Waits until it ends by itself, and returns its exit status; `None` if it does not.
    pub fn ends_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        process::wait(&mut self.child, limit)
    }

    /// SIGTERM, and its exit status.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn stops(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        match process::wait(&mut self.child, PROMPT) {
            Some(status) => status,
            None => panic!("simplevpn on {} does not end:\n{}", self.host.name(), self.log()),
        }
    }

    fn signal(&self, signal: Signal) {
        if let Err(error) = kill(Pid::from_raw(self.child.id() as i32), signal) {
            panic!("simplevpn on {}: {signal}: {error}\n{}", self.host.name(), self.log());
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let running = matches!(self.child.try_wait(), Ok(None));
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}", self.host.name(), self.log());
            if running {
                eprintln!("--- simplevpn show on {} ---\n{}", self.host.name(), self.show());
            }
        }
        process::kill(&mut self.child);
    }
}

/// The `simplevpn` under test: `SIMPLEVPN_BIN`, or that of profile `lab` in this program's build
/// directory, which is as fast as a release; one that `cargo test` left behind may be stale.
///
/// # Panics
/// When there is none.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("SIMPLEVPN_BIN") {
            return path.into();
        }
        let exe = std::env::current_exe().unwrap_or_default();
        exe.ancestors()
            .skip(1)
            .take(4)
            .map(|dir| dir.join("lab/simplevpn"))
            .find(|path| path.is_file())
            .unwrap_or_else(|| {
                panic!("no simplevpn: run `cargo build -p simplevpn --profile lab` first")
            })
    })
}

fn write_private(path: &Path, text: &str) {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    if let Err(error) = written {
        panic!("cannot write {}: {error}", path.display());
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    match File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)) {
        Ok(()) => bytes,
        Err(error) => panic!("no randomness: {error}"),
    }
}

fn random_spi() -> u32 {
    u32::from_be_bytes(random()) | 0x1000
}

fn random_hex(length: usize) -> String {
    let mut text = String::new();
    for byte in random::<36>().iter().take(length) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
