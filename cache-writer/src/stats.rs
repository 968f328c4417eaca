//! What the cache-writer counts, and the line that tells it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use warmcast_cache::RoundTrip;
use warmcast_common::clock::now_ms;
use warmcast_common::consumer::{ByteBudget, Lags};
use warmcast_common::dead_letter::{Counts, ReasonClass};
use warmcast_common::metrics::{CALL_BUCKETS_S, COUNT_BUCKETS, CounterSet, Histogram, LAG_BUCKETS_S};

/// Counters since the process started. Every change received is in the end applied, stale, left absent, covered,
/// skipped, coalesced, failed, or one of the backfills; the invalidation that stands for a failed one is applied beside.
#[derive(Debug, Default)]
pub struct Stats {
    /// Changes unpacked from frames.
    pub changes_received: AtomicU64,
    /// Bytes of the records' data.
    pub received_bytes: AtomicU64,
    /// Changes written to the cache.
    pub changes_applied: AtomicU64,
    /// Changes that the cache already had, or had newer.
    pub changes_stale: AtomicU64,
    /// Changes left out where nothing proves that they are news: too old, too late, or floors were lost.
    pub changes_left_absent: AtomicU64,
    /// Changes that a fill had seen already.
    pub changes_covered: AtomicU64,
    /// Changes of keys that are not cached, in tables that cache what is read.
    pub changes_skipped: AtomicU64,
    /// Changes that a newer change of their key replaced before they were written.
    pub changes_coalesced: AtomicU64,
    /// Changes that cannot be read, or that the cache will never take.
    pub changes_failed: AtomicU64,
    /// Rows of backfills written where nothing was.
    pub backfills_written: AtomicU64,
    /// Rows of backfills whose keys had an entry.
    pub backfills_occupied: AtomicU64,
    /// Rows of backfills that came too late to be believed: their keys are offered to be filled.
    pub backfills_too_late: AtomicU64,
    /// Rows of backfills that are not cached: of tables that cache what is read, or too large, or in another shape than
    /// their table's policy says. They are misses.
    pub backfills_refused: AtomicU64,
    /// Records and changes set aside.
    pub dead_letters: Arc<Counts>,
    /// Changes applied again because the cache could not be reached.
    pub retries: AtomicU64,
    /// Keys whose items were asked for from the master, because their changes did not say what they are.
    pub fills_asked: AtomicU64,
    /// The same, but not asked for: too many at once, or the master is in trouble. Readers may ask.
    pub fills_shed: AtomicU64,
    /// Times that the cache may have lost writes, after which the shards were read again.
    pub rewinds: AtomicU64,
    /// The newest watermark that was published, in milliseconds since the Unix epoch; 0: none by this process.
    pub watermark_ms: AtomicU64,
    /// Keys whose entries were compared with the master (`[verify]`).
    pub verify_looked_at: AtomicU64,
    /// Of these, those that readers got nothing of.
    pub verify_missing: AtomicU64,
    /// Of these, those that differed at first: most are on their way.
    pub verify_different: AtomicU64,
    /// Of these, those that are wrong and stay so. Anything but 0 needs a person.
    pub verify_mismatches: AtomicU64,
    /// Of these, those of which it could not be found out.
    pub verify_not_judged: AtomicU64,
    /// Times that no keys could be had to look at.
    pub verify_failed: AtomicU64,
    /// How long changes took.
    pub lags: StageLags,
    /// Round trips to the cache.
    pub round_trips: RoundTripStats,
}

/// What is counted of round trips to the cache.
#[derive(Debug)]
pub struct RoundTripStats {
    /// By result: `failed` are those that brought no answers.
    pub calls: CounterSet,
    /// How long each took, in seconds.
    pub seconds: Histogram,
    /// Commands of each.
    pub commands: Histogram,
}

/// How long changes took, in seconds.
#[derive(Clone, Debug)]
pub struct StageLags {
    /// From when it was asked of its table's stream until it was received here.
    pub receive: Histogram,
    /// From when it was created until it was written: end to end.
    pub apply: Histogram,
}

impl Default for StageLags {
    fn default() -> Self {
        Self { receive: Histogram::new(&LAG_BUCKETS_S), apply: Histogram::new(&LAG_BUCKETS_S) }
    }
}

impl Default for RoundTripStats {
    fn default() -> Self {
        Self {
            calls: CounterSet::new(&["ok", "failed"]),
            seconds: Histogram::new(&CALL_BUCKETS_S),
            commands: Histogram::new(&COUNT_BUCKETS),
        }
    }
}

impl RoundTripStats {
    /// One has ended.
    pub fn add(&self, trip: RoundTrip) {
        self.calls.add(if trip.is_answered { "ok" } else { "failed" }, 1);
        self.seconds.observe(trip.took.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "a pipeline is bounded")]
        self.commands.observe(trip.commands as f64);
    }
}

impl Stats {
    /// Adds to a counter.
    pub fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Relaxed);
    }

    /// Logs a `stats` line.
    pub fn log(&self, lags: &Lags, read: &ByteBudget, inflated: &ByteBudget) {
        let watermark_ms = self.watermark_ms.load(Relaxed);
        // Left out as long as this process has published none.
        let watermark_age_ms = (watermark_ms > 0).then(|| now_ms().saturating_sub(watermark_ms));
        tracing::info!(
            changes_received = self.changes_received.load(Relaxed),
            changes_applied = self.changes_applied.load(Relaxed),
            changes_stale = self.changes_stale.load(Relaxed),
            changes_left_absent = self.changes_left_absent.load(Relaxed),
            changes_covered = self.changes_covered.load(Relaxed),
            changes_skipped = self.changes_skipped.load(Relaxed),
            changes_coalesced = self.changes_coalesced.load(Relaxed),
            changes_failed = self.changes_failed.load(Relaxed),
            backfills_written = self.backfills_written.load(Relaxed),
            backfills_occupied = self.backfills_occupied.load(Relaxed),
            backfills_too_late = self.backfills_too_late.load(Relaxed),
            backfills_refused = self.backfills_refused.load(Relaxed),
            dead_letters = self.dead_letters.total(),
            dead_letters_undecodable = self.dead_letters.of(ReasonClass::UndecodableRecord),
            dead_letters_undecodable_changes = self.dead_letters.of(ReasonClass::UndecodableChange),
            dead_letters_refused = self.dead_letters.of(ReasonClass::Refused),
            dead_letters_waiting = self.dead_letters.waiting(),
            retries = self.retries.load(Relaxed),
            fills_asked = self.fills_asked.load(Relaxed),
            fills_shed = self.fills_shed.load(Relaxed),
            rewinds = self.rewinds.load(Relaxed),
            watermark_ms,
            watermark_age_ms,
            verify_looked_at = self.verify_looked_at.load(Relaxed),
            verify_missing = self.verify_missing.load(Relaxed),
            verify_different = self.verify_different.load(Relaxed),
            verify_mismatches = self.verify_mismatches.load(Relaxed),
            verify_not_judged = self.verify_not_judged.load(Relaxed),
            verify_failed = self.verify_failed.load(Relaxed),
            shards = lags.shards(),
            lag_ms = lags.max_ms(),
            read_bytes = read.bytes_in_use(),
            inflated_bytes = inflated.bytes_in_use(),
            "stats"
        );
    }
}
