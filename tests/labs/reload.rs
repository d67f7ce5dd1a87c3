//! Every option that can be edited is edited, and the daemon reads its file again: the peer that
//! was edited is back at once, and the other one has not lost a packet.
//!
//! ```text
//!   client 10.1.0.2 -- a 192.0.2.1 =+= 192.0.2.2, .22 b 10.2.0.2, the peer that is edited
//!                                   +== 192.0.2.3      c 10.3.0.2, the one that is not
//! ```

use std::time::{Duration, Instant};

use simplevpn_tests::lab::daemon::{Daemon, KeyPair, Keys, Peer, Vpn};
use simplevpn_tests::lab::process::eventually;
use simplevpn_tests::lab::stream::Stream;
use simplevpn_tests::lab::{Host, Lab, ip};

use crate::ike::{PROMPT, PSK};

/// How soon a peer that was edited has to be back: about two seconds, on a machine that is busy.
const BACK: Duration = Duration::from_secs(5);

/// Who calls, and whether a's sections have names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    calls: bool,
    named: bool,
    manual: bool,
}

/// A change to a section.
type Change<T> = Box<dyn Fn(T) -> T>;

/// One edit of a's configuration, from which the next row goes back again.
struct Row {
    what: &'static str,
    /// Of the interface section.
    vpn: Change<Vpn>,
    /// Of b's section.
    peer: Change<Peer>,
    /// Of all sections of peers, b's being the first of two.
    peers: Change<Vec<Peer>>,
    /// What b is told at the same time.
    there: Change<Vpn>,
    peer_there: Change<Peer>,
    /// Whether b keeps the SAs that it had in the row before.
    kept: bool,
    /// Whether it can be reached then, and where.
    at: Option<&'static str>,
}

fn row(what: &'static str) -> Row {
    Row {
        what,
        vpn: Box::new(|vpn| vpn),
        peer: Box::new(|peer| peer),
        peers: Box::new(|peers| peers),
        there: Box::new(|vpn| vpn),
        peer_there: Box::new(|peer| peer),
        kept: true,
        at: Some("10.2.0.2"),
    }
}

/// b is as it was at first, and not as it was before.
fn back() -> Row {
    row("as it was").anew()
}

impl Row {
    fn vpn(self, change: impl Fn(Vpn) -> Vpn + 'static) -> Row {
        Row { vpn: Box::new(change), ..self }
    }

    fn peer(self, change: impl Fn(Peer) -> Peer + 'static) -> Row {
        Row { peer: Box::new(change), ..self }
    }

    fn peers(self, change: impl Fn(Vec<Peer>) -> Vec<Peer> + 'static) -> Row {
        Row { peers: Box::new(change), ..self }
    }

    fn option(self, value: &'static str) -> Row {
        let name = self.what;
        self.peer(move |peer| peer.option(name, value))
    }

    fn list(self, values: &'static str) -> Row {
        let name = self.what;
        self.peer(move |peer| peer.list(name, values))
    }

    fn of_interface(self, value: &'static str) -> Row {
        let name = self.what;
        self.vpn(move |vpn| vpn.option(name, value))
    }

    fn there(self, name: &'static str, value: &str) -> Row {
        let value = value.to_owned();
        Row { peer_there: Box::new(move |peer| peer.option(name, &value)), ..self }
    }

    /// b is negotiated with anew.
    fn anew(self) -> Row {
        Row { kept: false, ..self }
    }

    fn at(self, address: &'static str) -> Row {
        Row { at: Some(address), ..self }
    }

    fn out_of_reach(self) -> Row {
        Row { at: None, ..self }
    }
}

/// What can be edited whatever the keys are.
fn common() -> Vec<Row> {
    let stranger = || Peer::new("stranger", &Keys::pair().0).allowed("10.8.0.0/24");
    vec![
        row("description").option("Head office"),
        row("persistent_keepalive").option("7"),
        row("name").peers(|peers| {
            peers.into_iter().zip(["x", "y"]).map(|(peer, name)| peer.named(name)).collect()
        }),
        row("order").peers(|peers| peers.into_iter().rev().collect()),
        row("another one before").peers(move |mut peers| {
            peers.insert(0, stranger());
            peers
        }),
        row("route_allowed_ips").option("0").out_of_reach(),
        row("disabled").option("1").anew().out_of_reach(),
        row("an error").peer(|peer| peer.option("unknown", "1")).anew().out_of_reach(),
        row("removed").peers(|peers| peers.into_iter().skip(1).collect()).anew().out_of_reach(),
        back(),
        row("addresses").vpn(|vpn| vpn.address("10.77.0.1/32")),
        row("pool").vpn(|vpn| vpn.list("pool", "10.66.0.0/24")),
        row("mtu").of_interface("1300"),
        row("killswitch").of_interface("0"),
        row("steering").of_interface("route"),
        row("zone").of_interface("lan"),
        row("nothing"),
    ]
}

