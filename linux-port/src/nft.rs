//! The firewall table of an interface, through the `nft` program: one transaction on its standard
//! input makes, replaces or deletes the whole table, so that nobody ever sees half of one.
//!
//! What the rules say is the business of [`crate::steering`]; here is how they get into the
//! kernel. Reading a counter, and hearing of changes, is the business of [`firewall`].

use core::fmt::{self, Write as _};
use core::time::Duration;
use std::ffi::CStr;
use std::io::{self, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::netlink::{self, firewall};
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
    /// The kernel did not tell.
    Asking(netlink::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Missing => f.write_str(
                "the program nft is missing: install the package nftables (on OpenWrt \
                 nftables-json or nftables-nojson)",
            ),
            Error::Run(e) => write!(f, "running nft: {e}"),
            Error::Asking(e) => e.fmt(f),
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
    /// `ipv4_addr` or `ipv6_addr`; for a set that rules fill, what else describes it.
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
    /// Puts this table in the place of an older one, in one transaction.
    ///
    /// # Errors
    /// When `nft` is missing or refuses; the older table is then still there.
    pub fn install(&self) -> Result<(), Error> {
        install([(&*self.name, Some(self))])
    }
}

/// Puts tables in the place of older ones of their names, or deletes these, in one transaction.
///
/// # Errors
/// When `nft` is missing or refuses; the older tables are then still there.
pub fn install<'t>(
    tables: impl IntoIterator<Item = (&'t str, Option<&'t Table>)>,
) -> Result<(), Error> {
    let mut text = String::new();
    for (name, table) in tables {
        text += &deletion(name);
        if let Some(table) = table {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{table}");
        }
    }
    apply(&text)
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

/// Deletes tables; it is fine when they, or `nft`, are not there.
///
/// # Errors
/// When `nft` refuses.
pub fn delete(tables: &[&str]) -> Result<(), Error> {
    match install(tables.iter().map(|name| (*name, None))) {
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

/// What a named counter has counted; `None` when there is no such table. It asks the kernel itself:
/// `nft` would read every table of the machine first.
///
/// # Errors
/// When the kernel refuses the question.
pub fn count(table: &str, counter: &str) -> Result<Option<Count>, Error> {
    firewall::count(table, counter).map_err(Error::Asking)
}

/// Lets `nft` do what `text` says, in one transaction.
///
/// # Errors
/// When `nft` is missing or refuses.
pub(crate) fn apply(text: &str) -> Result<(), Error> {
    for program in [c"nft", c"/usr/sbin/nft", c"/sbin/nft"] {
        match apply_by(program, text) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            // Of a search path with a directory that is closed to us this says nothing.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied && program == c"nft" => {}
            result => return result.map_err(Error::Run)?.map(drop).map_err(Error::Refused),
        }
    }
    Err(Error::Missing)
}

fn apply_by(path: &CStr, text: &str) -> io::Result<Ended> {
    let (program, mut pipe) = Program::start(path, &["-f", "-"])?;
    recent().push((program.id(), Instant::now()));
    // An nft that ends before it has read everything says why itself.
    let _ = pipe.write_all(text.as_bytes());
    drop(pipe);
    program.wait()
}

/// The processes that changed the firewall for us of late.
static OURS: Mutex<Vec<(u32, Instant)>> = Mutex::new(Vec::new());
/// For how long we know them: by then the kernel has told of what they did.
const MEMORY: Duration = Duration::from_secs(10);

/// Whether the process with this number changed the firewall for us.
pub(crate) fn is_ours(process: u32) -> bool {
    recent().iter().any(|(ours, _)| *ours == process)
}

fn recent() -> MutexGuard<'static, Vec<(u32, Instant)>> {
    let mut all = OURS.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|(_, when)| when.elapsed() < MEMORY);
    all
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
            delete(&[&table.name]).unwrap();
            delete(&[&table.name]).unwrap();
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
            delete(&["simplevpn_vpn0"]).unwrap();
        });
    }
}
