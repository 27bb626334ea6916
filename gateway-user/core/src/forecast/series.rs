//! One series of rates, a step at a time: what the EWMA says of its future, what the model says,
//! and how both came out.
//!
//! The EWMA is at its best: several are kept, and for each horizon that one speaks whose misses were
//! the smallest lately. What counts as the model's word is its own quantiles mixed with the EWMA's,
//! more of whoever did better of late on this series and horizon: a network that learnt from other
//! series knows some well and some not, and a mixture loses little on those.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bands::{Band, QUANTILES, Source};
use super::conformal::Tracker;
use super::forecaster::{OUTPUT_MAX, OUTPUTS};
use crate::features::load::{Past, SavedPast, Vector};

/// The most horizons that a pace has.
const AHEAD_MAX: usize = 3;

/// A model's quantile lies between the EWMA's lowest over this and its highest times this: a model
/// that is wildly wrong stays bounded until its score takes it off the ladder.
const APART_MAX: f64 = 3.0;

/// Steps until the EWMA says anything.
const STEPS_MIN: u32 = 3;

/// Half-lives of the EWMAs that are kept, steps. One for all series was 2 to 8% worse on the days to
/// choose by than each series' best: a smooth one wants the last rate, a backend of twenty requests
/// a minute wants the last quarter of an hour.
const HALF_LIVES: [f64; 5] = [0.3, 1.0, 3.0, 6.0, 12.0];

/// Steps that the choice among them remembers half of.
const CHOICE_HALF_LIFE: f64 = 240.0;

/// How sharply a mixture follows the better: a loss that is 5% less lately gives it three quarters.
const MIX_SHARPNESS: f64 = 20.0;

/// How a series is stepped.
#[derive(Debug)]
pub struct Pace {
    /// Length of a step.
    pub step: Duration,
    /// What is forecast: the rate of the step that lies this many steps ahead.
    pub ahead: &'static [usize],
    /// Where its quantiles begin, in deviations; then they are tracked.
    offsets: &'static [[f32; QUANTILES.len()]],
}

/// The model's pace: horizons of one, five and fifteen minutes. A minute, as the traces that it
/// learns from have it; what is said of shorter steps there is chance of single requests.
pub const MODEL_PACE: Pace = Pace {
    step: Duration::from_secs(60),
    ahead: &[1, 5, 15],
    offsets: &[[-1.3, 0.0, 1.4], [-1.6, 0.0, 1.8], [-2.0, 0.0, 2.4]],
};

/// The pace of the next ten seconds, for which only the EWMA speaks.
pub const QUICK_PACE: Pace =
    Pace { step: Duration::from_secs(10), ahead: &[1], offsets: &[[-1.3, 0.0, 1.4]] };

/// What was said at one step of each horizon of the pace.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Issued {
    habit: f32,
    averages: [f32; HALF_LIVES.len()],
    rule: [Option<[f32; QUANTILES.len()]>; AHEAD_MAX],
    /// The network's alone, corrected.
    network: [Option<[f32; QUANTILES.len()]>; AHEAD_MAX],
    /// Mixed with the EWMA's.
    model: [Option<[f32; QUANTILES.len()]>; AHEAD_MAX],
}

impl Issued {
    /// What somebody said of a horizon of the pace.
    pub fn band(&self, horizon: usize, source: Source) -> Option<Band> {
        let said = match source {
            Source::Model => &self.model,
            Source::Substitute => &self.rule,
        };
        Band::new((*said.get(horizon)?)?.map(f64::from), source)
    }
}

/// A forecast whose future has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// Which horizon of the pace.
    pub horizon: usize,
    /// The rate that came, requests a second.
    pub came: f64,
    /// The series' long average when it was said, requests a second: what losses are counted in.
    pub habit: f64,
    /// What the EWMA had said.
    pub rule: Band,
    /// What the model had said, if it spoke.
    pub model: Option<Band>,
}

impl Scored {
    /// A band's loss, relative to the habit.
    pub fn loss(&self, band: &Band) -> f64 {
        band.loss(self.came) / self.habit
    }
}

/// What a series has learnt, for a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedSeries {
    past: SavedPast,
    steps: u32,
    averages: Vec<f32>,
    misses: Vec<Vec<f32>>,
    rule: Vec<Tracker>,
    network: Vec<Tracker>,
    losses: Vec<Losses>,
}

/// One series.
#[derive(Clone, Debug)]
pub struct Series {
    pace: &'static Pace,
    past: Past,
    steps: u32,
    averages: [f64; HALF_LIVES.len()],
    /// By horizon: how far each average was from what came, filtered.
    misses: [[f64; HALF_LIVES.len()]; AHEAD_MAX],
    rule: [Tracker; AHEAD_MAX],
    network: [Tracker; AHEAD_MAX],
    /// By horizon: losses of the network alone and of the EWMA, filtered.
    losses: [Losses; AHEAD_MAX],
    /// What was said of late, oldest first; as many as the farthest horizon has steps.
    said: VecDeque<Issued>,
}

