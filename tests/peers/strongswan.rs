//! strongSwan as a peer: a real `charon-systemd` on a machine of the lab, with its user-space ESP
//! (kernel-libipsec).
//!
//! That ESP is always encapsulated in UDP, has no extended sequence numbers, and comes out of a
//! TUN device of its own, `ipsec0`. All that strongSwan is told and says lies in the machine's
//! directory. Needs the Debian packages that `tests/setup` lists.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::lab::{Host, process};
use crate::peers::swanctl::Connection;
use crate::peers::vici::Section;

/// How long strongSwan may take to be ready, and to end when asked to.
const PROMPT: Duration = Duration::from_secs(10);

/// How long a negotiation may take.
const NEGOTIATION: Duration = Duration::from_secs(20);

/// A running strongSwan; dropping it kills it, and shows its log if the test failed.
pub struct StrongSwan {
    host: Host,
    child: Child,
    dir: PathBuf,
}

/// An IKE SA, as strongSwan tells of it.
#[derive(Debug, Clone)]
pub struct IkeSa(Section);

impl Host {
    /// Runs strongSwan with this connection, which it answers to and does not initiate by itself
    /// unless the connection says so.
    ///
    /// # Panics
    /// When it does not become ready, or refuses the configuration.
    #[must_use]
    pub fn runs_strongswan(&self, connection: &Connection) -> StrongSwan {
        let dir = self.dir().join("strongswan");
        for part in ["private", "pubkey"] {
            make_dir(&dir.join(part));
        }
        write(&dir.join("strongswan.conf"), &settings(&dir.display().to_string()));
        let mut command = self.command("/usr/sbin/charon-systemd");
        command.env("STRONGSWAN_CONF", dir.join("strongswan.conf"));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(match File::create(dir.join("stderr")) {
            Ok(file) => file,
            Err(error) => panic!("cannot write below {}: {error}", dir.display()),
        });
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("cannot start charon-systemd ({error}): run tests/setup"),
        };
        let swan = StrongSwan { host: self.clone(), child, dir };
        let ready = process::eventually(PROMPT, || swan.swanctl("--stats").is_ok());
        assert!(ready, "strongSwan on {} is not ready", self.name());
        swan.loads(connection);
        swan
    }
}

impl StrongSwan {
    /// Replaces connections, keys and pools.
    ///
    /// # Panics
    /// When strongSwan does not like them.
    pub fn loads(&self, connection: &Connection) {
        write(&self.dir.join("swanctl.conf"), &connection.to_string());
        for (name, text) in connection.files() {
            write(&self.dir.join(name), text);
        }
        if let Err(why) = self.swanctl("--load-all") {
            panic!("strongSwan on {} refuses:\n{connection}\n{why}", self.host.name());
        }
    }

    /// Negotiates an IKE SA and its child.
    ///
    /// # Errors
    /// With strongSwan's words, when nothing comes of it.
    pub fn initiates(&self) -> Result<(), String> {
        self.negotiates("--initiate --child net")
    }

    /// Replaces the child SA by a new one.
    ///
    /// # Errors
    /// With strongSwan's words, when it cannot begin.
    pub fn rekeys_child(&self) -> Result<(), String> {
        self.swanctl("--rekey --child net").map(drop)
    }

    /// Replaces the IKE SA by a new one.
    ///
    /// # Errors
    /// With strongSwan's words, when it cannot begin.
    pub fn rekeys_ike(&self) -> Result<(), String> {
        self.swanctl("--rekey --ike lab").map(drop)
    }

    /// Deletes the IKE SA, and its child with it.
    ///
    /// # Errors
    /// With strongSwan's words, when it cannot.
    pub fn terminates(&self) -> Result<(), String> {
        self.negotiates("--terminate --ike lab")
    }

    /// The IKE SAs there are, the newest last.
    ///
    /// # Panics
    /// When strongSwan does not answer.
    #[must_use]
    pub fn sas(&self) -> Vec<IkeSa> {
        let said = match self.swanctl("--list-sas --raw") {
            Ok(said) => Section::parse(&said),
            Err(why) => panic!("strongSwan on {} does not answer: {why}", self.host.name()),
        };
        said.sections.into_iter().flat_map(|message| message.sections).map(IkeSa).collect()
    }

