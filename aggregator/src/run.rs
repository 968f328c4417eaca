//! The aggregator's wiring, in the order in which an update flows.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use warmcast_common::aws::sdk_config;
use warmcast_common::consumer::store::StateStore;
use warmcast_common::consumer::{ByteBudget, Consumer, Lags, Lane, LaneConfig, Lanes, Worker};
use warmcast_common::dead_letter::{LetterStore, Quarantine};
use warmcast_common::fence::Fence;
use warmcast_common::health::JOINED;
use warmcast_common::otlp;
use warmcast_common::telemetry::{Telemetry, log_at_intervals};

use crate::attend;
use crate::config::{Config, ParkingConfig, RegionConfig};
use crate::describes::Describes;
use crate::fanout;
use crate::heartbeat::Heartbeats;
use crate::metrics;
use crate::producer::Producer;
use crate::readiness::Readiness;
use crate::stats::Stats;
use crate::status::FleetLooks;
use crate::tables::Table;
use crate::target::TargetStream;

/// Pages of changes that may wait for the batcher. The byte budget bounds what they weigh.
const INTAKE_PAGES_MAX: usize = 64;
/// Streams that may wait for the consumer to take them on.
const SUBSCRIPTIONS_MAX: usize = 16;
/// Frames that may wait for one region; it is parked when they are more. The byte budget bounds what they weigh.
const REGION_FRAMES_MAX: usize = 16_384;