/// What concerns keys that IKE negotiates.
fn of_ike(kind: Kind) -> Vec<Row> {
    let mut rows = vec![
        row("allowed_ips").list("10.9.0.0/24").anew(),
        row("local_ips").list("10.1.0.0/24").anew(),
        row("offset").option("0.16.0.0").anew().at("10.18.0.2"),
        row("offset6")
            .option("0:0:0:16::")
            .peer(|peer| peer.list("allowed_ips", "fd02::/64").option("offset6", "0:0:0:16::"))
            .anew(),
        row("encap").option("esp").anew(),
        row("encap").option("udp").anew(),
        row("local_id").option("a.test").there("remote_id", "a.test").anew(),
        row("remote_id").option("b.test").there("local_id", "b.test").anew(),
        row("preshared_key").option(PSK).there("preshared_key", PSK).anew(),
        row("ppk_required")
            .peer(|peer| peer.option("preshared_key", PSK).option("ppk_required", "0"))
            .there("preshared_key", PSK)
            .anew(),
        row("ppk_id")
            .peer(|peer| {
                peer.option("preshared_key", PSK)
                    .option("ppk_required", "0")
                    .option("ppk_id", "other")
            })
            .anew(),
    ];
    rows.push(back());
    if kind.calls {
        rows.extend([
            row("start").option("traffic"),
            row("start").option("none"),
            row("start").option("auto"),
            row("endpoint_nat_port").option("4501").anew().out_of_reach(),
            row("endpoint_port").option("501").anew().out_of_reach(),
            row("endpoint_host").option("192.0.2.22").anew(),
            back(),
        ]);
    }
    rows
}

/// What concerns manual keys. b does not follow where its end would have to be told as well.
fn of_manual(kind: Kind) -> Vec<Row> {
    let mut rows = vec![
        row("allowed_ips").list("10.9.0.0/24"),
        row("local_ips").list("10.1.0.0/24"),
        row("offset").option("0.16.0.0").at("10.18.0.2"),
        row("replay_window").option("64"),
        row("esn").option("0").there("esn", "0"),
        row("encap").option("esp"),
        row("encap").option("udp"),
    ];
    if kind.calls {
        rows.push(row("endpoint_host").option("192.0.2.22"));
    }
    rows
}

/// The machines, what their configurations begin with, and b's daemon with c's.
struct Net {
    kind: Kind,
    client: Host,
    a: Host,
    c: Host,
    vpn: Vpn,
    peers: Vec<Peer>,
    vpn_of_b: Vpn,
    peer_of_b: Peer,
}

impl Net {
    fn new(lab: &Lab, kind: Kind) -> (Net, Host, Daemon) {
        let [client, a, b, c] = lab.hosts(["client", "a", "b", "c"]);
        lab.link(client.port("eth0", "10.1.0.2/24"), a.port("lan", "10.1.0.1/24"));
        lab.switch([
            a.port("wan", "192.0.2.1/24"),
            b.port("wan", "192.0.2.2/24 192.0.2.22/24"),
            c.port("wan", "192.0.2.3/24"),
        ]);
        for (gateway, address) in [(&b, "10.2.0.2/24"), (&c, "10.3.0.2/24")] {
            gateway.run(&format!("ip addr add {address} dev lo"));
        }
        client.default_via("10.1.0.1");
        a.forwards();
        let keys = [&a, &b, &c].map(KeyPair::new);
        let section = |at: usize, pair: &Keys, name: &str| match kind.manual {
            true => Peer::new(name, pair),
            false => Peer::ike(name).option("public_key", &keys[at].public),
        };
        let interface = |at: usize| match kind.manual {
            true => Vpn::new(),
            false => Vpn::new().option("private_key", &keys[at].private),
        };
        let (to_b, to_a) = Keys::pair();
        let (to_c, to_a_from_c) = Keys::pair();
        let called = |peer: Peer, calls: bool, at: &str| if calls { peer.at(at) } else { peer };
        let names = if kind.named { ["b", "c"] } else { ["", ""] };
        let peers = vec![
            called(section(1, &to_b, names[0]).allowed("10.2.0.0/24"), kind.calls, "192.0.2.2"),
            called(section(2, &to_c, names[1]).allowed("10.3.0.0/24"), kind.calls, "192.0.2.3"),
        ];
        let back = |pair: &Keys| {
            called(section(0, pair, "a").allowed("10.1.0.0/24"), !kind.calls, "192.0.2.1")
        };
        let of_c = c.starts(&interface(2).peer(back(&to_a_from_c)));
        let (vpn, vpn_of_b, peer_of_b) = (interface(0), interface(1), back(&to_a));
        (Net { kind, client, a, c, vpn, peers, vpn_of_b, peer_of_b }, b, of_c)
    }

