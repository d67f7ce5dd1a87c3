//! What a daemon meets of OpenWrt's netifd: a program called `ubus`, someone who gives the TUN
//! device its addresses and routes, and someone who takes every rule away when it starts.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use super::daemon::{Daemon, Vpn};
use super::{Host, process};

/// The `ubus` of one machine.
pub struct Netifd {
    host: Host,
    dir: PathBuf,
}

impl Host {
    /// From now on `simplevpn` finds an `ubus` on this machine.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn has_netifd(&self) -> Netifd {
        let dir = self.dir().join("bin");
        let program = dir.join("ubus");
        let written = std::fs::create_dir_all(&dir)
            .and_then(|()| std::fs::write(&program, include_str!("ubus.py")))
            .and_then(|()| std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)));
        if let Err(error) = written {
            panic!("cannot write {}: {error}", program.display());
        }
        Netifd { host: self.clone(), dir }
    }
}

impl Netifd {
    /// Runs `simplevpn run --netifd` for `vpn0`, with more options, and does not wait.
    pub fn launches(&self, vpn: &Vpn, options: &str) -> Daemon {
        self.host.launches_with(vpn, &format!("--netifd {options}"), "vpn0")
    }

    /// The same, and waits until the interface is up.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn starts(&self, vpn: &Vpn) -> Daemon {
        let before = self.messages().len();
        let daemon = self.launches(vpn, "");
        let up = process::eventually(Duration::from_secs(10), || self.messages().len() > before);
        assert!(up, "netifd heard nothing:\n{}", daemon.log());
        daemon
    }

    /// netifd starts anew: it deletes every rule of this machine, whoever made it, and makes those
    /// that a kernel begins with (`system_flush_iprules`).
    pub fn begins(&self) {
        for family in ["-4", "-6"] {
            self.host.run(&format!("ip {family} rule flush"));
            self.host.run(&format!("ip {family} rule add pref 32766 lookup main"));
        }
        self.host.run("ip -4 rule add pref 32767 lookup default");
    }

    /// What netifd was told, in order: object, method and message.
    pub fn messages(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.join("messages")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// From now on `ubus` complains in these words, hangs if they are "hang", and works again if
    /// there are none.
    ///
    /// # Panics
    /// When that cannot be written down.
    pub fn has_trouble(&self, words: &str) {
        if let Err(error) = std::fs::write(self.dir.join("trouble"), words) {
            panic!("cannot write: {error}");
        }
    }
}
