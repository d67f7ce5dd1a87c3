//! Configuration: from UCI text to checked types.
//!
//! [`uci`] reads the grammar; `options` finds the options of a section; `value` reads their
//! values; `interface` and `peer` read the two kinds of sections, `ike` and `manual` the keys of
//! peers; `pool` gives addresses to peers; `check` looks at what concerns several peers at once,
//! `connected` at what concerns the machine's own networks. The result is [`model`]. Nothing here
//! talks to the kernel: what needs to know the machine's addresses or routes is checked when the
//! interface comes up.

mod check;
mod connected;
mod diagnostic;
mod ike;
mod interface;
mod manual;
pub mod model;
mod options;
mod peer;
mod pool;
mod prefix;
pub mod uci;
mod value;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::sorted::{self, SortedMap};
pub use diagnostic::Diagnostic;
use diagnostic::Report;
use model::Interface;
pub use prefix::{host_prefix, overlaps};
use uci::Section;
pub use value::device_name;

/// Largest accepted file, in bytes: room for far more than 10,000 peers.
pub const MAX_FILE: u64 = 16 * 1024 * 1024;

/// A configuration without errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The interfaces, in the order of the file, without those that are `disabled`.
    pub interfaces: Vec<Interface>,
    /// What is probably not meant, in the order of the file.
    pub warnings: Vec<Diagnostic>,
}

/// Reads and checks the file at `path`: `/etc/config` style or what `uci export network` prints.
/// With `only`, no interface but this one and its peers is judged; one that the file does not have
/// is an error.
///
/// # Errors
/// What is wrong with it, in the order of the file, the first twenty and a
/// count of the rest.
pub fn load(path: &Path, only: Option<&str>) -> Result<Loaded, Vec<Diagnostic>> {
    let file = ConfigFile::read(path)?;
    let sections = file.sections()?;
    let mut report = Report::new(&file.name);
    let interfaces = read_sections(&sections, only, &mut report);
    let warnings = report.finish()?;
    let mut loaded = Loaded { interfaces, warnings };
    if file.mode & 0o077 != 0 && !loaded.interfaces.is_empty() {
        let name = &file.name;
        let message = format!("holds keys and other users can read it; run chmod 600 {name}");
        loaded.warnings.insert(0, Diagnostic::new(name, 0, message));
    }
    Ok(loaded)
}

/// An interface of a file and what is wrong with it; `None`: it is disabled.
pub type Judged = (String, Result<Option<Interface>, Vec<Diagnostic>>);

/// Reads the file at `path` and judges each of its interfaces by itself, in the order of the file:
/// the errors of one do not concern the others. A file without any is fine.
///
/// # Errors
/// When the file cannot be read, or is no UCI text.
pub fn load_each(path: &Path) -> Result<Vec<Judged>, Vec<Diagnostic>> {
    let file = ConfigFile::read(path)?;
    let sections = file.sections()?;
    let mut judged: Vec<Judged> = Vec::new();
    for name in sections.iter().filter(|section| is_ours(section)).filter_map(|s| s.name.as_deref())
    {
        if !judged.iter().any(|(other, _)| other == name) {
            let mut report = Report::new(&file.name);
            let interface = read_sections(&sections, Some(name), &mut report).into_iter().next();
            judged.push((name.to_owned(), report.finish().map(|_| interface)));
        }
    }
    Ok(judged)
}

/// A file that was read.
struct ConfigFile {
    /// As the user named it.
    name: String,
    bytes: Zeroizing<Vec<u8>>,
    /// Its permissions if it is a regular file, 0 otherwise.
    mode: u32,
}

impl ConfigFile {
    fn read(path: &Path) -> Result<ConfigFile, Vec<Diagnostic>> {
        let name = path.display().to_string();
        match read(path) {
            Ok((bytes, mode)) => Ok(ConfigFile { name, bytes, mode }),
            Err(message) => Err(vec![Diagnostic::new(&name, 0, message)]),
        }
    }

    fn sections(&self) -> Result<Vec<Section<'_>>, Vec<Diagnostic>> {
        let text = core::str::from_utf8(&self.bytes).map_err(|error| {
            let valid = self.bytes.iter().take(error.valid_up_to());
            let line = 1 + valid.filter(|b| **b == b'\n').count();
            vec![Diagnostic::new(&self.name, line, "not UTF-8 text; save the file as UTF-8")]
        })?;
        sections_of(&self.name, text)
    }
}

/// The sections of `text`, or what is no UCI in it.
fn sections_of<'t>(file_name: &str, text: &'t str) -> Result<Vec<Section<'t>>, Vec<Diagnostic>> {
    uci::parse(text).map_err(|faults| {
        let mut report = Report::new(file_name);
        faults.into_iter().for_each(|fault| report.error(fault.line, fault.message));
        report.finish().err().unwrap_or_default()
    })
}

