//! A configuration with errors: what is wrong with one peer costs that peer alone, and nothing of
//! what it was to protect leaves in the clear.
//!
//! ```text
//!   a 192.0.2.1 =+= 192.0.2.2 b 10.2.0.2
//!                +- 192.0.2.9 internet: takes whatever a sends in the clear
//! ```

use simplevpn_tests::lab::daemon::{Daemon, KeyPair, Keys, Peer, Vpn};
use simplevpn_tests::lab::process::eventually;
use simplevpn_tests::lab::{Host, Lab, ip};

use crate::ike::PROMPT;

struct Net {
    a: Host,
    internet: Host,
    /// a's interface section, and its section of b.
    vpn: Vpn,
    of_b: Peer,
    _b: Daemon,
}

impl Net {
    fn new(lab: &Lab) -> Net {
        let [a, b, internet] = lab.hosts(["a", "b", "internet"]);
        lab.switch([
            a.port("wan", "192.0.2.1/24"),
            b.port("wan", "192.0.2.2/24"),
            internet.port("wan", "192.0.2.9/24"),
        ]);
        for (gateway, address) in [(&b, "10.2.0.2/24"), (&b, "10.4.0.2/24")] {
            gateway.run(&format!("ip addr add {address} dev lo"));
        }
        for address in ["10.5.0.5/32", "10.6.0.6/32", "198.51.100.80/32"] {
            internet.run(&format!("ip addr add {address} dev lo"));
        }
        a.default_via("192.0.2.9");
        let (at_a, at_b) = (KeyPair::new(&a), KeyPair::new(&b));
        let to_a = Peer::ike("a").option("public_key", &at_a.public).allowed("192.0.2.1/32");
        let of_b = Peer::ike("b").option("public_key", &at_b.public).at("192.0.2.2");
        let of_b = of_b.allowed("10.2.0.0/24").list("local_ips", "192.0.2.1/32");
        let b = b.starts(&Vpn::new().option("private_key", &at_b.private).peer(to_a));
        let vpn = Vpn::new().option("private_key", &at_a.private);
        Net { a, internet, vpn, of_b, _b: b }
    }

    /// Whether packets for an address leave a in the clear, as pings that are answered tell.
    fn is_open(&self, address: &str) -> bool {
        self.a.ping_with(ip(address), "-W 0.3", 1).all()
    }

    fn reaches_b(&self) -> bool {
        self.a.reaches_within("10.2.0.2", PROMPT)
    }
}

/// An anonymous section of a peer that is not there.
fn absent(prefix: &str) -> Peer {
    Peer::new("", &Keys::pair().0).option("description", "Head office").allowed(prefix)
}

const LABEL: &str = "'Head office' (@simplevpn_vpn0[1])";

///  a starts with a wrong peer, is mended, and is spoilt again
#[test]
fn one_wrong_peer_is_left_out_closed_and_named() {
    let lab = Lab::new();
    let net = Net::new(&lab);
    assert!(net.is_open("10.5.0.5") && net.is_open("198.51.100.80"));
    let good = net.vpn.clone().peer(net.of_b.clone());
    let wrong = absent("10.5.0.0/24").option("encap", "maybe");
    let mut a = net.a.starts(&good.clone().peer(wrong.clone()));
    assert!(net.reaches_b(), "the other peer runs:\n{}", a.show());
    assert!(!net.is_open("10.5.0.5") && net.is_open("198.51.100.80"));
    let reason = format!("peer {LABEL}: encap 'maybe' is not known");
    assert!(a.log().contains(&reason), "{}", a.log());
    assert!(a.log().contains(&format!("peer {LABEL} is left out; 10.5.0.0/24 stays closed")));
    let shown = a.show();
    assert!(shown.contains(&format!("peer: {LABEL}\n  state: refused: ")), "{shown}");
    assert!(shown.contains(&reason) && shown.contains("closed: 10.5.0.0/24"), "{shown}");
    assert!(a.json().contains("\"refused\":[{\"name\":\"'Head office'"), "{}", a.json());
    let checked = net.a.simplevpn_says(&format!("check {}", net.a.dir().join("network").display()));
    assert!(!checked.success && checked.stderr.contains(&reason), "{checked:?}");

    let spi = |a: &Daemon| a.json().split("\"spi_in\":").nth(1).map(|rest| rest[..8].to_owned());
    let before = spi(&a);
    a.reloads(&good.clone().peer(absent("10.5.0.0/24")));
    assert!(eventually(PROMPT, || !a.show().contains("refused")), "{}", a.show());
    assert!(!net.is_open("10.5.0.5"));
    // Of a prefix that cannot be read any more is known that it was closed.
    a.reloads(&good.clone().peer(absent("10.5.0.0/33").allowed("10.6.0.0/24")));
    assert!(eventually(PROMPT, || a.show().contains("refused")), "{}", a.show());
    assert!(!net.is_open("10.5.0.5") && !net.is_open("10.6.0.6"));
    assert_eq!(spi(&a), before, "the other peer has kept its SAs");
    // Without errors, what no peer has is open.
    a.reloads(&good);
    assert!(eventually(PROMPT, || net.is_open("10.5.0.5") && net.is_open("10.6.0.6")));
    assert!(net.reaches_b());
    assert_eq!(spi(&a), before);
}

