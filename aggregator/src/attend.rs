//! What an aggregator tells of itself: its conditions, what its page draws, and how its fleet is looked at.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use tokio_util::sync::CancellationToken;
use warmcast_common::admin::{AdminError, Figure, Reading};
use warmcast_common::attend::{Attend, Attendance};
use warmcast_common::consumer::{ByteBudget, Lags};
use warmcast_common::daemon::DaemonConfig;
use warmcast_common::telemetry::Telemetry;

use crate::config::Config;
use crate::stats::Stats;

/// Begins, before anything is reached.
pub(crate) fn begin(
    config: &Config,
    telemetry: Telemetry,
    stats: &Arc<Stats>,
    lags: &Lags,
    budget: &ByteBudget,
    shutdown: CancellationToken,
) -> Result<Attendance, AdminError> {
    let attend = Attend {
        admin: &config.admin,
        daemon: "aggregator",
        worker: &config.worker_id,
        region: None,
        recent: telemetry.recent,
        lags: lags.clone(),
        deadline: config.shutdown_deadline(),
        awaited: "no stream is found yet",
    };
    let (shown, lags, budget) = (Arc::clone(stats), lags.clone(), budget.clone());
    let mut attendance = attend.start(shutdown, move || figures(&shown, &lags, &budget))?;
    for region in &config.regions {
        // One that does not answer is parked: the others go on.
        let remark = attendance.health().remark(format!("region {}", region.name));
        let (stats, name) = (Arc::clone(stats), region.name.clone());
        attendance.watch(remark, move || match stats.regions().iter().find(|region| region.name() == name) {
            None => Err("it is not begun yet".to_owned()),
            Some(region) if region.does_not_answer() => Err("its Kinesis stream does not answer".to_owned()),
            Some(_) => Ok(()),
        });
    }
    Ok(attendance)
}

#[expect(clippy::cast_precision_loss, reason = "a figure on a page")]
fn figures(stats: &Stats, lags: &Lags, budget: &ByteBudget) -> Vec<Figure> {
    let counter = |of: &AtomicU64| Reading::Counter(of.load(Relaxed));
    let gauge = |of: f64| Reading::Gauge(Some(of));
    let mut figures = vec![
        Figure::new("records_read", counter(&stats.records_read)),
        Figure::new("changes_sent", Reading::Counter(stats.total(|region| &region.changes_sent))),
        Figure::new("bytes_sent", Reading::Counter(stats.total(|region| &region.bytes_sent))),
        Figure::new("lag_seconds", gauge(lags.max_ms() as f64 / 1_000.0)),
        Figure::new("queue_bytes", gauge(budget.bytes_in_use() as f64)),
        Figure::new("retries", Reading::Counter(stats.retries())),
        Figure::new("dead_letters", Reading::Counter(stats.dead_letters.total())),
        Figure::new("shards_read", gauge(lags.shards() as f64)),
    ];
    for region in stats.regions() {
        let name: Arc<str> = region.name().into();
        let of_region = |figure, reading| Figure::of_region(figure, Arc::clone(&name), reading);
        figures.extend([
            of_region("changes_sent", counter(&region.changes_sent)),
            of_region("frames_sent", counter(&region.frames_sent)),
            of_region("frames_throttled", Reading::Counter(region.entries.of("throttled"))),
            of_region("queue_frames", gauge(region.queue_frames() as f64)),
        ]);
    }
    figures
}
