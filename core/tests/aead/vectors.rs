//! RFC 8439, RFC 7634 Appendix A, draft-mcgrew-gcm-test-01 (whole ESP packets with AES-GCM, with and
//! without ESN) and Project Wycheproof, run against the `Key` of the module that this one lies in.

use managed::ManagedSlice;
use simplevpn_core::PacketBuf;
use simplevpn_core::crypto::{Aead, BadIcv, Cipher, ICV_LEN, Salt};
use simplevpn_core::esp::{self, ReplayWindow, window_storage};
use simplevpn_core::sad::InboundSa;
use simplevpn_core::spd::PeerId;
use simplevpn_core::wire::esp::NextHeader;
use wycheproof::TestResult;
use wycheproof::aead::{Test, TestName, TestSet};

use super::Key;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let nibble = |byte: &u8| (*byte as char).to_digit(16).unwrap() as u8;
    digits.chunks(2).map(|pair| nibble(&pair[0]) << 4 | nibble(&pair[1])).collect()
}

fn seal(key: &Key, nonce: &[u8], aad: &[u8], text: &[u8]) -> Vec<u8> {
    let mut sealed = text.to_vec();
    let icv = key.seal(nonce.try_into().unwrap(), aad, &mut sealed);
    sealed.extend(icv);
    sealed
}

