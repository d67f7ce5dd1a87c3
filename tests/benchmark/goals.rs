//! What we want to reach, and how far it is.

use std::fmt::Write as _;

use crate::measure::{CPU_OPENING, CPU_SEALING, PEAK_RSS, PING_P50, TCP_1, UDP_PACED};
use crate::report::REFERENCE;
use crate::results::{Link, Results};
use crate::subjects::SUBJECTS;

struct Goal {
    what: &'static str,
    /// At least so much, or at most.
    at_least: bool,
    bound: f64,
    /// The figure of one round.
    figure: fn(&Results, usize) -> Option<f64>,
}

const AES: &str = "udp-aes256";
const CHACHA: &str = "udp-chacha20";

const GOALS: [Goal; 10] = [
    Goal {
        what: "udp-aes256, one TCP stream, beside gotatun",
        at_least: true,
        bound: 8.0,
        figure: |results, round| beside(results, round, Link::Virtual, AES, &["gotatun"], TCP_1),
    },
    Goal {
        what: "udp-chacha20, one TCP stream, beside gotatun",
        at_least: true,
        bound: 5.0,
        figure: |results, round| beside(results, round, Link::Virtual, CHACHA, &["gotatun"], TCP_1),
    },
    Goal {
        what: "udp-aes256, plain link, one TCP stream, beside the better of gotatun and boringtun",
        at_least: true,
        bound: 2.5,
        figure: |results, round| beside(results, round, Link::Plain, AES, &REFERENCE, TCP_1),
    },
    Goal {
        what: "udp-chacha20, plain link, one TCP stream, beside the better of gotatun and boringtun",
        at_least: true,
        bound: 2.5,
        figure: |results, round| beside(results, round, Link::Plain, CHACHA, &REFERENCE, TCP_1),
    },
    Goal {
        what: "esp-aes256, one TCP stream, beside no tunnel on a plain link",
        at_least: true,
        bound: 0.5,
        figure: |results, round| {
            let none = results.row("no-tunnel")?.at(Link::Plain, round, TCP_1)?;
            Some(results.row("esp-aes256")?.at(Link::Virtual, round, TCP_1)? / none)
        },
    },
    Goal {
        what: "esp-aes256, one TCP stream, beside strongSwan with the same cipher",
        at_least: true,
        bound: 4.0,
        figure: |results, round| {
            beside(results, round, Link::Virtual, "esp-aes256", &["strongswan-aes256"], TCP_1)
        },
    },
    Goal {
        what: "udp-aes256, highest pace of datagrams, beside the best peer",
        at_least: true,
        bound: 2.0,
        figure: |results, round| beside(results, round, Link::Virtual, AES, &peers(), UDP_PACED),
    },
    Goal {
        what: "udp-aes256, CPU-seconds per GB of both ends, beside the best peer",
        at_least: false,
        bound: 0.5,
        figure: |results, round| {
            let cost = |name: &&str| {
                let row = results.row(name)?;
                let at = |measure| row.at(Link::Virtual, round, measure);
                Some(at(CPU_SEALING)? + at(CPU_OPENING)?)
            };
            Some(cost(&AES)? / peers().iter().filter_map(cost).reduce(f64::min)?)
        },
    },
    Goal {
        what: "udp-aes256, peak resident memory, MiB",
        at_least: false,
        bound: 8.0,
        figure: |results, round| results.row(AES)?.at(Link::Virtual, round, PEAK_RSS),
    },
    Goal {
        what: "udp-aes256, median idle ping, microseconds above no tunnel",
        at_least: false,
        bound: 60.0,
        figure: |results, round| {
            let ping = |name| results.row(name)?.at(Link::Virtual, round, PING_P50);
            Some(ping(AES)? - ping("no-tunnel")?)
        },
    },
];

/// A line for each goal of which the subjects were measured.
pub(crate) fn lines(results: &Results) -> String {
    let mut text = String::from("## Goals\n\nEach within one round: median (least – most)\n\n");
    for goal in &GOALS {
        let Some(spread) = results.each_round(|round| (goal.figure)(results, round)) else {
            continue;
        };
        let reached =
            if goal.at_least { spread.median >= goal.bound } else { spread.median <= goal.bound };
        let _ = writeln!(
            text,
            "- {}: **{:.2}** ({:.2} – {:.2}); goal: {} {}: {}",
            goal.what,
            spread.median,
            spread.least,
            spread.most,
            if goal.at_least { "at least" } else { "at most" },
            goal.bound,
            if reached { "reached" } else { "not reached" }
        );
    }
    text
}

fn peers() -> Vec<&'static str> {
    let theirs = SUBJECTS.iter().filter(|subject| subject.is_theirs());
    theirs.map(|subject| subject.name).collect()
}

/// More-is-better figures only.
fn beside(
    results: &Results,
    round: usize,
    link: Link,
    name: &str,
    others: &[&str],
    measure: &str,
) -> Option<f64> {
    let ours = results.row(name)?.at(link, round, measure)?;
    Some(ours / results.best(others, link, round, measure, true)?)
}
