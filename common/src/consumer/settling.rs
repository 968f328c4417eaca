//! Which records of a shard come so soon after its reading set in that what preceded them is in doubt. Pure.
//!
//! Where a shard is read again, or is begun in the middle, the first records may repeat, or be superseded by, ones
//! that came shortly before and are not read. So a lease says until which arrival its records are *settling*; it is
//! kept with the checkpoint, so that a crash in between forgets nothing.

use std::time::Duration;

/// The lease's word that it is not known yet until when: the first record whose arrival is known tells.
pub const FROM_FIRST_RECORD: u64 = 0;

/// How a shard settles in one tenure.
#[derive(Clone, Copy, Debug)]
pub struct Settling {
    settle: Duration,
    until_ms: Option<u64>,
    /// The last arrival that is known.
    last_ms: u64,
}

impl Settling {
    /// As the lease says ([`Lease::settling_ms`](super::store::Lease::settling_ms)), with `settle` for a shard that
    /// begins to.
    pub const fn new(settle: Duration, until_ms: Option<u64>) -> Self {
        Self { settle, until_ms, last_ms: 0 }
    }

    /// What the lease is to say.
    pub const fn until_ms(&self) -> Option<u64> {
        self.until_ms
    }

    /// It begins anew with the next record: what preceded that was not read.
    pub const fn begin(&mut self) {
        (self.until_ms, self.last_ms) = (Some(FROM_FIRST_RECORD), 0);
    }

    /// Whether the next record is settling ([`Delivery::settling`](super::processor::Delivery::settling)). `arrived_ms` is 0 if that is not known: it counts
    /// as the last that is.
    pub fn includes(&mut self, arrived_ms: u64) -> bool {
        if arrived_ms > 0 {
            self.last_ms = arrived_ms;
        }
        if self.until_ms == Some(FROM_FIRST_RECORD) && self.last_ms > 0 {
            let settle_ms = u64::try_from(self.settle.as_millis()).unwrap_or(u64::MAX);
            self.until_ms = Some(self.last_ms.saturating_add(settle_ms));
        }
        self.until_ms.is_some_and(|until_ms| until_ms == FROM_FIRST_RECORD || self.last_ms <= until_ms)
    }
}

/// What the children of shards that settle, each until then, begin with.
pub fn latest(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(FROM_FIRST_RECORD), _) | (_, Some(FROM_FIRST_RECORD)) => Some(FROM_FIRST_RECORD),
        (one, other) => one.max(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_secs(60);

    #[test]
    fn the_first_known_arrival_sets_the_time_and_what_came_by_then_is_settling() {
        let mut settling = Settling::new(SETTLE, Some(FROM_FIRST_RECORD));
        assert!(settling.includes(0), "nothing is known yet");
        assert_eq!(settling.until_ms(), Some(FROM_FIRST_RECORD));
        assert!(settling.includes(1_000));
        assert_eq!(settling.until_ms(), Some(61_000));
        assert!(settling.includes(0) && settling.includes(61_000));
        assert!(!settling.includes(61_001) && !settling.includes(0));
        settling.begin();
        assert!(settling.includes(0) && settling.includes(70_000) && settling.includes(130_000));
        assert!(!settling.includes(130_001));
    }

    #[test]
    fn a_shard_that_goes_on_settles_as_long_as_the_lease_says_and_one_that_does_not_never() {
        let mut settling = Settling::new(SETTLE, Some(61_000));
        assert!(settling.includes(0) && settling.includes(60_000) && !settling.includes(62_000));
        let mut settled = Settling::new(SETTLE, None);
        assert!(!settled.includes(0) && !settled.includes(1));
        assert_eq!(settled.until_ms(), None);
    }

    #[test]
    fn a_child_settles_as_long_as_the_parent_that_settles_longest() {
        assert_eq!(latest(None, None), None);
        assert_eq!(latest(Some(5), None), Some(5));
        assert_eq!(latest(Some(5), Some(7)), Some(7));
        assert_eq!(latest(Some(FROM_FIRST_RECORD), Some(7)), Some(FROM_FIRST_RECORD));
    }
}
