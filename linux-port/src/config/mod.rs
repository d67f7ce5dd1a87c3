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

/// A configuration as far as it can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The interfaces that have a name, in the order of the file, without those that are
    /// `disabled`. An option that cannot be read has its default.
    pub interfaces: Vec<Interface>,
    /// What is wrong with the file, or with interfaces as a whole. What is wrong with peers is
    /// told by [`model::RefusedPeer`].
    pub errors: Vec<Diagnostic>,
    /// What is probably not meant, in the order of the file.
    pub warnings: Vec<Diagnostic>,
}

impl Reading {
    fn of_errors(errors: Vec<Diagnostic>) -> Reading {
        Reading { interfaces: Vec::new(), errors, warnings: Vec::new() }
    }

    /// Whether the interfaces can run: nothing is wrong but with peers, which are left out, and
    /// not with all of them.
    #[must_use]
    pub fn can_run(&self) -> bool {
        let mut interfaces = self.interfaces.iter();
        let no_peer_is_refused = interfaces.clone().all(|interface| interface.refused.is_empty());
        let some_peer_is_right = interfaces.any(|interface| !interface.peers.is_empty());
        self.errors.is_empty() && (no_peer_is_refused || some_peer_is_right)
    }

    /// Lets all messages call the file by another name.
    pub fn call_the_file(&mut self, name: &str) {
        let refused = self.interfaces.iter_mut().flat_map(|interface| &mut interface.refused);
        let of_peers = refused.flat_map(|peer| &mut peer.errors);
        for diagnostic in self.errors.iter_mut().chain(of_peers).chain(&mut self.warnings) {
            name.clone_into(&mut diagnostic.file);
        }
    }

    /// Everything that is wrong, in the order of the file: the first twenty errors and a count of
    /// the rest.
    #[must_use]
    pub fn all_errors(&self) -> Vec<Diagnostic> {
        let refused = self.interfaces.iter().flat_map(|interface| &interface.refused);
        let of_peers = refused.flat_map(|peer| &peer.errors);
        diagnostic::in_order(self.errors.iter().chain(of_peers).cloned().collect())
    }

    /// The configuration, if nothing at all is wrong with it.
    fn faultless(self) -> Result<Loaded, Vec<Diagnostic>> {
        let errors = self.all_errors();
        let Reading { interfaces, warnings, .. } = self;
        if errors.is_empty() { Ok(Loaded { interfaces, warnings }) } else { Err(errors) }
    }
}

/// Reads and checks the file at `path`: `/etc/config` style or what `uci export network` prints.
/// With `only`, no interface but this one and its peers is judged; one that the file does not have
/// is an error.
///
/// # Errors
/// What is wrong with it, in the order of the file, the first twenty and a
/// count of the rest.
pub fn load(path: &Path, only: Option<&str>) -> Result<Loaded, Vec<Diagnostic>> {
    read_file(path, only).faultless()
}

/// The same for a file that may have errors.
#[must_use]
pub fn read_file(path: &Path, only: Option<&str>) -> Reading {
    let file = match ConfigFile::read(path) {
        Ok(file) => file,
        Err(errors) => return Reading::of_errors(errors),
    };
    let mut reading = match file.sections() {
        Ok((sections, faults)) => read_sections(&file.name, &sections, only, faults),
        Err(errors) => return Reading::of_errors(errors),
    };
    if file.mode & 0o077 != 0 && !reading.interfaces.is_empty() {
        let name = &file.name;
        let message = format!("holds keys and other users can read it; run chmod 600 {name}");
        reading.warnings.insert(0, Diagnostic::new(name, 0, message));
    }
    reading
}

/// An interface of a file, and what is wrong with it and its peers.
#[derive(Debug)]
pub struct Judged {
    /// Its name.
    pub name: String,
    /// The interface as far as it can be read; `None`: it is disabled.
    pub interface: Option<Interface>,
    /// What is wrong.
    pub errors: Vec<Diagnostic>,
}

/// Reads the file at `path` and judges each of its interfaces by itself, in the order of the file:
/// the errors of one do not concern the others. A file without any is fine. Also returns what is
/// wrong with the file as a whole.
#[must_use]
pub fn read_each(path: &Path) -> (Vec<Judged>, Vec<Diagnostic>) {
    let file = match ConfigFile::read(path) {
        Ok(file) => file,
        Err(errors) => return (Vec::new(), errors),
    };
    let (sections, faults) = match file.sections() {
        Ok(sections) => sections,
        Err(errors) => return (Vec::new(), errors),
    };
    let mut judged: Vec<Judged> = Vec::new();
    for name in sections.iter().filter(|section| is_ours(section)).filter_map(|s| s.name.as_deref())
    {
        if !judged.iter().any(|other| other.name == name) {
            let reading = read_sections(&file.name, &sections, Some(name), Vec::new());
            // What a fault has made unreadable may belong to any interface, and be missed there.
            let faulty = !faults.is_empty();
            let errors = if faulty { Vec::new() } else { reading.all_errors() };
            let mut interface = reading.interfaces.into_iter().next();
            interface.iter_mut().for_each(|interface| interface.flawed |= faulty);
            judged.push(Judged { name: name.to_owned(), interface, errors });
        }
    }
    (judged, faults)
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

    /// Its sections, and what is no UCI in it.
    fn sections(&self) -> Result<(Vec<Section<'_>>, Vec<Diagnostic>), Vec<Diagnostic>> {
        let text = core::str::from_utf8(&self.bytes).map_err(|error| {
            let valid = self.bytes.iter().take(error.valid_up_to());
            let line = 1 + valid.filter(|b| **b == b'\n').count();
            vec![Diagnostic::new(&self.name, line, "not UTF-8 text; save the file as UTF-8")]
        })?;
        Ok(sections_of(&self.name, text))
    }
}

