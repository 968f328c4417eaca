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

    fn at(self, instant: Instant) -> u64 {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        match instant.checked_duration_since(self.arrived) {
            Some(since) => self.server_ms.saturating_add(ms(since)),
            // One more, because what is left of a millisecond is cut off.
            None => {
                let before = self.arrived.saturating_duration_since(instant);
                self.server_ms.saturating_sub(ms(before).saturating_add(1))
            }
        }
    }

    /// The server's clock when the sample arrived, or earlier.
    pub(crate) const fn server_ms(self) -> u64 {
        self.server_ms
    }
}

impl ServerClock {
    pub(crate) const fn new(sample: Sample) -> Self {
        Self { sample: Mutex::new(sample) }
    }

    pub(crate) fn record(&self, sample: Sample) {
        *self.sample.lock().unwrap_or_else(PoisonError::into_inner) = sample;
    }

    /// What the server's clock shows at this time, in ms since the epoch: that or more.
    pub(crate) fn at(&self, instant: Instant) -> u64 {
        self.sample.lock().unwrap_or_else(PoisonError::into_inner).at(instant)
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
        let began = Instant::now();
        assert_eq!(clock.at(began), 1_784_000_000_999);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(clock.at(Instant::now() + Duration::from_secs(2)), 1_784_000_003_499);
        // The server's clock was set back: the newest sample counts.
        clock.record(Sample::read(&time_answer("1784000000", "0")).unwrap());
        assert_eq!(clock.at(Instant::now()), 1_784_000_000_000);
        // A time before the sample, too, is never reckoned late.
        assert_eq!(clock.at(began), 1_783_999_999_499);
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
