//! How fast a backend is by what its requests took for their class.
//!
//! A backend that gets more of the dear requests answers more slowly, and is no slower for it: taken
//! for slowness, the mix of requests moves weights, and moved weights the mix. So what a request took is
//! divided by what its class is expected to cost, before it says anything of speed or of what is served
//! at once. The same is kept without classes (`evidence`), for the control group and while classes
//! may not decide.

use std::time::Duration;

use gateway_common::clock::KtimeNs;

use crate::capacity::{Cost, Sample, Speedometer};
use crate::concurrency::{Concurrency, Estimate};
use crate::evidence;
use crate::observation::{RequestOutcome, Seen, is_server_error};
use crate::window::{Failure, Window};

/// What a request may be said to cost, at least and at most: beyond that a class is wrong.
const COST: [f32; 2] = [0.01, 100.0];

/// How much one request changes the mean of what they cost: about sixty are remembered.
const MEAN_GAIN: f64 = 1.0 / 64.0;

/// What is remembered of one backend's requests.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    /// None until a request had a class: most of its memory is here.
    window: Option<Window>,
    speedometer: Speedometer,
    concurrency: Concurrency,
    /// Mean of what its requests are expected to cost.
    cost: f64,
}

/// What they say of the backend this tick; `None`: too few were seen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PaceSeen {
    /// What a mean request costs it, over the last second or so.
    pub sample: Option<Sample>,
    /// The same, filtered over time.
    pub cost: Option<Cost>,
    /// Mean requests that it serves at once before others wait.
    pub concurrency: Option<Estimate>,
}

impl Default for Pace {
    fn default() -> Pace {
        let (speedometer, concurrency) = (Speedometer::default(), Concurrency::default());
        Pace { window: None, speedometer, concurrency, cost: 1.0 }
    }
}

impl Pace {
    /// Takes in what was seen of a request that was expected to cost this many mean ones.
    pub(crate) fn observe(&mut self, at: KtimeNs, seen: &Seen, cost: f32) {
        let cost = if cost.is_finite() { cost.clamp(COST[0], COST[1]) } else { 1.0 };
        let mean = |took: Duration| took.div_f64(f64::from(cost));
        let window = self.window.get_or_insert_with(|| Window::new(at));
        let (outcome, first_byte_after, after, among, report) = match *seen {
            Seen::Request { outcome, first_byte_after, after, among, report, .. } => {
                (outcome, first_byte_after, after, among, report)
            }
            Seen::FirstResponse { status, .. } if is_server_error(status) => {
                return window.failed(at, Failure::ServerError);
            }
            Seen::FirstResponse { after, .. } => {
                window.answered(at, mean(after));
                self.cost += MEAN_GAIN * (f64::from(cost) - self.cost);
                return;
            }
            _ => return,
        };
        match outcome {
            RequestOutcome::Answered => {
                window.answered(at, mean(first_byte_after));
                if !evidence::streams(first_byte_after, after) {
                    self.concurrency.answered(among, mean(after));
                }
                self.cost += MEAN_GAIN * (f64::from(cost) - self.cost);
            }
            RequestOutcome::ServerError => window.failed(at, Failure::ServerError),
            RequestOutcome::Broken => window.failed(at, Failure::Broken),
            RequestOutcome::TimedOut => window.failed(at, Failure::TimedOut),
            RequestOutcome::Abandoned => {}
        }
        if let Some(report) = report {
            window.utilization(at, report.utilization);
        }
    }

    /// What is known now, but for the cost, which is the pool's to update.
    pub(crate) fn seen(&self, now: KtimeNs) -> PaceSeen {
        let window = self.window.as_ref();
        let sample = window.and_then(|window| evidence::sample(&evidence::recent(window, now)));
        // Throughput counts by what was done, and not by how many asked.
        let sample = sample.map(|sample| Sample { rate: sample.rate * self.cost, ..sample });
        PaceSeen { sample, cost: None, concurrency: self.concurrency.estimate() }
    }

    /// The filter of its speed.
    pub(crate) fn speedometer(&mut self) -> &mut Speedometer {
        &mut self.speedometer
    }

    /// Forgets what came before a cut. Speed is kept.
    pub(crate) fn restart(&mut self, now: KtimeNs) {
        if let Some(window) = &mut self.window {
            window.restart(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classes::Profile;

    /// An answer that took so long.
    fn answered(after: Duration) -> Seen {
        Seen::Request {
            outcome: RequestOutcome::Answered,
            first_byte_after: after,
            after,
            class: 0,
            profile: Profile::default(),
            among: 1,
            report: None,
            client: None,
        }
    }

    /// Requests, `dear` of ten of which cost ten and the others one, at a backend of this pace.
    fn sample(dear: u64, slow: f64) -> PaceSeen {
        let mut pace = Pace::default();
        let mut now = KtimeNs(0);
        for nth in 0..1_000 {
            let cost = if nth % 10 < dear { 10.0 } else { 1.0 };
            let seen = answered(Duration::from_secs_f64(0.01 * slow * cost));
            now = now + Duration::from_millis(2);
            pace.observe(now, &seen, cost as f32);
        }
        pace.seen(now)
    }

    #[test]
    fn a_backend_with_dear_requests_is_no_slower() {
        let latency = |dear, slow| sample(dear, slow).sample.unwrap().latency;
        let (few, many, slow) = (latency(1, 1.0), latency(5, 1.0), latency(1, 2.0));
        assert!((many / few - 1.0).abs() < 0.1, "{few} and {many}");
        assert!((slow / few - 2.0).abs() < 0.2, "{few} and {slow}");
    }

    #[test]
    fn throughput_counts_what_was_done() {
        let rate = |dear| sample(dear, 1.0).sample.unwrap().rate;
        let ratio = rate(5) / rate(0);
        assert!((ratio / 5.5 - 1.0).abs() < 0.2, "{ratio} where half cost ten times as much");
    }

    #[test]
    fn a_cost_that_is_no_number_counts_as_one() {
        let mut pace = Pace::default();
        let seen = answered(Duration::from_millis(10));
        (0..100).for_each(|_| pace.observe(KtimeNs(1), &seen, f32::NAN));
        let sample = pace.seen(KtimeNs(1)).sample.unwrap();
        assert!((sample.latency - 0.01).abs() < 0.001 && sample.rate.is_finite());
    }
}
