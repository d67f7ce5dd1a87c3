//! Data on its way: TCP transfers, UDP exchanges and pings, all verified and bounded in time.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::{Host, process};

/// What every application here sends in the clear, again and again: an eavesdropper who finds it
/// has broken in.
pub const MARKER: &[u8] = b"This is the secret that nobody on the wire may ever read.";

/// How long a transfer may stand still.
const STALL: Duration = Duration::from_secs(8);

/// A finished, verified TCP transfer.
#[derive(Debug, Clone, Copy)]
pub struct Transfer {
    /// Bytes of payload.
    pub bytes: u64,
    /// From the first byte sent to the receiver's word that all is right.
    pub took: Duration,
}

impl Transfer {
    /// Mbit/s of payload.
    pub fn rate(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.took.as_secs_f64() / 1e6
    }
}

impl fmt::Display for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.rate();
        write!(f, "{} MB, every byte right, {rate:.0} Mbit/s", self.bytes / 1_000_000)
    }
}

/// Answers to a number of questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answers {
    /// Questions asked.
    pub asked: u32,
    /// Right answers.
    pub right: u32,
}

impl Answers {
    /// Every question was answered, and there was one.
    pub fn all(&self) -> bool {
        self.asked > 0 && self.asked == self.right
    }
}

impl Host {
    /// Sends `bytes` bytes of TCP to `server`, which this machine reaches as `address`.
    ///
    /// # Errors
    /// When no connection comes about, it stands still, or a byte arrives wrong.
    pub fn tcp(&self, server: &Host, address: IpAddr, bytes: u64) -> io::Result<Transfer> {
        let listener = server.within(|| TcpListener::bind((any(address), 0)))?;
        let target = SocketAddr::new(address, listener.local_addr()?.port());
        let client = self.within(|| TcpStream::connect_timeout(&target, STALL))?;
        listener.set_nonblocking(true)?;
        let served = accept(&listener)?;
        for stream in [&client, &served] {
            stream.set_read_timeout(Some(STALL))?;
            stream.set_write_timeout(Some(STALL))?;
        }
        let start = Instant::now();
        std::thread::scope(|scope| {
            let receiver = scope.spawn(move || receive(served, bytes));
            let sent = send(client, bytes);
            receiver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            sent
        })?;
        Ok(Transfer { bytes, took: start.elapsed() })
    }

    /// Asks `server`, reached as `address`, `count` questions of `size` bytes each by UDP and
    /// compares its echoes. `size` is the payload: 65,507 fills an IPv4 packet. Before big ones,
    /// up to five that do not count teach both ends the path MTU.
    ///
    /// # Errors
    /// When sockets cannot be made.
    pub fn udp(
        &self,
        server: &Host,
        address: IpAddr,
        size: usize,
        count: u32,
    ) -> io::Result<Answers> {
        let echo = server.within(|| UdpSocket::bind((any(address), 0)))?;
        let target = SocketAddr::new(address, echo.local_addr()?.port());
        let socket = self.within(|| UdpSocket::bind((any(address), 0)))?;
        echo.set_read_timeout(Some(Duration::from_millis(20)))?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        let mut answers = Answers { asked: count, right: 0 };
        std::thread::scope(|scope| {
            let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
            let stop = done.clone();
            scope.spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    if let Ok((length, from)) = echo.recv_from(&mut buffer) {
                        let _ = echo.send_to(buffer.get(..length).unwrap_or_default(), from);
                    }
                }
            });
            // Each end may lose a big datagram to learning a path MTU, inner and outer.
            let lessons = if size > 1200 { 5 } else { 0 };
            let _ = (0..lessons).any(|_| ask(&socket, target, &question(u32::MAX, size)));
            let _ = socket.set_read_timeout(Some(Duration::from_secs(2)));
            for number in 0..count {
                if ask(&socket, target, &question(number, size)) {
                    answers.right += 1;
                }
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        Ok(answers)
    }

    /// The round trip times of `count` echo requests, sent 2 ms apart, in rising order; lost ones
    /// are missing.
    pub fn ping_times(&self, address: IpAddr, count: u32) -> Vec<Duration> {
        let words = format!("ping -n -i 0.002 -W 1 -c {count} {address}");
        let limit = Duration::from_millis(u64::from(count) * 10) + STALL;
        let output = process::run(self.command(&words), "", limit);
        // "64 bytes from 10.2.0.2: icmp_seq=1 ttl=62 time=0.123 ms"
        let time = |line: &str| line.split_once("time=")?.1.split_once(' ')?.0.parse::<f64>().ok();
        let mut times: Vec<f64> = output.stdout.lines().filter_map(time).collect();
        times.sort_by(f64::total_cmp);
        times.into_iter().map(|ms| Duration::from_secs_f64(ms / 1e3)).collect()
    }

