//! One region's producer against a Kinesis that follows a script.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use warmcast_aggregator::fanout::RegionFrame;
use warmcast_aggregator::producer::rate::ShardLimits;
use warmcast_aggregator::producer::{Producer, ProducerConfig};
use warmcast_aggregator::readiness::Readiness;
use warmcast_aggregator::stats::Stats;
use warmcast_common::clock::now_ms;
use warmcast_common::consumer::ack::ShardAcks;
use warmcast_common::consumer::{ByteBudget, Checkpoint, Lanes, SequenceNumber};
use warmcast_common::limits::{
    KINESIS_SHARD_BYTES_PER_SECOND, KINESIS_SHARD_RECORDS_PER_SECOND, PUT_RECORDS_BYTES_DEFAULT,
};
use warmcast_proto::change::{Change, ChangeKind};
use warmcast_proto::frame::{Compression, Compressor, FrameBuilder};
use warmcast_proto::key::Buckets;
use warmcast_proto::position::Position;

use super::fake_kinesis::{Answer, FakeKinesis};
use super::poison::{letters_in, quarantine};
use super::wait::until;
use super::world::{changes, target};

const BUCKETS: Buckets = match Buckets::new(4) {
    Ok(buckets) => buckets,
    Err(_) => Buckets::ONE,
};
const THROTTLED: &str = "ProvisionedThroughputExceededException";

/// A producer that runs, and the shard whose records its frames carry, one each.
struct Region {
    acks: ShardAcks,
    budget: ByteBudget,
    frames: mpsc::Sender<RegionFrame>,
    letters: tempfile::TempDir,
    totals: Arc<Stats>,
    answers: watch::Receiver<bool>,
    ready: watch::Receiver<Lanes>,
    producer: JoinSet<()>,
    records: u64,
}

impl Region {
    /// So fast that no rate holds anything up.
    async fn start(url: &str, puts_in_flight_max: usize) -> Self {
        Self::start_with(url, puts_in_flight_max, ShardLimits::of(100 << 20, 100_000)).await
    }

    /// As fast as the service lets it be.
    async fn start_paced(url: &str) -> Self {
        let limits = (KINESIS_SHARD_BYTES_PER_SECOND, KINESIS_SHARD_RECORDS_PER_SECOND);
        Self::start_with(url, 4, ShardLimits::of(limits.0, limits.1)).await
    }

    async fn start_with(url: &str, puts_in_flight_max: usize, shard_limits: ShardLimits) -> Self {
        let letters = tempfile::tempdir().unwrap();
        let (quarantine, keeper) = quarantine(letters.path());
        let quarantine = quarantine.of_region("eu-west-1");
        let config =
            ProducerConfig { puts_in_flight_max, request_bytes_max: PUT_RECORDS_BYTES_DEFAULT, shard_limits };
        let totals = Arc::new(Stats::default());
        let (mut readiness, ready) = Readiness::of_regions(1);
        let (target, readiness) = (target(url).await, readiness.remove(0));
        let producer = Producer::new(target, config, BUCKETS, quarantine, &totals, readiness);
        let answers = producer.answers();
        let (frames, to_send) = mpsc::channel(10_000);
        let mut running = JoinSet::new();
        running.spawn(producer.run(to_send));
        running.spawn(keeper.run());
        let (acks, budget) = (
            ShardAcks::with_lanes(10_000, Checkpoint::TrimHorizon, Lanes::one(0), BTreeMap::new()),
            ByteBudget::new(1 << 30),
        );
        Self { acks, budget, frames, letters, totals, answers, ready, producer: running, records: 0 }
    }

    /// Sends frames of bucket 1; the record of the first is 1, or one above the last of the call before.
    async fn send(&mut self, data: &[Bytes]) {
        for bytes in data {
            self.send_frame(1, bytes.clone(), now_ms()).await;
        }
    }

    /// Sends a frame whose record was asked for then.
    async fn send_frame(&mut self, bucket: u32, bytes: Bytes, read_ms: u64) {
        self.records += 1;
        let sequence = SequenceNumber::new(self.records.to_string()).unwrap();
        let permit = self.budget.reserve(bytes.len()).await;
        let acks = self.acks.track(Some(sequence), 0, permit).await.route(&[Lanes::one(0)]);
        self.frames.send(RegionFrame { bucket, bytes, read_ms, acks, span: None }).await.unwrap();
    }

    /// The record below which everything is done.
    fn done(&self) -> u64 {
        let checkpoint = self.acks.status().checkpoint;
        checkpoint.map_or(0, |sequence| sequence.as_str().parse().unwrap())
    }

