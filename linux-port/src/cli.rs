//! The command line: arguments in, a [`Command`] out.

use core::fmt;
use std::ffi::OsString;
use std::path::PathBuf;

use crate::{config, logger};

/// Exit status after success.
pub const OK: u8 = 0;
/// Exit status after a failure that is none of the following.
pub const FAILURE: u8 = 1;
/// Exit status after a command line that is not understood.
pub const USAGE: u8 = 2;
/// Exit status after a configuration with errors.
pub const CONFIGURATION: u8 = 3;

/// Exit status of `check` after a configuration with errors in some of its peers, which `run`
/// leaves out.
pub const PEERS: u8 = 4;

/// What `--help` prints.
pub const HELP: &str = "\
simplevpn - standard IPsec (ESP) in user space, on any kernel that has TUN

usage:
  simplevpn run FILE [IFACE]      run the interfaces of FILE, or only IFACE
  simplevpn check FILE [IFACE]    check FILE, or only IFACE and its peers,
                                  and print what is wrong
  simplevpn guard FILE            close what FILE wants closed, without running
  simplevpn show [IFACE] [--json] show running interfaces and their peers
  simplevpn rekey IFACE           negotiate new keys with the peers of IFACE
  simplevpn down IFACE            stop IFACE and open its killswitch
  simplevpn genkey                print a new private key
  simplevpn pubkey [--pem]        read a private key, print its public key
  simplevpn genpsk [--text]       print a new preshared key

FILE is UCI text: /etc/config/network on OpenWrt, the output of 'uci export
network', or any file like it.

options:
  --netifd          run: leave addresses and routes to OpenWrt's netifd, which
                    has started this for IFACE
  --tunlink DEVICE  run: send through DEVICE only, whatever FILE says
  --json            show: as JSON
  --pem             pubkey: as strongSwan reads it
  --text            genpsk: to be typed; its characters are the key
  -v, --verbose     log more
  -h, --help        print this
  -V, --version     print the version

exit status: 0 success, 1 failure, 2 wrong usage, 3 errors in the configuration
(of check: 4, if only some peers have errors; run leaves them out and closed)
";

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Run the interfaces of a file, or one of them.
    Run {
        /// The configuration.
        file: PathBuf,
        /// The only interface to run.
        interface: Option<String>,
        /// Whether netifd has started this, and owns addresses and routes.
        netifd: bool,
        /// The device to send through, in place of `option tunlink`.
        tunlink: Option<String>,
    },
    /// Check a file.
    Check {
        /// The configuration.
        file: PathBuf,
        /// The only interface to judge.
        interface: Option<String>,
    },
    /// Close what a file wants closed, and open what it does not.
    Guard {
        /// The configuration.
        file: PathBuf,
    },
    /// Show running interfaces.
    Show {
        /// The only interface to show.
        interface: Option<String>,
        /// As JSON.
        json: bool,
    },
    /// Negotiate new keys.
    Rekey {
        /// Its name.
        interface: String,
    },
    /// Stop an interface for good.
    Down {
        /// Its name.
        interface: String,
    },
    /// Print a new private key.
    Genkey,
    /// Print the public key of the private key on stdin.
    Pubkey {
        /// As PEM.
        pem: bool,
    },
    /// Print a new preshared key.
    Genpsk {
        /// As a text to be typed.
        text: bool,
    },
    /// Print the version.
    Version,
    /// Print [`HELP`].
    Help,
}

/// A whole command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// What to do.
    pub command: Command,
    /// Whether to log more.
    pub verbose: bool,
}

/// What is wrong with a command line, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Understands the arguments after the program's name.
///
/// # Errors
/// [`Usage`] for a command line that [`HELP`] does not describe.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, Usage> {
    let mut arguments = arguments.into_iter();
    let mut words = Vec::new();
    let mut given = Flags::default();
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy().into_owned();
        if text == "--" {
            words.extend(arguments);
            break;
        }
        if let Some(device) = text.strip_prefix("--tunlink=") {
            given.tunlink = Some(device_name(device)?);
        } else if text == "--tunlink" {
            let missing = "missing argument for option '--tunlink'; see simplevpn --help";
            let device = arguments.next().ok_or_else(|| Usage(missing.to_owned()))?;
            given.tunlink = Some(device_name(&device.to_string_lossy())?);
        } else if text.starts_with("--") {
            given.set(&text)?;
        } else if text.starts_with('-') && text != "-" {
            // Several letters may follow one dash.
            text.chars().skip(1).try_for_each(|letter| given.set(&format!("-{letter}")))?;
        } else {
            words.push(argument);
        }
        if let Some(command) = given.instead {
            return Ok(Invocation { command, verbose: given.verbose });
        }
    }
    let command = command(words, &given)?;
    Ok(Invocation { command, verbose: given.verbose })
}

