//! Picking a backend for a new flow: the one function that XDP, the proxy, the simulator and the
//! tests share.
//!
//! A draw walks slots of the pool's Maglev table that the flow's hash names. Slot *i* holds a
//! backend, which is accepted with probability weight / 65,535, taken from the same hash; the
//! first accepted wins. So the table holds membership only, a change of weight is one map write,
//! and only the share that changed moves.

use crate::hash::mix;
use crate::layout::{Weights, algorithm};
use crate::limits::{CLASSES_MAX, CONTROL_CLASS, DRAW_TRIES, MAGLEV_SLOTS, NO_BACKEND, WEIGHT_MAX};

/// Separates the draws of `p2c`. Any odd constant does; this is 2^64 divided by the golden ratio.
const OTHER_DRAW: u64 = 0x9e37_79b9_7f4a_7c15;

/// Draws of `p2c` after the first. With one, as in "the power of two choices", a flow that draws two
/// slow backends has no other: among weights that a loop which stopped left behind, the 99th percentile
/// of scenario `loop-stops` was 683 ms, with two 395, with three 375; `antagonists` 318, 304 and 300
/// (docs/decisions/0020-three-draws.md). Each costs a new flow some tens of nanoseconds.
const OTHER_DRAWS: u32 = 2;

/// What a draw reads. In the kernel these are BPF maps, in the proxy the same maps' memory, in the
/// simulator and in tests vectors.
pub trait Members {
    /// The backend in slot `slot < MAGLEV_SLOTS`, or [`NO_BACKEND`].
    fn slot(&self, slot: u32) -> u32;
    /// The weight of a backend now: 0 takes no new flow, [`WEIGHT_MAX`] is the heaviest.
    fn weight(&self, backend: u32) -> u16;
    /// Flows or requests in flight at a backend.
    fn in_flight(&self, backend: u32) -> u64;
    /// Who takes a draw that accepted nobody, or [`NO_BACKEND`].
    fn fallback(&self) -> u32;
}

/// The backend for a new flow with this hash, or `None` if no backend takes new flows.
#[inline(always)]
pub fn pick<M: Members>(members: &M, pool_algorithm: u32, hash: u64) -> Option<u32> {
    if pool_algorithm == algorithm::P2C { p2c(members, hash) } else { draw(members, hash) }
}

/// One weighted draw.
#[inline(always)]
pub fn draw<M: Members>(members: &M, hash: u64) -> Option<u32> {
    let mut state = hash;
    for _ in 0..DRAW_TRIES {
        state = mix(state.wrapping_add(OTHER_DRAW));
        // The upper half names the slot by multiplication (Lemire, ACM TOMACS 2019), since BPF
        // divides slowly; the lower bits, which it does not use, decide about acceptance.
        let slot = (((state >> 32) * MAGLEV_SLOTS as u64) >> 32) as u32;
        let chance = state as u16;
        let backend = members.slot(slot);
        if backend == NO_BACKEND {
            continue;
        }
        let weight = members.weight(backend);
        if weight == WEIGHT_MAX || chance < weight {
            return Some(backend);
        }
    }
    let fallback = members.fallback();
    (fallback != NO_BACKEND && members.weight(fallback) > 0).then_some(fallback)
}

/// Three weighted draws; the one with the smallest (in flight + 1) / weight wins, the earlier on a tie.
/// ("The power of two choices", with one more: Mitzenmacher, IEEE TPDS 2001.)
#[inline(always)]
pub fn p2c<M: Members>(members: &M, hash: u64) -> Option<u32> {
    let mut best = draw(members, hash)?;
    for turn in 0..OTHER_DRAWS {
        let other = draw(members, hash ^ OTHER_DRAW.rotate_left(turn))?;
        // a/wa < b/wb without dividing.
        let cost_best = waiting(members, best) * members.weight(other) as u64;
        let cost_other = waiting(members, other) * members.weight(best) as u64;
        if cost_other < cost_best {
            best = other;
        }
    }
    Some(best)
}

/// What is in flight at a backend, and the flow to be placed. Held within 32 bits, so that its
/// product with a weight cannot overflow, and a count that ran below zero, as two writers of a
/// memory without locks may leave it, is a busy backend rather than the idlest of all.
#[inline(always)]
fn waiting<M: Members>(members: &M, backend: u32) -> u64 {
    members.in_flight(backend).min(u32::MAX as u64) + 1
}

/// The class whose weights a flow or request is drawn by: its own, or the control group's for a
/// share of the hashes, in 65,536ths.
///
/// The hash has to be a mixed one. Its upper bits decide; a draw mixes the hash anew before it
/// takes slots and chances from it, so that who is in the control group says nothing of where it
/// is drawn to.
#[inline(always)]
pub fn class_of(class: u8, hash: u64, control_share: u32) -> u8 {
    if ((hash >> 48) as u32) < control_share { CONTROL_CLASS } else { class }
}

