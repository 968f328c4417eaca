//! What the round trips to the servers came to: how many, how long they took, and how many commands each had.
//!
//! A round trip has tens to hundreds of commands under load, so what is counted here costs each of them next to nothing.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;

/// Upper bounds of the time that a round trip takes, in seconds.
const SECONDS: [f64; 14] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Upper bounds of how many commands it has.
const COMMANDS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0];

/// Counts round trips. Clones are the same one.
#[derive(Clone, Debug)]
pub struct RoundTrips(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    answered: AtomicU64,
    failed: AtomicU64,
    seconds: Histogram,
    commands: Histogram,
}

impl Default for RoundTrips {
    fn default() -> Self {
        Self(Arc::new(Inner {
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            seconds: Histogram::new(SECONDS),
            commands: Histogram::new(COMMANDS),
        }))
    }
}

impl RoundTrips {
    /// One has ended: after so long, with answers or without.
    pub(crate) fn ended(&self, commands: usize, took: Duration, is_answered: bool) {
        let Inner { answered, failed, seconds, commands: histogram } = &*self.0;
        let counter = if is_answered { answered } else { failed };
        counter.fetch_add(1, Ordering::Relaxed);
        seconds.observe(took.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "a pipeline is bounded")]
        histogram.observe(commands as f64);
    }

    /// Those that brought answers, whatever these say.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.0.answered.load(Ordering::Relaxed)
    }

    /// Those that brought none: in time, or because the connection broke.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.0.failed.load(Ordering::Relaxed)
    }

    /// How long they took, in seconds; the wait for a place on the connection is not part of it.
    #[must_use]
    pub fn seconds(&self) -> &Histogram {
        &self.0.seconds
    }

    /// How many commands they had.
    #[must_use]
    pub fn commands(&self) -> &Histogram {
        &self.0.commands
    }
}
