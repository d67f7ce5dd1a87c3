//! A site of many subnets, listed one by one at the other end.
//!
//! ```text
//!   client -- a 192.0.2.1 ======== ESP in UDP ======== 192.0.2.2 b -- 10.20.1.1 … 10.20.32.1
//!   10.1.0.2
//! ```

use simplevpn_tests::lab::Host;
use simplevpn_tests::lab::daemon::{KeyPair, Peer, Vpn};

use crate::ike::{Caller, PROMPT, Story, says, sites};

const CLIENT: &str = "10.1.0.0/24";

/// The subnets of the site.
fn subnets(count: u32, separator: &str) -> String {
    let all: Vec<_> = (1..=count).map(|n| format!("10.20.{n}.0/24")).collect();
    all.join(separator)
}

/// Gives a gateway an address in each.
fn owns(gateway: &Host, count: u32) {
    for n in 1..=count {
        gateway.run(&format!("ip addr add 10.20.{n}.1/32 dev lo"));
    }
}

/// How many of them answer.
fn reached(from: &Host, count: u32) -> u32 {
    assert!(from.reaches_within("10.20.1.1", PROMPT), "none is reached");
    (1..=count).filter(|n| from.pings(&format!("10.20.{n}.1"))).count() as u32
}

///  a, which lists the subnets of b == b, which lists none of its own; either of which calls
#[test]
fn two_of_ours_and_up_to_thirty_two_subnets() {
    let (_lab, sites) = sites();
    owns(&sites.b, 32);
    for count in [5, 12, 32] {
        for a_calls in [true, false] {
            let (at_a, at_b) = (KeyPair::new(&sites.a), KeyPair::new(&sites.b));
            let to_b = Peer::ike("b").option("public_key", &at_b.public);
            let to_b = to_b.allowed(&subnets(count, " "));
            let to_a = Peer::ike("a").option("public_key", &at_a.public).allowed(CLIENT);
            let (to_b, to_a) =
                if a_calls { (to_b.at("192.0.2.2"), to_a) } else { (to_b, to_a.at("192.0.2.1")) };
            let of =
                |own: &KeyPair, peer| Vpn::new().option("private_key", &own.private).peer(peer);
            let b = sites.b.starts(&of(&at_b, to_a));
            let a = sites.a.starts(&of(&at_a, to_b));
            let reached = reached(&sites.client, count);
            assert_eq!(reached, count, "a calls: {a_calls}\n{}\n{}", a.show(), b.show());
            // New keys are for all of them as well.
            b.rekeys();
            says(&b, "up");
            assert_eq!(self::reached(&sites.client, count), count, "after rekeying");
        }
    }
}

///  a, with five subnets of its own and none listed == strongSwan b, which lists them
#[test]
fn strongswan_calls_with_five_subnets() {
    for count in [5, 32] {
        let (_lab, sites) = sites();
        owns(&sites.a, count);
        let story = Story::psk(Caller::Them);
        let story = story.theirs(|c| c.protects("10.2.0.0/24", &subnets(count, ",")));
        let (ends, outcome) = story.begins(&sites.a, &sites.b);
        assert_eq!(outcome, Ok(()), "{count}: {}", ends.us.show());
        assert_eq!(reached(&sites.server, count), count, "{}", ends.us.show());
    }
}
