//! Where the keys come from that are looked at, and the first look at them.
//!
//! Walks run side by side and share a rate. A sample comes from both sides: what the master has and the cache shows
//! wrongly is met from the master's side, what the cache shows and the master does not have from the cache's.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use warmcast_cache::master::{SEGMENTS_MAX, Segment};
use warmcast_cache::{CacheError, ItemId, MasterError};
use warmcast_common::retry::Backoff;
use warmcast_common::tool::Throttle;
use xxhash_rust::xxh3::xxh3_64;

use super::look::{Candidate, FirstLook, LOOK_KEYS_MAX, LookError, Looker};

/// Items that a segment has, about, where some segments stand for the table.
const SAMPLED_SEGMENT_ITEMS: u64 = 50;

/// Draws in a row that bring nothing new, after which the cache has no more, or nearly.
const VAIN_DRAWS_MAX: usize = 20;
/// Keys of one draw.
const DRAW_KEYS: usize = 200;

/// Keys of a table that are remembered, so that they are looked at from one side only: 8 to 20 bytes each.
const SEEN_MAX: usize = 10_000_000;

/// How often a page of the cache is asked for that does not come, and the pauses between.
const PAGE_TRIES_MAX: usize = 10;
const PAGE_PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAGE_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Where keys come from.
#[derive(Debug)]
pub enum Source {
    /// These.
    Given(Vec<ItemId>),
    /// All items of a segment of a table.
    Segment {
        /// The table.
        table: Arc<str>,
        /// Which part of it.
        segment: Segment,
        /// Its keys are remembered here.
        seen: Arc<Seen>,
    },
    /// What the cache has of a table, but for what was seen in the master.
    CacheOf {
        /// The table.
        table: Arc<str>,
        /// What was seen.
        seen: Arc<Seen>,
    },
    /// Items of a table at random.
    SampleOfMaster {
        /// The table.
        table: Arc<str>,
        /// How many.
        count: u64,
    },
    /// What the cache has, at random.
    SampleOfCache {
        /// Of these tables; none: of all.
        tables: Option<HashSet<Arc<str>>>,
        /// How many.
        count: u64,
    },
}

/// Keys that were seen in the master, by hash.
#[derive(Debug, Default)]
pub struct Seen(Mutex<HashSet<u64>>);

/// Walks through one source.
#[derive(Clone, Debug)]
pub struct Walker {
    /// Looks at the keys.
    pub looker: Looker,
    /// Keys in a second, of all walks together.
    pub throttle: Throttle,
    /// Where the looks go.
    pub to: mpsc::Sender<FirstLook>,
}

/// Why a walk ended before its end.
enum End {
    /// Nobody takes the looks any more.
    Closed,
    Failed(LookError),
}

