//! The binaries that routers get, under an emulator, opposite a native peer: what differs between
//! architectures (byte order, word size, numbers and layouts of system calls) meets real packets.
//!
//! All architectures do the two scenarios; big-endian MIPS, which differs most, does the rest. What
//! the emulator cannot do says `tests/lab/processor.rs`; for its sake routers steer by `route` and
//! `offset` here.

use std::time::{Duration, Instant};

use simplevpn_tests::lab::capture::{Captured, Kind};
use simplevpn_tests::lab::daemon::{Daemon, Keys, Peer, Vpn};
use simplevpn_tests::lab::process::eventually;
use simplevpn_tests::lab::processor::Processor;
use simplevpn_tests::lab::traffic::MARKER;
use simplevpn_tests::lab::{Lab, ip};

use crate::topology::{SITE_A, SITE_B, Sites, assert_secret};

/// How long what an emulator does may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Two sites, of which a's gateway is a router.
fn router_at_a(lab: &Lab, processor: Processor) -> Sites {
    let sites = Sites::new(lab);
    sites.a.is_a(processor);
    sites
}

/// Both ends of the big-endian router's tunnel, over IPv4.
fn tunnel(lab: &Lab) -> (Sites, Daemon, Daemon) {
    let sites = router_at_a(lab, Processor::Mips24Kc);
    let (a, b) = sites.tunnel();
    (sites, a, b)
}

///  client 10.1.0.2 -- router 192.0.2.1 ==ESP== 192.0.2.2 b -- 10.2.0.2 server
///         fd01::2            fd00::1           fd00::2        fd02::2
fn routed(processor: Processor, ipv6: bool, encap: &str) {
    let lab = Lab::new();
    let sites = router_at_a(&lab, processor);
    let (a, b) = sites.configurations(Keys::pair(), ipv6, encap);
    let (a, b) = (sites.a.starts(&a), sites.b.starts(&b));

    let wire = sites.b.capture("wan");
    for (of_server, of_client) in [("10.2.0.2", "10.1.0.2"), ("fd02::2", "fd01::2")] {
        sites.client.assert_uses(&sites.server, of_server);
        sites.server.assert_uses(&sites.client, of_client);
        sites.a.assert_uses(&sites.server, of_server);
    }
    let seen = wire.finish();
    assert_secret(&seen);
    let outer = if encap == "udp" { Kind::UdpEncapsulated } else { Kind::Esp };
    assert!(seen.count_kind(outer) > 100 && seen.count(|f| f.concerns(far_end(ipv6))) > 100);
    assert!(a.counter("packets") > 100 && b.counter("packets") > 100, "{}", a.json());
}

fn far_end(ipv6: bool) -> std::net::IpAddr {
    if ipv6 { ip("fd00::2") } else { ip("192.0.2.2") }
}

#[test]
fn big_endian_mips_routed_in_esp() {
    routed(Processor::Mips24Kc, false, "esp");
    routed(Processor::Mips24Kc, true, "esp");
}

#[test]
fn big_endian_mips_routed_in_udp() {
    routed(Processor::Mips24Kc, false, "udp");
    routed(Processor::Mips24Kc, true, "udp");
}

#[test]
fn little_endian_mips_routed() {
    routed(Processor::Mipsel24Kc, false, "esp");
    routed(Processor::Mipsel24Kc, true, "udp");
}

#[test]
fn armv5_routed() {
    routed(Processor::Arm926, false, "esp");
    routed(Processor::Arm926, true, "udp");
}

#[test]
fn armv7_in_thumb_routed() {
    routed(Processor::CortexA7, false, "esp");
    routed(Processor::CortexA7, true, "udp");
}

///  client -- big-endian router ==ESP== little-endian router -- server
#[test]
fn routers_at_both_ends() {
    let lab = Lab::new();
    let sites = router_at_a(&lab, Processor::Mips24Kc);
    sites.b.is_a(Processor::Arm926);
    let (_a, _b) = sites.tunnel();
    let wire = sites.a.capture("wan");
    for address in ["10.2.0.2", "fd02::2"] {
        sites.client.assert_uses(&sites.server, address);
    }
    assert_secret(&wire.finish());
}

