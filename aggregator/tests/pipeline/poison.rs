//! Stream records that no change can be made of: each is set aside, its neighbours go on, and its key is invalid.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use aws_sdk_dynamodbstreams::types::{AttributeValue, OperationType, Record, StreamRecord, StreamViewType};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use warmcast_aggregator::change::ChangeMaker;
use warmcast_aggregator::filter::Feeds;
use warmcast_aggregator::intake::{Intake, Pending};
use warmcast_aggregator::redrive::{RedriveError, Routes, redrive};
use warmcast_aggregator::stats::Stats;
use warmcast_aggregator::stream_record;
use warmcast_aggregator::table::KeySchema;
use warmcast_common::consumer::ack::ShardAcks;
use warmcast_common::consumer::{
    Asked, ByteBudget, Checkpoint, Delivery, LaneAck, Lanes, Processor as _, SequenceNumber, SourceRecord,
};
use warmcast_common::dead_letter::{
    DeadLetterConfig, Filter, Form, Keeper, LetterId, LetterStore, Quarantine, Redriven, StoreConfig,
};
use warmcast_proto::change::{Change, ChangeKind};

use super::servers::DynamoDb;
use super::wait::until;

const STREAM: &str = "arn:aws:dynamodb:us-east-1:1:table/profiles/stream/1";

/// A quarantine in a directory, and what must run for it.
pub(crate) fn quarantine(directory: &Path) -> (Quarantine, Keeper) {
    // No client of the directory's: it is never called.
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(aws_sdk_dynamodb::config::BehaviorVersion::latest())
        .build();
    let store = StoreConfig::Directory { directory: directory.to_owned(), bytes_max: 64 << 20 };
    let client = aws_sdk_dynamodb::Client::from_conf(config);
    let store = LetterStore::open(&DeadLetterConfig { store }, client).unwrap();
    Quarantine::new(store, "test", Arc::default())
}

/// The letters in a directory, as the files have them.
pub(crate) fn letters_in(directory: &Path) -> Vec<serde_json::Value> {
    let files = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let letters = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    letters.map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()).collect()
}

