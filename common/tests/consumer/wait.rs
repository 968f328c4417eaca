//! Waiting for what other tasks do: a condition is polled, with a deadline that names it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

const DEADLINE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);

/// Waits until `condition` holds.
///
/// # Panics
/// With `what` if it does not within ten seconds.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} until {what}");
        sleep(POLL).await;
    }
}

/// Makes sure that `condition` holds all the time for `duration`: for what must not happen.
///
/// # Panics
/// With `what` as soon as it does not.
pub(crate) async fn throughout(duration: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        assert!(condition().await, "within {duration:?} it was no longer so that {what}");
        sleep(POLL).await;
    }
}
