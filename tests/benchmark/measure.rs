//! What is measured of a tunnel in one round.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use simplevpn_tests::lab::{Host, load};

use crate::program::End;
use crate::subjects::Tunnel;

/// One kind of figure.
pub(crate) struct Measure {
    /// What it is called in the JSON.
    pub(crate) name: &'static str,
    /// What heads its column.
    pub(crate) title: &'static str,
    /// Digits after the point.
    pub(crate) digits: usize,
    pub(crate) more_is_better: bool,
}

/// Measures that stand in one table.
pub(crate) struct Group {
    pub(crate) title: &'static str,
    pub(crate) measures: &'static [Measure],
}

const fn more(name: &'static str, title: &'static str, digits: usize) -> Measure {
    Measure { name, title, digits, more_is_better: true }
}

const fn less(name: &'static str, title: &'static str, digits: usize) -> Measure {
    Measure { name, title, digits, more_is_better: false }
}

pub(crate) const TCP_1: &str = "tcp_1_forth_gbit_s";
pub(crate) const UDP_PACED: &str = "udp_1372_paced_mbit_s";
pub(crate) const PING_P50: &str = "ping_idle_p50_us";
pub(crate) const CPU_SEALING: &str = "cpu_s_per_gb_sealing_end";
pub(crate) const CPU_OPENING: &str = "cpu_s_per_gb_opening_end";
pub(crate) const PEAK_RSS: &str = "peak_rss_mib";

/// All that is measured.
pub(crate) const GROUPS: [Group; 4] = [
    Group {
        title: "TCP, Gbit/s of payload",
        measures: &[
            more(TCP_1, "1 stream", 2),
            more("tcp_1_back_gbit_s", "1 stream, back", 2),
            more("tcp_4_forth_gbit_s", "4 streams", 2),
            more("tcp_4_back_gbit_s", "4 streams, back", 2),
        ],
    },
    Group {
        title: "UDP datagrams: thousands a second that arrive of a flood; per cent of 20,000 a second \
                that are lost; the highest pace, Mbit/s of payload, at which less than 0.1 % are",
        measures: &[
            more("udp_64_flood_k_s", "64 bytes, k/s", 1),
            more("udp_512_flood_k_s", "512 bytes, k/s", 1),
            more("udp_1372_flood_k_s", "1372 bytes, k/s", 1),
            less("udp_1372_loss_percent", "1372 at 20 k/s, loss %", 2),
            more(UDP_PACED, "1372 paced, Mbit/s", 0),
        ],
    },
    Group {
        title: "Ping, microseconds: idle, and beside a TCP stream",
        measures: &[
            less(PING_P50, "ping, idle p50", 0),
            less("ping_idle_p99_us", "ping, idle p99", 0),
            less("ping_load_p50_us", "ping, load p50", 0),
            less("ping_load_p99_us", "ping, load p99", 0),
        ],
    },
    Group {
        title: "What it takes: CPU-seconds per GB of one TCP stream, peak resident memory in MiB of \
                the bigger end",
        measures: &[
            less(CPU_SEALING, "CPU-s/GB, sealing end", 2),
            less(CPU_OPENING, "CPU-s/GB, opening end", 2),
            less(PEAK_RSS, "peak RSS, MiB", 1),
        ],
    },
];

/// By the name of the measure.
pub(crate) type Figures = BTreeMap<&'static str, f64>;

/// Bytes of payload that fill 1,400 bytes of inner packet: what every peer's device takes.
const FULL: usize = 1372;
/// Datagrams a second at which loss is looked at: every peer is there to carry this.
pub(crate) const STEADY: f64 = 20_000.0;
/// Part of the datagrams that may be lost at the highest pace.
const LOSS: f64 = 0.001;

/// How long to measure.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// Each TCP stretch; each flood and each pace tried takes half of it.
    pub(crate) span: Duration,
    pub(crate) pings: u32,
}

