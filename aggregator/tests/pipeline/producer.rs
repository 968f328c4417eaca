//! One region's producer against a Kinesis that follows a script.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use warmcast_aggregator::fanout::RegionFrame;
use warmcast_aggregator::readiness::Readiness;
use warmcast_aggregator::region::Producer;
use warmcast_aggregator::stats::Stats;
use warmcast_common::aws::sdk_config;
use warmcast_common::clock::now_ms;
use warmcast_common::consumer::ack::ShardAcks;
use warmcast_common::consumer::{ByteBudget, Checkpoint, Lanes, SequenceNumber};
use warmcast_common::dead_letter::{DeadLetterConfig, DeadLetters};
use warmcast_proto::key::Buckets;

use super::fake_kinesis::{Answer, FakeKinesis};
use super::servers::service;
use super::wait::until;

const THROTTLED: &str = "ProvisionedThroughputExceededException";

/// A producer that runs, and the shard whose records its frames carry, one each.
struct Region {
    acks: ShardAcks,
    budget: ByteBudget,
    frames: mpsc::Sender<RegionFrame>,
    letters: tempfile::TempDir,
    producer: JoinSet<()>,
    records: u64,
}

impl Region {
    async fn start(url: &str, puts_in_flight_max: usize) -> Self {
        let letters = tempfile::tempdir().unwrap();
        let config = DeadLetterConfig { directory: letters.path().to_owned(), bytes_max: 64 << 20 };
        let producer = Producer {
            client: aws_sdk_kinesis::Client::new(&sdk_config(&service(url)).await),
            region: "eu-west-1".into(),
            stream: "warmcast".into(),
            buckets: Buckets::new(4).unwrap(),
            dead_letters: Arc::new(DeadLetters::open(&config).unwrap()),
            stats: Arc::new(Stats::default()),
            readiness: Readiness::of_regions(1).0.remove(0),
        };
        let (frames, to_send) = mpsc::channel(10_000);
        let mut running = JoinSet::new();
        running.spawn(producer.run(to_send, puts_in_flight_max));
        let acks = ShardAcks::with_lanes(10_000, Checkpoint::TrimHorizon, Lanes::one(0), BTreeMap::new());
        Self { acks, budget: ByteBudget::new(1 << 30), frames, letters, producer: running, records: 0 }
    }

    /// Sends frames; the record of the first is 1, or one above the last of the call before.
    async fn send(&mut self, data: &[Bytes]) {
        for bytes in data {
            self.records += 1;
            let sequence = SequenceNumber::new(self.records.to_string()).unwrap();
            let permit = self.budget.reserve(bytes.len()).await;
            let ack = self.acks.track(Some(sequence), 0, permit).await;
            let frame = RegionFrame {
                bucket: 1,
                bytes: bytes.clone(),
                read_ms: now_ms(),
                acks: ack.route(&[Lanes::one(0)]),
            };
            self.frames.send(frame).await.unwrap();
        }
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

    fn letters(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.letters.path().join("dead-letters.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// No more frames: it must end.
    async fn end(mut self) {
        drop(self.frames);
        tokio::time::timeout(Duration::from_secs(5), self.producer.join_next()).await.unwrap();
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
    let script = [
        Answer::Entries(vec![]),
        Answer::Entries(vec![(1, THROTTLED), (3, "InternalFailure")]),
        Answer::Entries(vec![(0, "InternalFailure")]),
    ];
    let kinesis = FakeKinesis::start(script).await;
    let mut region = Region::start(&kinesis.url, 1).await;
    send_as_one_call(&mut region, &kinesis, &frames(&["a", "b", "c", "d"])).await;
    region.until_done().await;
    let expected = [vec!["first"], vec!["a", "b", "c", "d"], vec!["b", "d"], vec!["b"]];
    assert_eq!(kinesis.calls(), expected.map(|call| frames(&call)));
    assert_eq!(kinesis.landed(), frames(&["first", "a", "c", "d", "b"]));
    region.end().await;
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
    assert_eq!(letters[0]["stream"], "stream warmcast in eu-west-1");
    assert!(letters[0]["reason"].as_str().unwrap().contains("ValidationException"), "{letters:?}");
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
