//! What a peer offers of which we take nothing, so that a person can be told which of both ends has
//! to be configured otherwise.

use heapless::Vec;

use super::wire::numbers::TransformType;
use super::wire::sa::Sa;

/// How many algorithms are kept. strongSwan, which offers most, has about as many.
pub const MAX_OFFERED: usize = 36;

/// An algorithm that is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Algorithm {
    /// What it is for.
    pub transform_type: TransformType,
    /// Length of its key in bytes where the offer names one, else 0.
    pub key_len: u8,
    /// Its number in the registry of its type.
    pub number: u16,
}

/// The algorithms of all proposals together, each one once, in the order of the offer. Integrity
/// algorithms and sequence numbers are left out: that there are none in common is never because of
/// them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offered {
    /// The algorithms.
    pub algorithms: Vec<Algorithm, MAX_OFFERED, u8>,
    /// Whether there are more than fit.
    pub more: bool,
}

impl Offered {
    pub(crate) fn of(sa: Sa<'_>) -> Offered {
        let mut offered = Offered::default();
        for transform in sa.proposals().flat_map(|proposal| proposal.transforms) {
            let algorithm = Algorithm {
                transform_type: transform.transform_type,
                key_len: u8::try_from(transform.key_bits.unwrap_or(0) / 8).unwrap_or(u8::MAX),
                number: transform.number,
            };
            let left_out = [TransformType::INTEG, TransformType::SN];
            if !left_out.contains(&transform.transform_type)
                && !offered.algorithms.contains(&algorithm)
            {
                offered.more |= offered.algorithms.push(algorithm).is_err();
            }
        }
        offered
    }
}