///  client 192.168.5.2 -- router 10.0.0.161 ==ESP== 10.0.0.160 server
///         fd05::2               fd00::161         fd00::160
///
/// The server steers by either way: what is on the wire is the same.
fn same_subnet(processor: Processor) {
    for steering in ["offset", "policy"] {
        let lab = Lab::new();
        let [client, router, server] = lab.hosts(["client", "router", "server"]);
        lab.link(
            client.port("eth0", "192.168.5.2/24 fd05::2/64"),
            router.port("lan", "192.168.5.1/24 fd05::1/64"),
        );
        let switch = lab.switch([
            router.port("wan", "10.0.0.161/24 fd00::161/64"),
            server.port("eth0", "10.0.0.160/24 fd00::160/64"),
        ]);
        client.default_via("192.168.5.1 fd05::1");
        router.forwards().masquerades("wan").is_a(processor);
        let (at_router, at_server) = Keys::pair();
        let to_server = shifted(Peer::new("server", &at_router))
            .at("10.0.0.160")
            .allowed("10.0.0.160/32 fd00::160/128");
        let to_router = Peer::new("router", &at_server)
            .at("10.0.0.161")
            .allowed("10.0.0.161/32 fd00::161/128 192.168.5.0/24 fd05::/64");
        let to_router = if steering == "offset" { shifted(to_router) } else { to_router };
        let _router = router.starts(&Vpn::new().steering("offset").peer(to_server));
        let _server = server.starts(&Vpn::new().steering(steering).peer(to_router));

        let wire = switch.capture("server");
        for (of_server, of_router) in [("10.0.0.160", "10.0.0.161"), ("fd00::160", "fd00::161")] {
            client.assert_uses(&server, of_server);
            router.assert_uses(&server, of_server);
            server.assert_uses(&router, of_router);
        }
        assert_secret(&wire.finish());
        assert!(client.pings("192.168.5.1"));
    }
}

fn shifted(peer: Peer) -> Peer {
    peer.option("offset", "0.0.1.0").option("offset6", "0:0:0:1::")
}

#[test]
fn big_endian_mips_and_its_neighbour() {
    same_subnet(Processor::Mips24Kc);
}

#[test]
fn little_endian_mips_and_its_neighbour() {
    same_subnet(Processor::Mipsel24Kc);
}

#[test]
fn armv5_and_its_neighbour() {
    same_subnet(Processor::Arm926);
}

///  router, big-endian, whose packets have to be marked ==ESP== b
///
/// An emulator that knows no marks makes it a machine without them: that is said, and `auto` takes
/// the other way.
#[test]
fn policy_steering_works_or_says_what_is_missing() {
    let lab = Lab::new();
    let sites = router_at_a(&lab, Processor::Mips24Kc);
    let (a, b) = sites.configurations(Keys::pair(), false, "esp");
    let _b = sites.b.starts(&b);
    let mut asked = sites.a.launches(&a.clone().steering("policy"));
    let missing = asked.becomes_ready(PATIENCE).err();
    match &missing {
        None => sites.client.assert_uses(&sites.server, "10.2.0.2"),
        Some(why) => assert!(why.contains("the permission to mark sockets"), "{why}"),
    }
    drop(asked);
    let automatic = sites.a.starts(&a.steering("auto"));
    let steering = if missing.is_some() { "route" } else { "policy" };
    let wanted = format!("\"steering\":\"{steering}\"");
    assert!(automatic.json().contains(&wanted), "{}", automatic.json());
    sites.client.assert_uses(&sites.server, "10.2.0.2");
}

