//! IKE messages as targets: from strangers, from a misbehaving peer, and in fragments.

use simplevpn_core::crypto::{Aead, ChaCha20Poly1305, Salt};
use simplevpn_core::ike::wire::payload::{MAX_PAYLOADS, Payload};
use simplevpn_core::ike::wire::sk::{IV_LEN, OpenError, Opened, Sealed};
use simplevpn_core::ike::wire::skf::{Reassembled, Reassembly, ReassemblyError};
use simplevpn_core::ike::wire::{HEADER_LEN, Message};

const ICV_LEN: usize = 16;
const SK: u8 = 46;
const SKF: u8 = 53;

fn key() -> (ChaCha20Poly1305, Salt) {
    (ChaCha20Poly1305::new(&[5; 32]).unwrap(), Salt::new([6; 4]))
}

/// Looks at all there is in a message.
fn read(message: &Message<'_>) {
    let mut count = 0;
    for payload in message.payloads() {
        count += 1;
        match payload {
            Payload::Sa(sa) => {
                assert!(sa.proposals().count() > 0);
                for proposal in sa.proposals() {
                    assert!(proposal.transforms.count() > 0);
                    let _ = proposal.offer();
                }
            }
            Payload::TsInitiator(selectors) | Payload::TsResponder(selectors) => {
                for selector in selectors {
                    assert!(selector.addresses.first() <= selector.addresses.last());
                }
            }
            Payload::Configuration(configuration) => {
                assert!(configuration.attributes().count() <= usize::from(u16::MAX) / 4);
            }
            Payload::Notify(notify) => {
                let _ = (notify.additional_address(), notify.key_exchange_method());
                let _ = (notify.ppk_identity(), notify.hash_algorithms().count());
            }
            Payload::Delete(delete) => assert!(delete.spis().len() <= usize::from(u16::MAX) / 4),
            _ => {}
        }
    }
    assert!(count <= MAX_PAYLOADS, "{count} payloads");
}

/// The same bytes behind a header that is right, for a first payload of the type in byte 16.
fn with_right_header(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    let len = u32::try_from(bytes.len()).ok()?;
    let header = bytes.first_chunk_mut::<HEADER_LEN>()?;
    (header[0], header[17]) = (1, 0x20);
    header[24..].copy_from_slice(&len.to_be_bytes());
    Some(bytes)
}

/// A message in the clear, as it is and with a header that is right.
pub fn ike_message(bytes: &[u8]) {
    let right = with_right_header(bytes);
    for bytes in [Some(bytes), right.as_deref()].into_iter().flatten() {
        if let Ok(message) = Message::parse(bytes) {
            read(&message);
        }
    }
}

/// A message with an encrypted payload of this type: what stays legible of it after the generic
/// header, and what is encrypted.
fn sealed(payload_type: u8, first: u8, legible: &[u8], text: &[u8]) -> Option<Vec<u8>> {
    let (key, salt) = key();
    let aad_len = HEADER_LEN + 4 + legible.len();
    let payload_len = 4 + legible.len() + IV_LEN + text.len() + ICV_LEN;
    let payload_len = u16::try_from(payload_len).ok()?.to_be_bytes();
    let mut header = [0; HEADER_LEN];
    (header[16], header[18]) = (payload_type, 37);
    let generic = [first, 0, payload_len[0], payload_len[1]];
    let message = [&header[..], &generic, legible, &[7; IV_LEN], text, &[0; ICV_LEN]].concat();
    let mut message = with_right_header(&message)?;
    let (aad, rest) = message.split_at_mut(aad_len);
    let (text, icv) = rest[IV_LEN..].split_last_chunk_mut().unwrap();
    let nonce = [*salt, [7; 4], [7; 4]].concat();
    *icv = key.seal(nonce.as_slice().try_into().unwrap(), aad, text);
    Some(message)
}

