//! One shard's tenure: take the lease, read, checkpoint, until the shard ends, is lost or is drained.
//!
//! Two futures of one task: the reader, which may wait long for room downstream, and the checkpointer, which
//! goes on meanwhile. When the reader ends, what it handed on is awaited, and only then is the shard's last
//! checkpoint written.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::limits::{CHILD_SHARD_TRIES_MAX, WINDOW_RECORDS_MAX};
use crate::retry::Backoff;

use super::ack::ShardAcks;
use super::budget::ByteBudget;
use super::checkpoint::Checkpoint;
use super::kin::Kin;
use super::lag::Lags;
use super::orders::Orders;
use super::outcome::{Children, ShardExit, ShardFailure};
use super::processor::Processor;
use super::progress::{Progress, Stage};
use super::reader::{ReadEnd, Reader};
use super::source::{Shard, StreamSource};
use super::store::{Begin, Lease, Progressed, StoreError};
use super::worker::Worker;

/// Everything one shard's task needs.
pub(super) struct ShardTask<S, P> {
    pub(super) source: Arc<S>,
    pub(super) processor: Arc<P>,
    pub(super) worker: Arc<Worker>,
    pub(super) budget: ByteBudget,
    pub(super) lags: Lags,
    pub(super) tenure: Tenure,
    pub(super) orders: Orders,
    pub(super) progress: Arc<Progress>,
    /// The children that have leases already: the service need not be asked for them.
    pub(super) kin: Kin,
    /// Bounds the state writes that many shards make at once: when a worker starts, stops, or takes over.
    pub(super) state_writes: Arc<Semaphore>,
}

/// A lease to be taken, or one that is ours.
#[derive(Clone, Debug)]
pub(super) enum Tenure {
    Claimed(Lease),
    Taken(Lease),
}

/// An idle shard's lease is written at this interval, so that it shows that somebody reads it.
const SEEN_INTERVAL: Duration = Duration::from_secs(3_600);

impl<S, P> ShardTask<S, P>
where
    S: StreamSource,
    P: Processor<Record = S::Record>,
{
    /// Takes the lease, if it is not taken yet, and consumes the shard.
    pub(super) async fn run(self) -> Result<ShardExit, ShardFailure> {
        let lease = match &self.tenure {
            Tenure::Taken(lease) => lease.clone(),
            Tenure::Claimed(_) if self.orders.is_draining() => return Ok(ShardExit::Drained(None)),
            Tenure::Claimed(lease) => match Box::pin(self.take(lease)).await {
                Ok(Some(lease)) => lease,
                Ok(None) => return Ok(ShardExit::NotTaken),
                Err(error) if error.is_fenced() => return Ok(ShardExit::NotTaken),
                Err(error) => return Err(ShardFailure::NotTaken(error)),
            },
        };
        tracing::debug!(stream = &*lease.stream, shard = &*lease.shard, epoch = lease.epoch, from = %lease.checkpoint, "reading shard");
        let held = Held { task: &self, seen_ms: Mutex::new(lease.seen_ms), lease };
        held.consume().await
    }

    /// Takes the lease. What the claim was made on may be old, and a page of leases may show a child whose parent
    /// was on an earlier page: before a shard is first read, its parents are looked at one by one.
    async fn take(&self, lease: &Lease) -> Result<Option<Lease>, StoreError> {
        let _permit = self.state_writes.acquire().await;
        let store = self.worker.store();
        for parent in lease.parents.iter().filter(|_| !lease.has_started()) {
            let unfinished = |parent: Lease| !parent.checkpoint.is_end();
            if store.lease(&lease.stream, parent).await?.is_some_and(unfinished) {
                return Ok(None);
            }
        }
        store.take_lease(lease, self.worker.id()).await.map(Some)
    }
}

/// A lease that this task has.
struct Held<'a, S, P> {
    task: &'a ShardTask<S, P>,
    lease: Lease,
    /// When all that had come was last known to be done.
    seen_ms: Mutex<u64>,
}

/// The store refused a write: the lease is somebody else's.
#[derive(Debug)]
struct LeaseLost;

