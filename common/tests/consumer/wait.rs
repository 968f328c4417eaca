//! Waiting, and making sure that nothing happens meanwhile.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::support::POLL;
pub(crate) use super::support::until;

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