fn open(key: &Key, nonce: &[u8], aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, BadIcv> {
    let (text, icv) = sealed.split_last_chunk::<ICV_LEN>().unwrap();
    let mut text = text.to_vec();
    key.open(nonce.try_into().unwrap(), aad, &mut text, icv)?;
    Ok(text)
}

#[test]
fn rfc_8439_section_2_8_2() {
    let key = Key::new(Cipher::ChaCha20Poly1305, &Vec::from_iter(0x80..=0x9f)).unwrap();
    let nonce = hex("07 00 00 00 40 41 42 43 44 45 46 47");
    let aad = hex("50 51 52 53 c0 c1 c2 c3 c4 c5 c6 c7");
    let text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for \
                 the future, sunscreen would be it.";
    let sealed = hex("
        d3 1a 8d 34 64 8e 60 db 7b 86 af bc 53 ef 7e c2 a4 ad ed 51 29 6e 08 fe a9 e2 b5 a7 36 ee 62
        d6 3d be a4 5e 8c a9 67 12 82 fa fb 69 da 92 72 8b 1a 71 de 0a 9e 06 0b 29 05 d6 a5 b6 7e cd
        3b 36 92 dd bd 7f 2d 77 8b 8c 98 03 ae e3 28 09 1b 58 fa b3 24 e4 fa d6 75 94 55 85 80 8b 48
        31 d7 bc 3f f4 de f0 8e 4b 7a 9d e5 76 d2 65 86 ce c6 4b 61 16
        1a e1 0b 59 4f 09 e2 6a 7e 90 2e cb d0 60 06 91");
    assert_eq!(seal(&key, &nonce, &aad, text), sealed);
    assert_eq!(open(&key, &nonce, &aad, &sealed), Ok(text.to_vec()));
}

#[test]
fn rfc_7634_appendix_a() {
    let key = Key::new(Cipher::ChaCha20Poly1305, &Vec::from_iter(0x80..=0x9f)).unwrap();
    let nonce = hex("a0 a1 a2 a3 10 11 12 13 14 15 16 17");
    let aad = hex("01 02 03 04 00 00 00 05");
    let text = hex("
        45 00 00 54 a6 f2 00 00 40 01 e7 78 c6 33 64 05 c0 00 02 05 08 00 5b 7a 3a 08 00 00 55 3b
        ec 10 00 07 36 27 08 09 0a 0b 0c 0d 0e 0f 10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f
        20 21 22 23 24 25 26 27 28 29 2a 2b 2c 2d 2e 2f 30 31 32 33 34 35 36 37 01 02 02 04");
    let sealed = hex("
        24 03 94 28 b9 7f 41 7e 3c 13 75 3a 4f 05 08 7b 67 c3 52 e6 a7 fa b1 b9 82 d4 66 ef 40 7a
        e5 c6 14 ee 80 99 d5 28 44 eb 61 aa 95 df ab 4c 02 f7 2a a7 1e 7c 4c 4f 64 c9 be fe 2f ac
        c6 38 e8 f3 cb ec 16 3f ac 46 9b 50 27 73 f6 fb 94 e6 64 da 91 65 b8 28 29 f6 41 e0
        76 aa a8 26 6b 7f b0 f7 b1 1b 36 99 07 e1 ad 43");
    assert_eq!(seal(&key, &nonce, &aad, &text), sealed);
    assert_eq!(open(&key, &nonce, &aad, &sealed), Ok(text));
}

/// One case of draft-mcgrew-gcm-test-01, in hexadecimal digits.
struct EspCase {
    key: &'static str,
    /// Salt and IV.
    nonce: &'static str,
    /// SPI and sequence number: 12 bytes with ESN, 8 without.
    aad: &'static str,
    /// Payload, padding and trailer.
    text: &'static str,
    /// Ciphertext and ICV.
    sealed: &'static str,
}

/// Section 4's cases, in its order, without the one whose key has 192 bits (which we do not speak).
const ESP_CASES: [EspCase; 13] = [
    EspCase {
        key: "4c80cdefbb5d10da906ac73c3613a634",
        nonce: "2e443b684956ed7e3b244cfe",
        aad: "000043218765432100000000",
        text: "45000048699a000080114db7c0a80102c0a801010a9bf15638d301000001000000000000045f736970
               045f756470037369700963796265726369747902646b000021000101020201",
        sealed: "fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34cfa2436f14a3f3cf
                 65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce61bc17d768fd9732
                 459018148f6cbe722fd04796562dfdb4",
    },
    EspCase {
        key: "feffe9928665731c6d6a8f9467308308",
        nonce: "cafebabefacedbaddecaf888",
        aad: "0000a5f80000000a",
        text: "4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d00100000100000000000003
               7369700963796265726369747902646b00000100010001",
        sealed: "deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d114d2a5c3de81827c10e9a4f
                 51330d0eec416642cfbb85a5b47e48a4ec3b9ba95d918bd1
                 83b70d3aa8bc6ee4c309e9d85a41ad4a",
    },
    EspCase {
        key: "abbccddef00112233445566778899aababbccddef00112233445566778899aab",
        nonce: "112233440102030405060708",
        aad: "4a2cbfe300000002",
        text: "4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee0000000007002400020bf000002
               0405b40101040201020201",
        sealed: "ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763748a637985771d34
                 7f0545659f14e99def842d8e b335f4eecfdbf831824b4c4915956c96",
    },
    EspCase {
        key: "00000000000000000000000000000000",
        nonce: "000000000000000000000000",
        aad: "0000000000000001",
        text: "4500003c99c500008001cb7a40679318010101010800075c020044006162636465666768696a6b6c6d
               6e6f707172737475767761626364656667686901020201",
        sealed: "4688daf2f973a392732909c331d56d60f694abaa414b5e7ff5fdcdfff5e9a284456476492719ffb6
                 4de7d9dca1e1d894bc3bd57873ed4d181d19d4d5c8c18af3
                 f821d496eeb096e98ad2b69e4799c71d",
    },
    EspCase {
        key: "3de09874b388e6491988d0c3607eae1f",
        nonce: "57690e434e280000a2fca1a3",
        aad: "42f67e3f1010101010101010",
        text: "4500003c99c300008001cb7c40679318010101010800085c020043006162636465666768696a6b6c6d
               6e6f707172737475767761626364656667686901020201",
        sealed: "fba2caa4853cf9f0f22cb10d86dd83b0fec75691cf1a04b00d1138ec9c35791765acbd8701ad7984
                 5bf9fe3fba487bc91755e6662b4c8d0d1f5e22739530320a
                 e0d731cc978ecafaeae88f00e80d6e48",
    },
    EspCase {
        key: "3de09874b388e6491988d0c3607eae1f",
        nonce: "57690e434e280000a2fca1a3",
        aad: "42f67e3f1010101010101010",
        text: "4500001c42a200008001441f406793b6e00000020a00f5ff01020201",
        sealed: "fba2ca845e5df9f0f22c3e6e86dd831e1fc65792cd1af9130e1379ed
                 369f071f35e034be95f112e4e7d05d35",
    },
    EspCase {
        key: "abbccddef00112233445566778899aab",
        nonce: "decaf888cafedebaceface74",
        aad: "000001000000000000000001",
        text: "4500004933ba00007f119106c3fb1d10c2b1d326c02831ce0035dd7b800302d500004e20001e8c18d7
               5b81dc91baa0476b91b924b280389d92c963bac046ec959b6266c04722b14923010101",
        sealed: "18a6fd42f72cbf4ab2a2ea901f73d814e3e7f243d95412e1c349c1d2fbec168f9190feebaf2cb019
                 84e65863965d7472b79da345e0e780191f0d2f0e0f496c226f2127b27db35724e7845d68
                 651f57e65f354f75ff17015769623436",
    },
    EspCase {
        key: "abbccddef00112233445566778899aababbccddef00112233445566778899aab",
        nonce: "73616c74616e640169766563",
        aad: "17405e67156f3126dd0db99b",
        text: "45080028732c00004006e9f90a0106120a01038f06b88023dd6bafbecb71260250101f646d540001",
        sealed: "f2d69ecdbd5a0d5b8d5ef38bad4da58d1f278fde98ef67549d524a3018d9a57ff4d3a31ce673119e
                 451626c2415771e3b7eebca614c89b35",
    },
    EspCase {
        key: "3de09874b388e6491988d0c3607eae1f",
        nonce: "57690e434e280000a2fca1a3",
        aad: "42f67e3f1010101010101010",
        text: "45000049333e00007f119182c3fb1d10c2b1d326c02831ce0035cb458003025b000001e0001e8c18d6
               5759d52284a0352c71475c8880391c764d6e5ee0496b325ae270c03899493915010101",
        sealed: "fba2cad12fc1f9f00d3cebf305410db83d7784b607323d220f24b0a97d54182800cadb0f68d99ef0
                 e0c0c89ae9bea8884e52d65bc1afd0740f742444747b5b39ab533163aad4550ee5160975
                 cdb608c5769189609763b8e18caa81e2",
    },
    EspCase {
        key: "abbccddef00112233445566778899aababbccddef00112233445566778899aab",
        nonce: "73616c74616e640169766563",
        aad: "17405e67156f3126dd0db99b",
        text: "636973636f0172756c657301746865016e6574776501646566696e6501746865746563686e6f6c6f67
               696573017468617477696c6c01646566696e65746f6d6f72726f7701020201",
        sealed: "d4b7ed86a1777f2ea13d6973d324c69e7b43f826fb56831226508bebd2dceb18d0a6df10e5487df0
                 74113e14c641024e3e6773d91a62ee429b043a10e3efe6b012a49363412364f8
                 c0cac587f249e56b11e24f30e44ccc76",
    },
    EspCase {
        key: "7d773d00c144c525ac619d18c84a3f47",
        nonce: "d966426743457e9182443bc6",
        aad: "335467aeffffffff",
        text: "01020201",
        sealed: "437f866b cb3f699fe9b0822bac961c4504bef270",
    },
    EspCase {
        key: "abbccddef00112233445566778899aab",
        nonce: "decaf888cafedebaceface74",
        aad: "000001000000000000000001",
        text: "746f016265016f72016e6f7401746f0162650001",
        sealed: "29c9fc69a197d038ccdd14e2ddfcaa0543332164 412503524303ed3c6c5f283843af8c3e",
    },
    EspCase {
        key: "6c6567616c697a656d6172696a75616e61616e64646f69746265666f72656961",
        nonce: "7475726e333021696765746d",
        aad: "796b6963ffffffffffffffff",
        text: "45000030da3a00008001df3bc0a80005c0a800010800c6cd020007006162636465666768696a6b6c6d
               6e6f707172737401020201",
        sealed: "f97ab2aa356d8edce17644ac8c78e25dd24dedbb29ebf1b64a274b39b49c3a864cd3d78ca4ae68a3
                 2b42458fb57dbe821dcc63b9d0937ba2945f669368661a329fb4c053",
    },
];

#[test]
fn draft_mcgrew_gcm_test_01() {
    for (number, case) in (1..).zip(&ESP_CASES) {
        let [key, nonce, aad, text, sealed] =
            [case.key, case.nonce, case.aad, case.text, case.sealed].map(hex);
        let cipher = if key.len() == 16 { Cipher::Aes128Gcm16 } else { Cipher::Aes256Gcm16 };
        let key = Key::new(cipher, &key).unwrap();
        assert_eq!(seal(&key, &nonce, &aad, &text), sealed, "case {number}");

        let (spi, sequence) = aad.split_first_chunk().unwrap();
        let esn = sequence.len() == 8;
        let mut packet =
            [&spi[..], sequence.last_chunk::<4>().unwrap(), &nonce[4..], &sealed].concat();
        let sequence = sequence.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let mut blocks = vec![0; window_storage(64)];
        let mut window = ReplayWindow::new(ManagedSlice::Borrowed(&mut blocks)).unwrap();
        window.resume(sequence - 1);
        let mut sa = InboundSa {
            spi: u32::from_be_bytes(*spi),
            key,
            salt: Salt::new(nonce[..4].try_into().unwrap()),
            esn,
            window,
            peer: PeerId(0),
        };
        let len = packet.len();
        let mut packet = PacketBuf::new(&mut packet, 0, len).unwrap();
        let opened = esp::open(&mut sa, &mut packet).unwrap();
        // They carry ICMP (1), as in transport mode.
        assert_eq!(opened.next_header, NextHeader::Other(1), "case {number}");
        let padding = usize::from(text[text.len() - 2]);
        assert_eq!(packet.as_slice(), &text[..text.len() - 2 - padding], "case {number}");
        assert_eq!(sa.window.top(), sequence, "case {number}");
    }
}

/// Runs every case of ours (96-bit nonce, 128-bit tag) and returns how many were valid and invalid.
fn wycheproof(name: TestName, ciphers: &[Cipher]) -> [usize; 2] {
    let mut counts = [0; 2];
    for group in TestSet::load(name).unwrap().test_groups {
        if (group.nonce_size, group.tag_size) != (96, 128) {
            continue;
        }
        let Some(cipher) = ciphers.iter().find(|cipher| cipher.key_len() * 8 == group.key_size)
        else {
            continue;
        };
        for test in group.tests {
            let key = Key::new(*cipher, &test.key).unwrap();
            counts[usize::from(!check(&key, &test))] += 1;
        }
    }
    counts
}

/// Returns whether the case was a valid one.
fn check(key: &Key, test: &Test) -> bool {
    let sealed = [&test.ct[..], &test.tag].concat();
    let opened = open(key, &test.nonce, &test.aad, &sealed);
    match test.result {
        TestResult::Valid => {
            assert_eq!(opened.as_deref(), Ok(&test.pt[..]), "case {}", test.tc_id);
            let resealed = seal(key, &test.nonce, &test.aad, &test.pt);
            assert_eq!(resealed, sealed, "case {}", test.tc_id);
            true
        }
        TestResult::Invalid => {
            assert_eq!(opened, Err(BadIcv), "case {}", test.tc_id);
            false
        }
        TestResult::Acceptable => panic!("case {}: neither valid nor invalid", test.tc_id),
    }
}

#[test]
fn wycheproof_chacha20_poly1305() {
    let counts = wycheproof(TestName::ChaCha20Poly1305, &[Cipher::ChaCha20Poly1305]);
    assert!(counts.iter().all(|count| *count > 50), "{counts:?} valid and invalid cases");
}

#[test]
fn wycheproof_aes_gcm() {
    let counts = wycheproof(TestName::AesGcm, &[Cipher::Aes128Gcm16, Cipher::Aes256Gcm16]);
    assert!(counts.iter().all(|count| *count > 50), "{counts:?} valid and invalid cases");
}
