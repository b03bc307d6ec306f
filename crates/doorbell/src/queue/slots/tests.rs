use std::collections::HashSet;

use doorbell_device::{DmaMemory, HostMemory};
use proptest::prelude::*;

use super::*;

fn slots(depth: u16) -> Slots {
    let memory = HostMemory::allocate(usize::from(depth) * SLOT_WORDS * 8).unwrap();
    Slots::new(Words::new(DmaMemory::new(memory, 0, || Ok(())), 0, depth.into()).unwrap(), depth)
}

/// Begins and ends a life of a slot.
fn live(slots: &Slots, index: u16) -> u16 {
    let slot = slots.at(index);
    let token = slots.renew(slot, index);
    assert_eq!(slots.of_cid(token.cid), index);
    slot.start(token.cid, &[0; 8], 0, 0, 1);
    assert!(slot.is(State::InFlight, token.cid));
    slot.set_state(State::Free, token.cid);
    token.cid
}

#[test]
fn identifiers_of_all_slots_and_lives_differ() {
    for depth in [1, 2, 3, 64, 100, MAX_DEPTH] {
        let slots = slots(depth);
        // All generations but FFFFh's, which the last slot of a full queue leaves out.
        let lives = 65536 / usize::from(depth.next_power_of_two()) - 1;
        let mut seen = HashSet::new();
        for _ in 0..lives {
            for index in 0..depth {
                let cid = live(&slots, index);
                assert_ne!(cid, u16::MAX);
                assert!(seen.insert(cid), "depth {depth}: {cid:#x} came twice");
            }
        }
    }
}

#[test]
fn generations_wrap_past_ffff() {
    for depth in [1, 4, MAX_DEPTH] {
        let slots = slots(depth);
        let last = depth - 1;
        let cids: Vec<u16> = (0..200_000 / u32::from(depth)).map(|_| live(&slots, last)).collect();
        assert!(!cids.contains(&u16::MAX));
        assert!(cids.windows(2).all(|pair| pair[0] != pair[1]), "a stale answer to the life before is known as such");
    }
}

#[test]
fn identifiers_of_no_slot_are_none() {
    let slots = slots(5);
    for cid in 0..=u16::MAX {
        assert_eq!(slots.all().get(usize::from(slots.of_cid(cid))).is_some(), cid & 7 < 5);
    }
}

#[test]
fn a_result_is_what_was_posted() {
    let slots = slots(1);
    let token = slots.renew(slots.at(0), 0);
    slots.at(0).finish(token.cid, [0x1122_3344_5566_7788, 0x8003_0001_0002_0003]);
    assert!(slots.at(0).is(State::Done, token.cid));
    assert_eq!(slots.at(0).result().to_words(), [0x1122_3344_5566_7788, 0x8003_0001_0002_0003]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A slot is handed out to one at a time, and to somebody as long as there is one, whichever way it came back.
    #[test]
    fn free_slots_are_a_set(depth in 1u16..200, ops in prop::collection::vec((0u8..4, any::<prop::sample::Index>()), 0..600)) {
        let (free, mut taken) = FreeSlots::new(depth);
        let mut out: Vec<u16> = Vec::new();
        for (op, which) in ops {
            if op < 2 {
                let slot = free.take(&mut taken);
                prop_assert_eq!(slot.is_some(), out.len() < usize::from(depth));
                if let Some(slot) = slot {
                    prop_assert!(slot < depth && !out.contains(&slot));
                    out.push(slot);
                }
            } else if !out.is_empty() {
                let slot = out.swap_remove(which.index(out.len()));
                if op == 2 {
                    prop_assert_eq!(free.give_back(slot), Returned::Free);
                } else {
                    taken.put_back(slot);
                }
            }
        }
    }
}

#[test]
fn giving_back_tells_of_who_waits() {
    let (free, mut taken) = FreeSlots::new(1);
    assert_eq!(free.take(&mut taken), Some(0));
    free.set_awaited(true);
    assert_eq!(free.give_back(0), Returned::Awaited);
    free.set_awaited(false);
    assert_eq!(free.take(&mut taken), Some(0));
    assert_eq!(free.give_back(0), Returned::Free);
}
