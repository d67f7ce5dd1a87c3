//! A hub with many peers: the time from its start until it is ready, what each peer takes of its
//! memory, and what a packet of one of them costs.

use std::thread::sleep;
use std::time::Duration;

use simplevpn_tests::lab::sites::Sites;
use simplevpn_tests::lab::{Lab, ip};

use crate::program::End;
use crate::results::Spread;
use crate::subjects::hub as start;

const PEERS: u32 = 10_000;

/// What was measured.
pub(crate) struct Hub {
    cases: Vec<Case>,
}

/// A gateway with so many peers.
struct Case {
    peers: u32,
    ready: Duration,
    /// Resident before any packet, KiB.
    rss: f64,
    /// CPU-seconds at this gateway per GB of TCP that it seals.
    cpu: Vec<f64>,
    sites: Sites,
    ends: Vec<End>,
    _lab: Lab,
}

impl Hub {
    /// One peer and many, in turns.
    pub(crate) fn measure(rounds: usize, span: Duration) -> Result<Hub, String> {
        let cases: Result<Vec<Case>, String> = [1, PEERS].into_iter().map(Case::new).collect();
        let mut hub = Hub { cases: cases? };
        for _ in 0..rounds {
            for case in &mut hub.cases {
                case.round(span)?;
            }
        }
        Ok(hub)
    }

    /// A table for people.
    pub(crate) fn table(&self) -> String {
        let mut text = String::from(
            "## A hub\n\n| peers | ready after, ms | resident, MiB | CPU-s/GB, sealing |\n\
             |---|---|---|---|\n",
        );
        for case in &self.cases {
            let cpu = Spread::of(case.cpu.iter().copied());
            text.push_str(&format!(
                "| {} | {} | {:.1} | {} |\n",
                case.peers,
                case.ready.as_millis(),
                case.rss / 1024.0,
                cpu.map_or("–".into(), |cpu| format!(
                    "{:.2} ({:.2} – {:.2})",
                    cpu.median, cpu.least, cpu.most
                )),
            ));
        }
        if let Some(memory) = self.memory_per_peer() {
            text.push_str(&format!("\nMemory of each further peer: {memory:.2} KiB\n"));
        }
        if let Some(Spread { median, least, most }) = self.cost() {
            text.push_str(&format!(
                "CPU-seconds per GB beside a single peer, in one round: {median:.2} \
                 ({least:.2} – {most:.2})\n"
            ));
        }
        text
    }

    /// KiB: data plane, control plane and configuration.
    fn memory_per_peer(&self) -> Option<f64> {
        let [one, many] = self.cases.as_slice() else { return None };
        Some((many.rss - one.rss) / f64::from(many.peers - one.peers))
    }

    /// What a packet costs with many peers, as a ratio to what it costs with one.
    fn cost(&self) -> Option<Spread> {
        let [one, many] = self.cases.as_slice() else { return None };
        Spread::of(many.cpu.iter().zip(&one.cpu).map(|(many, one)| many / one))
    }

    /// The same for programs.
    pub(crate) fn json(&self) -> String {
        let cases = self.cases.iter().map(|case| {
            let cpu: Vec<String> = case.cpu.iter().map(|cpu| format!("{cpu:.4}")).collect();
            format!(
                "{{\"peers\": {}, \"ready_ms\": {}, \"rss_kib\": {}, \"cpu_s_per_gb\": [{}]}}",
                case.peers,
                case.ready.as_millis(),
                case.rss,
                cpu.join(", ")
            )
        });
        format!("[{}]", cases.collect::<Vec<_>>().join(", "))
    }
}

impl Case {
    fn new(peers: u32) -> Result<Case, String> {
        let lab = Lab::new();
        let sites = Sites::new(&lab);
        let (ends, ready) = start(&sites, peers)?;
        let rss = ends.first().and_then(End::rss).ok_or("no resident memory")?;
        if !sites.client.reaches_within("10.2.0.2", Duration::from_secs(10)) {
            return Err(format!("no ping passes a hub with {peers} peers"));
        }
        Ok(Case { peers, ready, rss, cpu: Vec::new(), sites, ends, _lab: lab })
    }

    fn round(&mut self, span: Duration) -> Result<(), String> {
        let Some(hub) = self.ends.first() else { return Err("no hub".into()) };
        let load = self.sites.client.tcp_load(&self.sites.server, ip("10.2.0.2"), 1, || {
            let begin = hub.cpu();
            sleep(span);
            Ok::<_, String>(hub.cpu()? - begin?)
        });
        let (cpu, rate) = load.map_err(|error| format!("TCP: {error}"))?;
        self.cpu.push(cpu?.as_secs_f64() / (rate * span.as_secs_f64() / 1e9));
        Ok(())
    }
}
