//! The line of an IKE SA to its peer: where messages go, what protects them, and which of them may
//! be asked for again.
//!
//! This is all that an exchange needs to say something. What it says comes as a closure that writes
//! the payloads, so that a message is written once, in the place where it is kept.

use super::keymat::{CipherKey, IkeKeys, IkeSpis};
use super::path::IkePath;
use super::window::{MAX_DATAGRAMS, MAX_MESSAGE_LEN, Window};
use super::wire::numbers::ExchangeType;
use super::wire::sk::{OpenError, Opened, Sealed, Unsealed};
use super::wire::{Header, NoRoom, PayloadWriter, message};
use crate::crypto::AnyAead;
use crate::time::Instant;

/// What writes the payloads of a message.
pub(crate) type Payloads<'p> = &'p mut dyn FnMut(&mut PayloadWriter<'_>) -> Result<(), NoRoom>;

/// The line to the peer.
pub(crate) struct Link {
    /// Whether we are the original initiator of the IKE SA.
    pub(crate) initiator: bool,
    pub(crate) spis: IkeSpis,
    /// Where our requests go, and
    pub(crate) path: IkePath,
    /// where our answer goes: to where the request came from (RFC 7296 §2.11).
    pub(crate) answer_path: IkePath,
    /// `None` until IKE_SA_INIT is done.
    pub(crate) keys: Option<IkeKeys>,
    pub(crate) window: Window,
    /// Whether the peer puts fragments together (RFC 7383 §2.3).
    pub(crate) fragments: bool,
    /// The IV of the next message that we encrypt: none is ever used twice with our key.
    next_iv: u64,
}

impl Link {
    pub(crate) const fn new(initiator: bool, spis: IkeSpis, path: IkePath) -> Link {
        Link {
            initiator,
            spis,
            path,
            answer_path: path,
            keys: None,
            window: Window::new(),
            fragments: false,
            next_iv: 0,
        }
    }

    /// Our own SPI.
    pub(crate) fn own_spi(&self) -> u64 {
        if self.initiator { self.spis.initiator } else { self.spis.responder }
    }

    /// Whether a message with this header belongs here. The responder's SPI is not known before it
    /// has answered.
    pub(crate) fn owns(&self, header: &Header) -> bool {
        let unknown = self.initiator && self.spis.responder == 0;
        header.from_initiator != self.initiator
            && header.spis.initiator == self.spis.initiator
            && (unknown || header.spis.responder == self.spis.responder)
    }

    fn header(&self, exchange: ExchangeType, response: bool) -> Header {
        let window = &self.window;
        let message_id = if response { window.expected_id() } else { window.next_id() };
        let Link { spis, initiator, .. } = *self;
        Header { spis, exchange, from_initiator: initiator, response, message_id }
    }

    /// What we encrypt with, and what the peer does.
    fn key(&self, ours: bool) -> Option<&CipherKey> {
        let keys = self.keys.as_ref()?;
        Some(if ours == self.initiator { &keys.sk_ei } else { &keys.sk_er })
    }

    /// Sends a request, protected once there are keys, and waits for its answer. No other may be
    /// on the way ([`Window::is_busy`]).
    ///
    /// # Errors
    /// [`NoRoom`] if it is too long; nothing is sent then.
    pub(crate) fn request(
        &mut self,
        now: Instant,
        exchange: ExchangeType,
        payloads: Payloads<'_>,
    ) -> Result<(), NoRoom> {
        self.write(exchange, false, payloads)?;
        self.window.requested(now);
        Ok(())
    }

    /// Answers the request that is being processed, on the path where it came from, and keeps the
    /// answer until the next request.
    ///
    /// # Errors
    /// [`NoRoom`] if it is too long; nothing is sent then.
    pub(crate) fn respond(
        &mut self,
        exchange: ExchangeType,
        payloads: Payloads<'_>,
    ) -> Result<(), NoRoom> {
        self.write(exchange, true, payloads)?;
        self.window.responded();
        Ok(())
    }

    fn write(
        &mut self,
        exchange: ExchangeType,
        response: bool,
        payloads: Payloads<'_>,
    ) -> Result<(), NoRoom> {
        let header = self.header(exchange, response);
        let iv = self.next_iv;
        let path = if response { self.answer_path } else { self.path };
        let protection = match self.key(true).filter(|_| exchange != ExchangeType::IKE_SA_INIT) {
            Some(key) => Some((expand(key)?, key.salt())),
            None => None,
        };
        // Each fragment has its own.
        self.next_iv = iv.checked_add(MAX_DATAGRAMS as u64).ok_or(NoRoom)?;
        let (window, fragments) = (&mut self.window, self.fragments);
        let kept = if response { &mut window.response } else { &mut window.request };
        kept.put(path, |buffer| match protection {
            Some((key, salt)) => {
                let unsealed = Unsealed::write(buffer, &header, payloads)?;
                let sealed = if unsealed.sealed_len() <= MAX_MESSAGE_LEN {
                    unsealed.seal(&key, &salt, iv)?
                } else if fragments {
                    unsealed.seal_fragments(MAX_MESSAGE_LEN, &key, &salt, iv)?
                } else {
                    return Err(NoRoom);
                };
                Ok(sealed.len())
            }
            None => {
                let buffer = buffer.get_mut(..MAX_MESSAGE_LEN).ok_or(NoRoom)?;
                message::write(buffer, &header, payloads).map(|message| message.len())
            }
        })
    }

    /// Opens an encrypted message of the peer's.
    ///
    /// # Errors
    /// [`OpenError`]; also if there are no keys yet.
    pub(crate) fn open<'d>(&self, sealed: Sealed<'d>) -> Result<Opened<'d>, OpenError> {
        let key = self.key(false).ok_or(OpenError::BadIcv)?;
        let aead = expand(key).map_err(|NoRoom| OpenError::BadIcv)?;
        sealed.open(&aead, &key.salt())
    }
}

/// The key, ready to use. It always has the right length; the error is there to be none of ours.
fn expand(key: &CipherKey) -> Result<AnyAead, NoRoom> {
    AnyAead::new(key.cipher(), key.key()).map_err(|_| NoRoom)
}
