//! Configuration: from UCI text to checked types.
//!
//! [`uci`] reads the grammar; `options` finds the options of a section; `value` reads their
//! values; `interface`, `peer` and `manual` read the three kinds of settings; `check` looks at
//! what concerns several peers at once. The result is [`model`]. Nothing here talks to the
//! kernel: what needs to know the machine's addresses or routes is checked when the interface
//! comes up.

mod check;
mod diagnostic;
mod interface;
mod manual;
pub mod model;
mod options;
mod peer;
mod prefix;
pub mod uci;
mod value;

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

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
///
/// # Errors
/// What is wrong with it, in the order of the file, the first twenty and a
/// count of the rest.
pub fn load(path: &Path) -> Result<Loaded, Vec<Diagnostic>> {
    let name = path.display().to_string();
    let file_error = |message: String| vec![Diagnostic::new(&name, 0, message)];
    let (bytes, mode) = read(path).map_err(file_error)?;
    let text = core::str::from_utf8(&bytes).map_err(|error| {
        let valid = bytes.iter().take(error.valid_up_to());
        let line = 1 + valid.filter(|b| **b == b'\n').count();
        vec![Diagnostic::new(&name, line, "not UTF-8 text; save the file as UTF-8")]
    })?;
    let mut loaded = parse(&name, text)?;
    if mode & 0o077 != 0 && !loaded.interfaces.is_empty() {
        let message = format!("holds keys and other users can read it; run chmod 600 {name}");
        loaded.warnings.insert(0, Diagnostic::new(&name, 0, message));
    }
    Ok(loaded)
}

/// The bytes of the file and, if it is a regular file, its permissions (0 otherwise).
fn read(path: &Path) -> Result<(Zeroizing<Vec<u8>>, u32), String> {
    let cannot = |error| format!("cannot be read: {error}");
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

/// Checks `text`; `file_name` is what the diagnostics call it. Reads a `private_key_file` that the
/// text names.
///
/// # Errors
/// As [`load`].
pub fn parse(file_name: &str, text: &str) -> Result<Loaded, Vec<Diagnostic>> {
    let mut report = Report::new(file_name);
    let interfaces = match uci::parse(text) {
        Ok(sections) => read_sections(&sections, &mut report),
        Err(faults) => {
            faults.into_iter().for_each(|fault| report.error(fault.line, fault.message));
            Vec::new()
        }
    };
    report.finish().map(|warnings| Loaded { interfaces, warnings })
}

/// Type of the peer sections of an interface, without its name.
const PEER_PREFIX: &str = "simplevpn_";

fn read_sections(sections: &[Section<'_>], report: &mut Report) -> Vec<Interface> {
    let ours = |section: &&Section<'_>| &*section.kind == "interface" && is_simplevpn(section);
    if !sections.iter().any(|section| ours(&section)) {
        report.error(
            0,
            "no interface of ours; write config interface 'vpn0' with option proto 'simplevpn'",
        );
    }
    check_names(sections, report);
    let mut peers = peers_by_interface(sections, report);
    let mut found = Vec::new();
    for section in sections.iter().filter(ours) {
        let name = section.name.as_deref().unwrap_or_default();
        let peers = peers.remove(name).unwrap_or_default();
        if let Some(read) = interface::read(section, &peers, report) {
            check::within_interface(&read, report);
            found.push(read);
        }
    }
    check::across_interfaces(&found, report);
    found.into_iter().map(|found| found.interface).collect()
}

fn is_simplevpn(section: &Section<'_>) -> bool {
    section.entries.iter().any(|entry| &*entry.name == "proto" && &*entry.value == "simplevpn")
}

/// Two sections of one name would be merged by libuci, which nobody means.
fn check_names(sections: &[Section<'_>], report: &mut Report) {
    let mut lines: HashMap<&str, usize> = HashMap::new();
    let ours = |s: &&Section<'_>| s.kind.starts_with(PEER_PREFIX) || is_simplevpn(s);
    for section in sections.iter().filter(ours) {
        let Some(name) = section.name.as_deref() else { continue };
        let first = *lines.entry(name).or_insert(section.line);
        if first != section.line {
            let message =
                format!("second section '{name}', the first is on line {first}; rename one");
            report.error(section.line, message);
        }
    }
}

/// The peer sections of each interface that exists.
fn peers_by_interface<'s, 'a>(
    sections: &'s [Section<'a>],
    report: &mut Report,
) -> HashMap<&'s str, Vec<&'s Section<'a>>> {
    let mut peers: HashMap<&str, Vec<&Section<'_>>> = sections
        .iter()
        .filter(|section| &*section.kind == "interface" && is_simplevpn(section))
        .filter_map(|section| Some((section.name.as_deref()?, Vec::new())))
        .collect();
    for section in sections {
        let Some(name) = section.kind.strip_prefix(PEER_PREFIX) else { continue };
        match peers.get_mut(name) {
            Some(list) => list.push(section),
            None => {
                let hint = options::nearest(name, peers.keys().copied());
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
