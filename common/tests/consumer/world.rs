//! A table, a stream and a processor; and workers that consume the one into the other.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use warmcast_common::consumer::store::StateStore;
use warmcast_common::consumer::{
    ByteBudget, Consumer, ConsumerMetrics, Lags, Rewind, Rewinds, Subscription, Watermark, Worker,
    WorkerConfig,
};
use warmcast_common::metrics::{MetricsConfig, registry};

use super::recorder::Recorder;
use super::script::{STREAM, Script};
use super::table::Table;
use super::wait::until;

/// What outlives the workers.
pub(crate) struct World {
    pub(crate) table: Table,
    pub(crate) script: Script,
    pub(crate) recorder: Arc<Recorder>,
    /// The state of what the shards are done into.
    pub(crate) target: watch::Sender<String>,
}

/// How long shards settle that are rewound or begun in the middle.
pub(crate) const SETTLE_MS: u64 = 60_000;

/// How a worker is started.
#[derive(Clone)]
pub(crate) struct Start {
    pub(crate) id: &'static str,
    pub(crate) config: WorkerConfig,
    pub(crate) budget_bytes: usize,
    pub(crate) from_trim_horizon: bool,
    /// How far its shards are rewound when the target changes.
    pub(crate) rewind: Option<Duration>,
}

impl Default for Start {
    fn default() -> Self {
        Self { id: "w1", config: fast(), budget_bytes: 1 << 20, from_trim_horizon: true, rewind: None }
    }
}

/// Short intervals, and a lease that no test outlives.
pub(crate) fn fast() -> WorkerConfig {
    WorkerConfig {
        heartbeat_interval: Duration::from_millis(50),
        lease_duration: Duration::from_secs(60),
        sync_interval: Duration::from_millis(30),
        listing_interval: Duration::from_millis(30),
        checkpoint_interval: Duration::from_millis(10),
        idle_poll_max: Duration::from_millis(10),
        capacity: 100,
        leases_max: 1_000,
        stuck_after: Duration::from_secs(60),
        move_interval: Duration::from_secs(60),
    }
}

/// What the metrics say, as text.
pub(crate) fn text(metrics: &ConsumerMetrics) -> String {
    let mut registry = registry();
    metrics.register(&mut registry);
    warmcast_common::metrics::text(&registry).expect("metrics are written")
}

/// Whether the metrics have these samples.
pub(crate) fn tells(metrics: &ConsumerMetrics, samples: &[&str]) -> bool {
    let text = text(metrics);
    samples.iter().all(|sample| text.contains(&format!("\nwarmcast_{sample}\n")))
}

