//! How far the shards that this process reads are behind. Never unknown: a shard is caught up when its last read
//! found nothing more, and falls behind again when the next read does not come in time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::clock::now_ms;

use super::source::Page;

/// The lag of every shard that this process reads. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Lags(Arc<Mutex<Shards>>);

#[derive(Debug, Default)]
struct Shards {
    next_id: u64,
    lags: HashMap<u64, Tracked>,
}

#[derive(Debug)]
struct Tracked {
    stream: Arc<str>,
    shard: Arc<str>,
    lag: Lag,
}

/// One shard's lag, for whoever looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LagOfShard {
    /// The stream.
    pub stream: Arc<str>,
    /// The shard.
    pub shard: Arc<str>,
    /// How far it is behind.
    pub lag: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Lag {
    /// How far the last read's end was behind the shard's tip.
    behind: Duration,
    /// When the next read is to be answered: from then on the shard falls behind.
    due: Instant,
}

impl Lag {
    fn at(self, now: Instant) -> Duration {
        self.behind + now.saturating_duration_since(self.due)
    }
}

impl Lags {
    /// The greatest, in milliseconds; 0 while nothing is read.
    pub fn max_ms(&self) -> u64 {
        let now = Instant::now();
        self.0.lock().lags.values().map(|of| millis(of.lag.at(now))).max().unwrap_or(0)
    }

    /// Shards that are read.
    pub fn shards(&self) -> usize {
        self.0.lock().lags.len()
    }

    /// Every shard with its lag.
    pub fn by_shard(&self) -> Vec<LagOfShard> {
        let now = Instant::now();
        let of = |of: &Tracked| LagOfShard {
            stream: Arc::clone(&of.stream),
            shard: Arc::clone(&of.shard),
            lag: of.lag.at(now),
        };
        self.0.lock().lags.values().map(of).collect()
    }

    /// A shard is read from now on, until the answer is dropped. Before its first page it is as far behind as
    /// that takes.
    pub(super) fn track(&self, stream: &Arc<str>, shard: &Arc<str>) -> ShardLag {
        let mut shards = self.0.lock();
        let id = shards.next_id;
        shards.next_id += 1;
        let lag = Lag { behind: Duration::ZERO, due: Instant::now() };
        let (stream, shard) = (Arc::clone(stream), Arc::clone(shard));
        shards.lags.insert(id, Tracked { stream, shard, lag });
        ShardLag { lags: self.clone(), id }
    }
}

/// One shard's lag.
#[derive(Debug)]
pub(super) struct ShardLag {
    lags: Lags,
    id: u64,
}

impl ShardLag {
    /// A page was read, and the next comes after `pause`.
    pub(super) fn read(&self, behind: Duration, pause: Duration) {
        let lag = Lag { behind, due: Instant::now() + pause };
        if let Some(of) = self.lags.0.lock().lags.get_mut(&self.id) {
            of.lag = lag;
        }
    }
}

impl Drop for ShardLag {
    fn drop(&mut self) {
        self.lags.0.lock().lags.remove(&self.id);
    }
}

/// How far a page's end is behind the shard's tip. An empty page of a source that does not tell is the tip.
pub(super) fn behind<R>(page: &Page<R>) -> Duration {
    match (page.behind, page.records.last()) {
        (Some(behind), _) => behind,
        (None, Some(last)) if last.created_ms > 0 => {
            Duration::from_millis(now_ms().saturating_sub(last.created_ms))
        }
        (None, _) => Duration::ZERO,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_shard_is_caught_up_until_its_next_read_is_late() {
        let lags = Lags::default();
        let shard = lags.track(&"stream".into(), &"shard".into());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(lags.max_ms(), 2_000, "not read yet");
        shard.read(Duration::ZERO, Duration::from_secs(5));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(lags.max_ms(), 0, "idle and read in time");
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(lags.max_ms(), 3_000, "throttled, or stuck");
        shard.read(Duration::from_secs(60), Duration::ZERO);
        let lag = Duration::from_secs(60);
        assert_eq!(lags.by_shard(), [LagOfShard { stream: "stream".into(), shard: "shard".into(), lag }]);
        assert_eq!(lags.max_ms(), 60_000);
        drop(shard);
        assert_eq!((lags.max_ms(), lags.shards()), (0, 0));
    }
}
