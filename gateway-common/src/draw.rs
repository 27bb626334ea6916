//! Picking a backend for a new flow: the one function that XDP, the proxy, the simulator and the
//! tests share.
//!
//! A draw walks slots of the pool's Maglev table that the flow's hash names. Slot *i* holds a
//! backend, which is accepted with probability weight / 65,535, taken from the same hash; the
//! first accepted wins. So the table holds membership only, a change of weight is one map write,
//! and only the share that changed moves.

use crate::hash::mix;
use crate::layout::{Weights, algorithm};
use crate::limits::{CLASSES_MAX, DRAW_TRIES, MAGLEV_SLOTS, NO_BACKEND, WEIGHT_MAX};

/// Separates the two draws of `p2c`. Any odd constant does; this is 2^64 divided by the golden ratio.
const SECOND_DRAW: u64 = 0x9e37_79b9_7f4a_7c15;

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
        state = mix(state.wrapping_add(SECOND_DRAW));
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

/// Two weighted draws; the one with the smaller (in flight + 1) / weight wins, the first on a tie.
/// ("The power of two choices": Mitzenmacher, IEEE TPDS 2001.)
#[inline(always)]
pub fn p2c<M: Members>(members: &M, hash: u64) -> Option<u32> {
    let first = draw(members, hash)?;
    let second = draw(members, hash ^ SECOND_DRAW)?;
    // a/wa <= b/wb without dividing.
    let cost_first = (members.in_flight(first) + 1).wrapping_mul(members.weight(second) as u64);
    let cost_second = (members.in_flight(second) + 1).wrapping_mul(members.weight(first) as u64);
    Some(if cost_first <= cost_second { first } else { second })
}

/// The weight that counts now: the learned one of the class, or capacity alone when it is too old.
#[inline(always)]
pub fn weight_now(weights: &Weights, class: u8, now_ns: u64, age_max_ns: u64) -> u16 {
    let learned = weights.by_class[class as usize & (CLASSES_MAX - 1)];
    let ages = weights.computed_at_ns != 0 && age_max_ns != 0;
    // Zero is a decision of health or admission, and stays one however old it is.
    if ages && learned != 0 && now_ns.saturating_sub(weights.computed_at_ns) > age_max_ns {
        weights.fallback
    } else {
        learned
    }
}

const _: () = assert!(CLASSES_MAX.is_power_of_two(), "a class is masked, not compared");
