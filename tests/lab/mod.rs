//! A lab: machines made of network namespaces, and the wires between them.
//!
//! A test draws its topology with [`Lab::host`], [`Lab::link`] and [`Lab::switch`], starts daemons
//! on the machines, sends traffic and listens on the wires. Namespaces are anonymous: only file
//! descriptors hold them, so that nothing is left behind however the process ends. It takes root,
//! or `unshare -Urnm`. No packet leaves the namespaces.
//!
//! - [`Host`] is one machine: commands, sockets, sysctls, routes, NAT
//! - [`traffic`] moves and verifies data: TCP, UDP, ping
//! - [`load`] is as much of it as goes
//! - [`stream`] counts every datagram of a steady stream
//! - [`Bound`] are the ways in which programs insist on a device
//! - [`capture`] is the eavesdropper on a wire
//! - [`daemon`] writes configurations and runs `simplevpn`
//! - [`processor`] makes a machine a router whose `simplevpn` is emulated
//! - `old_kernel` refuses what kernels of 2018 do not know
//! - [`raw`] builds packets that no honest program would send
//! - [`dns`] is a name server
//! - [`netifd`] is the part of OpenWrt's netifd that a daemon meets
//! - [`sites`] is the topology that most labs share: two sites and their gateways

use std::cell::RefCell;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

mod bound;
pub mod capture;
pub mod daemon;
pub mod dns;
mod host;
pub mod load;
pub mod netifd;
mod old_kernel;
pub mod process;
pub mod processor;
pub mod raw;
pub mod sites;
pub mod stream;
pub mod traffic;

pub use bound::Bound;
pub use host::Host;

/// How a machine judges the source of what arrives (`rp_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReversePath {
    /// Not at all: 0, what OpenWrt ships.
    Off = 0,
    /// The way back must be the way it came: 1, what many server distributions ship.
    Strict = 1,
    /// Some way back must exist: 2, what desktop distributions ship.
    Loose = 2,
}

/// An interface to be: where it will be, its name, and its addresses.
pub struct Port<'a> {
    host: &'a Host,
    name: &'a str,
    addresses: &'a str,
}

/// The machines of one test; dropping it removes what they kept on disk.
pub struct Lab {
    dir: PathBuf,
    reverse_path: ReversePath,
    hosts: RefCell<Vec<Host>>,
}

impl Default for Lab {
    fn default() -> Lab {
        Lab::new()
    }
}

impl Lab {
    /// A lab without machines, in which `rp_filter` is loose.
    ///
    /// # Panics
    /// When its directory cannot be made.
    pub fn new() -> Lab {
        Lab::with_reverse_path(ReversePath::Loose)
    }

    /// A lab whose machines start with this `rp_filter`.
    ///
    /// # Panics
    /// When its directory cannot be made.
    pub fn with_reverse_path(reverse_path: ReversePath) -> Lab {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("simplevpn-lab-{}-{serial}", std::process::id());
        let dir = lasting_directory().join(name);
        make_private_dir(&dir);
        Lab { dir, reverse_path, hosts: RefCell::default() }
    }

    /// A new machine with nothing but loopback.
    ///
    /// # Panics
    /// Without the right to make a network namespace.
    pub fn host(&self, name: &str) -> Host {
        let dir = self.dir.join(name);
        for part in ["", "run", "state"] {
            make_private_dir(&dir.join(part));
        }
        let host = Host::new(name, dir);
        host.run("ip link set lo up");
        for (key, value) in [
            ("ipv4/conf/all/rp_filter", self.reverse_path as u8),
            ("ipv4/conf/default/rp_filter", self.reverse_path as u8),
            ("ipv4/ip_forward", 0),
            ("ipv6/conf/all/forwarding", 0),
            ("ipv6/conf/default/accept_ra", 0),
            ("ipv6/conf/default/accept_dad", 0),
        ] {
            host.sysctl(key, &value.to_string());
        }
        self.hosts.borrow_mut().push(host.clone());
        host
    }

    /// Several new machines.
    pub fn hosts<const N: usize>(&self, names: [&str; N]) -> [Host; N] {
        names.map(|name| self.host(name))
    }

