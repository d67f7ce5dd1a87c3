//! Gives up every privilege but CAP_NET_ADMIN and CAP_NET_RAW, once sockets and devices are open.
//!
//! The two that stay are ambient as well, so that `nft`, which the daemon runs when its rules
//! change, has them even if the daemon is not root. To be called while there is one thread.

use std::io;

/// linux/capability.h
const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;
const KEPT: u64 = 1 << CAP_NET_ADMIN | 1 << CAP_NET_RAW;
const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;
/// More than any kernel has; the kernel refuses those it does not know.
const CAPABILITIES: u32 = 64;

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`: 32 of the 64 capabilities.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Refuses to start without what the daemon cannot work without.
///
/// # Errors
/// A sentence that names what is missing.
pub fn check() -> Result<(), String> {
    let sets = capabilities().map_err(|error| format!("cannot read capabilities: {error}"))?;
    let effective = u64::from(sets[0].effective) | u64::from(sets[1].effective) << 32;
    if effective & KEPT == KEPT {
        return Ok(());
    }
    Err("needs CAP_NET_ADMIN and CAP_NET_RAW: run it as root (or inside `unshare -Urnm`, to try it)"
        .into())
}

/// Keeps CAP_NET_ADMIN and CAP_NET_RAW and drops all else, also for programs started later. Keys
/// in memory are kept out of core dumps and away from debuggers.
///
/// # Errors
/// Those of `prctl(2)` and `capset(2)`.
pub fn restrict() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)?;
    prctl(libc::PR_SET_DUMPABLE, 0, 0)?;
    for capability in (0..CAPABILITIES).filter(|&capability| KEPT & 1 << capability == 0) {
        match prctl(libc::PR_CAPBSET_DROP, capability.into(), 0) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            // Without CAP_SETPCAP the bounding set stays; with PR_SET_NO_NEW_PRIVS no program
            // can gain from it.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => break,
            other => other?,
        }
    }
    let half = |shift: u32| {
        let kept = (KEPT >> shift) as u32;
        Data { effective: kept, permitted: kept, inheritable: kept }
    };
    set_capabilities(&[half(0), half(32)])?;
    for capability in [CAP_NET_ADMIN, CAP_NET_RAW] {
        let raise = libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong;
        if let Err(error) = prctl(libc::PR_CAP_AMBIENT, raise, capability.into()) {
            // Kernels before 4.3; root's programs have them anyway.
            log::debug!("ambient capabilities are not available: {error}");
        }
    }
    Ok(())
}

fn prctl(option: i32, first: libc::c_ulong, second: libc::c_ulong) -> io::Result<()> {
    let none: libc::c_ulong = 0;
    // SAFETY: the options used here take numbers only.
    let result = unsafe { libc::prctl(option, first, second, none, none) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn capabilities() -> io::Result<[Data; 2]> {
    let mut header = Header { version: LINUX_CAPABILITY_VERSION_3, pid: 0 };
    let mut sets = [Data::default(); 2];
    // SAFETY: version 3 writes two `Data`, for which `sets` has room.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    if result == 0 { Ok(sets) } else { Err(io::Error::last_os_error()) }
}

fn set_capabilities(sets: &[Data; 2]) -> io::Result<()> {
    let mut header = Header { version: LINUX_CAPABILITY_VERSION_3, pid: 0 };
    // SAFETY: version 3 reads two `Data`.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::in_namespace;
    use std::process::Command;

    fn status(of: &str) -> Vec<String> {
        let status = std::fs::read_to_string(format!("/proc/{of}/status")).unwrap();
        let line = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().to_owned()
        };
        ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"].map(line).to_vec()
    }

    #[test]
    fn the_daemon_and_its_children_keep_two_capabilities_and_can_still_work() {
        in_namespace(
            "privileges::tests::the_daemon_and_its_children_keep_two_capabilities_and_can_still_work",
            || {
                check().unwrap();
                // Another thread: the test harness's own one must not lose its privileges first.
                std::thread::spawn(|| {
                    restrict().unwrap();
                    let two = "0000000000003000";
                    assert_eq!(status("thread-self"), [two, two, two, two, two, "1"]);

                    let added =
                        Command::new("nft").args(["add", "table", "inet", "io_test"]).status();
                    assert!(added.unwrap().success(), "nft");
                    let tables = Command::new("nft").args(["list", "tables"]).output().unwrap();
                    assert!(String::from_utf8_lossy(&tables.stdout).contains("io_test"));

                    let rp_filter = "/proc/sys/net/ipv4/conf/lo/rp_filter";
                    std::fs::write(rp_filter, "2").unwrap();
                    assert_eq!(std::fs::read_to_string(rp_filter).unwrap().trim(), "2");

                    // CAP_SYS_ADMIN is gone: no new mounts.
                    let mount = Command::new("mount").args(["-t", "tmpfs", "t", "/mnt"]).output();
                    assert!(!mount.unwrap().status.success());
                })
                .join()
                .unwrap();
            },
        );
    }
}
