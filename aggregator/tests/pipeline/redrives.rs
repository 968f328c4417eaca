//! Dead letters, sent again by command.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::StreamViewType as View;
use aws_sdk_dynamodbstreams::types::{AttributeValue, OperationType, Record, StreamRecord, StreamViewType};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use warmcast_aggregator::filter::FilterConfig;
use warmcast_aggregator::redrive::redrive_letters;
use warmcast_aggregator::stream_record;
use warmcast_common::clock::now_ms;
use warmcast_common::consumer::store::StateStore;
use warmcast_common::daemon::Outcome;
use warmcast_common::dead_letter::{
    Chosen, Envelope, Filter, Form, Letter, LetterStore, Origin, ReasonClass, SendReport, Sending,
};
use warmcast_proto::change::{Change, ChangeKind};
use warmcast_proto::frame::{Compression, Compressor, FrameBuilder};
use warmcast_proto::item::{self, Item};
use warmcast_proto::position::Position;
use warmcast_proto::record;

use super::servers::{DynamoDb, Kinesis, data};
use super::world::{STREAM, config, directory, region};

fn letter(source: &str, stream: &str, form: Form, bytes: &[u8]) -> Letter {
    let origin = Origin { source: source.into(), stream: stream.into(), shard: None, position: None };
    let envelope = Envelope {
        origin,
        index: None,
        table: Some("profiles".into()),
        key: None,
        class: ReasonClass::UndecodableRecord,
        reason: "of a test".to_owned(),
        form,
    };
    Letter::new(envelope, bytes)
}

fn stream_record(id: &str) -> Vec<u8> {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let body = StreamRecord::builder()
        .keys("id", text(id))
        .sequence_number("7")
        .stream_view_type(StreamViewType::NewImage)
        .new_image("id", text(id))
        .new_image("v", text("1"))
        .new_image("w", text("2"));
    let record = Record::builder().event_name(OperationType::Modify).dynamodb(body.build()).build();
    stream_record::encode(&record)
}

fn frame(key: &'static str) -> Bytes {
    let mut builder = FrameBuilder::new();
    builder.push(&Change {
        table: "profiles".into(),
        key: Bytes::from_static(key.as_bytes()),
        position: Position::new(1, "9".parse().unwrap()).unwrap(),
        kind: ChangeKind::Delete,
        created_ms: 1,
        payload: Bytes::new(),
    });
    builder.finish(&mut Compressor::new(Compression::None).unwrap()).unwrap()
}

/// What a region has: by key, the attributes of its item and when it was read.
async fn sent(kinesis: &Kinesis) -> BTreeMap<String, (Vec<String>, Option<u64>)> {
    let mut found = BTreeMap::new();
    for shard in kinesis.shards(STREAM).await {
        for record in kinesis.records(STREAM, &shard.shard_id).await {
            for part in record::read(data(record)).unwrap().parts {
                let change = part.change.unwrap();
                let Item { attributes } = item::decode(change.payload).unwrap();
                let key = String::from_utf8(change.key.to_vec()).unwrap();
                let twice = found.insert(key, (attributes.into_keys().collect(), part.read_ms));
                assert!(twice.is_none());
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_goes_to_the_regions_that_are_to_have_it_and_a_second_run_sends_nothing() {
    let (dynamodb, regions, letters) =
        (DynamoDb::start().await, [region(2).await, region(1).await], directory());
    dynamodb.create_table("profiles", View::NewImage).await;
    let urls: Vec<&str> = regions.iter().map(|region| region.url.as_str()).collect();
    let mut config = config(&dynamodb.url, &["profiles"], &urls, letters.path());
    let projection = FilterConfig { projection: Some(["v".to_owned()].into()), ..FilterConfig::default() };
    config.regions[1].filters.insert("profiles".to_owned(), projection);
    let described = dynamodb.client.describe_table().table_name("profiles").send().await.unwrap();
    let stream = described.table.unwrap().latest_stream_arn.unwrap();
    let state = StateStore::new(dynamodb.client.clone(), &config.state.table);
    state.ensure_table(true).await.unwrap();
    state.generation("profiles", &stream).await.unwrap();

    let store = LetterStore::open(&config.dead_letters, dynamodb.client.clone()).unwrap();
    let asked_ms = now_ms() - 5_000;
    for letter in [
        letter("aggregator", &stream, Form::DynamodbStreamRecord, &stream_record("a")),
        letter("aggregator", "arn:of-another", Form::DynamodbStreamRecord, &stream_record("b")),
        letter("aggregator/region-0", STREAM, Form::Frame, &frame("c")),
        letter("aggregator/gone", STREAM, Form::Frame, &frame("d")),
    ] {
        store.set_aside(&letter, asked_ms).await.unwrap();
    }
    let send = async || -> SendReport {
        let sending = Sending::new(Chosen::Filter(Filter::default()), 1_000.try_into().unwrap());
        let stop = CancellationToken::new();
        redrive_letters(&store, &config, &dynamodb.client, sending, &stop).await.unwrap()
    };
    let report = send().await;
    assert_eq!((report.done, report.changes, report.failed_again), (2, 3, 2), "{report:?}");
    assert_eq!(report.outcome().unwrap(), Outcome::Problems);
    let reasons: Vec<&str> = report.failures.iter().map(|failure| failure.reason.as_str()).collect();
    assert!(
        reasons.iter().any(|reason| reason.contains("names none of the regions: region-0, region-1")),
        "{reasons:?}"
    );
    let of = |names: &[&str]| (names.iter().map(|&name| name.to_owned()).collect(), Some(asked_ms));
    let expected = [
        BTreeMap::from([("a".to_owned(), of(&["id", "v", "w"])), ("c".to_owned(), of(&[]))]),
        BTreeMap::from([("a".to_owned(), of(&["id", "v"]))]),
    ];
    assert_eq!([sent(&regions[0]).await, sent(&regions[1]).await], expected);

    let again = send().await;
    assert_eq!((again.done, again.failed_again), (0, 2));
    assert_eq!([sent(&regions[0]).await, sent(&regions[1]).await], expected);

    // A region whose stream is missing: refused before anything is sent.
    config.regions[1].stream = "elsewhere".to_owned();
    let sending = Sending::new(Chosen::Filter(Filter::default()), 1_000.try_into().unwrap());
    let refused =
        redrive_letters(&store, &config, &dynamodb.client, sending, &CancellationToken::new()).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("nothing was sent") && refused.contains("elsewhere"), "{refused}");
}
