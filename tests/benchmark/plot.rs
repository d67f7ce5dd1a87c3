//! The plot: a bar for each subject in each of a few panels, with a line from the least to the most
//! of all rounds, as SVG.

use std::fmt::Write as _;

use crate::measure::{CPU_OPENING, CPU_SEALING, PEAK_RSS, PING_P50, TCP_1, UDP_PACED};
use crate::results::{Link, Results, Row, Spread};

/// Sizes in pixels: of a panel, of its rows, of the names at its left and the figures at its right.
const PANEL: f64 = 520.0;
const ROW: f64 = 18.0;
const HEAD: f64 = 34.0;
const NAMES: f64 = 150.0;
const FIGURES: f64 = 60.0;
const COLUMNS: usize = 2;

type Figure = fn(&Results, &Row) -> Option<Spread>;

const PANELS: [(&str, Figure); 8] = [
    ("One TCP stream, Gbit/s", |results, row| results.spread(row, Link::Virtual, TCP_1)),
    ("One TCP stream, plain link, Gbit/s", |results, row| results.spread(row, Link::Plain, TCP_1)),
    ("Datagrams of 1372 bytes, highest pace, Mbit/s", |results, row| {
        results.spread(row, Link::Virtual, UDP_PACED)
    }),
    ("The same, plain link", |results, row| results.spread(row, Link::Plain, UDP_PACED)),
    ("Idle ping, median, microseconds", |results, row| {
        results.spread(row, Link::Virtual, PING_P50)
    }),
    ("CPU-seconds per GB, both ends", |results, row| cost(results, row, Link::Virtual)),
    ("The same, plain link", |results, row| cost(results, row, Link::Plain)),
    ("Peak resident memory, MiB (cut at 64)", |results, row| {
        results.spread(row, Link::Virtual, PEAK_RSS)
    }),
];
/// Where the scale of the last panel ends: one peer would hide all others.
const MEMORY_SCALE: f64 = 64.0;

fn cost(results: &Results, row: &Row, link: Link) -> Option<Spread> {
    results.each_round(|round| {
        Some(row.at(link, round, CPU_SEALING)? + row.at(link, round, CPU_OPENING)?)
    })
}

/// The whole picture; panels without a figure are left out.
pub(crate) fn svg(results: &Results) -> String {
    let mut panels = Vec::new();
    for (title, figure) in PANELS {
        let bars = results.rows.iter().filter_map(|row| Some((row, figure(results, row)?)));
        let bars: Vec<(&Row, Spread)> = bars.collect();
        if !bars.is_empty() {
            panels.push((title, bars));
        }
    }
    let height = HEAD + ROW * results.rows.len() as f64;
    let lines = panels.len().div_ceil(COLUMNS);
    let (all_width, all_height) = (PANEL * COLUMNS as f64, height * lines as f64 + ROW);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{all_width}\" height=\"{all_height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (at, (title, bars)) in panels.iter().enumerate() {
        let (x, y) = ((at % COLUMNS) as f64 * PANEL, (at / COLUMNS) as f64 * height);
        let _ = writeln!(text, "<g transform=\"translate({x} {y})\">");
        let _ = writeln!(text, "<text x=\"8\" y=\"22\" font-weight=\"bold\">{title}</text>");
        panel(&mut text, bars, title.contains("cut").then_some(MEMORY_SCALE));
        text.push_str("</g>\n");
    }
    text.push_str("</svg>\n");
    text
}

fn panel(text: &mut String, bars: &[(&Row, Spread)], cut: Option<f64>) {
    let most = bars.iter().map(|(_, spread)| spread.most).fold(f64::MIN_POSITIVE, f64::max);
    let scale = cut.map_or(most, |cut| cut.min(most));
    let width = PANEL - NAMES - FIGURES - 16.0;
    let long = |figure: f64| figure.clamp(0.0, scale) / scale * width;
    for (at, (row, Spread { median, least, most })) in bars.iter().enumerate() {
        let (top, name) = (HEAD + at as f64 * ROW, row.subject.name);
        let colour = match (row.subject.is_ours(), row.subject.is_no_tunnel()) {
            (true, _) => "#2b6cb0",
            (_, true) => "#888888",
            _ => "#d9a05b",
        };
        let (middle, base) = (top + ROW / 2.0 - 2.0, top + 11.0);
        let _ = writeln!(
            text,
            "<text x=\"{NAMES}\" y=\"{base}\" text-anchor=\"end\">{name}</text>\
             <rect x=\"{}\" y=\"{top}\" width=\"{:.1}\" height=\"{}\" fill=\"{colour}\"/>\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"black\"/>\
             <text x=\"{:.1}\" y=\"{base}\">{}</text>",
            NAMES + 6.0,
            long(*median),
            ROW - 4.0,
            NAMES + 6.0 + long(*least),
            NAMES + 6.0 + long(*most),
            NAMES + 12.0 + long(*most),
            short(*median),
        );
    }
}

/// Three digits that count.
fn short(figure: f64) -> String {
    let digits = if figure < 10.0 { 2 } else { usize::from(figure < 100.0) };
    format!("{figure:.digits$}")
}
