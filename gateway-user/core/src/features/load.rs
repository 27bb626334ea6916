//! What the forecast looks at: one series of rates, a step at a time, beside its own past.
//!
//! Nothing here is absolute. A rate counts by how far it is from its running level, in running
//! deviations, so that one model serves a pool of ten requests a second and one of ten thousand.
//! The time of day is not among it: no clock of the wall reaches the core, and 15 minutes ahead
//! a slope says most of what the hour would.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::features::{Feature, Schema, feature, hold};

/// Raised whenever a feature changes its meaning.
pub const VERSION: u32 = 1;

/// Distances in running deviations.
const APART: [f32; 2] = [-8.0, 8.0];

/// The list, in the order of a [`Vector`].
#[rustfmt::skip]
pub const FEATURES: [Feature; 11] = [
    feature("now", "1", APART, "rate of this step over the level, in deviations"),
    feature("before", "1", APART, "rate of the step before, likewise"),
    feature("short", "1", APART, "average that halves after 1 step over the level, likewise"),
    feature("long", "1", APART, "average that halves after 20 steps, likewise"),
    feature("habit", "1", APART, "average that halves after 240 steps, likewise"),
    feature("rise_5", "1", APART, "what the level rose by in 5 steps, in deviations"),
    feature("rise_15", "1", APART, "what the level rose by in 15 steps, likewise"),
    feature("spread", "ln", [-8.0, 2.0], "deviation over the habit"),
    feature("surprise", "ln", [-4.0, 4.0], "size of the last surprises over the deviation"),
    feature("requests", "ln", [0.0, 16.0], "1 + requests a step at the level"),
    feature("step", "ln", [-4.0, 4.0], "length of a step over a minute"),
];

/// Values of [`FEATURES`], in that order, each within its range.
pub type Vector = [f32; FEATURES.len()];

/// Steps after which half of an average is forgotten: short, level, long, habit.
const HALF_LIVES: [f64; 4] = [1.0, 3.0, 20.0, 240.0];
const SHORT: usize = 0;
const LEVEL: usize = 1;
const LONG: usize = 2;
const HABIT: usize = 3;

/// The same of the deviation, and of the last surprises.
const SCALE_HALF_LIFE: f64 = 60.0;
const SURPRISE_HALF_LIFE: f64 = 3.0;

/// Levels that are kept for the slopes.
const LEVELS: usize = 16;

/// Steps after which the averages mean something.
const WARM: u32 = 16;

/// The schema of this program.
pub fn schema() -> Schema {
    Schema::of(VERSION, &FEATURES)
}

/// What is remembered of one series, for a file: [`VERSION`], steps, then now, before, the averages,
/// scale and surprise, and the levels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedPast {
    version: u32,
    steps: u32,
    numbers: Vec<f32>,
    levels: Vec<f32>,
}

/// What is remembered of one series.
#[derive(Clone, Debug)]
pub struct Past {
    /// Seconds.
    step: f64,
    steps: u32,
    now: f64,
    before: f64,
    averages: [f64; HALF_LIVES.len()],
    /// Mean distance of a rate from the level before it.
    scale: f64,
    surprise: f64,
    /// Levels of the last steps, newest first.
    levels: VecDeque<f32>,
}

impl Past {
    /// Nothing seen yet of a series with steps of this many seconds.
    pub fn new(step: f64) -> Past {
        Past {
            step,
            steps: 0,
            now: 0.0,
            before: 0.0,
            averages: [0.0; HALF_LIVES.len()],
            scale: 0.0,
            surprise: 0.0,
            levels: VecDeque::with_capacity(LEVELS),
        }
    }

    /// What is to be kept of it.
    pub(crate) fn save(&self) -> SavedPast {
        let first = [self.now, self.before];
        let numbers = first.into_iter().chain(self.averages).chain([self.scale, self.surprise]);
        SavedPast {
            version: VERSION,
            steps: self.steps,
            numbers: numbers.map(|number| number as f32).collect(),
            levels: self.levels.iter().copied().collect(),
        }
    }

