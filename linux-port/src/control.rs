//! The control socket: how `simplevpn show` and `simplevpn down` talk to the running daemon.
//!
//! A Unix socket of mode 0600, `<interface>.sock` in the run directory; one request line, one
//! answer, end. A lock on `<interface>.lock` says whether a daemon is alive, so that the socket of
//! one that was killed is replaced and a second one for the same interface is refused.

use core::time::Duration;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, socket};
use nix::sys::stat::{Mode, fchmod};

use crate::clock;

/// Where control sockets are: `$SIMPLEVPN_RUN_DIR`, or `/var/run/simplevpn`, which is in memory on
/// OpenWrt, too.
#[must_use]
pub fn run_dir() -> PathBuf {
    std::env::var_os("SIMPLEVPN_RUN_DIR")
        .filter(|dir| !dir.is_empty())
        .map_or_else(|| PathBuf::from("/var/run/simplevpn"), PathBuf::from)
}

/// What a client may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// The status as readable text.
    Show,
    /// The status as JSON.
    ShowJson,
    /// Negotiate new keys with every peer.
    Rekey,
    /// End, and take down everything, the killswitch too.
    Down,
}

impl Request {
    const ALL: [Request; 4] = [Request::Show, Request::ShowJson, Request::Rekey, Request::Down];

    fn line(self) -> &'static str {
        match self {
            Request::Show => "show\n",
            Request::ShowJson => "show json\n",
            Request::Rekey => "rekey\n",
            Request::Down => "down\n",
        }
    }
}

/// The longest request line, in bytes.
const LINE: usize = 16;
/// Clients at a time; one more replaces the oldest.
const CLIENTS: usize = 8;
const LISTENER: u64 = 0;
/// How an answer begins that tells what went wrong.
const ERROR: &str = "error: ";

struct Client {
    token: u64,
    stream: UnixStream,
    line: Vec<u8>,
    answer: Vec<u8>,
    written: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Asking,
    Answering,
    /// Waits until everything is down.
    Waiting,
}

/// The daemon's end of the control socket.
pub struct ControlServer {
    // The first field, so that it is given up before a client learns that all is done.
    _claim: Claim,
    // Gathers the listener and its clients in one descriptor.
    epoll: Epoll,
    listener: UnixListener,
    clients: Vec<Client>,
    next_token: u64,
    path: PathBuf,
}

impl ControlServer {
    /// Opens the control socket of `interface` in `dir`, which is made if need be.
    ///
    /// # Errors
    /// A sentence: a daemon is already running for it, or what the system refused.
    pub fn open(dir: &Path, interface: &str) -> Result<ControlServer, String> {
        make_run_dir(dir)?;
        let claim = Claim::of_daemon(dir, interface)?;
        let path = socket_path(dir, interface);
        let failed = |error: io::Error| {
            format!("cannot open the control socket {}: {error}", path.display())
        };
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = listen(&path).map_err(|error| failed(error.into()))?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .and_then(|epoll| {
                epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
                Ok(epoll)
            })
            .map_err(|error| failed(error.into()))?;
        Ok(ControlServer {
            epoll,
            listener,
            clients: Vec::new(),
            next_token: LISTENER + 1,
            path,
            _claim: claim,
        })
    }

    /// Serves whoever is ready, without waiting: `answer` gives the text for all requests but
    /// [`Request::Down`]. To be called when the descriptor is readable.
    ///
    /// `true` if someone asked for [`Request::Down`]; the answer is given by [`Self::finish`].
    #[must_use]
    pub fn serve(&mut self, mut answer: impl FnMut(Request) -> String) -> bool {
        let mut events = [EpollEvent::empty(); CLIENTS + 1];
        let ready = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        for event in events.iter().take(ready) {
            match event.data() {
                LISTENER => self.accept(),
                token => self.serve_client(token, &mut answer),
            }
        }
        self.clients.iter().any(|client| client.state == State::Waiting)
    }

    /// Answers those who asked for [`Request::Down`], after all is done, or after an error.
    pub fn finish(mut self, result: Result<&str, &str>) {
        let answer = match result {
            Ok(answer) => format!("{answer}\n"),
            Err(error) => format!("{ERROR}{error}\n"),
        };
        for client in self.clients.iter_mut().filter(|client| client.state == State::Waiting) {
            let _ = client.stream.set_nonblocking(false);
            let _ = client.stream.set_write_timeout(Some(Duration::from_secs(1)));
            let _ = client.stream.write_all(answer.as_bytes());
        }
    }

    fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        if self.clients.len() >= CLIENTS {
            self.clients.remove(0);
        }
        let token = self.next_token;
        self.next_token += 1;
        if self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, token)).is_ok() {
            let (line, answer) = (Vec::new(), Vec::new());
            let state = State::Asking;
            self.clients.push(Client { token, stream, line, answer, written: 0, state });
        }
    }

    fn serve_client(&mut self, token: u64, answer: &mut impl FnMut(Request) -> String) {
        let Some(at) = self.clients.iter().position(|client| client.token == token) else { return };
        let Some(client) = self.clients.get_mut(at) else { return };
        let was = client.state;
        let stays = client.advance(answer);
        if stays && was != client.state {
            let flags = match client.state {
                State::Answering => EpollFlags::EPOLLOUT,
                _ => EpollFlags::empty(),
            };
            let _ = self.epoll.modify(&client.stream, &mut EpollEvent::new(flags, token));
        }
        if !stays {
            // Closing the descriptor takes it out of the epoll set.
            self.clients.remove(at);
        }
    }
}

impl Client {
    /// Does what can be done now; `false` if the client is done with.
    fn advance(&mut self, answer: &mut impl FnMut(Request) -> String) -> bool {
        if self.state == State::Waiting {
            // Only a hang-up wakes a client that waits.
            return false;
        }
        if self.state == State::Asking {
            match self.read_line() {
                Ok(true) => {}
                Ok(false) => return true,
                Err(_) => return false,
            }
            let line = core::mem::take(&mut self.line);
            match Request::ALL.iter().find(|request| request.line().as_bytes() == line) {
                Some(Request::Down) => {
                    self.state = State::Waiting;
                    return true;
                }
                Some(&request) => self.answer = answer(request).into_bytes(),
                None => self.answer = b"error: unknown request\n".to_vec(),
            }
            self.state = State::Answering;
        }
        while let Some(rest) = self.answer.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        false
    }

    /// `true` when the line is complete, or too long to be one.
    fn read_line(&mut self) -> io::Result<bool> {
        let mut bytes = [0; LINE];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => self.line.extend_from_slice(bytes.get(..len).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if self.line.contains(&b'\n') || self.line.len() >= LINE {
                return Ok(true);
            }
        }
    }
}

impl AsFd for ControlServer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn socket_path(dir: &Path, interface: &str) -> PathBuf {
    dir.join(format!("{interface}.sock"))
}

/// A non-blocking listener that only our own user may connect to, not even for a moment another.
fn listen(path: &Path) -> nix::Result<UnixListener> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // Before `bind`: on Linux the file inherits the mode of the socket.
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    nix::sys::socket::listen(&socket, Backlog::new(16)?)?;
    Ok(UnixListener::from(socket))
}

/// Makes the directory of control sockets if need be.
///
/// # Errors
/// A sentence: it cannot be made, or other users could put files of their own in our way.
pub(crate) fn make_run_dir(dir: &Path) -> Result<(), String> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| format!("cannot make the directory {}: {error}", dir.display()))?;
    only_ours(dir)
}

/// Refuses a directory in which other users could put files of their own in our way.
fn only_ours(dir: &Path) -> Result<(), String> {
    let metadata = std::fs::metadata(dir)
        .map_err(|error| format!("cannot read the directory {}: {error}", dir.display()))?;
    let trusted = [0, nix::unistd::geteuid().as_raw()].contains(&metadata.uid());
    if !trusted || metadata.mode() & 0o022 != 0 {
        return Err(format!(
            "other users can write to the directory {}; make it root's own and run chmod 700 {}",
            dir.display(),
            dir.display()
        ));
    }
    Ok(())
}

/// The right to change what belongs to an interface, until it is dropped. The file that is locked
/// stays, lest two daemons lock different ones.
pub(crate) struct Claim {
    _lock: Flock<File>,
}

/// What is written into a lock file by who holds it only for a moment.
const GUARD: &str = "guard";
/// How long such a one is waited for.
const MOMENT: Duration = Duration::from_secs(10);
/// How long it may take to write who it is after the lock is held.
const SIGNATURE: Duration = Duration::from_millis(100);

