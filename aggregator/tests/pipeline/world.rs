//! A master region with tables, target regions, and aggregators that run in this process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use warmcast_aggregator::Config;
use warmcast_aggregator::cbor::PutEncoding;
use warmcast_aggregator::record_format::RecordFormat;
use warmcast_aggregator::target::{TargetConfig, TargetStream};
use warmcast_common::config::Document;
use warmcast_common::daemon::read;
use warmcast_common::telemetry::Telemetry;
use warmcast_proto::change::Change;
use warmcast_proto::item::{self, Item, Value};
use warmcast_proto::record::{Contents, Record};

use super::servers::{DynamoDb, Kinesis, data, service};

/// The stream of every region.
pub(crate) const STREAM: &str = "warmcast";

/// A configuration with short intervals. Dead letters go to `directory`.
pub(crate) fn config(
    dynamodb: &str,
    tables: &[&str],
    regions: &[&str],
    directory: &std::path::Path,
) -> Config {
    read(Document::parse(&config_text(dynamodb, tables, regions, directory)).unwrap()).unwrap()
}

/// Its text.
pub(crate) fn config_text(
    dynamodb: &str,
    tables: &[&str],
    regions: &[&str],
    directory: &std::path::Path,
) -> String {
    let mut text = format!(
        "worker_id = 'w1'
        [dynamodb]
        region = 'us-east-1'
        endpoint = '{dynamodb}'
        access_key_id = 'test'
        secret_access_key = 'test'
        [state]
        table = 'state'
        create = true
        [batch]
        linger_ms = 20
        [watermark]
        interval_ms = 100
        [worker]
        sync_interval_ms = 100
        heartbeat_interval_ms = 100
        checkpoint_interval_ms = 50
        idle_poll_max_ms = 20
        [admin]
        listen = '127.0.0.1:0'
        [dead_letters]
        store = 'directory'
        directory = '{}'
        ",
        directory.display()
    );
    for table in tables {
        text.push_str(&format!("[tables.{table}]\n"));
    }
    for (number, url) in regions.iter().enumerate() {
        text.push_str(&format!(
            "[regions.region-{number}]
            stream = '{STREAM}'
            kinesis.endpoint = '{url}'
            kinesis.access_key_id = 'test'
            kinesis.secret_access_key = 'test'
            "
        ));
    }
    text
}

/// A region whose stream has so many shards.
pub(crate) async fn region(shards: i32) -> Kinesis {
    let kinesis = Kinesis::start().await;
    kinesis.create_stream(STREAM, shards).await;
    kinesis
}

/// An aggregator in this process. Dropping it is its sudden death.
pub(crate) struct Aggregator {
    shutdown: CancellationToken,
    task: JoinSet<Result<(), anyhow::Error>>,
}

impl Aggregator {
    pub(crate) fn start(config: Config) -> Self {
        let shutdown = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(warmcast_aggregator::run(config, Telemetry::default(), shutdown.clone()));
        Self { shutdown, task }
    }

    /// Tells it to stop and waits until it has.
    pub(crate) async fn stop(self) -> Result<(), anyhow::Error> {
        self.shutdown.cancel();
        self.ended().await
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(mut self) -> Result<(), anyhow::Error> {
        let ended = tokio::time::timeout(Duration::from_secs(8), self.task.join_next()).await;
        ended.expect("the aggregator ends").unwrap().unwrap()
    }
}

impl DynamoDb {
    /// Writes an item with a text.
    pub(crate) async fn put(&self, table: &str, id: &str, text: &str) {
        let text = AttributeValue::S(text.to_owned());
        self.put_item(table, id, text).await;
    }

    /// Writes an item with an attribute `v`.
    pub(crate) async fn put_item(&self, table: &str, id: &str, v: AttributeValue) {
        let id = AttributeValue::S(id.to_owned());
        self.client.put_item().table_name(table).item("id", id).item("v", v).send().await.unwrap();
    }

    pub(crate) async fn delete(&self, table: &str, id: &str) {
        let id = AttributeValue::S(id.to_owned());
        self.client.delete_item().table_name(table).key("id", id).send().await.unwrap();
    }
}

impl Kinesis {
    /// The changes in each shard of the region's stream, in order.
    pub(crate) async fn changes_by_shard(&self) -> BTreeMap<String, Vec<Change>> {
        let mut found = BTreeMap::new();
        for shard in self.shards(STREAM).await {
            let records = self.records(STREAM, &shard.shard_id).await;
            let changes = records.into_iter().flat_map(|record| changes(data(record))).collect();
            found.insert(shard.shard_id, changes);
        }
        found
    }

    /// The watermarks that each shard of the region's stream was told, in order.
    pub(crate) async fn watermarks_by_shard(&self) -> BTreeMap<String, Vec<u64>> {
        let mut found = BTreeMap::new();
        for shard in self.shards(STREAM).await {
            let records = self.records(STREAM, &shard.shard_id).await.into_iter().map(data);
            let watermarks = records.filter_map(|record| contents(record).watermark_ms).collect();
            found.insert(shard.shard_id, watermarks);
        }
        found
    }

    /// The changes of one table by key, in the order of their positions.
    pub(crate) async fn changes(&self, table: &str) -> BTreeMap<String, Vec<Change>> {
        let mut found: BTreeMap<String, Vec<Change>> = BTreeMap::new();
        for change in self.changes_by_shard().await.into_values().flatten() {
            if &*change.table == table {
                let key = String::from_utf8(change.key.to_vec()).unwrap();
                found.entry(key).or_default().push(change);
            }
        }
        found.values_mut().for_each(|changes| changes.sort_by_key(|change| change.position));
        found
    }
}

/// The changes of a record of either format, all of them good.
pub(crate) fn changes(record: Bytes) -> Vec<Change> {
    contents(record).parts.into_iter().map(|part| part.change.unwrap()).collect()
}

fn contents(record: Bytes) -> Contents {
    Record::open(record).unwrap().decode().unwrap()
}

/// The text that [`DynamoDb::put`] wrote.
pub(crate) fn text(change: &Change) -> String {
    let Item { attributes } = item::decode(change.payload.clone()).unwrap();
    match attributes.get("v").and_then(|value| value.value.clone()) {
        Some(Value::S(text)) => text,
        other => panic!("no text but {other:?}"),
    }
}

/// Where dead letters go.
pub(crate) fn directory() -> Arc<tempfile::TempDir> {
    Arc::new(tempfile::tempdir().unwrap())
}

/// The stream of a region, as an aggregator reaches it; a call without an answer is soon taken for lost.
pub(crate) async fn target(url: &str) -> TargetStream {
    let config = TargetConfig {
        connections: 2,
        call_timeout: Duration::from_millis(1_500),
        encoding: PutEncoding::default(),
        record_format: RecordFormat::Frame,
    };
    TargetStream::new("eu-west-1", STREAM, &service(url), config).await
}