    /// Goes on from there, with steps of this many seconds. `None`: it is of another version, or
    /// makes no sense.
    pub(crate) fn restore(saved: &SavedPast, step: f64) -> Option<Past> {
        let SavedPast { version, steps, numbers, levels } = saved;
        let is_rate = |number: &f32| number.is_finite() && *number >= 0.0;
        let makes_sense = numbers.iter().chain(levels).all(is_rate) && levels.len() <= LEVELS;
        let [now, before, short, level, long, habit, scale, surprise] =
            <[f32; 8]>::try_from(&numbers[..]).ok()?.map(f64::from);
        (*version == VERSION && makes_sense).then(|| Past {
            step,
            steps: *steps,
            now,
            before,
            averages: [short, level, long, habit],
            scale,
            surprise,
            levels: levels.iter().copied().collect(),
        })
    }

    /// Takes in the rate of one step, requests a second; what is no rate counts as none.
    pub fn learn(&mut self, rate: f64) {
        let rate = if rate.is_finite() { rate.max(0.0) } else { 0.0 };
        self.before = if self.steps == 0 { rate } else { self.now };
        self.now = rate;
        self.steps = self.steps.saturating_add(1);
        let gain = |half_life: f64| {
            let steady = 1.0 - 0.5f64.powf(1.0 / half_life);
            steady.max(1.0 / f64::from(self.steps))
        };
        if self.steps > 1 {
            let off = (rate - self.averages[LEVEL]).abs();
            // The first surprise is the second step's.
            let young = 1.0 / f64::from(self.steps - 1);
            self.scale += gain(SCALE_HALF_LIFE).max(young) * (off - self.scale);
            self.surprise += gain(SURPRISE_HALF_LIFE).max(young) * (off - self.surprise);
        }
        for (average, half_life) in self.averages.iter_mut().zip(HALF_LIVES) {
            *average += gain(half_life) * (rate - *average);
        }
        self.levels.truncate(LEVELS - 1);
        self.levels.push_front(self.averages[LEVEL] as f32);
    }

    /// The running level, requests a second: what forecasts are counted from.
    pub fn level(&self) -> f64 {
        self.averages[LEVEL]
    }

    /// The running deviation, requests a second: what forecasts are counted in. Never less than
    /// chance alone makes of independent requests.
    pub fn scale(&self) -> f64 {
        let chance = (self.level() / self.step).sqrt().max(1.0 / self.step);
        self.scale.max(0.8 * chance)
    }

    /// The long average, requests a second: what errors are counted in. Never less than one
    /// request a step.
    pub fn habit(&self) -> f64 {
        self.averages[HABIT].max(1.0 / self.step)
    }

    /// The features of the last step; `None`: too few were seen. This is the one function that
    /// training, evaluation and serving call.
    pub fn vector(&self) -> Option<Vector> {
        if self.steps < WARM {
            return None;
        }
        let (level, scale) = (self.level(), self.scale());
        let apart = |value: f64| (value - level) / scale;
        let rise = |steps: usize| {
            let then = self.levels.get(steps).or(self.levels.back());
            then.map_or(0.0, |then| (level - f64::from(*then)) / scale)
        };
        let values = [
            apart(self.now),
            apart(self.before),
            apart(self.averages[SHORT]),
            apart(self.averages[LONG]),
            apart(self.averages[HABIT]),
            rise(5),
            rise(15),
            (scale / self.habit()).ln(),
            (self.surprise.max(0.01 * scale) / scale).ln(),
            (level * self.step).ln_1p(),
            (self.step / 60.0).ln(),
        ];
        let mut vector = [0.0; FEATURES.len()];
        for ((slot, value), feature) in vector.iter_mut().zip(values).zip(&FEATURES) {
            *slot = hold(value, feature);
        }
        Some(vector)
    }
}

#[cfg(test)]
mod tests;
