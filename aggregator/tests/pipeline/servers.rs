//! Real servers inside the test's process, on free loopback ports: an embedded DynamoDB and an embedded Kinesis.
//! Dropping one stops it.

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, StreamSpecification,
    StreamViewType,
};
use aws_sdk_kinesis::types::{Record, Shard, ShardIteratorType, StreamStatus};
use bytes::Bytes;
use ferrokinesis::store::StoreOptions;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use warmcast_common::aws::sdk_config;
use warmcast_common::config::{Secret, ServiceConfig, StaticCredentials};

use super::wait::until;

/// How a server at `url` is reached.
pub(crate) fn service(url: &str) -> ServiceConfig {
    ServiceConfig {
        region: Some("eu-west-1".to_owned()),
        endpoint: Some(url.to_owned()),
        credentials: Some(StaticCredentials {
            access_key_id: "test".to_owned(),
            secret_access_key: Secret::new("test"),
            session_token: None,
        }),
    }
}

/// An embedded DynamoDB.
pub(crate) struct DynamoDb {
    pub(crate) url: String,
    pub(crate) client: aws_sdk_dynamodb::Client,
    _server: JoinSet<()>,
}

impl DynamoDb {
    /// With no table.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let database = dynoxide::Database::memory().unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move {
            // It ends with the set that owns it.
            dynoxide::server::serve_with_shutdown(listener, database, std::future::pending()).await.unwrap();
        });
        let client = aws_sdk_dynamodb::Client::new(&sdk_config(&service(&url)).await);
        Self { url, client, _server: server }
    }

    /// A table with the text key `id` and a stream of this view type.
    pub(crate) async fn create_table(&self, name: &str, view: StreamViewType) {
        let (id, text) = ("id", ScalarAttributeType::S);
        let attribute = AttributeDefinition::builder().attribute_name(id).attribute_type(text).build();
        let key = KeySchemaElement::builder().attribute_name(id).key_type(KeyType::Hash).build();
        let stream = StreamSpecification::builder().stream_enabled(true).stream_view_type(view).build();
        self.client
            .create_table()
            .table_name(name)
            .attribute_definitions(attribute.unwrap())
            .key_schema(key.unwrap())
            .billing_mode(BillingMode::PayPerRequest)
            .stream_specification(stream.unwrap())
            .send()
            .await
            .unwrap();
    }

    /// The checkpoint of each shard of the streams whose name has `stream` in it, as the state table has it, in the
    /// order of the shards' names.
    pub(crate) async fn checkpoints(&self, stream: &str) -> Vec<(String, String)> {
        let answer = self.client.scan().table_name("state").consistent_read(true).send().await;
        // Before the daemon has made the table there are none.
        let Ok(answer) = answer else { return Vec::new() };
        let mut found = Vec::new();
        for item in answer.items() {
            let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok());
            let (Some(pk), Some(sk), Some(checkpoint)) = (text("pk"), text("sk"), text("checkpoint")) else {
                continue;
            };
            if pk.starts_with("stream#") && pk.contains(stream) {
                found.push((sk.trim_start_matches("shard#").to_owned(), checkpoint.clone()));
            }
        }
        found.sort();
        found
    }

    /// How many leases have an owner.
    pub(crate) async fn leases_with_owner(&self) -> usize {
        let answer = self.client.scan().table_name("state").consistent_read(true).send().await.unwrap();
        answer.items().iter().filter(|item| item.contains_key("owner")).count()
    }
}

/// An embedded Kinesis.
pub(crate) struct Kinesis {
    pub(crate) url: String,
    pub(crate) client: aws_sdk_kinesis::Client,
    _server: JoinSet<()>,
}

impl Kinesis {
    /// With no stream.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (app, _store) = ferrokinesis::create_app(StoreOptions {
            create_stream_ms: 1,
            delete_stream_ms: 1,
            update_stream_ms: 1,
            shard_limit: 100,
            ..StoreOptions::default()
        });
        let mut server = JoinSet::new();
        server.spawn(async move {
            ferrokinesis::serve_plain_http(listener, app, std::future::pending()).await.unwrap();
        });
        let client = aws_sdk_kinesis::Client::new(&sdk_config(&service(&url)).await);
        Self { url, client, _server: server }
    }

    /// A stream that can be used.
    pub(crate) async fn create_stream(&self, name: &str, shards: i32) {
        self.client.create_stream().stream_name(name).shard_count(shards).send().await.unwrap();
        self.until_active(name).await;
    }

    async fn until_active(&self, name: &str) {
        until("the stream is active", async || {
            let answer = self.client.describe_stream_summary().stream_name(name).send().await.unwrap();
            answer.stream_description_summary.unwrap().stream_status == StreamStatus::Active
        })
        .await;
    }

    /// Every shard, closed ones included.
    pub(crate) async fn shards(&self, name: &str) -> Vec<Shard> {
        self.client.list_shards().stream_name(name).send().await.unwrap().shards.unwrap()
    }

    /// Splits a shard in the middle of its keys.
    pub(crate) async fn split(&self, name: &str, shard: &str) {
        let shards = self.shards(name).await;
        let range = shards.iter().find(|of| of.shard_id == shard).unwrap().hash_key_range.clone().unwrap();
        let [from, to] =
            [range.starting_hash_key, range.ending_hash_key].map(|key| key.parse::<u128>().unwrap());
        let middle = (from + (to - from) / 2 + 1).to_string();
        let split = self.client.split_shard().stream_name(name).shard_to_split(shard);
        split.new_starting_hash_key(middle).send().await.unwrap();
        self.until_active(name).await;
    }

    /// Merges two neighbours.
    pub(crate) async fn merge(&self, name: &str, shard: &str, adjacent: &str) {
        let merge = self.client.merge_shards().stream_name(name).shard_to_merge(shard);
        merge.adjacent_shard_to_merge(adjacent).send().await.unwrap();
        self.until_active(name).await;
    }

    /// Everything in one shard, oldest first.
    pub(crate) async fn records(&self, name: &str, shard: &str) -> Vec<Record> {
        let begin = self.client.get_shard_iterator().stream_name(name).shard_id(shard);
        let begin = begin.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await.unwrap();
        let mut iterator = begin.shard_iterator;
        let mut records = Vec::new();
        while let Some(from) = iterator.take() {
            let page = self.client.get_records().shard_iterator(from).send().await.unwrap();
            let at_tip = page.records.is_empty() && page.millis_behind_latest.unwrap_or(0) == 0;
            records.extend(page.records);
            iterator = page.next_shard_iterator.filter(|_| !at_tip);
        }
        records
    }
}

/// A record's data.
pub(crate) fn data(record: Record) -> Bytes {
    record.data.into_inner().into()
}