/// An encrypted message: from a stranger, then as what an authentic one holds, where the first
/// byte is the type of the first payload and the last one how much padding there is.
pub fn ike_open(bytes: &[u8]) {
    let (key, salt) = key();
    let right = with_right_header(bytes);
    for mut bytes in [Some(bytes.to_vec()), right].into_iter().flatten() {
        if let Ok(sealed) = Sealed::parse(&mut bytes) {
            assert_eq!(sealed.open(&key, &salt).err(), Some(OpenError::BadIcv), "who has our key?");
        }
    }
    let Some((first, text)) = bytes.split_first().filter(|(_, text)| !text.is_empty()) else {
        return;
    };
    let Some(mut message) = sealed(SK, *first, &[], text) else { return };
    match Sealed::parse(&mut message).unwrap().open(&key, &salt) {
        Ok(Opened::Message(message)) => read(&message),
        Ok(Opened::Fragment(fragment)) => panic!("{fragment:?} of a whole message"),
        Err(error) => assert_ne!(error, OpenError::BadIcv),
    }
}

/// Fragments of a peer: each begins with its number, how many there are, the type of the first
/// payload and its length.
pub fn ike_reassembly(bytes: &[u8]) {
    let (key, salt) = key();
    let mut storage = [0; 600];
    let mut reassembly = Reassembly::new((&mut storage[..]).into());
    let mut rest = bytes;
    while let Some((&[number, total, first, len], after)) = rest.split_first_chunk() {
        let (content, after) = after.split_at_checked(len.into()).unwrap_or((after, &[]));
        rest = after;
        let text = [content, &[0]].concat();
        let Some(mut message) = sealed(SKF, first, &[0, number, 0, total], &text) else { return };
        let Ok(sealed) = Sealed::parse(&mut message) else {
            assert!(number == 0 || number > total, "{number} of {total}");
            continue;
        };
        let (header, position) = (*sealed.header(), sealed.fragment().unwrap());
        let was_there = reassembly.has(&header, position);
        let Ok(Opened::Fragment(fragment)) = sealed.open(&key, &salt) else {
            panic!("the key is right, and it is a fragment")
        };
        match reassembly.add(&fragment) {
            Ok(Reassembled::Message(message)) => {
                assert!(!was_there);
                read(&message);
            }
            Ok(Reassembled::Duplicate) => assert!(was_there),
            Ok(Reassembled::Incomplete | Reassembled::Outdated) => assert!(!was_there),
            Err(ReassemblyError::TooBig) => assert!(!reassembly.has(&header, position)),
            Err(ReassemblyError::Malformed(_)) => {}
        }
    }
}

/// A message to be spoilt: nonce, KE, two notifications, CP, TSi, SA.
const SAMPLE: [u8; 152] = [
    1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 40, 32, 34, 8, 0, 0, 0, 0, 0, 0, 0,
    152, //
    34, 0, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, //
    41, 0, 0, 12, 0, 31, 0, 0, 1, 2, 3, 4, //
    41, 0, 0, 12, 0, 0, 64, 47, 0, 2, 0, 5, //
    47, 0, 0, 12, 3, 4, 64, 9, 0, 0, 1, 2, //
    44, 0, 0, 16, 1, 0, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, //
    33, 0, 0, 24, 1, 0, 0, 0, 7, 0, 0, 16, 0, 0, 255, 255, 10, 0, 0, 0, 10, 0, 0, 255, //
    0, 0, 0, 28, 0, 0, 0, 24, 1, 1, 0, 2, 3, 0, 0, 8, 2, 0, 0, 5, 0, 0, 0, 8, 4, 0, 0, 31, //
];

/// Something like what the target called `name` expects, to be spoilt.
pub(super) fn sample(name: &str) -> Vec<u8> {
    match name {
        "ike_open" => [&[40], &SAMPLE[HEADER_LEN..], &[0]].concat(),
        "ike_reassembly" => {
            let (first, second) = SAMPLE[HEADER_LEN..].split_at(60);
            let [first_len, second_len] = [first, second].map(|part| part.len() as u8);
            [&[1, 2, 40, first_len], first, &[2, 2, 0, second_len], second].concat()
        }
        _ => SAMPLE.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_a_message_before_it_is_spoilt() {
        assert_eq!(Message::parse(&SAMPLE).unwrap().payloads().count(), 7);
    }
}
