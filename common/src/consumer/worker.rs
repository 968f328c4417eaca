//! A worker: one process of the fleet, its heartbeat, and what it sees of the others'.
//!
//! A lease is free when nobody owns it, when its owner is ourselves (an earlier process under our name), or
//! when its owner's heartbeat has not changed for `lease_duration` on *our* monotonic clock. No two machines'
//! clocks are ever compared.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Section;
use crate::retry::until_ok;

use super::store::{Heartbeat, Lease, StateStore, StoreError};

/// The `[worker]` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerConfig {
    /// Pause between heartbeats.
    pub heartbeat_interval: Duration,
    /// A worker whose heartbeat has stood still for so long is taken for dead.
    pub lease_duration: Duration,
    /// Pause between two looks for leases to take and between two full listings of a stream's shards.
    pub sync_interval: Duration,
    /// Pause between two checkpoints of a shard.
    pub checkpoint_interval: Duration,
    /// The longest pause between two reads of an idle shard.
    pub idle_poll_max: Duration,
}

impl WorkerConfig {
    /// Takes the section's fields. `idle_poll_max_ms` is the default that suits the daemon's source.
    pub fn read(mut section: Section, idle_poll_max_ms: u64) -> Self {
        let config = Self {
            heartbeat_interval: section.duration_ms("heartbeat_interval_ms", 100..=60_000, 3_000),
            lease_duration: section.duration_ms("lease_duration_ms", 1_000..=600_000, 15_000),
            sync_interval: section.duration_ms("sync_interval_ms", 100..=600_000, 10_000),
            checkpoint_interval: section.duration_ms("checkpoint_interval_ms", 50..=600_000, 1_000),
            idle_poll_max: section.duration_ms("idle_poll_max_ms", 10..=60_000, idle_poll_max_ms),
        };
        if config.lease_duration < 3 * config.heartbeat_interval {
            section.note("lease_duration_ms", "must be at least three times heartbeat_interval_ms");
        }
        section.finish();
        config
    }
}

/// This process in the fleet.
#[derive(Debug)]
pub struct Worker {
    id: String,
    instance: String,
    store: StateStore,
    config: WorkerConfig,
    observed: Mutex<Observed>,
}

impl Worker {
    /// Announces the process under the name `id`. An earlier process of that name is fenced by it.
    ///
    /// # Errors
    /// When the state table cannot be read or written.
    pub async fn announce(
        store: StateStore,
        id: impl Into<String>,
        config: WorkerConfig,
    ) -> Result<Self, StoreError> {
        let id = id.into();
        let instance = format!("{:016x}", fastrand::u64(..));
        store.announce(&id, &instance).await?;
        let mut observed = Observed::default();
        observed.observe(&store.heartbeats().await?, Instant::now());
        tracing::info!(worker = id, instance, "worker announced");
        Ok(Self { id, instance, store, config, observed: Mutex::new(observed) })
    }

    /// Makes sure of the state table and announces the process, however long that takes: a state table that
    /// cannot be reached now may be in a minute.
    pub async fn join_fleet(store: StateStore, create: bool, id: &str, config: WorkerConfig) -> Self {
        until_ok(&format!("state table {}", store.table()), || async {
            store.ensure_table(create).await?;
            Self::announce(store.clone(), id, config.clone()).await
        })
        .await
    }

    /// The worker's name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The fleet's state table.
    pub fn store(&self) -> &StateStore {
        &self.store
    }

    /// The worker's settings.
    pub fn config(&self) -> &WorkerConfig {
        &self.config
    }

    /// Beats until `shutdown`.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when another process runs under this worker's name: this one must stop.
    pub async fn beat(&self, shutdown: &CancellationToken) -> Result<(), StoreError> {
        let mut ticks = tokio::time::interval(self.config.heartbeat_interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            match self.beat_once().await {
                Err(error) if error.is_fenced() => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "heartbeat failed; others may take over this worker's leases")
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    async fn beat_once(&self) -> Result<(), StoreError> {
        self.store.beat(&self.id, &self.instance).await?;
        let heartbeats = self.store.heartbeats().await?;
        self.observed.lock().observe(&heartbeats, Instant::now());
        Ok(())
    }

    /// Whether this worker may take `lease` now.
    pub fn may_take(&self, lease: &Lease) -> bool {
        lease.owner.as_ref().is_none_or(|owner| {
            *owner == self.id
                || self.observed.lock().is_expired(owner, Instant::now(), self.config.lease_duration)
        })
    }
}

/// When each worker's heartbeat was last seen to change. Pure.
#[derive(Debug, Default)]
struct Observed {
    workers: HashMap<String, Seen>,
    /// When heartbeats were last read. What came after is not known: a process that was held up, or could not
    /// reach the table, must not take its own absence for that of the others.
    last: Option<Instant>,
}

#[derive(Debug)]
struct Seen {
    /// `None` for an owner of leases whose heartbeat was not read yet.
    counter: Option<u64>,
    at: Instant,
}

impl Observed {
    fn observe(&mut self, heartbeats: &[Heartbeat], now: Instant) {
        self.last = Some(now);
        for heartbeat in heartbeats {
            let counter = Some(heartbeat.counter);
            let seen = self.workers.entry(heartbeat.worker.clone()).or_insert(Seen { counter, at: now });
            if seen.counter != counter {
                *seen = Seen { counter, at: now };
            }
        }
    }

    /// Whether a worker's heartbeat was seen to stand still for `lease_duration`. An owner that was never seen
    /// may have been announced after the last look, so its time begins now.
    fn is_expired(&mut self, worker: &str, now: Instant, lease_duration: Duration) -> bool {
        let seen = self.workers.entry(worker.to_owned()).or_insert(Seen { counter: None, at: now });
        self.last.is_some_and(|last| last.saturating_duration_since(seen.at) >= lease_duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beats(counter: u64) -> Vec<Heartbeat> {
        vec![Heartbeat { worker: "w".to_owned(), instance: "i".to_owned(), counter }]
    }

    #[test]
    fn a_worker_expires_when_its_heartbeat_stands_still_on_our_clock() {
        let (start, lease) = (Instant::now(), Duration::from_secs(15));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut observed = Observed::default();
        observed.observe(&beats(7), at(0));
        observed.observe(&beats(8), at(10));
        observed.observe(&beats(8), at(20));
        observed.observe(&beats(8), at(24));
        assert!(!observed.is_expired("w", at(24), lease));
        observed.observe(&beats(8), at(25));
        assert!(observed.is_expired("w", at(25), lease));
        observed.observe(&beats(9), at(26));
        assert!(!observed.is_expired("w", at(40), lease));
    }

    #[test]
    fn an_observer_that_could_not_look_takes_nobody_for_dead() {
        let (start, lease) = (Instant::now(), Duration::from_secs(15));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut observed = Observed::default();
        observed.observe(&beats(7), at(0));
        assert!(!observed.is_expired("w", at(100), lease), "nobody looked for a hundred seconds");
        observed.observe(&beats(8), at(101));
        assert!(!observed.is_expired("w", at(101), lease));
    }

    #[test]
    fn an_owner_without_a_heartbeat_expires_too_but_not_at_once() {
        let (start, lease) = (Instant::now(), Duration::from_secs(15));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut observed = Observed::default();
        observed.observe(&[], at(0));
        assert!(!observed.is_expired("w", at(1), lease), "it may have been announced since");
        observed.observe(&[], at(15));
        assert!(!observed.is_expired("w", at(15), lease));
        observed.observe(&[], at(16));
        assert!(observed.is_expired("w", at(16), lease));
    }
}
