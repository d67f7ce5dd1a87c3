//! What an interface has besides its sockets and peers: the TUN device, and those who tell about
//! the machine's network and about names.

use std::path::Path;

use simplevpn_core::pmtu;

use crate::config::model::Interface;
use crate::netlink::Netlink;
use crate::netlink::firewall::FirewallMonitor;
use crate::netlink::monitor::Monitor;
use crate::resolver::{self, Resolver};
use crate::steering;
use crate::tun::TunDevice;

/// The surroundings of an interface.
pub(super) struct Surroundings {
    pub(super) tun: TunDevice,
    pub(super) netlink: Netlink,
    /// Index of the TUN device.
    pub(super) device: u32,
    pub(super) resolver: Resolver,
    pub(super) monitor: Monitor,
    pub(super) firewall: Option<FirewallMonitor>,
}

impl Surroundings {
    /// Opens them; `run_dir` is where names are remembered.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub(super) fn open(interface: &Interface, run_dir: &Path) -> Result<Surroundings, String> {
        let tun = TunDevice::create(&interface.name)?;
        let mut netlink = Netlink::open().map_err(|error| error.to_string())?;
        let link = netlink.link(&interface.name).map_err(|error| error.to_string())?;
        let device = link.ok_or("the TUN device has gone away")?.index;
        let mut settings = resolver::Settings::new(steering::mark(interface.fwmark).0);
        settings.device.clone_from(&interface.tunlink);
        settings.memory = Some(run_dir.join(format!("{}.names", interface.name)));
        let firewall = FirewallMonitor::open();
        if let Err(error) = &firewall {
            log::debug!("{}: changes of the firewall go unnoticed: {error}", interface.name);
        }
        Ok(Surroundings {
            tun,
            netlink,
            device,
            resolver: Resolver::new(settings).map_err(|error| error.to_string())?,
            monitor: Monitor::open().map_err(|error| error.to_string())?,
            firewall: firewall.ok(),
        })
    }
}

/// MTU of the TUN device, in bytes, until the paths are known.
pub(super) fn first_mtu(interface: &Interface) -> u16 {
    interface.mtu.unwrap_or(pmtu::MIN_INNER_V6 as u16)
}
