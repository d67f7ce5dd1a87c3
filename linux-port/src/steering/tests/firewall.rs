//! The firewall table with real packets: redirection, rejection, tracking, clamping. What is behind
//! the tunnel is played by the other end of a veth pair.

use std::net::{SocketAddr, TcpListener, TcpStream};

use super::*;

/// `vpn0` as a veth pair, for packets that have to arrive: what is behind the tunnel.
fn far_end(ours: &[&str], theirs: &[&str]) -> Neighbour {
    let far = Neighbour::new();
    far.join("vpn0", ours, theirs);
    far
}

fn steer_veth(config: &Interface, scratch: &Scratch) -> Steering {
    let mut steering = Steering::prepare(config, underlay(&[]), scratch.path()).unwrap();
    steering.install(nix::net::if_::if_nametoindex("vpn0").unwrap()).unwrap();
    steering
}

#[test]
fn offset_redirects_output_and_forwarded_but_nothing_it_should_leave_alone() {
    within(|| {
        let (lan, scratch) = (lan(), Scratch::new());
        let far = far_end(&[], &["10.0.1.160/32", "fd00:0:0:1::160/128"]);
        far.run(|| sh("ip route add 10.0.0.161/32 dev vpn0; \
             ip route add 10.0.0.160/32 via 10.0.0.161 dev vpn0 onlink; ip route add 10.5.0.0/24 via 10.0.0.161 dev vpn0 onlink; \
            ip -6 route add fd00::161/128 dev vpn0"));
        // The whole subnet, with ourselves in it.
        let config = shifted(&["10.0.0.0/24", "fd00::/64"], "192.0.2.1");
        // A TUN device has no neighbour discovery.
        let link = far.run(|| sh("ip -br link show vpn0 | awk '{print $3}'"));
        sh(&format!("ip neigh add fd00:0:0:1::160 lladdr {link} dev vpn0"));
        let clear = lan.run(|| udp("0.0.0.0:7000"));
        let clear_natt = lan.run(|| udp("10.0.0.160:4500"));
        let through = far.run(|| udp("[::]:7000"));
        let mut steering = steer_veth(&config, &scratch);
        let send = |from: &UdpSocket, to: &str| {
            from.send_to(b"x", to).unwrap();
        };

        let plain = udp("10.0.0.161:0");
        send(&plain, "10.0.0.160:7000");
        assert!(hears(&through) && silent(&clear), "redirected");
        let plain6 = udp("[fd00::161]:0");
        send(&plain6, "[fd00::160]:7000");
        assert!(hears(&through), "redirected, IPv6");

        let own = udp("10.0.0.161:7000");
        send(&plain, "10.0.0.161:7000");
        assert!(hears(&own), "our own address");
        let ours = udp("10.0.0.161:0");
        mark_socket(&ours);
        send(&ours, "10.0.0.160:7000");
        assert!(hears(&clear), "our mark");
        let natt = udp("10.0.0.161:4500");
        natt.send_to(b"x", "10.0.0.160:4500").unwrap_err();
        assert!(
            silent(&clear_natt) && steering.stopped().unwrap().packets == 1,
            "without our mark"
        );
        // On a kernel without marks the port has to do.
        steering.marks = false;
        steering.apply_tables().unwrap();
        send(&natt, "10.0.0.160:4500");
        assert!(hears(&clear_natt), "our NAT-T port");
        let broadcast = udp("10.0.0.161:0");
        broadcast.set_broadcast(true).unwrap();
        send(&broadcast, "10.0.0.255:7000");
        assert!(hears(&clear), "broadcast");

        // The kernel hands our own multicasts back to us, as if they came from the wire.
        let member = udp("0.0.0.0:7001");
        member.join_multicast_v4(&[239, 1, 1, 1].into(), &[10, 0, 0, 161].into()).unwrap();
        sh("ip route add 239.0.0.0/8 dev lan");
        send(&plain, "239.1.1.1:7001");
        assert!(hears(&member), "multicast");

        // A LAN client behind us is redirected; what came in through the tunnel is not again.
        let client = Neighbour::new();
        client.join("home", &["10.5.0.1/24"], &["10.5.0.2/24"]);
        client.run(|| sh("ip route add default via 10.5.0.1"));
        sh("sysctl -qw net.ipv4.ip_forward=1");
        client.run(|| udp("0.0.0.0:0").send_to(b"x", "10.0.0.160:7000").unwrap());
        assert!(hears(&through), "forwarded");
        let at_client = client.run(|| udp("0.0.0.0:7000"));
        far.run(|| udp("10.0.1.160:0").send_to(b"x", "10.5.0.2:7000").unwrap());
        assert!(hears(&at_client), "from the tunnel");
        far.run(|| udp("10.0.1.160:0").send_to(b"x", "10.0.0.160:7000").unwrap());
        assert!(silent(&clear) && silent(&through), "neither redirected again nor let out");
    });
}