impl From<MasterError> for End {
    fn from(error: MasterError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<CacheError> for End {
    fn from(error: CacheError) -> Self {
        Self::Failed(error.into())
    }
}

impl Seen {
    fn add(&self, id: &ItemId) {
        let mut seen = self.0.lock();
        if seen.len() < SEEN_MAX {
            seen.insert(xxh3_64(&id.key));
        }
    }

    fn has(&self, id: &ItemId) -> bool {
        self.0.lock().contains(&xxh3_64(&id.key))
    }
}

impl Walker {
    /// Walks to the end, or until nobody takes the looks any more.
    ///
    /// # Errors
    /// The master or the cache cannot be walked through.
    pub async fn walk(self, source: Source) -> Result<(), LookError> {
        let walked = match source {
            Source::Given(ids) => self.given(ids).await,
            Source::Segment { table, segment, seen } => self.segment(&table, segment, &seen).await,
            Source::CacheOf { table, seen } => self.cache_of(&table, &seen).await,
            Source::SampleOfMaster { table, count } => self.sample_master(&table, count).await,
            Source::SampleOfCache { tables, count } => self.sample_cache(tables.as_ref(), count).await,
        };
        match walked {
            Ok(()) | Err(End::Closed) => Ok(()),
            Err(End::Failed(error)) => Err(error),
        }
    }

    async fn given(&self, ids: Vec<ItemId>) -> Result<(), End> {
        for ids in ids.chunks(LOOK_KEYS_MAX) {
            self.look(ids.iter().map(|id| Candidate::new(id.clone(), true)).collect()).await?;
        }
        Ok(())
    }

    async fn segment(&self, table: &Arc<str>, segment: Segment, seen: &Seen) -> Result<(), End> {
        let mut from = None;
        loop {
            let (candidates, next) = self.looker.page(table, segment, from, LOOK_KEYS_MAX).await?;
            candidates.iter().for_each(|candidate| seen.add(&candidate.id));
            self.look(candidates).await?;
            let Some(next) = next else { return Ok(()) };
            from = Some(next);
        }
    }

    async fn cache_of(&self, table: &Arc<str>, seen: &Seen) -> Result<(), End> {
        let mut scan = self.looker.reads.scan(Some(table));
        let (mut tries, mut backoff) = (0, Backoff::new(PAGE_PAUSE_FIRST, PAGE_PAUSE_MAX));
        while let Some(page) = scan.next().await {
            let items = match page {
                Ok(page) => page.items,
                Err(error) if tries < PAGE_TRIES_MAX && error.is_retryable() => {
                    tries += 1;
                    tokio::time::sleep(backoff.next_pause()).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            tries = 0;
            backoff.reset();
            let unseen: Vec<ItemId> = items.into_iter().filter(|id| !seen.has(id)).collect();
            for ids in unseen.chunks(LOOK_KEYS_MAX) {
                self.look(ids.iter().map(|id| Candidate::new(id.clone(), true)).collect()).await?;
            }
        }
        Ok(())
    }

    async fn sample_master(&self, table: &Arc<str>, count: u64) -> Result<(), End> {
        let items = self.looker.master.item_count(table).await?;
        let mut left = usize::try_from(count).unwrap_or(usize::MAX);
        for segment in segments_at_random(items) {
            let mut from = None;
            // To its end: it may have more items than were counted hours ago.
            while left > 0 {
                let (candidates, next) = self.looker.page(table, segment, from, left).await?;
                left = left.saturating_sub(candidates.len());
                self.look(candidates).await?;
                let Some(next) = next else { break };
                from = Some(next);
            }
            if left == 0 {
                break;
            }
        }
        Ok(())
    }

    async fn sample_cache(&self, tables: Option<&HashSet<Arc<str>>>, count: u64) -> Result<(), End> {
        let (mut drawn, mut strangers, mut vain) = (HashSet::new(), HashSet::new(), 0);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        while drawn.len() < count && vain < VAIN_DRAWS_MAX {
            let draw = self.looker.reads.random(DRAW_KEYS).await?;
            strangers.extend(draw.strangers.iter().map(|key| xxh3_64(key)));
            let mut new = Vec::new();
            for id in draw.items {
                let is_asked = tables.is_none_or(|tables| tables.contains(&id.table));
                if is_asked && drawn.len() < count && drawn.insert(id.clone()) {
                    new.push(Candidate::new(id, true));
                }
            }
            vain = if new.is_empty() { vain + 1 } else { 0 };
            while !new.is_empty() {
                let rest = new.split_off(new.len().min(LOOK_KEYS_MAX));
                self.look(std::mem::replace(&mut new, rest)).await?;
            }
        }
        let strangers = if tables.is_none() { strangers.len() as u64 } else { 0 };
        self.tell(FirstLook { looked: Vec::new(), strangers }).await
    }

    async fn look(&self, candidates: Vec<Candidate>) -> Result<(), End> {
        if candidates.is_empty() {
            return Ok(());
        }
        let keys = candidates.len() as u64;
        let looked = self.looker.first_look(candidates).await;
        self.tell(looked).await?;
        // Paid for afterwards: between the two reads of a key no time is lost.
        self.throttle.take(keys).await;
        Ok(())
    }

    async fn tell(&self, looked: FirstLook) -> Result<(), End> {
        self.to.send(looked).await.map_err(|_| End::Closed)
    }
}

/// Segments that together are a table of so many items, each once, in an order by chance.
pub fn segments_at_random(items: u64) -> impl Iterator<Item = Segment> {
    let total = (items / SAMPLED_SEGMENT_ITEMS).clamp(1, u64::from(SEGMENTS_MAX));
    let start = fastrand::u64(..total);
    // Steps of a length that has no divisor in common with the number come by every place once.
    let step = std::iter::repeat_with(|| fastrand::u64(1..=total)).find(|step| gcd(*step, total) == 1);
    let step = step.unwrap_or(1);
    (0..total).map(move |turn| Segment {
        index: u32::try_from((start + turn * step) % total).unwrap_or_default(),
        total: u32::try_from(total).unwrap_or(SEGMENTS_MAX),
    })
}

const fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_by_chance_are_the_whole_table() {
        for items in [0, 49, 100, 5_000, 12_345, 700_000] {
            let segments: Vec<Segment> = segments_at_random(items).collect();
            let total = u32::try_from(segments.len()).unwrap();
            let indexes: HashSet<u32> = segments.iter().map(|segment| segment.index).collect();
            assert!(segments.iter().all(|segment| segment.total == total && segment.index < total));
            assert_eq!(indexes.len(), segments.len(), "{items}: each once");
        }
        assert_eq!(segments_at_random(u64::MAX).next().unwrap().total, SEGMENTS_MAX);
    }

    #[test]
    fn what_was_seen_is_remembered() {
        let seen = Seen::default();
        seen.add(&ItemId::new("t", "a"));
        assert!(seen.has(&ItemId::new("t", "a")) && !seen.has(&ItemId::new("t", "b")));
    }
}
