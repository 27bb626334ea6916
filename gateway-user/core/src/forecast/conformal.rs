//! What keeps quantiles honest online: each is moved until it is exceeded as often as it should be.
//!
//! Quantile tracking: after every outcome the offset of a quantile moves up a little where the
//! outcome was above and down a little where it was below, so that over time the shares come out
//! right whatever the series does (Gibbs and Candès, "Adaptive conformal inference under
//! distribution shift", 2021; in this form Angelopoulos, Candès and Tibshirani, "Conformal PID
//! control for time series prediction", 2023).

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::bands::QUANTILES;

/// How far one outcome moves an offset in the long run, in deviations of the series. Of 0.03, 0.08,
/// 0.15 and 0.3 the one with the least loss on the days to choose by.
const STEP: f32 = 0.03;

/// At first it moves further, as offsets begin as guesses: this much over the outcomes' root.
const STEP_FIRST: f32 = 0.5;

/// The farthest an offset goes, in deviations.
const OFFSET_MAX: f32 = 50.0;

/// Offsets of the quantiles of one horizon, in deviations of the series.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Tracker {
    offsets: [f32; QUANTILES.len()],
    outcomes: u32,
}

impl Tracker {
    pub(super) fn new(offsets: [f32; QUANTILES.len()]) -> Tracker {
        Tracker { offsets, outcomes: 0 }
    }

    /// Whether it can be gone on from.
    pub(super) fn makes_sense(&self) -> bool {
        self.offsets.iter().all(|offset| offset.abs() <= OFFSET_MAX)
    }

    pub(super) fn offsets(&self) -> [f64; QUANTILES.len()] {
        self.offsets.map(f64::from)
    }

    /// An outcome, and the quantiles that had been said of it.
    pub(super) fn learn(&mut self, said: [f64; QUANTILES.len()], came: f64) {
        self.outcomes = self.outcomes.saturating_add(1);
        let step = STEP.max(STEP_FIRST / (self.outcomes as f32).sqrt());
        for ((offset, level), said) in self.offsets.iter_mut().zip(QUANTILES).zip(said) {
            // What came exactly so (a quiet pool's zero) says nothing against the quantile.
            let moved = match came.total_cmp(&said) {
                Ordering::Less => level as f32 - 1.0,
                Ordering::Equal => 0.0,
                Ordering::Greater => level as f32,
            };
            *offset = (*offset + step * moved).clamp(-OFFSET_MAX, OFFSET_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use gateway_common::hash::mix;

    use super::*;

    #[test]
    fn days_without_a_request_move_nothing() {
        let mut tracker = Tracker::new([-1.0, 0.0, 1.0]);
        (0..5000).for_each(|_| tracker.learn([0.0; 3], 0.0));
        assert_eq!(tracker.offsets(), [-1.0, 0.0, 1.0]);
    }

    #[test]
    fn a_quantile_is_exceeded_as_often_as_it_should_be_whatever_comes() {
        let mut tracker = Tracker::new([0.0; 3]);
        let (mut below, mut counted) = ([0u32; 3], 0);
        for step in 0..20_000u64 {
            let chance = (mix(step) % 10_000) as f64 / 10_000.0;
            // Skewed, and ten times as wide in the second half.
            let came = chance.powi(4) * if step < 10_000 { 1.0 } else { 10.0 };
            let said = tracker.offsets();
            tracker.learn(said, came);
            if step > 500 {
                counted += 1;
                (0..3).for_each(|at| below[at] += u32::from(came <= said[at]));
            }
        }
        for (below, level) in below.into_iter().zip(QUANTILES) {
            let share = f64::from(below) / f64::from(counted);
            assert!((share - level).abs() < 0.02, "{share} instead of {level}");
        }
    }
}
