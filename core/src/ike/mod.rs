//! IKEv2 (RFC 7296): who the peer is, and which keys ESP uses.
//!
//! In the order in which a message meets them:
//!
//! | module | what it is |
//! |---|---|
//! | [`endpoint`] | [`Ike`]: which IKE SA a message is for |
//! | `table` | the slots of IKE SAs, and what concerns several of them |
//! | `cookie`, `crowd`, `stateless` | what keeps strangers from wearing us out, who of them gives way, and what they get |
//! | [`wire`] | messages as bytes |
//! | `link` | what protects them, and where they go |
//! | `window` | message ids, retransmission, answers that are asked for again |
//! | `sa` | one IKE SA |
//! | `exchange` | what is asked and answered: a module for each exchange |
//! | `want`, `timer` | what is to be asked next, and when |
//! | `child`, [`ts`] | what ESP gets of it: keys and traffic selectors |
//! | `nat`, `mobike`, [`path`] | where the peer is |
//! | `cp` | addresses of the other end's network |
//! | `ppk` | postquantum preshared keys |
//! | [`suite`], `proposal` | which algorithms: what is offered, what is chosen |
//! | [`offered`] | what a peer offered if we take none of it |
//! | [`keymat`] | the keys that a key exchange leads to |
//! | `erase` | what is left of them on the stack |
//! | [`identity`] | what an end calls itself |
//! | [`auth`] | the proof that it is who it says |
//! | [`pad`], [`sad`] | what the user implements: who may connect, and what packets use |
//! | [`status`], [`reason`] | what a person is told |

pub mod auth;
mod by_peer;
mod child;
mod cookie;
mod cp;
mod crowd;
pub mod endpoint;
mod erase;
mod exchange;
pub mod identity;
pub mod keymat;
mod link;
mod mobike;
mod nat;
mod nonce;
pub mod offered;
mod pace;
pub mod pad;
pub mod path;
mod ppk;
mod proposal;
mod queue;
pub mod reason;
mod sa;
pub mod sad;
mod stateless;
pub mod status;
pub mod suite;
mod table;
mod timer;
pub mod ts;
mod want;
mod window;
pub mod wire;

#[cfg(test)]
mod tests;

pub use by_peer::PeerLink;
pub use endpoint::{Context, Ike, IkeSlot, IkeTransmit, Settings};
pub use offered::Offered;
pub use pad::{Encap, Lease, Lifetimes, Pad, PadEntry, Ppk};
pub use path::{IkePath, Target};
pub use reason::Reason;
pub use sa::IkeSa;
pub use sad::{ChildSa, Refused, SaDatabase};
pub use status::{Given, IkeEvent, IkeStatus, MAX_GIVEN, Phase};
pub use ts::Ranges;
pub use window::MAX_MESSAGE_LEN;
