//! All shards of all streams that this process reads: which are listed, which are ours, which are running.
//!
//! One loop decides; it never waits for a call. Tasks do the reading, the looking and the writing, and tell what
//! came of it. A shard that fails is started again after a pause, alone; its neighbours go on.

mod shards;
mod audits;
mod looks;
mod watermark;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::fence::Fence;
use crate::limits::{STATE_CALLS_IN_FLIGHT_MAX, WATERMARK_INTERVAL};
use crate::metrics::MetricsConfig;
use crate::retry::Backoff;
use crate::telemetry::{LogLimiter, Trouble};

use super::audit::{AuditError, Audited};
use super::budget::ByteBudget;
use super::catch_up::{LaneConfig, LaneContext};
use super::lag::Lags;
use super::metrics::ConsumerMetrics;
use super::outcome::{ShardExit, ShardFailure};
use super::plan::{FreeSince, ShardKey};
use super::processor::Processor;
use super::rewind::{Rewind, Rewinds};
use super::source::StreamSource;
use super::store::StoreError;
use super::watermark::Watermark;
use super::worker::Worker;

use audits::Stream;
use looks::{Busy, View};
use shards::{Failed, Tending};
use watermark::FleetWatermark;

/// A stream to be consumed.
#[derive(Debug)]
pub struct Subscription<S, P> {
    /// Where records come from.
    pub source: S,
    /// Where they go.
    pub processor: P,
    /// Where a stream that was never consumed before is begun. `true`: with the oldest record there is. `false`:
    /// with what comes from now on, and a little before.
    pub from_trim_horizon: bool,
    /// Another stream has taken this one's place: it is read to its end, and forgotten when the service has.
    pub superseded: bool,
}

/// Pause between two looks of the watchdog, and between two reports of load.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Pause between two looks which lanes hold up the others: short beside the time in which a lane takes its share of the
/// byte budget.
const LAGGARDS_INTERVAL: Duration = Duration::from_millis(250);

/// The longest pause before the first full look at a stream.
const AUDIT_DELAY_MAX: Duration = Duration::from_secs(1);

/// Pause between two calls to the others to take what a stopping worker has released. Each has them all look.
const DRAIN_NEWS_INTERVAL: Duration = Duration::from_secs(1);
/// Before the first of them: most shards drain within moments.
const DRAIN_FIRST_NEWS: Duration = Duration::from_millis(150);

/// Consumes streams.
pub struct Consumer<S, P> {
    worker: Arc<Worker>,
    budget: ByteBudget,
    lags: Lags,
    state_writes: Arc<Semaphore>,
    streams: BTreeMap<Arc<str>, Stream<S, P>>,
    tasks: JoinSet<Result<ShardExit, ShardFailure>>,
    running: HashMap<ShardKey, Tending>,
    keys: HashMap<Id, ShardKey>,
    failed: HashMap<ShardKey, Failed>,
    free_since: FreeSince,
    looks: JoinSet<Result<View, StoreError>>,
    audits: JoinSet<Result<Audited, AuditError>>,
    auditing: HashMap<Id, Arc<str>>,
    /// Searches for the children of finished shards.
    seeks: JoinSet<()>,
    /// Small writes that nothing waits for until the end.
    chores: JoinSet<()>,
    errors: Backoff,
    trouble: Trouble,
    next_sync: Instant,
    look_again: bool,
    busy: Busy,
    gave_at: Option<Instant>,
    no_room: LogLimiter,
    rewinds: Rewinds,
    lanes: Arc<LaneContext>,
    fence: Option<Arc<Fence>>,
    fleet: FleetWatermark,
    /// Streams with leases that take a newer version, which was said.
    newer: BTreeSet<Arc<str>>,
}

