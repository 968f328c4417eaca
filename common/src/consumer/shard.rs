//! One shard's tenure: take the lease, read, checkpoint, until the shard ends, is lost or is drained.
//!
//! Two futures of one task: the reader, which may wait long for room downstream, and the checkpointer, which
//! goes on meanwhile. When the reader ends, what it handed on is awaited, and only then is the shard's last
//! checkpoint written.

mod children;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::now_ms;
use crate::fence::Fence;
use crate::limits::WINDOW_RECORDS_MAX;
use crate::retry::Backoff;

use super::ack::{AckStatus, ShardAcks};
use super::budget::ByteBudget;
use super::catch_up::{CatchUp, LaneContext};
use super::checkpoint::Checkpoint;
use super::history::History;
use super::kin::Kin;
use super::lag::Lags;
use super::lanes::Lanes;
use super::onset::{onset, rewind_checkpoint, rewinding};
use super::orders::Orders;
use super::outcome::{Adopted, ShardExit, ShardFailure};
use super::parked::{LaneOnset, Parked, ParkedLanes, lane_onset};
use super::processor::Processor;
use super::progress::{Progress, Stage};
use super::reader::{ReadEnd, Reader};
use super::rewind::Rewinds;
use super::settling::Settling;
use super::source::StreamSource;
use super::store::{Ended, Lease, Onset, Progressed, StoreError};
use super::worker::Worker;

use children::least_watermark;

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
    /// This process did not have the lease a moment ago.
    pub(super) is_new: bool,
    /// The children that have leases already: the service need not be asked for them.
    pub(super) kin: Kin,
    pub(super) rewinds: Rewinds,
    pub(super) lanes: Arc<LaneContext>,
    pub(super) fence: Option<Arc<Fence>>,
    /// Bounds the state writes that many shards make at once: when a worker starts, stops, or takes over.
    pub(super) state_writes: Arc<Semaphore>,
}

/// A lease to be taken, or one that is ours.
#[derive(Clone, Debug)]
pub(super) enum Tenure {
    Claimed(Lease),
    Taken(Adopted),
    /// Ours, to be begun again at this checkpoint.
    Rewinding(Lease, Checkpoint),
}

