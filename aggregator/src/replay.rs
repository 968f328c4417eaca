//! `replay`: sends again what the tables' streams still hold, to chosen regions.
//!
//! For a region that has lost changes on their way, or was fed wrong ones: what DynamoDB Streams holds (24 h) is read again
//! beside the fleet, and is sent with the positions that it had. The cache takes what it lacks, and nothing else.
//!
//! Replayed changes are sent as *late* ones. A replay may be stopped between two states of an item, and the first of
//! them must not stand in the cache then. So a cache-writer takes a change that its cache lacks as "not known", and
//! fills the item from the master: see docs/cache-protocol.md, rule 1.
//!
//! It can be stopped or killed at any time. Run again, it goes on where it was, by the places that are kept for its job in
//! the state table; its claims to shards (`store/guest.rs` of the consumer) end by themselves.

mod ask;
mod report;
mod shard;
mod streams;
mod wanted;

use std::num::NonZeroU64;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;
use warmcast_common::aws::{CallError, sdk_config};
use warmcast_common::clock::now_ms;
use warmcast_common::consumer::store::{Job, StateStore, StoreError};
use warmcast_common::consumer::{Checkpoint, SequenceNumber, SourceError, StreamSource as _};
use warmcast_common::daemon::{ConfigArgs, ConfigError, Outcome, OutputFormat};
use warmcast_common::limits::{DYNAMODB_STREAMS_RETENTION, GUEST_RENEWAL_INTERVAL};
use warmcast_common::tool::{LinesError, Moment, Progress, Throttle, read_lines, report};
use warmcast_proto::frame::BuildError;

use crate::config::Config;
use crate::dispatch::{Dispatch, DispatchError};
use crate::table::TableError;
use shard::{Counts, End, ShardReplay, Work};
use streams::{Services, Shard, Stream, Table};

pub use ask::{Ask, Scope};
pub use report::{Report, ShardReport, StreamReport};

/// Keys of one replay.
const KEYS_MAX: usize = 1_000_000;

