//! # simplevpn-core
//!
//! ESP (RFC 4303) in tunnel mode for any machine that has an AEAD and some bytes: `no_std`, no
//! heap, no unsafe. The core never opens a socket, reads a clock or draws randomness; bytes and
//! [`Instant`]s come in as arguments, bytes, events and the next deadline come out.
//!
//! The modules, in the order in which a packet meets them. It comes from the host, or from the
//! wire and then reads the list of its half upwards:
//!
//! | module | what it is |
//! |---|---|
//! | [`tunnel`] | the facade for one thread: both halves, ICMP answers, fragments, keepalives |
//! | [`device`] | the facade as a `smoltcp::phy::Device` (feature `smoltcp`) |
//! | [`packet`] | a lent slice with room in front and behind: a packet is sealed where it lies |
//! | [`offload`] | what the host left to do in a packet, or takes undone |
//! | [`segment`] | GSO: one super-packet of the host becomes packets of final size |
//! | [`sealer`] | **outbound half**: from the host to the wire |
//! | `inner` | the facts of the packet; whether it is our own and loops |
//! | [`spd`] | whose it is: longest-prefix match, in host space |
//! | [`selectors`] | whether its other end is ours to speak for |
//! | [`pmtu`] | whether it fits; if not: [`fragment`] cuts it or [`icmp`] answers it |
//! | [`offset`] | host space to wire space and back, with [`checksum`] |
//! | [`ecn`] | traffic class and congestion marks across the tunnel (RFC 6040) |
//! | [`sad`] | which SA: inbound ones by SPI, in O(1) |
//! | [`esp`] | one packet, one SA: sequence numbers, anti-replay window, padding, AEAD |
//! | [`crypto`] | the AEADs: ChaCha20-Poly1305, AES-GCM; what IKE needs beside them |
//! | [`path`] | where it travels: raw ESP or UDP |
//! | [`outer`] | the outer headers, for those who have no IP stack to build them |
//! | [`ahead`] | what the packets behind it will need is fetched meanwhile |
//! | [`wire`] | views over bytes: ESP, port 4500, IP |
//! | [`opener`] | **inbound half**: from the wire to the host |
//! | [`coalesce`] | GRO: opened packets of one flow become one super-packet for the host |
//! | [`ike`] | what IKEv2 (RFC 7296) is made of: messages, keys, identities |
//! | [`counters`] | every reason to drop a packet, by name |
//! | [`time`] | milliseconds, as the caller tells them |
//!
//! # A packet through two tunnels
//!
//! All state lies in slices that the caller lends: here arrays on the stack, on a hub large ones
//! from the heap. Each slot holds one peer, prefix or SA; each half has its own.
//!
//! ```
//! use simplevpn_core::crypto::{Aead, ChaCha20Poly1305};
//! use simplevpn_core::esp::{OutboundSequence, ReplayWindow, window_storage};
//! use simplevpn_core::sad::{InboundSa, OutboundSa, Sad};
//! use simplevpn_core::{
//!     Emit, HEADROOM, InboundPeer, Instant, Offset, Opener, OutboundPeer, PacketBuf, Path, PeerId,
//!     Sealer, Selectors, Spd, TAILROOM, Tunnel,
//! };
//!
//! // One peer needs one slot for itself, and two per prefix: tables are at most half full.
//! const PEER: PeerId = PeerId(0);
//! type Prefixes = [simplevpn_core::spd::SpdSlot; 2];
//!
//! // Alice, 10.0.0.1, reaches 10.0.0.2 through ESP between 192.0.2.1 and 192.0.2.2.
//! let (mut prefixes, mut more_prefixes): (Prefixes, Prefixes) = Default::default();
//! let (mut outbound, mut inbound, mut sas, mut spis) = ([None], [None], [None], [None; 2]);
//! let spd = Spd::new((&mut prefixes[..]).into());
//! let sealer = Sealer::new(spd, (&mut outbound[..]).into());
//! let sad = Sad::new((&mut sas[..]).into(), (&mut spis[..]).into());
//! let spd = Spd::new((&mut more_prefixes[..]).into());
//! let opener = Opener::new(sad, spd, (&mut inbound[..]).into());
//! let mut alice = Tunnel::new(sealer, opener);
//!
//! alice.sealer.insert_peer(PEER, OutboundPeer::new(Offset::default(), Selectors::ANY)).unwrap();
//! alice.sealer.insert_policy(&"10.0.0.2/32".parse().unwrap(), PEER).unwrap();
//! let [here, there] = ["192.0.2.1", "192.0.2.2"].map(|address| address.parse().unwrap());
//! alice.sealer.set_path(PEER, Some(Path::Esp { local: here, remote: there }));
//!
//! // Whoever negotiates keys (IKE) gives both ends the same; here they are written down, which
//! // is only good for an example: no key may ever be used from sequence number 1 twice.
//! let key = || ChaCha20Poly1305::new(&[0x11; 32]).unwrap();
//! let sequence = OutboundSequence::new(true);
//! let sa = OutboundSa { spi: 0x1001, key: key(), salt: [0x22; 4].into(), sequence };
//! alice.sealer.install(PEER, sa, 1 << 20); // tell me when 2^20 numbers are left
//!
//! // Bob, the other end. He only receives, so his outbound half stays empty.
//! let (mut prefixes, mut more_prefixes): (Prefixes, Prefixes) = Default::default();
//! let (mut outbound, mut inbound, mut sas, mut spis) = ([None], [None], [None], [None; 2]);
//! let spd = Spd::new((&mut prefixes[..]).into());
//! let sealer = Sealer::new(spd, (&mut outbound[..]).into());
//! let sad = Sad::new((&mut sas[..]).into(), (&mut spis[..]).into());
//! let spd = Spd::new((&mut more_prefixes[..]).into());
//! let opener = Opener::new(sad, spd, (&mut inbound[..]).into());
//! let mut bob = Tunnel::new(sealer, opener);
//!
//! bob.opener.insert_peer(PEER, InboundPeer::new(Offset::default(), Selectors::ANY)).unwrap();
//! bob.opener.insert_policy(&"10.0.0.1/32".parse().unwrap(), PEER).unwrap();
//! let mut seen = [0; window_storage(2048)];
//! let window = ReplayWindow::new((&mut seen[..]).into()).unwrap();
//! let (key, salt) = (key(), [0x22; 4].into());
//! bob.opener.install(InboundSa { spi: 0x1001, key, salt, esn: true, window, peer: PEER }).unwrap();
//!
//! // Alice's host wants to send this: an IPv4 packet with nothing in it.
//! let ip = [69, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0x65, 0xea, 10, 0, 0, 1, 10, 0, 0, 2];
//! let mut buffer = [0; HEADROOM + 20 + TAILROOM];
//! buffer[HEADROOM..][..ip.len()].copy_from_slice(&ip);
//! let mut packet = PacketBuf::new(&mut buffer, HEADROOM, ip.len()).unwrap();
//!
//! let now = Instant::from_millis(0);
//! let (mut wire, mut len) = ([0; 100], 0);
//! alice
//!     .outbound(now, &mut packet, &mut [], |emit| match emit {
//!         Emit::Wire(transmit, esp) => {
//!             assert_eq!(transmit.path.remote(), there);
//!             len = esp.len();
//!             wire[..len].copy_from_slice(esp); // or prepend the outer headers, and send it
//!         }
//!         Emit::Host(_icmp_error) => unreachable!("it is not too big"),
//!     })
//!     .unwrap();
//!
//! // Bob's socket received it from Alice's address.
//! let from = Path::Esp { local: there, remote: here };
//! let mut packet = PacketBuf::new(&mut wire, 0, len).unwrap();
//! assert_eq!(bob.inbound(now, &from, 0, &mut packet), Ok(PEER));
//! assert_eq!(packet.as_slice(), ip);
//!
//! // Bob now knows where Alice is, and would answer there.
//! assert_eq!(bob.poll_event(), Some(simplevpn_core::Event::Moved(PEER, from)));
//! ```
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