/// Runs the aggregator until `shutdown`, then drains.
///
/// # Errors
/// When it cannot start, or must not go on.
pub async fn run(
    config: Config,
    telemetry: Telemetry,
    shutdown: CancellationToken,
) -> Result<(), anyhow::Error> {
    let (stats, lags) = (Arc::new(Stats::default()), Lags::default());
    let budget = ByteBudget::new(config.queue_bytes_max);
    let (tracer, exporter) = otlp::start(telemetry.otlp.as_ref(), &telemetry.identity);
    let mut attendance = attend::begin(&config, telemetry, &stats, &lags, &budget, shutdown.clone())?;
    let joined = attendance.health().condition(JOINED);
    let dynamodb = aws_sdk_dynamodb::Client::new(&sdk_config(&config.dynamodb).await);
    let letters = LetterStore::open(&config.dead_letters, dynamodb.clone())?;
    let streams = aws_sdk_dynamodbstreams::Client::new(&sdk_config(&config.streams).await);
    let store = StateStore::new(dynamodb.clone(), &config.state.table);
    let announce = Worker::join_fleet(store, config.state.create, &config.worker_id, config.worker.clone());
    let Some(worker) = shutdown.run_until_cancelled(announce).await else { return Ok(()) };
    let worker = Arc::new(worker);
    joined.met();
    attendance.watch_leases(Arc::clone(&worker), lags.clone());
    attend::survey(&mut attendance, FleetLooks::new(&config, dynamodb.clone())?);
    let (quarantine, keeper) = Quarantine::new(letters, "aggregator", Arc::clone(&stats.dead_letters));

    let (to_batcher, from_intake) = mpsc::channel(INTAKE_PAGES_MAX);
    // One set for all: a task that dies before its time ends the process, whichever it is. Left without a producer
    // or the batcher, the shards would be read again and again for nothing.
    let mut tasks: JoinSet<Result<(), anyhow::Error>> = JoinSet::new();
    tasks.spawn(async move {
        keeper.run().await;
        Ok(())
    });
    // A table whose stream is not found yet has changes that nobody knows of: until then there is no watermark.
    let fence = Arc::new(Fence::default());
    let (readiness, ready) = Readiness::of_regions(config.regions.len());
    let consumer = Consumer::new(Arc::clone(&worker), budget.clone(), lags.clone())
        .with_streams(config.tables.len())
        .with_lanes(lanes(&config, ready))
        .with_fence(Arc::clone(&fence));
    let watermark = consumer.watermark();
    let reading = consumer.metrics([("queue", budget.clone())], config.metrics);
    let registry = Arc::new(metrics::registry_of(&config, &stats, &reading)?);
    attendance.expose(Arc::clone(&registry));
    let (subscribe, subscriptions) = mpsc::channel(SUBSCRIPTIONS_MAX);
    let describes = Describes::of(Arc::clone(&worker));
    let regions: Arc<[RegionConfig]> = config.regions.clone().into();
    for table in config.tables.clone() {
        let table = Table {
            table,
            regions: Arc::clone(&regions),
            dynamodb: dynamodb.clone(),
            streams: streams.clone(),
            describes: describes.clone(),
            worker: Arc::clone(&worker),
            consumer: subscribe.clone(),
            batcher: to_batcher.clone(),
            body_bytes_max: config.batch.body_bytes_max,
            quarantine: quarantine.clone(),
            stats: Arc::clone(&stats),
        };
        let shutdown = shutdown.clone();
        tasks.spawn(async move {
            table.run(shutdown).await;
            Ok(())
        });
    }
    let consuming = consumer.run(subscriptions, shutdown.clone());
    tasks.spawn(async move {
        consuming.await;
        Ok(())
    });
    // The batcher ends when the last stream's sender is gone, the producers when the batcher's are.
    drop(to_batcher);
    let mut to_regions = Vec::new();
    for (region, readiness) in config.regions.iter().zip(readiness) {
        let (to_region, from_fanout) = mpsc::channel(REGION_FRAMES_MAX);
        let format = region.target.record_format;
        to_regions.push(fanout::Region { frames: to_region, format });
        let target = TargetStream::new(&region.name, &region.stream, &region.kinesis, region.target).await;
        let (interval, stats) = (config.watermark_interval, Arc::clone(&stats));
        let heartbeats = Heartbeats { target: target.clone(), interval, stats: Arc::clone(&stats) };
        let heartbeats = heartbeats.run(watermark.clone(), shutdown.clone());
        tasks.spawn(async move {
            heartbeats.await;
            Ok(())
        });
        let letters = quarantine.of_region(&region.name);
        let producer =
            Producer::new(target, region.producer, config.batch.buckets, letters, &stats, readiness);
        tasks.spawn(async move {
            producer.run(from_fanout).await;
            Ok(())
        });
    }
    // The keeper ends when the last handle is gone.
    drop(quarantine);
    let fanout =
        fanout::run(config.batch, from_intake, to_regions, Arc::clone(&stats), tracer, shutdown.clone());
    tasks.spawn(async move { fanout.await.context("build frames") });

    // The heartbeat goes on while the shards drain: their leases are held until they are released.
    let drained = CancellationToken::new();
    let working = async {
        while let Some(ended) = tasks.join_next().await {
            ended.context("a task of the pipeline")??;
        }
        drained.cancel();
        if shutdown.is_cancelled() { Ok(()) } else { Err(anyhow!("every table's task ended")) }
    };
    let beating = async { worker.beat(&drained).await.context("heartbeat") };
    let logging = async {
        log_at_intervals(config.log.stats_interval, &drained, || stats.log(&lags, &budget)).await;
        Ok(())
    };
    let fencing = async {
        fence.keep(|_| (), &drained).await;
        Ok(())
    };
    let exporting = async {
        exporter.run(&registry, &drained, config.shutdown_deadline).await;
        Ok(())
    };
    tokio::try_join!(working, beating, logging, fencing, exporting)?;
    attendance.stop().await;
    tracing::info!("drained");
    Ok(())
}

/// The regions are the consumer's lanes, in the order of the configuration.
fn lanes(config: &Config, ready: watch::Receiver<Lanes>) -> LaneConfig {
    let lane = |region: &RegionConfig| Lane { name: region.name.as_str().into(), start: region.start.lane() };
    let ParkingConfig { parking, catch_up_bytes_max, catch_ups_max, catch_up_bytes_per_s } = config.parking;
    let lanes = config.regions.iter().map(lane).collect();
    LaneConfig { lanes, ready, parking, catch_up_bytes_max, catch_ups_max, catch_up_bytes_per_s }
}