/// The table of letters beside a state table, as the daemon has it by default.
fn table(dynamodb: &DynamoDb) -> LetterStore {
    let retention = std::time::Duration::from_secs(86_400);
    let store = StoreConfig::Table { table: "state-dead-letters".to_owned(), create: true, retention };
    LetterStore::open(&DeadLetterConfig { store }, dynamodb.client.clone()).unwrap()
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Poison {
    /// An event of a newer service.
    Event,
    /// The stream announces new images, and there is none.
    Image,
    /// The key has another name: which key it is is not known.
    Key,
    /// Nothing is there.
    Empty,
}

const POISONS: [Poison; 4] = [Poison::Event, Poison::Image, Poison::Key, Poison::Empty];

fn record(number: u32, poison: Option<Poison>) -> Record {
    if poison == Some(Poison::Empty) {
        return Record::builder().event_id(number.to_string()).build();
    }
    let id = AttributeValue::S(format!("key-{number}"));
    let name = if poison == Some(Poison::Key) { "other" } else { "id" };
    let mut body = StreamRecord::builder()
        .keys(name, id.clone())
        .sequence_number(number.to_string())
        .stream_view_type(StreamViewType::NewImage);
    if poison != Some(Poison::Image) {
        body = body.new_image("id", id);
    }
    let event = match poison {
        Some(Poison::Event) => OperationType::from("ARCHIVE"),
        _ => OperationType::Modify,
    };
    Record::builder().event_name(event).dynamodb(body.build()).build()
}

fn maker() -> ChangeMaker {
    ChangeMaker::new("profiles", 1, KeySchema { partition: "id".to_owned(), sort: None })
}

/// A shard whose records go through the intake.
struct Shard {
    acks: ShardAcks,
    intake: Intake,
    changes: mpsc::Receiver<Vec<Pending>>,
    keeping: JoinSet<()>,
}

impl Shard {
    fn new(store: &LetterStore) -> Self {
        let stats = Arc::new(Stats::default());
        let (quarantine, keeper) =
            Quarantine::new(store.clone(), "aggregator", Arc::clone(&stats.dead_letters));
        let mut keeping = JoinSet::new();
        keeping.spawn(keeper.run());
        let (batcher, changes) = mpsc::channel(64);
        let key = KeySchema { partition: "id".to_owned(), sort: None };
        let feeds = Feeds::new(&key, [None, None]);
        let suppressed = stats.suppressed("profiles", 2);
        let intake =
            Intake { maker: maker(), feeds, body_bytes_max: 1 << 20, batcher, quarantine, stats, suppressed };
        let acks = ShardAcks::with_lanes(1_000, Checkpoint::TrimHorizon, Lanes::first(2), BTreeMap::new());
        Self { acks, intake, changes, keeping }
    }

    /// Gives a page of records to the intake; the changes that came of it.
    async fn process(&mut self, records: Vec<Record>) -> Vec<Pending> {
        let budget = ByteBudget::new(1 << 20);
        let mut deliveries = Vec::new();
        for (number, body) in records.into_iter().enumerate() {
            let sequence = SequenceNumber::new((number + 1).to_string()).ok();
            let ack = self.acks.track(sequence.clone(), 0, budget.reserve(1).await).await;
            let record = SourceRecord { sequence, created_ms: 7, bytes: 1, body };
            deliveries.push(Delivery { record, ack, asked: Asked::now(), settling: false });
        }
        self.intake.process(STREAM, "shard-1", deliveries).await;
        self.changes.recv().await.unwrap()
    }

    fn done(&self) -> Option<u64> {
        self.acks.status().checkpoint.map(|sequence| sequence.as_str().parse().unwrap())
    }

    async fn end(mut self) {
        drop(self.intake);
        while let Some(ended) = self.keeping.join_next().await {
            ended.unwrap();
        }
    }
}

async fn ids(store: &LetterStore) -> Vec<LetterId> {
    let page = store.list(&Filter::default(), None).await.unwrap();
    assert_eq!(page.next, None);
    page.letters.into_iter().map(|letter| letter.id).collect()
}

#[tokio::test]
async fn a_poison_record_in_each_position_of_a_page_is_set_aside_and_its_neighbours_go_on() {
    const RECORDS: u32 = 5;
    let dynamodb = DynamoDb::start().await;
    let store = table(&dynamodb);
    for poison in POISONS {
        for bad in 1..=RECORDS {
            let mut shard = Shard::new(&store);
            let page = (1..=RECORDS).map(|number| record(number, (number == bad).then_some(poison)));
            let changes = shard.process(page.collect()).await;
            let knows_key = matches!(poison, Poison::Event | Poison::Image);
            let found: Vec<_> = changes
                .iter()
                .map(|pending| (pending.change.position.sequence().to_string(), pending.change.kind))
                .collect();
            let expected: Vec<_> = (1..=RECORDS)
                .filter(|number| *number != bad || knows_key)
                .map(|number| {
                    (number.to_string(), if number == bad { ChangeKind::Invalidate } else { ChangeKind::Put })
                })
                .collect();
            assert_eq!(found, expected, "{poison:?} at {bad}");
            changes.into_iter().for_each(|pending| pending.ack.done());
            until("every record is done", async || shard.done() == Some(RECORDS.into())).await;
            let letters = ids(&store).await;
            assert_eq!(letters.len(), 1, "{poison:?} at {bad}");
            let (kept, letter) = store.get(letters[0]).await.unwrap().unwrap();
            let envelope = kept.envelope;
            assert_eq!(envelope.origin.position.as_deref(), Some(&*bad.to_string()));
            assert_eq!((&*envelope.origin.stream, &*envelope.origin.source), (STREAM, "aggregator"));
            assert_eq!(
                (envelope.form, envelope.table.as_deref()),
                (Form::DynamodbStreamRecord, Some("profiles"))
            );
            assert_eq!(envelope.key.is_some(), knows_key);
            assert_eq!(stream_record::decode(&letter.bytes).unwrap(), record(bad, Some(poison)));
            shard.end().await;
            store.delete(letters[0]).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_record_is_done_when_its_letter_is_stored_and_its_key_is_sent() {
    let dynamodb = DynamoDb::start().await;
    let store = table(&dynamodb);
    let mut shard = Shard::new(&store);
    let mut changes = shard.process(vec![record(1, Some(Poison::Event))]).await;
    until("the letter is stored", async || shard.intake.stats.dead_letters.waiting() == 0).await;
    assert_eq!(shard.done(), None, "its key is not invalid yet");
    changes.drain(..).for_each(|Pending { ack, .. }| LaneAck::done(ack));
    assert_eq!(shard.done(), Some(1));
    shard.end().await;
}

#[tokio::test]
async fn a_letter_that_can_be_read_by_now_is_sent_and_deleted_and_another_stays() {
    let dynamodb = DynamoDb::start().await;
    let store = table(&dynamodb);
    let mut shard = Shard::new(&store);
    // The first has a key of another name than the table that is configured; once that is mended it can be read.
    let changes =
        shard.process(vec![record(1, Some(Poison::Key)), record(2, None), record(3, Some(Poison::Event))]);
    changes.await.into_iter().for_each(|pending| pending.ack.done());
    until("both letters are stored", async || ids(&store).await.len() == 2).await;
    let key = KeySchema { partition: "other".to_owned(), sort: None };
    let feeds = Feeds::new(&key, [None, None]);
    let mended = (ChangeMaker::new("profiles", 1, key), feeds);
    let routes = Routes {
        streams: BTreeMap::from([(STREAM.to_owned(), mended)]),
        regions: vec!["eu-west-1".into(), "sa-east-1".into()],
    };
    let mut sent: Vec<(Vec<(Change, Lanes)>, u64)> = Vec::new();
    let mut outcomes = Vec::new();
    for id in ids(&store).await {
        let refusing = redrive(&store, id, &routes, async |_, _| Err("the regions are away")).await;
        if let Err(error) = &refusing {
            assert!(matches!(error, RedriveError::Send { .. }), "{error:?}");
        }
        let send = async |changes, read_ms| {
            sent.push((changes, read_ms));
            Ok::<_, String>(())
        };
        outcomes.push(redrive(&store, id, &routes, send).await.unwrap());
    }
    assert_eq!(sent.len(), 1, "{outcomes:?}");
    assert!(outcomes.contains(&Redriven::Done(1)));
    let (changes, read_ms) = &sent[0];
    let (change, lanes) = &changes[0];
    assert_eq!((&change.key[..], change.kind), (b"key-1".as_slice(), ChangeKind::Put));
    assert_eq!((change.position.sequence().to_string(), *lanes), ("1".to_owned(), Lanes::first(2)));
    let left = store.list(&Filter::default(), None).await.unwrap().letters;
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].attempts, left[0].envelope.origin.position.as_deref()), (3, Some("3")));
    assert!(left[0].envelope.reason.contains("key attribute other"), "{:?}", left[0]);
    assert!(*read_ms <= left[0].last_attempt_ms);
    let gone = "0".repeat(32).parse().unwrap();
    let gone = redrive(&store, gone, &routes, async |_, _| Ok::<_, String>(())).await;
    assert_eq!(gone.unwrap(), Redriven::Gone);
    shard.end().await;
}
