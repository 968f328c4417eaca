//! `backfill`: rows of the master's tables, sent to regions that lack them.
//!
//! A table is scanned with strong consistency, in segments at a time, or the keys of a list are read; each row is sent to
//! the regions as it was found, with the time at which its read began. Cache-writers take a row where nothing is, while
//! its read is young (docs/cache-protocol.md, rule 8). So whatever is done twice does no harm, and a run that was stopped
//! is run again: the state table has up to where each part is done.

mod choice;
mod target;
mod rows;
mod place;
mod lines;
mod page;
mod size;
mod scan;
mod keys;
mod tally;
mod part;
mod asked;
mod report;

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use aws_sdk_dynamodb::Client;
use clap::Args;
use clap::builder::RangedU64ValueParser;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use warmcast_common::aws::sdk_config;
use warmcast_common::clock::now_ms;
use warmcast_common::consumer::store::{Job, LaneState, StateStore};
use warmcast_common::daemon::{ConfigArgs, ConfigError, Outcome, OutputFormat};
use warmcast_common::tool::{self, Moment, Progress, Throttle};
use warmcast_proto::key_text::KeyShape;

use crate::config::Config;
use crate::dispatch::Dispatch;
use crate::filter::Feeds;
use asked::Done;
use choice::Choice;
use keys::KeyList;
use lines::{KeyFile, KeyLines, LineProblem, LinesError};
use part::{Part, PartError, Shared, Source};
use place::{At, Place};
use rows::RowMaker;
use scan::Segment;
use size::{PageSize, SENT_WITHIN};
use tally::Tally;
use target::BackfillTable;

pub use report::{Asked, BackfillEstimate, BackfillReport, TableEstimate, TableReport};

/// A region that takes nothing for so long holds a page up, which is then read again.
const DISPATCH_PATIENCE: Duration = Duration::from_secs(9);
/// Bad lines of a list that are told.
const PROBLEMS_TOLD_MAX: usize = 10;

/// The flags of `backfill`.
#[derive(Args, Clone, Debug)]
pub struct Backfill {
    /// The tables and regions there are, and how the services are reached.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// A table; may be repeated. By default every table of the configuration.
    #[arg(long = "table", value_name = "TABLE")]
    pub tables: Vec<String>,
    /// A region to be backfilled; may be repeated.
    #[arg(long = "region", value_name = "REGION", required = true)]
    pub regions: Vec<String>,
    /// Only these keys of one table: a file, or a directory as of an export to S3 (DynamoDB JSON), plain or .gz. The rows
    /// are read anew from the table.
    #[arg(long, value_name = "FILE|DIR")]
    pub from: Option<PathBuf>,
    /// Segments of a table that are scanned at a time, or files.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = RangedU64ValueParser::<u32>::new().range(1..=1_024))]
    pub segments: u32,
    /// Read request units a second, all segments together (a unit is 4 KB, strongly consistent). Leave the table's other
    /// readers theirs.
    #[arg(long, value_name = "UNITS", default_value = "1000")]
    pub read_units_per_s: NonZeroU64,
    /// Bytes a second to each region's stream. A shard takes 1 MiB, live changes included.
    #[arg(long, value_name = "BYTES", default_value = "1048576")]
    pub bytes_per_s: NonZeroU64,
    /// Begin anew what a run of the same command before has left unfinished.
    #[arg(long)]
    pub start_over: bool,
    /// The regions' caches were emptied of these tables before: then a backfill that was asked for because changes were
    /// lost is made, too.
    #[arg(long)]
    pub was_emptied: bool,
    /// Say what it would cost, check that it can be done, and send nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// How to print the report.
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputFormat,
    /// A page that is not in every region's stream so soon after its read began is read again. Not a flag.
    #[arg(skip = SENT_WITHIN)]
    pub sent_within: Duration,
}

/// Carries out `backfill`.
///
/// # Errors
/// When it was refused, or could not be done to its end. What was done is done, and the next run goes on.
pub async fn backfill(args: Backfill, shutdown: CancellationToken) -> Result<Outcome, anyhow::Error> {
    let config: Config = args.config.load()?;
    match carry_out(&args, &config, &shutdown).await? {
        Finding::Estimate(estimate) => {
            tool::report(args.output, &estimate, || estimate.lines())?;
            Ok(Outcome::Done)
        }
        Finding::Report(report) => {
            tool::report(args.output, &report, || report.lines())?;
            Ok(if report.has_problems() { Outcome::Problems } else { Outcome::Done })
        }
    }
}

/// What a backfill has to say.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    /// What it would cost.
    Estimate(BackfillEstimate),
    /// What it did.
    Report(BackfillReport),
}

