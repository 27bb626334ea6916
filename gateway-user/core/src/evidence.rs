//! What is known of one backend: it takes observations in, and gives [`Evidence`] once a tick.

use std::time::Duration;

use gateway_common::clock::KtimeNs;

pub use crate::capacity::{Cost, Sample};

use crate::capacity::Speedometer;
use crate::classes::{Pace, PaceSeen};
use crate::concurrency::{Concurrency, Estimate};
use crate::fault::{FaultWindow, WINDOW};
use crate::features::profile::{is_streamed_prompt, scaled_to_prompt};
use crate::fleet::ProbeSpec;
use crate::flows::{FlowTally, RecentConnects};
use crate::health::{ProbeHealth, Silence, Streaks};
use crate::observation::{Observation, RequestOutcome, Seen, is_server_error};
use crate::saved::SavedBackend;
use crate::window::{Failure, Summary, Window};

/// The shortest window that an average is taken over: shorter ones see the ticks themselves.
const SPAN_MIN: Duration = Duration::from_secs(1);

/// Where this many requests finished within half of that, latency is theirs: an antagonist shows
/// half a second earlier, which with periodic ones takes a tenth from the 99th percentile at L4
/// (simulator, scenario `periodic`). Fewer are mostly noise.
const SHORT_SAMPLES: u32 = 30;

/// Samples until a latency means anything: with fewer the window reaches further back.
const LATENCY_SAMPLES: u32 = 3;

/// Samples for a failed share: fewer cannot tell 30% from 10%, more reach back to better times.
const FAILURE_SAMPLES: u32 = 20;

/// Samples for a failed share that is small: reaching back that far costs seconds.
const FAINT_SAMPLES: u32 = 300;

/// How much one request changes the usual time that requests take: about thirty are remembered.
const TAKEN_GAIN: f64 = 1.0 / 32.0;

/// Samples for the quantiles that are shown.
const QUANTILE_SAMPLES: u32 = 100;

/// Window of the rate that is shown.
const RATE_SPAN: Duration = Duration::from_secs(2);

/// Half of a deviation in load is forgotten after this long (the EWMA's decay).
const LOAD_HALF_LIFE: Duration = Duration::from_secs(2);

/// Half of the longest that an answer took is forgotten after this long: requests that take long by nature
/// may come minutes apart.
const LONGEST_HALF_LIFE: Duration = Duration::from_secs(600);

/// What is remembered of one backend.
#[derive(Clone, Debug)]
pub struct Memory {
    window: Window,
    connects: RecentConnects,
    flows: FlowTally,
    streaks: Streaks,
    probe: ProbeHealth,
    silence: Silence,
    speedometer: Speedometer,
    concurrency: Concurrency,
    /// The same with the classes of its requests taken out.
    pace: Pace,
    load: Option<f64>,
    /// The same when something last came back, or nothing waited for it.
    load_before: f64,
    /// The longest that an answer took to begin, s, as far as it is remembered.
    longest: f64,
    finished_since_tick: u64,
    /// EWMA of what requests take to their last byte, s.
    taken: Option<f64>,
    /// Share of the answers that language models streamed, over about thirty.
    streamed: f64,
}

