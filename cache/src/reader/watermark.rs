//! The region's watermark, read in the background about once a second.
//!
//! Every change made before it has been applied in this region. If it cannot be read, or is gone, the last one
//! known stands: so the lag grows, as it does when any part of the way to here stops. It never advances by itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{MissedTickBehavior, interval};

use crate::read::EntryReads;

/// As often as it is published.
const INTERVAL: Duration = Duration::from_secs(1);

/// The watermark as last read. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watermark {
    /// 0: never read.
    ms: Arc<AtomicU64>,
}

impl Watermark {
    /// Ms since the Unix epoch; 0: never read.
    pub(crate) fn get(&self) -> u64 {
        self.ms.load(Ordering::Relaxed)
    }

    /// Reads it, if it can be read.
    pub(crate) async fn read(&self, reads: &EntryReads, key: &[u8]) {
        let answer = reads.get_many(&[key]).await.into_iter().next();
        match answer {
            Some(Ok(Some(value))) => match parse(&value) {
                // It may go back: a cache that lost changes in a failover is given them again.
                Some(ms) => self.ms.store(ms, Ordering::Relaxed),
                None => tracing::warn!("the watermark in the cache is no number: is its key used by others?"),
            },
            Some(Ok(None)) => tracing::debug!("the cache has no watermark"),
            Some(Err(error)) => tracing::debug!(%error, "the watermark cannot be read"),
            None => {}
        }
    }

    /// Reads it again and again. It ends when it is aborted.
    pub(crate) async fn follow(self, reads: EntryReads, key: Vec<u8>) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once, and the reader has just read it.
        ticks.tick().await;
        loop {
            ticks.tick().await;
            self.read(&reads, &key).await;
        }
    }
}

fn parse(value: &Bytes) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_digits() {
        assert_eq!(parse(&Bytes::from_static(b"1784000000000")), Some(1_784_000_000_000));
        for wrong in [b"".as_slice(), b"x", b"-1", b"99999999999999999999", b"\xff"] {
            assert_eq!(parse(&Bytes::copy_from_slice(wrong)), None, "{wrong:?}");
        }
    }
}
