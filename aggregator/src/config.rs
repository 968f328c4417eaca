//! The aggregator's configuration; `config/aggregator.toml` has every key with a comment.

use std::time::Duration;

use warmcast_common::admin::AdminConfig;
use warmcast_common::config::{AwsService, Section, ServiceConfig};
use warmcast_common::consumer::store::StateConfig;
use warmcast_common::consumer::{LaneStart, Parking, WorkerConfig};
use warmcast_common::daemon::{DaemonConfig, host_name, read_shutdown};
use warmcast_common::dead_letter::DeadLetterConfig;
use warmcast_common::limits::{
    FRAME_BYTES_MAX, KINESIS_SHARD_BYTES_PER_SECOND, KINESIS_SHARD_RECORDS_PER_SECOND,
    PUT_RECORDS_BYTES_DEFAULT, PUT_RECORDS_BYTES_MAX, PUT_RECORDS_BYTES_MIN, WINDOW_RECORDS_MAX,
};
use warmcast_common::metrics::MetricsConfig;
use warmcast_common::prices::PricesConfig;
use warmcast_common::telemetry::LogConfig;
use warmcast_proto::frame::{Compression, HEADER_LEN, READ_MS_LEN_MAX};
use warmcast_proto::key::Buckets;

use crate::cbor::PutEncoding;
use crate::filter::{Condition, FilterConfig, Filters};
use crate::linger::LingerBounds;
use crate::producer::ProducerConfig;
use crate::producer::rate::ShardLimits;
use crate::record_format::RecordFormat;
use crate::target::TargetConfig;

/// The admin endpoint's port; the cache-writer has the next one.
const ADMIN_PORT: u16 = 9640;
/// The idle poll bound that suits DynamoDB Streams: idle polls are billed, and a bidder can wait this long.
const IDLE_POLL_MAX_MS: u64 = 500;
/// Measured (docs/wire-size.md): at 20,000 changes a second and [`LINGER_DEFAULT_MS`] a frame has some 30 changes.
const BUCKETS_DEFAULT: u32 = 64;
const LINGER_DEFAULT_MS: u64 = 100;
const BUCKETS_MAX: u32 = 1 << 16;
/// What a frame has beside this still fits a record.
pub(crate) const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX - HEADER_LEN - READ_MS_LEN_MAX;

/// Everything the aggregator is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// This process' name in the fleet; the same after a restart.
    pub worker_id: String,
    /// The master region's DynamoDB: tables, and the state table.
    pub dynamodb: ServiceConfig,
    /// The master region's DynamoDB Streams.
    pub streams: ServiceConfig,
    /// Where leases and checkpoints are.
    pub state: StateConfig,
    /// How it works in the fleet.
    pub worker: WorkerConfig,
    /// The tables to tail.
    pub tables: Vec<TableConfig>,
    /// The regions to feed.
    pub regions: Vec<RegionConfig>,
    /// How changes are batched.
    pub batch: BatchConfig,
    /// Pause between two heartbeats to the regions' streams.
    pub watermark_interval: Duration,
    /// When a region is parked, and how it is caught up.
    pub parking: ParkingConfig,
    /// How much may be read and not yet in every region, in bytes.
    pub queue_bytes_max: usize,
    /// Where records go that cannot be used.
    pub dead_letters: DeadLetterConfig,
    /// How long a stop may take.
    pub shutdown_deadline: Duration,
    /// What the services cost, for the metric of it.
    pub prices: PricesConfig,
    /// What there are metrics of.
    pub metrics: MetricsConfig,
    /// How it logs.
    pub log: LogConfig,
    /// Its admin endpoint.
    pub admin: AdminConfig,
}

/// `[tables.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableConfig {
    /// The table's name.
    pub name: String,
    /// Whether a stream that was never read is begun with its oldest record, or with what comes from now on.
    pub from_trim_horizon: bool,
}

/// `[regions.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RegionConfig {
    /// The region's name, for logs.
    pub name: String,
    /// Its Kinesis stream.
    pub stream: String,
    /// How its Kinesis is reached.
    pub kinesis: ServiceConfig,
    /// How it is called.
    pub target: TargetConfig,
    /// What its producer is allowed.
    pub producer: ProducerConfig,
    /// What it receives of which table, where that is not everything.
    pub filters: Filters,
    /// Where it begins if it is added.
    pub start: RegionStart,
}

/// Where a region begins that a fleet did not have before, on the shards that it reads by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionStart {
    /// With the oldest record there is.
    TrimHorizon,
    /// With what comes from now on.
    Latest,
    /// With what comes from now on, and with a backfill: until that is made the region's watermark stands still.
    Backfill,
}

