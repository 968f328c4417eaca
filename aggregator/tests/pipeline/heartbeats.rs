//! Heartbeats to a region's stream, with a watermark that the test says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use warmcast_aggregator::heartbeat::Heartbeats;
use warmcast_aggregator::stats::Stats;
use warmcast_common::consumer::Watermark;
use warmcast_proto::frame::FrameBuilder;

use super::fake_kinesis::{Answer, FakeKinesis};
use super::servers::Kinesis;
use super::wait::until;
use super::world::{STREAM, region, target};

const INTERVAL: Duration = Duration::from_millis(20);

/// Heartbeats that are sent to one region.
struct Beating {
    watermark: watch::Sender<Option<Watermark>>,
    stats: Arc<Stats>,
    shutdown: CancellationToken,
    task: JoinSet<()>,
}

impl Beating {
    async fn start(url: &str) -> Self {
        let (watermark, told) = watch::channel(None);
        let (stats, shutdown) = (Arc::new(Stats::default()), CancellationToken::new());
        let heartbeats =
            Heartbeats { target: target(url).await, interval: INTERVAL, stats: Arc::clone(&stats) };
        let mut task = JoinSet::new();
        task.spawn(heartbeats.run(told, shutdown.clone()));
        Self { watermark, stats, shutdown, task }
    }

    fn say(&self, watermark_ms: u64) {
        self.watermark.send(Some(Watermark { ms: watermark_ms, ..Watermark::default() })).unwrap();
    }

    fn sent(&self) -> u64 {
        self.stats.heartbeats_sent.load(Relaxed)
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(1), self.task.join_next()).await.expect("it stops");
    }
}

/// What each shard of these was told, repetitions left out.
async fn told(kinesis: &Kinesis, shards: impl IntoIterator<Item = usize>) -> BTreeMap<usize, Vec<u64>> {
    let mut told = kinesis.watermarks_by_shard().await;
    let of_shard = |number| {
        let mut watermarks = told.remove(&format!("shardId-{number:012}")).unwrap_or_default();
        watermarks.dedup();
        (number, watermarks)
    };
    shards.into_iter().map(of_shard).collect()
}

fn all(shards: impl IntoIterator<Item = usize>, watermarks: &[u64]) -> BTreeMap<usize, Vec<u64>> {
    shards.into_iter().map(|number| (number, watermarks.to_vec())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_shard_is_told_every_watermark_once_while_it_is_known() {
    let kinesis = region(3).await;
    let beating = Beating::start(&kinesis.url).await;
    beating.say(1_000);
    until("every shard was told", async || told(&kinesis, 0..3).await == all(0..3, &[1_000])).await;
    // Unchanged, then unknown: there is nothing to say for many intervals.
    tokio::time::sleep(5 * INTERVAL).await;
    beating.watermark.send(None).unwrap();
    tokio::time::sleep(5 * INTERVAL).await;
    beating.say(2_000);
    until("every shard was told again", async || beating.sent() == 6).await;
    let told = kinesis.watermarks_by_shard().await;
    assert_eq!(told.into_values().collect::<Vec<_>>(), [[1_000, 2_000]; 3]);
    beating.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_that_were_split_and_merged_are_told_without_waiting_for_the_next_listing() {
    let kinesis = region(3).await;
    let beating = Beating::start(&kinesis.url).await;
    beating.say(1_000);
    until("every shard was told", async || told(&kinesis, 0..3).await == all(0..3, &[1_000])).await;

    let began = Instant::now();
    kinesis.split(STREAM, "shardId-000000000001").await;
    beating.say(2_000);
    let (open, new) = ([0, 2], [3, 4]);
    until("the children were told", async || told(&kinesis, new).await == all(new, &[2_000])).await;
    assert_eq!(told(&kinesis, open).await, all(open, &[1_000, 2_000]));
    assert_eq!(told(&kinesis, [1]).await, all([1], &[1_000]), "a closed shard takes nothing");

    kinesis.merge(STREAM, "shardId-000000000003", "shardId-000000000004").await;
    beating.say(3_000);
    until("the merged shard was told", async || told(&kinesis, [5]).await == all([5], &[3_000])).await;
    beating.say(4_000);
    until("every open shard was told", async || {
        told(&kinesis, [0, 2, 5]).await.into_values().all(|watermarks| watermarks.last() == Some(&4_000))
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(5), "half of the time between two listings");
    beating.stop().await;
}

#[tokio::test]
async fn a_heartbeat_that_fails_is_dropped_and_the_next_says_what_is_true_then() {
    let script = [
        Answer::Fails(500, "InternalFailure"),
        Answer::Entries(vec![(0, "ProvisionedThroughputExceededException")]),
        Answer::OneTooFew,
    ];
    let kinesis = FakeKinesis::start(script).await;
    kinesis.stream_is_missing(true);
    let beating = Beating::start(&kinesis.url).await;
    beating.say(1_000);
    tokio::time::sleep(3 * INTERVAL).await;
    assert_eq!(kinesis.calls().len(), 0, "there is no shard to tell");
    kinesis.hold();
    kinesis.stream_is_missing(false);
    until("a call is held", async || kinesis.calls().len() == 1).await;
    beating.say(2_000);
    kinesis.release();
    until("a heartbeat was taken", async || beating.sent() == 1).await;
    let [old, new] = [1_000, 2_000].map(FrameBuilder::heartbeat);
    assert_eq!(kinesis.calls(), [vec![old], vec![new.clone()], vec![new.clone()], vec![new.clone()]]);
    assert_eq!(kinesis.in_flight_max(), 1);
    beating.stop().await;
}

#[tokio::test]
async fn a_stream_of_many_shards_takes_as_many_calls_as_the_service_wants() {
    let kinesis = FakeKinesis::start([]).await;
    kinesis.has_shards(501);
    let beating = Beating::start(&kinesis.url).await;
    beating.say(1_000);
    until("every shard was told", async || beating.sent() == 501).await;
    assert_eq!(kinesis.calls().iter().map(Vec::len).collect::<Vec<_>>(), [500, 1]);
    beating.stop().await;
}

#[tokio::test]
async fn a_stop_waits_for_no_region_that_does_not_answer() {
    let kinesis = FakeKinesis::start([]).await;
    kinesis.hold();
    let beating = Beating::start(&kinesis.url).await;
    beating.say(1_000);
    until("a call is held", async || kinesis.calls().len() == 1).await;
    beating.stop().await;
}

#[tokio::test]
async fn a_region_that_the_watermark_does_not_hold_for_is_not_told() {
    let kinesis = Kinesis::start().await;
    kinesis.create_stream(STREAM, 1).await;
    let beating = Beating::start(&kinesis.url).await;
    beating.say(1_000);
    until("the first is told", async || told(&kinesis, 0..1).await == all(0..1, &[1_000])).await;
    let of = |ms, region: &str| Watermark { ms, behind: [region.to_owned()].into() };
    beating.watermark.send(Some(of(2_000, "eu-west-1"))).unwrap();
    beating.watermark.send(Some(of(3_000, "us-west-2"))).unwrap();
    until("the third is told", async || told(&kinesis, 0..1).await == all(0..1, &[1_000, 3_000])).await;
    beating.watermark.send(Some(of(4_000, "eu-west-1"))).unwrap();
    tokio::time::sleep(5 * INTERVAL).await;
    assert_eq!(told(&kinesis, 0..1).await, all(0..1, &[1_000, 3_000]));
    beating.stop().await;
}