/// What is known of one backend this tick. Times in seconds; `None`: too few samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evidence {
    /// Flows and requests in flight.
    pub in_flight: u64,
    /// Finished requests and first responses a second.
    pub requests_per_second: f64,
    /// Finished requests and first responses since the last tick.
    pub finished_now: u64,
    /// `requests_per_second`, as an EWMA with a half-life of two seconds: what to expect until the next tick.
    pub load: Option<f64>,
    /// Mean latency of the faster half, failures counted among the slow.
    pub latency_low: Option<f64>,
    /// Median latency of what was answered.
    pub latency_p50: Option<f64>,
    /// Its 99th percentile.
    pub latency_p99: Option<f64>,
    /// Median time until a connection stood; L4 alone.
    pub connect_p50: Option<f64>,
    /// Finished in the window of `failed`.
    pub finished: u32,
    /// Failed in a window of at least a second.
    pub failed: u32,
    /// Finished in a window of several seconds, where a small share shows.
    pub long_finished: u32,
    /// Failed of these.
    pub long_failed: u32,
    /// Finished within the last second or so.
    pub recent_finished: u32,
    /// Failed of these.
    pub recent_failed: u32,
    /// Failures in a row.
    pub failures_in_a_row: u32,
    /// Failed connects in a row.
    pub connect_failures_in_a_row: u32,
    /// Mean of the utilisations that it reported.
    pub utilization: Option<f64>,
    /// Requests that it serves at once before others wait, by its own requests.
    pub concurrency: Option<Estimate>,
    /// What a request costs it, over the last second or so.
    pub sample: Option<Sample>,
    /// The same, filtered over time.
    pub cost: Option<Cost>,
    /// The same with the classes of its requests taken out.
    pub by_class: PaceSeen,
    /// What requests take to their last byte, by an EWMA over about thirty: until then they say
    /// nothing.
    pub taken: Option<f64>,
    /// Requests of these whose answer has not begun.
    pub awaiting: u64,
    /// How long work has been piling up without an answer.
    pub silent_for: Duration,
    /// How long several requests have waited with none answered.
    pub unanswered_for: Duration,
    /// `load` when that began: how often something came back while it did.
    pub load_before: f64,
    /// The longest that an answer took to begin, s, of late: half of it is forgotten in ten minutes.
    pub longest: f64,
    /// Configured capacity relative to the pool's mean.
    pub capacity: f64,
    /// Whether its active probe is down.
    pub probe_down: bool,
    /// Whether it takes part: accepting, not cut, so that it can be compared with.
    pub serving: bool,
}

impl Evidence {
    /// Failed share of what finished, `0..=1`.
    pub fn failed_share(&self) -> f64 {
        if self.finished == 0 { 0.0 } else { f64::from(self.failed) / f64::from(self.finished) }
    }
}

impl Memory {
    /// Nothing seen yet.
    pub fn new(now: KtimeNs) -> Memory {
        Memory {
            window: Window::new(now),
            connects: RecentConnects::default(),
            flows: FlowTally::default(),
            streaks: Streaks::default(),
            probe: ProbeHealth::default(),
            silence: Silence::new(now),
            speedometer: Speedometer::default(),
            concurrency: Concurrency::default(),
            pace: Pace::default(),
            load: None,
            load_before: 0.0,
            longest: 0.0,
            finished_since_tick: 0,
            taken: None,
            streamed: 0.0,
        }
    }

    /// Takes in what was seen. `cost`: what the class of a request is expected to cost, in mean
    /// requests; `None`: it has none.
    pub fn observe(
        &mut self,
        observation: &Observation,
        probe: Option<&ProbeSpec>,
        cost: Option<f32>,
    ) {
        let at = observation.at;
        if let Some(cost) = cost {
            self.pace.observe(at, &observation.seen, cost);
        }
        self.flows.observe(&observation.seen);
        match observation.seen {
            Seen::Connected { after } => {
                self.streaks.connected();
                self.connects.connected(at, after);
            }
            Seen::ConnectFailed { .. } => {
                self.streaks.connect_failed();
                self.fail(at, Failure::Connect);
            }
            Seen::FirstResponse { status, .. } if is_server_error(status) => {
                self.streaks.failed();
                self.fail(at, Failure::ServerError);
            }
            Seen::FirstResponse { after, .. } => {
                self.longest = self.longest.max(after.as_secs_f64());
                self.answer(at, after);
            }
            Seen::Closed { .. } | Seen::ResetByClient { .. } => self.silence.alive(),
            Seen::ResetByBackend { .. } => {
                self.streaks.failed();
                self.fail(at, Failure::Broken);
            }
            Seen::Request { outcome, first_byte_after, after, profile, among, report, .. } => {
                match outcome {
                    RequestOutcome::Answered => {
                        let streamed = is_streamed_prompt(&profile.traits);
                        self.streamed +=
                            TAKEN_GAIN * (f64::from(u8::from(streamed)) - self.streamed);
                        self.answer(at, scaled_to_prompt(&profile.traits, first_byte_after));
                        self.longest = self.longest.max(first_byte_after.as_secs_f64());
                        self.took(after);
                        if !streams(first_byte_after, after) {
                            self.concurrency.answered(among, after);
                        }
                    }
                    RequestOutcome::ServerError => {
                        self.streaks.failed();
                        self.fail(at, Failure::ServerError);
                    }
                    RequestOutcome::Broken => {
                        self.streaks.failed();
                        self.fail(at, Failure::Broken);
                    }
                    RequestOutcome::TimedOut => {
                        self.streaks.failed();
                        self.finished_since_tick += 1;
                        // A timeout is the gateway's doing, no sign of life.
                        self.window.failed(at, Failure::TimedOut);
                    }
                    RequestOutcome::Abandoned => {}
                }
                if let Some(report) = report {
                    self.window.utilization(at, report.utilization);
                }
            }
            Seen::Client(_) => {}
            Seen::Probe { healthy, .. } => {
                if let Some(spec) = probe {
                    self.probe.probed(healthy, spec);
                }
            }
        }
    }

