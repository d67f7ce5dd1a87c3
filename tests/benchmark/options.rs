//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use crate::measure::Effort;
use crate::results::Link;
use crate::subjects::{SUBJECTS, Subject};

/// What is asked for.
pub(crate) struct Options {
    pub(crate) subjects: Vec<Subject>,
    pub(crate) links: Vec<Link>,
    pub(crate) rounds: usize,
    pub(crate) effort: Effort,
    pub(crate) hub: bool,
    /// Where the plot and the JSON go.
    pub(crate) out: PathBuf,
}

/// What is measured unless subjects are named.
const USUAL: [&str; 16] = [
    "no-tunnel",
    "copy",
    "udp-aes256",
    "udp-chacha20",
    "esp-aes256",
    "esp-chacha20",
    "udp-aes256-offset",
    "esp-chacha20-offset",
    "boringtun",
    "gotatun",
    "wireguard-go",
    "wireguard-go-2022",
    "fastd",
    "openvpn-aes256",
    "strongswan-aes256",
    "strongswan-chacha20",
];
const QUICK: [&str; 5] = ["no-tunnel", "udp-aes256", "esp-chacha20", "boringtun", "gotatun"];

pub(crate) const USAGE: &str = "\
usage: tests/bench [OPTION…] [SUBJECT…]

  --quick            few subjects, one link, two short rounds
  --rounds N         so many rounds (3)
  --seconds S        length of a TCP stretch (0.4); a flood takes half of it
  --link LINK        only `offloads` or only `plain`
  --no-hub           without the hub of 10,000 peers
  --out DIR          where bench.svg and bench.json go (target/bench)
  --list             only says what subjects can be named, and what is missing for them
  --needs            only says which programs and files the chosen subjects need
  SUBJECT            one of these, or `ours`, `peers`, `all`, `hub`
";

impl Options {
    /// What the arguments say; nothing when they say nothing sensible.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
        let mut names: Vec<String> = Vec::new();
        let mut options = Options {
            subjects: Vec::new(),
            links: Link::ALL.to_vec(),
            rounds: 3,
            effort: Effort { span: Duration::from_millis(400), pings: 150 },
            hub: true,
            out: "target/bench".into(),
        };
        let mut usual: &[&str] = &USUAL;
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => {
                    usual = &QUICK;
                    options.links = vec![Link::Virtual];
                    options.rounds = 2;
                    options.effort = Effort { span: Duration::from_millis(300), pings: 100 };
                    options.hub = false;
                }
                "--rounds" => options.rounds = arguments.next()?.parse().ok().filter(|n| *n > 0)?,
                "--seconds" => {
                    let seconds = arguments.next()?.parse().ok().filter(|s| *s >= 0.1)?;
                    options.effort.span = Duration::try_from_secs_f64(seconds).ok()?;
                }
                "--link" => {
                    let name = arguments.next()?;
                    options.links = vec![*Link::ALL.iter().find(|link| link.name() == name)?];
                }
                "--no-hub" => options.hub = false,
                "--out" => options.out = arguments.next()?.into(),
                option if option.starts_with('-') => return None,
                name => names.push(name.into()),
            }
        }
        if names.is_empty() {
            names = usual.iter().map(ToString::to_string).collect();
        } else {
            options.hub = names.iter().any(|name| name == "hub");
            names.retain(|name| name != "hub");
        }
        for name in &names {
            let chosen: Vec<Subject> = SUBJECTS.into_iter().filter(|s| s.is(name)).collect();
            if chosen.is_empty() {
                eprintln!("no subject {name}");
                return None;
            }
            options.subjects.extend(chosen);
        }
        // In the order of the tables, each once.
        let order = |s: &Subject| SUBJECTS.iter().position(|other| other.name == s.name);
        options.subjects.sort_by_key(order);
        options.subjects.dedup_by_key(|subject| subject.name);
        Some(options)
    }
}
