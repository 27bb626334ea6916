//! From the weights that are asked for to those that are taken: the bounds, in one place.
//!
//! The backends that carry the pool have weights with a mean of one. A tick moves them towards
//! what is asked, each within its own step, all together within the pool's; then the mean is one
//! again, by construction rather than by scaling afterwards, so that no step is overstepped.

use crate::decision::Bound;
use crate::fleet::{PolicySpec, WeightMode};

use super::Role;

/// Halvings until the scale is exact to a double's precision.
const BISECTIONS: u32 = 60;

/// One tick's movement of a pool's weights.
pub(super) struct Movement<'a> {
    pub(super) spec: &'a PolicySpec,
    pub(super) mode: WeightMode,
    pub(super) roles: &'a [Role],
    /// Weights asked for, on any scale; positive.
    pub(super) asked: &'a [f64],
}

/// Weights relative to the mean of those that carry the pool.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Moved {
    pub(super) before: Vec<f64>,
    pub(super) wanted: Vec<f64>,
    pub(super) after: Vec<f64>,
}

impl Movement<'_> {
    pub(super) fn apply(&self, weights: &[f64], bounds: &mut [Vec<Bound>]) -> Moved {
        let full: Vec<usize> =
            (0..self.roles.len()).filter(|index| self.roles[*index] == Role::Full).collect();
        let wanted = relative(self.asked, &full);
        let mut before = relative(weights, &full);
        for &index in &full {
            if before[index] <= 0.0 {
                // It was cut and is needed at once: there is no step from zero.
                before[index] = wanted[index];
            }
        }
        let before = relative(&before, &full);
        let mut after = vec![0.0; weights.len()];
        let taken = self.full_weights(&full, &before, &wanted, bounds);
        for (&index, weight) in full.iter().zip(taken) {
            after[index] = weight;
        }
        for (index, role) in self.roles.iter().enumerate() {
            let least = self.spec.weight_min;
            match *role {
                Role::Cut | Role::Full => {}
                Role::Trickle(weight) => after[index] = weight,
                Role::Ramp(share) => {
                    after[index] = (share * wanted[index]).clamp(least, self.spec.weight_max);
                }
            }
        }
        Moved { before, wanted, after }
    }

    fn full_weights(
        &self,
        full: &[usize],
        before: &[f64],
        wanted: &[f64],
        bounds: &mut [Vec<Bound>],
    ) -> Vec<f64> {
        let pick = |from: &[f64]| -> Vec<f64> { full.iter().map(|&index| from[index]).collect() };
        if self.mode != WeightMode::Learned {
            return pick(wanted);
        }
        let (before, wanted) = (pick(before), pick(wanted));
        let mut note = |at: usize, bound| bounds[full[at]].push(bound);
        let aims = self.aims(&before, &wanted, &mut note);
        if aims == before {
            return before;
        }
        let ranges: Vec<Range> = before.iter().map(|weight| self.range(*weight)).collect();
        let mut after = fill(&aims, &ranges);
        for (at, (range, aim)) in ranges.iter().zip(&aims).enumerate() {
            if let Some(bound) = range.bites(after[at], *aim, self.spec) {
                note(at, bound);
            }
        }
        let moved: f64 = after.iter().zip(&before).map(|(a, b)| (a - b).abs()).sum::<f64>() / 2.0;
        let most = self.spec.move_max * before.len() as f64;
        if moved > most {
            let share = most / moved;
            for (at, (after, before)) in after.iter_mut().zip(&before).enumerate() {
                *after = before + share * (*after - before);
                note(at, Bound::MoveMax);
            }
        }
        after
    }

    /// What is asked for within the smallest and the largest weight; what differs too little to
    /// act on asks for nothing.
    fn aims(
        &self,
        before: &[f64],
        wanted: &[f64],
        note: &mut impl FnMut(usize, Bound),
    ) -> Vec<f64> {
        let mut aims = Vec::with_capacity(before.len());
        for (at, (before, wanted)) in before.iter().zip(wanted).enumerate() {
            let aim = wanted.clamp(self.spec.weight_min, self.spec.weight_max);
            if aim > *wanted {
                note(at, Bound::WeightMin);
            } else if aim < *wanted {
                note(at, Bound::WeightMax);
            }
            if aim != *before && (aim / before - 1.0).abs() < self.spec.deadband {
                note(at, Bound::Deadband);
                aims.push(*before);
            } else {
                aims.push(aim);
            }
        }
        aims
    }

    fn range(&self, before: f64) -> Range {
        let low = (before * (1.0 - self.spec.step_down_max)).max(self.spec.weight_min);
        let high = (before * (1.0 + self.spec.step_up_max)).min(self.spec.weight_max);
        // A weight outside the bounds (they were changed) stays reachable.
        Range { low: low.min(before), high: high.max(before) }
    }
}

/// Where a weight may go in one tick.
#[derive(Clone, Copy, Debug)]
struct Range {
    low: f64,
    high: f64,
}

impl Range {
    /// The bound that kept `after` from `aim`, if one did.
    fn bites(&self, after: f64, aim: f64, spec: &PolicySpec) -> Option<Bound> {
        if after >= self.high && aim > self.high {
            Some(if self.high >= spec.weight_max { Bound::WeightMax } else { Bound::StepUp })
        } else if after <= self.low && aim < self.low {
            Some(if self.low <= spec.weight_min { Bound::WeightMin } else { Bound::StepDown })
        } else {
            None
        }
    }
}

/// The multiple of `aims` that, with each weight held in its range, has the mean one. It exists,
/// since the weights before, with a mean of one, lie within the ranges.
fn fill(aims: &[f64], ranges: &[Range]) -> Vec<f64> {
    let at_scale = |scale: f64| -> Vec<f64> {
        let held = |(aim, range): (&f64, &Range)| (scale * aim).clamp(range.low, range.high);
        aims.iter().zip(ranges).map(held).collect()
    };
    let total = aims.len() as f64;
    let extreme = |of: fn(f64, f64) -> f64, start: f64, end: fn(&Range) -> f64| {
        aims.iter().zip(ranges).map(|(aim, range)| end(range) / aim).fold(start, of)
    };
    let mut low = extreme(f64::min, f64::INFINITY, |range| range.low);
    let mut high = extreme(f64::max, 0.0, |range| range.high);
    for _ in 0..BISECTIONS {
        let middle = f64::midpoint(low, high);
        if at_scale(middle).iter().sum::<f64>() < total {
            low = middle;
        } else {
            high = middle;
        }
    }
    at_scale(f64::midpoint(low, high))
}

/// `weights` relative to the mean of those in `full`; as they are if that mean is zero.
fn relative(weights: &[f64], full: &[usize]) -> Vec<f64> {
    let sum: f64 = full.iter().map(|&index| weights[index]).sum();
    if sum <= 0.0 {
        return weights.to_vec();
    }
    let mean = sum / full.len() as f64;
    weights.iter().map(|weight| weight / mean).collect()
}

#[cfg(test)]
mod tests;
