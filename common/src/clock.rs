//! Wall-clock time, for what is compared with the times that services write. Durations are measured with
//! `tokio::time::Instant`, which does not jump and which tests can pause.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the epoch.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
