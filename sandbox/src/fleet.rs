//! `sandbox fleet`: how a fleet of aggregators starts, loses a member, rests, and is restarted.
//!
//! The workers are the real program, as processes. What they talk to is in this process: the fake of DynamoDB
//! Streams with as many shards as asked for, a DynamoDB in memory that counts its calls, and a Kinesis. Who reads
//! which shard is what the fake sees: each worker signs with a key of its own. Nothing that a worker says of itself
//! is believed.

mod rig;
mod load;
mod start;
mod handover;
mod idle;
mod rolling;

use std::io;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::checkpoints::CheckError;
use crate::daemon::DaemonError;
use crate::kinesis::KinesisError;
use crate::master::MasterError;
use crate::process::ProcessError;
use crate::report::{Output, Report};
use crate::streams::ScriptError;
use crate::usage::{self, BUILD};
use handover::Going;
use rig::Rig;

/// What to measure. Each begins with a cold start, which makes the leases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// All of them, one after the other.
    #[default]
    All,
    /// From starting all workers until every live shard is read.
    Start,
    /// `kill -9` of one worker.
    Kill,
    /// A graceful stop of one worker.
    Stop,
    /// What the fleet costs while nothing happens.
    Idle,
    /// A restart of one worker after the other, under load.
    Rolling,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct FleetOptions {
    /// What to measure.
    pub scenario: Scenario,
    /// Shards that are open.
    pub live: usize,
    /// Shards that are listed for each open one: itself and its ancestors.
    pub generations: usize,
    /// Processes.
    pub workers: usize,
    /// How often each scenario is repeated, except for the cold start and the idle one.
    pub runs: usize,
    /// How long the idle fleet is watched.
    pub idle: Duration,
    /// The workers' lease duration.
    pub lease_duration_ms: u64,
    /// The pause between their heartbeats.
    pub heartbeat_interval_ms: u64,
    /// The longest pause between two of their looks at the leases.
    pub sync_interval_ms: u64,
    /// The longest pause between two reads of an idle shard.
    pub idle_poll_max_ms: u64,
    /// The load of the rolling restart.
    pub records_per_second: u64,
    /// How many shards get it.
    pub loaded_shards: usize,
    /// How large an item is.
    pub image_bytes: usize,
    /// How the report is printed.
    pub output: Output,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// A look into the state table.
    #[error("cannot read the state table: {0}")]
    State(#[from] dynoxide::DynoxideError),
    /// The embedded Kinesis.
    #[error(transparent)]
    Kinesis(#[from] KinesisError),
    /// The fake of DynamoDB Streams.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// The table and its stream.
    #[error(transparent)]
    Master(#[from] MasterError),
    /// A worker could not be started.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// A worker could not be signalled.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// What came into Kinesis could not be read.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// A worker ended by itself, or not with success when it was told to end.
    #[error("{worker} ended with {status}. Its last lines:\n{tail}")]
    Ended {
        /// Its name.
        worker: String,
        /// How.
        status: String,
        /// What it printed.
        tail: String,
    },
    /// What the fleet should do was not seen.
    #[error("not seen within {waited:?}: {what}")]
    NotSeen {
        /// What.
        what: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Nothing can be measured.
    #[error("a fleet has at least two workers and a live shard for each")]
    NoWorkers,
    /// A task of the sandbox itself ended by a panic.
    #[error("a task of the sandbox failed: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// The directory of the fleet, or the output.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A signal came before the end.
    #[error("interrupted; everything is stopped")]
    Interrupted,
}

/// Runs the benchmark. `stop` ends it early, with everything stopped.
///
/// # Errors
/// See [`FleetError`]; every process is stopped in any case.
pub async fn run(options: FleetOptions, stop: CancellationToken) -> Result<Report, FleetError> {
    if options.workers < 2 || options.live < options.workers || options.generations == 0 || options.runs == 0
    {
        return Err(FleetError::NoWorkers);
    }
    let mut report = Report::begin(options.output, conditions(&options))?;
    let mut rig = Rig::start(&options).await?;
    let measured = tokio::select! {
        measured = measure(&mut rig, &mut report) => measured,
        () = stop.cancelled() => Err(FleetError::Interrupted),
    };
    let (errors, warnings) = rig.complaints();
    if (measured.is_err() || !report.passes()) && !stop.is_cancelled() {
        rig.keep_directory();
        report.note(format!("logs are kept in {}", rig.directory().display()))?;
    }
    let stopped = rig.stop().await;
    measured?;
    stopped?;
    report.note(format!("the workers logged {errors} errors and {warnings} warnings"))?;
    report.finish()?;
    Ok(report)
}

fn conditions(options: &FleetOptions) -> Vec<String> {
    let FleetOptions { live, generations, workers, runs, .. } = options;
    let cores = usage::cores();
    vec![
        format!("{live} live shards, {} listed, {workers} workers as processes", live * generations),
        format!(
            "lease_duration_ms {}, heartbeat_interval_ms {}, sync_interval_ms {}, idle_poll_max_ms {}, else the defaults",
            options.lease_duration_ms,
            options.heartbeat_interval_ms,
            options.sync_interval_ms,
            options.idle_poll_max_ms
        ),
        format!("{BUILD}; runs of each scenario: {runs}; everything shares {cores}"),
    ]
}

async fn measure(rig: &mut Rig, report: &mut Report) -> Result<(), FleetError> {
    let scenario = rig.options.scenario;
    let is_wanted = |of| scenario == of || scenario == Scenario::All;
    start::cold(rig, report).await?;
    if is_wanted(Scenario::Start) {
        start::warm(rig, report).await?;
    }
    if is_wanted(Scenario::Kill) {
        handover::run(rig, report, Going::Killed).await?;
    }
    if is_wanted(Scenario::Stop) {
        handover::run(rig, report, Going::Stopped).await?;
    }
    if is_wanted(Scenario::Idle) {
        idle::run(rig, report).await?;
    }
    if is_wanted(Scenario::Rolling) {
        rolling::run(rig, report).await?;
    }
    Ok(())
}

/// Waits until each running worker has its part of all leases; returns how long that took. That it does not come
/// is a broken promise.
async fn expect_balance(rig: &mut Rig, report: &mut Report) -> Result<Option<Duration>, FleetError> {
    let (balanced, shares) = rig.balanced().await?;
    if balanced.is_none() {
        report.violation(format!("the leases are not balanced: {}", rig::tell(&shares)))?;
    }
    Ok(balanced)
}
