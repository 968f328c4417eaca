//! The region's watermark, as readers see it: published each second by the worker that is responsible for it.
//!
//! It never advances by itself: it is the value that came through every shard of the stream. When the cache may have
//! lost writes, what was published is no longer true; then it is set back to what it was before anything that can
//! have been lost, and goes on when the shards have been read again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use warmcast_cache::Cache;
use warmcast_common::consumer::Watermark;
use warmcast_common::log_trouble;
use warmcast_common::telemetry::Trouble;

use crate::stats::Stats;

const INTERVAL: Duration = Duration::from_secs(1);

/// Publishes the region's watermark.
pub struct Freshness {
    /// Where it is published.
    pub cache: Cache,
    /// The fleet's watermark, while this worker is responsible for it and it is known.
    pub fleet: watch::Receiver<Option<Watermark>>,
    /// Changes when the cache may have lost writes.
    pub epoch: watch::Receiver<String>,
    /// How far back the shards are read again then.
    pub rewind: Duration,
    /// What is counted.
    pub stats: Arc<Stats>,
}

impl Freshness {
    /// Publishes until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut trouble = Trouble::default();
        let mut published = Published::new(self.rewind);
        self.epoch.mark_unchanged();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Ok(()) = self.epoch.changed() => {
                    self.epoch.mark_unchanged();
                    Stats::add(&self.stats.rewinds, 1);
                    published.set_back(Instant::now());
                }
                _ = ticks.tick() => {}
            }
            let fleet_ms = self.fleet.borrow().as_ref().map(|known| known.ms);
            let Some(watermark_ms) = published.next(fleet_ms) else { continue };
            match self.cache.publish_watermark(watermark_ms).await {
                Ok(()) => {
                    trouble.over();
                    published.record(watermark_ms, Instant::now());
                    self.stats.watermark_ms.store(watermark_ms, Relaxed);
                }
                Err(error) => {
                    if let Some(told) = trouble.again(Instant::now()) {
                        log_trouble!(told, %error, "the watermark is not published; it is tried again");
                    }
                }
            }
        }
    }
}

/// What was published lately. Pure.
#[derive(Debug)]
struct Published {
    rewind: Duration,
    /// Oldest first; the first is the newest of those that are `rewind` old, if there are such.
    history: VecDeque<(Instant, u64)>,
    /// What is to be published although the fleet does not say it.
    set_back_to: Option<u64>,
}

impl Published {
    const fn new(rewind: Duration) -> Self {
        Self { rewind, history: VecDeque::new(), set_back_to: None }
    }

    fn record(&mut self, watermark_ms: u64, now: Instant) {
        self.set_back_to = None;
        self.history.push_back((now, watermark_ms));
        while let Some((at, _)) = self.history.get(1)
            && now.duration_since(*at) >= self.rewind
        {
            self.history.pop_front();
        }
    }

    /// The cache may have lost what was written within `rewind`.
    fn set_back(&mut self, now: Instant) {
        self.record_nothing_newer_than(now.checked_sub(self.rewind));
        self.set_back_to = self.history.back().map(|(_, watermark_ms)| *watermark_ms);
    }

    fn record_nothing_newer_than(&mut self, bound: Option<Instant>) {
        while self.history.len() > 1
            && self.history.back().is_some_and(|(at, _)| bound.is_none_or(|bound| *at > bound))
        {
            self.history.pop_back();
        }
    }

    /// What to publish now: being set back comes first, because what the fleet says may not know of the loss yet.
    fn next(&self, fleet_ms: Option<u64>) -> Option<u64> {
        self.set_back_to.or(fleet_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_a_loss_the_watermark_is_what_it_was_before_anything_that_can_be_lost() {
        let mut published = Published::new(Duration::from_secs(10));
        assert_eq!(published.next(None), None);
        for second in 0..30 {
            assert_eq!(published.next(Some(second * 1_000)), Some(second * 1_000));
            published.record(second * 1_000, Instant::now());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(published.history.len() <= 12, "{}", published.history.len());
        assert_eq!(published.next(None), None, "it stands still");
        published.set_back(Instant::now());
        assert_eq!(published.next(Some(29_000)), Some(20_000), "the fleet does not know yet");
        published.record(20_000, Instant::now());
        assert_eq!(published.next(None), None);
        assert_eq!(published.next(Some(21_000)), Some(21_000), "the shards were read again");
    }

    #[tokio::test(start_paused = true)]
    async fn what_began_lately_is_set_back_to_its_beginning() {
        let mut published = Published::new(Duration::from_secs(10));
        published.set_back(Instant::now());
        assert_eq!(published.next(Some(7)), Some(7), "nothing was published by this process");
        published.record(7, Instant::now());
        published.record(8, Instant::now());
        published.set_back(Instant::now());
        assert_eq!(published.next(None), Some(7));
    }
}
