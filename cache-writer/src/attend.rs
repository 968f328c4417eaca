//! What a cache-writer tells of itself: its conditions, what its page draws, and how its fleet is looked at.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use warmcast_cache::{CacheConfig, CacheError, EntryReads, ReadFrom};
use warmcast_common::admin::{AdminError, Figure, Reading, WATERMARK_AGE};
use warmcast_common::attend::{Attend, Attendance};
use warmcast_common::clock::now_ms;
use warmcast_common::consumer::{ByteBudget, Lags};
use warmcast_common::daemon::DaemonConfig;
use warmcast_common::health::Condition;
use warmcast_common::telemetry::Telemetry;
use warmcast_common::warm::RegionState;

use crate::config::Config;
use crate::stats::Stats;

/// Pause between two looks at what readers see.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// A cache that does not answer within this is not reached.
const CACHE_PATIENCE: Duration = Duration::from_secs(3);

/// What the page draws.
#[derive(Debug)]
pub(crate) struct Drawn {
    pub(crate) stats: Arc<Stats>,
    pub(crate) lags: Lags,
    pub(crate) read: ByteBudget,
    pub(crate) inflated: ByteBudget,
}

/// Begins, before anything is reached.
pub(crate) fn begin(
    config: &Config,
    telemetry: Telemetry,
    drawn: Drawn,
    shutdown: CancellationToken,
) -> Result<Attendance, AdminError> {
    let region = config.kinesis.service.region.clone();
    let attend = Attend {
        admin: &config.admin,
        daemon: "cache-writer",
        worker: &config.worker_id,
        region: region.as_deref(),
        recent: telemetry.recent,
        lags: drawn.lags.clone(),
        deadline: config.shutdown_deadline(),
        awaited: "the stream or the cache is not reached yet",
    };
    let watermark_ms = Arc::new(AtomicU64::new(0));
    let (seen_ms, of) = (Arc::clone(&watermark_ms), region.as_deref().map(Arc::from));
    let mut attendance = attend.start(shutdown, move || drawn.figures(of.clone(), seen_ms.load(Relaxed)))?;
    let readers = Readers {
        cache: config.redis.clone(),
        reads: None,
        reached: attendance.health().condition("redis"),
        warm: attendance.health().condition("region"),
        watermark_bound: config.admin.watermark_bound,
        watermark_ms,
    };
    attendance.spawn(readers.look());
    Ok(attendance)
}

/// Looks at what readers see: whether Redis answers, and how old the region's watermark is.
struct Readers {
    cache: CacheConfig,
    reads: Option<EntryReads>,
    reached: Condition,
    warm: Condition,
    watermark_bound: Duration,
    /// The last that was seen; 0: none.
    watermark_ms: Arc<AtomicU64>,
}

impl Readers {
    async fn look(mut self) {
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let read = timeout(CACHE_PATIENCE, self.watermark()).await;
            match read.unwrap_or_else(|_| Err(format!("no answer within {} s", CACHE_PATIENCE.as_secs()))) {
                Ok(watermark_ms) => {
                    self.reached.met();
                    self.watermark_ms.store(watermark_ms.unwrap_or(0), Relaxed);
                    self.judge(watermark_ms.ok_or("the cache has none yet"));
                }
                Err(why) => {
                    let last_ms = self.watermark_ms.load(Relaxed);
                    self.judge(if last_ms == 0 { Err("the cache cannot be read") } else { Ok(last_ms) });
                    self.reached.unmet(why);
                }
            }
        }
    }

    async fn watermark(&mut self) -> Result<Option<u64>, String> {
        if self.reads.is_none() {
            let connecting = EntryReads::connect(self.cache.clone(), ReadFrom::Primary).await;
            self.reads = Some(connecting.map_err(|error| error.to_string())?);
        }
        let Some(reads) = &self.reads else { return Ok(None) };
        reads.watermark_ms().await.map_err(|error: CacheError| error.to_string())
    }

    /// Where the region is parked, its aggregators tell: here that shows in the watermark.
    fn judge(&self, watermark_ms: Result<u64, &str>) {
        let state = RegionState { parked: 0, backfills: 0, watermark_ms };
        let warmth = state.warmth(now_ms(), self.watermark_bound);
        if warmth.is_warm {
            self.warm.met()
        } else {
            self.warm.unmet(format!("not warm: {}", warmth.waits_for.join("; ")))
        }
    }
}

impl Drawn {
    #[expect(clippy::cast_precision_loss, reason = "a figure on a page")]
    fn figures(&self, region: Option<Arc<str>>, watermark_ms: u64) -> Vec<Figure> {
        let Self { stats, lags, read, inflated } = self;
        let counter = |of: &AtomicU64| Reading::Counter(of.load(Relaxed));
        let gauge = |of: f64| Reading::Gauge(Some(of));
        let age_s = (watermark_ms > 0).then(|| now_ms().saturating_sub(watermark_ms) as f64 / 1_000.0);
        let of_region = |name, reading| Figure { name, region: region.clone(), reading };
        vec![
            of_region(WATERMARK_AGE, Reading::Gauge(age_s)),
            of_region("changes_received", counter(&stats.changes_received)),
            of_region("changes_applied", counter(&stats.changes_applied)),
            Figure::new("changes_stale", counter(&stats.changes_stale)),
            Figure::new("changes_failed", counter(&stats.changes_failed)),
            Figure::new("fills_asked", counter(&stats.fills_asked)),
            Figure::new("retries", counter(&stats.retries)),
            Figure::new("dead_letters", Reading::Counter(stats.dead_letters.total())),
            Figure::new("shards_read", gauge(lags.shards() as f64)),
            Figure::new("lag_seconds", gauge(lags.max_ms() as f64 / 1_000.0)),
            Figure::new("queue_bytes", gauge((read.bytes_in_use() + inflated.bytes_in_use()) as f64)),
        ]
    }
}
