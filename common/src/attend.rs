//! What goes on beside a daemon's work from its first moment to its last: it shows that it lives, what it is ready for, and
//! answers who asks; systemd is told without being asked.
//!
//! A daemon's `run` begins with [`Attend::start`], before it reaches for anything, so that it also answers while it waits for
//! its state table; tells what it gets to know ([`Attendance::watch`], [`Attendance::survey`]); and ends with
//! [`Attendance::stop`], when everything is drained.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::admin::{Admin, AdminConfig, AdminError, Attended, Figure, FleetLook};
use crate::consumer::{Lags, Worker};
use crate::health::{Condition, Health, JOINED, LEASES};
use crate::metrics::Registry;
use crate::systemd::{Notifier, Systemd};
use crate::telemetry::Recent;

/// Pause between two looks at a condition.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// What is told of a process.
pub struct Attend<'a> {
    /// Its endpoint.
    pub admin: &'a AdminConfig,
    /// What it is: `aggregator`.
    pub daemon: &'static str,
    /// Its name in its fleet.
    pub worker: &'a str,
    /// Of which region, if it is of one.
    pub region: Option<&'a str>,
    /// Its latest warnings and errors.
    pub recent: Recent,
    /// How far behind it is.
    pub lags: Lags,
    /// How long its stop may take: `shutdown.deadline_ms`.
    pub deadline: Duration,
    /// Why it reads nothing until [`Attendance::watch_leases`].
    pub awaited: &'static str,
}

/// A process that is attended. Dropping it ends that.
#[derive(Debug)]
pub struct Attendance {
    health: Health,
    joined: Condition,
    leases: Condition,
    metrics: Arc<OnceLock<Arc<Registry>>>,
    admin: Option<Admin>,
    notifier: Option<Notifier>,
    tasks: JoinSet<()>,
}

impl Attend<'_> {
    /// Begins. From `shutdown` on it is not ready any more. `figures` are what its page draws: they are read from another
    /// thread, and must not wait for anything.
    ///
    /// # Errors
    /// When the endpoint cannot listen where it should.
    pub fn start(
        self,
        shutdown: CancellationToken,
        figures: impl Fn() -> Vec<Figure> + Send + Sync + 'static,
    ) -> Result<Attendance, AdminError> {
        let (health, metrics) = (Health::default(), Arc::<OnceLock<_>>::default());
        // Both are there before anything is reached, and not met: what cannot be reached must not look ready.
        let (joined, leases) = (health.condition(JOINED), health.condition(LEASES));
        leases.unmet(self.awaited);
        let attended = Attended {
            daemon: self.daemon,
            version: env!("CARGO_PKG_VERSION"),
            worker: self.worker.to_owned(),
            region: self.region.map(str::to_owned),
            metrics: Arc::clone(&metrics),
            health: health.clone(),
            recent: self.recent,
            figures: Box::new(figures),
        };
        let admin = Admin::start(self.admin, attended)?;
        let mut tasks = JoinSet::new();
        let pulsing = health.clone();
        tasks.spawn(async move { pulsing.pulse(&CancellationToken::new()).await });
        let systemd = Systemd {
            health: health.clone(),
            lags: self.lags,
            shutdown: shutdown.clone(),
            deadline: self.deadline,
        };
        let notifier = systemd.start();
        let stopping = health.clone();
        tasks.spawn(async move {
            shutdown.cancelled().await;
            stopping.stop();
        });
        Ok(Attendance { health, joined, leases, metrics, admin, notifier, tasks })
    }
}

impl Attendance {
    /// The process' health, to add conditions.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// The condition that it has joined its fleet.
    pub fn joined(&self) -> &Condition {
        &self.joined
    }

    /// Shows these metrics from now on: they are registered when everything is there that they are of. Called once.
    pub fn expose(&self, registry: Arc<Registry>) {
        // Those that are shown already stay.
        let _first = self.metrics.set(registry);
    }

    /// Asks once a second whether a condition is met; an error is why it is not.
    pub fn watch(&mut self, condition: Condition, is_met: impl Fn() -> Result<(), String> + Send + 'static) {
        self.tasks.spawn(async move {
            let mut ticks = interval(WATCH_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                match is_met() {
                    Ok(()) => condition.met(),
                    Err(why) => condition.unmet(why),
                }
            }
        });
    }

    /// The condition [`LEASES`], from now on: that this worker reads what it has, or could take over from those who do.
    /// Called when everything is reached that it reads from and writes to at once.
    pub fn watch_leases(&mut self, worker: Arc<Worker>, lags: Lags) {
        self.watch(self.leases.clone(), move || {
            let (own, others): (Vec<_>, Vec<_>) =
                worker.members().into_iter().partition(|member| member.id == worker.id());
            Reading {
                streams: own.iter().map(|member| member.streams.len()).sum(),
                held: worker.holdings().leases(),
                read: lags.shards(),
                held_by_others: others.iter().map(|member| member.leases).sum(),
            }
            .judge()
        });
    }

    /// Runs beside the work, until the end.
    pub fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Lets the fleet be looked at, when somebody asks.
    pub fn survey(&mut self, fleet: impl FleetLook) {
        if let Some(admin) = &self.admin {
            let surveys = admin.surveys();
            self.tasks.spawn(async move { surveys.make(fleet).await });
        }
    }

    /// Ends it, when everything is drained.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
        if let Some(admin) = self.admin.take() {
            admin.stop().await;
        }
        if let Some(notifier) = self.notifier.take() {
            notifier.stop();
        }
    }
}

/// A worker's part of its fleet's reading.
struct Reading {
    /// Streams that it has found.
    streams: usize,
    /// Leases that it holds.
    held: usize,
    /// Shards that it reads.
    read: usize,
    /// Leases of the other workers.
    held_by_others: usize,
}

impl Reading {
    /// Whether it reads as it should; an error is why not. A worker of which others have taken everything stands by, and
    /// is ready for that. One that has found no stream could take over nothing: were it ready, those that do the work
    /// might be stopped for it.
    fn judge(&self) -> Result<(), String> {
        match *self {
            Self { streams: 0, .. } => Err("no stream is found yet".to_owned()),
            Self { held: 0, held_by_others: 0, .. } => Err("nobody in the fleet has a lease yet".to_owned()),
            Self { held: 0, .. } => Ok(()),
            Self { held, read: 0, .. } => Err(format!("{held} leases are held, and none is read")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_ready_when_it_reads_or_could_take_over() {
        let is_ready = |streams, held, read, held_by_others| {
            Reading { streams, held, read, held_by_others }.judge().is_ok()
        };
        assert!(is_ready(1, 3, 3, 0) && is_ready(1, 3, 1, 0) && is_ready(1, 0, 0, 4));
        assert!(!is_ready(1, 0, 0, 0) && !is_ready(1, 3, 0, 5), "nothing is read");
        assert!(!is_ready(0, 0, 0, 4), "it could take over nothing");
    }
}
