//! The looks at the leases, and what is done about them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinError;
use tokio::time::Instant;

use crate::limits::CLAIMS_MAX;
use crate::log_trouble;

use super::super::plan::{Plan, Situation, plan};
use super::super::processor::Processor;
use super::super::shard::Tenure;
use super::super::source::StreamSource;
use super::super::store::{Lease, Progressed, Recipient, StateStore, StoreError, StreamState};
use super::{Consumer, WATCH_INTERVAL};

/// Pause between two looks while something is under way: a worker stops, leases are left for others.
const BUSY_INTERVAL: Duration = Duration::from_millis(300);

/// Pause before a look that the last one may have come too early for.
const AGAIN_INTERVAL: Duration = Duration::from_millis(50);

/// The streams' states, as they were looked at.
pub(super) type View = Vec<Looked>;

/// One stream's state, and how long it took to read: it may change between two pages.
pub(super) struct Looked {
    pub(super) stream: Arc<str>,
    pub(super) state: StreamState,
    pub(super) took: Duration,
}

/// Looks at the leases of these streams.
pub(super) async fn look_at(store: StateStore, streams: Vec<Arc<str>>) -> Result<View, StoreError> {
    let mut view = Vec::with_capacity(streams.len());
    for stream in streams {
        let begun = Instant::now();
        // Half the price of the latest state: whatever an older one leads to is refused.
        let state = store.stream_state(&stream, false).await?;
        view.push(Looked { stream, state, took: begun.elapsed() });
    }
    Ok(view)
}

impl<S, P> Consumer<S, P>
where
    S: StreamSource,
    P: Processor<Record = S::Record>,
{
    /// Begins to look at the leases.
    pub(super) fn look(&mut self) {
        // Its answer sets the next one.
        self.next_sync = Instant::now() + self.worker.config().sync_interval;
        if self.streams.is_empty() {
            return;
        }
        self.looks.spawn(look_at(self.worker.store().clone(), self.streams.keys().cloned().collect()));
    }

    pub(super) fn looked(&mut self, looked: Result<Result<View, StoreError>, JoinError>) {
        let failed = match looked {
            Ok(Ok(view)) => {
                self.errors.reset();
                self.trouble.over();
                self.see_leases(&view);
                return self.decide(view);
            }
            Ok(Err(error)) => error.to_string(),
            Err(panicked) => panicked.to_string(),
        };
        let pause = self.errors.next_pause();
        if let Some(told) = self.trouble.again(Instant::now()) {
            let pause_ms = pause.as_millis();
            log_trouble!(told, error = failed, pause_ms, "leases could not be read; trying again");
        }
        self.next_sync = Instant::now() + pause;
    }

    /// Takes in the leases, decides, and does.
    fn decide(&mut self, view: View) {
        let now = Instant::now();
        let worker = Arc::clone(&self.worker);
        let members = worker.members();
        let mut leases = Vec::with_capacity(view.len());
        for Looked { stream: name, state, .. } in view {
            self.tell_of_newer(&name, &state.leases);
            let Some(stream) = self.streams.get_mut(&name) else { continue };
            stream.kin.update(&state.leases);
            let orphans = stream.orphans(&state.leases, &members, now + worker.config().sync_interval);
            self.seek(&name, orphans, &members);
            leases.push(state.leases);
        }
        self.report_load();
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
        worker.counters().leases_are(plan.seen);
        let more = plan.start.len() >= CLAIMS_MAX || plan.left > plan.without_room;
        if !plan.start.is_empty() {
            self.busy = Busy::default();
        }
        self.carry_out(plan);
        let pause = match more {
            true => self.busy.next(worker.config().sync_interval),
            false => self.busy.over(worker.config().sync_interval),
        };
        let pause = if std::mem::take(&mut self.look_again) { AGAIN_INTERVAL } else { pause };
        self.next_sync = next_restart.map_or(now + pause, |restart| restart.min(now + pause));
    }

    /// Says once of a stream that some of its leases are left alone.
    fn tell_of_newer(&mut self, stream: &Arc<str>, leases: &[Lease]) {
        let newer = leases.iter().filter(|lease| lease.is_newer()).count();
        if newer > 0 && self.newer.insert(Arc::clone(stream)) {
            tracing::warn!(
                stream = &**stream,
                leases = newer,
                "leases were written by a newer version: this worker leaves them alone, and tells no watermark; upgrade it"
            );
        }
    }

    fn carry_out(&mut self, plan: Plan) {
        for key in &plan.lost {
            if let Some(tending) = self.running.get(key) {
                tending.orders.lose();
            }
        }
        if !plan.start.is_empty() {
            tracing::info!(leases = plan.start.len(), left = plan.left, "taking leases");
        }
        for lease in plan.start {
            self.tend(Tenure::Claimed(lease));
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
                tending.orders.drain(Some(Recipient { worker: &to, for_balance: true }));
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
    pub(super) fn release(&mut self, lease: Lease) {
        let worker = Arc::clone(&self.worker);
        self.chores.spawn(async move {
            let (bytes_per_s, seen_ms) = (lease.bytes_per_s, lease.seen_ms);
            let written = Progressed { bytes_per_s, seen_ms, ..Progressed::default() };
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

    /// Gives up what is still this worker's when nothing runs any more: leases that were given to it as it stopped.
    pub(super) async fn release_the_rest(&mut self) {
        for name in self.streams.keys().cloned().collect::<Vec<_>>() {
            match self.worker.store().stream_state(&name, true).await {
                Ok(state) => {
                    let mine = |lease: &Lease| lease.owner.as_deref() == Some(self.worker.id());
                    let left: Vec<Lease> = state
                        .leases
                        .into_iter()
                        .filter(|lease| mine(lease) && !lease.is_over() && !lease.is_newer())
                        .collect();
                    left.into_iter().for_each(|lease| self.release(lease));
                }
                Err(error) => {
                    tracing::warn!(%error, "leases could not be looked through; what is left expires")
                }
            }
        }
    }

    /// Moves for balance wait until the last ones are done and everybody has told what they made of the load.
    fn may_give(&self, now: Instant) -> bool {
        let config = self.worker.config();
        // The receiver looks, takes, reads, and tells of it with its next heartbeat.
        let settle = config.sync_interval.max(2 * config.heartbeat_interval) + 2 * WATCH_INTERVAL;
        self.gave_at.is_none_or(|at| now.duration_since(at) >= settle)
            && !self.running.values().any(|tending| tending.giving)
    }
}

/// The pauses between looks while there is more to do: short at first, and soon as long as any if nothing is taken.
#[derive(Debug, Default)]
pub(super) struct Busy {
    looks: u32,
}

impl Busy {
    fn next(&mut self, max: Duration) -> Duration {
        let pause = BUSY_INTERVAL.saturating_mul(1 << self.looks.min(10).saturating_sub(4)).min(max);
        self.looks += 1;
        pause
    }

    fn over(&mut self, max: Duration) -> Duration {
        self.looks = 0;
        max
    }
}
