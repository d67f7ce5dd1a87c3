//! Paths that carry less than the stack believes.

use simplevpn_core::{Discard, Offset, PeerId};
use simplevpn_tests::sim::{Datagrams, Net, Percent, Setup, Tie};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::raw::{PacketBuffer, PacketMetadata, Socket};
use smoltcp::wire::{IpProtocol, IpVersion};

use crate::places::{inner, on_ipv4, shifted};

/// A raw socket that receives all ICMP messages of one version.
fn icmp_socket(net: &mut Net, v6: bool) -> SocketHandle {
    let buffer = || PacketBuffer::new(vec![PacketMetadata::EMPTY; 8], vec![0; 16 * 1024]);
    let (version, protocol) = if v6 {
        (IpVersion::Ipv6, IpProtocol::Icmpv6)
    } else {
        (IpVersion::Ipv4, IpProtocol::Icmp)
    };
    let socket = Socket::new(Some(version), Some(protocol), buffer(), buffer());
    net.endpoints[0].sockets.add(socket)
}

fn icmp(net: &mut Net, socket: SocketHandle) -> Option<Vec<u8>> {
    let socket = net.endpoints[0].sockets.get_mut::<Socket<'_>>(socket);
    socket.recv().ok().map(<[u8]>::to_vec)
}

#[test]
fn a_stack_that_sends_too_big_packets_is_told_and_then_they_pass() {
    for (v6, udp, offset) in
        [(false, false, Offset::default()), (false, true, shifted()), (true, true, shifted())]
    {
        let setups = [on_ipv4(161), on_ipv4(160)];
        let mut net = Net::pair(setups, &Tie { udp, offset, ..Tie::default() }, Percent::NONE, 1);
        net.endpoints[0].tunnel().sealer.set_path_mtu(PeerId(0), 1400);
        let told = 1400 - if udp { 62 } else { 54 };
        let errors = icmp_socket(&mut net, v6);
        let [client, server] =
            [Datagrams::bind(&mut net, 0, 5000), Datagrams::bind(&mut net, 1, 9)];
        let to = (inner(&setups[1], v6, offset), 9);
        let headers = if v6 { 48 } else { 28 };
        client.send(&mut net, to, &vec![7; told - headers + 1]);
        net.pass(1000);
        assert_eq!(net.link.sent(), 0);
        assert_eq!(net.endpoints[0].dropped(Discard::TooBig), 1);
        // It names the destination as its source, as the stack knows it, and tells the MTU.
        let error = icmp(&mut net, errors).expect("an ICMP error");
        let (source, at) = if v6 { (8..24, 40) } else { (12..16, 20) };
        let destination = match to.0 {
            std::net::IpAddr::V4(address) => address.octets().to_vec(),
            std::net::IpAddr::V6(address) => address.octets().to_vec(),
        };
        assert_eq!(error[source], destination);
        let [low, high] = (told as u16).to_le_bytes();
        assert_eq!(&error[at..at + 2], if v6 { &[2, 0] } else { &[3, 4] });
        assert_eq!(error[at + 6..at + 8], [high, low]);
        assert!(icmp(&mut net, errors).is_none());

        client.send(&mut net, to, &vec![8; told - headers]);
        net.pass(1000);
        assert_eq!(server.receive(&mut net).unwrap().1, vec![8; told - headers]);
    }
}

#[test]
fn what_may_be_cut_is_cut_and_arrives_whole() {
    let setups = [on_ipv4(161), on_ipv4(160)].map(|setup| Setup { mtu: 1446, ..setup });
    for (path_mtu, packets) in [(1500, 3), (1000, 6)] {
        let tie = Tie { offset: shifted(), ..Tie::default() };
        let mut net = Net::pair(setups, &tie, Percent::NONE, 1);
        net.endpoints[0].tunnel().sealer.set_path_mtu(PeerId(0), path_mtu);
        let [client, server] =
            [Datagrams::bind(&mut net, 0, 5000), Datagrams::bind(&mut net, 1, 9)];
        let data: Vec<u8> = (0..4000usize).map(|at| (at * 13 % 251) as u8).collect();
        client.send(&mut net, (inner(&setups[1], false, tie.offset), 9), &data);
        net.pass(1000);
        assert!(server.receive(&mut net).unwrap().1 == data);
        assert_eq!(net.link.sent(), packets);
        assert_eq!(net.endpoints[0].dropped(Discard::TooBig), 0);
    }
}
