//! Fragments of an inner IPv4 packet that is too big and allows it (RFC 791 §3.2; RFC 4301 §8).
//!
//! A fragment can be fragmented further. Options are copied as their copy bit says. IPv6 is
//! never fragmented on the way (RFC 8200 §4.5), nor is anything reassembled here. A transport
//! checksum that was left partial must be completed before.

use smoltcp::wire::{IPV4_HEADER_LEN, Ipv4Packet};

use crate::counters::Discard;
use crate::wire::ip;

/// The longest IPv4 options in bytes: a header has at most 60.
const MAX_OPTIONS_LEN: usize = 40;
/// Fragment offsets count in units of this many bytes.
const UNIT: usize = 8;

/// The fragments of one packet, written one at a time into a buffer of the caller's.
#[derive(Debug)]
pub struct Fragments<'p> {
    packet: Ipv4Packet<&'p [u8]>,
    mtu: usize,
    /// The options of every fragment but the first, padded to a multiple of four bytes.
    options: [u8; MAX_OPTIONS_LEN],
    options_len: usize,
    /// How many bytes of the payload are in fragments already; `None` after the last.
    done: Option<usize>,
}

impl<'p> Fragments<'p> {
    /// The fragments, each of at most `mtu` bytes, of the IPv4 packet `packet`. A packet that
    /// fits is its own only fragment.
    ///
    /// # Errors
    /// [`Discard::TooBig`] if it must not be fragmented (IPv6, or DF set) or `mtu` has no room
    /// for a header and eight bytes. [`Discard::Malformed`] if it is not an IP packet, its
    /// options are broken, or as a fragment it has an impossible length or offset.
    pub fn new(packet: &'p [u8], mtu: usize) -> Result<Fragments<'p>, Discard> {
        if ip::version(packet) == Some(6) {
            return ip::ipv6(packet).and(Err(Discard::TooBig));
        }
        let packet = ip::ipv4(packet)?;
        let payload_len = packet.payload().len();
        let end = usize::from(packet.frag_offset()) + payload_len;
        if end > usize::from(u16::MAX) || packet.more_frags() && !payload_len.is_multiple_of(UNIT) {
            return Err(Discard::Malformed);
        }
        let fits = usize::from(packet.total_len()) <= mtu;
        if !fits && (packet.dont_frag() || mtu < usize::from(packet.header_len()) + UNIT) {
            return Err(Discard::TooBig);
        }
        let mut options = [0; MAX_OPTIONS_LEN];
        let options_len = copied_options(options_of(&packet), &mut options)?;
        Ok(Fragments { packet, mtu, options, options_len, done: Some(0) })
    }

    /// Writes the next fragment to the front of `out` and returns its length in bytes; `None`
    /// when there are no more.
    ///
    /// # Errors
    /// [`Discard::NoRoom`] if `out` is too short for it; it can be asked for again then.
    pub fn next_into(&mut self, out: &mut [u8]) -> Result<Option<usize>, Discard> {
        let Some(done) = self.done else {
            return Ok(None);
        };
        let options = if done == 0 {
            options_of(&self.packet)
        } else {
            self.options.get(..self.options_len).unwrap_or_default()
        };
        let header_len = IPV4_HEADER_LEN + options.len();
        let rest = self.packet.payload().get(done..).unwrap_or_default();
        let room = self.mtu.saturating_sub(header_len);
        let is_last = rest.len() <= room;
        let taken = if is_last { rest.len() } else { room / UNIT * UNIT };

        let text = rest.get(..taken).unwrap_or_default();
        let fragment = out.get_mut(..header_len + taken).ok_or(Discard::NoRoom)?;
        let parts = [self.fixed_header(), options, text];
        let mut free = &mut *fragment;
        for part in parts {
            let (here, behind) = free.split_at_mut_checked(part.len()).ok_or(Discard::NoRoom)?;
            here.copy_from_slice(part);
            free = behind;
        }
        let len = fragment.len();
        let mut header = Ipv4Packet::new_unchecked(fragment);
        header.set_header_len(u8::try_from(header_len).map_err(|_| Discard::Malformed)?);
        header.set_total_len(u16::try_from(len).map_err(|_| Discard::TooBig)?);
        header.set_more_frags(!is_last || self.packet.more_frags());
        let offset = usize::from(self.packet.frag_offset()) + done;
        header.set_frag_offset(u16::try_from(offset).map_err(|_| Discard::Malformed)?);
        header.fill_checksum();
        self.done = (!is_last).then_some(done + taken);
        Ok(Some(len))
    }

    fn fixed_header(&self) -> &'p [u8] {
        self.packet.clone().into_inner().get(..IPV4_HEADER_LEN).unwrap_or_default()
    }
}

