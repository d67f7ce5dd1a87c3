//! What labs of IKE share: `simplevpn` as gateway a, strongSwan as gateway b.
//!
//! ```text
//!   client -- a simplevpn ======== ESP in UDP ======== strongSwan b -- server
//!   10.1.0.2    192.0.2.1                               192.0.2.2    10.2.0.2
//! ```

use std::time::Duration;

use simplevpn_tests::lab::daemon::{Daemon, KeyPair, Peer, Vpn};
use simplevpn_tests::lab::process::eventually;
use simplevpn_tests::lab::stream::Stream;
use simplevpn_tests::lab::{Host, Lab, ip};
use simplevpn_tests::peers::strongswan::StrongSwan;
use simplevpn_tests::peers::swanctl::{Connection, KeyFiles};

use crate::topology::Sites;

/// How long a connection may take to come about, a lost message included.
pub(crate) const PROMPT: Duration = Duration::from_secs(10);

/// A preshared key as `simplevpn genpsk` prints it.
pub(crate) const PSK: &str = "EC6QLBNOuSg5y4669fT6gQbbp7Sz9Yt8zFblA5N2mZo=";
/// Another one.
pub(crate) const OTHER_PSK: &str = "n2cK7wlV8EtKre1yxU+5TQVIAnCEoa5zpgs2jPSpVPc=";

/// The other end's preshared key in strongSwan's notation.
pub(crate) fn in_swanctl(psk: &str) -> String {
    format!("0s{psk}")
}

/// Who begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    Us,
    Them,
}

impl Caller {
    pub(crate) const BOTH: [Caller; 2] = [Caller::Us, Caller::Them];
}

/// What both ends are told.
#[derive(Clone)]
pub(crate) struct Story {
    pub(crate) caller: Caller,
    pub(crate) vpn: Vpn,
    pub(crate) peer: Peer,
    pub(crate) connection: Connection,
}

/// What two of ours are told: nothing but their keys, where b is, and what lies behind each.
pub(crate) fn two_of_ours(sites: &Sites) -> (Vpn, Vpn) {
    let (at_a, at_b) = (KeyPair::new(&sites.a), KeyPair::new(&sites.b));
    let to_b = Peer::ike("b").option("public_key", &at_b.public).at("192.0.2.2").allowed(SITE_B);
    let to_a = Peer::ike("a").option("public_key", &at_a.public).allowed(SITE_A);
    let a = Vpn::new().option("private_key", &at_a.private).peer(to_b);
    let b = Vpn::new().option("private_key", &at_b.private).peer(to_a);
    (a, b)
}

/// Waits until `simplevpn show` contains these words.
pub(crate) fn says(daemon: &Daemon, words: &str) {
    let said = eventually(PROMPT, || daemon.show().contains(words));
    assert!(said, "{words:?} is not in\n{}", daemon.show());
}

/// The LANs of the sites.
pub(crate) const SITE_A: &str = "10.1.0.0/24 fd01::/64";
pub(crate) const SITE_B: &str = "10.2.0.0/24 fd02::/64";

/// Both ends at work.
pub(crate) struct Ends {
    pub(crate) us: Daemon,
    pub(crate) swan: StrongSwan,
}

impl Story {
    /// They know each other by a preshared key and names.
    pub(crate) fn psk(caller: Caller) -> Story {
        let mut story = Story::blank(caller).ours("preshared_key", PSK);
        story = story.ours("local_id", "a.test").ours("remote_id", "b.test");
        story.theirs(|connection| connection.psk("b.test", "a.test", &in_swanctl(PSK)))
    }

    /// They know each other by nothing but their public keys.
    pub(crate) fn keys(caller: Caller, sites: &Sites) -> Story {
        let (ours, theirs) = (KeyPair::new(&sites.a), KeyFiles::new(&sites.b));
        let mut story = Story::blank(caller).ours("public_key", &theirs.public);
        story.vpn = story.vpn.option("private_key", &ours.private);
        story.theirs(|connection| connection.raw_keys(&theirs, &ours.pem))
    }

    fn blank(caller: Caller) -> Story {
        let peer = Peer::ike("b").allowed("10.2.0.0/24");
        let peer = if caller == Caller::Us { peer.at("192.0.2.2") } else { peer };
        let connection =
            Connection::between("192.0.2.2", "192.0.2.1").protects("10.2.0.0/24", "10.1.0.0/24");
        Story { caller, vpn: Vpn::new(), peer, connection }
    }

