//! `replay`: a region's Kinesis stream, applied again from a time, a record or its oldest record on.
//!
//! ```text
//! plan: which shards, from where ─ShardPlan→ shard: page by page ─Change→ mend: invalid at its position, then filled
//! ```
//!
//! **What is applied.** A change that is read again may have been superseded by one that the replay has not reached, or
//! never reaches when it is stopped. So none is applied as it is: each is applied as *invalid at its position*, as a late
//! change is (docs/cache-protocol.md, rule 1). A cache that has the change, or a newer one, does not take that. Where it is
//! taken, the cache lacked something, and the item is filled from the master. So a second run changes nothing, the
//! order does not matter, and shards are read side by side. Without `[master]` what was lacking stays a miss.
//!
//! **What it shares.** A shard gives five reads and 2 MB a second to all that read it (AWS: Kinesis quotas). The replay
//! takes less than half of that, so that the region's cache-writer stays at the tip.
//!
//! **Stopped**, it goes on: how far each shard is stands in the state table ([`StateStore::begin_job`]), and the same
//! command takes it up there, with the times of the first run.

mod plan;
mod mend;
mod shard;
mod report;

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use clap::{ArgGroup, Args};
use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;
use warmcast_cache::{Cache, ItemId};
use warmcast_common::aws::sdk_config;
use warmcast_common::clock::now_ms;
use warmcast_common::consumer::StreamSource as _;
use warmcast_common::consumer::store::StateStore;
use warmcast_common::daemon::{ConfigArgs, ConfigError, Outcome, OutputFormat};
use warmcast_common::limits::KINESIS_RETENTION_MIN;
use warmcast_common::tool::{Moment, Progress, job_name, read_lines};

use crate::config::Config;
use crate::named::{NamedTables, find_tables, read_key};
use crate::refill::{Refill, master};
use crate::source::KinesisStream;
use mend::{Mend, Wanted};
use plan::{Begin, ShardPlace, ShardPlan, Span, plan};
use shard::{Ended, Pace, ShardReplay};

pub use report::{DryRun, ReplayReport, ShardDryRun};

/// Keys that can be asked for at once.
const KEYS_MAX: usize = 1_000_000;
/// The part of a job that has its times.
const SPAN: &str = "span";
/// The place of a shard that is done.
const DONE: &str = "done";

/// The flags of `replay`.
#[derive(Args, Clone, Debug)]
#[command(group(ArgGroup::new("begin").required(true).args(["since", "from_sequence", "from_horizon"])))]
pub struct ReplayArgs {
    /// Where the stream, the cache, the state table and the master are.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Apply what came into the stream at this time or later: 15m, 2h, 1d (ago), a time, or milliseconds since the epoch.
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Apply this shard from this record on, and whatever descends from the shard. May be repeated.
    #[arg(long, value_name = "SHARD=SEQUENCE")]
    pub from_sequence: Vec<ShardPlace>,
    /// Apply everything that the stream still has.
    #[arg(long)]
    pub from_horizon: bool,
    /// Apply what came into the stream before this time. Default: now.
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Apply changes of this table only. May be repeated.
    #[arg(long = "table", value_name = "TABLE")]
    pub tables: Vec<String>,
    /// Apply changes of this key of the table only: the value of the partition key, or DynamoDB's JSON of the whole key.
    /// Without `[master]`: its canonical bytes, those that are no plain text as \xNN. May be repeated.
    #[arg(long = "key", value_name = "KEY")]
    pub keys: Vec<String>,
    /// Likewise, for the keys in this file, one on a line; - is standard input.
    #[arg(long, value_name = "FILE")]
    pub keys_file: Option<PathBuf>,
    /// Reads a second of each shard, of the five that it gives to all.
    #[arg(long, value_name = "READS", default_value = "2", value_parser = clap::value_parser!(u32).range(1..=5))]
    pub reads_per_s: u32,
    /// Records a second of each shard.
    #[arg(long, value_name = "RECORDS", default_value = "2000")]
    pub records_per_s: NonZeroU64,
    /// Bytes a second of each shard, of the 2 MB that it gives to all.
    #[arg(long, value_name = "BYTES", default_value = "800000")]
    pub bytes_per_s: NonZeroU64,
    /// Shards that are read at a time.
    #[arg(long, value_name = "SHARDS", default_value = "8")]
    pub shards_at_once: NonZeroU32,
    /// Say which shards would be read, and how far, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// How to print the report.
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// Carries out `replay`.
///
/// # Errors
/// It was refused, cannot be done, or not to the end.
pub async fn replay_command(args: ReplayArgs, shutdown: CancellationToken) -> Result<Outcome, anyhow::Error> {
    let config: Config = args.config.load()?;
    if args.dry_run {
        let found = Box::pin(dry_run(&args, &config)).await?;
        warmcast_common::tool::report(args.output, &found, || found.lines())?;
        return Ok(Outcome::Done);
    }
    let replayed = Box::pin(replay(&args, &config, &shutdown)).await?;
    warmcast_common::tool::report(args.output, &replayed, || replayed.lines())?;
    replayed.outcome()
}

/// What was asked, looked up and found to make sense.
struct Asked {
    stream: KinesisStream,
    store: StateStore,
    wanted: Wanted,
    master: Option<warmcast_cache::Master>,
    begin: Begin,
    /// As they were written: what makes two runs the same job.
    words: Vec<String>,
}

impl Asked {
    async fn new(args: &ReplayArgs, config: &Config) -> Result<Self, anyhow::Error> {
        let kinesis = aws_sdk_kinesis::Client::new(&sdk_config(&config.kinesis.service).await);
        let dynamodb = aws_sdk_dynamodb::Client::new(&sdk_config(&config.dynamodb).await);
        let stream = KinesisStream::find(kinesis, &config.kinesis.stream).await?;
        let master = match &config.fallback {
            Some(fallback) => Some(master(fallback).await),
            None => None,
        };
        let tables = find_tables(&args.tables, master.as_ref(), &config.redis.tables).await?;
        let keys = key_texts(args)?;
        let wanted = wanted(&tables, &keys)?;
        let begin = Begin::new(args.since.as_deref(), &args.from_sequence);
        let mut words =
            vec![stream.stream().to_owned(), begin.words(), args.until.clone().unwrap_or_default()];
        words.extend(tables.keys().map(|table| table.to_string()));
        words.extend(keys);
        let store = StateStore::new(dynamodb, &config.state.table);
        Ok(Self { stream, store, wanted, master, begin, words })
    }