    /// Sends `count` echo requests of `size` bytes of payload, one by one.
    pub fn ping_sized(&self, address: IpAddr, size: u16, count: u32) -> Answers {
        self.ping_with(address, &format!("-s {size}"), count)
    }

    /// Sends `count` echo requests with further options of `ping`, each when the one before was
    /// answered or lost: of several, `ping` waits for the last no longer than 100 ms.
    pub fn ping_with(&self, address: IpAddr, options: &str, count: u32) -> Answers {
        let words = format!("ping -n -q -W 1 -c 1 {options} {address}");
        let answered = || process::run(self.command(&words), "", STALL).success;
        let right = (0..count).filter(|_| answered()).count();
        Answers { asked: count, right: right as u32 }
    }

    /// Three echo requests, all answered.
    pub fn pings(&self, address: &str) -> bool {
        self.ping_sized(super::ip(address), 56, 3).all()
    }

    /// Whether an echo request is answered within `limit`; asked again and again.
    pub fn reaches_within(&self, address: &str, limit: Duration) -> bool {
        process::eventually(limit, || self.ping_sized(super::ip(address), 56, 1).all())
    }

    /// Fails unless an echo, 100 kB of TCP each way of which every byte is right, and UDP of small
    /// and fragmented size reach `server` at `address`.
    ///
    /// # Panics
    /// When they do not, saying which.
    pub fn assert_uses(&self, server: &Host, address: &str) {
        let story = format!("from {} to {} at {address}", self.name(), server.name());
        assert!(self.reaches_within(address, Duration::from_secs(5)), "no ping {story}");
        let address = super::ip(address);
        if let Err(error) = self.tcp(server, address, 300_000) {
            panic!("no TCP {story}: {error}");
        }
        for size in [100, 1400, 4000] {
            match self.udp(server, address, size, 4) {
                Ok(answers) => assert!(answers.all(), "UDP of {size} bytes {story}: {answers:?}"),
                Err(error) => panic!("no UDP {story}: {error}"),
            }
        }
    }
}

/// The unspecified address of the same family.
pub fn any(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let deadline = Instant::now() + STALL;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if Instant::now() > deadline {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(error),
        }
    }
}

fn send(mut stream: TcpStream, bytes: u64) -> io::Result<()> {
    let pattern = pattern();
    let mut left = bytes;
    while left > 0 {
        let chunk = left.min(pattern.len() as u64) as usize;
        stream.write_all(pattern.get(..chunk).unwrap_or_default())?;
        left -= chunk as u64;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut verdict = Vec::new();
    stream.read_to_end(&mut verdict)?;
    if verdict == b"right" { Ok(()) } else { Err(io::Error::other("the receiver was not content")) }
}

fn receive(mut stream: TcpStream, bytes: u64) -> io::Result<()> {
    let pattern = pattern();
    let mut buffer = vec![0; pattern.len()];
    let mut received = 0_u64;
    loop {
        let at = (received % pattern.len() as u64) as usize;
        let expected = pattern.get(at..).unwrap_or_default();
        let room = buffer.get_mut(..expected.len()).unwrap_or_default();
        let length = stream.read(room)?;
        if length == 0 {
            break;
        }
        if room.get(..length) != expected.get(..length) {
            return Err(io::Error::other(format!("a wrong byte after {received} bytes")));
        }
        received += length as u64;
    }
    if received != bytes {
        return Err(io::Error::other(format!("{received} of {bytes} bytes arrived")));
    }
    stream.write_all(b"right")
}

/// What a transfer repeats: the marker among bytes that look random, of a length (a prime) that
/// drifts through segment sizes.
fn pattern() -> Vec<u8> {
    const LENGTH: usize = 130_003;
    let mut state = 0x2545_f491_u32;
    let mut pattern: Vec<u8> = Vec::with_capacity(LENGTH + MARKER.len());
    while pattern.len() < LENGTH {
        if pattern.len().is_multiple_of(500) {
            pattern.extend_from_slice(MARKER);
        }
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        pattern.push(state as u8);
    }
    pattern.truncate(LENGTH);
    pattern
}

fn question(number: u32, size: usize) -> Vec<u8> {
    let mut question: Vec<u8> = number.to_be_bytes().to_vec();
    question.extend(pattern().iter().take(size.saturating_sub(4)));
    question.truncate(size);
    question
}

fn ask(socket: &UdpSocket, target: SocketAddr, question: &[u8]) -> bool {
    if socket.send_to(question, target).is_err() {
        return false;
    }
    let mut buffer = vec![0; 1 << 16];
    let deadline = Instant::now() + Duration::from_secs(1);
    while Instant::now() < deadline {
        match socket.recv_from(&mut buffer) {
            // A late answer to an earlier question is passed over.
            Ok((length, _)) if buffer.get(..length) == Some(question) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    false
}
