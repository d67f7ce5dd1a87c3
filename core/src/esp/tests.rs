//! Sealing and opening, by published vectors and by what must never happen.

use std::vec;
use std::vec::Vec;

use managed::ManagedSlice;

use super::*;
use crate::counters::Discard;
use crate::crypto::{Aead, AnyAead, Cipher, Salt};
use crate::packet::{HEADROOM, PacketBuf, TAILROOM};
use crate::sad::{InboundSa, OutboundSa};
use crate::spd::PeerId;
use crate::wire::esp::NextHeader;

const KEYMAT: [u8; 36] = [0x5a; 36];

fn outbound(cipher: Cipher, esn: bool, first: u64) -> OutboundSa<AnyAead> {
    let (key, salt) = KEYMAT.split_at(cipher.key_len());
    OutboundSa {
        spi: 0x1001,
        key: AnyAead::new(cipher, key).unwrap(),
        salt: Salt::new(salt[..4].try_into().unwrap()),
        sequence: OutboundSequence::reserved(esn, first, u64::MAX),
    }
}

fn inbound(cipher: Cipher, esn: bool) -> InboundSa<'static, AnyAead> {
    let sa = outbound(cipher, esn, 1);
    let blocks = vec![0; window_storage(64)].leak();
    InboundSa {
        spi: sa.spi,
        key: AnyAead::new(cipher, &KEYMAT[..cipher.key_len()]).unwrap(),
        salt: sa.salt,
        esn,
        window: ReplayWindow::new(ManagedSlice::Borrowed(blocks)).unwrap(),
        peer: PeerId(0),
    }
}

fn sealed(sa: &mut OutboundSa<AnyAead>, inner: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADROOM + inner.len() + TAILROOM];
    bytes[HEADROOM..][..inner.len()].copy_from_slice(inner);
    let mut packet = PacketBuf::new(&mut bytes, HEADROOM, inner.len()).unwrap();
    seal(sa, &mut packet, NextHeader::Ipv4).unwrap();
    packet.as_slice().to_vec()
}

fn opened(sa: &mut InboundSa<'_, AnyAead>, esp: &[u8]) -> Result<Vec<u8>, Discard> {
    let mut bytes = esp.to_vec();
    let mut packet = PacketBuf::new(&mut bytes, 0, esp.len()).unwrap();
    let opened = open(sa, &mut packet)?;
    assert_eq!(opened.next_header, NextHeader::Ipv4);
    Ok(packet.as_slice().to_vec())
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let nibble = |byte: &u8| (*byte as char).to_digit(16).unwrap() as u8;
    digits.chunks(2).map(|pair| nibble(&pair[0]) << 4 | nibble(&pair[1])).collect()
}

