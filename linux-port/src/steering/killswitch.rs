//! The killswitch's packet filter: a firewall table of its own, which outlives the daemon.
//!
//! Routes alone close nothing for a program that binds its socket to a device: IPv4 then takes an
//! unreachable destination to be on the link, IPv6 goes on to the next table. Routes and rules can
//! also be deleted by others, and under `steering offset` packets that the redirection misses take
//! the ordinary way. So what leaves is judged once more, where nothing can change its way any more:
//!
//! - `last` is in the postrouting hook, behind source NAT (100) and whoever changes marks, in front
//!   of the confirmation by connection tracking: what is dropped leaves no entry behind, and since
//!   neighbours are resolved later, not even ARP tells of it.
//! - Our own outer packets (by their mark) pass, and what goes into this tunnel, or into that of
//!   another interface of ours (by the group of the device), which has a filter of its own.
//! - Closed are all allowed_ips longer than /0, in host space, and under `steering offset` the real
//!   addresses too; and the networks of the TUN device's own addresses. Of a closed prefix and a
//!   network that this machine is connected to, the longer one counts.
//! - A default route that is led into the tunnel closes its whole family except connected networks,
//!   link-local addresses, multicast and broadcast. Routes of `main` which are longer than /0 and
//!   have a gateway lead past the tunnel and are not followed, whoever made them (DHCP option 121).
//! - Neighbour discovery, broadcast and a DHCP client's own packets always pass.
//!
//! Connected are the networks of this machine's addresses. The daemon follows them. Without one
//! nobody does: before there is a network, nothing is known of it, and the LAN has to work all the
//! same. Then an address from which this machine sends tells: what is in the same /24 (IPv4) or /64
//! (IPv6) is taken to be connected.
//!
//! What a bridge carries from port to port passes the same hooks where `br_netfilter` is in use. It
//! gets a mark when it comes in, in a table of family `bridge`, and is left alone.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use smoltcp::wire::IpCidr;

use super::firewall::{by_family, ours, port_set, protected_prefixes};
use super::identity::{Identity, mark};
use super::refused::closed_prefixes;
use super::underlay::{Underlay, prefixes};
use super::{Error, Mode, Steering, all_routes, all_rules, firewall, missing, plan};
use crate::config::model::Interface;
use crate::netlink::{Attachment, DEVICE_GROUP, Family, Netlink, network};
use crate::nft::{self, Chain, Count, Counter, Set, Table};
use crate::sorted;

/// Counts what `last` drops.
pub(super) const STOPPED: &str = "stopped";
/// Mark on what a bridge carries from port to port, and the bits it occupies: those of our own
/// mark, so that both are clear of the same others.
pub(super) const BRIDGED: (u32, u32) = (0x5200_0000, 0xff00_0000);
/// The shortest prefix of a network that is connected indeed: who answers a DHCP client could name
/// half the Internet.
const WIDEST: [u8; 2] = [8, 32];

/// What the rules have to know of the machine as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Around {
    /// The networks this machine is connected to, but for the tunnel's.
    pub(super) on_link: Vec<IpCidr>,
    /// The tunnel's own addresses that no other device has.
    pub(super) own: Vec<IpAddr>,
    /// Whether bridges show the firewall what they carry.
    pub(super) bridged: bool,
}

impl Around {
    /// What the machine's addresses say. `tun` is the index of the TUN device, if it is there, and
    /// `wanted` the addresses it is to have.
    pub(super) fn new(
        all: &[Attachment],
        tun: Option<u32>,
        wanted: &[IpCidr],
        bridged: bool,
    ) -> Around {
        let (theirs, others): (Vec<&Attachment>, Vec<&Attachment>) =
            all.iter().partition(|a| Some(a.device) == tun);
        let on_link = others.iter().filter(|a| !a.address.is_loopback()).map(|a| a.network);
        let of_tunnel = theirs.iter().map(|a| a.address);
        let own = of_tunnel.chain(wanted.iter().map(|a| a.address().into()));
        Around {
            on_link: sorted::set(on_link.filter(is_a_link)),
            own: sorted::set(own.filter(|a| !others.iter().any(|other| other.address == *a))),
            bridged,
        }
    }

    /// Whether the tunnel has addresses of its own.
    pub(super) fn has_own(&self) -> bool {
        !self.own.is_empty()
    }
}

fn is_a_link(network: &IpCidr) -> bool {
    let [v4, v6] = WIDEST;
    match network {
        IpCidr::Ipv4(p) => p.prefix_len() >= v4,
        IpCidr::Ipv6(p) => p.prefix_len() >= v6,
    }
}

