//! The cache-writer's wiring, in the order in which an update flows.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use warmcast_cache::{Cache, EntryReads, Filler, ReadFrom, RoundTrips};
use warmcast_common::aws::sdk_config;
use warmcast_common::consumer::store::StateStore;
use warmcast_common::consumer::{ByteBudget, Consumer, Lags, Rewind, Subscription, Worker};
use warmcast_common::dead_letter::{LetterStore, Quarantine};
use warmcast_common::fence::Fence;
use warmcast_common::health::Condition;
use warmcast_common::otlp::{self, Tracer};
use warmcast_common::retry::until_ok;
use warmcast_common::telemetry::{Telemetry, log_at_intervals};

use crate::attend::{self, Drawn};
use crate::config::Config;
use crate::freshness::Freshness;
use crate::metrics::{self, Bill, Sources};
use crate::reducer::Reducer;
use crate::refill;
use crate::source::KinesisStream;
use crate::stats::Stats;
use crate::status::FleetLooks;
use crate::unpack::{LATE_AFTER, Unpack};
use crate::verify::continuous::Continuous;
use crate::verify::look::Looker;

/// Frames' shares that may wait for one reducer. The byte budgets bound what they weigh.
const REDUCER_QUEUE_MAX: usize = 64;

/// Runs the cache-writer until `shutdown`, then drains.
///
/// # Errors
/// When it cannot start, or must not go on.
pub async fn run(
    config: Config,
    telemetry: Telemetry,
    shutdown: CancellationToken,
) -> Result<(), anyhow::Error> {
    let bill = Bill::new(&config.prices.load()?, &config);
    let (stats, lags) = (Arc::new(Stats::default()), Lags::default());
    let (read, inflated) =
        (ByteBudget::new(config.queue.read_bytes_max), ByteBudget::new(config.queue.inflated_bytes_max));
    let drawn = Drawn {
        stats: Arc::clone(&stats),
        lags: lags.clone(),
        read: read.clone(),
        inflated: inflated.clone(),
    };
    let (tracer, exporter) = otlp::start(telemetry.otlp.as_ref(), &telemetry.identity);
    let mut attendance = attend::begin(&config, telemetry, drawn, shutdown.clone())?;
    let dynamodb = aws_sdk_dynamodb::Client::new(&sdk_config(&config.dynamodb).await);
    let letters = LetterStore::open(&config.dead_letters, dynamodb.clone())?;
    let store = StateStore::new(dynamodb.clone(), &config.state.table);
    attendance.survey(FleetLooks::new(&config, store.clone(), &dynamodb).await?);
    let reaching = Box::pin(reach(&config, store, attendance.joined(), &stats));
    let reached = shutdown.run_until_cancelled(reaching).await;
    let Some((source, worker, cache)) = reached else { return Ok(()) };
    attendance.watch_leases(Arc::clone(&worker), lags.clone());

    let filler = filler(&config, &cache).await;
    let pipeline = Pipeline { config: &config, cache, filler, stats: &stats, fence: Arc::default() };
    let consumer = pipeline.consumer(Arc::clone(&worker), read.clone(), lags.clone());
    let budgets = [("read", read.clone()), ("inflated", inflated.clone())];
    let sources = Sources {
        stats: Arc::clone(&stats),
        filler: pipeline.filler.clone(),
        is_on_demand: source.is_on_demand(),
        bill,
    };
    let registry = Arc::new(metrics::registry_of(sources, &consumer.metrics(budgets, config.metrics)));
    attendance.expose(Arc::clone(&registry));
    let freshness = pipeline.freshness(&consumer);
    // One set for all: a task that dies before its time ends the process, whichever it is. Left without a reducer,
    // the shards would be read again and again for nothing.
    let mut tasks = JoinSet::new();
    let unpack = pipeline.reduce(letters, inflated.clone(), tracer, &mut tasks);
    pipeline.consume(consumer, source, unpack, &shutdown, &mut tasks)?;

    // The heartbeat goes on while the shards drain: their leases are held until they are released.
    let drained = CancellationToken::new();
    let working = work(tasks, &drained, &shutdown);
    let beating = async { worker.beat(&drained).await.context("heartbeat") };
    let logging = async {
        log_at_intervals(config.log.stats_interval, &drained, || stats.log(&lags, &read, &inflated)).await;
        Ok(())
    };
    let keeping = async {
        pipeline.keep(freshness, &shutdown, &drained).await;
        Ok(())
    };
    let exporting = async {
        exporter.run(&registry, &drained, config.shutdown_deadline).await;
        Ok(())
    };
    tokio::try_join!(working, beating, logging, keeping, exporting)?;
    attendance.stop().await;
    tracing::info!("drained");
    Ok(())
}

/// Reaches everything that is needed, however long that takes: what is not there now may be in a minute.
async fn reach(
    config: &Config,
    store: StateStore,
    joined: &Condition,
    stats: &Arc<Stats>,
) -> (KinesisStream, Arc<Worker>, Cache) {
    let kinesis = aws_sdk_kinesis::Client::new(&sdk_config(&config.kinesis.service).await);
    let stream = &config.kinesis.stream;
    let joining = async {
        let worker =
            Worker::join_fleet(store, config.state.create, &config.worker_id, config.worker.clone()).await;
        joined.met();
        Arc::new(worker)
    };
    tokio::join!(
        until_ok("the stream", || KinesisStream::find(kinesis.clone(), stream)),
        joining,
        reach_cache(config, stats),
    )
}

