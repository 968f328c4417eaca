//! A region's Redis, the master's DynamoDB, and readers in this process.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use redis::AsyncCommands as _;
use warmcast_cache::{
    Cache, Outcome, Reader, ReaderConfig, TablePolicy,
    filler::FillerConfig,
    master::{BreakerConfig, MasterConfig},
    reader::MasterFallback,
};
use warmcast_proto::{
    change::{Change, ChangeKind},
    entry::{EntryHeader, EntryKind},
    item::{self, Item, Value},
    key::ItemKey,
    position::Position,
};

use crate::{
    fake::{FakeDynamoDb, TABLE},
    support::RedisServer,
};

/// As long as a busy machine may need; tests that wait for a deadline set it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Everything outside the reader.
pub(crate) struct World {
    pub(crate) redis: RedisServer,
    pub(crate) dynamodb: FakeDynamoDb,
    pub(crate) cache: Cache,
    pub(crate) admin: redis::aio::MultiplexedConnection,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(TablePolicy::default()).await
    }

    /// With this policy of every table.
    pub(crate) async fn start_with(policy: TablePolicy) -> Self {
        let redis = RedisServer::start();
        let mut config = redis.config();
        config.tables.default = policy;
        let cache = Cache::connect(config).await.unwrap();
        let admin = redis.admin().await;
        Self { dynamodb: FakeDynamoDb::start().await, cache, admin, redis }
    }

    /// Patient, without a first level and without the master.
    pub(crate) fn config(&self) -> ReaderConfig {
        ReaderConfig {
            deadline: PATIENCE,
            staleness_max: None,
            first_level: None,
            ..ReaderConfig::new(self.cache.config().clone())
        }
    }

    /// With the master, as patient.
    pub(crate) fn config_with_master(&self) -> ReaderConfig {
        ReaderConfig { master: Some(self.fallback()), ..self.config() }
    }

    pub(crate) fn fallback(&self) -> MasterFallback {
        MasterFallback {
            master: MasterConfig {
                call_timeout: PATIENCE,
                read_timeout: PATIENCE,
                breaker: BreakerConfig { slow_after: PATIENCE, ..BreakerConfig::default() },
                ..MasterConfig::default()
            },
            filler: FillerConfig { hold: PATIENCE * 2, ..FillerConfig::default() },
            ..MasterFallback::new(self.dynamodb.client())
        }
    }

    pub(crate) async fn reader(&self) -> Reader {
        Reader::connect(self.config()).await.unwrap()
    }

    pub(crate) async fn reader_with_master(&self) -> Reader {
        Reader::connect(self.config_with_master()).await.unwrap()
    }

    /// Applies a change made now, as the stream does.
    pub(crate) async fn apply(&self, key: &str, sequence: u32, kind: ChangeKind, payload: impl Into<Bytes>) {
        let change = change(key, sequence, kind, payload);
        let outcome = self.cache.apply(&[&change]).await.pop().unwrap();
        assert_eq!(outcome, Ok(Outcome::Applied));
    }

    /// Puts any bytes under an item's key.
    pub(crate) async fn set(&self, key: &str, value: &[u8]) {
        let (): () = self.admin.clone().set(redis_key(key), value).await.unwrap();
    }

    /// What kind of entry the cache has for an item, and its payload.
    pub(crate) async fn entry(&self, key: &str) -> Option<(EntryKind, Vec<u8>)> {
        let value: Option<Vec<u8>> = self.admin.clone().get(redis_key(key)).await.unwrap();
        value.map(|value| {
            let (header, payload) = EntryHeader::decode(&value).unwrap();
            (header.kind(), payload.to_vec())
        })
    }

    /// Waits until the cache has an entry of this kind; its payload.
    pub(crate) async fn until_entry(&self, key: &str, kind: EntryKind) -> Vec<u8> {
        until(&format!("{key} is {kind:?}"), async || {
            self.entry(key).await.is_some_and(|(found, _)| found == kind)
        })
        .await;
        self.entry(key).await.unwrap().1
    }

    /// How often the server was asked for values.
    pub(crate) async fn reads(&self) -> u64 {
        let stats: String =
            redis::cmd("INFO").arg("commandstats").query_async(&mut self.admin.clone()).await.unwrap();
        let count = |name: &str| {
            let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")))?;
            line.split(',').next()?.parse::<u64>().ok()
        };
        // The watermark is asked for in the same way, once a second.
        count("get").unwrap_or(0) + count("mget").unwrap_or(0)
    }

    pub(crate) async fn set_watermark(&self, watermark_ms: u64) {
        self.cache.publish_watermark(watermark_ms).await.unwrap();
    }
}

/// Waits for what happens in another process or task, and says what it waited for.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited for: {what}"));
}

pub(crate) fn key(key: &str) -> ItemKey {
    ItemKey::partition(key.to_owned())
}

pub(crate) fn keys(names: &[&str]) -> Vec<ItemKey> {
    names.iter().map(|name| key(name)).collect()
}

pub(crate) fn redis_key(key: &str) -> Vec<u8> {
    warmcast_proto::key::cache_key("wc:", TABLE, key.as_bytes())
}

pub(crate) fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

pub(crate) fn position(sequence: u32) -> Position {
    Position::new(1, sequence.to_string().parse().unwrap()).unwrap()
}

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

/// An item as the stream brings it.
pub(crate) fn encoded(attributes: &[(&str, Value)]) -> Bytes {
    item::encode(&Item {
        attributes: attributes
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone().into()))
            .collect(),
    })
}

/// The `version` of an item of the fake.
pub(crate) fn version(item: &Item) -> u64 {
    match &item.attributes["version"].value {
        Some(Value::N(digits)) => digits.parse().unwrap(),
        other => panic!("{other:?}"),
    }
}
