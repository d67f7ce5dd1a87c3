//! The firewall table of an interface, through the `nft` program: one transaction on its standard
//! input makes, replaces or deletes the whole table, so that nobody ever sees half of one.
//!
//! What the rules say is the business of [`crate::steering`]; here is how they get into the
//! kernel, and how a counter is read back. The netlink protocol of nftables is not spoken.

use core::fmt::{self, Write as _};
use std::ffi::CStr;
use std::io::{self, Write as _};

use crate::program::{Caught, Ended, Program};

/// Why the firewall is not as it should be.
#[derive(Debug)]
pub enum Error {
    /// There is no `nft` program.
    Missing,
    /// `nft` did not run to its end.
    Run(io::Error),
    /// `nft` or the kernel refused; its own words.
    Refused(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Missing => f.write_str(
                "the program nft is missing: install the package nftables (on OpenWrt \
                 nftables-json or nftables-nojson)",
            ),
            Error::Run(e) => write!(f, "running nft: {e}"),
            Error::Refused(words) => write!(f, "nft refused: {words}"),
        }
    }
}

impl std::error::Error for Error {}

/// A table of family `inet`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its named counters.
    pub counters: Vec<Counter>,
    /// Its named sets.
    pub sets: Vec<Set>,
    /// Its chains, a jump's target before the jump.
    pub chains: Vec<Chain>,
}

/// A named counter and where it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    /// Its name.
    pub name: &'static str,
    /// Packets and bytes.
    pub start: Count,
}

/// What a counter has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes, with IP headers.
    pub bytes: u64,
}

/// A named set of addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: &'static str,
    /// `ipv4_addr` or `ipv6_addr`.
    pub kind: &'static str,
    /// Whether its elements are prefixes; those may overlap.
    pub prefixes: bool,
    /// The elements.
    pub elements: Vec<String>,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// `type … hook … priority …`; empty when others jump to it.
    pub hook: &'static str,
    /// Its rules in order.
    pub rules: Vec<String>,
}

impl Table {
    /// The transaction that puts this table in the place of an older one, if there is one.
    #[must_use]
    pub fn replacement(&self) -> String {
        let mut text = deletion(&self.name);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{self}");
        text
    }

