//! What the cache-writer does with one shard: applies its records in their order, keeps a checkpoint and an older
//! one to rewind to, holds a lease, and stops landing anything when the lease is lost.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use fastrand::Rng;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use warmcast_cache::{Cache, CacheError};
use warmcast_proto::change::{Change, ChangeKind};

use crate::log::{LATE, Master, Record};

/// How far the rewind checkpoint is behind, by the records' arrival and by the time in which the writer got on. In
/// production: two minutes. Longer than [`LATE`], a failover, and finding out about it take together.
const REWIND: Duration = Duration::from_secs(6);

/// How long a lease is held after its renewal began.
const LEASE: Duration = Duration::from_millis(800);

/// The most of a pause between two batches that counts as getting on.
const STEP_MAX: Duration = Duration::from_millis(100);

const BATCH_MAX: usize = 100;
const RETRY_PAUSE: Duration = Duration::from_millis(30);

/// A point in the stream: everything before `next` is applied.
#[derive(Clone, Copy)]
struct Checkpoint {
    next: usize,
    arrived: Option<Instant>,
    /// How long the shard's writers had been getting on.
    progress: Duration,
}

/// What is stored of the shard, for whoever takes it over.
pub(crate) struct Lease {
    /// Counts the takeovers.
    owner: u64,
    held_until: Instant,
    checkpoint: Checkpoint,
    /// Later ones than the one to rewind to, which is the first.
    older: VecDeque<Checkpoint>,
    /// Records that arrived until then count as late: what supersedes them may be before the point that was rewound
    /// to.
    settled_at: Option<Instant>,
    pub(crate) rewinds: u32,
}

impl Lease {
    pub(crate) fn new() -> Self {
        let checkpoint = Checkpoint { next: 0, arrived: None, progress: Duration::ZERO };
        Self {
            owner: 0,
            held_until: Instant::now(),
            checkpoint,
            older: VecDeque::from([checkpoint]),
            settled_at: None,
            rewinds: 0,
        }
    }

    /// Gives the shard to another writer.
    pub(crate) fn take_over(&mut self) -> u64 {
        self.owner += 1;
        self.owner
    }

    pub(crate) fn next(&self) -> usize {
        self.checkpoint.next
    }

    fn advance(&mut self, batch: &[Record], step: Duration) {
        let current = Checkpoint {
            next: self.checkpoint.next + batch.len(),
            arrived: batch.last().map_or(self.checkpoint.arrived, |record| Some(record.arrived)),
            progress: self.checkpoint.progress + step.min(STEP_MAX),
        };
        self.checkpoint = current;
        if !batch.is_empty() {
            self.older.push_back(current);
        }
        let is_old = |candidate: &Checkpoint| {
            candidate.progress + REWIND <= current.progress
                && candidate
                    .arrived
                    .is_none_or(|arrived| current.arrived.is_some_and(|now| arrived + REWIND <= now))
        };
        while self.older.get(1).is_some_and(is_old) {
            self.older.pop_front();
        }
    }

    fn rewind(&mut self) {
        self.rewinds += 1;
        self.older.truncate(1);
        // From here on the shard gets on anew.
        let Checkpoint { next, arrived, .. } = self.older[0];
        self.checkpoint = Checkpoint { next, arrived, progress: self.checkpoint.progress };
        self.older[0] = self.checkpoint;
        self.settled_at = arrived.map(|arrived| arrived + LATE);
    }
}

pub(crate) type SharedLease = Arc<Mutex<Lease>>;

pub(crate) fn lock(lease: &SharedLease) -> MutexGuard<'_, Lease> {
    lease.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) struct Writer {
    pub(crate) cache: Cache,
    pub(crate) master: Arc<Master>,
    pub(crate) lease: SharedLease,
    /// The writer's number among those that had the shard.
    pub(crate) number: u64,
    pub(crate) rng: Rng,
}

impl Writer {
    /// Writes until told to stop, or until it notices that it has lost the shard: by what it can no longer land.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut failovers = self.cache.failovers();
        // Whoever had the shard before can land nothing from then on.
        let until = lock(&self.lease).held_until;
        tokio::time::sleep_until(until).await;
        failovers.mark_unchanged();
        if self.number > 0 {
            lock(&self.lease).rewind();
        }
        let mut last = Instant::now();
        while !stop.is_cancelled() {
            self.renew();
            if failovers.has_changed().unwrap() {
                failovers.mark_unchanged();
                let mut lease = lock(&self.lease);
                if lease.owner == self.number {
                    lease.rewind();
                }
            }
            let (next, settled_at) = {
                let lease = lock(&self.lease);
                (lease.next(), lease.settled_at)
            };
            let batch = self.master.records(next, self.rng.usize(1..=BATCH_MAX));
            if !self.apply(&batch, settled_at).await {
                return;
            }
            // What was applied while the cache failed over is not done.
            if !failovers.has_changed().unwrap() {
                let mut lease = lock(&self.lease);
                if lease.owner == self.number {
                    lease.advance(&batch, last.elapsed());
                }
            }
            last = Instant::now();
            if batch.len() < BATCH_MAX / 4 {
                sleep(Duration::from_millis(self.rng.u64(1..15))).await;
            }
        }
    }

    fn renew(&self) {
        let began = Instant::now();
        let mut lease = lock(&self.lease);
        if lease.owner == self.number {
            lease.held_until = began + LEASE;
            self.cache.hold_until(lease.held_until);
        }
    }

    /// Applies until each change has a final answer; false: the lease is lost.
    async fn apply(&self, batch: &[Record], settled_at: Option<Instant>) -> bool {
        let is_late = |record: &Record| {
            record.arrived.duration_since(record.built) > LATE
                || settled_at.is_some_and(|settled_at| record.arrived <= settled_at)
        };
        // A late change may be superseded by one that nobody remembers: only its position is of use.
        let known = |record: &Record| match is_late(record) {
            true => Change { kind: ChangeKind::Invalidate, payload: Bytes::new(), ..record.change.clone() },
            false => record.change.clone(),
        };
        let changes: Vec<Change> = batch.iter().map(known).collect();
        let mut open: Vec<&Change> = changes.iter().collect();
        while !open.is_empty() {
            let answers = self.cache.apply(&open).await;
            let mut again = Vec::new();
            for (change, answer) in open.iter().zip(answers) {
                match answer {
                    Ok(_) => {}
                    Err(CacheError::Unavailable { .. }) => again.push(*change),
                    Err(CacheError::PastDeadline { .. }) => {
                        self.renew();
                        if lock(&self.lease).owner != self.number {
                            return false;
                        }
                        again.push(*change);
                    }
                    Err(error @ CacheError::Refused { .. }) => panic!("{error}"),
                }
            }
            open = again;
            if !open.is_empty() {
                sleep(RETRY_PAUSE).await;
                self.renew();
            }
        }
        true
    }
}
