//! Which interfaces a killswitch closes, remembered in files.
//!
//! The kernel knows what belongs to an interface only by numbers that follow from its name. An
//! interface that has left the configuration, with nobody there to serve it, is opened by the name
//! that is remembered here. The run directory is as short-lived as the kernel's tables.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

const SUFFIX: &str = ".closed";

/// The file that says that `interface` is closed; it is empty.
pub(super) fn path(run_dir: &Path, interface: &str) -> PathBuf {
    run_dir.join(format!("{interface}{SUFFIX}"))
}

/// Whether there is no such file, perhaps because there is no run directory for it.
pub(super) fn is_nowhere(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Remembers `interface`.
pub(super) fn remember(run_dir: &Path, interface: &str) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(run_dir)?;
    fs::write(path(run_dir, interface), "")
}

/// Forgets `interface`; one that nobody remembers is fine.
pub(super) fn forget(run_dir: &Path, interface: &str) -> io::Result<()> {
    match fs::remove_file(path(run_dir, interface)) {
        Err(error) if !is_nowhere(&error) => Err(error),
        _ => Ok(()),
    }
}

/// The interfaces that are remembered, by name.
///
/// # Errors
/// Those of reading the directory, except that a missing one remembers nothing.
pub(super) fn remembered(run_dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(run_dir) {
        Err(error) if is_nowhere(&error) => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().into_string().unwrap_or_default();
        names.extend(name.strip_suffix(SUFFIX).map(str::to_owned));
    }
    Ok(crate::sorted::set(names))
}