///  a, with a wrong peer for everything, under every `rp_filter`: the other one runs all the same
#[test]
fn a_wrong_peer_for_everything_closes_everything_but_the_others() {
    for reverse_path in [
        simplevpn_tests::lab::ReversePath::Off,
        simplevpn_tests::lab::ReversePath::Strict,
        simplevpn_tests::lab::ReversePath::Loose,
    ] {
        let lab = Lab::with_reverse_path(reverse_path);
        let net = Net::new(&lab);
        // b is behind the router.
        net.a.run("ip addr flush dev wan");
        net.a.run("ip addr add 192.0.2.1/32 dev wan");
        net.a.run("ip route add 192.0.2.9 dev wan");
        net.a.run("ip route add default via 192.0.2.9");
        net.internet.forwards();
        let wrong = absent("0.0.0.0/0 ::/0").option("encap", "maybe");
        let a = net.a.starts(&net.vpn.clone().peer(net.of_b.clone()).peer(wrong));
        assert!(net.reaches_b(), "{reverse_path:?}: {}", a.show());
        assert!(!net.is_open("10.5.0.5") && !net.is_open("198.51.100.80"), "{reverse_path:?}");
        a.dies();
        assert!(!net.is_open("10.5.0.5") && !net.is_open("10.2.0.2"), "{reverse_path:?}");
    }
}

///  a, whose interface section has an error, or all of whose peers: it does not run, and is closed
#[test]
fn what_does_not_run_stays_closed() {
    let lab = Lab::new();
    let net = Net::new(&lab);
    let peer = || absent("10.5.0.0/24");
    let misspelt = Peer::new("", &Keys::pair().0).option("allowed_ip", "10.5.0.0/24");
    let cases = [
        ("mtu '7'", Vpn::new().option("mtu", "7").peer(peer())),
        ("private_key", net.vpn.clone().option("private_key", "none").peer(peer())),
        ("unknown option 'allowed_ip'", Vpn::new().peer(misspelt)),
    ];
    for (what, vpn) in &cases {
        for run in [true, false] {
            assert!(net.is_open("10.5.0.5"), "{what}");
            let said = match run {
                true => {
                    let mut daemon = net.a.launches(vpn);
                    let status = daemon.ends_within(PROMPT);
                    assert_eq!(status.and_then(|s| s.code()), Some(3), "{what}");
                    daemon.log()
                }
                false => {
                    let guarded = net.a.guards(Some(vpn));
                    assert!(!guarded.success, "{what}: {guarded:?}");
                    guarded.stderr
                }
            };
            assert!(said.contains(what), "{what}: {said}");
            assert!(!net.is_open("10.5.0.5"), "{what}, run: {run}: {said}");
            assert!(net.is_open("198.51.100.80"), "{what}");
            assert!(net.a.simplevpn_says("down vpn0").success);
        }
    }
}

///  a boots with a line that is no UCI: what is left of the file is closed
#[test]
fn a_file_that_is_no_uci_is_closed_as_far_as_it_can_be_read() {
    let lab = Lab::new();
    let net = Net::new(&lab);
    let vpn = Vpn::new().peer(absent("10.5.0.0/24")).peer(absent("10.6.0.0/24"));
    let text = vpn.to_string().replacen("option spi_in '", "option spi_in ", 1);
    let file = net.a.dir().join("broken");
    std::fs::write(&file, text).unwrap();
    for command in ["guard", "run"] {
        assert!(net.is_open("10.5.0.5") && net.is_open("10.6.0.6"));
        let said = net.a.simplevpn_says(&format!("{command} {}", file.display()));
        assert!(!said.success && said.stderr.contains("broken:"), "{said:?}");
        assert!(!net.is_open("10.5.0.5") && !net.is_open("10.6.0.6"), "{command}: {said:?}");
        assert!(net.a.simplevpn_says("down vpn0").success);
    }
}

///  a has no place for its run directory
#[test]
fn without_a_run_directory_everything_is_closed() {
    let lab = Lab::new();
    let net = Net::new(&lab);
    let run = net.a.dir().join("run");
    std::fs::remove_dir_all(&run).unwrap();
    std::fs::write(&run, "in the way").unwrap();
    let vpn = Vpn::new().peer(absent("10.5.0.0/24"));
    let guarded = net.a.guards(Some(&vpn));
    assert!(!guarded.success && guarded.stderr.contains("cannot make"), "{guarded:?}");
    assert!(!net.is_open("10.5.0.5"), "{guarded:?}");
    // What it remembers is not there, and everything else goes.
    let _ = net.a.simplevpn_says("down vpn0");
    assert!(net.is_open("10.5.0.5"));
    let mut daemon = net.a.launches(&vpn);
    assert!(daemon.ends_within(PROMPT).is_some_and(|status| !status.success()));
    assert!(!net.is_open("10.5.0.5"), "{}", daemon.log());
}

///  a, run by netifd: `ifstatus` says which peer is wrong, and no more once it is right
#[test]
fn netifd_learns_which_peer_is_wrong() {
    let lab = Lab::new();
    let net = Net::new(&lab);
    let netifd = net.a.has_netifd();
    let good = net.vpn.clone().peer(net.of_b.clone());
    let mut a = netifd.starts(&good.clone().peer(absent("10.5.0.0/24").option("encap", "maybe")));
    let told = |words: &str| netifd.messages().iter().any(|message| message.contains(words));
    let reason = format!("peer {LABEL}: encap 'maybe' is not known");
    let error = "\"action\":3,\"error\":[\"uci export network:";
    let both = || told(error) && told("\"refused\":[\"uci export network:") && told(&reason);
    assert!(eventually(PROMPT, both), "{:?}", netifd.messages());
    a.reloads(&good.peer(absent("10.5.0.0/24")));
    assert!(eventually(PROMPT, || told("\"refused\":[]")), "{:?}", netifd.messages());
}