#[cfg(test)]
extern crate std;
// The endpoints of `tests/ike_pair` serve tests on either side of the crate's face.
#[cfg(test)]
extern crate self as simplevpn_core;

pub mod ahead;
pub mod checksum;
pub mod coalesce;
pub mod counters;
pub mod crypto;
#[cfg(feature = "smoltcp")]
pub mod device;
pub mod ecn;
pub mod esp;
pub mod fragment;
pub mod icmp;
pub mod ike;
mod inner;
pub mod offload;
pub mod offset;
pub mod opener;
pub mod outer;
pub mod packet;
pub mod path;
pub mod pmtu;
pub mod sad;
pub mod sealer;
pub mod segment;
pub mod selectors;
pub mod spd;
mod table;
pub mod time;
mod trace;
pub mod tunnel;
pub mod wire;

pub use counters::{Discard, Discards, Traffic};
pub use offset::Offset;
pub use opener::{InboundPeer, Opener, OpenerEvent};
pub use packet::{HEADROOM, PacketBuf, TAILROOM};
pub use path::{Path, Transmit};
pub use sealer::{OutboundPeer, Sealed, Sealer, SealerEvent};
pub use selectors::Selectors;
pub use spd::{PeerId, Spd};
pub use time::Instant;
pub use tunnel::{Emit, Event, Tunnel};
