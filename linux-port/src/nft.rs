//! The firewall table of an interface, through the `nft` program: one transaction on its standard
//! input makes, replaces or deletes the whole table, so that nobody ever sees half of one.
//!
//! What the rules say is the business of [`crate::steering`]; here is how they get into the
//! kernel, and how a counter is read back. The netlink protocol of nftables is not spoken.

use core::fmt::{self, Write as _};
use std::io::{self, Read as _, Write as _};

use crate::program::{Ended, Program};

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

/// Makes `elements` the elements of these sets of a table, in one transaction.
///
/// # Errors
/// When `nft` is missing or refuses, e.g. because the table is gone.
pub fn fill(table: &str, sets: &[Set]) -> Result<(), Error> {
    let mut text = String::new();
    for Set { name, elements, .. } in sets {
        let _ = writeln!(text, "flush set inet {table} {name}");
        if !elements.is_empty() {
            let _ = writeln!(text, "add element inet {table} {name} {{ {} }}", elements.join(", "));
        }
    }
    apply(&text)
}

/// What a named counter has counted; `None` when there is no such table.
///
/// # Errors
/// When `nft` is missing.
pub fn count(table: &str, counter: &str) -> Result<Option<Count>, Error> {
    let (text, _) = run(&["list", "counter", "inet", table, counter], "")?;
    let mut words = text.split_whitespace();
    let mut after = |word| words.find(|w| *w == word).and_then(|_| words.next()?.parse().ok());
    Ok(after("packets").and_then(|packets| after("bytes").map(|bytes| Count { packets, bytes })))
}

fn apply(text: &str) -> Result<(), Error> {
    let (words, ended) = run(&["-f", "-"], text)?;
    let words = words.trim();
    ended.map_err(|how| Error::Refused(if words.is_empty() { how } else { words.to_owned() }))
}

/// What `nft` says, and how it ends.
fn run(arguments: &[&str], input: &str) -> Result<(String, Ended), Error> {
    for program in ["nft", "/usr/sbin/nft", "/sbin/nft"] {
        match spawn(program, arguments, input) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            // Of a search path with a directory that is closed to us this says nothing.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied && program == "nft" => {}
            result => return result.map_err(Error::Run),
        }
    }
    Err(Error::Missing)
}

fn spawn(program: &str, arguments: &[&str], input: &str) -> io::Result<(String, Ended)> {
    let mut program = Program::start(program, arguments)?;
    if let Some(mut pipe) = program.input.take() {
        // An nft that ends before it has read everything says why itself.
        let _ = pipe.write_all(input.as_bytes());
    }
    let mut said = Vec::new();
    program.output.read_to_end(&mut said)?;
    Ok((String::from_utf8_lossy(&said).into_owned(), program.wait()?))
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
            table.sets[1].elements = vec!["fd00::1".into()];
            fill(&table.name, &table.sets[1..]).unwrap();
            fill(&table.name, &table.sets[1..]).unwrap();
            assert!(sh("nft list ruleset").contains("elements = { fd00::1 }"));
            delete(&table.name).unwrap();
            delete(&table.name).unwrap();
            assert_eq!(sh("nft list ruleset"), "");
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
