//! libreswan as a peer: a real `pluto` in a User-Mode Linux guest, whose kernel has the ESP.
//!
//! It is unpacked, not installed: `tests/setup` puts it into `libreswan` in the build's target
//! directory. It authenticates by preshared keys here; of raw keys, this version has RSA and ECDSA
//! only.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::lab::process;
use crate::peers::uml::UmlPeer;

/// How long pluto may take to be ready, and a negotiation to come to an end.
const PROMPT: Duration = Duration::from_secs(20);

/// A running libreswan; dropping it ends its guest, and shows its log if the test failed.
pub struct Libreswan {
    guest: UmlPeer,
    log: PathBuf,
}

impl UmlPeer {
    /// Runs libreswan with this connection: lines of a `conn` section of `ipsec.conf`, without
    /// indentation. The preshared key is whatever stands in `ipsec.secrets` after `PSK`.
    ///
    /// # Panics
    /// When it does not become ready, or refuses the configuration.
    #[must_use]
    pub fn runs_libreswan(mut self, connection: &str, psk: &str) -> Libreswan {
        let (dir, programs) = (self.dir().to_owned(), unpacked());
        let d = dir.display();
        let lines: String = connection.lines().map(|line| format!("\t{}\n", line.trim())).collect();
        let text = format!("config setup\n\nconn lab\n{lines}\tleftupdown=%disabled\n\tauto=add\n");
        for (name, text) in [("ipsec.conf", text), ("secrets", format!(": PSK {psk}\n"))] {
            if let Err(error) = fs::write(dir.join(name), text) {
                panic!("cannot write below {d}: {error}");
            }
        }
        // Its programs look for each other where the package would have put them.
        self.run(&format!(
            "set -e
            mount --bind {}/usr/libexec /usr/libexec
            mkdir /run/nss /run/pluto
            certutil -N -d sql:/run/nss --empty-password
            /usr/libexec/ipsec/pluto --nofork --stderrlog --config {d}/ipsec.conf \
                --secretsfile {d}/secrets --nssdir /run/nss --rundir /run/pluto --ipsecdir /run \
                --no-dnssec >{d}/log 2>&1 &",
            programs.display()
        ));
        let swan = Libreswan { guest: self, log: dir.join("log") };
        for ready in ["added IKEv2 connection", "loading secrets"] {
            assert!(swan.says(ready), "libreswan is not ready");
        }
        swan
    }
}

impl Libreswan {
    /// Negotiates an IKE SA and its child.
    pub fn initiates(&mut self) {
        self.whack("--initiate --asynchronous --name lab");
    }

    /// Replaces the child's keys.
    pub fn rekeys_child(&mut self) {
        self.whack("--rekey-ipsec --asynchronous --name lab");
    }

    /// Replaces the keys of IKE.
    pub fn rekeys_ike(&mut self) {
        self.whack("--rekey-ike --asynchronous --name lab");
    }

    /// Waits until its log contains these words.
    #[must_use]
    pub fn says(&self, words: &str) -> bool {
        process::eventually(PROMPT, || self.log().contains(words))
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Runs a shell script in the guest.
    ///
    /// # Panics
    /// When it fails.
    pub fn guest(&mut self, script: &str) -> String {
        self.guest.run(script)
    }

    fn whack(&mut self, words: &str) {
        let whack = "/usr/libexec/ipsec/whack --ctlsocket /run/pluto/pluto.ctl";
        self.guest.run(&format!("{whack} {words}"));
    }
}

impl Drop for Libreswan {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- libreswan ---\n{}", self.log());
        }
    }
}

/// Where its package is unpacked.
fn unpacked() -> PathBuf {
    let me = std::env::current_exe().unwrap_or_default();
    me.ancestors()
        .skip(1)
        .take(4)
        .map(|dir| dir.join("libreswan"))
        .find(|dir| dir.join("usr/libexec/ipsec/pluto").is_file())
        .and_then(|dir| Path::new(&dir).canonicalize().ok())
        .unwrap_or_else(|| panic!("no libreswan: run tests/setup"))
}
