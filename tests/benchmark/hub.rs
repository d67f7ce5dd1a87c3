//! A hub with many peers: the time from its start until it is ready, what each peer takes of its
//! memory, and what a packet costs the whole daemon when all of them talk in random turn, beside a
//! hub with one peer.
//!
//! Beside them is what a packet costs when one of the many talks: how far that is above a hub with
//! one peer is what long tables cost, here and in the kernel; what is above that are the states of
//! all peers coming from memory.

use std::time::Duration;

use simplevpn_core::crypto::Cipher;

use crate::hub::gateway::{Gateway, Talk, Way};
use crate::program::End;
use crate::results::Spread;

mod gateway;
mod wire;

const PEERS: u32 = 10_000;
/// Rounds in which all peers talk before it is measured: until each was heard where it is, which
/// is told for a few of each batch only.
const WARM_UP: usize = 5;
/// Packets of a round: a turn of every peer.
const PACKETS: usize = PEERS as usize;
const ENCAPS: [&str; 2] = ["udp", "esp"];
const CIPHERS: [Cipher; 2] = [Cipher::Aes256Gcm16, Cipher::ChaCha20Poly1305];
const WAYS: [(Way, &str); 2] = [(Way::Sealing, "sealing"), (Way::Opening, "opening")];
const LENGTHS: [usize; 2] = [64, 1400];

/// What was measured.
pub(crate) struct Hub {
    settings: Vec<Setting>,
}

/// A hub with one peer and one with many, that have one cipher and encapsulation.
struct Setting {
    encap: &'static str,
    cipher: Cipher,
    /// Until each was ready.
    ready: [Duration; 2],
    /// Resident in each before any packet, KiB.
    rss: [f64; 2],
    rows: Vec<Row>,
}

/// Packets of one length in one direction.
struct Row {
    way: &'static str,
    len: usize,
    /// Nanoseconds per packet in each round: one peer; one of many; many in random turn.
    rounds: Vec<[f64; 3]>,
}

impl Hub {
    /// All settings, one after the other.
    pub(crate) fn measure(rounds: usize) -> Result<Hub, String> {
        let mut settings = Vec::new();
        for cipher in CIPHERS {
            for encap in ENCAPS {
                eprintln!("a hub: {encap}, {}", cipher.name());
                let setting = Setting::measure(encap, cipher, rounds)?;
                // What comes later may fail.
                eprint!("{}", setting.lines());
                settings.push(setting);
            }
        }
        Ok(Hub { settings })
    }

    /// A table for people.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "## A hub with {PEERS} peers\n\nNanoseconds of the daemon's processor time per packet, \
             system calls included\n\n| | one peer | one of {PEERS} | all in random turn | one of \
             many beside one | all beside one |\n|---|---|---|---|---|---|\n"
        );
        for setting in &self.settings {
            text.push_str(&setting.lines());
        }
        text.push_str(
            "\n| | ready after, ms: one peer, many | resident, MiB | of each further peer, KiB |\n\
             |---|---|---|---|\n",
        );
        for setting in &self.settings {
            let [one, many] = setting.ready.map(|ready| ready.as_millis());
            let [least, most] = setting.rss;
            text.push_str(&format!(
                "| {}, {} | {one}, {many} | {:.1}, {:.1} | {:.2} |\n",
                setting.encap,
                setting.cipher.name(),
                least / 1024.0,
                most / 1024.0,
                (most - least) / f64::from(PEERS - 1)
            ));
        }
        text
    }

    /// The same for programs.
    pub(crate) fn json(&self) -> String {
        let settings = self.settings.iter().map(|setting| {
            let rows = setting.rows.iter().map(|row| {
                format!(
                    "{{\"way\": \"{}\", \"bytes\": {}, \"ns\": {:.0?}}}",
                    row.way, row.len, row.rounds
                )
            });
            format!(
                "{{\"encap\": \"{}\", \"cipher\": \"{}\", \"ready_ms\": {:?}, \"rss_kib\": {:?}, \
                 \"packets\": [{}]}}",
                setting.encap,
                setting.cipher.name(),
                setting.ready.map(|ready| ready.as_millis()),
                setting.rss,
                rows.collect::<Vec<_>>().join(", ")
            )
        });
        format!("[{}]", settings.collect::<Vec<_>>().join(", "))
    }
}

impl Setting {
    fn measure(encap: &'static str, cipher: Cipher, rounds: usize) -> Result<Setting, String> {
        let [mut one, mut many] =
            [Gateway::new(1, encap, cipher)?, Gateway::new(PEERS, encap, cipher)?];
        let rss = |end: &End| end.rss().ok_or("no resident memory");
        let (ready, rss) = ([one.ready, many.ready], [rss(&one.end)?, rss(&many.end)?]);
        for _ in 0..WARM_UP {
            for gateway in [&mut one, &mut many] {
                for (way, _) in WAYS {
                    gateway.round(way, Talk::All, 64, PACKETS)?;
                }
            }
        }
        let mut rows = Vec::new();
        for (way, name) in WAYS {
            for len in LENGTHS {
                let round = |_| {
                    Ok::<_, String>([
                        one.round(way, Talk::One, len, PACKETS)?,
                        many.round(way, Talk::One, len, PACKETS)?,
                        many.round(way, Talk::All, len, PACKETS)?,
                    ])
                };
                let rounds = (0..rounds).map(round).collect::<Result<_, _>>()?;
                rows.push(Row { way: name, len, rounds });
            }
        }
        Ok(Setting { encap, cipher, ready, rss, rows })
    }
}

impl Setting {
    /// Its lines of the table.
    fn lines(&self) -> String {
        let name = format!("{}, {}", self.encap, self.cipher.name());
        let lines = self.rows.iter().map(|row| {
            let [one, one_of_many, all] = [0, 1, 2].map(|case| row.nanoseconds(case));
            let ratios = format!("{} | {}", row.beside_one(1), row.beside_one(2));
            let what = format!("{name}, {} {} bytes", row.way, row.len);
            format!("| {what} | {one} | {one_of_many} | {all} | {ratios} |\n")
        });
        lines.collect()
    }
}

impl Row {
    fn nanoseconds(&self, case: usize) -> String {
        let spread = Spread::of(self.rounds.iter().map(|round| round[case]));
        spread.map_or("–".into(), |s| format!("{:.0} ({:.0} – {:.0})", s.median, s.least, s.most))
    }

    /// How much more a packet costs than with one peer, in one round.
    fn beside_one(&self, case: usize) -> String {
        let spread =
            Spread::of(self.rounds.iter().map(|round| (round[case] / round[0] - 1.0) * 100.0));
        spread.map_or("–".into(), |s| {
            format!("{:+.1} % ({:+.1} – {:+.1})", s.median, s.least, s.most)
        })
    }
}
