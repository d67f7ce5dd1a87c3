//! Encrypted messages: the payload SK (RFC 7296 §3.14) with an AEAD (RFC 5282), opened and sealed
//! where it lies.
//!
//! ```text
//! header | generic header | IV (8) | ciphertext | ICV (16)
//! ```
//! The ciphertext is the payloads, padding, pad length (1). All in front of the IV is authenticated
//! (RFC 5282 §5.1). We do not pad; a peer may. Messages in fragments are opened here as well, since
//! nobody knows before what a datagram is; the rest about them is in [`skf`](super::skf).

use super::header::{self, Header, LENGTH_AT};
use super::message::Message;
use super::numbers::PayloadType;
use super::payload::{Chain, MAX_PAYLOADS, Payload, RawPayload, STRUCTURE_LEN};
use super::skf::{Fragment, Position};
use super::writer::{NoRoom, PayloadWriter, Writer};
use super::{HEADER_LEN, Malformed};
use crate::crypto::{Aead, ICV_LEN, NONCE_LEN, SALT_LEN, Salt};

/// Length of the explicit IV in bytes (RFC 5282 §3, RFC 7634 §3).
pub const IV_LEN: usize = 8;
/// How much longer an encrypted message is than its payloads.
pub const OVERHEAD: usize = HEADER_LEN + STRUCTURE_LEN + IV_LEN + PAD_LENGTH_LEN + ICV_LEN;

/// Where the payloads of a message begin that was written and not sealed yet.
pub(super) const PAYLOADS_AT: usize = HEADER_LEN + STRUCTURE_LEN + IV_LEN;
/// Length of the byte that says how much padding there is.
pub(super) const PAD_LENGTH_LEN: usize = 1;

/// An encrypted message or fragment, before it is opened: nothing about it is authentic.
#[derive(Debug)]
pub struct Sealed<'d> {
    header: Header,
    /// The type of the first payload in it.
    first: PayloadType,
    fragment: Option<Position>,
    aad: &'d [u8],
    iv: [u8; IV_LEN],
    text: &'d mut [u8],
    icv: [u8; ICV_LEN],
}

/// What an encrypted message or fragment holds. It is authentic.
#[derive(Debug, Clone, Copy)]
pub enum Opened<'d> {
    /// A message.
    Message(Message<'d>),
    /// A part of one, for [`Reassembly::add`](super::skf::Reassembly::add).
    Fragment(Fragment<'d>),
}

/// Why a message was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenError {
    /// The sender does not have the key, or the message was altered: to be ignored.
    BadIcv,
    /// The peer itself has sent what is malformed, and is to be told
    /// ([`Malformed::notification`]).
    Malformed(Malformed),
}

impl<'d> Sealed<'d> {
    /// Finds the encrypted payload in what came in one datagram (without the non-ESP marker). What
    /// may stand in front of it is checked and ignored: nobody sends anything there.
    ///
    /// # Errors
    /// [`Malformed`], with [`Malformed::Missing`] if nothing is encrypted. Whoever has sent it, it
    /// is not known to be the peer.
    pub fn parse(datagram: &'d mut [u8]) -> Result<Sealed<'d>, Malformed> {
        let (header, first, payloads) = header::parse(datagram)?;
        let encrypted = find(Chain::new(first, payloads))?;
        let malformed = Malformed::Content(encrypted.payload_type);
        let first = encrypted.next;
        let (fragment, protected) = match encrypted.payload_type {
            PayloadType::SKF => {
                let (position, rest) = Position::parse(encrypted.content).ok_or(malformed)?;
                (Some(position), rest)
            }
            _ => (None, encrypted.content),
        };
        // The payload is the last one: what it holds ends with the datagram.
        let aad_len = datagram.len().checked_sub(protected.len()).ok_or(Malformed::Length)?;
        let (aad, rest) = datagram.split_at_mut_checked(aad_len).ok_or(Malformed::Length)?;
        let (iv, rest) = rest.split_first_chunk_mut().ok_or(malformed)?;
        let (text, icv) = rest.split_last_chunk_mut().ok_or(malformed)?;
        if text.is_empty() {
            return Err(malformed);
        }
        Ok(Sealed { header, first, fragment, aad, iv: *iv, text, icv: *icv })
    }

    /// The header, to find out whose message it might be, and whether it is worth being opened.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Which part of a message it is, if it is not a whole one.
    #[must_use]
    pub fn fragment(&self) -> Option<Position> {
        self.fragment
    }

    /// Checks whether it is authentic, decrypts it in place, and looks at its payloads.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open<A: Aead>(self, key: &A, salt: &Salt) -> Result<Opened<'d>, OpenError> {
        let Sealed { header, first, fragment, aad, iv, text, icv } = self;
        key.open(&nonce(salt, iv), aad, text, &icv).map_err(|_| OpenError::BadIcv)?;
        let text: &'d [u8] = text;
        let malformed = OpenError::Malformed(Malformed::Content(PayloadType::SK));
        let (pad_length, padded) = text.split_last().ok_or(malformed)?;
        let len = padded.len().checked_sub(usize::from(*pad_length)).ok_or(malformed)?;
        let content = padded.get(..len).ok_or(malformed)?;
        match fragment {
            Some(position) => Ok(Opened::Fragment(Fragment { header, position, first, content })),
            None => Message::of_payloads(header, first, content)
                .map(Opened::Message)
                .map_err(OpenError::Malformed),
        }
    }
}

