//! Reverse path filtering (RFC 3704) of IPv4: 0 is off, 1 strict, 2 loose; the kernel uses the
//! maximum of `all` and the device's own value.
//!
//! With policy routing the way back to a peer leads into the tunnel, while its ESP, and for a
//! neighbour even its ARP, comes in through another device: strict filtering drops both, loose
//! filtering does not. Devices that are strict are set to loose, what they were is recorded in a
//! file first, and that outlives a crash. `all` is never touched, and nothing is ever made
//! stricter or switched off. IPv6 has no such setting.

use core::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const STRICT: u8 = 1;
const LOOSE: u8 = 2;
const SUFFIX: &str = ".rp_filter";

/// A value that could not be read, set or recorded.
#[derive(Debug)]
pub struct Error {
    attempt: String,
    source: io::Error,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.attempt, self.source)
    }
}

impl std::error::Error for Error {}

fn failed(attempt: impl fmt::Display) -> impl FnOnce(io::Error) -> Error {
    move |source| Error { attempt: attempt.to_string(), source }
}

/// The settings of this machine, as one tunnel interface needs them.
#[derive(Debug, Clone)]
pub(super) struct ReversePath {
    settings: PathBuf,
    run_dir: PathBuf,
    interface: String,
}

impl ReversePath {
    pub(super) fn new(run_dir: &Path, interface: &str) -> ReversePath {
        ReversePath {
            settings: "/proc/sys/net/ipv4/conf".into(),
            run_dir: run_dir.into(),
            interface: interface.into(),
        }
    }

    /// Makes every strict device loose, but for `lo` and the tunnel itself.
    pub(super) fn loosen(&self) -> Result<(), Error> {
        let all = self.value("all").unwrap_or(0);
        let mut record = read_record(&self.record());
        let others = self.records_of_others();
        let mut strict = Vec::new();
        for device in self.devices()? {
            // A device may go while we look.
            let Some(value) = self.value(&device) else { continue };
            let known = record.iter().any(|(name, _)| *name == device);
            let shared = others.iter().find(|(name, _)| *name == device);
            match (all.max(value), shared) {
                (STRICT, _) => {
                    strict.push(device.clone());
                    record.retain(|(name, _)| *name != device);
                    record.push((device, value));
                }
                // Loose for the sake of another tunnel: it has to stay so for ours, too.
                (_, Some(theirs)) if !known => record.push(theirs.clone()),
                _ => {}
            }
        }
        self.write_record(&record)?;
        strict.iter().try_for_each(|device| self.set(device, LOOSE))
    }

    /// Puts back what [`ReversePath::loosen`] changed, unless somebody changed it since or
    /// another tunnel needs it.
    pub(super) fn restore(&self) -> Result<(), Error> {
        let others = self.records_of_others();
        for (device, value) in read_record(&self.record()) {
            let needed = others.iter().any(|(name, _)| *name == device);
            if !needed && self.value(&device) == Some(LOOSE) {
                self.set(&device, value)?;
            }
        }
        match fs::remove_file(self.record()) {
            Err(e) if !super::closed::is_nowhere(&e) => {
                Err(failed(format!("removing {}", self.record().display()))(e))
            }
            _ => Ok(()),
        }
    }

    fn devices(&self) -> Result<Vec<String>, Error> {
        let attempt = || format!("listing {}", self.settings.display());
        let entries = fs::read_dir(&self.settings).map_err(failed(attempt()))?;
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        let special = ["all", "default", "lo", self.interface.as_str()];
        names.retain(|name| !special.contains(&name.as_str()));
        names.sort_unstable();
        Ok(names)
    }

    fn path(&self, device: &str) -> PathBuf {
        self.settings.join(device).join("rp_filter")
    }

    fn value(&self, device: &str) -> Option<u8> {
        fs::read_to_string(self.path(device)).ok()?.trim().parse().ok()
    }

    fn set(&self, device: &str, value: u8) -> Result<(), Error> {
        match fs::write(self.path(device), value.to_string()) {
            Err(e) if !super::closed::is_nowhere(&e) => Err(failed(format!(
                "rp_filter of {device} has to be {value} and cannot be set; set \
                 net.ipv4.conf.{device}.rp_filter={value} (sysctl) before the start"
            ))(e)),
            _ => Ok(()),
        }
    }

    fn record(&self) -> PathBuf {
        self.run_dir.join(format!("{}{SUFFIX}", self.interface))
    }