    /// Forgets what came before a cut, so that a trial is judged by itself. Speed is kept: it says
    /// what the backend can do once it is well.
    pub fn restart(&mut self, now: KtimeNs) {
        self.window.restart(now);
        self.pace.restart(now);
        self.connects.clear();
        self.streaks = Streaks::default();
        self.silence.restart(now);
    }

    /// Until the next turn, work that piles up without an answer says nothing.
    pub fn expect_no_answer(&mut self) {
        self.silence.alive();
    }

    /// Forgets the probe: there is none any more, or another one.
    pub fn forget_probe(&mut self) {
        self.probe = ProbeHealth::default();
    }

    /// Whether its active probe is down.
    pub fn probe_is_down(&self) -> bool {
        self.probe.is_down()
    }

    /// What is known now, but for the cost, which is the pool's to update. What is in flight, of how much of
    /// that the answer has not begun, `capacity` and `serving` are the caller's knowledge.
    pub fn evidence(
        &mut self,
        now: KtimeNs,
        elapsed: Duration,
        (in_flight, awaiting): (u64, u64),
        capacity: f64,
        serving: bool,
    ) -> Evidence {
        self.silence.tick(now, in_flight, awaiting);
        let finished_now = std::mem::take(&mut self.finished_since_tick);
        self.forecast_load(finished_now, elapsed);
        self.longest *= 0.5f64.powf(elapsed.as_secs_f64() / LONGEST_HALF_LIFE.as_secs_f64());
        let unanswered_for = self.silence.unanswered(now);
        if unanswered_for.is_zero() {
            self.load_before = self.load.unwrap_or(0.0);
        }
        let recent = recent(&self.window, now);
        let wide = self.window.summary(now, SPAN_MIN, QUANTILE_SAMPLES);
        let failures = self.window.summary(now, SPAN_MIN, FAILURE_SAMPLES);
        let long = self.window.summary(now, SPAN_MIN, FAINT_SAMPLES);
        let sample = sample(&recent);
        Evidence {
            in_flight,
            requests_per_second: self.window.summary(now, RATE_SPAN, 0).rate(),
            finished_now,
            load: self.load,
            latency_low: sample.map(|sample| sample.latency),
            latency_p50: wide.answered.quantile(0.5),
            latency_p99: wide.answered.quantile(0.99),
            connect_p50: self.connects.median(now),
            finished: failures.finished(),
            failed: failures.failed,
            long_finished: long.finished(),
            long_failed: long.failed,
            recent_finished: recent.finished(),
            recent_failed: recent.failed,
            failures_in_a_row: self.streaks.failures,
            connect_failures_in_a_row: self.streaks.connect_failures,
            utilization: recent.utilization(),
            concurrency: self.concurrency.estimate(),
            sample: sample.filter(|sample| self.tells_speed(sample)),
            cost: None,
            by_class: self.pace.seen(now),
            taken: self.taken,
            awaiting,
            silent_for: self.silence.age(now),
            unanswered_for,
            load_before: self.load_before,
            longest: self.longest,
            capacity,
            probe_down: self.probe.is_down(),
            serving,
        }
    }

