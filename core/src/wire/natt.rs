//! What a datagram on UDP port 4500 carries (RFC 3948 §2).
//!
//! ESP, IKE and NAT keepalives share one port; the first bytes tell them apart. Whether an SPI
//! below 256 means anything, and what is inside an IKE message, is judged elsewhere.

/// The UDP port of IKE and ESP behind NAT (RFC 3948 §2).
pub const PORT: u16 = 4500;

/// What stands before an IKE message where an ESP packet has its SPI (RFC 3948 §2.2).
pub const NON_ESP_MARKER: [u8; 4] = [0; 4];

/// The payload of a NAT keepalive (RFC 3948 §2.3).
pub const KEEPALIVE: [u8; 1] = [0xff];

/// SPI and sequence number: what every ESP packet begins with.
const ESP_HEADER_LEN: usize = 8;

/// A datagram on port 4500.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// One byte 0xFF, only there to keep a NAT's mapping: to be ignored.
    Keepalive,
    /// An IKE message, without the non-ESP marker in front of it.
    Ike(&'a [u8]),
    /// An ESP packet: the whole payload.
    Esp,
    /// Too short to be any of them.
    Malformed,
}

impl Datagram<'_> {
    /// Tells what the UDP payload `payload` is.
    #[must_use]
    pub fn classify(payload: &[u8]) -> Datagram<'_> {
        if payload == KEEPALIVE {
            return Datagram::Keepalive;
        }
        match payload.strip_prefix(&NON_ESP_MARKER) {
            Some([]) => Datagram::Malformed,
            Some(message) => Datagram::Ike(message),
            None if payload.len() < ESP_HEADER_LEN => Datagram::Malformed,
            None => Datagram::Esp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tells_esp_ike_and_keepalives_apart() {
        let cases: [(&[u8], Datagram<'_>); 11] = [
            (&[0xff], Datagram::Keepalive),
            (&[0, 0, 0, 0, 7], Datagram::Ike(&[7])),
            (&[0, 0, 0, 0, 0, 0, 0, 0], Datagram::Ike(&[0, 0, 0, 0])),
            (&[0, 0, 0, 1, 0, 0, 0, 1], Datagram::Esp),
            (&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1], Datagram::Esp),
            (&[0xff, 0, 0, 0, 0, 0, 0, 1, 9], Datagram::Esp),
            (&[], Datagram::Malformed),
            (&[0], Datagram::Malformed),
            (&[0xff, 0xff], Datagram::Malformed),
            (&[0, 0, 0, 0], Datagram::Malformed),
            (&[1, 0, 0, 0, 0, 0, 0], Datagram::Malformed),
        ];
        for (number, (payload, expected)) in cases.into_iter().enumerate() {
            assert_eq!(Datagram::classify(payload), expected, "case {number}");
        }
    }

    proptest! {
        #[test]
        fn only_a_marker_makes_ike(payload in proptest::collection::vec(any::<u8>(), 0..32)) {
            let is_ike = matches!(Datagram::classify(&payload), Datagram::Ike(_));
            prop_assert_eq!(is_ike, payload.len() > 4 && payload[..4] == [0; 4]);
        }
    }
}
