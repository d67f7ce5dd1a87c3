//! Encrypted messages in fragments (RFC 7383): the payload SKF, and the way back to a message.
//!
//! ```text
//! header | generic header | fragment number (2) | how many (2) | IV (8) | ciphertext | ICV (16)
//! ```
//! Each fragment is encrypted and authenticated by itself, so that only those of the peer take up
//! room. A fragment is opened by [`Sealed`](super::sk::Sealed). The size of fragments is chosen
//! elsewhere, and so is when to give up waiting for more.

use core::fmt;

use heapless::Vec;
use managed::ManagedSlice;

use super::Malformed;
use super::header::{HEADER_LEN, Header};
use super::message::Message;
use super::numbers::PayloadType;
use super::payload::STRUCTURE_LEN;
use super::sk::{self, IV_LEN, PAD_LENGTH_LEN, PAYLOADS_AT, Unsealed};
use super::writer::{NoRoom, Writer};
use crate::crypto::{Aead, ICV_LEN, Salt};

/// How many fragments of one message we put together, or make of one.
pub const MAX_FRAGMENTS: u16 = 32;

/// Length of the header, the generic header, the fragment number and how many there are.
const AAD_LEN: usize = HEADER_LEN + STRUCTURE_LEN + 4;
/// How much longer a fragment is than what it carries, in bytes.
pub const OVERHEAD: usize = AAD_LEN + IV_LEN + PAD_LENGTH_LEN + ICV_LEN;

/// Which fragment it is, of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    number: u16,
    total: u16,
}

impl Position {
    /// Takes it off `bytes`, and returns what follows.
    pub(super) fn parse(bytes: &[u8]) -> Option<(Position, &[u8])> {
        let (&[a, b, c, d], rest) = bytes.split_first_chunk()?;
        let [number, total] = [[a, b], [c, d]].map(u16::from_be_bytes);
        (1..=total).contains(&number).then_some((Position { number, total }, rest))
    }

    /// Its number: the first is 1.
    #[must_use]
    pub fn number(self) -> u16 {
        self.number
    }

    /// How many fragments the message has.
    #[must_use]
    pub fn total(self) -> u16 {
        self.total
    }
}

/// An authentic part of a message.
#[derive(Clone, Copy)]
pub struct Fragment<'a> {
    pub(super) header: Header,
    pub(super) position: Position,
    /// In the first fragment, the type of the message's first payload.
    pub(super) first: PayloadType,
    pub(super) content: &'a [u8],
}

impl Fragment<'_> {
    /// The header, which is the message's.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Which part it is.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }
}

impl fmt::Debug for Fragment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { number, total } = self.position;
        write!(f, "Fragment({number} of {total}, {} bytes)", self.content.len())
    }
}

/// What became of a fragment.
#[derive(Debug, Clone, Copy)]
pub enum Reassembled<'a> {
    /// It was the last that was missing.
    Message(Message<'a>),
    /// Others are missing.
    Incomplete,
    /// It was there already.
    Duplicate,
    /// It is of an earlier attempt: the peer has since cut the message into more fragments.
    Outdated,
}

/// Why fragments do not become a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReassemblyError {
    /// The message has more fragments than [`MAX_FRAGMENTS`], or is longer than the storage. What
    /// was there of it is forgotten.
    TooBig,
    /// The peer itself has sent what is malformed, and is to be told
    /// ([`Malformed::notification`]).
    Malformed(Malformed),
}

/// The fragments of one message at a time.
///
/// Requests and responses may come at the same time, and each deserve one of these. The caller
/// only adds fragments of a message that it waits for: the first fragment of another one, by its
/// header, takes the place of what was there.
pub struct Reassembly<'s> {
    storage: ManagedSlice<'s, u8>,
    /// How much of it is in use.
    len: usize,
    /// The message's header, and how many fragments it has.
    message: Option<(Header, u16)>,
    /// The type of the first payload, once the first fragment is there.
    first: PayloadType,
    /// The fragments that lie in the storage, in the order of their numbers.
    parts: Vec<Part, { MAX_FRAGMENTS as usize }>,
}

#[derive(Clone, Copy)]
struct Part {
    number: u16,
    len: u16,
}

