//! What one backend usually does.

use serde::{Deserialize, Serialize};

use crate::fault::FaultWindow;

/// Windows after which half of the past is forgotten: two minutes of windows of five seconds.
pub const HALF_LIFE: f32 = 24.0;

/// The same for what it did lately.
const LATELY: f32 = 2.0;

/// The same for a share that only many requests show.
const MANY: f32 = 4.0;

/// A window that looks wrong is learnt from this much: a lasting change becomes the habit in the
/// end, in twenty minutes rather than two.
const SUSPECT_GAIN: f32 = 0.1;

/// Windows' worth of past from which a habit is one.
const KNOWN_FROM: f32 = 1.0;

/// Usual deviations that a single window can move a habit by.
const CLIP: f32 = 3.0;

/// A spread to begin with, and the smallest that is believed, as logarithms of ratios.
const SPREAD_FIRST: f32 = 0.25;
/// See [`SPREAD_FIRST`].
const SPREAD_MIN: f32 = 0.08;

/// A usual 99th percentile where none is known, s.
const P99_UNKNOWN: f32 = 1.0;

/// The shortest one that silence is held against, s: answers come in bursts.
const P99_MIN: f32 = 0.1;

/// Requests that an idle window is thought to have had, so that its rate has a logarithm.
const RATE_FLOOR: f32 = 0.5;

/// A level and how far windows usually are from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Habit {
    level: f32,
    spread: f32,
    /// Windows' worth of past.
    weight: f32,
}

impl Habit {
    fn deviation(&self, value: Option<f32>) -> Option<f32> {
        value.filter(|_| self.weight >= KNOWN_FROM).map(|value| value - self.level)
    }

    /// A deviation in usual ones; zero if it is not known.
    pub(super) fn strangeness(&self, deviation: Option<f32>) -> f32 {
        deviation.map_or(0.0, |deviation| deviation / self.spread.max(SPREAD_MIN))
    }

    fn learn(&mut self, value: Option<f32>, passed: f32, suspect: bool) {
        let Some(value) = value else { return };
        if self.weight == 0.0 {
            *self = Habit { level: value, spread: SPREAD_FIRST, weight: passed };
            return;
        }
        self.weight += passed;
        // A plain mean at first, then one that forgets.
        let gain = (passed / self.weight).max(1.0 - 0.5f32.powf(passed / HALF_LIFE)).min(1.0);
        let gain = if suspect { gain * SUSPECT_GAIN } else { gain };
        let clip = CLIP * self.spread.max(SPREAD_MIN);
        let deviation = (value - self.level).clamp(-clip, clip);
        self.level += gain * deviation;
        // A spread of few windows is mostly the first guess.
        let gain = gain.min(1.0 / KNOWN_FROM.max(4.0));
        self.spread += gain * (deviation.abs() - self.spread);
    }
}

/// What one backend usually does, and did lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Past {
    pub(super) p50: Habit,
    pub(super) p90: Habit,
    p99: Habit,
    pub(super) way_p50: Habit,
    way_p90: Habit,
    in_flight: Habit,
    rate: Habit,
    pub(super) lately_p50: f32,
    pub(super) lately_p90: f32,
    /// Failed and finished, over the last windows.
    many: (f64, f64),
    many_before: (f64, f64),
}

/// How far a window is from what is usual, as logarithms of ratios; `None`: not known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Deviations {
    pub(super) p50: Option<f32>,
    pub(super) p90: Option<f32>,
    pub(super) p99: Option<f32>,
    pub(super) way_p50: Option<f32>,
    pub(super) way_p90: Option<f32>,
    pub(super) in_flight: Option<f32>,
    pub(super) rate: Option<f32>,
}

impl Deviations {
    pub(super) const KINDS: usize = 7;

    pub(super) fn all(&self) -> [Option<f32>; Deviations::KINDS] {
        [self.p50, self.p90, self.p99, self.way_p50, self.way_p90, self.in_flight, self.rate]
    }

    pub(super) fn from_all(all: [Option<f32>; Deviations::KINDS]) -> Deviations {
        let [p50, p90, p99, way_p50, way_p90, in_flight, rate] = all;
        Deviations { p50, p90, p99, way_p50, way_p90, in_flight, rate }
    }
}

impl Past {
    /// How far a window is from what is usual.
    pub(super) fn deviations(&self, window: &FaultWindow) -> Deviations {
        let of = |habit: &Habit, value: Option<f32>| habit.deviation(value);
        let values = logarithms(window);
        Deviations {
            p50: of(&self.p50, values.p50),
            p90: of(&self.p90, values.p90),
            p99: of(&self.p99, values.p99),
            way_p50: of(&self.way_p50, values.way_p50),
            way_p90: of(&self.way_p90, values.way_p90),
            in_flight: of(&self.in_flight, values.in_flight),
            rate: of(&self.rate, values.rate),
        }
    }

    /// Adds up what failed, for shares that only many requests show.
    pub(super) fn count(&mut self, window: &FaultWindow, passed: f32) {
        self.many_before = self.many;
        let keep = f64::from(0.5f32.powf(passed / MANY));
        // Windows that overlap count what is new in them.
        let new = f64::from(passed.min(1.0));
        self.many.0 = keep * self.many.0 + new * f64::from(window.failed());
        self.many.1 = keep * self.many.1 + new * f64::from(window.finished());
    }

    /// Failed and finished over the last windows.
    pub(super) fn many(&self) -> (f64, f64) {
        self.many
    }

    /// The same before the present one.
    pub(super) fn many_before(&self) -> (f64, f64) {
        self.many_before
    }

    /// Averages how strange it was over the last windows.
    pub(super) fn lately(&mut self, p50: f32, p90: f32, passed: f32) {
        let gain = 1.0 - 0.5f32.powf(passed / LATELY);
        self.lately_p50 += gain * (p50 - self.lately_p50);
        self.lately_p90 += gain * (p90 - self.lately_p90);
    }

    /// Its usual 99th percentile, s.
    pub(super) fn usual_p99(&self) -> f32 {
        if self.p99.weight < KNOWN_FROM { P99_UNKNOWN } else { self.p99.level.exp().max(P99_MIN) }
    }

    /// Makes a window part of the past, unless the backend took no part.
    pub(super) fn learn(&mut self, window: &FaultWindow, passed: f32, suspect: bool) {
        if !window.serving {
            return;
        }
        let values = logarithms(window);
        self.p50.learn(values.p50, passed, suspect);
        self.p90.learn(values.p90, passed, suspect);
        self.p99.learn(values.p99, passed, suspect);
        self.way_p50.learn(values.way_p50, passed, suspect);
        self.way_p90.learn(values.way_p90, passed, suspect);
        self.in_flight.learn(values.in_flight, passed, suspect);
        self.rate.learn(values.rate, passed, suspect);
    }
}

/// A window's values, as logarithms.
fn logarithms(window: &FaultWindow) -> Deviations {
    // A microsecond is the shortest time on the way that is told apart.
    let ln = |value: Option<f32>| {
        value.filter(|value| value.is_finite()).map(|value| value.max(1e-6).ln())
    };
    let rate = (window.answered as f32 + RATE_FLOOR) / window.seconds.max(1e-3);
    Deviations {
        p50: ln(window.latency_p50),
        p90: ln(window.latency_p90),
        p99: ln(window.latency_p99),
        way_p50: ln(window.way_p50),
        way_p90: ln(window.way_p90),
        in_flight: window.in_flight.map(|count| (count as f32).ln_1p()),
        rate: Some(rate.ln()),
    }
}