///  client -- big-endian router ==ESP== b -- server, with every cipher, with and without ESN
#[test]
fn every_cipher_with_and_without_extended_sequence_numbers() {
    for cipher in ["chacha20poly1305", "aes128gcm16", "aes256gcm16"] {
        for esn in ["0", "1"] {
            let lab = Lab::new();
            let sites = router_at_a(&lab, Processor::Mips24Kc);
            let (at_a, at_b) = Keys::pair_of(cipher);
            let to_b = Peer::new("b", &at_a).at("192.0.2.2").allowed(SITE_B).option("esn", esn);
            let to_a = Peer::new("a", &at_b).at("192.0.2.1").allowed(SITE_A).option("esn", esn);
            let _a = sites.a.starts(&Vpn::new().peer(to_b));
            let _b = sites.b.starts(&Vpn::new().peer(to_a));
            sites.client.assert_uses(&sites.server, "10.2.0.2");
        }
    }
}

///  client -- big-endian router ==ESP== b -- server, and one of both does not know where the other is
#[test]
fn either_side_begins() {
    for router_begins in [true, false] {
        let lab = Lab::new();
        let sites = router_at_a(&lab, Processor::Mips24Kc);
        let (at_a, at_b) = Keys::pair();
        let to_b = Peer::new("b", &at_a).allowed(SITE_B);
        let to_a = Peer::new("a", &at_b).allowed(SITE_A);
        let (to_b, to_a) =
            if router_begins { (to_b.at("192.0.2.2"), to_a) } else { (to_b, to_a.at("192.0.2.1")) };
        let _a = sites.a.starts(&Vpn::new().peer(to_b));
        let _b = sites.b.starts(&Vpn::new().peer(to_a));
        let Sites { client, server, .. } = &sites;
        if router_begins {
            assert_eq!(server.ping_sized(ip("10.1.0.2"), 56, 1).right, 0, "nobody knows where");
            assert!(client.reaches_within("10.2.0.2", PATIENCE));
        } else {
            assert_eq!(client.ping_sized(ip("10.2.0.2"), 56, 1).right, 0, "nobody knows where");
            assert!(server.reaches_within("10.1.0.2", PATIENCE));
        }
        client.assert_uses(server, "10.2.0.2");
        server.assert_uses(client, "10.1.0.2");
    }
}

/// The sequence numbers of the ESP packets of one SA, over IPv4 and in their order.
fn sequence_numbers(seen: &Captured, spi: u32) -> Vec<u32> {
    let number = |esp: &[u8]| {
        let (found, rest) = esp.split_first_chunk()?;
        (u32::from_be_bytes(*found) == spi).then_some(u32::from_be_bytes(*rest.first_chunk()?))
    };
    let packets = seen.frames.iter().filter(|frame| frame.kind == Kind::Esp);
    packets.filter_map(|frame| number(frame.packet().get(20..)?)).collect()
}

///  client -- big-endian router ==ESP== b -- server
#[test]
fn no_sequence_number_returns_after_kill_9() {
    let lab = Lab::new();
    let sites = router_at_a(&lab, Processor::Mips24Kc);
    let keys = Keys::pair();
    let (spi_out, spi_in) = (keys.0.spi_out, keys.0.spi_in);
    let (of_a, of_b) = sites.configurations(keys, false, "esp");
    let wire = sites.b.capture("wan");
    let mut a = sites.a.starts(&of_a);
    let mut b = sites.b.starts(&of_b);
    sites.client.assert_uses(&sites.server, "10.2.0.2");
    a.dies();
    a = sites.a.starts(&of_a);
    sites.client.assert_uses(&sites.server, "10.2.0.2");
    assert!(a.stops().success());
    let a = sites.a.starts(&of_a);
    sites.client.assert_uses(&sites.server, "10.2.0.2");
    b.dies();
    b = sites.b.starts(&of_b);
    sites.client.assert_uses(&sites.server, "10.2.0.2");
    assert_eq!(a.counter("replayed") + b.counter("replayed"), 0, "{}{}", a.json(), b.json());

    let seen = wire.finish();
    for spi in [spi_out, spi_in] {
        let numbers = sequence_numbers(&seen, spi);
        assert!(numbers.len() > 100 && numbers[0] == 1, "{} packets", numbers.len());
        assert!(numbers.is_sorted_by(|one, next| one < next), "{spi:#x}: one returned");
        // A crash skips the rest of its block; an orderly end and what was read back skip nothing.
        let skips = numbers.windows(2).filter(|pair| pair[1] - pair[0] > 1).count();
        assert_eq!(skips, 1, "{spi:#x}");
    }
}

