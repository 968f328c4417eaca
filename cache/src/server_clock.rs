//! The server's clock, as far as it is known here.
//!
//! Deadlines are judged by the server, on its own clock. Every pipeline asks for the time; what comes back was
//! true when it was answered, so at its arrival the server's clock shows that much or more. Reckoned this way
//! the clock may be late, never early (but for drift since the last sample), and a deadline made from it may fall
//! early, never late: that is the safe side of a fence. The same holds when this machine is suspended, because
//! its monotonic clock then stands still.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use redis::Value;
use tokio::time::Instant;

pub(crate) struct ServerClock {
    sample: Mutex<Sample>,
}

#[derive(Clone, Copy)]
pub(crate) struct Sample {
    arrived: Instant,
    server_ms: u64,
}

impl Sample {
    /// Reads an answer to TIME that arrived just now: seconds and microseconds.
    pub(crate) fn read(answer: &Value) -> Option<Self> {
        let (seconds, micros): (u64, u64) = redis::from_redis_value_ref(answer).ok()?;
        let server_ms = seconds.checked_mul(1_000)?.checked_add(micros / 1_000)?;
        Some(Self { arrived: Instant::now(), server_ms })
    }

    fn after(self, wait: Duration, now: Instant) -> u64 {
        let since = (now.saturating_duration_since(self.arrived) + wait).as_millis();
        self.server_ms.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }
}

impl ServerClock {
    pub(crate) const fn new(sample: Sample) -> Self {
        Self { sample: Mutex::new(sample) }
    }

    pub(crate) fn record(&self, sample: Sample) {
        *self.sample.lock().unwrap_or_else(PoisonError::into_inner) = sample;
    }

    /// The time on the server's clock `wait` from now, in ms since the epoch: not later than it will be.
    pub(crate) fn after(&self, wait: Duration) -> u64 {
        let sample = *self.sample.lock().unwrap_or_else(PoisonError::into_inner);
        sample.after(wait, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time_answer(seconds: &str, micros: &str) -> Value {
        Value::Array(vec![
            Value::BulkString(seconds.as_bytes().to_vec()),
            Value::BulkString(micros.as_bytes().to_vec()),
        ])
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_goes_on_from_the_last_sample() {
        let clock = ServerClock::new(Sample::read(&time_answer("1784000000", "999999")).unwrap());
        assert_eq!(clock.after(Duration::ZERO), 1_784_000_000_999);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(clock.after(Duration::from_secs(2)), 1_784_000_003_499);
        // The server's clock was set back: the newest sample counts.
        clock.record(Sample::read(&time_answer("1784000000", "0")).unwrap());
        assert_eq!(clock.after(Duration::ZERO), 1_784_000_000_000);
    }

    #[test]
    fn an_answer_that_is_no_time_is_no_sample() {
        for answer in
            [Value::Nil, Value::Int(7), time_answer("x", "0"), time_answer("18446744073709551615", "0")]
        {
            assert!(Sample::read(&answer).is_none(), "{answer:?}");
        }
    }
}