impl Steering {
    /// To be called when others have changed a firewall table of ours: the next
    /// [`Steering::refresh`] makes it anew.
    pub fn meddled_with(&mut self) {
        self.tables_failed = true;
    }

    /// The names of the firewall tables.
    #[must_use]
    pub fn tables(&self) -> [String; 2] {
        [self.identity.table(), self.identity.guard()]
    }

    /// Why the killswitch is not in place, although it is wanted.
    #[must_use]
    pub fn gap(&self) -> Option<String> {
        let find = || -> Result<Option<String>, Error> {
            let mut netlink = Netlink::open()?;
            let present = all_routes(&mut netlink)?;
            if let Some(route) = missing(&self.plan.killswitch, &present).next() {
                return Ok(Some(format!("route {route} is missing")));
            }
            let present = all_rules(&mut netlink)?;
            if let Some(rule) = self.plan.rules.iter().find(|rule| !present.contains(rule)) {
                return Ok(Some(format!("rule {rule} is missing")));
            }
            let table = |name| format!("firewall table {name} is missing");
            Ok(match self.lost_table() {
                None if self.tables_failed => Some("another program changed its table".into()),
                lost => lost.map(table),
            })
        };
        match self.interface.killswitch {
            true => find().unwrap_or_else(|error| Some(error.to_string())),
            false => None,
        }
    }

    /// What was dropped because it claimed to come from a protected prefix, or was for the tunnel's
    /// own address, and did not come through the tunnel.
    ///
    /// # Errors
    /// When the kernel refuses the question.
    pub fn rejected(&self) -> Result<nft::Count, Error> {
        Ok(nft::count(&self.identity.table(), firewall::REJECTED)?.unwrap_or_default())
    }

    /// What the killswitch has kept from leaving by another way than the tunnel.
    ///
    /// # Errors
    /// When the kernel refuses the question.
    pub fn stopped(&self) -> Result<nft::Count, Error> {
        Ok(nft::count(&self.identity.guard(), STOPPED)?.unwrap_or_default())
    }

    /// Whether this interface is to have the killswitch's table.
    fn closes(&self) -> bool {
        self.interface.killswitch
    }

    /// Whether that table depends on there being a daemon that follows the machine's networks.
    pub(super) fn is_followed(&self) -> bool {
        let full = |family| is_full(&self.interface, self.mode, family);
        self.closes() && Family::ALL.into_iter().any(full)
    }

    /// Puts both firewall tables in place, or takes them away where they are not wanted, in one
    /// transaction.
    pub(super) fn apply_tables(&mut self) -> Result<(), Error> {
        self.tables_failed = true;
        let [name, guard] = self.tables();
        let around = self.look_around()?;
        let mut bridged = self.plan.table.is_some() && around.bridged;
        if bridged && let Err(error) = nft::apply(&bridge_table(&self.identity)) {
            log::debug!("{name}: what bridges carry is judged like the rest: {error}");
            bridged = false;
        }
        let mut killswitch = self.closes().then(|| {
            let how = How {
                mode: self.mode,
                marks: self.marks,
                followed: self.device.is_some(),
                bridged,
            };
            table(&self.interface, how, &self.underlay, &around)
        });
        for table in self.plan.table.iter_mut().chain(&mut killswitch) {
            for counter in &mut table.counters {
                // What cannot be read begins anew.
                let count = nft::count(&table.name, counter.name).unwrap_or_default();
                counter.start = count.unwrap_or_default();
            }
            for own in firewall::own_sets(&around.own) {
                table.sets.iter_mut().filter(|set| set.name == own.name).for_each(|set| {
                    set.elements.clone_from(&own.elements);
                });
            }
        }
        nft::install([(&*name, self.plan.table.as_ref()), (&*guard, killswitch.as_ref())])?;
        self.around = around;
        self.tables_failed = false;
        Ok(())
    }

    /// Tells the tables what has changed about this machine's addresses.
    pub(super) fn follow_networks(&mut self) -> Result<(), Error> {
        let around = self.look_around()?;
        if self.plan.table.is_none() || around == self.around {
            return Ok(());
        }
        let before = &self.around;
        let on_link = |around: &Around| on_link_sets(&self.interface, self.mode, &around.on_link);
        let [name, guard] = self.tables();
        let own =
            nft::change(&name, &firewall::own_sets(&before.own), &firewall::own_sets(&around.own));
        let link = match self.closes() {
            true => nft::change(&guard, &on_link(before), &on_link(&around)),
            false => Ok(()),
        };
        if own.is_err() || link.is_err() || around.bridged != before.bridged {
            return self.apply_tables();
        }
        self.around = around;
        Ok(())
    }

