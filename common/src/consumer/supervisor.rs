//! All shards of all streams that this process reads: which are listed, which are ours, which are running.
//!
//! One loop decides; it never waits for a call. Tasks do the reading, the looking and the writing, and tell what
//! came of it. A shard that fails is started again after a pause, alone; its neighbours go on.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::limits::{CLAIMS_MAX, STATE_CALLS_IN_FLIGHT_MAX};
use crate::retry::Backoff;
use crate::telemetry::LogLimiter;

use super::audit::{Audit, AuditError, Audited};
use super::budget::ByteBudget;
use super::lag::Lags;
use super::lineage::Lineage;
use super::orders::Orders;
use super::outcome::{Children, ShardExit, ShardFailure};
use super::plan::{FreeSince, Plan, Running, ShardKey, Situation, plan};
use super::processor::Processor;
use super::progress::{Progress, Verdict};
use super::shard::{ShardTask, Tenure};
use super::source::{Shard, StreamSource};
use super::store::{Lease, Progressed, StoreError, StreamState};
use super::worker::{Worker, WorkerConfig};

/// A stream to be consumed.
#[derive(Debug)]
pub struct Subscription<S, P> {
    /// Where records come from.
    pub source: S,
    /// Where they go.
    pub processor: P,
    /// Where a stream that was never consumed before is begun. `true`: with the oldest record there is. `false`:
    /// with what comes from now on, and a little before.
    pub from_trim_horizon: bool,
    /// Another stream has taken this one's place: it is read to its end, and forgotten when the service has.
    pub superseded: bool,
}

/// The longest pause before a failed shard is started again.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Pause between two looks of the watchdog, and between two reports of load.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Pause between two looks at the leases while something is under way: a worker stops, leases are left for others.
const BUSY_SYNC_INTERVAL: Duration = Duration::from_millis(300);
/// Pause between two lines about one shard that waits for downstream.
const BLOCKED_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Consumes streams.
pub struct Consumer<S, P> {
    worker: Arc<Worker>,
    budget: ByteBudget,
    lags: Lags,
    state_writes: Arc<Semaphore>,
    streams: BTreeMap<Arc<str>, Stream<S, P>>,
    tasks: JoinSet<Result<ShardExit, ShardFailure>>,
    running: HashMap<ShardKey, Tending>,
    keys: HashMap<Id, ShardKey>,
    failed: HashMap<ShardKey, Failed>,
    free_since: FreeSince,
    syncs: JoinSet<Result<Vec<(Arc<str>, StreamState)>, StoreError>>,
    audits: JoinSet<Result<Audited, AuditError>>,
    auditing: HashMap<Id, Arc<str>>,
    /// Small writes that nothing waits for.
    chores: JoinSet<()>,
    errors: Backoff,
    next_sync: Instant,
    busy: Busy,
    gave_at: Option<Instant>,
    no_room: LogLimiter,
}

/// A stream that is consumed.
struct Stream<S, P> {
    source: Arc<S>,
    processor: Arc<P>,
    from_trim_horizon: bool,
    superseded: bool,
    last_listing: Option<Arc<Vec<Shard>>>,
    disabled: bool,
    /// Finished shards without a child, as last seen.
    childless: usize,
    /// Looks that are repeated soon, for what the last one did not find.
    repeats: u32,
    auditing: Option<AbortHandle>,
    next_audit: Instant,
    audit_errors: Backoff,
}

/// A shard that has a task.
struct Tending {
    orders: Orders,
    progress: Arc<Progress>,
    abort: AbortHandle,
    /// The lease's epoch as it is when it is taken.
    epoch: u64,
    may_move_at: Instant,
    giving: bool,
    stuck: Option<&'static str>,
    blocked_logged: Option<Instant>,
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
    /// A consumer that reads for `worker`, within `budget`.
    pub fn new(worker: Arc<Worker>, budget: ByteBudget, lags: Lags) -> Self {
        Self {
            worker,
            budget,
            lags,
            state_writes: Arc::new(Semaphore::new(STATE_CALLS_IN_FLIGHT_MAX)),
            streams: BTreeMap::new(),
            tasks: JoinSet::new(),
            running: HashMap::new(),
            keys: HashMap::new(),
            failed: HashMap::new(),
            free_since: FreeSince::new(),
            syncs: JoinSet::new(),
            audits: JoinSet::new(),
            auditing: HashMap::new(),
            chores: JoinSet::new(),
            errors: Backoff::default(),
            next_sync: Instant::now(),
            busy: Busy::default(),
            gave_at: None,
            no_room: LogLimiter::default(),
        }
    }

