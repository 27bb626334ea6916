//! The one clock: what meets a kernel timestamp is [`KtimeNs`].

use core::ops::{Add, Sub};
use core::time::Duration;

/// A moment of `CLOCK_MONOTONIC`, in nanoseconds, as `bpf_ktime_get_ns` reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct KtimeNs(pub u64);

impl KtimeNs {
    /// Time since `earlier`; zero if that is later, since per-CPU stamps may cross.
    pub const fn since(self, earlier: KtimeNs) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A moment in steps of 2^20 ns, about a millisecond, as a [`crate::layout::Flow`] keeps it. Wraps
/// after 52 days, far more than a flow may be silent.
#[inline(always)]
pub const fn coarse(ns: u64) -> u32 {
    (ns >> COARSE_SHIFT) as u32
}

/// The moment of a coarse one that is no further than 26 days from `near`.
pub const fn from_coarse(coarse: u32, near: KtimeNs) -> KtimeNs {
    let near = near.0 >> COARSE_SHIFT;
    let distance = coarse.wrapping_sub(near as u32) as i32;
    KtimeNs(near.saturating_add_signed(distance as i64) << COARSE_SHIFT)
}

/// A moment in steps of 2^10 ns, about a microsecond; never zero. Wraps after 73 minutes.
#[inline(always)]
pub const fn fine(ns: u64) -> u32 {
    let steps = (ns >> FINE_SHIFT) as u32;
    if steps == 0 { 1 } else { steps }
}

/// Nanoseconds from a fine moment to `now_ns`, which is less than 73 minutes later.
#[inline(always)]
pub const fn since_fine(earlier: u32, now_ns: u64) -> u64 {
    since_steps(earlier, fine(now_ns))
}

/// Nanoseconds between two fine moments.
#[inline(always)]
pub const fn since_steps(earlier: u32, later: u32) -> u64 {
    (later.wrapping_sub(earlier) as u64) << FINE_SHIFT
}

const COARSE_SHIFT: u32 = 20;
const FINE_SHIFT: u32 = 10;

impl Add<Duration> for KtimeNs {
    type Output = KtimeNs;

    fn add(self, span: Duration) -> KtimeNs {
        KtimeNs(self.0.saturating_add(span.as_nanos() as u64))
    }
}

impl Sub<Duration> for KtimeNs {
    type Output = KtimeNs;

    fn sub(self, span: Duration) -> KtimeNs {
        KtimeNs(self.0.saturating_sub(span.as_nanos() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coarse_moment_is_known_again_from_either_side() {
        let step = 1_u64 << COARSE_SHIFT;
        for at in [0, step, 7 * step, (1 << 52) + 3 * step] {
            for near in [at, at + 5, at.saturating_sub(9 * step), at + (1 << 50)] {
                assert_eq!(from_coarse(coarse(at), KtimeNs(near)), KtimeNs(at), "{at} near {near}");
            }
        }
    }

    #[test]
    fn fine_moments_tell_spans_over_their_wrap() {
        for at in [1 << FINE_SHIFT, 5_000_000, (1 << 42) - 1_000, 1 << 42] {
            let span = since_fine(fine(at), at + 3_000_000);
            assert!(span.abs_diff(3_000_000) <= 2 << FINE_SHIFT, "{at}: {span}");
        }
        assert_ne!(fine(0), 0);
    }
}
