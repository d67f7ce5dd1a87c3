//! The daemon: one process, one thread, one event loop for all interfaces it serves.
//!
//! SIGTERM and SIGINT end it and leave the killswitch closed; SIGHUP reads the configuration
//! again; `simplevpn down`, through the control socket, ends an interface and opens its
//! killswitch. What needs more than CAP_NET_ADMIN and CAP_NET_RAW happens before the loop.

mod data_path;
mod engine;
mod guard;
mod ike;
mod load;
mod outer;
mod peers;
mod report;
mod surroundings;

use core::fmt;
use core::time::Duration;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use simplevpn_core::Instant;

use crate::batch::{MAX_PACKET, ReceiveBatch};
use crate::config::Diagnostic;
use crate::config::model::Interface;
use crate::control::{self, ControlServer, NoAnswer, Request};
use crate::steering::{self, Steering};
use crate::{capacity, clock, netifd, privileges, status};
use engine::Engine;
pub use guard::guard;
use load::load;
use outer::{Outer, Which};
use surroundings::first_mtu;

/// Why the daemon ends.
#[derive(Debug)]
pub enum Error {
    /// The configuration has errors.
    Configuration(Vec<Diagnostic>),
    /// Something else; a sentence.
    Failure(String),
}

impl From<String> for Error {
    fn from(what: String) -> Error {
        Error::Failure(what)
    }
}

impl From<Errno> for Error {
    fn from(error: Errno) -> Error {
        Error::Failure(format!("event loop: {}", std::io::Error::from(error)))
    }
}

/// What an event is about: the low byte of its token; the rest is the interface's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Tun,
    Outer(Which),
    Control,
    Resolver,
    Monitor,
    Firewall,
}

const SOURCES: [Source; 11] = [
    Source::Tun,
    Source::Outer(Which::EspV4),
    Source::Outer(Which::EspV6),
    Source::Outer(Which::UdpV4),
    Source::Outer(Which::UdpV6),
    Source::Outer(Which::IkeV4),
    Source::Outer(Which::IkeV6),
    Source::Control,
    Source::Resolver,
    Source::Monitor,
    Source::Firewall,
];
const SIGNALS: u64 = u64::MAX;

fn token(number: u64, source: Source) -> u64 {
    let at = SOURCES.iter().position(|other| *other == source).unwrap_or(0);
    number << 8 | at as u64
}

/// An interface being served.
struct Served {
    number: u64,
    engine: Engine,
    control: ControlServer,
}

impl Served {
    fn descriptor(&self, source: Source) -> Option<BorrowedFd<'_>> {
        Some(match source {
            Source::Tun => self.engine.data.tun.as_fd(),
            Source::Outer(which) => self.engine.data.outer.get(which)?.as_fd(),
            Source::Control => self.control.as_fd(),
            Source::Resolver => self.engine.resolver.as_fd(),
            Source::Monitor => self.engine.monitor.as_fd(),
            Source::Firewall => self.engine.firewall.as_ref()?.as_fd(),
        })
    }
}

/// What `simplevpn run` is told on its command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The configuration.
    pub file: PathBuf,
    /// The only interface to serve.
    pub only: Option<String>,
    /// Whether netifd has started the daemon, and owns addresses and the routes in `main`.
    pub netifd: bool,
    /// The device that outer packets leave through, in place of `option tunlink`.
    pub tunlink: Option<String>,
}

struct Daemon {
    settings: Settings,
    epoll: Epoll,
    signals: SignalFd,
    served: Vec<Served>,
    next_number: u64,
    /// Why an interface ended that nobody asked to end.
    lost: Option<Error>,
    batch: ReceiveBatch,
}

/// `simplevpn run`: serves the interfaces of a file, or only one of them, until it is told to end.
///
/// # Errors
/// Why it could not start, or had to end.
pub fn run(settings: Settings) -> Result<(), Error> {
    let netifd = settings.only.clone().filter(|_| settings.netifd);
    let result = serve(settings);
    if let (Some(interface), Err(error)) = (netifd, &result) {
        netifd::report(&interface, &error.to_string());
    }
    result
}

