//! `status`: the region's fleet, its stream and its cache, from the state table and the watermark that readers see.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use warmcast_cache::{CacheConfig, EntryReads, ReadFrom, WATERMARK_KEY};
use warmcast_common::admin::FleetLook;
use warmcast_common::aws::sdk_config;
use warmcast_common::clock::now_ms;
use warmcast_common::consumer::StreamSource as _;
use warmcast_common::consumer::store::{Heartbeat, StateStore, StoreError};
use warmcast_common::daemon::{Outcome, OutputFormat};
use warmcast_common::dead_letter::LetterError;
use warmcast_common::status::{
    Criteria, Look, Problem, Shown, StatusArgs, StreamName, Summary, Survey, WatermarkStatus, letter_store,
    watch, watermark, watermark_text,
};

use crate::config::Config;
use crate::source::KinesisStream;

/// A cache that does not answer within this is not reached.
const CACHE_PATIENCE: Duration = Duration::from_secs(5);

/// The region, with its cache.
#[derive(Clone, Debug, Serialize)]
struct RegionStatus {
    #[serde(flatten)]
    fleet: Summary,
    /// The region's cache.
    cache: CacheStatus,
}

/// The cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct CacheStatus {
    /// Its servers.
    servers: String,
    /// Why it cannot be read; `None`: it can.
    problem: Option<String>,
    /// The watermark that readers see: freshness in this region.
    watermark: WatermarkStatus,
}

/// Carries out `status`.
///
/// # Errors
/// When the state table cannot be read.
pub async fn status(args: StatusArgs, shutdown: CancellationToken) -> Result<Outcome, anyhow::Error> {
    let config: Config = args.config.load()?;
    let dynamodb = aws_sdk_dynamodb::Client::new(&sdk_config(&config.dynamodb).await);
    let letters = letter_store(&args, &config.dead_letters, &dynamodb)?;
    let store = StateStore::new(dynamodb, &config.state.table);
    let mut survey = Survey::new(store, letters, config.worker.lease_duration);
    let kinesis = aws_sdk_kinesis::Client::new(&sdk_config(&config.kinesis.service).await);
    watch(&args, &shutdown, async || {
        let look = look(&args, &config, &kinesis, &mut survey).await.context("look at the fleet")?;
        let cache = CacheStatus::look(&config.redis, now_ms).await;
        Ok(show(&args, &config, &look, &survey, cache)?)
    })
    .await
}

/// The looks at the fleet that the admin endpoint shows.
pub(crate) struct FleetLooks {
    args: StatusArgs,
    config: Config,
    kinesis: aws_sdk_kinesis::Client,
    survey: Survey,
}

impl FleetLooks {
    /// Its calls are counted where those of `store` are.
    pub(crate) async fn new(
        config: &Config,
        store: StateStore,
        dynamodb: &aws_sdk_dynamodb::Client,
    ) -> Result<Self, LetterError> {
        let args = StatusArgs::attended(config.admin.watermark_bound);
        let letters = letter_store(&args, &config.dead_letters, dynamodb)?;
        let survey = Survey::new(store, letters, config.worker.lease_duration);
        let kinesis = aws_sdk_kinesis::Client::new(&sdk_config(&config.kinesis.service).await);
        Ok(Self { args, config: config.clone(), kinesis, survey })
    }
}

impl FleetLook for FleetLooks {
    async fn look(&mut self) -> Result<serde_json::Value, anyhow::Error> {
        let Self { args, config, kinesis, survey } = self;
        let mut look = look(args, config, kinesis, survey).await.context("look at the fleet")?;
        until_told(args, survey, &mut look).await?;
        let cache = CacheStatus::look(&config.redis, now_ms).await;
        Ok(show(args, config, &look, survey, cache)?.json)
    }
}

async fn look(
    args: &StatusArgs,
    config: &Config,
    kinesis: &aws_sdk_kinesis::Client,
    survey: &mut Survey,
) -> Result<Look, anyhow::Error> {
    let heartbeats = survey.heartbeats().await?;
    let mut look = survey.look(streams(config, kinesis, &heartbeats).await?).await?;
    if args.watch.is_none() {
        survey.settle(&mut look).await?;
        until_told(args, survey, &mut look).await?;
    }
    Ok(look)
}

async fn until_told(args: &StatusArgs, survey: &mut Survey, look: &mut Look) -> Result<(), StoreError> {
    let is_told = |look: &Look, observer: &_| {
        watermark(look, observer, &criteria(look, args.watermark_bound))
            .err()
            .is_none_or(|hold| !hold.is_of_leases())
    };
    survey.until_told(look, is_told).await
}

