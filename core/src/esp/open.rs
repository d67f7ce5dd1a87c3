//! Inbound ESP processing (RFC 4303 §3.4): an ESP packet becomes an inner packet.

use super::sequence::infer;
use super::{Aad, nonce};
use crate::counters::Discard;
use crate::crypto::Aead;
use crate::packet::PacketBuf;
use crate::sad::InboundSa;
use crate::wire::esp::{HEADER_LEN, Header, IV_LEN, NextHeader, Parts, TRAILER_LEN};

/// What an authentic ESP packet held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// What the payload is.
    pub next_header: NextHeader,
    /// Whether its sequence number is the highest so far.
    pub newest: bool,
}

/// Opens `packet` in place; what is left is the payload, TFC padding included.
///
/// The window is checked before the packet is authenticated, and moved only after. An error is
/// either about a packet that may be forged, and then the SA is as it was, or
/// [`Discard::BadPadding`], about an authentic one, which counts as received.
///
/// # Errors
/// [`Discard::Malformed`], [`Discard::TooOld`], [`Discard::Replayed`], [`Discard::BadIcv`],
/// [`Discard::BadPadding`]; the packet's bytes are then of no use.
pub fn open<A: Aead>(
    sa: &mut InboundSa<'_, A>,
    packet: &mut PacketBuf<'_>,
) -> Result<Opened, Discard> {
    let header = Header::parse(packet.as_slice()).ok_or(Discard::Malformed)?;
    let parts = Parts::of(packet.as_mut_slice()).ok_or(Discard::Malformed)?;
    let sequence = if sa.esn {
        infer(header.sequence, sa.window.top(), sa.window.size()).ok_or(Discard::TooOld)?
    } else {
        u64::from(header.sequence)
    };
    sa.window.check(sequence)?;

    let aad = Aad::new(sa.spi, sequence, sa.esn);
    sa.key
        .open(&nonce(&sa.salt, &parts.iv), aad.as_slice(), parts.ciphertext, &parts.icv)
        .map_err(|_| Discard::BadIcv)?;
    let newest = sequence > sa.window.top();
    sa.window.mark(sequence);

    let (payload, next_header) = unpad(parts.ciphertext).ok_or(Discard::BadPadding)?;
    packet.pull_front(HEADER_LEN + IV_LEN)?;
    packet.truncate(payload);
    Ok(Opened { next_header, newest })
}

/// Length of the payload in front of padding and trailer, and the next header.
///
/// `None` if the padding is longer than what holds it, or is not 1, 2, 3, …
fn unpad(plaintext: &[u8]) -> Option<(usize, NextHeader)> {
    let (rest, &[padding, next_header]) = plaintext.split_last_chunk::<TRAILER_LEN>()?;
    let payload = rest.len().checked_sub(usize::from(padding))?;
    let mut expected = 1..=u8::MAX;
    let right = rest.get(payload..)?.iter().all(|byte| Some(*byte) == expected.next());
    right.then_some((payload, next_header.into()))
}
