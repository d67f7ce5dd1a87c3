//! What was measured in all rounds, and what follows from it.

use crate::measure::Figures;
use crate::subjects::Subject;

/// What the link between the gateways can do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// As a virtual cable comes: it takes super-packets and unfinished checksums.
    Virtual,
    /// Neither segmentation nor checksum offloads, no GRO: a plain network card.
    Plain,
}

impl Link {
    pub(crate) const ALL: [Link; 2] = [Link::Virtual, Link::Plain];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Link::Virtual => "offloads",
            Link::Plain => "plain",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Link::Virtual => "The tunnel's link takes super-packets (a veth as it comes)",
            Link::Plain => "The tunnel's link has no offloads (a plain network card)",
        }
    }
}

/// One subject that was measured.
pub(crate) struct Row {
    pub(crate) subject: Subject,
    pub(crate) version: String,
    /// By link, then by round; nothing where it failed.
    cells: Vec<(Link, usize, Figures)>,
}

impl Row {
    pub(crate) fn new(subject: Subject) -> Row {
        Row { subject, version: subject.version(), cells: Vec::new() }
    }

    pub(crate) fn add(&mut self, link: Link, round: usize, figures: Figures) {
        self.cells.push((link, round, figures));
    }

    /// One figure of one round.
    pub(crate) fn at(&self, link: Link, round: usize, measure: &str) -> Option<f64> {
        let cell = self.cells.iter().find(|cell| (cell.0, cell.1) == (link, round))?;
        cell.2.get(measure).copied().filter(|figure| figure.is_finite())
    }
}

/// All of it.
pub(crate) struct Results {
    pub(crate) rows: Vec<Row>,
    pub(crate) links: Vec<Link>,
    pub(crate) rounds: usize,
    /// How much of the machine other work took, 0 to 1, looked at before each link of each round.
    pub(crate) others: Vec<f64>,
}

/// Median, least and most of several rounds.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    pub(crate) fn of(figures: impl Iterator<Item = f64>) -> Option<Spread> {
        let mut figures: Vec<f64> = figures.filter(|figure| figure.is_finite()).collect();
        figures.sort_by(f64::total_cmp);
        // Of an even number, between the two in the middle.
        let [low, high] = [(figures.len().max(1) - 1) / 2, figures.len() / 2];
        let median = f64::midpoint(*figures.get(low)?, *figures.get(high)?);
        Some(Spread { median, least: *figures.first()?, most: *figures.last()? })
    }
}

impl Results {
    pub(crate) fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.subject.name == name)
    }

    /// All rounds of one figure.
    pub(crate) fn spread(&self, row: &Row, link: Link, measure: &str) -> Option<Spread> {
        Spread::of((0..self.rounds).filter_map(|round| row.at(link, round, measure)))
    }

    /// What is asked of each round in which it has an answer.
    pub(crate) fn each_round(&self, question: impl Fn(usize) -> Option<f64>) -> Option<Spread> {
        Spread::of((0..self.rounds).filter_map(question))
    }

    /// The best figure of one round among these subjects.
    pub(crate) fn best(
        &self,
        names: &[&str],
        link: Link,
        round: usize,
        measure: &str,
        more: bool,
    ) -> Option<f64> {
        let rows = names.iter().filter_map(|name| self.row(name));
        let figures = rows.filter_map(|row| row.at(link, round, measure));
        figures.reduce(if more { f64::max } else { f64::min })
    }
}