impl Series {
    /// Nothing seen yet.
    pub fn new(pace: &'static Pace) -> Series {
        Series::with_step(pace, pace.step)
    }

    /// The same with steps of another length, as a trace has them: horizons are counted in steps.
    pub fn with_step(pace: &'static Pace, step: Duration) -> Series {
        let mut rule = [Tracker::new([0.0; QUANTILES.len()]); AHEAD_MAX];
        for (tracker, offsets) in rule.iter_mut().zip(pace.offsets) {
            *tracker = Tracker::new(*offsets);
        }
        Series {
            pace,
            past: Past::new(step.as_secs_f64()),
            steps: 0,
            averages: [0.0; HALF_LIVES.len()],
            misses: [[0.0; HALF_LIVES.len()]; AHEAD_MAX],
            rule,
            network: [Tracker::new([0.0; QUANTILES.len()]); AHEAD_MAX],
            losses: [Losses::default(); AHEAD_MAX],
            said: VecDeque::new(),
        }
    }

    /// The rate of a step that is over, requests a second: settles what was said of it, and lets
    /// the EWMA say what comes.
    pub fn step(&mut self, rate: f64) -> Vec<Scored> {
        let rate = if rate.is_finite() { rate.max(0.0) } else { 0.0 };
        let scored = self.settle(rate);
        self.past.learn(rate);
        self.steps = self.steps.saturating_add(1);
        for (average, half_life) in self.averages.iter_mut().zip(HALF_LIVES) {
            *average += gain(half_life, self.steps) * (rate - *average);
        }
        let farthest = self.pace.ahead.iter().copied().max().unwrap_or(1);
        if self.said.len() >= farthest {
            self.said.pop_front();
        }
        self.said.push_back(self.issue());
        scored
    }

    /// What the model looks at now; `None`: too little was seen.
    pub fn vector(&self) -> Option<Vector> {
        self.past.vector()
    }

    /// What a model's outputs are counted from and in: level and deviation, requests a second.
    pub fn frame(&self) -> (f64, f64, f64) {
        (self.past.level(), self.past.scale(), self.past.habit())
    }

    /// The model's outputs for the step that was last taken in. Whether they are numbers; else
    /// nothing is said.
    pub fn hear(&mut self, outputs: &[f32]) -> bool {
        if outputs.len() != OUTPUTS || outputs.iter().any(|output| !output.is_finite()) {
            return false;
        }
        let (level, scale) = (self.past.level(), self.past.scale());
        let Some(last) = self.said.back_mut() else { return false };
        for (horizon, outputs) in outputs.chunks_exact(QUANTILES.len()).enumerate() {
            let Some(rule) = last.rule[horizon].map(|rule| rule.map(f64::from)) else { continue };
            let (lowest, highest) = (rule[0] / APART_MAX, rule[2] * APART_MAX);
            let mut said = self.network[horizon].offsets();
            for (said, output) in said.iter_mut().zip(outputs) {
                let apart = f64::from(output.clamp(-OUTPUT_MAX, OUTPUT_MAX));
                *said = (level + scale * (apart + *said)).clamp(lowest, highest);
            }
            last.network[horizon] = sorted(said);
            said.sort_unstable_by(f64::total_cmp);
            let share = self.losses[horizon].share();
            last.model[horizon] =
                sorted(std::array::from_fn(|at| share * said[at] + (1.0 - share) * rule[at]));
        }
        true
    }

    /// Steps were missed: what was said of them is never settled. What was learnt stays.
    pub fn interrupt(&mut self) {
        self.said.clear();
    }

    /// Another model speaks from now on.
    pub fn forget_model(&mut self) {
        self.network = [Tracker::new([0.0; QUANTILES.len()]); AHEAD_MAX];
        self.losses = [Losses::default(); AHEAD_MAX];
        for said in &mut self.said {
            (said.network, said.model) = ([None; AHEAD_MAX], [None; AHEAD_MAX]);
        }
    }

    /// What is to be kept of it.
    pub(crate) fn save(&self) -> SavedSeries {
        let floats = |numbers: &[f64]| numbers.iter().map(|number| *number as f32).collect();
        SavedSeries {
            past: self.past.save(),
            steps: self.steps,
            averages: floats(&self.averages),
            misses: self.misses.iter().map(|misses| floats(misses)).collect(),
            rule: self.rule.to_vec(),
            network: self.network.to_vec(),
            losses: self.losses.to_vec(),
        }
    }

