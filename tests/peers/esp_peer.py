"""An ESP tunnel-mode peer made of scapy's `scapy.layers.ipsec`, for packets no honest peer sends.

It holds one SA each way, answers echo requests that arrive through its tunnel, and obeys commands
on standard input, one per line; each is answered by one line on standard output.

    ping [KEY=VALUE ...]   send an echo request; "reply SEQ" (the number it came under) or "nothing"
    send [KEY=VALUE ...]   send an echo request and do not wait for the answer; "sent SEQ"
    again                  send the last packet once more, bit by bit; "sent SEQ"
    plain [KEY=VALUE ...]  send the inner packet without ESP; "sent SEQ"
    seen                   "opened N requests N replies N refused N": what arrived so far

What can be wrong with a packet:

    seq=N       its 64-bit sequence number           spi=N       its SPI
    src= dst=   inner addresses                      size=N      bytes of echo payload
    nh=N        next header                          tfc=N       bytes after the inner packet
    padlen=N    padding length; 1, 2, 3, ... follow  padding=HEX other padding bytes
    claim=N     what the padding length octet says   iv=HEX      initialization vector
    cut=N       keep only so many bytes of ESP       flip=N      invert a byte (-1 is the last)
    tos=N       outer traffic class                  inner_tos=N inner traffic class
    id=N        echo identifier
"""

import argparse
import ipaddress
import os
import select
import socket
import sys
import time

from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.layers.ipsec import (
    ESP, IPSecIntegrityError, SecurityAssociation, _ESPPlain)
from scapy.packet import Raw, raw

CIPHERS = {
    "chacha20poly1305": "CHACHA20-POLY1305",
    "aes128gcm16": "AES-GCM",
    "aes256gcm16": "AES-GCM",
}
NH_IPV4, NH_IPV6 = 4, 41
PATIENCE = 1.0


def arguments():
    parser = argparse.ArgumentParser()
    for name in ("local", "remote"):
        parser.add_argument(f"--{name}", required=True, help=f"{name} outer address")
    for name in ("local4", "remote4", "local6", "remote6"):
        parser.add_argument(f"--{name}", required=True, help=f"{name[:-1]} inner address")
    for name in ("spi-in", "spi-out"):
        parser.add_argument(f"--{name}", required=True, type=lambda text: int(text, 0))
    for name in ("key-in", "key-out"):
        parser.add_argument(f"--{name}", required=True, type=bytes.fromhex)
    parser.add_argument("--cipher", required=True, choices=CIPHERS)
    parser.add_argument("--esn", action="store_true")
    parser.add_argument("--udp", action="store_true", help="encapsulate in UDP 4500")
    return parser.parse_args()


class Wire:
    """The outer side: raw ESP, or UDP-encapsulated ESP, to and from one remote address."""

    def __init__(self, local, remote, udp):
        self.remote, self.udp = remote, udp
        self.v4 = ipaddress.ip_address(local).version == 4
        family = socket.AF_INET if self.v4 else socket.AF_INET6
        if udp:
            self.socket = socket.socket(family, socket.SOCK_DGRAM)
            self.socket.bind((local, 4500))
        else:
            self.socket = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ESP)
            self.socket.bind((local, 0))

    def send(self, esp, tos):
        if self.v4:
            self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
        else:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, tos)
        self.socket.sendto(esp, (self.remote, 4500 if self.udp else 0))

    def receive(self):
        """The bytes of the next ESP packet, or None for anything else."""
        data, sender = self.socket.recvfrom(65535)
        if sender[0] != self.remote:
            return None
        if self.udp:
            return data if len(data) > 8 and data[:4] != bytes(4) else None
        return data[(data[0] & 15) * 4:] if self.v4 else data