#[test]
fn offset_carries_connections_and_closes_on_shifted_prefixes() {
    within(|| {
        let (lan, scratch) = (lan(), Scratch::new());
        let before = state();
        let far = far_end(&[], &["10.0.1.160/32"]);
        far.run(|| sh("ip route add 10.0.0.161/32 dev vpn0"));
        let config = shifted(&["10.0.0.160/32", "10.0.0.170/32"], "10.0.0.160");
        let steering = steer_veth(&config, &scratch);
        let server = far.run(|| TcpListener::bind("10.0.1.160:80").unwrap());
        let address: SocketAddr = "10.0.0.160:80".parse().unwrap();
        let client = TcpStream::connect_timeout(&address, Duration::from_secs(2)).unwrap();
        assert_eq!(client.peer_addr().unwrap(), address);
        assert_eq!(server.accept().unwrap().1.ip(), IpAddr::from([10, 0, 0, 161]));

        lan.run(|| sh("ip address add 10.0.1.160/32 dev lan"));
        let service = udp("10.0.0.161:7000");
        for from in ["10.0.0.160:0", "10.0.1.160:0"] {
            lan.run(move || udp(from).send_to(b"x", "10.0.0.161:7000").unwrap());
            assert!(silent(&service), "clear text from {from}");
        }
        assert_eq!(steering.rejected().unwrap().packets, 2);

        let clear = lan.run(|| TcpListener::bind("10.0.0.160:80").unwrap());
        clear.set_nonblocking(true).unwrap();
        drop(steering);
        sh("ip link del vpn0");
        let impatient = Duration::from_millis(1500);
        TcpStream::connect_timeout(&address, impatient).unwrap_err();
        assert_eq!(clear.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(way("10.0.0.160"), "lan", "the real prefix is not closed");
        down("vpn0", scratch.path()).unwrap();
        TcpStream::connect_timeout(&address, Duration::from_secs(2)).unwrap();
        sh("ip neigh flush all");
        assert_eq!(state(), before);
    });
}

#[test]
fn offset_refuses_what_is_ambiguous() {
    let mut a = peer("a", None, &["192.168.1.0/24"]);
    let mut b = peer("b", None, &["192.168.1.7/32"]);
    (a.offset, b.offset) = (100 << 8, 101 << 8);
    let config = interface(model::Steering::Offset, vec![a, b]);
    let refused = Plan::new(&config, Mode::Offset, &underlay(&[])).unwrap_err();
    assert!(matches!(refused, Error::Ambiguous { .. }), "{refused}");
    assert!(Plan::new(&config, Mode::Policy, &underlay(&[])).is_ok());
}

#[test]
fn clear_text_from_protected_addresses_is_dropped_and_counted() {
    within(|| {
        let (lan, scratch) = (lan(), Scratch::new());
        lan.run(|| sh("ip address add 10.1.2.3/32 dev lan"));
        let config =
            policy(&["10.1.0.0/16", "10.0.0.160/32", "fd00::160/128", "0.0.0.0/0", "::/0"]);
        let service = udp("[::]:7000");
        let natt = udp("[::]:4500");
        let spoof = |lan: &Neighbour, from: &'static str, to: &'static str| {
            lan.run(move || udp(from).send_to(b"x", to).unwrap());
        };
        spoof(&lan, "10.1.2.3:0", "10.0.0.161:7000");
        assert!(hears(&service), "nothing else drops it");
        let steering = start(&config, &scratch);
        let mut dropped = 0;
        for up in [true, false] {
            for (from, to) in [
                ("10.1.2.3:0", "10.0.0.161:7000"),
                ("10.0.0.160:0", "10.0.0.161:7000"),
                ("[fd00::160]:0", "[fd00::161]:7000"),
            ] {
                spoof(&lan, from, to);
                assert!(silent(&service), "{from}, up: {up}");
                dropped += 1;
                assert_eq!(steering.rejected().unwrap().packets, dropped);
            }
            if up {
                // IKE and UDP-encapsulated ESP are not clear text; neighbours are found (the
                // ARP cache is empty), and others on the LAN are not concerned.
                sh("ip neigh flush all");
                lan.run(|| sh("ip neigh flush all; ip address add 10.0.0.9/24 dev lan"));
                for (from, to) in
                    [("10.0.0.160:0", "10.0.0.161:4500"), ("[fd00::160]:0", "[fd00::161]:4500")]
                {
                    spoof(&lan, from, to);
                    assert!(hears(&natt), "{from}");
                }
                spoof(&lan, "10.0.0.9:0", "10.0.0.161:7000");
                assert!(hears(&service));
                let ours = udp("[fd00::161]:0");
                mark_socket(&ours);
                let theirs = lan.run(|| udp("[fd00::160]:7000"));
                ours.send_to(b"x", "[fd00::160]:7000").unwrap();
                assert!(hears(&theirs), "neighbour discovery");
                sh("ip link del vpn0");
            }
        }
        // Neither what is local nor what comes out of the tunnel is from the wire.
        spoof_local(&service);
    });
}

fn spoof_local(service: &UdpSocket) {
    sh("ip address add 10.1.9.9/32 dev lo");
    udp("10.1.9.9:0").send_to(b"x", "10.1.9.9:7000").unwrap();
    assert!(hears(service), "loopback");
}

#[test]
fn esp_reaches_us_from_a_protected_address_and_is_not_tracked() {
    within(|| {
        let (lan, scratch) = (lan(), Scratch::new());
        let config = policy(&["10.0.0.160/32"]);
        let mut steering = start(&config, &scratch);
        steering.set_endpoints(of_peers(&["10.0.0.160"])).unwrap();
        sh("nft 'table inet watch { chain in { type filter hook input priority 0; \
            ip protocol esp ct state untracked counter; ip protocol esp ct state new counter; }; \
            chain out { type filter hook output priority 0; ip protocol esp ct state untracked \
            counter; ip protocol esp ct state new counter; }; \
            chain through { type filter hook forward priority 0; ip protocol esp ct state new counter; }; }'");
        let counters = || {
            let text = sh("nft list table inet watch");
            let mut words = text.split_whitespace();
            let mut counts = Vec::new();
            while words.any(|w| w == "packets") {
                counts.push(words.next().unwrap().parse::<u32>().unwrap());
            }
            counts
        };
        let esp = |from: &str, to: &str, mark: Option<u32>| {
            let socket = raw_esp(from);
            if let Some(mark) = mark {
                socket::setsockopt(&socket, sockopt::Mark, &mark).unwrap();
            }
            let to: SocketAddr = format!("{to}:0").parse().unwrap();
            let to = nix::sys::socket::SockaddrStorage::from(to);
            let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
            socket::sendto(fd, &[7; 40], &to, socket::MsgFlags::empty()).unwrap();
        };
        let heard = raw_esp("10.0.0.161");
        lan.run(move || esp("10.0.0.160", "10.0.0.161", None));
        esp("10.0.0.161", "10.0.0.160", Some(MARK));
        let mut buffer = [0; 128];
        let fd = std::os::fd::AsRawFd::as_raw_fd(&heard);
        assert_eq!(socket::recv(fd, &mut buffer, socket::MsgFlags::empty()).unwrap(), 60);
        // A peer that has just moved, and a kernel that knows no marks.
        esp("10.0.0.161", "10.0.0.77", Some(MARK));
        esp("10.0.0.161", "10.0.0.160", None);
        // Somebody else's IPsec on this machine.
        esp("10.0.0.161", "10.0.0.77", None);
        // The ESP of a LAN client that passes through us stays tracked.
        sh("sysctl -qw net.ipv4.ip_forward=1; ip route add 10.8.0.0/16 via 10.0.0.160; \
            ip link add home type veth peer name other; ip link set home up");
        lan.run(move || {
            sh("ip route add 10.8.0.0/16 via 10.0.0.161; ip address add 10.0.0.9/24 dev lan");
            esp("10.0.0.9", "10.8.0.1", None);
        });
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(counters(), [1, 0, 3, 1, 1]);
    });
}

fn raw_esp(local: &str) -> std::os::fd::OwnedFd {
    crate::netns::raw_socket(50, local.parse().unwrap())
}

#[test]
fn tcp_is_clamped_in_both_directions() {
    within(|| {
        let scratch = Scratch::new();
        let far = far_end(&["10.77.0.2/24", "fd77::2/64"], &["10.77.0.1/24", "fd77::1/64"]);
        far.run(|| {
            sh("ip address add 10.1.0.1/32 dev vpn0; ip address add fd01::1/128 dev vpn0 nodad")
        });
        let mut config = policy(&["10.1.0.0/16", "fd01::/64"]);
        config.addresses = vec!["10.77.0.2/24".parse().unwrap(), "fd77::2/64".parse().unwrap()];
        let mut steering = steer_veth(&config, &scratch);
        for mtu in [1400, 1300] {
            steering.set_mtu(mtu).unwrap();
            for (address, headers) in [("10.1.0.1:80", 40), ("[fd01::1]:80", 60)] {
                let server = far.run(move || TcpListener::bind(address).unwrap());
                let client = TcpStream::connect(address).unwrap();
                let (accepted, _) = server.accept().unwrap();
                // Without timestamps, which take 12 bytes more.
                let expected = u32::from(mtu) - headers - 12;
                for (end, stream) in [("client", &client), ("server", &accepted)] {
                    let mss = socket::getsockopt(stream, sockopt::TcpMaxSeg).unwrap();
                    assert_eq!(mss, expected, "{address} {mtu} {end}");
                }
            }
        }
    });
}