    fn of_a(&self, row: &Row) -> Vpn {
        let mut peers = self.peers.clone();
        let first = peers.remove(0);
        peers.insert(0, (row.peer)(first));
        (row.peers)(peers).into_iter().fold((row.vpn)(self.vpn.clone()), Vpn::peer)
    }

    fn of_b(&self, row: &Row) -> Vpn {
        (row.there)(self.vpn_of_b.clone()).peer((row.peer_there)(self.peer_of_b.clone()))
    }

    fn reaches(&self, address: &str) -> bool {
        self.client.ping_with(ip(address), "-W 0.2", 1).all()
    }

    /// Runs through the rows, and fails unless b is back in time after each and c has kept its SAs.
    fn goes_through(&self, a: &mut Daemon, b: &mut Daemon, rows: &[Row]) {
        let steady = spi(a, "10.3.0.0/24");
        let mut before = self.of_b(&row("nothing")).to_string();
        for row in rows {
            let (what, old) = (row.what, spi(a, "10.2.0.0/24"));
            let reloads = a.log().matches(": reloaded").count();
            let there = self.of_b(row);
            if before != there.to_string() {
                b.reloads(&there);
                before = there.to_string();
            }
            let start = Instant::now();
            a.reloads(&self.of_a(row));
            let done = || a.log().matches(": reloaded").count() > reloads;
            assert!(eventually(BACK, done), "{what}: {}", a.log());
            if let Some(address) = row.at {
                let now = || spi(a, "10.2.0.0/24");
                let other = || self.kind.manual || row.kept || now() != old;
                let back = eventually(BACK, || self.reaches(address) && other());
                let took = start.elapsed();
                assert!(back && took < BACK, "{:?}: {what}: {took:?}\n{}", self.kind, a.show());
                println!("{:?}: {what}: back after {} ms", self.kind, took.as_millis());
            }
            if row.kept && old.is_some() {
                assert_eq!(spi(a, "10.2.0.0/24"), old, "{what}: b has kept its SAs");
            }
            assert_eq!(spi(a, "10.3.0.0/24"), steady, "{what}: c has kept its SAs");
        }
    }
}

/// The inbound SPI of the peer that has a prefix.
fn spi(a: &Daemon, prefix: &str) -> Option<String> {
    let json = a.json();
    let mut peers = json.split("{\"name\":").skip(1);
    let peer = peers.find(|peer| peer.contains(&format!("\"{prefix}\"")))?;
    let (_, rest) = peer.split_once("\"spi_in\":")?;
    let (spi, _) = rest.split_once(',')?;
    (spi != "null").then(|| spi.to_owned())
}

/// Goes through all rows while traffic with c goes both ways.
fn every_edit(kind: Kind) {
    let lab = Lab::new();
    let (net, host_b, _c) = Net::new(&lab, kind);
    let nothing = row("nothing");
    let mut b = host_b.starts(&net.of_b(&nothing));
    let mut a = net.a.starts(&net.of_a(&nothing));
    let up = eventually(PROMPT, || net.reaches("10.2.0.2") && net.reaches("10.3.0.2"));
    assert!(up, "{}", a.show());
    let every = Duration::from_millis(5);
    let streams = [
        net.client.streams_to(&net.c, ip("10.3.0.2"), every),
        net.c.streams_to(&net.client, ip("10.1.0.2"), every),
    ];
    assert!(eventually(PROMPT, || streams.iter().all(|stream| stream.arrived() > 10)));
    let mut rows = if kind.manual { of_manual(kind) } else { of_ike(kind) };
    rows.extend(common());
    net.goes_through(&mut a, &mut b, &rows);
    for account in streams.map(Stream::ends) {
        assert!(account.is_complete(), "{kind:?}: {account:?}");
    }
}

