//! A histogram that is fed without a lock.
//!
//! `prometheus-client`'s own takes a mutex for each observation, which all threads share: one that is preempted with it
//! holds up the others. This one is two atomic additions, and many things of one size are one step: a page of changes
//! from the same second costs as much as one change.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Counts observations by size. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Upper bounds, ascending; beyond the last is one more bucket.
    bounds: &'static [f64],
    counts: Box<[AtomicU64]>,
    /// The bits of an `f64`.
    sum: AtomicU64,
}

impl Histogram {
    /// Nothing was observed. `bounds` are the buckets' upper bounds, inclusive, ascending.
    #[must_use]
    pub fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Inner { bounds, counts, sum: AtomicU64::new(0.0_f64.to_bits()) }))
    }

    /// Something of this size.
    pub fn observe(&self, value: f64) {
        self.observe_many(value, 1);
    }

    /// So many things of this size.
    pub fn observe_many(&self, value: f64, count: u64) {
        if count == 0 || value.is_nan() {
            return;
        }
        let Inner { bounds, counts, sum } = &*self.0;
        let bucket = bounds.partition_point(|bound| *bound < value);
        if let Some(bucket) = counts.get(bucket) {
            bucket.fetch_add(count, Relaxed);
        }
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
        let added = value * count as f64;
        let add = |bits| Some((f64::from_bits(bits) + added).to_bits());
        // The closure never declines.
        let _previous = sum.fetch_update(Relaxed, Relaxed, add);
    }

    /// A lag in milliseconds between two machines' clocks, of so many things, in a histogram of seconds. What begins
    /// at 0 is not known, and not observed.
    pub fn observe_lag(&self, from_ms: u64, until_ms: u64, count: u64) {
        if from_ms > 0 {
            #[expect(clippy::cast_precision_loss, reason = "times are far below 2^53 milliseconds")]
            self.observe_many(until_ms.saturating_sub(from_ms) as f64 / 1_000.0, count);
        }
    }

    /// How many were observed.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.counts.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// All sizes together.
    #[must_use]
    pub fn sum(&self) -> f64 {
        f64::from_bits(self.0.sum.load(Relaxed))
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let bounds = self.0.bounds.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> =
            bounds.zip(self.0.counts.iter().map(|count| count.load(Relaxed))).collect();
        // Of the same reading as the buckets, whatever is added meanwhile.
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(self.sum(), count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: [f64; 3] = [0.5, 1.0, 10.0];

    fn text(histogram: &Histogram) -> String {
        let mut registry = crate::metrics::registry();
        registry.register("h", "Of a test", histogram.clone());
        crate::metrics::text(&registry).unwrap()
    }

    #[test]
    fn buckets_are_cumulative_and_bounds_are_inclusive() {
        let histogram = Histogram::new(&BOUNDS);
        histogram.observe(0.25);
        histogram.observe_many(1.0, 3);
        histogram.observe(11.0);
        histogram.observe_lag(1_000, 1_500, 2);
        histogram.observe_lag(0, 1_500, 1);
        histogram.observe_lag(2_000, 1_500, 1);
        let text = text(&histogram);
        for line in [
            "warmcast_h_bucket{le=\"0.5\"} 4",
            "warmcast_h_bucket{le=\"1.0\"} 7",
            "warmcast_h_bucket{le=\"10.0\"} 7",
            "warmcast_h_bucket{le=\"+Inf\"} 8",
            "warmcast_h_count 8",
            "warmcast_h_sum 15.25",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line} is not in {text}");
        }
    }

    #[test]
    fn nothing_is_lost_when_several_threads_observe() {
        let histogram = Histogram::new(&BOUNDS);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| histogram.observe(0.5)));
            }
        });
        assert_eq!((histogram.count(), histogram.sum()), (40_000, 20_000.0));
    }

    proptest! {
        #[test]
        fn each_observation_is_in_one_bucket(values in prop::collection::vec(0.0_f64..20.0, 0..100)) {
            let histogram = Histogram::new(&BOUNDS);
            values.iter().for_each(|value| histogram.observe(*value));
            prop_assert_eq!(histogram.count(), values.len() as u64);
            prop_assert!((histogram.sum() - values.iter().sum::<f64>()).abs() < 1e-6);
            let below = values.iter().filter(|value| **value <= 0.5).count();
            let line = format!("le=\"0.5\"}} {below}\n");
            prop_assert!(text(&histogram).contains(&line));
        }
    }
}
