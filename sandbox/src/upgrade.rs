//! `sandbox upgrade`: a rolling upgrade of whole fleets under load, and what the readers of a region notice.
//!
//! Three aggregators and three cache-writers of the previous version read a scripted stream at a steady rate and write a
//! region's cache. Then each is restarted with the present version, one after another, by the operators' own command
//! (`aggregator upgrade`, `cache-writer upgrade`), which takes the fleet's lock and waits until all is settled. How late
//! an update is does no daemon tell: the script knows when it put it, and the region's cache shows when it is there.
//!
//! The previous version is built from the repository's history ([`previous`]).

mod previous;
mod rig;
mod probe;
mod roll;
mod verdict;

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub use previous::{Choice, PreviousError};

use crate::daemon::{CommandOutput, DaemonError, WorkerTiming};
use crate::master::MasterError;
use crate::process::ProcessError;
use crate::regions::RegionsError;
use crate::report::{Output, Report, Target};
use crate::streams::ScriptError;
use crate::usage::{self, BUILD};
use crate::world::WorldError;
use rig::Rig;
use verdict::Rolled;

/// What to run.
#[derive(Clone, Debug)]
pub struct UpgradeOptions {
    /// Which version is upgraded.
    pub previous: Choice,
    /// Aggregators, and as many cache-writers.
    pub workers: usize,
    /// Updates a second.
    pub rate: u64,
    /// How long everything is watched before.
    pub baseline: Duration,
    /// Rows of the table.
    pub keys: u32,
    /// Bytes of a row.
    pub image_bytes: usize,
    /// Shards of the table's stream.
    pub table_shards: usize,
    /// Shards of the region's stream.
    pub target_shards: u32,
    /// Whether a worker of each fleet is restarted at a time. Otherwise first the aggregators, then the cache-writers.
    pub together: bool,
    /// The `[worker]` section of all.
    pub timing: WorkerTiming,
    /// What else the aggregators are told.
    pub settings: Vec<String>,
    /// What readers may notice at most.
    pub worst: Worst,
    /// Seed of the keys.
    pub seed: u64,
    /// How the report is printed.
    pub output: Output,
}