/// Learned weights that are this many times (as a power of two: 8) as old as they may be are not
/// replaced by capacity any more but by equal ones: what was known of the pool is history.
const EQUAL_AGE_SHIFT: u32 = 3;

/// The weight that counts now: the learned one of the class, capacity alone when that is too old,
/// and the same for all when it is much too old.
#[inline(always)]
pub fn weight_now(weights: &Weights, class: u8, now_ns: u64, age_max_ns: u64) -> u16 {
    let learned = weights.by_class[class as usize & (CLASSES_MAX - 1)];
    let ages = weights.computed_at_ns != 0 && age_max_ns != 0;
    // Zero is a decision of health or admission, and stays one however old it is.
    if !ages || learned == 0 {
        return learned;
    }
    let age_ns = now_ns.saturating_sub(weights.computed_at_ns);
    if age_ns <= age_max_ns {
        learned
    } else if age_ns >> EQUAL_AGE_SHIFT <= age_max_ns {
        weights.fallback
    } else {
        weights.equal
    }
}

const _: () = assert!(CLASSES_MAX.is_power_of_two(), "a class is masked, not compared");

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::limits::CONTROL_SHARE_WHOLE;

    /// A pool of backends 0, 1, 2 …, whose slots go to them in a scattered order.
    struct Members {
        weights: Vec<u16>,
        in_flight: Vec<u64>,
        slots: Vec<u32>,
    }

    impl Members {
        fn new(weights: &[u16]) -> Members {
            let count = weights.len() as u64;
            // Every backend gets its even share, as Maglev gives it: to within one slot.
            let mut slots: Vec<u32> =
                (0..MAGLEV_SLOTS).map(|slot| (u64::from(slot) % count) as u32).collect();
            for at in (1..slots.len()).rev() {
                slots.swap(at, (mix(at as u64) % (at as u64 + 1)) as usize);
            }
            Members { weights: weights.to_vec(), in_flight: vec![0; weights.len()], slots }
        }
    }

    impl super::Members for Members {
        fn slot(&self, slot: u32) -> u32 {
            self.slots[slot as usize]
        }

        fn weight(&self, backend: u32) -> u16 {
            self.weights[backend as usize]
        }

        fn in_flight(&self, backend: u32) -> u64 {
            self.in_flight[backend as usize]
        }

        fn fallback(&self) -> u32 {
            let heaviest = (0..self.weights.len()).max_by_key(|&row| self.weights[row]);
            heaviest.map_or(NO_BACKEND, |row| row as u32)
        }
    }

    /// Enough that chance is smaller than the errors looked for: one standard deviation of a share
    /// of one half is 0.05%.
    const DRAWS: u64 = 1_000_000;

    fn draws(members: &Members) -> Vec<u32> {
        (0..DRAWS).map(|flow| draw(members, mix(flow)).unwrap()).collect()
    }

    /// The largest difference between a backend's share of the draws and of the weights.
    fn share_error(weights: &[u16]) -> f64 {
        let drawn = draws(&Members::new(weights));
        let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
        let error = |row: usize| {
            let count = drawn.iter().filter(|&&backend| backend as usize == row).count();
            (count as f64 / DRAWS as f64 - f64::from(weights[row]) / total).abs()
        };
        (0..weights.len()).map(error).fold(0.0, f64::max)
    }

    #[test]
    fn shares_follow_weights_within_five_to_one() {
        let fifth = WEIGHT_MAX / 5;
        for weights in [
            &[WEIGHT_MAX, WEIGHT_MAX][..],
            &[WEIGHT_MAX, fifth],
            &[WEIGHT_MAX, fifth, fifth, fifth],
            &[WEIGHT_MAX, 50_000, 40_000, 30_000, 20_000, fifth],
        ] {
            let error = share_error(weights);
            assert!(error < 0.005, "{weights:?}: {error}");
        }
    }

    #[test]
    fn a_weight_cut_by_a_tenth_moves_about_the_least_there_is_to_move() {
        let before = draws(&Members::new(&[WEIGHT_MAX; 8]));
        let mut weights = [WEIGHT_MAX; 8];
        weights[3] = (f64::from(WEIGHT_MAX) * 0.9) as u16;
        let after = draws(&Members::new(&weights));
        let pairs = || before.iter().zip(&after);
        let moved = pairs().filter(|(before, after)| before != after).count() as f64 / DRAWS as f64;
        // Its share falls from 1/8 to 0.9/7.9.
        let least = 1.0 / 8.0 - 0.9 / 7.9;
        assert!((least * 0.95..least * 1.1).contains(&moved), "{moved} of at least {least}");
        assert!(pairs().all(|(before, after)| before == after || *before == 3));
    }

    #[test]
    fn a_backend_without_weight_is_never_drawn() {
        let members = Members::new(&[0, 1, 0, 2]);
        for flow in 0..100_000 {
            let drawn = [draw(&members, mix(flow)), p2c(&members, mix(flow))];
            assert!(drawn.iter().all(|row| matches!(row, Some(1 | 3))), "{drawn:?}");
        }
        assert_eq!(draw(&Members::new(&[0, 0]), 1), None);
        assert_eq!(p2c(&Members::new(&[0, 0]), 1), None);
    }

    #[test]
    fn p2c_prefers_the_less_loaded_for_its_weight() {
        let share = |members: &Members| {
            let first = |flow: &u64| p2c(members, mix(*flow)) == Some(0);
            (0..100_000).filter(first).count() as f64 / 100_000.0
        };
        let mut members = Members::new(&[WEIGHT_MAX, WEIGHT_MAX]);
        assert!((share(&members) - 0.5).abs() < 0.01);
        members.in_flight = vec![10, 2];
        assert!((share(&members) - 0.125).abs() < 0.01, "only where every draw is the busy one");
        // Ten in flight at four times the weight is less than three.
        let mut members = Members::new(&[WEIGHT_MAX, WEIGHT_MAX / 4]);
        members.in_flight = vec![10, 3];
        assert!(share(&members) > 0.9);
    }

    #[test]
    fn p2c_avoids_a_backend_whose_count_ran_below_zero() {
        for count in [u64::MAX, u64::MAX - 1, 1 << 63, 1 << 40] {
            let mut members = Members::new(&[WEIGHT_MAX, WEIGHT_MAX / 2]);
            members.in_flight = vec![count, 1_000];
            let first = |flow: &u64| p2c(&members, mix(*flow)) == Some(0);
            let share = (0..100_000).filter(first).count() as f64 / 100_000.0;
            // Two draws of three name it; only where all three do, it wins.
            assert!((share - 8.0 / 27.0).abs() < 0.01, "{share} with {count} in flight");
        }
    }

    #[test]
    fn weights_age_unless_they_are_zero_or_have_no_time() {
        let weights = Weights {
            by_class: [7; CLASSES_MAX],
            fallback: 9,
            equal: 11,
            concurrency: 0,
            reserved: 0,
            computed_at_ns: 100,
        };
        assert_eq!(weight_now(&weights, 0, 150, 50), 7);
        assert_eq!(weight_now(&weights, 0, 151, 50), 9);
        assert_eq!(weight_now(&weights, 0, 100 + 8 * 50, 50), 9);
        assert_eq!(weight_now(&weights, 0, 100 + 9 * 50, 50), 11, "eight times as old, and more");
        assert_eq!(weight_now(&weights, 0, 151, 0), 7, "no limit is set");
        assert_eq!(weight_now(&weights, 0, 50, 50), 7, "clocks of two CPUs may cross");
        let manual = Weights { computed_at_ns: 0, ..weights };
        assert_eq!(weight_now(&manual, 0, u64::MAX, 50), 7);
        let cut = Weights { by_class: [0; CLASSES_MAX], ..weights };
        assert_eq!(weight_now(&cut, 0, u64::MAX, 50), 0);
    }

    /// Whether a flow's hash falls into a control group of this share.
    fn is_control(flow: u64, share: u32) -> bool {
        class_of(0, mix(flow), share) == CONTROL_CLASS
    }

    #[test]
    fn the_control_group_is_its_share_of_the_hashes_and_grows_without_moving_anybody_out() {
        for share in [0, CONTROL_SHARE_WHOLE / 20, CONTROL_SHARE_WHOLE / 2, CONTROL_SHARE_WHOLE] {
            let drawn = (0..DRAWS).filter(|flow| is_control(*flow, share)).count() as f64;
            let wanted = f64::from(share) / f64::from(CONTROL_SHARE_WHOLE);
            assert!((drawn / DRAWS as f64 - wanted).abs() < 0.002, "{drawn} at {wanted}");
        }
        let small = CONTROL_SHARE_WHOLE / 20;
        let stays = |flow| !is_control(flow, small) || is_control(flow, 2 * small);
        assert!((0..100_000).all(stays));
    }

    #[test]
    fn who_is_in_the_control_group_says_nothing_of_where_it_is_drawn_to() {
        let members = Members::new(&[WEIGHT_MAX, WEIGHT_MAX / 2, WEIGHT_MAX / 4]);
        let share = |control: bool, pick: fn(&Members, u64) -> Option<u32>| {
            let in_group = |flow: &u64| is_control(*flow, CONTROL_SHARE_WHOLE / 20) == control;
            let drawn: Vec<u32> =
                (0..DRAWS).filter(in_group).filter_map(|flow| pick(&members, mix(flow))).collect();
            drawn.iter().filter(|row| **row == 0).count() as f64 / drawn.len() as f64
        };
        for pick in [draw::<Members>, p2c::<Members>] {
            let (control, other) = (share(true, pick), share(false, pick));
            // A twentieth of a million: one standard deviation is 0.2%.
            assert!((control - other).abs() < 0.008, "{control} and {other}");
        }
    }
}
