//! The shards that have a task: their start, their end, and the watch over them.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, Id, JoinError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::log_trouble;
use crate::retry::Backoff;
use crate::telemetry::{LASTS_AFTER, Told};

use super::super::assignment::{FreeLease, takers};
use super::super::orders::Orders;
use super::super::outcome::{Children, ShardExit, ShardFailure};
use super::super::plan::{Running, ShardKey};
use super::super::processor::Processor;
use super::super::progress::{Progress, Verdict};
use super::super::shard::{ShardTask, Tenure};
use super::super::source::StreamSource;
use super::super::store::Recipient;
use super::Consumer;

/// The longest pause before a failed shard is started again.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Pause between two lines about one shard that waits for downstream.
const BLOCKED_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// A shard that has a task.
pub(super) struct Tending {
    pub(super) orders: Orders,
    progress: Arc<Progress>,
    abort: AbortHandle,
    /// The lease's epoch as it is when it is taken.
    epoch: u64,
    is_finished: bool,
    may_move_at: Instant,
    pub(super) giving: bool,
    stuck: Option<&'static str>,
    blocked_logged: Option<Instant>,
}

/// A shard that waits to be started again.
pub(super) struct Failed {
    pauses: Backoff,
    /// Since when it has failed again and again.
    since: Instant,
    pub(super) start_at: Instant,
    pub(super) not_found: bool,
}