    /// A cable between two interfaces.
    pub fn link(&self, one: Port<'_>, other: Port<'_>) {
        one.host.run(&format!(
            "ip link add name {} type veth peer name {} netns {}",
            one.name,
            other.name,
            other.host.netns_path().display()
        ));
        one.host.configure(one.name, one.addresses);
        other.host.configure(other.name, other.addresses);
    }

    /// A switch with a cable to each interface. What is returned is the switch itself: its bridge
    /// is `bridge0`, where an eavesdropper sees every frame that floods, and its ends of the cables
    /// have the names of the machines.
    pub fn switch<'a>(&self, ports: impl IntoIterator<Item = Port<'a>>) -> Host {
        let switch = self.host(&format!("switch{}", self.hosts.borrow().len()));
        switch.run("ip link add name bridge0 type bridge");
        switch.run("ip link set bridge0 up");
        for port in ports {
            let plug = port.host.name();
            self.link(switch.port(plug, ""), port.host.port(port.name, port.addresses));
            switch.run(&format!("ip link set dev {plug} master bridge0"));
        }
        switch
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // A lab that cannot tidy up its directory has still done its work.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Host {
    /// An interface of this machine for [`Lab::link`] or [`Lab::switch`]; addresses have prefix
    /// lengths and are separated by spaces.
    pub fn port<'a>(&'a self, name: &'a str, addresses: &'a str) -> Port<'a> {
        Port { host: self, name, addresses }
    }

    /// Forwards packets between its interfaces.
    pub fn forwards(&self) -> &Host {
        self.sysctl("ipv4/ip_forward", "1");
        self.sysctl("ipv6/conf/all/forwarding", "1")
    }

    /// Sends what it has no better route for to `gateways`, IPv4 or IPv6, separated by spaces.
    pub fn default_via(&self, gateways: &str) -> &Host {
        for gateway in gateways.split_whitespace() {
            self.route("default", gateway);
        }
        self
    }

    /// Reaches `prefix` through `gateway`.
    pub fn route(&self, prefix: &str, gateway: &str) -> &Host {
        let family = if gateway.contains(':') { "-6" } else { "-4" };
        self.run(&format!("ip {family} route add {prefix} via {gateway}"));
        self
    }

    /// Masquerades what leaves through `interface`, as a home router does.
    pub fn masquerades(&self, interface: &str) -> &Host {
        self.feed(
            "nft -f -",
            &format!(
                "add table inet lab\n\
                 add chain inet lab post {{ type nat hook postrouting priority 100; }}\n\
                 add rule inet lab post oifname {interface} masquerade\n"
            ),
        );
        self
    }

    /// Sets the MTU of an interface, in bytes.
    pub fn mtu(&self, interface: &str, mtu: u16) -> &Host {
        self.run(&format!("ip link set dev {interface} mtu {mtu}"));
        self
    }

    fn configure(&self, interface: &str, addresses: &str) {
        self.offloads(interface, false);
        self.run(&format!("ip link set dev {interface} up"));
        for address in addresses.split_whitespace() {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            self.run(&format!("ip addr add {address} dev {interface} {nodad}"));
        }
    }
}

/// Parses an address that a test wrote down.
///
/// # Panics
/// When it is none.
pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no IP address"))
}

fn make_private_dir(dir: &Path) {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = std::fs::DirBuilder::new();
    if let Err(error) = builder.recursive(true).mode(0o700).create(dir) {
        panic!("cannot make {}: {error}", dir.display());
    }
}

/// A directory whose content would survive a reboot: manual keying refuses a tmpfs.
fn lasting_directory() -> PathBuf {
    let target = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_path_buf()));
    [Some(PathBuf::from("/var/tmp")), target]
        .into_iter()
        .flatten()
        .find(|dir| {
            nix::sys::statfs::statfs(dir)
                .is_ok_and(|fs| fs.filesystem_type() != nix::sys::statfs::TMPFS_MAGIC)
        })
        .unwrap_or_else(|| panic!("neither /var/tmp nor the build directory is on a disk"))
}