fn serve(settings: Settings) -> Result<(), Error> {
    privileges::check()?;
    if settings.netifd {
        // A netifd that is started anew would find the interface served by nobody it knows.
        set_pdeathsig(Signal::SIGTERM)?;
    }
    let (interfaces, verdict) = load(&settings);
    let run_dir = control::run_dir();
    let made = control::make_run_dir(&run_dir);
    // What cannot be served stays closed, as far as it can be read.
    if matches!(verdict, Err(Error::Configuration(_))) || made.is_err() {
        let run_dir = made.is_ok().then_some(&*run_dir);
        let failures = guard::close_all(interfaces.iter(), run_dir);
        failures.iter().for_each(|failure| log::error!("{failure}"));
    }
    verdict?;
    made?;
    if interfaces.is_empty() {
        let which = settings.only.as_ref().map(|only| format!(" '{only}'")).unwrap_or_default();
        return Err(Error::Failure(format!(
            "{} has no interface{which} of proto 'simplevpn' that is not disabled",
            settings.file.display()
        )));
    }
    // Blocked before any thread starts, so that every thread blocks them.
    let mut wanted = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().for_each(|s| wanted.add(s));
    wanted.thread_block()?;
    let signals = SignalFd::with_flags(&wanted, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNALS))?;
    let mut daemon = Daemon {
        settings,
        epoll,
        signals,
        served: Vec::new(),
        next_number: 0,
        lost: None,
        batch: ReceiveBatch::new(capacity::batch(), MAX_PACKET),
    };
    let result = daemon.start(interfaces).and_then(|()| daemon.serve());
    for served in daemon.served.drain(..) {
        let name = served.engine.interface.name.clone();
        if let Err(error) = served.engine.stop(false) {
            log::error!("{name}: {error}");
        }
    }
    result
}

/// An interface that is closed, with what it needs privileges for and what only one daemon can
/// have.
struct Opened {
    interface: Interface,
    control: ControlServer,
    steering: Steering,
    outer: Outer,
}

impl Opened {
    /// Closes first: whatever fails from here on, nothing for the tunnel leaves in clear text.
    fn new(interface: Interface, netifd: bool) -> Result<Opened, Error> {
        let name = &interface.name;
        let run_dir = control::run_dir();
        // The lock beside the control socket comes before all: one daemon for each interface.
        let control = ControlServer::open(&run_dir, name)?;
        let underlay = engine::underlay(&interface, first_mtu(&interface), netifd);
        let steering = Steering::prepare(&interface, underlay, &run_dir)
            .map_err(|error| format!("{name}: {error}"))?;
        let mark = steering.mark();
        match Outer::open(&interface, mark, capacity::batch()) {
            Ok(outer) => Ok(Opened { interface, control, steering, outer }),
            Err(error) => {
                leave(name, steering);
                Err(Error::Failure(format!("{name}: {error}")))
            }
        }
    }
}

/// Leaves only the killswitch, if it is wanted.
fn leave(name: &str, steering: Steering) {
    if let Err(error) = steering.leave() {
        log::error!("{name}: {error}");
    }
}

impl Daemon {
    fn start(&mut self, interfaces: Vec<Interface>) -> Result<(), Error> {
        let mut opened = Vec::new();
        let mut result = interfaces.into_iter().try_for_each(|interface| {
            opened.push(Opened::new(interface, self.settings.netifd)?);
            Ok(())
        });
        // Before there is a second thread, which would keep what this one gives up.
        result = result.and_then(|()| {
            privileges::restrict()
                .map_err(|error| Error::Failure(format!("cannot drop privileges: {error}")))
        });
        for opened in opened {
            match result {
                Ok(()) => result = self.add(opened),
                Err(_) => leave(&opened.interface.name, opened.steering),
            }
        }
        result
    }

    fn add(&mut self, opened: Opened) -> Result<(), Error> {
        let Opened { interface, control, steering, outer } = opened;
        let name = interface.name.clone();
        let engine = Engine::start(interface, steering, outer, self.settings.netifd)
            .map_err(|e| format!("{name}: {e}"))?;
        let number = self.next_number;
        self.next_number += 1;
        let served = Served { number, engine, control };
        for source in SOURCES {
            if let Some(descriptor) = served.descriptor(source) {
                let event = EpollEvent::new(EpollFlags::EPOLLIN, token(number, source));
                self.epoll.add(descriptor, event)?;
            }
        }
        self.served.push(served);
        Ok(())
    }