    /// The name of a firewall table that should be there and is not, as far as the kernel tells.
    pub(super) fn lost_table(&self) -> Option<String> {
        let [name, guard] = self.tables();
        let is_lost = |name: &str, counter| matches!(nft::count(name, counter), Ok(None));
        if self.plan.table.is_some() && is_lost(&name, firewall::REJECTED) {
            return Some(name);
        }
        (self.closes() && is_lost(&guard, STOPPED)).then_some(guard)
    }

    fn look_around(&mut self) -> Result<Around, Error> {
        let tun = self.netlink.link(&self.interface.name)?.map(|link| link.index);
        let all = self.netlink.attachments()?;
        // Without a device the addresses are nobody's yet, or somebody else's.
        let wanted = if self.device.is_some() { &*self.plan.addresses } else { &[] };
        let mut around = Around::new(&all, tun, wanted, bridges_are_filtered());
        // At boot, what the machine is going to be connected to.
        let to_be = self.interface.connected.iter().filter(|network| is_a_link(network));
        around.on_link = sorted::set(around.on_link.into_iter().chain(to_be.copied()));
        Ok(around)
    }
}

/// Whether bridges of this machine show the firewall what they carry.
fn bridges_are_filtered() -> bool {
    Path::new("/proc/sys/net/bridge").exists()
}

/// The transaction that makes the table of family `bridge`, which marks what is for another machine.
fn bridge_table(identity: &Identity) -> String {
    let (name, (mark, mask)) = (identity.guard(), BRIDGED);
    // PACKET_OTHERHOST, which not every version of nft has a name for.
    let rule = format!("meta pkttype 3 meta mark set meta mark & {:#x} | {mark:#x}", !mask);
    format!(
        "{}table bridge {name} {{\n\
         \tchain bridged {{\n\t\ttype filter hook prerouting priority -300; policy accept;\n\
         \t\t{rule}\n\t}}\n}}\n",
        no_bridge_table(identity)
    )
}

/// The transaction that deletes it, whether or not it is there.
pub(super) fn no_bridge_table(identity: &Identity) -> String {
    let name = identity.guard();
    format!("table bridge {name}\ndelete table bridge {name}\n")
}

/// Whether a default route of this family is led into the tunnel, or would be but for an error.
fn is_full(interface: &Interface, mode: Mode, family: Family) -> bool {
    let led = interface.peers.iter().filter(|p| p.route_allowed_ips).flat_map(prefixes);
    let led = led.map(|prefix| prefix.host).chain(closed_prefixes(interface, mode));
    let default = |p: &IpCidr| p.prefix_len() == 0 && Family::of(p) == family;
    mode == Mode::Policy && led.into_iter().any(|p| default(&p))
}

/// What decides about the rules beside the configuration.
#[derive(Debug, Clone, Copy)]
struct How {
    mode: Mode,
    /// Whether our packets can carry our mark.
    marks: bool,
    /// Whether a daemon follows the machine's networks.
    followed: bool,
    /// Whether what bridges carry can be told from the rest.
    bridged: bool,
}

/// The whole table.
fn table(interface: &Interface, how: How, underlay: &Underlay, around: &Around) -> Table {
    let How { mode, marks, followed, bridged } = how;
    let mut sets = on_link_sets(interface, mode, &around.on_link);
    let tunnels = plan::connected(interface, mode).map(|(prefix, ..)| prefix);
    let closed = sorted::set(protected_prefixes(interface, mode).into_iter().chain(tunnels));
    sets.extend(by_family(["closed4", "closed6"], &closed));
    let full = Family::ALL.map(|family| is_full(interface, mode, family));
    let mut rules = passes(interface, bridged);
    if !marks {
        rules.push("meta l4proto esp fib saddr type local accept".into());
        rules.extend(
            port_set(&underlay.ports).map(|p| format!("udp sport {p} fib saddr type local accept")),
        );
    }
    let drop = |what: &str| format!("{what} counter name {STOPPED} drop");
    rules.extend(["ip daddr @closed4", "ip6 daddr @closed6"].map(drop));
    if full.contains(&true) {
        rules.extend(everything(full, followed));
        if !followed {
            sets.extend(learned_sets());
        }
    }
    let hook = "type filter hook postrouting priority 200";
    Table {
        name: Identity::of(&interface.name).guard(),
        counters: vec![Counter { name: STOPPED, start: Count::default() }],
        sets,
        chains: vec![Chain { name: "last", hook, rules }],
    }
}