/// The bytes of the file and, if it is a regular file, its permissions (0 otherwise).
fn read(path: &Path) -> Result<(Zeroizing<Vec<u8>>, u32), String> {
    // A daemon that runs has given up the privilege to read what belongs to others.
    let cannot = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => format!(
            "cannot be read: {error}; it has to belong to the user who runs simplevpn, mostly root"
        ),
        _ => format!("cannot be read: {error}"),
    };
    let file = File::open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    let mode = if metadata.is_file() { metadata.mode() } else { 0 };
    // Sized at once: growing would leave copies of the keys behind.
    let size = usize::try_from(metadata.len().min(MAX_FILE)).unwrap_or(0);
    let mut bytes = Zeroizing::new(Vec::with_capacity(size + 32));
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("larger than {MAX_FILE} bytes; this is not a configuration"));
    }
    Ok((bytes, mode))
}

/// Checks `text`; `file_name` is what the diagnostics call it. Reads the files of keys that the
/// text names.
///
/// # Errors
/// As [`load`].
pub fn parse(file_name: &str, text: &str) -> Result<Loaded, Vec<Diagnostic>> {
    let sections = sections_of(file_name, text)?;
    let mut report = Report::new(file_name);
    let interfaces = read_sections(&sections, None, &mut report);
    report.finish().map(|warnings| Loaded { interfaces, warnings })
}

/// Type of the peer sections of an interface, without its name.
const PEER_PREFIX: &str = "simplevpn_";

/// Reads all interfaces, or judges only one: what is wrong with others is not reported.
fn read_sections(
    sections: &[Section<'_>],
    only: Option<&str>,
    report: &mut Report,
) -> Vec<Interface> {
    let concerned = |name: Option<&str>| only.is_none_or(|only| name == Some(only));
    let mut ours = sections.iter().filter(|section| is_ours(section));
    match only {
        None if ours.next().is_none() => report.error(
            0,
            "no interface of ours; write config interface 'vpn0' with option proto 'simplevpn'",
        ),
        Some(only) if !ours.any(|section| section.name.as_deref() == Some(only)) => {
            let message = format!("no interface '{only}' with option proto 'simplevpn' is in it");
            report.error(0, message);
        }
        _ => {}
    }
    check_names(sections, only, report);
    let mut peers = peers_by_interface(sections, only, report);
    let connected = connected::read(sections);
    let mut others = report.silent();
    let mut found = Vec::new();
    for section in sections.iter().filter(|section| is_ours(section)) {
        let name = section.name.as_deref();
        let peers = peers.remove(name.unwrap_or_default()).unwrap_or_default();
        let report = if concerned(name) { &mut *report } else { &mut others };
        if let Some(mut read) = interface::read(section, &peers, report) {
            read.interface.connected = connected::networks(&connected);
            check::within_interface(&read, report);
            connected::check(&read, &connected, report);
            found.push(read);
        }
    }
    check::across_interfaces(&found, only, report);
    let interfaces = found.into_iter().map(|found| found.interface);
    interfaces.filter(|interface| concerned(Some(&interface.name))).collect()
}

fn is_ours(section: &Section<'_>) -> bool {
    &*section.kind == "interface" && is_simplevpn(section)
}

fn is_simplevpn(section: &Section<'_>) -> bool {
    section.entries.iter().any(|entry| &*entry.name == "proto" && &*entry.value == "simplevpn")
}

/// Two sections of one name would be merged by libuci, which nobody means.
fn check_names<'s>(sections: &'s [Section<'_>], only: Option<&str>, report: &mut Report) {
    let ours = |s: &&Section<'_>| match s.kind.strip_prefix(PEER_PREFIX) {
        Some(interface) => only.is_none_or(|only| interface == only),
        None => is_simplevpn(s) && only.is_none_or(|only| s.name.as_deref() == Some(only)),
    };
    let named = |s: &'s Section<'_>| Some((s.name.as_deref()?, s.line));
    let mut first = ("", 0);
    for (name, line) in sorted::set(sections.iter().filter(ours).filter_map(named)) {
        if first.0 != name {
            first = (name, line);
        } else {
            let first = first.1;
            let message =
                format!("second section '{name}', the first is on line {first}; rename one");
            report.error(line, message);
        }
    }
}

/// The peer sections of each interface that exists.
fn peers_by_interface<'s, 'a>(
    sections: &'s [Section<'a>],
    only: Option<&str>,
    report: &mut Report,
) -> SortedMap<&'s str, Vec<&'s Section<'a>>> {
    let mut peers = SortedMap::new();
    for name in sections.iter().filter(|s| is_ours(s)).filter_map(|s| s.name.as_deref()) {
        peers.insert(name, Vec::new());
    }
    for section in sections {
        let Some(name) = section.kind.strip_prefix(PEER_PREFIX) else { continue };
        match peers.get_mut(name) {
            Some(list) => list.push(section),
            None if only.is_some() => {}
            None => {
                let hint = options::nearest(name, peers.iter().map(|(name, _)| *name));
                let hint = hint.map(|near| format!("; did you mean config {PEER_PREFIX}{near}?"));
                let message = format!(
                    "peer of an interface '{name}' that is not here or not of proto 'simplevpn'{}",
                    hint.unwrap_or_else(|| "; ignored".to_owned())
                );
                report.warning(section.line, message);
            }
        }
    }
    peers
}