impl<S, P> Consumer<S, P>
where
    S: StreamSource,
    P: Processor<Record = S::Record>,
{
    /// A consumer that reads for `worker`, within `budget`.
    pub fn new(worker: Arc<Worker>, budget: ByteBudget, lags: Lags) -> Self {
        Self {
            worker,
            budget,
            lags,
            state_writes: Arc::new(Semaphore::new(STATE_CALLS_IN_FLIGHT_MAX)),
            streams: BTreeMap::new(),
            tasks: JoinSet::new(),
            running: HashMap::new(),
            keys: HashMap::new(),
            failed: HashMap::new(),
            free_since: FreeSince::new(),
            looks: JoinSet::new(),
            audits: JoinSet::new(),
            auditing: HashMap::new(),
            seeks: JoinSet::new(),
            chores: JoinSet::new(),
            errors: Backoff::default(),
            trouble: Trouble::default(),
            next_sync: Instant::now(),
            look_again: false,
            busy: Busy::default(),
            gave_at: None,
            no_room: LogLimiter::default(),
            rewinds: Rewinds::new(None),
            lanes: Arc::default(),
            fence: None,
            fleet: FleetWatermark::new(),
            newer: BTreeSet::new(),
        }
    }

    /// As many streams, or more, must be consumed before a watermark is known, those that were superseded not counted:
    /// at a start they are found one by one. Without this, one.
    #[must_use]
    pub fn with_streams(mut self, streams_min: usize) -> Self {
        self.fleet.expect(streams_min);
        self
    }

    /// When this process stood still, every shard is started again, which proves its lease, before it hands on another
    /// page. Somebody must keep the fence.
    #[must_use]
    pub fn with_fence(mut self, fence: Arc<Fence>) -> Self {
        self.fence = Some(fence);
        self
    }

    /// What shards are done into may lose what was done lately, which is done again then: see [`Rewind`]. Called before
    /// [`Consumer::rewinds`].
    #[must_use]
    pub fn with_rewind(mut self, rewind: Rewind) -> Self {
        self.rewinds = Rewinds::new(Some(rewind));
        self
    }

    /// Records go to several lanes, each of which is done by itself ([`Ack::route`](super::ack::Ack::route)), and may be
    /// parked on a shard while the others go on.
    #[must_use]
    pub fn with_lanes(mut self, config: LaneConfig) -> Self {
        self.worker.holdings().name_lanes(config.lanes.iter().map(|lane| Arc::clone(&lane.name)).collect());
        self.lanes = Arc::new(LaneContext::new(config));
        self
    }

    /// What was rewound.
    pub fn rewinds(&self) -> Rewinds {
        self.rewinds.clone()
    }

    /// The fleet's watermark: everything created before it is done, in every shard of
    /// every stream. Only the first living worker by name knows it, and only while nothing is in doubt: `None`
    /// otherwise. Looked at once a second, or at every heartbeat if that is more often.
    pub fn watermark(&self) -> watch::Receiver<Option<Watermark>> {
        self.fleet.subscribe()
    }

    /// What can be looked at of its work. `budgets` are those that it reads within, by their names.
    pub fn metrics(
        &self,
        budgets: impl IntoIterator<Item = (&'static str, ByteBudget)>,
        config: MetricsConfig,
    ) -> ConsumerMetrics {
        let (worker, lanes) = (Arc::clone(&self.worker), Arc::clone(&self.lanes));
        ConsumerMetrics {
            worker,
            lags: self.lags.clone(),
            lanes,
            budgets: budgets.into_iter().collect(),
            config,
        }
    }

    /// Consumes the streams that come from `subscriptions` until `shutdown`, then drains every shard.
    pub async fn run(
        mut self,
        mut subscriptions: mpsc::Receiver<Subscription<S, P>>,
        shutdown: CancellationToken,
    ) {
        let mut watch = tokio::time::interval(WATCH_INTERVAL.min(self.worker.config().stuck_after));
        watch.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut reckon =
            tokio::time::interval(WATERMARK_INTERVAL.min(self.worker.config().heartbeat_interval));
        reckon.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut laggards = tokio::time::interval(LAGGARDS_INTERVAL);
        laggards.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let worker = Arc::clone(&self.worker);
        let rewinds = self.rewinds.clone();
        let mut target = rewinds.target();
        while !shutdown.is_cancelled() {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                Some(ended) = self.tasks.join_next_with_id() => self.task_ended(ended, &shutdown),
                Some(looked) = self.looks.join_next() => self.looked(looked),
                Some(audited) = self.audits.join_next_with_id() => self.audited(audited),
                Some(_) = self.seeks.join_next() => {}
                Some(_) = self.chores.join_next() => {}
                Some(subscription) = subscriptions.recv() => self.subscribe(subscription),
                other = rewinds.target_other_than(target.as_deref()) => {
                    rewinds.name_the_ended();
                    target = Some(other);
                    tracing::warn!("what was done lately may be lost downstream: all shards are read again from a while ago");
                }
                () = worker.changed() => {
                    self.busy = Busy::default();
                    self.look_soon();
                }
                _ = watch.tick() => self.watch(),
                Some(read) = self.fleet.join_next() => self.fleet_read(read),
                _ = laggards.tick(), if !self.lanes.lanes.is_empty() => self.park_laggards(false),
                _ = reckon.tick() => self.reckon_watermark(),
                () = tokio::time::sleep_until(self.next_sync), if self.looks.is_empty() => self.wake(),
            }
        }
        self.drain(&shutdown, target).await;
    }

    fn subscribe(&mut self, subscription: Subscription<S, P>) {
        let name: Arc<str> = subscription.source.stream().into();
        if let Some(known) = self.streams.get_mut(&name) {
            known.superseded |= subscription.superseded;
            return;
        }
        // By then workers that start together have seen each other, so that one of them lists the stream.
        let settled = Instant::now() + self.worker.config().heartbeat_interval.min(AUDIT_DELAY_MAX);
        self.streams.insert(name, Stream::new(subscription, settled));
        self.report_streams();
        self.look_soon();
    }

    fn park_laggards(&self, is_draining: bool) {
        self.lanes.heed(&self.worker.compatibility());
        self.lanes.park_laggards(Instant::now(), is_draining);
    }

    fn report_streams(&self) {
        self.worker.report_streams(self.streams.keys().map(|name| name.to_string()).collect());
    }

    /// Something changed: the leases are looked at now, and again if a look is under way that may have missed it.
    fn look_soon(&mut self) {
        self.next_sync = Instant::now();
        self.look_again = !self.looks.is_empty();
    }

    fn wake(&mut self) {
        self.audit();
        if self.looks.is_empty() {
            self.look();
        }
    }

    /// Waits until every shard has drained, and tells the others as they do.
    async fn drain(mut self, shutdown: &CancellationToken, mut target: Option<String>) {
        let rewinds = self.rewinds.clone();
        self.worker.report_leaving();
        self.fleet.rest();
        self.audits.shutdown().await;
        self.looks.shutdown().await;
        self.seeks.shutdown().await;
        self.drain_all();
        let mut news = tokio::time::interval_at(Instant::now() + DRAIN_FIRST_NEWS, DRAIN_NEWS_INTERVAL);
        let mut laggards = tokio::time::interval(LAGGARDS_INTERVAL);
        let mut running = self.running.len();
        loop {
            tokio::select! {
                biased;
                ended = self.tasks.join_next_with_id() => match ended {
                    Some(ended) => self.task_ended(ended, shutdown),
                    None => break,
                },
                other = rewinds.target_other_than(target.as_deref()) => {
                    rewinds.name_the_ended();
                    target = Some(other);
                }
                _ = laggards.tick() => self.park_laggards(true),
                _ = news.tick() => {
                    if self.running.len() < running {
                        running = self.running.len();
                        self.worker.report_change();
                    }
                }
            }
        }
        // Not only when the heartbeat is gone: what is downstream stops first.
        self.worker.report_change();
        self.release_the_rest().await;
        while self.chores.join_next().await.is_some() {}
    }
}
