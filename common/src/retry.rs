//! Retry: one owner per call, and only a few reasons to try again.
//!
//! The SDK's own retries are switched off (see [`crate::aws`]), so a call is sent again by the code that made
//! it, which knows what else waits for it. [`Class`] is the decision an error leads to; [`Backoff`] the pauses.

use std::time::Duration;

use tokio::time::Instant;

use crate::log_trouble;
use crate::telemetry::Trouble;

/// What to do about a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The service asks for fewer calls: back off, never give up.
    Throttled,
    /// A connection, a timeout, a 5xx answer: likely to heal by itself.
    Transient,
    /// Credentials or permissions: heals when a person or a rotation mends them.
    Denied,
    /// What was named is not there (yet).
    NotFound,
    /// The call itself is wrong: sending it again cannot help.
    Permanent,
}

impl Class {
    /// A short word for logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Transient => "transient",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::Permanent => "permanent",
        }
    }
}

/// Exponential pauses with full jitter: each is drawn evenly between zero and a bound that doubles up to a
/// maximum (AWS Architecture Blog, "Exponential Backoff And Jitter"). It never ends; the caller counts tries
/// where they are bounded.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    bound: Duration,
}

impl Backoff {
    /// Pauses that start below `first` and never exceed `max`.
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, bound: first }
    }

    /// The next pause.
    pub fn next_pause(&mut self) -> Duration {
        let bound = self.bound.min(self.max);
        self.bound = bound.saturating_mul(2);
        bound.mul_f64(fastrand::f64())
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.bound = self.first;
    }
}

impl Default for Backoff {
    /// 100 ms to 10 s: for calls to a service that is expected to come back.
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(10))
    }
}

/// Tries until it succeeds, and tells that it does not: for what a daemon cannot work without and what may
/// be there in a minute. `what` names it: "the state table". Cancel it by dropping it.
pub async fn until_ok<T, E, F>(what: &str, mut attempt: impl FnMut() -> F) -> T
where
    E: std::fmt::Display,
    F: Future<Output = Result<T, E>>,
{
    let (mut pauses, mut trouble) = (Backoff::default(), Trouble::default());
    loop {
        match attempt().await {
            Ok(reached) => return reached,
            Err(error) => {
                let pause = pauses.next_pause();
                if let Some(told) = trouble.again(Instant::now()) {
                    let pause_ms = pause.as_millis();
                    log_trouble!(told, %error, pause_ms, "{what} cannot be used yet; trying again");
                }
                tokio::time::sleep(pause).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pauses_stay_within_a_bound_that_doubles(first_ms in 1u64..1_000, max_ms in 1u64..60_000, tries in 1usize..80) {
            let (first, max) = (Duration::from_millis(first_ms), Duration::from_millis(max_ms));
            let mut backoff = Backoff::new(first, max);
            let mut bound = first.min(max);
            for _ in 0..tries {
                prop_assert!(backoff.next_pause() <= bound);
                bound = bound.saturating_mul(2).min(max);
            }
            backoff.reset();
            prop_assert!(backoff.next_pause() <= first.min(max));
        }
    }
}