/// As [`backfill`], with the configuration loaded, and without printing.
///
/// # Errors
/// As [`backfill`].
pub async fn carry_out(
    args: &Backfill,
    config: &Config,
    shutdown: &CancellationToken,
) -> Result<Finding, anyhow::Error> {
    let choice = Choice::new(config, &args.tables, &args.regions, args.from.is_some())?;
    let preparing = Box::pin(Command::prepare(args, config, choice));
    let prepared = shutdown.run_until_cancelled(preparing).await;
    let command = prepared.context("stopped by a signal before anything was sent")??;
    if args.dry_run {
        return Ok(Finding::Estimate(command.estimate()));
    }
    Box::pin(command.run(shutdown)).await.map(Finding::Report)
}

/// What is to be done, checked.
struct Command<'a> {
    args: &'a Backfill,
    config: &'a Config,
    choice: Choice,
    dynamodb: Client,
    store: StateStore,
    dispatch: Dispatch,
    tables: Vec<BackfillTable>,
    list: Option<List>,
    /// What is asked for, as it was before anything was read.
    asked: BTreeMap<String, LaneState>,
}

/// Lists of keys, all of which are keys of the table.
struct List {
    files: Vec<KeyFile>,
    keys: u64,
}

impl<'a> Command<'a> {
    /// Looks at everything that is needed, so that what cannot be done is refused before anything is sent.
    async fn prepare(args: &'a Backfill, config: &'a Config, choice: Choice) -> Result<Self, anyhow::Error> {
        let dynamodb = Client::new(&sdk_config(&config.dynamodb).await);
        let store = StateStore::new(dynamodb.clone(), &config.state.table);
        let lanes: Vec<usize> = choice.lanes.iter().collect();
        let dispatch = Dispatch::connect(config, &lanes).await?;
        let dispatch = dispatch.limited(Some(args.bytes_per_s)).with_patience(DISPATCH_PATIENCE);
        let looks = choice.tables.iter().map(|table| target::look_up(&dynamodb, table));
        let looks = futures_util::future::join_all(looks).await;
        let (mut tables, mut problems) = (Vec::new(), Vec::new());
        for look in looks {
            match look {
                Ok(table) => tables.push(table),
                Err(error) => problems.push(error.to_string()),
            }
        }
        if let Err(error) = dispatch.check().await {
            problems.push(error.to_string());
        }
        let asked = store.lanes().await.context("is the state table that of a fleet that has run?")?;
        let names = choice.lanes.iter().filter_map(|lane| config.regions.get(lane));
        for (region, table) in names.flat_map(|region| tables.iter().map(move |table| (region, table))) {
            problems.extend(not_fed(&region.name, asked.get(&region.name), table));
        }
        if !problems.is_empty() {
            return Err(anyhow!("nothing was sent: {}", problems.join("; ")));
        }
        let list = match (&args.from, tables.first()) {
            (Some(from), Some(table)) => Some(List::read(from, &table.shape).await?),
            _ => None,
        };
        Ok(Self { args, config, choice, dynamodb, store, dispatch, tables, list, asked })
    }

    fn estimate(&self) -> BackfillEstimate {
        let of = |table: &BackfillTable| {
            let name = &table.stream.table;
            match &self.list {
                None => TableEstimate::of_scan(name, table.rows, table.bytes),
                Some(list) => TableEstimate::of_keys(name, list.keys, table.row_bytes().unwrap_or(0)),
            }
        };
        let regions = self.choice.lanes.iter().map(|lane| self.region(lane)).collect();
        let tables = self.tables.iter().map(of).collect();
        let (units, bytes) = (self.args.read_units_per_s.get(), self.args.bytes_per_s.get());
        BackfillEstimate::new(tables, regions, units, bytes)
    }

    async fn run(self, shutdown: &CancellationToken) -> Result<BackfillReport, anyhow::Error> {
        let (name, what) = self.job();
        if self.args.start_over {
            self.store.end_job(&name).await?;
        }
        let now_ms = now_ms();
        let job = self.store.begin_job(&name, &what, now_ms).await?;
        let resumed = job.began_ms < now_ms;
        let progress = Progress::start(&what, "rows", self.total());
        if resumed {
            let began = Moment::at_ms(job.began_ms);
            // What runs before did counts for how far it is, not for what this run comes to.
            let places = job.places.values().filter_map(|text| Place::from_text(text));
            progress.add(places.map(|place| place.rows).sum());
            progress.note(&format!("goes on with what was begun at {began} (--start-over begins anew)"));
        }
        let began = Instant::now();
        let stop = shutdown.child_token();
        let shared = Arc::new(Shared {
            units: Throttle::per_s(self.args.read_units_per_s),
            sent_within: self.args.sent_within,
            store: self.store.clone(),
            job: name.clone(),
            progress: progress.clone(),
            stop,
            dispatch: self.dispatch,
        });
        let mut tables = Vec::new();
        let command = Parts {
            args: self.args,
            config: self.config,
            choice: &self.choice,
            dynamodb: &self.dynamodb,
            list: self.list.as_ref(),
        };
        for table in &self.tables {
            let tally = run_parts(command.of(table, &job), self.args.segments, &shared).await?;
            tables.push(TableReport::new(&table.stream.table, tally, |lane| region_name(self.config, lane)));
        }
        progress.finish();
        let done = Done { began_ms: job.began_ms, resumed, was_emptied: self.args.was_emptied };
        let elapsed = began.elapsed();
        let rows: u64 = tables.iter().map(|table| table.rows_read).sum();
        let mut report = BackfillReport {
            resumed_from_ms: resumed.then_some(job.began_ms),
            tables,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            rows_per_s: per_s(rows, elapsed),
            made: Vec::new(),
            open: Vec::new(),
        };
        // A list says nothing of the rows that it does not name.
        if self.list.is_none() {
            let regions = self.choice.lanes.iter().map(|lane| region_name(self.config, lane));
            answer_asked(&self.store, regions, &self.tables, &self.asked, done, &mut report).await?;
        }
        self.store.end_job(&name).await?;
        Ok(report)
    }

