//! How far the shards that this process reads are behind.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::clock::now_ms;

use super::source::Page;

/// The lag of every shard that this process reads. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Lags(Arc<Mutex<HashMap<String, u64>>>);

impl Lags {
    /// The greatest, in milliseconds; 0 while nothing is read.
    pub fn max_ms(&self) -> u64 {
        self.0.lock().values().copied().max().unwrap_or(0)
    }

    pub(super) fn set(&self, stream: &str, shard: &str, lag_ms: u64) {
        self.0.lock().insert(format!("{stream}/{shard}"), lag_ms);
    }

    pub(super) fn remove(&self, stream: &str, shard: &str) {
        self.0.lock().remove(&format!("{stream}/{shard}"));
    }
}

/// How far a page's end is behind the shard's tip. An empty page of a source that does not tell is the tip.
pub(super) fn lag_ms<R>(page: &Page<R>) -> u64 {
    match (page.behind, page.records.last()) {
        (Some(behind), _) => u64::try_from(behind.as_millis()).unwrap_or(u64::MAX),
        (None, Some(last)) if last.created_ms > 0 => now_ms().saturating_sub(last.created_ms),
        (None, _) => 0,
    }
}
