//! Keeps calls of one kind apart, for services that allow so many a second.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Gives out turns at a fixed interval, in the order in which they are asked for. Cheap to clone; clones share
/// the turns.
#[derive(Clone, Debug)]
pub struct Pace {
    interval: Duration,
    next: Arc<Mutex<Instant>>,
}

impl Pace {
    /// At most one turn in each `interval`.
    pub fn new(interval: Duration) -> Self {
        Self { interval, next: Arc::new(Mutex::new(Instant::now())) }
    }

    /// Waits for the next turn. A turn that is not waited for to its end is lost.
    pub async fn turn(&self) {
        let turn = {
            let mut next = self.next.lock();
            let turn = (*next).max(Instant::now());
            *next = turn + self.interval;
            turn
        };
        tokio::time::sleep_until(turn).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_are_an_interval_apart_whoever_asks_and_none_is_saved_up() {
        let (pace, start) = (Pace::new(Duration::from_millis(100)), Instant::now());
        let other = pace.clone();
        pace.turn().await;
        other.turn().await;
        pace.turn().await;
        assert_eq!(start.elapsed(), Duration::from_millis(200));
        tokio::time::sleep(Duration::from_secs(10)).await;
        pace.turn().await;
        pace.turn().await;
        assert_eq!(start.elapsed(), Duration::from_millis(10_300));
    }
}