/// What passes whatever is closed, the most frequent first.
fn passes(interface: &Interface, bridged: bool) -> Vec<String> {
    let (mark, mask) = mark(interface.fwmark);
    let mut rules = vec![
        format!("{} accept", ours(mark, mask)),
        format!("oifname {{ \"lo\", \"{}\" }} accept", interface.name),
        format!("oifgroup {DEVICE_GROUP} accept"),
        "ip daddr @onlink4 accept".into(),
        "ip6 daddr @onlink6 accept".into(),
        "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, \
         nd-neighbor-advert } ip6 hoplimit 255 accept"
            .into(),
        "fib daddr type broadcast accept".into(),
        // A socket of this machine, whoever's: the ports are privileged.
        "udp sport . udp dport { 68 . 67, 546 . 547 } meta skuid != 4294967295 accept".into(),
    ];
    if bridged {
        rules.push(format!("{} accept", ours(BRIDGED.0, BRIDGED.1)));
    }
    rules
}

/// The end of the chain, where whole families are closed.
fn everything(full: [bool; 2], followed: bool) -> Vec<String> {
    let mut rules = vec![
        "ip daddr { 169.254.0.0/16, 224.0.0.0/4 } accept".to_owned(),
        "ip6 daddr { fe80::/10, ff00::/8 } accept".to_owned(),
    ];
    if !followed {
        for (ip, mask, set) in LEARNED {
            rules.push(format!("fib saddr type local update @{set} {{ {ip} saddr & {mask} }}"));
            rules.push(format!("{ip} daddr & {mask} @{set} accept"));
        }
    }
    let families = ["ipv4", "ipv6"].into_iter().zip(full).filter(|(_, full)| *full);
    rules.extend(
        families.map(|(name, _)| format!("meta nfproto {name} counter name {STOPPED} drop")),
    );
    rules
}

/// What an address of this machine says about its network when nobody else does.
const LEARNED: [(&str, &str, &str); 2] =
    [("ip", "255.255.255.0", "learned4"), ("ip6", "ffff:ffff:ffff:ffff::", "learned6")];

fn learned_sets() -> [Set; 2] {
    let set = |name, kind| Set { name, kind, prefixes: false, elements: Vec::new() };
    [
        set("learned4", "ipv4_addr; flags dynamic, timeout; timeout 1h; size 1024"),
        set("learned6", "ipv6_addr; flags dynamic, timeout; timeout 1h; size 1024"),
    ]
}

/// The sets of connected networks, without what of them is closed.
fn on_link_sets(interface: &Interface, mode: Mode, on_link: &[IpCidr]) -> Vec<Set> {
    let closed = protected_prefixes(interface, mode);
    let of = |family, text: fn(u128) -> IpAddr| {
        let ranges = without(on_link, &closed, family).into_iter();
        sorted::set(ranges.map(|(first, last)| format!("{}-{}", text(first), text(last))))
    };
    let v4 = of(Family::V4, |bits| IpAddr::V4(Ipv4Addr::from_bits(bits as u32)));
    let v6 = of(Family::V6, |bits| IpAddr::V6(Ipv6Addr::from_bits(bits)));
    let set = |name, kind, elements| Set { name, kind, prefixes: true, elements };
    vec![set("onlink4", "ipv4_addr", v4), set("onlink6", "ipv6_addr", v6)]
}

