//! No memory is allocated per packet: two whole daemons, each with its event loop in a thread and
//! a network namespace of its own, real TUN devices and a real wire between them, under an
//! allocator that counts what each thread allocates.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write as _;
use std::net::UdpSocket;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use simplevpn::daemon;

/// Allocations (and reallocations) of each thread that has a number; the rest counts as thread 0.
static ALLOCATIONS: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];

thread_local! {
    static THREAD: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

fn count() {
    // A thread that ends may free and allocate after its numbers are gone.
    let thread = THREAD.try_with(Cell::get).unwrap_or(0);
    ALLOCATIONS[thread].fetch_add(1, Ordering::Relaxed);
}

// SAFETY: everything is left to `System`; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What the daemons' threads have allocated so far.
fn allocations() -> [u32; 2] {
    [1, 2].map(|thread| ALLOCATIONS[thread].load(Ordering::Relaxed))
}

const INSIDE: &str = "SIMPLEVPN_TEST_INSIDE";

/// Runs the test `name` again as root of new namespaces; `true`: this is that run.
fn is_inside(name: &str, dir: &Path) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let output = Command::new("unshare")
        .args(["-Urnm", "timeout", "60"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .env("SIMPLEVPN_RUN_DIR", dir.join("run"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    println!("{said}");
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    false
}

/// An empty directory of our own, on a disk.
fn directory(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if std::env::var_os(INSIDE).is_none() {
        let _ = std::fs::remove_dir_all(&dir);
        for part in ["run", "state1", "state2"] {
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(dir.join(part)).unwrap();
        }
    }
    dir
}

fn sh(command: &str) {
    let output = Command::new("sh").args(["-ec", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// End 1 or 2: wire address 192.0.2.N, tunnel address 10.77.0.N, interface vpnN.
fn configuration(end: usize, encap: &str, dir: &Path) -> PathBuf {
    let other = 3 - end;
    let key = |of: usize| format!("{of:02x}").repeat(36);
    let text = format!(
        "config interface 'vpn{end}'\n\
         \toption proto 'simplevpn'\n\
         \tlist addresses '10.77.0.{end}/32'\n\
         \toption state_dir '{}'\n\
         config simplevpn_vpn{end} 'other'\n\
         \toption keying 'manual'\n\
         \toption encap '{encap}'\n\
         \toption endpoint_host '192.0.2.{other}'\n\
         \tlist allowed_ips '10.77.0.{other}/32'\n\
         \toption spi_in '0x100{end}'\n\
         \toption spi_out '0x100{other}'\n\
         \toption key_in '{}'\n\
         \toption key_out '{}'\n",
        dir.join(format!("state{end}")).display(),
        key(end),
        key(other),
    );
    let path = dir.join(format!("network{end}"));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&path).unwrap().write_all(text.as_bytes()).unwrap();
    path
}

/// One end: a daemon in a thread and a namespace of its own, and an application's socket there.
struct End {
    number: usize,
    socket: UdpSocket,
    daemon: JoinHandle<()>,
}

/// Where both ends meet before the wire is made and after.
struct Meeting {
    barrier: Barrier,
    second: AtomicI32,
}

fn start(
    number: usize,
    file: PathBuf,
    meeting: Arc<Meeting>,
) -> (JoinHandle<()>, Receiver<UdpSocket>) {
    let (give, given) = channel();
    let daemon = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        if number == 2 {
            meeting.second.store(nix::unistd::gettid().as_raw(), Ordering::SeqCst);
        }
        meeting.barrier.wait();
        if number == 1 {
            let second = meeting.second.load(Ordering::SeqCst);
            sh(&format!("ip link add wire type veth peer name wire netns {second}"));
        }
        meeting.barrier.wait();
        sh(&format!(
            "ip link set lo up; ip link set wire up; ip addr add 192.0.2.{number}/24 dev wire"
        ));
        let socket = UdpSocket::bind("0.0.0.0:7").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        give.send(socket).unwrap();
        THREAD.set(number);
        let ended =
            daemon::run(daemon::Settings { file, only: None, netifd: false, tunlink: None });
        THREAD.set(0);
        ended.unwrap_or_else(|error| panic!("daemon {number}: {error:?}"));
    });
    (daemon, given)
}

impl End {
    fn name(&self) -> String {
        format!("vpn{}", self.number)
    }

    fn is_ready(&self) -> bool {
        daemon::show(Some(&self.name()), true).is_ok()
    }

    /// Sends datagrams of these sizes to the other end.
    fn send(&self, sizes: &[usize]) {
        for size in sizes {
            self.socket
                .send_to(&[7; 4000][..*size], format!("10.77.0.{}:7", 3 - self.number))
                .unwrap();
        }
    }

    /// Sends a run of `count` datagrams, which reaches the tunnel as one super-packet.
    fn send_run(&self, count: usize) {
        const SEGMENT: usize = 1000;
        self.cut_at(SEGMENT as i32);
        let run = [8; 40 * SEGMENT];
        let to = format!("10.77.0.{}:7", 3 - self.number);
        self.socket.send_to(&run[..count * SEGMENT], to).unwrap();
        self.cut_at(0);
    }

    /// Lets the kernel cut what is sent (`UDP_SEGMENT`); 0: no more.
    fn cut_at(&self, len: i32) {
        use std::os::fd::AsRawFd;
        let size = size_of::<i32>() as libc::socklen_t;
        let (fd, option) = (self.socket.as_raw_fd(), (&raw const len).cast());
        // SAFETY: the kernel reads one int.
        let set =
            unsafe { libc::setsockopt(fd, libc::IPPROTO_UDP, libc::UDP_SEGMENT, option, size) };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    }

    /// Receives up to `count` datagrams, and returns how many came.
    fn receive(&self, count: usize) -> usize {
        let mut room = [0; 4096];
        (0..count).take_while(|_| self.socket.recv(&mut room).is_ok()).count()
    }
}

/// Sends `rounds` bursts both ways at once, single datagrams and a run of them, and returns how many datagrams arrived.
fn exchange(ends: &[End; 2], rounds: usize) -> usize {
    const RUN: usize = 20;
    // The last one goes in fragments, inside the tunnel.
    let burst = [0, 1, 100, 512, 1000, 1300, 1400, 1400, 1400, 1400, 100, 100, 4000];
    let mut received = 0;
    for _ in 0..rounds {
        ends.iter().for_each(|end| end.send(&burst));
        ends.iter().for_each(|end| end.send_run(RUN));
        received += ends.iter().map(|end| end.receive(burst.len() + RUN)).sum::<usize>();
    }
    received
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within ten seconds");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn measure(encap: &str, dir: &Path) {
    let meeting = Arc::new(Meeting { barrier: Barrier::new(2), second: AtomicI32::new(0) });
    let ends =
        [1, 2].map(|number| start(number, configuration(number, encap, dir), Arc::clone(&meeting)));
    let mut number = 0;
    let ends = ends.map(|(daemon, given)| {
        number += 1;
        End { number, socket: given.recv().unwrap(), daemon }
    });
    wait_until("daemons ready", || ends.iter().all(End::is_ready));
    // Until paths and MTUs are learned and the network has come to rest.
    assert!(exchange(&ends, 20) > 0, "{encap}: nothing arrives");
    wait_until("rest", || {
        let before = allocations();
        std::thread::sleep(Duration::from_millis(1100));
        allocations() == before
    });

    let before = allocations();
    let started = Instant::now();
    let received = exchange(&ends, 1000);
    let after = allocations();
    println!(
        "{encap}: {received} datagrams in {:?}, allocations {before:?} -> {after:?}",
        started.elapsed()
    );
    assert!(before.iter().all(|count| *count > 100), "nothing was counted: {before:?}");
    assert!(received > 50_000, "too few arrived: {received}");
    assert_eq!(before, after, "{encap}: memory was allocated while {received} datagrams passed");

    for end in ends {
        daemon::down(&end.name()).unwrap();
        end.daemon.join().unwrap();
    }
}

#[test]
fn no_memory_is_allocated_per_packet() {
    let dir = directory("allocations");
    if is_inside("no_memory_is_allocated_per_packet", &dir) {
        ["esp", "udp"].into_iter().for_each(|encap| measure(encap, &dir));
    }
}