impl RegionStart {
    /// Where its lane begins.
    pub const fn lane(self) -> LaneStart {
        match self {
            Self::TrimHorizon => LaneStart::TrimHorizon,
            Self::Latest | Self::Backfill => LaneStart::Now,
        }
    }
}

/// `[parking]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParkingConfig {
    /// When a region is parked on a shard.
    pub parking: Parking,
    /// What catching up may hold of records that were read and are not done, in bytes.
    pub catch_up_bytes_max: usize,
    /// Shards that are caught up at a time.
    pub catch_ups_max: usize,
    /// Bytes that catching up reads in a second.
    pub catch_up_bytes_per_s: usize,
}

/// `[batch]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchConfig {
    /// How many buckets keys are hashed into.
    pub buckets: Buckets,
    /// How long a change waits for others: as little as `min` when it has nothing to expect, `max` when it has.
    pub linger: LingerBounds,
    /// Bytes of a frame's body before compression.
    pub body_bytes_max: usize,
    /// Changes of a frame.
    pub changes_max: usize,
    /// How frames are compressed.
    pub compression: Compression,
}

impl DaemonConfig for Config {
    const SERVICE: &'static str = "warmcast-aggregator";

    fn read(mut root: Section) -> Self {
        let mut dynamodb_section = root.section("dynamodb");
        let streams = ("streams_endpoint", AwsService::DynamoDbStreams);
        let (dynamodb, streams_endpoint) =
            ServiceConfig::read_with(&mut dynamodb_section, AwsService::DynamoDb, Some(streams));
        if let Some(endpoint) = &dynamodb.endpoint {
            dynamodb_section.default_is("streams_endpoint", endpoint.as_str());
        }
        dynamodb_section.finish();
        let streams = ServiceConfig {
            endpoint: streams_endpoint.or_else(|| dynamodb.endpoint.clone()),
            ..dynamodb.clone()
        };
        let worker_id = root.text_or("worker_id", host_name);
        let tables: Vec<TableConfig> =
            root.named_sections("tables").into_iter().map(|(name, s)| TableConfig::read(name, s)).collect();
        let regions = root
            .named_sections("regions")
            .into_iter()
            .map(|(name, section)| RegionConfig::read(name, section, &tables))
            .collect();
        let mut queue = root.section("queue");
        let queue_bytes_max = queue.size("bytes_max", 16 << 20..=(4 << 30) - 1, 256 << 20);
        queue.finish();
        let mut watermark = root.section("watermark");
        let watermark_interval = watermark.duration_ms("interval_ms", 100..=60_000, 1_000);
        watermark.finish();
        let state = StateConfig::read(root.section("state"), "warmcast-aggregator");
        let dead_letters = DeadLetterConfig::read(
            root.section("dead_letters"),
            &state,
            "/var/lib/warmcast/aggregator/dead-letters",
        );
        let config = Self {
            worker_id,
            dynamodb,
            streams,
            state,
            worker: WorkerConfig::read(root.section("worker"), IDLE_POLL_MAX_MS),
            tables,
            regions,
            batch: BatchConfig::read(root.section("batch")),
            watermark_interval,
            parking: ParkingConfig::read(root.section("parking"), queue_bytes_max),
            queue_bytes_max,
            dead_letters,
            shutdown_deadline: read_shutdown(root.section("shutdown")),
            prices: PricesConfig::read(root.section("prices")),
            metrics: MetricsConfig::read(root.section("metrics")),
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

impl TableConfig {
    fn read(name: String, mut section: Section) -> Self {
        let starts = [("trim-horizon", true), ("latest", false)];
        let config = Self { name, from_trim_horizon: section.choice("initial_position", &starts, true) };
        section.finish();
        config
    }
}

impl RegionConfig {
    fn read(name: String, mut section: Section, tables: &[TableConfig]) -> Self {
        let mut kinesis_section = section.section("kinesis");
        let mut kinesis = ServiceConfig::read(&mut kinesis_section, AwsService::Kinesis);
        kinesis_section.default_is("region", name.as_str());
        kinesis_section.finish();
        kinesis.region.get_or_insert_with(|| name.clone());
        let encodings = [("cbor", PutEncoding::Cbor), ("json", PutEncoding::Json)];
        let mut filters = Filters::new();
        for (table, filter) in section.optional_named_sections("tables") {
            if !tables.iter().any(|known| known.name == table) {
                section.note(
                    "tables",
                    format!("{table} is not one of the tables: there is no [tables.{table}]"),
                );
            }
            filters.insert(table, read_filter(filter));
        }
        let starts = [
            ("trim-horizon", RegionStart::TrimHorizon),
            ("latest", RegionStart::Latest),
            ("backfill", RegionStart::Backfill),
        ];
        let formats = [("frame", RecordFormat::Frame), ("kpl", RecordFormat::Kpl)];
        let config = Self {
            name,
            stream: section.required_text("stream"),
            kinesis,
            target: TargetConfig {
                connections: section.size("connections", 1..=16, 2),
                call_timeout: section.duration_ms("call_timeout_ms", 1_000..=20_000, 10_000),
                encoding: section.choice("put_encoding", &encodings, PutEncoding::default()),
                record_format: section.choice("record_format", &formats, RecordFormat::Frame),
            },
            producer: ProducerConfig {
                puts_in_flight_max: section.size("puts_in_flight_max", 1..=64, 4),
                request_bytes_max: section.size(
                    "request_bytes_max",
                    PUT_RECORDS_BYTES_MIN..=PUT_RECORDS_BYTES_MAX,
                    PUT_RECORDS_BYTES_DEFAULT,
                ),
                shard_limits: ShardLimits::of(
                    section.integer("shard_bytes_per_second", 1..=1 << 40, KINESIS_SHARD_BYTES_PER_SECOND),
                    section.integer(
                        "shard_records_per_second",
                        1..=1 << 40,
                        KINESIS_SHARD_RECORDS_PER_SECOND,
                    ),
                ),
            },
            filters,
            start: section.choice("initial_position", &starts, RegionStart::TrimHorizon),
        };
        section.finish();
        config
    }
}

impl ParkingConfig {
    /// Long before the copies that a region waits for are too old to be of use to it, and long after any retry.
    const AFTER_MS: u64 = 15_000;

    fn read(mut section: Section, queue_bytes_max: usize) -> Self {
        let lane_bytes_max = section.size("queue_bytes_max", 1 << 20..=queue_bytes_max, queue_bytes_max / 2);
        let config = Self {
            parking: Parking {
                after: section.duration_ms("after_ms", 500..=30_000, Self::AFTER_MS),
                lane_bytes_max,
                lane_records_max: WINDOW_RECORDS_MAX / 2,
            },
            catch_up_bytes_max: section.size("catch_up_bytes_max", 4 << 20..=1 << 30, queue_bytes_max / 4),
            catch_ups_max: section.size("catch_ups_max", 1..=1_000, 8),
            catch_up_bytes_per_s: section.size("catch_up_bytes_per_s", 64 << 10..=1 << 30, 64 << 20),
        };
        section.finish();
        config
    }
}

/// `[regions.NAME.tables.TABLE]`.
fn read_filter(mut section: Section) -> FilterConfig {
    let text = section.text("condition");
    let condition = text.as_ref().and_then(|text| {
        let parsed = text.parse::<Condition>();
        parsed.map_err(|error| section.note("condition", error.to_string())).ok()
    });
    let config = FilterConfig {
        condition,
        projection: section.texts("projection").map(|names| names.into_iter().collect()),
        suppress_unchanged: section.boolean("suppress_unchanged", false),
        suppress_excluded: section.boolean("suppress_excluded", false),
    };
    if config.suppress_excluded && text.is_none() {
        section.note("suppress_excluded", "is of no use without a condition: no item is excluded");
    }
    section.finish();
    config
}

impl BatchConfig {
    fn read(mut section: Section) -> Self {
        let buckets = section.integer("buckets", 1..=u64::from(BUCKETS_MAX), u64::from(BUCKETS_DEFAULT));
        let buckets = u32::try_from(buckets).unwrap_or(BUCKETS_DEFAULT);
        let buckets = Buckets::new(buckets).unwrap_or_else(|_| {
            section.note("buckets", format!("must be a power of two, found {buckets}"));
            Buckets::ONE
        });
        let kinds = ["none", "lz4", "zstd"].map(|kind| (kind, kind));
        let compression = section.choice("compression", &kinds, "zstd");
        let level = section.integer("zstd_level", 1..=19, 3);
        let config = Self {
            buckets,
            linger: LingerBounds {
                min: section.duration_ms("linger_min_ms", 0..=60_000, 1),
                max: section.duration_ms("linger_ms", 0..=60_000, LINGER_DEFAULT_MS),
            },
            body_bytes_max: section.size("body_bytes_max", 64 << 10..=BODY_BYTES_MAX, BODY_BYTES_MAX),
            changes_max: section.size("changes_max", 1..=10_000, 1_000),
            compression: match compression {
                "none" => Compression::None,
                "lz4" => Compression::Lz4,
                _ => Compression::Zstd { level: i32::try_from(level).unwrap_or(3) },
            },
        };
        section.finish();
        config
    }
}
