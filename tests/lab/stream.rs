//! A steady stream of numbered datagrams, of which every single one is accounted for.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use super::Host;
use super::traffic::any;

/// Bytes of payload of each datagram.
const SIZE: usize = 200;

/// A stream under way. Dropping it ends it.
pub struct Stream {
    stop: Arc<AtomicBool>,
    arrived: Arc<AtomicU32>,
    sender: Option<JoinHandle<u32>>,
    receiver: Option<JoinHandle<Vec<u32>>>,
}

/// A stream that has ended.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// Datagrams sent.
    pub sent: u32,
    /// The numbers of those that did not arrive, from 0.
    pub lost: Vec<u32>,
    /// How many arrived more than once.
    pub twice: u32,
}

impl Account {
    /// Everything arrived, once, and there was something.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.sent > 0 && self.lost.is_empty() && self.twice == 0
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let some = self.lost.get(..self.lost.len().min(10)).unwrap_or_default();
        let Account { sent, twice, lost } = self;
        write!(f, "{sent} sent, {} lost (first {some:?}), {twice} came twice", lost.len())
    }
}

impl Host {
    /// Sends datagrams to `server`, reached as `address`, one every `interval`, until told to stop.
    ///
    /// # Panics
    /// When sockets cannot be made.
    pub fn streams_to(&self, server: &Host, address: IpAddr, interval: Duration) -> Stream {
        let sockets = || -> io::Result<(UdpSocket, UdpSocket)> {
            let sink = server.within(|| UdpSocket::bind((any(address), 0)))?;
            sink.set_read_timeout(Some(Duration::from_millis(20)))?;
            // More than this needs rights that a user namespace does not give.
            let _ = setsockopt(&sink, sockopt::RcvBufForce, &(8 << 20));
            let source = self.within(|| UdpSocket::bind((any(address), 0)))?;
            source.connect(SocketAddr::new(address, sink.local_addr()?.port()))?;
            Ok((source, sink))
        };
        let (source, sink) = sockets().unwrap_or_else(|error| panic!("no stream: {error}"));
        let (stop, arrived) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (done, count) = (Arc::clone(&stop), Arc::clone(&arrived));
        Stream {
            sender: Some(std::thread::spawn({
                let stop = Arc::clone(&stop);
                move || send(&source, interval, &stop)
            })),
            receiver: Some(std::thread::spawn(move || receive(&sink, &count, &done))),
            stop,
            arrived,
        }
    }
}

impl Stream {
    /// How many datagrams have arrived so far.
    #[must_use]
    pub fn arrived(&self) -> u32 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Ends it, waits for what is under way, and tells what became of it.
    ///
    /// # Panics
    /// When one of its threads did.
    #[must_use]
    pub fn ends(mut self) -> Account {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.take().map(JoinHandle::join);
        let got = self.receiver.take().map(JoinHandle::join);
        let (Some(Ok(sent)), Some(Ok(got))) = (sent, got) else { panic!("a stream died") };
        let mut times = vec![0_u32; sent as usize];
        for number in got {
            match times.get_mut(number as usize) {
                Some(times) => *times += 1,
                None => panic!("datagram {number} was never sent"),
            }
        }
        let lost = (0..).zip(&times).filter(|(_, times)| **times == 0).map(|(n, _)| n).collect();
        let twice = times.iter().filter(|times| **times > 1).count() as u32;
        Account { sent, lost, twice }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn send(socket: &UdpSocket, interval: Duration, stop: &AtomicBool) -> u32 {
    let (begin, mut sent) = (Instant::now(), 0_u32);
    let mut datagram = [0x5a; SIZE];
    while !stop.load(Ordering::Relaxed) {
        if let Some(number) = datagram.first_chunk_mut() {
            *number = sent.to_be_bytes();
        }
        // A datagram that the kernel refuses has not arrived: that is what counts.
        let _ = socket.send(&datagram);
        sent += 1;
        std::thread::sleep((begin + interval * sent).saturating_duration_since(Instant::now()));
    }
    sent
}

/// Receives until half a second after the stop in which nothing came.
fn receive(socket: &UdpSocket, arrived: &AtomicU32, stop: &AtomicBool) -> Vec<u32> {
    let (mut numbers, mut last) = (Vec::new(), Instant::now());
    let mut buffer = [0; SIZE];
    loop {
        let running = !stop.load(Ordering::Relaxed);
        match socket.recv(&mut buffer) {
            Ok(_) => {
                numbers.extend(buffer.first_chunk().map(|number| u32::from_be_bytes(*number)));
                arrived.fetch_add(1, Ordering::Relaxed);
                last = Instant::now();
            }
            Err(_) if running => last = Instant::now(),
            Err(_) if last.elapsed() > Duration::from_millis(500) => return numbers,
            Err(_) => {}
        }
    }
}
