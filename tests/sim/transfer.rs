//! A TCP transfer from one endpoint to another, every byte checked.

use std::net::IpAddr;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, SocketBuffer};

use super::net::Net;
use super::random::SplitMix64;

/// The data repeats after so many bytes: a prime, so that no buffer or packet divides it.
const PERIOD: usize = 65_521;
const BUFFER: usize = 64 * 1024;

/// A transfer on its way.
pub struct Transfer {
    sender: (usize, SocketHandle),
    receiver: (usize, SocketHandle),
    data: Vec<u8>,
    total: usize,
    sent: usize,
    received: usize,
}

impl Transfer {
    /// Begins to send `total` bytes from endpoint `from` to endpoint `to`, which `from` knows by
    /// this address. Two transfers of one endpoint need two ports.
    pub fn start(
        net: &mut Net,
        from: usize,
        to: usize,
        address: IpAddr,
        port: u16,
        total: usize,
    ) -> Transfer {
        let socket = || {
            let buffer = || SocketBuffer::new(vec![0; BUFFER]);
            Socket::new(buffer(), buffer())
        };
        let mut listener = socket();
        listener.listen(port).unwrap();
        let receiver = net.endpoints[to].sockets.add(listener);
        let endpoint = &mut net.endpoints[from];
        let sender = endpoint.sockets.add(socket());
        endpoint
            .sockets
            .get_mut::<Socket<'_>>(sender)
            .connect(endpoint.interface.context(), (address, port), 40_000 + port)
            .unwrap();
        let mut random = SplitMix64::new(port.into());
        let data = (0..PERIOD).map(|_| random.draw() as u8).collect();
        Transfer {
            sender: (from, sender),
            receiver: (to, receiver),
            data,
            total,
            sent: 0,
            received: 0,
        }
    }

    /// How many bytes have arrived.
    pub fn received(&self) -> usize {
        self.received
    }

    /// Sends and receives what can be; true when all of it has arrived and is acknowledged.
    pub fn drive(&mut self, net: &mut Net) -> bool {
        let socket = net.endpoints[self.sender.0].sockets.get_mut::<Socket<'_>>(self.sender.1);
        while socket.can_send() && self.sent < self.total {
            let next = &self.data[self.sent % PERIOD..];
            let next = &next[..next.len().min(self.total - self.sent)];
            self.sent += socket.send_slice(next).unwrap();
        }
        // Not whether it is closed: smoltcp sends a FIN that is lost only once.
        let acknowledged = self.sent == self.total && socket.send_queue() == 0;

        let socket = net.endpoints[self.receiver.0].sockets.get_mut::<Socket<'_>>(self.receiver.1);
        while socket.can_recv() {
            let expected = &self.data[self.received % PERIOD..];
            self.received += socket
                .recv(|bytes| {
                    let len = bytes.len().min(expected.len());
                    assert!(bytes[..len] == expected[..len], "the data is not what was sent");
                    (len, len)
                })
                .unwrap();
        }
        acknowledged && self.received == self.total
    }
}
