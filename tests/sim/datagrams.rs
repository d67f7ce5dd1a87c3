//! UDP between two endpoints.

use std::net::{IpAddr, SocketAddr};

use smoltcp::iface::SocketHandle;
use smoltcp::socket::udp::{PacketBuffer, PacketMetadata, Socket};

use super::net::Net;

/// A UDP socket of one endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Datagrams {
    endpoint: usize,
    socket: SocketHandle,
}

impl Datagrams {
    /// Opens a socket on `port` of `endpoint`.
    pub fn bind(net: &mut Net, endpoint: usize, port: u16) -> Datagrams {
        let buffer = || PacketBuffer::new(vec![PacketMetadata::EMPTY; 64], vec![0; 64 * 1024]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.bind(port).unwrap();
        Datagrams { endpoint, socket: net.endpoints[endpoint].sockets.add(socket) }
    }

    /// Queues a datagram, to be sent when time passes.
    pub fn send(&self, net: &mut Net, to: (IpAddr, u16), data: &[u8]) {
        let sockets = &mut net.endpoints[self.endpoint].sockets;
        sockets.get_mut::<Socket<'_>>(self.socket).send_slice(data, to).unwrap();
    }

    /// The next datagram that has arrived, and who sent it.
    pub fn receive(&self, net: &mut Net) -> Option<(SocketAddr, Vec<u8>)> {
        let sockets = &mut net.endpoints[self.endpoint].sockets;
        let socket = sockets.get_mut::<Socket<'_>>(self.socket);
        let (data, meta) = socket.recv().ok()?;
        let from = (IpAddr::from(meta.endpoint.addr), meta.endpoint.port).into();
        Some((from, data.to_vec()))
    }

    /// Sends back everything that has arrived.
    pub fn echo(&self, net: &mut Net) {
        while let Some((from, data)) = self.receive(net) {
            self.send(net, (from.ip(), from.port()), &data);
        }
    }
}
