//! `peer-tool`: sends and answers test traffic, on both sides of an interoperability lab.
//!
//! - `serve ADDR PORT`: returns what it receives by TCP and by UDP, until it is killed.
//! - `tcp ADDR PORT BYTES`: sends so many bytes through one connection and compares what returns.
//! - `udp ADDR PORT SIZE COUNT MS`: sends datagrams one by one, gives each so long to return, and
//!   compares; prints how many did. Fails only when none returns or one is altered.
//! - `udp-encap PORT`: tells the kernel that ESP arrives on this UDP port (RFC 3948), for IPv4 and
//!   IPv6, until it is killed. Kernel SAs with `encap espinudp` receive nothing without it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// A TCP connection that moves nothing for so long has failed.
const STALLED: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["serve", addr, port] => address(addr, port).and_then(serve),
        ["tcp", addr, port, bytes] => address(addr, port)
            .and_then(|to| Ok((to, number(bytes)?)))
            .and_then(|(to, n)| tcp(to, n)),
        ["udp", addr, port, size, count, ms] => address(addr, port)
            .and_then(|to| Ok((to, number(size)?, number(count)?, number(ms)?)))
            .and_then(|(to, size, count, ms)| {
                udp(to, size, count, Duration::from_millis(ms as u64))
            }),
        ["udp-encap", port] => number(port).and_then(udp_encap),
        _ => Err("serve ADDR PORT | tcp ADDR PORT BYTES | udp ADDR PORT SIZE COUNT MS | \
                  udp-encap PORT"
            .into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("peer-tool: {e}");
            ExitCode::FAILURE
        }
    }
}

type Outcome<T> = Result<T, String>;

fn address(addr: &str, port: &str) -> Outcome<SocketAddr> {
    let ip: IpAddr = addr.parse().map_err(|_| format!("{addr}: not an IP address"))?;
    let port = port.parse().map_err(|_| format!("{port}: not a port"))?;
    Ok(SocketAddr::new(ip, port))
}

fn number(text: &str) -> Outcome<usize> {
    text.parse().map_err(|_| format!("{text}: not a number"))
}

fn serve(at: SocketAddr) -> Outcome<()> {
    let listener = TcpListener::bind(at).map_err(|e| format!("TCP {at}: {e}"))?;
    let socket = UdpSocket::bind(at).map_err(|e| format!("UDP {at}: {e}"))?;
    println!("ready");
    thread::spawn(move || echo_datagrams(&socket));
    for stream in listener.incoming().flatten() {
        thread::spawn(move || echo_stream(stream));
    }
    Ok(())
}

fn echo_datagrams(socket: &UdpSocket) {
    let mut buffer = vec![0; 65_536];
    loop {
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            // What cannot be returned is for the client to notice.
            let _ = socket.send_to(&buffer[..len], from);
        }
    }
}

