//! The numbers and names by which what belongs to an interface is found in the kernel again.

use smoltcp::wire::IpCidr;

use crate::config::model::Fwmark;
use crate::netlink::{Family, Route, Rule, TABLE_MAIN, Target};

/// Mark on our outer packets, and the bits it occupies. They are clear of those of mwan3 (0x3f00),
/// pbr (0xff0000), Kubernetes (0xc000) and tc's low byte, so all can be combined. All interfaces
/// share the mark: an outer packet never enters another tunnel, and one socket can serve several.
const DEFAULT_MARK: (u32, u32) = (0x5300_0000, 0xff00_0000);
/// Bits which others set on packets; a configured mark leaves them alone unless it uses them.
const FOREIGN_MARKS: [u32; 2] = [0x3f00, 0x00ff_0000];

/// Tables are `0x53hhhhhh`, with a hash of the interface's name; T1 is even, T0 is T1 + 1.
const TABLES: u32 = 0x5300_0000;
/// Metric of the killswitch's routes, plus a hash of the interface's name: higher than any
/// ordinary route's.
const KILLSWITCH_METRIC: u32 = 0x4000_0000;

/// Priorities of the three rules, plus a hash of the interface's name below 100. All T1 rules
/// come before all T0 rules, so that one interface's full tunnel does not hide another's prefixes;
/// and all before mwan3's (1001 and up) and pbr's (around 30000), which would lead packets for the
/// tunnel out in clear text.
const PRIORITY_T1: u32 = 500;
const PRIORITY_MAIN: u32 = 600;
const PRIORITY_T0: u32 = 700;

/// The mark of an interface's outer packets and the bits that count: `SO_MARK` is the first.
#[must_use]
pub fn mark(fwmark: Option<Fwmark>) -> (u32, u32) {
    match fwmark {
        None => DEFAULT_MARK,
        Some(Fwmark { mark, mask: Some(mask) }) => (mark, mask),
        Some(Fwmark { mark, mask: None }) => {
            let unused = FOREIGN_MARKS.into_iter().filter(|bits| mark & bits == 0);
            (mark, unused.fold(u32::MAX, |mask, bits| mask & !bits))
        }
    }
}

/// The numbers by which what belongs to an interface is found in the kernel, by its name alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Name of the interface.
    pub interface: String,
    /// Table of the prefixes longer than /0. It throws back connected networks inside them.
    pub t1: u32,
    /// Table of the default routes, and of prefixes around connected networks: for what T1 throws
    /// back when the network is gone.
    pub t0: u32,
    /// Metric of the killswitch's routes.
    pub killswitch_metric: u32,
    slot: u32,
}

impl Identity {
    /// The numbers of the interface called `name`.
    #[must_use]
    pub fn of(name: &str) -> Identity {
        // FNV-1a: the numbers have to be the same in every run.
        let hash = name
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193));
        let t1 = TABLES | (hash & 0x00ff_fffe);
        Identity {
            interface: name.into(),
            t1,
            t0: t1 | 1,
            killswitch_metric: KILLSWITCH_METRIC | (hash & 0x00ff_ffff),
            slot: hash % 100,
        }
    }

    /// Name of the firewall table.
    #[must_use]
    pub fn table(&self) -> String {
        format!("simplevpn_{}", self.interface)
    }

    /// Name of the killswitch's own firewall table: no interface's name has a hyphen.
    #[must_use]
    pub fn guard(&self) -> String {
        format!("{}-guard", self.table())
    }

    /// Whether a route of ours belongs to this interface, whose TUN device has this index.
    #[must_use]
    pub fn owns_route(&self, route: &Route, device: Option<u32>) -> bool {
        [self.t1, self.t0].contains(&route.table)
            || match route.target {
                Target::Unreachable | Target::Throw => route.metric == self.killswitch_metric,
                Target::Device(index) => device == Some(index),
            }
    }

    /// Whether a rule of ours belongs to this interface and, among `all` rules of ours, to no
    /// other: the rules for `main` look the same for two interfaces of one slot.
    #[must_use]
    pub fn owns_rule(&self, rule: &Rule, all: &[Rule]) -> bool {
        let shared = |other: &Rule| {
            other.priority == PRIORITY_T0 + self.slot && ![self.t1, self.t0].contains(&other.table)
        };
        match rule.table {
            TABLE_MAIN => rule.priority == PRIORITY_MAIN + self.slot && !all.iter().any(shared),
            table => [self.t1, self.t0].contains(&table),
        }
    }

    /// The rules for a family in which T1 has routes and throws `onlink` networks back, and T0 has
    /// default routes if `full`. Those for `main` are there for full tunnels and for such networks
    /// only: nobody else's routing changes. That for T1 is the last, because what it throws back
    /// needs the others.
    pub(super) fn rules(
        &self,
        family: Family,
        mark: (u32, u32),
        t1: bool,
        full: bool,
        onlink: &[IpCidr],
    ) -> Vec<Rule> {
        let into = |priority: u32, table| Rule {
            family,
            priority: priority + self.slot,
            not_mark: Some(mark),
            to: None,
            table,
            suppress_prefix_len: None,
        };
        let main = Rule {
            not_mark: None,
            suppress_prefix_len: Some(0),
            ..into(PRIORITY_MAIN, TABLE_MAIN)
        };
        let mut rules = Vec::new();
        if full {
            rules.push(main);
        }
        let onlink = onlink.iter().filter(|network| Family::of(network) == family);
        rules.extend(onlink.map(|network| {
            let suppress_prefix_len = Some(u32::from(network.prefix_len()).saturating_sub(1));
            Rule { to: Some(*network), suppress_prefix_len, ..main }
        }));
        if !rules.is_empty() {
            rules.push(into(PRIORITY_T0, self.t0));
        }
        if t1 {
            rules.push(into(PRIORITY_T1, self.t1));
        }
        rules
    }
}