/// The addresses of a family that are in one of `open` and in no longer or equal one of `closed`,
/// as ranges with both ends that do not touch each other. `closed` is in order.
fn without(open: &[IpCidr], closed: &[IpCidr], family: Family) -> Vec<(u128, u128)> {
    let mut ranges: Vec<(u128, u128)> = Vec::new();
    for open in open.iter().filter(|prefix| Family::of(prefix) == family) {
        let (first, last) = ends(open);
        let mut from = Some(first);
        for closed in closed.iter().filter(|closed| open.contains_subnet(closed)) {
            let (first_closed, last_closed) = ends(closed);
            let Some(at) = from else { break };
            if at < first_closed {
                ranges.push((at, first_closed - 1));
            }
            // The last address there is has nothing behind it.
            from = last_closed.checked_add(1).map(|behind| behind.max(at));
        }
        ranges.extend(from.filter(|at| *at <= last).map(|at| (at, last)));
    }
    let mut merged: Vec<(u128, u128)> = Vec::new();
    for (first, last) in sorted::set(ranges) {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// The first and the last address of a prefix.
fn ends(prefix: &IpCidr) -> (u128, u128) {
    let (bits, width) = match network(prefix).address().into() {
        IpAddr::V4(a) => (a.to_bits().into(), 32),
        IpAddr::V6(a) => (a.to_bits(), 128),
    };
    let free = width - u32::from(prefix.prefix_len());
    (bits, bits | u128::MAX.checked_shr(128 - free).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(texts: &[&str]) -> Vec<IpCidr> {
        sorted::set(texts.iter().map(|text| text.parse().unwrap()))
    }

    #[test]
    fn of_closed_prefixes_and_connected_networks_the_longer_one_counts() {
        let v4 = |text: &str| u128::from(text.parse::<Ipv4Addr>().unwrap().to_bits());
        let range = |first: &str, last: &str| (v4(first), v4(last));
        let whole = range("10.1.2.0", "10.1.2.255");
        for (open, closed, ranges) in [
            (&["10.1.2.0/24"][..], &[][..], vec![whole]),
            (&["10.1.2.0/24"], &["10.0.0.0/8", "10.1.3.0/24"], vec![whole]),
            (&["10.1.2.0/24"], &["10.1.2.0/24"], vec![]),
            (
                &["10.1.2.0/24"],
                &["10.1.2.7/32", "10.1.2.9/32"],
                vec![
                    range("10.1.2.0", "10.1.2.6"),
                    range("10.1.2.8", "10.1.2.8"),
                    range("10.1.2.10", "10.1.2.255"),
                ],
            ),
            (
                &["10.1.2.0/24"],
                &["10.1.2.0/25", "10.1.2.3/32"],
                vec![range("10.1.2.128", "10.1.2.255")],
            ),
            (
                &["10.1.2.0/24"],
                &["10.1.2.128/25", "10.1.2.255/32"],
                vec![range("10.1.2.0", "10.1.2.127")],
            ),
            // A network in a closed prefix in a network.
            (
                &["10.0.0.0/8", "10.1.2.0/24"],
                &["10.1.0.0/16"],
                vec![range("10.0.0.0", "10.0.255.255"), whole, range("10.2.0.0", "10.255.255.255")],
            ),
            (&["10.0.0.0/8", "10.1.2.0/24"], &[], vec![range("10.0.0.0", "10.255.255.255")]),
            (&["10.1.2.0/25", "10.1.2.128/25"], &[], vec![whole]),
            (
                &["255.255.255.0/24"],
                &["255.255.255.255/32"],
                vec![range("255.255.255.0", "255.255.255.254")],
            ),
            (&["fd00::/64"], &["10.0.0.0/8"], vec![]),
        ] {
            let found = without(&prefixes(open), &prefixes(closed), Family::V4);
            assert_eq!(found, ranges, "{open:?} without {closed:?}");
        }
        let last = prefixes(&["ffff::/16", "ffff:ffff::/32"]);
        assert_eq!(
            without(&last[..1], &last[1..], Family::V6),
            [(0xffff << 112, (0xffff_ffff << 96) - 1)]
        );
        assert_eq!(without(&last[1..], &[], Family::V6), [(0xffff_ffff << 96, u128::MAX)]);
    }

    #[test]
    fn an_address_that_another_device_has_is_not_the_tunnels_alone() {
        let attachment = |device, text: &str, network: &str| Attachment {
            device,
            address: text.parse().unwrap(),
            network: network.parse().unwrap(),
        };
        let all = [
            attachment(1, "127.0.0.1", "127.0.0.0/8"),
            attachment(2, "192.168.1.1", "192.168.1.0/24"),
            attachment(2, "8.0.0.1", "8.0.0.0/6"),
            attachment(2, "fd00::1", "fd00::/64"),
            attachment(3, "100.64.0.9", "100.64.0.1/32"),
            attachment(7, "10.77.0.1", "10.77.0.0/24"),
            attachment(7, "192.168.1.1", "192.168.1.1/32"),
        ];
        let around = Around::new(&all, Some(7), &prefixes(&["10.77.0.2/32", "fd00::1/64"]), false);
        assert_eq!(around.on_link, prefixes(&["192.168.1.0/24", "fd00::/64", "100.64.0.1/32"]));
        let own: Vec<IpAddr> = vec!["10.77.0.1".parse().unwrap(), "10.77.0.2".parse().unwrap()];
        assert_eq!(around.own, own);
    }
}
