//! The comparison: what a tunnel carries and costs on this machine, beside other people's tunnels
//! and beside none. `tests/bench` installs what it needs, builds and starts it.
//!
//! ```text
//!  client 10.1.0.2 ---- a 192.0.2.1 ==== 192.0.2.2 b ---- 10.2.0.2 server
//! ```
//!
//! Every subject has these four machines, network namespaces joined by virtual cables, for itself;
//! its program runs on a and b. All are up for the whole run and are measured in turns, round by
//! round, in an order that changes, since a machine's speed drifts. Daemons, senders, receivers and
//! the cables themselves share this machine's cores. Nothing here says how fast is fast enough: a
//! figure that misses a goal is no failure, a tunnel that does not work is.
//!
//! - [`subjects`] is what is compared, and how each is set up
//! - [`measure`] is what is measured of one in one round
//! - [`results`] keeps all rounds; [`report`], [`plot`] and [`goals`] say what they mean
//! - [`hub`] is a gateway with 10,000 peers that all talk
//! - [`mod@handshakes`] is what connecting costs, which is measured apart
//! - [`machine`] tells how busy the machine is with other things

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use simplevpn_tests::lab::Host;
use simplevpn_tests::lab::sites::Sites;

use crate::hub::Hub;
use crate::measure::STEADY;
use crate::options::{Options, USAGE};
use crate::results::{Link, Results, Row};
use crate::subjects::{SUBJECTS, Subject, Tunnel, copy};

mod goals;
mod handshakes;
mod hub;
mod machine;
mod measure;
mod options;
mod plot;
mod program;
mod report;
mod results;
mod subjects;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    let asked = arguments.next_if(|argument| matches!(argument.as_str(), "--list" | "--needs"));
    if arguments.next_if_eq("handshakes").is_some() {
        return handshakes(arguments, asked.is_some());
    }
    // How it starts itself on a gateway; nobody else needs to know.
    if arguments.next_if_eq("--copy").is_some() {
        let addresses = arguments.next().zip(arguments.next());
        let (local, remote) = addresses.unwrap_or_default();
        return verdict(copy(&local, &remote).map(|()| Vec::new()));
    }
    let Some(options) = Options::parse(arguments) else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    match asked.as_deref() {
        Some("--list") => {
            list();
            return ExitCode::SUCCESS;
        }
        Some(_) => {
            let needs = options.subjects.iter().flat_map(Subject::needs);
            needs.for_each(|need| println!("{need}"));
            return ExitCode::SUCCESS;
        }
        None => {}
    }
    verdict(run(&options))
}

/// The same for what connecting costs.
fn handshakes(arguments: impl Iterator<Item = String>, needs: bool) -> ExitCode {
    let Some(options) = handshakes::Options::parse(arguments) else {
        eprint!("{}", handshakes::USAGE);
        return ExitCode::from(2);
    };
    if needs {
        handshakes::needs().into_iter().for_each(|need| println!("{need}"));
        return ExitCode::SUCCESS;
    }
    verdict(hide_run().map(|()| handshakes::run(&options)))
}

fn verdict(outcome: Result<Vec<String>, String>) -> ExitCode {
    match outcome {
        Ok(failures) if failures.is_empty() => ExitCode::SUCCESS,
        Ok(failures) => {
            failures.iter().for_each(|failure| eprintln!("FAILED {failure}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// What can be named, and what is missing for it.
fn list() {
    for subject in SUBJECTS {
        let missing = subject.missing().map(|need| format!("missing: {need}"));
        println!("{:22}{}", subject.name, missing.unwrap_or_else(|| subject.version()));
    }
}

/// Measures and reports; returns what did not work.
fn run(options: &Options) -> Result<Vec<String>, String> {
    hide_run()?;
    let begin = Instant::now();
    let mut failures = Vec::new();
    let mut tunnels = Vec::new();
    for subject in &options.subjects {
        if let Some(need) = subject.missing() {
            eprintln!("skipped {}: {need} is not installed", subject.name);
            continue;
        }
        match subject.start() {
            Ok(tunnel) => tunnels.push(tunnel),
            Err(error) => failures.push(format!("{}: {error}", subject.name)),
        }
    }
    eprintln!("{} subjects are up after {:.0?}", tunnels.len(), begin.elapsed());
    let results = measure_all(options, &tunnels, &mut failures);
    drop(tunnels);
    let hub = options.hub.then(|| Hub::measure(options.rounds)).transpose();
    let hub = hub.unwrap_or_else(|error| {
        failures.push(format!("hub: {error}"));
        None
    });
    let versions = results.rows.iter().filter(|row| !row.version.is_empty());
    versions.for_each(|row| println!("{}: {}", row.subject.name, row.version));
    if !results.rows.is_empty() {
        println!("\n{}", report::tables(&results));
    }
    if let Some(hub) = &hub {
        println!("{}", hub.table());
    }
    save(&options.out, "bench.svg", &plot::svg(&results))?;
    save(&options.out, "bench.json", &report::json(&results, hub.as_ref()))?;
    eprintln!("{} rounds in {:.0?}", results.rounds, begin.elapsed());
    Ok(failures)
}

/// All rounds, each over all links and all subjects.
fn measure_all(options: &Options, tunnels: &[Tunnel], failures: &mut Vec<String>) -> Results {
    let mut rows: Vec<Row> = tunnels.iter().map(|tunnel| Row::new(tunnel.subject)).collect();
    let mut paces = vec![[STEADY; Link::ALL.len()]; tunnels.len()];
    let mut others = Vec::new();
    for round in 0..options.rounds {
        for (link_at, link) in options.links.iter().enumerate() {
            others.extend(machine::taken_by_others());
            for turn in 0..tunnels.len() {
                let at = (turn + round * tunnels.len() / options.rounds) % tunnels.len();
                let (tunnel, row, pace) = (&tunnels[at], &mut rows[at], &mut paces[at][link_at]);
                let name = tunnel.subject.name;
                eprintln!("round {} of {}, {}: {name}", round + 1, options.rounds, link.name());
                set_link(&tunnel.sites, *link);
                match tunnel.measure(options.effort, pace) {
                    Ok(figures) => row.add(*link, round, figures),
                    Err(error) => {
                        failures.push(format!("{name}, {}, round {round}: {error}", link.name()));
                    }
                }
            }
        }
    }
    Results { rows, links: options.links.clone(), rounds: options.rounds, others }
}

/// Machines behind the gateways keep their offloads, as any computer has them. Super-packets that
/// cross a cable whole need no GRO, and a cable as it comes has none.
fn set_link(sites: &Sites, link: Link) {
    let set = |host: &Host, interface, on| {
        host.offloads(interface, on);
        host.merges(interface, false);
    };
    set(&sites.client, "eth0", true);
    set(&sites.server, "eth0", true);
    for gateway in [&sites.a, &sites.b] {
        set(gateway, "lan", true);
        set(gateway, "wan", link == Link::Virtual);
    }
}

/// From now on this process and its children have a /run of their own: control sockets and files of
/// process ids meet nobody else's, and go with it.
fn hide_run() -> Result<(), String> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))
        .and_then(|()| {
            mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
        })
        .map_err(|error| format!("cannot make a /run of its own: {error}"))
}

fn save(dir: &Path, name: &str, text: &str) -> Result<(), String> {
    let path = dir.join(name);
    std::fs::create_dir_all(dir)
        .and_then(|()| std::fs::write(&path, text))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    eprintln!("wrote {}", path.display());
    Ok(())
}
