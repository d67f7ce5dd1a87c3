//! One machine of a lab: a network namespace held by a file descriptor.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use super::{old_kernel, process};

/// A machine. Clones are the same machine.
#[derive(Clone)]
pub struct Host(Arc<Machine>);

struct Machine {
    name: String,
    netns: OwnedFd,
    dir: PathBuf,
    resolv_conf: OnceLock<PathBuf>,
    simplevpn: OnceLock<String>,
    old_kernel: OnceLock<()>,
}

impl Host {
    pub(super) fn new(name: &str, dir: PathBuf) -> Host {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok::<_, std::io::Error>(OwnedFd::from(File::open("/proc/thread-self/ns/net")?))
        });
        let netns = match made.join() {
            Ok(Ok(netns)) => netns,
            Ok(Err(error)) => panic!(
                "cannot make a network namespace ({error}): \
                 run this as root, or inside `unshare -Urnm` as tests/run does"
            ),
            Err(_) => panic!("the thread that makes a network namespace died"),
        };
        let (resolv_conf, simplevpn) = (OnceLock::new(), OnceLock::new());
        let old_kernel = OnceLock::new();
        let machine = Machine { name: name.into(), netns, dir, resolv_conf, simplevpn, old_kernel };
        Host(Arc::new(machine))
    }

    /// Its name in the picture.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its own directory, on a disk.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// A path to its namespace that `ip link … netns` understands.
    pub(super) fn netns_path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.netns.as_raw_fd()).into()
    }

    /// Runs `work` in a thread inside this machine: sockets made there stay in it.
    ///
    /// # Panics
    /// When `work` does.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            if let Err(error) = setns(self.0.netns.as_fd(), CloneFlags::CLONE_NEWNET) {
                panic!("cannot enter {}: {error}", self.0.name);
            }
            work()
        };
        let result = std::thread::scope(|scope| scope.spawn(inside).join());
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// A command that will run inside this machine, and die with the thread that starts it.
    /// Words are separated by white space.
    ///
    /// # Panics
    /// When there is no word.
    pub fn command(&self, words: &str) -> Command {
        use std::os::unix::process::CommandExt;
        let mut words = words.split_whitespace();
        let program = words.next().unwrap_or_else(|| panic!("an empty command"));
        let mut command = Command::new(program);
        command.args(words);
        let machine = Arc::clone(&self.0);
        let enter = move || machine.enter();
        // SAFETY: between fork and exec `enter` makes system calls only; it allocates nothing
        // (nix copies short paths to the stack) and takes no lock.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Rules and routes of both families, but for what the kernel adds in its own time: link-local
    /// addresses, multicast, and whether a link has a carrier.
    pub fn routing(&self) -> String {
        ["ip -4 rule", "ip -6 rule", "ip -4 route show table all", "ip -6 route show table all"]
            .map(|command| self.run(command))
            .concat()
            .lines()
            .filter(|line| !line.contains("fe80:") && !line.contains("ff00::"))
            .map(|line| line.replace(" linkdown", "") + "\n")
            .collect()
    }

    /// Runs a command that has to succeed within ten seconds, and returns what it printed.
    ///
    /// # Panics
    /// When it fails, with all it said.
    pub fn run(&self, words: &str) -> String {
        self.feed(words, "")
    }

    /// The same with something to read on standard input.
    ///
    /// # Panics
    /// When it fails, with all it said.
    pub fn feed(&self, words: &str, input: &str) -> String {
        let output = process::run(self.command(words), input, process::PATIENCE);
        assert!(
            output.success,
            "on {}: `{words}` failed:\n{input}{}{}",
            self.name(),
            output.stdout,
            output.stderr
        );
        output.stdout
    }

    /// Runs a command that may fail.
    pub fn attempt(&self, words: &str) -> process::Output {
        process::run(self.command(words), "", process::PATIENCE)
    }

    /// Writes a value below `/proc/sys/net/`.
    ///
    /// # Panics
    /// When the kernel refuses it.
    pub fn sysctl(&self, key: &str, value: &str) -> &Host {
        let path = format!("/proc/sys/net/{key}");
        if let Err(error) = self.within(|| std::fs::write(&path, value)) {
            panic!("on {}: {path} = {value}: {error}", self.name());
        }
        self
    }

    /// Reads a value below `/proc/sys/net/`.
    ///
    /// # Panics
    /// When there is none.
    pub fn read_sysctl(&self, key: &str) -> String {
        let path = format!("/proc/sys/net/{key}");
        match self.within(|| std::fs::read_to_string(&path)) {
            Ok(value) => value.trim().to_string(),
            Err(error) => panic!("on {}: {path}: {error}", self.name()),
        }
    }

    /// From now on this machine's programs see this text as `/etc/resolv.conf`.
    ///
    /// # Panics
    /// When called twice.
    pub fn resolv_conf(&self, text: &str) -> &Host {
        let path = self.0.dir.join("resolv.conf");
        if let Err(error) = std::fs::write(&path, text) {
            panic!("cannot write {}: {error}", path.display());
        }
        assert!(self.0.resolv_conf.set(path).is_ok(), "resolv.conf was set before");
        self
    }

    /// From now on these words run this machine's `simplevpn`.
    ///
    /// # Panics
    /// When called twice.
    pub(super) fn becomes(&self, simplevpn: String) {
        assert!(self.0.simplevpn.set(simplevpn).is_ok(), "{} has its simplevpn", self.name());
    }

    /// From now on this machine's programs meet a kernel as of 2018: see `old_kernel`.
    pub fn has_an_old_kernel(&self) -> &Host {
        self.0.old_kernel.get_or_init(|| ());
        self
    }

    /// The words that run this machine's `simplevpn`, if it has one of its own.
    pub(super) fn own_simplevpn(&self) -> Option<&str> {
        self.0.simplevpn.get().map(String::as_str)
    }

    /// Turns on or off what lets a virtual cable carry what no real one does: super-packets and
    /// unfinished checksums. Off is how cables begin; a TUN device begins with what its program
    /// takes.
    pub fn offloads(&self, interface: &str, on: bool) {
        // ETHTOOL_SRXCSUM, STXCSUM, STSO, SGSO, SGRO of linux/ethtool.h, which libc lacks.
        self.set_features(interface, &[0x15, 0x17, 0x1f, 0x24, 0x2c], on);
    }

    /// Turns on or off GRO alone, which virtual cables come without.
    pub fn merges(&self, interface: &str, on: bool) {
        self.set_features(interface, &[0x2c], on);
    }

    fn set_features(&self, interface: &str, setters: &[u32], on: bool) {
        const SIOCETHTOOL: u64 = 0x8946;
        self.within(|| {
            let socket = match std::net::UdpSocket::bind("0.0.0.0:0") {
                Ok(socket) => socket,
                Err(error) => panic!("cannot make a socket on {}: {error}", self.name()),
            };
            for &setter in setters {
                let mut value = [setter, u32::from(on)];
                // SAFETY: an all-zero ifreq is a valid one.
                let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
                for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes().take(15)) {
                    *to = from as libc::c_char;
                }
                request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
                // SAFETY: SIOCETHTOOL reads `request`, and through it an ethtool_value, which is
                // two u32; both outlive the call. A refusal (no such offload) is as good as off.
                unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &mut request) };
            }
        });
    }
}

impl Machine {
    /// Between fork and exec: enter the machine, and die with it.
    fn enter(&self) -> std::io::Result<()> {
        // SAFETY: PR_SET_PDEATHSIG takes a signal number and touches no memory of ours.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        setns(self.netns.as_fd(), CloneFlags::CLONE_NEWNET)?;
        if self.old_kernel.get().is_some() {
            old_kernel::pretend()?;
        }
        if let Some(resolv_conf) = self.resolv_conf.get() {
            unshare(CloneFlags::CLONE_NEWNS)?;
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
            let onto = "/etc/resolv.conf";
            mount(Some(resolv_conf.as_path()), onto, none, MsFlags::MS_BIND, none)?;
        }
        Ok(())
    }
}
