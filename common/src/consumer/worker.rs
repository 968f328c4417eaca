//! A worker: one process of the fleet, its heartbeat, and what it sees of the others'.
//!
//! Heartbeats are written at long intervals and read at short ones: one small query tells of every worker that
//! came, went, or changed leases, so that nobody need look at the leases themselves to find out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Section;
use crate::limits::WATERMARK_INTERVAL;
use crate::log_trouble;
use crate::retry::until_ok;
use crate::telemetry::Trouble;

use super::assignment::Member;
use super::compatibility::{Build, Compatibility};
use super::counters::Counters;
use super::coverage::{Coverage, Holdings};
use super::membership::Membership;
use super::store::{Report, StateStore, StoreError};

/// The `[worker]` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerConfig {
    /// Pause between heartbeats.
    pub heartbeat_interval: Duration,
    /// A worker whose heartbeat has stood still for so long is taken for dead.
    pub lease_duration: Duration,
    /// The longest pause between two looks at the leases. News makes it shorter.
    pub sync_interval: Duration,
    /// Pause between two full listings of a stream's shards, by one worker of the fleet.
    pub listing_interval: Duration,
    /// Pause between two checkpoints of a shard.
    pub checkpoint_interval: Duration,
    /// The longest pause between two reads of an idle shard.
    pub idle_poll_max: Duration,
    /// This worker's share of the work relative to the others'.
    pub capacity: u32,
    /// The most leases it will have.
    pub leases_max: usize,
    /// A shard that does nothing for so long, and does not wait for what is downstream, is started again.
    pub stuck_after: Duration,
    /// A lease that was moved for balance stays where it is for so long.
    pub move_interval: Duration,
}

impl WorkerConfig {
    /// Takes the section's fields. `idle_poll_max_ms` is the default that suits the daemon's source.
    pub fn read(mut section: Section, idle_poll_max_ms: u64) -> Self {
        let config = Self {
            heartbeat_interval: section.duration_ms("heartbeat_interval_ms", 100..=60_000, 3_000),
            lease_duration: section.duration_ms("lease_duration_ms", 1_000..=600_000, 10_000),
            sync_interval: section.duration_ms("sync_interval_ms", 100..=600_000, 10_000),
            listing_interval: section.duration_ms("listing_interval_ms", 100..=3_600_000, 120_000),
            checkpoint_interval: section.duration_ms("checkpoint_interval_ms", 50..=600_000, 1_000),
            idle_poll_max: section.duration_ms("idle_poll_max_ms", 10..=60_000, idle_poll_max_ms),
            capacity: u32::try_from(section.integer("capacity", 1..=10_000, 100)).unwrap_or(100),
            leases_max: section.size("leases_max", 1..=1_000_000, 10_000),
            stuck_after: section.duration_ms("stuck_after_ms", 1_000..=3_600_000, 60_000),
            move_interval: section.duration_ms("move_interval_ms", 0..=3_600_000, 60_000),
        };
        if config.lease_duration < 3 * config.heartbeat_interval {
            section.note("lease_duration_ms", "must be at least three times heartbeat_interval_ms");
        }
        section.finish();
        config
    }

    /// Pause between two looks at the others' heartbeats: a fleet together looks about forty times a second,
    /// whatever its size.
    fn observe_interval(&self, workers: usize) -> Duration {
        let share = OBSERVE_SHARE.saturating_mul(u32::try_from(workers).unwrap_or(u32::MAX));
        share.max(OBSERVE_INTERVAL_MIN).min(self.heartbeat_interval)
    }
}

/// The least pause between two beats: news is told at once, but not more often.
const BEAT_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// What one worker adds to the pause between two looks at all heartbeats.
const OBSERVE_SHARE: Duration = Duration::from_millis(25);
/// The least pause between two such looks.
const OBSERVE_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// A dead worker's heartbeat is removed after so many lease durations.
const FORGET_AFTER_LEASES: u32 = 30;