    /// Waits until every record is done.
    async fn until_done(&self) {
        until("every record is done", async || self.done() == self.records).await;
        assert!(!self.acks.status().lost);
        assert_eq!(self.budget.bytes_in_use(), 0);
    }

    fn is_ready(&self) -> bool {
        self.ready.borrow().contains(0)
    }

    /// How many frames were given up. What they have is not waited for, and not lost either.
    fn given_up(&self) -> u64 {
        assert!(!self.acks.status().lost);
        self.totals.regions()[0].given_up.load(Relaxed)
    }

    fn letters(&self) -> Vec<serde_json::Value> {
        letters_in(self.letters.path())
    }

    /// No more frames: it must end.
    async fn end(mut self) {
        drop(self.frames);
        while tokio::time::timeout(Duration::from_secs(5), self.producer.join_next()).await.unwrap().is_some()
        {
        }
    }
}

fn frames(names: &[&'static str]) -> Vec<Bytes> {
    names.iter().map(|name| Bytes::from_static(name.as_bytes())).collect()
}

/// Frames that came while the first call was held are one call.
async fn send_as_one_call(region: &mut Region, kinesis: &FakeKinesis, data: &[Bytes]) {
    kinesis.hold();
    region.send(&frames(&["first"])).await;
    until("a call is held", async || kinesis.calls().len() == 1).await;
    region.send(data).await;
    kinesis.release();
}

#[tokio::test]
async fn failed_entries_alone_are_sent_again_and_a_record_is_done_when_it_landed() {
    for code in [THROTTLED, "InternalFailure", "SomethingNew"] {
        let script = [vec![], vec![(1, code), (3, code)], vec![(0, code)]].map(Answer::Entries);
        let kinesis = FakeKinesis::start(script).await;
        let mut region = Region::start(&kinesis.url, 1).await;
        send_as_one_call(&mut region, &kinesis, &frames(&["a", "b", "c", "d"])).await;
        region.until_done().await;
        let calls = kinesis.calls();
        assert_eq!(calls[..2], [frames(&["first"]), frames(&["a", "b", "c", "d"])]);
        let mut again: Vec<_> = calls[2..].concat();
        again.sort();
        assert_eq!(again.len(), 3, "two failed, and one of them once more: {calls:?}");
        again.dedup();
        assert_eq!(again, frames(&["b", "d"]));
        let mut landed = kinesis.landed();
        landed.sort();
        assert_eq!(landed, frames(&["a", "b", "c", "d", "first"]));
        region.end().await;
    }
}

#[tokio::test]
async fn nothing_is_done_before_its_answer() {
    let kinesis = FakeKinesis::start([]).await;
    kinesis.hold();
    let mut region = Region::start(&kinesis.url, 1).await;
    region.send(&frames(&["a"])).await;
    until("the call came", async || kinesis.calls().len() == 1).await;
    assert_eq!((region.done(), region.acks.status().pending), (0, 1));
    kinesis.release();
    region.until_done().await;
}

#[tokio::test]
async fn a_call_that_fails_as_a_whole_is_sent_again_until_it_is_taken() {
    let script = [
        Answer::Fails(400, THROTTLED),
        Answer::Fails(400, "LimitExceededException"),
        Answer::Fails(500, "InternalFailure"),
        Answer::Garbage,
        Answer::Fails(400, "ExpiredTokenException"),
    ];
    let kinesis = FakeKinesis::start(script).await;
    let mut region = Region::start(&kinesis.url, 4).await;
    region.send(&frames(&["a"])).await;
    region.until_done().await;
    assert_eq!(kinesis.calls().len(), 6);
    assert_eq!(kinesis.landed(), frames(&["a"]));
    assert!(region.letters().is_empty());
}

#[tokio::test]
async fn an_answer_with_another_number_of_records_settles_nothing() {
    let kinesis = FakeKinesis::start([Answer::Entries(vec![]), Answer::OneTooFew]).await;
    let mut region = Region::start(&kinesis.url, 1).await;
    send_as_one_call(&mut region, &kinesis, &frames(&["a", "b"])).await;
    region.until_done().await;
    let expected = [vec!["first"], vec!["a", "b"], vec!["a", "b"]];
    assert_eq!(kinesis.calls(), expected.map(|call| frames(&call)));
}

#[tokio::test]
async fn a_connection_that_is_reset_is_made_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut region = Region::start(&format!("http://{address}"), 1).await;
    region.send(&frames(&["a"])).await;
    for _ in 0..2 {
        let (connection, _) = listener.accept().await.unwrap();
        connection.set_zero_linger().unwrap();
    }
    assert_eq!(region.done(), 0);
    drop(listener);
    let listener = TcpListener::bind(address).await.unwrap();
    let kinesis = FakeKinesis::serve([], listener);
    region.until_done().await;
    assert_eq!(kinesis.landed(), frames(&["a"]));
}

