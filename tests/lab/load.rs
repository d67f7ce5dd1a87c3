//! As much as goes, or at a given pace: TCP streams and datagrams for measuring what a path
//! carries. What arrives is counted, not compared; [`super::traffic`] does that.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::prctl::set_timerslack;
use nix::sys::socket::{setsockopt, sockopt};

use super::Host;
use super::traffic::any;

/// How long a connection may take to come about.
const PATIENCE: Duration = Duration::from_secs(5);
/// What passes before it counts: until windows and queues have found their size.
const WARM_UP: Duration = Duration::from_millis(200);
/// A datagram that comes later than this after the last was sent counts as lost: a queue that
/// only grows carries nothing.
const LATE: Duration = Duration::from_millis(20);
/// How often a paced sender wakes up, and how many datagrams it sends at once at the most.
const TICK: Duration = Duration::from_micros(200);
const BURST: u64 = 128;
/// What one call of a paced sender may carry: `UDP_MAX_SEGMENTS` of kernels before 6.9, and the
/// payload of the longest UDP datagram over IPv4.
const CALL_DATAGRAMS: usize = 64;
const CALL_BYTES: usize = 65_507;

/// Datagrams that were sent for some time.
#[derive(Debug, Clone, Copy)]
pub struct Datagrams {
    /// Datagrams that left the sender.
    pub sent: u64,
    /// Datagrams that arrived in time.
    pub arrived: u64,
    /// How long they were sent.
    pub span: Duration,
}

impl Datagrams {
    /// Datagrams a second that were sent.
    pub fn offered(&self) -> f64 {
        self.sent as f64 / self.span.as_secs_f64()
    }

    /// Datagrams a second that arrived.
    pub fn carried(&self) -> f64 {
        self.arrived as f64 / self.span.as_secs_f64()
    }

    /// The part of all that was lost, 0 to 1.
    pub fn loss(&self) -> f64 {
        1.0 - self.arrived as f64 / self.sent.max(1) as f64
    }
}

impl Host {
    /// Sends TCP to `server`, reached as `address`, in so many streams as fast as they go, for as
    /// long as `meanwhile` takes, after some time to warm up. Returns what `meanwhile` did, and
    /// bytes per second received during it.
    ///
    /// # Errors
    /// When no connection comes about.
    pub fn tcp_load<T>(
        &self,
        server: &Host,
        address: IpAddr,
        streams: usize,
        meanwhile: impl FnOnce() -> T,
    ) -> io::Result<(T, f64)> {
        let listener = server.within(|| TcpListener::bind((any(address), 0)))?;
        let target = SocketAddr::new(address, listener.local_addr()?.port());
        let mut pairs = Vec::new();
        for _ in 0..streams {
            let sender = self.within(|| TcpStream::connect_timeout(&target, PATIENCE))?;
            pairs.push((sender, listener.accept()?.0));
        }
        let received = AtomicU64::new(0);
        Ok(std::thread::scope(|scope| {
            for (sender, receiver) in &pairs {
                scope.spawn(|| send(sender));
                scope.spawn(|| receive(receiver, &received));
            }
            sleep(WARM_UP);
            let (begin, before) = (Instant::now(), received.load(Ordering::Relaxed));
            let result = meanwhile();
            let bytes = received.load(Ordering::Relaxed) - before;
            let rate = bytes as f64 / begin.elapsed().as_secs_f64();
            for (sender, receiver) in &pairs {
                // Whatever is under way may be lost now; the threads end with their streams.
                let _ = receiver.shutdown(Shutdown::Both);
                let _ = sender.shutdown(Shutdown::Both);
            }
            (result, rate)
        }))
    }

