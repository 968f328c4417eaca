//! The cache-writer's configuration; `config/cache-writer.toml` has every key with a comment.

mod cache;
mod fallback;
mod tables;
mod verify;

pub use verify::VerifyConfig;

use std::time::Duration;

use warmcast_cache::{CacheConfig, FillerConfig, MasterConfig};
use warmcast_common::admin::AdminConfig;
use warmcast_common::config::{AwsService, Section, ServiceConfig};
use warmcast_common::consumer::WorkerConfig;
use warmcast_common::consumer::store::StateConfig;
use warmcast_common::daemon::{DaemonConfig, host_name, read_shutdown};
use warmcast_common::dead_letter::DeadLetterConfig;
use warmcast_common::limits::KINESIS_PAGE_BYTES_MAX;
use warmcast_common::metrics::MetricsConfig;
use warmcast_common::prices::PricesConfig;
use warmcast_common::telemetry::LogConfig;
use warmcast_proto::frame::FRAME_BODY_BYTES_MAX;

/// The admin endpoint's port; the aggregator has the one before.
const ADMIN_PORT: u16 = 9641;
/// Kinesis polls cost nothing by themselves, and five a second are allowed.
const IDLE_POLL_MAX_MS: u64 = 250;

/// Everything the cache-writer is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// This process' name in the fleet; the same after a restart.
    pub worker_id: String,
    /// The stream to read.
    pub kinesis: KinesisConfig,
    /// The DynamoDB that has the state table.
    pub dynamodb: ServiceConfig,
    /// Where leases and checkpoints are.
    pub state: StateConfig,
    /// How it works in the fleet.
    pub worker: WorkerConfig,
    /// The region's cache, and how its tables are cached.
    pub redis: CacheConfig,
    /// How much of the stream is read again after the cache may have lost writes.
    pub rewind: Duration,
    /// Where items come from whose changes do not say what they are; none: their keys stay misses.
    pub fallback: Option<FallbackConfig>,
    /// How the cache is compared with the master all the time.
    pub verify: VerifyConfig,
    /// How many reducers apply changes side by side.
    pub reducers: usize,
    /// How much may be held, in bytes.
    pub queue: QueueConfig,
    /// Where records go that cannot be used.
    pub dead_letters: DeadLetterConfig,
    /// How long a stop may take.
    pub shutdown_deadline: Duration,
    /// What there are metrics of.
    pub metrics: MetricsConfig,
    /// What the services cost.
    pub prices: PricesConfig,
    /// How it logs.
    pub log: LogConfig,
    /// Its admin endpoint.
    pub admin: AdminConfig,
}

/// `[redis]`.
struct CacheSection {
    cache: CacheConfig,
    rewind: Duration,
}

/// `[master]`.
#[derive(Clone, Debug)]
pub struct FallbackConfig {
    /// The master region's DynamoDB.
    pub dynamodb: ServiceConfig,
    /// How its tables are read.
    pub master: MasterConfig,
    /// How the cache is filled.
    pub filler: FillerConfig,
}

/// `[kinesis]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KinesisConfig {
    /// The stream's name.
    pub stream: String,
    /// How it is reached.
    pub service: ServiceConfig,
    /// Whether a stream that was never read is begun with its oldest record, or with what comes from now on.
    pub from_trim_horizon: bool,
}

/// `[queue]`. Two budgets, because a frame is inflated while its record is held: a frame that waited for bytes
/// that only records like itself can free would wait for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Records read and not yet applied.
    pub read_bytes_max: usize,
    /// Frames inflated and not yet applied.
    pub inflated_bytes_max: usize,
}

impl DaemonConfig for Config {
    const SERVICE: &'static str = "warmcast-cache-writer";

    fn read(mut root: Section) -> Self {
        let mut dynamodb_section = root.section("dynamodb");
        let dynamodb = ServiceConfig::read(&mut dynamodb_section, AwsService::DynamoDb);
        dynamodb_section.finish();
        let mut reducers = root.section("reducers");
        let reducer_count = reducers.size("count", 1..=1_024, 8);
        reducers.finish();
        let tables = tables::read(&mut root);
        let kinesis = KinesisConfig::read(root.section("kinesis"));
        let CacheSection { cache: redis, rewind } =
            cache::read(root.section("redis"), tables, &kinesis.service);
        let state = StateConfig::read(root.section("state"), "warmcast-cache-writer");
        let dead_letters = DeadLetterConfig::read(
            root.section("dead_letters"),
            &state,
            "/var/lib/warmcast/cache-writer/dead-letters",
        );
        let fallback = root.optional_section("master").map(fallback::read);
        let verify = VerifyConfig::read(root.section("verify"), fallback.is_some());
        let config = Self {
            worker_id: root.text_or("worker_id", host_name),
            kinesis,
            dynamodb,
            state,
            worker: WorkerConfig::read(root.section("worker"), IDLE_POLL_MAX_MS),
            redis,
            rewind,
            fallback,
            verify,
            reducers: reducer_count,
            queue: QueueConfig::read(root.section("queue")),
            dead_letters,
            shutdown_deadline: read_shutdown(root.section("shutdown")),
            metrics: MetricsConfig::read(root.section("metrics")),
            prices: PricesConfig::read(root.section("prices")),
            log: LogConfig::read(root.section("log")),
            admin: AdminConfig::read(root.section("admin"), ADMIN_PORT),
        };
        root.finish();
        config
    }

    fn worker_id(&self) -> &str {
        &self.worker_id
    }

    fn log(&self) -> &LogConfig {
        &self.log
    }

    fn admin(&self) -> &AdminConfig {
        &self.admin
    }

    fn shutdown_deadline(&self) -> Duration {
        self.shutdown_deadline
    }
}

impl Config {
    /// What the dead letters of this region's fleet name as their source.
    pub fn letters_source(&self) -> String {
        match &self.kinesis.service.region {
            Some(region) => format!("cache-writer/{region}"),
            None => "cache-writer".to_owned(),
        }
    }
}

impl KinesisConfig {
    fn read(mut section: Section) -> Self {
        let starts = [("trim-horizon", true), ("latest", false)];
        let config = Self {
            stream: section.required_text("stream"),
            service: ServiceConfig::read(&mut section, AwsService::Kinesis),
            from_trim_horizon: section.choice("initial_position", &starts, true),
        };
        section.finish();
        config
    }
}

impl QueueConfig {
    fn read(mut section: Section) -> Self {
        let gib4 = (4 << 30) - 1;
        let config = Self {
            read_bytes_max: section.size("read_bytes_max", KINESIS_PAGE_BYTES_MAX..=gib4, 128 << 20),
            inflated_bytes_max: section.size("inflated_bytes_max", FRAME_BODY_BYTES_MAX..=gib4, 256 << 20),
        };
        section.finish();
        config
    }
}
