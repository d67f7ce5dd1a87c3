//! A name server that knows one name.

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Host;

/// A running name server; dropping it ends it.
pub struct NameServer {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU32>,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    /// Answers A and AAAA questions for `name` with the first address of that family among
    /// `addresses`, which are separated by spaces, on port 53 of this machine's `listen` address, and
    /// everything else with "no such name".
    ///
    /// # Panics
    /// When the port is taken.
    pub fn serves_name(&self, listen: &str, name: &str, addresses: &str) -> NameServer {
        let name = name.to_ascii_lowercase();
        let addresses: Vec<IpAddr> = addresses.split_whitespace().map(super::ip).collect();
        let socket = match self.within(|| UdpSocket::bind((super::ip(listen), 53))) {
            Ok(socket) => socket,
            Err(error) => panic!("no name server on {listen}: {error}"),
        };
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(AtomicU32::new(0));
        let (until, count) = (Arc::clone(&stop), Arc::clone(&asked));
        let thread = std::thread::spawn(move || {
            let _ = socket.set_read_timeout(Some(Duration::from_millis(50)));
            let mut buffer = [0; 512];
            while !until.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                count.fetch_add(1, Ordering::Relaxed);
                let query = buffer.get(..length).unwrap_or_default();
                if let Some(response) = answer(query, &name, &addresses) {
                    let _ = socket.send_to(&response, from);
                }
            }
        });
        NameServer { stop, asked, thread: Some(thread) }
    }
}

impl NameServer {
    /// How many questions have come.
    pub fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// RFC 1035 §4.1: header, the question repeated, and at most one record.
fn answer(query: &[u8], name: &str, addresses: &[IpAddr]) -> Option<Vec<u8>> {
    let (asked, end) = question_name(query)?;
    let kind = u16::from_be_bytes(*query.get(end..)?.first_chunk()?);
    let known = asked.eq_ignore_ascii_case(name);
    let data = addresses.iter().filter(|_| known).find_map(|address| match (kind, address) {
        (1, IpAddr::V4(address)) => Some(address.octets().to_vec()),
        (28, IpAddr::V6(address)) => Some(address.octets().to_vec()),
        _ => None,
    });
    let mut response = query.get(..2)?.to_vec();
    let flags: u16 = if known { 0x8580 } else { 0x8583 };
    response.extend(flags.to_be_bytes());
    for count in [1, u16::from(data.is_some()), 0, 0] {
        response.extend(count.to_be_bytes());
    }
    response.extend(query.get(12..end + 4)?);
    if let Some(data) = data {
        response.extend([0xc0, 12]);
        response.extend(kind.to_be_bytes());
        response.extend([0, 1, 0, 0, 0, 5]);
        response.extend((data.len() as u16).to_be_bytes());
        response.extend(data);
    }
    Some(response)
}

fn question_name(query: &[u8]) -> Option<(String, usize)> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).into_owned());
        at += length;
    }
}
