//! The SAD against a map, and what its SPIs promise.

use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::crypto::ChaCha20Poly1305;
use crate::esp::window_storage;

type Sad = super::Sad<'static, ChaCha20Poly1305>;

fn sad(slots: usize) -> Sad {
    let displaced = ManagedSlice::Borrowed(vec![None; 2 * slots].leak());
    let slots = Vec::from_iter((0..slots).map(|_| None)).leak();
    Sad::new(ManagedSlice::Borrowed(slots), displaced)
}

/// An SA that is told from others by its peer.
fn sa(spi: u32, peer: u32) -> InboundSa<'static, ChaCha20Poly1305> {
    let blocks = vec![0; window_storage(32)].leak();
    InboundSa {
        spi,
        key: ChaCha20Poly1305::new(&[7; 32]).unwrap(),
        salt: [7; 4].into(),
        esn: true,
        window: ReplayWindow::new(ManagedSlice::Borrowed(blocks)).unwrap(),
        peer: PeerId(peer),
    }
}

fn peer(sad: &Sad, spi: u32) -> Option<u32> {
    sad.get(spi).map(|sa| {
        assert_eq!(sa.spi, spi);
        sa.peer.0
    })
}

#[test]
fn reserved_spis_are_neither_allocated_nor_installed() {
    for slots in [1, 2, 3, 255, 256, 257, 1000] {
        for random in [0, 1, 2, 255, 256, 0x1234_5678, u32::MAX - 1, u32::MAX] {
            let mut sad = sad(slots);
            for taken in 0..slots.min(20) {
                let spi = sad.allocate_spi(random).unwrap();
                assert!(spi >= 256, "{spi} for {slots} slots and {random}");
                assert_eq!(sad.insert(sa(spi, taken as u32)), Ok(()));
            }
        }
    }
    for spi in [0, 1, 255] {
        assert_eq!(sad(4).insert(sa(spi, 0)), Err(SadError::ReservedSpi));
    }
    assert_eq!(sad(4).insert(sa(256, 0)), Ok(()));
}

#[test]
fn an_allocated_spi_names_its_slot_and_takes_its_high_bits_from_the_random_number() {
    for slots in [1usize, 3, 8, 300] {
        let mut sad = sad(slots);
        let mask = slots.next_power_of_two() as u32 - 1;
        for number in 0..slots as u32 {
            let random = 0xdead_beef_u32.rotate_left(number);
            let spi = sad.allocate_spi(random).unwrap();
            assert_eq!((spi ^ random) & !mask, 0);
            assert_eq!(sad.insert(sa(spi, number)), Ok(()));
            assert!(sad.holds((spi & mask) as usize, spi), "it is where its SPI says");
        }
        assert_eq!(sad.displaced.iter().count(), 0);
        assert_eq!(sad.allocate_spi(0xdead_beef), None, "every slot is taken");
    }
}

#[test]
fn foreign_spis_that_name_the_same_slot_live_side_by_side() {
    let mut sad = sad(4);
    let spis = [0x1000, 0x2000, 0x3000, 0x4000];
    for (number, spi) in (0..).zip(spis) {
        assert_eq!(sad.insert(sa(spi, number)), Ok(()));
    }
    assert_eq!(sad.insert(sa(0x5000, 9)), Err(SadError::Full));
    assert_eq!(sad.insert(sa(0x2000, 9)), Err(SadError::SpiInUse));
    assert_eq!(spis.map(|spi| peer(&sad, spi)), [Some(0), Some(1), Some(2), Some(3)]);
    assert_eq!(peer(&sad, 0x5000), None);

    // The slot they all name becomes free: the others are still found, and it is used again.
    assert_eq!(sad.remove(0x1000).map(|sa| sa.peer), Some(PeerId(0)));
    assert!(sad.remove(0x1000).is_none());
    assert_eq!(spis.map(|spi| peer(&sad, spi)), [None, Some(1), Some(2), Some(3)]);
    assert_eq!(sad.insert(sa(0x5000, 5)), Ok(()));
    assert_eq!(peer(&sad, 0x5000), Some(5));
    assert_eq!(sad.remove(0x3000).map(|sa| sa.peer), Some(PeerId(2)));
    let spi = sad.allocate_spi(0xabcd_ef00).unwrap();
    assert_eq!(sad.insert(sa(spi, 7)), Ok(()));
    assert_eq!(peer(&sad, spi), Some(7));
}

#[test]
fn no_storage_holds_nothing() {
    let mut sad = sad(0);
    assert_eq!(sad.allocate_spi(u32::MAX), None);
    assert_eq!(sad.insert(sa(256, 0)), Err(SadError::Full));
    assert!(sad.get(256).is_none() && sad.remove(256).is_none());
}

#[derive(Debug, Clone)]
enum Step {
    Insert(u32),
    Allocate(u32),
    Remove(usize),
    Probe(u32),
}

fn spis() -> impl Strategy<Value = u32> {
    // Few low bits and few high ones: most of them want the same slots.
    (0u32..4, 0u32..6).prop_map(|(high, low)| high << 8 | low)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => spis().prop_map(Step::Insert),
        2 => spis().prop_map(Step::Allocate),
        3 => any::<usize>().prop_map(Step::Remove),
        1 => any::<u32>().prop_map(Step::Probe),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    /// Whatever is done to it, it holds what a map holds.
    #[test]
    fn behaves_like_a_map(slots in 1usize..7, steps in steps()) {
        let mut sad = sad(slots);
        let mut model = BTreeMap::new();
        for (number, step) in (0u32..).zip(steps) {
            match step {
                Step::Insert(spi) => {
                    let expected = if spi < 256 {
                        Err(SadError::ReservedSpi)
                    } else if model.contains_key(&spi) {
                        Err(SadError::SpiInUse)
                    } else if model.len() == slots {
                        Err(SadError::Full)
                    } else {
                        model.insert(spi, number);
                        Ok(())
                    };
                    prop_assert_eq!(sad.insert(sa(spi, number)), expected);
                }
                Step::Allocate(random) => {
                    let spi = sad.allocate_spi(random);
                    prop_assert_eq!(spi.is_some(), model.len() < slots);
                    if let Some(spi) = spi {
                        prop_assert!(!model.contains_key(&spi), "an SPI in use was allocated");
                        prop_assert_eq!(sad.insert(sa(spi, number)), Ok(()));
                        model.insert(spi, number);
                    }
                }
                Step::Remove(which) if !model.is_empty() => {
                    let spi = *model.keys().nth(which % model.len()).unwrap();
                    let removed = sad.remove(spi).map(|sa| sa.peer.0);
                    prop_assert_eq!(removed, model.remove(&spi));
                }
                Step::Remove(_) => {}
                Step::Probe(spi) => prop_assert_eq!(peer(&sad, spi), model.get(&spi).copied()),
            }
            for (spi, number) in &model {
                prop_assert_eq!(peer(&sad, *spi), Some(*number));
                prop_assert_eq!(sad.get_mut(*spi).map(|sa| sa.peer.0), Some(*number));
            }
            prop_assert_eq!(sad.iter().count(), model.len());
        }
    }
}
