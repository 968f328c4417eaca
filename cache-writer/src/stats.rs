//! What the cache-writer counts, and the line that tells it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use warmcast_common::consumer::{ByteBudget, Lags};

/// Counters since the process started. Every change received is in the end applied, stale, too old, coalesced
/// or failed; the invalidation that stands for a failed one is applied beside.
#[derive(Debug, Default)]
pub struct Stats {
    /// Changes unpacked from frames.
    pub changes_received: AtomicU64,
    /// Changes written to the cache.
    pub changes_applied: AtomicU64,
    /// Changes that the cache already had, or had newer.
    pub changes_stale: AtomicU64,
    /// Changes too old to be written where nothing is.
    pub changes_too_old: AtomicU64,
    /// Changes that a newer change of their key replaced before they were written.
    pub changes_coalesced: AtomicU64,
    /// Changes that the cache will never take.
    pub changes_failed: AtomicU64,
    /// Records and changes set aside.
    pub dead_letters: AtomicU64,
    /// Changes applied again because the cache could not be reached.
    pub retries: AtomicU64,
}

impl Stats {
    /// Adds to a counter.
    pub fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Relaxed);
    }

    /// Logs a `stats` line.
    pub fn log(&self, lags: &Lags, read: &ByteBudget, inflated: &ByteBudget) {
        tracing::info!(
            changes_received = self.changes_received.load(Relaxed),
            changes_applied = self.changes_applied.load(Relaxed),
            changes_stale = self.changes_stale.load(Relaxed),
            changes_too_old = self.changes_too_old.load(Relaxed),
            changes_coalesced = self.changes_coalesced.load(Relaxed),
            changes_failed = self.changes_failed.load(Relaxed),
            dead_letters = self.dead_letters.load(Relaxed),
            retries = self.retries.load(Relaxed),
            shards = lags.shards(),
            lag_ms = lags.max_ms(),
            read_bytes = read.bytes_in_use(),
            inflated_bytes = inflated.bytes_in_use(),
            "stats"
        );
    }
}
