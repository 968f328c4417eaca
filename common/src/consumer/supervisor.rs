//! All shards of one stream: which are listed, which are ours, which are running.
//!
//! One loop decides; shard tasks do the reading. A shard that fails is started again after a pause, alone; its
//! neighbours go on.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::aws::CallError;
use crate::clock::now_ms;
use crate::retry::Backoff;

use super::budget::ByteBudget;
use super::checkpoint::Checkpoint;
use super::lag::Lags;
use super::lineage::Lineage;
use super::shard::{Processor, ShardExit, ShardFailure, ShardTask};
use super::source::{Shard, StreamSource};
use super::store::{Lease, StoreError};
use super::worker::Worker;

/// Where a stream that was never consumed before is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerConfig {
    /// `true`: with the oldest record there is. `false`: with what comes from now on, and a little before.
    pub from_trim_horizon: bool,
}

/// Begins "from now" this much earlier. Sources round creation times down: DynamoDB Streams to the second,
/// Amazon's DynamoDB Local to the minute. Applying a record twice is harmless.
const NOW_MARGIN_MS: u64 = 120_000;

/// The longest pause before a failed shard is started again.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Consumes a stream.
pub struct Consumer<S, P> {
    source: Arc<S>,
    processor: Arc<P>,
    worker: Arc<Worker>,
    budget: ByteBudget,
    lags: Lags,
    config: ConsumerConfig,
    /// Children of ended shards, which may show here before they show in a listing.
    children: Vec<Shard>,
    tasks: JoinSet<Result<ShardExit, ShardFailure>>,
    running: HashMap<Id, String>,
    failed: HashMap<String, Failed>,
}

/// A shard that waits to be started again.
struct Failed {
    pauses: Backoff,
    start_at: Instant,
    not_found: bool,
}

