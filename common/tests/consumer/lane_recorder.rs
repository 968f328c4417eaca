//! A processor of several lanes, each of which can be held up, and workers that read for them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use warmcast_common::consumer::parked::ParkedLanes;
use warmcast_common::consumer::{
    ByteBudget, Consumer, ConsumerMetrics, Delivery, Lags, Lane, LaneAck, LaneConfig, LaneFigures, LaneStart,
    Lanes, Parking, Processor, Subscription, Watermark, Worker,
};
use warmcast_common::metrics::MetricsConfig;

use super::script::{STREAM, Script};
use super::table::Table;
use super::wait::until;
use super::world::fast;

/// A lane that is held up is parked after so long.
pub(crate) const PARK_AFTER: Duration = Duration::from_millis(300);

/// What arrived on each lane, and what is held up before it.
#[derive(Default)]
pub(crate) struct LaneRecorder(Mutex<State>);

#[derive(Default)]
struct State {
    arrived: BTreeMap<String, BTreeMap<String, BTreeSet<u64>>>,
    closed: BTreeSet<String>,
    held: Vec<(String, String, u64, LaneAck)>,
}

/// Gives a recorder the names of one process' lanes.
struct Named {
    names: Vec<String>,
    recorder: Arc<LaneRecorder>,
}

impl LaneRecorder {
    /// Nothing arrives on the lane any more.
    pub(crate) fn close(&self, lane: &str) {
        self.0.lock().closed.insert(lane.to_owned());
    }

    /// What was held up arrives, unless it is worthless, and so does what comes.
    pub(crate) fn open(&self, lane: &str) {
        let held = {
            let mut state = self.0.lock();
            state.closed.remove(lane);
            let (held, kept) = std::mem::take(&mut state.held).into_iter().partition(|(of, ..)| of == lane);
            state.held = kept;
            let held: Vec<(String, String, u64, LaneAck)> = held;
            held
        };
        for (lane, shard, sequence, ack) in held {
            if !ack.is_worthless() {
                self.arrive(&lane, &shard, sequence, ack);
            }
        }
    }

    fn arrive(&self, lane: &str, shard: &str, sequence: u64, ack: LaneAck) {
        let mut state = self.0.lock();
        let of_lane = state.arrived.entry(lane.to_owned()).or_default();
        of_lane.entry(shard.to_owned()).or_default().insert(sequence);
        drop(state);
        ack.done();
    }

    /// What arrived on a lane of a shard.
    pub(crate) fn arrived(&self, lane: &str, shard: &str) -> Vec<u64> {
        let state = self.0.lock();
        let of_shard = state.arrived.get(lane).and_then(|of| of.get(shard));
        of_shard.map(|of| of.iter().copied().collect()).unwrap_or_default()
    }
}

impl Processor for Named {
    type Record = u64;

    async fn process(&self, _stream: &str, shard: &str, deliveries: Vec<Delivery<u64>>) {
        for Delivery { record, ack, .. } in deliveries {
            let lanes: Vec<Lanes> = ack.lanes().iter().map(Lanes::one).collect();
            for ack in ack.route(&lanes) {
                let Some(name) = ack.lanes().iter().next().map(|lane| self.names[lane].clone()) else {
                    continue;
                };
                if self.recorder.0.lock().closed.contains(&name) {
                    self.recorder.0.lock().held.push((name, shard.to_owned(), record.body, ack));
                } else {
                    self.recorder.arrive(&name, shard, record.body, ack);
                }
            }
        }
    }
}

/// What outlives the workers.
pub(crate) struct LaneWorld {
    pub(crate) table: Table,
    pub(crate) script: Script,
    pub(crate) recorder: Arc<LaneRecorder>,
}

/// A worker that runs. Dropping it is its sudden death.
pub(crate) struct LaneRunning {
    pub(crate) watermark: watch::Receiver<Option<Watermark>>,
    pub(crate) metrics: ConsumerMetrics,
    names: Vec<String>,
    ready: watch::Sender<Lanes>,
    shutdown: CancellationToken,
    left: CancellationToken,
    consumer: JoinSet<()>,
    beats: JoinSet<()>,
}

impl LaneWorld {
    pub(crate) async fn new() -> Self {
        let table = Table::start().await;
        let script = Script::new(table.store.clone());
        Self { table, script, recorder: Arc::default() }
    }

    /// A worker that reads for these lanes, which can all take more. Those that it adds begin with the oldest record.
    pub(crate) async fn run(&self, id: &str, lanes: &[&str]) -> LaneRunning {
        self.run_from(id, lanes, LaneStart::TrimHorizon).await
    }