    fn serve(&mut self) -> Result<(), Error> {
        let mut events = [EpollEvent::empty(); 32];
        while !self.served.is_empty() {
            let count = match self.epoll.wait(&mut events, self.timeout()) {
                Err(Errno::EINTR) => 0,
                other => other?,
            };
            let now = clock::now();
            for event in events.iter().take(count) {
                if event.data() == SIGNALS {
                    if self.handle_signals(now) {
                        return Ok(());
                    }
                } else {
                    self.handle(event, now)?;
                }
            }
            for served in &mut self.served {
                if served.engine.deadline().is_some_and(|deadline| deadline <= now) {
                    served.engine.tick(now);
                }
                served.engine.handle_events(now);
            }
        }
        self.lost.take().map_or(Ok(()), Err)
    }

    fn timeout(&self) -> EpollTimeout {
        let deadline = self.served.iter().filter_map(|served| served.engine.deadline()).min();
        let Some(deadline) = deadline else { return EpollTimeout::NONE };
        let wait = deadline.saturating_since(clock::now()).min(Duration::from_secs(60));
        EpollTimeout::try_from(wait).unwrap_or(EpollTimeout::ZERO)
    }

    fn handle(&mut self, event: &EpollEvent, now: Instant) -> Result<(), Error> {
        let number = event.data() >> 8;
        let Some(source) = SOURCES.get((event.data() & 0xff) as usize) else { return Ok(()) };
        let Some(at) = self.served.iter().position(|served| served.number == number) else {
            return Ok(());
        };
        let Served { engine, control, .. } = &mut self.served[at];
        match *source {
            Source::Tun => self.outbound(at, now),
            Source::Outer(which) => {
                if event.events().contains(EpollFlags::EPOLLERR) {
                    engine.handle_path_errors(which, now);
                }
                let port = engine.data.outer.port(which).unwrap_or(0);
                let tunnel = &mut engine.peers.tunnel;
                let came = engine.data.inbound(tunnel, which, port, &mut self.batch, now);
                engine.handle_messages(now);
                // The host often has an answer at once: that of a program, or TCP's.
                if came {
                    self.outbound(at, now);
                }
            }
            Source::Control => {
                let down = control.serve(|request| match request {
                    Request::ShowJson => engine.status(now).to_json(),
                    Request::Rekey => engine.renew_all_keys(now),
                    Request::Show | Request::Down => engine.status(now).to_string(),
                });
                if down && let Err(error) = self.down(at) {
                    error.log();
                }
            }
            Source::Resolver => engine.handle_resolver(now),
            Source::Monitor => engine.handle_network(now),
            Source::Firewall => engine.handle_firewall(now),
        }
        Ok(())
    }

    /// Sends what the host has for the wire.
    fn outbound(&mut self, at: usize, now: Instant) {
        let Engine { data, peers, .. } = &mut self.served[at].engine;
        if let Err(error) = data.outbound(&mut peers.tunnel, now) {
            self.lose(at, error);
        }
    }

    /// Ends an interface for good, and tells who asked for it.
    fn down(&mut self, at: usize) -> Result<(), Error> {
        let Served { engine, control, .. } = self.served.remove(at);
        let name = engine.interface.name.clone();
        let result = engine.stop(true).map_err(|error| format!("{name}: {error}"));
        match &result {
            Ok(()) => control.finish(Ok(&format!("{name} is down"))),
            Err(error) => control.finish(Err(error)),
        }
        Ok(result?)
    }

    /// Ends an interface that cannot go on; its killswitch stays, and so do the other interfaces.
    fn lose(&mut self, at: usize, error: String) {
        let served = self.served.remove(at);
        let name = served.engine.interface.name.clone();
        if let Err(error) = served.engine.stop(false) {
            log::error!("{name}: {error}");
        }
        // The daemon's last words are the caller's to tell.
        if !self.served.is_empty() {
            log::error!("{error}");
        }
        self.lost = Some(Error::Failure(error));
    }

