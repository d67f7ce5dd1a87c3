//! Outbound ESP processing (RFC 4303 §3.3): an inner packet becomes an ESP packet.

use super::{Aad, nonce};
use crate::counters::Discard;
use crate::crypto::{Aead, ICV_LEN};
use crate::packet::PacketBuf;
use crate::sad::OutboundSa;
use crate::wire::esp::{ALIGNMENT, HEADER_LEN, Header, IV_LEN, NextHeader, TRAILER_LEN};

/// Seals `packet` in place under the SA's next sequence number.
///
/// The IV is the sequence number: unique for the life of the key. Padding is the least that
/// aligns the trailer.
///
/// # Errors
/// [`Discard::NoRoom`] without the room that [`HEADROOM`](crate::HEADROOM) and
/// [`TAILROOM`](crate::TAILROOM) promise, [`Discard::SequenceExhausted`] when the SA is used up.
/// The packet is then unchanged and no number was used.
pub fn seal<A: Aead>(
    sa: &mut OutboundSa<A>,
    packet: &mut PacketBuf<'_>,
    next_header: NextHeader,
) -> Result<(), Discard> {
    let unpadded = packet.len() + TRAILER_LEN;
    let padding = unpadded.next_multiple_of(ALIGNMENT) - unpadded;
    let behind = padding + TRAILER_LEN + ICV_LEN;
    if packet.headroom() < HEADER_LEN + IV_LEN || packet.tailroom() < behind {
        return Err(Discard::NoRoom);
    }
    let sequence = sa.sequence.take()?;

    let trailer = packet.push_back(padding + TRAILER_LEN)?;
    for (byte, count) in trailer.iter_mut().zip(1..) {
        *byte = count;
    }
    if let Some(end) = trailer.last_chunk_mut::<TRAILER_LEN>() {
        *end = [padding as u8, next_header.into()];
    }

    let iv = sequence.to_be_bytes();
    let aad = Aad::new(sa.spi, sequence, sa.sequence.esn());
    let icv = sa.key.seal(&nonce(&sa.salt, &iv), aad.as_slice(), packet.as_mut_slice());
    packet.push_back(ICV_LEN)?.copy_from_slice(&icv);

    packet.push_front(IV_LEN)?.copy_from_slice(&iv);
    let header = Header { spi: sa.spi, sequence: sequence as u32 };
    packet.push_front(HEADER_LEN)?.copy_from_slice(&header.to_bytes());
    Ok(())
}