///  client, marks its packets (DSCP) -- router ==ESP== b -- server
///
/// The mark is copied out; where the emulator garbles it for the kernel, the packet goes without.
#[test]
fn packets_with_a_traffic_class_pass() {
    for (processor, copied) in [(Processor::Mips24Kc, false), (Processor::Arm926, true)] {
        let lab = Lab::new();
        let sites = router_at_a(&lab, processor);
        let (_a, _b) = sites.tunnel();
        assert!(sites.client.reaches_within("10.2.0.2", PATIENCE));
        let wire = sites.b.capture("wan");
        assert!(sites.client.ping_with(ip("10.2.0.2"), "-Q 0xb8", 3).all(), "{processor:?}");
        let seen = wire.finish();
        let marked = seen.count(|frame| {
            frame.addresses == Some((ip("192.0.2.1"), ip("192.0.2.2")))
                && frame.packet().get(1) == Some(&0xb8)
        });
        assert!(marked >= 3 || !copied, "{processor:?}: {marked}");
    }
}

///  router: sequence numbers in memory would be lost with its power
#[test]
fn a_state_directory_in_memory_is_refused() {
    for processor in Processor::ALL {
        let lab = Lab::new();
        let router = lab.host("router");
        router.is_a(processor);
        let memory = router.run("mktemp -d /dev/shm/simplevpn-lab-XXXXXX").trim().to_owned();
        let peer = Peer::new("b", &Keys::pair().0).allowed("10.3.0.0/24");
        let config = router.dir().join("network");
        let vpn = Vpn::new().option("state_dir", &memory).peer(peer);
        std::fs::write(&config, vpn.to_string()).unwrap();
        let refusal = router.simplevpn_says(&format!("run {}", config.display()));
        std::fs::remove_dir_all(&memory).unwrap();
        assert!(!refusal.success && refusal.stderr.contains("is on tmpfs"), "{refusal:?}");
    }
}

///  client 10.1.0.2 -- big-endian router ==ESP== b -- 10.2.0.2 server
///  b would forward what comes in the clear, if the router let it out
#[test]
fn the_killswitch_stays_closed_until_it_is_opened() {
    let lab = Lab::new();
    let (sites, router, _b) = tunnel(&lab);
    let Sites { client, a, b, server } = &sites;
    client.assert_uses(server, "10.2.0.2");
    router.dies();
    a.default_via("192.0.2.2 fd00::2");
    b.route("10.1.0.0/24", "192.0.2.1").route("fd01::/64", "fd00::1");
    let wire = a.capture("wan");
    for address in ["10.2.0.2", "fd02::2"] {
        assert_eq!(client.ping_sized(ip(address), 56, 2).right, 0, "ping {address}");
        assert!(client.tcp(server, ip(address), 1000).is_err(), "TCP to {address}");
        let answers = a.udp(server, ip(address), 300, 1);
        assert!(!answers.is_ok_and(|answers| answers.right > 0), "UDP to {address} from a");
    }
    let seen = wire.finish();
    assert!(!seen.contains(MARKER));
    for address in ["10.2.0.2", "fd02::2"] {
        seen.assert_none("leaked", |frame| frame.concerns(ip(address)));
    }
    assert!(client.pings("10.1.0.1") && a.pings("192.0.2.2"), "LAN and WAN are reachable");

    let down = a.simplevpn_says("down vpn0");
    assert!(down.success, "{down:?}");
    for family in ["-4", "-6"] {
        let routes = a.run(&format!("ip {family} route show table all proto 50"));
        assert_eq!(routes, "", "our routes");
    }
    assert!(!a.run("nft list tables").contains("simplevpn"));
}

