//! What a backend can say of itself: its utilisation and rates, as ORCA reports them, and the
//! latency that a request would see now, as Prequal's probes ask for it.

use std::collections::VecDeque;
use std::time::Duration;

use gateway_common::clock::KtimeNs;

use crate::observation::LoadReport;

/// What is reported is averaged over about this long: gRPC's default period of reports out of
/// band (gRFC A58, `oob_reporting_period`). Weights by shorter averages are mostly noise.
const SPAN: Duration = Duration::from_secs(10);

/// Finished requests that the estimate of latency is made from.
const REMEMBERED: usize = 96;

/// How many of them, those that met the most similar number of requests in flight, count.
const NEAREST: usize = 25;

/// A backend's bookkeeping of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Vitals {
    updated: KtimeNs,
    busy_now: f64,
    busy: f64,
    requests: f64,
    errors: f64,
    /// Requests in flight when one arrived, and how long it took, s.
    finished: VecDeque<(u32, f64)>,
}

impl Vitals {
    /// From now on this share of the workers is busy.
    pub(super) fn busy(&mut self, now: KtimeNs, share: f64) {
        self.age(now);
        self.busy_now = share;
    }

    /// A request was answered, after `took` with `rif` requests in flight at its arrival.
    pub(super) fn answered(&mut self, now: KtimeNs, rif: u32, took: Duration) {
        self.age(now);
        self.requests += 1.0 / SPAN.as_secs_f64();
        if self.finished.len() == REMEMBERED {
            self.finished.pop_front();
        }
        self.finished.push_back((rif, took.as_secs_f64()));
    }

    /// A request was answered with a 5xx.
    pub(super) fn failed(&mut self, now: KtimeNs) {
        self.age(now);
        self.requests += 1.0 / SPAN.as_secs_f64();
        self.errors += 1.0 / SPAN.as_secs_f64();
    }

    /// Its report with a response.
    pub(super) fn report(&mut self, now: KtimeNs) -> LoadReport {
        self.age(now);
        LoadReport {
            utilization: self.busy,
            requests_per_second: Some(self.requests),
            errors_per_second: Some(self.errors),
        }
    }

    /// The latency to expect with `rif` requests in flight, s: the median of what requests took
    /// lately that met about as many (Wydrowski et al., "Load is not what you should balance",
    /// NSDI 2024, section 4). Zero if nothing finished yet.
    pub(super) fn latency(&self, rif: u32) -> f64 {
        let mut nearest = [(u32::MAX, 0.0); REMEMBERED];
        for (slot, (met, took)) in nearest.iter_mut().zip(&self.finished) {
            *slot = (met.abs_diff(rif), *took);
        }
        let known = &mut nearest[..self.finished.len()];
        if known.len() > NEAREST {
            known.select_nth_unstable_by_key(NEAREST - 1, |(distance, _)| *distance);
        }
        let count = known.len().min(NEAREST);
        let known = &mut known[..count];
        known.sort_unstable_by(|a, b| a.1.total_cmp(&b.1));
        known.get(count / 2).map_or(0.0, |(_, took)| *took)
    }

    fn age(&mut self, now: KtimeNs) {
        let keep = (-now.since(self.updated).as_secs_f64() / SPAN.as_secs_f64()).exp();
        self.busy = keep * self.busy + (1.0 - keep) * self.busy_now;
        self.requests *= keep;
        self.errors *= keep;
        self.updated = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> KtimeNs {
        KtimeNs((seconds * 1e9) as u64)
    }

    #[test]
    fn a_report_is_an_average_of_the_last_seconds() {
        let mut vitals = Vitals::default();
        vitals.busy(at(0.0), 0.5);
        for tenth in 1..=600 {
            vitals.answered(at(f64::from(tenth) / 10.0), 1, Duration::from_millis(20));
        }
        let report = vitals.report(at(60.0));
        assert!((report.utilization - 0.5).abs() < 0.01, "{report:?}");
        assert!(report.requests_per_second.is_some_and(|rate| (rate - 10.0).abs() < 1.0));
        vitals.busy(at(60.0), 0.0);
        assert!(vitals.report(at(90.0)).utilization < 0.05);
    }

    #[test]
    fn the_latency_is_of_those_that_met_as_many() {
        let mut vitals = Vitals::default();
        assert_eq!(vitals.latency(3), 0.0);
        for number in 0..REMEMBERED as u32 {
            let (rif, took) = if number % 2 == 0 { (2, 20) } else { (10, 100) };
            vitals.answered(at(1.0), rif, Duration::from_millis(took));
        }
        assert_eq!((vitals.latency(1), vitals.latency(12)), (0.02, 0.1));
    }
}