impl<S, P> Held<'_, S, P>
where
    S: StreamSource,
    P: Processor<Record = S::Record>,
{
    async fn consume(&self) -> Result<ShardExit, ShardFailure> {
        let acks = ShardAcks::new(WINDOW_RECORDS_MAX);
        let settled = CancellationToken::new();
        let end = {
            let checkpointer = self.keep_checkpoint(&acks, &settled);
            let reader = self.read_and_settle(&acks);
            tokio::pin!(checkpointer, reader);
            let end = tokio::select! {
                biased;
                () = self.task.orders.lost() => return Ok(ShardExit::LeaseLost),
                stopped = &mut checkpointer => return stopped.map(|_| ShardExit::LeaseLost),
                end = &mut reader => end?,
            };
            // A write that is under way is awaited: dropped, it could still arrive, after the last one.
            settled.cancel();
            match checkpointer.await? {
                Some(LeaseLost) => return Ok(ShardExit::LeaseLost),
                None => end,
            }
        };
        self.task.progress.enter(Stage::Finishing);
        let finished = match end {
            ReadEnd::ShardEnd(children) => Box::pin(self.finish(children)).await.map(ShardExit::Ended),
            ReadEnd::Drain => Box::pin(self.release(&acks)).await.map(ShardExit::Drained),
        };
        Ok(finished.unwrap_or(ShardExit::LeaseLost))
    }

    /// Writes the checkpoint as it advances. Ends when the shard must stop, or, with `None`, between two writes
    /// after everything has `settled`.
    async fn keep_checkpoint(
        &self,
        acks: &ShardAcks,
        settled: &CancellationToken,
    ) -> Result<Option<LeaseLost>, ShardFailure> {
        let mut written = None;
        let mut written_at = Instant::now();
        // Shards that were taken together do not write together for ever.
        let seen_interval = SEEN_INTERVAL.mul_f64(1.0 - fastrand::f64() / 2.0);
        let mut ticks = tokio::time::interval(self.task.worker.config().checkpoint_interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = acks.lost() => return Err(ShardFailure::RecordLost),
                () = settled.cancelled() => return Ok(None),
                _ = ticks.tick() => {}
            }
            let done = acks.status().checkpoint;
            if done == written && written_at.elapsed() < seen_interval {
                continue;
            }
            let checkpoint = done.clone().map_or_else(|| self.lease.checkpoint.clone(), Checkpoint::After);
            match Box::pin(self.write(&checkpoint)).await {
                Ok(()) => (written, written_at) = (done, Instant::now()),
                Err(error) if error.is_fenced() => return Ok(Some(LeaseLost)),
                Err(error) => {
                    tracing::warn!(shard = &*self.lease.shard, %error, "checkpoint failed; it is tried again")
                }
            }
        }
    }

    /// Reads until the shard ends or is to drain, then waits until all that was read is done.
    async fn read_and_settle(&self, acks: &ShardAcks) -> Result<ReadEnd, ShardFailure> {
        let task = self.task;
        let reader = Reader {
            source: &*task.source,
            processor: &*task.processor,
            worker: &task.worker,
            budget: &task.budget,
            lag: task.lags.track(),
            lease: &self.lease,
            orders: &task.orders,
            progress: &task.progress,
            acks,
            seen_ms: &self.seen_ms,
        };
        let end = reader.read().await?;
        task.progress.enter(Stage::Settling);
        match acks.settled().await {
            true => Ok(end),
            false => Err(ShardFailure::RecordLost),
        }
    }

    async fn write(&self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        self.task.worker.store().checkpoint(&self.lease, checkpoint, self.progressed()).await
    }

    fn progressed(&self) -> Progressed {
        Progressed { bytes_per_s: self.task.progress.bytes_per_s(), seen_ms: *self.seen_ms.lock() }
    }

    /// The shard is read to its end and all of it is done: so it is written, and then its children are taken on.
    async fn finish(&self, told: Vec<Shard>) -> Result<Children, LeaseLost> {
        self.insist(|| self.write(&Checkpoint::ShardEnd)).await?;
        let ended_at = Instant::now();
        self.task.progress.enter(Stage::Children);
        let known = self.task.kin.children(&self.lease.shard);
        let children = match told.is_empty() {
            false => told,
            true if known.is_empty() => self.find_children().await,
            true => known,
        };
        let mut found = Children::default();
        for child in children {
            // After so long others may have read it to its end, and deleted its lease: a full listing tells.
            let is_late = ended_at.elapsed() >= self.task.worker.config().lease_duration;
            match if is_late { Ok(None) } else { self.take_on(&child).await } {
                Ok(adopted) => found.adopted.extend(adopted),
                // The next full listing finds it.
                Err(error) => {
                    tracing::warn!(shard = child.id, %error, "the lease of a child could not be written")
                }
            }
            found.names.push(child.id);
        }
        Ok(found)
    }

    /// Everything read is done: the last checkpoint, and the lease is somebody else's to take.
    async fn release(&self, acks: &ShardAcks) -> Result<Option<String>, LeaseLost> {
        let last = acks.status().checkpoint.map(Checkpoint::After);
        let to = self.task.orders.recipient();
        let store = self.task.worker.store();
        self.insist(|| store.release_lease(&self.lease, last.as_ref(), self.progressed(), to)).await?;
        Ok(to.map(|to| to.worker.to_owned()))
    }

    /// Repeats a write until it is made or refused. The daemon's shutdown deadline is what ends it otherwise.
    async fn insist<F, W>(&self, write: W) -> Result<(), LeaseLost>
    where
        W: Fn() -> F,
        F: Future<Output = Result<(), StoreError>>,
    {
        let mut pauses = Backoff::default();
        loop {
            let permit = self.task.state_writes.acquire().await;
            let written = write().await;
            drop(permit);
            match written {
                Ok(()) => return Ok(()),
                Err(error) if error.is_fenced() => return Err(LeaseLost),
                Err(error) => {
                    tracing::warn!(shard = &*self.lease.shard, %error, "state write failed; it is tried again")
                }
            }
            tokio::time::sleep(pauses.next_pause()).await;
        }
    }

    /// Asks for the children of this ended shard; they appear late.
    async fn find_children(&self) -> Vec<Shard> {
        let (task, shard) = (self.task, &*self.lease.shard);
        let mut pauses = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for _ in 0..CHILD_SHARD_TRIES_MAX {
            task.progress.enter(Stage::Children);
            match task.orders.unless_draining(task.source.children(shard)).await {
                Some(Ok(listing)) if !listing.shards.is_empty() || listing.disabled => return listing.shards,
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    tracing::warn!(shard, %error, "children of an ended shard could not be listed")
                }
                None => return Vec::new(),
            }
            if task.orders.unless_draining(tokio::time::sleep(pauses.next_pause())).await.is_none() {
                return Vec::new();
            }
        }
        tracing::info!(shard, "no children of the ended shard show yet; the next full listing looks again");
        Vec::new()
    }

    /// Writes a child's lease, to be begun with its first record, and takes it if its parents are all finished and there is room for it.
    async fn take_on(&self, child: &Shard) -> Result<Option<Lease>, StoreError> {
        let (task, stream) = (self.task, &*self.lease.stream);
        let (store, me) = (task.worker.store(), task.worker.id());
        let _permit = task.state_writes.acquire().await;
        for parent in child.parents.iter().filter(|parent| **parent != *self.lease.shard) {
            match store.lease(stream, parent).await? {
                Some(lease) if lease.checkpoint.is_end() => {}
                Some(_) => {
                    store.create_child_lease(&self.lease, child, Begin::AfterParents).await?;
                    return Ok(None);
                }
                // Finished with, or never seen: a full listing tells.
                None => return Ok(None),
            }
        }
        if task.orders.is_draining() || !task.worker.has_room() {
            store.create_child_lease(&self.lease, child, Begin::AfterParents).await?;
            return Ok(None);
        }
        if let Some(lease) = store.create_child_lease(&self.lease, child, Begin::OwnedBy(me)).await? {
            return Ok(Some(lease));
        }
        match store.lease(stream, &child.id).await? {
            Some(lease) if lease.owner.is_none() && !lease.has_started() => {
                match store.take_lease(&lease, me).await {
                    Err(error) if error.is_fenced() => Ok(None),
                    taken => taken.map(Some),
                }
            }
            _ => Ok(None),
        }
    }
}