fn options_of<'p>(packet: &Ipv4Packet<&'p [u8]>) -> &'p [u8] {
    let header_len = usize::from(packet.header_len());
    packet.clone().into_inner().get(IPV4_HEADER_LEN..header_len).unwrap_or_default()
}

/// Copies those of `options` whose copy bit is set to the front of `copied`, and returns their
/// length with padding. `copied` is all zeros, which is what options are padded with.
fn copied_options(
    mut options: &[u8],
    copied: &mut [u8; MAX_OPTIONS_LEN],
) -> Result<usize, Discard> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const COPY: u8 = 0x80;

    let mut used = 0;
    while let Some(&kind) = options.first() {
        let len = match (kind, options.get(1)) {
            (END, _) => break,
            (NO_OPERATION, _) => 1,
            (_, Some(&len)) if len >= 2 => usize::from(len),
            _ => return Err(Discard::Malformed),
        };
        let (option, rest) = options.split_at_checked(len).ok_or(Discard::Malformed)?;
        if kind & COPY != 0 {
            let to = copied.get_mut(used..used + len).ok_or(Discard::Malformed)?;
            to.copy_from_slice(option);
            used += len;
        }
        options = rest;
    }
    Ok(used.next_multiple_of(4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::samples;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    fn fragments(packet: &[u8], mtu: usize) -> Result<Vec<Vec<u8>>, Discard> {
        let mut fragments = Fragments::new(packet, mtu)?;
        let mut all = Vec::new();
        let mut out = vec![0xaa; mtu];
        while let Some(len) = fragments.next_into(&mut out)? {
            all.push(out[..len].to_vec());
        }
        assert_eq!(fragments.next_into(&mut out), Ok(None), "the end stays the end");
        Ok(all)
    }

    fn view(packet: &[u8]) -> Ipv4Packet<&[u8]> {
        let view = Ipv4Packet::new_checked(packet).unwrap();
        assert!(view.verify_checksum());
        assert_eq!(usize::from(view.total_len()), packet.len());
        view
    }

    /// Puts fragments together in any order, as RFC 815 does, and checks that they fill all.
    fn reassemble(fragments: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes: Vec<Option<u8>> = Vec::new();
        let mut first = None;
        let mut lasts = 0;
        for fragment in fragments {
            let view = view(fragment);
            let offset = usize::from(view.frag_offset());
            let end = offset + view.payload().len();
            if offset == 0 {
                first = Some(fragment[..usize::from(view.header_len())].to_vec());
            }
            if !view.more_frags() {
                lasts += 1;
                assert!(bytes.len() <= end);
            }
            bytes.resize(bytes.len().max(end), None);
            for (slot, &byte) in bytes[offset..end].iter_mut().zip(view.payload()) {
                assert_eq!(slot.replace(byte), None, "fragments overlap");
            }
        }
        assert_eq!(lasts, 1);
        let mut packet = first.unwrap();
        packet.extend(bytes.into_iter().map(|byte| byte.expect("a hole")));
        let total_len = u16::try_from(packet.len()).unwrap();
        samples::edit_ipv4(&mut packet, |header| {
            header.set_more_frags(false);
            header.set_total_len(total_len);
        });
        packet
    }

    #[test]
    fn splits_at_multiples_of_eight() {
        // RFC 791 Appendix A, Example 2: 452 bytes of data through an MTU of 280.
        let payload: Vec<u8> = (0..452u16).map(|n| n as u8).collect();
        let packet = samples::ipv4(17, &payload);
        let fragments = fragments(&packet, 280).unwrap();
        let shape: Vec<_> = fragments
            .iter()
            .map(|fragment| {
                let view = view(fragment);
                (view.total_len(), view.frag_offset(), view.more_frags(), view.ident())
            })
            .collect();
        assert_eq!(shape, [(276, 0, true, 0x1234), (216, 256, false, 0x1234)]);
        assert_eq!(reassemble(&fragments), packet);
    }

    #[test]
    fn a_packet_that_fits_is_its_own_fragment() {
        let mut packet = samples::ipv4(17, &[7; 100]);
        assert_eq!(fragments(&packet, 120), Ok(vec![packet.clone()]));
        samples::edit_ipv4(&mut packet, |header| header.set_dont_frag(true));
        assert_eq!(fragments(&packet, 120), Ok(vec![packet.clone()]));
        assert_eq!(fragments(&packet, 119), Err(Discard::TooBig));
    }

    #[test]
    fn copies_options_by_their_copy_bit() {
        let record_route = [7, 7, 4, 0, 0, 0, 0];
        let stream_id = [0x88, 4, 0xab, 0xcd];
        let router_alert = [0x94, 4, 0, 0];
        let odd_security = [0x82, 3, 1];
        let options =
            [&record_route[..], &[1], &stream_id, &odd_security, &[1], &router_alert, &[0; 4]]
                .concat();
        let packet = samples::ipv4_with_options(17, &options, &[7; 300]);
        let fragments = fragments(&packet, 120).unwrap();
        assert_eq!(fragments[0][20..44], options);
        let copied = [&stream_id[..], &odd_security, &router_alert, &[0]].concat();
        for fragment in &fragments[1..] {
            assert_eq!(view(fragment).header_len(), 32);
            assert_eq!(fragment[20..32], copied);
        }
        assert_eq!(reassemble(&fragments), packet);
    }

    #[test]
    fn refuses_broken_options() {
        let broken: [&[u8]; 4] = [&[7, 0, 0, 0], &[7, 1, 0, 0], &[7, 5, 0, 0], &[1, 1, 1, 0x88]];
        for options in broken {
            let packet = samples::ipv4_with_options(17, options, &[0; 300]);
            assert_eq!(fragments(&packet, 120), Err(Discard::Malformed), "{options:?}");
        }
    }

    #[test]
    fn refuses_what_must_not_or_cannot_be_fragmented() {
        let packet = samples::ipv4(17, &[0; 300]);
        assert_eq!(fragments(&packet, 27), Err(Discard::TooBig));
        assert_eq!(fragments(&packet, 28).unwrap().len(), 38);
        assert_eq!(fragments(&samples::ipv6(17, &[0; 300]), 1280), Err(Discard::TooBig));
        assert_eq!(fragments(&[], 1280), Err(Discard::Malformed));
        assert_eq!(fragments(&packet[..319], 1280), Err(Discard::Malformed));

        let fragment = |len, offset, more| {
            let mut packet = samples::ipv4(17, &vec![0; len]);
            samples::edit_ipv4(&mut packet, |header| {
                header.set_frag_offset(offset);
                header.set_more_frags(more);
            });
            packet
        };
        assert_eq!(fragments(&fragment(301, 0, true), 120), Err(Discard::Malformed));
        assert_eq!(fragments(&fragment(300, 65_528, false), 120), Err(Discard::Malformed));
        assert_eq!(fragments(&fragment(8, 65_528, false), 120), Err(Discard::Malformed));
        assert!(fragments(&fragment(7, 65_528, false), 120).is_ok());
    }

    #[test]
    fn a_short_buffer_loses_no_fragment() {
        let packet = samples::ipv4(17, &[7; 100]);
        let mut fragments = Fragments::new(&packet, 60).unwrap();
        let mut out = [0; 60];
        assert_eq!(fragments.next_into(&mut out[..59]), Err(Discard::NoRoom));
        let mut all = Vec::new();
        while let Some(len) = fragments.next_into(&mut out).unwrap() {
            all.push(out[..len].to_vec());
        }
        assert_eq!(reassemble(&all), packet);
    }

    #[test]
    fn bytes_behind_the_packet_are_in_no_fragment() {
        let packet = samples::ipv4(17, &[7; 100]);
        let longer = [&packet[..], b"behind"].concat();
        assert_eq!(reassemble(&fragments(&longer, 60).unwrap()), packet);
    }

    fn options() -> impl Strategy<Value = Vec<u8>> {
        let option =
            (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..9)).prop_map(|(kind, data)| {
                match kind {
                    0 | 1 => vec![1],
                    _ => [&[kind, data.len() as u8 + 2], &data[..]].concat(),
                }
            });
        proptest::collection::vec(option, 0..5).prop_map(|options| {
            let mut bytes = Vec::new();
            for option in options {
                if bytes.len() + option.len() <= MAX_OPTIONS_LEN {
                    bytes.extend(option);
                }
            }
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        })
    }

    proptest! {
        #[test]
        fn fragments_of_fragments_reassemble_to_the_original(
            options in options(),
            payload in proptest::collection::vec(any::<u8>(), 0..4000),
            mtus in (68usize..1500, 68usize..1500),
        ) {
            let packet = samples::ipv4_with_options(17, &options, &payload);
            let once = fragments(&packet, mtus.0).unwrap();
            prop_assert!(once.iter().all(|fragment| fragment.len() <= mtus.0));
            prop_assert_eq!(&reassemble(&once), &packet);
            let mut twice = Vec::new();
            for fragment in once.iter().rev() {
                twice.extend(fragments(fragment, mtus.1).unwrap());
            }
            prop_assert!(twice.iter().all(|fragment| fragment.len() <= mtus.1));
            prop_assert_eq!(&reassemble(&twice), &packet);
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            first in prop_oneof![0x44u8..0x50, Just(0x60), any::<u8>()],
            length in 0u8..120,
            rest in proptest::collection::vec(any::<u8>(), 0..120),
            mtu in 0usize..130,
        ) {
            let mut bytes = [&[first, 0, 0, length], &rest[..]].concat();
            let _ = fragments(&bytes, mtu);
            if let Some(flags) = bytes.get_mut(6) {
                *flags &= 0x3f;
                let _ = fragments(&bytes, mtu);
            }
        }
    }
}
