//! Waiting for what other tasks and servers do: a condition is polled, with a deadline that names it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

const DEADLINE: Duration = Duration::from_secs(20);
/// Pause between two looks.
pub(crate) const POLL: Duration = Duration::from_millis(5);

/// Waits until `condition` holds.
///
/// # Panics
/// With `what` if it does not in time.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} until {what}");
        sleep(POLL).await;
    }
}
