//! What reading came to.

use std::sync::atomic::{AtomicU64, Ordering};

use super::answer::Answer;
#[cfg(feature = "master")]
use crate::{filler::FillerStats, master::MasterStats};

/// What reading came to, since the start; in keys.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ReaderStats {
    /// Answered from the first level.
    pub first_level_hits: u64,
    /// Answered from the cache with an item.
    pub hits: u64,
    /// Answered from the cache with the knowledge that there is no item.
    pub absent: u64,
    /// The cache knew nothing.
    pub misses: u64,
    /// Of the misses, those that the master's answer came in time for.
    pub from_master: u64,
    /// Answers that were further behind than the caller allows, from wherever.
    pub stale: u64,
    /// The cache could not be read, or not in time.
    pub unavailable: u64,
    /// What filling came to; none without a master.
    #[cfg(feature = "master")]
    pub filler: Option<FillerStats>,
    /// What reading the master came to; none without a master.
    #[cfg(feature = "master")]
    pub master: Option<MasterStats>,
}

/// Counted per call, added at once.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) first_level_hits: u64,
    pub(crate) hits: u64,
    pub(crate) absent: u64,
    pub(crate) misses: u64,
    pub(crate) from_master: u64,
    pub(crate) stale: u64,
    pub(crate) unavailable: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    first_level_hits: AtomicU64,
    hits: AtomicU64,
    absent: AtomicU64,
    misses: AtomicU64,
    from_master: AtomicU64,
    stale: AtomicU64,
    unavailable: AtomicU64,
}

impl Counters {
    pub(crate) fn add(&self, tally: &Tally) {
        for (counter, count) in [
            (&self.first_level_hits, tally.first_level_hits),
            (&self.hits, tally.hits),
            (&self.absent, tally.absent),
            (&self.misses, tally.misses),
            (&self.from_master, tally.from_master),
            (&self.stale, tally.stale),
            (&self.unavailable, tally.unavailable),
        ] {
            if count > 0 {
                counter.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    /// One key, answered by the first level.
    pub(crate) fn first_level_hit(&self, answer: &Answer) {
        let stale = u64::from(matches!(answer, Answer::Stale(..)));
        self.add(&Tally { first_level_hits: 1, stale, ..Tally::default() });
    }

    pub(crate) fn stats(&self) -> ReaderStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ReaderStats {
            first_level_hits: count(&self.first_level_hits),
            hits: count(&self.hits),
            absent: count(&self.absent),
            misses: count(&self.misses),
            from_master: count(&self.from_master),
            stale: count(&self.stale),
            unavailable: count(&self.unavailable),
            #[cfg(feature = "master")]
            filler: None,
            #[cfg(feature = "master")]
            master: None,
        }
    }
}
