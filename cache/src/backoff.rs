//! Pauses between tries.

use std::time::Duration;

/// Exponential pauses with full jitter: each is drawn evenly between zero and a bound that doubles up to a
/// maximum (AWS Architecture Blog, "Exponential Backoff And Jitter").
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    bound: Duration,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, bound: first }
    }

    pub(crate) fn next_pause(&mut self) -> Duration {
        let bound = self.bound.min(self.max);
        self.bound = bound.saturating_mul(2);
        bound.mul_f64(fastrand::f64())
    }

    /// Starts over after a success.
    pub(crate) const fn reset(&mut self) {
        self.bound = self.first;
    }
}