    /// Consumes the streams that come from `subscriptions` until `shutdown`, then drains every shard.
    pub async fn run(
        mut self,
        mut subscriptions: mpsc::Receiver<Subscription<S, P>>,
        shutdown: CancellationToken,
    ) {
        let mut watch = tokio::time::interval(WATCH_INTERVAL.min(self.worker.config().stuck_after));
        watch.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let worker = Arc::clone(&self.worker);
        while !shutdown.is_cancelled() {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                Some(ended) = self.tasks.join_next_with_id() => self.task_ended(ended, &shutdown),
                Some(synced) = self.syncs.join_next() => self.synced(synced, &shutdown),
                Some(audited) = self.audits.join_next_with_id() => self.audited(audited),
                Some(_) = self.chores.join_next() => {}
                Some(subscription) = subscriptions.recv() => self.subscribe(subscription),
                () = worker.changed() => (self.busy, self.next_sync) = (Busy::default(), Instant::now()),
                _ = watch.tick() => self.watch(),
                () = tokio::time::sleep_until(self.next_sync), if self.syncs.is_empty() => self.wake(),
            }
        }
        self.drain(&shutdown).await;
    }

    fn subscribe(&mut self, subscription: Subscription<S, P>) {
        let name: Arc<str> = subscription.source.stream().into();
        if let Some(known) = self.streams.get_mut(&name) {
            known.superseded |= subscription.superseded;
            return;
        }
        let stream = Stream {
            source: Arc::new(subscription.source),
            processor: Arc::new(subscription.processor),
            from_trim_horizon: subscription.from_trim_horizon,
            superseded: subscription.superseded,
            last_listing: None,
            disabled: false,
            childless: 0,
            repeats: 0,
            auditing: None,
            next_audit: Instant::now(),
            audit_errors: Backoff::default(),
        };
        self.streams.insert(name, stream);
        self.report_streams();
        self.next_sync = Instant::now();
    }

    fn report_streams(&self) {
        self.worker.report_streams(self.streams.keys().map(|name| name.to_string()).collect());
    }

    fn wake(&mut self) {
        self.audit();
        if self.syncs.is_empty() {
            self.sync();
        }
    }

    /// Begins to look at the leases.
    fn sync(&mut self) {
        // Its answer sets the next one.
        self.next_sync = Instant::now() + self.worker.config().sync_interval;
        if self.streams.is_empty() {
            return;
        }
        let (worker, names) = (Arc::clone(&self.worker), self.streams.keys().cloned().collect::<Vec<_>>());
        self.syncs.spawn(async move {
            let mut states = Vec::with_capacity(names.len());
            for name in names {
                // Half the price of the latest state: whatever an older one leads to is refused.
                let state = worker.store().stream_state(&name, false).await?;
                states.push((name, state));
            }
            Ok(states)
        });
    }

    fn synced(
        &mut self,
        synced: Result<Result<Vec<(Arc<str>, StreamState)>, StoreError>, JoinError>,
        shutdown: &CancellationToken,
    ) {
        let failed = match synced {
            Ok(Ok(states)) => {
                self.errors.reset();
                return self.decide(states, shutdown);
            }
            Ok(Err(error)) => error.to_string(),
            Err(panicked) => panicked.to_string(),
        };
        let pause = self.errors.next_pause();
        tracing::error!(
            error = failed,
            pause_ms = pause.as_millis(),
            "leases could not be read; trying again"
        );
        self.next_sync = Instant::now() + pause;
    }

    /// Takes in the leases, decides, and does.
    fn decide(&mut self, states: Vec<(Arc<str>, StreamState)>, shutdown: &CancellationToken) {
        let now = Instant::now();
        let mut leases = Vec::with_capacity(states.len());
        for (name, state) in states {
            if let Some(stream) = self.streams.get_mut(&name) {
                stream.look_for_children(&state.leases, now + self.worker.config().sync_interval);
                leases.push(state.leases);
            }
        }
        self.report_load();
        let worker = Arc::clone(&self.worker);
        let members = worker.members();
        let someone_leaves = members.iter().any(|member| member.leaving);
        let paused = self.failed.iter().filter(|(_, failed)| failed.start_at > now);
        let next_restart = paused.clone().map(|(_, failed)| failed.start_at).min();
        let situation = Situation {
            me: worker.id(),
            members,
            leases: &leases,
            abandoned: &|owner, stream| worker.has_abandoned(owner, stream),
            running: &self
                .running
                .iter()
                .map(|(key, tending)| (key.clone(), tending.as_running(now)))
                .collect(),
            paused: &paused.map(|(key, _)| key.clone()).collect::<HashSet<_>>(),
            now,
            overdue_after: worker.config().lease_duration / 2,
            claims_max: CLAIMS_MAX,
            may_give: self.may_give(now),
        };
        let plan = plan(situation, &mut self.free_since);
        let more = plan.start.len() >= CLAIMS_MAX || plan.left > plan.without_room || someone_leaves;
        self.carry_out(plan, shutdown);
        let pause = match more {
            true => self.busy.next(worker.config().sync_interval),
            false => self.busy.over(worker.config().sync_interval),
        };
        self.next_sync = next_restart.map_or(now + pause, |restart| restart.min(now + pause));
    }

    fn carry_out(&mut self, plan: Plan, shutdown: &CancellationToken) {
        for key in &plan.lost {
            if let Some(tending) = self.running.get(key) {
                tending.orders.lose();
            }
        }
        if !plan.start.is_empty() {
            tracing::info!(leases = plan.start.len(), left = plan.left, "taking leases");
        }
        for lease in plan.start {
            self.tend(Tenure::Claimed(lease), shutdown);
        }
        for lease in plan.surplus {
            self.release(lease);
        }
        if !plan.give.is_empty() {
            tracing::info!(leases = plan.give.len(), "giving leases to other workers, for balance");
            self.gave_at = Some(Instant::now());
        }
        for (key, to) in plan.give {
            if let Some(tending) = self.running.get_mut(&key) {
                tending.giving = true;
                tending.orders.give_to(&to);
            }
        }
        if plan.without_room > 0
            && let Some(repeats) = self.no_room.due(Instant::now())
        {
            tracing::error!(
                shards = plan.without_room,
                repeats,
                "shards are read by nobody: every worker that could has worker.leases_max leases; raise it, or add workers"
            );
        }
    }

    /// Gives up a lease that no task has.
    fn release(&mut self, lease: Lease) {
        let worker = Arc::clone(&self.worker);
        self.chores.spawn(async move {
            let written = Progressed { bytes_per_s: lease.bytes_per_s, seen_ms: lease.seen_ms };
            match worker.store().release_lease(&lease, None, written, None).await {
                Ok(()) => worker.report_change(),
                // Somebody has it already.
                Err(error) if error.is_fenced() => {}
                Err(error) => {
                    tracing::warn!(%error, "a lease could not be released; the next look tries again")
                }
            }
        });
    }

    /// Moves for balance wait until the last ones are done and everybody has told what they made of the load.
    fn may_give(&self, now: Instant) -> bool {
        let config = self.worker.config();
        let settle = config.sync_interval.max(2 * config.heartbeat_interval);
        self.gave_at.is_none_or(|at| now.duration_since(at) >= settle)
            && !self.running.values().any(|tending| tending.giving)
    }

    /// Starts a shard's task.
    fn tend(&mut self, tenure: Tenure, shutdown: &CancellationToken) {
        let now = Instant::now();
        let (lease, epoch) = match &tenure {
            Tenure::Claimed(lease) => (lease, lease.epoch + 1),
            Tenure::Taken(lease) => (lease, lease.epoch),
        };
        let Some(stream) = self.streams.get(&lease.stream) else { return };
        let key = ShardKey::of(lease);
        // Whether a lease that an earlier process of ours had was moved lately is not known.
        let moved = lease.given || lease.owner.as_deref() == Some(self.worker.id());
        let orders = Orders::new(shutdown);
        let progress = Arc::new(Progress::new(lease.bytes_per_s, now));
        let task = ShardTask {
            source: Arc::clone(&stream.source),
            processor: Arc::clone(&stream.processor),
            worker: Arc::clone(&self.worker),
            budget: self.budget.clone(),
            lags: self.lags.clone(),
            orders: orders.clone(),
            progress: Arc::clone(&progress),
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
            may_move_at,
            giving: false,
            stuck: None,
            blocked_logged: None,
        };
        self.running.insert(key, tending);
    }

    /// Takes note of a task's end.
    fn task_ended(
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
                self.worker.report_change();
            }
            Ok(ShardExit::Ended(children)) => self.shard_ended(&key, children, shutdown),
            Err(failure) => self.shard_failed(key, &failure),
        }
    }

    fn shard_ended(&mut self, key: &ShardKey, children: Children, shutdown: &CancellationToken) {
        tracing::info!(stream = &*key.stream, shard = &*key.shard, children = ?children.names, "shard read to its end");
        self.failed.remove(key);
        if children.adopted.len() < children.names.len() {
            self.worker.report_change();
            self.next_sync = Instant::now();
        }
        if children.names.is_empty()
            && let Some(stream) = self.streams.get_mut(&key.stream)
        {
            stream.audit_by(Instant::now());
        }
        for lease in children.adopted {
            match shutdown.is_cancelled() {
                true => self.release(lease),
                false => self.tend(Tenure::Taken(lease), shutdown),
            }
        }
    }

    fn shard_failed(&mut self, key: ShardKey, failure: &ShardFailure) {
        let (stream, shard) = (&*key.stream, &*key.shard);
        let failed = self.failed.entry(key.clone()).or_insert_with(Failed::new);
        let pause = failed.again(failure);
        tracing::error!(stream, shard, error = %failure, pause_ms = pause.as_millis(), "shard failed; it starts again");
        self.next_sync = self.next_sync.min(failed.start_at);
        if failure.is_not_found()
            && let Some(stream) = self.streams.get_mut(&key.stream)
        {
            stream.audit_by(Instant::now());
        }
    }

    /// Looks after what should go on by itself.
    fn watch(&mut self) {
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

    fn report_load(&self) {
        let bytes_per_s = self.running.values().map(|tending| tending.progress.bytes_per_s()).sum();
        self.worker.report_load(self.running.len(), bytes_per_s);
    }

    /// Begins the full looks that are due and ours to make.
    fn audit(&mut self) {
        let now = Instant::now();
        let members = self.worker.members();
        for (name, stream) in &mut self.streams {
            let reads =
                |member: &&super::assignment::Member| !member.leaving && member.streams.contains(&**name);
            let is_auditor = members.iter().find(reads).is_some_and(|first| first.id == self.worker.id());
            let missing = self.failed.iter().filter(|(key, failed)| key.stream == *name && failed.not_found);
            let not_found: BTreeSet<String> = missing.map(|(key, _)| key.shard.to_string()).collect();
            let is_ours = is_auditor || !not_found.is_empty();
            if let Some(auditing) = &stream.auditing {
                // Two workers that start together both take themselves for the first.
                if !is_ours {
                    auditing.abort();
                }
                continue;
            }
            if !is_ours || now < stream.next_audit {
                continue;
            }
            let audit = Audit {
                source: Arc::clone(&stream.source),
                worker: Arc::clone(&self.worker),
                from_trim_horizon: stream.from_trim_horizon,
                superseded: stream.superseded,
                last_listing: stream.last_listing.clone(),
                not_found,
            };
            let task = self.audits.spawn(audit.run());
            self.auditing.insert(task.id(), Arc::clone(name));
            stream.auditing = Some(task);
        }
    }

    fn audited(&mut self, audited: Result<(Id, Result<Audited, AuditError>), JoinError>) {
        let id = audited.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some(name) = self.auditing.remove(&id) else { return };
        let Some(stream) = self.streams.get_mut(&name) else { return };
        stream.auditing = None;
        let (now, config) = (Instant::now(), self.worker.config());
        let error = match audited {
            Ok((_, Ok(found))) => {
                stream.repeats = match found.without_children || found.unconnected {
                    true => stream.repeats + 1,
                    false => 0,
                };
                stream.next_audit = now + next_listing(stream.repeats, config);
                stream.audit_errors.reset();
                (stream.last_listing, stream.disabled) = (found.listing, found.disabled);
                for (_, failed) in self.failed.iter_mut().filter(|(key, _)| key.stream == name) {
                    failed.not_found = false;
                }
                if found.changed {
                    self.next_sync = now;
                    self.worker.report_change();
                }
                if found.over {
                    self.streams.remove(&name);
                    self.report_streams();
                }
                let worker = Arc::clone(&self.worker);
                self.chores.spawn(async move { worker.forget_the_dead().await });
                return;
            }
            Ok((_, Err(error))) => error.to_string(),
            Err(stopped) if stopped.is_cancelled() => return,
            Err(panicked) => panicked.to_string(),
        };
        let pause = stream.audit_errors.next_pause();
        stream.next_audit = now + pause;
        tracing::error!(
            stream = &*name,
            error,
            pause_ms = pause.as_millis(),
            "the stream's shards could not be looked through; trying again"
        );
        self.next_sync = self.next_sync.min(stream.next_audit);
    }

    /// Waits until every shard has drained, and tells the others as they do.
    async fn drain(mut self, shutdown: &CancellationToken) {
        self.worker.report_leaving();
        self.audits.shutdown().await;
        self.syncs.shutdown().await;
        while let Some(ended) = self.tasks.join_next_with_id().await {
            self.task_ended(ended, shutdown);
        }
        while self.chores.join_next().await.is_some() {}
    }
}