impl<S, P> Consumer<S, P>
where
    S: StreamSource,
    P: Processor<Record = S::Record>,
{
    /// A consumer of `source` that hands records to `processor`.
    pub fn new(
        source: S,
        processor: Arc<P>,
        worker: Arc<Worker>,
        budget: ByteBudget,
        lags: Lags,
        config: ConsumerConfig,
    ) -> Self {
        Self {
            source: Arc::new(source),
            processor,
            worker,
            budget,
            lags,
            config,
            children: Vec::new(),
            tasks: JoinSet::new(),
            running: HashMap::new(),
            failed: HashMap::new(),
        }
    }

    /// Runs until `shutdown`, then drains every shard.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut errors = Backoff::default();
        let mut next_sync = Instant::now();
        while !shutdown.is_cancelled() {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                Some(ended) = self.tasks.join_next_with_id() => {
                    if self.task_ended(ended) {
                        next_sync = Instant::now();
                    }
                }
                () = tokio::time::sleep_until(next_sync) => {
                    let began = Instant::now();
                    let pause = match shutdown.run_until_cancelled(self.sync(&shutdown)).await {
                        Some(Ok(())) => {
                            errors.reset();
                            self.worker.config().sync_interval
                        }
                        Some(Err(error)) => {
                            tracing::error!(stream = self.source.stream(), %error, "shards or leases could not be read; trying again");
                            errors.next_pause()
                        }
                        None => Duration::ZERO,
                    };
                    let regular = Instant::now() + pause;
                    next_sync = self.next_start(began).map_or(regular, |at| at.min(regular));
                }
            }
        }
        while let Some(ended) = self.tasks.join_next_with_id().await {
            self.task_ended(ended);
        }
    }

    /// Lists shards, writes leases for new ones, takes what is free, and starts what may be read.
    async fn sync(&mut self, shutdown: &CancellationToken) -> Result<(), SyncError> {
        let listing = self.source.shards().await?;
        let store = self.worker.store().clone();
        let mut leases = store.leases(self.source.stream()).await?;
        let start = self.start_of_new(leases.is_empty());
        let mut lineage = Lineage::default();
        for lease in &leases {
            lineage.restore(lease.shard.clone(), lease.parents.clone(), lease.checkpoint.clone());
        }
        let mut new = lineage.list(&listing, &start, true);
        new.extend(lineage.list(&self.children, &start, false));
        for shard in new {
            store.create_lease(self.source.stream(), &shard, &start).await.map_err(StoreError::from)?;
            tracing::info!(stream = self.source.stream(), shard = shard.id, from = %start, "new shard");
            leases.push(new_lease(self.source.stream(), shard, start.clone()));
        }
        self.children.clear();
        let running: HashSet<String> = self.running.values().cloned().collect();
        for lease in leases.iter().filter(|lease| !running.contains(&lease.shard)) {
            if lineage.may_start(&lease.shard)
                && self.may_start_again(&lease.shard)
                && self.worker.may_take(lease)
            {
                self.take(lease, lineage.is_listed(&lease.shard), shutdown).await?;
            }
        }
        let obsolete: HashSet<String> = lineage.obsolete().into_iter().collect();
        // The last leases are what tells a stream that is consumed from one that never was, which may begin "from
        // now". A listing that lacks a child would end that knowledge.
        if obsolete.len() == leases.len() {
            return Ok(());
        }
        for lease in leases.iter().filter(|lease| obsolete.contains(&lease.shard)) {
            ignore_fenced(store.delete_lease(lease).await)?;
        }
        Ok(())
    }

    async fn take(
        &mut self,
        lease: &Lease,
        listed: bool,
        shutdown: &CancellationToken,
    ) -> Result<(), StoreError> {
        let store = self.worker.store().clone();
        let lease = match store.take_lease(lease, self.worker.id()).await {
            Err(error) if error.is_fenced() => return Ok(()),
            taken => taken?,
        };
        let gone = !listed && self.failed.get(&lease.shard).is_some_and(|failed| failed.not_found);
        if gone {
            tracing::error!(
                stream = lease.stream,
                shard = lease.shard,
                after = %lease.checkpoint,
                "gap: the shard is gone before it was read to its end; the table needs a backfill"
            );
            store.record_gap(&lease, &lease.checkpoint, now_ms()).await?;
            self.failed.remove(&lease.shard);
            return ignore_fenced(store.checkpoint(&lease, &Checkpoint::ShardEnd).await);
        }
        tracing::info!(stream = lease.stream, shard = lease.shard, from = %lease.checkpoint, "reading shard");
        let shard = lease.shard.clone();
        let task = ShardTask {
            source: Arc::clone(&self.source),
            processor: Arc::clone(&self.processor),
            worker: Arc::clone(&self.worker),
            budget: self.budget.clone(),
            lags: self.lags.clone(),
            lease,
            shutdown: shutdown.clone(),
        };
        let handle = self.tasks.spawn(task.run());
        self.running.insert(handle.id(), shard);
        Ok(())
    }

    /// Takes note of a task's end. Returns whether leases should be looked at now.
    fn task_ended(&mut self, ended: Result<(Id, Result<ShardExit, ShardFailure>), JoinError>) -> bool {
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, outcome),
            // A defect of ours: the shard's acks are gone with it, so it starts again like any failed one.
            Err(panicked) => {
                tracing::error!(error = %panicked, "shard task panicked");
                (panicked.id(), Err(ShardFailure::RecordLost))
            }
        };
        let Some(shard) = self.running.remove(&id) else { return false };
        let stream = self.source.stream();
        self.lags.remove(stream, &shard);
        match outcome {
            Ok(ShardExit::Ended(children)) => {
                let names: Vec<&str> = children.iter().map(|child| child.id.as_str()).collect();
                tracing::info!(stream, shard, children = ?names, "shard read to its end");
                self.children.extend(children);
                self.failed.remove(&shard);
                true
            }
            Ok(ShardExit::LeaseLost) => {
                tracing::warn!(stream, shard, "lease lost: another worker reads the shard");
                // What it failed with says nothing about the next tenure.
                self.failed.remove(&shard);
                false
            }
            Ok(ShardExit::Draining) => {
                tracing::info!(stream, shard, "shard drained and released");
                false
            }
            Err(failure) => {
                let failed = self.failed.entry(shard.clone()).or_insert_with(Failed::new);
                let pause = failed.again(&failure);
                tracing::error!(stream, shard, error = %failure, pause_ms = pause.as_millis(), "shard failed; it starts again");
                true
            }
        }
    }

    /// Where shards without a lease are begun. Only a stream that nobody ever consumed can be begun "from now":
    /// later, a new shard is a child and begins at its start.
    fn start_of_new(&self, first_contact: bool) -> Checkpoint {
        match first_contact && !self.config.from_trim_horizon {
            true => Checkpoint::AtTime(now_ms().saturating_sub(NOW_MARGIN_MS)),
            false => Checkpoint::TrimHorizon,
        }
    }

    fn may_start_again(&self, shard: &str) -> bool {
        self.failed.get(shard).is_none_or(|failed| failed.start_at <= Instant::now())
    }

    /// When the next failed shard may start again: the first that could not yet when the last look `began`. It
    /// may be past now; then the next look is due at once.
    fn next_start(&self, began: Instant) -> Option<Instant> {
        self.failed.values().map(|failed| failed.start_at).filter(|at| *at > began).min()
    }
}

impl Failed {
    fn new() -> Self {
        Self {
            pauses: Backoff::new(Duration::from_millis(500), RESTART_PAUSE_MAX),
            start_at: Instant::now(),
            not_found: false,
        }
    }

    fn again(&mut self, failure: &ShardFailure) -> Duration {
        // It has run for a while since: a new failure, not the old one going on.
        if self.start_at.elapsed() > RESTART_PAUSE_MAX {
            self.pauses.reset();
        }
        let pause = self.pauses.next_pause();
        self.start_at = Instant::now() + pause;
        self.not_found = matches!(failure, ShardFailure::Source(error) if error.is_not_found());
        pause
    }
}

/// Why shards could not be looked after this time.
#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error(transparent)]
    Source(#[from] CallError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn new_lease(stream: &str, shard: Shard, checkpoint: Checkpoint) -> Lease {
    Lease {
        stream: stream.to_owned(),
        shard: shard.id,
        parents: shard.parents,
        owner: None,
        epoch: 0,
        checkpoint,
    }
}

/// Somebody else changed it meanwhile: their business.
fn ignore_fenced(answer: Result<(), StoreError>) -> Result<(), StoreError> {
    match answer {
        Err(error) if error.is_fenced() => Ok(()),
        answer => answer,
    }
}
