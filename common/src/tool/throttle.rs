//! Keeps a command to a rate.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// What may be taken at once after a pause: what comes in so much time.
const BURST: Duration = Duration::from_millis(250);

/// Gives out amounts at a rate, in the order in which they are asked for. Clones share the rate.
#[derive(Clone, Debug)]
pub struct Throttle {
    rate: Option<Arc<Rate>>,
}

#[derive(Debug)]
struct Rate {
    per_s: NonZeroU64,
    /// When everything that was given out has come in.
    paid: Mutex<Instant>,
}

impl Throttle {
    /// So much in a second, on average.
    pub fn per_s(per_s: NonZeroU64) -> Self {
        Self { rate: Some(Arc::new(Rate { per_s, paid: Mutex::new(Instant::now()) })) }
    }

    /// As much as is asked for, at once.
    pub const fn unlimited() -> Self {
        Self { rate: None }
    }

    /// Waits until this amount may be taken. One that is larger than what comes in a second is given out whole, and whoever
    /// comes next waits for it. What is not waited for to its end is taken nevertheless.
    pub async fn take(&self, amount: u64) {
        let Some(rate) = &self.rate else { return };
        let takes = rate.time_of(amount);
        let turn = {
            let (mut paid, now) = (rate.paid.lock(), Instant::now());
            let turn = (*paid).max(now.checked_sub(BURST).unwrap_or(now));
            *paid = turn + takes;
            turn
        };
        tokio::time::sleep_until(turn).await;
    }
}

impl Rate {
    #[expect(clippy::cast_precision_loss, reason = "a pause need not be exact")]
    fn time_of(&self, amount: u64) -> Duration {
        Duration::try_from_secs_f64(amount as f64 / self.per_s.get() as f64).unwrap_or(Duration::MAX / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(per_s: u64) -> Throttle {
        Throttle::per_s(NonZeroU64::new(per_s).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_given_out_than_the_rate_and_a_burst() {
        let (throttle, began) = (at(1_000), Instant::now());
        let mut taken = 0;
        while began.elapsed() < Duration::from_secs(10) {
            throttle.take(7).await;
            taken += 7;
        }
        assert!((9_900..=10_300).contains(&taken), "{taken}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_amount_is_paid_for_by_the_next() {
        let (throttle, began) = (at(10), Instant::now());
        throttle.take(100).await;
        assert!(began.elapsed() < Duration::from_millis(10));
        throttle.clone().take(1).await;
        assert!(began.elapsed() >= Duration::from_millis(9_700), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_saves_up_a_burst_and_no_more() {
        let throttle = at(1_000);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let began = Instant::now();
        for _ in 0..1_000 {
            throttle.take(1).await;
        }
        let took = began.elapsed();
        assert!((700..=800).contains(&took.as_millis()), "{took:?}");
        Throttle::unlimited().take(u64::MAX).await;
    }
}