/// The sections of `text`, and what is no UCI in it.
fn sections_of<'t>(file_name: &str, text: &'t str) -> (Vec<Section<'t>>, Vec<Diagnostic>) {
    let (sections, faults) = uci::read(text);
    let fault = |fault: uci::Fault| Diagnostic::new(file_name, fault.line, fault.message);
    (sections, faults.into_iter().map(fault).collect())
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
    read_text(file_name, text).faultless()
}

/// The same for a text that may have errors.
#[must_use]
pub fn read_text(file_name: &str, text: &str) -> Reading {
    let (sections, faults) = sections_of(file_name, text);
    read_sections(file_name, &sections, None, faults)
}

/// Type of the peer sections of an interface, without its name.
const PEER_PREFIX: &str = "simplevpn_";

/// Reads all interfaces, or judges only one: what is wrong with others is not reported. With
/// `faults`, of which the sections are what is left, nothing else is reported.
fn read_sections(
    file: &str,
    sections: &[Section<'_>],
    only: Option<&str>,
    faults: Vec<Diagnostic>,
) -> Reading {
    let concerned = |name: Option<&str>| only.is_none_or(|only| name == Some(only));
    let mut report = Report::new(file);
    look_for_interfaces(sections, only, &mut report);
    let again = check_names(sections, only, &mut report);
    let mut peers = peers_by_interface(sections, only, &mut report);
    let connected = connected::read(sections);
    let mut others = report.silent();
    let mut found = Vec::new();
    for section in sections.iter().filter(|section| is_ours(section)) {
        let name = section.name.as_deref();
        let peers = peers.remove(name.unwrap_or_default()).unwrap_or_default();
        let report = if concerned(name) { &mut report } else { &mut others };
        if let Some(mut read) = interface::read(section, peers, &again, report) {
            read.interface.connected = connected::networks(&connected);
            check::within_interface(&mut read);
            connected::check(&mut read, &connected);
            found.push(read);
        }
    }
    check::across_interfaces(&mut found, only);
    let mut interfaces = Vec::new();
    for found in found {
        let judged = concerned(Some(&found.interface.name));
        let report = if judged { &mut report } else { &mut others };
        let interface = found.settle(&connected, report);
        if judged && interface::is_name(&interface.name) {
            interfaces.push(interface);
        }
    }
    let (mut errors, warnings) = report.finish();
    if !faults.is_empty() {
        errors = diagnostic::in_order(faults);
    }
    for interface in &mut interfaces {
        interface.flawed = !errors.is_empty() || !interface.refused.is_empty();
    }
    Reading { interfaces, errors, warnings }
}

/// Reports that the interface, or any, is missing.
fn look_for_interfaces(sections: &[Section<'_>], only: Option<&str>, report: &mut Report) {
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
}

fn is_ours(section: &Section<'_>) -> bool {
    &*section.kind == "interface" && is_simplevpn(section)
}

fn is_simplevpn(section: &Section<'_>) -> bool {
    section.entries.iter().any(|entry| &*entry.name == "proto" && &*entry.value == "simplevpn")
}

/// Two sections of one name would be merged by libuci, which nobody means. Returns what is wrong
/// with sections of peers, by their lines.
fn check_names<'s>(
    sections: &'s [Section<'_>],
    only: Option<&str>,
    report: &mut Report,
) -> Vec<(usize, String)> {
    let ours = |s: &&Section<'_>| match s.kind.strip_prefix(PEER_PREFIX) {
        Some(interface) => only.is_none_or(|only| interface == only),
        None => is_simplevpn(s) && only.is_none_or(|only| s.name.as_deref() == Some(only)),
    };
    let named = |s: &'s Section<'_>| Some((s.name.as_deref()?, s.line, is_ours(s)));
    let (mut first, mut of_peers) = (("", 0), Vec::new());
    for (name, line, of_interface) in sorted::set(sections.iter().filter(ours).filter_map(named)) {
        if first.0 != name {
            first = (name, line);
        } else {
            let first = first.1;
            let message =
                format!("second section '{name}', the first is on line {first}; rename one");
            match of_interface {
                true => report.error(line, message),
                false => of_peers.push((line, message)),
            }
        }
    }
    of_peers
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
