//! What the loop counts of itself.

use std::time::Duration;

use gateway_core::decision::{Decision, Reason, WeightSource};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::inference::Inference;
use super::notices::Notices;

/// From 50 µs, an idle gateway's tick, to past the 250 ms that a tick has.
const TICK_BUCKETS: [f64; 11] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5];

/// What the loop counts of itself. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    ticks: Counter,
    tick_duration: Histogram,
    apply_duration: Histogram,
    writes: Counter,
    apply_failures: Counter,
    counters_failures: Counter,
    observations: Counter,
    decisions: Family<DecisionLabels, Counter>,
    notices: Notices,
    inference: Inference,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    source: SourceLabel,
    reason: ReasonLabel,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SourceLabel(WeightSource);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ReasonLabel(Reason);

impl EncodeLabelValue for SourceLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.as_str().encode(encoder)
    }
}

impl EncodeLabelValue for ReasonLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.as_str().encode(encoder)
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            ticks: Counter::default(),
            tick_duration: Histogram::new(TICK_BUCKETS),
            apply_duration: Histogram::new(TICK_BUCKETS),
            writes: Counter::default(),
            apply_failures: Counter::default(),
            counters_failures: Counter::default(),
            observations: Counter::default(),
            decisions: Family::default(),
            notices: Notices::default(),
            inference: Inference::default(),
        }
    }
}

impl Metrics {
    /// Registers everything under its full name.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("gateway_ticks", "Turns of the decision loop", self.ticks.clone());
        registry.register(
            "gateway_tick_duration_seconds",
            "Of one turn of the decision loop, without the writes that follow from it",
            self.tick_duration.clone(),
        );
        registry.register(
            "gateway_apply_duration_seconds",
            "From a turn's decisions to the last of their writes, of turns that wrote",
            self.apply_duration.clone(),
        );
        registry.register(
            "gateway_table_writes",
            "Writes to the tables that packets and requests are steered by",
            self.writes.clone(),
        );
        registry.register(
            "gateway_apply_failures",
            "Turns whose writes failed and are tried again",
            self.apply_failures.clone(),
        );
        registry.register(
            "gateway_counter_read_failures",
            "Readings of the packet counters that failed",
            self.counters_failures.clone(),
        );
        registry.register(
            "gateway_observations",
            "Observations that the loop took in",
            self.observations.clone(),
        );
        registry.register(
            "gateway_decisions",
            "Decisions, one for each backend and tick, by who decided and why",
            self.decisions.clone(),
        );
        self.notices.register(registry);
        self.inference.register(registry);
    }

    pub(super) fn notices(&self) -> &Notices {
        &self.notices
    }

    pub(super) fn inference(&self) -> &Inference {
        &self.inference
    }

    pub(super) fn ticked(&self, took: Duration, observations: usize, decisions: &[Decision]) {
        self.ticks.inc();
        self.tick_duration.observe(took.as_secs_f64());
        self.observations.inc_by(observations as u64);
        for decision in decisions {
            let labels = DecisionLabels {
                source: SourceLabel(decision.source),
                reason: ReasonLabel(decision.reason),
            };
            self.decisions.get_or_create(&labels).inc();
        }
    }

    pub(super) fn applied(&self, took: Duration, writes: usize) {
        self.apply_duration.observe(took.as_secs_f64());
        self.writes.inc_by(writes as u64);
    }

    pub(super) fn apply_failed(&self) {
        self.apply_failures.inc();
    }

    pub(super) fn counters_failed(&self) {
        self.counters_failures.inc();
    }
}
