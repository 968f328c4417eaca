//! When auctions begin: at random, at a rate, by a thread that nothing else keeps busy.
//!
//! A timer of the runtime counts whole milliseconds, longer than a lookup takes, and is late when the runtime is:
//! just then arrivals must not be.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::mpsc::{Sender, error::TrySendError};
use tokio::time::Instant;

/// The longest sleep: how late the end is noticed.
const SLEEP_MAX: Duration = Duration::from_millis(20);

/// Sends the moment of each arrival when it has come, until nobody listens. Calls `lose` for one that finds no room.
/// Blocks the thread.
pub(super) fn run(rate: f64, seed: u64, due: &Sender<Instant>, lose: impl Fn()) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut arrival = Instant::now();
    while !due.is_closed() {
        arrival += gap(&mut rng, rate);
        while let wait = arrival.saturating_duration_since(Instant::now())
            && !wait.is_zero()
            && !due.is_closed()
        {
            std::thread::park_timeout(wait.min(SLEEP_MAX));
        }
        match due.try_send(arrival) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => lose(),
            Err(TrySendError::Closed(_)) => return,
        }
    }
}

/// The time until the next of independent arrivals: exponentially distributed.
fn gap(rng: &mut StdRng, rate: f64) -> Duration {
    let uniform: f64 = rng.random_range(f64::MIN_POSITIVE..1.0);
    Duration::from_secs_f64((-uniform.ln() / rate).min(3_600.0))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn arrivals_come_at_the_rate() {
        let mut rng = StdRng::seed_from_u64(5);
        let seconds: f64 = (0..10_000).map(|_| gap(&mut rng, 500.0).as_secs_f64()).sum();
        assert!((19.0..21.0).contains(&seconds), "10000 arrivals at 500 a second: {seconds} s");
    }

    #[tokio::test]
    async fn a_listener_that_stalls_loses_what_finds_no_room_and_nothing_else() {
        let (sender, mut receiver) = mpsc::channel(4);
        let lost = std::sync::Arc::new(AtomicU64::new(0));
        let counted = std::sync::Arc::clone(&lost);
        let mut clock = tokio::task::JoinSet::new();
        clock.spawn_blocking(move || {
            run(2_000.0, 1, &sender, || {
                counted.fetch_add(1, Ordering::Relaxed);
            });
        });
        while lost.load(Ordering::Relaxed) < 10 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut arrivals = Vec::new();
        for _ in 0..4 {
            arrivals.push(receiver.recv().await.unwrap());
        }
        assert!(arrivals.is_sorted(), "{arrivals:?}");
        drop(receiver);
        clock.join_next().await.unwrap().unwrap();
    }
}
