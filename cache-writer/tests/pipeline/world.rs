//! A region: its stream, its state table, its cache; and cache-writers that run in this process.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_kinesis::primitives::Blob;
use bytes::Bytes;
use redis::AsyncCommands as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use warmcast_cache_writer::Config;
use warmcast_common::config::Document;
use warmcast_common::daemon::read;
use warmcast_common::dead_letter::{DeadLetterConfig, Filter, Kept, Letter, LetterStore, StoreConfig};
use warmcast_common::telemetry::Telemetry;
use warmcast_proto::change::{Change, ChangeKind};
use warmcast_proto::entry::{EntryHeader, EntryKind};
use warmcast_proto::frame::{Compression, Compressor, FrameBuilder};
use warmcast_proto::key::cache_key;
use warmcast_proto::position::Position;

use super::redis_server::RedisServer;
use super::servers::{DynamoDb, Kinesis};
use super::wait::until;

pub(crate) const STREAM: &str = "warmcast";
const TABLE: &str = "profiles";
const PREFIX: &str = "wc:";

/// The user with the most rights, and its password.
const USER: &str = "warmcast-operator";
const PASSWORD: &str = "redis-hunter2";

/// The operators' rule as the documentation has it.
fn operators_rule() -> Vec<String> {
    let page = include_str!("../../../docs/security.md");
    let line = page.lines().find_map(|line| line.strip_prefix("    ACL SETUSER warmcast-operator on "));
    let words = format!("on {}", line.unwrap()).replace("PREFIX", PREFIX).replace("PASSWORD", PASSWORD);
    words.split(' ').map(str::to_owned).collect()
}

/// Everything outside the daemon.
pub(crate) struct World {
    pub(crate) dynamodb: DynamoDb,
    pub(crate) kinesis: Kinesis,
    pub(crate) redis: RedisServer,
    pub(crate) admin: redis::aio::MultiplexedConnection,
    pub(crate) letters: LetterStore,
}

/// A cache-writer in this process. Dropping it is its sudden death.
pub(crate) struct CacheWriter {
    shutdown: CancellationToken,
    task: JoinSet<Result<(), anyhow::Error>>,
}

impl CacheWriter {
    pub(crate) fn start(config: Config) -> Self {
        let shutdown = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(warmcast_cache_writer::run(config, Telemetry::default(), shutdown.clone()));
        Self { shutdown, task }
    }

    /// Tells it to stop and waits until everything is drained.
    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(8), self.task.join_next()).await;
        ended.expect("the cache-writer ends").unwrap().unwrap().unwrap();
    }
}

impl World {
    /// A stream of this many shards with nothing in it.
    pub(crate) async fn new(shards: i32) -> Self {
        // An argument, so that the server has the user after a restart, too.
        let rule = operators_rule();
        let user = ["--user", USER].into_iter().chain(rule.iter().map(String::as_str)).collect::<Vec<_>>();
        let redis = RedisServer::start_with(&user, &[]);
        let dynamodb = DynamoDb::start().await;
        let world = Self {
            letters: letter_store(dynamodb.client.clone(), true),
            dynamodb,
            kinesis: Kinesis::start().await,
            admin: redis.admin().await,
            redis,
        };
        world.kinesis.create_stream(STREAM, shards).await;
        world
    }

    /// Short intervals, and a user with no more rights than the operators'.
    pub(crate) fn config(&self) -> Config {
        let redis = format!("redis://{USER}:{PASSWORD}@127.0.0.1:{}", self.redis.port);
        let text = config_text(&self.kinesis.url, &self.dynamodb.url, &redis);
        read(Document::parse(&text).unwrap()).unwrap()
    }

    /// Puts a record where the stream has this hash key; its sequence number.
    pub(crate) async fn put_at(&self, hash_key: u128, data: impl Into<Vec<u8>>) -> String {
        let put = self.kinesis.client.put_record().stream_name(STREAM).partition_key("p");
        let put = put.explicit_hash_key(hash_key.to_string()).data(Blob::new(data.into()));
        put.send().await.unwrap().sequence_number
    }

    /// Puts a record into the first shard; its sequence number.
    pub(crate) async fn put(&self, data: impl Into<Vec<u8>>) -> String {
        self.put_at(0, data).await
    }

    /// What the cache has under a key: its header and the payload.
    pub(crate) async fn entry(&self, key: &str) -> Option<(EntryHeader, Vec<u8>)> {
        let mut admin = self.admin.clone();
        let value: Option<Vec<u8>> = admin.get(redis_key(key)).await.unwrap();
        value.map(|value| {
            let (header, payload) = EntryHeader::decode(&value).unwrap();
            (header, payload.to_vec())
        })
    }