fn echo_stream(mut stream: TcpStream) {
    let mut buffer = vec![0; 65_536];
    while let Ok(len) = stream.read(&mut buffer) {
        if len == 0 || stream.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
}

/// The byte at a position of the test stream; no two near packets are alike.
fn byte(position: usize) -> u8 {
    let mixed = (position as u64 ^ 0x5eed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

fn tcp(to: SocketAddr, bytes: usize) -> Outcome<()> {
    let start = Instant::now();
    let stream =
        TcpStream::connect_timeout(&to, STALLED).map_err(|e| format!("connect to {to}: {e}"))?;
    let limits = stream
        .set_read_timeout(Some(STALLED))
        .and_then(|()| stream.set_write_timeout(Some(STALLED)))
        .and_then(|()| stream.try_clone());
    let mut sending = limits.map_err(|e| format!("socket: {e}"))?;
    let sender = thread::spawn(move || send_stream(&mut sending, bytes));
    let returned = compare_stream(stream, bytes);
    let sent = sender.join().map_err(|_| "sender panicked")?;
    sent.map_err(|e| format!("send to {to}: {e}"))?;
    returned?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{bytes} bytes there and back in {seconds:.2} s");
    Ok(())
}

fn send_stream(stream: &mut TcpStream, bytes: usize) -> io::Result<()> {
    let mut at = 0;
    while at < bytes {
        let until = bytes.min(at + 65_536);
        let block: Vec<u8> = (at..until).map(byte).collect();
        stream.write_all(&block)?;
        at = until;
    }
    stream.shutdown(std::net::Shutdown::Write)
}

fn compare_stream(mut stream: TcpStream, bytes: usize) -> Outcome<()> {
    let mut buffer = vec![0; 65_536];
    let mut at = 0;
    loop {
        let len = stream.read(&mut buffer).map_err(|e| format!("after {at} bytes: {e}"))?;
        if let Some(i) = (0..len).find(|&i| buffer[i] != byte(at + i)) {
            return Err(format!("byte {} of the stream is altered", at + i));
        }
        at += len;
        if len == 0 {
            break;
        }
    }
    if at == bytes { Ok(()) } else { Err(format!("{at} of {bytes} bytes returned")) }
}

fn udp(to: SocketAddr, size: usize, count: usize, patience: Duration) -> Outcome<()> {
    let any: IpAddr =
        if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))
        .and_then(|socket| socket.connect(to).map(|()| socket))
        .map_err(|e| format!("UDP to {to}: {e}"))?;
    let mut returned = 0;
    for n in 0..count {
        let datagram: Vec<u8> = (n * size..(n + 1) * size).map(byte).collect();
        socket.send(&datagram).map_err(|e| format!("send to {to}: {e}"))?;
        returned += usize::from(comes_back(&socket, &datagram, patience)?);
    }
    println!("{returned} of {count} datagrams of {size} bytes returned");
    if returned > 0 { Ok(()) } else { Err(format!("no datagram returned from {to}")) }
}

/// Whether the datagram returns in time. A late one of an earlier round is not counted, and one
/// that was never sent is an error.
fn comes_back(socket: &UdpSocket, datagram: &[u8], patience: Duration) -> Outcome<bool> {
    let until = Instant::now() + patience;
    let mut buffer = vec![0; 65_536];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        socket.set_read_timeout(Some(left)).map_err(|e| format!("socket: {e}"))?;
        match socket.recv(&mut buffer) {
            Ok(len) if buffer[..len] == *datagram => return Ok(true),
            Ok(len) if len != datagram.len() => return Err(format!("{len} bytes returned")),
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(false);
            }
            Err(e) => return Err(format!("receive: {e}")),
        }
    }
}

fn udp_encap(port: usize) -> Outcome<()> {
    let port = u16::try_from(port).map_err(|_| "not a port")?;
    let v4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).map_err(|e| format!("UDP v4: {e}"))?;
    let v6 = bind_v6_only(port).map_err(|e| format!("UDP v6: {e}"))?;
    for socket in [&v4, &v6] {
        espinudp(socket).map_err(|e| format!("UDP_ENCAP: {e}"))?;
    }
    println!("ready");
    loop {
        thread::park();
    }
}

/// A socket that leaves IPv4 alone: the kernel asks a socket's family which ESP it carries.
fn bind_v6_only(port: u16) -> io::Result<UdpSocket> {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn6, bind, setsockopt, socket, sockopt,
    };
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet6, SockType::Datagram, flags, None)?;
    setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    let at = std::net::SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0);
    bind(socket.as_raw_fd(), &SockaddrIn6::from(at))?;
    Ok(UdpSocket::from(socket))
}

fn espinudp(socket: &UdpSocket) -> io::Result<()> {
    const UDP_ENCAP: libc::c_int = 100;
    const UDP_ENCAP_ESPINUDP: libc::c_int = 2;
    let value = UDP_ENCAP_ESPINUDP;
    // SAFETY: the option's value is one int, which lives until the call returns.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_UDP,
            UDP_ENCAP,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
