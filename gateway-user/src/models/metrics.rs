//! What is counted of model files: which are in use, and which were refused.

use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use gateway_core::ladder::Task;
use gateway_core::models::Models;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counts of model files. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    info: Family<VersionLabels, Gauge>,
    loaded_at: Family<TaskLabels, Gauge<f64, AtomicU64>>,
    failures: Family<FailureLabels, Counter>,
}

/// One version a task at a time, so that there are few.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabels {
    task: &'static str,
    version: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TaskLabels {
    task: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    task: &'static str,
    reason: &'static str,
}

impl Metrics {
    /// Registers everything under its full name.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "gateway_model_info",
            "1 for the model that each task has in use",
            self.info.clone(),
        );
        registry.register(
            "gateway_model_loaded_timestamp_seconds",
            "When the model in use was loaded, since the Unix epoch",
            self.loaded_at.clone(),
        );
        registry.register(
            "gateway_model_load_failures",
            "Model files that were refused, while the model before stayed in use",
            self.failures.clone(),
        );
    }

    /// These are in use now.
    pub(super) fn in_use(&self, models: &Models) {
        let versions = Task::ALL.into_iter().filter_map(|task| {
            let version = models.version(task)?.to_owned();
            Some(VersionLabels { task: task.as_str(), version })
        });
        let versions: Vec<VersionLabels> = versions.collect();
        let is_new = |labels: &&VersionLabels| self.info.get(labels).is_none();
        for VersionLabels { task, .. } in versions.iter().filter(is_new) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.loaded_at.get_or_create(&TaskLabels { task }).set(now.as_secs_f64());
        }
        self.info.clear();
        for labels in &versions {
            self.info.get_or_create(labels).set(1);
        }
    }

    /// One was refused; `None`: nobody knows what it was to be.
    pub(super) fn refused(&self, task: Option<Task>, reason: &'static str) {
        let task = task.map_or("unknown", Task::as_str);
        self.failures.get_or_create(&FailureLabels { task, reason }).inc();
    }
}