/// A worker that runs. Dropping it is its sudden death.
pub(crate) struct Running {
    pub(crate) budget: ByteBudget,
    pub(crate) worker: Arc<Worker>,
    pub(crate) rewinds: Rewinds,
    pub(crate) watermark: watch::Receiver<Option<Watermark>>,
    pub(crate) metrics: ConsumerMetrics,
    shutdown: CancellationToken,
    left: CancellationToken,
    consumer: JoinSet<()>,
    beats: JoinSet<()>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let table = Table::start().await;
        let script = Script::new(table.store.clone());
        let (target, _) = watch::channel("first".to_owned());
        Self { table, script, recorder: Arc::new(Recorder::default()), target }
    }

    /// A worker with short intervals, from the oldest record there is.
    pub(crate) async fn run(&self) -> Running {
        self.start(Start::default()).await
    }

    pub(crate) async fn start(&self, start: Start) -> Running {
        self.start_with(start, self.table.store.clone(), Arc::clone(&self.recorder)).await
    }

    /// A worker with its own way to the table and its own processor.
    pub(crate) async fn start_with(
        &self,
        start: Start,
        store: StateStore,
        recorder: Arc<Recorder>,
    ) -> Running {
        let worker = Worker::announce(store, start.id, start.config).await.expect("a worker is announced");
        let worker = Arc::new(worker);
        let (budget, shutdown) = (ByteBudget::new(start.budget_bytes), CancellationToken::new());
        let mut consumer = Consumer::new(Arc::clone(&worker), budget.clone(), Lags::default());
        if let Some(by) = start.rewind {
            let (settle, target) = (Duration::from_millis(SETTLE_MS), self.target.subscribe());
            consumer = consumer.with_rewind(Rewind { by, settle, target });
        }
        let (subscribe, subscriptions) = mpsc::channel(4);
        let subscription = Subscription {
            source: self.script.clone(),
            processor: recorder,
            from_trim_horizon: start.from_trim_horizon,
            superseded: false,
        };
        subscribe.send(subscription).await.expect("the consumer is there");
        let mut running = Running {
            budget: budget.clone(),
            worker: Arc::clone(&worker),
            rewinds: consumer.rewinds(),
            watermark: consumer.watermark(),
            metrics: consumer.metrics([("read", budget)], MetricsConfig::default()),
            shutdown: shutdown.clone(),
            left: CancellationToken::new(),
            consumer: JoinSet::new(),
            beats: JoinSet::new(),
        };
        running.consumer.spawn(consumer.run(subscriptions, shutdown));
        let left = running.left.clone();
        running.beats.spawn(async move {
            // Fenced or not: the consumer of a test goes on.
            let _end = worker.beat(&left).await;
        });
        running
    }

    /// Waits until the records of a shard came, and nothing else.
    pub(crate) async fn until_got(&self, shard: &str, expected: impl IntoIterator<Item = u64>) {
        let expected: Vec<u64> = expected.into_iter().collect();
        let what = format!("the records of {shard} are {expected:?}");
        until(&what, async || self.recorder.got(shard) == expected).await;
    }

    /// Waits until a shard's checkpoint is in the table; empty waits until there is no lease.
    pub(crate) async fn until_checkpoint(&self, shard: &str, expected: &str) {
        let what = format!("the checkpoint of {shard} is {expected:?}");
        until(&what, async || self.checkpoint(shard).await == expected).await;
    }

    /// The checkpoint of a shard as it is in the table; empty without a lease.
    pub(crate) async fn checkpoint(&self, shard: &str) -> String {
        let checkpoint = self.table.checkpoint(STREAM, shard).await;
        checkpoint.map(|checkpoint| checkpoint.to_string()).unwrap_or_default()
    }

    /// Who has the lease of a shard.
    pub(crate) async fn owner(&self, shard: &str) -> Option<String> {
        self.table.lease(STREAM, shard).await.and_then(|lease| lease.owner)
    }
}

impl Running {
    /// The fleet's watermark.
    pub(crate) fn watermark_ms(&self) -> Option<u64> {
        self.watermark.borrow().as_ref().map(|known| known.ms)
    }

    /// Waits until the fleet's watermark is this.
    pub(crate) async fn until_watermark(&self, expected: Option<u64>) {
        let what = format!("the watermark is {expected:?}");
        until(&what, async || self.watermark_ms() == expected).await;
    }

    /// Tells it to stop and does not wait.
    pub(crate) fn ask_to_stop(&self) {
        self.shutdown.cancel();
    }

    /// Whether its consumer has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        while let Some(ended) = self.consumer.try_join_next() {
            ended.expect("the consumer does not panic");
        }
        self.consumer.is_empty()
    }

    /// Tells it to stop and waits until everything is drained.
    pub(crate) async fn stop(mut self) {
        self.ask_to_stop();
        until("the consumer has drained", async || self.has_ended()).await;
        self.left.cancel();
        while self.beats.join_next().await.is_some() {}
    }

    /// The process dies: no drain, no release, no more heartbeats.
    pub(crate) async fn kill(mut self) {
        self.beats.shutdown().await;
        self.consumer.shutdown().await;
    }
}