    /// Puts this table in the place of an older one, in one transaction.
    ///
    /// # Errors
    /// When `nft` is missing or refuses; the older table is then still there.
    pub fn install(&self) -> Result<(), Error> {
        apply(&self.replacement())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {} {{", self.name)?;
        for Counter { name, start } in &self.counters {
            writeln!(f, "\tcounter {name} {{ packets {} bytes {} }}", start.packets, start.bytes)?;
        }
        for set in &self.sets {
            write!(f, "\tset {} {{ type {};", set.name, set.kind)?;
            if set.prefixes {
                f.write_str(" flags interval; auto-merge;")?;
            }
            if !set.elements.is_empty() {
                write!(f, " elements = {{ {} }};", set.elements.join(", "))?;
            }
            writeln!(f, " }}")?;
        }
        for chain in &self.chains {
            writeln!(f, "\tchain {} {{", chain.name)?;
            if !chain.hook.is_empty() {
                writeln!(f, "\t\t{}; policy accept;", chain.hook)?;
            }
            for rule in &chain.rules {
                writeln!(f, "\t\t{rule}")?;
            }
            writeln!(f, "\t}}")?;
        }
        f.write_str("}")
    }
}

/// The transaction that deletes a table whether or not it is there.
fn deletion(table: &str) -> String {
    format!("table inet {table}\ndelete table inet {table}\n")
}

/// Deletes the table; it is fine when it, or `nft`, is not there.
///
/// # Errors
/// When `nft` refuses.
pub fn delete(table: &str) -> Result<(), Error> {
    match apply(&deletion(table)) {
        Err(Error::Missing) => Ok(()),
        result => result,
    }
}

/// Makes the sets of a table that have the elements of `before` have those of `now`, both in
/// order, in one transaction.
///
/// # Errors
/// When `nft` is missing or refuses, e.g. because the table is gone.
pub fn change(table: &str, before: &[Set], now: &[Set]) -> Result<(), Error> {
    let mut text = String::new();
    for (before, now) in before.iter().zip(now) {
        for (verb, these, those) in [("delete", before, now), ("add", now, before)] {
            let missing = |element: &&String| those.elements.binary_search(element).is_err();
            let only: Vec<&str> =
                these.elements.iter().filter(missing).map(String::as_str).collect();
            if !only.is_empty() {
                let (name, only) = (now.name, only.join(", "));
                let _ = writeln!(text, "{verb} element inet {table} {name} {{ {only} }}");
            }
        }
    }
    if text.is_empty() { Ok(()) } else { apply(&text) }
}

/// What a named counter has counted; `None` when there is no such table.
///
/// # Errors
/// When `nft` is missing.
pub fn count(table: &str, counter: &str) -> Result<Option<Count>, Error> {
    let ended = run(&["list", "counter", "inet", table, counter], "", Caught::Stdout)?;
    let text = ended.unwrap_or_default();
    let mut words = text.split_ascii_whitespace();
    let mut after = |word| words.find(|w| *w == word).and_then(|_| words.next()?.parse().ok());
    Ok(after("packets").and_then(|packets| after("bytes").map(|bytes| Count { packets, bytes })))
}

fn apply(text: &str) -> Result<(), Error> {
    run(&["-f", "-"], text, Caught::Stderr)?.map(drop).map_err(Error::Refused)
}

fn run(arguments: &[&str], input: &str, caught: Caught) -> Result<Ended, Error> {
    for program in [c"nft", c"/usr/sbin/nft", c"/sbin/nft"] {
        match run_at(program, arguments, input, caught) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            // Of a search path with a directory that is closed to us this says nothing.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied && program == c"nft" => {}
            result => return result.map_err(Error::Run),
        }
    }
    Err(Error::Missing)
}

fn run_at(path: &CStr, arguments: &[&str], input: &str, caught: Caught) -> io::Result<Ended> {
    let (program, mut pipe) = Program::start(path, arguments, caught)?;
    // An nft that ends before it has read everything says why itself.
    let _ = pipe.write_all(input.as_bytes());
    drop(pipe);
    program.wait()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::{sh, try_sh, within};

    fn table() -> Table {
        let prefixes = vec!["10.1.0.0/16".into(), "10.1.2.0/24".into()];
        Table {
            name: "simplevpn_t-0.1".into(),
            counters: vec![Counter { name: "rejected", start: Count { packets: 3, bytes: 252 } }],
            sets: vec![
                Set { name: "a", kind: "ipv4_addr", prefixes: true, elements: prefixes },
                Set { name: "b", kind: "ipv6_addr", prefixes: false, elements: vec![] },
            ],
            chains: vec![Chain {
                name: "inbound",
                hook: "type filter hook prerouting priority raw",
                rules: vec!["ip saddr @a counter name rejected drop".into()],
            }],
        }
    }

    #[test]
    fn a_table_is_made_replaced_read_and_deleted() {
        within(|| {
            let mut table = table();
            assert_eq!(count(&table.name, "rejected").unwrap(), None);
            table.install().unwrap();
            let start = table.counters[0].start;
            assert_eq!(count(&table.name, "rejected").unwrap(), Some(start));
            table.chains.clear();
            table.install().unwrap();
            assert!(!sh("nft list ruleset").contains("inbound"));
            delete(&table.name).unwrap();
            delete(&table.name).unwrap();
            assert_eq!(sh("nft list ruleset"), "");
        });
    }

    #[test]
    fn elements_come_and_go() {
        within(|| {
            let table = table();
            table.install().unwrap();
            let set = |elements: &[&str]| {
                let elements = elements.iter().map(ToString::to_string).collect();
                vec![Set { elements, ..table.sets[1].clone() }]
            };
            let steps: [&[&str]; 5] =
                [&[], &["fd00::1", "fd00::2"], &["fd00::2", "fd00::3"], &["fd00::3"], &[]];
            for pair in steps.windows(2) {
                change(&table.name, &set(pair[0]), &set(pair[1])).unwrap();
                let listed = sh(&format!("nft list set inet {} b", table.name));
                for element in ["fd00::1", "fd00::2", "fd00::3"] {
                    assert_eq!(listed.contains(element), pair[1].contains(&element), "{listed}");
                }
            }
            // Somebody else was here before.
            assert!(change(&table.name, &set(&["fd00::9"]), &set(&[])).is_err());
        });
    }

    #[test]
    fn a_refusal_says_why_and_leaves_the_older_table() {
        within(|| {
            let mut table = table();
            table.install().unwrap();
            table.chains[0].rules.push("ip saddr @nowhere drop".into());
            let refusal = table.install().unwrap_err().to_string();
            assert!(refusal.starts_with("nft refused: ") && refusal.contains("nowhere"));
            assert!(try_sh("nft list chain inet simplevpn_t-0.1 inbound").0);
        });
    }

    #[test]
    fn a_missing_program_is_named() {
        within(|| {
            crate::netns::private_mounts();
            sh("mount -t tmpfs none /usr/sbin");
            let error = table().install().unwrap_err();
            assert!(matches!(error, Error::Missing), "{error}");
            delete("simplevpn_vpn0").unwrap();
        });
    }
}
