//! What the aggregator counts, and the line that tells it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use warmcast_common::consumer::{ByteBudget, Lags, Lanes};
use warmcast_common::dead_letter::{Counts, ReasonClass};
use warmcast_common::metrics::{
    CALL_BUCKETS_S, COUNT_BUCKETS, CounterSet, Histogram, LAG_BUCKETS_S, SIZE_BUCKETS_BYTES,
};
use warmcast_common::retry::Class;

/// What is counted since the process started.
#[derive(Debug)]
pub struct Stats {
    /// Stream records that were made changes of.
    pub records_read: AtomicU64,
    /// Records and frames set aside.
    pub dead_letters: Arc<Counts>,
    /// Changes too large for a frame, sent as invalidations.
    pub oversize: AtomicU64,
    /// Changes whose stream has no new images, sent as invalidations.
    pub incomplete: AtomicU64,
    /// Watermarks that a shard was told.
    pub heartbeats_sent: AtomicU64,
    /// The frames as they are built, once for all regions.
    pub frames: FrameStats,
    regions: Mutex<Vec<Arc<RegionStats>>>,
    suppressed: Mutex<BTreeMap<String, Arc<Suppressed>>>,
}

/// What is counted of frames.
#[derive(Debug)]
pub struct FrameStats {
    /// How long the oldest change of each waited, in seconds.
    pub waits: Histogram,
    /// Changes of each.
    pub changes: Histogram,
    /// Bytes of each, compressed.
    pub bytes: Histogram,
    /// Bytes of all bodies before compression.
    pub body_bytes: AtomicU64,
}

/// Changes of one table that a region's filter left out, by the region's lane.
#[derive(Debug)]
pub struct Suppressed(Box<[AtomicU64]>);

/// What is counted for one region, and how it is now.
#[derive(Debug)]
pub struct RegionStats {
    name: String,
    /// Changes in its stream.
    pub changes_sent: AtomicU64,
    /// Frames likewise.
    pub frames_sent: AtomicU64,
    /// Their bytes, compressed.
    pub bytes_sent: AtomicU64,
    /// What the service charges for them: PUT payload units.
    pub put_units: AtomicU64,
    /// What it charges for them if the stream is on demand: their bytes, each record's rounded up to 1 KB.
    pub on_demand_bytes: AtomicU64,
    /// PutRecords calls as a whole, by result.
    pub calls: CounterSet,
    /// Time of an answered PutRecords call, in seconds.
    pub call_times: Histogram,
    /// Entries of PutRecords calls, each time one is sent, by result: `failed` inside the service, `refused` for what it is.
    pub entries: CounterSet,
    /// Frames that were sent again, by why: `internal`, an entry failed inside the service, or the class of the error with
    /// which the call as a whole failed.
    pub retries: CounterSet,
    /// Change created to accepted by the stream, in seconds.
    pub send_lag: Histogram,
    /// Frames given up because they were too old.
    pub given_up: AtomicU64,
    /// Frames left out because nobody waited for them any more.
    pub worthless: AtomicU64,
    does_not_answer: AtomicBool,
    is_self_distributing: AtomicBool,
    is_on_demand: AtomicBool,
    queue_frames: AtomicU64,
    queue_bytes: AtomicU64,
    rate_percent_min: AtomicU64,
}

/// Why frames are sent again: an entry's own reason, and the classes of errors of calls ([`Class`]).
const RETRY_CLASSES: [&str; 6] = [
    "internal",
    Class::Throttled.as_str(),
    Class::Transient.as_str(),
    Class::Denied.as_str(),
    Class::NotFound.as_str(),
    Class::Permanent.as_str(),
];

impl Default for Stats {
    fn default() -> Self {
        let frames = FrameStats {
            waits: Histogram::new(&LAG_BUCKETS_S),
            changes: Histogram::new(&COUNT_BUCKETS),
            bytes: Histogram::new(&SIZE_BUCKETS_BYTES),
            body_bytes: AtomicU64::new(0),
        };
        Self {
            records_read: AtomicU64::new(0),
            dead_letters: Arc::default(),
            oversize: AtomicU64::new(0),
            incomplete: AtomicU64::new(0),
            heartbeats_sent: AtomicU64::new(0),
            frames,
            regions: Mutex::default(),
            suppressed: Mutex::default(),
        }
    }
}

impl Suppressed {
    /// A change was left out for these regions.
    pub fn add(&self, lanes: Lanes) {
        for counter in lanes.iter().filter_map(|lane| self.0.get(lane)) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// The counters, by lane.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().map(|counter| counter.load(Relaxed))
    }
}

