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

/// When the read of a page began. Take it before the first byte of the request is sent.
#[derive(Clone, Copy, Debug)]
pub struct ReadStart {
    monotonic: Instant,
    wall: SystemTime,
}

impl ReadStart {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    /// How long ago that was. Whichever clock says longer: the one stands still while the machine is suspended,
    /// the other can be set back.
    fn elapsed(self) -> Duration {
        self.monotonic.elapsed().max(self.wall.elapsed().unwrap_or_default())
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
            let key = self.key(policy, item.item);
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