impl Tenure {
    /// The lease as it is before the task runs, and its epoch when the task has it.
    pub(super) fn lease(&self) -> (&Lease, u64) {
        match self {
            Self::Claimed(lease) | Self::Rewinding(lease, _) => (lease, lease.epoch + 1),
            Self::Taken(child) => (&child.lease, child.lease.epoch),
        }
    }
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
        let begun = Instant::now();
        let Adopted { lease, since_ms } = match Box::pin(self.begin()).await {
            Ok(Some(adopted)) => adopted,
            Ok(None) if self.orders.is_draining() => return Ok(ShardExit::Drained(None)),
            Ok(None) => return Ok(ShardExit::NotTaken),
            Err(error) if error.is_fenced() => return Ok(ShardExit::NotTaken),
            Err(error) => return Err(ShardFailure::NotTaken(error)),
        };
        if self.is_new {
            self.worker.counters().lease_changes.add("taken", 1);
        }
        tracing::debug!(stream = &*lease.stream, shard = &*lease.shard, epoch = lease.epoch, from = %lease.checkpoint, "reading shard");
        let kept = self.rewinds.config().map(|rewind| Kept {
            history: Mutex::new(History::new(
                rewind.by,
                rewind_checkpoint(&lease),
                lease.checkpoint.clone(),
                Instant::now(),
            )),
            settling: Mutex::new(Settling::new(rewind.settle, lease.settling_ms)),
        });
        let seen_ms = Mutex::new(lease.seen_ms);
        Held { task: &self, lease, since_ms, begun, kept, seen_ms }.consume().await
    }

    /// The lease as it is to be read; `None` if it is not to be had.
    async fn begin(&self) -> Result<Option<Adopted>, StoreError> {
        let lease = match &self.tenure {
            Tenure::Taken(child) => return Ok(Some(child.clone())),
            Tenure::Claimed(_) if self.orders.is_draining() => return Ok(None),
            Tenure::Claimed(lease) | Tenure::Rewinding(lease, _) => lease,
        };
        let _permit = self.state_writes.acquire().await;
        let (target, whole) = (self.rewinds.target(), self.source.is_whole());
        let (onset, since_ms, parents) = match &self.tenure {
            Tenure::Rewinding(_, to) => {
                let onset = target.as_deref().map(|target| rewinding(lease, to.clone(), target, whole));
                (onset, None, Vec::new())
            }
            _ => {
                let Some(parents) = self.finished_parents(lease).await? else { return Ok(None) };
                let onset = target.as_deref().map(|target| onset(lease, &parents, target, whole));
                // Of a parent that is gone nobody knows.
                let all_tell = parents.len() == lease.parents.len();
                (onset, all_tell.then(|| least_watermark(&parents)).flatten(), parents)
            }
        };
        let onset = Onset { lanes: self.lane_onset(lease, &parents), ..onset.unwrap_or_default() };
        let begun = self.worker.store().begin_tenure(lease, self.worker.id(), &onset).await?;
        if let Onset { back_to: Some(to), .. } = &onset {
            self.rewinds.rewound();
            tracing::info!(stream = &*begun.stream, shard = &*begun.shard, %to, "shard is rewound");
        }
        Ok(Some(Adopted { lease: begun, since_ms }))
    }

    /// How the lease begins for the lanes, if there are any.
    fn lane_onset(&self, lease: &Lease, parents: &[Lease]) -> Option<LaneOnset> {
        let lanes = &self.lanes.lanes;
        (!lanes.is_empty()).then(|| lane_onset(lease, parents, lanes, now_ms()))
    }

    /// What the claim was made on may be old, and a page of leases may show a child whose parent was on an earlier
    /// page: before a shard is first read, its parents are looked at one by one. `None` if one is not finished; else
    /// the leases of those that have any.
    async fn finished_parents(&self, lease: &Lease) -> Result<Option<Vec<Lease>>, StoreError> {
        let mut parents = Vec::new();
        for parent in lease.parents.iter().filter(|_| !lease.has_started()) {
            match self.worker.store().lease(&lease.stream, parent).await? {
                Some(parent) if !parent.checkpoint.is_end() => return Ok(None),
                parent => parents.extend(parent),
            }
        }
        Ok(Some(parents))
    }
}

/// A lease that this task has.
struct Held<'a, S, P> {
    task: &'a ShardTask<S, P>,
    lease: Lease,
    /// Before this nothing in the shard was created, if it is only begun.
    since_ms: Option<u64>,
    /// Before the lease was proven.
    begun: Instant,
    /// If shards are rewound.
    kept: Option<Kept>,
    /// When all that had come was last known to be done.
    seen_ms: Mutex<u64>,
}

/// What is kept of a tenure for when what was done lately may be lost.
struct Kept {
    history: Mutex<History>,
    settling: Mutex<Settling>,
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
        let acks = self.acks();
        if self.lease.checkpoint.is_end() {
            return self.consume_parked(&acks).await;
        }
        if let Some(since_ms) = self.since_ms {
            acks.mark_all(since_ms);
        }
        let Lease { stream, shard, epoch, .. } = &self.lease;
        let others = self.others().map(|(name, _)| name.clone()).collect();
        // Before it is held, and so dropped after that: what is abandoned must be in nobody's word any more.
        let _watched = self.task.lanes.watch(&acks);
        let holding = self.task.worker.holdings().hold(stream, shard, *epoch, acks.clone(), others);
        let settled = CancellationToken::new();
        let end = {
            let checkpointer = self.keep_checkpoint(&acks, &settled);
            let reader = self.read_and_settle(&acks);
            tokio::pin!(checkpointer, reader);
            let end = tokio::select! {
                biased;
                () = self.task.orders.lost() => return Ok(ShardExit::LeaseLost),
                _ = self.task.rewinds.target_other_than(self.lease.target.as_deref()) => {
                    let to = self.progressed(&acks.status()).rewind.unwrap_or_else(|| rewind_checkpoint(&self.lease));
                    return Ok(ShardExit::Rewinding(Box::new(self.lease.clone()), to));
                }
                stopped = &mut checkpointer => return stopped.map(|_| ShardExit::LeaseLost),
                end = &mut reader => end?,
                never = self.catch_up(&acks) => match never {},
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
            ReadEnd::ShardEnd(children) => match Box::pin(self.finish(&acks)).await {
                Ok(ended) => {
                    drop(holding);
                    let parked = self.parked(&acks.status());
                    Ok(ShardExit::Ended(Box::pin(self.pass_on(ended, parked, children)).await))
                }
                Err(lost) => Err(lost),
            },
            ReadEnd::Drain => Box::pin(self.release(&acks)).await.map(ShardExit::Drained),
        };
        Ok(finished.unwrap_or(ShardExit::LeaseLost))
    }