#[tokio::test]
async fn a_frame_that_is_refused_for_good_is_set_aside_alone() {
    let kinesis = FakeKinesis::start([]).await;
    kinesis.refuse(Bytes::from_static(b"poison"));
    let mut region = Region::start(&kinesis.url, 1).await;
    let names = ["a", "b", "c", "poison", "d", "e", "f"];
    send_as_one_call(&mut region, &kinesis, &frames(&names)).await;
    region.until_done().await;
    let mut landed = kinesis.landed();
    landed.sort();
    assert_eq!(landed, frames(&["a", "b", "c", "d", "e", "f", "first"]));
    let letters = region.letters();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0]["bytes_base64"], "cG9pc29u");
    assert_eq!(
        (&letters[0]["source"], &letters[0]["stream"]),
        (&json!("test/eu-west-1"), &json!("warmcast"))
    );
    assert!(letters[0]["reason"].as_str().unwrap().contains("ValidationException"), "{letters:?}");
}

#[tokio::test]
async fn the_keys_of_a_frame_that_is_refused_for_good_are_made_invalid() {
    let kinesis = FakeKinesis::start([]).await;
    let change = Change {
        table: "profiles".into(),
        key: Bytes::from_static(b"user-1"),
        position: Position::new(1, "7".parse().unwrap()).unwrap(),
        kind: ChangeKind::Put,
        created_ms: 7,
        payload: Bytes::from_static(b"item"),
    };
    let mut builder = FrameBuilder::new();
    builder.push(&change);
    let poison = builder.finish(&mut Compressor::new(Compression::None).unwrap()).unwrap();
    kinesis.refuse(poison.clone());
    let mut region = Region::start(&kinesis.url, 1).await;
    region.send(&[poison]).await;
    region.until_done().await;
    let landed: Vec<Change> = kinesis.landed().into_iter().flat_map(changes).collect();
    assert_eq!(landed, [Change { kind: ChangeKind::Invalidate, payload: Bytes::new(), ..change }]);
    assert_eq!(region.letters().len(), 1);
}

#[tokio::test]
async fn a_wrong_endpoint_gives_up_no_frame() {
    let kinesis = FakeKinesis::start([]).await;
    kinesis.is_no_kinesis(true);
    let mut region = Region::start(&kinesis.url, 1).await;
    region.send(&frames(&["a"])).await;
    until("some calls were refused", async || kinesis.calls().len() >= 3).await;
    assert_eq!(region.done(), 0);
    assert!(region.letters().is_empty());
    kinesis.is_no_kinesis(false);
    region.until_done().await;
    assert_eq!(kinesis.landed(), frames(&["a"]));
}

#[tokio::test]
async fn frames_wait_for_a_stream_that_is_missing() {
    let kinesis = FakeKinesis::start([]).await;
    kinesis.stream_is_missing(true);
    let mut region = Region::start(&kinesis.url, 1).await;
    region.send(&frames(&["a"])).await;
    until("some calls were refused", async || kinesis.calls().len() >= 3).await;
    assert_eq!(region.done(), 0);
    kinesis.stream_is_missing(false);
    region.until_done().await;
    assert_eq!(kinesis.landed(), frames(&["a"]));
    assert!(region.letters().is_empty());
}

#[tokio::test]
async fn no_more_calls_are_under_way_than_allowed_and_none_is_larger_than_the_service_takes() {
    let kinesis = FakeKinesis::start([]).await;
    kinesis.hold();
    let mut region = Region::start(&kinesis.url, 3).await;
    let small: Vec<Bytes> = (0..1_200).map(|number: u32| number.to_string().into()).collect();
    region.send(&small).await;
    until("as many calls as allowed came", async || kinesis.calls().len() == 3).await;
    kinesis.release();
    let large = vec![Bytes::from(vec![7; 1_000_000]); 8];
    region.send(&large).await;
    region.until_done().await;
    assert_eq!(kinesis.in_flight_max(), 3);
    assert_eq!(kinesis.landed().len(), 1_208);
    for call in kinesis.calls() {
        let bytes: usize = call.iter().map(Bytes::len).sum();
        assert!(call.len() <= 500 && bytes <= 5 << 20, "{} entries, {bytes} bytes", call.len());
    }
    region.end().await;
}