///  client -- big-endian router ==ESP== b -- server, and the router is told of a third peer meanwhile
#[test]
fn reload_while_a_transfer_runs() {
    let lab = Lab::new();
    let sites = router_at_a(&lab, Processor::Mips24Kc);
    let (of_a, of_b) = sites.configurations(Keys::pair(), false, "auto");
    let (mut a, _b) = (sites.a.starts(&of_a), sites.b.starts(&of_b));
    assert!(sites.client.reaches_within("10.2.0.2", PATIENCE));
    let third = Peer::new("c", &Keys::pair().0).at("192.0.2.3").allowed("10.3.0.0/24");
    let larger = of_a.clone().peer(third);
    let leads = |there: bool| {
        eventually(PATIENCE, || sites.a.run("ip route show 10.3.0.0/24").contains("vpn0") == there)
    };

    std::thread::scope(|scope| {
        let transfer = scope.spawn(|| sites.client.tcp(&sites.server, ip("10.2.0.2"), 20_000_000));
        for round in 0..4 {
            let more = round % 2 == 0;
            a.reloads(if more { &larger } else { &of_a });
            assert!(leads(more), "round {round}:\n{}", a.log());
        }
        a.reloads(&Vpn::new().option("steering", "sideways"));
        transfer.join().unwrap().unwrap();
    });
    assert!(eventually(PATIENCE, || a.log().contains("sideways")), "{}", a.log());
    sites.client.assert_uses(&sites.server, "10.2.0.2");
    assert!(a.counter("packets") > 10_000, "an unchanged peer keeps its SAs: {}", a.json());
    assert!(a.stops().success());
}

///  client -- big-endian router ==ESP== b -- server
#[test]
fn what_it_tells_is_true() {
    let lab = Lab::new();
    let sites = router_at_a(&lab, Processor::Mips24Kc);
    let keys = Keys::pair();
    let spis = format!("\"spi_in\":{},\"spi_out\":{},", keys.0.spi_in, keys.0.spi_out);
    let (of_a, of_b) = sites.configurations(keys, false, "esp");
    let (a, b) = (sites.a.starts(&of_a), sites.b.starts(&of_b));
    assert!(sites.client.reaches_within("10.2.0.2", PATIENCE));
    assert!(sites.client.ping_sized(ip("10.2.0.2"), 1000, 20).all());

    let (ours, theirs) = (a.json(), b.json());
    for part in [
        spis.as_str(),
        "\"endpoint\":\"192.0.2.2\"",
        "\"allowed_ips\":[\"10.2.0.0/24\",\"fd02::/64\",\"10.77.0.2/32\",\"fd77::2/128\"]",
        "\"nat_port\":4500",
        "\"mtu\":1446",
    ] {
        assert!(ours.contains(part), "no {part} in {ours}");
    }
    // What one end has sent, the other has received.
    let traffic = |json: &str, way: &str| -> String {
        let rest = json.split_once(&format!("\"{way}\":{{")).unwrap().1;
        rest.split_once(",\"seconds_ago\"").unwrap().0.to_owned()
    };
    assert_eq!(traffic(&ours, "sent"), traffic(&theirs, "received"));
    assert_eq!(traffic(&ours, "received"), traffic(&theirs, "sent"));
    assert!(a.show().contains("last heard: now"), "{}", a.show());
    sites.a.feed("python3 -m json.tool", &ours);
}

