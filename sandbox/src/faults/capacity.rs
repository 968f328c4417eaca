//! What a shard takes: bytes and records a second, as the service counts them (AWS: Kinesis quotas, 1 MiB/s and 1,000
//! records/s of writes for each shard; bytes are data and partition keys).

use std::collections::HashMap;
use std::time::Duration;

/// What each shard of a stream takes in a second. An idle shard has saved up one second's worth, no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Bytes of data and partition keys.
    pub bytes_per_second: u64,
    /// Records.
    pub records_per_second: u64,
}

impl Capacity {
    /// The service's (AWS: Kinesis quotas).
    pub const OF_A_SHARD: Self = Self { bytes_per_second: 1 << 20, records_per_second: 1_000 };
}

/// Of each shard, what it can still take.
#[derive(Debug, Default)]
pub(super) struct Buckets(HashMap<String, Bucket>);

impl Buckets {
    /// Whether this shard takes a record of so many bytes now.
    pub(super) fn take(&mut self, shard: &str, bytes: u64, capacity: Capacity, now: Duration) -> bool {
        if let Some(bucket) = self.0.get_mut(shard) {
            return bucket.take(bytes, capacity, now);
        }
        self.0
            .entry(shard.to_owned())
            .or_insert_with(|| Bucket::full(capacity, now))
            .take(bytes, capacity, now)
    }
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    bytes: f64,
    records: f64,
    at: Duration,
}

impl Bucket {
    fn full(capacity: Capacity, now: Duration) -> Self {
        Self { bytes: capacity.bytes_per_second as f64, records: capacity.records_per_second as f64, at: now }
    }

    fn take(&mut self, bytes: u64, capacity: Capacity, now: Duration) -> bool {
        let (bytes_max, records_max) = (capacity.bytes_per_second as f64, capacity.records_per_second as f64);
        let seconds = now.saturating_sub(self.at).as_secs_f64();
        self.at = now;
        self.bytes = (self.bytes + seconds * bytes_max).min(bytes_max);
        self.records = (self.records + seconds * records_max).min(records_max);
        // A record larger than a second's worth would never fit: a full bucket takes it, and is overdrawn.
        let wanted = (bytes as f64).min(bytes_max);
        let fits = self.bytes >= wanted && self.records >= records_max.min(1.0);
        if fits {
            self.bytes -= bytes as f64;
            self.records -= 1.0;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: Capacity = Capacity { bytes_per_second: 1_000, records_per_second: 10 };

    /// How many of `offered` records of `bytes`, evenly over `seconds`, are taken.
    fn taken(offered: u32, bytes: u64, seconds: u32) -> usize {
        let mut buckets = Buckets::default();
        let at = |n: u32| Duration::from_secs(seconds.into()) * n / offered;
        (0..offered).filter(|n| buckets.take("shard", bytes, CAPACITY, at(*n))).count()
    }

    #[test]
    fn a_shard_takes_a_second_at_once_and_then_its_rate() {
        // 10 s of 10 records, and what an idle shard had saved up.
        assert!((105..=110).contains(&taken(1_000, 1, 10)));
        assert!((52..=55).contains(&taken(1_000, 200, 10)));
        assert_eq!(taken(10, 100, 1), 10);
    }

    #[test]
    fn a_record_larger_than_a_seconds_worth_is_taken_by_an_idle_shard_and_paid_for_later() {
        let mut buckets = Buckets::default();
        let mut take = |bytes, ms| buckets.take("shard", bytes, CAPACITY, Duration::from_millis(ms));
        assert!(take(3_000, 0));
        assert!(!take(1, 1_900));
        assert!(take(1, 2_100));
        assert!(!take(3_000, 2_200));
    }

    #[test]
    fn shards_do_not_share() {
        let mut buckets = Buckets::default();
        assert!(buckets.take("a", 1_000, CAPACITY, Duration::ZERO));
        assert!(!buckets.take("a", 1_000, CAPACITY, Duration::ZERO));
        assert!(buckets.take("b", 1_000, CAPACITY, Duration::ZERO));
    }
}
