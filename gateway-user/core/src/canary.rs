//! Whether the flows that models decide for fare worse than those of the control group.
//!
//! Both groups are alike in all but who decides, since chance alone puts a flow into one of them.
//! What they see is compared block by block: a block ends when enough of both has finished, and its
//! one sample is the difference of the two groups in it. So what befalls both at the same moment, a
//! load spike or a fault, cancels, and requests that depend on each other within a block do not
//! pass for independent ones.
//!
//! Two differences are tested: of the mean logarithm of the latency, and of the failed share. The
//! test may be looked at at any time (`canary::sequential`); it begins anew after a while, so that a model
//! that did well for a week is found out as fast as a new one, at a level that shrinks with each
//! beginning so that all of them together stay within [`LEVEL`].
//!
//! The groups share their backends, so harm that a model does to a backend as a whole is felt by
//! both and does not show here.

mod sequential;

use std::time::Duration;

use gateway_common::clock::KtimeNs;
use gateway_common::limits::CONTROL_CLASS;
use serde::{Deserialize, Serialize};

use crate::observation::{RequestOutcome, Seen, is_server_error};
use sequential::{Mean, SAMPLES_MIN, likelihood_ratio};

/// The chance that a model which does no harm is ever sent back for it.
pub const LEVEL: f64 = 0.02;

/// Requests of the smaller group in a block.
const BLOCK_MIN: u32 = 20;

/// The shortest block: requests of one second depend on each other through queues.
const BLOCK_SPAN: Duration = Duration::from_secs(1);

/// Blocks after which the test begins anew: ten minutes of a busy pool.
const BLOCKS_MAX: u32 = 600;

/// A latency this much higher (as a logarithm: 1%) is not worth sending a model back.
const LATENCY_MARGIN: f64 = 0.01;

/// Effects on latency that matter are of this size: 10%.
const LATENCY_EFFECT: f64 = 0.1;

/// A failed share this much higher is not worth it: one request in two thousand.
const FAILED_MARGIN: f64 = 0.000_5;

/// Effects on the failed share that matter are of this size.
const FAILED_EFFECT: f64 = 0.01;

/// What finished in one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Tally {
    answered: u32,
    failed: u32,
    log_latency_sum: f64,
}

impl Tally {
    fn finished(&self) -> u32 {
        self.answered.saturating_add(self.failed)
    }

    fn failed_share(&self) -> f64 {
        f64::from(self.failed) / f64::from(self.finished().max(1))
    }

    fn log_latency(&self) -> Option<f64> {
        (self.answered > 0).then(|| self.log_latency_sum / f64::from(self.answered))
    }

    fn add(&mut self, other: &Tally) {
        self.answered = self.answered.saturating_add(other.answered);
        self.failed = self.failed.saturating_add(other.failed);
        self.log_latency_sum += other.log_latency_sum;
    }
}

/// A comparison, in a form that outlives the daemon: all but the block that had begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedCanary {
    all: [Tally; 2],
    latency: Mean,
    failed: Mean,
    tests: u32,
}

/// One pool's comparison.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Canary {
    /// Since the block began: of the models' flows, and of the control group's.
    block: [Tally; 2],
    block_since: Option<KtimeNs>,
    /// Since the test began.
    all: [Tally; 2],
    /// The models' less the control group's, one sample a block.
    latency: Mean,
    failed: Mean,
    /// Tests that ended without finding anything.
    tests: u32,
}

/// In what way the control group does better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Harm {
    /// It waits less.
    Latency,
    /// Fewer of its requests fail.
    Failures,
}

/// A comparison, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Blocks compared in the test that runs.
    pub blocks: u32,
    /// Finished in them for which models decided.
    pub finished: u32,
    /// Finished in them of the control group.
    pub control_finished: u32,
    /// Latency where models decide, as a multiple of the control group's (geometric means).
    pub latency_ratio: f64,
    /// Failed share where models decide, `0..=1`.
    pub failed_share: f64,
    /// Failed share of the control group, `0..=1`.
    pub control_failed_share: f64,
    /// How much more likely what was seen is if the models do harm than if they do none.
    pub evidence: f64,
    /// The evidence that sends them back to shadow.
    pub evidence_max: f64,
}

impl Canary {
    /// Takes in what was seen of a flow or request.
    pub(crate) fn observe(&mut self, seen: &Seen) {
        let (class, answered) = match *seen {
            Seen::FirstResponse { after, class, status } => {
                (class, (!is_server_error(status)).then_some(after))
            }
            Seen::ConnectFailed { class } | Seen::ResetByBackend { class, .. } => (class, None),
            Seen::Request { outcome, first_byte_after, class, .. } => match outcome {
                RequestOutcome::Answered => (class, Some(first_byte_after)),
                RequestOutcome::ServerError | RequestOutcome::Broken | RequestOutcome::TimedOut => {
                    (class, None)
                }
                RequestOutcome::Abandoned => return,
            },
            Seen::Connected { .. }
            | Seen::Closed { .. }
            | Seen::ResetByClient { .. }
            | Seen::Client(_)
            | Seen::Probe { .. } => return,
        };
        let tally = &mut self.block[usize::from(class == CONTROL_CLASS)];
        match answered {
            Some(after) => {
                tally.answered = tally.answered.saturating_add(1);
                tally.log_latency_sum += after.as_secs_f64().max(1e-6).ln();
            }
            None => tally.failed = tally.failed.saturating_add(1),
        }
    }