///  client -- big-endian router ==ESP, MTU 1400== b -- server
#[test]
fn packets_of_any_size_on_a_narrow_link() {
    for (encap, overhead) in [("esp", 52), ("udp", 60)] {
        let lab = Lab::new();
        let sites = router_at_a(&lab, Processor::Mips24Kc);
        sites.a.mtu("wan", 1400);
        sites.b.mtu("wan", 1400);
        let (a, b) = sites.configurations(Keys::pair(), false, encap);
        let (_a, _b) = (sites.a.starts(&a), sites.b.starts(&b));
        let Sites { client, server, .. } = &sites;
        let wire = sites.b.capture("wan");
        client.assert_uses(server, "10.2.0.2");
        assert!(client.ping_with(ip("10.2.0.2"), "-M dont -s 1472", 2).all(), "{encap}: no DF");
        let room = (1400 - overhead) / 4 * 4 - 2;
        let with_df = |size: i32| {
            client.ping_with(ip("10.2.0.2"), &format!("-M do -s {}", size - 28), 2).right > 0
        };
        assert!(with_df(room), "{encap}: {room} bytes with DF");
        assert!(!with_df(room + 1), "{encap}: {room} bytes and one with DF");
        for (address, size) in [("10.2.0.2", 65_507), ("fd02::2", 65_527)] {
            let answers = client.udp(server, ip(address), size, 3).unwrap();
            assert!(answers.all(), "{encap}: {size} bytes to {address}: {answers:?}");
        }
        let seen = wire.finish();
        assert_secret(&seen);
        seen.assert_none("too big", |frame| frame.bytes.len() > 1414);
    }
}

///  client -- big-endian router -- middle, MTU 1400 towards b -- b -- server
#[test]
fn a_narrow_place_between_the_peers_is_learned_from_icmp() {
    let lab = Lab::new();
    let [client, a, middle, b, server] = lab.hosts(["client", "a", "middle", "b", "server"]);
    lab.link(client.port("eth0", "10.1.0.2/24"), a.port("lan", "10.1.0.1/24"));
    lab.link(a.port("wan", "192.0.2.1/28"), middle.port("a", "192.0.2.2/28"));
    lab.link(middle.port("b", "192.0.2.17/28"), b.port("wan", "192.0.2.18/28"));
    lab.link(b.port("lan", "10.2.0.1/24"), server.port("eth0", "10.2.0.2/24"));
    middle.forwards().mtu("b", 1400);
    b.mtu("wan", 1400);
    client.default_via("10.1.0.1");
    server.default_via("10.2.0.1");
    a.forwards().default_via("192.0.2.2").is_a(Processor::Mips24Kc);
    b.forwards().default_via("192.0.2.17");
    let (at_a, at_b) = Keys::pair();
    let to_b = Peer::new("b", &at_a).at("192.0.2.18").allowed(SITE_B);
    let to_a = Peer::new("a", &at_b).at("192.0.2.1").allowed(SITE_A);
    let router = a.starts(&Vpn::new().peer(to_b));
    let _b = b.starts(&Vpn::new().peer(to_a));

    client.assert_uses(&server, "10.2.0.2");
    assert!(router.log().contains("the path carries 1400 bytes"), "{}", router.log());
    assert!(a.run("ip link show vpn0").contains(" mtu 1346 "), "{}", router.json());
    // The client is told, in the tunnel's own words.
    let told = || {
        client.ping_with(ip("10.2.0.2"), "-M do -s 1400", 1);
        client.run("ip route get 10.2.0.2").contains("mtu 1346")
    };
    assert!(eventually(PATIENCE, told), "{}", client.run("ip route get 10.2.0.2"));
}

///  router, big-endian ==ESP== b, which only listens
#[test]
fn the_first_encrypted_packet_leaves_soon() {
    let lab = Lab::new();
    let sites = router_at_a(&lab, Processor::Mips24Kc);
    let (keys, _) = Keys::pair();
    let spi = keys.spi_out.to_be_bytes();
    let to_b = Peer::new("b", &keys).at("192.0.2.2").allowed(SITE_B);
    let vpn = Vpn::new().peer(to_b.option("persistent_keepalive", "25"));
    let ears = sites.b.listens_for(ip("192.0.2.2"), 50).unwrap();
    let mut times: Vec<Duration> = (0..5)
        .map(|_| {
            let begin = Instant::now();
            let router = sites.a.launches(&vpn);
            assert!(ears.hears(&spi, PATIENCE).is_some(), "{}", router.log());
            let took = begin.elapsed();
            assert!(router.stops().success());
            took
        })
        .collect();
    times.sort();
    println!("from process start to first encrypted packet on an emulated 24Kc: {times:?}");
    assert!(times[2] < Duration::from_secs(3), "{times:?}");
}
