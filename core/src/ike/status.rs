//! What a person wants to know about a connection, and what happens to it.

use core::net::IpAddr;

use heapless::Vec;

use super::offered::Offered;
use super::path::IkePath;
use super::reason::Reason;
use super::suite::{ChildSuite, IkeSuite};
use crate::path::Path;
use crate::spd::PeerId;
use crate::time::Instant;

/// How many addresses, and how many name servers, we take from a peer.
pub const MAX_GIVEN: usize = 4;

/// What has happened to a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum IkeEvent {
    /// Packets can go to the peer and come from it: its first child SA is there. Comes once more
    /// when the peer connects anew, but not when keys are replaced.
    Up(PeerId),
    /// They could, and cannot any more.
    Down(PeerId, Reason),
    /// Our attempt to connect has failed; or, while the connection is [`Phase::Up`], only its child
    /// SA has.
    Failed(PeerId, Reason),
    /// Somebody at this address was refused, who claims to be this peer (which proves nothing), or
    /// has not said who he is. There are as many as strangers like; who logs them limits that.
    Refused(Option<PeerId>, IpAddr, Reason),
    /// Nothing that was offered from this address is what we take: for IKE, by somebody who has not
    /// said who he is, or for ESP, by this peer. There are as many as strangers like; who logs them
    /// limits that.
    Unacceptable(Option<PeerId>, IpAddr, Offered),
    /// The keys of ESP were replaced.
    ChildRekeyed(PeerId),
    /// The keys of IKE were replaced.
    Rekeyed(PeerId),
    /// The peer is somewhere else, or we are.
    Moved(PeerId, Path),
    /// The peer has given us addresses, before [`IkeEvent::Up`].
    Address(PeerId, Given),
}

/// What a peer has given us (RFC 7296 §3.15).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Given {
    /// Addresses of ours in its network.
    pub addresses: Vec<IpAddr, MAX_GIVEN>,
    /// Name servers.
    pub dns: Vec<IpAddr, MAX_GIVEN>,
}

/// How a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IkeStatus {
    /// How far it is.
    pub phase: Phase,
    /// Since when.
    pub since: Instant,
    /// Whether we have begun it.
    pub initiator: bool,
    /// Where IKE messages go.
    pub path: IkePath,
    /// Where ESP goes, once that is known.
    pub esp_path: Option<Path>,
    /// Whether it is not known yet that the peer is where it says that it has moved to (RFC 4555
    /// §3.7): its packets go to where it was before until then, and not on `esp_path`.
    pub checking: bool,
    /// The algorithms of IKE, once they are agreed.
    pub suite: Option<IkeSuite>,
    /// The algorithms of ESP, while there is a child SA.
    pub child: Option<ChildSuite>,
    /// When the keys of ESP are going to be replaced.
    pub rekey_child_at: Option<Instant>,
    /// When those of IKE are.
    pub rekey_at: Option<Instant>,
    /// When the peer was last heard of by an authentic message of IKE.
    pub last_heard: Instant,
    /// Whether there is a NAT in front of us, and
    pub local_nat: bool,
    /// in front of the peer.
    pub remote_nat: bool,
    /// Whether it runs this software.
    pub ours: bool,
    /// Whether it can follow our address (RFC 4555).
    pub mobike: bool,
    /// Whether a postquantum preshared key is mixed in (RFC 8784).
    pub ppk: bool,
    /// Why there is no child SA, if there is none although the IKE SA is up.
    pub child_reason: Option<Reason>,
}

impl IkeStatus {
    /// The path on which the packets for the peer have to be and are not, if they go on `path`: the
    /// addresses of an SA in tunnel mode are those of its IKE SA (RFC 4555 §1.1). `None` if they are
    /// where they have to be, or may be somewhere else: behind a NAT packets know better
    /// ([`IkeStatus::follows`]), and an address that is still checked is not used.
    #[must_use]
    pub fn astray(&self, path: &Path) -> Option<Path> {
        let right = self.esp_path.filter(|_| !self.checking && !self.follows(path))?;
        let same = match (path, &right) {
            (Path::Esp { remote, .. }, Path::Esp { remote: right, .. }) => remote == right,
            (Path::Udp { remote, .. }, Path::Udp { remote: right, .. }) => remote == right,
            _ => false,
        };
        (!same).then_some(right)
    }

    /// Whether packets for the peer are to follow an authentic one that came from it on `path`.
    ///
    /// Only if there is a NAT in front of the peer, and none in front of us, and only in UDP
    /// (RFC 7296 §2.23; RFC 4555 §3.8 allows it for ESP): a NAT changes its mind and tells nobody. In
    /// all other cases addresses are what IKE says they are. Otherwise somebody on the way who takes
    /// a packet and sends it on from an address of his own would have all that follows sent there,
    /// without a key, and for as long as he does.
    #[must_use]
    pub fn follows(&self, path: &Path) -> bool {
        let nat = self.remote_nat && !self.local_nat;
        nat && [Some(path), self.esp_path.as_ref()]
            .iter()
            .all(|path| matches!(path, Some(Path::Udp { .. })))
    }
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Both ends are finding out who they are.
    Negotiating,
    /// Packets can pass, unless there is no child.
    Up,
    /// It is being closed.
    Closing,
}

#[cfg(test)]
mod tests {
    use core::net::SocketAddr;

    use super::*;

    fn udp(remote: &str) -> Path {
        Path::Udp { local: "192.0.2.2:4500".parse().unwrap(), remote: remote.parse().unwrap() }
    }

    fn esp(remote: &str) -> Path {
        Path::Esp { local: "192.0.2.2".parse().unwrap(), remote: remote.parse().unwrap() }
    }

    fn status(esp_path: Option<Path>) -> IkeStatus {
        let local: SocketAddr = "192.0.2.2:4500".parse().unwrap();
        IkeStatus {
            phase: Phase::Up,
            since: Instant::ZERO,
            initiator: false,
            path: IkePath { local, remote: local, natt: true },
            esp_path,
            checking: false,
            suite: None,
            child: None,
            rekey_child_at: None,
            rekey_at: None,
            last_heard: Instant::ZERO,
            local_nat: false,
            remote_nat: false,
            ours: true,
            mobike: true,
            ppk: false,
            child_reason: None,
        }
    }

    #[test]
    fn packets_that_go_elsewhere_than_ike_are_astray() {
        for right in [udp("192.0.2.77:4500"), esp("192.0.2.77")] {
            let status = status(Some(right));
            for wrong in [udp("192.0.2.1:4500"), udp("192.0.2.77:1"), esp("192.0.2.1")] {
                assert_eq!(status.astray(&wrong), Some(right), "{wrong:?}");
            }
            assert_eq!(status.astray(&right), None);
        }
        let free =
            Path::Esp { local: "0.0.0.0".parse().unwrap(), remote: esp("192.0.2.77").remote() };
        let status = status(Some(esp("192.0.2.77")));
        assert_eq!(status.astray(&free), None, "which address of ours it is is routing's affair");
    }

    #[test]
    fn packets_may_know_better_than_ike_and_an_address_is_checked_first() {
        let (right, other) = (udp("192.0.2.77:4500"), udp("192.0.2.1:999"));
        let behind_nat = IkeStatus { remote_nat: true, ..status(Some(right)) };
        assert_eq!(behind_nat.astray(&other), None);
        let checking = IkeStatus { checking: true, ..status(Some(right)) };
        assert_eq!(checking.astray(&other), None);
        assert_eq!(status(None).astray(&other), None);
    }
}