    /// The job's name, and what it is for people. Rates may be others when it goes on.
    fn job(&self) -> (String, String) {
        let regions: Vec<String> = self.choice.lanes.iter().map(|lane| self.region(lane)).collect();
        let what = format!("backfill of {} to {}", self.choice.tables.join(", "), regions.join(", "));
        let segments = self.args.segments.to_string();
        let files = self.list.iter().flat_map(|list| &list.files);
        let files = files.map(|file| format!("{} {}", file.path.display(), file.bytes));
        let mut asked: Vec<String> = vec![self.choice.tables.join("\n"), regions.join("\n"), segments];
        // A table that was made again is another one.
        asked.extend(self.tables.iter().map(|table| table.stream.stream_arn.clone()).chain(files));
        let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
        (tool::job_name("backfill", &asked), what)
    }

    fn region(&self, lane: usize) -> String {
        region_name(self.config, lane)
    }

    /// About how many rows there are.
    fn total(&self) -> Option<u64> {
        let rows: u64 = match &self.list {
            Some(list) => list.keys,
            None => self.tables.iter().map(|table| table.rows).sum(),
        };
        Some(rows).filter(|&rows| rows > 0)
    }
}

fn region_name(config: &Config, lane: usize) -> String {
    config.regions.get(lane).map(|region| region.name.clone()).unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn per_s(rows: u64, elapsed: Duration) -> f64 {
    rows as f64 / elapsed.as_secs_f64().max(0.001)
}

/// Why a region must not be backfilled with a table yet: it does not get the table's changes on every shard, so a row that
/// changes after it was read would stay as it was.
fn not_fed(region: &str, lane: Option<&LaneState>, table: &BackfillTable) -> Option<String> {
    let stream = &table.stream;
    if lane.is_some_and(|lane| lane.begun.contains(&stream.stream_arn)) {
        return None;
    }
    Some(format!(
        "{region} does not get the changes of {} on every shard yet, so that rows would stay as they are: run it again \
         when an aggregator with this configuration has begun to feed it",
        stream.table
    ))
}

impl List {
    /// Reads it once, to the end: a list with a line that is no key is refused before anything is sent.
    async fn read(from: &Path, shape: &KeyShape) -> Result<Self, anyhow::Error> {
        let (from, shape) = (from.to_owned(), shape.clone());
        let mut blocking = JoinSet::new();
        blocking.spawn_blocking(move || Self::check(&from, &shape));
        let read = blocking.join_next().await.context("the reader of the list was not started")?;
        Ok(read.context("the reader of the list")??)
    }

    fn check(from: &Path, shape: &KeyShape) -> Result<Self, ConfigError> {
        let refused = |problems: Vec<LinesError>| ConfigError {
            problems: problems.iter().map(ToString::to_string).collect(),
        };
        let files = lines::files(from).map_err(|error| refused(vec![error]))?;
        let (mut keys, mut problems) = (0, Vec::new());
        for file in &files {
            let mut lines = match KeyLines::open(file, shape, 0) {
                Ok(lines) => lines,
                Err(error) => {
                    problems.push(error);
                    continue;
                }
            };
            loop {
                match lines.next_key() {
                    Ok(Some(_)) => keys += 1,
                    Ok(None) => break,
                    // The lines behind it can be read.
                    Err(
                        error @ LinesError::Line {
                            problem: LineProblem::Key(_) | LineProblem::Row(_), ..
                        },
                    ) => {
                        problems.push(error);
                    }
                    Err(error) => {
                        problems.push(error);
                        break;
                    }
                }
                if problems.len() >= PROBLEMS_TOLD_MAX {
                    return Err(refused(problems));
                }
            }
        }
        if problems.is_empty() { Ok(Self { files, keys }) } else { Err(refused(problems)) }
    }
}

/// Makes the parts of a job.
struct Parts<'a> {
    args: &'a Backfill,
    config: &'a Config,
    choice: &'a Choice,
    dynamodb: &'a Client,
    list: Option<&'a List>,
}