/// What readers of the region may notice at most.
#[derive(Clone, Copy, Debug)]
pub struct Worst {
    /// By so much the 99th percentile of a second's lags may rise.
    pub lag_increase: Duration,
    /// For so long the watermark may stand.
    pub standing: Duration,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The previous version.
    #[error(transparent)]
    Previous(#[from] PreviousError),
    /// The table and its stream.
    #[error(transparent)]
    Master(#[from] MasterError),
    /// The script.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// The load or the comparison.
    #[error(transparent)]
    Regions(#[from] RegionsError),
    /// The region did not come up.
    #[error(transparent)]
    World(#[from] WorldError),
    /// A daemon could not be started.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// A process could not be signalled.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The region's Redis.
    #[error("cannot read the region's Redis: {0}")]
    Redis(#[from] redis::RedisError),
    /// The operators' command did not do what it should.
    #[error("{worker} was not upgraded:\n{output}")]
    Refused {
        /// The worker.
        worker: String,
        /// What it printed.
        output: Box<CommandOutput>,
    },
    /// A worker that was told to stop did not end well.
    #[error("{worker} was told to stop and ended with {status:?}")]
    Ended {
        /// The worker.
        worker: String,
        /// How; `None`: it did not run.
        status: Option<ExitStatus>,
    },
    /// A process ended by itself, or something did not come in time.
    #[error("{what}\n{tails}")]
    NotSeen {
        /// What.
        what: String,
        /// What the daemons printed.
        tails: String,
    },
    /// A task of the sandbox itself ended by a panic.
    #[error("a task of the sandbox failed: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// The directory, a port, or the output.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A signal came before the end.
    #[error("interrupted; everything is stopped")]
    Interrupted,
}

/// Everything is read and written at the rate asked for within this time, or it never will.
const WARM_UP_PATIENCE: Duration = Duration::from_secs(120);
/// After the last update everything must be in the region within this time.
const SETTLE_PATIENCE: Duration = Duration::from_secs(300);
/// After the last restart it is watched for so long.
const AFTER: Duration = Duration::from_secs(3);

/// Runs the scenario. `stop` ends it early, with everything stopped.
///
/// # Errors
/// See [`UpgradeError`]; every process is stopped in any case.
pub async fn run(options: UpgradeOptions, stop: CancellationToken) -> Result<Report, UpgradeError> {
    let mut report = Report::begin(options.output, conditions(&options))?;
    let preparing = previous::prepare(&options.previous);
    let mut previous = stop.run_until_cancelled(preparing).await.ok_or(UpgradeError::Interrupted)??;
    let mut rig = Rig::start(&options, &mut previous).await?;
    report.note(previous.in_words())?;
    report.fact("previous", previous.in_json());
    let ran = tokio::select! {
        ran = upgrade(&mut rig, &mut report, &options) => ran,
        () = stop.cancelled() => Err(UpgradeError::Interrupted),
    };
    let (errors, warnings) = rig.complaints();
    if (ran.is_err() || !report.passes()) && !stop.is_cancelled() {
        rig.keep_directory();
        report.note(format!("logs are kept in {}", rig.directory().display()))?;
    }
    let stopped = rig.stop().await;
    ran?;
    stopped?;
    report.note(format!("the daemons logged {errors} errors and {warnings} warnings"))?;
    report.finish()?;
    Ok(report)
}

fn conditions(options: &UpgradeOptions) -> Vec<String> {
    let UpgradeOptions { workers, rate, table_shards, target_shards, keys, image_bytes, .. } = options;
    let order = match options.together {
        true => "one of each fleet at a time",
        false => "one after another, the aggregators first",
    };
    vec![
        format!(
            "{workers} aggregators and {workers} cache-writers, restarted {order}; {rate} updates a second"
        ),
        format!(
            "{keys} rows of {image_bytes} bytes, in a stream of {table_shards} shards; one region: a Kinesis of \
             {target_shards} shards, a Redis"
        ),
        format!("{BUILD}; everything shares {}", usage::cores()),
    ]
}

async fn upgrade(rig: &mut Rig, report: &mut Report, options: &UpgradeOptions) -> Result<(), UpgradeError> {
    report.scenario("rolling upgrade")?;
    rig.start_daemons()?;
    // What the first connections, leases and listings take is none of the load's.
    rig.source().put(1)?;
    rig.has_everything(WARM_UP_PATIENCE).await?;
    let load = rig.source().start_load(options.rate);
    rig.is_live(WARM_UP_PATIENCE).await?;
    let probe = rig.probe(options.rate).await?;
    let put_before = rig.source().ledger().len();
    sleep(options.baseline).await;
    let put = rig.source().ledger().len() - put_before;
    let rate = put as f64 / options.baseline.as_secs_f64();
    report.figure(
        "updates put a second",
        "/s",
        vec![rate],
        Some(Target::AtLeast(0.95 * options.rate as f64)),
    )?;
    let began = tokio::time::Instant::now();
    let rolled: Vec<Rolled> = roll::all(rig, report, options.together).await?;
    sleep(AFTER).await;
    let seen = probe.stop().await?;
    load.stop().await?;
    let took = rig.has_everything(SETTLE_PATIENCE).await;
    verdict::tell(report, &seen, &rolled, began, options.worst)?;
    match took {
        Ok(took) => report.figure(
            "from the last update until the region had everything",
            "s",
            vec![took.as_secs_f64()],
            None,
        )?,
        // What is missing is counted below.
        Err(missing @ UpgradeError::NotSeen { .. }) => report.violation(missing.to_string())?,
        Err(error) => return Err(error),
    }
    let none = Some(Target::AtMost(0.0));
    let comparison = rig.compare().await?;
    report.figure("rows compared", "rows", vec![comparison.keys as f64], None)?;
    report.figure("mismatches", "rows", vec![comparison.mismatches as f64], none)?;
    report.figure("rows missing", "rows", vec![comparison.missing as f64], none)?;
    report.figure("records set aside", "records", vec![rig.set_aside() as f64], none)?;
    for explained in comparison.explained {
        report.note(explained)?;
    }
    Ok(())
}
