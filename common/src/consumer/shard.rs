//! One shard: read, hand on, checkpoint, until it ends, is lost or is drained.
//!
//! Two futures of one task: the reader, which may wait long for room downstream, and the checkpointer, which
//! goes on meanwhile. When the reader ends, what it handed on is awaited, and only then is the shard's last
//! checkpoint written.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::now_ms;
use crate::limits::{CHILD_SHARD_TRIES_MAX, WINDOW_RECORDS_MAX};
use crate::retry::{Backoff, Class};

use super::ack::{Ack, ShardAcks};
use super::budget::{ByteBudget, BytePermit};
use super::checkpoint::Checkpoint;
use super::lag::{Lags, lag_ms};
use super::source::{Page, Shard, SourceError, SourceRecord, StreamSource};
use super::store::{Lease, StoreError};
use super::worker::Worker;

/// A record on its way, with the duty to report it done.
#[derive(Debug)]
pub struct Delivery<R> {
    /// The record.
    pub record: SourceRecord<R>,
    /// Consumed when the record is where it should be.
    pub ack: Ack,
}

/// What a daemon does with records.
pub trait Processor: Send + Sync + 'static {
    /// What a record is.
    type Record: Send + 'static;

    /// Takes records over, in their shard's order, and returns when it has room for more. It never fails: a
    /// record that cannot be used is set aside and done; one whose ack is dropped is read again.
    fn process(
        &self,
        stream: &str,
        shard: &str,
        deliveries: Vec<Delivery<Self::Record>>,
    ) -> impl Future<Output = ()> + Send;
}

/// How a shard's consumption ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardExit {
    /// Somebody else has the lease: nothing was checkpointed after that.
    LeaseLost,
    /// The shard is closed and all of it is done and checkpointed. Its children, as far as they show.
    Ended(Vec<Shard>),
    /// The worker stops: everything read is done and checkpointed, and the lease is released.
    Draining,
}

/// Why a shard must be started again from its checkpoint.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ShardFailure {
    /// A record's ack was dropped.
    #[error("a record was lost on its way; the shard is read again from its checkpoint")]
    RecordLost,
    /// The shard cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// Everything one shard's task needs.
pub(super) struct ShardTask<S, P> {
    pub(super) source: Arc<S>,
    pub(super) processor: Arc<P>,
    pub(super) worker: Arc<Worker>,
    pub(super) budget: ByteBudget,
    pub(super) lags: Lags,
    pub(super) lease: Lease,
    pub(super) shutdown: CancellationToken,
}

/// Why the reader stopped.
enum ReadEnd {
    ShardEnd,
    Shutdown,
}