    fn job(&self) -> String {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        job_name("replay", &words)
    }

    /// The times that are meant, if the command is given now.
    fn span(&self, args: &ReplayArgs) -> Result<Span, ConfigError> {
        let kept = self.stream.kept_for().unwrap_or(KINESIS_RETENTION_MIN);
        Span::new(args.since.as_deref(), args.until.as_deref(), kept, now_ms())
    }

    async fn plan(&self, span: Span) -> Result<Vec<ShardPlan>, anyhow::Error> {
        let shards = self.stream.listed().await?;
        Ok(plan(&shards, &self.begin, span)?)
    }
}

/// The keys that are named, as they were written.
fn key_texts(args: &ReplayArgs) -> Result<Vec<String>, ConfigError> {
    let refuse = |problem: String| ConfigError { problems: vec![problem] };
    let mut keys = args.keys.clone();
    if let Some(path) = &args.keys_file {
        keys.extend(read_lines(path, KEYS_MAX).map_err(|error| refuse(error.to_string()))?);
    }
    let names_keys = !args.keys.is_empty() || args.keys_file.is_some();
    if names_keys && keys.is_empty() {
        return Err(refuse("the file names no key".to_owned()));
    }
    if names_keys && args.tables.len() != 1 {
        return Err(refuse("keys are those of one table: give one --table with them".to_owned()));
    }
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}

fn wanted(tables: &NamedTables, keys: &[String]) -> Result<Wanted, ConfigError> {
    let shape = tables.values().next().and_then(Option::as_ref);
    let (mut read, mut problems) = (Vec::with_capacity(keys.len()), Vec::new());
    for key in keys {
        match read_key(shape, key) {
            Ok(key) => read.push(key),
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(ConfigError { problems });
    }
    Ok(Wanted::new(tables.keys().cloned(), (!keys.is_empty()).then_some(read)))
}

/// Says what a replay would read.
///
/// # Errors
/// As of [`replay_command`].
pub async fn dry_run(args: &ReplayArgs, config: &Config) -> Result<DryRun, anyhow::Error> {
    let asked = Asked::new(args, config).await?;
    let span = asked.span(args)?;
    let plans = asked.plan(span).await?;
    // Both are only told: a table that is not there yet knows of neither.
    let leases = asked.store.stream_state(asked.stream.stream(), false).await.unwrap_or_default().leases;
    let goes_on = asked.store.jobs().await.is_ok_and(|jobs| jobs.contains_key(&asked.job()));
    let rates: BTreeMap<Arc<str>, u64> =
        leases.into_iter().map(|lease| (lease.shard, lease.bytes_per_s)).collect();
    Ok(DryRun::new(asked.stream.name(), span, &plans, &rates, args.bytes_per_s, goes_on))
}

/// Applies the stream again.
///
/// # Errors
/// As of [`replay_command`].
pub async fn replay(
    args: &ReplayArgs,
    config: &Config,
    shutdown: &CancellationToken,
) -> Result<ReplayReport, anyhow::Error> {
    let asked = Asked::new(args, config).await?;
    let job = asked.job();
    asked.store.ensure_table(config.state.create).await?;
    let known = asked.store.jobs().await?.contains_key(&job);
    // Refused before anything is written.
    let span = if known { None } else { Some(asked.span(args)?) };
    if let Some(span) = span {
        asked.plan(span).await?;
    }
    let what = format!("replay of stream {}: {}", asked.stream.name(), asked.begin.words());
    let mut places = asked.store.begin_job(&job, &what, now_ms()).await?.places;
    let span = match places.remove(SPAN) {
        Some(place) => {
            place.parse().map_err(|()| anyhow!("job {job} has the times {place:?}, which are none"))?
        }
        None => {
            let span = span.map_or_else(|| asked.span(args), Ok)?;
            asked.store.job_place(&job, SPAN, &span.to_string()).await?;
            span
        }
    };
    let cache = Cache::connect(config.redis.clone()).await.context("the cache")?;
    let replaying =
        Box::pin(replay_span(&asked, args, config, (&job, span, &places, known), &cache, shutdown));
    // What it knows of evictions must not grow old.
    let report = tokio::select! {
        report = replaying => report?,
        () = cache.watch(CancellationToken::new()) => return Err(anyhow!("the cache is not watched any more")),
    };
    if report.ended_by.is_none() {
        asked.store.end_job(&job).await?;
    }
    Ok(report)
}

async fn replay_span(
    asked: &Asked,
    args: &ReplayArgs,
    config: &Config,
    (job, span, places, goes_on): (&str, Span, &BTreeMap<String, String>, bool),
    cache: &Cache,
    shutdown: &CancellationToken,
) -> Result<ReplayReport, anyhow::Error> {
    let plans = asked.plan(span).await?;
    let total_s = plans.iter().map(|plan| span.until_ms.saturating_sub(plan.from_ms) / 1_000).sum();
    let progress = Progress::start("replay", "s of the shards' time", Some(total_s));
    if goes_on {
        progress.note(&format!(
            "going on with a replay that was stopped, until {}",
            Moment::at_ms(span.until_ms)
        ));
    }
    // The first failure stops the others: what they did is kept.
    let stop = shutdown.child_token();
    let mut report = ReplayReport::new(asked.stream.name(), span, goes_on, asked.master.is_some());
    let replays = plans.into_iter().map(|plan| {
        let place = places.get(&plan.shard).cloned();
        let refill = asked.master.clone().zip(config.fallback.as_ref());
        let refill = refill.map(|(master, fallback)| Refill::new(cache.clone(), master, fallback));
        let replay = ShardReplay {
            stream: &asked.stream,
            store: &asked.store,
            job,
            mend: Mend { cache: cache.clone(), refill, wanted: &asked.wanted },
            pace: Pace::new(args.reads_per_s, args.records_per_s, args.bytes_per_s),
            span,
            goes_on,
            progress: progress.clone(),
            plan,
        };
        let stop = stop.clone();
        async move { replay.run(place.as_deref(), &stop).await }
    });
    let at_once = usize::try_from(args.shards_at_once.get()).unwrap_or(usize::MAX);
    let mut replays = futures_util::stream::iter(replays).buffer_unordered(at_once);
    while let Some((counts, ended)) = replays.next().await {
        report.add(counts, ended == Ok(Ended::Done));
        if let Err(error) = ended {
            report.ended_by.get_or_insert(error);
            stop.cancel();
        }
    }
    if shutdown.is_cancelled() && report.shards_done < report.shards {
        report.ended_by.get_or_insert_with(|| "stopped by a signal".to_owned());
    }
    progress.finish();
    Ok(report)
}

/// An item of a change.
fn item_id(change: &warmcast_proto::change::Change) -> ItemId {
    ItemId::new(Arc::clone(&change.table), change.key.clone())
}