    /// The one IKE SA, which is established and has one installed child.
    ///
    /// # Panics
    /// When that is not so within five seconds.
    #[must_use]
    pub fn sa(&self) -> IkeSa {
        let mut last = Vec::new();
        let settled = process::eventually(Duration::from_secs(5), || {
            last = self.sas();
            matches!(&last[..], [sa] if sa.is_up())
        });
        match last.pop() {
            Some(sa) if settled => sa,
            other => panic!("not one IKE SA with one child: {last:?} {other:?}"),
        }
    }

    /// What strongSwan has logged.
    #[must_use]
    pub fn log(&self) -> String {
        ["stderr", "log"]
            .map(|name| fs::read(self.dir.join(name)).unwrap_or_default())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .concat()
    }

    /// `kill -9`.
    pub fn dies(mut self) {
        process::kill(&mut self.child);
    }

    fn negotiates(&self, words: &str) -> Result<(), String> {
        self.swanctl(&format!("{words} --timeout {}", NEGOTIATION.as_secs())).map(drop)
    }

    fn swanctl(&self, words: &str) -> Result<String, String> {
        let uri = format!("unix://{}", self.dir.join("vici").display());
        let mut command: Command = self.host.command(&format!("/usr/sbin/swanctl {words}"));
        command.args(["--uri", &uri]);
        command.env("SWANCTL_DIR", &self.dir);
        command.env("STRONGSWAN_CONF", self.dir.join("strongswan.conf"));
        let output = process::run(command, "", NEGOTIATION + PROMPT);
        if output.success { Ok(output.stdout) } else { Err(output.stdout + &output.stderr) }
    }
}

impl Drop for StrongSwan {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- strongSwan on {} ---\n{}", self.host.name(), self.log());
        }
        process::kill(&mut self.child);
    }
}

impl IkeSa {
    /// Established, with one child that is installed; others may be on their way out.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.value("state") == "ESTABLISHED" && self.installed().len() == 1
    }

    /// A value of the IKE SA by strongSwan's name, or an empty text.
    #[must_use]
    pub fn value(&self, name: &str) -> String {
        self.0.value(name).into()
    }

    /// A value of its newest installed child, or an empty text.
    #[must_use]
    pub fn child(&self, name: &str) -> String {
        self.installed().last().map(|child| child.value(name).to_owned()).unwrap_or_default()
    }

    fn installed(&self) -> Vec<Section> {
        let mut children = self.0.section("child-sas").sections;
        children.retain(|child| child.value("state") == "INSTALLED");
        children
    }
}

/// `strongswan.conf`. Of AEADs, AES is OpenSSL's. A lost message is sent again soon. The mark
/// keeps its own packets out of its TUN device when the other end's own address is behind that.
fn settings(dir: &str) -> String {
    format!(
        "charon-systemd {{
            load = random nonce openssl aes sha1 sha2 hmac kdf gcm chapoly drbg curve25519 \
                pem pkcs1 pkcs8 x509 pubkey kernel-libipsec kernel-netlink socket-default vici updown
            install_virtual_ip = yes
            retransmit_timeout = 0.5
            retransmit_base = 1.5
            retransmit_tries = 4
            retry_initiate_interval = 1
            journal {{ default = -1 }}
            filelog {{ log {{ path = {dir}/log
                default = 1
                time_format = %T
                flush_line = yes }} }}
            plugins {{ vici {{ socket = unix://{dir}/vici }}
                kernel-libipsec {{ allow_peer_ts = yes }}
                kernel-netlink {{ fwmark = !0x42 }}
                socket-default {{ fwmark = 0x42 }} }}
        }}
        swanctl {{ load = pem pkcs1 pkcs8 x509 pubkey openssl curve25519 random }}
        "
    )
}

fn make_dir(dir: &std::path::Path) {
    if let Err(error) = fs::create_dir_all(dir) {
        panic!("cannot make {}: {error}", dir.display());
    }
}

fn write(path: &std::path::Path, text: &str) {
    if let Err(error) = fs::write(path, text) {
        panic!("cannot write {}: {error}", path.display());
    }
}