impl Claim {
    /// For as long as the daemon serves the interface.
    fn of_daemon(dir: &Path, interface: &str) -> Result<Claim, String> {
        Claim::attempt(dir, interface, &std::process::id().to_string(), Duration::ZERO)?.map_err(
            |pid| {
                format!(
                    "{interface} is already served by process {pid}: end it with `simplevpn down \
                     {interface}`"
                )
            },
        )
    }

    /// For the moment that a guard takes; `None` if a daemon serves the interface and goes on
    /// doing so for as long as `patience`.
    ///
    /// # Errors
    /// A sentence about the lock file.
    pub(crate) fn of_guard(
        dir: &Path,
        interface: &str,
        patience: Duration,
    ) -> Result<Option<Claim>, String> {
        Ok(Claim::attempt(dir, interface, GUARD, patience)?.ok())
    }

    /// Locks as `holder`, waiting at most `patience` for a daemon; the error inside is who holds it.
    fn attempt(
        dir: &Path,
        interface: &str,
        holder: &str,
        patience: Duration,
    ) -> Result<Result<Claim, String>, String> {
        let path = dir.join(format!("{interface}.lock"));
        let start = clock::now();
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(|error| format!("cannot open {}: {error}", path.display()))?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => {
                    // For people, and for who has to wait: the lock is what counts.
                    let _ = lock.set_len(0).and_then(|()| writeln!(&*lock, "{holder}"));
                    return Ok(Ok(Claim { _lock: lock }));
                }
                Err((file, nix::Error::EWOULDBLOCK)) => {
                    let mut other = String::new();
                    let _ = file.take(16).read_to_string(&mut other);
                    let guard = other.trim() == GUARD;
                    let limit = if guard { MOMENT } else { patience.max(SIGNATURE) };
                    if clock::now().saturating_since(start) >= limit {
                        return Ok(Err(other.trim().to_owned()));
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err((_, error)) => {
                    let error = io::Error::from(error);
                    return Err(format!("cannot lock {}: {error}", path.display()));
                }
            }
        }
    }
}