/// The options of a command line.
#[derive(Default)]
struct Flags {
    verbose: bool,
    json: bool,
    pem: bool,
    text: bool,
    netifd: bool,
    tunlink: Option<String>,
    /// What was asked for with an option, whatever the rest says.
    instead: Option<Command>,
}

impl Flags {
    /// Takes an option without a value.
    fn set(&mut self, option: &str) -> Result<(), Usage> {
        match option {
            "-h" | "--help" => self.instead = Some(Command::Help),
            "-V" | "--version" => self.instead = Some(Command::Version),
            "-v" | "--verbose" => self.verbose = true,
            "--json" => self.json = true,
            "--pem" => self.pem = true,
            "--text" => self.text = true,
            "--netifd" => self.netifd = true,
            _ => {
                return Err(Usage(format!(
                    "invalid option '{}'; see simplevpn --help",
                    logger::one_line(option)
                )));
            }
        }
        Ok(())
    }
}

fn command(words: Vec<OsString>, flags: &Flags) -> Result<Command, Usage> {
    let mut words = words.into_iter();
    let Some(name) = words.next() else {
        return Err(Usage("what to do is missing; see simplevpn --help".to_owned()));
    };
    let name = name.to_string_lossy().into_owned();
    let command = match &*name {
        "run" => Command::Run {
            file: file(words.next(), &name)?,
            interface: interface(words.next())?,
            netifd: flags.netifd,
            tunlink: flags.tunlink.clone(),
        },
        "check" => {
            Command::Check { file: file(words.next(), &name)?, interface: interface(words.next())? }
        }
        "guard" => Command::Guard { file: file(words.next(), &name)? },
        "show" => Command::Show { interface: interface(words.next())?, json: flags.json },
        "rekey" => Command::Rekey { interface: one_interface(words.next(), &name)? },
        "down" => Command::Down { interface: one_interface(words.next(), &name)? },
        "genkey" => Command::Genkey,
        "pubkey" => Command::Pubkey { pem: flags.pem },
        "genpsk" => Command::Genpsk { text: flags.text },
        "help" => Command::Help,
        "version" => Command::Version,
        _ => {
            let name = logger::one_line(&name);
            return Err(Usage(format!("unknown command \"{name}\"; see simplevpn --help")));
        }
    };
    if let Some(extra) = words.next() {
        let extra = logger::one_line(&extra.to_string_lossy());
        return Err(Usage(format!("{name}: \"{extra}\" is too much; see simplevpn --help")));
    }
    only_with(flags.json, "--json", &name, "show")?;
    only_with(flags.pem, "--pem", &name, "pubkey")?;
    only_with(flags.text, "--text", &name, "genpsk")?;
    only_with(flags.netifd, "--netifd", &name, "run")?;
    only_with(flags.tunlink.is_some(), "--tunlink", &name, "run")?;
    if let Command::Run { netifd: true, interface: None, .. } = command {
        let message = "--netifd needs an interface; write simplevpn run --netifd FILE IFACE";
        return Err(Usage(message.to_owned()));
    }
    Ok(command)
}

fn only_with(given: bool, option: &str, command: &str, with: &str) -> Result<(), Usage> {
    match given && command != with {
        true => Err(Usage(format!("{command} has no {option}; only {with} has"))),
        false => Ok(()),
    }
}

fn file(word: Option<OsString>, command: &str) -> Result<PathBuf, Usage> {
    let missing = || Usage(format!("{command} needs a file; write simplevpn {command} FILE"));
    word.filter(|word| !word.is_empty()).map(PathBuf::from).ok_or_else(missing)
}

fn interface(word: Option<OsString>) -> Result<Option<String>, Usage> {
    word.map(|word| device_name(&word.to_string_lossy())).transpose()
}

fn one_interface(word: Option<OsString>, command: &str) -> Result<String, Usage> {
    let missing =
        || Usage(format!("{command} needs an interface; write simplevpn {command} IFACE"));
    interface(word)?.ok_or_else(missing)
}

