//! A region whose stream is for everybody: read by our cache-writer, and by AWS' own Python module as a Lambda function
//! would use it.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{Record, ShardIteratorType};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value as Json, json};
use warmcast_proto::position::Position;
use warmcast_sandbox::daemon::STREAM;
use warmcast_sandbox::entry::{self, Entry, now_ms};
use warmcast_sandbox::profile::Item;
use warmcast_sandbox::workload::Ledger;
use warmcast_sandbox::world::{KEY_ATTRIBUTE, World, WorldOptions};

use crate::support::*;

/// Keeps the newest change of each key, as somebody may who has only read docs/kpl.md.
const CONSUMER: &str = r#"
import base64, json, sys
from aws_kinesis_agg.deaggregator import deaggregate_records

newest, watermark_ms = {}, 0
for record in deaggregate_records(json.load(sys.stdin)):
    document = json.loads(base64.b64decode(record["kinesis"]["data"]))
    assert document["warmcast"] == 1
    if "watermark_ms" in document:
        watermark_ms = max(watermark_ms, document["watermark_ms"])
        continue
    assert record["kinesis"]["aggregated"] and record["kinesis"]["partitionKey"] == document["key"]
    position = (document["generation"], int(document["sequence"]))
    key = (document["table"], document["key"])
    if key not in newest or newest[key][0] < position:
        newest[key] = (position, document)
rows = {key: document.get("item") for (table, key), (position, document) in newest.items()}
json.dump({"rows": rows, "watermark_ms": watermark_ms}, sys.stdout)
"#;

/// Aggregates these documents.
const PRODUCER: &str = r#"
import base64, json, sys
from aws_kinesis_agg.aggregator import RecordAggregator

aggregator = RecordAggregator()
for document in json.load(sys.stdin):
    full = aggregator.add_user_record(document.get("key", "-"), json.dumps(document))
    assert full is None
json.dump(base64.b64encode(aggregator.clear_and_get().get_contents()[2]).decode(), sys.stdout)
"#;

fn python(program: &str, input: &Json) -> Json {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/kinesis-agg/bin/python");
    let mut command = Command::new(python);
    command.args(["-B", "-X", "utf8", "-c", program]);
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.unwrap_or_else(|error| {
        panic!(
            "aws-kinesis-agg cannot be run ({error}): run `sandbox/setup.sh kinesis-agg`, as `make test` does"
        )
    });
    // It reads all before it writes anything.
    child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn world_with_a_stream_for_everybody() -> World {
    let mut world = World::start_servers(&WorldOptions::default()).await.unwrap();
    let setting = format!("regions.{}.record_format=kpl", world.regions()[0].name());
    world.aggregator_mut().set(&setting);
    world.start_daemons().unwrap();
    world.wait_until_ready().await.unwrap_or_else(|error| panic!("{error}"));
    world
}

/// Everything that the first region's stream has.
async fn records(world: &World) -> Vec<Record> {
    let client = world.regions()[0].kinesis().client();
    let mut records = Vec::new();
    for shard in client.list_shards().stream_name(STREAM).send().await.unwrap().shards() {
        let from = client.get_shard_iterator().stream_name(STREAM).shard_id(shard.shard_id());
        let from = from.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await.unwrap();
        let mut iterator = from.shard_iterator;
        while let Some(at) = iterator {
            let page = client.get_records().shard_iterator(at).send().await.unwrap();
            iterator = page.next_shard_iterator.filter(|_| page.millis_behind_latest != Some(0));
            records.extend(page.records);
        }
    }
    records
}

/// As a Lambda function gets them (AWS: Lambda, using Lambda with Kinesis).
fn of_lambda(records: &[Record]) -> Json {
    let one = |record: &Record| {
        json!({ "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "sequenceNumber": record.sequence_number,
            "partitionKey": record.partition_key,
            "approximateArrivalTimestamp": 0.0,
            "data": BASE64_STANDARD.encode(record.data.as_ref()),
        } })
    };
    records.iter().map(one).collect()
}

/// DynamoDB's JSON, members of sets in any one order.
fn json_of(value: &AttributeValue) -> Json {
    let binary = |blob: &aws_sdk_dynamodb::primitives::Blob| BASE64_STANDARD.encode(blob.as_ref());
    let sorted = |mut values: Vec<String>| {
        values.sort_unstable();
        values
    };
    match value {
        AttributeValue::S(text) => json!({ "S": text }),
        AttributeValue::N(number) => json!({ "N": number }),
        AttributeValue::B(blob) => json!({ "B": binary(blob) }),
        AttributeValue::Bool(truth) => json!({ "BOOL": truth }),
        AttributeValue::Null(is_null) => json!({ "NULL": is_null }),
        AttributeValue::L(values) => json!({ "L": values.iter().map(json_of).collect::<Vec<_>>() }),
        AttributeValue::M(map) => json!({ "M": item_json(map) }),
        AttributeValue::Ss(values) => json!({ "SS": sorted(values.clone()) }),
        AttributeValue::Ns(values) => json!({ "NS": sorted(values.clone()) }),
        AttributeValue::Bs(values) => json!({ "BS": sorted(values.iter().map(binary).collect()) }),
        other => panic!("no such type: {other:?}"),
    }
}