impl<'s> Reassembly<'s> {
    /// For messages whose payloads are together no longer than `storage`.
    #[must_use]
    pub fn new(storage: ManagedSlice<'s, u8>) -> Reassembly<'s> {
        Reassembly { storage, len: 0, message: None, first: PayloadType::NONE, parts: Vec::new() }
    }

    /// Forgets all fragments.
    pub fn clear(&mut self) {
        (self.len, self.message) = (0, None);
        self.parts.clear();
    }

    /// Whether this fragment has come before, so that it need not be opened (RFC 7383 §2.6): its
    /// `header` and `position` may be forged.
    #[must_use]
    pub fn has(&self, header: &Header, position: Position) -> bool {
        self.message == Some((*header, position.total)) && self.find(position.number).is_ok()
    }

    /// Adds a fragment; with the last one comes the message.
    ///
    /// # Errors
    /// [`ReassemblyError`]
    pub fn add(&mut self, fragment: &Fragment<'_>) -> Result<Reassembled<'_>, ReassemblyError> {
        let Position { number, total } = fragment.position;
        match self.message {
            Some((header, stored)) if header == fragment.header && total <= stored => {
                if total < stored {
                    return Ok(Reassembled::Outdated);
                }
            }
            // The first one, or the peer has begun anew with smaller fragments (RFC 7383 §2.5.2).
            _ => {
                self.clear();
                self.message = Some((fragment.header, total));
            }
        }
        let Err(place) = self.find(number) else { return Ok(Reassembled::Duplicate) };
        if total > MAX_FRAGMENTS || self.insert(place, number, fragment.content).is_none() {
            self.clear();
            return Err(ReassemblyError::TooBig);
        }
        if number == 1 {
            self.first = fragment.first;
        }
        if self.parts.len() < usize::from(total) {
            return Ok(Reassembled::Incomplete);
        }
        let payloads = self.storage.get(..self.len).unwrap_or_default();
        Message::of_payloads(fragment.header, self.first, payloads)
            .map(Reassembled::Message)
            .map_err(ReassemblyError::Malformed)
    }

    /// Where a fragment is among the others, or would have to be.
    fn find(&self, number: u16) -> Result<usize, usize> {
        self.parts.binary_search_by_key(&number, |part| part.number)
    }

    /// Puts a fragment's content between those before and behind it; `None` if there is no room.
    fn insert(&mut self, place: usize, number: u16, content: &[u8]) -> Option<()> {
        let before = self.parts.get(..place)?;
        let at = before.iter().fold(0_usize, |at, part| at.saturating_add(part.len.into()));
        let end = self.len.checked_add(content.len())?;
        self.storage.get_mut(self.len..end)?.copy_from_slice(content);
        self.storage.get_mut(at..end)?.rotate_right(content.len());
        let len = content.len().try_into().ok()?;
        self.parts.insert(place, Part { number, len }).ok()?;
        self.len = end;
        Some(())
    }
}

impl<'b> Unsealed<'b> {
    /// Seals it in fragments of `max_len` bytes each, one behind the other, of which only the last
    /// may be shorter; all their headers but those of UDP and IP are included. The first takes
    /// `iv`, each further one the next number: the caller never uses any of them twice with one key.
    ///
    /// # Errors
    /// [`NoRoom`] if `max_len` is less than [`OVERHEAD`] and a byte, if it would need more than
    /// [`MAX_FRAGMENTS`], or if the buffer that it was written to is too short for all.
    pub fn seal_fragments<A: Aead>(
        self,
        max_len: usize,
        key: &A,
        salt: &Salt,
        iv: u64,
    ) -> Result<&'b mut [u8], NoRoom> {
        let chunk_len = max_len.checked_sub(OVERHEAD).filter(|len| *len > 0).ok_or(NoRoom)?;
        let (header, first, len) = (*self.header(), self.first(), self.payloads().len());
        let total = u16::try_from(len.div_ceil(chunk_len).max(1)).map_err(|_| NoRoom)?;
        if total > MAX_FRAGMENTS {
            return Err(NoRoom);
        }
        let buffer = self.into_buffer();
        let mut sealed_len = 0;
        // The last one first: what is moved towards the end never reaches what is still to be moved.
        for before in (0..total).rev() {
            let (from, at) = (usize::from(before) * chunk_len, usize::from(before) * max_len);
            let chunk = chunk_len.min(len - from);
            let end = at + OVERHEAD + chunk;
            sealed_len = sealed_len.max(end);
            let room = buffer.get_mut(..end).ok_or(NoRoom)?;
            room.copy_within(PAYLOADS_AT + from..PAYLOADS_AT + from + chunk, at + AAD_LEN + IV_LEN);
            let fragment = room.get_mut(at..).ok_or(NoRoom)?;
            let mut writer = Writer::new(fragment);
            header.write(&mut writer, PayloadType::SKF)?;
            let first = if before == 0 { first } else { PayloadType::NONE };
            writer.put(&[first.0, 0, 0, 0])?;
            writer.put_u16(before + 1)?;
            writer.put_u16(total)?;
            writer.put(&[0; IV_LEN])?;
            writer.reserve(chunk)?;
            writer.put(&[0; PAD_LENGTH_LEN + ICV_LEN])?;
            let iv = iv.checked_add(before.into()).ok_or(NoRoom)?;
            sk::seal(fragment, AAD_LEN, key, salt, iv)?;
        }
        buffer.get_mut(..sealed_len).ok_or(NoRoom)
    }
}
