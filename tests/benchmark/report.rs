//! The tables, in Markdown, and the JSON.

use std::fmt::Write as _;

use crate::goals;
use crate::hub::Hub;
use crate::measure::{GROUPS, Measure};
use crate::results::{Link, Results, Row, Spread};

/// What ratios are taken to, each round to the better of them.
pub(crate) const REFERENCE: [&str; 2] = ["gotatun", "boringtun"];

/// Everything as text for people.
pub(crate) fn tables(results: &Results) -> String {
    let mut text = format!("{} rounds in turns.", results.rounds);
    if let Some(others) = Spread::of(results.others.iter().map(|share| share * 100.0)) {
        let Spread { median, least, most } = others;
        let _ = write!(
            text,
            " Other work took {median:.0} % ({least:.0} – {most:.0}) of this machine's processors: \
             the more, the less a single round means."
        );
    }
    text.push_str("\n\n");
    for link in &results.links {
        let _ = writeln!(text, "## {}\n", link.title());
        for group in &GROUPS {
            let _ = writeln!(text, "{}: median (least – most)\n", group.title);
            table(&mut text, results, group.measures, |row, measure| {
                results.spread(row, *link, measure.name).map(|spread| {
                    let digits = measure.digits;
                    let Spread { median, least, most } = spread;
                    format!("**{median:.digits$}** ({least:.digits$} – {most:.digits$})")
                })
            });
        }
        let _ = writeln!(
            text,
            "The same as a ratio to the better of {} in the same round, median: more than 1 is \
             more, which is better for Gbit/s, k/s and Mbit/s\n",
            REFERENCE.join(" and ")
        );
        let all: Vec<&Measure> = GROUPS.iter().flat_map(|group| group.measures).collect();
        table(&mut text, results, all, |row, measure| {
            ratio(results, row, *link, measure).map(|ratio| format!("{:.2}", ratio.median))
        });
    }
    text.push_str(&goals::lines(results));
    text
}

/// A figure as a ratio to the better reference.
fn ratio(results: &Results, row: &Row, link: Link, measure: &Measure) -> Option<Spread> {
    results.each_round(|round| {
        let (name, more) = (measure.name, measure.more_is_better);
        Some(row.at(link, round, name)? / results.best(&REFERENCE, link, round, name, more)?)
    })
}

fn table<'a>(
    text: &mut String,
    results: &Results,
    measures: impl IntoIterator<Item = &'a Measure> + Clone,
    cell: impl Fn(&Row, &Measure) -> Option<String>,
) {
    let titles: Vec<&str> = measures.clone().into_iter().map(|measure| measure.title).collect();
    let _ = writeln!(text, "| | {} |", titles.join(" | "));
    let _ = writeln!(text, "|---|{}", "---|".repeat(titles.len()));
    for row in &results.rows {
        let cells = measures.clone().into_iter().map(|m| cell(row, m).unwrap_or("–".into()));
        let cells: Vec<String> = cells.collect();
        if cells.iter().any(|cell| cell != "–") {
            let _ = writeln!(text, "| {} | {} |", row.subject.name, cells.join(" | "));
        }
    }
    text.push('\n');
}

/// Everything for programs: every figure of every round.
pub(crate) fn json(results: &Results, hub: Option<&Hub>) -> String {
    let others: Vec<String> = results.others.iter().map(|share| format!("{share:.2}")).collect();
    let mut text = format!(
        "{{\n  \"rounds\": {},\n  \"taken_by_others\": [{}],\n  \"subjects\": [\n",
        results.rounds,
        others.join(", ")
    );
    let rows: Vec<String> = results.rows.iter().map(|row| json_row(results, row)).collect();
    text.push_str(&rows.join(",\n"));
    text.push_str("\n  ]");
    if let Some(hub) = hub {
        let _ = write!(text, ",\n  \"hub\": {}", hub.json());
    }
    text.push_str("\n}\n");
    text
}

fn json_row(results: &Results, row: &Row) -> String {
    let links: Vec<String> = results
        .links
        .iter()
        .map(|link| {
            let measures = GROUPS.iter().flat_map(|group| group.measures);
            let figures: Vec<String> = measures
                .map(|measure| {
                    let rounds = (0..results.rounds).map(|round| {
                        let figure = row.at(*link, round, measure.name);
                        figure.map_or("null".into(), |figure| format!("{figure:.4}"))
                    });
                    let rounds: Vec<String> = rounds.collect();
                    format!("        \"{}\": [{}]", measure.name, rounds.join(", "))
                })
                .collect();
            format!("      \"{}\": {{\n{}\n      }}", link.name(), figures.join(",\n"))
        })
        .collect();
    // Names and versions are words of letters, digits and dots, but for what a program may say.
    let version: String = row.version.chars().filter(|c| !matches!(c, '"' | '\\')).collect();
    format!(
        "    {{\n      \"name\": \"{}\",\n      \"version\": \"{version}\",\n{}\n    }}",
        row.subject.name,
        links.join(",\n")
    )
}