fn show(
    args: &StatusArgs,
    config: &Config,
    look: &Look,
    survey: &Survey,
    cache: CacheStatus,
) -> Result<Shown, serde_json::Error> {
    let criteria = Criteria { worst: args.shards_listed(), ..criteria(look, args.watermark_bound) };
    let mut fleet = Summary::of(look, survey.observer(), &criteria);
    fleet.problems.extend(cache.problems(args.watermark_bound));
    let title =
        format!("cache-writers of stream {}, state table {}", config.kinesis.stream, config.state.table);
    let status = RegionStatus { fleet, cache };
    Ok(Shown {
        json: match args.output {
            OutputFormat::Json => serde_json::to_value(&status)?,
            OutputFormat::Human => serde_json::Value::Null,
        },
        text: status.fleet.to_text(&title, &status.cache.to_text()),
        outcome: status.fleet.outcome(),
    })
}

/// What the shards are done into is in their leases: when they do not agree, some are to be rewound.
pub(crate) fn criteria(look: &Look, watermark_bound: Duration) -> Criteria {
    let leases = look.streams.iter().flat_map(|stream| &stream.state.leases);
    let target = leases.filter(|lease| !lease.is_over()).find_map(|lease| lease.target.clone());
    Criteria { target, ..Criteria::new(now_ms(), watermark_bound) }
}

/// The stream as it is now, and what the workers read, which may be an earlier one of its name.
pub(crate) async fn streams(
    config: &Config,
    kinesis: &aws_sdk_kinesis::Client,
    heartbeats: &[Heartbeat],
) -> Result<Vec<StreamName>, anyhow::Error> {
    let read: BTreeSet<&String> = heartbeats.iter().flat_map(|beat| &beat.report.streams).collect();
    let name = &config.kinesis.stream;
    let mut streams: Vec<StreamName> =
        read.iter().map(|stream| StreamName { label: name.clone(), ..StreamName::of(stream) }).collect();
    match KinesisStream::find(kinesis.clone(), name).await {
        Ok(found) if !read.contains(&found.stream().to_owned()) => {
            streams.push(StreamName { label: name.clone(), ..StreamName::of(found.stream()) });
        }
        Ok(_) => {}
        // What the workers say is enough.
        Err(error) if !streams.is_empty() => tracing::warn!(%error, "the stream could not be looked up"),
        Err(error) => return Err(error.into()),
    }
    Ok(streams)
}

impl CacheStatus {
    async fn look(config: &CacheConfig, now_ms: impl Fn() -> u64) -> Self {
        let read = timeout(CACHE_PATIENCE, read_watermark(config)).await;
        let read = read.unwrap_or_else(|_| Err(format!("no answer within {} s", CACHE_PATIENCE.as_secs())));
        let known = read.clone().and_then(|read| read.ok_or_else(|| "the cache has none".to_owned()));
        Self {
            servers: config.servers.to_string(),
            problem: read.err(),
            watermark: WatermarkStatus::of(known, now_ms()),
        }
    }

    fn problems(&self, bound: Duration) -> Option<Problem> {
        match &self.problem {
            Some(problem) => Some(Problem::new("cache", format!("the cache cannot be read: {problem}"))),
            None => {
                let bound_ms = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
                self.watermark.problem("the watermark that readers see", bound_ms)
            }
        }
    }

    fn to_text(&self) -> String {
        let watermark = watermark_text(&self.watermark);
        match &self.problem {
            Some(problem) => format!("The cache, {}: cannot be read: {problem}\n", self.servers),
            None => format!("The cache, {}: readers see the watermark of {watermark}\n", self.servers),
        }
    }
}

/// The watermark that the cache has. It is only read.
async fn read_watermark(config: &CacheConfig) -> Result<Option<u64>, String> {
    let reads = EntryReads::connect(config.clone(), ReadFrom::Primary).await.map_err(|e| e.to_string())?;
    let key = [&config.key_prefix, WATERMARK_KEY].concat();
    let Some(value) = reads.get_many(&[key.as_bytes()]).await.into_iter().next() else { return Ok(None) };
    let Some(value) = value.map_err(|e| e.to_string())? else { return Ok(None) };
    let number = std::str::from_utf8(&value).ok().and_then(|digits| digits.parse().ok());
    number.map(Some).ok_or_else(|| format!("{key} is no number: is the key used by others?"))
}
