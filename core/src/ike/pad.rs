//! The peer authorization database (RFC 4301 §4.4.3): who may connect, how each end proves who it
//! is, and what a peer may have.
//!
//! Whoever configures the peers implements [`Pad`]; IKE asks. Nothing here remembers anything, so
//! that a changed configuration counts from the next exchange on.

use core::net::IpAddr;
use core::time::Duration;

use smoltcp::wire::IpCidr;

use super::auth::{Credential, Expectation};
use super::identity::Identity;
use super::suite::Pfs;
use super::wire::id::Id;
use crate::spd::PeerId;

/// How many prefixes each of [`PadEntry::local`] and [`PadEntry::remote`] can have; of IPv6, they need
/// a peer that takes messages in fragments.
pub const MAX_PREFIXES: usize = 32;
/// How many prefixes of IPv6 both ends of a child SA can have together. Almost four of IPv4 take the
/// room of one ([`Ranges::fit_together`](super::Ranges::fit_together)).
pub const MAX_PREFIXES_V6: usize = 36;

/// The peers, as they are configured.
pub trait Pad {
    /// All about a peer; `None` once it is not configured any more.
    fn entry(&self, peer: PeerId) -> Option<PadEntry<'_>>;

    /// Which peer calls itself `remote`, for an initiator that connects from the address `from`;
    /// with `local`, it wants us to be that. Neither is proved yet, and `from` proves nothing: it
    /// may only serve to tell peers of one name apart.
    fn find(&self, remote: &Id<'_>, local: Option<&Id<'_>>, from: IpAddr) -> Option<PeerId>;

    /// Whether an initiator that connects from `from`, of whom nothing else is known yet, is to
    /// believe that there is a NAT, so that it encapsulates ESP in UDP: because of
    /// [`Encap::Udp`].
    fn pretends_nat(&self, from: IpAddr) -> bool;

    /// Whether a peer is configured to be at this address: when there are too many strangers, it
    /// goes before them. By default, no.
    fn is_expected_from(&self, _from: IpAddr) -> bool {
        false
    }

    /// Whether any peer has a postquantum preshared key (RFC 8784 §3): it is announced before the
    /// peer is known.
    fn has_ppk(&self) -> bool;
}

/// A peer, as it is configured.
#[derive(Clone, Copy)]
pub struct PadEntry<'p> {
    /// What we call ourselves; `None` is our address.
    pub local_id: Option<&'p Identity>,
    /// What the peer has to call itself.
    pub remote_id: &'p Identity,
    /// What we prove our identity with.
    pub credential: Credential<'p>,
    /// What the peer has to prove its identity with.
    pub expectation: Expectation<'p>,
    /// A key that is mixed into the others (RFC 8784).
    pub ppk: Option<Ppk<'p>>,
    /// Our traffic selectors, at most [`MAX_PREFIXES`]; none means any address.
    pub local: &'p [IpCidr],
    /// The peer's traffic selectors, at most [`MAX_PREFIXES`]; none means any address.
    pub remote: &'p [IpCidr],
    /// How ESP travels.
    pub encap: Encap,
    /// Ask the peer for an address of its network (RFC 7296 §3.15), when we initiate.
    pub request_address: bool,
    /// What the peer gets when it asks for an address.
    pub lease: Option<Lease<'p>>,
    /// Whether later child SAs get a key exchange of their own.
    pub pfs: Pfs,
    /// When keys are replaced.
    pub lifetimes: Lifetimes,
}

/// A postquantum preshared key (RFC 8784).
#[derive(Clone, Copy)]
pub struct Ppk<'p> {
    /// Its name (PPK_ID_FIXED), the same at both ends.
    pub id: &'p [u8],
    /// The key: 32 bytes or more.
    pub key: &'p [u8],
    /// Rather no connection than one without it.
    pub required: bool,
}

/// How ESP travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Encap {
    /// In UDP through a NAT, and between two of ours; else not.
    #[default]
    Auto,
    /// Never in UDP, even if there is a NAT.
    Esp,
    /// Always in UDP; peers that are not ours are made to believe that there is a NAT.
    Udp,
}

/// Addresses of our network for a peer that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease<'p> {
    /// At most one address of each family; only the address counts. They lie in
    /// [`PadEntry::remote`].
    pub addresses: &'p [IpAddr],
    /// Name servers.
    pub dns: &'p [IpAddr],
}

/// When keys are replaced. Each end adds jitter of its own: rekeying begins up to a tenth earlier,
/// and what was not replaced ends a tenth later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// The keys of IKE.
    pub ike: Duration,
    /// The keys of ESP.
    pub child: Duration,
}

impl Default for Lifetimes {
    /// Four hours, and one hour.
    fn default() -> Lifetimes {
        Lifetimes { ike: Duration::from_secs(4 * 3600), child: Duration::from_secs(3600) }
    }
}