    /// Waits until the key's entry has this sequence number; the entry.
    pub(crate) async fn until_entry(&self, key: &str, sequence: u32) -> (EntryHeader, Vec<u8>) {
        until(&format!("{key} is at {sequence}"), async || {
            self.entry(key).await.is_some_and(|(header, _)| header.position() == position(sequence))
        })
        .await;
        self.entry(key).await.unwrap()
    }

    /// Waits until the checkpoint of the first shard is this record.
    pub(crate) async fn until_checkpoint(&self, sequence: &str) {
        let expected = format!("after:{sequence}");
        until(&format!("the checkpoint is {expected}"), async || {
            self.dynamodb.checkpoints(STREAM).await.iter().any(|(_, checkpoint)| *checkpoint == expected)
        })
        .await;
    }

    /// The dead letters, in the order of their positions and indexes.
    pub(crate) async fn letters(&self) -> Vec<(Kept, Letter)> {
        letters(&self.letters).await
    }
}

/// Everything in a store, in the order of positions and indexes.
pub(crate) async fn letters(store: &LetterStore) -> Vec<(Kept, Letter)> {
    let (mut found, mut from) = (Vec::new(), None);
    loop {
        let page = store.list(&Filter::default(), from.as_deref()).await.unwrap();
        for kept in page.letters {
            found.push(store.get(kept.id).await.unwrap().expect("a letter that is listed"));
        }
        match page.next {
            Some(next) => from = Some(next),
            None => break,
        }
    }
    // Numbers of more digits than any integer type has.
    let order = |kept: &Kept| {
        let position = kept.envelope.origin.position.clone().unwrap();
        (position.len(), position, kept.envelope.index)
    };
    found.sort_by_key(|(kept, _)| order(kept));
    found
}

/// The table in which the daemon keeps its letters by default.
pub(crate) fn letter_store(dynamodb: aws_sdk_dynamodb::Client, create: bool) -> LetterStore {
    let table = "state-dead-letters".to_owned();
    let store = StoreConfig::Table { table, create, retention: Duration::from_secs(86_400) };
    LetterStore::open(&DeadLetterConfig { store }, dynamodb).unwrap()
}

/// A configuration with short intervals.
pub(crate) fn config_text(kinesis: &str, dynamodb: &str, redis: &str) -> String {
    format!(
        "worker_id = 'w1'
        [kinesis]
        stream = '{STREAM}'
        region = 'eu-west-1'
        endpoint = '{kinesis}'
        access_key_id = 'test'
        secret_access_key = 'aws-hunter2'
        [dynamodb]
        region = 'eu-west-1'
        endpoint = '{dynamodb}'
        access_key_id = 'test'
        secret_access_key = 'aws-hunter2'
        [state]
        table = 'state'
        create = true
        [redis]
        url = '{redis}'
        key_prefix = '{PREFIX}'
        [worker]
        sync_interval_ms = 100
        heartbeat_interval_ms = 100
        checkpoint_interval_ms = 50
        idle_poll_max_ms = 20
        [admin]
        listen = '127.0.0.1:0'
        [log]
        format = 'json'
        "
    )
}

pub(crate) fn redis_key(key: &str) -> Vec<u8> {
    cache_key(PREFIX, TABLE, key.as_bytes())
}

pub(crate) fn position(sequence: u32) -> Position {
    Position::new(1, sequence.to_string().parse().unwrap()).unwrap()
}

pub(crate) fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A change that is made now.
pub(crate) fn change(key: &str, sequence: u32, kind: ChangeKind, payload: impl Into<Bytes>) -> Change {
    Change {
        table: Arc::from(TABLE),
        key: Bytes::copy_from_slice(key.as_bytes()),
        position: position(sequence),
        kind,
        created_ms: now_ms(),
        payload: payload.into(),
    }
}

pub(crate) fn put_change(key: &str, sequence: u32) -> Change {
    change(key, sequence, ChangeKind::Put, sequence.to_string())
}

/// The frame of these changes.
pub(crate) fn frame(changes: &[Change]) -> Vec<u8> {
    let mut builder = FrameBuilder::new();
    changes.iter().for_each(|change| builder.push(change));
    builder.finish(&mut Compressor::new(Compression::Zstd { level: 3 }).unwrap()).unwrap().to_vec()
}

/// What is compared of an entry.
pub(crate) fn shown((header, payload): &(EntryHeader, Vec<u8>)) -> (EntryKind, &str) {
    (header.kind(), std::str::from_utf8(payload).unwrap())
}
