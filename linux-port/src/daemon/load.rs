//! Reading the configuration of the interfaces that a daemon serves.

use super::{Error, Settings, ike};
use crate::config;
use crate::config::model::{Interface, RefusedPeer};

/// What netifd's interfaces are read from, as their owner knows it.
const EXPORT: &str = "uci export network";

/// Reads the configuration as far as that is possible, and tells whether it can run. Its warnings,
/// and what is wrong with peers that are left out, go to the log.
pub(super) fn load(settings: &Settings) -> (Vec<Interface>, Result<(), Error>) {
    let mut reading = config::read_file(&settings.file, settings.only.as_deref());
    if settings.netifd {
        reading.call_the_file(EXPORT);
    }
    reading.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    if !reading.can_run() {
        let errors = Error::Configuration(reading.all_errors());
        return (reading.interfaces, Err(errors));
    }
    let mut interfaces = reading.interfaces;
    for interface in &interfaces {
        interface.refused.iter().for_each(|peer| tell_of_refused(&interface.name, peer));
    }
    let verdict = fit_together(&mut interfaces, settings);
    (interfaces, verdict)
}

fn tell_of_refused(interface: &str, peer: &RefusedPeer) {
    peer.reasons().iter().for_each(|error| log::error!("{error}"));
    let closed: Vec<String> = peer.prefixes.iter().map(ToString::to_string).collect();
    let closed = match closed.is_empty() {
        true => "none of its prefixes can be read".to_owned(),
        false => format!("{} stays closed", closed.join(", ")),
    };
    log::error!("{interface}: peer {} is left out; {closed}", peer.label);
}

/// Fits the interfaces of a file to how the daemon was started, and to each other.
fn fit_together(interfaces: &mut [Interface], settings: &Settings) -> Result<(), Error> {
    let Settings { file, netifd, tunlink, .. } = settings;
    for interface in interfaces.iter_mut() {
        if let (true, Some(name), None) = (netifd, &interface.tunlink, tunlink) {
            return Err(Error::Failure(format!(
                "{}: tunlink '{name}' is netifd's name for an interface; with --netifd give its \
                 device, too: --tunlink DEVICE",
                interface.name
            )));
        }
        interface.tunlink = tunlink.clone().or(interface.tunlink.take());
    }
    for (at, interface) in interfaces.iter().enumerate() {
        let Interface { name, nat_port, .. } = interface;
        let before = interfaces[..at].iter().find(|other| other.nat_port == *nat_port);
        if let Some(Interface { name: other, .. }) = before
            && !ike::only_calls(interface)
        {
            return Err(Error::Failure(format!(
                "{}: {other} and {name} both have nat_port {nat_port}; give one of them another, \
                 and its peers the same as endpoint_nat_port",
                file.display()
            )));
        }
    }
    Ok(())
}
