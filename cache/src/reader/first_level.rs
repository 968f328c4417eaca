//! The first level: what this process keeps for a moment, bounded by bytes.
//!
//! Keeping an entry costs about as much as reading it from the server a few times, so only what is read again and
//! again within `ttl` is kept: hot keys are, and a stream of keys that are read once or twice costs next to nothing.

use std::{
    hash::BuildHasher as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use foldhash::fast::RandomState;
use moka::sync::Cache;

use super::{config::FirstLevelConfig, judge::Known};

/// What managing an entry takes beside its key and its payload, about: moka's table, lists and counters, and the
/// allocations' own.
const ENTRY_OVERHEAD_BYTES: usize = 256;

/// What is known of an item, and since when.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) known: Known,
    /// It reflects every change made before this: the watermark as it was when the entry was read.
    pub(crate) as_of_ms: u64,
}

/// By the server's key. Clones share the entries.
#[derive(Clone, Debug)]
pub(crate) struct FirstLevel {
    entries: Cache<Box<[u8]>, Kept, RandomState>,
    sightings: Arc<Sightings>,
}

impl FirstLevel {
    pub(crate) fn new(config: &FirstLevelConfig) -> Self {
        let entries = Cache::<Box<[u8]>, Kept>::builder()
            .max_capacity(config.bytes_max)
            .weigher(|key, kept| {
                let payload_len = match &kept.known {
                    Known::Item(row) => row.payload.len(),
                    Known::Absent { .. } => 0,
                };
                u32::try_from(ENTRY_OVERHEAD_BYTES + key.len() + payload_len).unwrap_or(u32::MAX)
            })
            .time_to_live(config.ttl)
            .build_with_hasher(RandomState::default());
        Self { entries, sightings: Arc::new(Sightings::new(config.ttl)) }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<Kept> {
        // Most keys of most calls are not here, and `get` keeps a record of each of them.
        if !self.entries.contains_key(key) {
            return None;
        }
        self.entries.get(key)
    }

    /// Keeps it if its key was read often enough a moment ago.
    pub(crate) fn offer(&self, key: &[u8], now_ms: u64, kept: impl FnOnce() -> Kept) {
        if self.sightings.see(key, now_ms) >= SIGHTINGS_MIN {
            self.entries.insert(key.into(), kept());
        }
    }
}

/// How often a key is read from the server before it is kept.
pub(crate) const SIGHTINGS_MIN: u64 = 4;

/// How often keys were seen within about `ttl`. Keys share places, and the latest one counts: a key may be forgotten,
/// and is hardly ever taken for another (44 bits of their hashes are compared).
#[derive(Debug)]
struct Sightings {
    /// Of the key seen last: the upper bits of its hash, the period of its last sighting, and how many there were.
    places: Box<[AtomicU64]>,
    hasher: RandomState,
    ttl_ms: u64,
}

/// 512 KiB: for some ten thousand reads a `ttl`, beyond which colder keys are forgotten sooner.
const PLACES: usize = 1 << 16;

const COUNT_BITS: u32 = 4;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
const PERIOD_BITS: u32 = 16;
const PERIODS: u64 = 1 << PERIOD_BITS;
const HASH_MASK: u64 = !(PERIODS * (COUNT_MAX + 1) - 1);

const _: () = assert!(SIGHTINGS_MIN <= COUNT_MAX, "it can be counted");

impl Sightings {
    fn new(ttl: Duration) -> Self {
        Self {
            places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::default(),
            ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1),
        }
    }

    /// Sees a key; how often it was seen without a pause, this time included. Concurrent sightings may count as one.
    fn see(&self, key: &[u8], now_ms: u64) -> u64 {
        let hash = self.hasher.hash_one(key);
        #[expect(clippy::cast_possible_truncation, reason = "modulo the number of places")]
        let Some(place) = self.places.get(hash as usize % PLACES) else { return 0 };
        let period = now_ms / self.ttl_ms % PERIODS;
        let before = place.load(Ordering::Relaxed);
        let since = period.wrapping_sub(before >> COUNT_BITS) % PERIODS;
        let count = match before & COUNT_MAX {
            count if (before ^ hash) & HASH_MASK == 0 && since <= 1 => (count + 1).min(COUNT_MAX),
            _ => 1,
        };
        place.store(hash & HASH_MASK | period << COUNT_BITS | count, Ordering::Relaxed);
        count
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::reader::answer::Row;

    fn kept(payload_bytes: usize) -> Kept {
        let payload = Bytes::from(vec![7; payload_bytes]);
        Kept { known: Known::Item(Row { payload, time_ms: 0, expires_ms: None }), as_of_ms: 7 }
    }

    #[test]
    fn it_keeps_what_it_is_given_and_no_more_bytes_than_it_may() {
        let config = FirstLevelConfig { bytes_max: 100_000, ttl: Duration::from_secs(60) };
        let first_level = FirstLevel::new(&config);
        for _ in 1..SIGHTINGS_MIN {
            first_level.offer(b"a", 0, || kept(10));
            assert!(first_level.get(b"a").is_none(), "it may be the last time");
        }
        first_level.offer(b"a", 1, || kept(10));
        assert_eq!(first_level.get(b"a").unwrap().as_of_ms, 7);
        assert!(first_level.get(b"b").is_none());
        for number in 0..1_000_u32 {
            for _ in 0..SIGHTINGS_MIN {
                first_level.offer(&number.to_le_bytes(), 1, || kept(1_000));
            }
        }
        first_level.entries.run_pending_tasks();
        let bytes = first_level.entries.weighted_size();
        assert!((50_000..=100_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn sightings_count_until_there_is_a_pause() {
        let sightings = Sightings::new(Duration::from_secs(1));
        let (mut now_ms, key) = (1_784_000_000_500, b"a");
        assert_eq!(
            [0, 0, 600, 1_000, 0].map(|wait_ms| {
                now_ms += wait_ms;
                sightings.see(key, now_ms)
            }),
            [1, 2, 3, 4, 5]
        );
        assert_eq!(sightings.see(b"b", now_ms), 1);
        now_ms += 2_000;
        assert_eq!(sightings.see(key, now_ms), 1);
        assert_eq!((0..100).map(|_| sightings.see(key, now_ms)).max(), Some(COUNT_MAX));
    }
}