impl Tunnel {
    /// Everything, once. `pace` is where to begin to look for the highest pace, datagrams a second,
    /// and is left where it was found.
    pub(crate) fn measure(&self, effort: Effort, pace: &mut f64) -> Result<Figures, String> {
        let [span, half] = [effort.span, effort.span / 2];
        let mut figures = Figures::new();
        self.settle()?;
        let idle = self.sites.client.ping_times(self.server, effort.pings);
        figures.insert(PING_P50, rank(&idle, 0.5));
        figures.insert("ping_idle_p99_us", rank(&idle, 0.99));

        let ((begin, end), forth) = self.tcp(true, 1, || {
            let begin = self.cpu();
            sleep(span);
            (begin, self.cpu())
        })?;
        let (begin, end) = (begin?, end?);
        let gigabytes = forth * span.as_secs_f64() / 1e9;
        for (name, (begin, end)) in [CPU_SEALING, CPU_OPENING].iter().zip(begin.iter().zip(&end)) {
            figures.insert(name, (*end - *begin).as_secs_f64() / gigabytes);
        }
        let gbit = |rate: f64| rate * 8.0 / 1e9;
        figures.insert(TCP_1, gbit(forth));
        for (name, forth, streams) in [
            ("tcp_1_back_gbit_s", false, 1),
            ("tcp_4_forth_gbit_s", true, 4),
            ("tcp_4_back_gbit_s", false, 4),
        ] {
            figures.insert(name, gbit(self.tcp(forth, streams, || sleep(span))?.1));
        }
        let ping = || self.sites.client.ping_times(self.server, effort.pings);
        let (loaded, _) = self.tcp(true, 1, ping)?;
        figures.insert("ping_load_p50_us", rank(&loaded, 0.5));
        figures.insert("ping_load_p99_us", rank(&loaded, 0.99));

        self.settle()?;
        let steady = self.udp(FULL, Some(STEADY), half)?;
        figures.insert("udp_1372_loss_percent", steady.loss() * 100.0);
        let highest = self.highest_pace(*pace, half)?;
        figures.insert(UDP_PACED, highest * FULL as f64 * 8.0 / 1e6);
        *pace = highest.max(STEADY / 20.0);
        for (name, size) in
            [("udp_1372_flood_k_s", FULL), ("udp_512_flood_k_s", 512), ("udp_64_flood_k_s", 64)]
        {
            self.settle()?;
            figures.insert(name, self.udp(size, None, half)?.carried() / 1e3);
        }
        if let Some(peak) = self.ends.iter().filter_map(End::peak_rss).reduce(f64::max) {
            figures.insert(PEAK_RSS, peak / 1024.0);
        }
        Ok(figures)
    }

    /// Bytes a second of TCP from the client to the server, or back.
    fn tcp<T>(
        &self,
        forth: bool,
        streams: usize,
        meanwhile: impl FnOnce() -> T,
    ) -> Result<(T, f64), String> {
        let (from, to, address) = self.way(forth);
        let load = from.tcp_load(to, address, streams, meanwhile);
        let (result, rate) = load.map_err(|error| format!("TCP: {error}"))?;
        if rate > 0.0 { Ok((result, rate)) } else { Err("TCP: nothing arrived".into()) }
    }

    fn udp(
        &self,
        size: usize,
        pace: Option<f64>,
        span: Duration,
    ) -> Result<load::Datagrams, String> {
        let (from, to, address) = self.way(true);
        from.udp_load(to, address, size, pace, span).map_err(|error| format!("UDP: {error}"))
    }

    fn way(&self, forth: bool) -> (&Host, &Host, IpAddr) {
        let sites = &self.sites;
        if forth {
            (&sites.client, &sites.server, self.server)
        } else {
            (&sites.server, &sites.client, self.client)
        }
    }

    /// The highest number of full datagrams a second of which less than [`LOSS`] are lost: first
    /// by steps of a third from `start`, then halving the step down to six per cent.
    fn highest_pace(&self, start: f64, span: Duration) -> Result<f64, String> {
        let (mut carried, mut lost) = (0.0, f64::INFINITY);
        let mut pace = start;
        for _ in 0..12 {
            if self.carries(pace, span)? {
                carried = pace;
            } else {
                lost = pace;
            }
            pace = match (carried > 0.0, lost.is_finite()) {
                (true, false) => carried * 1.33,
                (false, _) => lost / 1.33,
                (true, true) if lost / carried < 1.06 => break,
                (true, true) => (carried * lost).sqrt(),
            };
        }
        Ok(carried)
    }

    /// Whether this pace passes. Twice is asked before the answer is no, since a neighbour of this
    /// machine may have taken the processor away.
    fn carries(&self, pace: f64, span: Duration) -> Result<bool, String> {
        for _ in 0..2 {
            let datagrams = self.udp(FULL, Some(pace), span)?;
            let kept_pace = datagrams.offered() > 0.97 * pace;
            if kept_pace && datagrams.loss() < LOSS {
                return Ok(true);
            }
            self.settle()?;
        }
        Ok(false)
    }

    /// Waits until both ends have nothing to do: some still empty long queues after a flood.
    pub(crate) fn settle(&self) -> Result<(), String> {
        const PAUSE: Duration = Duration::from_millis(50);
        let begin = Instant::now();
        let mut before = self.cpu()?;
        while begin.elapsed() < Duration::from_secs(5) {
            sleep(PAUSE);
            let now = self.cpu()?;
            if now.iter().zip(&before).all(|(now, before)| *now - *before < PAUSE / 10) {
                return Ok(());
            }
            before = now;
        }
        Ok(())
    }

    /// Processor time that each end has used so far.
    pub(crate) fn cpu(&self) -> Result<Vec<Duration>, String> {
        self.ends.iter().map(End::cpu).collect()
    }
}

/// The time, in microseconds, that so large a share of the sorted times does not exceed.
fn rank(times: &[Duration], share: f64) -> f64 {
    let at = (times.len() as f64 * share) as usize;
    let time = times.get(at.min(times.len().saturating_sub(1)));
    time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
}
