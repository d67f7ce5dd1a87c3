//! `keying 'manual'`.

use super::*;

#[test]
fn keying() {
    check(&[
        (
            10,
            "option keying 'static'",
            "f:10: keying 'static' is not known; write one of 'ike', 'manual'",
        ),
        (
            8,
            "option public_key 'x'",
            "f:8: public_key authenticates nobody with keying 'manual'; remove it",
        ),
        (
            8,
            "option preshared_key 'x'",
            "f:8: preshared_key authenticates nobody with keying 'manual'; remove it",
        ),
        (
            8,
            "option preshared_key_file '/x'",
            "f:8: preshared_key_file authenticates nobody with keying 'manual'; remove it",
        ),
        (
            8,
            "option preshared_key_weak '1'",
            "f:8: preshared_key_weak accepts nothing with keying 'manual'; remove it",
        ),
        (8, "option ppk_id 'x'", "f:8: ppk_id protects nothing with keying 'manual'; remove it"),
        (
            8,
            "option ppk_required '1'",
            "f:8: ppk_required protects nothing with keying 'manual'; remove it",
        ),
        (8, "option local_id 'x'", "f:8: local_id is not sent with keying 'manual'; remove it"),
        (
            8,
            "option remote_id 'x'",
            "f:8: remote_id is not checked with keying 'manual'; remove it",
        ),
        (
            8,
            "option start 'auto'",
            "f:8: start has no effect with keying 'manual', whose SAs are always there; remove it",
        ),
    ]);
}

#[test]
fn manual_keys() {
    check(&[
        (
            8,
            "option cipher 'aes128'",
            "f:8: cipher 'aes128' is not known; write one of 'chacha20poly1305', 'aes128gcm16', 'aes256gcm16'",
        ),
        (8, "option esn 'perhaps'", "f:8: esn 'perhaps' is not a boolean; write '1' or '0'"),
        (
            8,
            "option replay_window '31'",
            "f:8: replay_window '31' is not a window; write a multiple of 32 from 32 to 65536, in packets",
        ),
        (
            8,
            "option replay_window '33'",
            "f:8: replay_window '33' is not a window; write a multiple of 32 from 32 to 65536, in packets",
        ),
        (
            8,
            "option replay_window '65568'",
            "f:8: replay_window '65568' is not a window; write a multiple of 32 from 32 to 65536, in packets",
        ),
        (
            11,
            "",
            "f:7: keying 'manual' without spi_in; add option spi_in: a number from 0x100 to 0xffffffff, the peer's spi_out",
        ),
        (
            12,
            "",
            "f:7: keying 'manual' without spi_out; add option spi_out: a number from 0x100 to 0xffffffff, the peer's spi_in",
        ),
        (
            13,
            "",
            "f:7: keying 'manual' without key_in; add option key_in: key and salt in hex digits, the peer's key_out",
        ),
        (
            14,
            "option key_out ''",
            "f:7: keying 'manual' without key_out; add option key_out: key and salt in hex digits, the peer's key_in",
        ),
        (
            11,
            "option spi_in '255'",
            "f:11: spi_in '255' is reserved; write a number from 0x100 to 0xffffffff",
        ),
        (
            11,
            "option spi_in '0'",
            "f:11: spi_in '0' is reserved; write a number from 0x100 to 0xffffffff",
        ),
        (
            12,
            "option spi_out '0xff'",
            "f:12: spi_out '0xff' is reserved; write a number from 0x100 to 0xffffffff",
        ),
        (
            12,
            "option spi_out '0x100000000'",
            "f:12: spi_out '0x100000000' is not an SPI; write a number from 0x100 to 0xffffffff",
        ),
        (
            12,
            "option spi_out '0x+100'",
            "f:12: spi_out '0x+100' is not an SPI; write a number from 0x100 to 0xffffffff",
        ),
        (
            19,
            "option spi_in '0x1001'",
            "f:19: spi_in '0x1001' is also on line 11; each SA needs its own",
        ),
        (
            13,
            "option key_in 'abcdefgh'",
            "f:13: key_in has a character that is not a hex digit; use 0-9 and a-f",
        ),
        (
            13,
            "option key_in 'abc'",
            "f:13: key_in has an odd number of hex digits; write two for each byte",
        ),
        (
            13,
            "option key_in 'abcd'",
            "f:13: key_in has 2 bytes; chacha20poly1305 needs 36: 32 of key and 4 of salt, 72 hex digits",
        ),
    ]);
}

#[test]
fn a_key_fits_its_cipher() {
    let all =
        |cipher: &str| good().replace("'manual'", &format!("'manual'\noption cipher '{cipher}'"));
    assert_eq!(warnings(&all("aes256gcm16")), [""; 0]);
    assert_eq!(
        errors(&all("aes128gcm16"))[0],
        "f:14: key_in has 36 bytes; aes128gcm16 needs 20: 16 of key and 4 of salt, 40 hex digits"
    );
}

#[test]
fn one_key_is_used_once() {
    let repeated = |key: &str| with(14, &format!("option key_out '{key}'"));
    let message = "f:14: key_out is the key of key_in on line 13; each SA and direction needs its own, or nonces repeat";
    assert_eq!(errors(&repeated(KEY_A)), [message]);
    assert_eq!(errors(&repeated(&KEY_A.to_uppercase())), [message]);
    let other_salt = format!("0x{}00000000", &KEY_A[..64]);
    assert_eq!(errors(&repeated(&other_salt)), [message]);
    assert_eq!(
        errors(&good().replace(KEY_D, KEY_B)),
        [
            "f:22: key_out is the key of key_out on line 14; each SA and direction needs its own, or nonces repeat"
        ]
    );
}

#[test]
fn keys_and_spis_are_compared_across_interfaces() {
    let second =
        good().replace("vpn0", "vpn1").replace("office", "office1").replace("home", "home1");
    let errors = errors(&format!("{}{second}", good()));
    assert_eq!(errors.len(), 6);
    assert_eq!(errors[0], "f:33: spi_in '0x1001' is also on line 11; each SA needs its own");
}
