//! The daemons' configuration files, as far as the sandbox sets anything.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Endpoint, STATS_INTERVAL_MS, STREAM, WorkerTiming};

#[derive(Serialize)]
pub(super) struct AggregatorConfig {
    pub(super) worker_id: String,
    pub(super) dynamodb: Master,
    pub(super) state: State,
    pub(super) tables: BTreeMap<String, TableConfig>,
    pub(super) regions: BTreeMap<String, RegionConfig>,
    pub(super) worker: WorkerTiming,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) watermark: Option<Watermark>,
    pub(super) batch: Batch,
    pub(super) log: LogConfig,
    pub(super) admin: AdminConfig,
}

#[derive(Serialize)]
pub(super) struct Master {
    #[serde(flatten)]
    pub(super) endpoint: Endpoint,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) streams_endpoint: Option<String>,
}

#[derive(Serialize)]
pub(super) struct CacheWriterConfig {
    pub(super) worker_id: String,
    pub(super) kinesis: KinesisConfig,
    pub(super) dynamodb: Endpoint,
    pub(super) master: Endpoint,
    pub(super) state: State,
    pub(super) redis: RedisConfig,
    pub(super) worker: WorkerTiming,
    pub(super) log: LogConfig,
    pub(super) admin: AdminConfig,
}

#[derive(Serialize)]
pub(super) struct State {
    pub(super) table: String,
    pub(super) create: bool,
}

#[derive(Serialize)]
pub(super) struct TableConfig {
    pub(super) initial_position: &'static str,
}

/// In the aggregator's configuration the region is the table's name, not a key in it.
#[derive(Serialize)]
pub(super) struct RegionConfig {
    pub(super) stream: &'static str,
    pub(super) kinesis: RegionKinesis,
}

impl RegionConfig {
    pub(super) fn new(endpoint: &Endpoint) -> Self {
        let kinesis = RegionKinesis {
            endpoint: endpoint.endpoint.clone(),
            access_key_id: endpoint.access_key_id.clone(),
            secret_access_key: endpoint.secret_access_key,
        };
        Self { stream: STREAM, kinesis }
    }
}

#[derive(Serialize)]
pub(super) struct RegionKinesis {
    pub(super) endpoint: String,
    pub(super) access_key_id: String,
    pub(super) secret_access_key: &'static str,
}

#[derive(Serialize)]
pub(super) struct KinesisConfig {
    pub(super) stream: &'static str,
    #[serde(flatten)]
    pub(super) endpoint: Endpoint,
}

#[derive(Serialize)]
pub(super) struct RedisConfig {
    pub(super) url: String,
    pub(super) key_prefix: String,
}

#[derive(Serialize)]
pub(super) struct Batch {
    pub(super) buckets: u32,
    pub(super) linger_ms: u64,
}

#[derive(Serialize)]
pub(super) struct Watermark {
    pub(super) interval_ms: u64,
}

#[derive(Serialize)]
pub(super) struct LogConfig {
    pub(super) format: &'static str,
    pub(super) stats_interval_ms: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: "json", stats_interval_ms: STATS_INTERVAL_MS }
    }
}

/// Any port that is free: all daemons of a world are on one machine.
#[derive(Serialize)]
pub(super) struct AdminConfig {
    pub(super) listen: &'static str,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: "127.0.0.1:0" }
    }
}
