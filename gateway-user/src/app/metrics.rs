//! What the daemon tells of itself: its build and its reloads.

use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// Reloads of the configuration.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    success: Gauge,
    succeeded_at: Gauge<f64, AtomicU64>,
    reloads: Family<ReloadLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    result: ReloadResult,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "label values are written as the variants are")]
enum ReloadResult {
    success,
    /// Taken over, but its writes failed at first.
    late,
    refused,
}

impl Metrics {
    /// Registers everything under its full name.
    pub(super) fn register(&self, registry: &mut Registry) {
        let build =
            Info::new([("version", env!("CARGO_PKG_VERSION")), ("commit", env!("GATEWAY_COMMIT"))]);
        registry.register("gateway_build", "What was built", build);
        registry.register(
            "gateway_config_reload_success",
            "1 if the configuration in the file is the one that runs, 0 if it was refused or is \
             not in force yet",
            self.success.clone(),
        );
        registry.register(
            "gateway_config_last_reload_success_timestamp_seconds",
            "When a configuration was last taken over, since the Unix epoch",
            self.succeeded_at.clone(),
        );
        registry.register(
            "gateway_config_reloads",
            "Configurations that were read, the first included, by what became of them",
            self.reloads.clone(),
        );
    }

    /// A configuration was taken over.
    pub(super) fn reloaded(&self) {
        self.came_into_force();
        self.reloads.get_or_create(&ReloadLabels { result: ReloadResult::success }).inc();
    }

    /// A configuration was taken over, but is not in force yet.
    pub(super) fn late(&self) {
        self.success.set(0);
        self.reloads.get_or_create(&ReloadLabels { result: ReloadResult::late }).inc();
    }

    /// The configuration in the file is the one that runs, as of now.
    pub(super) fn came_into_force(&self) {
        self.success.set(1);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.succeeded_at.set(now.as_secs_f64());
    }

    /// A configuration was refused; the old one stays.
    pub(super) fn refused(&self) {
        self.success.set(0);
        self.reloads.get_or_create(&ReloadLabels { result: ReloadResult::refused }).inc();
    }
}
