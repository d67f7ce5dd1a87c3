//! Checks as functions of bytes: what `tests/fuzz` feeds to libFuzzer, and `hostile` with spoilt
//! packets. Each panics when something does what it must not do.

use std::cell::RefCell;

use simplevpn::config::uci;
use simplevpn_core::checksum::Checksum;
use simplevpn_core::wire::natt::Datagram;
use simplevpn_core::{Offset, PacketBuf, outer};

use super::{Attack, ike, offloads};

pub use super::exchanges::ike_exchanges;
pub use super::ike::{ike_message, ike_open, ike_reassembly};
pub use super::offloads::{coalesce, segment};
pub use super::states::ike_states;

/// A check.
pub type Target = fn(&[u8]);

/// Every check, by name.
pub const ALL: [(&str, Target); 14] = [
    ("esp_open", esp_open),
    ("esp_payload", esp_payload),
    ("outbound", outbound),
    ("outer_strip", outer_strip),
    ("natt_classify", natt_classify),
    ("offset_shift", offset_shift),
    ("segment", segment),
    ("coalesce", coalesce),
    ("uci_parse", uci_parse),
    ("ike_message", ike_message),
    ("ike_open", ike_open),
    ("ike_reassembly", ike_reassembly),
    ("ike_exchanges", ike_exchanges),
    ("ike_states", ike_states),
];

thread_local! {
    static ATTACK: RefCell<Attack> = RefCell::new(Attack::new(0));
}

/// An ESP packet from a stranger.
pub fn esp_open(bytes: &[u8]) {
    ATTACK.with_borrow_mut(|attack| {
        assert!(attack.receive(bytes, 0).is_err(), "who has our key?");
    });
}

/// What an authentic ESP packet holds: four bytes that choose a peer, pad length, next header and
/// traffic class, then the payload.
pub fn esp_payload(bytes: &[u8]) {
    ATTACK.with_borrow_mut(|attack| attack.plaintext(bytes));
}

/// A packet from the host.
pub fn outbound(bytes: &[u8]) {
    ATTACK.with_borrow_mut(|attack| attack.send(bytes));
}

/// A packet from the wire with its outer headers.
pub fn outer_strip(bytes: &[u8]) {
    for strip in [outer::strip, outer::strip_ipv4_header] {
        let mut copy = bytes.to_vec();
        let mut packet = PacketBuf::new(&mut copy, 0, bytes.len()).unwrap();
        match strip(&mut packet) {
            Ok(_) => assert!(packet.len() < bytes.len(), "at least 20 bytes are taken off"),
            Err(_) => assert_eq!(packet.as_slice(), bytes, "refused and changed"),
        }
    }
}

/// A datagram on port 4500.
pub fn natt_classify(bytes: &[u8]) {
    match Datagram::classify(bytes) {
        Datagram::Ike(message) => assert_eq!([&[0; 4], message].concat(), bytes),
        Datagram::Esp => assert!(bytes.len() >= 8),
        Datagram::Keepalive => assert_eq!(bytes, [0xff]),
        Datagram::Malformed => {}
    }
}

/// A packet whose addresses are shifted: four bytes that are offset and `csum_start`, then the
/// packet.
pub fn offset_shift(bytes: &[u8]) {
    let Some((&[a, b, c, start], packet)) = bytes.split_first_chunk() else { return };
    let offset = Offset::new(u32::from_be_bytes([0, a, b, c]), u128::from(a) << 64 | u128::from(b));
    let partial = Checksum::Partial { start: start.into() };
    for checksum in [Checksum::Full, partial] {
        for shift in [Offset::shift_source, Offset::shift_destination] {
            let mut shifted = packet.to_vec();
            if shift(&offset, &mut shifted, checksum).is_err() {
                assert_eq!(shifted, packet, "refused and changed");
            }
        }
    }
}

/// A configuration file.
pub fn uci_parse(bytes: &[u8]) {
    if let Err(faults) = uci::parse(&String::from_utf8_lossy(bytes)) {
        assert!(!faults.is_empty(), "refused without a reason");
    }
}

/// Something like what the check called `name` expects, to be spoilt.
pub(super) fn sample(name: &str, packet: Vec<u8>) -> Vec<u8> {
    match name {
        "uci_parse" => SAMPLE_UCI.into(),
        "esp_payload" | "offset_shift" => [&[1, 0, 4, 20], &packet[..]].concat(),
        "natt_classify" => [&[0; 4], &packet[..]].concat(),
        "segment" | "coalesce" => {
            offloads::sample(name, packet.last().copied().unwrap_or_default())
        }
        name if name.starts_with("ike_") => ike::sample(name),
        _ => packet,
    }
}

const SAMPLE_UCI: &[u8] =
    b"package network\n\nconfig interface 'vpn0'\n\toption proto 'simplevpn'\n\
    \tlist addresses '10.77.0.2/24' # ours\n\nconfig simplevpn_vpn0 \"office\"\n\
    \toption endpoint_host vpn.example.net\n\tlist allowed_ips '10.1.0.0/16'\n";