/// Frames that are told apart by a number.
fn numbered(numbers: std::ops::Range<u32>) -> impl Iterator<Item = Bytes> {
    numbers.map(|number| Bytes::from(number.to_string()))
}

#[tokio::test]
async fn a_throttled_shard_holds_up_no_other_and_is_asked_at_its_rate() {
    const FRAMES: u32 = 300;
    let kinesis = FakeKinesis::start([]).await;
    kinesis.has_shards(4);
    kinesis.limit_shard(0, Some(60.0));
    let mut region = Region::start_paced(&kinesis.url).await;
    let began = Instant::now();
    for (number, data) in (0..).zip(numbered(0..4 * FRAMES)) {
        region.send_frame(number % 4, data, now_ms()).await;
    }
    until("the other shards have all", async || {
        (1..4).all(|shard| kinesis.sent_to(shard).taken == FRAMES as usize)
    })
    .await;
    let (others, slow) = (began.elapsed(), kinesis.sent_to(0));
    assert!(slow.taken < FRAMES as usize / 2, "{slow:?} while the others needed {others:?}");
    region.until_done().await;
    let (all, slow) = (began.elapsed(), kinesis.sent_to(0));
    // A second's worth at once, then 60 a second.
    assert!(all >= Duration::from_secs(3), "{all:?}");
    // Of the first 250, which are sent at once, most are refused; after that few.
    assert!(slow.throttled < FRAMES as usize, "{slow:?}");
    assert_eq!(kinesis.landed().len(), 4 * FRAMES as usize, "each frame once");
    region.end().await;
}

#[tokio::test]
async fn a_black_hole_is_noticed_probed_with_one_small_call_and_left_when_it_ends() {
    let kinesis = FakeKinesis::start([]).await;
    let mut region = Region::start(&kinesis.url, 4).await;
    region.send(&frames(&["before"])).await;
    region.until_done().await;
    assert!(*region.answers.borrow() && region.is_ready());
    kinesis.hold();
    let data: Vec<Bytes> = (0..10).map(|number| Bytes::from(vec![number; 200_000])).collect();
    region.send(&data).await;
    until("it is noticed", async || !*region.answers.borrow() && !region.is_ready()).await;
    let calls = kinesis.calls().len();
    until("it is tried again", async || kinesis.calls().len() >= calls + 2).await;
    for call in &kinesis.calls()[calls..] {
        assert_eq!(call.len(), 1, "256 KiB have room for one");
    }
    kinesis.release();
    region.until_done().await;
    until("it is well again", async || *region.answers.borrow() && region.is_ready()).await;
    region.end().await;
}

#[tokio::test]
async fn a_region_that_is_back_is_noticed_without_anything_to_send() {
    let kinesis = FakeKinesis::start([]).await;
    kinesis.stream_is_missing(true);
    let region = Region::start(&kinesis.url, 4).await;
    until("it does not answer", async || !*region.answers.borrow()).await;
    kinesis.stream_is_missing(false);
    until("it answers", async || *region.answers.borrow() && region.is_ready()).await;
    assert_eq!(kinesis.landed(), [FrameBuilder::heartbeat(0)]);
    region.end().await;
}

#[tokio::test]
async fn a_stream_that_is_resharded_meanwhile_gets_everything_at_the_rates_of_its_new_shards() {
    const FRAMES: u32 = 2_000;
    let kinesis = FakeKinesis::start([]).await;
    kinesis.limit_shard(0, Some(20.0));
    let mut region = Region::start_paced(&kinesis.url).await;
    for (number, data) in (0..).zip(numbered(0..FRAMES)) {
        region.send_frame(number % 4, data, now_ms()).await;
    }
    until("the shard is throttled", async || kinesis.sent_to(0).throttled > 0).await;
    let resharded = Instant::now();
    kinesis.reshard(4);
    region.until_done().await;
    let took = resharded.elapsed();
    // At the old shard's rate it would be more than a minute.
    assert!(took < Duration::from_secs(5), "{took:?}");
    let landed: BTreeSet<_> = kinesis.landed().into_iter().collect();
    assert_eq!(landed, numbered(0..FRAMES).collect());
    region.end().await;
}

#[tokio::test]
async fn partial_progress_ends_the_pauses() {
    const ROUNDS: u32 = 16;
    // Pauses that were never reset would be of 2.5 s each by the sixth, on average.
    let round = [Answer::Fails(400, "LimitExceededException"), Answer::Entries(vec![(1, "InternalFailure")])];
    let kinesis = FakeKinesis::start(std::iter::repeat_n(round, ROUNDS as usize).flatten()).await;
    let mut region = Region::start(&kinesis.url, 1).await;
    let began = Instant::now();
    for number in 0..ROUNDS {
        let (pair, landed) =
            (numbered(2 * number..2 * number + 2).collect::<Vec<_>>(), kinesis.landed().len());
        region.send(&pair).await;
        until("something landed", async || kinesis.landed().len() > landed).await;
    }
    region.until_done().await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
    region.end().await;
}

