//! What the aggregator counts, and the line that tells it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use warmcast_common::consumer::{ByteBudget, Lags};
use warmcast_common::dead_letter::{Counts, ReasonClass};

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
    /// Records and frames set aside.
    pub dead_letters: Arc<Counts>,
    /// Changes too large for a frame, sent as invalidations.
    pub oversize: AtomicU64,
    /// Changes whose stream has no new images, sent as invalidations.
    pub incomplete: AtomicU64,
    /// Watermarks that a shard was told.
    pub heartbeats_sent: AtomicU64,
    regions: Mutex<Vec<Arc<RegionStats>>>,
}

/// What is counted for one region, and how it is now.
#[derive(Debug, Default)]
pub struct RegionStats {
    name: String,
    /// Entries of answered PutRecords calls, each time one is sent.
    pub entries_sent: AtomicU64,
    /// Of these, throttled.
    pub entries_throttled: AtomicU64,
    /// Of these, failed inside the service.
    pub entries_failed: AtomicU64,
    /// Frames given up because they were too old.
    pub given_up: AtomicU64,
    /// Frames left out because nobody waited for them any more.
    pub worthless: AtomicU64,
    does_not_answer: AtomicBool,
    is_self_distributing: AtomicBool,
    queue_frames: AtomicU64,
    rate_percent_min: AtomicU64,
}

impl RegionStats {
    /// How the region is: whether it answers, how much waits for it, and the smallest share of the service's limits
    /// that one of its shards is sent to with.
    pub fn set_state(&self, answers: bool, queue_frames: usize, share_min: f64) {
        self.does_not_answer.store(!answers, Relaxed);
        self.queue_frames.store(queue_frames as u64, Relaxed);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is 0 to 1")]
        self.rate_percent_min.store((share_min * 100.0).round() as u64, Relaxed);
    }

    /// Whether its stream distributes records by itself.
    pub fn set_self_distributing(&self, is_self_distributing: bool) {
        self.is_self_distributing.store(is_self_distributing, Relaxed);
    }

    /// The region's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Frames that wait for it.
    pub fn queue_frames(&self) -> u64 {
        self.queue_frames.load(Relaxed)
    }

    /// Whether it does not answer.
    pub fn does_not_answer(&self) -> bool {
        self.does_not_answer.load(Relaxed)
    }

    /// Whether its stream was seen, or is said, to distribute records by itself.
    pub fn is_self_distributing(&self) -> bool {
        self.is_self_distributing.load(Relaxed)
    }

    fn log(&self) {
        tracing::info!(
            region = &*self.name,
            answers = !self.does_not_answer(),
            entries_sent = self.entries_sent.load(Relaxed),
            entries_throttled = self.entries_throttled.load(Relaxed),
            entries_failed = self.entries_failed.load(Relaxed),
            given_up = self.given_up.load(Relaxed),
            worthless = self.worthless.load(Relaxed),
            queue_frames = self.queue_frames.load(Relaxed),
            rate_percent_min = self.rate_percent_min.load(Relaxed),
            self_distributing = self.is_self_distributing(),
            "region"
        );
    }
}

impl Stats {
    /// The counters of a region, which are logged from now on.
    pub fn region(&self, name: &str) -> Arc<RegionStats> {
        let stats = Arc::new(RegionStats { name: name.to_owned(), ..RegionStats::default() });
        self.regions.lock().push(Arc::clone(&stats));
        stats
    }

    /// Adds to a counter.
    pub fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Relaxed);
    }

    /// The counters of all regions.
    pub fn regions(&self) -> Vec<Arc<RegionStats>> {
        self.regions.lock().clone()
    }

    /// Logs a `stats` line, and a `region` line for each region.
    pub fn log(&self, lags: &Lags, budget: &ByteBudget) {
        let regions = self.regions();
        let total = |counter: fn(&RegionStats) -> &AtomicU64| -> u64 {
            regions.iter().map(|region| counter(region).load(Relaxed)).sum()
        };
        tracing::info!(
            records_read = self.records_read.load(Relaxed),
            changes_sent = self.changes_sent.load(Relaxed),
            frames_sent = self.frames_sent.load(Relaxed),
            bytes_sent = self.bytes_sent.load(Relaxed),
            retries = self.retries.load(Relaxed),
            dead_letters = self.dead_letters.total(),
            dead_letters_undecodable = self.dead_letters.of(ReasonClass::UndecodableRecord),
            dead_letters_refused = self.dead_letters.of(ReasonClass::Refused),
            dead_letters_waiting = self.dead_letters.waiting(),
            oversize = self.oversize.load(Relaxed),
            incomplete = self.incomplete.load(Relaxed),
            heartbeats_sent = self.heartbeats_sent.load(Relaxed),
            entries_sent = total(|region| &region.entries_sent),
            entries_throttled = total(|region| &region.entries_throttled),
            entries_failed = total(|region| &region.entries_failed),
            given_up = total(|region| &region.given_up),
            regions_not_answering = regions.iter().filter(|region| region.does_not_answer()).count(),
            shards = lags.shards(),
            lag_ms = lags.max_ms(),
            queue_bytes = budget.bytes_in_use(),
            "stats"
        );
        regions.iter().for_each(|region| region.log());
    }
}
