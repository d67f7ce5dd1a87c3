//! The `simplevpn` command.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;

use simplevpn::cli::{self, Command};
use simplevpn::{config, daemon, keys, logger};
use zeroize::Zeroizing;

fn main() -> ExitCode {
    let invocation = match cli::parse(std::env::args_os().skip(1)) {
        Ok(invocation) => invocation,
        Err(usage) => return complain(cli::USAGE, &usage.to_string()),
    };
    logger::init(invocation.verbose);
    match invocation.command {
        Command::Check { file, interface } => check(&file, interface.as_deref()),
        Command::Guard { file } => guard(&file),
        Command::Genkey | Command::Genpsk { text: false } => generate(&encoded_key),
        Command::Genpsk { text: true } => generate(&keys::generate_text),
        Command::Pubkey { pem } => pubkey(pem),
        Command::Version => print(concat!("simplevpn ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::Help => print(cli::HELP),
        Command::Run { file, interface, netifd, tunlink } => {
            run(daemon::Settings { file, only: interface, netifd, tunlink })
        }
        Command::Show { interface, json } => {
            print_or_complain(daemon::show(interface.as_deref(), json))
        }
        Command::Rekey { interface } => print_or_complain(daemon::rekey(&interface)),
        Command::Down { interface } => print_or_complain(daemon::down(&interface)),
    }
}

/// Prints an error to stderr.
fn complain(status: u8, message: &str) -> ExitCode {
    // Nobody is left to tell that stderr is gone.
    let _ = writeln!(io::stderr(), "simplevpn: {message}");
    ExitCode::from(status)
}

/// Prints to stdout.
fn print(text: &str) -> ExitCode {
    let written = stdout().and_then(|mut stdout| stdout.write_all(text.as_bytes()));
    match written {
        Ok(()) => ExitCode::from(cli::OK),
        Err(error) => complain(cli::FAILURE, &format!("cannot write: {error}")),
    }
}

/// Stdout without its buffer, where nobody would wipe a key.
fn stdout() -> io::Result<File> {
    io::stdout().as_fd().try_clone_to_owned().map(File::from)
}

fn print_or_complain(result: Result<String, String>) -> ExitCode {
    match result {
        Ok(text) => print(&text),
        Err(error) => complain(cli::FAILURE, &error),
    }
}

fn run(settings: daemon::Settings) -> ExitCode {
    log_and_exit(daemon::run(settings))
}

fn guard(file: &Path) -> ExitCode {
    log_and_exit(daemon::guard(file))
}

fn log_and_exit(result: Result<(), daemon::Error>) -> ExitCode {
    let Err(error) = result else { return ExitCode::from(cli::OK) };
    error.log();
    ExitCode::from(match error {
        daemon::Error::Configuration(_) => cli::CONFIGURATION,
        daemon::Error::Failure(_) => cli::FAILURE,
    })
}

fn check(file: &Path, interface: Option<&str>) -> ExitCode {
    let mut stderr = io::stderr().lock();
    let reading = config::read_file(file, interface);
    let errors = reading.all_errors();
    for warning in reading.warnings.iter().filter(|_| reading.can_run()) {
        let _ = writeln!(stderr, "{}: warning: {}", warning.place(), warning.message);
    }
    for error in &errors {
        let _ = writeln!(stderr, "{error}");
    }
    if !errors.is_empty() {
        return ExitCode::from(if reading.can_run() { cli::PEERS } else { cli::CONFIGURATION });
    }
    let peers = reading.interfaces.iter().map(|interface| interface.peers.len()).sum();
    print(&format!(
        "{}: ok, {}, {}\n",
        file.display(),
        counted(reading.interfaces.len(), "interface"),
        counted(peers, "peer")
    ))
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Prints a new secret.
fn generate(make: &dyn Fn() -> Result<Zeroizing<String>, getrandom::Error>) -> ExitCode {
    if let Some(warning) = readable_by_others() {
        let _ = writeln!(io::stderr(), "simplevpn: warning: {warning}");
    }
    match make() {
        Ok(text) => print_line(text),
        Err(error) => complain(cli::FAILURE, &format!("no randomness: {error}")),
    }
}

/// A new key in base64.
fn encoded_key() -> Result<Zeroizing<String>, getrandom::Error> {
    keys::generate().map(|key| keys::encode(&*key))
}

fn pubkey(pem: bool) -> ExitCode {
    let text = keys::read(io::stdin().lock());
    match text.and_then(|text| keys::decode(&text).map_err(|wrong| wrong.to_string())) {
        Ok(key) if pem => print(&keys::pem(&keys::public_key(&key))),
        Ok(key) => print_line(keys::encode(keys::public_key(&key).as_bytes())),
        Err(wrong) => complain(cli::FAILURE, &format!("standard input {wrong}")),
    }
}

/// Prints a key's text, which has room for the line end.
fn print_line(mut text: Zeroizing<String>) -> ExitCode {
    text.push('\n');
    print(&text)
}

/// What to say if stdout is a file that other users can read.
fn readable_by_others() -> Option<&'static str> {
    let metadata = stdout().ok()?.metadata().ok()?;
    (metadata.is_file() && metadata.mode() & 0o077 != 0)
        .then_some("other users can read this file; run umask 077 before")
}
