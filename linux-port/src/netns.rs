//! For tests only: a network namespace of one's own, and the shell in it.

use std::process::Command;

/// Runs `test` in a thread with a new network namespace in which `lo` is up.
///
/// Needs root, or `unshare -Urn` around the test process: without it the test fails and says so.
pub(crate) fn within(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect(
                "network namespaces need root: run the tests as root or under unshare -Urnm",
            );
            sh("ip link set lo up");
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// What a command that must succeed printed, in the namespace of this thread.
pub(crate) fn sh(command: &str) -> String {
    let (success, text) = try_sh(command);
    assert!(success, "{command}: {text}");
    text
}

/// Whether a command succeeded, and what it printed.
pub(crate) fn try_sh(command: &str) -> (bool, String) {
    let output = Command::new("sh").args(["-c", command]).output().expect("sh runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).trim().to_string())
}

/// From here on this thread's mounts are its own.
pub(crate) fn private_mounts() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    sh("mount --make-rprivate /");
}

/// A directory that goes with its owner.
pub(crate) struct Scratch(std::path::PathBuf);

impl Scratch {
    pub(crate) fn new() -> Scratch {
        let template = std::env::temp_dir().join("simplevpn-test-XXXXXX");
        Scratch(nix::unistd::mkdtemp(&template).expect("a scratch directory"))
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Another network namespace, kept by a thread that runs what it is given.
pub(crate) struct Neighbour {
    jobs: std::sync::mpsc::Sender<Job>,
    thread: nix::unistd::Pid,
}

impl Neighbour {
    pub(crate) fn new() -> Neighbour {
        let (jobs, inbox) = std::sync::mpsc::channel::<Job>();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("needs root");
            sh("ip link set lo up");
            tell.send(nix::unistd::gettid()).expect("the test waits");
            inbox.into_iter().for_each(|job| job());
        });
        Neighbour { jobs, thread: told.recv().expect("the thread starts") }
    }

    /// Runs `job` there and returns what it returns.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = std::sync::mpsc::channel();
        let job = Box::new(move || tell.send(job()).expect("the test waits"));
        self.jobs.send(job).expect("the thread lives");
        told.recv().expect("the job does not panic")
    }

    /// Joins this thread's namespace to the neighbour's by a veth pair called `name` on both sides.
    pub(crate) fn join(&self, name: &str, ours: &[&str], theirs: &[&str]) {
        sh(&format!("ip link add {name} type veth peer name {name} netns {}", self.thread));
        let up = |addresses: &[&str]| {
            let mut script = format!("ip link set {name} up");
            for address in addresses {
                script += &format!("; ip address add {address} dev {name}");
                script += if address.contains(':') { " nodad" } else { "" };
            }
            script
        };
        sh(&up(ours));
        let script = up(theirs);
        self.run(move || sh(&script));
    }
}

/// A raw IPv4 socket of this protocol, which waits at most 300 ms.
pub(crate) fn raw_socket(protocol: i32, local: std::net::Ipv4Addr) -> std::os::fd::OwnedFd {
    use nix::sys::socket::{SockaddrIn, bind, setsockopt, sockopt::ReceiveTimeout};
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: `fd` is open and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    setsockopt(&socket, ReceiveTimeout, &nix::sys::time::TimeVal::new(0, 300_000)).expect("time");
    let local = SockaddrIn::from(std::net::SocketAddrV4::new(local, 0));
    bind(socket.as_raw_fd(), &local).expect("a local address");
    socket
}