impl<S, P> Stream<S, P> {
    /// Has the next full look by `at`.
    fn audit_by(&mut self, at: Instant) {
        self.next_audit = self.next_audit.min(at);
    }

    /// More finished shards without a child than before, in a stream that goes on: the children are looked for by
    /// `at`.
    fn look_for_children(&mut self, leases: &[Lease], at: Instant) {
        let childless = Lineage::of(leases).without_children().count();
        if !self.disabled && childless > self.childless {
            self.audit_by(at);
        }
        self.childless = childless;
    }
}

impl Tending {
    fn as_running(&self, now: Instant) -> Running {
        Running {
            epoch: self.epoch,
            bytes_per_s: self.progress.bytes_per_s(),
            may_move: !self.giving && self.may_move_at <= now,
        }
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
        self.not_found = failure.is_not_found();
        pause
    }
}

/// The pause before the next full look: short at first when the last one lacked something.
fn next_listing(repeats: u32, config: &WorkerConfig) -> Duration {
    match repeats {
        0 => config.listing_interval,
        _ => config.sync_interval.saturating_mul(1 << (repeats - 1).min(10)).min(config.listing_interval),
    }
}

/// The pauses between looks while there is more to do: short at first, and soon as long as any.
#[derive(Debug, Default)]
struct Busy {
    looks: u32,
}

impl Busy {
    fn next(&mut self, max: Duration) -> Duration {
        let pause = BUSY_SYNC_INTERVAL.saturating_mul(1 << self.looks.min(10).saturating_sub(4)).min(max);
        self.looks += 1;
        pause
    }

    fn over(&mut self, max: Duration) -> Duration {
        self.looks = 0;
        max
    }
}