    /// The shard was read to its end: what is left of it is to be caught up.
    async fn consume_parked(&self, acks: &ShardAcks) -> Result<ShardExit, ShardFailure> {
        let _watched = self.task.lanes.watch_ended(acks);
        self.task.progress.enter(Stage::CatchingUp);
        let settled = CancellationToken::new();
        let checkpointer = self.keep_checkpoint(acks, &settled);
        tokio::pin!(checkpointer);
        let is_over = tokio::select! {
            biased;
            () = self.task.orders.lost() => return Ok(ShardExit::LeaseLost),
            stopped = &mut checkpointer => return stopped.map(|_| ShardExit::LeaseLost),
            () = self.catch_up_to_end(acks) => true,
            () = self.task.orders.draining() => false,
        };
        settled.cancel();
        if checkpointer.await?.is_some() {
            return Ok(ShardExit::LeaseLost);
        }
        self.task.progress.enter(Stage::Finishing);
        let store = self.task.worker.store();
        let finished = match is_over {
            true => {
                let write =
                    || store.checkpoint(&self.lease, &self.lease.checkpoint, self.progressed(&acks.status()));
                self.insist(write).await.map(|()| ShardExit::CaughtUp)
            }
            false => Box::pin(self.release(acks)).await.map(ShardExit::Drained),
        };
        Ok(finished.unwrap_or(ShardExit::LeaseLost))
    }

    /// The window, with the lanes as the lease has them.
    fn acks(&self) -> ShardAcks {
        let lanes = self.task.lanes.lanes.iter().enumerate();
        let (mut attached, mut parked) = (Lanes::NONE, BTreeMap::new());
        for (place, lane) in lanes {
            match self.lease.parked.get(&*lane.name) {
                Some(of_lane) => drop(parked.insert(place, of_lane.clone())),
                None => attached = attached.or(Lanes::one(place)),
            }
        }
        let (start, may_park) = (self.lease.checkpoint.clone(), self.task.lanes.may_park());
        ShardAcks::with_parking(WINDOW_RECORDS_MAX, start, attached, parked, may_park)
    }

    /// The lanes that are parked, those that this process does not know included.
    fn parked(&self, status: &AckStatus) -> ParkedLanes {
        let lanes = &self.task.lanes.lanes;
        let named =
            |(place, parked): (&usize, &Parked)| Some((lanes.get(*place)?.name.to_string(), parked.clone()));
        self.others()
            .map(|(name, parked)| (name.clone(), parked.clone()))
            .chain(status.parked.iter().filter_map(named))
            .collect()
    }

    fn others(&self) -> impl Iterator<Item = (&String, &Parked)> {
        let is_known = |name: &str| self.task.lanes.lanes.iter().any(|lane| *lane.name == *name);
        self.lease.parked.iter().filter(move |(name, _)| !is_known(name))
    }

    async fn catch_up(&self, acks: &ShardAcks) -> Infallible {
        self.catch_up_to_end(acks).await;
        // Of a shard that is open there is always more to come.
        std::future::pending().await
    }

    async fn catch_up_to_end(&self, acks: &ShardAcks) {
        let task = self.task;
        let catch_up = CatchUp {
            source: &*task.source,
            processor: &*task.processor,
            worker: &task.worker,
            lanes: &task.lanes,
            lease: &self.lease,
            acks,
            has_others: self.others().next().is_some(),
        };
        catch_up.run().await;
    }