/// RFC 7634 Appendix A: a whole packet, whose IV is not its sequence number.
#[test]
fn rfc_7634_appendix_a() {
    let esp = hex("
        01 02 03 04 00 00 00 05 10 11 12 13 14 15 16 17
        24 03 94 28 b9 7f 41 7e 3c 13 75 3a 4f 05 08 7b 67 c3 52 e6 a7 fa b1 b9 82 d4 66 ef 40 7a
        e5 c6 14 ee 80 99 d5 28 44 eb 61 aa 95 df ab 4c 02 f7 2a a7 1e 7c 4c 4f 64 c9 be fe 2f ac
        c6 38 e8 f3 cb ec 16 3f ac 46 9b 50 27 73 f6 fb 94 e6 64 da 91 65 b8 28 29 f6 41 e0
        76 aa a8 26 6b 7f b0 f7 b1 1b 36 99 07 e1 ad 43");
    let inner = hex("
        45 00 00 54 a6 f2 00 00 40 01 e7 78 c6 33 64 05 c0 00 02 05 08 00 5b 7a 3a 08 00 00 55 3b
        ec 10 00 07 36 27 08 09 0a 0b 0c 0d 0e 0f 10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f
        20 21 22 23 24 25 26 27 28 29 2a 2b 2c 2d 2e 2f 30 31 32 33 34 35 36 37");
    let mut sa = inbound(Cipher::ChaCha20Poly1305, false);
    sa.spi = 0x0102_0304;
    sa.key = AnyAead::new(Cipher::ChaCha20Poly1305, &(0x80..0xa0).collect::<Vec<u8>>()).unwrap();
    sa.salt = [0xa0, 0xa1, 0xa2, 0xa3].into();
    assert_eq!(opened(&mut sa, &esp), Ok(inner));
    assert_eq!(opened(&mut sa, &esp), Err(Discard::Replayed));
}

#[test]
fn what_is_sealed_opens_again_at_every_length() {
    for cipher in Cipher::ALL {
        for esn in [false, true] {
            let (mut out, mut inn) = (outbound(cipher, esn, 1), inbound(cipher, esn));
            for len in (0..70usize).chain([1400, 65535]) {
                let inner: Vec<u8> = (0..len).map(|i| i as u8).collect();
                let esp = sealed(&mut out, &inner);
                assert_eq!(esp.len(), 16 + (len + 2).next_multiple_of(4) + 16);
                assert_eq!(opened(&mut inn, &esp), Ok(inner), "{cipher:?} {esn} {len}");
            }
        }
    }
}

#[test]
fn a_single_changed_bit_anywhere_is_refused_and_moves_nothing() {
    for cipher in Cipher::ALL {
        let mut inn = inbound(cipher, true);
        let esp = sealed(&mut outbound(cipher, true, 40), b"inner packet");
        for bit in 32..esp.len() * 8 {
            let mut forged = esp.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(opened(&mut inn, &forged), Err(Discard::BadIcv)), "bit {bit}");
            assert_eq!(inn.window.top(), 0);
        }
        assert!(opened(&mut inn, &esp).is_ok());
    }
}

#[test]
fn truncated_packets_are_malformed_or_fail_their_check() {
    let mut inn = inbound(Cipher::ChaCha20Poly1305, false);
    let esp = sealed(&mut outbound(Cipher::ChaCha20Poly1305, false, 1), b"inner packet");
    for len in 0..esp.len() {
        let expected = if len < 34 { Discard::Malformed } else { Discard::BadIcv };
        assert_eq!(opened(&mut inn, &esp[..len]), Err(expected), "{len} bytes");
    }
}

#[test]
fn the_high_half_of_the_sequence_number_is_authenticated_and_restored() {
    let cipher = Cipher::Aes128Gcm16;
    let first = (1 << 32) - 3;
    let (mut out, mut inn) = (outbound(cipher, true, first), inbound(cipher, true));
    inn.window.resume(first - 1);
    for number in first..first + 6 {
        assert_eq!(opened(&mut inn, &sealed(&mut out, b"x")), Ok(b"x".to_vec()));
        assert_eq!(inn.window.top(), number);
    }
    // A receiver that missed 2^32 packets infers the wrong half, and the check fails.
    let mut late = outbound(cipher, true, first + (1 << 32) + 10);
    assert_eq!(opened(&mut inn, &sealed(&mut late, b"x")), Err(Discard::BadIcv));
}

#[test]
fn esn_and_32_bit_numbers_do_not_mix() {
    let cipher = Cipher::Aes256Gcm16;
    let esp = sealed(&mut outbound(cipher, true, 1), b"x");
    assert_eq!(opened(&mut inbound(cipher, false), &esp), Err(Discard::BadIcv));
}

/// What an authenticated but odd peer may send: any padding length, content checked.
#[test]
fn padding_of_any_length_is_taken_off_and_wrong_padding_refused() {
    let cipher = Cipher::ChaCha20Poly1305;
    let build = |sequence: u32, plaintext: &[u8]| {
        let iv = [9; 8];
        let sa = outbound(cipher, false, 1);
        let mut text = plaintext.to_vec();
        let aad = Aad::new(sa.spi, sequence.into(), false);
        let icv = sa.key.seal(&nonce(&sa.salt, &iv), aad.as_slice(), &mut text);
        [&sa.spi.to_be_bytes()[..], &sequence.to_be_bytes(), &iv, &text, &icv].concat()
    };
    let mut inn = inbound(cipher, false);
    for (sequence, len) in (1..).zip([0u8, 1, 2, 3, 7, 254, 255]) {
        let mut plaintext = b"inner".to_vec();
        plaintext.extend(1..=len);
        plaintext.extend([len, 4]);
        assert_eq!(opened(&mut inn, &build(sequence, &plaintext)), Ok(b"inner".to_vec()));
    }
    for (sequence, plaintext) in (10..).zip([
        &[b'x', 1, 2, 4, 3, 4][..], // 1, 2, 4
        &[b'x', 0, 0, 0, 3, 4],     // zeros
        &[1, 2, 4, 4],              // longer than the packet
        &[255, 4],
    ]) {
        assert_eq!(opened(&mut inn, &build(sequence, plaintext)), Err(Discard::BadPadding));
        assert_eq!(inn.window.top(), sequence.into(), "authentic, hence received");
    }
}

#[test]
fn without_room_nothing_changes_and_no_number_is_used() {
    let mut sa = outbound(Cipher::ChaCha20Poly1305, false, 1);
    for (start, len, total) in [(15, 8, 100), (16, 8, 16 + 8 + 17)] {
        let mut bytes = vec![3; total];
        let mut packet = PacketBuf::new(&mut bytes, start, len).unwrap();
        assert_eq!(seal(&mut sa, &mut packet, NextHeader::Ipv4), Err(Discard::NoRoom));
        assert!(bytes.iter().all(|byte| *byte == 3));
        assert_eq!(sa.sequence.next(), 1);
    }
}
