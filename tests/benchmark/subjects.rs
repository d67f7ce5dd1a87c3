//! What is compared: no tunnel, a program that only copies, our tunnel in its variants, other
//! people's tunnels.
//!
//! Each has the topology of [`Sites`] for itself, with its own program on both gateways and
//! everything else alike.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use simplevpn_tests::lab::sites::Sites;
use simplevpn_tests::lab::{Host, Lab, ip, process};

use crate::program::End;

mod copy;
mod fastd;
mod openvpn;
mod simplevpn;
pub(crate) mod strongswan;
mod wireguard;

pub(crate) use copy::copy;
pub(crate) use simplevpn::launch;

/// How long an end may take to have its device or its control socket.
const PROMPT: Duration = Duration::from_secs(5);
/// How long a tunnel may take from its start to the first answered ping.
const UP: Duration = Duration::from_secs(10);

/// One thing to measure.
#[derive(Clone, Copy)]
pub(crate) struct Subject {
    /// What it is called on the command line and in tables.
    pub(crate) name: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    NoTunnel,
    Copy,
    Ours {
        encap: &'static str,
        cipher: &'static str,
        offset: bool,
    },
    /// A program that is told over the socket of WireGuard's user-space implementations.
    WireGuard {
        program: &'static str,
        arguments: &'static str,
    },
    Fastd,
    OpenVpn {
        cipher: &'static str,
    },
    StrongSwan {
        cipher: &'static str,
    },
}

const fn ours(
    name: &'static str,
    encap: &'static str,
    cipher: &'static str,
    offset: bool,
) -> Subject {
    Subject { name, kind: Kind::Ours { encap, cipher, offset } }
}

const fn theirs(name: &'static str, kind: Kind) -> Subject {
    Subject { name, kind }
}

const CHACHA: &str = "chacha20poly1305";
const AES: &str = "aes256gcm16";

/// All that can be chosen, in the order of the tables.
pub(crate) const SUBJECTS: [Subject; 21] = [
    theirs("no-tunnel", Kind::NoTunnel),
    theirs("copy", Kind::Copy),
    ours("udp-aes256", "udp", AES, false),
    ours("udp-chacha20", "udp", CHACHA, false),
    ours("esp-aes256", "esp", AES, false),
    ours("esp-chacha20", "esp", CHACHA, false),
    ours("udp-aes256-offset", "udp", AES, true),
    ours("udp-chacha20-offset", "udp", CHACHA, true),
    ours("esp-aes256-offset", "esp", AES, true),
    ours("esp-chacha20-offset", "esp", CHACHA, true),
    ours("udp-aes128", "udp", "aes128gcm16", false),
    ours("esp-aes128", "esp", "aes128gcm16", false),
    theirs(
        "boringtun",
        Kind::WireGuard {
            program: "boringtun-cli",
            arguments: "--foreground --disable-drop-privileges",
        },
    ),
    theirs(
        "gotatun",
        Kind::WireGuard { program: "gotatun", arguments: "--foreground --disable-drop-privileges" },
    ),
    theirs(
        "wireguard-go",
        Kind::WireGuard { program: "wireguard-go-backport", arguments: "--foreground" },
    ),
    theirs(
        "wireguard-go-2022",
        Kind::WireGuard { program: "wireguard-go", arguments: "--foreground" },
    ),
    theirs("fastd", Kind::Fastd),
    theirs("openvpn-aes256", Kind::OpenVpn { cipher: "AES-256-GCM" }),
    theirs("openvpn-chacha20", Kind::OpenVpn { cipher: "CHACHA20-POLY1305" }),
    theirs("strongswan-aes256", Kind::StrongSwan { cipher: AES }),
    theirs("strongswan-chacha20", Kind::StrongSwan { cipher: CHACHA }),
];

/// A subject at work.
pub(crate) struct Tunnel {
    pub(crate) subject: Subject,
    pub(crate) sites: Sites,
    /// At gateway a and at gateway b; none without a tunnel.
    pub(crate) ends: Vec<End>,
    /// What the client calls the server, and the server the client.
    pub(crate) server: IpAddr,
    pub(crate) client: IpAddr,
    // The last: what the ends have on disk goes after them.
    _lab: Lab,
}

impl Subject {
    pub(crate) fn is_ours(&self) -> bool {
        matches!(self.kind, Kind::Ours { .. })
    }

    /// Whether this is its name, or that of a group it is in.
    pub(crate) fn is(&self, name: &str) -> bool {
        match name {
            "all" => true,
            "ours" => self.is_ours(),
            "peers" => self.is_theirs(),
            _ => self.name == name,
        }
    }

    pub(crate) fn is_theirs(&self) -> bool {
        !self.is_ours() && !self.is_no_tunnel() && self.kind != Kind::Copy
    }

    pub(crate) fn is_no_tunnel(&self) -> bool {
        self.kind == Kind::NoTunnel
    }

