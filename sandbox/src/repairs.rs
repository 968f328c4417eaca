//! `sandbox repairs`: what operators run when data is missing or wrong, on a world under load, and whether it mends it.
//!
//! Everything is real: the daemons, the commands of their programs, Redis, an embedded DynamoDB and Kinesis. What a
//! command says of its own success is not believed: in the end every row of every region is compared with the table, by
//! a reader of this crate's own.

mod run;
mod tool;
mod contents;
mod flush;
mod planted;
mod dropped;
mod healthy;

use std::io;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::daemon::DaemonError;
use crate::report::{Output, Report};
use crate::usage::{self, BUILD};
use crate::verify::VerifyError;
use crate::workload::WorkloadError;
use crate::world::{World, WorldError, WorldOptions};
use run::Run;

/// What goes wrong, and is mended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// A region's Redis is flushed, and backfilled.
    #[default]
    Flush,
    /// Wrong entries are planted by hand, found, explained and repaired.
    Planted,
    /// A region's records are lost behind everybody's back, and replayed.
    Dropped,
    /// Nothing goes wrong, and verification says so.
    Healthy,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct RepairsOptions {
    /// What happens. It happens in the last region.
    pub scenario: Scenario,
    /// Target regions.
    pub regions: usize,
    /// Rows of the table before the load begins.
    pub rows: u64,
    /// Writes a second.
    pub rate: u32,
    /// How long the load lasts before anything happens; none: as long as the scenario needs.
    pub baseline: Option<Duration>,
    /// How long records are lost.
    pub drop: Duration,
    /// Keys that the verification of a healthy region looks at.
    pub sample: u64,
    /// When it looks again, in the words of its flag: `1m,5m,10m`.
    pub looks: String,
    /// Read units a second that the backfill may use.
    pub read_units_per_s: u64,
    /// Bytes a second that it may send.
    pub bytes_per_s: u64,
    /// Seed of the traffic.
    pub seed: u64,
    /// How the report is printed.
    pub output: Output,
}

impl Default for RepairsOptions {
    fn default() -> Self {
        Self {
            scenario: Scenario::default(),
            regions: 2,
            rows: 100_000,
            rate: 1_000,
            baseline: None,
            drop: Duration::from_secs(600),
            sample: 300_000,
            looks: "1m,5m,10m".to_owned(),
            read_units_per_s: 1_000_000,
            bytes_per_s: 64 << 20,
            seed: 1,
            output: Output::default(),
        }
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum RepairsError {
    /// The world did not come up.
    #[error(transparent)]
    World(#[from] WorldError),
    /// A command could not be run.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The traffic failed.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// The comparison failed.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// A region's Redis does not answer.
    #[error("the Redis of a region does not answer: {0}")]
    Redis(#[from] redis::RedisError),
    /// A command's report is not what this crate can read.
    #[error("the report of a command is not understood: {reason}\n{shown}")]
    Tool {
        /// What is missing.
        reason: String,
        /// The command and what it printed.
        shown: String,
    },
    /// A write of the scenario's own.
    #[error("cannot write to the table: {reason}")]
    Write {
        /// What DynamoDB answered.
        reason: String,
    },
    /// What was waited for does not come.
    #[error("not after {waited:?}: {what}\n{tails}")]
    Late {
        /// What.
        what: String,
        /// How long it was waited for.
        waited: Duration,
        /// What the daemons printed.
        tails: String,
    },
    /// A daemon or a server ended by itself.
    #[error("{what}\n{tails}")]
    Ended {
        /// Which, and how.
        what: String,
        /// What the daemons printed.
        tails: String,
    },
    /// A task of the sandbox itself ended by a panic.
    #[error("a task of the sandbox failed: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// The output.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A signal came before the end.
    #[error("interrupted; everything is stopped")]
    Interrupted,
}

/// Runs a scenario. `stop` ends it early, with everything stopped.
///
/// # Errors
/// See [`RepairsError`]; every process is stopped in any case.
pub async fn run(options: RepairsOptions, stop: CancellationToken) -> Result<Report, RepairsError> {
    let mut report = Report::begin(options.output, conditions(&options))?;
    let mut world = tokio::select! {
        world = start(&options) => world?,
        () = stop.cancelled() => return Err(RepairsError::Interrupted),
    };
    let ran = tokio::select! {
        ran = scenario(&mut world, &mut report, &options) => ran,
        () = stop.cancelled() => Err(RepairsError::Interrupted),
    };
    if (ran.is_err() || !report.passes()) && !stop.is_cancelled() {
        world.keep_directory();
        report.note(format!("logs are kept in {}", world.directory().display()))?;
    }
    let stopped = world.stop().await;
    ran?;
    stopped?;
    report.finish()?;
    Ok(report)
}

/// A cache-writer of the sandbox may read the master as fast as this machine allows: nobody bills it.
const FILLS: [&str; 3] =
    ["master.queue_keys_max=1000000", "master.read_units_per_second_max=100000", "master.calls_max=16"];

/// Enough to see that everything runs.
const BASELINE: Duration = Duration::from_secs(10);

async fn start(options: &RepairsOptions) -> Result<World, RepairsError> {
    let world = WorldOptions {
        regions: options.regions,
        fault_proxies: options.scenario == Scenario::Dropped,
        ..WorldOptions::default()
    };
    let mut world = World::start_servers(&world).await?;
    for region in world.regions_mut() {
        FILLS.iter().for_each(|setting| region.cache_writer_mut().set(setting));
    }
    world.start_daemons()?;
    world.wait_until_ready().await?;
    Ok(world)
}

async fn scenario(
    world: &mut World,
    report: &mut Report,
    options: &RepairsOptions,
) -> Result<(), RepairsError> {
    let name = match options.scenario {
        Scenario::Flush => "flush",
        Scenario::Planted => "planted",
        Scenario::Dropped => "dropped",
        Scenario::Healthy => "healthy",
    };
    report.scenario(name)?;
    let baseline = match options.scenario {
        Scenario::Flush => flush::BASELINE,
        Scenario::Planted | Scenario::Dropped | Scenario::Healthy => BASELINE,
    };
    let run = Run::start(world, report, options, options.baseline.unwrap_or(baseline)).await?;
    match options.scenario {
        Scenario::Flush => flush::run(run).await,
        Scenario::Planted => planted::run(run).await,
        Scenario::Dropped => dropped::run(run).await,
        Scenario::Healthy => healthy::run(run).await,
    }
}

fn conditions(options: &RepairsOptions) -> Vec<String> {
    let RepairsOptions { regions, rows, rate, .. } = options;
    let cores = usage::cores();
    vec![
        format!("{regions} regions, each a Kinesis, a cache-writer and a Redis; one aggregator"),
        format!("{rows} profiles in an embedded DynamoDB, and {rate} writes a second"),
        format!("{BUILD}; everything shares {cores}"),
    ]
}