class Peer:
    def __init__(self, options):
        self.options = options
        self.wire = Wire(options.local, options.remote, options.udp)
        self.outbound = self.association(options.spi_out, options.key_out)
        self.inbound = self.association(options.spi_in, options.key_in)
        self.sent, self.received = 0, 0
        self.last = b""
        self.last_tos = 0
        self.opened = self.requests = self.replies = self.refused = 0

    def association(self, spi, key):
        # scapy takes key and salt as one, as KEYMAT has them.
        return SecurityAssociation(
            ESP, spi=spi, crypt_algo=CIPHERS[self.options.cipher], crypt_key=key)

    # Outbound.

    def inner(self, values):
        """The inner packet: an echo request to the other side, unless told otherwise."""
        v6 = ":" in values.get("dst", "") or values.get("family") == "6"
        suffix = "6" if v6 else "4"
        src = values.get("src", getattr(self.options, "local" + suffix))
        dst = values.get("dst", getattr(self.options, "remote" + suffix))
        size, tos = int(values.get("size", 56)), int(values.get("inner_tos", 0))
        ident, number = int(values.get("id", 1)), self.sent & 0xffff
        body = Raw(bytes(i & 255 for i in range(size)))
        if v6:
            return IPv6(src=src, dst=dst, tc=tos) / ICMPv6EchoRequest(id=ident, seq=number) / body
        return IP(src=src, dst=dst, tos=tos) / ICMP(type=8, id=ident, seq=number) / body

    def seal(self, packet, seq, values):
        """The ESP packet around `packet`, with everything that is wrong with it."""
        v6 = packet.version == 6
        iv = bytes.fromhex(values["iv"]) if "iv" in values else os.urandom(8)
        plain = _ESPPlain(
            spi=int(values.get("spi", hex(self.outbound.spi)), 0), seq=seq & 0xffffffff, iv=iv)
        plain.data = raw(packet) + os.urandom(int(values.get("tfc", 0)))
        plain.nh = int(values.get("nh", NH_IPV6 if v6 else NH_IPV4))
        plain = self.outbound.crypt_algo.pad(plain)
        if "padlen" in values:
            plain.padlen = int(values["padlen"])
            plain.padding = bytes(range(1, plain.padlen + 1))
        if "padding" in values:
            plain.padding = bytes.fromhex(values["padding"])
            plain.padlen = len(plain.padding)
        if "claim" in values:
            plain.padlen = int(values["claim"])
        esp = bytearray(raw(self.outbound.crypt_algo.encrypt(
            self.outbound, plain, self.outbound.crypt_key, None,
            esn_en=self.options.esn, esn=seq >> 32)))
        if "flip" in values:
            esp[int(values["flip"])] ^= 255
        return bytes(esp[:int(values.get("cut", len(esp)))])

    def send(self, values):
        seq = int(values.get("seq", str(self.sent + 1)), 0)
        self.sent = seq
        self.last = self.seal(self.inner(values), seq, values)
        self.last_tos = int(values.get("tos", 0))
        self.wire.send(self.last, self.last_tos)
        return f"sent {seq}"

    def again(self):
        self.wire.send(self.last, self.last_tos)
        return f"sent {self.sent}"

    def plain(self, values):
        packet = raw(self.inner(values))
        family = socket.AF_INET6 if packet[0] >> 4 == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as out:
            out.sendto(packet, (str(self.inner(values).dst), 0))
        return f"sent {self.sent}"

    # Inbound.

    def full_sequence(self, low):
        """The 64-bit number nearest to the last one received (RFC 4303 Appendix A)."""
        if not self.options.esn:
            return low
        difference = (low - self.received) & 0xffffffff
        if difference >= 1 << 31:
            difference -= 1 << 32
        return max(self.received + difference, low)

    def open(self, esp):
        """The inner packet and its sequence number; None when it is refused, and counted."""
        packet = ESP(esp)
        seq = self.full_sequence(packet.seq)
        try:
            if packet.spi != self.inbound.spi:
                raise IPSecIntegrityError("unknown SPI")
            plain = self.inbound.crypt_algo.decrypt(
                self.inbound, packet, self.inbound.crypt_key, 16,
                esn_en=self.options.esn, esn=seq >> 32)
        except (IPSecIntegrityError, IndexError):
            self.refused += 1
            return None
        in_order = plain.padding == bytes(range(1, plain.padlen + 1))
        if not in_order or len(esp) % 4 or plain.nh not in (NH_IPV4, NH_IPV6):
            self.refused += 1
            return None
        self.opened += 1
        self.received = max(self.received, seq)
        return (IPv6 if plain.nh == NH_IPV6 else IP)(raw(plain.data)), seq

    def take(self):
        """Handles one packet from the wire; returns its sequence number if it is an echo reply."""
        esp = self.wire.receive()
        opened = self.open(esp) if esp else None
        if opened is None:
            return None
        packet, seq = opened
        if self.is_reply(packet):
            self.replies += 1
            return seq
        answer = self.answer(packet)
        if answer is not None:
            self.requests += 1
            self.sent += 1
            self.wire.send(self.seal(answer, self.sent, {}), 0)
        return None

    @staticmethod
    def is_reply(packet):
        if ICMPv6EchoReply in packet:
            return True
        return ICMP in packet and packet[ICMP].type == 0

    @staticmethod
    def answer(packet):
        if ICMPv6EchoRequest in packet:
            asked = packet[ICMPv6EchoRequest]
            return (IPv6(src=packet.dst, dst=packet.src)
                    / ICMPv6EchoReply(id=asked.id, seq=asked.seq, data=asked.data))
        if ICMP in packet and packet[ICMP].type == 8:
            asked = packet[ICMP]
            return (IP(src=packet.dst, dst=packet.src)
                    / ICMP(type=0, id=asked.id, seq=asked.seq) / Raw(raw(asked.payload)))
        return None

    def ping(self, values):
        self.send(values)
        until = time.monotonic() + PATIENCE
        while (left := until - time.monotonic()) > 0:
            if select.select([self.wire.socket], [], [], left)[0]:
                seq = self.take()
                if seq is not None:
                    return f"reply {seq}"
        return "nothing"

    # Commands.

    def obey(self, line):
        word, *rest = line.split()
        values = dict(item.split("=", 1) for item in rest)
        if word == "ping":
            return self.ping(values)
        if word == "send":
            return self.send(values)
        if word == "again":
            return self.again()
        if word == "plain":
            return self.plain(values)
        if word == "seen":
            return (f"opened {self.opened} requests {self.requests} "
                    f"replies {self.replies} refused {self.refused}")
        return f"error: {word}: ping, send, again, plain or seen"

    def run(self):
        print("ready", flush=True)
        commands = b""
        while True:
            ready = select.select([self.wire.socket, 0], [], [])[0]
            if self.wire.socket in ready:
                self.take()
            if 0 in ready:
                data = os.read(0, 4096)
                if not data:
                    return
                commands += data
                *lines, commands = commands.split(b"\n")
                for line in lines:
                    print(self.obey(line.decode()), flush=True)


if __name__ == "__main__":
    try:
        Peer(arguments()).run()
    except KeyboardInterrupt:
        sys.exit(130)
