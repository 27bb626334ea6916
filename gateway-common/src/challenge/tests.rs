//! Cookies: who can make one, and for how long.

use proptest::prelude::*;

use super::*;
use crate::layout::{FlowKey, FlowTuple6};
use crate::route::{V4, V6};

const KEYS: ChallengeKeys = ChallengeKeys { keys: [[1, 2], [3, 4]] };

fn tuple(source: u32, port: u16) -> FlowKey {
    FlowKey {
        source_addr: source.to_be_bytes(),
        target_addr: [10, 0, 0, 100],
        source_port: port.to_be_bytes(),
        target_port: [0, 80],
        protocol: 6,
        reserved: [0; 3],
    }
}

fn tuple6(source: u128, port: u16) -> FlowTuple6 {
    FlowTuple6 {
        source_addr: source.to_be_bytes(),
        target_addr: [9; 16],
        source_port: port.to_be_bytes(),
        target_port: [0, 80],
        protocol: 6,
        reserved: [0; 3],
    }
}

proptest! {
    /// None of these is said by another: not the address, not the port, not the time, not the key.
    #[test]
    fn every_part_of_what_is_asked_changes_the_cookie(
        source: u32,
        port: u16,
        bit in 0..32_u32,
        at: u64,
    ) {
        let step = Step::of(at);
        let asked = cookie::<V4>(&KEYS, &tuple(source, port), step) as u32;
        for other in [
            cookie::<V4>(&KEYS, &tuple(source ^ 1 << bit, port), step),
            cookie::<V4>(&KEYS, &tuple(source, port ^ 1 << (bit % 16)), step),
            cookie::<V4>(&KEYS, &tuple(source, port), step.before()),
            cookie::<V4>(&ChallengeKeys { keys: [[1, 3], [3, 5]] }, &tuple(source, port), step),
        ] {
            // That two are the same by chance is one in four billion.
            prop_assert_ne!(asked, other as u32);
        }
    }

    #[test]
    fn every_bit_of_an_address_of_ipv6_counts(source: u128, bit in 0..128_u32, at: u64) {
        let asked = |source| cookie::<V6>(&KEYS, &tuple6(source, 7), Step::of(at)) as u32;
        prop_assert_ne!(asked(source), asked(source ^ 1 << bit));
    }

    /// Whoever changes the key that is idle, at any moment, changes no cookie that is made or taken.
    #[test]
    fn an_idle_key_is_needed_by_nobody(at: u64) {
        let step = Step::of(at);
        if let Some(idle) = step.idle_key() {
            let mut keys = KEYS;
            keys.keys[idle] = [7, 7];
            for step in [step, step.before()] {
                let tuple = tuple(1, 2);
                prop_assert_eq!(cookie::<V4>(&keys, &tuple, step), cookie::<V4>(&KEYS, &tuple, step));
            }
        }
    }
}

#[test]
fn each_key_has_its_time_and_is_idle_for_nearly_as_long() {
    let steps = 4 << KEY_SHIFT;
    let needed: Vec<Option<usize>> = (1..=steps).map(|step| Step(step).idle_key()).collect();
    let both = needed.iter().filter(|idle| idle.is_none()).count();
    assert_eq!(both, 4, "in the first step of each");
    for key in [0, 1] {
        assert!(needed.iter().filter(|idle| **idle == Some(key)).count() >= steps as usize / 2 - 3);
    }
}
