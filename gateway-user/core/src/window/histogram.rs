//! Latencies in buckets of equal ratio: eight to a doubling, so that a bucket's middle is within
//! 6% of what fell into it.

use std::time::Duration;

/// Buckets to a doubling, as a power of two.
const SUB_BITS: u32 = 3;

/// Bits of the lowest latency that is told apart: 2^14 ns is 16 µs.
const LOW_BITS: u32 = 14;

/// Doublings: up to 2^35 ns, 34 s, beyond every response timeout that makes sense.
const DOUBLINGS: u32 = 21;

const BUCKETS: usize = (DOUBLINGS << SUB_BITS) as usize;

/// Counts of latencies by bucket. Counts saturate rather than wrap.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: [u16; BUCKETS],
    count: u32,
    /// The buckets in use, so that sparse histograms are cheap to add: `low..high`.
    low: usize,
    high: usize,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: [0; BUCKETS], count: 0, low: BUCKETS, high: 0 }
    }
}

/// The faster part of a histogram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct FasterPart {
    /// Mean latency, s.
    pub mean: f64,
    /// Standard deviation over mean.
    pub variation: f64,
}

impl Histogram {
    /// One more of this latency.
    pub(crate) fn record(&mut self, latency: Duration) {
        let bucket = bucket_of(latency);
        self.counts[bucket] = self.counts[bucket].saturating_add(1);
        self.count = self.count.saturating_add(1);
        self.low = self.low.min(bucket);
        self.high = self.high.max(bucket + 1);
    }

    /// Adds another's counts.
    pub(crate) fn add(&mut self, other: &Histogram) {
        if other.count == 0 {
            return;
        }
        let range = other.low..other.high;
        for (sum, count) in self.counts[range.clone()].iter_mut().zip(&other.counts[range]) {
            *sum = sum.saturating_add(*count);
        }
        self.count = self.count.saturating_add(other.count);
        self.low = self.low.min(other.low);
        self.high = self.high.max(other.high);
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        if self.count > 0 {
            self.counts[self.low..self.high].fill(0);
        }
        self.count = 0;
        self.low = BUCKETS;
        self.high = 0;
    }

    /// How many were recorded.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The latency, in seconds, under which a share of `quantile` of them lies; `None` if empty.
    pub(crate) fn quantile(&self, quantile: f64) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        let rank = (quantile * f64::from(self.count)).ceil().max(1.0) as u32;
        let mut seen = 0u32;
        for bucket in self.low..self.high {
            seen += u32::from(self.counts[bucket]);
            if seen >= rank {
                return Some(middle(bucket));
            }
        }
        // Only when counts saturated: the slowest there is.
        Some(middle(self.high - 1))
    }

    /// Mean and spread of the `take` fastest, or of all if there are fewer; `None` if empty.
    pub(crate) fn fastest(&self, take: u32) -> Option<FasterPart> {
        let take = take.min(self.count);
        let (mut left, mut sum, mut squares) = (take, 0.0, 0.0);
        for bucket in self.low..self.high {
            let count = u32::from(self.counts[bucket]).min(left);
            let latency = middle(bucket);
            sum += f64::from(count) * latency;
            squares += f64::from(count) * latency * latency;
            left -= count;
            if left == 0 {
                break;
            }
        }
        let took = f64::from(take - left);
        if took == 0.0 {
            return None;
        }
        let mean = sum / took;
        let variance = (squares / took - mean * mean).max(0.0);
        Some(FasterPart { mean, variation: variance.sqrt() / mean })
    }
}

fn bucket_of(latency: Duration) -> usize {
    let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(1 << LOW_BITS);
    let doubling = ns.ilog2();
    let sub = (ns >> (doubling - SUB_BITS)) & ((1 << SUB_BITS) - 1);
    let bucket = (u64::from(doubling - LOW_BITS) << SUB_BITS) + sub;
    (bucket as usize).min(BUCKETS - 1)
}

/// The middle of a bucket, in seconds.
fn middle(bucket: usize) -> f64 {
    let doubling = LOW_BITS as usize + (bucket >> SUB_BITS);
    let sub = bucket & ((1 << SUB_BITS) - 1);
    (1u64 << doubling) as f64 * (1.0 + (sub as f64 + 0.5) / f64::from(1 << SUB_BITS)) / 1e9
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_histogram_has_no_quantile() {
        assert_eq!(Histogram::default().quantile(0.5), None);
        assert_eq!(Histogram::default().fastest(3), None);
    }

    #[test]
    fn extreme_latencies_land_in_the_outer_buckets() {
        assert_eq!(bucket_of(Duration::ZERO), 0);
        assert_eq!(bucket_of(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn the_faster_part_ignores_the_slow_ones() {
        let mut histogram = Histogram::default();
        for _ in 0..10 {
            histogram.record(Duration::from_millis(10));
            histogram.record(Duration::from_secs(10));
        }
        let faster = histogram.fastest(10).unwrap();
        assert!((faster.mean - 0.010).abs() < 0.001, "{faster:?}");
        assert!(faster.variation < 1e-6);
    }

    #[test]
    fn clearing_leaves_nothing_behind() {
        let mut histogram = Histogram::default();
        histogram.record(Duration::from_millis(3));
        histogram.clear();
        histogram.record(Duration::from_secs(3));
        assert!(histogram.quantile(0.0).unwrap() > 2.0);
        assert_eq!(histogram.count(), 1);
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_six_percent(ns in (1u64 << LOW_BITS)..(1 << 35)) {
            let mut histogram = Histogram::default();
            histogram.record(Duration::from_nanos(ns));
            let seconds = histogram.quantile(0.5).unwrap();
            prop_assert!((seconds / (ns as f64 / 1e9) - 1.0).abs() < 0.0626);
        }

        #[test]
        fn adding_is_recording_everything(
            a in proptest::collection::vec(0u64..1 << 36, 0..50),
            b in proptest::collection::vec(0u64..1 << 36, 0..50),
        ) {
            let of = |all: &mut dyn Iterator<Item = &u64>| {
                let mut histogram = Histogram::default();
                all.for_each(|ns| histogram.record(Duration::from_nanos(*ns)));
                histogram
            };
            let mut sum = of(&mut a.iter());
            sum.add(&of(&mut b.iter()));
            let whole = of(&mut a.iter().chain(&b));
            prop_assert_eq!(sum.counts, whole.counts);
            prop_assert_eq!(sum.count(), whole.count());
            prop_assert_eq!((sum.low, sum.high), (whole.low, whole.high));
        }
    }
}