    /// An option of our peer section.
    pub(crate) fn ours(mut self, name: &str, value: &str) -> Story {
        self.peer = self.peer.option(name, value);
        self
    }

    /// A change to strongSwan's end.
    pub(crate) fn theirs(mut self, change: impl FnOnce(Connection) -> Connection) -> Story {
        self.connection = change(self.connection);
        self
    }

    /// strongSwan proposes and accepts only this, for IKE and for ESP.
    pub(crate) fn proposals(self, ike: &str, esp: &str) -> Story {
        self.theirs(|connection| connection.option("proposals", ike).child("esp_proposals", esp))
    }

    /// Our whole configuration.
    pub(crate) fn our_end(&self) -> Vpn {
        self.vpn.clone().peer(self.peer.clone())
    }

    /// Both ends start; nothing has to come of it.
    pub(crate) fn begins(&self, a: &Host, b: &Host) -> (Ends, Result<(), String>) {
        match self.caller {
            Caller::Us => {
                let swan = b.runs_strongswan(&self.connection);
                (Ends { us: a.starts(&self.our_end()), swan }, Ok(()))
            }
            Caller::Them => {
                let us = a.starts(&self.our_end());
                let swan = b.runs_strongswan(&self.connection);
                let outcome = swan.initiates();
                (Ends { us, swan }, outcome)
            }
        }
    }

    /// Both ends start, and the client reaches the server.
    pub(crate) fn connects(&self, sites: &Sites) -> Ends {
        let (ends, outcome) = self.begins(&sites.a, &sites.b);
        if let Err(why) = outcome {
            panic!("strongSwan does not connect:\n{why}\n{}", ends.us.show());
        }
        let reached = sites.client.reaches_within("10.2.0.2", PROMPT);
        assert!(reached, "{:?} called, and the client does not reach the server", self.caller);
        ends
    }
}

impl Ends {
    /// Waits until `simplevpn show` contains these words.
    pub(crate) fn we_say(&self, words: &str) {
        says(&self.us, words);
    }

    /// Waits until our log contains these words: what is said of those who may be anybody.
    pub(crate) fn we_log(&self, words: &str) {
        let logged = eventually(PROMPT, || self.us.log().contains(words));
        assert!(logged, "{words:?} is not in the log");
    }
}

/// Gives a gateway another address outside, in place of the one it had.
pub(crate) fn renumber(gateway: &Host, old: &str, new: &str) {
    // So that the first address of a subnet does not take the others with it.
    gateway.sysctl("ipv4/conf/wan/promote_secondaries", "1");
    gateway.run(&format!("ip addr add {new}/24 dev wan"));
    gateway.run(&format!("ip addr del {old}/24 dev wan"));
}

/// Two sites without anything between them yet, and the lab that they are in.
pub(crate) fn sites() -> (Lab, Sites) {
    let lab = Lab::new();
    let sites = Sites::new(&lab);
    (lab, sites)
}

/// Steady traffic both ways between client and server.
pub(crate) struct Traffic([Stream; 2]);

impl Traffic {
    /// A datagram each way every four milliseconds, and both ways are in use when this returns.
    /// More often, and the queues of a machine that is busy elsewhere for a moment lose some.
    pub(crate) fn starts(sites: &Sites) -> Traffic {
        let every = Duration::from_millis(4);
        let traffic = Traffic([
            sites.client.streams_to(&sites.server, ip("10.2.0.2"), every),
            sites.server.streams_to(&sites.client, ip("10.1.0.2"), every),
        ]);
        traffic.goes_on();
        traffic
    }

    /// Waits until another fifty datagrams have arrived each way.
    pub(crate) fn goes_on(&self) {
        let before = self.0.each_ref().map(Stream::arrived);
        let on = || (0..2).all(|n| self.0[n].arrived() > before[n] + 50);
        assert!(eventually(PROMPT, on), "traffic has stopped");
    }

    /// Ends both streams; not one datagram was lost, and none came twice.
    pub(crate) fn ends_complete(self) {
        for (stream, way) in self.0.into_iter().zip(["to the server", "to the client"]) {
            let account = stream.ends();
            assert!(account.is_complete(), "{way}: {account:?}");
        }
    }
}
