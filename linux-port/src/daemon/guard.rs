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
/// now, unless a daemon serves them. Of an interface with errors everything is closed that can be
/// read, and nothing is opened.
///
/// # Errors
/// What is wrong with the file, or with the machine; everything else is done all the same.
pub fn guard(file: &Path) -> Result<(), Error> {
    privileges::check()?;
    let (judged, mut wrong) = config::read_each(file);
    let run_dir = control::run_dir();
    let made = control::make_run_dir(&run_dir);
    let mut failures: Vec<String> = made.as_ref().err().cloned().into_iter().collect();
    let interfaces = judged.iter().filter_map(|judged| judged.interface.as_ref());
    failures.extend(close_all(interfaces, made.is_ok().then_some(&*run_dir)));
    match steering::closed(&run_dir) {
        // What cannot be read may be any of them.
        _ if !wrong.is_empty() => {}
        Ok(names) => {
            let opened = names.iter().map(|name| open(name, &judged, &run_dir));
            failures.extend(opened.filter_map(Result::err));
        }
        Err(error) => failures.push(error.to_string()),
    }
    failures.iter().for_each(|failure| log::error!("{failure}"));
    wrong.extend(judged.into_iter().flat_map(|judged| judged.errors));
    match (wrong.is_empty(), failures.is_empty()) {
        (false, _) => Err(Error::Configuration(wrong)),
        (true, false) => Err(Error::Failure("not everything is guarded".into())),
        (true, true) => Ok(()),
    }
}

/// Closes those of the interfaces that have a killswitch and no daemon. Without a run directory
/// there is no daemon. Returns what failed.
pub(super) fn close_all<'i>(
    interfaces: impl Iterator<Item = &'i Interface>,
    run_dir: Option<&Path>,
) -> Vec<String> {
    let closed = interfaces.filter(|interface| interface.killswitch);
    closed.filter_map(|interface| close(interface, run_dir).err()).collect()
}

fn close(interface: &Interface, run_dir: Option<&Path>) -> Result<(), String> {
    let name = &interface.name;
    let claim = run_dir.map(|dir| Claim::of_guard(dir, name, Duration::ZERO)).transpose()?;
    if matches!(claim, Some(None)) {
        return Ok(());
    }
    let underlay = engine::underlay(interface, first_mtu(interface), false);
    steering::close(interface, underlay, &control::run_dir())
        .map_err(|error| format!("{name}: {error}"))?;
    match interface.flawed {
        false => log::info!("{name}: closed"),
        true => log::warn!("{name}: has errors, closed as far as it can be read"),
    }
    Ok(())
}

/// Opens the interface of this name, which was closed once, if the file wants it so.
fn open(name: &str, judged: &[Judged], run_dir: &Path) -> Result<(), String> {
    let patience = match judged.iter().find(|judged| judged.name == name) {
        // An option that cannot be read may be the one that wants it closed.
        Some(Judged { interface: None, errors, .. }) if !errors.is_empty() => return Ok(()),
        Some(Judged { interface: Some(interface), .. }) if interface.killswitch => return Ok(()),
        // The daemon that serves it will open it when it reads its file again.
        Some(Judged { interface: Some(_), .. }) => Duration::ZERO,
        Some(Judged { interface: None, .. }) | None => FAREWELL,
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