    pub(crate) async fn run_from(&self, id: &str, lanes: &[&str], start: LaneStart) -> LaneRunning {
        let worker = Worker::announce(self.table.store.clone(), id, fast()).await.expect("it is announced");
        let worker = Arc::new(worker);
        let (ready, is_ready) = watch::channel(Lanes::first(lanes.len()));
        let parking = Parking { after: PARK_AFTER, lane_bytes_max: 1 << 20, lane_records_max: 1_000 };
        let shutdown = CancellationToken::new();
        let consumer = Consumer::new(Arc::clone(&worker), ByteBudget::new(1 << 20), Lags::default());
        let consumer = consumer.with_lanes(LaneConfig {
            lanes: lanes.iter().map(|name| Lane { name: (*name).into(), start }).collect(),
            ready: is_ready,
            parking,
            catch_up_bytes_max: 1 << 20,
            catch_ups_max: 4,
            catch_up_bytes_per_s: 1 << 30,
        });
        let names: Vec<String> = lanes.iter().map(|name| (*name).to_owned()).collect();
        let (subscribe, subscriptions) = mpsc::channel(4);
        let subscription = Subscription {
            source: self.script.clone(),
            processor: Named { names: names.clone(), recorder: Arc::clone(&self.recorder) },
            from_trim_horizon: true,
            superseded: false,
        };
        subscribe.send(subscription).await.expect("the consumer is there");
        let mut running = LaneRunning {
            watermark: consumer.watermark(),
            metrics: consumer.metrics([], MetricsConfig::default()),
            names,
            ready,
            shutdown: shutdown.clone(),
            left: CancellationToken::new(),
            consumer: JoinSet::new(),
            beats: JoinSet::new(),
        };
        running.consumer.spawn(consumer.run(subscriptions, shutdown));
        let left = running.left.clone();
        running.beats.spawn(async move {
            let _end = worker.beat(&left).await;
        });
        running
    }

    /// The lanes that are parked on a shard, as its lease has them.
    pub(crate) async fn parked(&self, shard: &str) -> ParkedLanes {
        self.table.lease(STREAM, shard).await.map(|lease| lease.parked).unwrap_or_default()
    }

    /// Writes a guest's claim into a lease, whatever else is there.
    pub(crate) async fn set_guest(&self, shard: &str, name: &str, until_ms: u64) {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let until_ms = AttributeValue::N(until_ms.to_string());
        let guest = HashMap::from([("name".to_owned(), text(name)), ("until_ms".to_owned(), until_ms)]);
        let update = self.table.client.update_item().table_name("state");
        let update = update.key("pk", text(&format!("stream#{STREAM}")));
        let update =
            update.key("sk", text(&format!("shard#{shard}"))).update_expression("SET guest = :guest");
        let update = update.expression_attribute_values(":guest", AttributeValue::M(guest));
        update.send().await.expect("the claim is written");
    }

    /// Waits until a lane is parked on a shard.
    pub(crate) async fn until_parked(&self, shard: &str, lane: &str) {
        let what = format!("{lane} is parked on {shard}");
        until(&what, async || self.parked(shard).await.contains_key(lane)).await;
    }

    /// Waits until no lane is parked on a shard.
    pub(crate) async fn until_none_is_parked(&self, shard: &str) {
        let what = format!("nothing is parked on {shard}");
        until(&what, async || self.parked(shard).await.is_empty()).await;
    }

    /// Waits until a lane has these records of a shard.
    pub(crate) async fn until_arrived(
        &self,
        lane: &str,
        shard: &str,
        expected: impl IntoIterator<Item = u64>,
    ) {
        let expected: Vec<u64> = expected.into_iter().collect();
        let what = format!("{lane} has {expected:?} of {shard}");
        until(&what, async || self.recorder.arrived(lane, shard) == expected).await;
    }

    pub(crate) async fn until_checkpoint(&self, shard: &str, expected: &str) {
        let of = async || self.table.checkpoint(STREAM, shard).await.map(|of| of.to_string());
        until(&format!("{shard} is {expected}"), async || of().await.as_deref() == Some(expected)).await;
    }
}

impl LaneRunning {
    /// How a lane is.
    pub(crate) fn figures(&self, lane: &str) -> LaneFigures {
        self.metrics.lanes().into_iter().find(|of| *of.name == *lane).expect("a lane of it")
    }

    /// Whether a lane can take more.
    pub(crate) fn ready(&self, lane: &str, ready: bool) {
        let place = Lanes::one(self.names.iter().position(|name| name == lane).expect("a lane of it"));
        self.ready.send_modify(|lanes| *lanes = if ready { lanes.or(place) } else { lanes.without(place) });
    }

    /// The lanes that the watermark does not hold for, if it is known.
    pub(crate) fn behind(&self) -> Option<Vec<String>> {
        self.watermark.borrow().as_ref().map(|known| known.behind.iter().cloned().collect())
    }

    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        while self.consumer.join_next().await.is_some() {}
        self.left.cancel();
        while self.beats.join_next().await.is_some() {}
    }

    /// The process dies.
    pub(crate) async fn kill(mut self) {
        self.beats.shutdown().await;
        self.consumer.shutdown().await;
    }
}
