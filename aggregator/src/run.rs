//! The aggregator's wiring, in the order in which an update flows.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use warmcast_common::aws::sdk_config;
use warmcast_common::consumer::store::StateStore;
use warmcast_common::consumer::{ByteBudget, Consumer, Lags, Lane, LaneConfig, Lanes, Watermark, Worker};
use warmcast_common::dead_letter::{LetterStore, Quarantine};
use warmcast_common::fence::Fence;
use warmcast_common::otlp::{self, Tracer};
use warmcast_common::telemetry::{Telemetry, log_at_intervals};

use crate::attend;
use crate::config::{Config, ParkingConfig, RegionConfig};
use crate::describes::Describes;
use crate::fanout;
use crate::heartbeat::Heartbeats;
use crate::intake::{Intake, Pending};
use crate::metrics;
use crate::producer::Producer;
use crate::readiness::Readiness;
use crate::source::DynamoDbStream;
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
    let dynamodb = aws_sdk_dynamodb::Client::new(&sdk_config(&config.dynamodb).await);
    let letters = LetterStore::open(&config.dead_letters, dynamodb.clone())?;
    let store = StateStore::new(dynamodb.clone(), &config.state.table);
    let announce = Worker::join_fleet(store, config.state.create, &config.worker_id, config.worker.clone());
    let Some(worker) = shutdown.run_until_cancelled(announce).await else { return Ok(()) };
    let worker = Arc::new(worker);
    attendance.joined().met();
    attendance.watch_leases(Arc::clone(&worker), lags.clone());
    attendance.survey(FleetLooks::new(&config, worker.store().clone(), &dynamodb)?);

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
    let mut pipeline = Pipeline::new(&config, letters, &stats, &shutdown);
    let from_intake = pipeline.read_tables(consumer, &worker, dynamodb).await;
    let to_regions = pipeline.send_to_regions(&watermark, readiness).await;
    let tasks = pipeline.build_frames(from_intake, to_regions, tracer);

    // The heartbeat goes on while the shards drain: their leases are held until they are released.
    let drained = CancellationToken::new();
    let working = work(tasks, &drained, &shutdown);
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

/// The tasks between the tables' streams and the regions' as they are started, and what they share.
struct Pipeline<'a> {
    config: &'a Config,
    stats: &'a Arc<Stats>,
    shutdown: &'a CancellationToken,
    quarantine: Quarantine,
    /// One set for all: a task that dies before its time ends the process, whichever it is. Left without a producer or
    /// the batcher, the shards would be read again and again for nothing.
    tasks: Tasks,
}

type Tasks = JoinSet<Result<(), anyhow::Error>>;

impl<'a> Pipeline<'a> {
    /// What cannot be used goes to `letters`.
    fn new(
        config: &'a Config,
        letters: LetterStore,
        stats: &'a Arc<Stats>,
        shutdown: &'a CancellationToken,
    ) -> Self {
        let (quarantine, keeper) = Quarantine::new(letters, "aggregator", Arc::clone(&stats.dead_letters));
        let mut pipeline = Self { config, stats, shutdown, quarantine, tasks: JoinSet::new() };
        // It ends when the last handle is gone.
        pipeline.spawn(keeper.run());
        pipeline
    }

    /// Reads the tables' streams; the changes.
    async fn read_tables(
        &mut self,
        consumer: Consumer<DynamoDbStream, Intake>,
        worker: &Arc<Worker>,
        dynamodb: aws_sdk_dynamodb::Client,
    ) -> mpsc::Receiver<Vec<Pending>> {
        let streams = aws_sdk_dynamodbstreams::Client::new(&sdk_config(&self.config.streams).await);
        let (to_batcher, from_intake) = mpsc::channel(INTAKE_PAGES_MAX);
        let (subscribe, subscriptions) = mpsc::channel(SUBSCRIPTIONS_MAX);
        let describes = Describes::of(Arc::clone(worker));
        let regions: Arc<[RegionConfig]> = self.config.regions.clone().into();
        for table in self.config.tables.clone() {
            let table = Table {
                table,
                regions: Arc::clone(&regions),
                dynamodb: dynamodb.clone(),
                streams: streams.clone(),
                describes: describes.clone(),
                worker: Arc::clone(worker),
                consumer: subscribe.clone(),
                // The batcher ends when the last stream's sender is gone.
                batcher: to_batcher.clone(),
                body_bytes_max: self.config.batch.body_bytes_max,
                quarantine: self.quarantine.clone(),
                stats: Arc::clone(self.stats),
            };
            self.spawn(table.run(self.shutdown.clone()));
        }
        self.spawn(consumer.run(subscriptions, self.shutdown.clone()));
        from_intake
    }

    /// Sends frames to the regions, in the order of the configuration, and tells them the watermark; where the frames go.
    async fn send_to_regions(
        &mut self,
        watermark: &watch::Receiver<Option<Watermark>>,
        readiness: Vec<Readiness>,
    ) -> Vec<fanout::Region> {
        let mut to_regions = Vec::new();
        for (region, readiness) in self.config.regions.iter().zip(readiness) {
            // The producer ends when the batcher's sender is gone.
            let (to_region, from_fanout) = mpsc::channel(REGION_FRAMES_MAX);
            to_regions.push(fanout::Region { frames: to_region, format: region.target.record_format });
            let target =
                TargetStream::new(&region.name, &region.stream, &region.kinesis, region.target).await;
            let (interval, stats) = (self.config.watermark_interval, Arc::clone(self.stats));
            let heartbeats = Heartbeats { target: target.clone(), interval, stats };
            self.spawn(heartbeats.run(watermark.clone(), self.shutdown.clone()));
            let (buckets, letters) = (self.config.batch.buckets, self.quarantine.of_region(&region.name));
            let producer = Producer::new(target, region.producer, buckets, letters, self.stats, readiness);
            self.spawn(async move { producer.run(from_fanout).await });
        }
        to_regions
    }

    /// Makes frames of the changes, which is the last task; all of them.
    fn build_frames(
        mut self,
        changes: mpsc::Receiver<Vec<Pending>>,
        to_regions: Vec<fanout::Region>,
        tracer: Tracer,
    ) -> Tasks {
        let (stats, shutdown) = (Arc::clone(self.stats), self.shutdown.clone());
        let fanout = fanout::run(self.config.batch, changes, to_regions, stats, tracer, shutdown);
        self.tasks.spawn(async move { fanout.await.context("build frames") });
        self.tasks
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            task.await;
            Ok(())
        });
    }
}

/// Waits until the last task has drained, and tells it.
async fn work(
    mut tasks: Tasks,
    drained: &CancellationToken,
    shutdown: &CancellationToken,
) -> Result<(), anyhow::Error> {
    while let Some(ended) = tasks.join_next().await {
        ended.context("a task of the pipeline")??;
    }
    drained.cancel();
    if shutdown.is_cancelled() { Ok(()) } else { Err(anyhow!("every table's task ended")) }
}

/// The regions are the consumer's lanes, in the order of the configuration.
fn lanes(config: &Config, ready: watch::Receiver<Lanes>) -> LaneConfig {
    let lane = |region: &RegionConfig| Lane { name: region.name.as_str().into(), start: region.start.lane() };
    let ParkingConfig { parking, catch_up_bytes_max, catch_ups_max, catch_up_bytes_per_s } = config.parking;
    let lanes = config.regions.iter().map(lane).collect();
    LaneConfig { lanes, ready, parking, catch_up_bytes_max, catch_ups_max, catch_up_bytes_per_s }
}
