//! How fast a backend is, from what can be seen of it.
//!
//! Latency is not capacity: weights of 1/latency oscillate, since a backend that is given more
//! work answers more slowly. So speed is what the backend reports (throughput over utilisation)
//! where the whole pool reports it, else the reciprocal of its latency near the service time, less
//! what the requests that are there at once explain, times what it serves at once where that is
//! known of all. Any is filtered so that noise moves little
//! while a real change is followed at once:
//!
//! - a Kalman filter of the logarithm of the cost, which trusts a sample by how many requests it
//!   averages and by how much those vary;
//! - what all backends do together (a load ramp, heavier requests) is not a change of any;
//! - a change that noise explains badly makes the filter forget, once; where everything changes
//!   all the time, it is the noise that was underestimated (queues near saturation);
//! - what is not seen again loses its weight, so that a backend that once was slow is tried again
//!   (without exploration an equal backend starves: traefik#12306).

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Relative error of a sample however many requests it averages: buckets, scheduling.
const NOISE_FLOOR: f64 = 0.03;

/// Smallest spread that requests are thought to have: a few equal latencies prove little.
const VARIATION_MIN: f64 = 0.2;

/// Error of the mean of the faster half over (spread / √n). For exponential service times the
/// spread is 0.64 and the error 1.1/√n.
const ERROR_FACTOR: f64 = 1.7;

/// How much speed drifts by itself, as a variance of its logarithm a second: 4% in one.
const DRIFT: f64 = 0.0016;

/// Standard deviations that noise does not explain.
const SURPRISE: f64 = 3.0;

/// Smallest change that makes the filter forget: twice as much. Smaller ones are followed within
/// seconds, so that a queue that the weights themselves made does not swing them.
const JUMP_MIN: f64 = std::f64::consts::LN_2;

/// Half of an estimate of a pool's excess noise is forgotten after this long.
const EXCESS_HALF_LIFE: Duration = Duration::from_secs(5);

/// Median of the square of a normal deviate.
const MEDIAN_SQUARE: f64 = 0.455;

/// The most that one tick says of excess noise: ten standard deviations.
const EXCESS_MAX: f64 = 100.0;

/// Half of what sets a backend apart is forgotten when its last samples are this old. It keeps a
/// slow backend at about one request a second, enough to see it recover within seconds.
const MEMORY: Duration = Duration::from_secs(5);

/// Samples from within this span are as fresh as can be.
const FRESH: Duration = Duration::from_secs(1);

/// How much of a latency is put down to the requests that were there at once, as a power of their
/// number. With none of it weights chase their own queues: drawn by Maglev at load 0.85 the p99
/// was 3.7 s in simulation, with one half 1.1, with 0.6 and 0.7 0.6 to 0.9; but the more of it, the
/// later a slow backend among many requests shows. 0.7 was 1 to 2% better than 0.6 over all
/// scenarios of steady unlike speeds.
const QUEUE_SHARE: f64 = 0.7;

/// The utilisation under which throughput over utilisation says more of the idle host.
const UTILIZATION_MIN: f64 = 0.1;

/// What a window of requests says of a backend's cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Mean latency of the faster half, s.
    pub latency: f64,
    /// Spread of that half: standard deviation over mean.
    pub variation: f64,
    /// Requests in the window.
    pub finished: u32,
    /// How far back it reaches.
    pub span: Duration,
    /// Finished a second.
    pub rate: f64,
    /// Utilisation as reported.
    pub utilization: Option<f64>,
    /// Requests that it serves at once before others wait.
    pub concurrency: Option<f64>,
}

impl Sample {
    /// How many requests were there for each that is served at once, at least one (Little's law).
    fn queue(&self, workers: f64) -> f64 {
        (self.rate * self.latency / workers).max(1.0)
    }
}

/// What a request costs, as a logarithm. Only differences between backends mean anything.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Natural logarithm of seconds a request.
    pub log: f64,
    /// Standard deviation of `log`.
    pub error: f64,
    /// How far back the samples reach that it was last seen by.
    pub age: Duration,
}

impl Cost {
    /// How much of what sets it apart still counts, `0..=1`.
    fn freshness(&self) -> f64 {
        let stale = self.age.saturating_sub(FRESH).as_secs_f64();
        0.5f64.powf(stale / MEMORY.as_secs_f64())
    }
}

/// What cost is taken from, for a whole pool at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Measure {
    /// Latency near the service time.
    #[default]
    Latency,
    /// The same over what is served at once.
    Concurrency,
    /// Reported utilisation over throughput.
    Utilization,
}