/// The flags of `replay`.
#[derive(Args, Clone, Debug)]
pub struct Replay {
    /// Where the state table is and how the services are reached.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// A table. May be repeated; without it all that are configured.
    #[arg(long = "table", value_name = "TABLE")]
    pub tables: Vec<String>,
    /// A region that it is sent to. May be repeated.
    #[arg(long = "region", value_name = "REGION", required = true)]
    pub regions: Vec<String>,
    /// Only changes of this item of the one table: the key's value, or DynamoDB JSON of its attributes. May be repeated.
    #[arg(long = "key", value_name = "KEY")]
    pub keys: Vec<String>,
    /// Only changes of the items whose keys are in this file, one a line; - for standard input.
    #[arg(long, value_name = "FILE")]
    pub keys_file: Option<PathBuf>,
    /// Only changes made since then: how long ago (15m, 2h), a time (2026-11-22T09:00:00Z), or milliseconds since the
    /// epoch. At most 24 hours ago; without it all that the streams still hold.
    #[arg(long, value_name = "TIME", value_parser = moment, conflicts_with = "from_sequence")]
    pub since: Option<String>,
    /// Only records with this sequence number or a higher one, of the one table's newest stream.
    #[arg(long, value_name = "NUMBER")]
    pub from_sequence: Option<SequenceNumber>,
    /// Only changes made until then; without it, until now.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<String>,
    /// Say what would be read, and read and send nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// The most bytes that each region is sent in a second; without it, what its stream takes.
    #[arg(long, value_name = "BYTES")]
    pub bytes_per_s: Option<NonZeroU64>,
    /// The most records that are read in a second.
    #[arg(long, value_name = "RECORDS")]
    pub records_per_s: Option<NonZeroU64>,
    /// Shards that are read at a time.
    #[arg(long, value_name = "SHARDS", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub shards: u16,
    /// Begin anew, though a run of the same command was stopped and could be gone on with.
    #[arg(long)]
    pub anew: bool,
    /// How to print the report.
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// A time as it was written, if it is one.
fn moment(text: &str) -> Result<String, warmcast_common::tool::MomentError> {
    text.parse::<Moment>().map(|_| text.to_owned())
}

/// Why a replay could not be done. What was sent does no harm; run again, it goes on where it was.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// What was asked is not there. Nothing was sent.
    #[error(transparent)]
    Refused(#[from] ConfigError),
    /// A list of keys.
    #[error(transparent)]
    Keys(#[from] LinesError),
    /// A table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The fleet has never read the table. Nothing was sent.
    #[error(
        "the state table {state} knows no stream of table {table}: no aggregator with this configuration has read it yet, \
         or [state] names another table"
    )]
    NeverRead {
        /// The table.
        table: String,
        /// The state table.
        state: String,
    },
    /// A description lacks the key's types. Nothing was sent.
    #[error("table {table} was described without the types of its key")]
    NoKeyShape {
        /// The table.
        table: String,
    },
    /// A call.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The state table.
    #[error(transparent)]
    State(#[from] StoreError),
    /// A shard could not be read.
    #[error(transparent)]
    Read(#[from] SourceError),
    /// A region's stream.
    #[error(transparent)]
    Dispatch(#[from] DispatchError),
    /// The compressor.
    #[error(transparent)]
    Frames(#[from] BuildError),
    /// It was told to stop.
    #[error("stopped after {records} records; the same command goes on from there")]
    Stopped {
        /// Records that were read.
        records: u64,
    },
}

/// Carries out `replay`.
///
/// # Errors
/// When it was refused, or cannot be done.
pub async fn replay(args: Replay, shutdown: CancellationToken) -> Result<Outcome, anyhow::Error> {
    let config: Config = args.config.load()?;
    let (dry_run, output) = (args.dry_run, args.output);
    let done = match args.ask() {
        Ok(ask) => Box::pin(run(&config, &ask, dry_run, &shutdown)).await,
        Err(error) => Err(error),
    };
    let done = done.map_err(|error| match error {
        // With its own exit code.
        ReplayError::Refused(refused) => refused.into(),
        other => anyhow::Error::from(other),
    })?;
    report(output, &done, || done.lines()).context("write to standard output")?;
    Ok(if done.has_problems() { Outcome::Problems } else { Outcome::Done })
}

impl Replay {
    /// What is asked. Reads the list of keys.
    fn ask(self) -> Result<Ask, ReplayError> {
        let mut keys = (!self.keys.is_empty() || self.keys_file.is_some()).then_some(self.keys);
        if let (Some(keys), Some(file)) = (&mut keys, &self.keys_file) {
            keys.extend(read_lines(file, KEYS_MAX)?);
        }
        Ok(Ask {
            tables: self.tables,
            regions: self.regions,
            keys,
            since: self.since,
            from: self.from_sequence,
            until: self.until,
            shards: self.shards.into(),
            bytes_per_s: self.bytes_per_s,
            records_per_s: self.records_per_s,
            anew: self.anew,
            renewal_interval: GUEST_RENEWAL_INTERVAL,
        })
    }
}

/// Replays what is asked, or with `dry_run` says what would be, until `shutdown`.
///
/// # Errors
/// When it was refused, or cannot be done, or was stopped.
pub async fn run(
    config: &Config,
    ask: &Ask,
    dry_run: bool,
    shutdown: &CancellationToken,
) -> Result<Report, ReplayError> {
    let scope = ask.check(config, now_ms())?;
    let preparing = Box::pin(Prepared::new(config, ask, &scope, dry_run));
    let prepared = shutdown.run_until_cancelled(preparing).await;
    let prepared = prepared.unwrap_or(Err(ReplayError::Stopped { records: 0 }))?;
    if dry_run {
        return Ok(prepared.report);
    }
    Box::pin(prepared.work(ask, shutdown)).await
}

/// A replay of which everything is known before it is begun.
struct Prepared {
    job_name: String,
    what: String,
    job: Option<Job>,
    store: StateStore,
    dispatch: Dispatch,
    streams: Vec<Stream>,
    report: Report,
}

impl Prepared {
    async fn new(config: &Config, ask: &Ask, scope: &Scope, dry_run: bool) -> Result<Self, ReplayError> {
        let dynamodb = aws_sdk_dynamodb::Client::new(&sdk_config(&config.dynamodb).await);
        let streams_client = aws_sdk_dynamodbstreams::Client::new(&sdk_config(&config.streams).await);
        let store = StateStore::new(dynamodb.clone(), &config.state.table);
        let regions: Vec<usize> = scope.lanes.iter().collect();
        let dispatch = Dispatch::connect(config, &regions).await?.limited(ask.bytes_per_s);
        let mut tables = Vec::new();
        for table in &scope.tables {
            tables.push(Table::find(&dynamodb, table, ask.keys.as_deref()).await?);
        }
        dispatch.check().await?;
        let job_name = ask.job(scope);
        let what = ask.describe(scope);
        let now_ms = now_ms();
        let job = Self::left_behind(&store, &job_name, ask, dry_run, now_ms).await?;
        let times = ask.times(job.as_ref().map_or(now_ms, |job| job.began_ms), now_ms);
        let mut report = Report {
            dry_run,
            regions: regions
                .iter()
                .filter_map(|lane| config.regions.get(*lane))
                .map(|of| of.name.clone())
                .collect(),
            since_ms: times.0,
            until_ms: times.1,
            resumed_from_ms: job.as_ref().map(|job| job.began_ms),
            ..Report::default()
        };
        let services = Services { streams: &streams_client, store: &store };
        let mut streams = Vec::new();
        for table in &tables {
            let (found, gone) = streams::find(&services, config, ask, scope, table, times).await?;
            streams.extend(found);
            report.streams_gone.extend(gone);
        }
        let mut prepared = Self { job_name, what, job, store, dispatch, streams, report };
        prepared.report.streams =
            prepared.streams.iter().map(|stream| prepared.stream_report(stream)).collect();
        Ok(prepared)
    }

    /// The job of a run that was stopped, if it is to be gone on with. One that is older than what the streams hold is
    /// not: its places say nothing any more.
    async fn left_behind(
        store: &StateStore,
        name: &str,
        ask: &Ask,
        dry_run: bool,
        now_ms: u64,
    ) -> Result<Option<Job>, ReplayError> {
        let Some(began_ms) = store.jobs().await?.get(name).map(|job| job.began_ms) else { return Ok(None) };
        let is_old = u128::from(now_ms.saturating_sub(began_ms)) >= DYNAMODB_STREAMS_RETENTION.as_millis();
        if ask.anew || is_old {
            if !dry_run {
                store.end_job(name).await?;
            }
            return Ok(None);
        }
        Ok(Some(store.begin_job(name, "", now_ms).await?))
    }

    fn stream_report(&self, stream: &Stream) -> StreamReport {
        let shards = stream.shards.iter();
        let shards = shards.map(|shard| {
            let from = self.from(stream, shard).map(|from| from.to_string());
            ShardReport::new(stream, shard, from)
        });
        StreamReport::new(stream, shards.collect())
    }

    /// Where a shard is begun; `None`: it need not be read.
    fn from(&self, stream: &Stream, shard: &Shard) -> Option<Checkpoint> {
        let part = ShardReplay::part(stream.source.stream(), &shard.id);
        let place = self.job.as_ref().and_then(|job| job.places.get(&part));
        // A place that cannot be read is no place: what was sent is sent again.
        match place.and_then(|place| place.parse().ok()) {
            Some(Checkpoint::ShardEnd) => None,
            Some(place) => Some(place),
            None => (!shard.is_too_old(&stream.wanted)).then(|| stream.wanted.start()),
        }
    }

    async fn work(mut self, ask: &Ask, shutdown: &CancellationToken) -> Result<Report, ReplayError> {
        let progress = Progress::start(&self.what, "records", None);
        if let Some(ms) = self.report.resumed_from_ms {
            progress.note(&format!("goes on with the run of {}", Moment::at_ms(ms)));
        }
        self.store.begin_job(&self.job_name, &self.what, now_ms()).await?;
        let work = Work {
            job: &self.job_name,
            store: &self.store,
            dispatch: &self.dispatch,
            records: ask.records_per_s.map_or(Throttle::unlimited(), Throttle::per_s),
            progress: &progress,
            counts: Counts::default(),
            renewal_interval: ask.renewal_interval,
            stop: shutdown.child_token(),
        };
        let ended = self.shards(&work, ask.shards.max(1)).await;
        progress.finish();
        self.report.set_counts(&work.counts);
        self.report.seconds = progress.elapsed().as_secs();
        match ended? {
            End::Done => self.store.end_job(&self.job_name).await?,
            End::Stopped => return Err(ReplayError::Stopped { records: self.report.records }),
        }
        Ok(self.report)
    }

    /// Replays the shards, so many at a time. When one fails the others stop where they are.
    async fn shards(&self, work: &Work<'_>, at_a_time: usize) -> Result<End, ReplayError> {
        let mut waiting = Vec::new();
        for stream in &self.streams {
            for shard in &stream.shards {
                waiting
                    .extend(self.from(stream, shard).map(|from| (ShardReplay { work, stream, shard }, from)));
            }
        }
        let mut waiting = waiting.into_iter();
        let mut running = FuturesUnordered::new();
        let (mut end, mut failed) = (End::Done, None);
        loop {
            while running.len() < at_a_time
                && let Some((shard, from)) = waiting.next()
            {
                running.push(Box::pin(shard.run(from)));
            }
            match running.next().await {
                None => return failed.map_or(Ok(end), Err),
                Some(Ok(End::Done)) => {}
                Some(Ok(End::Stopped)) => end = End::Stopped,
                Some(Err(error)) => {
                    work.stop.cancel();
                    failed.get_or_insert(error);
                }
            }
        }
    }
}
