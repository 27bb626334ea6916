//! Round robin by weights: each backend's turns are evenly spaced, so that a share is kept exactly
//! over any stretch of requests (earliest deadline first, as in Envoy's and gRPC's schedulers).

use std::time::Duration;

use gateway_common::clock::KtimeNs;

use super::competitor::{Choice, Picker};
use super::{Ask, Ended};

/// With fixed weights.
pub(super) struct Scheduled {
    weights: Vec<f64>,
    /// When a backend is next, in turns of weight one.
    due: Vec<f64>,
    now: f64,
}

impl Scheduled {
    pub(super) fn new(weights: Vec<f64>) -> Scheduled {
        // Spread over the first turn, or all would begin together.
        let phase = |(index, weight): (usize, &f64)| (index as f64 * 0.618).fract() / weight;
        let due = weights.iter().enumerate().map(phase).collect();
        Scheduled { weights, due, now: 0.0 }
    }

    fn next(&mut self, choice: &Choice<'_>) -> usize {
        let due = |server: &&usize| self.due[**server];
        let earliest = choice.eligible.iter().min_by(|a, b| due(a).total_cmp(&due(b)));
        let server = earliest.copied().unwrap_or(choice.eligible[0]);
        // Who was away for a while does not catch up.
        self.now = self.now.max(self.due[server]);
        self.due[server] = self.now + 1.0 / self.weights[server];
        server
    }
}

impl Picker for Scheduled {
    fn pick(&mut self, _ask: &Ask<'_>, choice: &Choice<'_>) -> usize {
        self.next(choice)
    }

    fn weight(&self, server: usize) -> Option<f64> {
        Some(self.weights[server])
    }
}

/// gRPC's `weighted_round_robin` with the defaults of gRFC A58: weight = requests a second over
/// (utilisation + errors a second / requests a second × penalty), as backends report them.
pub(super) struct ByReport {
    schedule: Scheduled,
    reported: Vec<Reported>,
    updated: KtimeNs,
}

/// `blackout_period`: how long a backend must have reported before its weight counts.
const BLACKOUT: Duration = Duration::from_secs(10);

/// `weight_expiration_period`.
const EXPIRES_AFTER: Duration = Duration::from_secs(180);

/// `weight_update_period`.
const UPDATE_PERIOD: Duration = Duration::from_secs(1);

/// `error_utilization_penalty`.
const ERROR_PENALTY: f64 = 1.0;

#[derive(Clone, Copy, Debug, Default)]
struct Reported {
    weight: f64,
    since: Option<KtimeNs>,
    last: KtimeNs,
}

impl Reported {
    fn weight(&mut self, now: KtimeNs) -> Option<f64> {
        let since = self.since?;
        if now.since(self.last) >= EXPIRES_AFTER {
            self.since = None;
            return None;
        }
        (now.since(since) >= BLACKOUT).then_some(self.weight)
    }
}

impl ByReport {
    pub(super) fn new(count: usize) -> ByReport {
        ByReport {
            schedule: Scheduled::new(vec![1.0; count]),
            reported: vec![Reported::default(); count],
            updated: KtimeNs(0),
        }
    }

    fn update(&mut self, now: KtimeNs) {
        let weights: Vec<Option<f64>> =
            self.reported.iter_mut().map(|reported| reported.weight(now)).collect();
        let known: Vec<f64> = weights.iter().flatten().copied().collect();
        // With fewer than two weights it is plain round robin.
        let mean = known.iter().sum::<f64>() / known.len().max(1) as f64;
        for (slot, weight) in self.schedule.weights.iter_mut().zip(weights) {
            *slot = if known.len() < 2 { 1.0 } else { weight.unwrap_or(mean) };
        }
        self.schedule = Scheduled::new(std::mem::take(&mut self.schedule.weights));
        self.updated = now;
    }
}

impl Picker for ByReport {
    fn pick(&mut self, ask: &Ask<'_>, choice: &Choice<'_>) -> usize {
        if ask.now.since(self.updated) >= UPDATE_PERIOD {
            self.update(ask.now);
        }
        self.schedule.next(choice)
    }

    fn end(&mut self, ended: &Ended) {
        let Some(report) = ended.report else { return };
        let (requests, errors) = (report.requests_per_second, report.errors_per_second);
        let (Some(requests), errors) = (requests, errors.unwrap_or(0.0)) else { return };
        if requests > 0.0 && report.utilization > 0.0 {
            let reported = &mut self.reported[ended.server];
            let penalty = errors / requests * ERROR_PENALTY;
            reported.weight = requests / (report.utilization + penalty);
            reported.since.get_or_insert(ended.now);
            reported.last = ended.now;
        }
    }

    fn weight(&self, server: usize) -> Option<f64> {
        self.schedule.weight(server)
    }
}
