//! NAT detection (RFC 7296 §2.23).
//!
//! Each end sends hashes of the addresses and ports that it sees. An end behind a NAT sees others
//! than its peer does.
//!
//! Where ESP is to travel in UDP although there is no NAT, we send a hash of no address of ours: the
//! peer then believes that we are behind one, goes over to port 4500 and encapsulates. Nothing else in
//! IKEv2 asks for that; strongSwan's `encap = yes` does the same.

use core::net::{IpAddr, SocketAddr};

use super::keymat::IkeSpis;
use super::path::IkePath;
use super::wire::Message;
use super::wire::notify::Notify;
use super::wire::numbers::NotifyType;
use super::wire::{NoRoom, PayloadWriter};
use crate::crypto::prf::{SHA1_LEN, sha1};

/// Where there are NATs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Nat {
    /// Whether the peer takes part in finding out.
    pub(crate) supported: bool,
    /// In front of us.
    pub(crate) local: bool,
    /// In front of the peer.
    pub(crate) remote: bool,
    /// We have made the peer believe that there is one in front of us.
    pub(crate) pretended: bool,
}

impl Nat {
    /// Whether there is one at all.
    pub(crate) fn is_there(self) -> bool {
        self.local || self.remote || self.pretended
    }

    /// What the peer's message tells, which came on `path`. The SPIs are those of its header.
    pub(crate) fn detect(message: &Message<'_>, path: &IkePath) -> Nat {
        let spis = message.header().spis;
        // The peer may have several addresses, and sends the hash of each.
        let (mut source_seen, mut destination_seen) = (None, None);
        for notify in message.notifications() {
            match notify.notify_type {
                NotifyType::NAT_DETECTION_SOURCE_IP => {
                    let seen = notify.data == hash(spis, path.remote);
                    source_seen = Some(seen || source_seen == Some(true));
                }
                NotifyType::NAT_DETECTION_DESTINATION_IP => {
                    destination_seen = Some(notify.data == hash(spis, path.local));
                }
                _ => {}
            }
        }
        match (source_seen, destination_seen) {
            (Some(source_seen), Some(destination_seen)) => {
                let (local, remote) = (!destination_seen, !source_seen);
                Nat { supported: true, local, remote, pretended: false }
            }
            _ => Nat::default(),
        }
    }

    /// The same, with what we have made the peer believe.
    pub(crate) fn pretending(self, pretended: bool) -> Nat {
        Nat { pretended: self.supported && pretended, ..self }
    }
}

fn hash(spis: IkeSpis, address: SocketAddr) -> [u8; SHA1_LEN] {
    let [initiator, responder] = [spis.initiator, spis.responder].map(u64::to_be_bytes);
    let port = address.port().to_be_bytes();
    match address.ip() {
        IpAddr::V4(ip) => sha1(&[&initiator, &responder, &ip.octets(), &port]),
        IpAddr::V6(ip) => sha1(&[&initiator, &responder, &ip.octets(), &port]),
    }
}

/// What we send for the peer to find out.
pub(crate) struct Hashes {
    source: [u8; SHA1_LEN],
    destination: [u8; SHA1_LEN],
}

impl Hashes {
    /// For a message on `path`. Whoever `pretends` sends a wrong source, so that the peer takes us
    /// to be behind a NAT.
    pub(crate) fn new(spis: IkeSpis, path: &IkePath, pretends: bool) -> Hashes {
        let source = if pretends { SocketAddr::from(([0; 4], 0)) } else { path.local };
        Hashes { source: hash(spis, source), destination: hash(spis, path.remote) }
    }

    /// Writes the two notifications.
    pub(crate) fn write(&self, writer: &mut PayloadWriter<'_>) -> Result<(), NoRoom> {
        let Hashes { source, destination } = self;
        writer.notify(&Notify::new(NotifyType::NAT_DETECTION_SOURCE_IP, source))?;
        writer.notify(&Notify::new(NotifyType::NAT_DETECTION_DESTINATION_IP, destination))
    }
}
