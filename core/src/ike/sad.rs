//! What IKE does to the security association database.
//!
//! Whoever moves packets implements [`SaDatabase`], and the two meet nowhere else. Everything is
//! synchronous: when a call returns, it has happened.

use super::keymat::CipherKey;
use super::ts::Ranges;
use crate::path::Path;
use crate::spd::PeerId;
use crate::time::Instant;

/// The SAs that packets use.
pub trait SaDatabase {
    /// An SPI for an SA of ours, for which there is room; `random` is drawn anew each time.
    fn allocate_spi(&mut self, random: u32) -> Option<u32>;

    /// Narrows what both ends of a child have in common to what can be kept to, before it is agreed
    /// on (RFC 7296 §2.9): for addresses that are left out there is no SA. By default all of it can.
    fn narrow(&self, _peer: PeerId, _local: &mut Ranges, _remote: &mut Ranges) {}

    /// From now on packets with this SPI are accepted.
    ///
    /// # Errors
    /// [`Refused`]; nothing has changed then.
    fn install_inbound(&mut self, sa: &ChildSa<'_>) -> Result<(), Refused>;

    /// From now on packets for the peer leave with this SA, in place of another if it had one. They
    /// take its path if it is [the first](ChildSa::first) or there was no other.
    ///
    /// # Errors
    /// [`Refused`]; nothing has changed then.
    fn install_outbound(&mut self, sa: &ChildSa<'_>) -> Result<(), Refused>;

    /// From now on packets with this SPI of ours are not accepted any more.
    fn remove_inbound(&mut self, spi: u32);

    /// No packet leaves with this SA any more: the peer has none, unless another one has taken the
    /// place of this one already.
    fn remove_outbound(&mut self, peer: PeerId, spi: u32);

    /// From now on packets for the peer take this path. (The path of a new IKE SA comes with its first
    /// child SA.)
    fn set_path(&mut self, peer: PeerId, path: Path);

    /// When the last authentic packet of this peer came, if ever.
    fn last_inbound(&self, peer: PeerId) -> Option<Instant>;

    /// On which path the newest authentic packet of this peer came, if one did.
    fn heard_on(&self, peer: PeerId) -> Option<Path>;

    /// Whether an authentic packet with this SPI of ours has come.
    fn has_received(&self, spi: u32) -> bool;
}

/// One direction of a child SA.
#[derive(Clone, Copy)]
pub struct ChildSa<'c> {
    /// Whose it is.
    pub peer: PeerId,
    /// Our SPI inbound, the peer's outbound.
    pub spi: u32,
    /// The key with its salt.
    pub key: &'c CipherKey,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Which packets may use it: those between these addresses of ours, and
    pub local: &'c Ranges,
    /// these of the peer's. Both lie within what is configured, and may be less.
    pub remote: &'c Ranges,
    /// How packets travel to the peer, as far as its IKE SA knows.
    pub path: Path,
    /// Whether it is the first child SA of a new IKE SA. Then packets take `path` from now on
    /// (RFC 7296 §2.23; RFC 4555 §1.1): a peer that has connected anew may be somewhere else than
    /// where its packets went before. With any other child SA they go on as they do, since the
    /// packets of a peer behind a NAT may have shown another path than its IKE messages.
    pub first: bool,
}

/// The database takes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;
