#!/usr/bin/env python3
"""IKEv2's keys and shared key AUTH, computed with nothing but Python's hmac and hashlib.

Prints keymat.txt:  python3 core/tests/ike/keymat.py >core/tests/ike/keymat.txt
"""

import hashlib
import hmac


def prf(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def prf_plus(key, seed, length):
    output = last = b""
    for number in range(1, 256):
        if len(output) >= length:
            break
        last = prf(key, last + seed + bytes([number]))
        output += last
    return output[:length]


def stretch(label, length):
    """Bytes that look random, the same every time."""
    return hashlib.shake_128(label.encode()).digest(length)


def split(material, lengths):
    for length in lengths:
        yield material[:length]
        material = material[length:]


def show(name, value):
    print(f"{name} = {value.hex()}")


def show_ike_keys(prefix, skeyseed, seed, key_len):
    lengths = (32, key_len, key_len, 32, 32)
    keys = list(split(prf_plus(skeyseed, seed, sum(lengths)), lengths))
    for name, key in zip(("sk_d", "sk_ei", "sk_er", "sk_pi", "sk_pr"), keys):
        show(prefix + name, key)
    return keys


def show_children(prefix, sk_d, seed, key_len):
    keys = split(prf_plus(sk_d, seed, 2 * key_len), (key_len, key_len))
    for end, key in zip("ir", keys):
        show(f"{prefix}_{end}", key)


def case(number, cipher, key_len, nonce_lens, psk_len, ppk_len):
    given = {
        "nonce_i": nonce_lens[0],
        "nonce_r": nonce_lens[1],
        "spi_i": 8,
        "spi_r": 8,
        "shared": 32,
        "new_shared": 32,
        "psk": psk_len,
        "ppk": ppk_len,
        "message": 200,
        "id": 9,
    }
    given = {name: stretch(f"{number} {name}", length) for name, length in given.items()}
    print(f"\ncipher = {cipher}")
    for name, value in given.items():
        show(name, value)
    nonces = given["nonce_i"] + given["nonce_r"]
    seed = nonces + given["spi_i"] + given["spi_r"]
    skeyseed = prf(nonces, given["shared"])
    sk_d, _, _, sk_pi, sk_pr = show_ike_keys("", skeyseed, seed, key_len)
    for name, key in (("sk_d", sk_d), ("sk_pi", sk_pi), ("sk_pr", sk_pr)):
        show(f"ppk_{name}", prf_plus(given["ppk"], key, 32))
    show_children("child", sk_d, nonces, key_len)
    show_children("pfs_child", sk_d, given["new_shared"] + nonces, key_len)
    show_ike_keys("rekey_", prf(sk_d, given["new_shared"] + nonces), seed, key_len)
    octets = given["message"] + given["nonce_r"] + prf(sk_pi, given["id"])
    show("auth_i", prf(prf(given["psk"], b"Key Pad for IKEv2"), octets))


print("# Printed by keymat.py beside this file.")
case(1, "aes128gcm16", 20, (16, 16), 3, 16)
case(2, "chacha20poly1305", 36, (32, 32), 32, 32)
case(3, "aes256gcm16", 36, (32, 33), 64, 65)
case(4, "aes128gcm16", 20, (256, 16), 65, 200)
