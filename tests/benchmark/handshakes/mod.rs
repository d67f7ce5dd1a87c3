//! What a handshake costs the responder, and what it keeps of it: our daemon beside strongSwan.
//!
//! ```text
//!  a initiators 192.0.2.1 ==== 192.0.2.2 responder b
//! ```
//!
//! A handshake is IKE_SA_INIT and IKE_AUTH with X25519 and AES-256-GCM: an IKE SA, and the pair of
//! child SAs that packets would use. Initiators are the same for all: the core's endpoint on a UDP
//! socket, a few at a time, so that nobody asks for cookies. All connections are kept. Processor
//! time is that of the responder's process with all its threads, so that a busy machine changes
//! little; the rate is what one core would do if it did nothing else. Memory is the difference
//! between a responder with one initiator and one with all of them, so that it includes what each
//! peer is configured with; and how much of that comes with the connections. (Our daemon has room
//! for all of them from the start, of which the system has lent some before it is used.)
//!
//! strongSwan has whatever helps it: one connection for all initiators, OpenSSL's cryptography, a
//! hash table of the right size, hardly a log. Ours has a section for each. ESP of both is in user
//! space. What cannot be made alike: strongSwan's plugin for that makes a route with each child SA,
//! ours has made them before.

use std::mem::size_of;
use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::Duration;

use simplevpn_core::ike::IkeSlot;
use simplevpn_tests::lab::{Host, Lab};

use crate::results::Spread;
use crate::subjects::missing_of;
use initiators::{Initiator, Secrets};
use responder::{Authentication, Responder};

mod initiators;
mod responder;

pub(crate) const USAGE: &str = "\
usage: tests/bench handshakes [--rounds N] [--initiators N]

  --rounds N         so many rounds (3)
  --initiators N     so many connections (1000); at least 2, at most 39000
";

const INITIATORS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const RESPONDER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const RESPONDER_ID: &str = "b.test";
/// What lies behind the responder.
const NET: &str = "10.2.0.0/24";
/// Of the responder: strongSwan wants one that lies in the net.
const ADDRESSES: &str = "192.0.2.2/24 10.2.0.1/24";
/// How long a responder may go on after its last answer.
const AFTERWARDS: Duration = Duration::from_millis(200);

/// What is asked for.
pub(crate) struct Options {
    rounds: usize,
    initiators: u32,
}

impl Options {
    /// What the arguments say; nothing when they say nothing sensible.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
        let mut options = Options { rounds: 3, initiators: 1000 };
        while let Some(argument) = arguments.next() {
            let number = arguments.next()?.parse().ok()?;
            match argument.as_str() {
                "--rounds" if number > 0 => options.rounds = number as usize,
                "--initiators" if (2..=39_000).contains(&number) => options.initiators = number,
                _ => return None,
            }
        }
        Some(options)
    }
}

/// The programs and files it cannot do without.
pub(crate) fn needs() -> Vec<&'static str> {
    Responder::ALL.into_iter().flat_map(Responder::needs).collect()
}

/// What a responder and a way of authentication have come to.
struct Case {
    responder: Responder,
    authentication: Authentication,
    /// CPU-seconds of one handshake, in each round.
    cpu: Vec<f64>,
    /// KiB of one more peer with its connection, in each round.
    memory: Vec<f64>,
    /// KiB of them that come with the connection.
    growth: Vec<f64>,
}

/// What so many handshakes take of a new responder.
struct Taken {
    cpu: Duration,
    /// KiB resident before them and after.
    rss: [f64; 2],
}

/// Measures and prints; returns what did not work.
pub(crate) fn run(options: &Options) -> Vec<String> {
    let mut failures = Vec::new();
    let mut cases = Vec::new();
    for authentication in Authentication::ALL {
        for responder in Responder::ALL {
            match missing_of(&responder.needs()) {
                Some(need) => {
                    eprintln!("skipped {}: {need} is not installed", responder.name());
                }
                None => cases.push(Case {
                    responder,
                    authentication,
                    cpu: Vec::new(),
                    memory: Vec::new(),
                    growth: Vec::new(),
                }),
            }
        }
    }
    for round in 0..options.rounds {
        for case in &mut cases {
            let name = format!("{}, {}", case.responder.name(), case.authentication.name());
            eprintln!("round {} of {}: {name}", round + 1, options.rounds);
            if let Err(error) = case.round(options.initiators) {
                failures.push(format!("{name}, round {}: {error}", round + 1));
            }
        }
    }
    println!("{}", table(&cases, options));
    failures
}

impl Case {
    fn round(&mut self, initiators: u32) -> Result<(), String> {
        let one = self.connect(1)?;
        let many = self.connect(initiators)?;
        let [before, after] = many.rss;
        self.cpu.push(many.cpu.as_secs_f64() / f64::from(initiators));
        self.memory.push((after - one.rss[1]) / f64::from(initiators - 1));
        self.growth.push((after - before) / f64::from(initiators));
        Ok(())
    }

    fn connect(&self, count: u32) -> Result<Taken, String> {
        let lab = Lab::new();
        let [a, b] = lab.hosts(["a", "b"]);
        lab.link(a.port("wan", "192.0.2.1/24"), b.port("wan", ADDRESSES));
        let initiators: Vec<Initiator> =
            (0..count).map(|number| self.responder.initiator(number)).collect();
        let (end, secrets) = self.responder.start(&b, self.authentication, &initiators)?;
        let rss = || end.rss().ok_or("no resident memory");
        let (cpu_before, rss_before) = (end.cpu()?, rss()?);
        let outcome = connect(&a, &initiators, secrets);
        outcome.map_err(|error| format!("{error}\n{}", end.last_words()))?;
        sleep(AFTERWARDS);
        Ok(Taken { cpu: end.cpu()? - cpu_before, rss: [rss_before, rss()?] })
    }
}

fn connect(at: &Host, initiators: &[Initiator], secrets: Secrets) -> Result<(), String> {
    at.within(|| initiators::connect(initiators, secrets))
}

/// For people.
fn table(cases: &[Case], options: &Options) -> String {
    let mut text = format!(
        "## Handshakes\n\n{} initiators, {} rounds in turns; X25519, AES-256-GCM: median (least – \
         most)\n\n\
         | responder | authentication | handshakes a second of one core | ms of processor each | \
         KiB for each peer | of them by connecting |\n|---|---|---|---|---|---|\n",
        options.initiators, options.rounds
    );
    for case in cases {
        let cpu = || case.cpu.iter().copied();
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} |\n",
            case.responder.name(),
            case.authentication.name(),
            cell(Spread::of(cpu().map(f64::recip)), 0),
            cell(Spread::of(cpu().map(|seconds| seconds * 1e3)), 2),
            cell(Spread::of(case.memory.iter().copied()), 1),
            cell(Spread::of(case.growth.iter().copied()), 1),
        ));
    }
    text.push_str(&format!(
        "\nstrongSwan's time includes a route for each, which ours has made before.\n\
         A slot of the core's endpoint, which holds an IKE SA and its children: {} bytes\n",
        size_of::<IkeSlot>()
    ));
    text
}

fn cell(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or("–".into(), |Spread { median, least, most }| {
        format!("{median:.digits$} ({least:.digits$} – {most:.digits$})")
    })
}