    /// What fault detection looks at.
    pub fn fault_window(&self, now: KtimeNs, in_flight: u64, serving: bool) -> FaultWindow {
        let seen = self.window.summary(now, WINDOW, 0);
        let latency = |quantile| seen.answered.quantile(quantile).map(|seconds| seconds as f32);
        FaultWindow {
            seconds: seen.span.as_secs_f32(),
            answered: seen.answered.count(),
            server_errors: seen.failures.of(Failure::ServerError),
            broken: seen.failures.of(Failure::Broken),
            connect_failures: seen.failures.of(Failure::Connect),
            timeouts: seen.failures.of(Failure::TimedOut),
            latency_p50: latency(0.5),
            latency_p90: latency(0.9),
            latency_p99: latency(0.99),
            way_p50: self.connects.median(now).map(|seconds| seconds as f32),
            way_p90: None,
            // A count that ran below zero is none.
            in_flight: u32::try_from(in_flight).ok(),
            silent: self.silence.age(now).as_secs_f32(),
            serving,
        }
    }

    /// Writes down what outlives the daemon.
    pub(crate) fn save(&self, into: &mut SavedBackend) {
        into.speed = self.speedometer.save();
        into.concurrency = self.concurrency.save();
        into.load = self.load;
        into.taken = self.taken;
    }

    /// Goes on from there.
    pub(crate) fn restore(&mut self, saved: &SavedBackend, away: Duration) {
        let sound = |number: Option<f64>| number.filter(|n| n.is_finite() && *n >= 0.0);
        self.speedometer = Speedometer::restore(saved.speed, away);
        self.concurrency = Concurrency::restore(&saved.concurrency);
        self.load = sound(saved.load);
        self.taken = sound(saved.taken);
    }

    /// The filter of its speed.
    pub fn speedometer(&mut self) -> &mut Speedometer {
        &mut self.speedometer
    }

    /// The same with the classes of its requests taken out.
    pub(crate) fn pace(&mut self) -> &mut Pace {
        &mut self.pace
    }

    /// What L4 flows did since it joined.
    pub fn flows(&self) -> &FlowTally {
        &self.flows
    }

    fn answer(&mut self, at: KtimeNs, latency: Duration) {
        self.streaks.answered();
        self.silence.alive();
        self.finished_since_tick += 1;
        self.window.answered(at, latency);
    }

    /// Whether a sample says how fast a backend is. The latency of what a language model streams is
    /// that of the prompts that it was asked, of which there are few a second and one takes a hundred
    /// times as long as another: weights that it moved did harm in three of the simulator's scenarios,
    /// and were no better within the intervals in the fourth (docs/llm.md).
    /// What such a backend reports of itself still counts.
    fn tells_speed(&self, sample: &Sample) -> bool {
        self.streamed < 0.5 || sample.utilization.is_some()
    }

    fn took(&mut self, after: Duration) {
        let seconds = after.as_secs_f64();
        let taken = self.taken.unwrap_or(seconds);
        self.taken = Some(taken + TAKEN_GAIN * (seconds - taken));
    }

    fn fail(&mut self, at: KtimeNs, failure: Failure) {
        self.silence.alive();
        self.finished_since_tick += 1;
        self.window.failed(at, failure);
    }

    fn forecast_load(&mut self, finished: u64, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        if seconds > 0.0 {
            let rate = finished as f64 / seconds;
            let keep = 0.5f64.powf(seconds / LOAD_HALF_LIFE.as_secs_f64());
            self.load = Some(self.load.map_or(rate, |load| keep * load + (1.0 - keep) * rate));
        }
    }
}

/// What was seen within the last second or so.
pub(crate) fn recent(window: &Window, now: KtimeNs) -> Summary {
    let short = window.summary(now, SPAN_MIN / 2, 0);
    if short.finished() >= SHORT_SAMPLES {
        return short;
    }
    window.summary(now, SPAN_MIN, LATENCY_SAMPLES)
}

/// Whether most of a response came after its head: then what waits and what works are not to be told
/// apart by how long it took.
pub(crate) fn streams(first_byte_after: Duration, after: Duration) -> bool {
    after > 2 * first_byte_after
}

/// The faster half of what finished, with failures among the slow, so that fast errors do not look
/// like speed.
pub(crate) fn sample(recent: &Summary) -> Option<Sample> {
    let finished = recent.finished();
    if finished < LATENCY_SAMPLES {
        return None;
    }
    let faster = recent.answered.fastest(finished.div_ceil(2))?;
    Some(Sample {
        latency: faster.mean,
        variation: faster.variation,
        finished,
        span: recent.span,
        rate: recent.rate(),
        utilization: recent.utilization(),
        concurrency: None,
    })
}

#[cfg(test)]
mod tests;
