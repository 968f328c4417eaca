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
use warmcast_common::health::{Condition, JOINED};
use warmcast_common::otlp;
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
    let (stats, lags, round_trips) = (Arc::new(Stats::default()), Lags::default(), RoundTrips::default());
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
    let joined = attendance.health().condition(JOINED);
    let dynamodb = aws_sdk_dynamodb::Client::new(&sdk_config(&config.dynamodb).await);
    let letters = LetterStore::open(&config.dead_letters, dynamodb.clone())?;
    attend::survey(&mut attendance, FleetLooks::new(&config, dynamodb.clone()).await?);
    let reached =
        shutdown.run_until_cancelled(Box::pin(reach(&config, dynamodb, &joined, &round_trips))).await;
    let Some((source, worker, cache)) = reached else {
        return Ok(());
    };
    let filler = match &config.fallback {
        Some(fallback) => {
            let master = refill::master(fallback).await;
            Some(Filler::new(cache.clone(), master, fallback.filler.clone()))
        }
        None => None,
    };
    let fence = Arc::new(Fence::default());
    let worker = Arc::new(worker);
    attendance.watch_leases(Arc::clone(&worker), lags.clone());

    // One set for all: a task that dies before its time ends the process, whichever it is. Left without a reducer,
    // the shards would be read again and again for nothing.
    let mut tasks = JoinSet::new();
    let (quarantine, keeper) =
        Quarantine::new(letters, config.letters_source(), Arc::clone(&stats.dead_letters));
    // It ends when the last handle is gone, with the reducers and the unpacker.
    tasks.spawn(keeper.run());
    let mut reducers = Vec::new();
    for _ in 0..config.reducers {
        let (to_reducer, from_unpack) = mpsc::channel(REDUCER_QUEUE_MAX);
        reducers.push(to_reducer);
        let reducer = Reducer {
            cache: cache.clone(),
            filler: filler.clone(),
            quarantine: quarantine.clone(),
            stats: Arc::clone(&stats),
            fence: Arc::clone(&fence),
        };
        tasks.spawn(reducer.run(from_unpack));
    }
    // The reducers end when the consumer, which has the unpacker, is gone.
    let unpack =
        Unpack { reducers, inflated: inflated.clone(), quarantine, stats: Arc::clone(&stats), tracer };
    let rewind = Rewind { by: config.rewind, settle: LATE_AFTER, target: cache.epoch() };
    let consumer = Consumer::new(Arc::clone(&worker), read.clone(), lags.clone())
        .with_fence(Arc::clone(&fence))
        .with_rewind(rewind);
    let budgets = [("read", read.clone()), ("inflated", inflated.clone())];
    let sources = Sources {
        stats: Arc::clone(&stats),
        round_trips,
        filler: filler.clone(),
        is_on_demand: source.is_on_demand(),
        bill,
    };
    let registry = Arc::new(metrics::registry_of(sources, &consumer.metrics(budgets, config.metrics)));
    attendance.expose(Arc::clone(&registry));
    let verifying = match (&filler, config.verify.keys_per_s) {
        (Some(filler), 1..) => Some(verify_always(&config, filler, &stats, shutdown.clone())),
        _ => None,
    };
    let freshness = Freshness {
        cache: cache.clone(),
        fleet: consumer.watermark(),
        epoch: cache.epoch(),
        rewind: config.rewind,
        stats: Arc::clone(&stats),
    };
    let (subscribe, subscriptions) = mpsc::channel(1);
    let subscription = Subscription {
        source,
        processor: unpack,
        from_trim_horizon: config.kinesis.from_trim_horizon,
        superseded: false,
    };
    if subscribe.try_send(subscription).is_err() {
        return Err(anyhow!("the consumer takes no stream"));
    }
    tasks.spawn(consumer.run(subscriptions, shutdown.clone()));

    // The heartbeat goes on while the shards drain: their leases are held until they are released.
    let drained = CancellationToken::new();
    let working = async {
        while let Some(ended) = tasks.join_next().await {
            ended.context("a task of the pipeline")?;
        }
        drained.cancel();
        if shutdown.is_cancelled() { Ok(()) } else { Err(anyhow!("the consumer ended")) }
    };
    let beating = async { worker.beat(&drained).await.context("heartbeat") };
    let logging = async {
        log_at_intervals(config.log.stats_interval, &drained, || stats.log(&lags, &read, &inflated)).await;
        Ok(())
    };
    // Until everything is drained: what is applied last needs them as well.
    let attending = async {
        let fencing = fence.keep(|until| cache.hold_until(until), &drained);
        let verifying = async {
            if let Some(verifying) = verifying {
                Box::pin(verifying).await;
            }
        };
        tokio::join!(fencing, cache.watch(drained.clone()), freshness.run(drained.clone()), verifying);
        Ok(())
    };
    let exporting = async {
        exporter.run(&registry, &drained, config.shutdown_deadline).await;
        Ok(())
    };
    tokio::try_join!(working, beating, logging, attending, exporting)?;
    attendance.stop().await;
    tracing::info!("drained");
    Ok(())
}

/// Reaches everything that is needed, however long that takes: what is not there now may be in a minute.
async fn reach(
    config: &Config,
    dynamodb: aws_sdk_dynamodb::Client,
    joined: &Condition,
    round_trips: &RoundTrips,
) -> (KinesisStream, Worker, Cache) {
    let kinesis = aws_sdk_kinesis::Client::new(&sdk_config(&config.kinesis.service).await);
    let store = StateStore::new(dynamodb, &config.state.table);
    let stream = &config.kinesis.stream;
    let joining = async {
        let worker =
            Worker::join_fleet(store, config.state.create, &config.worker_id, config.worker.clone()).await;
        joined.met();
        worker
    };
    tokio::join!(
        until_ok("the stream", || KinesisStream::find(kinesis.clone(), stream)),
        joining,
        reach_cache(config, round_trips),
    )
}

/// The cache, when it is known what data every primary has: what the leases say is held against that.
async fn reach_cache(config: &Config, round_trips: &RoundTrips) -> Cache {
    let cache =
        until_ok("the cache", || Cache::connect_counted(config.redis.clone(), round_trips.clone())).await;
    let mut epoch = cache.epoch();
    tokio::select! {
        // The cache has the sender.
        _ = epoch.wait_for(|epoch| !epoch.is_empty()) => {}
        () = cache.watch(CancellationToken::new()) => {}
    }
    cache
}

/// Compares the cache with the master, within the bounds of reading it, until `shutdown`.
async fn verify_always(config: &Config, filler: &Filler, stats: &Arc<Stats>, shutdown: CancellationToken) {
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
    Continuous::new(looker, config.verify.clone(), Arc::clone(stats)).run(shutdown).await;
}
