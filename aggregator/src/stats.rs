//! What the aggregator counts, and the line that tells it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use warmcast_common::consumer::{ByteBudget, Lags};

/// Counters since the process started.
#[derive(Debug, Default)]
pub struct Stats {
    /// Stream records read.
    pub records_read: AtomicU64,
    /// Changes in the streams of every region, counted once for each region.
    pub changes_sent: AtomicU64,
    /// Frames likewise.
    pub frames_sent: AtomicU64,
    /// Their bytes, compressed.
    pub bytes_sent: AtomicU64,
    /// Frames that were sent again.
    pub retries: AtomicU64,
    /// Records set aside.
    pub dead_letters: AtomicU64,
    /// Changes too large for a frame, sent as invalidations.
    pub oversize: AtomicU64,
    /// Changes whose stream has no new images, sent as invalidations.
    pub incomplete: AtomicU64,
    /// Watermarks that a shard was told.
    pub heartbeats_sent: AtomicU64,
}

impl Stats {
    /// Adds to a counter.
    pub fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Relaxed);
    }

    /// Logs a `stats` line.
    pub fn log(&self, lags: &Lags, budget: &ByteBudget) {
        tracing::info!(
            records_read = self.records_read.load(Relaxed),
            changes_sent = self.changes_sent.load(Relaxed),
            frames_sent = self.frames_sent.load(Relaxed),
            bytes_sent = self.bytes_sent.load(Relaxed),
            retries = self.retries.load(Relaxed),
            dead_letters = self.dead_letters.load(Relaxed),
            oversize = self.oversize.load(Relaxed),
            incomplete = self.incomplete.load(Relaxed),
            heartbeats_sent = self.heartbeats_sent.load(Relaxed),
            shards = lags.shards(),
            lag_ms = lags.max_ms(),
            queue_bytes = budget.bytes_in_use(),
            "stats"
        );
    }
}
