//! Tells people what a turn did to models and pools: a line in the log, and a count.

use std::time::Duration;

use gateway_core::challenge::VipChallenge;
use gateway_core::decision::Reason;
use gateway_core::notice::{Notice, What};
use gateway_core::recovery::{Action, ActionResult, Denial, End};
use gateway_core::saved::{OtherVersion, Restored};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Says what came of a restore.
pub(super) fn restored(outcome: Result<Restored, OtherVersion>, away: Duration) {
    match outcome {
        Ok(Restored { backends, models, lost }) => {
            tracing::info!(backends, models, ?away, "going on from what was learnt before");
            for what in lost {
                tracing::warn!(what, "lost of what was learnt before");
            }
        }
        Err(error) => {
            let reason = error.to_string();
            tracing::warn!(reason, "what was learnt before is lost; learning anew");
        }
    }
}

/// Says that a VIP began to ask the sources of SYNs to prove that they are there, or ceased to.
pub(super) fn flood(of: &VipChallenge) {
    let VipChallenge { vip, asks, .. } = of;
    let per_second = of.unconfirmed_per_second.round();
    let flood_per_second = of.spec.flood_per_second;
    if *asks {
        tracing::warn!(
            vip,
            per_second,
            flood_per_second,
            "a flood of SYNs: sources have to prove themselves"
        );
    } else {
        tracing::info!(vip, per_second, flood_per_second, "the flood of SYNs is over");
    }
}

/// Counts what it tells. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Notices {
    demotions: Family<DemotionLabels, Counter>,
    dampings: Family<PoolLabels, Counter>,
    drains: Family<DrainLabels, Counter>,
    refusals: Family<RefusalLabels, Counter>,
    recoveries: Family<RecoveryLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    pool: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    pool: String,
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RecoveryLabels {
    pool: String,
    action: &'static str,
    result: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DrainLabels {
    pool: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DemotionLabels {
    pool: String,
    task: &'static str,
    reason: &'static str,
}

impl Notices {
    /// Registers the counts under their full names.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "gateway_model_demotions",
            "Models that went back to shadow by themselves, by task and why",
            self.demotions.clone(),
        );
        registry.register(
            "gateway_weight_dampings",
            "Times that the steps of a pool's weights were halved because they swung",
            self.dampings.clone(),
        );
        registry.register(
            "gateway_drains_short",
            "Drains that the other backends would not hold the load through, by whether they waited \
             or overload the others",
            self.drains.clone(),
        );
        registry.register(
            "gateway_admission_closings",
            "Times that admission began to refuse requests of a pool, by why",
            self.refusals.clone(),
        );
        registry.register(
            "gateway_recovery_actions",
            "Actions for backends that were cut, by how they ended or why they were denied",
            self.recoveries.clone(),
        );
    }

    /// Logs and counts.
    pub(super) fn tell(&self, notices: &[Notice]) {
        notices.iter().for_each(|notice| self.tell_one(notice));
    }

    fn drained(&self, pool: &str, outcome: &'static str) {
        let labels = DrainLabels { pool: pool.to_owned(), outcome };
        self.drains.get_or_create(&labels).inc();
    }

    fn recovered(&self, pool: &str, action: Action, result: String) {
        let labels = RecoveryLabels { pool: pool.to_owned(), action: action.as_str(), result };
        self.recoveries.get_or_create(&labels).inc();
    }

    fn acts_not(&self, pool: &str, backend: &str, action: Action, reason: Reason, denied: Denial) {
        let (reason, why) = (reason.as_str(), denied.words());
        self.recovered(pool, action, format!("denied_{}", denied.as_str()));
        let (action, denied) = (action.as_str(), denied.as_str());
        tracing::warn!(pool, backend, action, reason, denied, why, "recovery action denied");
    }

    fn acted(&self, pool: &str, backend: &str, action: Action, end: &End) {
        let End { result, said } = end;
        self.recovered(pool, action, result.as_str().to_owned());
        let (action, ended) = (action.as_str(), result.as_str());
        match result {
            ActionResult::Done => {
                tracing::info!(
                    pool,
                    backend,
                    action,
                    result = ended,
                    said,
                    "recovery action ended"
                );
            }
            ActionResult::Failed | ActionResult::TimedOut | ActionResult::Dropped => {
                tracing::warn!(
                    pool,
                    backend,
                    action,
                    result = ended,
                    said,
                    "recovery action ended"
                );
            }
        }
    }

    fn tell_one(&self, Notice { pool, what }: &Notice) {
        match what {
            What::Demoted { task, why, harm } => {
                let (task, reason) = (task.as_str(), why.as_str());
                let labels = DemotionLabels { pool: pool.clone(), task, reason };
                self.demotions.get_or_create(&labels).inc();
                tracing::warn!(
                    pool,
                    task,
                    reason,
                    control_better_in = harm.map(|harm| harm.as_str()),
                    "model sent back to shadow until it is promoted again"
                );
            }
            What::Damped => {
                self.dampings.get_or_create(&PoolLabels { pool: pool.clone() }).inc();
                tracing::warn!(pool, "weights swing; their steps are halved");
            }
            What::DrainWaits { backend, short } => {
                self.drained(pool, "waits");
                tracing::warn!(
                    pool,
                    backend,
                    short,
                    "its drain waits; the others would not hold the load that may come"
                );
            }
            What::DrainOverloads { backend, short } => {
                self.drained(pool, "overloads");
                tracing::warn!(
                    pool,
                    backend,
                    short,
                    "it drains, although the others may not hold the load that may come"
                );
            }
            What::Refuses { cause } => {
                let cause = cause.as_str();
                let labels = RefusalLabels { pool: pool.clone(), cause };
                self.refusals.get_or_create(&labels).inc();
                tracing::warn!(
                    pool,
                    cause,
                    "more is asked than can be served; the least important requests are refused"
                );
            }
            What::Acts { backend, action, reason, probability } => {
                let (action, reason) = (action.as_str(), reason.as_str());
                tracing::warn!(
                    pool,
                    backend,
                    action,
                    reason,
                    probability,
                    "recovery action begins"
                );
            }
            What::ActsNot { backend, action, reason, denied } => {
                self.acts_not(pool, backend, *action, *reason, *denied);
            }
            What::Acted { backend, action, end } => self.acted(pool, backend, *action, end),
            What::RefusesNoMore => tracing::info!(pool, "all requests come in again"),
            What::Calmed => tracing::info!(pool, "weights are calm; their steps are let go again"),
        }
    }
}