/// This process in the fleet.
#[derive(Debug)]
pub struct Worker {
    id: String,
    instance: String,
    store: StateStore,
    config: WorkerConfig,
    membership: Mutex<Membership>,
    report: Mutex<Report>,
    holdings: Holdings,
    counters: Counters,
    /// There is something to tell the others now.
    news: Notify,
    /// The others did something.
    changed: Notify,
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
        let (capacity, leases_max) = (config.capacity, config.leases_max);
        let report = Report { capacity, leases_max, build: Build::this(), ..Report::default() };
        store.announce(&id, &instance, &report).await?;
        let mut membership = Membership::default();
        membership.observe(&store.heartbeats().await?, Instant::now(), config.lease_duration);
        tracing::info!(worker = id, instance, "worker announced");
        Ok(Self {
            id,
            instance,
            store,
            config,
            membership: Mutex::new(membership),
            report: Mutex::new(report),
            holdings: Holdings::default(),
            counters: Counters::default(),
            news: Notify::new(),
            changed: Notify::new(),
        })
    }

    /// Makes sure of the state table and announces the process, however long that takes: a state table that
    /// cannot be reached now may be in a minute.
    pub async fn join_fleet(store: StateStore, create: bool, id: &str, config: WorkerConfig) -> Self {
        until_ok(&format!("state table {}", store.table()), || async {
            Box::pin(store.ensure_table(create)).await?;
            Box::pin(Self::announce(store.clone(), id, config.clone())).await
        })
        .await
    }

    /// The worker's name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The leases that this process holds.
    pub fn holdings(&self) -> &Holdings {
        &self.holdings
    }

    /// What this process counts.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The fleet's state table.
    pub fn store(&self) -> &StateStore {
        &self.store
    }

    /// The worker's settings.
    pub fn config(&self) -> &WorkerConfig {
        &self.config
    }

    /// Beats until `shutdown`, and then removes the heartbeat: by then every lease is released.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when another process runs under this worker's name: this one must stop.
    pub async fn beat(&self, shutdown: &CancellationToken) -> Result<(), StoreError> {
        let mut beaten: Option<Instant> = None;
        // The leases that the last beat told of, and whether it told their watermark.
        let mut told = None;
        let (mut beating, mut observing) = (Trouble::default(), Trouble::default());
        loop {
            let urgent = async {
                self.news.notified().await;
                if let Some(beaten) = beaten {
                    tokio::time::sleep_until(beaten + BEAT_INTERVAL_MIN).await;
                }
            };
            let observe_interval = self.config.observe_interval(self.membership.lock().workers());
            let is_urgent = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = urgent => true,
                () = tokio::time::sleep(observe_interval), if beaten.is_some() => false,
                () = std::future::ready(()), if beaten.is_none() => true,
            };
            let due = beaten.is_none_or(|at| at.elapsed() >= self.config.heartbeat_interval);
            let coverage = self.holdings.coverage();
            let telling = Some((coverage.leases, coverage.watermark_ms.is_some()));
            // While it tells of other leases than this worker has, nobody knows the fleet's watermark.
            let tells_late = telling != told && beaten.is_some_and(|at| at.elapsed() >= WATERMARK_INTERVAL);
            if is_urgent || due || tells_late {
                (beaten, told) = (Some(Instant::now()), telling);
                if let Err(error) = self.write_beat(coverage).await {
                    if error.is_fenced() {
                        return Err(error);
                    }
                    if let Some(told) = beating.again(Instant::now()) {
                        log_trouble!(told, %error, "heartbeat failed; others may take over this worker's leases");
                    }
                } else {
                    beating.over();
                }
            }
            match self.observe().await {
                Ok(_) => observing.over(),
                Err(error) => {
                    if let Some(told) = observing.again(Instant::now()) {
                        log_trouble!(told, %error, "the others' heartbeats could not be read");
                    }
                }
            }
        }
        // Whoever comes after sees at once that nobody is there.
        if let Err(error) = self.store.forget_worker(&self.id, &self.instance).await {
            tracing::warn!(%error, "the heartbeat could not be removed; it expires");
        }
        Ok(())
    }

    async fn write_beat(&self, coverage: Coverage) -> Result<(), StoreError> {
        let report = Report { coverage: Some(coverage), ..self.report.lock().clone() };
        let beaten = self.store.beat(&self.id, &self.instance, &report).await;
        self.counters.heartbeats.add(if beaten.is_ok() { "ok" } else { "failed" }, 1);
        beaten
    }

    async fn observe(&self) -> Result<(), StoreError> {
        let heartbeats = self.store.heartbeats().await?;
        let lease_duration = self.config.lease_duration;
        let changed = self.membership.lock().observe(&heartbeats, Instant::now(), lease_duration);
        if changed {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Waits until another worker came, went, or changed leases. One waiter.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Tells the others with the next beat what this worker has.
    pub fn report_load(&self, leases: usize, bytes_per_s: u64) {
        let mut report = self.report.lock();
        (report.leases, report.bytes_per_s) = (leases, bytes_per_s);
    }

    /// Whether one more lease would not be too many.
    pub fn has_room(&self) -> bool {
        self.report.lock().leases < self.config.leases_max
    }

    /// Tells the others now which streams this worker can read.
    pub fn report_streams(&self, streams: BTreeSet<String>) {
        self.report.lock().streams = streams;
        self.news.notify_one();
    }

    /// Tells the others now that this worker changed leases that concern them.
    pub fn report_change(&self) {
        self.report.lock().changes += 1;
        self.news.notify_one();
    }

    /// Tells the others now that this worker stops.
    pub fn report_leaving(&self) {
        self.report.lock().leaving = true;
        self.news.notify_one();
    }

    /// The fleet as it is seen now, this worker included, by name.
    pub fn members(&self) -> Vec<Member> {
        let report = self.report.lock().clone();
        self.membership.lock().members(&self.id, &report, self.config.lease_duration)
    }

    /// What each worker that lives says of its leases; this one as it is now.
    pub fn coverages(&self) -> BTreeMap<String, Option<Coverage>> {
        let mut coverages = self.membership.lock().coverages(self.config.lease_duration);
        coverages.insert(self.id.clone(), Some(self.holdings.coverage()));
        coverages
    }

    /// The versions in the fleet as it is seen now, this worker included.
    pub fn compatibility(&self) -> Compatibility {
        let build = self.report.lock().build.clone();
        self.membership.lock().compatibility(&self.id, &build, self.config.lease_duration)
    }

    /// Whether the owner of a lease of `stream` is dead, or lives and does not read the stream.
    pub fn has_abandoned(&self, owner: &str, stream: &str) -> bool {
        let (now, lease_duration) = (Instant::now(), self.config.lease_duration);
        let mut membership = self.membership.lock();
        owner != self.id
            && (membership.is_expired(owner, now, lease_duration)
                || membership.neglects(owner, stream, lease_duration))
    }

    /// Removes the heartbeats of workers that died long ago.
    pub async fn forget_the_dead(&self) {
        let after = self.config.lease_duration * FORGET_AFTER_LEASES;
        let dead = self.membership.lock().long_dead(after);
        for dead in dead.into_iter().filter(|dead| dead.worker != self.id) {
            match self.store.forget_worker(&dead.worker, &dead.instance).await {
                Ok(()) => tracing::info!(worker = dead.worker, "the heartbeat of a dead worker is removed"),
                // It lives again.
                Err(error) if error.is_fenced() => {}
                Err(error) => tracing::warn!(%error, "the heartbeat of a dead worker could not be removed"),
            }
        }
    }
}