impl Measure {
    /// The best that is known of all backends of the pool that were sampled, since one measure cannot
    /// be compared with another. `None`: none was sampled.
    pub(crate) fn of(samples: &[Option<Sample>]) -> Option<Measure> {
        samples.iter().flatten().next()?;
        let of_all = |known: fn(&Sample) -> bool| samples.iter().flatten().all(known);
        Some(if of_all(|sample| sample.utilization.is_some_and(|u| u >= UTILIZATION_MIN)) {
            Measure::Utilization
        } else if of_all(|sample| sample.concurrency.is_some()) {
            Measure::Concurrency
        } else {
            Measure::Latency
        })
    }

    fn log_cost(self, sample: &Sample) -> f64 {
        match self {
            Measure::Latency => sample.latency.ln() - QUEUE_SHARE * sample.queue(1.0).ln(),
            Measure::Concurrency => {
                let workers = sample.concurrency.unwrap_or(1.0);
                sample.latency.ln() - workers.ln() - sample.queue(workers).ln()
            }
            Measure::Utilization => {
                (sample.utilization.unwrap_or(1.0) / sample.rate.max(f64::MIN_POSITIVE)).ln()
            }
        }
    }
}

/// The filter of one backend's cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Speedometer {
    measure: Measure,
    state: Option<State>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct State {
    log: f64,
    variance: f64,
    age: Duration,
}

/// A filter, in a form that outlives the daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedSpeed {
    measure: Measure,
    /// Logarithm of the cost, its variance, and the age of the last sample, s.
    state: Option<(f64, f64, f64)>,
}

impl Speedometer {
    /// What is to be kept of it.
    pub(crate) fn save(&self) -> SavedSpeed {
        let state = self.state.map(|state| (state.log, state.variance, state.age.as_secs_f64()));
        SavedSpeed { measure: self.measure, state }
    }

    /// Goes on from there: what drifted while nobody looked is not known any better than if nobody
    /// had been asked.
    pub(crate) fn restore(saved: SavedSpeed, away: Duration) -> Speedometer {
        let state = saved.state.and_then(|(log, variance, age)| {
            let age = Duration::try_from_secs_f64(age).ok()?.saturating_add(away);
            let variance = variance + DRIFT * away.as_secs_f64();
            (log.is_finite() && variance.is_finite()).then_some(State { log, variance, age })
        });
        Speedometer { measure: saved.measure, state }
    }

    /// What a request costs; `None`: never sampled.
    pub fn cost(&self) -> Option<Cost> {
        self.state.map(|state| Cost {
            log: state.log,
            error: state.variance.sqrt(),
            age: state.age,
        })
    }

    fn innovation(&self, sample: &Sample) -> Option<f64> {
        self.state.map(|state| self.measure.log_cost(sample) - state.log)
    }

    fn measure_by(&mut self, measure: Measure) {
        if self.measure != measure {
            *self = Speedometer { measure, state: None };
        }
    }

    fn update(&mut self, sample: Option<&Sample>, common: f64, noise: f64, elapsed: Duration) {
        let Some(state) = &mut self.state else {
            // A new backend's cost is on the scale of the others', which `common` does not touch.
            self.state = sample.map(|sample| State {
                log: self.measure.log_cost(sample),
                variance: noise * noise,
                age: sample.span,
            });
            return;
        };
        state.log += common;
        state.variance += DRIFT * elapsed.as_secs_f64();
        let Some(sample) = sample else {
            state.age += elapsed;
            return;
        };
        state.age = sample.span;
        let innovation = self.measure.log_cost(sample) - state.log;
        let variance = noise * noise;
        let surprise = innovation.abs() / (state.variance + variance).sqrt();
        let gain = if surprise > SURPRISE && innovation.abs() > JUMP_MIN {
            state.variance = innovation * innovation;
            state.variance / (state.variance + variance)
        } else {
            // Windows overlap: each request is seen again in every tick of the window.
            let seen_again = (sample.span.as_secs_f64() / elapsed.as_secs_f64()).max(1.0);
            state.variance / (state.variance + variance * seen_again)
        };
        state.log += gain * innovation;
        state.variance *= 1.0 - gain;
    }
}

/// What a pool's filters share: by how much its samples vary more than single requests explain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Excess(f64);

impl Default for Excess {
    fn default() -> Excess {
        Excess(1.0)
    }
}

impl Excess {
    /// What is to be kept of it.
    pub(crate) fn save(self) -> f64 {
        self.0
    }

    /// Goes on from there.
    pub(crate) fn restore(saved: f64) -> Excess {
        if (1.0..=EXCESS_MAX).contains(&saved) { Excess(saved) } else { Excess::default() }
    }