    /// Goes on from there, as of so long ago. After more than the farthest horizon the level is known
    /// no better than if nobody had watched, but how far off forecasts are still is; before that, what
    /// comes next is said at once. `None`: it makes no sense.
    pub(crate) fn restore(
        pace: &'static Pace,
        saved: &SavedSeries,
        away: Duration,
    ) -> Option<Series> {
        let mut series = Series::new(pace);
        let numbers = |floats: &[f32]| -> Option<[f64; HALF_LIVES.len()]> {
            let sound = floats.iter().all(|number| number.is_finite() && *number >= 0.0);
            <[f32; HALF_LIVES.len()]>::try_from(floats)
                .ok()
                .filter(|_| sound)
                .map(|all| all.map(f64::from))
        };
        let trackers = |saved: &[Tracker]| -> Option<[Tracker; AHEAD_MAX]> {
            saved
                .try_into()
                .ok()
                .filter(|all: &[Tracker; AHEAD_MAX]| all.iter().all(Tracker::makes_sense))
        };
        (series.rule, series.network) = (trackers(&saved.rule)?, trackers(&saved.network)?);
        series.losses = saved.losses[..].try_into().ok()?;
        if !series.losses.iter().all(Losses::makes_sense) || saved.misses.len() != AHEAD_MAX {
            return None;
        }
        for (misses, saved) in series.misses.iter_mut().zip(&saved.misses) {
            *misses = numbers(saved)?;
        }
        let farthest = pace.ahead.iter().copied().max().unwrap_or(1) as u32;
        if away <= pace.step * farthest {
            series.past = Past::restore(&saved.past, pace.step.as_secs_f64())?;
            series.averages = numbers(&saved.averages)?;
            series.steps = saved.steps;
            series.said.push_back(series.issue());
        }
        Some(series)
    }

    /// What is said now; `None`: nothing yet, or since an interruption.
    pub fn issued(&self) -> Option<&Issued> {
        self.said.back()
    }

    fn settle(&mut self, came: f64) -> Vec<Scored> {
        let mut scored = Vec::with_capacity(self.pace.ahead.len());
        for (horizon, ahead) in self.pace.ahead.iter().enumerate() {
            let Some(said) = self.said.len().checked_sub(*ahead).map(|at| self.said[at]) else {
                continue;
            };
            let gain = gain(CHOICE_HALF_LIFE, self.steps);
            for (miss, average) in self.misses[horizon].iter_mut().zip(said.averages) {
                *miss += gain * ((came - f64::from(average)).abs() - *miss);
            }
            let Some(rule) = said.band(horizon, Source::Substitute) else { continue };
            self.rule[horizon].learn(rule.quantiles(), came);
            let network = said.network[horizon]
                .and_then(|said| Band::new(said.map(f64::from), Source::Model));
            if let Some(network) = &network {
                self.network[horizon].learn(network.quantiles(), came);
                self.losses[horizon].learn(network.loss(came), rule.loss(came));
            }
            let model = said.band(horizon, Source::Model);
            scored.push(Scored { horizon, came, habit: f64::from(said.habit), rule, model });
        }
        scored
    }

    fn issue(&self) -> Issued {
        let mut issued = Issued {
            habit: self.past.habit() as f32,
            averages: self.averages.map(|average| average as f32),
            ..Issued::default()
        };
        if self.steps < STEPS_MIN {
            return issued;
        }
        let scale = self.past.scale();
        for horizon in 0..self.pace.ahead.len() {
            let center = self.averages[best(&self.misses[horizon])];
            let quantiles = self.rule[horizon].offsets().map(|offset| center + scale * offset);
            issued.rule[horizon] = sorted(quantiles);
        }
        issued
    }
}

/// Losses of the network alone and of the EWMA on the same outcomes, filtered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Losses {
    network: f64,
    rule: f64,
    outcomes: u32,
}

impl Losses {
    fn learn(&mut self, network: f64, rule: f64) {
        self.outcomes = self.outcomes.saturating_add(1);
        let gain = gain(CHOICE_HALF_LIFE, self.outcomes);
        self.network += gain * (network - self.network);
        self.rule += gain * (rule - self.rule);
    }

    /// Whether it can be gone on from.
    fn makes_sense(&self) -> bool {
        [self.network, self.rule].iter().all(|loss| loss.is_finite() && *loss >= 0.0)
    }

    /// The network's share of the mixture, `0..=1`.
    fn share(&self) -> f64 {
        let mean = (self.network + self.rule) / 2.0;
        if mean <= 0.0 {
            return 0.5;
        }
        1.0 / (1.0 + (MIX_SHARPNESS * (self.network - self.rule) / mean).exp())
    }
}

/// The gain of an average with this half-life; at first a plain mean.
fn gain(half_life: f64, steps: u32) -> f64 {
    (1.0 - 0.5f64.powf(1.0 / half_life)).max(1.0 / f64::from(steps.max(1)))
}

/// Where the least is.
fn best(misses: &[f64; HALF_LIVES.len()]) -> usize {
    (0..misses.len()).min_by(|a, b| misses[*a].total_cmp(&misses[*b])).unwrap_or(0)
}

fn sorted(quantiles: [f64; QUANTILES.len()]) -> Option<[f32; QUANTILES.len()]> {
    Band::new(quantiles, Source::Substitute).map(|band| band.quantiles().map(|q| q as f32))
}

#[cfg(test)]
mod tests;
