//! What is counted of notifications.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Counts. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    outcomes: Family<OutcomeLabels, Counter>,
    retries: Family<Labels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    about: &'static str,
    target: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    about: &'static str,
    target: &'static str,
    outcome: Outcome,
}

/// What became of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "label values are written as the variants are")]
pub(super) enum Outcome {
    /// The target took it.
    delivered,
    /// It did not, however often it was asked.
    failed,
    /// A newer one took its place.
    replaced,
    /// Too many waited, or it was too large.
    dropped,
}

impl Metrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "gateway_notifications",
            "Notifications to webhooks and commands, by what they are about and what became of them",
            self.outcomes.clone(),
        );
        registry.register(
            "gateway_notification_retries",
            "Further tries to deliver a notification",
            self.retries.clone(),
        );
    }

    pub(super) fn count(&self, about: &'static str, target: &'static str, outcome: Outcome) {
        self.outcomes.get_or_create(&OutcomeLabels { about, target, outcome }).inc();
    }

    pub(super) fn retried(&self, about: &'static str, target: &'static str) {
        self.retries.get_or_create(&Labels { about, target }).inc();
    }

    #[cfg(test)]
    pub(super) fn counted(
        &self,
        about: &'static str,
        target: &'static str,
        outcome: Outcome,
    ) -> u64 {
        self.outcomes.get_or_create(&OutcomeLabels { about, target, outcome }).get()
    }
}