impl Parts<'_> {
    /// The parts of a table that are not done.
    fn of(&self, table: &BackfillTable, job: &Job) -> VecDeque<Part> {
        let stream = &table.stream;
        let filters = self.config.regions.iter().map(|region| region.filters.get(&stream.table));
        let maker = Arc::new(RowMaker {
            table: stream.table.as_str().into(),
            key: stream.key.clone(),
            feeds: Feeds::new(&stream.key, filters),
            lanes: self.choice.lanes,
        });
        let segments = self.args.segments;
        let at_a_time = self.list.map_or(segments as usize, |list| list.files.len().min(segments as usize));
        let size = PageSize::new(Some(self.args.bytes_per_s), at_a_time as u64, table.row_bytes());
        let part = |name: String, source: &dyn Fn(&At) -> Source| {
            let place = job.places.get(&name).and_then(|text| Place::from_text(text)).unwrap_or(Place::START);
            let source = source(&place.at);
            Part { name, source, maker: Arc::clone(&maker), size, place }
        };
        let parts: Vec<Part> = match self.list {
            Some(list) => {
                let of_file = |file: &KeyFile| {
                    let (client, shape, file) = (self.dynamodb.clone(), table.shape.clone(), file.clone());
                    let name = format!("{}#{}", stream.table, file.name);
                    part(name, &|at| {
                        let list =
                            KeyList::new(client.clone(), &stream.table, shape.clone(), file.clone(), at);
                        Source::Keys(Box::new(list))
                    })
                };
                list.files.iter().map(of_file).collect()
            }
            None => {
                let total = i32::try_from(segments).unwrap_or(1);
                let of_segment = |segment: i32| {
                    let (client, table) = (self.dynamodb.clone(), stream.table.clone());
                    let source = Segment { client, table, segment, segments: total };
                    part(format!("{}#{segment}", stream.table), &|_| Source::Segment(source.clone()))
                };
                (0..total).map(of_segment).collect()
            }
        };
        parts.into_iter().filter(|part| part.place.at != At::End).collect()
    }
}

/// Does parts, so many at a time. When one fails the others note where they are, and stop.
async fn run_parts(
    mut parts: VecDeque<Part>,
    at_a_time: u32,
    shared: &Arc<Shared>,
) -> Result<Tally, anyhow::Error> {
    let (mut running, mut tally, mut failed) = (JoinSet::new(), Tally::default(), None);
    loop {
        while running.len() < at_a_time as usize
            && failed.is_none()
            && let Some(part) = parts.pop_front()
        {
            running.spawn(part.run(Arc::clone(shared)));
        }
        let Some(ended) = running.join_next().await else { break };
        match ended {
            Ok(Ok(part)) => tally.add(&part),
            Ok(Err(error)) => fail(&mut failed, error.into(), shared),
            Err(panicked) => fail(&mut failed, panicked.into(), shared),
        }
    }
    match failed {
        None => Ok(tally),
        Some(error) => Err(error),
    }
}

/// The first error is told; those that follow from it say only that they were stopped.
fn fail(failed: &mut Option<anyhow::Error>, error: anyhow::Error, shared: &Shared) {
    shared.stop.cancel();
    let is_stop = |error: &anyhow::Error| matches!(error.downcast_ref(), Some(PartError::Stopped));
    if failed.as_ref().is_none_or(|first| is_stop(first) && !is_stop(&error)) {
        *failed = Some(error);
    }
}

/// Says which of the backfills that were asked for are made.
async fn answer_asked(
    store: &StateStore,
    regions: impl Iterator<Item = String>,
    tables: &[BackfillTable],
    before: &BTreeMap<String, LaneState>,
    done: Done,
    report: &mut BackfillReport,
) -> Result<(), anyhow::Error> {
    let now = store.lanes().await?;
    let mut streams = BTreeMap::new();
    for table in tables {
        // What was lost of an earlier stream of the table is in the table, too.
        for generation in store.generations(&table.stream.table).await? {
            streams.insert(generation.stream, table.stream.table.clone());
        }
    }
    let none = LaneState::default();
    for region in regions {
        let (before, now) = (before.get(&region).unwrap_or(&none), now.get(&region).unwrap_or(&none));
        for open in asked::open(&region, &streams, before, now, done) {
            let is_made = open.is_made && store.backfill_made(&region, &open.stream, open.latest_ms).await?;
            match is_made {
                true => report.made.push(open.asked),
                false => report.open.push(open.asked),
            }
        }
    }
    Ok(())
}
