//! The options of one section: which there are, how often, and their values with their lines.

use super::diagnostic::Report;
use super::uci::{Entry, Section};
use super::value::shown;

/// The options a kind of section may have.
pub(super) struct Known {
    /// Options of one value.
    pub(super) scalars: &'static [&'static str],
    /// Options of several values: `list`, or one `option` with the values separated by spaces.
    pub(super) lists: &'static [&'static str],
    /// Options of other programs, which are theirs to check.
    pub(super) foreign: &'static [&'static str],
    /// Whether other programs may have options here that we never heard of.
    pub(super) open: bool,
}

/// A value and the line it was written on.
#[derive(Clone, Copy)]
pub(super) struct Value<'s> {
    pub(super) text: &'s str,
    pub(super) line: usize,
}

/// A section whose option names were checked.
pub(super) struct Options<'s, 'a> {
    section: &'s Section<'a>,
}

impl<'s, 'a> Options<'s, 'a> {
    /// Reports options that are unknown, repeated, or written as the wrong kind.
    pub(super) fn new(section: &'s Section<'a>, known: &Known, report: &mut Report) -> Self {
        for (position, entry) in section.entries.iter().enumerate() {
            let name = &*entry.name;
            let is_list = known.lists.contains(&name);
            if is_list || known.scalars.contains(&name) {
                let earlier = section.entries.iter().take(position).find(|e| *e.name == *name);
                check_form(entry, is_list, earlier, report);
            } else if !known.foreign.contains(&name) {
                unknown(entry, known, report);
            }
        }
        Self { section }
    }

    /// Line of the section itself.
    pub(super) fn line(&self) -> usize {
        self.section.line
    }

    /// The value of an option; an empty one is none, as UCI has it.
    pub(super) fn one(&self, name: &str) -> Option<Value<'s>> {
        let mut entries = self.section.entries.iter();
        let entry = entries.find(|entry| *entry.name == *name && !entry.value.is_empty())?;
        Some(Value { text: &entry.value, line: entry.line })
    }

    /// The values of a list.
    pub(super) fn many(&self, name: &'s str) -> impl Iterator<Item = Value<'s>> + use<'s> {
        let entries = self.section.entries.iter().filter(move |entry| *entry.name == *name);
        entries.flat_map(|entry| {
            let values = entry.value.split_ascii_whitespace();
            values.map(|text| Value { text, line: entry.line })
        })
    }

    /// The value of an option as `read` understands it; reports what `read` refuses.
    pub(super) fn get<T>(
        &self,
        name: &str,
        report: &mut Report,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.one(name)?;
        match read(value.text) {
            Ok(read) => Some(read),
            Err(wrong) => {
                refused(name, value, &wrong, report);
                None
            }
        }
    }

    /// As [`Options::get`], for a value that no message may show.
    pub(super) fn secret<T>(
        &self,
        name: &str,
        report: &mut Report,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.one(name)?;
        match read(value.text) {
            Ok(read) => Some(read),
            Err(wrong) => {
                report.error(value.line, format!("{name} {wrong}"));
                None
            }
        }
    }

    /// The values of a list with their lines; reports each that `read` refuses.
    pub(super) fn list<T>(
        &self,
        name: &'s str,
        report: &mut Report,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<(T, usize)> {
        let mut list = Vec::new();
        for value in self.many(name) {
            match read(value.text) {
                Ok(read) => list.push((read, value.line)),
                Err(wrong) => refused(name, value, &wrong, report),
            }
        }
        list
    }

    /// Reports the option, if it is there, with `why` it cannot be.
    pub(super) fn refuse(&self, name: &str, why: &str, report: &mut Report) {
        if let Some(value) = self.one(name) {
            report.error(value.line, format!("{name} {why}"));
        }
    }
}

/// Reports what is wrong with the value of an option.
fn refused(name: &str, value: Value<'_>, wrong: &str, report: &mut Report) {
    report.error(value.line, format!("{name} {} {wrong}", shown(value.text)));
}

fn check_form(entry: &Entry<'_>, is_list: bool, earlier: Option<&Entry<'_>>, report: &mut Report) {
    let name = &*entry.name;
    if entry.list && !is_list {
        let message = format!("list {name}: it takes one value; write option {name}");
        report.error(entry.line, message);
    } else if entry.list && entry.value.is_empty() {
        report.error(entry.line, format!("list {name} without a value; remove the line"));
    } else if let Some(earlier) = earlier.filter(|earlier| !(entry.list && earlier.list)) {
        let right = if is_list { "write each value as a list line" } else { "keep one of them" };
        let message = format!("{name} is already given on line {}; {right}", earlier.line);
        report.error(entry.line, message);
    }
}

fn unknown(entry: &Entry<'_>, known: &Known, report: &mut Report) {
    let name = &*entry.name;
    let candidates = known.scalars.iter().chain(known.lists).copied();
    let hint = match nearest(name, candidates) {
        Some(near) => format!("; did you mean {near}?"),
        None if known.open => "; ignored".to_owned(),
        None => "; remove it".to_owned(),
    };
    let message = format!("unknown option {}{hint}", shown(name));
    if known.open {
        report.warning(entry.line, message);
    } else {
        report.error(entry.line, message);
    }
}

/// The candidate that `name` was probably meant to be.
pub(super) fn nearest<'c>(
    name: &str,
    candidates: impl Iterator<Item = &'c str>,
) -> Option<&'c str> {
    // Beyond any option's length there is nothing to find, and the distance costs length squared.
    if name.len() > 32 {
        return None;
    }
    let far = 1 + name.len() / 4;
    let near = candidates.map(|candidate| (distance(name, candidate), candidate));
    near.filter(|(distance, _)| *distance <= far).min().map(|(_, candidate)| candidate)
}

/// Levenshtein's edit distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let best = (diagonal + usize::from(x != y)).min(*cell + 1).min(left + 1);
            diagonal = core::mem::replace(cell, best);
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distance() {
        for (a, b, d) in [
            ("", "", 0),
            ("abc", "", 3),
            ("", "abc", 3),
            ("key_in", "keyin", 1),
            ("kitten", "sitting", 3),
            ("same", "same", 0),
        ] {
            assert_eq!(distance(a, b), d, "{a} {b}");
        }
    }

    #[test]
    fn the_nearest_name_is_near() {
        let names = ["allowed_ips", "local_ips", "key_in"];
        assert_eq!(nearest("allowed_ip", names.into_iter()), Some("allowed_ips"));
        assert_eq!(nearest("alowedips", names.into_iter()), Some("allowed_ips"));
        assert_eq!(nearest("xyz", names.into_iter()), None);
        assert_eq!(nearest(&"x".repeat(1000), names.into_iter()), None);
    }
}
