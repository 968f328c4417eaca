//! Backfills: items of a page that was read from the master table, written where nothing is there (rule 8 of the
//! cache protocol).
//!
//! No token was taken before the page was read, so what is there is left alone, and so is everything that an old
//! page or a lost trace could make wrong. What a backfill leaves out, the next reader's fill brings.

use std::time::{Duration, SystemTime};

use redis::Value;
use tokio::time::Instant;

use crate::{
    apply::live_ttl,
    cache::{Cache, ItemRef},
    call::{Arguments, Call, Entry, duration_ms},
    leases::filled_header,
    outcome::{CacheError, Refusal},
    policy::{TablePolicy, WritePolicy},
    shape::Shaped,
};

/// The longest time between the beginning of a page's read and its writing: less than the time after which a change
/// counts as late, because a late change leaves no trace where nothing is there.
const PAGE_AGE_MAX: Duration = Duration::from_secs(30);

/// How far the clock of the machine that read a page may be ahead of ours, as far as that shows: a page that is from
/// further in the future is too late. What does not show, because the page was on its way for longer than that, must be
/// below 10 s: by so much every bound of a page is tighter than that of the changes that it must not overtake.
const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(2);

/// When the read of a page began. Take it before the first byte of the request is sent.
#[derive(Clone, Copy, Debug)]
pub struct ReadStart {
    /// When this was made.
    monotonic: Instant,
    /// How long ago the read began then.
    age: Duration,
    /// When the read began.
    wall: SystemTime,
}

impl ReadStart {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self { monotonic: Instant::now(), age: Duration::ZERO, wall: SystemTime::now() }
    }

    /// When another machine's clock showed this, in milliseconds since the Unix epoch. None: that is in the future by
    /// more than clocks differ, so one of the two is wrong and nothing is known of the page's age: it is too late.
    #[must_use]
    pub fn at_ms(read_ms: u64) -> Option<Self> {
        let wall = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(read_ms))?;
        let age = match wall.elapsed() {
            Ok(age) => age,
            Err(ahead) if ahead.duration() <= CLOCK_AHEAD_MAX => Duration::ZERO,
            Err(_) => return None,
        };
        Some(Self { monotonic: Instant::now(), age, wall })
    }

    /// How long ago that was. Whichever clock says longer: the one stands still while the machine is suspended,
    /// the other can be set back.
    fn elapsed(self) -> Duration {
        let monotonic = self.monotonic.elapsed().saturating_add(self.age);
        monotonic.max(self.wall.elapsed().unwrap_or_default())
    }
}

/// An item of a page.
#[derive(Clone, Debug)]
pub struct Backfill<'a> {
    /// The item.
    pub item: ItemRef<'a>,
    /// What the master table has, as the table's policy shapes it. Read with strong consistency (AWS:
    /// `ConsistentRead`) from the very table whose stream feeds this cache.
    pub found: Shaped,
    /// When the read of its page began.
    pub read: ReadStart,
}

/// What became of an item of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backfilled {
    /// Written.
    Written,
    /// The cache has something for the key already.
    Occupied,
    /// The page is too old, or the cache evicted entries since shortly before it was read.
    TooLate,
}

impl Cache {
    /// Writes items of pages where nothing is there, while the pages are young (30 s at most).
    ///
    /// Tables that cache only what is read are refused: there, changes that were skipped leave no trace that would
    /// keep an older page out.
    pub async fn backfill(&self, items: &[Backfill<'_>]) -> Vec<Result<Backfilled, CacheError>> {
        let calls = items.iter().map(|item| {
            let policy = self.policy(item.item.table);
            let key = self.key(policy, item.item)?;
            // Where no server is known for the key, the call finds none either.
            let now_ms = self.server_now_ms(&key).unwrap_or_default();
            let read_ms = now_ms.saturating_sub(duration_ms(item.read.elapsed()));
            let arguments = backfill_arguments(policy, &item.found, read_ms, self.config().value_bytes_max)?;
            Ok(Call::new(key, arguments))
        });
        let backfilled = |_, value: &Value| match value {
            Value::Int(1) => Some(Backfilled::Written),
            Value::Int(2) => Some(Backfilled::Occupied),
            Value::Int(3) => Some(Backfilled::TooLate),
            _ => None,
        };
        self.send(calls, self.unfenced(), backfilled).await
    }
}

fn backfill_arguments(
    policy: &TablePolicy,
    found: &Shaped,
    read_ms: u64,
    value_bytes_max: usize,
) -> Result<Arguments<'static>, Refusal> {
    if policy.write == WritePolicy::Present {
        return Err(Refusal::NotBackfilled);
    }
    Ok(Arguments::Backfill {
        entry: Entry::new(filled_header(found, read_ms)?, found.payload.clone(), value_bytes_max)?,
        ttl_ms: live_ttl(policy, found).map_or(0, duration_ms),
        read_ms,
        // Half: what is too old to create an entry leaves no trace either.
        age_max_ms: duration_ms(PAGE_AGE_MAX.min(policy.create_age_max() / 2)),
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::shape::wall_clock_ms;

    #[tokio::test(start_paused = true)]
    async fn a_page_grows_old_by_whichever_clock_says_more() {
        let hour = Duration::from_hours(1);
        let now = ReadStart::now();
        let minute_ago = ReadStart::at_ms(wall_clock_ms() - 60_000).unwrap();
        // Only the monotonic clock goes on.
        tokio::time::advance(hour).await;
        assert!(now.elapsed() >= hour && now.elapsed() < hour + Duration::from_secs(30));
        let expected = hour + Duration::from_mins(1);
        assert!(
            minute_ago.elapsed() >= expected && minute_ago.elapsed() < expected + Duration::from_secs(30)
        );
        // Only the wall clock has gone on since.
        let suspended = ReadStart { wall: SystemTime::now() - 3 * hour, ..now };
        assert!(suspended.elapsed() >= 3 * hour);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_a_little_ahead_makes_a_page_of_now_and_one_far_ahead_makes_none() {
        let ahead = ReadStart::at_ms(wall_clock_ms() + 1_500).unwrap();
        assert!(ahead.elapsed() < Duration::from_secs(1));
        assert!(ReadStart::at_ms(wall_clock_ms() + 60_000).is_none());
        assert!(ReadStart::at_ms(u64::MAX).is_none());
        assert!(ReadStart::at_ms(0).is_some_and(|long_ago| long_ago.elapsed() > PAGE_AGE_MAX));
    }

    #[test]
    fn a_table_that_caches_what_is_read_is_not_backfilled() {
        let found = Shaped { payload: Bytes::new(), expires_ms: None };
        let of = |write| {
            let policy = TablePolicy { write, ..TablePolicy::default() };
            backfill_arguments(&policy, &found, 1, 1_000).map(|_| ())
        };
        assert_eq!(of(WritePolicy::Present), Err(Refusal::NotBackfilled));
        assert_eq!(of(WritePolicy::All), Ok(()));
    }
}