    /// `true`: the daemon is to end.
    fn handle_signals(&mut self, now: Instant) -> bool {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            match Signal::try_from(signal.ssi_signo.cast_signed()) {
                Ok(Signal::SIGHUP) => self.reload(now),
                _ => return true,
            }
        }
        false
    }

    /// Reads the configuration again. With errors in it that leave nothing to run, the one before
    /// stays in use.
    fn reload(&mut self, now: Instant) {
        let (interfaces, verdict) = load(&self.settings);
        if let Err(error) = verdict {
            log::error!("not reloaded, the configuration before stays in use:");
            error.log();
            return;
        }
        for at in (0..self.served.len()).rev() {
            let name = &self.served[at].engine.interface.name;
            if !interfaces.iter().any(|interface| interface.name == *name)
                && let Err(error) = self.down(at)
            {
                error.log();
            }
        }
        for interface in interfaces {
            let known = |served: &&mut Served| served.engine.interface.name == interface.name;
            let result = match self.served.iter_mut().find(known) {
                Some(served) => {
                    let name = &interface.name.clone();
                    let result = served.engine.reload(interface, now);
                    result.map_err(|error| format!("{name}: {error}").into())
                }
                None => {
                    Opened::new(interface, self.settings.netifd).and_then(|opened| self.add(opened))
                }
            };
            if let Err(error) = result {
                error.log();
            }
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Configuration(errors) => {
                let errors: Vec<String> = errors.iter().map(Diagnostic::to_string).collect();
                f.write_str(&errors.join("; "))
            }
            Error::Failure(what) => f.write_str(what),
        }
    }
}

impl Error {
    /// Tells the log.
    pub fn log(&self) {
        match self {
            Error::Configuration(errors) => errors.iter().for_each(|error| log::error!("{error}")),
            Error::Failure(what) => log::error!("{what}"),
        }
    }
}

/// `simplevpn show`: the state of `only`, or of every interface that is served.
///
/// # Errors
/// A sentence, if there is nobody to ask.
pub fn show(only: Option<&str>, json: bool) -> Result<String, String> {
    let dir = control::run_dir();
    let names = match only {
        Some(name) => vec![name.to_owned()],
        None => control::interfaces(&dir)
            .map_err(|error| format!("cannot read {}: {error}", dir.display()))?,
    };
    let request = if json { Request::ShowJson } else { Request::Show };
    let mut answers = Vec::new();
    for name in names {
        match control::ask(&dir, &name, request) {
            Ok(answer) => answers.push(answer),
            // The socket of a daemon that was killed.
            Err(NoAnswer::Nobody) if only.is_none() => {}
            Err(error) => return Err(refused(&name, error)),
        }
    }
    Ok(match (json, only) {
        (true, None) => status::join_json(&answers),
        (false, None) if answers.is_empty() => "no interface is running\n".into(),
        _ => answers.join("\n"),
    })
}

/// `simplevpn rekey`: negotiates new keys with every peer of the interface.
///
/// # Errors
/// A sentence, if there is nobody to ask.
pub fn rekey(name: &str) -> Result<String, String> {
    control::ask(&control::run_dir(), name, Request::Rekey).map_err(|error| refused(name, error))
}

/// `simplevpn down`: ends the interface if it is served, and opens its killswitch in any case.
///
/// # Errors
/// A sentence about what could not be undone.
pub fn down(name: &str) -> Result<String, String> {
    let dir = control::run_dir();
    match control::ask(&dir, name, Request::Down) {
        Ok(answer) => Ok(answer),
        Err(NoAnswer::Nobody | NoAnswer::Ended) => {
            steering::down(name, &dir).map_err(|error| error.to_string())?;
            Ok(format!("{name} was not running; nothing of it is left\n"))
        }
        Err(error) => Err(refused(name, error)),
    }
}

fn refused(name: &str, error: NoAnswer) -> String {
    match error {
        NoAnswer::Nobody => format!("{name} is not running (no daemon serves it)"),
        NoAnswer::Ended => format!("{name}: the daemon ended without an answer"),
        NoAnswer::Refused(words) => words,
        NoAnswer::Failed(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            format!("{name}: {error}; run it as the user who runs the daemon, mostly root")
        }
        NoAnswer::Failed(error) => format!("{name}: {error}"),
    }
}