#[test]
fn every_edit_of_who_calls() {
    for named in [true, false] {
        every_edit(Kind { calls: true, named, manual: false });
    }
}

#[test]
fn every_edit_of_who_answers() {
    for named in [true, false] {
        every_edit(Kind { calls: false, named, manual: false });
    }
}

#[test]
fn every_edit_with_manual_keys() {
    for (calls, named) in [(true, true), (true, false)] {
        every_edit(Kind { calls, named, manual: true });
    }
}

/// What concerns all peers: every one is negotiated with anew, and back.
#[test]
fn an_edit_of_what_we_are() {
    for calls in [true, false] {
        let kind = Kind { calls, named: false, manual: false };
        let lab = Lab::new();
        let (net, host_b, _c) = Net::new(&lab, kind);
        let nothing = row("nothing");
        let mut b = host_b.starts(&net.of_b(&nothing));
        let mut a = net.a.starts(&net.of_a(&nothing));
        assert!(eventually(PROMPT, || net.reaches("10.2.0.2") && net.reaches("10.3.0.2")));
        let other = KeyPair::new(&net.a);
        let identity = Row {
            vpn: Box::new({
                let private = other.private.clone();
                move |_| Vpn::new().option("private_key", &private)
            }),
            ..row("private_key").there("public_key", &other.public).anew()
        };
        let asks = row("addresses 'auto'").vpn(|vpn| vpn.address("auto")).anew();
        let rows = if calls { vec![asks, back()] } else { Vec::new() };
        for row in rows.into_iter().chain([identity]) {
            let old = spi(&a, "10.2.0.0/24");
            let start = Instant::now();
            b.reloads(&net.of_b(&row));
            a.reloads(&net.of_a(&row));
            let anew = || spi(&a, "10.2.0.0/24") != old;
            let back = eventually(BACK, || net.reaches("10.2.0.2") && anew());
            let took = start.elapsed();
            assert!(back && took < BACK, "{}: {took:?}\n{}", row.what, a.show());
            println!("{kind:?}: {}: back after {} ms", row.what, took.as_millis());
        }
    }
}

/// What changes only with a restart says so, and everything goes on.
#[test]
fn what_a_restart_takes() {
    let kind = Kind { calls: true, named: false, manual: false };
    let lab = Lab::new();
    let (net, host_b, _c) = Net::new(&lab, kind);
    let nothing = row("nothing");
    let _b = host_b.starts(&net.of_b(&nothing));
    let mut a = net.a.starts(&net.of_a(&nothing));
    assert!(eventually(PROMPT, || net.reaches("10.2.0.2") && net.reaches("10.3.0.2")));
    let before = [spi(&a, "10.2.0.0/24"), spi(&a, "10.3.0.0/24")];
    let rows = [("port", "501"), ("nat_port", "4501"), ("fwmark", "0x77"), ("tunlink", "wan")];
    for (option, value) in rows {
        let row = row(option).vpn(move |vpn| vpn.option(option, value));
        a.reloads(&net.of_a(&row));
        let says = format!("{option} changes only with a restart; the configuration before stays");
        assert!(eventually(PROMPT, || a.log().contains(&says)), "{option}: {}", a.log());
        assert!(net.client.pings("10.2.0.2") && net.client.pings("10.3.0.2"), "{option}");
    }
    assert_eq!([spi(&a, "10.2.0.0/24"), spi(&a, "10.3.0.0/24")], before);
}

/// A peer that leaves the configuration learns of it.
#[test]
fn a_peer_that_is_removed_is_told() {
    let kind = Kind { calls: true, named: false, manual: false };
    let lab = Lab::new();
    let (net, host_b, _c) = Net::new(&lab, kind);
    let nothing = row("nothing");
    let b = host_b.starts(&net.of_b(&nothing));
    let mut a = net.a.starts(&net.of_a(&nothing));
    assert!(eventually(PROMPT, || net.reaches("10.2.0.2")));
    a.reloads(&net.of_a(&row("removed").peers(|peers| peers.into_iter().skip(1).collect())));
    let told = || b.show().contains("they closed the connection");
    assert!(eventually(Duration::from_secs(2), told), "{}", b.show());
    assert!(net.reaches("10.3.0.2"));
}