    fn records_of_others(&self) -> Vec<(String, u8)> {
        let entries = fs::read_dir(&self.run_dir).into_iter().flatten();
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths
            .filter(|path| *path != self.record() && path.to_string_lossy().ends_with(SUFFIX))
            .flat_map(|path| read_record(&path))
            .collect()
    }

    fn write_record(&self, record: &[(String, u8)]) -> Result<(), Error> {
        if record == read_record(&self.record()) {
            return Ok(());
        }
        let attempt = || failed(format!("writing {}", self.record().display()));
        let text: String = record.iter().map(|(name, value)| format!("{name} {value}\n")).collect();
        let new = self.run_dir.join(format!(".{}{SUFFIX}.new", self.interface));
        fs::create_dir_all(&self.run_dir).map_err(attempt())?;
        fs::write(&new, text).and_then(|()| fs::rename(&new, self.record())).map_err(attempt())
    }
}

/// The lines `device value` of a record; without a record there are none.
fn read_record(path: &Path) -> Vec<(String, u8)> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter_map(|line| {
        let (device, value) = line.split_once(' ')?;
        let plain = !device.contains('/') && device != "." && device != "..";
        Some((plain.then(|| device.to_string())?, value.parse().ok()?))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::{Scratch, sh, within};

    fn set_up(all: u8, values: [u8; 3]) {
        sh("ip link add eth0 type veth peer name eth1; ip link add vpn0 type veth peer name far");
        for (device, value) in ["eth0", "eth1", "vpn0"].into_iter().zip(values) {
            sh(&format!("sysctl -qw net.ipv4.conf.{device}.rp_filter={value}"));
        }
        sh(&format!("sysctl -qw net.ipv4.conf.all.rp_filter={all}"));
    }

    fn values() -> String {
        sh("cd /proc/sys/net/ipv4/conf; cat all/rp_filter eth0/rp_filter eth1/rp_filter \
            vpn0/rp_filter | tr -d '\\n'")
    }

    #[test]
    fn only_what_is_strict_becomes_loose_and_comes_back() {
        for (all, before, during) in [
            (0, [0, 1, 1], "0021"),
            (1, [0, 1, 2], "1222"),
            (2, [0, 1, 0], "2010"),
            (0, [0, 2, 0], "0020"),
        ] {
            within(|| {
                let scratch = Scratch::new();
                set_up(all, before);
                let at_first = values();
                let ours = ReversePath::new(scratch.path(), "vpn0");
                for _ in 0..2 {
                    ours.loosen().unwrap();
                    assert_eq!(values(), during, "all {all}, {before:?}");
                }
                // After kill -9 another process knows nothing but the file.
                ReversePath::new(scratch.path(), "vpn0").restore().unwrap();
                assert_eq!(values(), at_first);
                ours.restore().unwrap();
                assert_eq!(values(), at_first);
            });
        }
    }

    #[test]
    fn the_last_of_two_tunnels_restores() {
        within(|| {
            let scratch = Scratch::new();
            set_up(0, [1, 1, 0]);
            let [a, b] = ["vpn0", "vpn1"].map(|name| ReversePath::new(scratch.path(), name));
            a.loosen().unwrap();
            b.loosen().unwrap();
            a.restore().unwrap();
            assert_eq!(values(), "0220");
            b.restore().unwrap();
            assert_eq!(values(), "0110");
        });
    }

    #[test]
    fn what_somebody_changed_since_stays() {
        within(|| {
            let scratch = Scratch::new();
            set_up(0, [1, 1, 0]);
            let ours = ReversePath::new(scratch.path(), "vpn0");
            ours.loosen().unwrap();
            sh("sysctl -qw net.ipv4.conf.eth0.rp_filter=0");
            ours.restore().unwrap();
            assert_eq!(values(), "0010");
            ours.loosen().unwrap();
            sh("ip link del eth0");
            ours.restore().unwrap();
        });
    }

    #[test]
    fn a_read_only_proc_is_refused_with_the_remedy() {
        within(|| {
            let scratch = Scratch::new();
            set_up(0, [1, 0, 0]);
            crate::netns::private_mounts();
            sh("mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys");
            let error = ReversePath::new(scratch.path(), "vpn0").loosen().unwrap_err();
            assert!(error.to_string().contains("net.ipv4.conf.eth0.rp_filter=2"), "{error}");
        });
    }
}