    /// Sends datagrams of `size` bytes of payload to `server`, reached as `address`, for as long
    /// as `span`: `pace` a second, in bursts of a fifth of a millisecond, or as many as go.
    ///
    /// A burst leaves with one call, which the kernel cuts into datagrams (`UDP_SEGMENT`), and
    /// may be received with one (`UDP_GRO`), so that neither end of the path is its limit. A
    /// flood leaves one by one.
    ///
    /// # Errors
    /// When sockets cannot be made, or the kernel cannot cut and join.
    pub fn udp_load(
        &self,
        server: &Host,
        address: IpAddr,
        size: usize,
        pace: Option<f64>,
        span: Duration,
    ) -> io::Result<Datagrams> {
        let sink = server.within(|| UdpSocket::bind((any(address), 0)))?;
        // It is the path that is to lose datagrams, not this socket. Without the right to force
        // it, the usual size must do.
        let _ = setsockopt(&sink, sockopt::RcvBufForce, &(32 << 20));
        sink.set_read_timeout(Some(Duration::from_millis(5)))?;
        setsockopt(&sink, sockopt::UdpGroSegment, &true)?;
        let target = SocketAddr::new(address, sink.local_addr()?.port());
        let socket = self.within(|| UdpSocket::bind((any(address), 0)))?;
        socket.connect(target)?;
        let (arrived, done) = (AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut buffer = vec![0; 1 << 16];
                while !done.load(Ordering::Relaxed) {
                    // All are of one size, so that joined ones can be counted.
                    if let Ok(bytes) = sink.recv(&mut buffer) {
                        arrived.fetch_add((bytes / size) as u64, Ordering::Relaxed);
                    }
                }
            });
            let outcome = match pace {
                None => Ok(flood(&socket, &vec![0x5a; size], span)),
                Some(pace) => paced(&socket, size, pace, span),
            };
            sleep(LATE);
            let arrived = arrived.load(Ordering::Relaxed);
            done.store(true, Ordering::Relaxed);
            let (sent, span) = outcome?;
            Ok(Datagrams { sent, arrived: arrived.min(sent), span })
        })
    }
}

fn send(mut stream: &TcpStream) {
    let bytes = vec![0x5a; 1 << 17];
    while stream.write_all(&bytes).is_ok() {}
}

fn receive(mut stream: &TcpStream, received: &AtomicU64) {
    let mut bytes = vec![0; 1 << 18];
    while let Ok(length @ 1..) = stream.read(&mut bytes) {
        received.fetch_add(length as u64, Ordering::Relaxed);
    }
}

fn flood(socket: &UdpSocket, datagram: &[u8], span: Duration) -> (u64, Duration) {
    let (begin, mut sent) = (Instant::now(), 0);
    while begin.elapsed() < span {
        // A queue that is full is what a flood is about.
        sent += u64::from(socket.send(datagram).is_ok());
    }
    (sent, begin.elapsed())
}

fn paced(
    socket: &UdpSocket,
    size: usize,
    pace: f64,
    span: Duration,
) -> io::Result<(u64, Duration)> {
    // Without it sleeping takes 50 microseconds longer; then bursts are a little longer.
    let _ = set_timerslack(1);
    setsockopt(socket, sockopt::UdpGsoSegment, &(size as i32))?;
    let call = vec![0x5a; size * CALL_DATAGRAMS.min(CALL_BYTES / size)];
    let (begin, mut sent, mut forgiven) = (Instant::now(), 0_u64, 0_u64);
    while begin.elapsed() < span {
        let wake = Instant::now() + TICK;
        let due = (begin.elapsed().as_secs_f64() * pace) as u64 - forgiven;
        // After a long absence no catching up: the burst would be lost to some short queue.
        forgiven += (due - sent).saturating_sub(BURST);
        let mut burst = size * (due - sent).min(BURST) as usize;
        while burst > 0 {
            let bytes = &call[..burst.min(call.len())];
            burst -= bytes.len();
            sent += socket.send(bytes).map_or(0, |sent| sent / size) as u64;
        }
        sleep(wake.saturating_duration_since(Instant::now()));
    }
    Ok((sent, begin.elapsed()))
}