fn item_json(item: &Item) -> Json {
    item.iter().map(|(name, value)| (name.clone(), json_of(value))).collect()
}

fn sort_sets(value: &mut Json) {
    match value {
        Json::Object(members) => {
            for (name, member) in members.iter_mut() {
                match member {
                    Json::Array(values) if matches!(name.as_str(), "SS" | "NS" | "BS") => {
                        values.sort_by_key(Json::to_string);
                    }
                    member => sort_sets(member),
                }
            }
        }
        Json::Array(values) => values.iter_mut().for_each(sort_sets),
        _ => {}
    }
}

async fn table_json(world: &World) -> Json {
    let mut rows = serde_json::Map::new();
    let mut scan = world.dynamodb().scan().table_name(TABLE).into_paginator().items().send();
    while let Some(item) = scan.next().await {
        let item = item.unwrap();
        rows.insert(item[KEY_ATTRIBUTE].as_s().unwrap().clone(), item_json(&item));
    }
    Json::Object(rows)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_for_everybody_feeds_the_cache_and_anybody_who_deaggregates_it() {
    let mut world = world_with_a_stream_for_everybody().await;
    let traffic = Traffic::start(&world);
    traffic.more(600).await;
    let ledger = traffic.finish().await;
    assert_regions_equal(&mut world, &ledger).await;

    // The heartbeats begin when the whole fleet's shards are known.
    eventually("the region has a watermark", || async {
        let mut connection = world.regions()[0].redis().connect().await.ok()?;
        entry::watermark_ms(&mut connection).await.ok().flatten()
    })
    .await;
    let records = records(&world).await;
    let mut read = python(CONSUMER, &of_lambda(&records));
    let mut rows = read["rows"].take();
    sort_sets(&mut rows);
    let deleted = rows.as_object().unwrap().values().filter(|item| item.is_null()).count();
    assert!(deleted > 0, "deletions belong to the traffic");
    rows.as_object_mut().unwrap().retain(|_, item| !item.is_null());
    let table = table_json(&world).await;
    assert!(table.as_object().unwrap().len() > 100);
    assert_eq!(rows.as_object().unwrap().len(), table.as_object().unwrap().len());
    for (key, item) in rows.as_object().unwrap() {
        assert_eq!(*item, table[key], "{key}");
    }
    let watermark_ms = read["watermark_ms"].as_u64().unwrap();
    assert!(now_ms().abs_diff(watermark_ms) < 60_000, "{watermark_ms}");
    for region in world.regions() {
        assert_eq!(region.cache_writer().stats().total("dead_letters"), 0, "{}", region.name());
    }
    stop(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_format_may_be_changed_while_its_stream_is_read() {
    let mut world = world_with_a_stream_for_everybody().await;
    put(&world, TABLE, Default::default(), "aggregated").await;
    wait_in_every_region(&world, "aggregated", is_live).await;
    let setting = format!("regions.{}.record_format=frame", world.regions()[0].name());
    world.aggregator_mut().set(&setting);
    world.aggregator_mut().terminate().await.unwrap();
    world.start_daemons().unwrap();
    put(&world, TABLE, Default::default(), "framed").await;
    wait_in_every_region(&world, "framed", is_live).await;
    assert_regions_equal(&mut world, &Ledger::new()).await;
    stop(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_aggregate_is_applied() {
    let world = world().await;
    let document = |key: &str, more: Json| {
        let mut document = json!({
            "warmcast": 1, "table": TABLE, "key": key, "generation": 9,
            "sequence": "40000000000000000000000000000000000001", "created_ms": now_ms(), "read_ms": now_ms(),
        });
        document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        document
    };
    let item = json!({ KEY_ATTRIBUTE: { "S": "put" }, "age": { "N": "42" }, "tags": { "SS": ["a", "b"] } });
    let documents = json!([
        document("put", json!({ "kind": "put", "item": item })),
        json!({ "somebody": "else's" }),
        document("deleted", json!({ "kind": "delete" })),
    ]);
    let record = BASE64_STANDARD.decode(python(PRODUCER, &documents).as_str().unwrap()).unwrap();
    let client = world.regions()[0].kinesis().client();
    let put = client.put_record().stream_name(STREAM).partition_key("by hand").data(Blob::new(record));
    put.send().await.unwrap();
    let entry = wait_for_entry(&world, 0, (TABLE, "put"), is_live).await;
    assert_eq!(entry.number("age"), Some(42));
    let sequence = "40000000000000000000000000000000000001".parse().unwrap();
    assert_eq!(entry.floor(), Position::new(9, sequence).ok());
    wait_for_entry(&world, 0, (TABLE, "deleted"), Entry::is_tombstone).await;
    let stats = || world.regions()[0].cache_writer().stats();
    eventually("the other user record is set aside", || async {
        (stats().total("dead_letters") == 1).then_some(())
    })
    .await;
    stop(world).await;
}