    /// Once a tick: in what way, if in any, the models do harm. `decides`: some model does; while
    /// none does, the groups are no different and nothing is compared.
    pub(crate) fn tick(&mut self, now: KtimeNs, decides: bool) -> Option<Harm> {
        if !decides {
            self.block = Default::default();
            self.block_since = None;
            return None;
        }
        let since = *self.block_since.get_or_insert(now);
        let enough = self.block.iter().all(|tally| tally.finished() >= BLOCK_MIN);
        if !enough || now.since(since) < BLOCK_SPAN {
            return None;
        }
        self.end_block(now);
        let harm = self.harm();
        if harm.is_some() {
            *self = Canary { tests: self.tests, ..Canary::default() };
        } else if self.failed.count() >= BLOCKS_MAX {
            *self = Canary { tests: self.tests.saturating_add(1), ..Canary::default() };
        }
        harm
    }

    /// Other models, or the same that are promoted again: what was seen of them before is history.
    pub(crate) fn begin_anew(&mut self) {
        *self = Canary::default();
    }

    /// All but the block that has begun.
    pub(crate) fn save(&self) -> SavedCanary {
        let Canary { all, latency, failed, tests, .. } = *self;
        SavedCanary { all, latency, failed, tests }
    }

    /// Goes on from there.
    pub(crate) fn restore(saved: SavedCanary) -> Canary {
        let SavedCanary { all, latency, failed, tests } = saved;
        Canary { all, latency, failed, tests, ..Canary::default() }
    }

    /// How far it is; `None`: nothing is compared.
    pub(crate) fn comparison(&self) -> Option<Comparison> {
        let [models, control] = &self.all;
        (self.failed.count() > 0).then(|| Comparison {
            blocks: self.failed.count(),
            finished: models.finished(),
            control_finished: control.finished(),
            latency_ratio: self.latency.mean().exp(),
            failed_share: models.failed_share(),
            control_failed_share: control.failed_share(),
            evidence: self.latency_evidence().max(self.failed_evidence()),
            evidence_max: self.evidence_max(),
        })
    }

    fn end_block(&mut self, now: KtimeNs) {
        let [models, control] = self.block;
        if let (Some(models), Some(control)) = (models.log_latency(), control.log_latency()) {
            self.latency.add(models - control);
        }
        self.failed.add(models.failed_share() - control.failed_share());
        self.all.iter_mut().zip(&self.block).for_each(|(all, block)| all.add(block));
        self.block = Default::default();
        self.block_since = Some(now);
    }

    fn harm(&self) -> Option<Harm> {
        let most = self.evidence_max();
        if self.failed_evidence() > most {
            Some(Harm::Failures)
        } else if self.latency_evidence() > most {
            Some(Harm::Latency)
        } else {
            None
        }
    }

    /// The level of this test is what the sum over all, 1/1 + 1/4 + 1/9 …, leaves to it, half for
    /// each of the two differences.
    fn evidence_max(&self) -> f64 {
        let nth = f64::from(self.tests) + 1.0;
        let level = LEVEL / 2.0 * 6.0 / (std::f64::consts::PI * nth).powi(2);
        1.0 / level
    }

    fn latency_evidence(&self) -> f64 {
        if self.latency.count() < SAMPLES_MIN {
            return 0.0;
        }
        let above = self.latency.mean() - LATENCY_MARGIN;
        likelihood_ratio(above, self.latency.variance(), LATENCY_EFFECT)
    }

    /// By the shares of all requests, whose variance is a binomial's of the share of both: in the
    /// smaller group not one may have failed yet. Failures that come in bursts vary more, which the
    /// blocks show.
    fn failed_evidence(&self) -> f64 {
        if self.failed.count() < SAMPLES_MIN {
            return 0.0;
        }
        let [models, control] = &self.all;
        let (n, m) = (f64::from(models.finished()), f64::from(control.finished()));
        let share = f64::from(models.failed + control.failed) / (n + m);
        let binomial = share * (1.0 - share) * (1.0 / n + 1.0 / m);
        let above = models.failed_share() - control.failed_share() - FAILED_MARGIN;
        likelihood_ratio(above, binomial.max(self.failed.variance()), FAILED_EFFECT)
    }
}

impl Harm {
    /// In words, as they stand in a log line.
    pub fn as_str(self) -> &'static str {
        match self {
            Harm::Latency => "latency",
            Harm::Failures => "failures",
        }
    }
}

#[cfg(test)]
mod tests;
