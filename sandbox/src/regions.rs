//! `sandbox regions`: one of several regions fails, and what that does to the others, to the aggregator, and to what
//! the region has in the end.
//!
//! The aggregator is the real program, as a process. What it reads is a script at a steady rate (the fake of DynamoDB
//! Streams); what it writes to are regions behind proxies with faults: sinks inside this process, which leave a small
//! machine enough for the aggregator, or whole regions with cache-writers and Redis servers. How far a region is behind
//! is not asked of any daemon: the script knows when it put each update, and the region shows whether it has it.

mod ledger;
mod source;
mod cache;
mod sink;
mod region;
mod watch;
mod verdict;
mod rig;
mod run;
mod outage;
mod throttle;

use std::io;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use ledger::{Comparison, Content, Held, Ledger, Order};
pub(crate) use ledger::{KEY, key_text};
pub use region::{Region, RegionKind};
pub(crate) use region::{TABLE, compare_cache, held};
pub use rig::{Rig, RigOptions};
pub use source::{Load, Source};
pub use watch::{RegionSample, Sample};

use crate::daemon::DaemonError;
use crate::master::MasterError;
use crate::process::ProcessError;
use crate::report::{Output, Report};
use crate::streams::ScriptError;
use crate::usage::{self, BUILD};
use crate::world::WorldError;
use verdict::Allowance;

/// What happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// One region is black-holed, and comes back.
    #[default]
    Outage,
    /// The same, with `kill -9` of the aggregator in the middle.
    OutageKill,
    /// One region's stream takes a tenth of what it needs to, then enough.
    Throttle,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct RegionsOptions {
    /// What happens.
    pub scenario: Scenario,
    /// Target regions. The last one is the one that fails.
    pub regions: usize,
    /// Updates a second.
    pub rate: u64,
    /// How long everything is watched before.
    pub baseline: Duration,
    /// How long the region is gone.
    pub outage: Duration,
    /// How long it throttles.
    pub throttle: Duration,
    /// How long a region may stall a shard before it is parked.
    pub park_after: Duration,
    /// The most bytes that the aggregator may have read and not sent everywhere.
    pub queue_bytes_max: u64,
    /// What is brought up; its number of regions and its settings are taken from here.
    pub rig: RigOptions,
    /// How the report is printed.
    pub output: Output,
}

impl RegionsOptions {
    fn allowance(&self, stall_more: Duration) -> Allowance {
        Allowance {
            // What catching up may hold comes to it, by default a quarter.
            queue_mib: 1.25 * self.queue_bytes_max as f64 / f64::from(1 << 20),
            park_after_s: (self.park_after + stall_more).as_secs_f64(),
            rate: self.rate as f64,
        }
    }

    /// A region that catches up at twice the rate of the load needs as long as it was gone.
    fn catch_up_patience(&self) -> Duration {
        Duration::from_secs(120) + 3 * self.outage.max(self.throttle)
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum RegionsError {
    /// Fewer than one region or more than there are names for.
    #[error("{regions} regions: choose 2 to 8")]
    Regions {
        /// The number asked for.
        regions: usize,
    },
    /// The table and its stream.
    #[error(transparent)]
    Master(#[from] MasterError),
    /// The script.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// A whole region did not come up.
    #[error(transparent)]
    World(#[from] WorldError),
    /// The aggregator could not be started.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// It could not be signalled.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A region's Redis.
    #[error("cannot read a region's Redis: {0}")]
    Redis(#[from] redis::RedisError),
    /// The fleet's state table.
    #[error("cannot read the state table: {reason}")]
    State {
        /// What DynamoDB answered.
        reason: String,
    },
    /// A process ended by itself, or not with success when it was told to end.
    #[error("{what}\n{tails}")]
    Ended {
        /// Which, and how.
        what: String,
        /// What the aggregators printed.
        tails: String,
    },
    /// A region does not get what was put.
    #[error("{what} after {waited:?}\n{tails}")]
    Behind {
        /// Which, and how far.
        what: String,
        /// How long it was waited for.
        waited: Duration,
        /// What the aggregators printed.
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

/// Runs a scenario. `stop` ends it early, with everything stopped.
///
/// # Errors
/// See [`RegionsError`]; every process is stopped in any case.
pub async fn run(options: RegionsOptions, stop: CancellationToken) -> Result<Report, RegionsError> {
    if options.regions < 2 {
        return Err(RegionsError::Regions { regions: options.regions });
    }
    let mut report = Report::begin(options.output, conditions(&options))?;
    let mut rig_options = RigOptions { regions: options.regions, ..options.rig.clone() };
    let own = [
        format!("queue.bytes_max={}", options.queue_bytes_max),
        format!("parking.after_ms={}", options.park_after.as_millis()),
    ];
    // What is given on the command line comes later, and wins.
    rig_options.settings.splice(..0, own);
    let mut rig = Rig::start(&rig_options).await?;
    let ran = tokio::select! {
        ran = scenario(&mut rig, &mut report, &options) => ran,
        () = stop.cancelled() => Err(RegionsError::Interrupted),
    };
    let (errors, warnings) = rig.complaints();
    if (ran.is_err() || !report.passes()) && !stop.is_cancelled() {
        rig.keep_directory();
        report.note(format!("logs are kept in {}", rig.directory().display()))?;
    }
    let stopped = rig.stop().await;
    ran?;
    stopped?;
    report.note(format!("the aggregator logged {errors} errors and {warnings} warnings"))?;
    report.finish()?;
    Ok(report)
}

async fn scenario(rig: &mut Rig, report: &mut Report, options: &RegionsOptions) -> Result<(), RegionsError> {
    match options.scenario {
        Scenario::Outage => outage::run(rig, report, options, false).await,
        Scenario::OutageKill => outage::run(rig, report, options, true).await,
        Scenario::Throttle => throttle::run(rig, report, options).await,
    }
}

fn conditions(options: &RegionsOptions) -> Vec<String> {
    let RegionsOptions { regions, rate, rig, .. } = options;
    let cores = usage::cores();
    let kind = match rig.kind {
        RegionKind::Sink => "each a sink that applies records at once",
        RegionKind::Full => "each a Kinesis, a cache-writer and a Redis",
    };
    vec![
        format!("{regions} regions, {kind}, {} shards each; {rate} updates a second", rig.target_shards),
        format!(
            "{} rows of {} bytes, in a stream of {} shards, which keeps every record",
            rig.keys, rig.image_bytes, rig.table_shards
        ),
        format!("{BUILD}; everything shares {cores}"),
    ]
}