impl RegionStats {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            changes_sent: AtomicU64::new(0),
            frames_sent: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            put_units: AtomicU64::new(0),
            on_demand_bytes: AtomicU64::new(0),
            calls: CounterSet::new(&["ok", "throttled", "refused", "failed"]),
            call_times: Histogram::new(&CALL_BUCKETS_S),
            entries: CounterSet::new(&["ok", "throttled", "failed", "refused"]),
            retries: CounterSet::new(&RETRY_CLASSES),
            send_lag: Histogram::new(&LAG_BUCKETS_S),
            given_up: AtomicU64::new(0),
            worthless: AtomicU64::new(0),
            does_not_answer: AtomicBool::new(false),
            is_self_distributing: AtomicBool::new(false),
            is_on_demand: AtomicBool::new(false),
            queue_frames: AtomicU64::new(0),
            queue_bytes: AtomicU64::new(0),
            rate_percent_min: AtomicU64::new(100),
        }
    }

    /// How the region is: whether it answers, how much waits for it (frames, and their bytes), and the smallest share of
    /// the service's limits that one of its shards is sent to with.
    pub fn set_state(&self, answers: bool, queue: (usize, usize), share_min: f64) {
        self.does_not_answer.store(!answers, Relaxed);
        self.queue_frames.store(queue.0 as u64, Relaxed);
        self.queue_bytes.store(queue.1 as u64, Relaxed);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is 0 to 1")]
        self.rate_percent_min.store((share_min * 100.0).round() as u64, Relaxed);
    }

    /// The region's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Frames that wait for it.
    pub fn queue_frames(&self) -> u64 {
        self.queue_frames.load(Relaxed)
    }

    /// Whether its stream distributes records by itself.
    pub fn set_self_distributing(&self, is_self_distributing: bool) {
        self.is_self_distributing.store(is_self_distributing, Relaxed);
    }

    /// Whether its stream is billed by what goes through it.
    pub fn set_on_demand(&self, is_on_demand: bool) {
        self.is_on_demand.store(is_on_demand, Relaxed);
    }

    /// Whether its stream is said to be billed by what goes through it.
    pub fn is_on_demand(&self) -> bool {
        self.is_on_demand.load(Relaxed)
    }

    /// Whether it does not answer.
    pub fn does_not_answer(&self) -> bool {
        self.does_not_answer.load(Relaxed)
    }

    /// Entries that a PutRecords call had an answer for.
    fn entries_answered(&self) -> u64 {
        ["ok", "throttled", "failed"].map(|result| self.entries.of(result)).iter().sum()
    }

    /// Whether its stream was seen, or is said, to distribute records by itself.
    pub fn is_self_distributing(&self) -> bool {
        self.is_self_distributing.load(Relaxed)
    }

    /// What those weigh in requests, in bytes.
    pub fn queue_bytes(&self) -> u64 {
        self.queue_bytes.load(Relaxed)
    }

    /// The smallest share of the service's limits, in percent, that one of its shards is sent to with.
    pub fn rate_percent_min(&self) -> u64 {
        self.rate_percent_min.load(Relaxed)
    }

    fn log(&self) {
        tracing::info!(
            region = &*self.name,
            answers = !self.does_not_answer(),
            entries_sent = self.entries_answered(),
            entries_throttled = self.entries.of("throttled"),
            entries_failed = self.entries.of("failed"),
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
        let stats = Arc::new(RegionStats::new(name));
        self.regions.lock().push(Arc::clone(&stats));
        stats
    }

    /// The counters of what the filters of so many regions leave out of a table.
    pub fn suppressed(&self, table: &str, regions: usize) -> Arc<Suppressed> {
        let new = || Arc::new(Suppressed((0..regions).map(|_| AtomicU64::new(0)).collect()));
        Arc::clone(self.suppressed.lock().entry(table.to_owned()).or_insert_with(new))
    }

    /// The same, of all tables by their names.
    pub fn all_suppressed(&self) -> BTreeMap<String, Arc<Suppressed>> {
        self.suppressed.lock().clone()
    }

    /// Adds to a counter.
    pub fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Relaxed);
    }

    /// The counters of all regions.
    pub fn regions(&self) -> Vec<Arc<RegionStats>> {
        self.regions.lock().clone()
    }

    /// A counter of the regions, of all of them together.
    pub fn total(&self, counter: fn(&RegionStats) -> &AtomicU64) -> u64 {
        self.regions.lock().iter().map(|region| counter(region).load(Relaxed)).sum()
    }

    /// Frames that were sent again, to whichever region.
    pub fn retries(&self) -> u64 {
        self.regions.lock().iter().map(|region| region.retries.total()).sum()
    }

    /// Logs a `stats` line, and a `region` line for each region.
    pub fn log(&self, lags: &Lags, budget: &ByteBudget) {
        let regions = self.regions();
        let sum = |of: fn(&RegionStats) -> u64| regions.iter().map(|region| of(region)).sum::<u64>();
        tracing::info!(
            records_read = self.records_read.load(Relaxed),
            changes_sent = self.total(|region| &region.changes_sent),
            frames_sent = self.total(|region| &region.frames_sent),
            bytes_sent = self.total(|region| &region.bytes_sent),
            retries = self.retries(),
            dead_letters = self.dead_letters.total(),
            dead_letters_undecodable = self.dead_letters.of(ReasonClass::UndecodableRecord),
            dead_letters_refused = self.dead_letters.of(ReasonClass::Refused),
            dead_letters_waiting = self.dead_letters.waiting(),
            oversize = self.oversize.load(Relaxed),
            incomplete = self.incomplete.load(Relaxed),
            heartbeats_sent = self.heartbeats_sent.load(Relaxed),
            entries_sent = sum(|region| region.entries_answered()),
            entries_throttled = sum(|region| region.entries.of("throttled")),
            entries_failed = sum(|region| region.entries.of("failed")),
            given_up = self.total(|region| &region.given_up),
            regions_not_answering = regions.iter().filter(|region| region.does_not_answer()).count(),
            shards = lags.shards(),
            lag_ms = lags.max_ms(),
            queue_bytes = budget.bytes_in_use(),
            "stats"
        );
        regions.iter().for_each(|region| region.log());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_sent_again_count_under_the_class_of_their_error() {
        let region = RegionStats::new("eu-west-1");
        let classes = [Class::Throttled, Class::Transient, Class::Denied, Class::NotFound, Class::Permanent];
        for class in classes {
            region.retries.add(class.as_str(), 1);
        }
        let counted: Vec<_> = region.retries.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, classes.map(|class| (class.as_str(), 1)));
    }
}
