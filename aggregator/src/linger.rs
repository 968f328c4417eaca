//! How long a change waits for others of its bucket. Pure.
//!
//! Waiting makes frames fuller, and costs time. It pays only if others come meanwhile: with changes of a rate λ over
//! all buckets, λ / buckets · time of them are to be expected in one bucket. With a few of them the wait is as long as
//! it may be; with none it is as short as it may be; between them it grows evenly.

use std::time::Duration;

use tokio::time::Instant;
use warmcast_proto::key::Buckets;

/// The rate is that of about so much time. Short enough to have a burst batched soon, long enough to see the pages that
/// changes come in as the stream that they are.
const MEMORY: Duration = Duration::from_secs(1);
/// With fewer others to be expected within the longest wait, waiting is for nothing.
const OTHERS_MIN: f64 = 0.25;
/// With so many, it pays in full: a frame of three costs little more than one of a single change.
const OTHERS_MAX: f64 = 2.0;

/// Between which times a change waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LingerBounds {
    /// With nothing to expect.
    pub min: Duration,
    /// With other changes to expect.
    pub max: Duration,
}

/// The wait that suits the load.
#[derive(Clone, Debug)]
pub struct Linger {
    bounds: LingerBounds,
    buckets: f64,
    /// Changes of the last [`MEMORY`], the older the less they count.
    recent: f64,
    last: Option<Instant>,
}

impl Linger {
    /// Nothing has come yet.
    pub fn new(bounds: LingerBounds, buckets: Buckets) -> Self {
        Self { bounds, buckets: f64::from(buckets.count()), recent: 0.0, last: None }
    }

    /// A change came.
    pub fn on_change(&mut self, now: Instant) {
        if let Some(last) = self.last {
            let passed = now.saturating_duration_since(last).as_secs_f64();
            self.recent *= (-passed / MEMORY.as_secs_f64()).exp();
        }
        self.last = Some(now);
        self.recent += 1.0;
    }

    /// How long the change that came last should wait. Never less than the shortest wait, and never more than the
    /// longest, whichever is configured to be longer.
    pub fn now(&self) -> Duration {
        let LingerBounds { min, max } = self.bounds;
        // The change itself is no reason to wait.
        let rate = (self.recent - 1.0).max(0.0) / MEMORY.as_secs_f64();
        let others = rate / self.buckets * max.as_secs_f64();
        let part = ((others - OTHERS_MIN) / (OTHERS_MAX - OTHERS_MIN)).clamp(0.0, 1.0);
        let min = min.min(max);
        min + (max - min).mul_f64(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: LingerBounds =
        LingerBounds { min: Duration::from_millis(1), max: Duration::from_millis(50) };

    /// The wait after some seconds at so many changes a second, in pages that are read 50 ms apart.
    fn at_rate(per_second: u32, buckets: u32) -> Duration {
        let mut linger = Linger::new(BOUNDS, Buckets::new(buckets).unwrap());
        let (start, page) = (Instant::now(), Duration::from_millis(50));
        for number in 0..100 {
            let changes = per_second * (number + 1) / 20 - per_second * number / 20;
            (0..changes).for_each(|_| linger.on_change(start + page * number));
        }
        linger.now()
    }

    #[test]
    fn the_wait_grows_with_the_load() {
        let waits = [1, 10, 1_000, 2_600, 5_000, 8_000, 12_000, 100_000].map(|rate| at_rate(rate, 256));
        assert!(waits.is_sorted(), "{waits:?}");
        assert_eq!(waits[..3], [BOUNDS.min; 3]);
        assert!(waits[4] > 2 * BOUNDS.min && waits[5] < BOUNDS.max, "{waits:?}");
        assert_eq!(waits[6..], [BOUNDS.max; 2]);
    }

    #[test]
    fn a_change_after_a_pause_waits_for_nobody() {
        let mut linger = Linger::new(BOUNDS, Buckets::new(4).unwrap());
        let start = Instant::now();
        (0..1_000).for_each(|_| linger.on_change(start));
        assert_eq!(linger.now(), BOUNDS.max);
        linger.on_change(start + Duration::from_secs(10));
        assert_eq!(linger.now(), BOUNDS.min);
    }

    proptest! {
        #[test]
        fn the_wait_is_within_its_bounds(
            min_ms in 0u64..100,
            max_ms in 0u64..100,
            gaps_us in prop::collection::vec(0u64..100_000, 0..300),
        ) {
            let [min, max] = [min_ms, max_ms].map(Duration::from_millis);
            let mut linger = Linger::new(LingerBounds { min, max }, Buckets::new(2).unwrap());
            let mut now = Instant::now();
            for gap in gaps_us {
                now += Duration::from_micros(gap);
                linger.on_change(now);
                prop_assert!((min.min(max)..=max).contains(&linger.now()));
            }
        }
    }
}