/// The cache, when it is known what data every primary has: what the leases say is held against that.
async fn reach_cache(config: &Config, stats: &Arc<Stats>) -> Cache {
    let counted = Arc::clone(stats);
    let round_trips = RoundTrips::told_to(move |trip| counted.round_trips.add(trip));
    let connect = || Cache::connect_told(config.redis.clone(), round_trips.clone());
    let cache = until_ok("the cache", connect).await;
    let mut epoch = cache.epoch();
    tokio::select! {
        // The cache has the sender.
        _ = epoch.wait_for(|epoch| !epoch.is_empty()) => {}
        () = cache.watch(CancellationToken::new()) => {}
    }
    cache
}

/// What reads from the master, if something is to.
async fn filler(config: &Config, cache: &Cache) -> Option<Filler> {
    let fallback = config.fallback.as_ref()?;
    let master = refill::master(fallback).await;
    Some(Filler::new(cache.clone(), master, fallback.filler.clone()))
}

/// What the parts between the stream and the cache share.
struct Pipeline<'a> {
    config: &'a Config,
    cache: Cache,
    filler: Option<Filler>,
    stats: &'a Arc<Stats>,
    fence: Arc<Fence>,
}

impl Pipeline<'_> {
    /// Reads the stream's shards, and again from a while ago when the cache may have lost writes.
    fn consumer(&self, worker: Arc<Worker>, read: ByteBudget, lags: Lags) -> Consumer<KinesisStream, Unpack> {
        let rewind = Rewind { by: self.config.rewind, settle: LATE_AFTER, target: self.cache.epoch() };
        Consumer::new(worker, read, lags).with_fence(Arc::clone(&self.fence)).with_rewind(rewind)
    }

    fn freshness(&self, consumer: &Consumer<KinesisStream, Unpack>) -> Freshness {
        Freshness {
            cache: self.cache.clone(),
            fleet: consumer.watermark(),
            epoch: self.cache.epoch(),
            rewind: self.config.rewind,
            stats: Arc::clone(self.stats),
        }
    }

    /// Starts what applies changes; the unpacker, which hands them out. What cannot be used goes to `letters`.
    fn reduce(
        &self,
        letters: LetterStore,
        inflated: ByteBudget,
        tracer: Tracer,
        tasks: &mut JoinSet<()>,
    ) -> Unpack {
        let counts = Arc::clone(&self.stats.dead_letters);
        let (quarantine, keeper) = Quarantine::new(letters, self.config.letters_source(), counts);
        // It ends when the last handle is gone, with the reducers and the unpacker.
        tasks.spawn(keeper.run());
        let mut reducers = Vec::new();
        for _ in 0..self.config.reducers {
            let (to_reducer, from_unpack) = mpsc::channel(REDUCER_QUEUE_MAX);
            reducers.push(to_reducer);
            let reducer = Reducer {
                cache: self.cache.clone(),
                filler: self.filler.clone(),
                quarantine: quarantine.clone(),
                stats: Arc::clone(self.stats),
                fence: Arc::clone(&self.fence),
            };
            tasks.spawn(reducer.run(from_unpack));
        }
        Unpack { reducers, inflated, quarantine, stats: Arc::clone(self.stats), tracer }
    }

    /// Starts to read. The reducers end when the consumer, which has the unpacker, is gone.
    fn consume(
        &self,
        consumer: Consumer<KinesisStream, Unpack>,
        source: KinesisStream,
        unpack: Unpack,
        shutdown: &CancellationToken,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), anyhow::Error> {
        let (subscribe, subscriptions) = mpsc::channel(1);
        let subscription = Subscription {
            source,
            processor: unpack,
            from_trim_horizon: self.config.kinesis.from_trim_horizon,
            superseded: false,
        };
        if subscribe.try_send(subscription).is_err() {
            return Err(anyhow!("the consumer takes no stream"));
        }
        tasks.spawn(consumer.run(subscriptions, shutdown.clone()));
        Ok(())
    }

    /// Keeps the cache true, beside the changes, until everything is drained: what is applied last needs that as well.
    /// Only verification ends with `shutdown`.
    async fn keep(&self, freshness: Freshness, shutdown: &CancellationToken, drained: &CancellationToken) {
        let fencing = self.fence.keep(|until| self.cache.hold_until(until), drained);
        let verifying = Box::pin(self.verify_always(shutdown));
        tokio::join!(fencing, self.cache.watch(drained.clone()), freshness.run(drained.clone()), verifying);
    }

    /// Compares the cache with the master, within the bounds of reading it, until `shutdown`; if it is to.
    async fn verify_always(&self, shutdown: &CancellationToken) {
        let Self { config, filler: Some(filler), stats, .. } = self else { return };
        if config.verify.keys_per_s == 0 {
            return;
        }
        let connect = || EntryReads::connect(config.redis.clone(), ReadFrom::Primary);
        let connecting = until_ok("the cache, to verify it", connect);
        let Some(reads) = shutdown.run_until_cancelled(connecting).await else { return };
        let looker = Looker {
            reads,
            master: filler.master().clone(),
            tables: Arc::new(config.redis.tables.clone()),
            only: None,
            is_filtered: config.verify.is_filtered,
            shed_retries: 0,
        };
        Continuous::new(looker, config.verify.clone(), Arc::clone(stats)).run(shutdown.clone()).await;
    }
}

/// Waits until the last task has drained, and tells it.
async fn work(
    mut tasks: JoinSet<()>,
    drained: &CancellationToken,
    shutdown: &CancellationToken,
) -> Result<(), anyhow::Error> {
    while let Some(ended) = tasks.join_next().await {
        ended.context("a task of the pipeline")?;
    }
    drained.cancel();
    if shutdown.is_cancelled() { Ok(()) } else { Err(anyhow!("the consumer ended")) }
}
