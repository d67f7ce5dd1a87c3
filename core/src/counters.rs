//! Every reason to drop a packet, by name, and what is counted per peer.
//!
//! Counters are plain `u64`s owned by one half of the tunnel and read by snapshot: MIPS32 has no
//! 64-bit atomics.

use crate::time::Instant;

macro_rules! discards {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a packet, or a message of IKE, was dropped. Each reason has one counter
        /// ([`Discards`]).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Discard { $($(#[$doc])* $variant,)* }

        impl Discard {
            /// Every reason, in the order of their counters.
            pub const ALL: &'static [Discard] = &[$(Discard::$variant,)*];

            /// The counter's name as users see it: lower case, words joined by `_`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Discard::$variant => $name,)* }
            }
        }
    };
}

discards! {
    // Outbound: from the host to the wire.
    /// No peer's `allowed_ips` hold the destination (RFC 4301 §5.1).
    NoPolicy = "no_policy",
    /// The peer has no usable outbound SA.
    NoSa = "no_sa",
    /// Nothing is known yet about where the peer can be reached.
    NoEndpoint = "no_endpoint",
    /// The packet read from the host is our own outer packet: routing loops.
    Loop = "loop",
    /// Too big for the path and not to be fragmented; an ICMP answer may have been sent.
    TooBig = "too_big",
    /// The SA's sequence numbers (or those reserved so far) are used up (RFC 4303 §3.3.3).
    SequenceExhausted = "sequence_exhausted",

    // Inbound: from the wire to the host.
    /// No inbound SA has this SPI.
    UnknownSpi = "unknown_spi",
    /// A packet with this sequence number was already accepted (RFC 4303 §3.4.3).
    Replayed = "replayed",
    /// The sequence number lies left of the anti-replay window (RFC 4303 §3.4.3).
    TooOld = "too_old",
    /// An IKE message whose integrity check failed: altered, forged, or the keys differ.
    BadIcv = "bad_icv",
    /// Authenticated, but its padding is not 1, 2, 3, … or longer than the packet (RFC 4303 §2.4).
    BadPadding = "bad_padding",
    /// A dummy packet (next header 59): authenticated and, as it should be, dropped.
    Dummy = "dummy",
    /// Outer congestion mark over an inner packet that cannot carry it (RFC 6040 §4.2).
    Congestion = "congestion",

    // Messages of IKE.
    /// A message of IKEv1, which is another protocol.
    IkeV1 = "ike_v1",
    /// No message of IKEv2: truncated, with lengths that contradict each other, or without what an IKE
    /// SA begins with.
    IkeMalformed = "ike_malformed",
    /// An IKE message that is longer than the buffers, or whose fragments are.
    IkeTooBig = "ike_too_big",
    /// An IKE message whose SPIs are those of no IKE SA.
    IkeNoSa = "ike_no_sa",
    /// An IKE message whose integrity check failed: altered, forged, or the keys differ.
    IkeBadIcv = "ike_bad_icv",
    /// An IKE_SA_INIT request none of whose proposals is acceptable.
    IkeNoProposal = "ike_no_proposal",

    // Both ways.
    /// Inner source or destination outside what was agreed with the peer (RFC 4301 §5.2).
    OutsideSelector = "outside_selector",
    /// Not a packet: truncated, or its lengths contradict each other.
    Malformed = "malformed",
    /// The buffer has no room for what the packet would become.
    NoRoom = "no_room",
}

/// One counter per [`Discard`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discards([u64; Discard::ALL.len()]);

impl Default for Discards {
    fn default() -> Discards {
        Discards([0; Discard::ALL.len()])
    }
}

impl Discards {
    /// Counts one dropped packet or message.
    pub fn count(&mut self, why: Discard) {
        if let Some(counter) = self.0.get_mut(why as usize) {
            *counter += 1;
        }
    }

    /// How many were dropped for this reason.
    #[must_use]
    pub fn get(&self, why: Discard) -> u64 {
        self.0.get(why as usize).copied().unwrap_or(0)
    }

    /// All counters with their reasons, zeros included.
    pub fn iter(&self) -> impl Iterator<Item = (Discard, u64)> + '_ {
        Discard::ALL.iter().map(|&why| (why, self.get(why)))
    }

    /// The sum of two parts' counters.
    #[must_use]
    pub fn merged(&self, other: &Discards) -> Discards {
        let mut sum = *self;
        for (mine, theirs) in sum.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
        sum
    }
}

/// What is counted per peer and direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Packets sealed or opened.
    pub packets: u64,
    /// Bytes of the inner packets.
    pub bytes: u64,
    /// Outbound: the last packet sealed. Inbound: the last packet that was authenticated.
    pub last: Option<Instant>,
}

impl Traffic {
    /// Counts one inner packet of `bytes` bytes.
    pub(crate) fn count(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter_and_name() {
        for &why in Discard::ALL {
            let mut discards = Discards::default();
            discards.count(why);
            for (other, count) in discards.iter() {
                assert_eq!(count, u64::from(other == why), "{why:?} {other:?}");
                assert!(other == why || other.name() != why.name());
            }
        }
    }
}