    /// The programs and files it cannot do without; the first is what tells its version.
    pub(crate) fn needs(&self) -> Vec<&'static str> {
        match self.kind {
            Kind::NoTunnel | Kind::Copy | Kind::Ours { .. } => Vec::new(),
            Kind::WireGuard { program, .. } => vec![program, "wg"],
            Kind::Fastd => vec!["fastd"],
            Kind::OpenVpn { .. } => vec!["openvpn", "openssl"],
            Kind::StrongSwan { .. } => strongswan::NEEDS.to_vec(),
        }
    }

    /// What is not installed here of its needs, if there is such a thing.
    pub(crate) fn missing(&self) -> Option<&'static str> {
        missing_of(&self.needs())
    }

    /// What its program says its version is.
    pub(crate) fn version(&self) -> String {
        let Some(program) = self.needs().first().and_then(|program| find(program)) else {
            return String::new();
        };
        let mut command = Command::new(program);
        // swanctl wants a daemon even to tell its version.
        let swanctl = matches!(self.kind, Kind::StrongSwan { .. });
        command.arg(if swanctl { "--help" } else { "--version" });
        let output = process::run(command, "", PROMPT);
        let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
        let words: Vec<&str> = said.lines().next().unwrap_or_default().split_whitespace().collect();
        let number = words.iter().position(|word| word.contains(|c: char| c.is_ascii_digit()));
        words.get(..=number.unwrap_or_default()).unwrap_or_default().join(" ")
    }

    /// Sets up its machines and starts it.
    pub(crate) fn start(self) -> Result<Tunnel, String> {
        let lab = Lab::new();
        let sites = Sites::new(&lab);
        let (mut server, mut client) = (ip("10.2.0.2"), ip("10.1.0.2"));
        let ends = match self.kind {
            Kind::NoTunnel => {
                sites.a.route("10.2.0.0/24", "192.0.2.2");
                sites.b.route("10.1.0.0/24", "192.0.2.1");
                Vec::new()
            }
            Kind::Copy => copy::start(&sites)?,
            Kind::Ours { encap, cipher, offset } => {
                if offset {
                    (server, client) = (ip("10.2.100.2"), ip("10.1.100.2"));
                }
                simplevpn::start(&sites, encap, cipher, offset)?
            }
            Kind::WireGuard { program, arguments } => wireguard::start(&sites, program, arguments)?,
            Kind::Fastd => fastd::start(&sites)?,
            Kind::OpenVpn { cipher } => openvpn::start(&sites, cipher)?,
            Kind::StrongSwan { cipher } => strongswan::start(&sites, cipher)?,
        };
        let tunnel = Tunnel { subject: self, sites, ends, server, client, _lab: lab };
        tunnel.is_up()?;
        Ok(tunnel)
    }
}

impl Tunnel {
    fn is_up(&self) -> Result<(), String> {
        if self.sites.client.reaches_within(&self.server.to_string(), UP) {
            return Ok(());
        }
        let words: Vec<String> = self.ends.iter().map(End::last_words).collect();
        Err(format!("no ping passes:\n{}", words.join("\n")))
    }
}

/// Leads everything for the other site into a device that is there.
fn use_device(sites: &Sites, at: &Host, device: &str, mtu: u16) {
    at.run(&format!("ip link set dev {device} up mtu {mtu}"));
    at.run(&format!("ip route add {} dev {device}", other_site(sites, at)));
}

/// The prefix behind the other gateway.
fn other_site(sites: &Sites, at: &Host) -> &'static str {
    if at.name() == sites.a.name() { "10.2.0.0/24" } else { "10.1.0.0/24" }
}

/// Waits for something that a program makes; with the program's log when it does not.
pub(crate) fn await_that(
    end: &End,
    what: &str,
    question: impl FnMut() -> bool,
) -> Result<(), String> {
    if process::eventually(PROMPT, question) {
        return Ok(());
    }
    Err(format!("no {what}:\n{}", end.last_words()))
}

fn has_device(host: &Host, device: &str) -> bool {
    host.attempt(&format!("ip link show dev {device}")).success
}

/// Writes a file that only root may read into the machine's own directory.
pub(crate) fn write(host: &Host, name: &str, text: &str) -> Result<String, String> {
    let path = host.dir().join(name);
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path.display().to_string())
}

/// What a command on `host` prints, given something to read.
pub(crate) fn ask(host: &Host, words: &str, input: &str) -> Result<String, String> {
    let output = process::run(host.command(words), input, process::PATIENCE);
    if output.success {
        return Ok(output.stdout.trim().to_owned());
    }
    Err(format!("`{words}`: {}{}", output.stdout, output.stderr))
}

/// What is not installed here of these programs and files, if there is such a thing.
pub(crate) fn missing_of(needs: &[&'static str]) -> Option<&'static str> {
    needs.iter().copied().find(|need| find(need).is_none())
}

/// Where a program is, in PATH, or a file by its whole path.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file())
}
