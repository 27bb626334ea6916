//! How long the guard's lists are.

use gateway_common::guard::List;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Lengths of the lists. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    prefixes: Family<Labels, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    list: &'static str,
    origin: &'static str,
}

impl Metrics {
    /// Registers everything under its full name.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "gateway_guard_prefixes",
            "Prefixes on the guard's lists, by where they come from",
            self.prefixes.clone(),
        );
    }

    /// So many prefixes are on a list.
    pub(super) fn set(&self, list: List, listed: usize, added: usize) {
        for (origin, count) in [("file", listed), ("added", added)] {
            let labels = Labels { list: list.as_str(), origin };
            self.prefixes.get_or_create(&labels).set(count as i64);
        }
    }
}
