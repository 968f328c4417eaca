//! What a worker counts of its reading and its leases. Fed once for each page, call or change of a lease.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::clock::now_ms;
use crate::metrics::{CounterSet, Histogram, LAG_BUCKETS_S};
use crate::retry::Class;

use super::lineage::Lineage;
use super::outcome::ShardFailure;
use super::source::{Page, SourceError};
use super::store::Lease;

/// The leases of the fleet's streams, by how they stand to one worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseStates {
    /// This worker's.
    pub own: usize,
    /// Of other workers.
    pub others: usize,
    /// Nobody's, though they may be read.
    pub free: usize,
    /// Nobody's, and not to be read before their parents are finished.
    pub waiting: usize,
    /// Of shards that were read to their end.
    pub finished: usize,
}

impl LeaseStates {
    /// Adds a lease as it stands to the worker `me`.
    pub(super) fn add(&mut self, lease: &Lease, me: &str, lineage: &Lineage) {
        let state = match &lease.owner {
            _ if lease.checkpoint.is_end() => &mut self.finished,
            Some(owner) if owner == me => &mut self.own,
            Some(_) => &mut self.others,
            None if lineage.may_start(&lease.shard) => &mut self.free,
            None => &mut self.waiting,
        };
        *state += 1;
    }
}

/// Counters since the process started.
#[derive(Debug)]
pub struct Counters {
    pub(super) records_read: AtomicU64,
    pub(super) bytes_read: AtomicU64,
    /// By what came of them.
    pub(super) reads: CounterSet,
    /// Record created → read.
    pub(super) read_lag: Histogram,
    /// Shards that were started again, by why.
    pub(super) shard_failures: CounterSet,
    pub(super) gaps: AtomicU64,
    pub(super) lease_changes: CounterSet,
    pub(super) checkpoints: AtomicU64,
    pub(super) heartbeats: CounterSet,
    leases: Mutex<LeaseStates>,
}

impl Default for Counters {
    fn default() -> Self {
        let reasons = ["lease", "record_lost", "source", "stood_still", "stuck", "panicked"];
        Self {
            records_read: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
            reads: CounterSet::new(&["ok", "throttled", "expired", "trimmed", "failed"]),
            read_lag: Histogram::new(&LAG_BUCKETS_S),
            shard_failures: CounterSet::new(&reasons),
            gaps: AtomicU64::new(0),
            lease_changes: CounterSet::new(&["taken", "lost", "released", "moved", "ended"]),
            checkpoints: AtomicU64::new(0),
            heartbeats: CounterSet::new(&["ok", "failed"]),
            leases: Mutex::default(),
        }
    }
}

impl Counters {
    /// Records read.
    pub fn records_read(&self) -> u64 {
        self.records_read.load(Relaxed)
    }

    /// Reads of shards that were answered with a page.
    pub fn reads_answered(&self) -> u64 {
        self.reads.of("ok")
    }

    /// The leases, as they were looked at last.
    pub fn leases(&self) -> LeaseStates {
        *self.leases.lock()
    }

    pub(super) fn leases_are(&self, states: LeaseStates) {
        *self.leases.lock() = states;
    }

    /// A read of a shard was answered.
    pub(super) fn read<R>(&self, answer: &Result<Page<R>, SourceError>) {
        match answer {
            Ok(page) => {
                self.records_read.fetch_add(page.records.len() as u64, Relaxed);
                let bytes: usize = page.records.iter().map(|record| record.bytes).sum();
                self.bytes_read.fetch_add(bytes as u64, Relaxed);
                self.reads.add("ok", 1);
            }
            Err(error) => self.read_failed(error),
        }
    }

    /// A shard could not be read, or the place to read from not be found.
    pub(super) fn read_failed(&self, error: &SourceError) {
        let result = match error {
            SourceError::IteratorExpired(_) => "expired",
            SourceError::Trimmed(_) => "trimmed",
            SourceError::Call(call) if call.class == Class::Throttled => "throttled",
            SourceError::Call(_) => "failed",
        };
        self.reads.add(result, 1);
    }

    /// How old the records of a page are. Neighbours are mostly of one time: they are one step.
    pub(super) fn observe_lags<R>(&self, page: &Page<R>) {
        let now_ms = now_ms();
        for run in page.records.chunk_by(|one, next| one.created_ms == next.created_ms) {
            let created_ms = run.first().map_or(0, |record| record.created_ms);
            self.read_lag.observe_lag(created_ms, now_ms, run.len() as u64);
        }
    }

    pub(super) fn shard_failed(&self, failure: &ShardFailure) {
        let reason = match failure {
            ShardFailure::NotTaken(_) => "lease",
            ShardFailure::RecordLost => "record_lost",
            ShardFailure::Source(_) => "source",
            ShardFailure::StoodStill => "stood_still",
            ShardFailure::Stuck(_) => "stuck",
            ShardFailure::Panicked => "panicked",
        };
        self.shard_failures.add(reason, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::SourceRecord;

    #[test]
    fn a_page_is_counted_with_every_record_and_its_lag() {
        let counters = Counters::default();
        let created = [now_ms() - 2_000, now_ms() - 2_000, now_ms() - 70_000, 0];
        let record = |created_ms| SourceRecord { sequence: None, created_ms, bytes: 100, body: () };
        let records: Vec<_> = created.into_iter().map(record).collect();
        let page = Page { records, next: None, children: Vec::new(), behind: None };
        counters.observe_lags(&page);
        counters.read(&Ok(page));
        assert_eq!((counters.records_read(), counters.bytes_read.load(Relaxed)), (4, 400));
        assert_eq!(counters.reads.iter().map(|(_, count)| count).collect::<Vec<_>>(), [1, 0, 0, 0, 0]);
        assert_eq!(counters.read_lag.count(), 3, "of one it is not known when it was created");
        assert!((74.0..80.0).contains(&counters.read_lag.sum()), "{}", counters.read_lag.sum());
    }
}
