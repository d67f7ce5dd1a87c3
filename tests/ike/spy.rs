//! Somebody who knows every secret: it reads what two nodes send each other, and changes it so that
//! nobody notices. This is what a peer could send that has the keys, and breaks the rules.

use std::collections::HashMap;

use rand_core::{Infallible, TryCryptoRng, TryRng};
use simplevpn_core::crypto::dh::{EphemeralKey, Group, SharedSecret};
use simplevpn_core::crypto::{Aead, AnyAead, Cipher};
use simplevpn_core::ike::keymat::{IkeKeys, IkeSpis, Nonces};
use simplevpn_core::ike::wire::numbers::ExchangeType;
use simplevpn_core::ike::wire::sa::Spi;
use simplevpn_core::ike::wire::sk::{Opened, Sealed};
use simplevpn_core::ike::wire::{HEADER_LEN, Header, Message};

/// The only cipher that it knows.
pub const CIPHER: Cipher = Cipher::ChaCha20Poly1305;
const IV_AT: usize = HEADER_LEN + 4;
const TEXT_AT: usize = IV_AT + 8;
const ICV_LEN: usize = 16;

/// What one end has said about new keys.
#[derive(Clone)]
struct Half {
    spi: u64,
    nonce: Vec<u8>,
    public: Vec<u8>,
}

/// All keys of IKE that two nodes have agreed on while it has listened.
#[derive(Default)]
pub struct Spy {
    keys: Vec<(IkeSpis, IkeKeys)>,
    /// What was asked: by header SPIs, direction and message id.
    asked: Vec<(u64, bool, u32, Half)>,
    /// Of each end, the id of its next request: that of the initiator first. By IKE SA.
    next: HashMap<u64, [u32; 2]>,
}

/// A message without its protection.
pub struct Plain {
    /// The type of the first payload.
    pub first: u8,
    /// The payloads and the padding.
    pub text: Vec<u8>,
}

/// Gives the same secret once more.
struct Replay([u8; 32]);

impl TryRng for Replay {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(0)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(0)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.copy_from_slice(&self.0[..bytes.len()]);
        Ok(())
    }
}

impl TryCryptoRng for Replay {}

impl Spy {
    /// Learns from a message; `drawn` are the secrets of both nodes.
    pub fn watch(&mut self, message: &[u8], drawn: &[[u8; 32]]) {
        let header = Header::parse(message).unwrap();
        if !header.response {
            let next = &mut self.next.entry(header.spis.initiator).or_default();
            next[usize::from(!header.from_initiator)] = header.message_id.saturating_add(1);
        }
        let mut copy = message.to_vec();
        if header.exchange == ExchangeType::IKE_SA_INIT {
            if let Ok(message) = Message::parse(message) {
                self.learn(&header, &message, drawn);
            }
        } else if let Some((key, salt)) = self.key(&header)
            && let Ok(sealed) = Sealed::parse(&mut copy)
            && let Ok(Opened::Message(message)) = sealed.open(&key, &salt)
        {
            self.learn(&header, &message, drawn);
        }
    }

    fn learn(&mut self, header: &Header, message: &Message<'_>, drawn: &[[u8; 32]]) {
        let (Ok(sa), Ok(ke), Ok(nonce)) = (message.sa(), message.ke(), message.nonce()) else {
            return;
        };
        let first = header.exchange == ExchangeType::IKE_SA_INIT;
        let spi = match sa.proposals().next().map(|proposal| proposal.spi) {
            Some(Spi::Ike(spi)) => spi,
            Some(Spi::None) if header.response => header.spis.responder,
            Some(Spi::None) => header.spis.initiator,
            _ => return,
        };
        let half = Half { spi, nonce: nonce.to_vec(), public: ke.data.to_vec() };
        let (own, id) = (header.spis.initiator, header.message_id);
        if !header.response {
            return self.asked.push((own, header.from_initiator, id, half));
        }
        let is_it = |asked: &&(u64, bool, u32, Half)| {
            asked.0 == own && asked.1 != header.from_initiator && asked.2 == id
        };
        let Some((_, _, _, asked)) = self.asked.iter().rev().find(is_it).cloned() else { return };
        let Some(shared) = agree(drawn, &asked.public, &half.public) else { return };
        let nonces = Nonces { initiator: &asked.nonce, responder: &half.nonce };
        let spis = IkeSpis { initiator: asked.spi, responder: half.spi };
        let keys = if first {
            IkeKeys::initial(CIPHER, &shared, nonces, spis)
        } else {
            let Some((_, old)) = self.keys.iter().find(|(known, _)| *known == header.spis) else {
                return;
            };
            IkeKeys::rekeyed(CIPHER, &old.secrets.sk_d, &shared, nonces, spis)
        };
        self.keys.push((spis, keys));
        if self.keys.len() > 60 {
            self.keys.drain(..30);
            self.asked.drain(..self.asked.len().saturating_sub(30));
        }
    }