#[tokio::test]
async fn a_frame_that_is_too_old_is_given_up_and_never_sent() {
    let kinesis = FakeKinesis::start([]).await;
    let mut region = Region::start(&kinesis.url, 1).await;
    region.send_frame(1, Bytes::from_static(b"old"), now_ms() - 41_000).await;
    region.send_frame(1, Bytes::from_static(b"new"), now_ms()).await;
    until("the other is sent", async || kinesis.landed() == frames(&["new"])).await;
    assert_eq!(region.given_up(), 1);
    assert_eq!(kinesis.calls(), [frames(&["new"])]);
    region.end().await;
}

#[tokio::test]
async fn a_frame_that_becomes_too_old_while_it_waits_is_not_sent_again() {
    let kinesis = FakeKinesis::start([]).await;
    kinesis.stream_is_missing(true);
    let mut region = Region::start(&kinesis.url, 1).await;
    region.send_frame(1, Bytes::from_static(b"old"), now_ms() - 39_000).await;
    until("it was sent in vain", async || !kinesis.calls().is_empty()).await;
    until("it is given up", async || region.given_up() == 1).await;
    let retries = || region.totals.regions()[0].retries.of("not_found");
    let of_frames = retries();
    until("a probe in vain counts as well", async || retries() > of_frames).await;
    kinesis.stream_is_missing(false);
    until("the region answers", async || *region.answers.borrow()).await;
    // The region is parked now: what else comes from that shard is sent by the one that catches it up.
    region.send(&frames(&["new"])).await;
    let worthless = || region.totals.regions()[0].worthless.load(Relaxed);
    until("the other is left out", async || worthless() == 1).await;
    let landed = kinesis.landed();
    assert!(landed.iter().all(|data| *data == FrameBuilder::heartbeat(0)), "{landed:?}");
    region.end().await;
}

#[tokio::test]
async fn a_region_with_a_long_queue_is_not_ready() {
    let kinesis = FakeKinesis::start([]).await;
    kinesis.limit_shard(0, Some(50.0));
    let mut region = Region::start_paced(&kinesis.url).await;
    let data: Vec<Bytes> = numbered(0..400).collect();
    region.send(&data).await;
    until("it is not ready", async || !region.is_ready()).await;
    assert!(*region.answers.borrow(), "a throttled region answers");
    kinesis.limit_shard(0, None);
    region.until_done().await;
    until("it is ready", async || region.is_ready()).await;
    region.end().await;
}

#[tokio::test]
async fn a_stream_that_distributes_by_itself_is_reported_by_what_it_says_and_by_what_it_does() {
    let says = FakeKinesis::start([]).await;
    says.says_distribution("AUTO");
    let region = Region::start(&says.url, 1).await;
    until("it is reported", async || region.totals.regions()[0].is_self_distributing()).await;
    region.end().await;

    // A server that says nothing of it, and whose shards take turns.
    let does = FakeKinesis::start([]).await;
    let mut region = Region::start(&does.url, 1).await;
    for (number, data) in (0_u128..).zip(numbered(0..12)) {
        does.opens_shard(number % 2);
        region.send(&[data]).await;
        region.until_done().await;
    }
    until("it is reported", async || region.totals.regions()[0].is_self_distributing()).await;
    assert_eq!(does.landed().len(), 12);
    region.end().await;
}

#[tokio::test]
async fn what_an_on_demand_stream_charges_for_is_counted() {
    let kinesis = FakeKinesis::start([]).await;
    kinesis.is_on_demand();
    let mut region = Region::start(&kinesis.url, 1).await;
    until("its mode is known", async || region.totals.regions()[0].is_on_demand()).await;
    region.send(&[Bytes::from(vec![1; 1_025]), Bytes::from(vec![2; 10])]).await;
    region.until_done().await;
    assert_eq!(region.totals.regions()[0].on_demand_bytes.load(Relaxed), 3 * 1_024);
    region.end().await;
}

#[tokio::test]
async fn calls_take_turns_over_the_connections() {
    let kinesis = FakeKinesis::start([]).await;
    let mut region = Region::start(&kinesis.url, 1).await;
    for data in numbered(0..6) {
        region.send(&[data]).await;
        region.until_done().await;
    }
    assert_eq!(kinesis.connections(), 2);
    region.end().await;
}