impl<S, P> Consumer<S, P>
where
    S: StreamSource,
    P: Processor<Record = S::Record>,
{
    /// Starts a shard's task.
    pub(super) fn tend(&mut self, tenure: Tenure) {
        let now = Instant::now();
        let (lease, epoch) = tenure.lease();
        let Some(stream) = self.streams.get(&lease.stream) else { return };
        let key = ShardKey::of(lease);
        // A look may find a child that is ours before the task that adopted it has ended.
        if self.running.contains_key(&key) {
            return;
        }
        let (moved, is_finished) = (lease.given, lease.checkpoint.is_end());
        let orders = Orders::new();
        let progress = Arc::new(Progress::new(lease.bytes_per_s, now));
        let task = ShardTask {
            source: Arc::clone(&stream.source),
            processor: Arc::clone(&stream.processor),
            worker: Arc::clone(&self.worker),
            budget: self.budget.clone(),
            lags: self.lags.clone(),
            orders: orders.clone(),
            progress: Arc::clone(&progress),
            is_new: !matches!(tenure, Tenure::Rewinding(..)) && !self.failed.contains_key(&key),
            kin: stream.kin.clone(),
            rewinds: self.rewinds.clone(),
            lanes: Arc::clone(&self.lanes),
            fence: self.fence.clone(),
            state_writes: Arc::clone(&self.state_writes),
            tenure,
        };
        let abort = self.tasks.spawn(task.run());
        self.keys.insert(abort.id(), key.clone());
        let may_move_at = if moved { now + self.worker.config().move_interval } else { now };
        let tending = Tending {
            orders,
            progress,
            abort,
            epoch,
            is_finished,
            may_move_at,
            giving: false,
            stuck: None,
            blocked_logged: None,
        };
        self.running.insert(key, tending);
    }

    /// Takes note of a task's end.
    pub(super) fn task_ended(
        &mut self,
        ended: Result<(Id, Result<ShardExit, ShardFailure>), JoinError>,
        shutdown: &CancellationToken,
    ) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some(key) = self.keys.remove(&id) else { return };
        let Some(tending) = self.running.remove(&key) else { return };
        let outcome = match ended {
            Ok((_, outcome)) => outcome,
            Err(_) if tending.stuck.is_some() => Err(ShardFailure::Stuck(tending.stuck.unwrap_or_default())),
            // The shard's acks are gone with it, so it starts again like any failed one.
            Err(_) => Err(ShardFailure::Panicked),
        };
        let (stream, shard) = (&*key.stream, &*key.shard);
        let change = match &outcome {
            Ok(ShardExit::LeaseLost) => Some("lost"),
            Ok(ShardExit::Drained(_)) if tending.giving => Some("moved"),
            Ok(ShardExit::Drained(_)) => Some("released"),
            Ok(ShardExit::Ended(_)) => Some("ended"),
            Ok(ShardExit::NotTaken | ShardExit::CaughtUp | ShardExit::Rewinding(..)) | Err(_) => None,
        };
        change.into_iter().for_each(|kind| self.worker.counters().lease_changes.add(kind, 1));
        match outcome {
            Ok(ShardExit::NotTaken) => tracing::debug!(stream, shard, "lease not taken: somebody was faster"),
            Ok(ShardExit::LeaseLost) => {
                tracing::warn!(stream, shard, "lease lost: another worker reads the shard");
                // What it failed with says nothing about the next tenure.
                self.failed.remove(&key);
            }
            Ok(ShardExit::Drained(to)) => {
                tracing::debug!(stream, shard, to, "shard drained and released");
                self.failed.remove(&key);
                if !shutdown.is_cancelled() {
                    self.worker.report_change();
                }
            }
            Ok(ShardExit::CaughtUp) => {
                tracing::info!(stream, shard, "an ended shard is caught up");
                self.failed.remove(&key);
                if let Some(stream) = self.streams.get_mut(&key.stream) {
                    stream.audit_by(Instant::now());
                }
            }
            Ok(ShardExit::Ended(children)) => self.shard_ended(&key, children, shutdown),
            Ok(ShardExit::Rewinding(lease, to)) => {
                self.tend(Tenure::Rewinding(*lease, to));
                if let (true, Some(tending)) = (shutdown.is_cancelled(), self.running.get(&key)) {
                    tending.orders.drain(None);
                }
            }
            Err(failure) => self.shard_failed(key, &failure),
        }
    }

    fn shard_ended(&mut self, key: &ShardKey, children: Children, shutdown: &CancellationToken) {
        tracing::info!(stream = &*key.stream, shard = &*key.shard, children = ?children.names, "shard read to its end");
        self.failed.remove(key);
        if children.adopted.len() < children.names.len() {
            self.worker.report_change();
            self.look_soon();
        }
        if children.names.is_empty()
            && let Some(stream) = self.streams.get_mut(&key.stream)
        {
            stream.audit_by(Instant::now());
        }
        for child in children.adopted {
            match shutdown.is_cancelled() {
                true => self.release(child.lease),
                false => self.tend(Tenure::Taken(child)),
            }
        }
    }

    fn shard_failed(&mut self, key: ShardKey, failure: &ShardFailure) {
        let (stream, shard) = (&*key.stream, &*key.shard);
        self.worker.counters().shard_failed(failure);
        let failed = self.failed.entry(key.clone()).or_insert_with(Failed::new);
        let pause = failed.again(failure);
        let (lasts, pause_ms) = (failed.lasts(failure), pause.as_millis());
        // The failures of one shard are told each by itself: the pauses between them grow.
        let told = Told { lasts, repeats: 0 };
        log_trouble!(told, stream, shard, error = %failure, pause_ms, "shard failed; it starts again");
        self.next_sync = self.next_sync.min(failed.start_at);
        if failure.is_not_found()
            && let Some(stream) = self.streams.get_mut(&key.stream)
        {
            stream.audit_by(Instant::now());
        }
    }

    /// Looks after what should go on by itself.
    pub(super) fn watch(&mut self) {
        let (now, stuck_after) = (Instant::now(), self.worker.config().stuck_after);
        for (key, tending) in &mut self.running {
            let (stream, shard) = (&*key.stream, &*key.shard);
            match tending.progress.judge(now, stuck_after) {
                Verdict::Fine => tending.blocked_logged = None,
                Verdict::Blocked(waits_for, waited) => {
                    let logged = tending.blocked_logged;
                    if logged.is_none_or(|at| now.duration_since(at) >= BLOCKED_LOG_INTERVAL) {
                        tending.blocked_logged = Some(now);
                        let waited_ms = waited.as_millis();
                        tracing::warn!(stream, shard, waits_for, waited_ms, "shard is held up");
                    }
                }
                Verdict::Stuck(waits_for, waited) => {
                    let waited_ms = waited.as_millis();
                    tracing::error!(
                        stream,
                        shard,
                        waits_for,
                        waited_ms,
                        "shard is stuck; it alone is started again"
                    );
                    tending.stuck = Some(waits_for);
                    tending.abort.abort();
                }
            }
        }
        self.report_load();
        self.audit();
    }

    /// Has every shard drain: each lease is meant for the worker that would claim it, which then need not compete for
    /// it.
    pub(super) fn drain_all(&mut self) {
        let mut members = self.worker.members();
        members.retain(|member| member.id != self.worker.id());
        let running: Vec<(&ShardKey, &Tending)> = self.running.iter().collect();
        let free: Vec<FreeLease<'_>> = running
            .iter()
            .map(|(key, tending)| FreeLease {
                stream: &key.stream,
                shard: &key.shard,
                bytes_per_s: tending.progress.bytes_per_s(),
            })
            .collect();
        for ((_, tending), taker) in running.iter().zip(takers(&members, &free)) {
            let to = taker.as_deref().map(|worker| Recipient { worker, for_balance: false });
            tending.orders.drain(to);
        }
    }

    pub(super) fn report_load(&self) {
        let bytes_per_s = self.running.values().map(|tending| tending.progress.bytes_per_s()).sum();
        let leases = self.running.values().filter(|tending| !tending.is_finished).count();
        self.worker.report_load(leases, bytes_per_s);
    }
}

impl Tending {
    pub(super) fn as_running(&self, now: Instant) -> Running {
        Running {
            epoch: self.epoch,
            bytes_per_s: self.progress.bytes_per_s(),
            may_move: !self.giving && self.may_move_at <= now,
            is_finished: self.is_finished,
        }
    }
}

impl Failed {
    fn new() -> Self {
        Self {
            pauses: Backoff::new(Duration::from_millis(500), RESTART_PAUSE_MAX),
            since: Instant::now(),
            start_at: Instant::now(),
            not_found: false,
        }
    }

    fn again(&mut self, failure: &ShardFailure) -> Duration {
        // It has run for a while since: a new failure, not the old one going on.
        if self.start_at.elapsed() > RESTART_PAUSE_MAX {
            self.pauses.reset();
            self.since = Instant::now();
        }
        let pause = self.pauses.next_pause();
        self.start_at = Instant::now() + pause;
        self.not_found = failure.is_not_found();
        pause
    }

    /// Whether a person has to look: some failures tell so by themselves, the others by going on.
    fn lasts(&self, failure: &ShardFailure) -> bool {
        failure.is_defect() || self.since.elapsed() >= LASTS_AFTER
    }
}
