//! Look-ahead names what packets are going to need, and changes nothing.

use core::cell::RefCell;
use core::ops::Range;
use std::vec::Vec;

use super::fixture::*;
use crate::Offset;
use crate::ahead::Fetch;
use crate::crypto::ChaCha20Poly1305;
use crate::wire::esp::NextHeader::Ipv4;

/// Notes what was asked for.
#[derive(Default)]
struct Notes(RefCell<Vec<Range<usize>>>);

impl Notes {
    fn note<T: ?Sized>(&self, value: &T) {
        let start = core::ptr::from_ref(value).cast::<u8>().addr();
        self.0.borrow_mut().push(start..start + size_of_val(value));
    }

    /// Whether all of `value` was asked for since the last question.
    fn hold<T: ?Sized>(&self, value: &T) -> bool {
        let start = core::ptr::from_ref(value).cast::<u8>().addr();
        let end = start + size_of_val(value);
        self.0.borrow_mut().drain(..).any(|range| range.start <= start && end <= range.end)
    }
}

impl Fetch<ChaCha20Poly1305> for Notes {
    fn value<T: ?Sized>(&self, value: &T) {
        self.note(value);
    }

    fn key(&self, key: &ChaCha20Poly1305) {
        self.note(key);
    }
}

#[test]
fn what_a_packet_needs_is_named_step_by_step() {
    let mut tunnel = tunnel();
    for (id, prefix) in [(A, "192.168.1.0/24"), (B, "192.168.2.0/24")] {
        add_peer(&mut tunnel, id, &[prefix], &[], Offset::default());
    }
    let notes = Notes::default();
    let out = packet("10.0.0.1", "192.168.2.7", b"x");
    let (sealer, opener) = (&tunnel.sealer, &tunnel.opener);
    sealer.fetch_policy(&out, &notes);
    assert_eq!(notes.0.borrow_mut().drain(..).count(), 1, "a slot of the SPD");
    assert_eq!(sealer.fetch_peer(&out, &notes), Some(B));
    assert!(notes.hold(sealer.peer(B).unwrap()));
    sealer.fetch_key(B, &notes);
    assert!(notes.hold(&sealer.peer(B).unwrap().sa().unwrap().key));

    let esp = sealed(spis(B).0, 1, &packet("192.168.2.7", "10.0.0.1", b"x"), Ipv4);
    opener.fetch_sa(&esp, &notes);
    assert!(notes.hold(opener.sa(spis(B).0).unwrap()));
    opener.fetch_state(&esp, &notes);
    let all = notes.0.take();
    let sa = opener.sa(spis(B).0).unwrap();
    for what in
        [core::ptr::from_ref(&sa.key).addr(), core::ptr::from_ref(opener.peer(B).unwrap()).addr()]
    {
        assert!(all.iter().any(|range| range.contains(&what)));
    }
    assert_eq!(all.len(), 3, "key, window and peer");
}

/// Whatever comes may be looked at.
#[test]
fn what_leads_nowhere_names_nothing_of_a_peer() {
    let mut tunnel = tunnel();
    add_peer(&mut tunnel, A, &["192.168.1.0/24"], &[], Offset::default());
    let notes = Notes::default();
    let (sealer, opener) = (&tunnel.sealer, &tunnel.opener);
    for bytes in [&[][..], &[0x45], &[0; 7], &[0xff; 40]] {
        sealer.fetch_policy(bytes, &notes);
        assert_eq!(sealer.fetch_peer(bytes, &notes), None);
        opener.fetch_state(bytes, &notes);
    }
    sealer.fetch_key(B, &notes);
    assert!(notes.0.take().is_empty());
}
