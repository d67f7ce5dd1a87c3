//! strongSwan as a peer: a real `charon-systemd`.
//!
//! - on a machine of the lab, with its user-space ESP (kernel-libipsec). That ESP is always
//!   encapsulated in UDP, has no extended sequence numbers, and comes out of a TUN device of its
//!   own, `ipsec0`
//! - in a User-Mode Linux guest, with the ESP of the Linux kernel, which has all that
//!
//! Needs the Debian packages that `tests/setup` lists.

use std::cell::RefCell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::lab::{Host, process};
use crate::peers::swanctl::Connection;
use crate::peers::uml::UmlPeer;
use crate::peers::vici::Section;

/// How long strongSwan may take to be ready.
const PROMPT: Duration = Duration::from_secs(10);

/// How long a negotiation may take.
const NEGOTIATION: Duration = Duration::from_secs(20);

/// A running strongSwan; dropping it kills it, and shows its log if the test failed.
pub struct StrongSwan {
    place: Place,
    /// What it is told and says.
    dir: PathBuf,
}

enum Place {
    Machine(Host, Child),
    Guest(Box<RefCell<UmlPeer>>),
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
        let vici = dir.join("vici").display().to_string();
        prepare(&dir, &vici, "kernel-libipsec");
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
        StrongSwan { place: Place::Machine(self.clone(), child), dir }.ready(connection)
    }
}

impl UmlPeer {
    /// Runs strongSwan in this guest, whose kernel has the ESP.
    ///
    /// # Panics
    /// When it does not become ready, or refuses the configuration.
    #[must_use]
    pub fn runs_strongswan(mut self, connection: &Connection) -> StrongSwan {
        let dir = self.dir().to_owned();
        prepare(&dir, "/run/vici", "");
        let d = dir.display();
        self.run(&format!("STRONGSWAN_CONF={d}/strongswan.conf charon-systemd >{d}/stderr 2>&1 &"));
        StrongSwan { place: Place::Guest(Box::new(RefCell::new(self))), dir }.ready(connection)
    }
}

impl StrongSwan {
    fn ready(self, connection: &Connection) -> StrongSwan {
        let ready = process::eventually(PROMPT, || self.swanctl("--stats").is_ok());
        assert!(ready, "strongSwan is not ready");
        self.loads(connection);
        self
    }

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
            panic!("strongSwan refuses:\n{connection}\n{why}");
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

    /// Deletes the child SA, and keeps the IKE SA.
    ///
    /// # Errors
    /// With strongSwan's words, when it cannot.
    pub fn terminates_child(&self) -> Result<(), String> {
        self.negotiates("--terminate --child net")
    }

    /// The IKE SAs there are, the newest last.
    ///
    /// # Panics
    /// When strongSwan does not answer.
    #[must_use]
    pub fn sas(&self) -> Vec<IkeSa> {
        let said = match self.swanctl("--list-sas --raw") {
            Ok(said) => Section::parse(&said),
            Err(why) => panic!("strongSwan does not answer: {why}"),
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
    ///
    /// # Panics
    /// When it is in a guest.
    pub fn dies(mut self) {
        match &mut self.place {
            Place::Machine(_, child) => process::kill(child),
            Place::Guest(_) => panic!("power the guest off"),
        }
    }

    /// Runs a shell script in the guest.
    ///
    /// # Panics
    /// When it fails, or there is no guest.
    pub fn guest(&self, script: &str) -> String {
        match &self.place {
            Place::Machine(..) => panic!("no guest"),
            Place::Guest(guest) => guest.borrow_mut().run(script),
        }
    }

    fn negotiates(&self, words: &str) -> Result<(), String> {
        self.swanctl(&format!("{words} --timeout {}", NEGOTIATION.as_secs())).map(drop)
    }

    fn swanctl(&self, words: &str) -> Result<String, String> {
        let d = self.dir.display();
        let at = |vici: &str| {
            format!(
                "env SWANCTL_DIR={d} STRONGSWAN_CONF={d}/strongswan.conf \
                 /usr/sbin/swanctl {words} --uri unix://{vici}"
            )
        };
        let patience = NEGOTIATION + PROMPT;
        match &self.place {
            Place::Machine(host, _) => {
                let command = host.command(&at(&self.dir.join("vici").display().to_string()));
                let output = process::run(command, "", patience);
                let said = output.stdout + &output.stderr;
                if output.success { Ok(said) } else { Err(said) }
            }
            Place::Guest(guest) => match guest.borrow_mut().attempt(&at("/run/vici"), patience) {
                (0, said) => Ok(said),
                (_, said) => Err(said),
            },
        }
    }
}

impl Drop for StrongSwan {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- strongSwan ---\n{}", self.log());
        }
        if let Place::Machine(_, child) = &mut self.place {
            process::kill(child);
        }
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

/// Makes its directory, with `strongswan.conf`. Of AEADs, AES is OpenSSL's. A lost message is sent
/// again soon. The mark keeps strongSwan's own packets out of its TUN device when the other end's
/// own address is behind that.
fn prepare(dir: &Path, vici: &str, libipsec: &str) {
    // swanctl complains about every directory that is not there.
    for part in "private pubkey x509 x509ca x509ocsp x509aa x509ac x509crl rsa ecdsa bliss pkcs8 \
                 pkcs12"
        .split_whitespace()
    {
        if let Err(error) = fs::create_dir_all(dir.join(part)) {
            panic!("cannot make a directory below {}: {error}", dir.display());
        }
    }
    let d = dir.display();
    let marks = match libipsec {
        "" => "",
        _ => "kernel-netlink { fwmark = !0x42 }\n socket-default { fwmark = 0x42 }",
    };
    let text = format!(
        "charon-systemd {{
            load = random nonce openssl aes sha1 sha2 hmac kdf gcm chapoly drbg curve25519 \
                pem pkcs1 pkcs8 x509 pubkey {libipsec} kernel-netlink socket-default vici updown
            retransmit_timeout = 0.5
            retransmit_base = 1.5
            retransmit_tries = 4
            journal {{ default = -1 }}
            filelog {{ log {{ path = {d}/log
                default = 1
                time_format = %T
                flush_line = yes }} }}
            plugins {{ vici {{ socket = unix://{vici} }}
                kernel-libipsec {{ allow_peer_ts = yes }}
                {marks} }}
        }}
        swanctl {{ load = pem pkcs1 pkcs8 x509 pubkey openssl curve25519 random }}
        "
    );
    write(&dir.join("strongswan.conf"), &text);
}

fn write(path: &Path, text: &str) {
    if let Err(error) = fs::write(path, text) {
        panic!("cannot write {}: {error}", path.display());
    }
}