impl<S, P> ShardTask<S, P>
where
    S: StreamSource,
    P: Processor<Record = S::Record>,
{
    /// Consumes the shard.
    pub(super) async fn run(self) -> Result<ShardExit, ShardFailure> {
        let acks = ShardAcks::new(WINDOW_RECORDS_MAX);
        let settled = CancellationToken::new();
        let end = {
            let checkpointer = self.keep_checkpoint(&acks, &settled);
            let reader = self.read_and_settle(&acks);
            tokio::pin!(checkpointer, reader);
            let end = tokio::select! {
                biased;
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
        let last = match end {
            ReadEnd::ShardEnd => Some(Checkpoint::ShardEnd),
            ReadEnd::Shutdown => acks.status().checkpoint.map(Checkpoint::After),
        };
        if let Some(last) = last
            && let Err(LeaseLost) = self.insist(|| self.worker.store().checkpoint(&self.lease, &last)).await
        {
            return Ok(ShardExit::LeaseLost);
        }
        match end {
            ReadEnd::ShardEnd => Ok(ShardExit::Ended(self.find_children().await)),
            ReadEnd::Shutdown => {
                // Lost at the very end is as good as released.
                let _released = self.insist(|| self.worker.store().release_lease(&self.lease)).await;
                Ok(ShardExit::Draining)
            }
        }
    }

    /// Writes the checkpoint as it advances. Ends when the shard must stop, or, with `None`, between two writes
    /// after everything has `settled`.
    async fn keep_checkpoint(
        &self,
        acks: &ShardAcks,
        settled: &CancellationToken,
    ) -> Result<Option<LeaseLost>, ShardFailure> {
        let mut ticks = tokio::time::interval(self.worker.config().checkpoint_interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut written = None;
        loop {
            tokio::select! {
                biased;
                () = acks.lost() => return Err(ShardFailure::RecordLost),
                () = settled.cancelled() => return Ok(None),
                _ = ticks.tick() => {}
            }
            let done = acks.status().checkpoint;
            if done == written {
                continue;
            }
            let Some(sequence) = done.clone() else { continue };
            match self.worker.store().checkpoint(&self.lease, &Checkpoint::After(sequence)).await {
                Ok(()) => written = done,
                Err(error) if error.is_fenced() => return Ok(Some(LeaseLost)),
                Err(error) => {
                    tracing::warn!(shard = self.lease.shard, %error, "checkpoint failed; it is tried again")
                }
            }
        }
    }

    /// Reads until the shard ends or the worker stops, then waits until all that was read is done.
    async fn read_and_settle(&self, acks: &ShardAcks) -> Result<ReadEnd, ShardFailure> {
        let end = self.read(acks).await?;
        match acks.settled().await {
            true => Ok(end),
            false => Err(ShardFailure::RecordLost),
        }
    }

    async fn read(&self, acks: &ShardAcks) -> Result<ReadEnd, ShardFailure> {
        let mut place = Place { checkpoint: self.lease.checkpoint.clone(), iterator: None };
        let (mut errors, mut idle) = (Backoff::default(), Idle::new(&*self.source, &self.worker));
        loop {
            let step = async {
                let permit = self.budget.reserve(self.source.pace().page_bytes_max).await;
                self.read_page(&mut place).await.map(|page| (page, permit))
            };
            let Some(answer) = self.shutdown.run_until_cancelled(step).await else {
                return Ok(ReadEnd::Shutdown);
            };
            let pause = match answer {
                Ok((page, permit)) => {
                    errors.reset();
                    let (records, next) = (page.records.len(), page.next.clone());
                    self.lags.set(self.source.stream(), &self.lease.shard, lag_ms(&page));
                    self.deliver(acks, &mut place, page, permit).await;
                    let Some(next) = next else { return Ok(ReadEnd::ShardEnd) };
                    place.iterator = Some(next);
                    idle.after(records)
                }
                Err(error) => {
                    self.recover(&mut place, error).await?;
                    errors.next_pause()
                }
            };
            if self.shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Ok(ReadEnd::Shutdown);
            }
        }
    }

    async fn read_page(&self, place: &mut Place) -> Result<Page<S::Record>, SourceError> {
        let shard = &self.lease.shard;
        let iterator = match place.iterator.take() {
            Some(iterator) => iterator,
            None => self.source.iterator(shard, &place.checkpoint).await?,
        };
        let answer = self.source.read(shard, &iterator).await;
        // Kept for the next try; an answer brings the next one.
        place.iterator = Some(iterator);
        answer
    }

    /// What to do about a failed read; an error ends the shard's task.
    async fn recover(&self, place: &mut Place, error: SourceError) -> Result<(), ShardFailure> {
        let shard = &self.lease.shard;
        match &error {
            SourceError::IteratorExpired(_) => {
                tracing::info!(shard, from = %place.checkpoint, "iterator expired; a new one is made");
                place.iterator = None;
            }
            SourceError::Trimmed(_) => self.record_gap(place).await,
            SourceError::Call(call) => match call.class {
                Class::Throttled => tracing::debug!(shard, %error, "read throttled"),
                Class::Transient | Class::Denied => {
                    tracing::warn!(shard, %error, class = call.class.as_str(), "read failed; it is tried again");
                }
                Class::NotFound | Class::Permanent => return Err(error.into()),
            },
        }
        Ok(())
    }

    /// Records between the checkpoint and the oldest one there is are gone: never in silence.
    async fn record_gap(&self, place: &mut Place) {
        let (stream, shard) = (self.source.stream(), &self.lease.shard);
        tracing::error!(
            stream,
            shard,
            after = %place.checkpoint,
            "gap: records were trimmed before they were read; the table needs a backfill"
        );
        let store = self.worker.store();
        if let Err(error) = store.record_gap(&self.lease, &place.checkpoint, now_ms()).await {
            tracing::error!(stream, shard, %error, "the gap could not be recorded in the state table; it is tried again");
            // The next read answers the same: nothing is passed over before the gap is on record.
            return;
        }
        *place = Place { checkpoint: Checkpoint::TrimHorizon, iterator: None };
    }

    /// Hands a page on. Once begun it is not interrupted: a record without its ack would be lost.
    async fn deliver(
        &self,
        acks: &ShardAcks,
        place: &mut Place,
        page: Page<S::Record>,
        mut permit: BytePermit,
    ) {
        let mut deliveries = Vec::with_capacity(page.records.len());
        for record in page.records {
            if let Some(sequence) = &record.sequence {
                place.checkpoint = Checkpoint::After(sequence.clone());
            }
            let ack = acks.track(record.sequence.clone(), permit.take(record.bytes)).await;
            if self.is_before_start(&record) {
                ack.done();
            } else {
                deliveries.push(Delivery { record, ack });
            }
        }
        drop(permit);
        if !deliveries.is_empty() {
            self.processor.process(self.source.stream(), &self.lease.shard, deliveries).await;
        }
    }

    /// Not every source can seek by time: what comes too early is passed over. A record whose time is not known
    /// (0) is not.
    fn is_before_start(&self, record: &SourceRecord<S::Record>) -> bool {
        matches!(self.lease.checkpoint, Checkpoint::AtTime(start_ms)
            if (1..start_ms).contains(&record.created_ms))
    }

    /// Repeats a write until it is made or refused. The daemon's shutdown deadline is what ends it otherwise.
    async fn insist<F, W>(&self, write: W) -> Result<(), LeaseLost>
    where
        W: Fn() -> F,
        F: Future<Output = Result<(), StoreError>>,
    {
        let mut pauses = Backoff::default();
        loop {
            match write().await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_fenced() => return Err(LeaseLost),
                Err(error) => {
                    tracing::warn!(shard = self.lease.shard, %error, "state write failed; it is tried again")
                }
            }
            tokio::time::sleep(pauses.next_pause()).await;
        }
    }

    /// Asks for the children of this ended shard; they appear late.
    async fn find_children(&self) -> Vec<Shard> {
        let shard = &self.lease.shard;
        let mut pauses = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for _ in 0..CHILD_SHARD_TRIES_MAX {
            let ask = self.source.children(shard);
            match self.shutdown.run_until_cancelled(ask).await {
                Some(Ok(children)) if !children.is_empty() => return children,
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    tracing::warn!(shard, %error, "children of an ended shard could not be listed")
                }
                None => return Vec::new(),
            }
            if self.shutdown.run_until_cancelled(tokio::time::sleep(pauses.next_pause())).await.is_none() {
                return Vec::new();
            }
        }
        tracing::info!(shard, "no children of the ended shard show yet; the next full listing looks again");
        Vec::new()
    }
}

/// The store refused a write: the lease is somebody else's.
#[derive(Debug)]
struct LeaseLost;

/// Where the reader is.
struct Place {
    /// After the last record that was handed on.
    checkpoint: Checkpoint,
    /// Where to read on; made anew from the checkpoint when there is none.
    iterator: Option<String>,
}

/// An idle shard is read less and less often, a busy one as often as its service allows.
struct Idle {
    min: Duration,
    max: Duration,
    pause: Duration,
}

impl Idle {
    fn new<S: StreamSource>(source: &S, worker: &Worker) -> Self {
        let min = source.pace().interval_min;
        Self { min, max: worker.config().idle_poll_max.max(min), pause: min }
    }

    fn after(&mut self, records: usize) -> Duration {
        self.pause = if records > 0 { self.min } else { self.pause.saturating_mul(2).min(self.max) };
        self.pause
    }
}
