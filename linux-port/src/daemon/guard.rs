//! `simplevpn guard`: the killswitch of every interface of a file, without a daemon and without a
//! TUN device. At boot it closes before there is a network; afterwards it opens what has left the
//! configuration.

use core::time::Duration;
use std::path::Path;

use super::surroundings::first_mtu;
use super::{Error, engine};
use crate::config::model::Interface;
use crate::config::{self, Judged};
use crate::control::{self, Claim};
use crate::{privileges, steering};

/// How long the daemon of an interface that is no more may take to end: whoever removed the
/// interface has told it to.
const FAREWELL: Duration = Duration::from_secs(2);

/// Closes every interface of `file` that has a killswitch and no daemon, as a daemon that has ended
/// leaves it. Opens interfaces that were closed once and are gone, disabled or without a killswitch
/// now, unless a daemon serves them. What has errors in the file stays as it is.
///
/// # Errors
/// What is wrong with the file, or with the machine; everything else is done all the same.
pub fn guard(file: &Path) -> Result<(), Error> {
    privileges::check()?;
    let judged = config::load_each(file).map_err(Error::Configuration)?;
    let run_dir = control::run_dir();
    control::make_run_dir(&run_dir)?;
    let mut failures: Vec<String> = Vec::new();
    for interface in judged.iter().filter_map(|(_, result)| result.as_ref().ok()?.as_ref()) {
        if interface.killswitch {
            failures.extend(close(interface, &run_dir).err());
        }
    }
    match steering::closed(&run_dir) {
        Ok(names) => {
            let opened = names.iter().map(|name| open(name, &judged, &run_dir));
            failures.extend(opened.filter_map(Result::err));
        }
        Err(error) => failures.push(error.to_string()),
    }
    failures.iter().for_each(|failure| log::error!("{failure}"));
    let wrong: Vec<_> =
        judged.into_iter().filter_map(|(_, result)| result.err()).flatten().collect();
    match (wrong.is_empty(), failures.is_empty()) {
        (false, _) => Err(Error::Configuration(wrong)),
        (true, false) => Err(Error::Failure("not everything is guarded".into())),
        (true, true) => Ok(()),
    }
}

fn close(interface: &Interface, run_dir: &Path) -> Result<(), String> {
    let name = &interface.name;
    let Some(_claim) = Claim::of_guard(run_dir, name, Duration::ZERO)? else { return Ok(()) };
    let underlay = engine::underlay(interface, first_mtu(interface), false);
    steering::close(interface, underlay, run_dir).map_err(|error| format!("{name}: {error}"))?;
    log::info!("{name}: closed");
    Ok(())
}

/// Opens the interface of this name, which was closed once, if the file wants it so.
fn open(name: &str, judged: &[Judged], run_dir: &Path) -> Result<(), String> {
    let patience = match judged.iter().find(|(other, _)| other == name) {
        Some((_, Err(_))) => return Ok(()),
        Some((_, Ok(Some(interface)))) if interface.killswitch => return Ok(()),
        // The daemon that serves it will open it when it reads its file again.
        Some((_, Ok(Some(_)))) => Duration::ZERO,
        Some((_, Ok(None))) | None => FAREWELL,
    };
    match Claim::of_guard(run_dir, name, patience)? {
        Some(_claim) => {
            steering::down(name, run_dir).map_err(|error| format!("{name}: {error}"))?;
            log::info!("{name}: open");
        }
        None => log::info!("{name}: still served by a daemon, left alone"),
    }
    Ok(())
}