    /// The median over the backends, so that a change of one is not taken for noise.
    fn update(&mut self, mut squares: Vec<f64>, elapsed: Duration) {
        if squares.is_empty() {
            return;
        }
        squares.sort_unstable_by(f64::total_cmp);
        let seen = (median_of_sorted(&squares) / MEDIAN_SQUARE).min(EXCESS_MAX);
        let keep = 0.5f64.powf(elapsed.as_secs_f64() / EXCESS_HALF_LIFE.as_secs_f64());
        self.0 = (keep * self.0 + (1.0 - keep) * seen).max(1.0);
    }
}

/// Takes this tick's samples of a pool into its backends' filters.
///
/// `samples` and `speedometers` are parallel.
pub(crate) fn update(
    samples: &[Option<Sample>],
    speedometers: &mut [&mut Speedometer],
    excess: &mut Excess,
    elapsed: Duration,
) {
    if elapsed.is_zero() {
        return;
    }
    if let Some(measure) = Measure::of(samples) {
        speedometers.iter_mut().for_each(|speedometer| speedometer.measure_by(measure));
    }
    let variation = pooled_variation(samples);
    let innovations: Vec<(f64, f64)> = samples
        .iter()
        .zip(speedometers.iter())
        .filter_map(|(sample, speedometer)| {
            let sample = sample.as_ref()?;
            let error = speedometer.cost()?.error.hypot(noise(sample, variation));
            Some((speedometer.innovation(sample)?, error))
        })
        .collect();
    let common = common_change(innovations.iter().map(|(innovation, _)| *innovation).collect());
    let square = |(innovation, error): &(f64, f64)| ((innovation - common) / error).powi(2);
    excess.update(innovations.iter().map(square).collect(), elapsed);
    for (sample, speedometer) in samples.iter().zip(speedometers.iter_mut()) {
        let noise = sample.as_ref().map_or(0.0, |sample| noise(sample, variation));
        speedometer.update(sample.as_ref(), common, noise * excess.0.sqrt(), elapsed);
    }
}

/// What all backends have in common: the median change. Of two, the smaller if both go the same
/// way: one of two changes by itself more often than both by different amounts.
fn common_change(mut innovations: Vec<f64>) -> f64 {
    innovations.sort_unstable_by(f64::total_cmp);
    match innovations.as_slice() {
        [] | [_] => 0.0,
        [a, b] if a.signum() != b.signum() => 0.0,
        [a, b] => {
            if a.abs() < b.abs() {
                *a
            } else {
                *b
            }
        }
        all => median_of_sorted(all),
    }
}

/// The spread of single requests over the whole pool: a few requests of one backend cannot tell it.
fn pooled_variation(samples: &[Option<Sample>]) -> f64 {
    let (mut squares, mut count) = (0.0, 0.0);
    for sample in samples.iter().flatten() {
        squares += f64::from(sample.finished) * sample.variation * sample.variation;
        count += f64::from(sample.finished);
    }
    if count > 0.0 { (squares / count).sqrt().max(VARIATION_MIN) } else { VARIATION_MIN }
}

fn noise(sample: &Sample, variation: f64) -> f64 {
    let error = ERROR_FACTOR * variation / f64::from(sample.finished).sqrt();
    error.hypot(NOISE_FLOOR)
}

/// The median of a sorted slice that is not empty.
fn median_of_sorted(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    }
}

/// Speeds relative to each other, from costs: `None` where nothing was sampled yet.
///
/// A difference from what the operator configured (`capacities`) that the error explains counts
/// for little: equal backends get equal weights, however noisy they look. Nor does one that was
/// seen long ago.
pub(crate) fn relative_speeds(costs: &[Option<Cost>], capacities: &[f64]) -> Vec<Option<f64>> {
    // With each cost, the capacity that the operator thinks it has: equal logs, if he is right.
    let mut surprises: Vec<f64> = costs
        .iter()
        .zip(capacities)
        .filter_map(|(cost, capacity)| cost.map(|cost| cost.log + capacity.ln()))
        .collect();
    if surprises.is_empty() {
        return vec![None; costs.len()];
    }
    surprises.sort_unstable_by(f64::total_cmp);
    let centre = median_of_sorted(&surprises);
    let speed = |(cost, capacity): (&Option<Cost>, &f64)| {
        cost.map(|cost| {
            let slower = cost.log + capacity.ln() - centre;
            capacity * (-shrink(slower, cost.error) * cost.freshness()).exp()
        })
    };
    costs.iter().zip(capacities).map(speed).collect()
}

/// Draws a difference towards zero by how well its error explains it (the positive part of
/// James and Stein's estimator).
fn shrink(difference: f64, error: f64) -> f64 {
    let explained = 2.0 * error;
    if difference.abs() <= explained {
        return 0.0;
    }
    difference * (1.0 - (explained / difference).powi(2))
}

#[cfg(test)]
mod tests;