/// The encrypted payload of a message, which is the last.
fn find(mut chain: Chain<'_>) -> Result<RawPayload<'_>, Malformed> {
    for _ in 0..MAX_PAYLOADS {
        let raw = chain.next().ok_or(Malformed::Missing(PayloadType::SK))??;
        if matches!(raw.payload_type, PayloadType::SK | PayloadType::SKF) {
            return chain.next().map_or(Ok(raw), |_| Err(Malformed::Length));
        }
        Payload::parse(&raw)?;
    }
    Err(Malformed::TooManyPayloads)
}

fn nonce(salt: &Salt, iv: [u8; IV_LEN]) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    let bytes = salt.iter().chain(&iv);
    nonce.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    nonce
}

const _: () = assert!(SALT_LEN + IV_LEN == NONCE_LEN);

/// A message that was written, before it is sealed: whole, or
/// [in fragments](Unsealed::seal_fragments) if it is too long.
#[derive(Debug)]
pub struct Unsealed<'b> {
    header: Header,
    buffer: &'b mut [u8],
    /// Where the payloads end, and
    end: usize,
    /// how long it is as a whole.
    len: usize,
}

impl<'b> Unsealed<'b> {
    /// Writes a message to the beginning of `buffer`; `payloads` writes what is to be encrypted.
    ///
    /// # Errors
    /// [`NoRoom`]; the buffer needs [`OVERHEAD`] more than the payloads.
    pub fn write(
        buffer: &'b mut [u8],
        header: &Header,
        payloads: impl FnOnce(&mut PayloadWriter<'b>) -> Result<(), NoRoom>,
    ) -> Result<Unsealed<'b>, NoRoom> {
        let mut writer = Writer::new(buffer);
        header.write(&mut writer, PayloadType::SK)?;
        writer.put(&[PayloadType::NONE.0, 0, 0, 0])?;
        writer.put(&[0; IV_LEN])?;
        let mut writer = PayloadWriter::new(writer, HEADER_LEN);
        payloads(&mut writer)?;
        let mut writer = writer.into_writer();
        let end = writer.len();
        writer.reserve(PAD_LENGTH_LEN + ICV_LEN)?.fill(0);
        let (buffer, len) = writer.into_parts();
        Ok(Unsealed { header: *header, buffer, end, len })
    }

    /// How long it is as a whole, in bytes.
    #[must_use]
    pub fn sealed_len(&self) -> usize {
        self.len
    }

    /// Seals it as a whole. The caller never uses the same `iv` twice with one key.
    ///
    /// # Errors
    /// [`NoRoom`] if it is longer than 65535 bytes.
    pub fn seal<A: Aead>(self, key: &A, salt: &Salt, iv: u64) -> Result<&'b mut [u8], NoRoom> {
        let message = self.buffer.get_mut(..self.len).ok_or(NoRoom)?;
        seal(message, HEADER_LEN + STRUCTURE_LEN, key, salt, iv)
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// The type of the first payload.
    pub(super) fn first(&self) -> PayloadType {
        PayloadType(self.buffer.get(HEADER_LEN).copied().unwrap_or_default())
    }

    /// The payloads.
    pub(super) fn payloads(&self) -> &[u8] {
        self.buffer.get(PAYLOADS_AT..self.end).unwrap_or_default()
    }

    /// All the room there is, with the payloads at [`PAYLOADS_AT`].
    pub(super) fn into_buffer(self) -> &'b mut [u8] {
        self.buffer
    }
}

/// Seals what lies in `message`: a header, an encrypted payload directly behind it, of which the
/// first `aad_len` bytes stay legible, room for the IV, the text, room for the ICV.
pub(super) fn seal<'b, A: Aead>(
    message: &'b mut [u8],
    aad_len: usize,
    key: &A,
    salt: &Salt,
    iv: u64,
) -> Result<&'b mut [u8], NoRoom> {
    let len = u16::try_from(message.len()).map_err(|_| NoRoom)?;
    let payload_len = len.checked_sub(HEADER_LEN as u16).ok_or(NoRoom)?;
    let (aad, rest) = message.split_at_mut_checked(aad_len).ok_or(NoRoom)?;
    put(aad, LENGTH_AT, &u32::from(len).to_be_bytes())?;
    put(aad, HEADER_LEN + 2, &payload_len.to_be_bytes())?;
    let (iv_bytes, rest) = rest.split_first_chunk_mut().ok_or(NoRoom)?;
    let (text, icv) = rest.split_last_chunk_mut().ok_or(NoRoom)?;
    *iv_bytes = iv.to_be_bytes();
    *icv = key.seal(&nonce(salt, *iv_bytes), aad, text);
    Ok(message)
}

/// Writes `bytes` over what lies at `at`.
fn put(buffer: &mut [u8], at: usize, bytes: &[u8]) -> Result<(), NoRoom> {
    let end = at.checked_add(bytes.len()).ok_or(NoRoom)?;
    buffer.get_mut(at..end).ok_or(NoRoom)?.copy_from_slice(bytes);
    Ok(())
}