    /// The IKE SA that was agreed on last, and the id of the next request of its initiator and of its
    /// responder.
    pub fn newest(&self) -> Option<(IkeSpis, [u32; 2])> {
        let (spis, _) = self.keys.last()?;
        Some((*spis, self.next.get(&spis.initiator).copied().unwrap_or_default()))
    }

    /// A message with this header and content, under the keys of its IKE SA.
    pub fn write(&self, header: &Header, plain: &Plain) -> Option<Vec<u8>> {
        let mut like = vec![0; TEXT_AT + ICV_LEN];
        like[..8].copy_from_slice(&header.spis.initiator.to_be_bytes());
        like[8..16].copy_from_slice(&header.spis.responder.to_be_bytes());
        (like[16], like[17], like[18]) = (46, 0x20, header.exchange.0);
        like[19] = u8::from(header.from_initiator) << 3 | u8::from(header.response) << 5;
        like[20..24].copy_from_slice(&header.message_id.to_be_bytes());
        // An IV that nobody uses for long.
        like[IV_AT..TEXT_AT].copy_from_slice(&[0xff; 8]);
        self.seal(&like, plain)
    }

    fn key(&self, header: &Header) -> Option<(AnyAead, simplevpn_core::crypto::Salt)> {
        let (_, keys) = self.keys.iter().find(|(spis, _)| *spis == header.spis)?;
        let key = if header.from_initiator { &keys.sk_ei } else { &keys.sk_er };
        Some((AnyAead::new(CIPHER, key.key()).unwrap(), key.salt()))
    }

    /// What a protected message holds.
    pub fn open(&self, message: &[u8]) -> Option<Plain> {
        let (key, salt) = self.key(&Header::parse(message).ok()?)?;
        let (aad, rest) = message.split_at_checked(IV_AT)?;
        let (text, icv) = rest.get(8..)?.split_last_chunk::<ICV_LEN>()?;
        let nonce = [&*salt, &rest[..8]].concat();
        let mut text = text.to_vec();
        key.open(nonce.as_slice().try_into().ok()?, aad, &mut text, icv).ok()?;
        Some(Plain { first: aad[HEADER_LEN], text })
    }

    /// The same message with other content.
    pub fn seal(&self, like: &[u8], plain: &Plain) -> Option<Vec<u8>> {
        let (key, salt) = self.key(&Header::parse(like).ok()?)?;
        let len = TEXT_AT + plain.text.len() + ICV_LEN;
        let mut message = [&like[..TEXT_AT], &plain.text, &[0; ICV_LEN]].concat();
        message[24..28].copy_from_slice(&u32::try_from(len).ok()?.to_be_bytes());
        message[HEADER_LEN] = plain.first;
        let payload = u16::try_from(len - HEADER_LEN).ok()?;
        message[HEADER_LEN + 2..IV_AT].copy_from_slice(&payload.to_be_bytes());
        let (aad, rest) = message.split_at_mut(IV_AT);
        let (iv, rest) = rest.split_at_mut(8);
        let (text, icv) = rest.split_last_chunk_mut::<ICV_LEN>()?;
        let nonce = [&*salt, &*iv].concat();
        *icv = key.seal(nonce.as_slice().try_into().ok()?, aad, text);
        Some(message)
    }
}

/// The shared secret of two public values, of one of which the secret is among `drawn`.
fn agree(drawn: &[[u8; 32]], a: &[u8], b: &[u8]) -> Option<SharedSecret> {
    drawn.iter().rev().find_map(|secret| {
        let key = EphemeralKey::generate(Group::Curve25519, &mut Replay(*secret));
        match key.public() {
            public if public == a => key.agree(b).ok(),
            public if public == b => key.agree(a).ok(),
            _ => None,
        }
    })
}
