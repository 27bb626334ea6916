//! Metric types that prometheus-client lacks: a family that forgets, and a histogram without a
//! lock.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Metrics by label set. Unlike prometheus-client's `Family` it can drop what left the
/// configuration, so that reloads do not leave dead series behind, and it is written in order.
pub(super) struct Series<L, M>(Arc<RwLock<BTreeMap<L, M>>>);

impl<L: Ord + Clone, M: Clone + Default> Series<L, M> {
    /// A handle on the metric with these labels, made if it is new. Traffic threads keep handles,
    /// so this lock is taken when a configuration changes and on rare events.
    pub(super) fn get(&self, labels: &L) -> M {
        if let Some(metric) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(labels) {
            return metric.clone();
        }
        let mut series = self.0.write().unwrap_or_else(PoisonError::into_inner);
        series.entry(labels.clone()).or_default().clone()
    }

    /// Forgets the metrics whose labels `keep` refuses.
    pub(super) fn retain(&self, keep: impl Fn(&L) -> bool) {
        let mut series = self.0.write().unwrap_or_else(PoisonError::into_inner);
        series.retain(|labels, _| keep(labels));
    }
}

impl<L, M> Clone for Series<L, M> {
    fn clone(&self) -> Series<L, M> {
        Series(Arc::clone(&self.0))
    }
}

impl<L, M> Default for Series<L, M> {
    fn default() -> Series<L, M> {
        Series(Arc::default())
    }
}

impl<L, M> fmt::Debug for Series<L, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Series").finish_non_exhaustive()
    }
}

impl<L: EncodeLabelSet, M: EncodeMetric + TypedMetric> EncodeMetric for Series<L, M> {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        for (labels, metric) in self.0.read().unwrap_or_else(PoisonError::into_inner).iter() {
            metric.encode(encoder.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }

    fn is_empty(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

/// Upper bounds of the duration buckets, in microseconds: a millisecond to a minute, about three a
/// decade, so that any quantile is known within a factor of two and a half.
const BOUNDS_US: [u64; 15] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// A histogram of durations. prometheus-client's own takes a lock for each value, which threads
/// would share on every request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Durations(Arc<Buckets>);

#[derive(Debug, Default)]
struct Buckets {
    /// One for each bound, and one for what is longer than all.
    counts: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Durations {
    /// Counts one duration.
    pub(crate) fn observe(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|&bound| bound < us);
        self.0.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.0.sum_us.fetch_add(us, Ordering::Relaxed);
    }
}

impl EncodeMetric for Durations {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        let bounds = BOUNDS_US.iter().map(|&us| us as f64 / 1e6).chain([f64::INFINITY]);
        let counts = self.0.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        // Summed from the buckets, so that the count never disagrees with them.
        let count = buckets.iter().map(|&(_, count)| count).sum();
        let sum = self.0.sum_us.load(Ordering::Relaxed) as f64 / 1e6;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Durations {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::registry::Registry;

    use super::*;

    fn encoded<M: prometheus_client::registry::Metric>(metric: M) -> String {
        let mut registry = Registry::default();
        registry.register("m", "help", metric);
        let mut text = String::new();
        encode(&mut text, &registry).expect("a String takes everything");
        text
    }

    #[test]
    fn a_duration_is_counted_in_the_bucket_that_bounds_it() {
        let durations = Durations::default();
        durations.observe(Duration::from_millis(1));
        durations.observe(Duration::from_micros(1_001));
        durations.observe(Duration::from_secs(3_600));
        let text = encoded(durations);
        assert!(text.contains("m_bucket{le=\"0.001\"} 1\n"), "{text}");
        assert!(text.contains("m_bucket{le=\"0.0025\"} 2\n"), "{text}");
        assert!(text.contains("m_bucket{le=\"60.0\"} 2\n"), "{text}");
        assert!(text.contains("m_bucket{le=\"+Inf\"} 3\n"), "{text}");
        assert!(text.contains("m_count 3\n"), "{text}");
    }

    #[test]
    fn a_series_forgets_what_left_the_configuration() {
        let series: Series<[(&'static str, &'static str); 1], Counter> = Series::default();
        series.get(&[("vip", "stays")]).inc();
        series.get(&[("vip", "goes")]).inc();
        series.retain(|labels| labels[0].1 == "stays");
        let text = encoded(series);
        assert!(text.contains("m_total{vip=\"stays\"} 1\n"), "{text}");
        assert!(!text.contains("goes"), "{text}");
    }
}