fn device_name(name: &str) -> Result<String, Usage> {
    config::device_name(name)
        .map_err(|wrong| Usage(format!("\"{}\" {wrong}", logger::one_line(name))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        let invocation = parse(line.split_whitespace().map(OsString::from));
        invocation.map(|invocation| invocation.command).map_err(|usage| usage.to_string())
    }

    #[test]
    fn commands() {
        let file = || PathBuf::from("f");
        let vpn0 = || "vpn0".to_owned();
        let run = |interface: Option<&str>, netifd, tunlink: Option<&str>| Command::Run {
            file: file(),
            interface: interface.map(str::to_owned),
            netifd,
            tunlink: tunlink.map(str::to_owned),
        };
        let table = [
            ("run f", run(None, false, None)),
            ("run f vpn0", run(Some("vpn0"), false, None)),
            ("-v run f", run(None, false, None)),
            ("run --netifd f vpn0", run(Some("vpn0"), true, None)),
            ("run --netifd --tunlink eth1 f vpn0", run(Some("vpn0"), true, Some("eth1"))),
            ("run f --tunlink=eth1", run(None, false, Some("eth1"))),
            ("check f", Command::Check { file: file(), interface: None }),
            ("check f vpn0", Command::Check { file: file(), interface: Some(vpn0()) }),
            ("check -- f", Command::Check { file: file(), interface: None }),
            ("guard f", Command::Guard { file: file() }),
            ("show", Command::Show { interface: None, json: false }),
            ("show vpn0 --json", Command::Show { interface: Some(vpn0()), json: true }),
            ("show --json vpn0", Command::Show { interface: Some(vpn0()), json: true }),
            ("down vpn0", Command::Down { interface: vpn0() }),
            ("genkey", Command::Genkey),
            ("pubkey", Command::Pubkey { pem: false }),
            ("pubkey --pem", Command::Pubkey { pem: true }),
            ("genpsk", Command::Genpsk { text: false }),
            ("genpsk --text", Command::Genpsk { text: true }),
            ("--version", Command::Version),
            ("-V", Command::Version),
            ("run --help", Command::Help),
            ("-h", Command::Help),
            ("-vh", Command::Help),
            ("rekey vpn0", Command::Rekey { interface: vpn0() }),
            ("down -- vpn0", Command::Down { interface: vpn0() }),
            ("check -- -", Command::Check { file: PathBuf::from("-"), interface: None }),
            ("check -", Command::Check { file: PathBuf::from("-"), interface: None }),
        ];
        for (line, command) in table {
            assert_eq!(parsed(line), Ok(command), "{line}");
        }
    }

    #[test]
    fn verbose_may_stand_anywhere() {
        for line in ["-v check f", "check -vv f", "check f --verbose"] {
            assert!(parse(line.split(' ').map(OsString::from)).unwrap().verbose, "{line}");
        }
    }

    #[test]
    fn wrong_usage_is_explained() {
        let table = [
            ("", "what to do is missing; see simplevpn --help"),
            ("start", "unknown command \"start\"; see simplevpn --help"),
            ("run", "run needs a file; write simplevpn run FILE"),
            ("check", "check needs a file; write simplevpn check FILE"),
            ("down", "down needs an interface; write simplevpn down IFACE"),
            ("rekey", "rekey needs an interface; write simplevpn rekey IFACE"),
            ("genkey x", "genkey: \"x\" is too much; see simplevpn --help"),
            ("check f g h", "check: \"h\" is too much; see simplevpn --help"),
            ("guard", "guard needs a file; write simplevpn guard FILE"),
            ("guard f vpn0", "guard: \"vpn0\" is too much; see simplevpn --help"),
            ("genkey --pem", "genkey has no --pem; only pubkey has"),
            ("genkey --text", "genkey has no --text; only genpsk has"),
            ("check f --json", "check has no --json; only show has"),
            ("guard f --netifd", "guard has no --netifd; only run has"),
            ("show --tunlink eth1", "show has no --tunlink; only run has"),
            (
                "run --netifd f",
                "--netifd needs an interface; write simplevpn run --netifd FILE IFACE",
            ),
            ("run f --tunlink", "missing argument for option '--tunlink'; see simplevpn --help"),
            (
                "run f --tunlink a/b",
                "\"a/b\" is not an interface name; write at most 15 characters, no '/', ':' or space",
            ),
            (
                "show ../x",
                "\"../x\" is not an interface name; write at most 15 characters, no '/', ':' or space",
            ),
            ("-x", "invalid option '-x'; see simplevpn --help"),
            ("show --json=x", "invalid option '--json=x'; see simplevpn --help"),
            ("--nonsense", "invalid option '--nonsense'; see simplevpn --help"),
        ];
        for (line, message) in table {
            assert_eq!(parsed(line), Err(message.to_owned()), "{line}");
        }
    }

    #[test]
    fn help_fits_a_terminal() {
        assert!(HELP.lines().all(|line| line.len() <= 79));
    }
}