    /// Writes the checkpoint as it advances. Ends when the shard must stop, or, with `None`, between two writes
    /// after everything has `settled`.
    async fn keep_checkpoint(
        &self,
        acks: &ShardAcks,
        settled: &CancellationToken,
    ) -> Result<Option<LeaseLost>, ShardFailure> {
        let mut written = (None, self.lease.parked.clone());
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
            let status = acks.status();
            let (done, parked) = (status.checkpoint.clone(), self.parked(&status));
            let checkpoint = done.clone().map_or_else(|| self.lease.checkpoint.clone(), Checkpoint::After);
            if let Some(kept) = &self.kept {
                kept.history.lock().observe(&checkpoint, status.arrivals, Instant::now());
            }
            let now = (done, parked);
            if now == written && written_at.elapsed() < seen_interval {
                continue;
            }
            self.tell_parked(&written.1, &now.1);
            let store = self.task.worker.store();
            match Box::pin(store.checkpoint(&self.lease, &checkpoint, self.progressed(&status))).await {
                Ok(()) => {
                    self.task.worker.counters().checkpoints.fetch_add(1, Relaxed);
                    (written, written_at) = (now, Instant::now());
                }
                Err(error) if error.is_fenced() => return Ok(Some(LeaseLost)),
                Err(error) => {
                    tracing::warn!(stream = &*self.lease.stream, shard = &*self.lease.shard, %error, "checkpoint failed; it is tried again")
                }
            }
        }
    }

    /// Logs which lanes were parked since.
    fn tell_parked(&self, before: &ParkedLanes, now: &ParkedLanes) {
        let Lease { stream, shard, .. } = &self.lease;
        for (lane, Parked { checkpoint, why, .. }) in
            now.iter().filter(|(lane, _)| !before.contains_key(*lane))
        {
            tracing::warn!(stream = &**stream, shard = &**shard, region = lane, reason = why, at = %checkpoint, "parked: the others go on without it");
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
            lag: task.lags.track(&self.lease.stream, &self.lease.shard),
            lease: &self.lease,
            orders: &task.orders,
            progress: &task.progress,
            acks,
            lanes: &task.lanes,
            seen_ms: &self.seen_ms,
            fence: task.fence.as_deref(),
            begun: self.begun,
            settling: self.kept.as_ref().map(|kept| &kept.settling),
        };
        let end = reader.read().await?;
        task.progress.enter(Stage::Settling);
        match acks.settled().await {
            true => Ok(end),
            false => Err(ShardFailure::RecordLost),
        }
    }

    fn progressed(&self, status: &AckStatus) -> Progressed {
        let kept = self.kept.as_ref();
        let has_lanes = !self.task.lanes.lanes.is_empty() || !self.lease.parked.is_empty();
        Progressed {
            bytes_per_s: self.task.progress.bytes_per_s(),
            seen_ms: *self.seen_ms.lock(),
            rewind: kept.map(|kept| kept.history.lock().point()),
            settling_ms: kept.and_then(|kept| kept.settling.lock().until_ms()),
            parked: has_lanes.then(|| self.parked(status)),
        }
    }

    /// The shard is read to its end and all of it is done: so it is written.
    async fn finish(&self, acks: &ShardAcks) -> Result<Ended, LeaseLost> {
        let ended = Ended { at_ms: now_ms(), watermark_ms: acks.watermark_ms() };
        let store = self.task.worker.store();
        self.insist(|| store.finish_lease(&self.lease, ended, self.progressed(&acks.status()))).await?;
        self.task.rewinds.ended(&self.lease.shard, self.lease.target.as_deref());
        Ok(ended)
    }

    /// Everything read is done: the last checkpoint, and the lease is somebody else's to take.
    async fn release(&self, acks: &ShardAcks) -> Result<Option<String>, LeaseLost> {
        let status = acks.status();
        let last = status.checkpoint.clone().map(Checkpoint::After);
        let to = self.task.orders.recipient();
        let store = self.task.worker.store();
        self.insist(|| store.release_lease(&self.lease, last.as_ref(), self.progressed(&status), to)).await?;
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
                Ok(()) => {
                    self.task.worker.counters().checkpoints.fetch_add(1, Relaxed);
                    return Ok(());
                }
                Err(error) if error.is_fenced() => return Err(LeaseLost),
                Err(error) => {
                    tracing::warn!(stream = &*self.lease.stream, shard = &*self.lease.shard, %error, "state write failed; it is tried again")
                }
            }
            tokio::time::sleep(pauses.next_pause()).await;
        }
    }
}
