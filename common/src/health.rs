//! Whether a process is alive, and whether it is ready to be relied on: what orchestrators and load balancers ask.
//!
//! *Alive* means that its runtime still runs tasks: a process that is not alive is to be restarted. *Ready* means that
//! every [`Condition`] is met (its shards are read, its cache answers, its region is warm): one that is not ready needs
//! time, or something that it depends on. Being late or cut off is never a reason to be restarted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Pause between two pulses.
const PULSE_INTERVAL: Duration = Duration::from_secs(1);
/// A runtime that did not come to its pulse for so long does nothing any more.
const PULSE_MISSED: Duration = Duration::from_secs(15);

/// A process' health. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Health(Arc<State>);

#[derive(Debug)]
struct State {
    last_pulse: Mutex<Instant>,
    patience: Duration,
    is_stopping: AtomicBool,
    conditions: Mutex<Vec<(&'static str, Option<String>)>>,
    remarks: Mutex<Vec<(String, Option<String>)>>,
    /// Whoever waits for a condition looks again.
    changed: Notify,
}

/// The condition that the process has joined its fleet. With it a start is over, although much may be missing still.
pub const JOINED: &str = "fleet";
/// The condition that the process does its part of the fleet's reading.
pub const LEASES: &str = "leases";

/// One thing that a process needs to be ready, or one that is only told. At first it is not met. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Condition {
    health: Health,
    place: Place,
}

/// Where a condition is kept.
#[derive(Clone, Copy, Debug)]
enum Place {
    Condition(usize),
    Remark(usize),
}

impl Default for Health {
    fn default() -> Self {
        Self::with_patience(PULSE_MISSED)
    }
}

impl Health {
    /// One that is not alive any more when its pulse was missed for so long: more than a second.
    #[must_use]
    pub fn with_patience(patience: Duration) -> Self {
        Self(Arc::new(State {
            last_pulse: Mutex::new(Instant::now()),
            patience,
            is_stopping: AtomicBool::new(false),
            conditions: Mutex::default(),
            remarks: Mutex::default(),
            changed: Notify::new(),
        }))
    }

    /// Another condition, which is not met until it is said to be. `name` is what people read.
    #[must_use]
    pub fn condition(&self, name: &'static str) -> Condition {
        let mut conditions = self.0.conditions.lock();
        conditions.push((name, Some("not known yet".into())));
        Condition { health: self.clone(), place: Place::Condition(conditions.len() - 1) }
    }

    /// Something that people want to know of and that makes no process unready: a region among several that does not
    /// answer. `name` is what they read.
    #[must_use]
    pub fn remark(&self, name: impl Into<String>) -> Condition {
        let mut remarks = self.0.remarks.lock();
        remarks.push((name.into(), Some("not known yet".into())));
        Condition { health: self.clone(), place: Place::Remark(remarks.len() - 1) }
    }

    /// Shows that the runtime lives, until `end`. Run it on the runtime that does the work.
    pub async fn pulse(&self, end: &CancellationToken) {
        let mut ticks = tokio::time::interval(PULSE_INTERVAL);
        while end.run_until_cancelled(ticks.tick()).await.is_some() {
            *self.0.last_pulse.lock() = Instant::now();
        }
    }

    /// The process was told to stop: it is alive, and not ready any more.
    pub fn stop(&self) {
        self.0.is_stopping.store(true, Relaxed);
    }

    /// Whether it was told to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.0.is_stopping.load(Relaxed)
    }

    /// Whether the runtime still runs tasks.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.0.last_pulse.lock().elapsed() < self.0.patience
    }

    /// The conditions, in the order in which they were made; with why, those that are not met.
    #[must_use]
    pub fn conditions(&self) -> Vec<(&'static str, Option<String>)> {
        self.0.conditions.lock().clone()
    }

    /// The remarks, likewise.
    #[must_use]
    pub fn remarks(&self) -> Vec<(String, Option<String>)> {
        self.0.remarks.lock().clone()
    }

    /// Whether a condition is there, and met.
    #[must_use]
    pub fn is_met(&self, name: &str) -> bool {
        self.0.conditions.lock().iter().any(|(each, why)| *each == name && why.is_none())
    }

    /// Waits until a condition is there, and met.
    pub async fn until_met(&self, name: &str) {
        loop {
            // It is told of every change from now on, also while it is not polled.
            let changed = self.0.changed.notified();
            if self.is_met(name) {
                return;
            }
            changed.await;
        }
    }

    /// Whether all conditions are met, and it is alive and not stopping.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let met = |(_, why): &(&str, Option<String>)| why.is_none();
        self.is_alive() && !self.is_stopping() && self.0.conditions.lock().iter().all(met)
    }
}

impl Condition {
    /// It is met.
    pub fn met(&self) {
        self.set(None);
    }

    /// It is not met. `why` is what people read.
    pub fn unmet(&self, why: impl Into<String>) {
        self.set(Some(why.into()));
    }

    fn set(&self, why: Option<String>) {
        let State { conditions, remarks, .. } = &*self.health.0;
        match self.place {
            Place::Condition(index) => {
                if let Some((_, state)) = conditions.lock().get_mut(index) {
                    *state = why;
                }
                self.health.0.changed.notify_waiters();
            }
            Place::Remark(index) => {
                if let Some((_, state)) = remarks.lock().get_mut(index) {
                    *state = why;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_process_is_ready_when_all_conditions_are_met_and_it_is_not_stopping() {
        let health = Health::default();
        let (leases, cache) = (health.condition("leases"), health.condition("cache"));
        assert!(!health.is_ready());
        leases.met();
        cache.unmet("no answer from redis.internal:6379");
        let why = "no answer from redis.internal:6379".to_owned();
        assert_eq!(health.conditions(), [("leases", None), ("cache", Some(why))]);
        assert!(!health.is_ready());
        cache.met();
        assert!(health.is_ready());
        health.stop();
        assert!(!health.is_ready() && health.is_alive());
    }

    #[tokio::test(start_paused = true)]
    async fn a_runtime_that_does_not_come_to_its_pulse_is_not_alive() {
        let (health, end) = (Health::default(), CancellationToken::new());
        let beating = health.pulse(&end);
        let _ = tokio::time::timeout(Duration::from_secs(60), beating).await;
        assert!(health.is_alive());
        tokio::time::advance(PULSE_MISSED).await;
        assert!(!health.is_alive());
    }
}
