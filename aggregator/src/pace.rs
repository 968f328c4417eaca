//! Keeps calls of one kind apart, for services that allow so many a second.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Gives out turns, in the order in which they are asked for. Cheap to clone; clones share the turns.
#[derive(Clone, Debug)]
pub struct Pace {
    next: Arc<Mutex<Instant>>,
}

impl Pace {
    /// The first turn is now.
    pub fn new() -> Self {
        Self { next: Arc::new(Mutex::new(Instant::now())) }
    }

    /// Waits for the next turn, and has the one after it wait for `interval`. A turn that is not waited for to its
    /// end is lost.
    pub async fn turn(&self, interval: Duration) {
        self.turn_within(interval, Duration::MAX).await;
    }

    /// The same, unless the turn is further off than `wait_max`: then it is not taken, and the answer is `false`.
    pub async fn turn_within(&self, interval: Duration, wait_max: Duration) -> bool {
        let turn = {
            let (mut next, now) = (self.next.lock(), Instant::now());
            let turn = (*next).max(now);
            if turn.duration_since(now) > wait_max {
                return false;
            }
            *next = turn + interval;
            turn
        };
        tokio::time::sleep_until(turn).await;
        true
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    #[tokio::test(start_paused = true)]
    async fn turns_are_an_interval_apart_whoever_asks_and_none_is_saved_up() {
        let (pace, start) = (Pace::new(), Instant::now());
        let other = pace.clone();
        pace.turn(INTERVAL).await;
        other.turn(INTERVAL).await;
        pace.turn(INTERVAL).await;
        assert_eq!(start.elapsed(), 2 * INTERVAL);
        tokio::time::sleep(100 * INTERVAL).await;
        pace.turn(INTERVAL).await;
        pace.turn(INTERVAL).await;
        assert_eq!(start.elapsed(), 103 * INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_is_too_far_off_is_not_taken() {
        let (pace, start) = (Pace::new(), Instant::now());
        assert!(pace.turn_within(INTERVAL, Duration::ZERO).await);
        assert!(!pace.turn_within(INTERVAL, INTERVAL / 2).await);
        assert!(pace.turn_within(INTERVAL, INTERVAL).await);
        assert_eq!(start.elapsed(), INTERVAL);
    }
}
