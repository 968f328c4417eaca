//! Records that the Kinesis Producer Library's format aggregates, in one stream with frames.

use std::collections::BTreeMap;

use redis::AsyncCommands as _;
use warmcast_common::dead_letter::{Envelope, Form};
use warmcast_proto::change::{Change, ChangeKind};
use warmcast_proto::entry::EntryKind;
use warmcast_proto::item::{self, Item, Value};
use warmcast_proto::json;
use warmcast_proto::kpl::AggregateBuilder;

use super::wait::until;
use super::world::{CacheWriter, World, change, frame, now_ms, put_change, shown};

fn put_item(key: &str, sequence: u32, text: &str) -> Change {
    let attributes = BTreeMap::from([("v".to_owned(), Value::S(text.to_owned()).into())]);
    change(key, sequence, ChangeKind::Put, item::encode(&Item { attributes }))
}

fn document(change: &Change, read_ms: u64) -> Vec<u8> {
    json::encode(change, read_ms).unwrap()
}

fn aggregated(user_records: &[&[u8]]) -> Vec<u8> {
    let mut builder = AggregateBuilder::new(1 << 20);
    assert!(user_records.iter().all(|data| builder.push("key", Some("0"), data)));
    builder.finish().unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn user_records_of_ours_are_applied_and_others_are_set_aside() {
    let world = World::new(1).await;
    let writer = CacheWriter::start(world.config());
    let (put, deleted) = (put_item("put", 1, "text"), change("deleted", 2, ChangeKind::Delete, ""));
    // A type that a later DynamoDB may have.
    let unknown = document(&put_item("unknown", 6, "text"), now_ms());
    let unknown = String::from_utf8(unknown).unwrap().replace("\"S\"", "\"LATER\"").into_bytes();
    let mixed = aggregated(&[
        &document(&put, now_ms()),
        b"theirs",
        &frame(&[put_change("framed", 3), put_change("too", 4)]),
        b"{\"their\": \"json\"}",
        &document(&deleted, now_ms()),
        &unknown,
    ]);
    let record = world.put(mixed).await;
    let mut damaged = aggregated(&[&document(&put_item("put", 9, "damaged"), now_ms())]);
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let undecodable = world.put(damaged.clone()).await;
    let last = world.put(document(&put_item("alone", 5, "not aggregated"), now_ms())).await;
    world.until_checkpoint(&last).await;
    let (header, payload) = world.until_entry("put", 1).await;
    assert_eq!((header.kind(), header.time_ms()), (EntryKind::Live, put.created_ms));
    assert_eq!(payload, put.payload, "byte by byte what a frame would have brought");
    assert_eq!(shown(&world.until_entry("framed", 3).await), (EntryKind::Live, "3"));
    assert_eq!(shown(&world.until_entry("too", 4).await), (EntryKind::Live, "4"));
    assert_eq!(shown(&world.until_entry("deleted", 2).await), (EntryKind::Tombstone, ""));
    world.until_entry("alone", 5).await;
    assert_eq!(shown(&world.until_entry("unknown", 6).await), (EntryKind::Invalid, ""));
    let letters = world.letters().await;
    let found = letters.iter().map(|(kept, letter)| {
        let Envelope { origin, index, form, key, .. } = &kept.envelope;
        assert_eq!(*form, Form::KinesisRecord);
        let key = key.as_ref().map(|key| std::str::from_utf8(key).unwrap());
        (origin.position.as_deref().unwrap(), *index, key, letter.bytes.to_vec())
    });
    let found: Vec<_> = found.collect();
    let expected = [
        (record.as_str(), Some(1), None, b"theirs".to_vec()),
        (record.as_str(), Some(4), None, b"{\"their\": \"json\"}".to_vec()),
        (record.as_str(), Some(6), Some("unknown"), unknown),
        (undecodable.as_str(), None, None, damaged),
    ];
    assert_eq!(found, expected, "each user record has a letter of its own");
    assert!(letters[0].0.envelope.reason.starts_with("user record 1: "), "{letters:?}");
    assert!(letters[3].0.envelope.reason.contains("MD5"), "{letters:?}");
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_record_that_comes_late_says_so_by_itself() {
    let world = World::new(1).await;
    let writer = CacheWriter::start(world.config());
    let late = document(&put_item("late", 1, "old"), now_ms() - 120_000);
    let in_time = document(&put_item("in time", 1, "new"), now_ms());
    world.put(aggregated(&[&late, &in_time])).await;
    assert_eq!(shown(&world.until_entry("late", 1).await), (EntryKind::Invalid, ""));
    assert_eq!(world.until_entry("in time", 1).await.0.kind(), EntryKind::Live);
    writer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_in_json_advance_the_watermark() {
    let world = World::new(1).await;
    let writer = CacheWriter::start(world.config());
    for (record, watermark) in
        [(json::heartbeat(4_000).to_vec(), "4000"), (aggregated(&[&json::heartbeat(5_000)]), "5000")]
    {
        world.put(record).await;
        until(&format!("the watermark is {watermark}"), async || {
            let stored: Option<String> = world.admin.clone().get("wc:warmcast:watermark").await.unwrap();
            stored.as_deref() == Some(watermark)
        })
        .await;
    }
    assert!(world.letters().await.is_empty());
    writer.stop().await;
}