/// The interfaces that have a control socket in `dir`, by name.
///
/// # Errors
/// Those of reading the directory, except that a missing one holds no interface.
pub fn interfaces(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        if let Ok(name) = entry?.file_name().into_string()
            && let Some(interface) = name.strip_suffix(".sock")
        {
            found.push(interface.to_owned());
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Why there is no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// No daemon serves the interface.
    Nobody,
    /// The daemon ended without an answer.
    Ended,
    /// What the daemon tells as an error; it names the interface itself.
    Refused(String),
    /// The socket failed.
    Failed(io::Error),
}

impl From<io::Error> for NoAnswer {
    fn from(error: io::Error) -> NoAnswer {
        use io::ErrorKind::{
            BrokenPipe, ConnectionRefused, ConnectionReset, NotADirectory, NotFound,
        };
        match error.kind() {
            NotFound | NotADirectory | ConnectionRefused => NoAnswer::Nobody,
            ConnectionReset | BrokenPipe => NoAnswer::Ended,
            _ => NoAnswer::Failed(error),
        }
    }
}

/// Asks the daemon that serves `interface`; waits up to 10 seconds for each part of the answer.
///
/// # Errors
/// Why there is no answer.
pub fn ask(dir: &Path, interface: &str, request: Request) -> Result<String, NoAnswer> {
    let mut stream = UnixStream::connect(socket_path(dir, interface))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(request.line().as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.is_empty() {
        return Err(NoAnswer::Ended);
    }
    match answer.strip_prefix(ERROR) {
        Some(error) => Err(NoAnswer::Refused(error.trim_end().to_owned())),
        None => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::unix::fs::PermissionsExt;
    use std::thread;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let dir = std::env::temp_dir().join(format!("simplevpn-{name}-{}", std::process::id()));
            Dir(dir)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// Serves until `Down` is asked for or nothing happens for a second.
    fn serve(server: &mut ControlServer, show: &str) -> bool {
        loop {
            let mut fds = [PollFd::new(server.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::from(1000u16)).unwrap() == 0 {
                return false;
            }
            if server.serve(|request| format!("{request:?} {show}")) {
                return true;
            }
        }
    }

    #[test]
    fn answers_requests_and_goes_down() {
        let dir = Dir::new("answers");
        let path = dir.0.clone();
        let mut server = ControlServer::open(&dir.0, "vpn0").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir.0), 0o700);
        assert_eq!(mode(&socket_path(&dir.0, "vpn0")), 0o600);
        assert_eq!(interfaces(&dir.0).unwrap(), ["vpn0"]);

        // Larger than any socket buffer: the answer takes several turns.
        let text = "x".repeat(3 << 20);
        let wanted = text.clone();
        let client = thread::spawn(move || {
            let show = ask(&path, "vpn0", Request::Show).unwrap();
            assert!(show == format!("Show {wanted}"));
            assert!(ask(&path, "vpn0", Request::ShowJson).unwrap().starts_with("ShowJson x"));
            ask(&path, "vpn0", Request::Down).unwrap()
        });
        assert!(serve(&mut server, &text), "asked to go down");
        server.finish(Ok("vpn0 is down"));
        assert_eq!(client.join().unwrap(), "vpn0 is down\n");
        assert!(interfaces(&dir.0).unwrap().is_empty());
        let error = ask(&dir.0, "vpn0", Request::Show).unwrap_err();
        assert!(matches!(error, NoAnswer::Nobody), "{error:?}");
    }

    #[test]
    fn what_went_wrong_is_told_to_who_asked() {
        let dir = Dir::new("wrong");
        let path = dir.0.clone();
        let mut server = ControlServer::open(&dir.0, "vpn0").unwrap();
        let client = thread::spawn(move || ask(&path, "vpn0", Request::Down).unwrap_err());
        assert!(serve(&mut server, ""));
        server.finish(Err("vpn0: nft refused"));
        let error = client.join().unwrap();
        assert!(
            matches!(&error, NoAnswer::Refused(words) if words == "vpn0: nft refused"),
            "{error:?}"
        );
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let dir = Dir::new("open");
        drop(ControlServer::open(&dir.0, "vpn0").unwrap());
        for mode in [0o777, 0o720] {
            std::fs::set_permissions(&dir.0, PermissionsExt::from_mode(mode)).unwrap();
            let refusal = ControlServer::open(&dir.0, "vpn0").err().unwrap();
            assert!(refusal.contains("chmod 700"), "{refusal}");
        }
        std::fs::set_permissions(&dir.0, PermissionsExt::from_mode(0o755)).unwrap();
        drop(ControlServer::open(&dir.0, "vpn0").unwrap());
    }

    #[test]
    fn a_second_daemon_is_refused_and_a_dead_ones_socket_replaced() {
        let dir = Dir::new("second");
        let server = ControlServer::open(&dir.0, "vpn0").unwrap();
        let refusal = ControlServer::open(&dir.0, "vpn0").err().unwrap();
        let wanted = format!("already served by process {}", std::process::id());
        assert!(refusal.contains(&wanted), "{refusal}");
        drop(ControlServer::open(&dir.0, "vpn1").unwrap());
        drop(server);

        // What a daemon that was killed leaves behind.
        drop(UnixListener::bind(socket_path(&dir.0, "vpn0")).unwrap());
        let error = ask(&dir.0, "vpn0", Request::Show).unwrap_err();
        assert!(matches!(error, NoAnswer::Nobody), "{error:?}");
        ControlServer::open(&dir.0, "vpn0").unwrap();
    }

    #[test]
    fn clients_that_stall_babble_or_leave_do_no_harm() {
        let dir = Dir::new("stall");
        let path = dir.0.clone();
        let mut server = ControlServer::open(&dir.0, "vpn0").unwrap();
        let stalled: Vec<_> = (0..CLIENTS + 4)
            .map(|_| {
                let stream = UnixStream::connect(socket_path(&dir.0, "vpn0")).unwrap();
                (&stream).write_all(b"sho").unwrap();
                stream
            })
            .collect();
        let mut babble = UnixStream::connect(socket_path(&dir.0, "vpn0")).unwrap();
        babble.write_all(&[b'z'; 1000]).unwrap();
        let client = thread::spawn(move || {
            let mut answer = String::new();
            let _ = babble.read_to_string(&mut answer);
            drop(UnixStream::connect(socket_path(&path, "vpn0")).unwrap());
            (answer, ask(&path, "vpn0", Request::Show).unwrap())
        });
        assert!(!serve(&mut server, "status"));
        let (babbled, shown) = client.join().unwrap();
        assert_eq!(babbled, "error: unknown request\n");
        assert_eq!(shown, "Show status");
        assert!(server.clients.len() <= CLIENTS);
        drop(stalled);
        assert!(!serve(&mut server, "status"));
        assert!(server.clients.is_empty());
    }
}
